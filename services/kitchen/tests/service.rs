//! The kitchen as the outside meets it: through its door and its HTTP, on a real store and a real log.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that can't go on fails")]

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use axum::{Router, body::Body, http::Request};
use event_sourcing::{Store, StoreError, Work};
use eventing::{
    Incoming, Platform, Reactions, from_record,
    log::{EmbeddedLog, EventLog},
};
use http_body_util::BodyExt;
use kitchen::{Cooking, SERVICE, Settings, reactions::KitchenReactions};
use serde_json::{Value, json};
use tower::ServiceExt;

const AT_ONCE: Cooking = Cooking::Takes(Duration::from_millis(1));
const ORDER: &str = "019a0000-0000-7000-8000-000000000001";
const OTHER: &str = "019a0000-0000-7000-8000-000000000002";

#[tokio::test]
async fn order_and_payment_end_packed_whichever_comes_first() {
    for first_is_payment in [false, true] {
        let it = Kitchen::start(AT_ONCE).await;
        it.opens(true, true).await;
        let mut told = vec![placed(ORDER), confirmed(ORDER)];
        if first_is_payment {
            told.reverse();
        }
        for event in told {
            it.hears(&event).await;
        }
        it.hears_itself().await;
        let first = if first_is_payment { "payment_noted" } else { "" };
        let expected = [first, "ticket_created", "ticket_accepted", "order_packed"];
        assert_eq!(it.story(ORDER).await, expected.into_iter().filter(|name| !name.is_empty()).collect::<Vec<_>>());
        assert_eq!(it.post(&format!("/tickets/{ORDER}/pack")).await.0, 200, "once more changes nothing");
    }
}

#[tokio::test]
async fn every_event_delivered_twice_changes_nothing() {
    let it = Kitchen::start(AT_ONCE).await;
    it.opens(true, true).await;
    let told = [placed(ORDER), confirmed(ORDER), cancellation_requested(ORDER)];
    for event in &told[..2] {
        it.hears(event).await;
    }
    it.hears_itself().await;
    it.hears(&told[2]).await;
    let before = it.published().await;
    for event in told.iter().chain(&told) {
        it.hears(event).await;
    }
    for event in it.published().await.iter().chain(&before) {
        it.hears(&serde_json::to_value(&event.original).unwrap()).await;
    }
    let ids = |events: Vec<Incoming>| events.into_iter().map(|event| event.id).collect::<Vec<_>>();
    assert_eq!(ids(it.published().await), ids(before));
    // The same fact again, as another event.
    for mut event in told {
        event["id"] = json!(format!("{}-again", event["id"].as_str().unwrap()));
        it.hears(&event).await;
    }
    assert_eq!(it.story(ORDER).await.len(), 4);
}

#[tokio::test]
async fn an_order_cancelled_while_it_cooks_is_not_packed() {
    let it = Kitchen::start(Cooking::Takes(Duration::from_millis(300))).await;
    it.opens(true, true).await;
    it.hears(&placed(ORDER)).await;
    it.hears(&confirmed(ORDER)).await;
    let accepted = it.published().await.pop().unwrap();
    assert!(accepted.event_type.contains("ticket_accepted"));
    let cooks = serde_json::to_value(&accepted.original).unwrap();
    let cancelled = async {
        // The door counts the attempt before it hands the event on: from then on somebody cooks.
        it.until(async || it.attempts(&accepted.id).await == Some(1)).await;
        it.hears(&cancellation_requested(ORDER)).await;
    };
    tokio::join!(it.hears(&cooks), cancelled);
    assert_eq!(it.story(ORDER).await, ["ticket_created", "ticket_accepted", "ticket_cancelled"]);
    assert_eq!(it.attempts(&accepted.id).await, None, "it had no effect, so nothing of it is left");
}

#[tokio::test]
async fn a_cook_who_was_too_slow_to_notice_a_cancellation_cannot_pack() {
    let it = Kitchen::start(AT_ONCE).await;
    it.opens(true, true).await;
    it.hears(&placed(ORDER)).await;
    it.hears(&confirmed(ORDER)).await;
    let accepted = it.published().await.pop().unwrap();
    let (reactions, store) = (KitchenReactions { cooking: AT_ONCE }, Store::new(it.database.clone()));
    let nothing_read = HashMap::new();
    let mut work = Work::new(&store, accepted.cause(), &nothing_read);
    reactions.react(&accepted, &mut work).await.unwrap();
    it.hears(&cancellation_requested(ORDER)).await;
    let packed = work.finish();
    assert!(packed.events[0].event_type.contains("order_packed"));
    assert!(matches!(store.commit(packed).await, Err(StoreError::Conflict)));

    let mut work = Work::new(&store, accepted.cause(), &nothing_read);
    reactions.react(&accepted, &mut work).await.unwrap();
    assert!(work.finish().is_empty(), "it sees the cancellation, and does nothing");
}

#[tokio::test]
async fn once_packed_a_cancellation_is_refused() {
    let it = Kitchen::start(AT_ONCE).await;
    it.opens(true, true).await;
    it.hears(&placed(ORDER)).await;
    it.hears(&confirmed(ORDER)).await;
    it.hears_itself().await;
    it.hears(&cancellation_requested(ORDER)).await;
    let refused = ["ticket_created", "ticket_accepted", "order_packed", "cancellation_refused"];
    assert_eq!(it.story(ORDER).await, refused);
}

#[tokio::test]
async fn a_cancellation_or_a_decline_known_before_the_order_is_final() {
    let it = Kitchen::start(AT_ONCE).await;
    it.opens(true, true).await;
    for (order, early) in [(ORDER, cancellation_requested as fn(&str) -> Value), (OTHER, declined)] {
        it.hears(&early(order)).await;
        it.hears(&placed(order)).await;
        it.hears(&confirmed(order)).await;
        assert_eq!(it.story(order).await, ["ticket_cancelled"]);
    }
}

#[tokio::test]
async fn what_cannot_be_cooked_is_rejected_whichever_fact_comes_first() {
    for (open, available, reason) in [(false, true, "kitchen_closed"), (true, false, "sold_out")] {
        let it = Kitchen::start(AT_ONCE).await;
        it.opens(open, available).await;
        it.hears(&placed(ORDER)).await;
        it.hears(&confirmed(ORDER)).await;
        it.hears(&confirmed(OTHER)).await;
        it.hears(&placed(OTHER)).await;
        assert_eq!(it.story(ORDER).await, ["ticket_created", "ticket_rejected"]);
        assert_eq!(it.story(OTHER).await, ["payment_noted", "ticket_created", "ticket_rejected"]);
        let told = it.published().await;
        let rejected: Vec<_> = told.iter().filter(|event| event.event_type.contains("rejected")).collect();
        assert_eq!(rejected.len(), 2);
        let data = json!({"reason": reason}).to_string();
        assert!(rejected.iter().all(|event| event.data == data));
    }
}

#[tokio::test]
async fn in_manual_mode_a_person_packs() {
    let it = Kitchen::start(Cooking::Manual).await;
    it.opens(true, true).await;
    let pack = format!("/tickets/{ORDER}/pack");
    assert_eq!(it.post(&pack).await.0, 404);
    assert_eq!(it.post("/tickets/soup/pack").await.0, 404);
    it.hears(&placed(ORDER)).await;
    let (status, problem) = it.post(&pack).await;
    assert_eq!((status, problem["detail"].as_str()), (409, Some("the ticket is not paid for yet")));
    it.hears(&confirmed(ORDER)).await;
    it.hears_itself().await;
    assert_eq!(it.story(ORDER).await, ["ticket_created", "ticket_accepted"]);
    for _ in 0..2 {
        assert_eq!(it.post(&pack).await, (200, json!({"order_id": ORDER, "status": "packed"})));
    }
    it.until(async || it.story(ORDER).await.last().is_some_and(|last| last == "order_packed")).await;
    let packed = it.published().await.pop().unwrap();
    assert_eq!(packed.correlation_id, ORDER);
}

#[tokio::test]
async fn a_menu_is_published_and_told_again_changes_nothing() {
    let it = Kitchen::start(AT_ONCE).await;
    for _ in 0..2 {
        assert_eq!(
            it.put("/kitchens/casa", &menu(true, true)).await,
            (200, json!({"kitchen_id": "casa", "sequence": 1}))
        );
    }
    assert_eq!(it.put("/kitchens/casa", &menu(true, false)).await.1["sequence"], 2);
    it.until(async || it.published().await.len() == 2).await;
    let told = it.published().await;
    assert_eq!((told[1].subject.as_str(), told[1].correlation_id.as_str()), ("casa", "casa"));
    assert_eq!(serde_json::from_str::<Value>(&told[1].data).unwrap(), menu(true, false));
}

#[tokio::test]
async fn a_menu_that_cannot_be_accepted_is_answered_with_every_reason_and_leaves_no_trace() {
    let it = Kitchen::start(AT_ONCE).await;
    let dish = |id: &str, price: i64| json!({"item_id": id, "name": "x", "price": price, "available": true});
    let mut bad = json!({"name": "tab\there", "open": true, "currency": "eur", "menu": [
        dish("soup", -1), dish("soup", 100_000_001), dish("-x", 0), dish("fine", 100_000_000)]});
    bad["menu"][3]["name"] = "".into();
    let (status, problem) = it.put("/kitchens/Casa", &bad).await;
    let blamed = |problem: &Value| {
        let errors = problem["errors"].as_array().cloned().unwrap_or_default();
        errors.into_iter().map(|error| error["field"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(status, 422);
    let expected = ["id", "name", "currency", "menu[0].price", "menu[1].item_id", "menu[1].price", "menu[2].item_id"];
    assert_eq!(blamed(&problem), expected.into_iter().chain(["menu[3].name"]).collect::<Vec<_>>());

    let dishes: Vec<_> = (0..501).map(|number| dish(&format!("dish-{number}"), 1)).collect();
    let name = "n".repeat(201);
    let many = json!({"name": name, "open": true, "currency": "EUR", "menu": dishes});
    assert_eq!(blamed(&it.put("/kitchens/casa", &many).await.1), ["name", "menu"]);
    let (status, problem) = it.put(&format!("/kitchens/{ORDER}"), &menu(true, true)).await;
    assert_eq!((status, blamed(&problem)), (422, vec!["id".to_owned()]));
    let float = json!({"name": "a", "open": true, "currency": "EUR", "menu": [
        {"item_id": "soup", "name": "Soup", "price": 4.5, "available": true}]});
    assert_eq!(blamed(&it.put("/kitchens/casa", &float).await.1), ["menu[0].price"]);
    assert_eq!(it.count("SELECT COUNT(*) FROM events").await, 0);
}

#[test]
fn cooking_is_a_span_of_time_or_manual() {
    assert_eq!("manual".parse(), Ok(Cooking::Manual));
    assert_eq!("2s".parse(), Ok(Cooking::Takes(Duration::from_secs(2))));
    assert!("soon".parse::<Cooking>().unwrap_err().contains("soon"));
}

/// A kitchen service, its log, and everything it was told.
struct Kitchen {
    service: Router,
    log: Arc<EmbeddedLog>,
    database: event_sourcing::Database,
    _folder: tempfile::TempDir,
}

impl Kitchen {
    async fn start(cooking: Cooking) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let log = Arc::new(EmbeddedLog::open(&folder.path().join("log.db"), 4).await.unwrap());
        log.create_topics(&[SERVICE.topic]).await.unwrap();
        let database_url = format!("sqlite:{}", folder.path().join("kitchen.db").display());
        let platform = Platform::new(log.clone(), database_url);
        let service = kitchen::service(Settings { cooking }, platform.clone()).await.unwrap();
        let database = platform.database(&[]).await.unwrap();
        Self { service: runtime::service::router(vec![service]), log, database, _folder: folder }
    }

    /// Publishes the menu of the kitchen `casa`.
    async fn opens(&self, open: bool, available: bool) {
        assert_eq!(self.put("/kitchens/casa", &menu(open, available)).await.0, 200);
        self.until(async || !self.published().await.is_empty()).await;
    }

    /// Knocks at the door until the event is taken, as a bridge does.
    async fn hears(&self, event: &Value) {
        self.until(async || {
            let request = Request::post("/events").header("content-type", "application/cloudevents+json");
            let (status, problem) = self.send(request.body(Body::from(event.to_string())).unwrap()).await;
            assert!(matches!(status, 204 | 503), "{problem}");
            status == 204
        })
        .await;
        let letters = self.count("SELECT COUNT(*) FROM dead_letters").await;
        assert_eq!(letters, 0, "a dead letter: {event}");
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

    /// Everything on the topic, each stream in order.
    async fn published(&self) -> Vec<Incoming> {
        let mut events = Vec::new();
        for (partition, low, _) in self.log.watermarks(SERVICE.topic).await.unwrap() {
            for stored in self.log.read(&partition, low, 1000).await.unwrap() {
                events.push(Incoming::read(from_record(&stored.record).unwrap()).unwrap());
            }
        }
        events.sort_by(|a, b| a.id.cmp(&b.id));
        events
    }

    /// What was published of an order, in short names.
    async fn story(&self, order: &str) -> Vec<String> {
        let events = self.published().await.into_iter().filter(|event| event.subject == order);
        events.map(|event| event.event_type.split('.').nth(3).unwrap().to_owned()).collect()
    }

    async fn attempts(&self, event: &str) -> Option<i64> {
        let rows = self.database.fetch("SELECT attempts FROM inbox WHERE id = $1", [event.into()]).await.unwrap();
        rows.first().map(|row| row.int(0).unwrap())
    }

    async fn count(&self, sql: &'static str) -> i64 {
        self.database.fetch(sql, []).await.unwrap()[0].int(0).unwrap()
    }

    async fn post(&self, path: &str) -> (u16, Value) {
        self.send(Request::post(path).body(Body::empty()).unwrap()).await
    }

    async fn put(&self, path: &str, body: &Value) -> (u16, Value) {
        let request = Request::put(path).header("content-type", "application/json");
        self.send(request.body(Body::from(body.to_string())).unwrap()).await
    }

    async fn send(&self, request: Request<Body>) -> (u16, Value) {
        let response = self.service.clone().oneshot(request).await.unwrap();
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

fn menu(open: bool, available: bool) -> Value {
    let soup = json!({"item_id": "soup", "name": "Soup", "price": 450, "available": available});
    json!({"name": "Casa", "open": open, "currency": "EUR", "menu": [soup]})
}

fn placed(order: &str) -> Value {
    let items = json!([{"item_id": "soup", "name": "Soup", "quantity": 2, "unit_price": 450}]);
    event("/orders", "order.placed", order, json!({"kitchen_id": "casa", "items": items}))
}

fn cancellation_requested(order: &str) -> Value {
    event("/orders", "order.cancellation_requested", order, json!({}))
}

fn confirmed(order: &str) -> Value {
    event("/payments", "payment.confirmed", order, json!({"amount": {"amount": 900, "currency": "EUR"}}))
}

fn declined(order: &str) -> Value {
    event("/payments", "payment.declined", order, json!({"reason": "card_declined"}))
}

/// An event as a bridge brings it.
fn event(source: &str, name: &str, order: &str, data: Value) -> Value {
    json!({
        "specversion": "1.0", "id": format!("{name}-{order}"), "source": source,
        "type": format!("dev.rainstorm.{name}.v1"), "subject": order, "correlationid": order,
        "datacontenttype": "application/json", "data": data,
    })
}
