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

mod history;
mod letter;

use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
};

use cloudevents::Event;
use event_sourcing::{Database, Row, Value, Write, lists, now, placeholders};
use tokio::sync::Mutex;

pub use history::{History, Step, histories};
pub use letter::{DISCARD_REQUESTED, DeadLetter, Heard, REDELIVERY_REQUESTED, State, hear, named_by, wish};

use letter::legible;

use crate::{Failure, from_json, log::EventLog, to_record};

/// Letters that are published at a time: each may be as large as a record can be.
const PAGE: usize = 50;

const COLUMNS: &str = "source, id, subject, state, reason, attempts, time, position, origin, event";
const OPEN: &str = "state IN ('failed', 'parked')";

/// The dead letters of one service.
#[derive(Clone)]
pub struct DeadLetters {
    database: Database,
    log: Arc<dyn EventLog>,
    service: &'static str,
    topic: String,
    /// One publication at a time in this process; those of two processes repeat each other, which is allowed.
    publishing: Arc<Mutex<()>>,
}

impl DeadLetters {
    /// Letters of `service`, remembered in `database` and told on `<service>.dead-letters`.
    #[must_use]
    pub fn new(database: Database, log: Arc<dyn EventLog>, service: &'static str) -> Self {
        Self { database, log, service, topic: topic(service), publishing: Arc::default() }
    }

    /// Whose they are.
    #[must_use]
    pub fn service(&self) -> &'static str {
        self.service
    }

    /// The topic on which everything stands that happens to them.
    #[must_use]
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// Which of `subjects` have a letter open, so that what comes later must wait.
    ///
    /// # Errors
    /// If the database doesn't answer.
    pub async fn open(&self, subjects: Vec<String>) -> Result<HashSet<String>, Failure> {
        let mut open = HashSet::new();
        for piece in lists(subjects) {
            let wanted = placeholders(piece.len(), 1);
            let sql =
                format!("SELECT DISTINCT subject FROM dead_letters WHERE subject IN (VALUES {wanted}) AND {OPEN}");
            for row in self.database.fetch(sql, piece.into_iter().map(Value::from).collect::<Vec<_>>()).await? {
                open.insert(row.text(0)?);
            }
        }
        Ok(open)
    }

    /// Takes letters in; each is remembered once, and is on the topic when this returns. How many are new.
    ///
    /// # Errors
    /// If store or log don't answer, or what one was to wait behind was closed in this very moment.
    pub async fn take(&self, letters: Vec<DeadLetter>) -> Result<usize, Failure> {
        if letters.is_empty() {
            return Ok(0);
        }
        let mut write = self.database.write().await?;
        let parked = letters.iter().filter(|letter| letter.state == State::Parked);
        let waiting: BTreeSet<String> = parked.map(|letter| letter.subject().to_owned()).collect();
        let mut open = BTreeSet::new();
        for subject in waiting {
            // Whoever closes the last open letter of a subject holds the same rows: either it finds what parks here, or
            // nothing is open any more.
            let hold = format!("UPDATE dead_letters SET subject = subject WHERE subject = $1 AND {OPEN}");
            if write.execute(hold, [subject.as_str().into()]).await? > 0 {
                open.insert(subject);
            }
        }
        let (mut taken, mut freed) = (0, false);
        for letter in letters {
            if letter.state == State::Parked && !open.contains(letter.subject()) {
                freed = true;
            } else if self.insert(&mut write, letter).await? {
                taken += 1;
            }
        }
        write.commit().await?;
        self.publish().await?;
        if freed { Err(Failure::Retry("what it would have waited behind is closed now".to_owned())) } else { Ok(taken) }
    }

    /// Writes a letter down; false if it is there already, or has had its effect or was discarded before.
    async fn insert(&self, write: &mut Write, letter: DeadLetter) -> Result<bool, Failure> {
        let key = letter.key().map(Value::from);
        let sql = "SELECT id FROM inbox WHERE source = $1 AND id = $2 AND done = 1";
        if letter.state.is_open() && !write.fetch(sql, key.clone()).await?.is_empty() {
            return Ok(false);
        }
        tracing::warn!(service = self.service, event = letter.key()[1], reason = letter.reason, "dead letter");
        let whole = serde_json::to_string(&letter.event).map_err(|error| Failure::Never(error.to_string()))?;
        let origin = serde_json::to_string(&letter.origin).map_err(|error| Failure::Never(error.to_string()))?;
        let [source, id] = key.clone();
        let values = [
            source,
            id,
            letter.subject().into(),
            letter.state.name().into(),
            letter.reason.into(),
            letter.attempts.into(),
            later_than("").into(),
            origin.into(),
            whole.into(),
        ];
        let sql = "INSERT INTO dead_letters (source, id, subject, state, reason, attempts, time, origin, event, position) \
                   SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, COALESCE(MAX(position), 0) + 1 FROM dead_letters \
                   WHERE 1 = 1 ON CONFLICT (source, id) DO NOTHING";
        let new = write.execute(sql, values).await? > 0;
        forget_attempts(write, key).await?;
        Ok(new)
    }

    /// The letter of this source and id, if it is open.
    ///
    /// # Errors
    /// If the database doesn't answer.
    pub async fn find(&self, key: &[String; 2]) -> Result<Option<DeadLetter>, Failure> {
        let sql = format!("SELECT {COLUMNS} FROM dead_letters WHERE source = $1 AND id = $2 AND {OPEN}");
        let rows = self.database.fetch(sql, key.clone().map(Value::from)).await?;
        rows.first().map(letter).transpose()
    }

    /// The open letter of a subject whose turn it is.
    ///
    /// # Errors
    /// If the database doesn't answer.
    pub async fn first(&self, subject: &str) -> Result<Option<DeadLetter>, Failure> {
        let condition = format!("subject = $1 AND {OPEN} ORDER BY position, source, id LIMIT 1");
        let sql = format!("SELECT {COLUMNS} FROM dead_letters WHERE {condition}");
        let rows = self.database.fetch(sql, [subject.into()]).await?;
        rows.first().map(letter).transpose()
    }

    /// It was tried again, and can't be handled still.
    ///
    /// # Errors
    /// If store or log don't answer.
    pub async fn failed_again(&self, letter: &DeadLetter, reason: &str, attempts: i64) -> Result<(), Failure> {
        let (reason, attempts) = (legible(reason), letter.attempts + attempts);
        let failed = DeadLetter { state: State::Failed, reason, attempts, ..letter.clone() };
        let mut write = self.database.write().await?;
        change(&mut write, &failed).await?;
        forget_attempts(&mut write, letter.key().map(Value::from)).await?;
        write.commit().await?;
        self.publish().await
    }

    /// It was handled after all.
    ///
    /// # Errors
    /// If store or log don't answer.
    pub async fn redelivered(&self, letter: &DeadLetter) -> Result<(), Failure> {
        let handled = DeadLetter { state: State::Redelivered, attempts: letter.attempts + 1, ..letter.clone() };
        let mut write = self.database.write().await?;
        change(&mut write, &handled).await?;
        write.commit().await?;
        self.publish().await
    }

    /// It will never be handled: told again, it counts as done. Where another instance has handled it in the meantime, it
    /// isn't discarded any more.
    ///
    /// # Errors
    /// If store or log don't answer.
    pub async fn discarded(&self, letter: &DeadLetter) -> Result<(), Failure> {
        let discarded = DeadLetter { state: State::Discarded, ..letter.clone() };
        let mut write = self.database.write().await?;
        if change(&mut write, &discarded).await? {
            let [source, id] = letter.key().map(Value::from);
            let row = [source, id, 0.into(), 1.into(), "".into()];
            let conflict = "ON CONFLICT (source, id) DO UPDATE SET done = 1 WHERE inbox.done = 0";
            let into = "inbox (source, id, attempts, done, stream_id)";
            if write.insert(into, vec![row], conflict).await? == 0 {
                let sql = "UPDATE dead_letters SET state = 'redelivered' WHERE source = $1 AND id = $2";
                write.execute(sql, letter.key().map(Value::from)).await?;
            }
        }
        write.commit().await?;
        self.publish().await
    }

    /// Puts on the topic what isn't there yet, and forgets what is closed.
    ///
    /// # Errors
    /// If store or log don't answer.
    pub async fn publish(&self) -> Result<(), Failure> {
        let _turn = self.publishing.lock().await;
        loop {
            let sql = format!("SELECT {COLUMNS} FROM dead_letters WHERE published = 0 ORDER BY position LIMIT {PAGE}");
            let letters = self.database.fetch(sql, []).await?;
            let letters = letters.iter().map(letter).collect::<Result<Vec<_>, _>>()?;
            if letters.is_empty() {
                return Ok(());
            }
            let records = letters.iter().map(|letter| letter.clone().record(self.service));
            self.append(records.collect::<Result<_, _>>()?).await?;
            let mut write = self.database.write().await?;
            for letter in &letters {
                // Whoever has changed it meanwhile publishes that, too.
                let [source, id] = letter.key();
                let values = [source.into(), id.into(), letter.time.as_str().into()];
                let what = if letter.state.is_open() {
                    "UPDATE dead_letters SET published = 1"
                } else {
                    "DELETE FROM dead_letters"
                };
                write.execute(format!("{what} WHERE source = $1 AND id = $2 AND time = $3"), values).await?;
            }
            write.commit().await?;
            if letters.len() < PAGE {
                return Ok(());
            }
        }
    }

    /// Puts a wish on the topic: only what stands there is sure to be granted, whatever dies in between.
    ///
    /// # Errors
    /// If the log doesn't answer.
    pub async fn log(&self, wish: Event) -> Result<(), Failure> {
        let record = to_record(logged(wish, self.service)).map_err(|error| Failure::Never(error.to_string()))?;
        self.append(vec![record]).await
    }

    async fn append(&self, records: Vec<crate::log::Record>) -> Result<(), Failure> {
        self.log.append(&self.topic, records).await.map_err(|error| Failure::Retry(error.to_string()))
    }
}

/// The topic of a service's dead letters.
#[must_use]
pub fn topic(service: &str) -> String {
    format!("{service}{TOPIC}")
}

/// How the names of these topics end.
pub const TOPIC: &str = ".dead-letters";

/// A wish as it stands on the topic.
#[must_use]
pub fn logged(mut wish: Event, service: &str) -> Event {
    wish.set_extension(LOGGED_ON, topic(service));
    wish
}

pub(crate) const LOGGED_ON: &str = "loggedon";

/// Writes down what has become of an open letter; false if somebody else was faster.
async fn change(write: &mut Write, letter: &DeadLetter) -> Result<bool, Failure> {
    let [source, id] = letter.key();
    let values = [
        source.into(),
        id.into(),
        letter.time.as_str().into(),
        letter.state.name().into(),
        letter.reason.as_str().into(),
        letter.attempts.into(),
        later_than(&letter.time).into(),
    ];
    let sql = format!(
        "UPDATE dead_letters SET state = $4, reason = $5, attempts = $6, time = $7, published = 0 \
         WHERE source = $1 AND id = $2 AND time = $3 AND {OPEN}"
    );
    Ok(write.execute(sql, values).await? > 0)
}

/// What was counted of an event that is a letter now: the next time it begins anew.
async fn forget_attempts(write: &mut Write, key: [Value; 2]) -> Result<(), Failure> {
    write.execute("DELETE FROM inbox WHERE source = $1 AND id = $2 AND done = 0", key).await?;
    Ok(())
}

/// Now, or just after `earlier` where clocks disagree.
fn later_than(earlier: &str) -> String {
    let after = earlier
        .parse::<jiff::Timestamp>()
        .ok()
        .and_then(|time| time.checked_add(jiff::SignedDuration::from_micros(1)).ok());
    let now = now();
    format!("{:.6}", after.map_or(now, |after| after.max(now)))
}

fn letter(row: &Row) -> Result<DeadLetter, Failure> {
    let unreadable = |error: String| Failure::Retry(format!("a dead letter in the database does not read: {error}"));
    Ok(DeadLetter {
        event: from_json(row.json(9)?).map_err(|error| unreadable(error.to_string()))?,
        subject: row.text(2)?,
        origin: row.json(8)?,
        state: State::named(row.str(3)?).ok_or_else(|| unreadable(row.str(3).unwrap_or_default().to_owned()))?,
        reason: row.text(4)?,
        attempts: row.int(5)?,
        time: row.text(6)?,
        position: row.int(7)?,
    })
}
