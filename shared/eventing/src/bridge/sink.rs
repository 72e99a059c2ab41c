//! Where a bridge knocks: at a door on the network, or at one in its own process.

use std::time::Duration;

use async_trait::async_trait;
use axum::{Router, body::Body, http::Request};
use http_body_util::BodyExt;
use tower::ServiceExt;

/// How long a service may take for one request. Longer than any handler of ours; a zombie is given up on.
const PATIENCE: Duration = Duration::from_secs(60);

/// A door.
#[async_trait]
pub trait Sink: Send + Sync + 'static {
    /// Posts a body with these headers and returns the status and what was said; an error if nobody answered.
    async fn post(&self, headers: Vec<(String, String)>, body: Vec<u8>) -> Result<(u16, String), String>;
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
    async fn post(&self, headers: Vec<(String, String)>, body: Vec<u8>) -> Result<(u16, String), String> {
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

#[async_trait]
impl Sink for RouterSink {
    async fn post(&self, headers: Vec<(String, String)>, body: Vec<u8>) -> Result<(u16, String), String> {
        let request = Request::post("/events");
        let request = headers.into_iter().fold(request, |request, (name, value)| request.header(name, value));
        let request = request.body(Body::from(body)).map_err(|error| error.to_string())?;
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
