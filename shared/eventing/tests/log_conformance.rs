//! What every event log must do, asked of each: the embedded one always, Kafka where `KAFKA_BROKERS` says so.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that can't go on fails")]

use std::{collections::HashMap, io::Write, sync::Arc, time::Duration};

use eventing::log::{Batch, EmbeddedLog, EventLog, KafkaLog, Lag, Member, Partition, Record, Scan, Stretch, Tail};
use tokio::time::timeout;

const PARTITIONS: i32 = 4;
const PATIENCE: Duration = Duration::from_secs(30);

/// Runs a case against every log there is; each under a topic and group of its own.
async fn every_log<F: Future<Output = ()>>(case: impl Fn(Arc<dyn EventLog>, String) -> F) {
    let name = format!("conformance-{}", uuid::Uuid::now_v7());
    let folder = tempfile::tempdir().unwrap();
    case(Arc::new(EmbeddedLog::open(&folder.path().join("log"), PARTITIONS).await.unwrap()), name.clone()).await;
    match std::env::var("KAFKA_BROKERS") {
        Ok(brokers) => case(Arc::new(KafkaLog::new(&brokers, PARTITIONS, &HashMap::new()).unwrap()), name).await,
        Err(_) => {
            assert!(std::env::var("RAINSTORM_REQUIRE_SERVERS").is_err(), "KAFKA_BROKERS is not set");
            let _ = writeln!(std::io::stderr(), "skipped on Kafka: KAFKA_BROKERS is not set");
        }
    }
}

fn record(key: &str, value: usize) -> Record {
    Record {
        key: Some(key.as_bytes().to_vec()),
        headers: vec![("ce_id".into(), value.to_string().into_bytes())],
        value: Some(value.to_string().into_bytes()),
    }
}

fn number(record: &Record) -> usize {
    std::str::from_utf8(record.value.as_ref().unwrap()).unwrap().parse().unwrap()
}

async fn topic_with(log: &dyn EventLog, topic: &str, keys: usize, each: usize) {
    log.create_topics(&[topic]).await.unwrap();
    let records = (0..keys * each).map(|place| record(&format!("key-{}", place % keys), place)).collect();
    log.append(topic, records).await.unwrap();
}

/// Takes and finishes batches until `count` records came.
async fn consume(member: &dyn Member, count: usize) -> Vec<(Partition, Record)> {
    let mut records = Vec::new();
    while records.len() < count {
        let batch = next(member).await;
        member.finished(&batch).await;
        records.extend(batch.records.into_iter().map(|stored| (batch.partition.clone(), stored.record)));
    }
    records
}

async fn next(member: &dyn Member) -> Batch {
    timeout(PATIENCE, member.next(7)).await.expect("records are there").unwrap()
}

async fn lag(log: &dyn EventLog, group: &str, topic: &str) -> i64 {
    log.lag(group, &[topic.to_owned()]).await.unwrap().iter().map(Lag::records).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn records_of_a_key_stand_in_one_partition_in_the_order_they_were_appended() {
    every_log(|log, topic| async move {
        topic_with(&*log, &topic, 10, 20).await;
        let marks = log.watermarks(&topic).await.unwrap();
        assert_eq!(marks.len(), usize::try_from(PARTITIONS).unwrap());
        let mut places: HashMap<Vec<u8>, Partition> = HashMap::new();
        let mut newest: HashMap<Vec<u8>, usize> = HashMap::new();
        let mut total = 0;
        for (partition, low, end) in marks {
            let stored = log.read(&partition, low, 1000).await.unwrap();
            assert_eq!(i64::try_from(stored.len()).unwrap(), end - low);
            total += stored.len();
            for (offset, stored) in (low..).zip(stored) {
                assert_eq!(stored.offset, offset);
                let key = stored.record.key.clone().unwrap();
                assert_eq!(places.entry(key.clone()).or_insert_with(|| partition.clone()), &partition);
                let value = number(&stored.record);
                assert_eq!(stored.record.header("ce_id"), stored.record.value.as_deref());
                assert!(newest.insert(key, value).is_none_or(|before| before < value));
            }
            assert!(log.read(&partition, end, 10).await.unwrap().is_empty());
        }
        assert_eq!(total, 200);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_given_up_half_way_spoils_nothing_that_comes_after_it() {
    every_log(|log, name| async move {
        // Whoever waited is gone at some moment: before it was written, while it is, after it was.
        let moments = (0..100).map(|step| Duration::from_micros(20 * step));
        for patience in moments.clone() {
            let _ = timeout(patience, log.create_topics(&[&name])).await;
        }
        log.create_topics(&[&name]).await.unwrap();
        for (last, patience) in moments.enumerate() {
            let _ = timeout(patience, log.append(&name, vec![record("key", last)])).await;
        }
        log.append(&name, vec![record("key", 100)]).await.unwrap();
        let member = log.join(&name, std::slice::from_ref(&name)).await.unwrap();
        let mut values = Vec::new();
        while values.last() != Some(&100) {
            values.extend(consume(&*member, 1).await.iter().map(|(_, record)| number(record)));
        }
        assert!(values.is_sorted(), "{values:?}");
        member.leave().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_as_large_as_a_door_takes_is_told_like_any_other() {
    every_log(|log, topic| async move {
        log.create_topics(&[&topic]).await.unwrap();
        let large = Record { value: Some(vec![b'x'; 4 << 20]), ..record("key", 0) };
        log.append(&topic, vec![record("key", 1), large.clone(), record("key", 2)]).await.unwrap();
        let member = log.join(&topic, std::slice::from_ref(&topic)).await.unwrap();
        let records: Vec<_> = consume(&*member, 3).await.into_iter().map(|(_, record)| record).collect();
        assert!(records == [record("key", 1), large, record("key", 2)]);
        member.leave().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_read_in_pieces_is_the_partition_also_where_pieces_of_others_come_between() {
    every_log(|log, topic| async move {
        topic_with(&*log, &topic, 10, 20).await;
        let mut marks = log.watermarks(&topic).await.unwrap();
        let mut wholes = Vec::new();
        for (partition, low, _) in &marks {
            wholes.push(log.read(partition, *low, 1000).await.unwrap());
        }
        let mut pieces = vec![Vec::new(); marks.len()];
        while marks.iter().any(|(_, next, end)| next < end) {
            for ((partition, next, _), pieces) in marks.iter_mut().zip(&mut pieces) {
                for _ in 0..2 {
                    let piece = log.read(partition, *next, 3).await.unwrap();
                    assert!(piece.len() <= 3);
                    *next = piece.last().map_or(*next, |stored| stored.offset + 1);
                    pieces.extend(piece);
                }
            }
        }
        assert_eq!(pieces, wholes);

        // At its end there is nothing, until something is appended.
        for (partition, next, _) in &marks {
            assert!(log.read(partition, *next, 3).await.unwrap().is_empty());
        }
        topic_with(&*log, &topic, 10, 1).await;
        let mut more = 0;
        for (partition, next, _) in &marks {
            more += log.read(partition, *next, 100).await.unwrap().len();
        }
        assert_eq!(more, 10);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_reads_everything_once_in_order_and_then_has_no_lag() {
    every_log(|log, topic| async move {
        topic_with(&*log, &topic, 10, 10).await;
        assert_eq!(lag(&*log, &topic, &topic).await, 100);
        let member = log.join(&topic, std::slice::from_ref(&topic)).await.unwrap();
        let records = consume(&*member, 100).await;
        let mut newest: HashMap<Vec<u8>, usize> = HashMap::new();
        for (_, record) in &records {
            let value = number(record);
            assert!(newest.insert(record.key.clone().unwrap(), value).is_none_or(|before| before < value));
        }
        assert_eq!(records.len(), 100);
        member.leave().await;
        assert_eq!(lag(&*log, &topic, &topic).await, 0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_gives_one_batch_at_a_time_and_a_returned_one_comes_again() {
    every_log(|log, topic| async move {
        topic_with(&*log, &topic, 1, 20).await;
        let member = log.join(&topic, std::slice::from_ref(&topic)).await.unwrap();
        let first = next(&*member).await;
        assert!(member.holds(&first.partition));
        assert!(timeout(Duration::from_millis(300), member.next(7)).await.is_err(), "its only partition is out");
        member.returned(&first).await;
        let again = next(&*member).await;
        assert_eq!(again.records[0], first.records[0]);
        member.finished(&again).await;
        let after = next(&*member).await;
        assert_eq!(after.records[0].offset, again.records.last().unwrap().offset + 1);
        member.leave().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_joins_later_goes_on_where_the_group_has_come_to() {
    every_log(|log, topic| async move {
        topic_with(&*log, &topic, 5, 10).await;
        let member = log.join(&topic, std::slice::from_ref(&topic)).await.unwrap();
        let mut seen: Vec<usize> = consume(&*member, 20).await.iter().map(|(_, record)| number(record)).collect();
        // Taken, but never finished: it belongs to whoever comes next.
        let _unfinished = next(&*member).await;
        member.leave().await;
        drop(member);
        let successor = log.join(&topic, std::slice::from_ref(&topic)).await.unwrap();
        let left = 50 - seen.len();
        seen.extend(consume(&*successor, left).await.iter().map(|(_, record)| number(record)));
        seen.sort_unstable();
        assert_eq!(seen, (0..50).collect::<Vec<_>>());
        successor.leave().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_members_share_the_partitions_and_each_hears_what_the_other_does_not() {
    every_log(|log, topic| async move {
        topic_with(&*log, &topic, 40, 1).await;
        let topics = [topic.clone()];
        let members = [log.join(&topic, &topics).await.unwrap(), log.join(&topic, &topics).await.unwrap()];
        let mut places: HashMap<Partition, usize> = HashMap::new();
        // Until the group has settled, a partition may move; afterwards both have some.
        let settled = async {
            let mut round = 0;
            while ![0, 1].iter().all(|who| places.values().any(|owner| owner == who)) {
                log.append(&topic, (0..40).map(|key| record(&format!("key-{key}"), round)).collect()).await.unwrap();
                for (who, member) in members.iter().enumerate() {
                    while let Ok(batch) = timeout(Duration::from_millis(300), member.next(100)).await {
                        let batch = batch.unwrap();
                        member.finished(&batch).await;
                        places.insert(batch.partition, who);
                    }
                }
                round += 1;
            }
        };
        timeout(Duration::from_secs(60), settled).await.expect("both members get partitions");
        for member in &members {
            member.leave().await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_are_created_once_and_a_missing_one_is_an_error() {
    every_log(|log, topic| async move {
        log.create_topics(&[&topic]).await.unwrap();
        log.create_topics(&[&topic]).await.unwrap();
        assert_eq!(log.watermarks(&topic).await.unwrap().len(), usize::try_from(PARTITIONS).unwrap());
        assert!(log.append(&format!("{topic}-missing"), vec![record("key", 1)]).await.is_err());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_just_created_can_be_asked_about() {
    every_log(async |log, topic| {
        for round in 0..10 {
            let topics: Vec<String> = (0..10).map(|number| format!("{topic}-{round}-{number}")).collect();
            let names: Vec<&str> = topics.iter().map(String::as_str).collect();
            log.create_topics(&names).await.unwrap();
            let lag = log.lag(&topic, &topics).await.unwrap();
            assert_eq!(lag.len(), topics.len() * usize::try_from(PARTITIONS).unwrap());
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_kafka_a_topic_may_come_later_than_its_first_reader() {
    let Ok(brokers) = std::env::var("KAFKA_BROKERS") else { return };
    let log = KafkaLog::new(&brokers, PARTITIONS, &HashMap::new()).unwrap();
    let topic = format!("conformance-{}", uuid::Uuid::now_v7());
    let later = format!("{topic}-later");
    topic_with(&log, &topic, 1, 3).await;
    let member = log.join(&topic, &[topic.clone(), later.clone()]).await.unwrap();
    assert_eq!(consume(&*member, 3).await.len(), 3, "it reads the topic that is there");
    topic_with(&log, &later, 1, 3).await;
    assert_eq!(consume(&*member, 3).await.len(), 3, "it finds the other soon");
    member.leave().await;
}

/// A bridge that was frozen wakes so: its partitions have gone and come back while it had batches in hand.
#[tokio::test(flavor = "multi_thread")]
async fn on_kafka_a_batch_of_a_partition_that_went_and_came_back_settles_nothing() {
    let Ok(brokers) = std::env::var("KAFKA_BROKERS") else { return };
    let log = KafkaLog::new(&brokers, PARTITIONS, &HashMap::new()).unwrap();
    let topic = format!("conformance-{}", uuid::Uuid::now_v7());
    topic_with(&log, &topic, 40, 10).await;
    let member = log.join(&topic, std::slice::from_ref(&topic)).await.unwrap();
    let mut old = Vec::new();
    for _ in 0..PARTITIONS {
        old.push(next(&*member).await);
    }
    let another = log.join(&topic, std::slice::from_ref(&topic)).await.unwrap();
    let held = |batch: &&Batch| member.holds(&batch.partition);
    until(|| old.iter().any(|batch| !held(&batch))).await;
    let gone: Vec<_> = old.iter().filter(|batch| !held(batch)).collect();
    another.leave().await;
    until(|| gone.iter().all(held)).await;

    let mut again = Vec::new();
    for _ in &gone {
        again.push(next(&*member).await);
    }
    for batch in &gone {
        member.finished(batch).await;
        assert!(timeout(Duration::from_millis(300), member.next(7)).await.is_err(), "the partition is out again");
    }
    for batch in &again {
        member.finished(batch).await;
    }
    next(&*member).await;
    member.leave().await;
}

async fn until(condition: impl Fn() -> bool) {
    let waiting = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, waiting).await.expect("the group settles");
}

#[tokio::test]
async fn the_embedded_log_is_there_again_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("log");
    {
        let log = EmbeddedLog::open(&file, PARTITIONS).await.unwrap();
        topic_with(&log, "orders", 5, 4).await;
        let member = log.join("group", &["orders".to_owned()]).await.unwrap();
        consume(&*member, 20).await;
        member.leave().await;
        topic_with(&log, "orders", 5, 1).await;
    }
    let log = EmbeddedLog::open(&file, PARTITIONS).await.unwrap();
    assert_eq!(lag(&log, "group", "orders").await, 5);
    let member = log.join("group", &["orders".to_owned()]).await.unwrap();
    assert_eq!(consume(&*member, 5).await.len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scan_reads_what_was_there_when_it_began_each_partition_in_order_and_moves_no_group() {
    every_log(|log, topic| async move {
        topic_with(&*log, &topic, 50, 40).await;
        let all = Stretch::all(&*log, &[topic.clone(), "nowhere".to_owned()]).await.unwrap();
        assert_eq!(all.iter().map(Stretch::records).sum::<u64>(), 2_000);
        topic_with(&*log, &topic, 50, 1).await;
        // The first and the last record of one partition are not asked for.
        let mut asked = all.clone();
        (asked[0].from, asked[0].to) = (asked[0].from + 1, asked[0].to - 1);
        let mut scan = Scan::of(log.clone(), asked.clone());
        let mut next: HashMap<Partition, i64> = asked.iter().map(|it| (it.partition.clone(), it.from)).collect();
        while let Some(batch) = timeout(PATIENCE, scan.next()).await.expect("it goes on").unwrap() {
            for stored in batch.records {
                let next = next.get_mut(&batch.partition).expect("it was asked for");
                assert_eq!(stored.offset, *next);
                *next += 1;
            }
        }
        let read: HashMap<Partition, i64> = asked.into_iter().map(|it| (it.partition, it.to)).collect();
        assert_eq!(next, read);
        // Whoever loses interest stops it.
        let mut scan = Scan::of(log.clone(), all);
        assert!(scan.next().await.unwrap().is_some());
        drop(scan);
        assert_eq!(lag(&*log, "nobody", &topic).await, 2_050);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tail_reads_on_from_where_it_is_told_each_partition_in_order_and_moves_no_group() {
    every_log(|log, topic| async move {
        topic_with(&*log, &topic, 50, 4).await;
        let marks = log.watermarks(&topic).await.unwrap();
        let last = marks.into_iter().map(|(partition, first, end)| (partition, (end - 1).max(first)));
        let last: Vec<(Partition, i64)> = last.collect();
        let mut next: HashMap<Partition, i64> = last.iter().cloned().collect();
        let mut tail = Tail::of(log.clone(), last);
        for _ in 0..2 {
            topic_with(&*log, &topic, 50, 4).await;
            let marks = log.watermarks(&topic).await.unwrap();
            let ends: HashMap<Partition, i64> = marks.into_iter().map(|(partition, _, end)| (partition, end)).collect();
            while next != ends {
                let batch = timeout(PATIENCE, tail.next()).await.expect("it goes on").unwrap();
                for stored in batch.records {
                    let next = next.get_mut(&batch.partition).expect("it was asked for");
                    assert_eq!(stored.offset, *next);
                    *next += 1;
                }
            }
        }
        assert_eq!(lag(&*log, "nobody", &topic).await, 600);
    })
    .await;
}
