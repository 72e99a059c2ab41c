//! A service as something that can be served: alone on its own port, or several behind one.

use std::{future::Future, pin::Pin, sync::Arc};

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, Request},
    http::StatusCode,
    middleware::{Next, from_fn},
    response::{IntoResponse, Response},
    routing::get,
};
use prometheus::Registry;
use tokio_util::sync::CancellationToken;
use tower_http::catch_panic::CatchPanicLayer;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;

use crate::{
    Problem, metrics,
    openapi::{complete, operations},
};

/// The largest body of a command, in bytes.
pub const COMMAND_LIMIT: usize = 64 * 1024;
/// The largest body of `POST /events`, in bytes.
pub const EVENTS_LIMIT: usize = 4 * 1024 * 1024;

type Task<T> = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = T> + Send>> + Send + Sync>;
type Check = Task<Result<(), String>>;

/// Everything that the outside sees of a service. Clones are the same service.
#[derive(Clone)]
pub struct Service {
    /// `order`, `payment` …
    pub name: &'static str,
    people: Router,
    door: Router,
    /// Of what people can ask, and of the door. Whoever serves in turns clones a service for each request: these are
    /// large, and shared.
    documents: Arc<[OpenApi; 2]>,
    metrics: Registry,
    look: Task<()>,
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
        let people = metrics::measured(people, &metrics).layer(DefaultBodyLimit::max(COMMAND_LIMIT));
        let door = door.layer(DefaultBodyLimit::max(EVENTS_LIMIT));
        let ready: Check = Arc::new(move || Box::pin(ready()));
        let finish: Task<()> = Arc::new(|| Box::pin(std::future::ready(())));
        let look = finish.clone();
        Self { name, people, door, documents: Arc::new([openapi, door_openapi]), metrics, look, ready, finish }
    }

    /// With something to be looked at whenever somebody asks what is measured; `look` brings it up to date.
    #[must_use]
    pub fn looking<F>(self, look: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (before, look) = (self.look.clone(), Arc::new(look));
        let both = move || {
            let (before, look) = (before(), look.clone());
            async move {
                before.await;
                look().await;
            }
        };
        Self { look: Arc::new(move || Box::pin(both())), ..self }
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

    /// What people can ask, alone.
    pub fn people(&self) -> Router {
        self.people.clone()
    }

    /// With more that people can ask, which no document tells of.
    #[must_use]
    pub fn with(self, more: Router) -> Self {
        Self { people: self.people.merge(more), ..self }
    }

    /// The same routes, where somebody else answers.
    #[must_use]
    pub fn answered_by<F>(self, answer: impl Fn(Request) -> F + Clone + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Response> + Send + 'static,
    {
        // Whoever answers finds the route anew: what was found out on the way here would be found twice.
        let people = self.people.layer(from_fn(move |mut request: Request, _: Next| {
            request.extensions_mut().clear();
            answer(request)
        }));
        Self { people, ..self }
    }

    /// The door alone, at `/events`: for a bridge in the same process.
    pub fn door(&self) -> Router {
        self.door.clone()
    }

    /// Brings up to date what is measured only when somebody looks.
    pub fn look(&self) -> impl Future<Output = ()> + Send + use<> {
        let look = self.look.clone();
        async move { look().await }
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
    let (mut registries, mut looks, mut checks) = (Vec::new(), Vec::new(), Vec::new());
    for service in services {
        router = router.merge(service.people);
        let [people, door] = service.documents.as_ref().clone();
        if alone {
            router = router.merge(service.door);
            openapi = people.merge_from(door);
        } else {
            let path = format!("/{}", service.name);
            router = router.nest(&path, service.door);
            openapi = openapi.merge_from(people).nest(path, door);
        }
        looks.push(service.look);
        registries.push((service.name, service.metrics));
        checks.push((service.name, service.ready));
    }
    if !alone {
        openapi.info.title = "Rainstorm".to_owned();
        openapi.info.version = env!("CARGO_PKG_VERSION").to_owned();
    }
    let openapi = Arc::new(openapi);
    let measured = Arc::new(Measured { registries, looks });
    router
        .route("/healthz/live", get(|| async { "alive\n" }))
        .route("/healthz/ready", get(move || ready(checks.clone())))
        .route("/metrics", get(move || tell(measured.clone())))
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

/// What is measured, by whom, and how to bring it up to date.
struct Measured {
    registries: Vec<(&'static str, Registry)>,
    looks: Vec<Task<()>>,
}

async fn tell(measured: Arc<Measured>) -> impl IntoResponse {
    for look in &measured.looks {
        look().await;
    }
    ([(axum::http::header::CONTENT_TYPE, metrics::CONTENT_TYPE)], metrics::expose(&measured.registries))
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
