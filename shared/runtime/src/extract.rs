//! Extractors that answer bad input with [`Problem`]s instead of plain text.

use axum::{
    body::Bytes,
    extract::{FromRequest, FromRequestParts, Path, Query, Request, rejection::BytesRejection},
    http::{StatusCode, header, request::Parts},
};
use serde::de::DeserializeOwned;
use tower_http::timeout::TimeoutError;

use crate::problem::{FieldError, Problem};

/// A JSON body. Unknown fields are ignored; a wrong one is named in the answer.
pub struct JsonBody<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for JsonBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let media_type = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let media_type = media_type.unwrap_or_default().split(';').next().unwrap_or_default().trim();
        if !media_type.eq_ignore_ascii_case("application/json") {
            let detail = "send the command as JSON, with Content-Type: application/json";
            return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail));
        }
        let RawBody(body) = RawBody::from_request(request, state).await?;
        let text = std::str::from_utf8(&body).map_err(|_| Problem::bad_request("the body is not UTF-8"))?;
        let json = &mut serde_json::Deserializer::from_str(text);
        let value = serde_path_to_error::deserialize(&mut *json).map_err(|error| {
            let field = error.path().to_string();
            let inner = error.into_inner();
            if inner.is_data() {
                Problem::invalid(vec![FieldError::new(field, reason(&inner))])
            } else {
                Problem::bad_request(format!("the body is not JSON: {inner}"))
            }
        })?;
        json.end().map_err(|error| Problem::bad_request(format!("the body is not one JSON value: {error}")))?;
        Ok(Self(value))
    }
}

/// What serde says, without the place in the text: the field's path says it better.
fn reason(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.split(" at line ").next().unwrap_or(&text).to_owned()
}

/// The body as it came.
pub struct RawBody(pub Bytes);

impl<S: Send + Sync> FromRequest<S> for RawBody {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let unreadable = |rejection: BytesRejection| match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "the body is too large"),
            _ if took_too_long(&rejection) => {
                Problem::new(StatusCode::REQUEST_TIMEOUT, "the body did not come to its end in time")
            }
            _ => Problem::bad_request("the body could not be read to its end"),
        };
        Bytes::from_request(request, state).await.map(Self).map_err(unreadable)
    }
}

/// Whether the server's limit lies at the bottom of this.
fn took_too_long(error: &(dyn std::error::Error + 'static)) -> bool {
    error.is::<TimeoutError>() || error.source().is_some_and(took_too_long)
}

/// The parameters in the path.
pub struct PathParams<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for PathParams<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match Path::from_request_parts(parts, state).await {
            Ok(Path(value)) => Ok(Self(value)),
            Err(rejection) => Err(Problem::bad_request(rejection.body_text())),
        }
    }
}

/// The parameters behind the `?`.
pub struct QueryParams<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for QueryParams<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match Query::from_request_parts(parts, state).await {
            Ok(Query(value)) => Ok(Self(value)),
            Err(rejection) => Err(Problem::bad_request(rejection.body_text())),
        }
    }
}
