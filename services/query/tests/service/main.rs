//! The query service: its folds, its views on a real database, fed as the door feeds them, asked as people ask. On SQLite
//! always, on PostgreSQL where `POSTGRES_URL` says so.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that can't go on fails")]

use std::{io::Write, sync::Arc};

use axum::{Router, body::Body, http::Request};
use cloudevents::{Event, EventBuilder, EventBuilderV10};
use eventing::{Handled, Handler, Incoming, Platform, log::EmbeddedLog};
use http_body_util::BodyExt;
use query::projection::Projection;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection};
use tower::ServiceExt;

mod folds;
mod http;
mod live;
mod projection;
mod rebuild;
mod stats;

const ORDER: &str = "019a0000-0000-7000-8000-000000000001";
const OTHER: &str = "019a0000-0000-7000-8000-000000000002";

/// An event of an order's story; the order's first one has caused it.
fn event(source: &str, subject: &str, sequence: i64, name: &str, data: Value) -> Incoming {
    let event: Event = EventBuilderV10::new()
        .id(format!("{source}-{subject}-{sequence}"))
        .source(source)
        .ty(format!("dev.rainstorm.{name}.v1"))
        .subject(subject)
        .time(format!("2026-11-24T09:00:{:02}Z", sequence * 4))
        .extension("sequence", format!("{sequence:020}"))
        .extension("correlationid", ORDER.to_owned())
        .extension("causationid", format!("/orders-{ORDER}-1"))
        .data("application/json", data)
        .build()
        .unwrap();
    Incoming::read(event).unwrap()
}

/// A whole stream, numbered from 1.
fn stream(source: &str, subject: &str, events: Vec<(&str, Value)>) -> Vec<Incoming> {
    let numbered = events.into_iter().zip(1..);
    numbered.map(|((name, data), sequence)| event(source, subject, sequence, name, data)).collect()
}

fn money() -> Value {
    json!({"amount": 950, "currency": "EUR"})
}

fn placed() -> (&'static str, Value) {
    let line = json!({"item_id": "soup", "name": "Soup", "quantity": 1, "unit_price": 950});
    let data = json!({"customer_id": "ada", "kitchen_id": "luigis", "items": [line], "total": money()});
    ("order.placed", data)
}

fn nothing(name: &str) -> (&str, Value) {
    (name, json!({}))
}

/// The streams of one order that was delivered: the order's, the payment's, the ticket's, the delivery's.
fn delivered() -> [Vec<Incoming>; 4] {
    let ticket = ["kitchen.ticket_created", "kitchen.ticket_accepted", "kitchen.order_packed"];
    let ride = [
        "delivery.requested",
        "delivery.order_ready",
        "delivery.driver_assigned",
        "delivery.out_for_delivery",
        "delivery.delivered",
    ];
    [
        stream("/orders", ORDER, vec![placed(), nothing("order.completed")]),
        stream("/payments", ORDER, vec![("payment.confirmed", json!({"amount": money()}))]),
        stream("/kitchen", ORDER, ticket.map(nothing).into()),
        stream("/deliveries", ORDER, ride.map(nothing).into()),
    ]
}

/// The streams of one order whose customer changed their mind in time.
fn cancelled() -> [Vec<Incoming>; 4] {
    let reason = json!({"reason": "customer_request"});
    let order = vec![placed(), nothing("order.cancellation_requested"), ("order.cancelled", reason.clone())];
    let paid = ("payment.confirmed", json!({"amount": money()}));
    let back = ("payment.refunded", json!({"amount": money()}));
    let ticket = vec![
        nothing("kitchen.payment_noted"),
        nothing("kitchen.ticket_accepted"),
        ("kitchen.ticket_cancelled", reason),
    ];
    [
        stream("/orders", ORDER, order),
        stream("/payments", ORDER, vec![paid, nothing("payment.refund_owed"), back]),
        stream("/kitchen", ORDER, ticket),
        stream("/deliveries", ORDER, vec![nothing("delivery.requested")]),
    ]
}

/// Placed orders with these numbers, told by nobody else yet.
fn orders(numbers: std::ops::RangeInclusive<i64>) -> Vec<Incoming> {
    let order = |number| {
        let (name, data) = placed();
        event("/orders", &format!("019a0000-0000-7000-8000-{number:012}"), 1, name, data)
    };
    numbers.map(order).collect()
}

/// The service on its database, and the means to start more instances of it.
struct Setup {
    platform: Platform,
    projection: Projection,
    router: Router,
    _folder: tempfile::TempDir,
}

async fn setup(database_url: Option<String>) -> Setup {
    let folder = tempfile::tempdir().unwrap();
    let log = EmbeddedLog::open(&folder.path().join("log"), 4).await.unwrap();
    let file = || format!("sqlite:{}", folder.path().join("query.db").display());
    let platform = Platform::new(Arc::new(log), database_url.unwrap_or_else(file));
    let service = query::service(query::Settings::default(), platform.clone()).await.unwrap();
    let router = runtime::service::router(vec![service]);
    Setup { projection: another(&platform).await, platform, router, _folder: folder }
}

async fn another(platform: &Platform) -> Projection {
    Projection::new(platform.database(&[&query::MIGRATIONS]).await.unwrap())
}

async fn postgres() -> Option<String> {
    let Ok(url) = std::env::var("POSTGRES_URL") else {
        assert!(std::env::var("RAINSTORM_REQUIRE_SERVERS").is_err(), "POSTGRES_URL is not set");
        let _ = writeln!(std::io::stderr(), "SKIPPED on PostgreSQL: POSTGRES_URL is not set");
        return None;
    };
    let name = format!("q{}", uuid::Uuid::now_v7().simple());
    let mut connection = sqlx::PgConnection::connect(&url).await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(format!("CREATE DATABASE {name}"))).execute(&mut connection).await.unwrap();
    Some(format!("{}/{name}", url.rsplit_once('/').unwrap().0))
}

/// Runs a case on every database there is.
async fn on_every_database(case: impl AsyncFn(Setup)) {
    case(setup(None).await).await;
    if let Some(postgres) = postgres().await {
        case(setup(Some(postgres)).await).await;
    }
}

impl Setup {
    async fn another(&self) -> Projection {
        another(&self.platform).await
    }

    /// Tells the events as one batch, and expects an effect of each.
    async fn tell(&self, events: &[Incoming]) {
        let outcomes = self.projection.handle(events).await;
        assert!(outcomes.iter().all(|outcome| outcome == &Ok(Handled::Effect)), "{outcomes:?}");
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        let response = self.router.clone().oneshot(Request::get(path).body(Body::empty()).unwrap()).await.unwrap();
        let status = response.status().as_u16();
        let json = if status < 400 { "application/json" } else { "application/problem+json" };
        assert_eq!(response.headers()["content-type"], json, "{path}");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&body).unwrap())
    }

    async fn order(&self) -> Value {
        let (status, order) = self.get(&format!("/orders/{ORDER}")).await;
        assert_eq!(status, 200, "{order}");
        order
    }
}
