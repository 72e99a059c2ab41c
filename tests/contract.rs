//! Contracts between services: a producer's samples and schemas in its `contract/` folder, checked against what it
//! really writes; a consumer's reading of them, checked field by field.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use event_sourcing::{DomainEvent, encode};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// Checks a producer's `contract/` folder against `written`, one of every event it can write, as `(type, data)`.
///
/// # Panics
/// If a sample or schema is missing, left over, or not what is written.
#[track_caller]
pub fn is_kept_by(service: &str, source: &str, written: &[(String, Value)]) {
    let folder = of(service);
    let names: BTreeSet<_> = written.iter().map(|(event_type, _)| name(event_type).to_owned()).collect();
    let expected = names.iter().flat_map(|name| [format!("{name}.json"), format!("{name}.schema.json")]);
    let files = fs::read_dir(&folder).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
    assert_eq!(files.collect::<BTreeSet<_>>(), expected.collect(), "every type has a sample and a schema");
    for (event_type, data) in written {
        let sample = sample(&folder, event_type);
        let schema = schema(&folder, event_type);
        validate(event_type, &schema, data);
        validate(event_type, &schema, &sample["data"]);
        assert_eq!(fields(data), fields(&sample["data"]), "{event_type}: what is written has the sample's fields");
        let attributes: BTreeSet<_> = sample.as_object().unwrap().keys().map(String::as_str).collect();
        let all = "specversion id source type subject time datacontenttype dataschema partitionkey sequence \
                   correlationid causationid traceparent tracestate data";
        assert_eq!(attributes, all.split_whitespace().collect(), "{event_type}");
        assert_eq!(sample["type"], *event_type);
        assert_eq!(sample["source"], source);
        assert_eq!(sample["dataschema"], schema["$id"]);
        assert_eq!(sample["partitionkey"], sample["subject"]);
        assert_eq!(sample["sequence"].as_str().map(str::len), Some(20));
    }
}

/// The producer's sample as a consumer reads it. Without one of `needed` it doesn't read, and the error names that field;
/// every other field may go.
///
/// # Panics
/// If it reads less, or more.
#[track_caller]
pub fn reads_exactly<H: DeserializeOwned + std::fmt::Debug>(producer: &str, event_type: &str, needed: &[&str]) -> H {
    let data = sample(&of(producer), event_type)["data"].take();
    let read = |data: &Value| serde_json::from_value::<H>(json!({"type": event_type, "data": data}));
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

/// An event as it is written: its type and its data.
///
/// # Panics
/// If it can't be written.
pub fn encoded<E: DomainEvent>(event: &E) -> (String, Value) {
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
fn validate(event_type: &str, schema: &Value, data: &Value) {
    let validator = jsonschema::options().should_validate_formats(true).build(schema).unwrap();
    let errors: Vec<_> = validator.iter_errors(data).map(|error| error.to_string()).collect();
    assert!(errors.is_empty(), "{event_type}: {errors:?}");
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    assert_eq!(schema["additionalProperties"], true, "{event_type}");
}

/// A service's `contract/` folder.
fn of(service: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../services").join(service).join("contract")
}

fn name(event_type: &str) -> &str {
    event_type.strip_prefix("dev.rainstorm.").unwrap()
}

#[track_caller]
fn sample(folder: &Path, event_type: &str) -> Value {
    json_file(&folder.join(format!("{}.json", name(event_type))))
}

#[track_caller]
fn schema(folder: &Path, event_type: &str) -> Value {
    let schema = json_file(&folder.join(format!("{}.schema.json", name(event_type))));
    assert_eq!(schema["$id"], format!("https://rainstorm.dev/contract/{}.schema.json", name(event_type)));
    schema
}

#[track_caller]
fn json_file(path: &Path) -> Value {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
