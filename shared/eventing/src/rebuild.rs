//! A writing service's store, made again from the log alone: its events, what it remembers of what it has heard, and
//! what it keeps beside its events. A service that joins late reads all of history through its door; this is for one
//! that was there and has lost its store.
//!
//! 1. [`history`]: every event of its own topic becomes a row again.
//! 2. [`letters`]: its dead letters come back from their topic.
//! 3. [`memory`]: the events it has heard and that had an effect are those that its own events name as their cause, and
//!    those that changed what it keeps beside them ([`Replay::heard`]). Where an event had no effect there was nothing
//!    to remember, and it has none if it is told again.
//! 4. What follows from its own streams ([`Replay::own_stream`]) is folded again.
//!
//! Nothing is decided again, nobody outside is asked, and no group's position changes: the service goes on where its
//! group was. [`proof`] compares what came out with the store that was there.

use std::{sync::Arc, time::Instant};

use event_sourcing::{Database, MIGRATIONS, Recorded, Statement, StoreError};
use sqlx::migrate::Migrator;

use crate::{
    Failure, Identity, Incoming,
    log::{EventLog, LogError, Stretch},
};

mod history;
pub mod letters;
mod memory;
pub mod proof;

pub use proof::{Proof, Table};

/// Statements that share a transaction.
const STATEMENTS: usize = 1_000;

/// What only the service itself knows of its store: implemented beside its reactions, and made of the same parts.
pub trait Replay: Send + Sync + 'static {
    /// Who it is to the others.
    fn who(&self) -> Identity;

    /// The tables of its own.
    fn migrations(&self) -> Vec<&'static Migrator> {
        Vec::new()
    }

    /// See [`Handler::understands`](crate::Handler::understands).
    fn understands(&self, name: &str) -> Option<&'static str>;

    /// What it keeps beside its events, row by row: what a rebuild must bring back, and a proof compares.
    fn projections(&self) -> &'static [Table] {
        &[]
    }

    /// Whether it keeps something because of its own streams.
    fn keeps_of_own(&self) -> bool {
        false
    }

    /// What it keeps because of one of its own streams.
    ///
    /// # Errors
    /// If an event doesn't read.
    fn own_stream(&self, _stream_id: &str, _events: &[Recorded]) -> Result<Vec<Statement>, Failure> {
        Ok(Vec::new())
    }

    /// Whether it keeps something because of other services' events of this name.
    fn keeps(&self, _name: &str) -> bool {
        false
    }

    /// What it keeps because of an event that it has heard.
    ///
    /// # Errors
    /// If the event doesn't read; then it had no effect when it came, either.
    fn heard(&self, _event: &Incoming) -> Result<Vec<Statement>, Failure> {
        Ok(Vec::new())
    }
}

/// Is told how far it has come.
pub trait Progress: Send + Sync {
    /// Something begins that has so many parts.
    fn begin(&self, what: &str, parts: u64);
    /// So many more are done.
    fn advance(&self, parts: u64);
}

impl Progress for () {
    fn begin(&self, _: &str, _: u64) {}
    fn advance(&self, _: u64) {}
}

/// Why a store can't be made again.
#[derive(Debug, thiserror::Error)]
pub enum RebuildError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Log(#[from] LogError),
    #[error("there is no topic {0}: is this the right log?")]
    NoTopic(String),
    #[error("the store isn't empty: its table {table} has rows; a rebuild fills an empty store only")]
    NotEmpty { table: String },
    #[error(
        "the log is broken: stream {stream} of topic {topic} goes from version {newest} to version {came} \
         (partition {partition}, offset {offset}); what lies between is missing"
    )]
    Gap { topic: String, stream: String, newest: i64, came: i64, partition: i32, offset: i64 },
    #[error("the log is broken: version {version} of stream {stream} is there twice, with different content")]
    OtherBytes { stream: String, version: i64 },
    #[error("stream {stream} can't be folded: {reason}")]
    Unreadable { stream: String, reason: String },
    #[error("somebody else has written to the store meanwhile; stop the service, empty the store, and begin again")]
    NotAlone,
}

impl From<sqlx::Error> for RebuildError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

/// What a rebuild came to.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Figures {
    /// Events in the store.
    pub events: u64,
    /// Records that stood on the log more than once.
    pub repeats: u64,
    /// Records on the service's own topic that it can't have written.
    pub strangers: u64,
    /// Records of other services that were looked at.
    pub heard: u64,
    /// Events of others that are remembered, because they had an effect.
    pub remembered: u64,
    /// Commands that are remembered: those that had an idempotency key, and those that had none; the log doesn't say
    /// which is which, and the latter are never asked for again.
    pub commands: u64,
    pub seconds: f64,
}

/// Opens the store of a service at `url` to be filled.
///
/// # Errors
/// If it can't be opened, or has rows already.
pub async fn open_empty(replay: &dyn Replay, url: &str) -> Result<Database, RebuildError> {
    let migrations: Vec<&Migrator> = std::iter::once(&MIGRATIONS).chain(replay.migrations()).collect();
    let database = Database::open_shared(url, &migrations).await?;
    let own =
        ["events", "inbox", "dead_letters"].into_iter().chain(replay.projections().iter().map(|table| table.name));
    for table in own {
        if !database.fetch(format!("SELECT 1 FROM {table} LIMIT 1"), []).await?.is_empty() {
            return Err(RebuildError::NotEmpty { table: table.to_owned() });
        }
    }
    Ok(database)
}

/// Fills `database`, which [`open_empty`] has opened, from `log`. `hears` are the topics that the service is told of.
///
/// # Errors
/// If store or log don't answer, or the log isn't what a service has written; then the store is to be thrown away.
pub async fn rebuild(
    replay: &dyn Replay,
    log: &Arc<dyn EventLog>,
    hears: &[String],
    database: &Database,
    progress: &dyn Progress,
) -> Result<Figures, RebuildError> {
    let started = Instant::now();
    let own = Stretch::all(&**log, &[replay.who().topic.to_owned()]).await?;
    if own.is_empty() {
        return Err(RebuildError::NoTopic(replay.who().topic.to_owned()));
    }
    let mut figures = Figures::default();
    history::restore(replay.who(), log, own, database, progress, &mut figures).await?;
    let without_effect = letters::restore(replay.who().name, &**log, database).await?;
    memory::restore(replay, log, hears, without_effect, database, progress, &mut figures).await?;
    fold_own_streams(replay, database, progress, figures.events).await?;
    figures.seconds = started.elapsed().as_secs_f64();
    Ok(figures)
}

/// Brings back what the service keeps because of its own streams.
async fn fold_own_streams(
    replay: &dyn Replay,
    database: &Database,
    progress: &dyn Progress,
    events: u64,
) -> Result<(), RebuildError> {
    if !replay.keeps_of_own() {
        return Ok(());
    }
    progress.begin("folding its own streams", events);
    let mut streams = event_sourcing::restore::Streams::of(database);
    let mut pending = Vec::new();
    while let Some(stream) = streams.next().await? {
        let id = &stream[0].stream_id;
        pending.extend(
            replay
                .own_stream(id, &stream)
                .map_err(|failure| RebuildError::Unreadable { stream: id.clone(), reason: failure.to_string() })?,
        );
        if pending.len() >= STATEMENTS {
            keep(database, std::mem::take(&mut pending)).await?;
        }
        progress.advance(stream.len() as u64);
    }
    keep(database, pending).await
}

async fn keep(database: &Database, statements: Vec<Statement>) -> Result<(), RebuildError> {
    let mut write = database.write().await?;
    for Statement { sql, values } in statements {
        write.execute(sql, values).await?;
    }
    Ok(write.commit().await?)
}
