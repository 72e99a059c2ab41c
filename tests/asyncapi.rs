//! `docs/asyncapi.json` (AsyncAPI 3.0, <https://www.asyncapi.com/docs/reference/specification/v3.0.0>) says what stands
//! on which topic, who sends it and who receives it. It is made of the producers' `contract/` folders and the
//! KafkaSources; this test makes it again and compares. `BLESS=1 cargo test -p end-to-end --test asyncapi` writes it.

use std::{collections::BTreeMap, fs, path::Path};

use end_to_end::SERVICES;
use serde_json::{Map, Value, json};

const PRODUCERS: [(&str, &str); 4] =
    [("order", "orders"), ("payment", "payments"), ("kitchen", "kitchen"), ("delivery", "deliveries")];

fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ stands in the workspace")
}

fn read(path: &Path) -> Value {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The messages of a producer by name, each with its schema and its sample.
fn messages(service: &str) -> BTreeMap<String, Value> {
    let folder = workspace().join("services").join(service).join("contract");
    let files = fs::read_dir(&folder).expect("a contract").map(|file| file.expect("a file").file_name());
    let names = files.filter_map(|file| file.to_str()?.strip_suffix(".schema.json").map(ToOwned::to_owned));
    let message = |name: String| {
        let mut schema = read(&folder.join(format!("{name}.schema.json")));
        let sample = read(&folder.join(format!("{name}.json")));
        let summary = schema["description"].clone();
        schema.as_object_mut().expect("a schema").retain(|field, _| !field.starts_with('$'));
        let message = json!({
            "name": sample["type"],
            "summary": summary,
            "contentType": "application/json",
            "payload": schema,
            "examples": [{"name": name, "payload": sample["data"]}],
        });
        (name, message)
    };
    names.map(message).collect()
}

/// The topics that a service hears, as its KafkaSource says.
fn heard_by(service: &str) -> Vec<String> {
    let file = workspace().join("knative").join(service).join("kafkasource.yaml");
    let text = fs::read_to_string(file).expect("a KafkaSource");
    let topics = text.lines().skip_while(|line| line.trim() != "topics:").skip(1);
    topics.map_while(|line| line.trim().strip_prefix("- ").map(ToOwned::to_owned)).collect()
}

fn document() -> Value {
    let (mut channels, mut operations, mut components) = (Map::new(), Map::new(), Map::new());
    for (service, topic) in PRODUCERS {
        let messages = messages(service);
        let reference = |name: &String| (name.clone(), json!({"$ref": format!("#/components/messages/{name}")}));
        let channel = json!({
            "address": topic,
            "description": format!("What the {service} service stores, keyed by stream; CloudEvents 1.0 in binary mode."),
            "messages": messages.keys().map(reference).collect::<Map<_, _>>(),
        });
        channels.insert(topic.to_owned(), channel);
        operations.insert(format!("{service}.sends"), operation("send", topic));
        components.extend(messages);
    }
    for service in SERVICES {
        for topic in heard_by(service) {
            operations.insert(format!("{service}.hears.{topic}"), operation("receive", &topic));
        }
    }
    json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": "Rainstorm's events",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Made from the producers' contract folders and the KafkaSources; see tests/asyncapi.rs.",
        },
        "defaultContentType": "application/json",
        "channels": channels,
        "operations": operations,
        "components": {"messages": components},
    })
}

fn operation(action: &str, topic: &str) -> Value {
    json!({"action": action, "channel": {"$ref": format!("#/channels/{topic}")}})
}

#[test]
fn the_document_says_what_the_contracts_say() {
    let file = workspace().join("docs/asyncapi.json");
    let made = format!("{:#}\n", document());
    if std::env::var("BLESS").is_ok() {
        fs::write(&file, &made).expect("it can be written");
    }
    let written = fs::read_to_string(&file).expect("docs/asyncapi.json");
    assert!(written == made, "the contracts have changed: BLESS=1 cargo test -p end-to-end --test asyncapi");
    assert!(document()["operations"]["payment.hears.orders"].is_object(), "the KafkaSources are read");
}
