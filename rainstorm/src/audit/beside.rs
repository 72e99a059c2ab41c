//! The embedded log of a demo that runs in another process. It is one process's own, and remembers where it ends; so
//! whoever reads beside it looks again each time.

use std::{path::PathBuf, sync::Arc};

use async_trait::async_trait;
use eventing::log::{EmbeddedLog, EventLog, Lag, LogError, Member, Partition, Record, Stored};
use tokio::sync::RwLock;

/// A log that somebody else writes.
pub struct Beside {
    file: PathBuf,
    partitions: i32,
    log: RwLock<EmbeddedLog>,
}

impl Beside {
    /// The log in `file`.
    ///
    /// # Errors
    /// If it can't be read.
    pub async fn open(file: PathBuf, partitions: i32) -> Result<Self, LogError> {
        let log = RwLock::new(EmbeddedLog::open(&file, partitions).await?);
        Ok(Self { file, partitions, log })
    }
}

fn not_ours() -> LogError {
    LogError::Setting("this log belongs to another process, and can only be read".to_owned())
}

#[async_trait]
impl EventLog for Beside {
    async fn create_topics(&self, _: &[&str]) -> Result<(), LogError> {
        Err(not_ours())
    }

    async fn append(&self, _: &str, _: Vec<Record>) -> Result<(), LogError> {
        Err(not_ours())
    }

    async fn join(&self, _: &str, _: &[String]) -> Result<Arc<dyn Member>, LogError> {
        Err(not_ours())
    }

    async fn read(&self, partition: &Partition, offset: i64, limit: usize) -> Result<Vec<Stored>, LogError> {
        self.log.read().await.read(partition, offset, limit).await
    }

    /// Where the log ends now: it is opened again for that.
    async fn watermarks(&self, topic: &str) -> Result<Vec<(Partition, i64, i64)>, LogError> {
        let now = EmbeddedLog::open(&self.file, self.partitions).await?;
        let watermarks = now.watermarks(topic).await?;
        *self.log.write().await = now;
        Ok(watermarks)
    }

    async fn lag(&self, group: &str, topics: &[String]) -> Result<Vec<Lag>, LogError> {
        self.log.read().await.lag(group, topics).await
    }
}
