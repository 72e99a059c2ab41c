//! Reading the log from its beginning to where it ends now, as fast as it comes: several partitions at a time, and
//! ahead of whoever does something with the records. No group is involved, so nobody's position changes.

use std::sync::Arc;

use futures::StreamExt;
use tokio::sync::mpsc;

use super::{Batch, EventLog, LogError, Partition};

/// Records that are read at a time.
const AT_ONCE: usize = 2_000;
/// Batches that are read ahead.
const AHEAD: usize = 4;
/// Partitions that are read at the same time.
const PARTITIONS: usize = 4;

/// A part of a partition: from its first offset up to, and without, its last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stretch {
    pub partition: Partition,
    pub from: i64,
    pub to: i64,
}

impl Stretch {
    /// Everything in these topics up to now. A topic that isn't there has nothing.
    ///
    /// # Errors
    /// If the log doesn't answer.
    pub async fn all(log: &dyn EventLog, topics: &[String]) -> Result<Vec<Self>, LogError> {
        let mut stretches = Vec::new();
        for topic in topics {
            let marks = log.watermarks(topic).await?;
            stretches.extend(marks.into_iter().map(|(partition, from, to)| Self { partition, from, to }));
        }
        Ok(stretches)
    }

    /// How many records that is.
    #[must_use]
    pub fn records(&self) -> u64 {
        u64::try_from(self.to - self.from).unwrap_or_default()
    }
}

/// Records on their way from the log.
pub struct Scan {
    batches: mpsc::Receiver<Result<Batch, LogError>>,
    reading: tokio::task::JoinHandle<()>,
}

impl Scan {
    /// Begins to read: each partition in order, several of them mixed.
    #[must_use]
    pub fn of(log: Arc<dyn EventLog>, stretches: Vec<Stretch>) -> Self {
        let (read, batches) = mpsc::channel(AHEAD);
        let reading = tokio::spawn(async move { log.read_all(stretches, read).await });
        Self { batches, reading }
    }

    /// The next records of some partition; `None` after the last.
    ///
    /// # Errors
    /// If the log doesn't answer.
    pub async fn next(&mut self) -> Result<Option<Batch>, LogError> {
        self.batches.recv().await.transpose()
    }
}

impl Drop for Scan {
    fn drop(&mut self) {
        self.reading.abort();
    }
}

/// Reads each stretch with [`EventLog::read`].
pub(super) async fn one_by_one<L: EventLog + ?Sized>(
    log: &L,
    stretches: Vec<Stretch>,
    read: mpsc::Sender<Result<Batch, LogError>>,
) {
    let each = futures::stream::iter(stretches);
    each.for_each_concurrent(PARTITIONS, |stretch| read_stretch(log, stretch, &read)).await;
}

async fn read_stretch<L: EventLog + ?Sized>(log: &L, stretch: Stretch, read: &mpsc::Sender<Result<Batch, LogError>>) {
    let mut next = stretch.from;
    while next < stretch.to {
        let batch = log.read(&stretch.partition, next, AT_ONCE).await.map(|mut records| {
            records.retain(|stored| stored.offset < stretch.to);
            Batch { partition: stretch.partition.clone(), records, lease: 0 }
        });
        match &batch {
            // Transactions leave offsets without records; then there is no more to come.
            Ok(batch) if batch.records.is_empty() => return,
            Ok(batch) => next = batch.records.last().map_or(stretch.to, |stored| stored.offset + 1),
            Err(_) => next = stretch.to,
        }
        if read.send(batch).await.is_err() {
            return;
        }
    }
}
