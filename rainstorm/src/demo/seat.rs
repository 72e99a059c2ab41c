//! Where a service sits in the demo's process: it can be stopped, slowed, killed and started again without the process,
//! as a pod can in a cluster.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use axum::{
    extract::Request,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use cloudevents::Event;
use eventing::{
    StartError,
    bridge::{Headers, RouterSink, Sink},
    log::EventLog,
};
use prometheus::Registry;
use runtime::{Problem, Service};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::services::{self, ServiceSettings};

/// One that is slowed takes so many times as long.
const SLOWED: u32 = 10;

/// What can be done to a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It finishes what it has in hand first, as after SIGTERM.
    Stop,
    Slow,
    /// Whatever it has in hand is cut off where it stands, and nothing is finished.
    Kill,
    Start,
}

/// A service's seat.
pub struct Seat {
    pub name: &'static str,
    log: Arc<dyn EventLog>,
    database_url: String,
    settings: ServiceSettings,
    count: u8,
    sitting: Mutex<Sitting>,
    turn: AtomicUsize,
    /// One change at a time.
    changing: tokio::sync::Mutex<()>,
}

struct Sitting {
    /// Empty while it is down.
    instances: Vec<Instance>,
    state: Option<&'static str>,
}

#[derive(Clone)]
struct Instance {
    service: Service,
    /// Cancelled when it is killed.
    killed: CancellationToken,
    /// Held by this, and by every request that it has in hand.
    in_hand: Arc<()>,
}

impl Instance {
    fn new(service: Service) -> Self {
        Self { service, killed: CancellationToken::new(), in_hand: Arc::new(()) }
    }
}

impl Seat {
    /// Starts `count` instances of a service, which share its database. What is returned beside the seat is the service
    /// as it is seen from outside: whoever sits there answers.
    pub async fn take(
        name: &'static str,
        settings: &ServiceSettings,
        (log, database_url): (Arc<dyn EventLog>, &str),
        count: u8,
    ) -> Result<(Arc<Self>, Service), StartError> {
        let seat = Arc::new(Self {
            name,
            log,
            database_url: database_url.to_owned(),
            settings: settings.clone(),
            count,
            sitting: Mutex::new(Sitting { instances: Vec::new(), state: None }),
            turn: AtomicUsize::new(0),
            changing: tokio::sync::Mutex::default(),
        });
        let first = seat.sit_down().await?;
        let asked = seat.clone();
        let face = first.answered_by(move |request| {
            let seat = asked.clone();
            async move { seat.ask(request).await }
        });
        Ok((seat, face))
    }

    /// Starts all instances; returns the first.
    async fn sit_down(&self) -> Result<Service, StartError> {
        let mut services = Vec::new();
        for _ in 0..self.count.max(1) {
            let platform = services::platform(self.name, &self.database_url, self.log.clone());
            services.push(services::start(self.name, &self.settings, platform).await?);
        }
        let first = services[0].clone();
        *self.sitting() = Sitting { instances: services.into_iter().map(Instance::new).collect(), state: None };
        Ok(first)
    }

    fn sitting(&self) -> MutexGuard<'_, Sitting> {
        self.sitting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `slowed`, `stopped` or `killed`; `None` if nothing is the matter.
    pub fn state(&self) -> Option<&'static str> {
        self.sitting().state
    }

    /// What those who sit here measure.
    pub fn metrics(&self) -> Vec<(&'static str, Registry)> {
        self.sitting().instances.iter().map(|instance| (self.name, instance.service.metrics().clone())).collect()
    }

    /// Brings up to date what is measured only when somebody looks.
    pub async fn look(&self) {
        let instances = self.sitting().instances.clone();
        for instance in instances {
            instance.service.look().await;
        }
    }

    /// Does what is left to do when everything ends.
    pub async fn finish(&self) {
        let instances = self.sitting().instances.clone();
        for instance in instances {
            instance.service.finish().await;
        }
    }

    /// Changes what becomes of the service.
    ///
    /// # Errors
    /// If it can't be started.
    pub async fn change(&self, change: Change) -> Result<(), StartError> {
        let _turn = self.changing.lock().await;
        match change {
            Change::Start if self.sitting().instances.is_empty() => self.sit_down().await.map(drop),
            Change::Start => {
                self.sitting().state = None;
                Ok(())
            }
            Change::Slow => {
                let mut sitting = self.sitting();
                if !sitting.instances.is_empty() {
                    sitting.state = Some("slowed");
                }
                Ok(())
            }
            Change::Kill => {
                for instance in self.leave("killed") {
                    instance.killed.cancel();
                }
                Ok(())
            }
            Change::Stop => {
                for instance in self.leave("stopped") {
                    while Arc::strong_count(&instance.in_hand) > 1 {
                        tokio::time::sleep(Duration::from_millis(10)).await;
                    }
                    instance.service.finish().await;
                }
                Ok(())
            }
        }
    }

    /// Nobody sits here any more.
    fn leave(&self, state: &'static str) -> Vec<Instance> {
        let mut sitting = self.sitting();
        if !sitting.instances.is_empty() {
            sitting.state = Some(state);
        }
        std::mem::take(&mut sitting.instances)
    }

    /// Whose turn it is, and whether it is slow; held while it is asked something.
    fn next(&self) -> Option<(Instance, bool)> {
        let sitting = self.sitting();
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let instance = sitting.instances.get(turn % sitting.instances.len().max(1))?.clone();
        Some((instance, sitting.state == Some("slowed")))
    }

    /// Does something with whoever's turn it is; `None` if nobody sits here, or he was killed meanwhile.
    async fn with<T, F: Future<Output = T>>(&self, what: impl FnOnce(Service) -> F) -> Option<T> {
        let (instance, slow) = self.next()?;
        let begun = Instant::now();
        let working = async {
            let done = what(instance.service.clone()).await;
            if slow {
                tokio::time::sleep(begun.elapsed() * (SLOWED - 1)).await;
            }
            done
        };
        // A service that is killed gets no further than to where it next waits for something.
        tokio::select! { biased; () = instance.killed.cancelled() => None, done = working => Some(done) }
    }

    /// A person asks.
    async fn ask(&self, request: Request) -> Response {
        let answer = self.with(|service| service.people().oneshot(request)).await;
        match answer {
            Some(Ok(answer)) => answer,
            None => {
                let down = format!("{} is down", self.name);
                Problem::new(StatusCode::SERVICE_UNAVAILABLE, down).into_response()
            }
        }
    }
}

/// The bridge knocks.
#[async_trait]
impl Sink for Seat {
    async fn post(&self, headers: Headers, body: Vec<u8>) -> Result<(u16, String), String> {
        let knock = |service: Service| async move { RouterSink(service.door()).post(headers, body).await };
        self.with(knock).await.unwrap_or_else(|| Err(format!("{} is down", self.name)))
    }

    async fn tell(&self, events: Vec<Event>) -> Result<(u16, String), String> {
        let tell = |service: Service| async move { RouterSink(service.door()).tell(events).await };
        self.with(tell).await.unwrap_or_else(|| Err(format!("{} is down", self.name)))
    }
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use eventing::log::EmbeddedLog;

    use super::*;

    async fn get(router: &Router, path: &str) -> u16 {
        let request = Request::get(path).body(axum::body::Body::empty()).unwrap();
        router.clone().oneshot(request).await.unwrap().status().as_u16()
    }

    #[tokio::test]
    async fn whoever_was_stopped_or_killed_answers_nobody_until_it_is_started_again() {
        let folder = tempfile::tempdir().unwrap();
        let log: Arc<dyn EventLog> = Arc::new(EmbeddedLog::open(&folder.path().join("log.db"), 1).await.unwrap());
        let url = format!("sqlite:{}/{{service}}.db", folder.path().display());
        let settings = ServiceSettings::usual();
        let (seat, face) = Seat::take("query", &settings, (log, &url), 2).await.unwrap();
        let router = runtime::service::router(vec![face]);
        for (change, state) in [(Change::Stop, "stopped"), (Change::Kill, "killed")] {
            assert_eq!((get(&router, "/orders").await, seat.state()), (200, None));
            seat.change(change).await.unwrap();
            assert_eq!((get(&router, "/orders").await, seat.state()), (503, Some(state)));
            assert!(seat.post(vec![], vec![]).await.is_err());
            assert!(seat.metrics().is_empty());
            seat.change(Change::Slow).await.unwrap();
            assert_eq!(seat.state(), Some(state), "who is down can't be slowed");
            seat.change(Change::Start).await.unwrap();
        }
        assert_eq!(get(&router, "/orders").await, 200);
        seat.change(Change::Slow).await.unwrap();
        assert_eq!((get(&router, "/orders").await, seat.state()), (200, Some("slowed")));
    }
}
