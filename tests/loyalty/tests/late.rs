//! A sixth service joins when all is over. It hears of history through its own door, as its manifest says, and gives the
//! points that the views would; its store, lost, is made again by the same code that makes any store again.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that can't go on fails")]

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
    sync::Arc,
};

use axum::{Router, body::Body, http::Request};
use end_to_end::{Way, World, until};
use event_sourcing::Database;
use eventing::{
    Platform,
    bridge::{Bridge, BridgeSettings, RouterSink, Sink},
    log::{EmbeddedLog, EventLog, KafkaLog, Lag},
    rebuild::{self, Replay, proof},
    sources::Sources,
};
use http_body_util::BodyExt;
use loyalty::{Settings, reactions::LoyaltyReplay};
use runtime::Stop;
use serde_json::Value;
use sqlx::Connection;
use tower::ServiceExt;

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_joins_late_hears_all_of_history_and_is_rebuilt_from_it_embedded() {
    it_joins_late(Way::Embedded(1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_joins_late_hears_all_of_history_and_is_rebuilt_from_it_on_kafka_and_postgres() {
    it_joins_late(Way::KafkaAndPostgres(1)).await;
}

async fn it_joins_late(way: Way) {
    if !way.is_possible() {
        return;
    }
    let mut world = World::start(way, &[]).await;
    let points = a_storm(&world).await;
    assert!(points.len() > 20, "{points:?}");
    world.kill().await;
    let log: Arc<dyn EventLog> = match way {
        Way::Embedded(_) => Arc::new(EmbeddedLog::open(&world.data().join("log.db"), 12).await.unwrap()),
        _ => Arc::new(KafkaLog::new(&std::env::var("KAFKA_BROKERS").unwrap(), 12, &HashMap::new()).unwrap()),
    };
    let [joined, rebuilt] = [database_url(&world, "loyalty").await, database_url(&world, "loyalty_again").await];

    let mut sources = Sources::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("knative")).unwrap();
    // The topics are new, so what the group remembers must be, too.
    for subscription in &mut sources.subscriptions {
        subscription.group = uuid::Uuid::now_v7().to_string();
    }
    let platform = Platform::new(log.clone(), joined.clone());
    let service = loyalty::service(Settings {}, platform).await.unwrap();
    let door: Arc<dyn Sink> = Arc::new(RouterSink(service.door()));
    let people = runtime::service::router(vec![service]);
    let stop = Stop::default();
    let sinks = HashMap::from([("loyalty".to_owned(), door)]);
    let bridge = Bridge::start(log.clone(), &sources, &sinks, &BridgeSettings::default(), &stop).await.unwrap();
    let subscription = &sources.subscriptions[0];
    until("loyalty to have heard all of history", || async {
        let lag = log.lag(&subscription.group, &subscription.topics).await.unwrap();
        (lag.iter().map(Lag::records).sum::<i64>() == 0).then_some(())
    })
    .await;
    stop.now();
    bridge.finish().await;
    for (customer, points) in &points {
        assert_eq!(points_of(&people, customer).await, *points, "{customer}");
    }

    let store = rebuild::open_empty(&LoyaltyReplay, &rebuilt).await.unwrap();
    let figures = rebuild::rebuild(&LoyaltyReplay, &log, &subscription.topics, &store, &()).await.unwrap();
    assert!(figures.events > points.len() as u64, "{figures:?}");
    let old = Database::connect(&joined).await.unwrap();
    let proof = proof::compare(LoyaltyReplay.projections(), &old, &store, &()).await.unwrap();
    assert!(proof.holds() && proof.tables[0].rows == figures.events && proof.tables[1].rows > 20, "{proof}");
}

/// Returns the points that each customer should have, as far as the views know.
async fn a_storm(world: &World) -> BTreeMap<String, i64> {
    world.seed(60).await;
    let mut storm = vec!["--seed", "13", "--calm", "10", "--calm-for", "1s"];
    storm.extend(["--peak", "50", "--storm-for", "3s", "--cancel", "0.1"]);
    world.storm(&storm).await;
    let (_, page) = world.get("query", "/orders?limit=500").await;
    let mut points = BTreeMap::new();
    for order in page["orders"].as_array().expect("orders") {
        let earned = match order["status"].as_str() {
            Some("completed") => order["total"]["amount"].as_i64().expect("an amount") / 100,
            _ => 0,
        };
        *points.entry(order["customer_id"].as_str().expect("a customer").to_owned()).or_insert(0) += earned;
    }
    points
}

async fn database_url(world: &World, name: &str) -> String {
    let url = world.database_url(name);
    if let Some((_, name)) = url.rsplit_once('/').filter(|_| url.starts_with("postgres")) {
        let mut connection = sqlx::PgConnection::connect(&std::env::var("POSTGRES_URL").unwrap()).await.unwrap();
        let sql = sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}"));
        sqlx::raw_sql(sql).execute(&mut connection).await.unwrap();
    }
    url
}

async fn points_of(people: &Router, customer: &str) -> i64 {
    let request = Request::get(format!("/customers/{customer}/points")).body(Body::empty()).unwrap();
    let response = people.clone().oneshot(request).await.unwrap();
    assert_eq!(response.status(), 200);
    let body = response.into_body().collect().await.unwrap().to_bytes();
    serde_json::from_slice::<Value>(&body).unwrap()["points"].as_i64().unwrap()
}
