//! What a program tells while it runs: logs on stderr, for people or as JSON, and traces to whoever collects them.
//!
//! Traces are on where `OTEL_EXPORTER_OTLP_ENDPOINT` (or `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`) is set; the other standard
//! variables (<https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/>) mean what they always
//! do. A span is made with `tracing`, target [`STORY`]; while nobody collects them, making one costs nothing.

use axum::{
    extract::Request,
    http::{HeaderMap, StatusCode},
};
use opentelemetry::{
    Context, InstrumentationScope, KeyValue, global,
    propagation::{Extractor, TextMapPropagator},
    trace::TracerProvider,
};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig};
use opentelemetry_sdk::{Resource, propagation::TraceContextPropagator, trace::SdkTracerProvider};
use tracing::{Span, level_filters::LevelFilter};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::{EnvFilter, Layer, filter::Targets, fmt, layer::SubscriberExt, util::SubscriberInitExt};

/// The target of spans that tell the story of an order.
pub const STORY: &str = "story";
/// The version of OpenTelemetry's semantic conventions that the spans follow.
pub const CONVENTIONS: &str = "https://opentelemetry.io/schemas/1.37.0";

/// Variables that are read here and by the OpenTelemetry SDK.
pub const VARIABLES: [&str; 10] = [
    "LOG_FORMAT",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "OTEL_EXPORTER_OTLP_HEADERS",
    "OTEL_EXPORTER_OTLP_PROTOCOL",
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "OTEL_RESOURCE_ATTRIBUTES",
    "OTEL_SDK_DISABLED",
    "OTEL_SERVICE_NAME",
    "OTEL_TRACES_SAMPLER",
    "OTEL_TRACES_SAMPLER_ARG",
];

/// Telemetry under way. When it is dropped, what wasn't sent yet is sent.
#[must_use]
pub struct Telemetry(Option<SdkTracerProvider>);

impl Drop for Telemetry {
    fn drop(&mut self) {
        if let Some(traces) = self.0.take() {
            // Whoever collects may be gone; then these are lost, and nothing else is.
            let _ = traces.shutdown();
        }
    }
}

/// A variable whose value can't be used.
#[derive(Debug, thiserror::Error)]
#[error("{variable}: {reason}")]
pub struct TelemetryError {
    variable: &'static str,
    reason: String,
}

/// Begins to tell, as `service`. `RUST_LOG` chooses what is logged, and `otherwise` where it isn't set. To be called
/// where tasks can be spawned.
///
/// # Errors
/// If a variable has a value that means nothing.
pub fn start(service: &str, otherwise: &str) -> Result<Telemetry, TelemetryError> {
    let chosen = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(otherwise));
    let lines = fmt::layer().with_writer(std::io::stderr);
    let logs = match std::env::var("LOG_FORMAT").as_deref() {
        Ok("json") => lines.json().flatten_event(true).with_span_list(false).boxed(),
        Ok("text" | "") | Err(_) => lines.boxed(),
        Ok(other) => {
            let reason = format!("{other:?} is no format of logs; it is text or json");
            return Err(TelemetryError { variable: "LOG_FORMAT", reason });
        }
    };
    let traces = if is_wanted() { Some(provider(service)?) } else { None };
    let spans = traces.as_ref().map(|traces| {
        let scope = InstrumentationScope::builder("rainstorm")
            .with_version(env!("CARGO_PKG_VERSION"))
            .with_schema_url(CONVENTIONS)
            .build();
        let layer = tracing_opentelemetry::layer().with_tracer(traces.tracer_with_scope(scope));
        let layer = layer.with_location(false).with_threads(false).with_tracked_inactivity(false).with_target(false);
        layer.with_filter(Targets::new().with_target(STORY, LevelFilter::INFO))
    });
    global::set_text_map_propagator(TraceContextPropagator::new());
    // A second start in one process (tests) keeps the first.
    let _ = tracing_subscriber::registry().with(spans).with(logs.with_filter(chosen)).try_init();
    Ok(Telemetry(traces))
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn is_wanted() -> bool {
    let endpoint = ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"].into_iter().find_map(variable);
    endpoint.is_some() && variable("OTEL_SDK_DISABLED").as_deref() != Some("true")
}

fn provider(service: &str) -> Result<SdkTracerProvider, TelemetryError> {
    let wrong = |variable, reason: String| TelemetryError { variable, reason };
    let protocol = ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"].into_iter().find_map(variable);
    let exporter = match protocol.as_deref() {
        None | Some("grpc") => SpanExporter::builder().with_tonic().build(),
        Some("http/protobuf") => SpanExporter::builder().with_http().with_protocol(Protocol::HttpBinary).build(),
        Some(other) => {
            let reason = format!("{other:?} is not spoken here; grpc and http/protobuf are");
            return Err(wrong("OTEL_EXPORTER_OTLP_PROTOCOL", reason));
        }
    };
    let exporter = exporter.map_err(|error| wrong("OTEL_EXPORTER_OTLP_ENDPOINT", error.to_string()))?;
    let name = variable("OTEL_SERVICE_NAME").unwrap_or_else(|| service.to_owned());
    let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
    let resource = Resource::builder().with_service_name(name).with_attribute(version).build();
    Ok(SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build())
}

struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).and_then(|value| value.to_str().ok())
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(axum::http::HeaderName::as_str).collect()
    }
}

/// The span of a request to `route`, in the trace that its headers name.
pub(crate) fn server(request: &Request, route: &str) -> Span {
    let method = request.method().as_str();
    let span = tracing::info_span!(
        target: STORY,
        "request",
        otel.name = format_args!("{method} {route}"),
        otel.kind = "server",
        http.request.method = method,
        http.route = route,
        http.response.status_code = tracing::field::Empty,
        otel.status_code = tracing::field::Empty,
    );
    if !span.is_disabled() {
        let parent = TraceContextPropagator::new().extract_with_context(&Context::new(), &Headers(request.headers()));
        // While nobody collects spans there is nothing that could have a parent.
        let _ = span.set_parent(parent);
    }
    span
}

/// The request was answered.
pub(crate) fn answered(span: &Span, status: StatusCode) {
    span.record("http.response.status_code", status.as_u16());
    if status.is_server_error() {
        span.record("otel.status_code", "ERROR");
    }
}
