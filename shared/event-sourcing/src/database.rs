//! A service's own database: PostgreSQL, or a SQLite file with nothing to install. The statements are the same for
//! both; what differs (who locks what, what is waited for) stands in `server` and `file`. All of it goes through
//! [`Backend`], so that a simulation can stand where a database does.

use std::{
    any::Any,
    fmt::Debug,
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use sqlx::migrate::{Migration, Migrator};

use crate::ambient::simulated_database;

mod file;
mod row;
mod server;

pub use row::{Row, Statement, Value, lists, pieces, placeholders};

/// Why the store did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Somebody else appended first; load again and decide again.
    #[error("the stream has changed meanwhile; load it again and decide again")]
    Conflict,
    /// Passes, or needs an operator: the database's own words say which.
    #[error("the database does not answer: {0}")]
    Unavailable(sqlx::Error),
    /// Never passes: the database can't hold what it was given, such as a NUL in a text.
    #[error("the database can't hold this: {0}")]
    Refused(sqlx::Error),
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

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        // SQLSTATE's classes of wrong data and of limits of the program. SQLite has no such codes, and no such limits.
        let class = |code: &str| code.len() == 5 && (code.starts_with("22") || code.starts_with("54"));
        let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
        if code.as_deref().is_some_and(class) { Self::Refused(error) } else { Self::Unavailable(error) }
    }
}

impl StoreError {
    /// Two transactions met; the loser tries again.
    pub(crate) fn from_write(error: sqlx::Error) -> Self {
        let met = error.as_database_error().is_some_and(|database| {
            database.is_unique_violation() || matches!(database.code().as_deref(), Some("40001" | "40P01"))
        });
        if met { Self::Conflict } else { error.into() }
    }
}

/// What a database can do.
#[async_trait]
pub trait Backend: Debug + Send + Sync + 'static {
    /// What OpenTelemetry's conventions call it.
    fn system(&self) -> &'static str {
        "other_sql"
    }

    /// Rows, as everybody sees them who isn't in a transaction.
    async fn fetch(&self, sql: String, values: Vec<Value>) -> Result<Vec<Row>, sqlx::Error>;

    /// Begins a transaction that writes; `durable`: its commit waits for the disk.
    async fn begin(&self, durable: bool) -> Result<Box<dyn Transaction>, sqlx::Error>;

    /// See [`Database::filled`].
    async fn filled(&self, _table: &str) -> Result<(), sqlx::Error> {
        Ok(())
    }

    /// See [`Database::lock_publishing`].
    async fn lock_publishing(&self, streams: &[String]) -> Result<PublishingLock, sqlx::Error>;

    /// Closes every connection, after what is under way.
    async fn close(&self);
}

/// A transaction; it ends without effect if it is dropped.
#[async_trait]
pub trait Transaction: Send {
    /// Rows, as this transaction sees them.
    async fn fetch(&mut self, sql: String, values: Vec<Value>) -> Result<Vec<Row>, sqlx::Error>;

    /// Changes something; how many rows.
    async fn execute(&mut self, sql: String, values: Vec<Value>) -> Result<u64, sqlx::Error>;

    /// See [`Write::claim`].
    async fn claim(&mut self, _tables: &[&str]) -> Result<(), sqlx::Error> {
        Ok(())
    }

    /// See [`Write::replace`].
    async fn replace(&mut self, old: &str, new: &str, _indexes: &[Index]) -> Result<(), sqlx::Error> {
        Err(sqlx::Error::Protocol(format!("{new} can't take the place of {old} here")))
    }

    /// Makes it last.
    async fn commit(self: Box<Self>) -> Result<(), sqlx::Error>;
}

/// An index of a table that takes another one's place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Index {
    /// What it is called on the new table.
    pub new: String,
    /// What it is to be called.
    pub name: String,
    /// The statement that makes it under that name.
    pub definition: String,
}

/// The right to publish some streams, while it is held. PostgreSQL's lock is its transaction's; a file's is this
/// process's.
pub struct PublishingLock {
    /// The transaction that the lock came with, in which the outcome is noted.
    pub transaction: Option<Box<dyn Transaction>>,
    /// Whatever gives the lock back when it is dropped.
    pub turn: Option<Box<dyn Any + Send>>,
}

/// Where the database of a URL is.
enum Place<'a> {
    File(&'a str),
    Server,
}

fn place(url: &str) -> Result<Place<'_>, StoreError> {
    match url.strip_prefix("sqlite:") {
        Some(path) => Ok(Place::File(path)),
        None if url.starts_with("postgres://") || url.starts_with("postgresql://") => Ok(Place::Server),
        None => Err(StoreError::Url("must begin with postgres:// or sqlite:".into())),
    }
}

/// Hears how long a transaction took that has written something, from its beginning to its commit.
pub type Committed = Arc<dyn Fn(Duration) + Send + Sync>;

/// One database, and the discipline of writing to it.
#[derive(Clone)]
pub struct Database {
    backend: Arc<dyn Backend>,
    committed: Option<Committed>,
}

impl Debug for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.backend.fmt(f)
    }
}

impl Database {
    /// Connects and brings the tables up to date; several instances may do so at once.
    ///
    /// # Errors
    /// If the URL is wrong, nobody answers, or the tables can't be prepared.
    pub async fn open(url: &str, migrations: &[&Migrator]) -> Result<Self, StoreError> {
        Self::prepared(url, migrations, false).await
    }

    /// Like [`open`](Self::open), where somebody else may have tables of their own in the same database.
    ///
    /// # Errors
    /// If the URL is wrong, nobody answers, or the tables can't be prepared.
    pub async fn open_shared(url: &str, migrations: &[&Migrator]) -> Result<Self, StoreError> {
        Self::prepared(url, migrations, true).await
    }

    /// Connects to tables that somebody else keeps up to date; a file that isn't there is no database.
    ///
    /// # Errors
    /// If the URL is wrong or nobody answers.
    pub async fn connect(url: &str) -> Result<Self, StoreError> {
        match place(url)? {
            Place::File(path) => Ok(Self::on(file::File::open(path, false).await?)),
            Place::Server => Ok(Self::on(server::Server::connect(url, true).await?)),
        }
    }

    async fn prepared(url: &str, migrations: &[&Migrator], shared: bool) -> Result<Self, StoreError> {
        if let Some(simulated) = simulated_database(url) {
            return Ok(simulated);
        }
        let all: Vec<Migration> = migrations.iter().flat_map(|migrator| migrator.iter().cloned()).collect();
        let mut migrator = Migrator::with_migrations(all);
        // What others have prepared in the same database is none of our business.
        migrator.set_ignore_missing(shared);
        let without_password = url.rsplit('@').next().unwrap_or(url).to_owned();
        let unprepared = |source| StoreError::Migration { url: without_password, source: Box::new(source) };
        match place(url)? {
            Place::File(path) => {
                let file = file::File::open(path, true).await?;
                file.migrate(&migrator).await.map_err(unprepared)?;
                Ok(Self::on(file))
            }
            Place::Server => {
                let server = server::Server::connect(url, false).await?;
                server.migrate(&migrator).await.map_err(unprepared)?;
                Ok(Self::on(server))
            }
        }
    }

    /// Whatever can do what a database can.
    #[must_use]
    pub fn on(backend: impl Backend) -> Self {
        Self { backend: Arc::new(backend), committed: None }
    }

    /// With somebody who wants to know how long transactions take.
    #[must_use]
    pub fn measured(self, committed: Committed) -> Self {
        Self { committed: Some(committed), ..self }
    }

    /// What OpenTelemetry's conventions call it.
    #[must_use]
    pub fn system(&self) -> &'static str {
        self.backend.system()
    }

    /// Rows; `$1` … in `sql` stand for `values`.
    ///
    /// # Errors
    /// Whatever the database says.
    pub async fn fetch(&self, sql: impl Into<String>, values: impl Into<Vec<Value>>) -> Result<Vec<Row>, sqlx::Error> {
        self.backend.fetch(sql.into(), values.into()).await
    }

    /// Like [`fetch`](Self::fetch), for a question that takes as long as it takes.
    ///
    /// # Errors
    /// Whatever the database says.
    pub async fn fetch_at_leisure(
        &self,
        sql: impl Into<String>,
        values: impl Into<Vec<Value>>,
    ) -> Result<Vec<Row>, sqlx::Error> {
        let mut read = self.write_soon().await?;
        read.claim(&[]).await?;
        read.fetch(sql, values).await
    }

    async fn begin(&self, durable: bool) -> Result<Write, sqlx::Error> {
        let begun = Instant::now();
        let transaction = self.backend.begin(durable).await?;
        Ok(Write { transaction, begun, committed: self.committed.clone() })
    }

    /// Begins a transaction that writes.
    ///
    /// # Errors
    /// If the database doesn't answer.
    pub async fn write(&self) -> Result<Write, sqlx::Error> {
        self.begin(true).await
    }

    /// Begins a transaction whose commit is seen by everybody and survives the end of this process, but not at once a
    /// power failure: for notes that may be lost with no harm, such as what is published or being tried.
    ///
    /// # Errors
    /// If the database doesn't answer.
    pub async fn write_soon(&self) -> Result<Write, sqlx::Error> {
        self.begin(false).await
    }

    /// Takes the right to publish `streams`, until the lock is given back: one publisher per stream at a time, also
    /// where several processes share the database.
    ///
    /// # Errors
    /// If the database doesn't answer.
    pub async fn lock_publishing(&self, streams: &[String]) -> Result<PublishingLock, sqlx::Error> {
        self.backend.lock_publishing(streams).await
    }

    /// A table has been filled in bulk: the database looks at it again before it plans how to read it.
    ///
    /// # Errors
    /// If the database doesn't answer.
    pub async fn filled(&self, table: &str) -> Result<(), sqlx::Error> {
        self.backend.filled(table).await
    }

    /// Whether the database answers.
    ///
    /// # Errors
    /// If it doesn't.
    pub async fn ping(&self) -> Result<(), sqlx::Error> {
        self.fetch("SELECT 1", []).await.map(|_| ())
    }

    /// Closes every connection, after what is under way.
    pub async fn close(&self) {
        self.backend.close().await;
    }
}

/// A transaction that writes.
pub struct Write {
    transaction: Box<dyn Transaction>,
    begun: Instant,
    committed: Option<Committed>,
}

impl Write {
    /// A transaction that came from elsewhere, such as a [`PublishingLock`]'s.
    #[must_use]
    pub fn within(transaction: Box<dyn Transaction>) -> Self {
        Self { transaction, begun: Instant::now(), committed: None }
    }

    /// Rows, as this transaction sees them.
    ///
    /// # Errors
    /// Whatever the database says.
    pub async fn fetch(
        &mut self,
        sql: impl Into<String>,
        values: impl Into<Vec<Value>>,
    ) -> Result<Vec<Row>, sqlx::Error> {
        self.transaction.fetch(sql.into(), values.into()).await
    }

    /// Changes something; how many rows.
    ///
    /// # Errors
    /// Whatever the database says.
    pub async fn execute(&mut self, sql: impl Into<String>, values: impl Into<Vec<Value>>) -> Result<u64, sqlx::Error> {
        self.transaction.execute(sql.into(), values.into()).await
    }

    /// `INSERT INTO {into} VALUES … {conflict}` for any number of rows; how many were written.
    ///
    /// # Errors
    /// Whatever the database says.
    pub async fn insert<const N: usize>(
        &mut self,
        into: &str,
        rows: Vec<[Value; N]>,
        conflict: &str,
    ) -> Result<u64, sqlx::Error> {
        let mut written = 0;
        for piece in pieces(rows) {
            let sql = format!("INSERT INTO {into} VALUES {} {conflict}", placeholders(piece.len(), N));
            written += self.execute(sql, piece.into_iter().flatten().collect::<Vec<_>>()).await?;
        }
        Ok(written)
    }

    /// Nobody else writes to these tables until this transaction ends, and it may take as long as it needs. They can
    /// still be read.
    ///
    /// # Errors
    /// Whatever the database says.
    pub async fn claim(&mut self, tables: &[&str]) -> Result<(), sqlx::Error> {
        self.transaction.claim(tables).await
    }

    /// The table `new` takes the name and the place of `old`, which is dropped; so do its `indexes`.
    ///
    /// # Errors
    /// Whatever the database says.
    pub async fn replace(&mut self, old: &str, new: &str, indexes: &[Index]) -> Result<(), sqlx::Error> {
        self.transaction.replace(old, new, indexes).await
    }

    /// Makes it durable.
    ///
    /// # Errors
    /// Whatever the database says; then nothing of it may have happened.
    pub async fn commit(self) -> Result<(), sqlx::Error> {
        self.transaction.commit().await?;
        if let Some(committed) = self.committed {
            committed(self.begun.elapsed());
        }
        Ok(())
    }
}
