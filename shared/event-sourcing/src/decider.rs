//! The shape of every domain in Rainstorm: a state that is folded from events, and a decision that turns a command
//! into new ones. Both functions are pure, so a domain is tested without a database, a clock or a network.

use serde::{Serialize, de::DeserializeOwned};

/// One stream's state and the rules that guard it: `decide` says what happens, `evolve` says what that means.
///
/// The default value is the state of a stream without events.
pub trait Decider: Default + Clone + Send + Sync + 'static {
    /// What happened; stored as it is and published as it is.
    type Event: DomainEvent;
    /// What somebody asks for. Time, ids and everything else that isn't in the state come in with it.
    type Command: Send;
    /// Why a command is refused: a value for whoever asked, not an event.
    type Rejection: std::error::Error + Send + Sync + 'static;

    /// Whether each event says everything there is to know, so that only the newest has to be read.
    const EACH_EVENT_IS_COMPLETE: bool = false;

    /// Folds one event into the state. It can't fail: what is stored has happened.
    #[must_use]
    fn evolve(self, event: Self::Event) -> Self;

    /// The events that follow from `command` in this state: none if it has nothing (more) to do.
    ///
    /// # Errors
    /// A rejection, if the rules of the domain forbid it now.
    fn decide(&self, command: Self::Command) -> Result<Vec<Self::Event>, Self::Rejection>;

    /// The state after `events`, from the beginning.
    #[must_use]
    fn fold(events: impl IntoIterator<Item = Self::Event>) -> Self {
        events.into_iter().fold(Self::default(), Self::evolve)
    }
}

/// An event's data as it stands in the store and on the wire.
///
/// An implementation is an enum that serde tags from outside, `#[serde(tag = "type", content = "data")]`, with each
/// variant renamed to its full CloudEvents type (`dev.rainstorm.order.placed.v1`). **These names are what is stored.**
/// Every variant has braces, if empty ones, so that `data` is always a JSON object.
pub trait DomainEvent:
    Serialize + DeserializeOwned + Clone + PartialEq + std::fmt::Debug + Send + Sync + 'static
{
    /// Rewrites a stored event of an older version, `(type, data)`, into the version this enum knows.
    /// The upcaster stands here, beside the type that changed.
    #[must_use]
    fn upcast(event_type: String, data: String) -> (String, String) {
        (event_type, data)
    }
}

/// An event that does not read as its enum says, or can't be written.
#[derive(Debug, thiserror::Error)]
#[error("event of type {event_type} is not what this version of the service understands: {source}")]
pub struct MalformedEvent {
    event_type: String,
    source: serde_json::Error,
}

/// An event as `(type, data)`, the data as the JSON text that is stored, published and never written again.
///
/// # Errors
/// If the enum isn't of the shape that [`DomainEvent`] asks for.
pub fn encode<E: DomainEvent>(event: &E) -> Result<(String, String), MalformedEvent> {
    #[derive(serde::Deserialize)]
    struct Tagged {
        #[serde(rename = "type")]
        event_type: String,
        data: Box<serde_json::value::RawValue>,
    }
    let malformed = |source| MalformedEvent { event_type: std::any::type_name::<E>().to_owned(), source };
    let text = serde_json::to_string(event).map_err(malformed)?;
    let tagged: Tagged = serde_json::from_str(&text).map_err(malformed)?;
    Ok((tagged.event_type, tagged.data.get().to_owned()))
}

/// The event that `(type, data)` stands for.
///
/// # Errors
/// If the type is unknown, even after upcasting, or the data doesn't fit it.
pub fn decode<E: DomainEvent>(event_type: &str, data: &str) -> Result<E, MalformedEvent> {
    let (event_type, data) = E::upcast(event_type.to_owned(), data.to_owned());
    let malformed = |source| MalformedEvent { event_type: event_type.clone(), source };
    let name = serde_json::to_string(&event_type).map_err(malformed)?;
    serde_json::from_str(&format!(r#"{{"type":{name},"data":{data}}}"#)).map_err(malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
    #[serde(tag = "type", content = "data")]
    enum Light {
        #[serde(rename = "light.switched_on.v1")]
        SwitchedOn { watts: u32 },
        #[serde(rename = "light.switched_off.v1")]
        SwitchedOff {},
    }
    impl DomainEvent for Light {
        fn upcast(event_type: String, data: String) -> (String, String) {
            match event_type.as_str() {
                "light.lit.v1" => ("light.switched_on.v1".into(), r#"{"watts":60}"#.into()),
                _ => (event_type, data),
            }
        }
    }

    #[test]
    fn an_event_is_stored_under_its_full_type_with_an_object_as_data() {
        let on = encode(&Light::SwitchedOn { watts: 40 }).unwrap();
        assert_eq!(on, ("light.switched_on.v1".into(), r#"{"watts":40}"#.into()));
        let off = encode(&Light::SwitchedOff {}).unwrap();
        assert_eq!(off, ("light.switched_off.v1".into(), "{}".into()));
    }

    #[test]
    fn an_event_reads_back_also_from_an_older_version_and_with_fields_nobody_knows() {
        let read = |event_type, data| decode::<Light>(event_type, data).unwrap();
        assert_eq!(read("light.switched_on.v1", r#"{"watts":40,"colour":"warm"}"#), Light::SwitchedOn { watts: 40 });
        assert_eq!(read("light.lit.v1", "null"), Light::SwitchedOn { watts: 60 });
        assert!(decode::<Light>("light.switched_on.v2", "{}").unwrap_err().to_string().contains("switched_on.v2"));
    }
}
