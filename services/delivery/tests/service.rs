//! Delivery as the outside meets it: through its door and its HTTP, on a real store and a real log.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that can't go on fails")]

use std::{
    collections::{BTreeMap, HashSet},
    io::Write,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use axum::{Router, body::Body, http::Request};
use delivery::{
    MIGRATIONS, Riding, SERVICE, Settings,
    domain::{Driver, DriverCommand},
};
use event_sourcing::{Ambient, Cause, Database, Statement, Store, Stream, TraceContext, Unit, simulate};
use eventing::{
    Incoming, Platform, from_record,
    log::{EmbeddedLog, EventLog},
};
use futures::future::join_all;
use http_body_util::BodyExt;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use sqlx::Connection;
use tower::ServiceExt;

const AT_ONCE: Riding = Riding::Takes(Duration::from_millis(1));
const WHOLE: [&str; 5] = ["requested", "order_ready", "driver_assigned", "out_for_delivery", "delivered"];

#[tokio::test]
async fn address_and_food_end_delivered_whichever_comes_first() {
    for food_first in [false, true] {
        let it = Delivery::start(AT_ONCE).await;
        it.shift("dora", true).await;
        let mut told = [placed(&order(1)), packed(&order(1))];
        let mut expected = WHOLE;
        if food_first {
            told.reverse();
            expected.swap(0, 1);
        }
        it.hears(&told[0]).await;
        assert_eq!(it.story(&order(1)).await, expected[..1], "one fact is not enough");
        it.hears(&told[1]).await;
        it.hears_itself().await;
        assert_eq!(it.story(&order(1)).await, expected);
        assert_eq!(it.story("dora").await, ["driver_on_shift", "driver_engaged", "driver_released"]);
        assert_eq!(it.left().await, (0, 1));

        let all = it.published().await;
        let second_fact = all.iter().find(|event| event.event_type.contains(expected[1])).unwrap();
        let assigned =
            all.iter().filter(|event| event.event_type.contains("assigned") || event.event_type.contains("engaged"));
        for event in assigned {
            assert_eq!((&event.causation_id, &event.correlation_id), (&second_fact.id, &order(1)));
            assert_eq!(trace_id(event), trace_id(second_fact));
        }
    }
}

#[tokio::test]
async fn every_event_delivered_twice_changes_nothing() {
    let it = Delivery::start(AT_ONCE).await;
    it.shift("dora", true).await;
    it.shift("emil", true).await;
    let told = [placed(&order(1)), packed(&order(1))];
    for event in &told {
        it.hears(event).await;
    }
    it.hears_itself().await;
    let ids = async || it.published().await.into_iter().map(|event| event.id).collect::<Vec<_>>();
    let before = ids().await;
    for event in told.iter().chain(&told) {
        it.hears(event).await;
        // The same fact again, as another event.
        let mut again = event.clone();
        again["id"] = json!(format!("{}-again", event["id"].as_str().unwrap()));
        it.hears(&again).await;
    }
    it.hears_itself().await;
    it.shift("dora", true).await;
    assert_eq!(ids().await, before);
}

#[tokio::test]
async fn an_order_without_a_driver_goes_with_the_first_who_comes_on_shift() {
    let it = Delivery::start(AT_ONCE).await;
    it.ready(&order(1)).await;
    assert_eq!((it.story(&order(1)).await, it.left().await), (vec!["requested".into(), "order_ready".into()], (1, 0)));
    assert_eq!(it.shift("dora", true).await["sequence"], 1);
    it.until(async || it.story(&order(1)).await.len() == 4).await;
    it.hears_itself().await;
    assert_eq!(it.story(&order(1)).await, WHOLE);
}

#[tokio::test]
async fn a_freed_driver_takes_the_order_that_has_waited_longest() {
    let it = Delivery::start(Riding::Manual).await;
    it.shift("dora", true).await;
    // The first was placed before the others, and was ready after them.
    it.hears(&placed(&order(1))).await;
    for number in [3, 2] {
        it.ready(&order(number)).await;
    }
    it.hears(&packed(&order(1))).await;
    for number in [3, 2, 1] {
        assert_eq!(it.riding().await, BTreeMap::from([("dora".into(), order(number))]));
        it.delivers(&order(number)).await;
    }
    assert_eq!(it.left().await, (0, 1));
}

#[tokio::test]
async fn a_shift_that_ends_during_a_ride_is_stored_at_once_and_the_ride_is_finished() {
    let it = Delivery::start(Riding::Manual).await;
    it.shift("dora", true).await;
    it.ready(&order(1)).await;
    it.ready(&order(2)).await;
    assert_eq!(it.shift("dora", false).await, json!({"driver_id": "dora", "on_shift": false, "sequence": 3}));
    assert_eq!(it.shift("dora", false).await["sequence"], 3, "told again changes nothing");
    it.delivers(&order(1)).await;
    let mut story = vec!["driver_on_shift", "driver_engaged", "driver_off_shift", "driver_released"];
    it.until(async || it.story("dora").await == story).await;
    assert_eq!((it.story(&order(1)).await, it.left().await), (WHOLE.map(String::from).to_vec(), (1, 0)));
    it.shift("dora", true).await;
    story.extend(["driver_on_shift", "driver_engaged"]);
    it.until(async || it.story("dora").await == story).await;
    assert_eq!(it.riding().await, BTreeMap::from([("dora".into(), order(2))]));
}

#[tokio::test]
async fn a_shift_that_ends_during_a_simulated_ride_is_seen_at_its_end() {
    let it = Delivery::start(Riding::Takes(Duration::from_millis(200))).await;
    it.shift("dora", true).await;
    it.ready(&order(1)).await;
    let out = it.published().await.into_iter().find(|event| event.event_type.contains("out_for_delivery")).unwrap();
    let rides = serde_json::to_value(&out.original).unwrap();
    let shift_ends = async {
        it.until(async || it.attempts(&out.id).await == Some(1)).await;
        it.shift("dora", false).await;
    };
    tokio::join!(it.hears(&rides), shift_ends);
    assert_eq!(it.story("dora").await, ["driver_on_shift", "driver_engaged", "driver_off_shift", "driver_released"]);
    assert_eq!(it.story(&order(1)).await, WHOLE);
    assert_eq!(it.left().await, (0, 0));
}

#[tokio::test]
async fn a_tick_past_the_deadline_fails_what_still_waits() {
    let it = Delivery::start(AT_ONCE).await;
    for number in 1..=120 {
        it.ready(&order(number)).await;
    }
    it.hears(&placed(&order(121))).await;
    it.ticks(PATIENCE - SignedDuration::from_secs(20)).await;
    assert_eq!(it.left().await, (120, 0), "it is not time yet");
    it.ticks(PATIENCE + SignedDuration::from_secs(1)).await;
    assert_eq!(it.left().await, (0, 0));
    for number in 1..=120 {
        assert_eq!(it.story(&order(number)).await, ["requested", "order_ready", "failed"]);
    }
    it.ticks(PATIENCE + SignedDuration::from_secs(2)).await;
    assert_eq!(it.story(&order(121)).await, ["requested"], "where no food is ready nobody is late");
    it.shift("dora", true).await;
    it.hears(&packed(&order(121))).await;
    it.hears_itself().await;
    assert_eq!(it.story(&order(121)).await, WHOLE);
    assert_eq!(it.left().await, (0, 1));
    let failed = it.post(&format!("/deliveries/{}/deliver", order(1))).await;
    assert_eq!((failed.0, failed.1["title"].as_str()), (409, Some("Conflict")));
}

#[tokio::test]
async fn who_waits_is_not_late_because_somebody_elses_clock_is_ahead() {
    let it = Delivery::start(AT_ONCE).await;
    it.ready(&order(1)).await;
    it.hears(&tick(PATIENCE + SignedDuration::from_hours(1))).await;
    assert_eq!(it.left().await, (1, 0));
    assert_eq!(it.story(&order(1)).await, ["requested", "order_ready"]);
}

#[tokio::test]
async fn a_tick_with_a_free_driver_matches_before_it_fails_anything() {
    let it = Delivery::start(AT_ONCE).await;
    it.ready(&order(1)).await;
    it.ready(&order(2)).await;
    it.comes_on_shift_and_dies_before_matching("dora").await;
    assert_eq!(it.left().await, (2, 1));
    it.ticks(PATIENCE + SignedDuration::from_secs(1)).await;
    assert_eq!(it.story(&order(1)).await, WHOLE[..4]);
    assert_eq!(it.story(&order(2)).await, ["requested", "order_ready", "failed"]);
}

#[tokio::test]
async fn in_manual_mode_a_person_ends_the_ride() {
    let it = Delivery::start(Riding::Manual).await;
    let path = format!("/deliveries/{}/deliver", order(1));
    assert_eq!(it.post(&path).await.0, 404);
    assert_eq!(it.post("/deliveries/dora/deliver").await.0, 404);
    it.ready(&order(1)).await;
    let (status, problem) = it.post(&path).await;
    assert_eq!((status, problem["detail"].as_str()), (409, Some("no driver is on the way with this delivery yet")));
    it.shift("dora", true).await;
    it.hears_itself().await;
    assert_eq!(it.riding().await.len(), 1, "nobody rides by itself");
    for _ in 0..2 {
        assert_eq!(it.post(&path).await, (200, json!({"order_id": order(1), "status": "delivered"})));
    }
    it.until(async || it.story("dora").await.len() == 3).await;
    let released = it.published().await.into_iter().find(|event| event.event_type.contains("released")).unwrap();
    assert_eq!(released.correlation_id, order(1));
}

#[tokio::test]
async fn a_driver_who_cannot_be_is_refused_with_the_reason_and_leaves_no_trace() {
    let it = Delivery::start(AT_ONCE).await;
    let long = "d".repeat(65);
    for id in ["Dora", "-dora", "d%20ra", &long, &order(1)] {
        let (status, problem) = it.put(&format!("/drivers/{id}"), &json!({"on_shift": true})).await;
        assert_eq!((status, problem["errors"][0]["field"].as_str()), (422, Some("id")), "{id}");
    }
    let (status, problem) = it.put("/drivers/dora", &json!({"on_shift": "yes"})).await;
    assert_eq!((status, problem["errors"][0]["field"].as_str()), (422, Some("on_shift")));
    assert_eq!(it.count("SELECT COUNT(*) FROM events").await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_instances_share_drivers_and_orders_without_doubles_and_without_leftovers() {
    for database_url in databases().await {
        let it = Delivery::on(database_url, Riding::Manual, 2).await;
        let (orders, drivers) = (90, 3);
        let work = (1..=orders).map(|number| {
            let it = it.clone();
            tokio::spawn(async move { it.ready(&order(number)).await })
        });
        let shifts = (0..drivers).map(|number| {
            let it = it.clone();
            tokio::spawn(async move { drop(it.shift(&format!("driver-{number}"), true).await) })
        });
        join_all(work.chain(shifts)).await.into_iter().for_each(Result::unwrap);

        let mut delivered = HashSet::new();
        while delivered.len() < orders {
            let riding = it.riding().await;
            let expected = drivers.min(orders - delivered.len());
            assert_eq!(riding.len(), expected, "everybody who can ride rides");
            assert_eq!(it.left().await, ((orders - delivered.len() - expected) as i64, (drivers - expected) as i64));
            let rides = riding.into_values().map(|order| {
                assert!(delivered.insert(order.clone()), "two drivers had {order}");
                let it = it.clone();
                tokio::spawn(async move { it.delivers(&order).await })
            });
            join_all(rides.collect::<Vec<_>>()).await.into_iter().for_each(Result::unwrap);
        }
        it.until(async || it.published().await.len() == 5 * orders + drivers + 2 * orders).await;
        for number in 0..drivers {
            let story = it.story(&format!("driver-{number}")).await;
            let rides = story[1..].chunks(2).filter(|ride| *ride == ["driver_engaged", "driver_released"]).count();
            assert_eq!(1 + 2 * rides, story.len(), "one ride after the other: {story:?}");
        }
    }
}

#[test]
fn riding_is_a_span_of_time_or_manual() {
    assert_eq!("manual".parse(), Ok(Riding::Manual));
    assert_eq!("2s".parse(), Ok(Riding::Takes(Duration::from_secs(2))));
    assert!("soon".parse::<Riding>().unwrap_err().contains("soon"));
}

const PATIENCE: SignedDuration = SignedDuration::from_secs(60);

/// A delivery service of one or more instances, and its log.
#[derive(Clone)]
struct Delivery {
    instances: Vec<Router>,
    log: Arc<EmbeddedLog>,
    database: Database,
    _folder: Arc<tempfile::TempDir>,
}

/// A database of its own on every server there is; an empty URL stands for a SQLite file.
async fn databases() -> Vec<String> {
    let Ok(server) = std::env::var("POSTGRES_URL") else {
        assert!(std::env::var("RAINSTORM_REQUIRE_SERVERS").is_err(), "POSTGRES_URL is not set");
        let _ = writeln!(std::io::stderr(), "SKIPPED on PostgreSQL: POSTGRES_URL is not set");
        return vec![String::new()];
    };
    let name = format!("d{}", uuid::Uuid::now_v7().simple());
    let mut connection = sqlx::PgConnection::connect(&server).await.unwrap();
    let create = sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}"));
    sqlx::raw_sql(create).execute(&mut connection).await.unwrap();
    vec![String::new(), format!("{}/{name}", server.rsplit_once('/').unwrap().0)]
}

impl Delivery {
    async fn start(riding: Riding) -> Self {
        Self::on(String::new(), riding, 1).await
    }

    async fn on(database_url: String, riding: Riding, instances: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let log = Arc::new(EmbeddedLog::open(&folder.path().join("log.db"), 4).await.unwrap());
        log.create_topics(&[SERVICE.topic]).await.unwrap();
        let file = format!("sqlite:{}", folder.path().join("delivery.db").display());
        let database_url = if database_url.is_empty() { file } else { database_url };
        let platform = Platform::new(log.clone(), database_url);
        let settings = Settings { riding, delivery_patience: PATIENCE.unsigned_abs() };
        let start = || async {
            let service = delivery::service(settings.clone(), platform.clone()).await.unwrap();
            runtime::service::router(vec![service])
        };
        let instances = join_all((0..instances).map(|_| start())).await;
        let database = platform.database(&[&MIGRATIONS]).await.unwrap();
        Self { instances, log, database, _folder: Arc::new(folder) }
    }

    /// Begins or ends a shift.
    async fn shift(&self, driver: &str, on_shift: bool) -> Value {
        let (status, said) = self.put(&format!("/drivers/{driver}"), &json!({"on_shift": on_shift})).await;
        assert_eq!(status, 200, "{said}");
        said
    }

    /// Tells both facts of an order.
    async fn ready(&self, order: &str) {
        self.hears(&placed(order)).await;
        self.hears(&packed(order)).await;
    }

    async fn delivers(&self, order: &str) {
        let (status, said) = self.post(&format!("/deliveries/{order}/deliver")).await;
        assert_eq!(status, 200, "{said}");
    }

    /// What an instance leaves behind that is killed between its commit and its matching.
    async fn comes_on_shift_and_dies_before_matching(&self, driver: &str) {
        let mut stream = Stream::resume(driver.to_owned(), 0, Driver::default());
        let mut unit = Unit::default();
        let cause = Cause::command(None, TraceContext::new());
        stream.execute(DriverCommand::GoOnShift, &cause, Timestamp::now(), &mut unit).unwrap();
        let row = "INSERT INTO drivers (driver_id, version, free, state) VALUES ($1, 1, 1, $2)";
        unit.projections = vec![Statement::new(row, [driver.into(), r#"{"state":"free"}"#.into()])];
        Store::new(self.database.clone()).commit(unit).await.unwrap();
    }

    /// Time passes, so much later, for this whole thread.
    async fn ticks(&self, later: SignedDuration) {
        simulate(Some(Rc::new(Later(later))));
        self.hears(&tick(SignedDuration::ZERO)).await;
        simulate(None);
    }

    /// Knocks at a door until the event is taken, as a bridge does.
    async fn hears(&self, event: &Value) {
        let knock = async {
            loop {
                let request = Request::post("/events").header("content-type", "application/cloudevents+json");
                let (status, problem) = self.send(request.body(Body::from(event.to_string())).unwrap()).await;
                assert!(matches!(status, 204 | 503), "{problem}");
                if status == 204 {
                    return;
                }
            }
        };
        assert!(tokio::time::timeout(Duration::from_secs(20), knock).await.is_ok(), "never taken: {event}");
        assert_eq!(self.count("SELECT COUNT(*) FROM dead_letters").await, 0, "a dead letter: {event}");
    }

    /// Tells the service its own events, until it says nothing new.
    async fn hears_itself(&self) {
        let mut told = HashSet::new();
        loop {
            let new: Vec<_> =
                self.published().await.into_iter().filter(|event| told.insert(event.id.clone())).collect();
            if new.is_empty() {
                return;
            }
            for event in new {
                self.hears(&serde_json::to_value(&event.original).unwrap()).await;
            }
        }
    }

    /// The first occurrence of everything on the topic; each stream is in order.
    async fn published(&self) -> Vec<Incoming> {
        let mut events = Vec::new();
        let mut seen = HashSet::new();
        for (partition, low, _) in self.log.watermarks(SERVICE.topic).await.unwrap() {
            for stored in self.log.read(&partition, low, 10_000).await.unwrap() {
                let event = Incoming::read(from_record(&stored.record).unwrap()).unwrap();
                if seen.insert(event.id.clone()) {
                    events.push(event);
                }
            }
        }
        events
    }

    /// What was published of a stream, in short names.
    async fn story(&self, stream: &str) -> Vec<String> {
        let events: Vec<_> = self.published().await.into_iter().filter(|event| event.subject == stream).collect();
        let sequences: Vec<_> = events.iter().filter_map(|event| event.sequence).collect();
        assert_eq!(sequences, (1..=events.len() as i64).collect::<Vec<_>>(), "the stream is in order");
        events.into_iter().map(|event| event.event_type.split('.').nth(3).unwrap().to_owned()).collect()
    }

    /// How many orders wait, and how many drivers are free.
    async fn left(&self) -> (i64, i64) {
        let free = self.count("SELECT COUNT(*) FROM drivers WHERE free = 1").await;
        (self.count("SELECT COUNT(*) FROM waiting").await, free)
    }

    async fn count(&self, sql: &'static str) -> i64 {
        self.database.fetch(sql, []).await.unwrap()[0].int(0).unwrap()
    }

    /// Who rides with which order, as the drivers' own streams say.
    async fn riding(&self) -> BTreeMap<String, String> {
        let rows = self.database.fetch("SELECT driver_id FROM drivers", []).await.unwrap();
        let store = Store::new(self.database.clone());
        let mut riding = BTreeMap::new();
        for driver in rows.iter().map(|row| row.text(0).unwrap()) {
            let stream = store.load::<Driver>(&driver).await.unwrap();
            riding.extend(stream.state.riding().map(|order| (driver, order.to_owned())));
        }
        riding
    }

    async fn attempts(&self, event: &str) -> Option<i64> {
        let rows = self.database.fetch("SELECT attempts FROM inbox WHERE id = $1", [event.into()]).await.unwrap();
        rows.first().map(|row| row.int(0).unwrap())
    }

    async fn post(&self, path: &str) -> (u16, Value) {
        self.send(Request::post(path).body(Body::empty()).unwrap()).await
    }

    async fn put(&self, path: &str, body: &Value) -> (u16, Value) {
        let request = Request::put(path).header("content-type", "application/json");
        self.send(request.body(Body::from(body.to_string())).unwrap()).await
    }

    /// Asks some instance.
    async fn send(&self, request: Request<Body>) -> (u16, Value) {
        let some = uuid::Uuid::new_v4().as_u128() as usize % self.instances.len();
        let response = self.instances[some].clone().oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&body).unwrap_or_default())
    }

    #[track_caller]
    fn until(&self, condition: impl AsyncFn() -> bool) -> impl Future<Output = ()> {
        let caller = std::panic::Location::caller();
        async move {
            let met = tokio::time::timeout(Duration::from_secs(20), async {
                while !condition().await {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            });
            assert!(met.await.is_ok(), "waited in vain at {caller}");
        }
    }
}

fn order(number: usize) -> String {
    format!("019a0000-0000-7000-8000-{number:012x}")
}

fn trace_id(event: &Incoming) -> String {
    event.trace.traceparent()[..36].to_owned()
}

fn placed(order: &str) -> Value {
    let address = json!({"street": "1 Rain Road", "city": "Cloudville", "postal_code": "12345"});
    event("/orders", "order.placed", order, json!({"kitchen_id": "casa", "address": address}))
}

fn packed(order: &str) -> Value {
    event("/kitchen", "kitchen.order_packed", order, json!({"kitchen_id": "casa"}))
}

/// An event as a bridge brings it.
fn event(source: &str, name: &str, order: &str, data: Value) -> Value {
    json!({
        "specversion": "1.0", "id": format!("{name}-{order}"), "source": source,
        "type": format!("dev.rainstorm.{name}.v1"), "subject": order, "correlationid": order,
        "traceparent": TraceContext::new().traceparent(), "datacontenttype": "application/json", "data": data,
    })
}

/// Time passes, says somebody whose clock is this far ahead.
fn tick(ahead: SignedDuration) -> Value {
    let now = Timestamp::now() + ahead;
    let id = uuid::Uuid::new_v4();
    json!({"specversion": "1.0", "id": id, "source": "/timer", "type": "dev.knative.sources.ping", "time": now})
}

/// The world outside, this much later.
struct Later(SignedDuration);

impl Ambient for Later {
    fn now(&self) -> Timestamp {
        Timestamp::now() + self.0
    }

    fn random(&self) -> u128 {
        uuid::Uuid::new_v4().as_u128()
    }

    fn database(&self, _: &str) -> Option<Database> {
        None
    }
}
