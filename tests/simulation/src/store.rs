//! The stores: the real statements, on SQLite in memory, called on this very thread so that nothing happens by chance of
//! scheduling. Each database is kept twice: one copy is written to, the other is what everybody else sees and gets a
//! transaction's statements when it is committed. Between any two statements others may go first, the store may fail,
//! and the process may end. A store that crashes comes back with what is on its disk: everything up to the last commit
//! that waited for the disk, and perhaps some of what came after it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use event_sourcing::{
    Backend, Database, PublishingLock, Row, Transaction, Value,
    sqlite::{PREPARED, failed, run},
};
use eventing::log::Record;
use rusqlite::Connection;
use tokio::time::Instant;

use crate::{
    gate::{Gate, Turn},
    meter::shape,
    sabotage::Sabotage,
    statement::Sabotaged,
    world::{Process, World},
};

/// One database, whoever uses it.
pub struct Shared {
    name: String,
    committed: Mutex<Connection>,
    writer: Mutex<Connection>,
    disk: Mutex<Disk>,
    writing: Arc<Gate>,
    publishing: Arc<Gate>,
    out_until: Mutex<Option<Instant>>,
    /// Where a sabotaged store puts events before they are committed.
    before_commit: Mutex<Option<BeforeCommit>>,
    /// Every statement that was run, where the world tells its story.
    statements: Option<Mutex<BTreeSet<String>>>,
}

/// The statements of a transaction that change something.
type Changes = Vec<(String, Vec<Value>)>;

/// What a crash leaves.
struct Disk {
    /// As it was after the last crash.
    base: Connection,
    /// What was committed since, in order.
    since: Vec<Changes>,
    /// So many of those have surely reached the disk.
    durable: usize,
}

/// Appends the records that a transaction is about to store.
pub type BeforeCommit = Box<dyn Fn(Vec<Record>) + Send>;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// An empty database with `tables`, a copy of which is made.
    ///
    /// # Errors
    /// If SQLite can't.
    pub fn new(world: &Arc<World>, name: &str, tables: &Connection) -> rusqlite::Result<Arc<Self>> {
        let (writer, committed, base) = (copy(tables)?, copy(tables)?, copy(tables)?);
        let shared = Arc::new(Self {
            name: name.to_owned(),
            committed: Mutex::new(committed),
            writer: Mutex::new(writer),
            disk: Mutex::new(Disk { base, since: Vec::new(), durable: 0 }),
            writing: Arc::default(),
            publishing: Arc::default(),
            out_until: Mutex::new(None),
            before_commit: Mutex::new(None),
            statements: world.tells().then(Mutex::default),
        });
        let buried = Arc::downgrade(&shared);
        world.when_one_dies(move |process| {
            if let Some(shared) = buried.upgrade() {
                if shared.writing.bury(process) {
                    let _ = lock(&shared.writer).execute_batch("ROLLBACK");
                }
                shared.publishing.bury(process);
            }
        });
        Ok(shared)
    }

    /// As one process uses it.
    pub fn used_by(self: &Arc<Self>, process: &Arc<Process>) -> Database {
        self.seen_by(process, process.world.sabotage)
    }

    /// As it is, whatever is broken on purpose.
    pub fn audited_by(self: &Arc<Self>, process: &Arc<Process>) -> Database {
        self.seen_by(process, None)
    }

    fn seen_by(self: &Arc<Self>, process: &Arc<Process>, sabotage: Option<Sabotage>) -> Database {
        let (shared, process, seen) = (self.clone(), process.clone(), Arc::default());
        Database::on(SimulatedStore { shared, process, sabotage, seen })
    }

    /// Nobody answers until then.
    pub fn goes_out(&self, until: Instant) {
        *lock(&self.out_until) = Some(until);
    }

    /// Commits that a crash may lose.
    pub fn at_risk(&self) -> u64 {
        let disk = lock(&self.disk);
        (disk.since.len() - disk.durable) as u64
    }

    /// It ends at this moment: whatever somebody is about to do is lost, and so are the newest commits, as many as `lost`
    /// says of those [at risk](Self::at_risk).
    ///
    /// # Errors
    /// If SQLite can't.
    pub fn crashes(&self, lost: u64) -> Result<(), sqlx::Error> {
        self.writing.evict();
        self.publishing.evict();
        let mut disk = lock(&self.disk);
        let kept = disk.since.len().saturating_sub(usize::try_from(lost).unwrap_or(usize::MAX)).max(disk.durable);
        for (sql, values) in std::mem::take(&mut disk.since).into_iter().take(kept).flatten() {
            run(&disk.base, &sql, &values)?;
        }
        disk.durable = 0;
        // With the old connections everything goes that was not committed.
        *lock(&self.writer) = copy(&disk.base).map_err(failed)?;
        *lock(&self.committed) = copy(&disk.base).map_err(failed)?;
        Ok(())
    }

    /// See [`Sabotage::PublishBeforeCommit`].
    pub fn publishes_before_commit(&self, append: BeforeCommit) {
        *lock(&self.before_commit) = Some(append);
    }

    fn note(&self, sql: &str) {
        if let Some(statements) = &self.statements {
            lock(statements).insert(sql.to_owned());
        }
    }

    /// The statements of services that read a whole table, however large it may be one day.
    ///
    /// # Errors
    /// If SQLite can't say how it runs one of them.
    pub fn scans(&self) -> Result<Vec<String>, sqlx::Error> {
        let connection = lock(&self.committed);
        let tables = "SELECT name FROM sqlite_master WHERE type = 'table'";
        let tables = run(&connection, tables, &[])?.iter().map(|row| row.text(0)).collect::<Result<Vec<_>, _>>()?;
        let partial = "SELECT name FROM sqlite_master WHERE type = 'index' AND sql LIKE '% WHERE %'";
        let partial = run(&connection, partial, &[])?.iter().map(|row| row.text(0)).collect::<Result<Vec<_>, _>>()?;
        let mut scans = Vec::new();
        for sql in self.statements.iter().flat_map(|statements| lock(statements).clone()) {
            let mut statement = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).map_err(failed)?;
            let mut steps = statement.raw_query();
            while let Some(step) = steps.next().map_err(failed)? {
                let step: String = step.get(3).map_err(failed)?;
                let read = step.strip_prefix("SCAN ").unwrap_or_default();
                let table = read.split(' ').next().unwrap_or_default();
                let part = partial.iter().any(|index| read.ends_with(&format!("INDEX {index}")));
                // The first few in the order of an index.
                let few = sql.contains(" LIMIT ") && read.contains(" INDEX ");
                if !part && !few && tables.iter().any(|known| known == table) {
                    scans.push(format!("{}: {step}: {}", self.name, sql.chars().take(200).collect::<String>()));
                }
            }
        }
        Ok(scans)
    }

    /// Pairs of texts, as they are committed.
    pub fn pairs(&self, sql: &str) -> Vec<(String, String)> {
        let rows = run(&lock(&self.committed), sql, &[]).unwrap_or_default();
        rows.iter().filter_map(|row| Some((row.text(0).ok()?, row.text(1).ok()?))).collect()
    }

    /// A number, as it is committed.
    pub fn number(&self, sql: &str) -> i64 {
        let rows = run(&lock(&self.committed), sql, &[]).unwrap_or_default();
        rows.first().and_then(|row| row.int(0).ok()).unwrap_or(-1)
    }
}

/// A database as one process sees it.
#[derive(Clone)]
struct SimulatedStore {
    shared: Arc<Shared>,
    process: Arc<Process>,
    sabotage: Option<Sabotage>,
    /// By stream, the newest version that this process has read: see [`Sabotage::IgnoreTheExpectedVersion`].
    seen: Arc<Mutex<BTreeMap<String, i64>>>,
}

impl std::fmt::Debug for SimulatedStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SimulatedStore").field("name", &self.shared.name).finish_non_exhaustive()
    }
}

impl SimulatedStore {
    async fn step(&self, what: impl Fn() -> String) -> Result<(), sqlx::Error> {
        let answered = self.process.step(|| format!("{} {}", self.shared.name, what())).await;
        let out = lock(&self.shared.out_until).is_some_and(|until| Instant::now() < until);
        if answered.is_err() || out {
            self.process.is_let_down();
            return Err(sqlx::Error::PoolTimedOut);
        }
        Ok(())
    }

    /// It is asked for something: memory was taken for the question.
    fn counts(&self, what: &'static str) {
        if let Some(meter) = self.process.world.meter() {
            meter.spends(|| what.to_owned());
            meter.adds([("stores", &|| what.to_owned(), 1), ("stores", &|| "round trips".to_owned(), 1)]);
        }
    }

    /// It is asked for a statement: memory was taken for the question.
    fn counts_statement(&self, sql: &str, values: &[Value]) {
        if let Some(meter) = self.process.world.meter() {
            meter.spends(|| shape(sql));
            meter.adds([
                ("statements", &|| format!("{}: {}", self.shared.name, shape(sql)), 1),
                ("stores", &|| "statements".to_owned(), 1),
                ("stores", &|| "round trips".to_owned(), 1),
                ("stores", &|| "values".to_owned(), values.len()),
            ]);
        }
    }

    /// Rows were found: memory was taken for the answer.
    fn counts_rows(&self, sql: &str, rows: &[Row]) {
        if let Some(meter) = self.process.world.meter() {
            meter.spends(|| shape(sql));
            meter.adds([("stores", &|| "rows".to_owned(), rows.len())]);
        }
    }

    fn sabotaged(&self) -> Sabotaged<'_> {
        Sabotaged { sabotage: self.sabotage, world: &self.process.world, seen: &self.seen }
    }
}

#[async_trait]
impl Backend for SimulatedStore {
    async fn fetch(&self, sql: String, values: Vec<Value>) -> Result<Vec<Row>, sqlx::Error> {
        self.counts_statement(&sql, &values);
        self.step(|| brief(&sql)).await?;
        let Some((sql, values)) = self.sabotaged().question(sql, values) else { return Ok(Vec::new()) };
        self.shared.note(&sql);
        let rows = run(&lock(&self.shared.committed), &sql, &values)?;
        self.counts_rows(&sql, &rows);
        self.sabotaged().answered(&sql, &rows);
        Ok(rows)
    }

    async fn begin(&self, durable: bool) -> Result<Box<dyn Transaction>, sqlx::Error> {
        self.counts("begin");
        self.step(|| "BEGIN".to_owned()).await?;
        let turn = self.shared.writing.enter(self.process.id).await;
        lock(&self.shared.writer).execute_batch("BEGIN IMMEDIATE").map_err(failed)?;
        let store = self.clone();
        Ok(Box::new(Writing { store, turn: Some(turn), durable, events: false, poisoned: false, changes: Vec::new() }))
    }

    async fn lock_publishing(&self, streams: &[String]) -> Result<PublishingLock, sqlx::Error> {
        self.counts("right to publish");
        self.step(|| format!("takes the right to publish {} streams", streams.len())).await?;
        let turn = self.shared.publishing.enter(self.process.id).await;
        Ok(PublishingLock { transaction: None, turn: Some(Box::new(turn)) })
    }

    async fn close(&self) {}
}

struct Writing {
    store: SimulatedStore,
    turn: Option<Turn>,
    durable: bool,
    /// Whether it stores events.
    events: bool,
    /// Whether it counts an attempt at an event that kills.
    poisoned: bool,
    /// What it has changed so far.
    changes: Changes,
}

impl Writing {
    fn end(&mut self, how: &str) -> Result<(), sqlx::Error> {
        let turn = self.turn.take().filter(Turn::is_valid);
        let Some(_turn) = turn else { return Err(sqlx::Error::PoolClosed) };
        lock(&self.store.shared.writer).execute_batch(how).map_err(failed)?;
        if how == "COMMIT" {
            let committed = lock(&self.store.shared.committed);
            for (sql, values) in &self.changes {
                run(&committed, sql, values)?;
            }
            let mut disk = lock(&self.store.shared.disk);
            disk.since.push(std::mem::take(&mut self.changes));
            if self.durable {
                disk.durable = disk.since.len();
            }
        }
        Ok(())
    }

    fn run(&self, sql: &str, values: &[Value]) -> Result<Vec<Row>, sqlx::Error> {
        if !self.turn.as_ref().is_some_and(Turn::is_valid) {
            return Err(sqlx::Error::PoolClosed);
        }
        self.store.shared.note(sql);
        run(&lock(&self.store.shared.writer), sql, values)
    }

    fn is_poison(&self, value: &Value) -> bool {
        let world = &self.store.process.world;
        matches!(value, Value::Text(text) if world.is_poison(&self.store.shared.name, text))
    }

    /// The records of the events that are stored and not published, this transaction's among them.
    fn unpublished(&self) -> Result<Vec<Record>, sqlx::Error> {
        let columns = "stream_id, version, id, type, time, correlation_id, causation_id, traceparent, tracestate, data";
        let sql = format!("SELECT {columns} FROM events WHERE published = 0 ORDER BY stream_id, version");
        self.run(&sql, &[])?.iter().map(|row| crate::log::record_of(&self.store.shared.name, row)).collect()
    }
}

#[async_trait]
impl Transaction for Writing {
    async fn fetch(&mut self, sql: String, values: Vec<Value>) -> Result<Vec<Row>, sqlx::Error> {
        self.store.counts_statement(&sql, &values);
        self.store.step(|| brief(&sql)).await?;
        let sabotaged = self.store.sabotaged();
        let Some((sql, values)) = sabotaged.question(sql, values) else { return Ok(Vec::new()) };
        let rows = self.run(&sql, &values)?;
        self.store.counts_rows(&sql, &rows);
        let found = sabotaged.versions(&sql, &values).unwrap_or(rows);
        if !sql.starts_with("SELECT") {
            self.store.process.world.aside(|| self.changes.push((sql, values)));
        }
        Ok(found)
    }

    async fn execute(&mut self, sql: String, values: Vec<Value>) -> Result<u64, sqlx::Error> {
        self.store.counts_statement(&sql, &values);
        self.store.step(|| brief(&sql)).await?;
        self.events |= sql.starts_with("INSERT INTO events");
        if sql.starts_with("INSERT INTO inbox") && values.iter().any(|value| self.is_poison(value)) {
            self.poisoned = true;
        }
        let mut changed = 0;
        let world = self.store.process.world.clone();
        for (sql, values) in world.aside(|| self.store.sabotaged().changes(sql, values)) {
            self.run(&sql, &values)?;
            changed += lock(&self.store.shared.writer).changes();
            world.aside(|| self.changes.push((sql, values)));
        }
        Ok(changed)
    }

    async fn commit(mut self: Box<Self>) -> Result<(), sqlx::Error> {
        self.store.counts(if self.durable { "commit" } else { "commit that may wait" });
        if let Err(error) = self.store.step(|| "COMMIT".to_owned()).await {
            let _ = self.end("ROLLBACK");
            return Err(error);
        }
        let process = self.store.process.clone();
        if self.events && process.world.breaks(Sabotage::WaitForTheLog) && process.world.log_is_out() {
            self.end("ROLLBACK")?;
            return Err(sqlx::Error::PoolTimedOut);
        }
        if self.events
            && let Some(append) = &*lock(&self.store.shared.before_commit)
        {
            append(self.unpublished()?);
        }
        if self.durable && process.world.breaks(Sabotage::CommitLater) && process.world.happens(0.05) {
            process.doom();
            return self.end("ROLLBACK");
        }
        if self.events && process.world.breaks(Sabotage::PublishBeforeCommit) && process.world.happens(0.05) {
            process.kill();
        }
        process.afterwards().await;
        process.world.aside(|| self.end("COMMIT"))?;
        if self.poisoned {
            // It is counted, and now it is handled: that kills.
            process.kill();
        }
        process.afterwards().await;
        // The commit may have happened, and its answer be lost.
        if process.world.happens(process.world.weather().failure) {
            process.is_let_down();
            return Err(sqlx::Error::PoolClosed);
        }
        Ok(())
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        if self.turn.is_some() {
            let _ = self.end("ROLLBACK");
        }
    }
}

fn copy(of: &Connection) -> rusqlite::Result<Connection> {
    let mut connection = Connection::open_in_memory()?;
    rusqlite::backup::Backup::new(of, &mut connection)?.step(-1)?;
    connection.set_prepared_statement_cache_capacity(PREPARED);
    Ok(connection)
}

/// The beginning of a statement, for people.
fn brief(sql: &str) -> String {
    sql.split_whitespace().take(5).collect::<Vec<_>>().join(" ")
}
