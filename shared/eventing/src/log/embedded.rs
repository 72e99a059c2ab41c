//! The event log in one SQLite file, for the process that holds it: so that the first command needs nothing installed.
//! It keeps the promises of the trait and no others; nothing outside knows which log is in use.

mod member;
mod state;
mod writer;

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use event_sourcing::sqlite::connect;
use rusqlite::{Connection, OpenFlags, params};

use super::{EventLog, Lag, LogError, Member, Partition, Record, Stored};
use member::EmbeddedMember;
use state::{OFFSET_BITS, State};
use writer::{Task, Writer};

/// How often the groups' positions are written down; what was finished since is handed out again after a crash.
const COMMIT_EVERY: Duration = Duration::from_millis(200);

const TABLES: &str = "
    PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 8000;
    CREATE TABLE IF NOT EXISTS partitions (id INTEGER PRIMARY KEY, topic TEXT NOT NULL, number INTEGER NOT NULL,
        UNIQUE (topic, number));
    CREATE TABLE IF NOT EXISTS records (id INTEGER PRIMARY KEY, record BLOB NOT NULL);
    CREATE TABLE IF NOT EXISTS positions (member_group TEXT NOT NULL, partition INTEGER NOT NULL,
        next INTEGER NOT NULL, PRIMARY KEY (member_group, partition)) WITHOUT ROWID;
";

/// A log in a file.
#[derive(Clone)]
pub struct EmbeddedLog(Arc<Inner>);

struct Inner {
    file: PathBuf,
    /// Connections that nobody reads with at this moment.
    readers: Mutex<Vec<Connection>>,
    partitions_per_topic: i32,
    known: Arc<Known>,
    /// `None` where another process holds the file: it changes without our doing.
    writer: Option<Writer>,
    members: AtomicU64,
}

/// What is known of the file.
#[derive(Default)]
struct Known(Mutex<State>);

impl Known {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn unavailable(error: impl std::fmt::Display) -> LogError {
    LogError::Unavailable(error.to_string())
}

impl EmbeddedLog {
    /// Opens or creates the log in `file`; new topics get `partitions` partitions.
    ///
    /// # Errors
    /// If the file can't be used.
    pub async fn open(file: &Path, partitions: i32) -> Result<Self, LogError> {
        let access = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
        let connection = connect(file, access).map_err(unavailable)?;
        connection.execute_batch(TABLES).map_err(unavailable)?;
        let known = Arc::new(Known(Mutex::new(State::read(&connection)?)));
        let writer = Writer::start(connection, known.clone()).map_err(unavailable)?;
        let log = Self::on(file, known, Some(writer), partitions);
        tokio::spawn(commit_positions(Arc::downgrade(&log.0)));
        Ok(log)
    }

    /// Looks at a log that another process may hold: it can be read, and watermarks and lags are those of the moment.
    ///
    /// # Errors
    /// If there is no such file.
    pub async fn watch(file: &Path) -> Result<Self, LogError> {
        let log = Self::on(file, Arc::default(), None, 0);
        log.0.look()?;
        Ok(log)
    }

    fn on(file: &Path, known: Arc<Known>, writer: Option<Writer>, partitions_per_topic: i32) -> Self {
        let (readers, members) = (Mutex::default(), AtomicU64::new(0));
        Self(Arc::new(Inner { file: file.to_owned(), readers, partitions_per_topic, known, writer, members }))
    }
}

/// Writes the groups' positions down now and then, until the log is gone.
async fn commit_positions(log: std::sync::Weak<Inner>) {
    loop {
        tokio::time::sleep(COMMIT_EVERY).await;
        let Some(log) = log.upgrade() else { return };
        if let Err(error) = log.write(Task::Positions).await {
            tracing::warn!(%error, "positions were not written down; they will be soon");
        }
    }
}

impl Inner {
    /// Has something written.
    async fn write(&self, task: Task) -> Result<(), LogError> {
        match &self.writer {
            Some(writer) => writer.write(task).await,
            None => Err(LogError::Unavailable("this log is only looked at".to_owned())),
        }
    }

    /// Reads something, on this very thread: what is in the file's cache takes microseconds.
    fn read<T>(&self, what: impl FnOnce(&Connection) -> Result<T, LogError>) -> Result<T, LogError> {
        let readers = || self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = readers().pop();
        let connection = match kept {
            Some(connection) => connection,
            None => connect(&self.file, OpenFlags::SQLITE_OPEN_READ_ONLY).map_err(unavailable)?,
        };
        let found = what(&connection);
        readers().push(connection);
        found
    }

    /// Sees what another process has done meanwhile.
    fn look(&self) -> Result<(), LogError> {
        if self.writer.is_none() {
            let seen = self.read(State::read)?;
            *self.known.lock() = seen;
        }
        Ok(())
    }
}

#[async_trait]
impl EventLog for EmbeddedLog {
    async fn create_topics(&self, topics: &[&str]) -> Result<(), LogError> {
        let topics = topics.iter().map(|topic| (*topic).to_owned()).collect();
        self.0.write(Task::Create { topics, partitions: self.0.partitions_per_topic }).await
    }

    async fn append(&self, topic: &str, records: Vec<Record>) -> Result<(), LogError> {
        self.0.write(Task::Append { topic: topic.to_owned(), records }).await
    }

    async fn join(&self, group: &str, topics: &[String]) -> Result<Arc<dyn Member>, LogError> {
        if let Some(missing) = topics.iter().find(|topic| !self.0.known.lock().topics.contains_key(*topic)) {
            return Err(LogError::Unavailable(format!("there is no topic {missing}")));
        }
        let id = self.0.members.fetch_add(1, Ordering::Relaxed);
        Ok(Arc::new(EmbeddedMember::join(self.clone(), group, topics, id)))
    }

    async fn read(&self, partition: &Partition, offset: i64, limit: usize) -> Result<Vec<Stored>, LogError> {
        let info = self.0.known.lock().info(partition);
        let info = info.ok_or_else(|| LogError::Unavailable(format!("there is no partition {partition:?}")))?;
        let first = info.id << OFFSET_BITS;
        let (from, to) = (first + offset.max(0), first + info.end);
        self.0.read(|connection| {
            let sql = "SELECT id, record FROM records WHERE id >= ?1 AND id < ?2 ORDER BY id LIMIT ?3";
            let mut statement = connection.prepare_cached(sql).map_err(unavailable)?;
            let limit = i64::try_from(limit).unwrap_or(i64::MAX);
            let mut rows = statement.query(params![from, to, limit]).map_err(unavailable)?;
            let mut records = Vec::new();
            while let Some(row) = rows.next().map_err(unavailable)? {
                let bytes = row.get_ref(1).map_err(unavailable)?.as_blob().map_err(unavailable)?;
                let record = postcard::from_bytes(bytes).map_err(unavailable)?;
                records.push(Stored { offset: row.get::<_, i64>(0).map_err(unavailable)? - first, record });
            }
            Ok(records)
        })
    }

    async fn watermarks(&self, topic: &str) -> Result<Vec<(Partition, i64, i64)>, LogError> {
        self.0.look()?;
        let state = self.0.known.lock();
        Ok(state.partitions(topic).map(|(partition, info)| (partition, 0, info.end)).collect())
    }

    async fn lag(&self, group: &str, topics: &[String]) -> Result<Vec<Lag>, LogError> {
        self.0.look()?;
        let state = self.0.known.lock();
        let group = state.groups.get(group);
        let mut lag = Vec::new();
        for (topic, _) in state.topics.iter().filter(|(topic, _)| topics.contains(topic)) {
            lag.extend(state.partitions(topic).map(|(partition, info)| {
                let committed = group.map_or(0, |group| group.next(info.id));
                Lag { partition, committed, end: info.end }
            }));
        }
        Ok(lag)
    }
}
