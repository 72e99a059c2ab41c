//! Payment as the outside meets it: CloudEvents through its door, the provider's ledger behind it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that can't go on fails")]

use std::{sync::Arc, time::Duration};

use axum::{Router, body::Body, http::Request};
use event_sourcing::Database;
use eventing::{
    Incoming, Platform, from_record,
    log::{EmbeddedLog, EventLog},
};
use serde_json::{Value, json};
use tower::ServiceExt;

struct Setup {
    door: Router,
    ledger: Database,
    log: Arc<EmbeddedLog>,
    _folder: tempfile::TempDir,
}

async fn setup() -> Setup {
    let folder = tempfile::tempdir().unwrap();
    let log = Arc::new(EmbeddedLog::open(&folder.path().join("log"), 4).await.unwrap());
    log.create_topics(&["payments", "payment.dead-letters"]).await.unwrap();
    let database_url = format!("sqlite:{}", folder.path().join("payment.db").display());
    let platform = Platform::new(log.clone(), database_url);
    let settings = payment::Settings { provider_database_url: None, provider_timeout: Duration::from_millis(300) };
    let service = payment::service(settings, platform.clone()).await.unwrap();
    let migrations = [&payment::MIGRATIONS, &payment::provider::simulated::MIGRATIONS];
    let ledger = platform.database(&migrations).await.unwrap();
    Setup { door: runtime::service::router(vec![service]), ledger, log, _folder: folder }
}

const ORDER: &str = "019a0000-0000-7000-8000-000000000001";

fn event(id: &str, name: &str, data: Value) -> Value {
    json!({
        "specversion": "1.0", "id": id, "source": "/orders", "type": format!("dev.rainstorm.{name}.v1"),
        "subject": ORDER, "datacontenttype": "application/json", "data": data,
    })
}

fn placed(token: &str) -> Value {
    event("placed", "order.placed", json!({"total": {"amount": 950, "currency": "EUR"}, "payment_token": token}))
}

fn cancelled() -> Value {
    event("cancelled", "order.cancelled", json!({"reason": "customer_request"}))
}

impl Setup {
    async fn post(&self, request: Request<Body>) -> u16 {
        self.door.clone().oneshot(request).await.unwrap().status().as_u16()
    }

    async fn hears(&self, event: &Value) {
        let request = Request::post("/events").header("content-type", "application/cloudevents+json");
        assert_eq!(self.post(request.body(Body::from(event.to_string())).unwrap()).await, 204);
    }

    async fn tick(&self) {
        let tick =
            json!({"specversion": "1.0", "id": uuid::Uuid::now_v7(), "source": "/ticks", "type": eventing::TICK});
        self.hears(&tick).await;
    }

    /// The provider's own books: `(kind, outcome)` of every entry.
    async fn ledger(&self) -> Vec<(String, String)> {
        let rows = self.ledger.fetch("SELECT kind, outcome FROM provider_ledger ORDER BY kind", []).await.unwrap();
        rows.iter().map(|row| (row.text(0).unwrap(), row.text(1).unwrap())).collect()
    }

    /// The short names of what was published, in order.
    async fn told(&self) -> Vec<String> {
        let mut events = Vec::new();
        for (partition, low, _) in self.log.watermarks("payments").await.unwrap() {
            for stored in self.log.read(&partition, low, 1000).await.unwrap() {
                events.push(Incoming::read(from_record(&stored.record).unwrap()).unwrap());
            }
        }
        events.sort_by_key(|event| event.sequence);
        let name = |event: &Incoming| event.event_type.trim_start_matches("dev.rainstorm.payment.").replace(".v1", "");
        events.iter().map(name).collect()
    }
}

fn entries<const N: usize>(entries: [(&str, &str); N]) -> Vec<(String, String)> {
    entries.map(|(kind, outcome)| (kind.to_owned(), outcome.to_owned())).into()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_told_in_binary_structured_and_batch_mode_is_charged_once() {
    let it = setup().await;
    let placed = placed("tok_ok");
    for _ in 0..3 {
        let binary = Request::post("/events")
            .header("ce-specversion", "1.0")
            .header("ce-id", "placed")
            .header("ce-source", "/orders")
            .header("ce-type", "dev.rainstorm.order.placed.v1")
            .header("ce-subject", ORDER)
            .header("content-type", "application/json")
            .body(Body::from(placed["data"].to_string()));
        assert_eq!(it.post(binary.unwrap()).await, 204);
        it.hears(&placed).await;
        let batch = Request::post("/events").header("content-type", "application/cloudevents-batch+json");
        assert_eq!(it.post(batch.body(Body::from(json!([placed, placed]).to_string())).unwrap()).await, 204);
    }
    assert_eq!(it.ledger().await, entries([("charge", "paid")]));
    assert_eq!(it.told().await, ["confirmed"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_order_told_under_another_id_is_not_charged_again() {
    let it = setup().await;
    it.hears(&placed("tok_ok")).await;
    let mut again = placed("tok_ok");
    again["id"] = json!("another");
    it.hears(&again).await;
    assert_eq!(it.ledger().await, entries([("charge", "paid")]));
    assert_eq!(it.told().await, ["confirmed"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flaky_card_is_asked_again_in_place_and_an_unknown_one_is_declined() {
    let it = setup().await;
    it.hears(&placed("tok_flaky")).await;
    assert_eq!((it.ledger().await, it.told().await), (entries([("charge", "paid")]), vec!["confirmed".to_owned()]));
    let it = setup().await;
    it.hears(&placed("tok_never_seen")).await;
    assert_eq!((it.ledger().await, it.told().await), (entries([("charge", "declined")]), vec!["declined".to_owned()]));
    it.hears(&cancelled()).await;
    assert_eq!(it.told().await, ["declined"], "there is nothing to give back");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_order_gets_its_money_back_once() {
    let it = setup().await;
    it.hears(&placed("tok_ok")).await;
    for _ in 0..3 {
        it.hears(&cancelled()).await;
    }
    assert_eq!(it.ledger().await, entries([("charge", "paid"), ("refund", "refunded")]));
    assert_eq!(it.told().await, ["confirmed", "refunded"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_provider_is_owed_and_asked_again_under_the_same_key_by_the_tick() {
    let it = setup().await;
    it.hears(&placed("tok_slow")).await;
    assert_eq!(it.told().await, ["charge_owed"]);
    until_ticks_bring(&it, "confirmed").await;
    assert_eq!(it.ledger().await, entries([("charge", "paid")]));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_cancelled_while_its_charge_is_owed_costs_nothing_in_the_end() {
    let it = setup().await;
    it.hears(&placed("tok_slow")).await;
    it.hears(&cancelled()).await;
    assert_eq!(it.told().await, ["charge_owed", "refund_owed"]);
    // The bank is still at it; the key is void before it has paid.
    until_ticks_bring(&it, "voided").await;
    // Long after the bank would have paid: the charge that was under way finds its key void.
    until(async || it.ledger().await == entries([("charge", "voided")])).await;
    tokio::time::timeout(Duration::from_secs(3), async {
        while it.ledger().await == entries([("charge", "voided")]) {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await
    .expect_err("a void key never pays");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_cancelled_before_it_is_known_is_never_charged() {
    let it = setup().await;
    it.hears(&cancelled()).await;
    it.hears(&placed("tok_ok")).await;
    assert_eq!((it.ledger().await, it.told().await), (vec![], vec!["voided".to_owned()]));
}

async fn until_ticks_bring(it: &Setup, name: &str) {
    until(async || {
        it.tick().await;
        it.told().await.last().is_some_and(|last| last == name)
    })
    .await;
}

async fn until(condition: impl AsyncFn() -> bool) {
    let wait = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), wait).await.expect("the condition is met in time");
}
