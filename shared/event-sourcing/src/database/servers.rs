//! PostgreSQL and SQLite: how each is connected to, and who waits for whom when it is written to.

use std::{
    any::Any as Anything,
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, LazyLock, Mutex as StdMutex},
    time::Duration,
};

use async_trait::async_trait;
use sqlx::{
    Any, AnyPool, AssertSqlSafe, Connection, Executor,
    any::{AnyArguments, AnyPoolOptions},
    migrate::{Migration, Migrator},
};
use tokio::sync::{Mutex, OwnedMutexGuard};

use super::{Backend, Index, PublishingLock, Row, StoreError, Transaction, Value};

/// Connections that one process keeps to one database, at most.
const CONNECTIONS: u32 = 5;
const RELAXED_CONNECTIONS: u32 = 3;
/// The same for whoever only looks at tables that others keep: it asks one thing at a time, and each connection has a
/// cache of its own.
const LOOKING_CONNECTIONS: u32 = 2;

/// A pool of connections to one database.
#[derive(Debug)]
pub(super) struct Servers {
    pool: AnyPool,
    /// Connections whose commits don't wait for the disk: see [`super::Database::write_soon`].
    relaxed: AnyPool,
    /// SQLite has one writer; whoever waits for it here waits in line instead of polling. PostgreSQL needs none.
    file: Option<Arc<FileLocks>>,
}

/// What the users of one SQLite file in this process share, however many instances of a service they are.
#[derive(Debug, Default)]
struct FileLocks {
    writer: Arc<Mutex<()>>,
    publisher: Arc<Mutex<()>>,
    migration: Mutex<()>,
}
static FILES: LazyLock<StdMutex<HashMap<PathBuf, Arc<FileLocks>>>> = LazyLock::new(StdMutex::default);

impl Servers {
    /// Connects to `url`; `create`: a SQLite file that isn't there is made.
    pub async fn connect(url: &str, create: bool) -> Result<Self, StoreError> {
        sqlx::any::install_default_drivers();
        let sqlite = url.strip_prefix("sqlite:").map(|path| path.trim_start_matches("//"));
        let (file, full_url) = match sqlite {
            Some("" | ":memory:") => return Err(StoreError::Url("a SQLite database needs a file: sqlite:PATH".into())),
            Some(path) => {
                let path = path.split('?').next().unwrap_or(path);
                let mode = if create { "rwc" } else { "rw" };
                (Some(file_locks(path, create)?), format!("sqlite://{path}?mode={mode}"))
            }
            None if url.starts_with("postgres://") || url.starts_with("postgresql://") => (None, url.to_owned()),
            None => return Err(StoreError::Url("must begin with postgres:// or sqlite:".into())),
        };
        let most = if create { CONNECTIONS } else { LOOKING_CONNECTIONS };
        let pool = connections(file.is_some(), true, most).connect(&full_url).await?;
        let relaxed = connections(file.is_some(), false, RELAXED_CONNECTIONS).connect_lazy(&full_url)?;
        Ok(Self { pool, relaxed, file })
    }

    /// `shared`: what others have prepared in the same database is none of our business.
    pub async fn migrate(&self, url: &str, migrations: &[&Migrator], shared: bool) -> Result<(), StoreError> {
        let all: Vec<Migration> = migrations.iter().flat_map(|migrator| migrator.iter().cloned()).collect();
        let mut migrator = Migrator::with_migrations(all);
        migrator.set_ignore_missing(shared);
        // PostgreSQL's own lock serializes instances; a file's users are all in this process.
        let _turn = match &self.file {
            Some(file) => Some(file.migration.lock().await),
            None => None,
        };
        let without_password = url.rsplit('@').next().unwrap_or(url).to_owned();
        migrator
            .run(&self.pool)
            .await
            .map_err(|source| StoreError::Migration { url: without_password, source: Box::new(source) })
    }
}

#[async_trait]
impl Backend for Servers {
    fn system(&self) -> &'static str {
        if self.file.is_some() { "sqlite" } else { "postgresql" }
    }

    async fn fetch(&self, sql: String, values: Vec<Value>) -> Result<Vec<Row>, sqlx::Error> {
        let rows = bind(sql, values).fetch_all(&self.pool).await?;
        Ok(rows.into_iter().map(Row::from_server).collect())
    }

    async fn begin(&self, durable: bool) -> Result<Box<dyn Transaction>, sqlx::Error> {
        let pool = if durable { &self.pool } else { &self.relaxed };
        let (tx, turn) = match &self.file {
            Some(file) => {
                let turn = file.writer.clone().lock_owned().await;
                (pool.begin_with("BEGIN IMMEDIATE").await?, Some(turn))
            }
            None => (pool.begin().await?, None),
        };
        Ok(Box::new(OnServer { tx, turn }))
    }

    async fn filled(&self, table: &str) -> Result<(), sqlx::Error> {
        if self.file.is_none() {
            bind(format!("ANALYZE {table}"), Vec::new()).execute(&self.pool).await?;
        }
        // SQLite would keep what it found, and plan by it for ever after; its plans need none.
        Ok(())
    }

    async fn lock_publishing(&self, streams: &[String]) -> Result<PublishingLock, sqlx::Error> {
        if let Some(file) = &self.file {
            let turn: Box<dyn Anything + Send> = Box::new(file.publisher.clone().lock_owned().await);
            return Ok(PublishingLock { transaction: None, turn: Some(turn) });
        }
        let mut tx = self.relaxed.begin().await?;
        sqlx::query(
            "SELECT pg_advisory_xact_lock(key)::text FROM (SELECT DISTINCT hashtextextended(value, 1) AS key \
             FROM json_array_elements_text($1::json) ORDER BY 1) AS keys",
        )
        .bind(serde_json::Value::from(streams).to_string())
        .fetch_all(&mut *tx)
        .await?;
        Ok(PublishingLock { transaction: Some(Box::new(OnServer { tx, turn: None })), turn: None })
    }

    async fn close(&self) {
        self.pool.close().await;
        self.relaxed.close().await;
    }
}

struct OnServer {
    tx: sqlx::Transaction<'static, Any>,
    /// A file has one writer, which this is.
    turn: Option<OwnedMutexGuard<()>>,
}

#[async_trait]
impl Transaction for OnServer {
    async fn fetch(&mut self, sql: String, values: Vec<Value>) -> Result<Vec<Row>, sqlx::Error> {
        let rows = bind(sql, values).fetch_all(&mut *self.tx).await?;
        Ok(rows.into_iter().map(Row::from_server).collect())
    }

    async fn execute(&mut self, sql: String, values: Vec<Value>) -> Result<u64, sqlx::Error> {
        Ok(bind(sql, values).execute(&mut *self.tx).await?.rows_affected())
    }

    async fn claim(&mut self, tables: &[&str]) -> Result<(), sqlx::Error> {
        if self.turn.is_some() {
            return Ok(());
        }
        (&mut *self.tx).execute("SET LOCAL statement_timeout = 0").await?;
        (&mut *self.tx).execute("SET LOCAL idle_in_transaction_session_timeout = 0").await?;
        for table in tables {
            bind(format!("LOCK TABLE {table} IN EXCLUSIVE MODE"), Vec::new()).execute(&mut *self.tx).await?;
        }
        Ok(())
    }

    async fn replace(&mut self, old: &str, new: &str, indexes: &[Index]) -> Result<(), sqlx::Error> {
        let mut statements = vec![format!("DROP TABLE {old}"), format!("ALTER TABLE {new} RENAME TO {old}")];
        if self.turn.is_some() {
            // SQLite can't rename an index; it is made again.
            for Index { new, definition, .. } in indexes {
                statements.extend([format!("DROP INDEX {new}"), definition.clone()]);
            }
        } else {
            statements.push(format!("ALTER INDEX {new}_pkey RENAME TO {old}_pkey"));
            statements
                .extend(indexes.iter().map(|Index { new, name, .. }| format!("ALTER INDEX {new} RENAME TO {name}")));
        }
        for statement in statements {
            self.execute(statement, Vec::new()).await?;
        }
        Ok(())
    }

    async fn commit(self: Box<Self>) -> Result<(), sqlx::Error> {
        self.tx.commit().await
    }
}

/// A query with its values bound in order.
fn bind(sql: String, values: Vec<Value>) -> sqlx::query::Query<'static, Any, AnyArguments> {
    // Every statement is written in this project; what comes from outside is only ever a bound value.
    values.into_iter().fold(sqlx::query(AssertSqlSafe(sql)), |query, value| match value {
        Value::Text(text) => query.bind(text),
        Value::Int(number) => query.bind(number),
    })
}

fn connections(is_file: bool, durable: bool, most: u32) -> AnyPoolOptions {
    AnyPoolOptions::new()
        .max_connections(most)
        .acquire_timeout(Duration::from_secs(5))
        // After a full disk SQLite ends a transaction by itself, and the driver goes on believing in it.
        .before_acquire(|connection, _| Box::pin(async move { Ok(!connection.is_in_transaction()) }))
        .after_connect(move |connection, _| {
            Box::pin(async move {
                let session = match (is_file, durable) {
                    // FULL: a commit is on the disk before it is answered, like PostgreSQL's.
                    (true, true) => "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA busy_timeout = 10000; PRAGMA cache_size = -8192; PRAGMA wal_autocheckpoint = 8000",
                    (true, false) => "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA busy_timeout = 10000; PRAGMA wal_autocheckpoint = 8000",
                    (false, true) => "SET idle_in_transaction_session_timeout = '15s'; SET statement_timeout = '15s'",
                    (false, false) => {
                        "SET idle_in_transaction_session_timeout = '15s'; SET statement_timeout = '15s'; \
                         SET synchronous_commit = off"
                    }
                };
                connection.execute(session).await.map(|_| ())
            })
        })
}

fn file_locks(path: &str, create: bool) -> Result<Arc<FileLocks>, StoreError> {
    let absolute = std::path::absolute(path).map_err(|error| StoreError::Url(format!("{path}: {error}")))?;
    if let Some(folder) = absolute.parent().filter(|_| create) {
        std::fs::create_dir_all(folder).map_err(|error| StoreError::Url(format!("{}: {error}", folder.display())))?;
    }
    let mut files = FILES.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    Ok(files.entry(absolute).or_default().clone())
}
