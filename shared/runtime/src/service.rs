//! A service as something that can be served: alone on its own port, or several behind one.

use std::{future::Future, pin::Pin, sync::Arc};

use axum::{Json, Router, extract::DefaultBodyLimit, http::StatusCode, response::IntoResponse, routing::get};
use prometheus::{Encoder, Registry, TextEncoder};
use tokio_util::sync::CancellationToken;
use tower_http::catch_panic::CatchPanicLayer;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;

use crate::{
    Problem,
    openapi::{complete, operations},
};

/// The largest body of a command, in bytes.
pub const COMMAND_LIMIT: usize = 64 * 1024;
/// The largest body of `POST /events`, in bytes.
pub const EVENTS_LIMIT: usize = 4 * 1024 * 1024;

type Task<T> = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = T> + Send>> + Send + Sync>;
type Check = Task<Result<(), String>>;

/// Everything that the outside sees of a service.
pub struct Service {
    /// `order`, `payment` …
    pub name: &'static str,
    people: Router,
    openapi: OpenApi,
    door: Router,
    door_openapi: OpenApi,
    metrics: Registry,
    ready: Check,
    finish: Task<()>,
}

impl Service {
    /// `people`: what they can ask, with its documentation. `door`: the one route `/events`, with its own.
    /// `ready`: whether the store answers.
    pub fn new<F>(
        name: &'static str,
        people: OpenApiRouter,
        door: OpenApiRouter,
        metrics: Registry,
        ready: impl Fn() -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Result<(), String>> + Send + 'static,
    {
        let (people, mut openapi) = people.split_for_parts();
        openapi.info.title = format!("Rainstorm: {name}");
        openapi.info.version = env!("CARGO_PKG_VERSION").to_owned();
        let (door, mut door_openapi) = door.split_for_parts();
        for operation in door_openapi.paths.paths.values_mut().flat_map(operations) {
            // Several doors may be documented in one place.
            operation.operation_id = Some(format!("{name}_events"));
        }
        complete(&mut openapi);
        complete(&mut door_openapi);
        let people = people.layer(DefaultBodyLimit::max(COMMAND_LIMIT));
        let door = door.layer(DefaultBodyLimit::max(EVENTS_LIMIT));
        let ready: Check = Arc::new(move || Box::pin(ready()));
        let finish: Task<()> = Arc::new(|| Box::pin(std::future::ready(())));
        Self { name, people, openapi, door, door_openapi, metrics, ready, finish }
    }

    /// With something that is left to do after its last answer, when it stops.
    #[must_use]
    pub fn finishing<F>(self, finish: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Self { finish: Arc::new(move || Box::pin(finish())), ..self }
    }

    /// Does what is left to do after the last answer.
    pub fn finish(&self) -> impl Future<Output = ()> + Send + use<> {
        let finish = self.finish.clone();
        async move { finish().await }
    }

    /// The door alone, at `/events`: for a bridge in the same process.
    pub fn door(&self) -> Router {
        self.door.clone()
    }

    /// What the service measures.
    #[must_use]
    pub fn metrics(&self) -> &Registry {
        &self.metrics
    }
}

/// All of `services` behind one port; the door of one that stands alone is `/events`, of several `/{service}/events`.
pub fn router(services: Vec<Service>) -> Router {
    let alone = services.len() == 1;
    let mut router = Router::new();
    let mut openapi = OpenApi::default();
    let (mut registries, mut checks) = (Vec::new(), Vec::new());
    for service in services {
        router = router.merge(service.people);
        if alone {
            router = router.merge(service.door);
            openapi = service.openapi.merge_from(service.door_openapi);
        } else {
            let path = format!("/{}", service.name);
            router = router.nest(&path, service.door);
            openapi = openapi.merge_from(service.openapi).nest(path, service.door_openapi);
        }
        registries.push(service.metrics);
        checks.push((service.name, service.ready));
    }
    if !alone {
        openapi.info.title = "Rainstorm".to_owned();
        openapi.info.version = env!("CARGO_PKG_VERSION").to_owned();
    }
    let openapi = Arc::new(openapi);
    router
        .route("/healthz/live", get(|| async { "alive\n" }))
        .route("/healthz/ready", get(move || ready(checks.clone())))
        .route("/metrics", get(move || async move { metrics(&registries) }))
        .route("/openapi.json", get(move || async move { Json(openapi.as_ref().clone()) }))
        .fallback(|| async { Problem::not_found("there is nothing here; /openapi.json says what there is") })
        .method_not_allowed_fallback(|| async {
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "not this method; /openapi.json says which")
        })
        .layer(CatchPanicLayer::custom(|_: Box<dyn std::any::Any + Send>| {
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "a bug: the service's log says more").into_response()
        }))
}

async fn ready(checks: Vec<(&'static str, Check)>) -> Result<&'static str, Problem> {
    for (name, check) in checks {
        check().await.map_err(|reason| {
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, format!("{name} is not ready: {reason}"))
        })?;
    }
    Ok("ready\n")
}

fn metrics(registries: &[Registry]) -> impl IntoResponse + use<> {
    // One family per name, whichever service it comes from.
    let mut families: Vec<prometheus::proto::MetricFamily> = Vec::new();
    for family in registries.iter().flat_map(Registry::gather) {
        match families.iter_mut().find(|known| known.name() == family.name()) {
            Some(known) => known.mut_metric().extend(family.get_metric().iter().cloned()),
            None => families.push(family),
        }
    }
    let mut text = Vec::new();
    // Writing to memory can't fail; an unreadable family would be a bug that the next test of /metrics shows.
    let _ = TextEncoder::new().encode(&families, &mut text);
    ([(axum::http::header::CONTENT_TYPE, "text/plain; version=0.0.4")], text)
}

/// Says when to stop: cancelled by SIGTERM (Kubernetes, Docker) or SIGINT (Ctrl-C).
#[derive(Debug, Clone, Default)]
pub struct Stop(CancellationToken);

impl Stop {
    /// Stops at the first SIGTERM or SIGINT.
    #[must_use]
    pub fn on_signal() -> Self {
        let stop = Self::default();
        let token = stop.0.clone();
        tokio::spawn(async move {
            #[cfg(unix)]
            {
                use tokio::signal::unix::{SignalKind, signal};
                let (Ok(mut term), Ok(mut int)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
                else {
                    return tracing::error!("signals can't be listened to: stop this process with SIGKILL");
                };
                tokio::select! { _ = term.recv() => (), _ = int.recv() => () }
            }
            #[cfg(not(unix))]
            let _ = tokio::signal::ctrl_c().await;
            token.cancel();
        });
        stop
    }

    /// Stops everybody who has a clone of this.
    pub fn now(&self) {
        self.0.cancel();
    }

    /// Whether it is time.
    #[must_use]
    pub fn requested(&self) -> bool {
        self.0.is_cancelled()
    }

    /// Returns when it is time.
    pub async fn wait(&self) {
        self.0.cancelled().await;
    }
}
