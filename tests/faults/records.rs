//! What others may write to the topics: records that are no events, or none of ours, and everything once more.

use std::time::Duration;

use end_to_end::{PATIENCE, kafka_client, until};
use rdkafka::{
    Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    message::{Header, OwnedHeaders},
    producer::{FutureProducer, FutureRecord},
};

use crate::ground::{ALONE, Ground, Plan};

const TOPICS: [&str; 4] = ["orders", "payments", "kitchen", "deliveries"];
/// Who hears how many of them.
const HEARD: [(&str, i64); 5] = [("order", 3), ("payment", 1), ("kitchen", 3), ("delivery", 3), ("query", 4)];
/// An event of each topic, by the name that the query service understands.
const TYPES: [(&str, &str); 4] = [
    ("orders", "order.placed"),
    ("payments", "payment.confirmed"),
    ("kitchen", "kitchen.ticket_created"),
    ("deliveries", "delivery.requested"),
];

fn producer() -> FutureProducer {
    let mut client = kafka_client();
    client.set("message.max.bytes", "2000000").set("enable.idempotence", "true").create().expect("a producer")
}

/// 1 MB, nothing at all, garbage, and events that lack an attribute: each becomes a dead letter of everybody who hears
/// its topic. An event of the next version becomes one of everybody whom it concerns; one of another name, however
/// large, concerns nobody.
pub async fn records_that_nobody_can_handle_hurt_nobody(plan: Plan) {
    let mut ground = Ground::prepare(plan, ALONE, &[]).await;
    ground.dead_letters = true;
    ground.rain().await;
    let producer = producer();
    let megabyte = "x".repeat(1_000_000);
    for (topic, name) in TYPES {
        ground.moment(100..800).await;
        let (v1, v2) = (format!("dev.rainstorm.{name}.v1"), format!("dev.rainstorm.{name}.v2"));
        let other = format!(r#"{{"note":"{}"}}"#, "x".repeat(900_000));
        for (key, headers, value) in [
            (None, vec![], megabyte.as_str()),
            (None, vec![], ""),
            (Some("garbage"), vec![("ce_specversion", "9"), ("content-type", "\u{1}")], "{\"half\": "),
            (Some("no-id"), vec![("ce_type", &v1), ("ce_source", "/rogue"), ("ce_subject", "no-id")], "{}"),
            (Some("no-source"), vec![("ce_type", &v1), ("ce_id", "1"), ("ce_subject", "no-source")], "{}"),
            (Some("v2"), vec![("ce_type", &v2), ("ce_id", name), ("ce_source", "/rogue"), ("ce_subject", name)], "{}"),
            (Some("no-subject"), vec![("ce_type", &v1), ("ce_id", name), ("ce_source", "/rogue/2")], "{}"),
            (Some("large"), vec![("ce_type", "dev.example.v1"), ("ce_id", "1"), ("ce_source", "/rogue")], &other),
        ] {
            let version = headers.iter().all(|(name, _)| *name != "ce_specversion") && !headers.is_empty();
            let headers = version.then_some(("ce_specversion", "1.0")).into_iter().chain(headers);
            let headers = headers.fold(OwnedHeaders::new(), |all, (key, value): (&str, &str)| {
                all.insert(Header { key, value: Some(value) })
            });
            let mut record = FutureRecord::<str, str>::to(topic).payload(value).headers(headers);
            record.key = key;
            producer.send(record, PATIENCE).await.expect("it is written");
        }
    }
    for (service, topics) in HEARD {
        let no_events = "SELECT COUNT(*) FROM dead_letters WHERE event LIKE '%\"dev.knative.kafka.event\"%'";
        until("a letter for every record that is no event", || async {
            (ground.world.number(service, no_events).await == 5 * topics).then_some(())
        })
        .await;
    }
    for what in ["of this event is not understood", "no subject"] {
        let sql = format!("SELECT COUNT(*) FROM dead_letters WHERE reason LIKE '%{what}%'");
        until("a letter of each topic that query can't read", || async {
            (ground.world.number("query", &sql).await == 4).then_some(())
        })
        .await;
    }
    ground.is_over();
    ground.prove().await;
}

/// A rogue publisher repeats the whole log.
pub async fn everything_is_told_twice(plan: Plan) {
    let mut ground = Ground::prepare(plan, ALONE, &[]).await;
    ground.rain().await;
    ground.moment(3000..5000).await;
    let repeated = repeat_everything().await;
    assert!(repeated > 100, "{repeated}");
    ground.is_over();
    ground.prove().await;
}

/// Appends every record once more, to its own partition; how many.
async fn repeat_everything() -> usize {
    let (consumer, ends) = at_the_beginning();
    let producer = producer();
    let mut repeated = 0;
    for (topic, partition, end) in ends {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, partition, Offset::Beginning).expect("it may begin there");
        consumer.assign(&list).expect("it can be read");
        let mut next = 0;
        while next < end {
            // It also returns for its own affairs, with nothing.
            let Some(message) = consumer.poll(Duration::from_secs(1)) else { continue };
            let message = message.expect("it reads");
            let mut record = FutureRecord::<[u8], [u8]>::to(topic).partition(partition);
            (record.key, record.payload) = (message.key(), message.payload());
            record.headers = message.headers().map(|headers| headers.detach());
            producer.send(record, PATIENCE).await.expect("it is written");
            next = message.offset() + 1;
            repeated += 1;
        }
    }
    repeated
}

/// Every partition with the offset at which it ends now.
fn at_the_beginning() -> (BaseConsumer, Vec<(&'static str, i32, i64)>) {
    let consumer: BaseConsumer = kafka_client().set("group.id", "rogue").create().expect("a consumer");
    let mut ends = Vec::new();
    for topic in TOPICS {
        let metadata = consumer.fetch_metadata(Some(topic), Duration::from_secs(10)).expect("Kafka answers");
        for partition in metadata.topics()[0].partitions() {
            let (_, end) = consumer.fetch_watermarks(topic, partition.id(), Duration::from_secs(10)).expect("an end");
            ends.push((topic, partition.id(), end));
        }
    }
    (consumer, ends)
}
