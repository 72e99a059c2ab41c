//! What a service measures, in the words of Prometheus
//! (<https://prometheus.io/docs/instrumenting/exposition_formats/>). Names and units follow its conventions; every
//! service's families are told apart by the label `service`.

use std::{sync::OnceLock, time::Instant};

use axum::{
    Router,
    extract::{MatchedPath, Request},
    middleware::{Next, from_fn},
};
use prometheus::{
    Encoder, HistogramOpts, HistogramVec, Registry, TextEncoder, core::Collector, process_collector::ProcessCollector,
    proto::MetricFamily,
};
use tracing::Instrument;

use crate::telemetry;

/// Upper bounds of durations, in seconds: from what an idle machine does to what nobody waits for.
pub const SECONDS: [f64; 14] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// The media type of the exposition.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4";

/// Takes a family into a registry; where two services share one, the second's of the same name is not shown.
///
/// # Panics
/// If the name isn't allowed: names are constants, so that is a bug which the first start shows.
#[allow(clippy::expect_used, reason = "at start-up, with names that are constants")]
pub fn register<C: Collector + Clone + 'static>(registry: &Registry, made: prometheus::Result<C>) -> C {
    let family = made.expect("a name and labels that Prometheus allows");
    let _ = registry.register(Box::new(family.clone()));
    family
}

/// The routes of `router`, each with the time that its answers take, and with a span.
pub(crate) fn measured(router: Router, registry: &Registry) -> Router {
    if !router.has_routes() {
        return router;
    }
    let help = "Time from a request's head to its answer's, by route and status.";
    let opts = HistogramOpts::new("rainstorm_http_request_duration_seconds", help).buckets(SECONDS.into());
    let durations = register(registry, HistogramVec::new(opts, &["method", "route", "status"]));
    router.route_layer(from_fn(move |request: Request, next: Next| {
        let durations = durations.clone();
        async move {
            let begun = Instant::now();
            let method = request.method().clone();
            let route = request.extensions().get::<MatchedPath>().cloned();
            let route = route.as_ref().map_or("", MatchedPath::as_str);
            let span = telemetry::server(&request, route);
            let answer = next.run(request).instrument(span.clone()).await;
            telemetry::answered(&span, answer.status());
            let status = answer.status();
            let labels = [method.as_str(), route, status.as_str()];
            durations.with_label_values(&labels).observe(begun.elapsed().as_secs_f64());
            answer
        }
    }))
}

/// Everything in the registries of these services, and what the process itself takes.
#[must_use]
pub fn expose(registries: &[(&'static str, Registry)]) -> String {
    let mut families: Vec<MetricFamily> = Vec::new();
    for (service, registry) in registries {
        for mut family in registry.gather() {
            for metric in family.mut_metric().iter_mut().filter(|metric| !metric.get_label().iter().any(is_service)) {
                let mut label = prometheus::proto::LabelPair::default();
                label.set_name("service".to_owned());
                label.set_value((*service).to_owned());
                let labels = metric.get_label().iter().cloned().chain([label]);
                *metric = {
                    let mut labelled = metric.clone();
                    labelled.set_label(labels.collect());
                    labelled
                };
            }
            // One family per name, whichever service it comes from.
            match families.iter_mut().find(|known| known.name() == family.name()) {
                Some(known) => known.mut_metric().append(family.mut_metric()),
                None => families.push(family),
            }
        }
    }
    families.extend(process().gather());
    let mut text = Vec::new();
    // Writing to memory can't fail; an unreadable family would be a bug that the next test of /metrics shows.
    let _ = TextEncoder::new().encode(&families, &mut text);
    String::from_utf8(text).unwrap_or_default()
}

fn is_service(label: &prometheus::proto::LabelPair) -> bool {
    label.name() == "service"
}

/// What this process takes of the machine.
fn process() -> &'static Registry {
    static PROCESS: OnceLock<Registry> = OnceLock::new();
    PROCESS.get_or_init(|| {
        let registry = Registry::new();
        // A registry of its own has none of its names.
        let _ = registry.register(Box::new(ProcessCollector::for_self()));
        registry
    })
}
