//! The event log in one SQLite file, for the process that holds it: so that the first command needs nothing installed.
//! It keeps the promises of the trait and no others; nothing outside knows which log is in use.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use sqlx::{
    Connection, QueryBuilder, Row, SqlitePool,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use tokio::sync::{Mutex as AsyncMutex, Notify};

use super::{Batch, EventLog, Lag, LogError, Member, Partition, Record, Stored};

/// A record's row id is its partition's number in the file, then its offset: a partition's records lie together.
const OFFSET_BITS: u32 = 40;
/// How often the groups' positions are written down; what was finished since is handed out again after a crash.
const COMMIT_EVERY: Duration = Duration::from_millis(200);

const TABLES: &str = "
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
    pool: SqlitePool,
    partitions_per_topic: i32,
    /// By this process; what another one holds changes without its doing.
    held: bool,
    /// Held while a batch of records is written: offsets are given out in the order in which they are durable.
    writer: AsyncMutex<()>,
    state: Mutex<State>,
    appended: Notify,
    members: AtomicU64,
}

#[derive(Default)]
struct State {
    partitions: BTreeMap<Partition, Info>,
    groups: HashMap<String, Group>,
}

#[derive(Clone, Copy)]
struct Info {
    id: i64,
    /// The offset of the next record.
    end: i64,
}

#[derive(Default)]
struct Group {
    members: Vec<u64>,
    /// The next offset to hand out after what is finished.
    next: HashMap<Partition, i64>,
    /// Partitions of which a batch is out, and with whom.
    out: HashMap<Partition, u64>,
    changed: HashSet<Partition>,
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
        let options = SqliteConnectOptions::new()
            .filename(file)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .pragma("wal_autocheckpoint", "8000")
            .busy_timeout(Duration::from_secs(10));
        let pool = connections().connect_with(options).await.map_err(unavailable)?;
        sqlx::raw_sql(TABLES).execute(&pool).await.map_err(unavailable)?;
        let log = Self::with(pool, partitions, true).await?;
        tokio::spawn(commit_positions(Arc::downgrade(&log.0)));
        Ok(log)
    }

    /// Looks at a log that another process may hold: it can be read, and watermarks and lags are those of the moment.
    ///
    /// # Errors
    /// If there is no such file.
    pub async fn watch(file: &Path) -> Result<Self, LogError> {
        let options = SqliteConnectOptions::new().filename(file).read_only(true).busy_timeout(Duration::from_secs(10));
        let pool = connections().connect_with(options).await.map_err(unavailable)?;
        Self::with(pool, 0, false).await
    }

    async fn with(pool: SqlitePool, partitions_per_topic: i32, held: bool) -> Result<Self, LogError> {
        let state = State::read(&pool).await.map_err(unavailable)?;
        Ok(Self(Arc::new(Inner {
            pool,
            partitions_per_topic,
            held,
            writer: AsyncMutex::default(),
            state: Mutex::new(state),
            appended: Notify::new(),
            members: AtomicU64::new(0),
        })))
    }
}

fn connections() -> SqlitePoolOptions {
    // After a full disk SQLite ends a transaction by itself, and the driver goes on believing in it.
    SqlitePoolOptions::new()
        .max_connections(6)
        .before_acquire(|connection, _| Box::pin(async move { Ok(!connection.is_in_transaction()) }))
}

impl State {
    async fn read(pool: &SqlitePool) -> Result<Self, sqlx::Error> {
        let mut state = Self::default();
        let ends = "SELECT id, topic, number, (SELECT MAX(r.id) FROM records r WHERE r.id >= p.id << $1 \
             AND r.id < (p.id + 1) << $1) FROM partitions p";
        for row in sqlx::query(ends).bind(OFFSET_BITS).fetch_all(pool).await? {
            let id: i64 = row.get(0);
            let end = row.get::<Option<i64>, _>(3).map_or(0, |newest| newest - (id << OFFSET_BITS) + 1);
            state.partitions.insert(Partition { topic: row.get(1), number: row.get(2) }, Info { id, end });
        }
        let stored = sqlx::query(
            "SELECT p.topic, p.number, c.member_group, c.next FROM positions c JOIN partitions p ON p.id = c.partition",
        );
        for row in stored.fetch_all(pool).await? {
            let group = state.groups.entry(row.get(2)).or_default();
            group.next.insert(Partition { topic: row.get(0), number: row.get(1) }, row.get(3));
        }
        Ok(state)
    }
}

/// Writes the groups' positions down now and then, until the log is gone.
async fn commit_positions(log: std::sync::Weak<Inner>) {
    loop {
        tokio::time::sleep(COMMIT_EVERY).await;
        let Some(log) = log.upgrade() else { return };
        if let Err(error) = log.commit().await {
            tracing::warn!(%error, "positions were not written down; they will be soon");
        }
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sees what another process has done meanwhile.
    async fn look(&self) -> Result<(), LogError> {
        if !self.held {
            let seen = State::read(&self.pool).await.map_err(unavailable)?;
            *self.state() = seen;
        }
        Ok(())
    }

    async fn commit(&self) -> Result<(), sqlx::Error> {
        let _turn = self.writer.lock().await;
        let mut rows = Vec::new();
        {
            let state = &mut *self.state();
            for (name, group) in &mut state.groups {
                for partition in group.changed.drain() {
                    if let (Some(info), Some(next)) = (state.partitions.get(&partition), group.next.get(&partition)) {
                        rows.push((name.clone(), info.id, *next, partition));
                    }
                }
            }
        }
        if rows.is_empty() {
            return Ok(());
        }
        let written = QueryBuilder::new("INSERT OR REPLACE INTO positions (member_group, partition, next) ")
            .push_values(&rows, |mut row, (group, partition, next, _)| {
                row.push_bind(group).push_bind(partition).push_bind(next);
            })
            .build()
            .execute(&self.pool)
            .await;
        if written.is_err() {
            // Or they would be forgotten until the group moves again.
            let state = &mut *self.state();
            for (group, _, _, partition) in rows {
                state.groups.entry(group).or_default().changed.insert(partition);
            }
        }
        written.map(|_| ())
    }

    async fn append(&self, topic: &str, records: Vec<Record>) -> Result<(), LogError> {
        let _turn = self.writer.lock().await;
        let mut ends: HashMap<Partition, Info> = self
            .state()
            .partitions
            .iter()
            .filter(|(partition, _)| partition.topic == topic)
            .map(|(partition, info)| (partition.clone(), *info))
            .collect();
        if ends.is_empty() {
            return Err(LogError::Unavailable(format!("there is no topic {topic}")));
        }
        let mut rows = Vec::with_capacity(records.len());
        for record in records {
            let partition = self.partition_for(topic, record.key.as_deref(), ends.len());
            let Some(info) = ends.get_mut(&partition) else { continue };
            rows.push(((info.id << OFFSET_BITS) + info.end, postcard::to_allocvec(&record).map_err(unavailable)?));
            info.end += 1;
        }
        let mut tx = self.pool.begin_with("BEGIN IMMEDIATE").await.map_err(unavailable)?;
        for rows in rows.chunks(500) {
            QueryBuilder::new("INSERT INTO records (id, record) ")
                .push_values(rows, |mut row, (id, record)| {
                    row.push_bind(*id).push_bind(record.as_slice());
                })
                .build()
                .execute(&mut *tx)
                .await
                .map_err(unavailable)?;
        }
        tx.commit().await.map_err(unavailable)?;
        self.state().partitions.extend(ends);
        self.appended.notify_waiters();
        Ok(())
    }

    fn partition_for(&self, topic: &str, key: Option<&[u8]>, count: usize) -> Partition {
        let count = u64::try_from(count.max(1)).unwrap_or(1);
        let number = match key {
            Some(key) => fnv1a(key) % count,
            None => self.members.fetch_add(1, Ordering::Relaxed) % count,
        };
        Partition { topic: topic.to_owned(), number: i32::try_from(number).unwrap_or_default() }
    }
}

/// FNV-1a, 64 bits: the same key has the same partition in every version of this program.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[async_trait]
impl EventLog for EmbeddedLog {
    async fn create_topics(&self, topics: &[&str]) -> Result<(), LogError> {
        let _turn = self.0.writer.lock().await;
        for topic in topics {
            if self.0.state().partitions.keys().any(|partition| partition.topic == *topic) {
                continue;
            }
            for number in 0..self.0.partitions_per_topic {
                // One that is in the file already was made by somebody who didn't stay to hear of it.
                let sql = "INSERT INTO partitions (topic, number) VALUES ($1, $2) \
                           ON CONFLICT (topic, number) DO UPDATE SET topic = excluded.topic RETURNING id";
                let row =
                    sqlx::query(sql).bind(*topic).bind(number).fetch_one(&self.0.pool).await.map_err(unavailable)?;
                let partition = Partition { topic: (*topic).to_owned(), number };
                self.0.state().partitions.insert(partition, Info { id: row.get(0), end: 0 });
            }
        }
        Ok(())
    }

    async fn append(&self, topic: &str, records: Vec<Record>) -> Result<(), LogError> {
        // Whoever waits may leave at any moment. What is begun is done to its end all the same, or the file would have
        // records of which the ends in memory know nothing.
        let (log, topic) = (self.0.clone(), topic.to_owned());
        tokio::spawn(async move { log.append(&topic, records).await }).await.map_err(unavailable)?
    }

    async fn join(&self, group: &str, topics: &[String]) -> Result<Arc<dyn Member>, LogError> {
        let id = self.0.members.fetch_add(1, Ordering::Relaxed);
        let topics: HashSet<String> = topics.iter().cloned().collect();
        {
            let mut state = self.0.state();
            let known: HashSet<_> = state.partitions.keys().map(|partition| partition.topic.clone()).collect();
            if let Some(missing) = topics.iter().find(|topic| !known.contains(*topic)) {
                return Err(LogError::Unavailable(format!("there is no topic {missing}")));
            }
            state.groups.entry(group.to_owned()).or_default().members.push(id);
        }
        self.0.appended.notify_waiters();
        Ok(Arc::new(EmbeddedMember {
            log: self.0.clone(),
            group: group.to_owned(),
            topics,
            id,
            turn: AtomicU64::new(0),
        }))
    }

    async fn read(&self, partition: &Partition, offset: i64, limit: usize) -> Result<Vec<Stored>, LogError> {
        let info = self.0.state().partitions.get(partition).copied();
        let info = info.ok_or_else(|| LogError::Unavailable(format!("there is no partition {partition:?}")))?;
        let first = info.id << OFFSET_BITS;
        let rows = sqlx::query("SELECT id, record FROM records WHERE id >= $1 AND id < $2 ORDER BY id LIMIT $3")
            .bind(first + offset.max(0))
            .bind(first + info.end)
            .bind(i64::try_from(limit).unwrap_or(i64::MAX))
            .fetch_all(&self.0.pool)
            .await
            .map_err(unavailable)?;
        let stored = |row: &sqlx::sqlite::SqliteRow| {
            let record = postcard::from_bytes(row.get::<&[u8], _>(1)).map_err(unavailable)?;
            Ok(Stored { offset: row.get::<i64, _>(0) - first, record })
        };
        rows.iter().map(stored).collect()
    }

    async fn watermarks(&self, topic: &str) -> Result<Vec<(Partition, i64, i64)>, LogError> {
        self.0.look().await?;
        let state = self.0.state();
        let ours = state.partitions.iter().filter(|(partition, _)| partition.topic == topic);
        Ok(ours.map(|(partition, info)| (partition.clone(), 0, info.end)).collect())
    }

    async fn lag(&self, group: &str, topics: &[String]) -> Result<Vec<Lag>, LogError> {
        self.0.look().await?;
        let state = self.0.state();
        let next = state.groups.get(group).map(|group| &group.next);
        let ours = state.partitions.iter().filter(|(partition, _)| topics.contains(&partition.topic));
        let lag = ours.map(|(partition, info)| {
            let committed = next.and_then(|next| next.get(partition)).copied().unwrap_or(0);
            Lag { partition: partition.clone(), committed, end: info.end }
        });
        Ok(lag.collect())
    }
}

struct EmbeddedMember {
    log: Arc<Inner>,
    group: String,
    topics: HashSet<String>,
    id: u64,
    /// Where the search for a partition with records begins, so that all get their turn.
    turn: AtomicU64,
}

impl EmbeddedMember {
    /// The partitions that are this member's, with where it stands in each and where it ends.
    fn mine<'a>(&'a self, state: &'a State) -> impl Iterator<Item = (&'a Partition, i64, i64)> + 'a {
        let group = state.groups.get(&self.group);
        let rank = group.and_then(|group| group.members.iter().position(|id| *id == self.id));
        let members = group.map_or(1, |group| group.members.len().max(1));
        let ours = state.partitions.iter().filter(|(partition, _)| self.topics.contains(&partition.topic));
        ours.enumerate().filter(move |(index, _)| Some(index % members) == rank).map(move |(_, (partition, info))| {
            let next = group.and_then(|group| group.next.get(partition)).copied().unwrap_or(0);
            (partition, next, info.end)
        })
    }

    fn take(&self) -> Option<(Partition, i64)> {
        let mut state = self.log.state();
        let out = |partition| state.groups.get(&self.group).is_some_and(|group| group.out.contains_key(partition));
        let ready: Vec<_> = self.mine(&state).filter(|(partition, next, end)| next < end && !out(partition)).collect();
        let turn = usize::try_from(self.turn.fetch_add(1, Ordering::Relaxed)).unwrap_or_default();
        let (partition, next, _) = *ready.get(turn % ready.len().max(1))?;
        let taken = (partition.clone(), next);
        state.groups.get_mut(&self.group)?.out.insert(taken.0.clone(), self.id);
        Some(taken)
    }

    fn give_back(&self, partition: &Partition, next: Option<i64>) {
        if let Some(group) = self.log.state().groups.get_mut(&self.group)
            && group.out.get(partition) == Some(&self.id)
        {
            group.out.remove(partition);
            if let Some(next) = next {
                group.next.insert(partition.clone(), next);
                group.changed.insert(partition.clone());
            }
        }
        self.log.appended.notify_waiters();
    }

    fn forget(&self) {
        if let Some(group) = self.log.state().groups.get_mut(&self.group) {
            group.members.retain(|id| *id != self.id);
            group.out.retain(|_, id| *id != self.id);
        }
        self.log.appended.notify_waiters();
    }
}

impl Drop for EmbeddedMember {
    fn drop(&mut self) {
        self.forget();
    }
}

#[async_trait]
impl Member for EmbeddedMember {
    async fn next(&self, limit: usize) -> Result<Batch, LogError> {
        loop {
            let appended = self.log.appended.notified();
            let mut appended = std::pin::pin!(appended);
            appended.as_mut().enable();
            if let Some((partition, offset)) = self.take() {
                // Whoever stops waiting for the records gives the partition back.
                let mut taken = Taken { member: self, partition: Some(partition.clone()) };
                let records = EmbeddedLog(self.log.clone()).read(&partition, offset, limit).await?;
                taken.partition = None;
                return Ok(Batch { partition, records, lease: 0 });
            }
            appended.await;
        }
    }

    async fn finished(&self, batch: &Batch) {
        self.give_back(&batch.partition, batch.records.last().map(|record| record.offset + 1));
    }

    async fn returned(&self, batch: &Batch) {
        self.give_back(&batch.partition, None);
    }

    fn holds(&self, partition: &Partition) -> bool {
        let state = self.log.state();
        state.groups.get(&self.group).is_some_and(|group| group.out.get(partition) == Some(&self.id))
    }

    fn waiting(&self) -> u64 {
        let state = self.log.state();
        self.mine(&state).map(|(_, next, end)| u64::try_from(end - next).unwrap_or_default()).sum()
    }

    async fn arrival(&self) {
        loop {
            let appended = self.log.appended.notified();
            let mut appended = std::pin::pin!(appended);
            appended.as_mut().enable();
            {
                let state = self.log.state();
                let out = state.groups.get(&self.group).map(|group| &group.out);
                let free = |partition| out.is_none_or(|out| !out.contains_key(partition));
                if self.mine(&state).any(|(partition, next, end)| next < end && free(partition)) {
                    return;
                }
            }
            appended.await;
        }
    }

    async fn leave(&self) {
        self.forget();
        if let Err(error) = self.log.commit().await {
            tracing::warn!(%error, "positions were not written down; some events will be told again");
        }
    }
}

/// Gives a partition back if reading its records is given up.
struct Taken<'a> {
    member: &'a EmbeddedMember,
    partition: Option<Partition>,
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        if let Some(partition) = self.partition.take() {
            self.member.give_back(&partition, None);
        }
    }
}
