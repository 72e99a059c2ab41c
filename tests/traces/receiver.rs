//! A real receiver of OpenTelemetry's protocol, over HTTP and over gRPC on one port: whoever has spans can send them here.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use axum::{Router, body::Bytes, extract::State, routing::post};
use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    common::v1::{AnyValue, any_value},
    trace::v1::span::SpanKind,
};
use prost::Message;
use tonic::{Request, Response, Status, service::Routes};

/// Where a span is: its trace and its own id.
pub type Place = (Vec<u8>, Vec<u8>);

/// A span as it was received.
#[derive(Debug, Clone)]
pub struct Span {
    pub service: String,
    pub name: String,
    pub kind: SpanKind,
    pub place: Place,
    /// Where its parent is; `None` if it begins a trace.
    pub parent: Option<Place>,
    pub links: Vec<Place>,
    pub attributes: HashMap<String, String>,
}

impl Span {
    /// An attribute; empty if there is none.
    pub fn get(&self, name: &str) -> &str {
        self.attributes.get(name).map_or("", String::as_str)
    }
}

/// Everything that was received.
#[derive(Clone, Default)]
pub struct Receiver {
    spans: Arc<Mutex<Vec<Span>>>,
    pub url: String,
}

impl Receiver {
    /// Listens on a free port.
    pub async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let receiver = Self { url, ..Self::default() };
        let grpc = Routes::new(TraceServiceServer::new(receiver.clone())).into_axum_router();
        let http = Router::new().route("/v1/traces", post(over_http)).with_state(receiver.clone());
        tokio::spawn(async move { axum::serve(listener, http.merge(grpc)).await });
        receiver
    }

    /// What was received so far.
    pub fn spans(&self) -> Vec<Span> {
        self.spans.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn take(&self, request: ExportTraceServiceRequest) {
        let mut spans = self.spans.lock().unwrap_or_else(PoisonError::into_inner);
        for of_program in request.resource_spans {
            let attributes = of_program.resource.map(|resource| resource.attributes).unwrap_or_default();
            let service = attributes.iter().find(|attribute| attribute.key == "service.name");
            let service = service.map(|name| text(name.value.as_ref())).unwrap_or_default();
            for span in of_program.scope_spans.into_iter().flat_map(|scope| scope.spans) {
                let kind = span.kind();
                let trace = span.trace_id;
                let parent = (!span.parent_span_id.is_empty()).then(|| (trace.clone(), span.parent_span_id));
                let attribute =
                    |it: opentelemetry_proto::tonic::common::v1::KeyValue| (it.key, text(it.value.as_ref()));
                spans.push(Span {
                    service: service.clone(),
                    name: span.name,
                    kind,
                    parent,
                    place: (trace, span.span_id),
                    links: span.links.into_iter().map(|link| (link.trace_id, link.span_id)).collect(),
                    attributes: span.attributes.into_iter().map(attribute).collect(),
                });
            }
        }
    }
}

fn text(value: Option<&AnyValue>) -> String {
    match value.and_then(|value| value.value.as_ref()) {
        Some(any_value::Value::StringValue(text)) => text.clone(),
        Some(any_value::Value::IntValue(number)) => number.to_string(),
        Some(any_value::Value::BoolValue(is)) => is.to_string(),
        Some(any_value::Value::DoubleValue(number)) => number.to_string(),
        _ => String::new(),
    }
}

async fn over_http(State(receiver): State<Receiver>, body: Bytes) -> Vec<u8> {
    receiver.take(ExportTraceServiceRequest::decode(body).expect("OTLP"));
    ExportTraceServiceResponse::default().encode_to_vec()
}

#[tonic::async_trait]
impl TraceService for Receiver {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.take(request.into_inner());
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}
