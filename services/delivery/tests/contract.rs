//! The contract with whoever listens to delivery: what it writes is what `contract/` says, and what it reads is what
//! the others' `contract/` folders say they write.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that can't go on fails")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use delivery::{
    domain::{Address, DeliveryEvent, DriverEvent, FailureReason},
    reactions::Heard,
};
use event_sourcing::{DomainEvent, encode};
use jiff::Timestamp;
use serde_json::{Value, json};

/// One of every event that the domain can write; a new variant doesn't compile until it has its place here.
fn written() -> Vec<(String, Value)> {
    use DeliveryEvent::*;
    use DriverEvent::*;
    let at: Timestamp = "2026-11-24T09:00:00.123456789Z".parse().unwrap();
    let address = Address { street: "1 Quay".into(), city: "Porto".into(), postal_code: "4000".into() };
    let driver_id = || "dora".to_owned();
    let order_id = || "019a0000-0000-7000-8000-000000000001".to_owned();
    let delivery = [
        Requested { address, at },
        OrderReady { at },
        DriverAssigned { driver_id: driver_id() },
        OutForDelivery { driver_id: driver_id() },
        Delivered { driver_id: driver_id() },
        Failed { reason: FailureReason::NoDriver },
    ];
    let complete = |event: &DeliveryEvent| match event {
        Requested { .. } | OrderReady { .. } | DriverAssigned { .. } | OutForDelivery { .. } => (),
        Delivered { .. } | Failed { reason: FailureReason::NoDriver } => (),
    };
    delivery.iter().for_each(complete);
    let driver = [OnShift {}, Engaged { order_id: order_id() }, Released { order_id: order_id() }, OffShift {}];
    let complete = |event: &DriverEvent| match event {
        OnShift {} | Engaged { .. } | Released { .. } | OffShift {} => (),
    };
    driver.iter().for_each(complete);
    delivery.iter().map(encoded).chain(driver.iter().map(encoded)).collect()
}

#[test]
fn what_is_written_fits_its_schema_and_has_the_fields_of_its_sample() {
    for (event_type, data) in written() {
        validate(&event_type, &data);
        assert_eq!(fields(&data), fields(&sample(&own(), &event_type)["data"]), "{event_type}");
    }
}

#[test]
fn every_type_has_a_sample_and_a_schema_and_no_file_is_left_over() {
    let names = written().into_iter().map(|(event_type, _)| name(&event_type).to_owned()).collect::<BTreeSet<_>>();
    let expected = names.iter().flat_map(|name| [format!("{name}.json"), format!("{name}.schema.json")]);
    let files = fs::read_dir(own()).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
    assert_eq!(files.collect::<BTreeSet<_>>(), expected.collect());
}

#[test]
fn every_sample_is_a_whole_cloud_event_that_fits_its_schema() {
    for (event_type, _) in written() {
        let sample = sample(&own(), &event_type);
        validate(&event_type, &sample["data"]);
        let attributes: BTreeSet<_> = sample.as_object().unwrap().keys().map(String::as_str).collect();
        let expected = "specversion id source type subject time datacontenttype dataschema partitionkey sequence \
                        correlationid causationid traceparent tracestate data";
        assert_eq!(attributes, expected.split_whitespace().collect(), "{event_type}");
        assert_eq!(sample["type"], event_type);
        assert_eq!(sample["source"], delivery::SERVICE.source);
        assert_eq!(sample["dataschema"], schema(&event_type)["$id"]);
        assert_eq!(sample["partitionkey"], sample["subject"]);
        assert_eq!(sample["sequence"].as_str().map(str::len), Some(20));
    }
}

#[test]
fn delivery_reads_its_own_events() {
    let event_type = "dev.rainstorm.delivery.out_for_delivery.v1";
    assert_eq!(reads_exactly(&own(), event_type, &[]), Heard::OutForDelivery {});
}

#[test]
fn delivery_reads_the_order_services_events() {
    let needed = ["address", "address.street", "address.city", "address.postal_code"];
    let heard = reads_exactly(&of("order"), "dev.rainstorm.order.placed.v1", &needed);
    assert!(matches!(heard, Heard::OrderPlaced { .. }));
}

#[test]
fn delivery_reads_the_kitchens_events() {
    let heard = reads_exactly(&of("kitchen"), "dev.rainstorm.kitchen.order_packed.v1", &[]);
    assert_eq!(heard, Heard::OrderPacked {});
}

/// The producer's sample as it is read here. Without one of `needed` it doesn't read, and the error names that field;
/// every other field may go.
#[track_caller]
fn reads_exactly(producer: &Path, event_type: &str, needed: &[&str]) -> Heard {
    let data = sample(producer, event_type)["data"].take();
    let read = |data: &Value| serde_json::from_value::<Heard>(json!({"type": event_type, "data": data}));
    let heard = read(&data).unwrap_or_else(|error| panic!("the sample of {event_type}: {error}"));
    for field in needed {
        let error = read(&without(&data, field)).expect_err(field).to_string();
        let missing = format!("missing field `{}`", field.rsplit('.').next().unwrap());
        assert!(error.contains(&missing), "{event_type} without {field}: {error}");
    }
    let others = |field: &&String| !field.ends_with(']') && !needed.contains(&field.as_str());
    for field in fields(&data).keys().filter(others) {
        assert!(read(&without(&data, field)).is_ok(), "{event_type}: {field} is read, and not listed here");
    }
    heard
}

/// `data` without the field at this path; it must be there.
#[track_caller]
fn without(data: &Value, path: &str) -> Value {
    let pointer = format!("/{}", path.replace('[', "/").replace(']', "").replace('.', "/"));
    let (parent, field) = pointer.rsplit_once('/').unwrap();
    let mut data = data.clone();
    let parent = data.pointer_mut(parent).and_then(Value::as_object_mut);
    let removed = parent.and_then(|object| object.remove(field));
    assert!(removed.is_some(), "the producer's sample has no field {path}");
    data
}

fn encoded<E: DomainEvent>(event: &E) -> (String, Value) {
    let (event_type, data) = encode(event).unwrap();
    (event_type, serde_json::from_str(&data).unwrap())
}

/// The path of every field, with the kind of its value; the first item stands for all of a list.
fn fields(data: &Value) -> BTreeMap<String, &'static str> {
    fn walk(path: &str, value: &Value, found: &mut BTreeMap<String, &'static str>) {
        let kind = match value {
            Value::Null => "null",
            Value::Bool(_) => "true or false",
            Value::Number(_) => "number",
            Value::String(_) => "text",
            Value::Array(items) => {
                items.iter().take(1).for_each(|item| walk(&format!("{path}[0]"), item, found));
                "list"
            }
            Value::Object(object) => {
                let dot = if path.is_empty() { "" } else { "." };
                object.iter().for_each(|(name, value)| walk(&format!("{path}{dot}{name}"), value, found));
                "object"
            }
        };
        found.insert(path.to_owned(), kind);
    }
    let mut found = BTreeMap::new();
    walk("", data, &mut found);
    found.remove("");
    found
}

#[track_caller]
fn validate(event_type: &str, data: &Value) {
    let schema = schema(event_type);
    let validator = jsonschema::options().should_validate_formats(true).build(&schema).unwrap();
    let errors: Vec<_> = validator.iter_errors(data).map(|error| error.to_string()).collect();
    assert!(errors.is_empty(), "{event_type}: {errors:?}");
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    assert_eq!(schema["additionalProperties"], true, "{event_type}");
}

fn own() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("contract")
}

fn of(producer: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(producer).join("contract")
}

fn name(event_type: &str) -> &str {
    event_type.strip_prefix("dev.rainstorm.").unwrap()
}

#[track_caller]
fn sample(folder: &Path, event_type: &str) -> Value {
    json_file(&folder.join(format!("{}.json", name(event_type))))
}

#[track_caller]
fn schema(event_type: &str) -> Value {
    let schema = json_file(&own().join(format!("{}.schema.json", name(event_type))));
    assert_eq!(schema["$id"], format!("https://rainstorm.dev/contract/{}.schema.json", name(event_type)));
    schema
}

#[track_caller]
fn json_file(path: &Path) -> Value {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
