//! Knocks at the doors of services for every event on the log, as Knative's KafkaSource does in the cluster: one group
//! per subscription, one request in flight per partition, in order, again and again with growing pauses for as long as
//! it takes. An offset is committed only after the answer. Unlike KafkaSource it sends batches, and never drops.
//!
//! How many requests of a subscription are in flight at once is the reflex: no worker while nothing waits, more the
//! more waits, none again when it is quiet.

mod reflex;
mod sink;

use std::{collections::HashMap, sync::Arc, time::Duration};

use cloudevents::{AttributesReader, Event, EventBuilder, EventBuilderV10};
use event_sourcing::{chance, new_id, now};
use runtime::Stop;

pub use reflex::{Bounds, Pulse};
pub use sink::{Headers, HttpSink, RouterSink, Sink, named_url};

use crate::{
    NOT_A_CLOUD_EVENT, TICK, dead_letters, from_record,
    log::{Batch, EventLog, LogError, Member, Partition, Stored},
    origin::{IN_A_LETTER, ON_THE_WAY, Origin},
    sources::{Sources, Subscription},
    to_record,
};
use reflex::Worker;

/// Bytes of records that one request carries, at most: well below what the door takes, as JSON is longer.
const REQUEST_BYTES: usize = 1024 * 1024;
/// Pauses between two attempts: they double from the first to the last of these, with jitter.
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));

/// After so long, whoever reads the log hears now and then of an event that is told again and again.
const REMARKABLE: Duration = Duration::from_secs(10);

/// How a bridge works.
#[derive(Debug, Clone)]
pub struct BridgeSettings {
    /// Events that one request carries, at most.
    pub batch: usize,
    /// How often time passes.
    pub tick: Duration,
    /// Of a service whose manifest says nothing about them.
    pub bounds: Bounds,
}

impl Default for BridgeSettings {
    fn default() -> Self {
        Self { batch: 128, tick: Duration::from_secs(2), bounds: Bounds::default() }
    }
}

/// A bridge at work.
pub struct Bridge {
    /// What each service's workers are doing.
    pub pulses: Vec<Arc<Pulse>>,
    tasks: tokio::task::JoinSet<()>,
}

impl Bridge {
    /// Knocks for every subscription in `sources` that has a sink, until `stop`.
    ///
    /// # Errors
    /// If the log can't be joined.
    pub async fn start(
        log: Arc<dyn EventLog>,
        sources: &Sources,
        sinks: &HashMap<String, Arc<dyn Sink>>,
        settings: &BridgeSettings,
        stop: &Stop,
    ) -> Result<Self, LogError> {
        log.create_topics(&sources.topics()).await?;
        let (mut pulses, mut tasks): (Vec<Arc<Pulse>>, _) = (Vec::new(), tokio::task::JoinSet::new());
        for subscription in &sources.subscriptions {
            let Some(sink) = sinks.get(&subscription.service) else { continue };
            log.create_topics(&[&dead_letters::topic(&subscription.service)]).await?;
            let known = pulses.iter().find(|pulse| pulse.service == subscription.service).cloned();
            let pulse = known.unwrap_or_else(|| {
                let new = Arc::new(Pulse::new(&subscription.service));
                pulses.push(new.clone());
                new
            });
            let knocker = Arc::new(Knocker {
                subscription: subscription.clone(),
                member: log.join(&subscription.group, &subscription.topics).await?,
                log: log.clone(),
                sink: sink.clone(),
                batch: settings.batch,
                pulse: pulse.clone(),
                stop: stop.clone(),
            });
            let bounds = match sources.scale.get(&subscription.service) {
                Some(scale) => Bounds { most: scale.most, target: scale.waiting_per_worker, ..settings.bounds },
                None => settings.bounds,
            };
            tasks.spawn(reflex::run(knocker, bounds, pulse, stop.clone()));
        }
        for service in &sources.ticks {
            if let Some(sink) = sinks.get(service) {
                tasks.spawn(tick(service.clone(), sink.clone(), settings.tick, stop.clone()));
            }
        }
        Ok(Self { pulses, tasks })
    }

    /// Returns when everything in flight is answered, after `stop`.
    pub async fn finish(self) {
        self.tasks.join_all().await;
    }
}

/// Tells a service that time passes.
async fn tick(service: String, sink: Arc<dyn Sink>, every: Duration, stop: Stop) {
    let mut interval = tokio::time::interval(every);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! { biased; () = stop.wait() => return, _ = interval.tick() => () }
        let event = EventBuilderV10::new()
            .id(new_id().to_string())
            .source("/bridge/ticks")
            .ty(TICK)
            .time(now().to_string())
            .build();
        let Ok(event) = event else { continue };
        // A tick that nobody hears is followed by the next.
        if let Err(Knock::Again(reason) | Knock::Refused(_, reason)) = send(&*sink, vec![event]).await {
            tracing::debug!(service, reason, "the tick was not heard");
        }
    }
}

/// Why a request did not do.
enum Knock {
    /// It may pass.
    Again(String),
    /// The service says that this is no event: status and what it said.
    Refused(u16, String),
}

async fn send(sink: &dyn Sink, events: Vec<Event>) -> Result<(), Knock> {
    match sink.tell(events).await {
        Err(reason) => Err(Knock::Again(reason)),
        Ok((status, _)) if (200..300).contains(&status) => Ok(()),
        // As KafkaSource has it: these client errors may pass, others don't.
        Ok((status @ (400..=403 | 405..=407 | 410..=428 | 430..=499), said)) => Err(Knock::Refused(status, said)),
        Ok((status, said)) => Err(Knock::Again(format!("{status} {said}"))),
    }
}

/// Knocks at one service for one subscription.
struct Knocker {
    subscription: Subscription,
    member: Arc<dyn Member>,
    log: Arc<dyn EventLog>,
    sink: Arc<dyn Sink>,
    batch: usize,
    pulse: Arc<Pulse>,
    stop: Stop,
}

/// The partition went elsewhere, or the bridge stops: somebody else will deliver this.
struct GivenUp;

#[async_trait::async_trait]
impl Worker for Knocker {
    type Task = Batch;

    fn waiting(&self) -> u64 {
        self.member.waiting()
    }

    async fn arrival(&self) {
        self.member.arrival().await;
    }

    async fn take(&self) -> Batch {
        loop {
            match self.member.next(self.batch).await {
                Ok(batch) => return batch,
                Err(error) => tracing::warn!(%error, service = self.subscription.service, "the log does not answer"),
            }
            tokio::time::sleep(PAUSE.0).await;
        }
    }

    async fn work(&self, batch: Batch) {
        match self.deliver(&batch).await {
            Ok(()) => {
                self.pulse.delivered(batch.records.len());
                self.member.finished(&batch).await;
            }
            Err(GivenUp) => self.member.returned(&batch).await,
        }
    }

    async fn leave(&self) {
        self.member.leave().await;
    }
}

impl Knocker {
    async fn deliver(&self, batch: &Batch) -> Result<(), GivenUp> {
        let mut rest = batch.records.as_slice();
        while !rest.is_empty() {
            let (now, later) = rest.split_at(fitting(rest));
            let events = || now.iter().map(|stored| event(&batch.partition, stored));
            if now.len() == 1 || send(&*self.sink, events().collect()).await.is_err() {
                for event in events() {
                    self.deliver_one(&batch.partition, event).await?;
                }
            }
            rest = later;
        }
        Ok(())
    }

    async fn deliver_one(&self, partition: &Partition, event: Event) -> Result<(), GivenUp> {
        let (begun, mut attempt, mut pause) = (tokio::time::Instant::now(), 1_u32, PAUSE.0);
        loop {
            let reason = match send(&*self.sink, vec![event.clone()]).await {
                Ok(()) => return Ok(()),
                Err(Knock::Refused(status, said)) if partition.topic == self.letters() => {
                    // It stands there already; once more would be for ever.
                    let service = &self.subscription.service;
                    tracing::error!(service, status, said, event = event.id(), "refused from among its dead letters");
                    return Ok(());
                }
                Err(Knock::Refused(status, said)) => match self.dead_letter(event.clone(), status, &said).await {
                    Ok(()) => return Ok(()),
                    Err(error) => error.to_string(),
                },
                Err(Knock::Again(reason)) => reason,
            };
            self.pulse.retried();
            let service = &self.subscription.service;
            if begun.elapsed() >= REMARKABLE && attempt.is_power_of_two() {
                tracing::warn!(service, event = event.id(), attempt, reason, "not taken yet; all behind it waits");
            } else {
                tracing::debug!(service, event = event.id(), attempt, reason, "again");
            }
            let jitter = 0.5 + chance() / 2.0;
            tokio::select! {
                biased;
                () = self.stop.wait() => return Err(GivenUp),
                () = tokio::time::sleep(pause.mul_f64(jitter)) => (),
            }
            (attempt, pause) = (attempt.saturating_add(1), (pause * 2).min(PAUSE.1));
            if !self.member.holds(partition) {
                return Err(GivenUp);
            }
        }
    }

    /// As Knative's dead-letter sink has it, and with where it stood.
    async fn dead_letter(&self, mut event: Event, status: u16, said: &str) -> Result<(), LogError> {
        Origin::take(&mut event, &ON_THE_WAY).put(&mut event, &IN_A_LETTER);
        event.set_extension("knativeerrordest", self.subscription.service.clone());
        event.set_extension("knativeerrorcode", i64::from(status));
        event.set_extension("knativeerrordata", said.chars().take(1024).collect::<String>());
        let record = to_record(event).map_err(|error| LogError::Unavailable(error.to_string()))?;
        self.log.append(&self.letters(), vec![record]).await
    }

    fn letters(&self) -> String {
        dead_letters::topic(&self.subscription.service)
    }
}

/// How many of these records one request carries; at least one.
fn fitting(records: &[Stored]) -> usize {
    let mut bytes = 0;
    let fit = records.iter().take_while(|stored| {
        let headers = stored.record.headers.iter().map(|(name, value)| name.len() + value.len());
        bytes += stored.record.value.as_ref().map_or(0, Vec::len) + headers.sum::<usize>();
        bytes <= REQUEST_BYTES
    });
    fit.count().max(1)
}

/// The event in a record, with where it stood; a record that is no CloudEvent is wrapped as KafkaSource wraps it.
fn event(partition: &Partition, stored: &Stored) -> Event {
    let read = from_record(&stored.record).ok();
    let is_none = read.is_none();
    let mut event = read.unwrap_or_else(|| wrapped(partition, stored));
    Origin::of(partition, stored, &event, is_none).put(&mut event, &ON_THE_WAY);
    event
}

fn wrapped(partition: &Partition, stored: &Stored) -> Event {
    let mut event = Event::default();
    {
        use cloudevents::AttributesWriter;
        event.set_id(format!("partition:{}/offset:{}", partition.number, stored.offset));
        event.set_source(format!("/bridge#{}", partition.topic));
        event.set_type(NOT_A_CLOUD_EVENT);
        event.set_subject(Some(format!("partition:{}#{}", partition.number, stored.offset)));
    }
    event.set_data("application/octet-stream", stored.record.value.clone().unwrap_or_default());
    event
}
