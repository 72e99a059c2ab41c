//! Events over HTTP (<https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/http-protocol-binding.md>):
//! how they are read from a request, and what they look like to whoever reads the documentation.

use axum::{
    extract::{FromRequest, Request},
    http::{HeaderMap, header},
};
use cloudevents::Event;
use runtime::{Problem, extract::RawBody};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::{IntoParams, ToSchema};

use crate::{EventError, complete, event::STRUCTURED, from_json};

const BATCH: &str = "application/cloudevents-batch+json";

/// Events that come in a request beside its body, from somebody in the same process.
#[derive(Clone)]
pub struct HandedOver(pub Vec<Event>);

/// What a request tells of.
pub struct Told(pub Vec<Event>);

impl<S: Send + Sync> FromRequest<S> for Told {
    type Rejection = Problem;

    async fn from_request(mut request: Request, state: &S) -> Result<Self, Problem> {
        if let Some(HandedOver(events)) = request.extensions_mut().remove() {
            return Ok(Self(events));
        }
        let headers = request.headers().clone();
        let RawBody(body) = RawBody::from_request(request, state).await?;
        events_of(&headers, &body).map(Self).map_err(|error| Problem::bad_request(error.to_string()))
    }
}

/// The events of a request, in binary, structured or batch mode.
///
/// # Errors
/// If one of them is no CloudEvent.
pub fn events_of(headers: &HeaderMap, body: &[u8]) -> Result<Vec<Event>, EventError> {
    let media_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let invalid = |error: serde_json::Error| EventError::Invalid(error.to_string());
    if media_type.starts_with(BATCH) {
        let events: Vec<Map<String, Value>> = serde_json::from_slice(body).map_err(invalid)?;
        events.into_iter().map(from_json).collect()
    } else if media_type.starts_with(STRUCTURED) {
        Ok(vec![from_json(serde_json::from_slice(body).map_err(invalid)?)?])
    } else {
        let event = cloudevents::binding::http::to_event(headers, body.to_vec());
        Ok(vec![complete(event.map_err(|error| EventError::Invalid(error.to_string()))?)?])
    }
}

/// In binary mode, the attributes of the one event.
#[derive(IntoParams, Deserialize)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "documentation; the headers are read by the CloudEvents SDK")]
pub struct Attributes {
    #[serde(rename = "ce-specversion")]
    #[param(example = "1.0")]
    specversion: Option<String>,
    #[serde(rename = "ce-id")]
    id: Option<String>,
    #[serde(rename = "ce-source")]
    #[param(example = "/orders")]
    source: Option<String>,
    #[serde(rename = "ce-type")]
    #[param(example = "dev.rainstorm.order.placed.v1")]
    event_type: Option<String>,
    #[serde(rename = "ce-subject")]
    subject: Option<String>,
}

/// A CloudEvent in JSON. Further attributes are extensions.
#[derive(ToSchema, Serialize)]
pub struct CloudEvent {
    #[schema(example = "1.0")]
    specversion: String,
    #[schema(min_length = 1)]
    id: String,
    #[schema(example = "/orders", min_length = 1)]
    source: String,
    #[serde(rename = "type")]
    #[schema(example = "dev.rainstorm.order.placed.v1", min_length = 1)]
    event_type: String,
    /// The stream it belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    datacontenttype: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Value>,
}
