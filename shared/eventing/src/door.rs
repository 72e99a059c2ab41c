//! The one door of a service: `POST /events`. Whoever knocks (Knative, `bridge`, a person with curl) hands in one
//! CloudEvent or a batch; this is the one place that decides what the answer means.
//!
//! | answer | meaning |
//! |---|---|
//! | 2xx | the effects are durable and published, or it doesn't concern this service, or it lies in its dead letters |
//! | 503 | may pass: deliver again |
//! | 4xx | this is no CloudEvent |

use std::{
    collections::{HashMap, HashSet},
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use axum::{
    extract::State,
    http::{HeaderMap, StatusCode},
};
use cloudevents::{AttributesReader, Event};
use event_sourcing::{Database, Value, now, pieces, placeholders};
use futures::FutureExt;
use prometheus::{Histogram, HistogramOpts, IntCounterVec, Opts, Registry};
use runtime::{Problem, extract::RawBody};
use tokio::sync::RwLock;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    EventError, Failure, Handled, Handler, Incoming, NOT_A_CLOUD_EVENT, TICK,
    dead_letters::{DeadLetter, DeadLetters},
    name_and_version,
    request::{Attributes, CloudEvent, events_of},
};

/// An event that was begun this often and never finished has crashed its handler each time.
const MAX_ATTEMPTS: i64 = 5;
/// From this attempt on, an event is handled while nothing else is: if the process dies, it was this one.
const ALONE_FROM: i64 = 3;

/// The door of one service.
pub struct Door {
    handler: Arc<dyn Handler>,
    database: Database,
    letters: DeadLetters,
    /// Ordinary batches share it; a suspect has it alone.
    room: RwLock<()>,
    /// What is being handled now: told again meanwhile, it is no further attempt.
    in_hand: Mutex<HashSet<(String, String)>>,
    events: IntCounterVec,
    seconds: Histogram,
}

/// What is known of an event before it is handled.
struct Known {
    attempts: i64,
    done: bool,
    /// Separated by spaces.
    streams: String,
}

impl Door {
    /// The door to `handler`. What it counts is registered with `metrics`.
    #[must_use]
    pub fn new(
        handler: Arc<dyn Handler>,
        database: Database,
        letters: DeadLetters,
        service: &'static str,
        metrics: &Registry,
    ) -> Arc<Self> {
        let labels = HashMap::from([("service".to_owned(), service.to_owned())]);
        let opts = Opts::new("rainstorm_events_total", "Events that came through the door, by what became of them.");
        let events = IntCounterVec::new(opts.const_labels(labels.clone()), &["outcome"]).ok();
        let opts = HistogramOpts::new("rainstorm_batch_seconds", "Time from a batch's arrival to its answer.");
        let seconds = Histogram::with_opts(opts.const_labels(labels)).ok();
        #[allow(clippy::expect_used, reason = "at start-up, with names that are constants")]
        let (events, seconds) = events.zip(seconds).expect("the names and labels above are valid");
        for collector in [Box::new(events.clone()) as Box<dyn prometheus::core::Collector>, Box::new(seconds.clone())] {
            // A second door of the same service in one registry shares the first one's families.
            let _ = metrics.register(collector);
        }
        Arc::new(Self { handler, database, letters, room: RwLock::new(()), in_hand: Mutex::default(), events, seconds })
    }

    /// `POST /events`.
    pub fn router(self: Arc<Self>) -> OpenApiRouter {
        OpenApiRouter::new().routes(routes!(receive)).with_state(self)
    }

    /// Handles a batch; an error means that some of it is to be delivered again.
    ///
    /// # Errors
    /// The first failure that may pass.
    pub async fn handle(&self, batch: Vec<Event>) -> Result<(), Failure> {
        let started = Instant::now();
        let outcome = self.sort_and_handle(batch).await;
        self.seconds.observe(started.elapsed().as_secs_f64());
        outcome
    }

    fn count(&self, outcome: &str, number: usize) {
        self.events.with_label_values(&[outcome]).inc_by(number as u64);
    }

    async fn sort_and_handle(&self, batch: Vec<Event>) -> Result<(), Failure> {
        let mut letters = Vec::new();
        let mut events = Vec::new();
        for event in batch {
            match self.sort(event) {
                Sorted::Tick(now) => {
                    self.letters.publish().await?;
                    self.handler.tick(now).await?;
                }
                Sorted::Foreign => self.count("ignored", 1),
                Sorted::Ours(event) => events.push(*event),
                Sorted::Never(event, reason) => {
                    letters.push(DeadLetter { event: *event, reason, attempts: 1, parked: false });
                }
            }
        }
        self.count("dead_lettered", letters.len());
        self.letters.take(letters).await?;
        if events.is_empty() { Ok(()) } else { self.handle_ours(events).await }
    }

    fn sort(&self, event: Event) -> Sorted {
        if event.ty() == TICK {
            let time = event.time().and_then(|time| time.to_rfc3339().parse().ok());
            return Sorted::Tick(time.unwrap_or_else(now));
        }
        if event.ty() == NOT_A_CLOUD_EVENT {
            return Sorted::Never(Box::new(event), "the record on the log is no CloudEvent".to_owned());
        }
        let understood = name_and_version(event.ty()).map(|(name, version)| (self.handler.understands(name), version));
        match understood {
            None | Some((None, _)) => Sorted::Foreign,
            Some((Some(ours), version)) if ours != version => {
                let reason = format!("version {version} of this event is not understood here, {ours} is");
                Sorted::Never(Box::new(event), reason)
            }
            Some(_) => match Incoming::read(event) {
                Ok(incoming) => Sorted::Ours(Box::new(incoming)),
                Err(never) => {
                    let (event, reason) = *never;
                    Sorted::Never(Box::new(event), reason)
                }
            },
        }
    }

    async fn handle_ours(&self, mut events: Vec<Incoming>) -> Result<(), Failure> {
        let mut twice = HashSet::new();
        events.retain(|event| twice.insert((event.source.clone(), event.id.clone())));
        let known = self.known(&events).await?;
        let key = |event: &Incoming| (event.source.clone(), event.id.clone());

        let (seen, new): (Vec<_>, Vec<_>) =
            events.into_iter().partition(|event| known.get(&key(event)).is_some_and(|known| known.done));
        if !seen.is_empty() {
            self.count("repeated", seen.len());
            let mut streams: HashSet<String> = seen.iter().map(|event| event.subject.clone()).collect();
            let changed = seen.iter().filter_map(|event| known.get(&key(event)));
            streams.extend(changed.flat_map(|known| known.streams.split(' ').map(ToOwned::to_owned)));
            self.handler.seen(streams.into_iter().filter(|stream| !stream.is_empty()).collect()).await?;
        }

        let subjects: HashSet<String> = new.iter().map(|event| event.subject.clone()).collect();
        let open = self.letters.open(subjects.into_iter().collect()).await?;
        let (behind, new): (Vec<_>, Vec<_>) = new.into_iter().partition(|event| open.contains(&event.subject));
        self.count("parked", behind.len());
        self.letters.take(behind.into_iter().map(parked).collect()).await?;

        let attempts = |event: &Incoming| known.get(&key(event)).map_or(0, |known| known.attempts);
        let suspects = new.iter().filter(|event| attempts(event) + 1 >= ALONE_FROM);
        let suspects: HashSet<String> = suspects.map(|event| event.subject.clone()).collect();
        let (suspects, healthy): (Vec<_>, Vec<_>) = new.into_iter().partition(|it| suspects.contains(&it.subject));
        let mut outcome = Ok(());
        if !healthy.is_empty() {
            let _shared = self.room.read().await;
            outcome = self.attempt(healthy).await;
        }
        let mut begun = HashSet::new();
        for suspect in suspects {
            if !begun.insert(suspect.subject.clone()) {
                outcome = Err(Failure::Retry("an earlier event of its subject is handled alone first".to_owned()));
                break;
            }
            let _alone = self.room.write().await;
            let attempts = attempts(&suspect);
            let result = if attempts >= MAX_ATTEMPTS {
                let reason = format!("its handler crashed {attempts} times");
                self.count("dead_lettered", 1);
                self.letters.take(vec![DeadLetter { event: suspect.original, reason, attempts, parked: false }]).await
            } else {
                self.attempt(vec![suspect]).await
            };
            outcome = outcome.and(result);
        }
        outcome
    }

    /// What the inbox knows of these events.
    async fn known(&self, events: &[Incoming]) -> Result<HashMap<(String, String), Known>, Failure> {
        let mut known = HashMap::new();
        let keys: Vec<_> = events.iter().map(|event| [event.source.clone(), event.id.clone()]).collect();
        for piece in pieces(keys) {
            let sql = format!(
                "SELECT source, id, attempts, done, stream_id FROM inbox WHERE (source, id) IN (VALUES {})",
                placeholders(piece.len(), 2)
            );
            for row in self.database.fetch(sql, values(piece)).await? {
                let found = Known { attempts: row.int(2)?, done: row.int(3)? == 1, streams: row.text(4)? };
                known.insert((row.text(0)?, row.text(1)?), found);
            }
        }
        Ok(known)
    }

    /// Counts the attempt, handles, and clears up behind it.
    async fn attempt(&self, events: Vec<Incoming>) -> Result<(), Failure> {
        let Some(_taken) = InHand::take(&self.in_hand, &events) else {
            return Err(Failure::Retry("it is being handled right now".to_owned()));
        };
        self.begin(&events).await?;
        // A handler that panics has crashed: the attempt stays counted, and the event comes again, alone.
        let outcomes = AssertUnwindSafe(self.handler.handle(&events)).catch_unwind().await;
        let Ok(outcomes) = outcomes else {
            self.count("crashed", events.len());
            return Err(Failure::Retry("the handler crashed".to_owned()));
        };
        let mut first_failure = Ok(());
        let (mut handled, mut idle, mut passing, mut letters) = (0, Vec::new(), Vec::new(), Vec::new());
        for (event, outcome) in events.into_iter().zip(outcomes) {
            match outcome {
                Ok(Handled::Effect) => handled += 1,
                Ok(Handled::Nothing) => idle.push(event),
                Err(Failure::Never(reason)) => {
                    letters.push(DeadLetter { event: event.original, reason, attempts: 1, parked: false });
                }
                Err(failure) => {
                    first_failure = first_failure.and(Err(failure));
                    passing.push(event);
                }
            }
        }
        self.count("handled", handled + idle.len());
        self.count("retried", passing.len());
        self.count("dead_lettered", letters.len());
        self.end(&idle, &passing).await?;
        self.letters.take(letters).await?;
        first_failure
    }

    async fn begin(&self, events: &[Incoming]) -> Result<(), Failure> {
        let mut keys: Vec<_> = events.iter().map(|event| (event.source.clone(), event.id.clone())).collect();
        keys.sort();
        let rows = keys.into_iter().map(|(source, id)| [source.into(), id.into(), 1.into(), 0.into(), "".into()]);
        let again = "ON CONFLICT (source, id) DO UPDATE SET attempts = inbox.attempts + 1";
        let mut write = self.database.write_soon().await?;
        write.insert("inbox (source, id, attempts, done, stream_id)", rows.collect(), again).await?;
        Ok(write.commit().await?)
    }

    /// An event without effect leaves nothing behind; one that may pass was no attempt.
    async fn end(&self, idle: &[Incoming], passing: &[Incoming]) -> Result<(), Failure> {
        if idle.is_empty() && passing.is_empty() {
            return Ok(());
        }
        let mut write = self.database.write_soon().await?;
        for (events, what) in [
            (idle, "DELETE FROM inbox WHERE done = 0 AND"),
            (passing, "UPDATE inbox SET attempts = attempts - 1 WHERE done = 0 AND"),
        ] {
            let mut keys: Vec<_> = events.iter().map(|event| [event.source.clone(), event.id.clone()]).collect();
            keys.sort();
            for piece in pieces(keys) {
                let sql = format!("{what} (source, id) IN (VALUES {})", placeholders(piece.len(), 2));
                write.execute(sql, values(piece)).await?;
            }
        }
        Ok(write.commit().await?)
    }
}

/// Events that nobody else in this process may handle until this is dropped.
struct InHand<'a> {
    all: &'a Mutex<HashSet<(String, String)>>,
    mine: Vec<(String, String)>,
}

impl<'a> InHand<'a> {
    /// All of them, or none if one is taken.
    fn take(all: &'a Mutex<HashSet<(String, String)>>, events: &[Incoming]) -> Option<Self> {
        let mine: Vec<_> = events.iter().map(|event| (event.source.clone(), event.id.clone())).collect();
        let mut taken = all.lock().unwrap_or_else(PoisonError::into_inner);
        if mine.iter().any(|key| taken.contains(key)) {
            return None;
        }
        taken.extend(mine.iter().cloned());
        Some(Self { all, mine })
    }
}

impl Drop for InHand<'_> {
    fn drop(&mut self) {
        let mut taken = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        self.mine.iter().for_each(|key| {
            taken.remove(key);
        });
    }
}

fn values(keys: Vec<[String; 2]>) -> Vec<Value> {
    keys.into_iter().flatten().map(Value::from).collect()
}

fn parked(event: Incoming) -> DeadLetter {
    let reason = "it waits behind a dead letter of its subject".to_owned();
    DeadLetter { event: event.original, reason, attempts: 0, parked: true }
}

enum Sorted {
    Tick(jiff::Timestamp),
    Foreign,
    Ours(Box<Incoming>),
    Never(Box<Event>, String),
}

/// Takes one CloudEvent (binary or structured mode) or several (batch mode). An event that doesn't concern this service
/// is none of its business; one that can never be handled lies in its dead letters afterwards.
#[utoipa::path(post, path = "/events", params(Attributes), request_body(content(
        (serde_json::Value = "application/json"),
        (CloudEvent = "application/cloudevents+json"),
        (Vec<CloudEvent> = "application/cloudevents-batch+json"),
    )),
    responses((status = 204, description = "The effects are durable and published"),
        (status = 400, description = "This is no CloudEvent")))]
async fn receive(
    State(door): State<Arc<Door>>,
    headers: HeaderMap,
    RawBody(body): RawBody,
) -> Result<StatusCode, Problem> {
    let no_event = |error: EventError| Problem::bad_request(error.to_string());
    match door.handle(events_of(&headers, &body).map_err(no_event)?).await {
        Ok(()) => Ok(StatusCode::NO_CONTENT),
        Err(failure) => Err(Problem::unavailable(&failure)),
    }
}
