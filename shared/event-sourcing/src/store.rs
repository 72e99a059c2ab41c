//! The event store: append with an expected version, load, and the transaction that an event's effects share.
//!
//! Whoever wants to change something fills a [`Unit`] and commits it. Units that arrive while a transaction is on its
//! way to the disk share the next one (group commit); one that conflicts fails alone.

use std::collections::{BTreeMap, HashMap};

use sqlx::migrate::Migrator;
use tokio::sync::{mpsc, oneshot};
use tracing::{Instrument, Span, field::Empty, info_span};
use tracing_opentelemetry::OpenTelemetrySpanExt;

use crate::{
    Database, Decider, PublishingLock, Row, STORY, Statement, StoreError, TraceContext, Value, Write, decode, lists,
    now, placeholders,
    work::{Cause, Stream},
};

/// The tables of this crate, for [`Database::open`].
pub static MIGRATIONS: Migrator = sqlx::migrate!();

/// Units that share one transaction, at most.
const GROUP: usize = 256;

pub(crate) const COLUMNS: &str =
    "stream_id, version, id, type, time, correlation_id, causation_id, traceparent, tracestate, data";

/// An event as it is stored, and as it is published: the bytes of `data` never change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    pub stream_id: String,
    /// From 1, without gaps.
    pub version: i64,
    /// A UUIDv7.
    pub id: String,
    pub event_type: String,
    /// RFC 3339, UTC.
    pub time: String,
    pub correlation_id: String,
    pub causation_id: String,
    pub traceparent: String,
    pub tracestate: String,
    /// JSON text.
    pub data: String,
}

/// Everything that happens together or not at all.
#[derive(Debug, Clone, Default)]
pub struct Unit {
    /// New events; the version of each says what its stream was when this was decided.
    pub events: Vec<Recorded>,
    /// What this is the effect of: `(source, id, streams)`, so that it has no other. The streams are those of the
    /// events, separated by spaces.
    pub done: Option<(String, String, String)>,
    /// Projections kept beside the events.
    pub projections: Vec<Statement>,
}

impl Unit {
    /// Whether nothing at all would happen.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.events.is_empty() && self.projections.is_empty()
    }
}

type Queued = (Unit, oneshot::Sender<Result<(), StoreError>>);

/// A service's streams.
#[derive(Clone)]
pub struct Store {
    database: Database,
    queue: mpsc::Sender<Queued>,
}

impl Store {
    /// The streams in `database`, which must have been opened with [`MIGRATIONS`].
    #[must_use]
    pub fn new(database: Database) -> Self {
        let (queue, queued) = mpsc::channel(4 * GROUP);
        tokio::spawn(commit_in_groups(database.clone(), queued));
        Self { database, queue }
    }

    /// The database below, for projections.
    #[must_use]
    pub fn database(&self) -> &Database {
        &self.database
    }

    /// One stream, folded.
    ///
    /// # Errors
    /// If the database doesn't answer or the stream can't be read.
    pub async fn load<D: Decider>(&self, stream_id: &str) -> Result<Stream<D>, StoreError> {
        fold(stream_id, &self.needed::<D>(stream_id).await?)
    }

    /// The events of a stream that its state can be folded from.
    async fn needed<D: Decider>(&self, stream_id: &str) -> Result<Vec<Recorded>, StoreError> {
        let newest_only = if D::EACH_EVENT_IS_COMPLETE { "DESC LIMIT 1" } else { "" };
        let sql = format!("SELECT {COLUMNS} FROM events WHERE stream_id = $1 ORDER BY version {newest_only}");
        let rows = self.database.fetch(sql, [stream_id.into()]).await?;
        Ok(rows.iter().map(recorded).collect::<Result<_, _>>()?)
    }

    /// The events of many streams, each in order of version; a stream without events has no entry.
    ///
    /// # Errors
    /// If the database doesn't answer.
    pub async fn history(&self, stream_ids: Vec<String>) -> Result<HashMap<String, Vec<Recorded>>, StoreError> {
        let mut history: HashMap<String, Vec<Recorded>> = HashMap::new();
        for piece in lists(stream_ids) {
            let sql = format!(
                "SELECT {COLUMNS} FROM events WHERE stream_id IN (VALUES {}) ORDER BY stream_id, version",
                placeholders(piece.len(), 1)
            );
            for row in self.database.fetch(sql, texts(piece)).await? {
                let event = recorded(&row)?;
                history.entry(event.stream_id.clone()).or_default().push(event);
            }
        }
        Ok(history)
    }

    /// The first event of a stream.
    ///
    /// # Errors
    /// If the database doesn't answer.
    pub async fn first(&self, stream_id: &str) -> Result<Option<Recorded>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM events WHERE stream_id = $1 AND version = 1");
        let rows = self.database.fetch(sql, [stream_id.into()]).await?;
        Ok(rows.first().map(recorded).transpose()?)
    }

    /// The stream that a command with this idempotency key began, if one did.
    ///
    /// # Errors
    /// If the database doesn't answer.
    pub async fn begun_by(&self, cause: &Cause) -> Result<Option<String>, StoreError> {
        let sql = "SELECT stream_id FROM inbox WHERE source = $1 AND id = $2 AND done = 1";
        let rows = self.database.fetch(sql, [cause.source.as_str().into(), cause.id.as_str().into()]).await?;
        Ok(rows.first().map(|row| row.text(0)).transpose()?)
    }

    /// Makes everything in `unit` happen, durably.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] if a stream has moved on or the cause has had its effect already; then nothing of it
    /// has happened.
    pub async fn commit(&self, unit: Unit) -> Result<(), StoreError> {
        // Others share the transaction; what each of them waits for is part of its own story.
        let span = info_span!(
            target: STORY,
            "commit",
            otel.kind = "client",
            db.system.name = self.database.system(),
            db.operation.name = "commit",
            db.collection.name = "events",
            rainstorm.events = unit.events.len(),
            otel.status_code = Empty,
        );
        if let (true, Some(event)) = (TraceContext::current().is_none(), unit.events.first()) {
            // It has just been made, so it has no parent yet; while nobody collects spans it needs none.
            let _ = span.set_parent(event.trace().elsewhere());
        }
        let outcome = self.queue_and_wait(unit).instrument(span.clone()).await;
        if outcome.is_err() {
            span.record("otel.status_code", "ERROR");
        }
        outcome
    }

    async fn queue_and_wait(&self, unit: Unit) -> Result<(), StoreError> {
        let (answer, answered) = oneshot::channel();
        let closed = || StoreError::Unavailable(sqlx::Error::PoolClosed);
        self.queue.send((unit, answer)).await.map_err(|_| closed())?;
        answered.await.map_err(|_| closed())?
    }

    /// Decides `command` on a stream and commits what follows; decides again when somebody was faster.
    /// Returns the state after it and the version of its stream.
    ///
    /// # Errors
    /// The domain's rejection, or the store's trouble.
    pub async fn handle<D: Decider>(
        &self,
        cause: &Cause,
        stream_id: &str,
        command: impl Fn() -> D::Command,
        project: impl Fn(&Stream<D>) -> Vec<Statement>,
    ) -> Result<Stream<D>, HandleError<D::Rejection>> {
        loop {
            let events = self.needed::<D>(stream_id).await?;
            if let Some(newest) = events.last() {
                // A command is a request of its own, about a story that has begun before.
                Span::current().add_link(newest.trace().span_context());
            }
            let mut stream = fold::<D>(stream_id, &events)?;
            let mut unit = Unit::default();
            stream.execute(command(), cause, now(), &mut unit).map_err(|error| match error {
                crate::ExecuteError::Rejected(rejection) => HandleError::Rejected(rejection),
                crate::ExecuteError::Malformed(malformed) => HandleError::Store(malformed.into()),
            })?;
            if unit.events.is_empty() {
                return Ok(stream);
            }
            unit.projections = project(&stream);
            unit.done = cause.remembered.then(|| (cause.source.clone(), cause.id.clone(), stream_id.to_owned()));
            match self.commit(unit).await {
                Ok(()) => return Ok(stream),
                // With a remembered cause the conflict may be its own first effect: the caller looks that up.
                Err(StoreError::Conflict) if !cause.remembered => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The streams among `stream_ids` (all of them, if `None`) that have events which are not on the log yet: those
    /// events in order, at most `limit`.
    ///
    /// # Errors
    /// If the database doesn't answer.
    pub async fn unpublished(&self, stream_ids: Option<Vec<String>>, limit: i64) -> Result<Vec<Recorded>, StoreError> {
        let mut events = Vec::new();
        let select = format!("SELECT {COLUMNS} FROM events WHERE published = 0");
        match stream_ids {
            None => {
                let sql = format!("{select} ORDER BY stream_id, version LIMIT $1");
                let rows = self.database.fetch(sql, [limit.into()]).await?;
                events.extend(rows.iter().map(recorded).collect::<Result<Vec<_>, _>>()?);
            }
            Some(stream_ids) => {
                for piece in lists(stream_ids) {
                    let wanted = placeholders(piece.len(), 1);
                    let sql = format!("{select} AND stream_id IN (VALUES {wanted}) ORDER BY stream_id, version");
                    let rows = self.database.fetch(sql, texts(piece)).await?;
                    events.extend(rows.iter().map(recorded).collect::<Result<Vec<_>, _>>()?);
                }
            }
        }
        Ok(events)
    }

    /// Notes that these events are on the log, and gives the lock back.
    ///
    /// # Errors
    /// If the database doesn't answer; then they will be published once more, which is allowed.
    pub async fn mark_published(&self, lock: PublishingLock, events: &[Recorded]) -> Result<(), StoreError> {
        let keys: Vec<_> =
            events.iter().map(|event| [event.stream_id.clone().into(), Value::Int(event.version)]).collect();
        let mut write = match lock.transaction {
            Some(transaction) => Write::within(transaction),
            None => self.database.write_soon().await?,
        };
        for piece in lists(keys) {
            let wanted = placeholders(piece.len(), 2);
            let sql = format!("UPDATE events SET published = 1 WHERE (stream_id, version) IN (VALUES {wanted})");
            write.execute(sql, piece.into_iter().flatten().collect::<Vec<_>>()).await?;
        }
        Ok(write.commit().await?)
    }
}

/// Why a command had no effect.
#[derive(Debug, thiserror::Error)]
pub enum HandleError<R: std::error::Error> {
    #[error(transparent)]
    Rejected(R),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Recorded {
    /// Where it happened.
    #[must_use]
    pub fn trace(&self) -> TraceContext {
        TraceContext::read(Some(&self.traceparent), Some(&self.tracestate))
    }
}

/// Takes what has queued up and commits it together, again and again, until nobody can queue anything any more.
async fn commit_in_groups(database: Database, mut queued: mpsc::Receiver<Queued>) {
    let mut group = Vec::new();
    while queued.recv_many(&mut group, GROUP).await > 0 {
        let (units, answers): (Vec<Unit>, Vec<_>) = group.drain(..).unzip();
        let outcomes = commit_group(&database, units).await;
        for (answer, outcome) in answers.into_iter().zip(outcomes) {
            // Whoever asked may have gone; what is committed stays committed.
            let _ = answer.send(outcome);
        }
    }
}

/// Commits all units in one transaction. Those that don't fit what is stored are left out beforehand; if another
/// process still gets in between, or the database can't hold one of them, the group is halved until the culprit stands
/// alone.
async fn commit_group(database: &Database, units: Vec<Unit>) -> Vec<Result<(), StoreError>> {
    match try_group(database, &units).await {
        Ok(fits) => fits.into_iter().map(|fits| if fits { Ok(()) } else { Err(StoreError::Conflict) }).collect(),
        Err(StoreError::Conflict | StoreError::Refused(_)) if units.len() > 1 => {
            let (left, right) = units.split_at(units.len() / 2);
            let mut outcomes = Box::pin(commit_group(database, left.to_vec())).await;
            outcomes.extend(Box::pin(commit_group(database, right.to_vec())).await);
            outcomes
        }
        Err(culprit @ (StoreError::Conflict | StoreError::Refused(_))) => vec![Err(culprit)],
        Err(error) => {
            let text = error.to_string();
            units.iter().map(|_| Err(StoreError::Unavailable(sqlx::Error::Protocol(text.clone())))).collect()
        }
    }
}

async fn try_group(database: &Database, units: &[Unit]) -> Result<Vec<bool>, StoreError> {
    let mut write = database.write().await?;
    let fits = which_fit(&mut write, units).await?;
    let fitting = || units.iter().zip(&fits).filter(|(_, fits)| **fits).map(|(unit, _)| unit);

    // Rows go in sorted, so that two processes never wait for each other crosswise.
    let mut done: Vec<_> = fitting().filter_map(|unit| unit.done.clone()).collect();
    done.sort();
    let expected = done.len() as u64;
    let rows = done
        .into_iter()
        .map(|(source, id, stream)| [source.into(), id.into(), Value::Int(0), Value::Int(1), stream.into()]);
    let first_time =
        "ON CONFLICT (source, id) DO UPDATE SET done = 1, stream_id = excluded.stream_id WHERE inbox.done = 0";
    let noted = write.insert("inbox (source, id, attempts, done, stream_id)", rows.collect(), first_time).await;
    if noted.map_err(StoreError::from_write)? != expected {
        return Err(StoreError::Conflict);
    }

    let mut events: Vec<&Recorded> = fitting().flat_map(|unit| &unit.events).collect();
    events.sort_by(|a, b| (&a.stream_id, a.version).cmp(&(&b.stream_id, b.version)));
    let rows = events.into_iter().map(row).collect();
    write.insert(&format!("events ({COLUMNS})"), rows, "").await.map_err(StoreError::from_write)?;

    for Statement { sql, values } in fitting().flat_map(|unit| &unit.projections) {
        write.execute(*sql, values.clone()).await.map_err(StoreError::from_write)?;
    }
    write.commit().await.map_err(StoreError::from_write)?;
    Ok(fits)
}

/// Which units were decided on the versions that are stored, taken one after the other.
async fn which_fit(write: &mut Write, units: &[Unit]) -> Result<Vec<bool>, StoreError> {
    let streams: BTreeMap<String, i64> =
        units.iter().flat_map(|unit| &unit.events).map(|event| (event.stream_id.clone(), 0)).collect();
    let mut versions = streams.clone();
    for piece in lists(streams.into_keys().collect()) {
        let sql = format!(
            "SELECT stream_id, MAX(version) FROM events WHERE stream_id IN (VALUES {}) GROUP BY stream_id",
            placeholders(piece.len(), 1)
        );
        for row in write.fetch(sql, texts(piece)).await? {
            versions.insert(row.text(0)?, row.int(1)?);
        }
    }
    let mut noted = std::collections::HashSet::new();
    let fits = units.iter().map(|unit| {
        let mut after = HashMap::new();
        let in_order = unit.events.iter().all(|event| {
            let version = after.entry(&event.stream_id).or_insert_with(|| versions[&event.stream_id]);
            *version += 1;
            *version == event.version
        });
        let fits = in_order && unit.done.as_ref().is_none_or(|(source, id, _)| noted.insert((source, id)));
        if fits {
            after.into_iter().for_each(|(stream, version)| {
                versions.insert(stream.clone(), version);
            });
        }
        fits
    });
    Ok(fits.collect())
}

pub(crate) fn row(event: &Recorded) -> [Value; 10] {
    [
        event.stream_id.clone().into(),
        event.version.into(),
        event.id.clone().into(),
        event.event_type.clone().into(),
        event.time.clone().into(),
        event.correlation_id.clone().into(),
        event.causation_id.clone().into(),
        event.traceparent.clone().into(),
        event.tracestate.clone().into(),
        event.data.clone().into(),
    ]
}

pub(crate) fn recorded(row: &Row) -> Result<Recorded, sqlx::Error> {
    Ok(Recorded {
        stream_id: row.text(0)?,
        version: row.int(1)?,
        id: row.text(2)?,
        event_type: row.text(3)?,
        time: row.text(4)?,
        correlation_id: row.text(5)?,
        causation_id: row.text(6)?,
        traceparent: row.text(7)?,
        tracestate: row.text(8)?,
        data: row.text(9)?,
    })
}

fn texts(piece: Vec<String>) -> Vec<Value> {
    piece.into_iter().map(Value::from).collect()
}

/// A stream as its events, from the first on, have left it.
///
/// # Errors
/// If one of them doesn't read.
pub fn fold<D: Decider>(stream_id: &str, events: &[Recorded]) -> Result<Stream<D>, StoreError> {
    let mut state = D::default();
    for event in events {
        state = state.evolve(decode(&event.event_type, &event.data)?);
    }
    let version = events.last().map_or(0, |event| event.version);
    Ok(Stream { id: stream_id.to_owned(), version, state })
}
