//! SQLite: a file with one writer at a time and as many readers as ask.
//!
//! A statement on a file whose pages are in memory takes microseconds, less than it takes to hand it to another thread
//! and to be woken by the answer. So statements run where they are asked for. What waits for the disk, which is a commit,
//! and what takes as long as it takes runs on a thread that may wait.

use std::{
    collections::HashMap,
    fmt,
    path::PathBuf,
    sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use rusqlite::{Connection, OpenFlags};
use sqlx::{
    migrate::{MigrateError, Migrator},
    sqlite::{SqliteConnectOptions, SqlitePoolOptions},
};
use tokio::{
    sync::{Mutex as AsyncMutex, OwnedMutexGuard},
    task::spawn_blocking,
};

use super::{Backend, Index, PublishingLock, Row, StoreError, Transaction, Value};
use crate::sqlite::{PATIENCE, connect, failed, run};

/// What the users of one file in this process share, however many instances of a service they are.
#[derive(Default)]
struct Locks {
    /// Whoever waits to write waits in line.
    writer: Arc<AsyncMutex<()>>,
    publisher: Arc<AsyncMutex<()>>,
    migration: AsyncMutex<()>,
}
static LOCKS: LazyLock<Mutex<HashMap<PathBuf, Arc<Locks>>>> = LazyLock::new(Mutex::default);

/// A database in a file.
pub(super) struct File(Arc<Inner>);

struct Inner {
    path: PathBuf,
    access: OpenFlags,
    locks: Arc<Locks>,
    /// Connections that nobody uses at this moment; `None` after the end.
    idle: Mutex<Option<Idle>>,
}

#[derive(Default)]
struct Idle {
    writer: Option<Connection>,
    readers: Vec<Connection>,
}

impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("File").field("path", &self.0.path).finish_non_exhaustive()
    }
}

impl File {
    /// The database in the file of `url`, which is what follows `sqlite:`; `create`: one that isn't there is made.
    pub async fn open(url: &str, create: bool) -> Result<Self, StoreError> {
        let path = url.trim_start_matches("//").split('?').next().unwrap_or_default();
        if matches!(path, "" | ":memory:") {
            return Err(StoreError::Url("a SQLite database needs a file: sqlite:PATH".into()));
        }
        let wrong = |error: std::io::Error| StoreError::Url(format!("{path}: {error}"));
        let path = std::path::absolute(path).map_err(wrong)?;
        if let Some(folder) = path.parent().filter(|_| create) {
            std::fs::create_dir_all(folder)
                .map_err(|error| StoreError::Url(format!("{}: {error}", folder.display())))?;
        }
        let locks = LOCKS.lock().unwrap_or_else(PoisonError::into_inner).entry(path.clone()).or_default().clone();
        let mut access = OpenFlags::SQLITE_OPEN_READ_WRITE;
        access.set(OpenFlags::SQLITE_OPEN_CREATE, create);
        let file = Self(Arc::new(Inner { path, access, locks, idle: Mutex::new(Some(Idle::default())) }));
        // Nobody else may change the way in which a file is written while it is changed.
        let turn = file.0.locks.migration.lock().await;
        let first = file.0.connect()?;
        drop(turn);
        file.0.give_back(first, |idle, connection| idle.readers.push(connection));
        Ok(file)
    }

    pub async fn migrate(&self, migrator: &Migrator) -> Result<(), MigrateError> {
        let _turn = self.0.locks.migration.lock().await;
        let options = SqliteConnectOptions::new().filename(&self.0.path).busy_timeout(PATIENCE);
        let pool = SqlitePoolOptions::new().max_connections(1).connect_with(options).await?;
        let migrated = migrator.run(&pool).await;
        pool.close().await;
        migrated
    }
}

impl Inner {
    fn connect(&self) -> Result<Connection, sqlx::Error> {
        let connection = connect(&self.path, self.access).map_err(failed)?;
        // Changes go to a log beside the file first; every so many pages of it are brought into the file.
        let session = "PRAGMA journal_mode = WAL; PRAGMA cache_size = -8192; PRAGMA wal_autocheckpoint = 8000";
        connection.execute_batch(session).map_err(failed)?;
        Ok(connection)
    }

    fn idle(&self) -> MutexGuard<'_, Option<Idle>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, from: impl FnOnce(&mut Idle) -> Option<Connection>) -> Result<Connection, sqlx::Error> {
        let kept = from(self.idle().as_mut().ok_or(sqlx::Error::PoolClosed)?);
        kept.map_or_else(|| self.connect(), Ok)
    }

    fn give_back(&self, connection: Connection, to: impl FnOnce(&mut Idle, Connection)) {
        if let Some(idle) = self.idle().as_mut() {
            to(idle, connection);
        }
    }
}

#[async_trait]
impl Backend for File {
    fn system(&self) -> &'static str {
        "sqlite"
    }

    async fn fetch(&self, sql: String, values: Vec<Value>) -> Result<Vec<Row>, sqlx::Error> {
        let connection = self.0.take(|idle| idle.readers.pop())?;
        let rows = run(&connection, &sql, &values);
        self.0.give_back(connection, |idle, connection| idle.readers.push(connection));
        rows
    }

    async fn begin(&self, durable: bool) -> Result<Box<dyn Transaction>, sqlx::Error> {
        let turn = self.0.locks.writer.clone().lock_owned().await;
        let connection = self.0.take(|idle| idle.writer.take())?;
        let begun = Begun { connection: Some(connection), file: self.0.clone(), _turn: turn };
        // FULL: a commit is on the disk before it is answered, like PostgreSQL's. NORMAL: it is with the system.
        let how = if durable { "FULL" } else { "NORMAL" };
        begun.connection()?.execute_batch(&format!("PRAGMA synchronous = {how}; BEGIN IMMEDIATE")).map_err(failed)?;
        Ok(Box::new(OnFile { begun: Some(begun), at_leisure: false }))
    }

    async fn lock_publishing(&self, _streams: &[String]) -> Result<PublishingLock, sqlx::Error> {
        let turn = self.0.locks.publisher.clone().lock_owned().await;
        Ok(PublishingLock { transaction: None, turn: Some(Box::new(turn)) })
    }

    async fn close(&self) {
        let _turn = self.0.locks.writer.lock().await;
        let idle = self.0.idle().take();
        // The last one to leave brings what is in the log into the file.
        let _ = spawn_blocking(move || drop(idle)).await;
    }
}

/// The connection that writes, in a transaction. Dropped, it undoes that, and then gives connection and turn back.
struct Begun {
    connection: Option<Connection>,
    file: Arc<Inner>,
    _turn: OwnedMutexGuard<()>,
}

impl Begun {
    fn connection(&self) -> Result<&Connection, sqlx::Error> {
        self.connection.as_ref().ok_or(sqlx::Error::PoolClosed)
    }

    fn commit(self) -> Result<(), sqlx::Error> {
        self.connection()?.execute_batch("COMMIT").map_err(failed)
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        let Some(connection) = self.connection.take() else { return };
        // After a commit there is nothing to undo, and after a full disk SQLite has undone it itself. A connection that
        // can't is closed, which undoes it, too.
        if connection.is_autocommit() || connection.execute_batch("ROLLBACK").is_ok() {
            self.file.give_back(connection, |idle, connection| idle.writer = Some(connection));
        }
    }
}

struct OnFile {
    /// `None` only while another thread has it, and for ever if nobody waited for that.
    begun: Option<Begun>,
    at_leisure: bool,
}

impl OnFile {
    /// Does something with the connection, here or on a thread that may wait.
    async fn with<T: Send + 'static>(
        &mut self,
        what: impl FnOnce(&Connection) -> Result<T, sqlx::Error> + Send + 'static,
    ) -> Result<T, sqlx::Error> {
        let begun = self.begun.as_ref().ok_or(sqlx::Error::PoolClosed)?;
        if !self.at_leisure {
            return what(begun.connection()?);
        }
        let begun = self.begun.take().ok_or(sqlx::Error::PoolClosed)?;
        let elsewhere = spawn_blocking(move || (begun.connection().and_then(what), begun));
        let (done, begun) = elsewhere.await.map_err(|_| sqlx::Error::PoolClosed)?;
        self.begun = Some(begun);
        done
    }
}

#[async_trait]
impl Transaction for OnFile {
    async fn fetch(&mut self, sql: String, values: Vec<Value>) -> Result<Vec<Row>, sqlx::Error> {
        self.with(move |connection| run(connection, &sql, &values)).await
    }

    async fn execute(&mut self, sql: String, values: Vec<Value>) -> Result<u64, sqlx::Error> {
        self.with(move |connection| run(connection, &sql, &values).map(|_| connection.changes())).await
    }

    async fn claim(&mut self, _tables: &[&str]) -> Result<(), sqlx::Error> {
        // Nobody else writes anyway.
        self.at_leisure = true;
        Ok(())
    }

    async fn replace(&mut self, old: &str, new: &str, indexes: &[Index]) -> Result<(), sqlx::Error> {
        let mut statements = vec![format!("DROP TABLE {old}"), format!("ALTER TABLE {new} RENAME TO {old}")];
        for Index { new, definition, .. } in indexes {
            // An index can't be renamed; it is made again.
            statements.extend([format!("DROP INDEX {new}"), definition.clone()]);
        }
        let all = statements.join(";");
        self.with(move |connection| connection.execute_batch(&all).map_err(failed)).await
    }

    async fn commit(mut self: Box<Self>) -> Result<(), sqlx::Error> {
        let begun = self.begun.take().ok_or(sqlx::Error::PoolClosed)?;
        spawn_blocking(move || begun.commit()).await.map_err(|_| sqlx::Error::PoolClosed)?
    }
}
