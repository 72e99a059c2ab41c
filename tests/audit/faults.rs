//! The faults: what each changes in the stores, and on the log.

use std::collections::HashMap;

use event_sourcing::{Database, Recorded, Row, Value};
use eventing::{
    dead_letters,
    log::{Partition, Record},
    published, to_record,
};

use crate::copy::{Records, Victim};

/// What is wrong with a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    None,
    ByteInAStore,
    ByteOnTheLog,
    HeaderOnTheLog,
    EventGoneFromAStore,
    StreamGoneFromAStore,
    EventGoneFromTheLog,
    StreamGoneFromTheLog,
    SwappedPair,
    OtherBytesAgain,
    SameIdElsewhere,
    SameBytesAgain,
    ViewGone,
    OtherView,
    StepGone,
    OtherStep,
    DriversStepGone,
    OtherCount,
    SecondCharge,
    ChargeGone,
    RefundOfADelivery,
    TwoOrdersAtOnce,
    Unfinished,
    Forgotten,
    LostCommand,
    GarbageInDeadLetters,
}

/// Those that must be found, and the check that finds each.
pub const FAULTS: [(Fault, &str); 22] = [
    (Fault::ByteInAStore, "published"),
    (Fault::ByteOnTheLog, "published"),
    (Fault::HeaderOnTheLog, "published"),
    (Fault::EventGoneFromAStore, "stored"),
    (Fault::StreamGoneFromAStore, "stored"),
    (Fault::EventGoneFromTheLog, "streams"),
    (Fault::StreamGoneFromTheLog, "published"),
    (Fault::SwappedPair, "streams"),
    (Fault::OtherBytesAgain, "streams"),
    (Fault::SameIdElsewhere, "streams"),
    (Fault::ViewGone, "views"),
    (Fault::OtherView, "views"),
    (Fault::StepGone, "timelines"),
    (Fault::OtherStep, "timelines"),
    (Fault::DriversStepGone, "timelines"),
    (Fault::SecondCharge, "ledger"),
    (Fault::ChargeGone, "ledger"),
    (Fault::RefundOfADelivery, "money"),
    (Fault::TwoOrdersAtOnce, "rides"),
    (Fault::Unfinished, "ends"),
    (Fault::Forgotten, "inbox"),
    (Fault::LostCommand, "commands"),
];

/// Where every copy is a server's work, the faults that matter most.
pub const ON_SERVERS: [Fault; 10] = [
    Fault::ByteInAStore,
    Fault::ByteOnTheLog,
    Fault::EventGoneFromAStore,
    Fault::StreamGoneFromTheLog,
    Fault::SwappedPair,
    Fault::OtherBytesAgain,
    Fault::ViewGone,
    Fault::SecondCharge,
    Fault::TwoOrdersAtOnce,
    Fault::Unfinished,
];

async fn change(database: &Database, sql: &str, values: &[&str]) {
    let mut write = database.write().await.expect("a transaction");
    let values: Vec<Value> = values.iter().map(|value| Value::from(*value)).collect();
    let changed = write.execute(sql, values).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    assert!(changed > 0, "nothing was planted: {sql}");
    write.commit().await.expect("committed");
}

/// Changes what is stored.
pub async fn plant_in_stores(fault: Fault, stores: &HashMap<&str, Database>, ledger: &Database, victim: &Victim) {
    let order: &str = &victim.order;
    let of_order = |sql: &'static str| (sql, vec![order]);
    let (service, (sql, values)) = match fault {
        Fault::ByteInAStore => {
            let sql =
                "UPDATE events SET data = replace(data, 'quantity', 'quantitz') WHERE stream_id = $1 AND version = 1";
            ("order", of_order(sql))
        }
        Fault::EventGoneFromAStore => ("kitchen", of_order("DELETE FROM events WHERE stream_id = $1 AND version = 2")),
        Fault::StreamGoneFromAStore => ("payment", of_order("DELETE FROM events WHERE stream_id = $1")),
        Fault::ViewGone => ("query", of_order("DELETE FROM orders WHERE order_id = $1")),
        Fault::OtherView => {
            let sql = "UPDATE orders SET view = replace(view, '\"captured\":', '\"captured\":1') WHERE order_id = $1";
            ("query", of_order(sql))
        }
        Fault::StepGone => {
            let sql = "DELETE FROM timeline WHERE order_id = $1 AND source = '/payments'";
            ("query", of_order(sql))
        }
        Fault::OtherStep => {
            let sql = "UPDATE timeline SET causation_id = 'another' WHERE order_id = $1 AND source = '/payments'";
            ("query", of_order(sql))
        }
        Fault::DriversStepGone => {
            ("query", ("DELETE FROM timeline WHERE order_id = $1 AND subject = $2", vec![order, &*victim.driver]))
        }
        Fault::OtherCount => ("query", ("UPDATE stats SET value = value + 1 WHERE name = 'now completed'", vec![])),
        Fault::Forgotten => ("payment", of_order("DELETE FROM inbox WHERE stream_id = $1")),
        Fault::LostCommand => {
            let sql = "INSERT INTO inbox (source, id, attempts, done, stream_id) VALUES ('command', 'a-key', 0, 1, $1)";
            ("order", of_order(sql))
        }
        Fault::Unfinished => {
            ("order", of_order("DELETE FROM events WHERE stream_id = $1 AND type LIKE '%order.completed%'"))
        }
        Fault::SecondCharge | Fault::ChargeGone => {
            return plant_in_ledger(fault, ledger, &placed(stores, order).await).await;
        }
        Fault::TwoOrdersAtOnce => return engage_too_early(&stores["delivery"], victim).await,
        Fault::RefundOfADelivery => return refund(&stores["payment"], order).await,
        _ => return,
    };
    change(&stores[service], sql, &values).await;
}

async fn placed(stores: &HashMap<&str, Database>, order: &str) -> String {
    let rows =
        stores["order"].fetch("SELECT id FROM events WHERE stream_id = $1 AND version = 1", [order.into()]).await;
    rows.expect("an event")[0].text(0).expect("an id")
}

async fn plant_in_ledger(fault: Fault, ledger: &Database, key: &str) {
    let sql = match fault {
        Fault::ChargeGone => "DELETE FROM provider_ledger WHERE idempotency_key = $1",
        _ => {
            "INSERT INTO provider_ledger (idempotency_key, kind, charge_key, amount, currency, outcome, failures) \
             SELECT 'another-key', kind, charge_key, amount, currency, outcome, failures FROM provider_ledger \
             WHERE idempotency_key = $1"
        }
    };
    change(ledger, sql, &[key]).await;
}

/// The driver takes his next order before he has brought the one he carries.
async fn engage_too_early(delivery: &Database, victim: &Victim) {
    let driver = victim.driver.as_str();
    let [released, engaged] = [victim.released, victim.released + 1].map(|version| version.to_string());
    for (from, to) in [(&*released, "-1"), (&*engaged, &*released), ("-1", &*engaged)] {
        let sql = format!("UPDATE events SET version = {to} WHERE stream_id = $1 AND version = {from}");
        change(delivery, &sql, &[driver]).await;
    }
}

/// The money of a delivered order is given back, as an event that stands in the store and on the log alike.
async fn refund(payment: &Database, order: &str) {
    let sql = "INSERT INTO events (stream_id, version, id, type, time, correlation_id, causation_id, traceparent, \
               tracestate, data, published) SELECT stream_id, 2, 'refund-' || id, \
               'dev.rainstorm.payment.refunded.v1', time, correlation_id, causation_id, traceparent, tracestate, data, 1 \
               FROM events WHERE stream_id = $1 AND version = 1";
    change(payment, sql, &[order]).await;
}

fn text<'a>(record: &'a Record, header: &str) -> &'a str {
    std::str::from_utf8(record.header(header).unwrap_or_default()).expect("UTF-8")
}

/// Where the events of a stream stand.
fn places(records: &Records, source: &str, stream: &str) -> Vec<(Partition, usize)> {
    let here = |record: &Record| text(record, "ce_source") == source && text(record, "ce_subject") == stream;
    let all = records.iter().flat_map(|(partition, records)| {
        records.iter().enumerate().filter(|(_, record)| here(record)).map(|(place, _)| (partition.clone(), place))
    });
    all.collect()
}

fn other_value(record: &mut Record) {
    let value = record.value.as_mut().expect("a value");
    let place = value.len() / 2;
    value[place] ^= 1;
}

/// Changes what is on the log; where an event was changed in a store as well, the log is to agree.
pub async fn plant_on_the_log(fault: Fault, records: &mut Records, stores: &HashMap<&str, Database>, victim: &Victim) {
    let order = victim.order.as_str();
    let payments = places(records, "/payments", order);
    let (partition, place) = payments[0].clone();
    let kitchen = places(records, "/kitchen", order);
    let at = |records: &mut Records, (partition, place): &(Partition, usize)| records[partition][*place].clone();
    match fault {
        Fault::ByteOnTheLog => other_value(&mut records.get_mut(&partition).expect("it is there")[place]),
        Fault::HeaderOnTheLog => {
            let record = &mut records.get_mut(&partition).expect("it is there")[place];
            let trace = record.headers.iter_mut().find(|(name, _)| name == "traceparent").expect("a trace");
            trace.1[10] = if trace.1[10] == b'0' { b'1' } else { b'0' };
        }
        Fault::EventGoneFromTheLog => drop(records.get_mut(&kitchen[1].0).expect("it is there").remove(kitchen[1].1)),
        Fault::StreamGoneFromTheLog => drop(records.get_mut(&partition).expect("it is there").remove(place)),
        Fault::SwappedPair => {
            records.get_mut(&kitchen[0].0).expect("it is there").swap(kitchen[0].1, kitchen[1].1);
        }
        Fault::SameBytesAgain => {
            // As a publisher that crashed before it could note what it had published.
            let again: Vec<_> = kitchen[..3].iter().map(|place| at(records, place)).collect();
            records.get_mut(&kitchen[0].0).expect("it is there").extend(again);
        }
        Fault::OtherBytesAgain => {
            let mut again = at(records, &payments[0]);
            other_value(&mut again);
            records.get_mut(&partition).expect("it is there").push(again);
        }
        Fault::SameIdElsewhere => {
            let mut elsewhere = at(records, &payments[0]);
            for (name, value) in &mut elsewhere.headers {
                if name == "ce_sequence" {
                    *value = format!("{:020}", 2).into_bytes();
                }
            }
            records.get_mut(&partition).expect("it is there").push(elsewhere);
        }
        Fault::Unfinished => {
            let ended = places(records, "/orders", order).pop().expect("an end");
            records.get_mut(&ended.0).expect("it is there").remove(ended.1);
        }
        Fault::TwoOrdersAtOnce => publish_again(records, "/deliveries", &victim.driver, &stores["delivery"]).await,
        Fault::RefundOfADelivery => {
            let after = at(records, &payments[0]);
            records.get_mut(&partition).expect("it is there").push(after);
            publish_again(records, "/payments", order, &stores["payment"]).await;
        }
        Fault::GarbageInDeadLetters => {
            let garbage = Record { key: Some(order.into()), headers: vec![], value: Some(b"garbage".to_vec()) };
            let offset = records[&partition].len();
            records.get_mut(&partition).expect("it is there").push(garbage);
            let topic = dead_letters::topic("query");
            let letter = letter_about(&partition, offset);
            records.insert(Partition { topic, number: 0 }, vec![letter]);
        }
        _ => {}
    }
}

/// A stream on the log becomes what its store would publish now.
async fn publish_again(records: &mut Records, source: &str, stream: &str, store: &Database) {
    let columns = "stream_id, version, id, type, time, correlation_id, causation_id, traceparent, tracestate, data";
    let sql = format!("SELECT {columns} FROM events WHERE stream_id = $1 ORDER BY version");
    let rows = store.fetch(sql, [stream.into()]).await.expect("events");
    for ((partition, place), row) in places(records, source, stream).into_iter().zip(&rows) {
        let record = published(source, &recorded(row)).and_then(to_record).expect("a record");
        records.get_mut(&partition).expect("it is there")[place] = record;
    }
}

fn recorded(row: &Row) -> Recorded {
    let text = |column| row.text(column).expect("text");
    Recorded {
        stream_id: text(0),
        version: row.int(1).expect("a version"),
        id: text(2),
        event_type: text(3),
        time: text(4),
        correlation_id: text(5),
        causation_id: text(6),
        traceparent: text(7),
        tracestate: text(8),
        data: text(9),
    }
}

/// What a service says of a record that is no event.
fn letter_about(partition: &Partition, offset: usize) -> Record {
    let id = format!("partition:{}/offset:{offset}", partition.number);
    let source = format!("/bridge#{}", partition.topic);
    let header = |name: &str, value: &str| (name.to_owned(), value.as_bytes().to_vec());
    let headers = vec![
        header("ce_specversion", "1.0"),
        header("ce_id", &id),
        header("ce_source", &source),
        header("ce_type", eventing::NOT_A_CLOUD_EVENT),
        header("ce_subject", &id),
        header("ce_deadletterstate", "failed"),
        header("ce_deadletterservice", "query"),
        header("ce_deadletterreason", "the record on the log is no CloudEvent"),
    ];
    Record { key: Some(id.into_bytes()), headers, value: Some(b"garbage".to_vec()) }
}
