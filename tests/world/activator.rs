//! What stands in front of a sleeping service, as Knative's activator and autoscaler do in the cluster: the first
//! request starts a process, SIGTERM ends it when it is idle, and the next request starts another.
//!
//! And what is known of a KafkaSource: an event is told twice now and then, and one whose answer takes too long is told
//! again while it is still being handled.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::{Request, State},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use tokio::{net::TcpListener, sync::Mutex};

use super::process::{Plan, Process, Signal};
use crate::PATIENCE;

/// Without a request for so long, a service is put to sleep.
const IDLE: Duration = Duration::from_millis(500);
/// How often that is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Of so many events, one is told twice.
const TWICE: usize = 7;
/// Of so many events, one is answered too late: the source has given up waiting, and will tell it again.
const TOO_LATE: usize = 11;
/// What a service takes, at most.
const BODY: usize = 8 * 1024 * 1024;

/// A service that sleeps.
#[derive(Clone)]
pub struct Activator(Arc<Inner>);

struct Inner {
    plan: Mutex<Plan>,
    process: Mutex<Option<Process>>,
    client: reqwest::Client,
    url: String,
    in_flight: AtomicUsize,
    used: Mutex<Instant>,
    events: AtomicUsize,
    wakings: AtomicUsize,
    sleeps: AtomicUsize,
    /// A process did not end in order when it was told to.
    disorderly: AtomicBool,
    /// Its world is gone.
    over: AtomicBool,
}

impl Activator {
    /// Listens on a port of its own; `plan` says what is started when somebody asks.
    pub async fn start(plan: Plan) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("it has one"));
        let activator = Self(Arc::new(Inner {
            plan: Mutex::new(plan.setting("PORT", "0")),
            process: Mutex::default(),
            client: reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().expect("a client"),
            url,
            in_flight: AtomicUsize::new(0),
            used: Mutex::new(Instant::now()),
            events: AtomicUsize::new(0),
            wakings: AtomicUsize::new(0),
            sleeps: AtomicUsize::new(0),
            disorderly: AtomicBool::new(false),
            over: AtomicBool::new(false),
        }));
        let router = Router::new().fallback(answer).with_state(activator.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        tokio::spawn(put_to_sleep_when_idle(activator.clone()));
        activator
    }

    /// Where it listens.
    pub fn url(&self) -> &str {
        &self.0.url
    }

    /// What the service is called.
    pub async fn name(&self) -> String {
        self.0.plan.lock().await.name.clone()
    }

    /// Whether there is a process now.
    pub async fn is_awake(&self) -> bool {
        self.0.process.lock().await.is_some()
    }

    /// How often it has woken, and how often it was put to sleep.
    pub fn wakings_and_sleeps(&self) -> (usize, usize) {
        (self.0.wakings.load(Ordering::SeqCst), self.0.sleeps.load(Ordering::SeqCst))
    }

    /// From its next waking on, this setting counts.
    pub async fn set(&self, name: &str, value: &str) {
        let mut plan = self.0.plan.lock().await;
        *plan = plan.clone().setting(name, value);
    }

    /// Ends its process with SIGKILL, if there is one.
    pub async fn kill(&self) {
        if let Some(mut process) = self.0.process.lock().await.take() {
            process.kill().await;
        }
    }

    /// Whether every process that was told to stop did so in order.
    pub fn is_orderly(&self) -> bool {
        !self.0.disorderly.load(Ordering::SeqCst)
    }

    /// Nobody will ask it any more.
    pub fn is_over(&self) {
        self.0.over.store(true, Ordering::SeqCst);
    }

    /// Where its process answers; starts one if there is none, and returns when that is ready.
    async fn wake(&self) -> Result<String, String> {
        let mut process = self.0.process.lock().await;
        if let Some(awake) = process.as_mut()
            && awake.is_running()
        {
            return Ok(format!("http://127.0.0.1:{}", awake.port));
        }
        let plan = self.0.plan.lock().await.clone();
        let woken = Process::start(plan).await;
        let url = format!("http://127.0.0.1:{}", woken.port);
        *process = Some(woken);
        self.0.wakings.fetch_add(1, Ordering::SeqCst);
        let since = Instant::now();
        loop {
            let ready = self.0.client.get(format!("{url}/healthz/ready")).send().await;
            if ready.is_ok_and(|answer| answer.status().is_success()) {
                return Ok(url);
            }
            if since.elapsed() > PATIENCE {
                return Err(format!("{url} does not get ready"));
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn forward(&self, asked: Asked) -> Response {
        let url = match self.wake().await {
            Ok(url) => url,
            Err(reason) => return (StatusCode::SERVICE_UNAVAILABLE, reason).into_response(),
        };
        let Asked { method, path, headers, body } = asked;
        let sent = self.0.client.request(method, format!("{url}{path}")).headers(headers).body(body).send().await;
        let answer = match sent {
            Ok(answer) => answer,
            Err(error) => return (StatusCode::BAD_GATEWAY, error.to_string()).into_response(),
        };
        let (status, headers) = (answer.status(), answer.headers().clone());
        match answer.bytes().await {
            Ok(body) => (status, headers, body).into_response(),
            Err(error) => (StatusCode::BAD_GATEWAY, error.to_string()).into_response(),
        }
    }
}

/// A request, whole, so that it can be sent again.
#[derive(Clone)]
struct Asked {
    method: reqwest::Method,
    path: String,
    headers: reqwest::header::HeaderMap,
    body: axum::body::Bytes,
}

/// Counts a request for as long as it is on its way.
struct InFlight(Activator);

impl InFlight {
    fn new(activator: &Activator) -> Self {
        activator.0.in_flight.fetch_add(1, Ordering::SeqCst);
        Self(activator.clone())
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.0.in_flight.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn answer(State(activator): State<Activator>, request: Request<Body>) -> Response {
    let in_flight = InFlight::new(&activator);
    *activator.0.used.lock().await = Instant::now();
    let (head, body) = request.into_parts();
    let Ok(body) = to_bytes(body, BODY).await else { return StatusCode::PAYLOAD_TOO_LARGE.into_response() };
    let path = head.uri.path_and_query().map_or_else(String::new, ToString::to_string);
    let asked = Asked { method: head.method, path, headers: head.headers, body };
    let is_event = asked.path == "/events";
    let number = if is_event { activator.0.events.fetch_add(1, Ordering::SeqCst) } else { 0 };
    if is_event && number % TOO_LATE == TOO_LATE - 1 {
        tokio::spawn(async move {
            activator.forward(asked).await;
            drop(in_flight);
        });
        return StatusCode::GATEWAY_TIMEOUT.into_response();
    }
    if is_event && number % TWICE == TWICE - 1 {
        let first = activator.forward(asked.clone()).await;
        if !first.status().is_success() {
            return first;
        }
    }
    let answer = activator.forward(asked).await;
    *activator.0.used.lock().await = Instant::now();
    answer
}

async fn put_to_sleep_when_idle(activator: Activator) {
    while !activator.0.over.load(Ordering::SeqCst) {
        tokio::time::sleep(LOOK_EVERY).await;
        let mut process = activator.0.process.lock().await;
        let idle = activator.0.in_flight.load(Ordering::SeqCst) == 0 && activator.0.used.lock().await.elapsed() > IDLE;
        if let (true, Some(awake)) = (idle, process.as_mut()) {
            if awake.is_running() {
                awake.signal(Signal::TERM);
                if awake.ended().await != Some(0) {
                    activator.0.disorderly.store(true, Ordering::SeqCst);
                }
            }
            *process = None;
            activator.0.sleeps.fetch_add(1, Ordering::SeqCst);
        }
    }
}
