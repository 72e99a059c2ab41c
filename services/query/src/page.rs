//! The live page, and the ways from it to whoever observes and operates: the page asks only where it came from.

use axum::{
    Json, Router,
    body::Body,
    extract::{Path, Request, State},
    http::{HeaderName, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use runtime::Problem;
use serde_json::{Value, json};

/// What the page may do: nothing that isn't its own, and nobody may put it into a frame.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
    connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// A file of the page: its name and what is in it.
type File = (&'static str, &'static str);

macro_rules! files {
    ($($name:literal),* $(,)?) => { [$(($name, include_str!(concat!("../page/", $name)))),*] };
}

/// Everything in `page/`.
const FILES: &[File] = &files![
    "anatomy.js",
    "ask.js",
    "boards.js",
    "charts.js",
    "dom.js",
    "feed.js",
    "icon.svg",
    "index.html",
    "main.js",
    "narrate.js",
    "operator.js",
    "order.js",
    "organism.js",
    "panel.js",
    "pulses.js",
    "ring.js",
    "stats.js",
    "style.css",
    "table.js",
    "waterfall.js",
    "words.js",
];

/// Where the page's live facts come from, beside the views.
#[derive(Debug, Clone, Default)]
pub struct Ways {
    /// `rainstorm observe`.
    pub observer: Option<String>,
    /// An observer that lets people operate.
    pub operator: Option<String>,
    /// Where a trace is shown, with `{trace_id}` in it.
    pub traces: Option<String>,
    client: reqwest::Client,
}

impl Ways {
    /// To these addresses.
    #[must_use]
    pub fn new(observer: Option<String>, operator: Option<String>, traces: Option<String>) -> Self {
        let bare = |url: String| url.trim_end_matches('/').to_owned();
        let client = eventing::http::client().build().unwrap_or_default();
        Self { observer: observer.map(bare), operator: operator.map(bare), traces, client }
    }
}

/// The page and what it needs.
pub fn routes(ways: Ways) -> Router {
    Router::new()
        .route("/", get(|| async { file("index.html") }))
        .route("/page/{file}", get(|Path(name): Path<String>| async move { file(&name) }))
        .route("/page/settings.json", get(settings))
        .route("/organism", get(organism))
        .route("/operator/{*what}", post(operate))
        .with_state(ways)
}

fn file(name: &str) -> Response {
    let Some((name, text)) = FILES.iter().find(|(known, _)| *known == name) else {
        return Problem::not_found("the page has no such file").into_response();
    };
    let media_type = match name.rsplit_once('.') {
        Some((_, "html")) => "text/html; charset=utf-8",
        Some((_, "css")) => "text/css; charset=utf-8",
        Some((_, "svg")) => "image/svg+xml",
        _ => "text/javascript; charset=utf-8",
    };
    let headers: [(HeaderName, &str); 6] = [
        (header::CONTENT_TYPE, media_type),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::CACHE_CONTROL, "no-cache"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    ];
    (headers, *text).into_response()
}

async fn settings(State(ways): State<Ways>) -> Json<Value> {
    Json(json!({"traces": ways.traces}))
}

/// The observer's pictures, passed on.
async fn organism(State(ways): State<Ways>) -> Result<Response, Problem> {
    let Some(observer) = &ways.observer else {
        return Err(Problem::not_found("nobody observes here; OBSERVER_URL says where somebody does"));
    };
    pass_on(ways.client.get(format!("{observer}/organism"))).await
}

/// What a person wants done, passed on: this service itself changes nothing.
async fn operate(State(ways): State<Ways>, Path(what): Path<String>, request: Request) -> Result<Response, Problem> {
    let Some(operator) = &ways.operator else {
        return Err(Problem::not_found("nobody operates here; OPERATOR_URL says where somebody does"));
    };
    let plain = |part: &str| part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') && !part.is_empty();
    if !what.split('/').all(plain) {
        return Err(Problem::not_found("an operator can't do that"));
    }
    let media_type = request.headers().get(header::CONTENT_TYPE).cloned();
    let body = axum::body::to_bytes(request.into_body(), runtime::service::COMMAND_LIMIT).await;
    let body = body.map_err(|_| Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "that is more than a command can be"))?;
    let mut request = ways.client.post(format!("{operator}/operator/{what}")).body(body);
    if let Some(media_type) = media_type {
        request = request.header(header::CONTENT_TYPE, media_type);
    }
    pass_on(request).await
}

async fn pass_on(request: reqwest::RequestBuilder) -> Result<Response, Problem> {
    let answer = request.send().await.map_err(|error| Problem::unavailable(&error.without_url()))?;
    let (status, media_type) = (answer.status(), answer.headers().get(header::CONTENT_TYPE).cloned());
    let mut passed = Response::new(Body::from_stream(answer.bytes_stream()));
    *passed.status_mut() = status;
    if let Some(media_type) = media_type {
        passed.headers_mut().insert(header::CONTENT_TYPE, media_type);
    }
    Ok(passed)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_file_of_the_page_is_served() {
        let folder = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/page")).unwrap();
        let there: BTreeSet<String> = folder.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
        let served: BTreeSet<String> = FILES.iter().map(|(name, _)| (*name).to_owned()).collect();
        assert_eq!(served, there);
    }
}
