//! The reflex: workers wake when something waits, multiply with it, and go to sleep when it is quiet.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use runtime::Stop;
use tokio::task::JoinSet;

/// How many workers there may be, and how much each is expected to carry.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    pub most: usize,
    /// Events waiting per worker: one more worker wakes for every so many.
    pub target: u64,
    /// A worker sleeps after so long without work.
    pub rest: Duration,
    /// How often growth is considered.
    pub beat: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        let (rest, beat) = (Duration::from_secs(1), Duration::from_millis(20));
        Self { most: 12, target: 50, rest, beat }
    }
}

/// What the workers of one service are doing.
#[derive(Debug)]
pub struct Pulse {
    pub service: String,
    awake: AtomicUsize,
    most_awake: AtomicUsize,
    wakings: AtomicU64,
    sleeps: AtomicU64,
    waiting: AtomicU64,
    delivered: AtomicU64,
    retried: AtomicU64,
}

impl Pulse {
    pub(super) fn new(service: &str) -> Self {
        let (awake, most_awake) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let [wakings, sleeps, waiting, delivered, retried] = [const { AtomicU64::new(0) }; 5];
        Self { service: service.to_owned(), awake, most_awake, wakings, sleeps, waiting, delivered, retried }
    }

    /// Workers awake now.
    pub fn awake(&self) -> usize {
        self.awake.load(Ordering::Relaxed)
    }

    /// Most workers that were awake at once.
    pub fn most_awake(&self) -> usize {
        self.most_awake.load(Ordering::Relaxed)
    }

    /// Times that a worker woke.
    pub fn wakings(&self) -> u64 {
        self.wakings.load(Ordering::Relaxed)
    }

    /// Times that a worker went to sleep.
    pub fn sleeps(&self) -> u64 {
        self.sleeps.load(Ordering::Relaxed)
    }

    /// Events that wait, as far as the bridge knows.
    pub fn waiting(&self) -> u64 {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Events delivered since the start.
    pub fn delivered_so_far(&self) -> u64 {
        self.delivered.load(Ordering::Relaxed)
    }

    /// Attempts that failed and were made again.
    pub fn retries(&self) -> u64 {
        self.retried.load(Ordering::Relaxed)
    }

    pub(super) fn delivered(&self, events: usize) {
        self.delivered.fetch_add(events as u64, Ordering::Relaxed);
    }

    pub(super) fn retried(&self) {
        self.retried.fetch_add(1, Ordering::Relaxed);
    }
}

/// Someone who has work now and then.
#[async_trait]
pub(super) trait Worker: Send + Sync + 'static {
    type Task: Send;
    /// How much waits.
    fn waiting(&self) -> u64;
    /// Returns when something waits.
    async fn arrival(&self);
    /// Waits for a piece of work; may be given up while it waits.
    async fn take(&self) -> Self::Task;
    /// Does it, to its end.
    async fn work(&self, task: Self::Task);
    /// Nothing more will be asked of it.
    async fn leave(&self);
}

/// Keeps as many workers awake as what waits asks for, until `stop`; then lets them finish.
pub(super) async fn run(worker: Arc<impl Worker>, bounds: Bounds, pulse: Arc<Pulse>, stop: Stop) {
    let mut workers = JoinSet::new();
    // A service may hear of several subscriptions: the pulse is of all of them.
    let (awake, mut waited) = (Arc::new(AtomicUsize::new(0)), 0_u64);
    while !stop.requested() {
        let waiting = worker.waiting();
        pulse.waiting.fetch_add(waiting.wrapping_sub(waited), Ordering::Relaxed);
        waited = waiting;
        let wanted = usize::try_from(waiting.div_ceil(bounds.target.max(1))).unwrap_or(bounds.most).min(bounds.most);
        for _ in awake.load(Ordering::Relaxed)..wanted {
            awake.fetch_add(1, Ordering::Relaxed);
            let of_service = pulse.awake.fetch_add(1, Ordering::Relaxed) + 1;
            pulse.most_awake.fetch_max(of_service, Ordering::Relaxed);
            pulse.wakings.fetch_add(1, Ordering::Relaxed);
            workers.spawn(stay_awake(worker.clone(), bounds.rest, awake.clone(), pulse.clone(), stop.clone()));
        }
        while workers.try_join_next().is_some() {}
        let pause = async {
            // Asleep, only an arrival wakes it; awake, it looks again at the next beat.
            if awake.load(Ordering::Relaxed) == 0 {
                worker.arrival().await
            } else {
                tokio::time::sleep(bounds.beat).await
            }
        };
        tokio::select! { biased; () = stop.wait() => (), () = pause => () }
    }
    while workers.join_next().await.is_some() {}
    worker.leave().await;
}

async fn stay_awake(worker: Arc<impl Worker>, rest: Duration, awake: Arc<AtomicUsize>, pulse: Arc<Pulse>, stop: Stop) {
    while !stop.requested() {
        let task = tokio::select! {
            biased;
            task = tokio::time::timeout(rest, worker.take()) => task.ok(),
            () = stop.wait() => None,
        };
        let Some(task) = task else { break };
        worker.work(task).await;
    }
    awake.fetch_sub(1, Ordering::Relaxed);
    pulse.awake.fetch_sub(1, Ordering::Relaxed);
    pulse.sleeps.fetch_add(1, Ordering::Relaxed);
}
