//! Events on the wire: CloudEvents 1.0 (<https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md>), as a
//! service stores, publishes and receives them. The Kafka binding (binary mode, `ce_` headers) is the SDK's own,
//! bound here to our [`Record`].

use base64::prelude::{BASE64_STANDARD, Engine};
use cloudevents::{
    AttributesReader, Data, Event, EventBuilder, EventBuilderV10,
    event::{ExtensionValue, SpecVersion},
    message::{
        BinaryDeserializer, BinarySerializer, Encoding, Error, MessageAttributeValue, MessageDeserializer, Result,
        StructuredDeserializer, StructuredSerializer,
    },
};
use event_sourcing::{Cause, Recorded, STORY, TraceContext};
use serde_json::{Map, Value};
use tracing::{Span, field::Empty, info_span};
use tracing_opentelemetry::OpenTelemetrySpanExt;

use crate::{log::Record, origin::Origin};

/// The prefix of every event type of this system.
pub const TYPE_PREFIX: &str = "dev.rainstorm.";
/// The type of a tick: Knative PingSource's own.
pub const TICK: &str = "dev.knative.sources.ping";
/// The type under which a KafkaSource delivers a record that is no CloudEvent.
pub const NOT_A_CLOUD_EVENT: &str = "dev.knative.kafka.event";

/// The longest identifier, in bytes: any two of them fit into one key of an index, also of PostgreSQL's.
const IDENTIFIER: usize = 1_000;

const SPECVERSION: &str = "ce_specversion";
const CONTENT_TYPE: &str = "content-type";
/// The media type of structured mode.
pub const STRUCTURED: &str = "application/cloudevents+json";

/// Why a CloudEvent could not be made of something.
#[derive(Debug, thiserror::Error)]
pub enum EventError {
    #[error("no CloudEvent: {0}")]
    Invalid(String),
}

/// The event that a service publishes for what it stored: all of it, under the producer's `source`.
///
/// # Errors
/// If an attribute is not what CloudEvents allows.
pub fn published(source: &str, event: &Recorded) -> std::result::Result<Event, EventError> {
    let name = event.event_type.strip_prefix(TYPE_PREFIX).unwrap_or(&event.event_type);
    let schema = format!("https://rainstorm.dev/contract/{name}.schema.json");
    let mut builder = EventBuilderV10::new()
        .id(&event.id)
        .source(source)
        .ty(&event.event_type)
        .subject(&event.stream_id)
        .time(event.time.clone())
        .extension("partitionkey", event.stream_id.clone())
        .extension("sequence", format!("{:020}", event.version))
        .extension("correlationid", event.correlation_id.clone())
        .extension("causationid", event.causation_id.clone())
        .extension("traceparent", event.traceparent.clone())
        .data_with_schema("application/json", schema, event.data.clone().into_bytes());
    if !event.tracestate.is_empty() {
        builder = builder.extension("tracestate", event.tracestate.clone());
    }
    builder.build().map_err(|error| EventError::Invalid(error.to_string()))
}

/// The stored event behind a record: [`published`] the other way round, byte for byte. `None` if `record` isn't one
/// that `source` writes.
#[must_use]
pub fn published_by(source: &str, record: &Record) -> Option<Recorded> {
    let text =
        |name: &str| record.header(name).and_then(|value| std::str::from_utf8(value).ok()).map(ToOwned::to_owned);
    if record.header("ce_source") != Some(source.as_bytes()) || record.header(SPECVERSION).is_none() {
        return None;
    }
    let stream_id = text("ce_subject").filter(|subject| !subject.is_empty())?;
    Some(Recorded {
        version: text("ce_sequence")?.parse().ok().filter(|version| *version > 0)?,
        id: text("ce_id").filter(|id| !id.is_empty())?,
        event_type: text("ce_type").filter(|event_type| !event_type.is_empty())?,
        time: text("ce_time").map(|time| uniform(&time)).filter(|time| !time.is_empty())?,
        correlation_id: text("ce_correlationid")?,
        causation_id: text("ce_causationid")?,
        traceparent: text("ce_traceparent")?,
        tracestate: text("ce_tracestate").unwrap_or_default(),
        data: String::from_utf8(record.value.clone()?).ok()?,
        stream_id,
    })
}

/// Id, source and type of the event in a record, without reading the rest of it. `None` if it is no CloudEvent in binary
/// mode.
#[must_use]
pub fn heading(record: &Record) -> Option<[&str; 3]> {
    record.header(SPECVERSION)?;
    let text = |name| record.header(name).and_then(|value| std::str::from_utf8(value).ok());
    Some([text("ce_id")?, text("ce_source")?, text("ce_type")?])
}

/// An event as a service receives it.
#[derive(Debug, Clone)]
pub struct Incoming {
    pub id: String,
    pub source: String,
    pub event_type: String,
    /// The stream's id (an order's id; of menus and shifts the kitchen's or driver's).
    pub subject: String,
    /// Its version in the producer's stream, from 1; `None` if the event doesn't say.
    pub sequence: Option<i64>,
    /// RFC 3339 in UTC with microseconds, which sorts as text; empty if the event doesn't say.
    pub time: String,
    /// The order the event belongs to; the subject if the event doesn't say.
    pub correlation_id: String,
    /// The id of what caused it; empty if the event doesn't say.
    pub causation_id: String,
    pub trace: TraceContext,
    /// The span in which it is handled, where somebody collects spans.
    pub span: Span,
    /// JSON text.
    pub data: String,
    /// The whole event, for a dead letter.
    pub original: Event,
    /// Where its record stood, as far as is known.
    pub origin: Origin,
}

impl Incoming {
    /// Reads what every reaction needs to know.
    ///
    /// # Errors
    /// Why nobody could handle this event: it names no stream, or its data is no JSON text.
    pub fn read(event: Event) -> std::result::Result<Self, Box<(Event, String)>> {
        let text = |name: &str| event.extension(name).map(ToString::to_string);
        let Some(subject) = event.subject().filter(|subject| !subject.is_empty()).map(ToOwned::to_owned) else {
            return Err(Box::new((event, "the event has no subject, so it belongs to no stream".to_owned())));
        };
        let data = match event.data() {
            None => "{}".to_owned(),
            Some(Data::Json(value)) => value.to_string(),
            Some(Data::String(text)) => text.clone(),
            Some(Data::Binary(bytes)) => match String::from_utf8(bytes.clone()) {
                Ok(text) => text,
                Err(_) => return Err(Box::new((event, "the event's data is not UTF-8".to_owned()))),
            },
        };
        Ok(Self {
            id: event.id().to_owned(),
            source: event.source().to_string(),
            event_type: event.ty().to_owned(),
            sequence: text("sequence").and_then(|sequence| sequence.parse().ok()),
            time: event.time().map(|time| uniform(&time.to_rfc3339())).unwrap_or_default(),
            correlation_id: text("correlationid").unwrap_or_else(|| subject.clone()),
            causation_id: text("causationid").unwrap_or_default(),
            trace: TraceContext::read(text("traceparent").as_deref(), text("tracestate").as_deref()),
            span: Span::none(),
            subject,
            data,
            original: event,
            origin: Origin::default(),
        })
    }

    /// What the effects of this event name as their cause.
    #[must_use]
    pub fn cause(&self) -> Cause {
        Cause {
            source: self.source.clone(),
            id: self.id.clone(),
            correlation_id: Some(self.correlation_id.clone()),
            trace: TraceContext::of(&self.span).unwrap_or_else(|| self.trace.clone()),
            remembered: true,
        }
    }

    /// Begins the span in which it is handled: the next step of the story that the event belongs to. It hangs on the
    /// span in which the event happened, and is linked to the batch it came with, which belongs to many stories.
    pub fn begin(&mut self, batch: &Span) {
        let name = name_and_version(&self.event_type).map_or(self.event_type.as_str(), |(name, _)| name);
        self.span = info_span!(
            target: STORY,
            parent: None,
            "process",
            otel.name = format_args!("process {name}"),
            otel.kind = "consumer",
            messaging.system = "kafka",
            messaging.operation.name = "process",
            messaging.operation.type = "process",
            messaging.destination.name = self.origin.topic,
            messaging.destination.partition.id = self.origin.partition,
            messaging.kafka.offset = self.origin.offset,
            messaging.message.id = self.id,
            rainstorm.event.type = name,
            rainstorm.order.id = self.correlation_id,
            rainstorm.outcome = Empty,
            otel.status_code = Empty,
            otel.status_description = Empty,
        );
        if !self.span.is_disabled() {
            // It has just been made, so it has no parent yet.
            let _ = self.span.set_parent(self.trace.elsewhere());
            if let Some(batch) = TraceContext::of(batch) {
                self.span.add_link(batch.span_context());
            }
        }
    }

    /// What became of it.
    pub fn end(&self, outcome: &str, failure: Option<&str>) {
        self.span.record("rainstorm.outcome", outcome);
        if let Some(failure) = failure {
            self.span.record("otel.status_code", "ERROR");
            self.span.record("otel.status_description", failure);
        }
    }

    /// The event as its consumer reads it: an enum of its own, tagged like the producer's, with only the types and
    /// fields it needs.
    ///
    /// # Errors
    /// What doesn't fit.
    pub fn to<E: serde::de::DeserializeOwned>(&self) -> std::result::Result<E, String> {
        let name = serde_json::Value::from(self.event_type.as_str());
        serde_json::from_str(&format!(r#"{{"type":{name},"data":{}}}"#, self.data))
            .map_err(|error| format!("{} does not read: {error}", self.event_type))
    }
}

/// RFC 3339 in UTC with six digits of a second, so that it sorts as text, however the sender wrote it.
fn uniform(time: &str) -> String {
    time.parse::<jiff::Timestamp>().map(|time| format!("{time:.6}")).unwrap_or_default()
}

/// `order.placed` and `v1` of `dev.rainstorm.order.placed.v1`; `None` if the type isn't one of this system.
#[must_use]
pub fn name_and_version(event_type: &str) -> Option<(&str, &str)> {
    event_type.strip_prefix(TYPE_PREFIX)?.rsplit_once('.')
}

/// An event as a record on the log: binary mode, keyed by its partition key. The same event is always the same record.
///
/// # Errors
/// If the SDK finds an attribute that can't be written.
pub fn to_record(event: Event) -> std::result::Result<Record, EventError> {
    let key = match event.extension("partitionkey") {
        Some(ExtensionValue::String(key)) => Some(key.clone()),
        _ => event.subject().map(ToOwned::to_owned),
    };
    let trace = ["traceparent", "tracestate"].map(|name| (name, event.extension(name).map(ToString::to_string)));
    let invalid = |error: Error| EventError::Invalid(error.to_string());
    let mut record = BinaryDeserializer::deserialize_binary(event, Record::default()).map_err(invalid)?;
    for (name, value) in trace {
        record.headers.extend(value.map(|value| (name.to_owned(), value.into_bytes())));
    }
    record.headers.sort();
    record.key = key.map(String::into_bytes);
    Ok(record)
}

/// The event in a record, in binary or structured mode.
///
/// # Errors
/// If the record is no CloudEvent.
pub fn from_record(record: &Record) -> std::result::Result<Event, EventError> {
    let event = MessageDeserializer::into_event(Reading(record));
    event.map_err(|error| EventError::Invalid(error.to_string())).and_then(complete)
}

/// The event in a JSON object of structured mode. Data in base64 is taken byte for byte, also where it is JSON: the SDK
/// would keep only what that means, but a dead letter must be what came, and a repeated name or a space is part of it.
///
/// # Errors
/// If the object is no CloudEvent.
pub fn from_json(mut object: Map<String, Value>) -> std::result::Result<Event, EventError> {
    let invalid = |error: &dyn std::error::Error| EventError::Invalid(error.to_string());
    let encoded = if object.contains_key("data") { None } else { object.remove("data_base64") };
    let data = match encoded.as_ref().map(|encoded| encoded.as_str().unwrap_or("no text")) {
        Some(text) => Some(BASE64_STANDARD.decode(text).map_err(|error| invalid(&error))?),
        None => None,
    };
    let mut event: Event = serde_json::from_value(object.into()).map_err(|error| invalid(&error))?;
    if let Some(data) = data {
        event.set_data_unchecked(data);
    }
    complete(event)
}

/// The event itself, if its attributes are what CloudEvents allows (sections "Naming Conventions" and "Type System" of
/// its specification) and a store can keep: the required ones say something, and what it and its like are found by is
/// no longer than [`IDENTIFIER`]. An event that can't be kept could not even be a dead letter, and would be told again
/// for ever.
///
/// # Errors
/// Which attribute can't be taken.
pub fn complete(event: Event) -> std::result::Result<Event, EventError> {
    match unfit(&event) {
        Some(reason) => Err(EventError::Invalid(reason)),
        None => Ok(event),
    }
}

fn unfit(event: &Event) -> Option<String> {
    let required = [("id", event.id()), ("source", event.source()), ("type", event.ty())];
    if let Some((name, _)) = required.iter().find(|(_, value)| value.is_empty()) {
        return Some(format!("the attribute {name} is empty"));
    }
    let extension = |name| match event.extension(name) {
        Some(ExtensionValue::String(text)) => Some((name, text.as_str())),
        _ => None,
    };
    let found_by = ["partitionkey", "correlationid", "causationid"].into_iter().filter_map(extension);
    let mut found_by = required.into_iter().chain(event.subject().map(|subject| ("subject", subject))).chain(found_by);
    if let Some((name, _)) = found_by.find(|(_, value)| value.len() > IDENTIFIER) {
        return Some(format!("the attribute {name} is longer than 1,000 bytes"));
    }
    let is_name = |name: &str| name.bytes().all(|it| it.is_ascii_lowercase() || it.is_ascii_digit());
    // In JSON, which a dead letter is kept as, one called `data` would be taken for the data.
    let is_none = |name: &str| name.is_empty() || !is_name(name) || name == "data";
    if let Some((name, _)) = event.iter_extensions().find(|(name, _)| is_none(name)) {
        return Some(format!("{name:?} is no name of an attribute"));
    }
    let optional = [("subject", event.subject()), ("datacontenttype", event.datacontenttype())];
    let extensions = event.iter_extensions().map(|(name, value)| match value {
        // What a service answered whoever knocked, as Knative quotes it: it may have lines.
        ExtensionValue::String(text) => (name, Some(text.as_str()).filter(|_| name != "knativeerrordata")),
        ExtensionValue::Boolean(_) | ExtensionValue::Integer(_) => (name, None),
    });
    let texts = required.map(|(name, value)| (name, Some(value))).into_iter().chain(optional).chain(extensions);
    let control = |text: &str| text.chars().any(char::is_control);
    let mut wrong = texts.filter(|(_, text)| text.is_some_and(control));
    wrong.next().map(|(name, _)| format!("the attribute {name} has a control character in it"))
}

impl BinarySerializer<Record> for Record {
    fn set_spec_version(mut self, version: SpecVersion) -> Result<Self> {
        self.headers.push((SPECVERSION.to_owned(), version.to_string().into_bytes()));
        Ok(self)
    }

    fn set_attribute(mut self, name: &str, value: MessageAttributeValue) -> Result<Self> {
        let name = if name == "datacontenttype" { CONTENT_TYPE.to_owned() } else { format!("ce_{name}") };
        self.headers.push((name, value.to_string().into_bytes()));
        Ok(self)
    }

    fn set_extension(self, name: &str, value: MessageAttributeValue) -> Result<Self> {
        self.set_attribute(name, value)
    }

    fn end_with_data(mut self, bytes: Vec<u8>) -> Result<Record> {
        self.value = Some(bytes);
        Ok(self)
    }

    fn end(self) -> Result<Record> {
        Ok(self)
    }
}

struct Reading<'a>(&'a Record);

fn utf8(bytes: &[u8]) -> Result<String> {
    String::from_utf8(bytes.to_vec()).map_err(|error| Error::Other { source: Box::new(error) })
}

impl BinaryDeserializer for Reading<'_> {
    fn deserialize_binary<R: Sized, V: BinarySerializer<R>>(self, mut visitor: V) -> Result<R> {
        let version = SpecVersion::try_from(utf8(self.0.header(SPECVERSION).unwrap_or_default())?.as_str())?;
        let attributes = version.attribute_names();
        visitor = visitor.set_spec_version(version)?;
        for (name, value) in &self.0.headers {
            let value = || utf8(value).map(MessageAttributeValue::String);
            visitor = match name.strip_prefix("ce_") {
                None if name == CONTENT_TYPE => visitor.set_attribute("datacontenttype", value()?)?,
                None | Some("specversion") => visitor,
                Some(name) if attributes.contains(&name) => visitor.set_attribute(name, value()?)?,
                Some(name) => visitor.set_extension(name, value()?)?,
            };
        }
        match &self.0.value {
            Some(data) => visitor.end_with_data(data.clone()),
            None => visitor.end(),
        }
    }
}

impl StructuredDeserializer for Reading<'_> {
    fn deserialize_structured<R: Sized, V: StructuredSerializer<R>>(self, visitor: V) -> Result<R> {
        visitor.set_structured_event(self.0.value.clone().unwrap_or_default())
    }
}

impl MessageDeserializer for Reading<'_> {
    fn encoding(&self) -> Encoding {
        let structured = self.0.header(CONTENT_TYPE).is_some_and(|value| value.starts_with(STRUCTURED.as_bytes()));
        match (structured, self.0.header(SPECVERSION)) {
            (true, _) => Encoding::STRUCTURED,
            (false, Some(_)) => Encoding::BINARY,
            (false, None) => Encoding::UNKNOWN,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored() -> Recorded {
        Recorded {
            stream_id: "019a0000-0000-7000-8000-000000000001".into(),
            version: 3,
            id: "019a0000-0000-7000-8000-0000000000ff".into(),
            event_type: "dev.rainstorm.order.completed.v1".into(),
            time: "2026-11-24T09:00:00.123456Z".into(),
            correlation_id: "019a0000-0000-7000-8000-000000000001".into(),
            causation_id: "cause".into(),
            traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into(),
            tracestate: "a=1".into(),
            data: r#"{"z":1,"a":[2]}"#.into(),
        }
    }

    #[test]
    fn a_stored_event_is_the_same_record_each_time_and_reads_back_as_it_was() {
        let record = to_record(published("/orders", &stored()).unwrap()).unwrap();
        for _ in 0..20 {
            assert_eq!(to_record(published("/orders", &stored()).unwrap()).unwrap(), record);
        }
        assert_eq!(record.key.as_deref(), Some(stored().stream_id.as_bytes()));
        assert_eq!(record.value.as_deref(), Some(stored().data.as_bytes()));
        assert_eq!(record.header("ce_sequence"), Some(&b"00000000000000000003"[..]));
        assert_eq!(record.header("traceparent"), Some(stored().traceparent.as_bytes()));

        let read = Incoming::read(from_record(&record).unwrap()).unwrap();
        assert_eq!((read.id, read.sequence, read.data), (stored().id, Some(3), stored().data));
        assert_eq!((read.time, read.causation_id), (stored().time, "cause".into()));
    }

    #[test]
    fn data_that_was_kept_as_json_is_still_what_came_byte_for_byte() {
        for data in [r#"{"a": 1, "a":2.50}"#, "{}", "not JSON", "\u{0}"] {
            let stored = Recorded { data: data.into(), ..stored() };
            let event = published("/orders", &stored).unwrap();
            let Value::Object(kept) = serde_json::to_value(&event).unwrap() else { panic!("an object") };
            let read = from_json(kept).unwrap();
            assert_eq!(to_record(read).unwrap(), to_record(event).unwrap(), "{data}");
        }
    }

    #[test]
    fn what_was_published_is_read_back_as_it_was_stored() {
        let record = to_record(published("/orders", &stored()).unwrap()).unwrap();
        assert_eq!(published_by("/orders", &record), Some(stored()));
        assert_eq!(heading(&record), Some([&*stored().id, "/orders", &*stored().event_type]));
        assert_eq!(published_by("/payments", &record), None, "it is somebody else's");
        for missing in ["ce_specversion", "ce_id", "ce_type", "ce_subject", "ce_sequence", "ce_time"] {
            let mut broken = record.clone();
            broken.headers.retain(|(name, _)| name != missing);
            assert_eq!(published_by("/orders", &broken), None, "{missing}");
        }
        assert_eq!((published_by("/orders", &Record::default()), heading(&Record::default())), (None, None));
    }

    #[test]
    fn a_record_without_the_required_attributes_is_no_cloud_event() {
        let record = to_record(published("/orders", &stored()).unwrap()).unwrap();
        for missing in ["ce_specversion", "ce_id", "ce_source", "ce_type"] {
            let mut broken = record.clone();
            broken.headers.retain(|(name, _)| name != missing);
            assert!(from_record(&broken).is_err(), "{missing}");
        }
        assert!(from_record(&Record { value: Some(b"garbage".to_vec()), ..Record::default() }).is_err());
        assert!(from_record(&Record::default()).is_err());
    }

    #[test]
    fn an_attribute_that_would_be_taken_for_the_data_makes_it_no_cloud_event() {
        let record = to_record(published("/orders", &stored()).unwrap()).unwrap();
        for name in ["ce_data", "ce_data_base64"] {
            let mut odd = record.clone();
            odd.headers.push((name.to_owned(), b"x".to_vec()));
            assert!(from_record(&odd).unwrap_err().to_string().contains(&name[3..]));
        }
    }

    #[test]
    fn an_identifier_that_no_store_can_keep_makes_it_no_cloud_event() {
        let record = to_record(published("/orders", &stored()).unwrap()).unwrap();
        for name in ["ce_id", "ce_source", "ce_type", "ce_subject", "ce_correlationid", "ce_causationid"] {
            for text in ["a\0b", "\n", &"x".repeat(IDENTIFIER + 1)] {
                let mut odd = record.clone();
                odd.headers.iter_mut().filter(|(known, _)| known == name).for_each(|it| it.1 = text.into());
                let reason = from_record(&odd).unwrap_err().to_string();
                assert!(reason.contains(&name[3..]), "{name}: {reason}");
            }
        }
    }
}
