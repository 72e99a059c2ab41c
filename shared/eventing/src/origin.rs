//! Where a record stood on the log, and what of it is no part of its event: it travels beside the event in attributes of
//! its own, so that a dead letter can name the record and has all of it.

use base64::{Engine, prelude::BASE64_STANDARD};
use cloudevents::{AttributesReader, Data, Event, event::ExtensionValue};
use serde::{Deserialize, Serialize};

use crate::{
    NOT_A_CLOUD_EVENT,
    log::{Partition, Record, Stored},
};

/// The attributes of an origin: topic, partition, offset, key, headers.
pub(crate) type Names = [&'static str; 5];
/// As a bridge tells them to a door.
pub(crate) const ON_THE_WAY: Names = ["kafkatopic", "kafkapartition", "kafkaoffset", "kafkakey", "kafkaheaders"];
/// As they stand in a dead letter.
pub(crate) const IN_A_LETTER: Names =
    ["deadlettertopic", "deadletterpartition", "deadletteroffset", "deadletterkey", "deadletterheaders"];

/// What is known of an event's record.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Origin {
    pub topic: Option<String>,
    pub partition: Option<i32>,
    pub offset: Option<i64>,
    /// The record's key, where it is another than the event's own; base64.
    key: Option<String>,
    /// The record's headers that are no part of the event: a JSON list of `[name, base64]`.
    headers: Option<String>,
}

impl Origin {
    /// The origin of `event`, which was made of `stored`; `wrapped`: around it, as it is no CloudEvent.
    pub(crate) fn of(partition: &Partition, stored: &Stored, event: &Event, wrapped: bool) -> Self {
        let Record { key, headers, .. } = &stored.record;
        let ours =
            |name: &str| name.starts_with("ce_") || ["content-type", "traceparent", "tracestate"].contains(&name);
        let others: Vec<_> = headers
            .iter()
            .filter(|(name, _)| wrapped || !ours(name))
            .map(|(name, value)| (name, BASE64_STANDARD.encode(value)))
            .collect();
        let own_key = match event.extension("partitionkey") {
            Some(ExtensionValue::String(key)) => Some(key.as_str()),
            _ => event.subject(),
        };
        let another = |key: &&Vec<u8>| wrapped || Some(key.as_slice()) != own_key.map(str::as_bytes);
        Self {
            topic: Some(partition.topic.clone()),
            partition: Some(partition.number),
            offset: Some(stored.offset),
            key: key.as_ref().filter(another).map(|key| BASE64_STANDARD.encode(key)),
            headers: (!others.is_empty()).then(|| serde_json::json!(others).to_string()),
        }
    }

    /// The origin of an event that came to a door. A KafkaSource tells it only of what is no CloudEvent: in id and source.
    pub(crate) fn arrived(event: &mut Event) -> Self {
        let mut origin = Self::take(event, &ON_THE_WAY);
        if origin.topic.is_none() && event.ty() == NOT_A_CLOUD_EVENT {
            let place = event.id().strip_prefix("partition:").and_then(|place| place.split_once("/offset:"));
            origin.partition = place.and_then(|(partition, _)| partition.parse().ok());
            origin.offset = place.and_then(|(_, offset)| offset.parse().ok());
            origin.topic = event.source().rsplit_once('#').map(|(_, topic)| topic.to_owned());
        }
        origin
    }

    /// Takes the attributes `names` off the event.
    pub(crate) fn take(event: &mut Event, names: &Names) -> Self {
        let [topic, partition, offset, key, headers] =
            names.map(|name| event.remove_extension(name).map(|value| value.to_string()));
        Self {
            topic,
            partition: partition.and_then(|number| number.parse().ok()),
            offset: offset.and_then(|number| number.parse().ok()),
            key,
            headers,
        }
    }

    /// Puts what is known on the event, as the attributes `names`.
    pub(crate) fn put(&self, event: &mut Event, names: &Names) {
        let number = |number: i64| ExtensionValue::Integer(number);
        let values = [
            self.topic.clone().map(ExtensionValue::String),
            self.partition.map(i64::from).map(number),
            self.offset.map(number),
            self.key.clone().map(ExtensionValue::String),
            self.headers.clone().map(ExtensionValue::String),
        ];
        for (name, value) in names.iter().zip(values) {
            if let Some(value) = value {
                event.set_extension(name, value);
            }
        }
    }

    /// Only where it stood.
    pub(crate) fn place(&self) -> Self {
        Self { key: None, headers: None, ..self.clone() }
    }

    /// The record's key, where it is another than the event's own.
    #[must_use]
    pub fn key(&self) -> Option<Vec<u8>> {
        BASE64_STANDARD.decode(self.key.as_ref()?).ok()
    }

    /// The record's headers that are no part of the event.
    #[must_use]
    pub fn headers(&self) -> Vec<(String, Vec<u8>)> {
        let headers = self.headers.as_deref().and_then(|text| serde_json::from_str::<Vec<(String, String)>>(text).ok());
        let decoded = |(name, value)| Some((name, BASE64_STANDARD.decode(value).ok()?));
        headers.unwrap_or_default().into_iter().filter_map(decoded).collect()
    }

    /// The record that was wrapped in an event because it was no CloudEvent.
    pub(crate) fn record(&self, event: &Event) -> Record {
        let value = match event.data() {
            Some(Data::Binary(bytes)) => Some(bytes.clone()),
            Some(Data::String(text)) => Some(text.clone().into_bytes()),
            Some(Data::Json(value)) => Some(value.to_string().into_bytes()),
            None => None,
        };
        Record { key: self.key(), headers: self.headers(), value }
    }
}
