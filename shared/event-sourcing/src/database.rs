//! A service's own database: PostgreSQL, or a SQLite file with nothing to install. The statements are the same for
//! both; what differs (who locks what, what is waited for) stays in this file.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, LazyLock, Mutex as StdMutex},
    time::Duration,
};

use sqlx::{
    Any, AnyPool, AssertSqlSafe, Executor, Transaction,
    any::{AnyArguments, AnyPoolOptions},
    migrate::{Migration, Migrator},
};
use tokio::sync::{Mutex, OwnedMutexGuard};

/// Connections that one process keeps to one database, at most.
const CONNECTIONS: u32 = 5;
const RELAXED_CONNECTIONS: u32 = 3;
/// Rows that one INSERT carries. Few sizes mean few statements to prepare.
const ROWS_AT_ONCE: [usize; 5] = [128, 32, 8, 2, 1];

/// Why the store did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Somebody else appended first; load again and decide again.
    #[error("the stream has changed meanwhile; load it again and decide again")]
    Conflict,
    /// Passes, or needs an operator: the database's own words say which.
    #[error("the database does not answer: {0}")]
    Unavailable(#[from] sqlx::Error),
    /// What is stored does not read as this version of the service expects.
    #[error(transparent)]
    Malformed(#[from] crate::MalformedEvent),
    /// The tables can't be brought to the shape this version needs.
    #[error("the database at {url} can't be prepared: {source}")]
    Migration { url: String, source: Box<sqlx::migrate::MigrateError> },
    /// The setting is wrong.
    #[error("DATABASE_URL: {0}")]
    Url(String),
}

impl StoreError {
    /// Two transactions met; the loser tries again.
    pub(crate) fn from_write(error: sqlx::Error) -> Self {
        let met = error.as_database_error().is_some_and(|database| {
            database.is_unique_violation() || matches!(database.code().as_deref(), Some("40001" | "40P01"))
        });
        if met { Self::Conflict } else { Self::Unavailable(error) }
    }
}

/// A parameter of a [`Statement`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Value {
    Text(String),
    Int(i64),
}
impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}
impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}
impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Int(number)
    }
}

/// One statement and its parameters (`$1`, `$2` …): how a projection beside the events is kept.
#[derive(Debug, Clone)]
pub struct Statement {
    pub sql: &'static str,
    pub values: Vec<Value>,
}

impl Statement {
    /// `sql` with `$1` … standing for `values`.
    pub fn new<const N: usize>(sql: &'static str, values: [Value; N]) -> Self {
        Self { sql, values: values.into() }
    }

    /// Runs it inside a transaction.
    ///
    /// # Errors
    /// Whatever the database says.
    pub async fn execute(self, tx: &mut Transaction<'static, Any>) -> Result<(), sqlx::Error> {
        bind(AssertSqlSafe(self.sql.to_owned()), self.values).execute(&mut **tx).await.map(|_| ())
    }
}

type Query = sqlx::query::Query<'static, Any, AnyArguments>;

/// A query with its values bound in order.
pub fn bind(sql: AssertSqlSafe<String>, values: impl IntoIterator<Item = Value>) -> Query {
    values.into_iter().fold(sqlx::query(sql), |query, value| match value {
        Value::Text(text) => query.bind(text),
        Value::Int(number) => query.bind(number),
    })
}

/// `($1,$2),($3,$4)` for two rows of two columns: a VALUES list, for INSERT and for `IN`.
#[must_use]
pub fn placeholders(rows: usize, columns: usize) -> String {
    let row = |row: usize| {
        let names: Vec<_> = (1..=columns).map(|column| format!("${}", row * columns + column)).collect();
        format!("({})", names.join(","))
    };
    (0..rows).map(row).collect::<Vec<_>>().join(",")
}

/// Splits `rows` into pieces of few different sizes, so that few different statements are prepared.
pub fn pieces<T>(mut rows: Vec<T>) -> impl Iterator<Item = Vec<T>> {
    std::iter::from_fn(move || {
        let size = ROWS_AT_ONCE.into_iter().find(|size| *size <= rows.len())?;
        let rest = rows.split_off(size);
        Some(std::mem::replace(&mut rows, rest))
    })
}

/// `INSERT INTO {into} VALUES … {conflict}` for any number of rows.
///
/// # Errors
/// Whatever the database says. Returns how many rows were written.
pub async fn insert<const N: usize>(
    tx: &mut Transaction<'static, Any>,
    into: &str,
    rows: Vec<[Value; N]>,
    conflict: &str,
) -> Result<u64, sqlx::Error> {
    let mut written = 0;
    for piece in pieces(rows) {
        let sql = format!("INSERT INTO {into} VALUES {} {conflict}", placeholders(piece.len(), N));
        written += bind(AssertSqlSafe(sql), piece.into_iter().flatten()).execute(&mut **tx).await?.rows_affected();
    }
    Ok(written)
}

/// A pool of connections to one database, and the discipline of writing to it.
#[derive(Debug, Clone)]
pub struct Database {
    pool: AnyPool,
    /// Connections whose commits don't wait for the disk: see [`Database::write_soon`].
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

/// A transaction that may write.
pub struct Write {
    pub tx: Transaction<'static, Any>,
    _turn: Option<OwnedMutexGuard<()>>,
}
impl Write {
    /// Makes it durable.
    ///
    /// # Errors
    /// Whatever the database says; then nothing of it may have happened.
    pub async fn commit(self) -> Result<(), sqlx::Error> {
        self.tx.commit().await
    }
}

impl Database {
    /// Connects and brings the tables up to date; several instances may do so at once.
    ///
    /// # Errors
    /// If the URL is wrong, nobody answers, or the tables can't be prepared.
    pub async fn open(url: &str, migrations: &[&Migrator]) -> Result<Self, StoreError> {
        sqlx::any::install_default_drivers();
        let sqlite = url.strip_prefix("sqlite:").map(|path| path.trim_start_matches("//"));
        let (file, full_url) = match sqlite {
            Some("" | ":memory:") => return Err(StoreError::Url("a SQLite database needs a file: sqlite:PATH".into())),
            Some(path) => {
                let path = path.split('?').next().unwrap_or(path);
                (Some(file_locks(path)?), format!("sqlite://{path}?mode=rwc"))
            }
            None if url.starts_with("postgres://") || url.starts_with("postgresql://") => (None, url.to_owned()),
            None => return Err(StoreError::Url("must begin with postgres:// or sqlite:".into())),
        };
        let pool = connections(file.is_some(), true, CONNECTIONS).connect(&full_url).await?;
        let relaxed = connections(file.is_some(), false, RELAXED_CONNECTIONS).connect_lazy(&full_url)?;
        let database = Self { pool, relaxed, file };
        database.migrate(url, migrations).await?;
        Ok(database)
    }

    async fn migrate(&self, url: &str, migrations: &[&Migrator]) -> Result<(), StoreError> {
        let all: Vec<Migration> = migrations.iter().flat_map(|migrator| migrator.iter().cloned()).collect();
        let migrator = Migrator::with_migrations(all);
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

    /// For reading.
    #[must_use]
    pub fn pool(&self) -> &AnyPool {
        &self.pool
    }

    /// Begins a transaction that writes.
    ///
    /// # Errors
    /// If the database doesn't answer.
    pub async fn write(&self) -> Result<Write, sqlx::Error> {
        self.begin(&self.pool).await
    }

    /// Begins a transaction whose commit is seen by everybody and survives the end of this process, but not at once a
    /// power failure: for notes that may be lost with no harm, such as what is published or being tried.
    ///
    /// # Errors
    /// If the database doesn't answer.
    pub async fn write_soon(&self) -> Result<Write, sqlx::Error> {
        self.begin(&self.relaxed).await
    }

    async fn begin(&self, pool: &AnyPool) -> Result<Write, sqlx::Error> {
        match &self.file {
            Some(file) => {
                let turn = file.writer.clone().lock_owned().await;
                Ok(Write { tx: pool.begin_with("BEGIN IMMEDIATE").await?, _turn: Some(turn) })
            }
            None => Ok(Write { tx: pool.begin().await?, _turn: None }),
        }
    }

    /// Takes the right to publish `streams`, until the transaction that comes with it ends: one publisher per stream
    /// at a time, also where several processes share the database.
    ///
    /// # Errors
    /// If the database doesn't answer.
    pub async fn lock_publishing(&self, streams: &[String]) -> Result<PublishingLock, sqlx::Error> {
        if let Some(file) = &self.file {
            return Ok(PublishingLock { tx: None, _turn: Some(file.publisher.clone().lock_owned().await) });
        }
        let mut tx = self.relaxed.begin().await?;
        sqlx::query(
            "SELECT pg_advisory_xact_lock(key)::text FROM (SELECT DISTINCT hashtextextended(value, 1) AS key \
             FROM json_array_elements_text($1::json) ORDER BY 1) AS keys",
        )
        .bind(serde_json::Value::from(streams).to_string())
        .fetch_all(&mut *tx)
        .await?;
        Ok(PublishingLock { tx: Some(tx), _turn: None })
    }

    /// Whether the database answers.
    ///
    /// # Errors
    /// If it doesn't.
    pub async fn ping(&self) -> Result<(), sqlx::Error> {
        sqlx::query("SELECT 1").execute(&self.pool).await.map(|_| ())
    }

    /// Closes every connection, after what is under way.
    pub async fn close(&self) {
        self.pool.close().await;
        self.relaxed.close().await;
    }
}

/// See [`Database::lock_publishing`]. PostgreSQL's lock is its transaction's; a file's is this process's.
pub struct PublishingLock {
    pub(crate) tx: Option<Transaction<'static, Any>>,
    _turn: Option<OwnedMutexGuard<()>>,
}

fn connections(is_file: bool, durable: bool, most: u32) -> AnyPoolOptions {
    AnyPoolOptions::new()
        .max_connections(most)
        .acquire_timeout(Duration::from_secs(5))
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

fn file_locks(path: &str) -> Result<Arc<FileLocks>, StoreError> {
    let absolute = std::path::absolute(path).map_err(|error| StoreError::Url(format!("{path}: {error}")))?;
    if let Some(folder) = absolute.parent() {
        std::fs::create_dir_all(folder).map_err(|error| StoreError::Url(format!("{}: {error}", folder.display())))?;
    }
    let mut files = FILES.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    Ok(files.entry(absolute).or_default().clone())
}
