//! The views on a real database, fed as the door feeds them, asked as people ask.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that can't go on fails")]

use std::{collections::HashMap, sync::Arc};

use axum::{Router, body::Body, http::Request};
use cloudevents::{Event, EventBuilder, EventBuilderV10};
use eventing::{Failure, Handled, Handler, Incoming, Platform, log::EmbeddedLog};
use http_body_util::BodyExt;
use proptest::prelude::*;
use query::{
    projection::Projection,
    views::{Applied, OrderView, View},
};
use serde_json::{Value, json};
use tower::ServiceExt;

const ORDER: &str = "019a0000-0000-7000-8000-000000000001";

fn event(source: &str, subject: &str, sequence: i64, name: &str, data: Value) -> Event {
    EventBuilderV10::new()
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
        .unwrap()
}

fn incoming(event: Event) -> Incoming {
    Incoming::read(event).unwrap()
}

/// The streams of one order that was delivered.
fn streams() -> [Vec<Incoming>; 4] {
    let money = json!({"amount": 950, "currency": "EUR"});
    let line = json!({"item_id": "soup", "name": "Soup", "quantity": 1, "unit_price": 950});
    let placed = json!({"customer_id": "ada", "kitchen_id": "luigis", "items": [line], "total": money});
    let of = |source: &str, events: Vec<(&str, Value)>| {
        let numbered = events.into_iter().zip(1..);
        numbered.map(|((name, data), sequence)| incoming(event(source, ORDER, sequence, name, data))).collect()
    };
    [
        of("/orders", vec![("order.placed", placed), ("order.completed", json!({}))]),
        of("/payments", vec![("payment.confirmed", json!({"amount": money}))]),
        of(
            "/kitchen",
            vec![
                ("kitchen.ticket_created", json!({})),
                ("kitchen.ticket_accepted", json!({})),
                ("kitchen.order_packed", json!({})),
            ],
        ),
        of(
            "/deliveries",
            vec![
                ("delivery.requested", json!({})),
                ("delivery.order_ready", json!({})),
                ("delivery.driver_assigned", json!({})),
                ("delivery.out_for_delivery", json!({})),
                ("delivery.delivered", json!({})),
            ],
        ),
    ]
}

fn fold(events: impl IntoIterator<Item = Incoming>) -> OrderView {
    let mut view = OrderView::default();
    for event in events {
        assert!(matches!(view.apply(&event), Applied::Changed | Applied::Repeated), "{event:?}");
    }
    view
}

proptest! {
    /// Events of different services overtake each other, and come twice; the view doesn't care.
    #[test]
    fn any_interleaving_with_repeats_gives_the_same_view(choices in prop::collection::vec((0..4_usize, any::<bool>()), 60)) {
        let streams = streams();
        let mut next = [0; 4];
        let mut told = Vec::new();
        for (stream, twice) in choices.into_iter().chain((0..4).flat_map(|stream| [(stream, true); 6])) {
            if let Some(event) = streams[stream].get(next[stream]) {
                told.push(event.clone());
                next[stream] += 1;
                if twice {
                    told.extend(told.first().cloned());
                }
            }
        }
        let view = fold(told);
        let expected = fold(streams.into_iter().flatten());
        prop_assert_eq!((view.status, view.captured, &view.sequences, &view.ended_at),
            (expected.status, expected.captured, &expected.sequences, &expected.ended_at));
    }
}

struct Setup {
    platform: Platform,
    router: Router,
    _folder: tempfile::TempDir,
}

async fn setup() -> Setup {
    let folder = tempfile::tempdir().unwrap();
    let log = EmbeddedLog::open(&folder.path().join("log"), 4).await.unwrap();
    let database_url = format!("sqlite:{}", folder.path().join("query.db").display());
    let platform = Platform::new(Arc::new(log), database_url);
    let service = query::service(query::Settings::default(), platform.clone()).await.unwrap();
    Setup { platform, router: runtime::service::router(vec![service]), _folder: folder }
}

impl Setup {
    async fn projection(&self) -> Projection {
        Projection::new(self.platform.database(&[&query::MIGRATIONS]).await.unwrap())
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        let response = self.router.clone().oneshot(Request::get(path).body(Body::empty()).unwrap()).await.unwrap();
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_orders_story_is_told_with_its_timeline_and_latencies() {
    let it = setup().await;
    let events: Vec<_> = streams().into_iter().flatten().collect();
    let outcomes = it.projection().await.handle(&events).await;
    assert!(outcomes.iter().all(|outcome| outcome == &Ok(Handled::Effect)), "{outcomes:?}");
    let (status, view) = it.get(&format!("/orders/{ORDER}")).await;
    assert_eq!((status, &view["status"], &view["sequence"]), (200, &json!("completed"), &json!(2)));
    assert_eq!(view["money"]["captured"], json!({"amount": 950, "currency": "EUR"}));
    let timeline = view["timeline"].as_array().unwrap();
    assert_eq!(timeline.len(), events.len());
    let placed = timeline.iter().find(|step| step["type"] == "dev.rainstorm.order.placed.v1").unwrap();
    let completed = timeline.iter().find(|step| step["type"] == "dev.rainstorm.order.completed.v1").unwrap();
    assert_eq!((&placed["latency_ms"], &completed["latency_ms"]), (&json!(0.0), &json!(4000.0)));
    // Told again, nothing changes.
    it.projection().await.handle(&events).await;
    assert_eq!(it.get(&format!("/orders/{ORDER}")).await.1, view);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_next_event_of_a_stream_is_applied_and_a_bad_one_stops_its_own_subject_only() {
    let it = setup().await;
    let [orders, _, kitchen, _] = streams();
    let other = "019a0000-0000-7000-8000-000000000002";
    let bad = incoming(event("/payments", other, 1, "payment.confirmed", json!({"amount": "much"})));
    let behind = incoming(event("/payments", other, 2, "payment.refunded", json!({})));
    let told = [orders[0].clone(), kitchen[1].clone(), bad, behind];
    let outcomes = it.projection().await.handle(&told).await;
    assert_eq!(outcomes[0], Ok(Handled::Effect));
    assert!(matches!(outcomes[1], Err(Failure::Retry(_))), "the kitchen's first is missing: {outcomes:?}");
    assert!(matches!(outcomes[2], Err(Failure::Never(_))), "{outcomes:?}");
    assert!(matches!(outcomes[3], Err(Failure::Retry(_))), "{outcomes:?}");
    assert_eq!(it.get(&format!("/orders/{ORDER}")).await.1["status"], "placed");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_instances_fold_the_same_order_and_lose_nothing() {
    let it = setup().await;
    let projections = [Arc::new(it.projection().await), Arc::new(it.projection().await)];
    let tasks = streams().into_iter().enumerate().map(|(number, stream)| {
        let projection = projections[number % 2].clone();
        tokio::spawn(async move {
            for event in stream {
                while projection.handle(std::slice::from_ref(&event)).await != [Ok(Handled::Effect)] {}
            }
        })
    });
    futures::future::join_all(tasks).await.into_iter().for_each(Result::unwrap);
    let view = it.get(&format!("/orders/{ORDER}")).await.1;
    assert_eq!((&view["status"], view["timeline"].as_array().unwrap().len()), (&json!("completed"), 11));
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_go_from_the_newest_order_to_the_oldest() {
    let it = setup().await;
    let [orders, ..] = streams();
    let many: Vec<_> = (1..=25)
        .map(|number| {
            let mut event = orders[0].clone();
            event.subject = format!("019a0000-0000-7000-8000-0000000000{number:02}");
            event
        })
        .collect();
    it.projection().await.handle(&many).await;
    let mut seen = Vec::new();
    let mut cursor = String::new();
    loop {
        let (status, page) = it.get(&format!("/orders?customer_id=ada&status=placed&limit=10{cursor}")).await;
        assert_eq!(status, 200);
        seen.extend(
            page["orders"].as_array().unwrap().iter().map(|order| order["order_id"].as_str().unwrap().to_owned()),
        );
        match page["cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    let mut expected: Vec<_> = many.iter().map(|event| event.subject.clone()).collect();
    expected.reverse();
    assert_eq!(seen, expected);
    assert_eq!(it.get("/orders?customer_id=eve").await.1["orders"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_questions_get_their_4xx() {
    let it = setup().await;
    let [orders, ..] = streams();
    it.projection().await.handle(&orders[..1]).await;
    let cases = HashMap::from([
        ("/orders?limit=0", 400),
        ("/orders?limit=501", 400),
        ("/orders?limit=many", 400),
        ("/orders?status=hungry", 400),
        ("/orders?cursor=nowhere", 400),
        ("/orders?customer_id=%00", 400),
        ("/orders/soup", 404),
        ("/orders/019a0000-0000-7000-8000-00000000ffff", 404),
        ("/kitchens/nobodys/board", 404),
        ("/kitchens/%00/board", 404),
    ]);
    for (path, expected) in cases {
        let (status, said) = it.get(path).await;
        assert_eq!((status, &said["status"]), (expected, &json!(expected)), "{path}: {said}");
    }
    assert_eq!(it.get(&format!("/orders/{ORDER}?at_least=0")).await.0, 400);
    assert_eq!(it.get(&format!("/orders/{ORDER}?at_least=1")).await.0, 200);
    assert_eq!(it.get(&format!("/orders/{ORDER}?at_least=2")).await.0, 412, "after five seconds");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_gets_an_order_back_goes_on_where_another_has_left_off() {
    let it = setup().await;
    let (first, second) = (it.projection().await, it.projection().await);
    let [.., deliveries] = streams();
    let applied = [Ok(Handled::Effect)];
    assert_eq!(first.handle(&deliveries[..1]).await, applied);
    assert_eq!(second.handle(&deliveries[1..2]).await, applied);
    assert_eq!(first.handle(&deliveries[2..3]).await, applied, "its memory of the order is old");
}
