//! Reading the log from its beginning to where it ends now, as fast as it comes: several partitions at a time, and
//! ahead of whoever does something with the records. No group is involved, so nobody's position changes.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

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

/// How often it is looked for more, where the log doesn't say by itself.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Records as they are appended.
pub struct Tail {
    batches: mpsc::Receiver<Result<Batch, LogError>>,
    reading: tokio::task::JoinHandle<()>,
}

impl Tail {
    /// Begins to read at these offsets.
    #[must_use]
    pub fn of(log: Arc<dyn EventLog>, from: Vec<(Partition, i64)>) -> Self {
        let (read, batches) = mpsc::channel(AHEAD);
        let reading = tokio::spawn(async move { log.follow(from, read).await });
        Self { batches, reading }
    }

    /// The next records of some partition, as soon as there are any. After an error there is no more to come.
    ///
    /// # Errors
    /// If the log doesn't answer.
    pub async fn next(&mut self) -> Result<Batch, LogError> {
        let ended = || LogError::Unavailable("it can't be followed any longer".to_owned());
        self.batches.recv().await.unwrap_or_else(|| Err(ended()))
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        self.reading.abort();
    }
}

/// Looks at the ends of the partitions again and again, and reads what is new with [`EventLog::read`].
pub(super) async fn look_and_read<L: EventLog + ?Sized>(
    log: &L,
    from: Vec<(Partition, i64)>,
    read: mpsc::Sender<Result<Batch, LogError>>,
) {
    let topics: BTreeSet<String> = from.iter().map(|(partition, _)| partition.topic.clone()).collect();
    let mut next: HashMap<Partition, i64> = from.into_iter().collect();
    loop {
        let mut more = false;
        for topic in &topics {
            let marks = match log.watermarks(topic).await {
                Ok(marks) => marks,
                Err(error) => return drop(read.send(Err(error)).await),
            };
            for (partition, _, end) in marks {
                let Some(next) = next.get_mut(&partition).filter(|next| **next < end) else { continue };
                let batch = log.read(&partition, *next, AT_ONCE).await;
                let batch = batch.map(|records| Batch { partition, records, lease: 0 });
                more |= batch.as_ref().is_ok_and(|batch| batch.records.len() >= AT_ONCE);
                let last = batch.as_ref().ok().and_then(|batch| batch.records.last()).map(|stored| stored.offset);
                let failed = batch.is_err();
                if last.is_some() || failed {
                    let nobody_listens = read.send(batch).await.is_err();
                    if nobody_listens || failed {
                        return;
                    }
                }
                // Transactions leave offsets without records.
                *next = last.map_or(end, |last| last + 1);
            }
        }
        // In a storm there is always something new; to read it piece by piece would cost more than to write it.
        if !more {
            tokio::select! { () = read.closed() => return, () = tokio::time::sleep(LOOK_EVERY) => {} }
        }
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
