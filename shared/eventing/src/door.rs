//! The one door of a service: `POST /events`. Whoever knocks (Knative, `bridge`, a person with curl) hands in one
//! CloudEvent or a batch; this is the one place that decides what the answer means.
//!
//! | answer | meaning |
//! |---|---|
//! | 2xx | the effects are durable and published, or it doesn't concern this service, or it lies in its dead letters |
//! | 503 | may pass: deliver again |
//! | 4xx | this is no CloudEvent |

mod redelivery;

use std::{
    collections::{HashMap, HashSet},
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use axum::{extract::State, http::StatusCode};
use cloudevents::{AttributesReader, Event};
use event_sourcing::{Database, STORY, Value, lists, now, placeholders};
use futures::FutureExt;
use runtime::Problem;
use tokio::sync::RwLock;
use tracing::{Span, info_span};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    Failure, Handled, Handler, Incoming, Metrics, NOT_A_CLOUD_EVENT, Origin, TICK,
    dead_letters::{DeadLetter, DeadLetters, Heard, hear},
    name_and_version,
    request::{Attributes, CloudEvent, Told},
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
    in_hand: Mutex<HashSet<[String; 2]>>,
    metrics: Metrics,
}

/// What is known of an event before it is handled.
struct Known {
    attempts: i64,
    done: bool,
    /// Separated by spaces.
    streams: String,
}

impl Known {
    /// What an event of this subject has changed.
    fn changed(&self, subject: &str) -> Vec<String> {
        let streams: HashSet<&str> = self.streams.split(' ').chain([subject]).filter(|it| !it.is_empty()).collect();
        streams.into_iter().map(ToOwned::to_owned).collect()
    }
}

impl Door {
    /// The door to `handler`.
    #[must_use]
    pub fn new(handler: Arc<dyn Handler>, database: Database, letters: DeadLetters, metrics: Metrics) -> Arc<Self> {
        Arc::new(Self { handler, database, letters, room: RwLock::new(()), in_hand: Mutex::default(), metrics })
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
        let (events, arrived) = (batch.len(), Instant::now());
        let outcome = self.sort_and_handle(batch).await;
        self.metrics.batch(events, arrived);
        outcome
    }

    /// The span of events that are handled together, linked to the spans in which each of them happened.
    fn together(&self, events: &mut [Incoming]) -> Span {
        let span = info_span!(
            target: STORY,
            parent: None,
            "receive",
            otel.name = format_args!("receive {}", self.letters.service()),
            otel.kind = "consumer",
            messaging.system = "kafka",
            messaging.operation.name = "receive",
            messaging.operation.type = "receive",
            messaging.consumer.group.name = self.letters.service(),
            messaging.batch.message_count = events.len(),
        );
        if !span.is_disabled() {
            events.iter().for_each(|event| span.add_link(event.trace.span_context()));
        }
        events.iter_mut().for_each(|event| event.begin(&span));
        span
    }

    async fn sort_and_handle(&self, batch: Vec<Event>) -> Result<(), Failure> {
        let mut events = Vec::new();
        for event in batch {
            let sorted = self.sort(event);
            if matches!(sorted, Sorted::Never(_) | Sorted::Refused(_) | Sorted::Wish(_)) {
                // What came before a letter must not park behind it.
                self.handle_ours(std::mem::take(&mut events)).await?;
            }
            match sorted {
                Sorted::Tick => {
                    self.letters.publish().await?;
                    // By this service's own clock, as all that it has noted; whoever ticks may have another.
                    self.handler.tick(now()).await?;
                }
                Sorted::Foreign => self.metrics.events("ignored", 1),
                Sorted::Ours(event) => events.push(*event),
                Sorted::Never(letter) => self.bury(vec![*letter]).await?,
                Sorted::Refused(letter) => self.adopt(*letter).await?,
                Sorted::Wish(wish) => self.grant(*wish).await?,
            }
        }
        self.handle_ours(events).await
    }

    fn sort(&self, mut event: Event) -> Sorted {
        let origin = Origin::arrived(&mut event);
        if event.ty() == TICK {
            return Sorted::Tick;
        }
        // What Knative knocks with doesn't say on which topic it stood.
        if origin.topic.as_deref().is_none_or(|topic| topic == self.letters.topic()) {
            match hear(&event) {
                Some(Heard::Letter) => return Sorted::Foreign,
                Some(Heard::Refused) => return Sorted::Refused(Box::new(DeadLetter::refused(event))),
                Some(Heard::Wish) => return Sorted::Wish(Box::new(event)),
                None => {}
            }
        }
        let never = |event, origin, reason: &str| Sorted::Never(Box::new(DeadLetter::failed(event, origin, reason, 1)));
        if event.ty() == NOT_A_CLOUD_EVENT {
            return never(event, origin, "the record on the log is no CloudEvent");
        }
        let understood = name_and_version(event.ty()).map(|(name, version)| (self.handler.understands(name), version));
        match understood {
            None | Some((None, _)) => Sorted::Foreign,
            Some((Some(ours), version)) if ours != version => {
                let reason = format!("version {version} of this event is not understood here, {ours} is");
                never(event, origin, &reason)
            }
            Some(_) => match Incoming::read(event) {
                Ok(incoming) => Sorted::Ours(Box::new(Incoming { origin, ..incoming })),
                Err(unreadable) => {
                    let (event, reason) = *unreadable;
                    never(event, origin, &reason)
                }
            },
        }
    }

    /// Takes letters in.
    async fn bury(&self, letters: Vec<DeadLetter>) -> Result<(), Failure> {
        let taken = self.letters.take(letters).await?;
        self.metrics.events("dead_lettered", taken);
        Ok(())
    }

    async fn handle_ours(&self, mut events: Vec<Incoming>) -> Result<(), Failure> {
        if events.is_empty() {
            return Ok(());
        }
        let mut twice = HashSet::new();
        events.retain(|event| twice.insert(key(event)));
        let known = self.known(events.iter().map(key).collect()).await?;

        let (seen, new): (Vec<_>, Vec<_>) =
            events.into_iter().partition(|event| known.get(&key(event)).is_some_and(|known| known.done));
        if !seen.is_empty() {
            self.metrics.events("repeated", seen.len());
            let changed = seen.iter().filter_map(|event| Some(known.get(&key(event))?.changed(&event.subject)));
            let streams: HashSet<String> = changed.flatten().collect();
            self.handler.seen(streams.into_iter().collect()).await?;
        }

        let subjects: HashSet<String> = new.iter().map(|event| event.subject.clone()).collect();
        let open = self.letters.open(subjects.into_iter().collect()).await?;
        let (behind, new): (Vec<_>, Vec<_>) = new.into_iter().partition(|event| open.contains(&event.subject));
        let parked = self.letters.take(behind.into_iter().map(DeadLetter::parked).collect()).await?;
        self.metrics.events("parked", parked);

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
            let result = if begun.insert(suspect.subject.clone()) {
                let attempts = attempts(&suspect);
                self.suspect(suspect, attempts).await
            } else {
                Err(Failure::Retry("an earlier event of its subject is handled alone first".to_owned()))
            };
            outcome = outcome.and(result);
        }
        outcome
    }

    /// Handles one while nothing else is handled; it may have crashed its handler before.
    async fn suspect(&self, event: Incoming, attempts: i64) -> Result<(), Failure> {
        let _alone = self.room.write().await;
        if attempts < MAX_ATTEMPTS {
            return self.attempt(vec![event]).await;
        }
        let reason = format!("its handler crashed {attempts} times");
        self.bury(vec![DeadLetter::failed(event.original, event.origin, &reason, attempts)]).await
    }

    /// What the inbox knows of the events with these sources and ids.
    async fn known(&self, keys: Vec<[String; 2]>) -> Result<HashMap<[String; 2], Known>, Failure> {
        let mut known = HashMap::new();
        for piece in lists(keys) {
            let sql = format!(
                "SELECT source, id, attempts, done, stream_id FROM inbox WHERE (source, id) IN (VALUES {})",
                placeholders(piece.len(), 2)
            );
            for row in self.database.fetch(sql, values(piece)).await? {
                let found = Known { attempts: row.int(2)?, done: row.int(3)? == 1, streams: row.text(4)? };
                known.insert([row.text(0)?, row.text(1)?], found);
            }
        }
        Ok(known)
    }

    /// Tries new events; what can never be handled becomes a letter.
    async fn attempt(&self, events: Vec<Incoming>) -> Result<(), Failure> {
        let (rejected, outcome) = self.try_now(events).await?;
        let letter = |(event, reason): (Incoming, String)| DeadLetter::failed(event.original, event.origin, &reason, 1);
        self.bury(rejected.into_iter().map(letter).collect()).await?;
        outcome
    }

    /// Counts the attempt, handles, and clears up behind it. Returns what was rejected for good and why, and the first
    /// failure that may pass.
    async fn try_now(
        &self,
        mut events: Vec<Incoming>,
    ) -> Result<(Vec<(Incoming, String)>, Result<(), Failure>), Failure> {
        let Some(_taken) = InHand::take(&self.in_hand, events.iter().map(key).collect()) else {
            return Err(Failure::Retry("it is being handled right now".to_owned()));
        };
        let _together = self.together(&mut events);
        self.begin(&events).await?;
        // A handler that panics has crashed: the attempt stays counted, and the event comes again, alone.
        let outcomes = AssertUnwindSafe(self.handler.handle(&events)).catch_unwind().await;
        let Ok(outcomes) = outcomes else {
            events.iter().for_each(|event| event.end("crashed", Some("the handler crashed")));
            self.metrics.events("crashed", events.len());
            return Err(Failure::Retry("the handler crashed".to_owned()));
        };
        let mut first_failure = Ok(());
        let (mut handled, mut idle, mut passing, mut rejected) = (0, Vec::new(), Vec::new(), Vec::new());
        for (event, outcome) in events.into_iter().zip(outcomes) {
            match outcome {
                Ok(Handled::Effect) => {
                    event.end("effect", None);
                    self.metrics.handled(&event.time);
                    handled += 1;
                }
                Ok(Handled::Nothing) => {
                    event.end("nothing", None);
                    self.metrics.handled(&event.time);
                    idle.push(event);
                }
                Err(Failure::Never(reason)) => {
                    event.end("dead letter", Some(&reason));
                    rejected.push((event, reason));
                }
                Err(failure) => {
                    event.end("again", Some(&failure.to_string()));
                    first_failure = first_failure.and(Err(failure));
                    passing.push(event);
                }
            }
        }
        self.metrics.events("handled", handled + idle.len());
        self.metrics.events("retried", passing.len());
        self.end(&idle, &passing).await?;
        Ok((rejected, first_failure))
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
        // What is without effect won't be told again: if a crash of the store brought its attempt back, nobody would
        // ever clear it up.
        let mut write = if idle.is_empty() { self.database.write_soon().await? } else { self.database.write().await? };
        for (events, what) in [
            (idle, "DELETE FROM inbox WHERE done = 0 AND"),
            (passing, "UPDATE inbox SET attempts = attempts - 1 WHERE done = 0 AND"),
        ] {
            let mut keys: Vec<_> = events.iter().map(|event| [event.source.clone(), event.id.clone()]).collect();
            keys.sort();
            for piece in lists(keys) {
                let sql = format!("{what} (source, id) IN (VALUES {})", placeholders(piece.len(), 2));
                write.execute(sql, values(piece)).await?;
            }
        }
        Ok(write.commit().await?)
    }
}

/// Events that nobody else in this process may handle until this is dropped.
struct InHand<'a> {
    all: &'a Mutex<HashSet<[String; 2]>>,
    mine: Vec<[String; 2]>,
}

impl<'a> InHand<'a> {
    /// All of them, or none if one is taken.
    fn take(all: &'a Mutex<HashSet<[String; 2]>>, mine: Vec<[String; 2]>) -> Option<Self> {
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

fn key(event: &Incoming) -> [String; 2] {
    [event.source.clone(), event.id.clone()]
}

fn values(keys: Vec<[String; 2]>) -> Vec<Value> {
    keys.into_iter().flatten().map(Value::from).collect()
}

enum Sorted {
    Tick,
    Foreign,
    Ours(Box<Incoming>),
    /// It can't be handled, and needn't be tried.
    Never(Box<DeadLetter>),
    /// It was refused on the way.
    Refused(Box<DeadLetter>),
    /// Somebody wishes something of a dead letter.
    Wish(Box<Event>),
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
async fn receive(State(door): State<Arc<Door>>, Told(events): Told) -> Result<StatusCode, Problem> {
    match door.handle(events).await {
        Ok(()) => Ok(StatusCode::NO_CONTENT),
        Err(failure) => Err(Problem::unavailable(&failure)),
    }
}
