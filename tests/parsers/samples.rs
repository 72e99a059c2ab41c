//! What the parsers are used to: the producers' contracts, the manifests in `knative/`, settings as people write them.

use std::{fs, path::Path};

use cloudevents::Event;
use eventing::{log::Record, to_record};

/// A manifest that can be read.
pub const MANIFEST: &str = include_str!("../../knative/order/kafkasource.yaml");

fn files(below: &str, end: &str) -> Vec<Vec<u8>> {
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(below)];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.to_string_lossy().ends_with(end) {
                found.push(path);
            }
        }
    }
    found.sort();
    found.iter().filter_map(|file| fs::read(file).ok()).collect()
}

/// One event of each type that there is.
fn events() -> Vec<Event> {
    let services = ["order", "payment", "kitchen", "delivery"];
    let contracts = services.iter().flat_map(|service| files(&format!("services/{service}/contract"), ".v1.json"));
    contracts.filter_map(|text| serde_json::from_slice(&text).ok()).collect()
}

pub fn records() -> Vec<Vec<u8>> {
    let mut records: Vec<Record> = events().into_iter().filter_map(|event| to_record(event).ok()).collect();
    let structured = |event: &Event| Record {
        key: None,
        headers: vec![("content-type".to_owned(), b"application/cloudevents+json".to_vec())],
        value: serde_json::to_vec(event).ok(),
    };
    records.extend(events().iter().take(4).map(structured));
    records.push(Record { value: Some(b"garbage".to_vec()), ..Record::default() });
    records.iter().filter_map(|record| postcard::to_allocvec(record).ok()).collect()
}

pub fn requests() -> Vec<Vec<u8>> {
    let mut requests = Vec::new();
    for event in events() {
        let text = serde_json::to_string(&event).unwrap_or_default();
        requests.push(format!("content-type: application/cloudevents+json\n\n{text}"));
        let Ok(record) = to_record(event) else { continue };
        let line = |(name, value): &(String, Vec<u8>)| {
            format!("{}: {}\n", name.replacen("ce_", "ce-", 1), String::from_utf8_lossy(value))
        };
        let head: String = record.headers.iter().map(line).collect();
        requests.push(format!("{head}\n{}", String::from_utf8_lossy(&record.value.unwrap_or_default())));
    }
    let batch = serde_json::to_string(&events()[..3]).unwrap_or_default();
    requests.push(format!("content-type: application/cloudevents-batch+json\n\n{batch}"));
    requests.into_iter().map(String::into_bytes).collect()
}

pub fn questions() -> Vec<Vec<u8>> {
    let questions = [
        "",
        "limit=50",
        "customer_id=ada&status=out_for_delivery&limit=500&cursor=019a0000-0000-7000-8000-000000000001",
        "customer_id=%F0%9F%8D%B2+%26&status=cancelled",
        "limit=0",
        "cursor=",
    ];
    questions.map(Vec::from).into()
}

pub fn manifests() -> Vec<Vec<u8>> {
    files("knative", ".yaml")
}

pub fn settings() -> Vec<Vec<u8>> {
    let lines = [
        "300ms\n10s\n2m\n1h\n1h 30m\nPT1H",
        "order=http://localhost:9001/events\nquery=http://[::1]:80/events?a=b#c",
        "security.protocol=SASL_SSL\nKAFKA_SASL_USERNAME=order\nsasl.password=a=b\nKAFKA_SSL_CA_LOCATION=/ca.pem",
        "KAFKA_BROKERS=localhost:9092\nHOME=/",
    ];
    lines.map(Vec::from).into()
}

pub fn traces() -> Vec<Vec<u8>> {
    let traces = [
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\na=1,b=2",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00",
        "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-what-else\nstate",
        "",
    ];
    traces.map(Vec::from).into()
}

pub fn positions() -> Vec<Vec<u8>> {
    ["orders=0.12.7,payments=3.0.0", "kitchen=9223372036854775807", "deliveries=0"]
        .map(|it| it.as_bytes().to_vec())
        .into()
}
