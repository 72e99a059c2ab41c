//! The event log as everybody here sees it: topics of partitions of records, appended durably, read by groups that
//! remember how far they have come. Apache Kafka is one; the embedded one needs nothing installed.

mod embedded;
mod kafka;
mod scan;

use std::sync::Arc;

pub use embedded::EmbeddedLog;
pub use kafka::KafkaLog;
pub use scan::{Scan, Stretch, Tail};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

/// A record on the log.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    pub key: Option<Vec<u8>>,
    pub headers: Vec<(String, Vec<u8>)>,
    pub value: Option<Vec<u8>>,
}

impl Record {
    /// The first header of this name.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_slice())
    }
}

/// A partition of a topic.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Partition {
    pub topic: String,
    pub number: i32,
}

/// A record and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    pub offset: i64,
    pub record: Record,
}

/// Records of one partition, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    pub partition: Partition,
    /// Never empty.
    pub records: Vec<Stored>,
    /// Tells it from another batch with the same records, where its member needs that.
    pub lease: u64,
}

/// How far a group is behind in one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lag {
    pub partition: Partition,
    /// The next offset the group has not finished.
    pub committed: i64,
    /// The offset that the next appended record will get.
    pub end: i64,
}

impl Lag {
    /// Records that wait.
    #[must_use]
    pub fn records(&self) -> i64 {
        (self.end - self.committed).max(0)
    }
}

/// Why the log did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// Passes, or needs an operator.
    #[error("the event log does not answer: {0}")]
    Unavailable(String),
    /// A setting is wrong.
    #[error("{0}")]
    Setting(String),
}

/// A durable, partitioned log.
#[async_trait]
pub trait EventLog: Send + Sync + 'static {
    /// Creates the topics that don't exist yet, where that is allowed; others are left as they are.
    async fn create_topics(&self, topics: &[&str]) -> Result<(), LogError>;

    /// Appends records, durably. Those with the same key stand in one partition, in the order given. After an error
    /// some may stand there, but none whose predecessor of the same key doesn't.
    async fn append(&self, topic: &str, records: Vec<Record>) -> Result<(), LogError>;

    /// Joins `group`: its members share the partitions of `topics` and go on where it last committed, or at the
    /// beginning.
    async fn join(&self, group: &str, topics: &[String]) -> Result<Arc<dyn Member>, LogError>;

    /// At most `limit` records of a partition from `offset` on; empty at the end.
    async fn read(&self, partition: &Partition, offset: i64, limit: usize) -> Result<Vec<Stored>, LogError>;

    /// Reads stretches of partitions from beginning to end, each in order, and several mixed; [`Scan`] is how to ask for it.
    async fn read_all(&self, stretches: Vec<Stretch>, read: mpsc::Sender<Result<Batch, LogError>>) {
        scan::one_by_one(self, stretches, read).await;
    }

    /// Reads partitions on and on from the given offsets, each in order, until nobody takes any more or after an error;
    /// [`Tail`] is how to ask for it. Nobody's position changes.
    async fn follow(&self, from: Vec<(Partition, i64)>, read: mpsc::Sender<Result<Batch, LogError>>) {
        scan::look_and_read(self, from, read).await;
    }

    /// The partitions of a topic with their first offset and the offset that the next record will get.
    async fn watermarks(&self, topic: &str) -> Result<Vec<(Partition, i64, i64)>, LogError>;

    /// How far `group` is behind.
    async fn lag(&self, group: &str, topics: &[String]) -> Result<Vec<Lag>, LogError>;
}

/// A member of a group. It hands out each partition's records in order and one batch of a partition at a time: a
/// partition whose batch is out gives no other until that is [`finished`](Member::finished) or
/// [`returned`](Member::returned).
#[async_trait]
pub trait Member: Send + Sync + 'static {
    /// Waits for records; at most `limit` of them.
    async fn next(&self, limit: usize) -> Result<Batch, LogError>;

    /// The batch is done with: the group goes on behind it, also after a crash (though not at once).
    async fn finished(&self, batch: &Batch);

    /// The batch is not done with: it will be handed out again, by this member or another.
    async fn returned(&self, batch: &Batch);

    /// Whether this member still holds the partition: if not, there is no use in trying any longer.
    fn holds(&self, partition: &Partition) -> bool;

    /// Records known to wait for this member, those in hand included.
    fn waiting(&self) -> u64;

    /// Returns when something waits that isn't in hand.
    async fn arrival(&self);

    /// Commits what is finished and leaves the group.
    async fn leave(&self);
}
