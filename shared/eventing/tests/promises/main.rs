//! The promises of the plumbing, kept for a service that knows nothing but counting: on SQLite always, on PostgreSQL
//! where `POSTGRES_URL` says so.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that can't go on fails")]

use std::{
    collections::HashMap,
    io::Write,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use axum::{Router, body::Body, http::Request};
use cloudevents::{Event, EventBuilder, EventBuilderV10};
use event_sourcing::{Decider, DomainEvent, Work};
use eventing::{
    Failure, Identity, Incoming, Platform, Reactions, Writer,
    bridge::{Bounds, Bridge, BridgeSettings, RouterSink, Sink},
    from_record,
    log::{EmbeddedLog, EventLog, Lag, LogError, Member, Partition, Record, Stored},
    sources::{Scale, Sources, Subscription},
};
use runtime::Stop;
use serde::{Deserialize, Serialize};
use sqlx::{AssertSqlSafe, Connection};
use tower::ServiceExt;
use utoipa_axum::router::OpenApiRouter;

mod letters;
mod redelivery;

const WHO: Identity = Identity { name: "counter", source: "/counter", topic: "counts" };

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", content = "data")]
enum Counted {
    #[serde(rename = "dev.rainstorm.counter.counted.v1")]
    Counted { by: i64 },
}
impl DomainEvent for Counted {}

#[derive(Debug, Clone, Default)]
struct Counter(i64);
impl Decider for Counter {
    type Event = Counted;
    type Command = i64;
    type Rejection = std::convert::Infallible;
    fn evolve(self, Counted::Counted { by }: Counted) -> Self {
        Self(self.0 + by)
    }
    fn decide(&self, by: i64) -> Result<Vec<Counted>, Self::Rejection> {
        Ok(if by == 0 { vec![] } else { vec![Counted::Counted { by }] })
    }
}

#[derive(Deserialize)]
#[serde(tag = "type", content = "data")]
enum Told {
    #[serde(rename = "dev.rainstorm.test.add.v1")]
    Add { by: i64 },
    /// What only a mended handler understands.
    #[serde(rename = "dev.rainstorm.test.more.v2")]
    More { by: i64 },
}

/// A handler with bugs: it doesn't read every event, 13 crashes it, and it complains at length of 66. It can be mended.
#[derive(Default)]
struct Counting {
    mended: AtomicBool,
    /// While it is held, 77 is not counted yet.
    slow: tokio::sync::Mutex<()>,
    discarded: std::sync::Mutex<Vec<String>>,
}
impl Counting {
    fn is_mended(&self) -> bool {
        self.mended.load(Ordering::SeqCst)
    }
}
#[async_trait]
impl Reactions for Counting {
    fn understands(&self, name: &str) -> Option<&'static str> {
        match name {
            "test.add" => Some("v1"),
            "test.more" if self.is_mended() => Some("v2"),
            "test.more" => Some("v1"),
            _ => None,
        }
    }
    async fn react(&self, event: &Incoming, work: &mut Work<'_>) -> Result<(), Failure> {
        let by = match event.to().map_err(Failure::Never) {
            Ok(Told::Add { by } | Told::More { by }) => by,
            Err(_) if self.is_mended() => 1,
            Err(never) => return Err(never),
        };
        assert!(by != 13 || self.is_mended(), "this number crashes the handler");
        if by == 66 && !self.is_mended() {
            return Err(Failure::Never(format!("two\nlines\u{0}{}", "x".repeat(100_000))));
        }
        if by == 77 {
            drop(self.slow.lock().await);
        }
        let mut counter = work.load::<Counter>(&event.subject).await?;
        Ok(work.execute(&mut counter, by)?)
    }
    async fn discard(&self, event: &Incoming) -> Result<(), Failure> {
        self.discarded.lock().unwrap().push(event.id.clone());
        Ok(())
    }
}

/// A log that can be switched off, all of it or one topic.
struct Switch(EmbeddedLog, Arc<AtomicBool>, std::sync::Mutex<Option<&'static str>>);
impl Switch {
    fn check(&self, topic: &str) -> Result<(), LogError> {
        let is_off = !self.1.load(Ordering::SeqCst) || self.2.lock().unwrap().is_some_and(|off| off == topic);
        if is_off { Err(LogError::Unavailable("switched off".into())) } else { Ok(()) }
    }
}
#[async_trait]
impl EventLog for Switch {
    async fn create_topics(&self, topics: &[&str]) -> Result<(), LogError> {
        self.0.create_topics(topics).await
    }
    async fn append(&self, topic: &str, records: Vec<Record>) -> Result<(), LogError> {
        self.check(topic)?;
        self.0.append(topic, records).await
    }
    async fn join(&self, group: &str, topics: &[String]) -> Result<Arc<dyn Member>, LogError> {
        self.0.join(group, topics).await
    }
    async fn read(&self, partition: &Partition, offset: i64, limit: usize) -> Result<Vec<Stored>, LogError> {
        self.0.read(partition, offset, limit).await
    }
    async fn watermarks(&self, topic: &str) -> Result<Vec<(Partition, i64, i64)>, LogError> {
        self.0.watermarks(topic).await
    }
    async fn lag(&self, group: &str, topics: &[String]) -> Result<Vec<Lag>, LogError> {
        self.0.lag(group, topics).await
    }
}

struct Setup {
    log: Arc<Switch>,
    /// Two instances of the counter on one database.
    doors: [Router; 2],
    handler: Arc<Counting>,
    writer: Writer,
    _folder: tempfile::TempDir,
}

async fn database(name: &str) -> Option<String> {
    let Ok(url) = std::env::var("POSTGRES_URL") else {
        assert!(std::env::var("RAINSTORM_REQUIRE_SERVERS").is_err(), "POSTGRES_URL is not set");
        let _ = writeln!(std::io::stderr(), "skipped on PostgreSQL: POSTGRES_URL is not set");
        return None;
    };
    let mut connection = sqlx::PgConnection::connect(&url).await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(format!("CREATE DATABASE {name}"))).execute(&mut connection).await.unwrap();
    Some(format!("{}/{name}", url.rsplit_once('/').unwrap().0))
}

/// Runs a case on every database there is.
async fn on_every_database<F: Future<Output = ()>>(case: impl Fn(Setup) -> F) {
    let folder = tempfile::tempdir().unwrap();
    let sqlite = format!("sqlite:{}", folder.path().join("counter.db").display());
    case(setup(sqlite).await).await;
    if let Some(postgres) = database(&format!("p{}", uuid::Uuid::now_v7().simple())).await {
        case(setup(postgres).await).await;
    }
}

async fn setup(database_url: String) -> Setup {
    let folder = tempfile::tempdir().unwrap();
    let log = EmbeddedLog::open(&folder.path().join("log"), 4).await.unwrap();
    log.create_topics(&["tests", WHO.topic, "counter.dead-letters"]).await.unwrap();
    let log = Arc::new(Switch(log, Arc::new(AtomicBool::new(true)), std::sync::Mutex::default()));
    let platform = Platform::new(log.clone(), database_url);
    let handler = Arc::new(Counting::default());
    // Started at the same moment, as several instances are.
    let instance = || async {
        let writer = platform.writer(WHO, platform.database(&[]).await.unwrap());
        let service = platform.assemble(WHO, writer.clone(), handler.clone(), OpenApiRouter::new());
        (service.door(), writer)
    };
    let ((first, writer), (second, _)) = tokio::join!(instance(), instance());
    Setup { log, doors: [first, second], handler: handler.clone(), writer, _folder: folder }
}

fn add(id: &str, subject: &str, by: i64) -> Event {
    let builder = EventBuilderV10::new().id(id).source("/tests").ty("dev.rainstorm.test.add.v1").subject(subject);
    builder.data("application/json", serde_json::json!({"by": by})).build().unwrap()
}

async fn knock(door: &Router, events: &[Event]) -> u16 {
    let request = Request::post("/events")
        .header("content-type", "application/cloudevents-batch+json")
        .body(Body::from(serde_json::to_vec(events).unwrap()));
    door.clone().oneshot(request.unwrap()).await.unwrap().status().as_u16()
}

impl Setup {
    async fn count(&self, stream: &str) -> i64 {
        self.writer.store.load::<Counter>(stream).await.unwrap().state.0
    }

    async fn on_topic(&self, topic: &str) -> Vec<Incoming> {
        let mut events = Vec::new();
        for (partition, low, _) in self.log.watermarks(topic).await.unwrap() {
            for stored in self.log.read(&partition, low, 100_000).await.unwrap() {
                events.push(Incoming::read(from_record(&stored.record).unwrap()).unwrap());
            }
        }
        events
    }

    /// `(subject, state)` of every dead letter.
    async fn letters(&self) -> Vec<(String, String)> {
        let mut letters: Vec<_> = self
            .on_topic("counter.dead-letters")
            .await
            .iter()
            .map(|letter| {
                let state = letter.original.extension("deadletterstate").unwrap().to_string();
                (letter.subject.clone(), state)
            })
            .collect();
        letters.sort();
        letters
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_has_its_effect_once_however_often_and_wherever_it_is_told() {
    on_every_database(|it| async move {
        let told: Vec<_> = (0..20).map(|number| add(&format!("e{number}"), &format!("s{}", number % 5), 1)).collect();
        let knocks = (0..10).map(|round| {
            let (door, told) = (it.doors[round % 2].clone(), told.clone());
            tokio::spawn(async move { while knock(&door, &told).await != 204 {} })
        });
        futures::future::join_all(knocks).await.into_iter().for_each(Result::unwrap);
        for stream in 0..5 {
            assert_eq!(it.count(&format!("s{stream}")).await, 4);
        }
        let mut published: Vec<_> = it.on_topic(WHO.topic).await.into_iter().map(|event| event.id).collect();
        published.sort();
        published.dedup();
        assert_eq!(published.len(), 20);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn first_occurrences_of_a_streams_events_stand_in_order_with_two_instances() {
    on_every_database(|it| async move {
        let knocks = (0..60).map(|number| {
            let door = it.doors[number % 2].clone();
            tokio::spawn(async move { while knock(&door, &[add(&format!("e{number}"), "s", 1)]).await != 204 {} })
        });
        futures::future::join_all(knocks).await.into_iter().for_each(Result::unwrap);
        let mut seen = std::collections::HashSet::new();
        let published = it.on_topic(WHO.topic).await;
        let first: Vec<_> = published.iter().filter(|event| seen.insert(event.id.clone())).collect();
        let sequences: Vec<_> = first.iter().map(|event| event.sequence.unwrap()).collect();
        assert_eq!(sequences, (1..=60).collect::<Vec<_>>());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_log_did_not_take_is_answered_503_and_published_when_it_is_told_again() {
    on_every_database(|it| async move {
        it.log.1.store(false, Ordering::SeqCst);
        assert_eq!(knock(&it.doors[0], &[add("e", "s", 1)]).await, 503);
        assert_eq!(it.count("s").await, 1, "its effect is stored");
        it.log.1.store(true, Ordering::SeqCst);
        assert_eq!(knock(&it.doors[1], &[add("e", "s", 1)]).await, 204);
        assert_eq!((it.count("s").await, it.on_topic(WHO.topic).await.is_empty()), (1, false));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn told_to_stop_a_service_publishes_what_it_has_stored() {
    on_every_database(|it| async move {
        it.log.1.store(false, Ordering::SeqCst);
        let cause = event_sourcing::Cause::command(None, event_sourcing::TraceContext::new());
        it.writer.store.handle::<Counter>(&cause, "s", || 1, |_| vec![]).await.unwrap();
        // Whoever sent the command has its answer; this is done behind its back.
        assert!(it.writer.outbox.publish(vec!["s".to_owned()]).await.is_err());
        let platform = Platform::new(it.log.clone(), String::new());
        let service = platform.assemble(WHO, it.writer.clone(), it.handler.clone(), OpenApiRouter::new());
        let stop = Stop::default();
        stop.now();
        it.log.1.store(true, Ordering::SeqCst);
        eventing::listen_and_serve((std::net::Ipv4Addr::LOCALHOST, 0), vec![service], stop).await.unwrap();
        assert_eq!(it.on_topic(WHO.topic).await.len(), 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tick_sweeps_out_what_a_crash_left_unpublished() {
    on_every_database(|it| async move {
        let cause = event_sourcing::Cause::command(None, event_sourcing::TraceContext::new());
        it.writer.store.handle::<Counter>(&cause, "s", || 1, |_| vec![]).await.unwrap();
        assert!(it.on_topic(WHO.topic).await.is_empty());
        let tick = EventBuilderV10::new().id("t").source("/ticks").ty(eventing::TICK).build().unwrap();
        assert_eq!(knock(&it.doors[0], &[tick]).await, 204);
        assert_eq!(it.on_topic(WHO.topic).await.len(), 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_never_be_handled_is_a_dead_letter_and_only_its_own_stream_waits() {
    on_every_database(|it| async move {
        let mut unreadable = add("bad", "s1", 1);
        unreadable.set_data("application/json", serde_json::json!({"by": "one"}));
        assert_eq!(knock(&it.doors[0], &[unreadable.clone(), add("e1", "s1", 1), add("e2", "s2", 1)]).await, 503);
        // Singly, as a bridge sends them again.
        for event in [unreadable, add("e1", "s1", 1), add("e2", "s2", 1)] {
            assert_eq!(knock(&it.doors[1], &[event]).await, 204);
        }
        assert_eq!((it.count("s1").await, it.count("s2").await), (0, 1));
        let letters = [("s1".to_owned(), "failed".to_owned()), ("s1".to_owned(), "parked".to_owned())];
        assert_eq!(it.letters().await, letters);
        // Told again it is still one letter.
        assert_eq!(knock(&it.doors[0], &[add("e1", "s1", 1)]).await, 204);
        assert_eq!(it.letters().await.len(), 2);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_crashes_its_handler_again_and_again_is_a_dead_letter() {
    on_every_database(|it| async move {
        let mut answers = Vec::new();
        while answers.last() != Some(&204) && answers.len() < 20 {
            answers.push(knock(&it.doors[0], &[add("bad", "s1", 13)]).await);
        }
        assert_eq!(answers, [503, 503, 503, 503, 503, 204]);
        assert_eq!(it.letters().await, [("s1".to_owned(), "failed".to_owned())]);
        assert_eq!(knock(&it.doors[0], &[add("e", "s2", 1)]).await, 204);
        assert_eq!(it.count("s2").await, 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_concerns_nobody_here_is_ignored_and_one_of_a_newer_version_is_kept() {
    on_every_database(|it| async move {
        let of = |event_type: &str| EventBuilderV10::from(add("e", "s", 1)).ty(event_type).build().unwrap();
        assert_eq!(knock(&it.doors[0], &[of("dev.rainstorm.test.other.v1"), of("com.example.test.add.v1")]).await, 204);
        assert!(it.letters().await.is_empty());
        assert_eq!(knock(&it.doors[0], &[of("dev.rainstorm.test.add.v2")]).await, 204);
        assert_eq!(it.letters().await.len(), 1);
        let json = |body: &str| {
            Request::post("/events")
                .header("content-type", "application/cloudevents+json")
                .body(Body::from(body.to_owned()))
                .unwrap()
        };
        for no_event in ["", "{}", "null", "[1]", r#"{"specversion":"1.0","id":"","source":"/x","type":"y"}"#] {
            let answer = it.doors[0].clone().oneshot(json(no_event)).await.unwrap();
            assert_eq!(answer.status().as_u16(), 400, "{no_event}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bridge_delivers_everything_in_spite_of_a_log_that_comes_and_goes_and_then_sleeps() {
    on_every_database(|it| async move {
        let records = (0..500).map(|number| add(&format!("e{number}"), &format!("s{}", number % 50), 1));
        let records = records.map(|event| eventing::to_record(event).unwrap()).collect();
        it.log.append("tests", records).await.unwrap();
        it.log.append("tests", vec![Record { value: Some(b"garbage".to_vec()), ..Record::default() }]).await.unwrap();
        let sources = Sources {
            subscriptions: vec![Subscription {
                service: "counter".into(),
                group: "counter".into(),
                topics: vec!["tests".into()],
            }],
            ticks: vec!["counter".into()],
            scale: [("counter".into(), Scale { most: 2, waiting_per_worker: 10 })].into(),
        };
        let sinks: HashMap<String, Arc<dyn Sink>> =
            HashMap::from([("counter".to_owned(), Arc::new(RouterSink(it.doors[0].clone())) as Arc<dyn Sink>)]);
        let stop = Stop::default();
        let settings = BridgeSettings {
            tick: Duration::from_millis(100),
            bounds: Bounds { rest: Duration::from_millis(50), ..Bounds::default() },
            ..BridgeSettings::default()
        };
        it.log.1.store(false, Ordering::SeqCst);
        let log: Arc<dyn EventLog> = it.log.clone();
        let bridge = Bridge::start(log, &sources, &sinks, &settings, &stop).await.unwrap();
        let pulse = bridge.pulses[0].clone();
        let condition = |met: Box<dyn Fn() -> bool + Send>| async move {
            let wait = async {
                while !met() {
                    tokio::time::sleep(Duration::from_millis(10)).await
                }
            };
            tokio::time::timeout(Duration::from_secs(60), wait).await.expect("the condition is met in time");
        };
        let retrying = pulse.clone();
        condition(Box::new(move || retrying.retries() > 0)).await;
        it.log.1.store(true, Ordering::SeqCst);
        let asleep = pulse.clone();
        condition(Box::new(move || asleep.delivered_so_far() == 501 && asleep.awake() == 0)).await;
        for stream in 0..50 {
            assert_eq!(it.count(&format!("s{stream}")).await, 10);
        }
        assert_eq!(it.letters().await.len(), 1, "the garbage");
        assert_eq!(pulse.wakings(), pulse.sleeps());
        assert_eq!(pulse.most_awake(), 2, "as many as the manifest says, and no more");
        stop.now();
        bridge.finish().await;
        let lag = it.log.lag("counter", &["tests".to_owned()]).await.unwrap();
        assert_eq!(lag.iter().map(Lag::records).sum::<i64>(), 0);
    })
    .await;
}
