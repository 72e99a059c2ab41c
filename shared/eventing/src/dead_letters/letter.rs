//! A dead letter, and the three kinds of record that stand on a topic of dead letters.

use cloudevents::{AttributesReader, Event, EventBuilder, EventBuilderV10, event::ExtensionValue};
use event_sourcing::{TraceContext, new_id, now};
use serde::{Deserialize, Serialize};

use crate::{
    EventError, Failure, Incoming, NOT_A_CLOUD_EVENT,
    log::Record,
    origin::{IN_A_LETTER, Origin},
    to_record,
};

/// The type of the wish that a letter be handed to its service again, with what waits behind it.
pub const REDELIVERY_REQUESTED: &str = "dev.rainstorm.dead_letter.redelivery_requested.v1";
/// The type of the wish that a letter be given up, and what waits behind it go on.
pub const DISCARD_REQUESTED: &str = "dev.rainstorm.dead_letter.discard_requested.v1";

/// A reason is for people; an error's text may be as long as the event.
const REASON: usize = 1000;

/// A reason that people can read, databases keep and headers carry.
pub(super) fn legible(reason: &str) -> String {
    reason.chars().take(REASON).map(|it| if it.is_control() { ' ' } else { it }).collect()
}

/// What has become of a letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It could not be handled.
    Failed,
    /// It is itself healthy, and waits for another of its subject.
    Parked,
    /// It was handled after all.
    Redelivered,
    /// Somebody decided that it never will be handled.
    Discarded,
}

impl State {
    /// As it is written.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Parked => "parked",
            Self::Redelivered => "redelivered",
            Self::Discarded => "discarded",
        }
    }

    /// The state of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        [Self::Failed, Self::Parked, Self::Redelivered, Self::Discarded].into_iter().find(|it| it.name() == name)
    }

    /// Whether later events of its subject wait for it.
    #[must_use]
    pub fn is_open(self) -> bool {
        matches!(self, Self::Failed | Self::Parked)
    }
}

/// An event that is not going to be handled now, and why.
#[derive(Debug, Clone)]
pub struct DeadLetter {
    /// As it came.
    pub event: Event,
    /// The stream that waits; empty if none does.
    pub subject: String,
    pub origin: Origin,
    pub state: State,
    /// For people.
    pub reason: String,
    /// How often it was tried.
    pub attempts: i64,
    /// When it came into its state; RFC 3339 in UTC with microseconds. Empty if it isn't written down yet.
    pub time: String,
    /// Its place among the letters of its service.
    pub position: i64,
}

impl DeadLetter {
    /// An event that can't be handled.
    #[must_use]
    pub fn failed(event: Event, origin: Origin, reason: &str, attempts: i64) -> Self {
        let subject = if event.ty() == NOT_A_CLOUD_EVENT { "" } else { event.subject().unwrap_or_default() };
        let (subject, reason, time) = (subject.to_owned(), legible(reason), String::new());
        Self { event, subject, origin, state: State::Failed, reason, attempts, time, position: 0 }
    }

    /// An event that waits.
    #[must_use]
    pub fn parked(event: Incoming) -> Self {
        let reason = "it waits behind a dead letter of its subject";
        Self { state: State::Parked, ..Self::failed(event.original, event.origin, reason, 0) }
    }

    /// Its source and id.
    #[must_use]
    pub fn key(&self) -> [String; 2] {
        [self.event.source().to_string(), self.event.id().to_owned()]
    }

    /// The stream that waits; empty if none does.
    #[must_use]
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// The letter as it stands on the topic of `service`.
    ///
    /// # Errors
    /// If the event can't be written as a record.
    pub fn record(self, service: &str) -> Result<Record, Failure> {
        let mut event = self.event;
        self.origin.put(&mut event, &IN_A_LETTER);
        event.set_extension("deadletterservice", service.to_owned());
        event.set_extension("deadletterstate", self.state.name().to_owned());
        event.set_extension("deadletterreason", self.reason);
        event.set_extension("deadletterattempts", self.attempts);
        event.set_extension("deadlettertime", self.time);
        event.set_extension("deadletterposition", self.position);
        to_record(event).map_err(|error| Failure::Never(error.to_string()))
    }

    /// The letter that a record in a state tells of.
    #[must_use]
    pub fn read(mut event: Event) -> Option<Self> {
        let mut text = |name: &str| event.remove_extension(name).map(|value| value.to_string());
        text("deadletterservice")?;
        let state = State::named(&text("deadletterstate")?)?;
        let reason = text("deadletterreason").unwrap_or_default();
        let mut number = |name: &str| text(name).and_then(|number| number.parse().ok()).unwrap_or_default();
        let (attempts, position) = (number("deadletterattempts"), number("deadletterposition"));
        let time = text("deadlettertime").unwrap_or_default();
        let origin = Origin::take(&mut event, &IN_A_LETTER);
        Some(Self { state, time, position, ..Self::failed(event, origin, &reason, attempts) })
    }

    /// What a bridge or Knative put there, because the service could not be told of it.
    #[must_use]
    pub fn refused(mut event: Event) -> Self {
        let mut text = |name: &str| event.remove_extension(name).map(|value| value.to_string()).unwrap_or_default();
        let (_, code, said) = (text("knativeerrordest"), text("knativeerrorcode"), text("knativeerrordata"));
        let origin = Origin::take(&mut event, &IN_A_LETTER);
        let reason = format!("the service could not be told of it; it answered {code} {said}");
        Self::failed(event, origin, reason.trim(), 1)
    }
}

/// What a record on a topic of dead letters is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// A letter in a state.
    Letter,
    /// Refused on the way.
    Refused,
    /// What somebody wishes of a letter.
    Wish,
}

/// What this record is; `None`: none of that.
#[must_use]
pub fn hear(event: &Event) -> Option<Heard> {
    if event.extension("deadletterservice").is_some() {
        Some(Heard::Letter)
    } else if event.extension("knativeerrordest").is_some() {
        Some(Heard::Refused)
    } else {
        [REDELIVERY_REQUESTED, DISCARD_REQUESTED].contains(&event.ty()).then_some(Heard::Wish)
    }
}

/// The wish that `letter` be redelivered or discarded; `event_type` says which.
///
/// # Errors
/// If no event can be made of it.
pub fn wish(event_type: &str, letter: &DeadLetter) -> Result<Event, EventError> {
    let event = &letter.event;
    let subject = event.subject().unwrap_or(event.id()).to_owned();
    let key = match event.extension("partitionkey") {
        Some(ExtensionValue::String(key)) => key.clone(),
        _ => subject.clone(),
    };
    let mut builder = EventBuilderV10::new()
        .id(new_id().to_string())
        .source("/dead-letters")
        .ty(event_type)
        .subject(subject)
        .time(now().to_string())
        .extension("partitionkey", key)
        .extension("traceparent", TraceContext::new().traceparent())
        .data(
            "application/json",
            serde_json::json!(Named { source: event.source().clone(), id: event.id().to_owned() }),
        );
    if let Some(story) = event.extension("correlationid") {
        builder = builder.extension("correlationid", story.to_string());
    }
    builder.build().map_err(|error| EventError::Invalid(error.to_string()))
}

#[derive(Serialize, Deserialize)]
struct Named {
    source: String,
    id: String,
}

/// Source and id of the letter that a wish is about.
#[must_use]
pub fn named_by(wish: &Event) -> Option<[String; 2]> {
    let data = Incoming::read(wish.clone()).ok()?.data;
    let Named { source, id } = serde_json::from_str(&data).ok()?;
    Some([source, id])
}
