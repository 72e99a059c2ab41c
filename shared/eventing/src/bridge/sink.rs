//! Where a bridge knocks: at a door on the network, or at one in its own process; and how an event is told there.

use std::time::Duration;

use async_trait::async_trait;
use axum::{Router, body::Body, http::Request};
use cloudevents::Event;
use http_body_util::BodyExt;
use tower::ServiceExt;

use crate::{request::HandedOver, to_record};

/// How long a service may take for one request. Longer than any handler of ours; a zombie is given up on.
const PATIENCE: Duration = Duration::from_secs(60);

/// Attributes, and bytes of them, that go in headers: servers take no more than some.
const IN_HEADERS: (usize, usize) = (60, 16 * 1024);

/// A door.
#[async_trait]
pub trait Sink: Send + Sync + 'static {
    /// Posts a body with these headers and returns the status and what was said; an error if nobody answered.
    async fn post(&self, headers: Headers, body: Vec<u8>) -> Result<(u16, String), String>;

    /// Posts one event in binary mode, or several as a batch.
    async fn tell(&self, events: Vec<Event>) -> Result<(u16, String), String> {
        match request(&events) {
            Ok((headers, body)) => self.post(headers, body).await,
            Err(reason) => Ok((400, reason)),
        }
    }
}

/// Names and values.
pub type Headers = Vec<(String, String)>;

/// One event in binary mode, as KafkaSource sends it; several as a batch.
fn request(events: &[Event]) -> Result<(Headers, Vec<u8>), String> {
    let content_type = |media_type: &str| vec![("content-type".to_owned(), media_type.to_owned())];
    let json = |error: serde_json::Error| error.to_string();
    let [one] = events else {
        let body = serde_json::to_vec(events).map_err(json)?;
        return Ok((content_type("application/cloudevents-batch+json"), body));
    };
    let record = to_record(one.clone()).map_err(|error| error.to_string())?;
    let fits = |value: &[u8]| value.iter().all(|byte| (b' '..=b'~').contains(byte)) && value.trim_ascii() == value;
    let bytes: usize = record.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    let too_many = record.headers.len() > IN_HEADERS.0 || bytes > IN_HEADERS.1;
    if too_many || record.headers.iter().any(|(_, value)| !fits(value)) {
        // A header can't carry every text; the JSON of structured mode can.
        return Ok((content_type("application/cloudevents+json"), serde_json::to_vec(one).map_err(json)?));
    }
    let header = |(name, value): (String, Vec<u8>)| {
        (name.replacen("ce_", "ce-", 1), String::from_utf8_lossy(&value).into_owned())
    };
    Ok((record.headers.into_iter().map(header).collect(), record.value.unwrap_or_default()))
}

/// A door on the network.
pub struct HttpSink {
    client: reqwest::Client,
    url: reqwest::Url,
}

impl HttpSink {
    /// The door at `url`, with its path.
    ///
    /// # Errors
    /// If no client can be made.
    pub fn new(url: reqwest::Url) -> Result<Self, String> {
        let client = crate::http::client().timeout(PATIENCE).build();
        Ok(Self { client: client.map_err(|error| error.to_string())?, url })
    }
}

#[async_trait]
impl Sink for HttpSink {
    async fn post(&self, headers: Headers, body: Vec<u8>) -> Result<(u16, String), String> {
        let request = self.client.post(self.url.clone()).body(body);
        let request = headers.into_iter().fold(request, |request, (name, value)| request.header(name, value));
        let response = request.send().await.map_err(|error| error.to_string())?;
        let status = response.status().as_u16();
        Ok((status, response.text().await.unwrap_or_default()))
    }
}

/// A service and where its door is, of `SERVICE=URL`.
///
/// # Errors
/// What is wrong with the text.
pub fn named_url(text: &str) -> Result<(&str, reqwest::Url), &'static str> {
    let (service, url) =
        text.split_once('=').filter(|(service, _)| !service.is_empty()).ok_or("must be SERVICE=URL")?;
    let url: reqwest::Url = url.parse().map_err(|_| "must be an http:// URL")?;
    if url.scheme() == "http" { Ok((service, url)) } else { Err("must be an http:// URL") }
}

/// A door in this process, `/events` of its router.
pub struct RouterSink(pub Router);

impl RouterSink {
    async fn ask(&self, request: Request<Body>) -> Result<(u16, String), String> {
        let answer = async {
            let response = self.0.clone().oneshot(request).await.map_err(|error| error.to_string())?;
            let status = response.status().as_u16();
            let body = response.into_body().collect().await.map_err(|error| error.to_string())?;
            Ok((status, String::from_utf8_lossy(&body.to_bytes()).into_owned()))
        };
        let silent = |_| Err(format!("no answer within {} s", PATIENCE.as_secs()));
        tokio::time::timeout(PATIENCE, answer).await.unwrap_or_else(silent)
    }
}

#[async_trait]
impl Sink for RouterSink {
    async fn post(&self, headers: Headers, body: Vec<u8>) -> Result<(u16, String), String> {
        let request = Request::post("/events");
        let request = headers.into_iter().fold(request, |request, (name, value)| request.header(name, value));
        self.ask(request.body(Body::from(body)).map_err(|error| error.to_string())?).await
    }

    /// Nothing is gained by writing down for a door in the same process what it would only read again.
    async fn tell(&self, events: Vec<Event>) -> Result<(u16, String), String> {
        let request = Request::post("/events").extension(HandedOver(events));
        self.ask(request.body(Body::empty()).map_err(|error| error.to_string())?).await
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::post;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_door_in_this_process_that_never_answers_is_given_up_on_as_one_elsewhere_is() {
        let silent = Router::new().route("/events", post(std::future::pending::<()>));
        let begun = tokio::time::Instant::now();
        let answer = RouterSink(silent).post(vec![], vec![]).await;
        assert!(answer.is_err_and(|reason| reason.contains("no answer")));
        assert_eq!(begun.elapsed(), PATIENCE);
    }
}
