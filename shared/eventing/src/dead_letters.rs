//! Where an event goes that can never be handled, with its reason, so that it hurts nobody else: later events of the
//! same subject park behind it, all other streams go on. The table is the service's memory of what is open; the topic
//! `<service>.dead-letters` has everything that ever happened to a letter, for people, for the audit and for a rebuild.
//!
//! # What stands on the topic
//!
//! Every record is a CloudEvent in binary mode. Those that concern one subject have its partition key, so they stand in
//! one partition, in order. There are three kinds, told apart by their attributes:
//!
//! **A letter in a state** has the attribute `deadletterservice`. It is the event as it came (attributes, data, bytes,
//! key, `traceparent`), with:
//!
//! | attribute | value |
//! |---|---|
//! | `deadletterservice` | whose letter it is |
//! | `deadletterstate` | `failed` (open: it could not be handled), `parked` (open: it waits behind a failed one of its subject), `redelivered` (closed: it was handled after all), `discarded` (closed: somebody decided that it never will be) |
//! | `deadletterreason` | why it failed or waits, for people; a closed one keeps its last |
//! | `deadletterattempts` | how often it was tried |
//! | `deadlettertime` | when it came into this state: RFC 3339, UTC, microseconds, so that it sorts as text; later than that of every earlier state of the same letter |
//! | `deadletterposition` | its place among the service's letters: those of one subject are redelivered in this order |
//! | `deadlettertopic`, `deadletterpartition`, `deadletteroffset` | where the record stood, as far as is known |
//! | `deadletterkey` | the record's key as base64, where it is another than the event's own |
//! | `deadletterheaders` | the record's headers that are no part of the event: a JSON list of `[name, base64]` |
//!
//! A letter is known by `(deadletterservice, source, id)`; **its state is that of its record with the greatest
//! `deadlettertime`**, wherever that stands. A record may be repeated with the same bytes. A letter may fail again
//! (another `failed` with a later time), and a parked one may fail when its turn comes. A record that is no CloudEvent is
//! a letter of type `dev.knative.kafka.event` with the record's bytes as its data and all of its headers in
//! `deadletterheaders`; it belongs to no stream and nothing parks behind it, nor behind an event without subject.
//!
//! To restore the table: of each letter whose state is `failed` or `parked` a row; of each `discarded` one a row in the
//! inbox that says `done`, and [`Handler::discard`](crate::Handler::discard); of a `redelivered` one nothing, as its
//! effects name their cause themselves.
//!
//! **Refused on the way**: a record with `knativeerrordest` and without `deadletterservice` was put there by a bridge
//! or by Knative, because the service could not even be told: `knativeerrorcode` is the status it answered,
//! `knativeerrordata` the beginning of what it said. (From a bridge it also says where it stood, as above.) When the
//! service hears of it, it takes it into its table as failed, and writes the letter itself, in a state.
//!
//! **A wish**: an event of type [`REDELIVERY_REQUESTED`] or [`DISCARD_REQUESTED`], with `{"source": …, "id": …}` of a
//! letter as its data and the letter's subject as its own. The service acts on it when it hears of it; its attribute
//! `loggedon` names this topic. A wish that was posted at the door instead is put here first.

use std::{collections::HashSet, sync::Arc};

use cloudevents::{AttributesReader, Event};
use event_sourcing::{Database, Value, pieces, placeholders};

use crate::{
    Failure, from_json,
    log::{EventLog, Record},
    to_record,
};

/// The type of the wish that a letter be handed to its service again, with what waits behind it. See the
/// [module's documentation](self).
pub const REDELIVERY_REQUESTED: &str = "dev.rainstorm.dead_letter.redelivery_requested.v1";
/// The type of the wish that a letter be given up, and what waits behind it go on.
pub const DISCARD_REQUESTED: &str = "dev.rainstorm.dead_letter.discard_requested.v1";

/// An event that is not going to be handled now, and why.
#[derive(Debug, Clone)]
pub struct DeadLetter {
    pub event: Event,
    /// For people.
    pub reason: String,
    /// How often it was tried.
    pub attempts: i64,
    /// Whether it is itself healthy and only waits for another of its subject.
    pub parked: bool,
}

/// The dead letters of one service.
#[derive(Clone)]
pub struct DeadLetters {
    database: Database,
    log: Arc<dyn EventLog>,
    service: &'static str,
    topic: String,
}

impl DeadLetters {
    /// Letters of `service`, remembered in `database` and told on `<service>.dead-letters`.
    #[must_use]
    pub fn new(database: Database, log: Arc<dyn EventLog>, service: &'static str) -> Self {
        Self { database, log, service, topic: topic(service) }
    }

    /// Which of `subjects` have a letter open, so that what comes later must wait.
    ///
    /// # Errors
    /// If the database doesn't answer.
    pub async fn open(&self, subjects: Vec<String>) -> Result<HashSet<String>, Failure> {
        let mut open = HashSet::new();
        for piece in pieces(subjects) {
            let sql = format!(
                "SELECT DISTINCT subject FROM dead_letters WHERE subject IN (VALUES {})",
                placeholders(piece.len(), 1)
            );
            for row in self.database.fetch(sql, piece.into_iter().map(Value::from).collect::<Vec<_>>()).await? {
                open.insert(row.text(0)?);
            }
        }
        Ok(open)
    }

    /// Takes letters in; each is remembered once, and is on the topic when this returns.
    ///
    /// # Errors
    /// If store or log don't answer.
    pub async fn take(&self, letters: Vec<DeadLetter>) -> Result<(), Failure> {
        if letters.is_empty() {
            return Ok(());
        }
        let mut write = self.database.write().await?;
        for letter in letters {
            let event = &letter.event;
            tracing::warn!(service = self.service, event = event.id(), reason = letter.reason, "dead letter");
            let subject = event.subject().unwrap_or_default();
            let key: [Value; 2] = [event.source().to_string().into(), event.id().into()];
            let whole = serde_json::to_string(event).map_err(|error| Failure::Never(error.to_string()))?;
            let [source, id] = key.clone();
            let behind = if letter.parked { subject } else { "" };
            let values =
                [source, id, subject.into(), letter.reason.into(), letter.attempts.into(), behind.into(), whole.into()];
            let sql = "INSERT INTO dead_letters (source, id, subject, reason, attempts, parked_behind, position, event) \
                 SELECT $1, $2, $3, $4, $5, $6, COALESCE(MAX(position), 0) + 1, $7 FROM dead_letters WHERE 1 = 1 \
                 ON CONFLICT (source, id) DO NOTHING";
            write.execute(sql, values).await?;
            write.execute("DELETE FROM inbox WHERE source = $1 AND id = $2 AND done = 0", key).await?;
        }
        write.commit().await?;
        self.publish().await
    }

    /// Puts on the topic what isn't there yet.
    ///
    /// # Errors
    /// If store or log don't answer.
    pub async fn publish(&self) -> Result<(), Failure> {
        let sql = "SELECT source, id, reason, attempts, parked_behind, event FROM dead_letters \
                   WHERE published = 0 ORDER BY position LIMIT 500";
        let rows = self.database.fetch(sql, []).await?;
        if rows.is_empty() {
            return Ok(());
        }
        let mut records = Vec::new();
        for row in &rows {
            let kept = serde_json::from_str(row.str(5)?).map_err(|error| Failure::Never(error.to_string()))?;
            let event = from_json(kept).map_err(|error| Failure::Never(error.to_string()))?;
            let state = if row.str(4)?.is_empty() { "failed" } else { "parked" };
            records.push(letter(event, self.service, state, row.text(2)?, row.int(3)?)?);
        }
        self.log.append(&self.topic, records).await.map_err(|error| Failure::Retry(error.to_string()))?;
        let mut write = self.database.write().await?;
        for row in &rows {
            let key: [Value; 2] = [row.str(0)?.into(), row.str(1)?.into()];
            write.execute("UPDATE dead_letters SET published = 1 WHERE source = $1 AND id = $2", key).await?;
        }
        Ok(write.commit().await?)
    }
}

/// The topic of a service's dead letters.
#[must_use]
pub fn topic(service: &str) -> String {
    format!("{service}.dead-letters")
}

/// A letter as it stands on the topic: the event itself, with extension attributes that say what happened to it.
///
/// # Errors
/// If the event can't be written as a record.
pub fn letter(mut event: Event, service: &str, state: &str, reason: String, attempts: i64) -> Result<Record, Failure> {
    event.set_extension("deadletterservice", service.to_owned());
    event.set_extension("deadletterstate", state.to_owned());
    event.set_extension("deadletterreason", reason);
    event.set_extension("deadletterattempts", attempts.to_string());
    to_record(event).map_err(|error| Failure::Never(error.to_string()))
}
