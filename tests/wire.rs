//! What stands on the topics, read by somebody who knows nothing of this project: a plain Kafka client, and another
//! language's CloudEvents SDK (`RAINSTORM_PYTHON` names a Python that has `tests/foreign/requirements.txt`).

use std::{
    collections::HashMap,
    io::Write,
    path::Path,
    time::{Duration, Instant},
};

use end_to_end::{Way, World};
use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    message::Headers,
};
use serde_json::Value;

const TOPICS: [&str; 4] = ["orders", "payments", "kitchen", "deliveries"];

/// A world in which a few orders have come to their end.
async fn world_with_a_past(way: Way) -> World {
    let world = World::start(way, &[]).await;
    world.open_kitchen("luigis").await;
    world.drivers_on_shift(2).await;
    let mut orders = Vec::new();
    for token in ["tok_ok", "tok_declined", "tok_ok", "tok_flaky", "tok_ok"] {
        orders.push(world.place("luigis", token).await);
    }
    for order in &orders {
        world.order_when(order, "end", |view| !view["ended_at"].is_null()).await;
    }
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_kafka_client_finds_cloud_events_in_binary_mode_keyed_and_in_order() {
    let way = Way::KafkaAndPostgres(2);
    if !way.is_possible() {
        return;
    }
    let _world = world_with_a_past(way).await;
    let mut events = 0;
    for topic in TOPICS {
        let mut newest: HashMap<String, u64> = HashMap::new();
        let mut seen = std::collections::HashSet::new();
        for (headers, key, value) in tokio::task::spawn_blocking(move || read(topic)).await.expect("no panic") {
            let header = |name: &str| headers.get(name).unwrap_or_else(|| panic!("{topic}: no {name} in {headers:?}"));
            events += 1;
            assert_eq!(header("ce_specversion"), "1.0");
            assert_eq!(header("content-type"), "application/json");
            assert_eq!(header("ce_source").trim_start_matches('/'), topic);
            assert_eq!(&key, header("ce_subject"));
            assert_eq!(&key, header("ce_partitionkey"));
            assert!(header("ce_type").starts_with("dev.rainstorm.") && header("ce_type").ends_with(".v1"));
            assert!(header("ce_traceparent") == header("traceparent"));
            for required in ["ce_id", "ce_time", "ce_correlationid", "ce_causationid", "ce_dataschema"] {
                assert!(!header(required).is_empty(), "{required}");
            }
            let data: Value = serde_json::from_str(&value).expect("JSON");
            assert!(data.is_object());
            if seen.insert(header("ce_id").clone()) {
                let sequence = header("ce_sequence");
                assert_eq!(sequence.len(), 20, "sorts as text");
                let sequence: u64 = sequence.parse().expect("a number");
                assert_eq!(sequence, newest.get(&key).copied().unwrap_or(0) + 1, "{topic} {key}");
                newest.insert(key, sequence);
            }
        }
    }
    assert!(events > 40, "{events}");
}

type Raw = (HashMap<String, String>, String, String);

/// Everything on a topic, partition by partition.
fn read(topic: &str) -> Vec<Raw> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", std::env::var("KAFKA_BROKERS").expect("asked for by is_possible"));
    let consumer: BaseConsumer = config.set("group.id", "plain").create().expect("a client");
    let patience = Duration::from_secs(30);
    let metadata = consumer.fetch_metadata(Some(topic), patience).expect("Kafka answers");
    let (mut all, mut left) = (Vec::new(), 0);
    let mut list = TopicPartitionList::new();
    for partition in metadata.topics()[0].partitions() {
        let (low, high) = consumer.fetch_watermarks(topic, partition.id(), patience).expect("watermarks");
        left += high - low;
        list.add_partition_offset(topic, partition.id(), Offset::Offset(low)).expect("a partition");
    }
    consumer.assign(&list).expect("assigned");
    let mut newest = Instant::now();
    while left > 0 {
        // The client also returns for its own affairs, with nothing.
        let Some(message) = consumer.poll(Duration::from_secs(1)) else {
            assert!(newest.elapsed() < patience, "no record of {topic} in {patience:?}");
            continue;
        };
        let message = message.expect("a record");
        (left, newest) = (left - 1, Instant::now());
        let headers = message.headers().expect("headers").iter().map(|header| {
            let value = std::str::from_utf8(header.value.expect("a value")).expect("UTF-8");
            (header.key.to_owned(), value.to_owned())
        });
        let text = |bytes: Option<&[u8]>| String::from_utf8(bytes.expect("it is there").to_vec()).expect("UTF-8");
        all.push((headers.collect(), text(message.key()), text(message.payload())));
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn another_languages_sdk_parses_every_event() {
    let way = Way::KafkaAndPostgres(1);
    if !way.is_possible() {
        return;
    }
    let Ok(python) = std::env::var("RAINSTORM_PYTHON") else {
        assert!(std::env::var("RAINSTORM_REQUIRE_SERVERS").is_err(), "RAINSTORM_PYTHON is missing");
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED: RAINSTORM_PYTHON names no Python with tests/foreign/requirements.txt"
        );
        return;
    };
    let _world = world_with_a_past(way).await;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("foreign/read_topics.py");
    let brokers = std::env::var("KAFKA_BROKERS").expect("asked for by is_possible");
    let output = tokio::process::Command::new(python).arg(script).arg(brokers).args(TOPICS).output().await;
    let output = output.expect("Python starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let events: Vec<Value> =
        String::from_utf8_lossy(&output.stdout).lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert!(events.len() > 40, "{}", events.len());
    for event in events {
        assert_eq!((&event["binary"], &event["key"]), (&Value::Bool(true), &event["subject"]), "{event}");
        assert!(event["data"].is_object() && event["time"].is_string(), "{event}");
        assert_eq!(event["source"].as_str().map(|source| source.trim_start_matches('/')), event["topic"].as_str());
    }
}
