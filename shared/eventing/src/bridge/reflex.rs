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
use tokio::{task::JoinSet, time::Instant};

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
    // Work goes round all who are awake, so that after a storm a little of it would keep everybody from resting.
    let (superfluous, mut enough_since) = (Arc::new(AtomicUsize::new(0)), Instant::now());
    while !stop.requested() {
        let waiting = worker.waiting();
        pulse.waiting.fetch_add(waiting.wrapping_sub(waited), Ordering::Relaxed);
        waited = waiting;
        let wanted = usize::try_from(waiting.div_ceil(bounds.target.max(1))).unwrap_or(bounds.most).min(bounds.most);
        let now_awake = awake.load(Ordering::Relaxed);
        if now_awake <= wanted.max(1) {
            enough_since = Instant::now();
            superfluous.store(0, Ordering::Relaxed);
        } else if enough_since.elapsed() >= bounds.rest {
            superfluous.store(now_awake - wanted.max(1), Ordering::Relaxed);
        }
        for _ in now_awake..wanted {
            awake.fetch_add(1, Ordering::Relaxed);
            let of_service = pulse.awake.fetch_add(1, Ordering::Relaxed) + 1;
            pulse.most_awake.fetch_max(of_service, Ordering::Relaxed);
            pulse.wakings.fetch_add(1, Ordering::Relaxed);
            let one = Awake { superfluous: superfluous.clone(), awake: awake.clone(), pulse: pulse.clone() };
            workers.spawn(one.stay(worker.clone(), bounds.rest, stop.clone()));
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

/// One who is awake.
struct Awake {
    /// How many of those awake have not been needed for a while.
    superfluous: Arc<AtomicUsize>,
    awake: Arc<AtomicUsize>,
    pulse: Arc<Pulse>,
}

impl Awake {
    async fn stay(self, worker: Arc<impl Worker>, rest: Duration, stop: Stop) {
        while !stop.requested() && !self.is_superfluous() {
            let task = tokio::select! {
                biased;
                task = tokio::time::timeout(rest, worker.take()) => task.ok(),
                () = stop.wait() => None,
            };
            let Some(task) = task else { break };
            worker.work(task).await;
        }
        self.awake.fetch_sub(1, Ordering::Relaxed);
        self.pulse.awake.fetch_sub(1, Ordering::Relaxed);
        self.pulse.sleeps.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether it is this one's turn to sleep.
    fn is_superfluous(&self) -> bool {
        let one_less = |count: usize| count.checked_sub(1);
        self.superfluous.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use tokio::sync::{Mutex, mpsc};

    use super::*;

    /// Each piece of work takes 10 ms.
    struct Busy {
        arrived: Mutex<mpsc::UnboundedReceiver<()>>,
        waiting: AtomicU64,
    }

    #[async_trait]
    impl Worker for Busy {
        type Task = ();

        fn waiting(&self) -> u64 {
            self.waiting.load(Ordering::Relaxed)
        }

        async fn arrival(&self) {
            while self.waiting() == 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }

        async fn take(&self) {
            if self.arrived.lock().await.recv().await.is_none() {
                std::future::pending().await
            }
        }

        async fn work(&self, (): ()) {
            tokio::time::sleep(Duration::from_millis(10)).await;
            self.waiting.fetch_sub(1, Ordering::Relaxed);
        }

        async fn leave(&self) {}
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_storm_a_little_work_keeps_one_awake_and_not_everybody() {
        let (send, arrived) = mpsc::unbounded_channel();
        let busy = Arc::new(Busy { arrived: Mutex::new(arrived), waiting: AtomicU64::new(0) });
        let (pulse, stop) = (Arc::new(Pulse::new("kitchen")), Stop::default());
        let running = tokio::spawn(run(busy.clone(), Bounds::default(), pulse.clone(), stop.clone()));
        let arrive = |count: u64| {
            busy.waiting.fetch_add(count, Ordering::Relaxed);
            (0..count).for_each(|_| send.send(()).unwrap());
        };
        arrive(2000);
        let storm_is_over = AtomicBool::new(false);
        // Twenty a second, for as long as it is watched.
        let drizzle = async {
            loop {
                tokio::time::sleep(Duration::from_millis(50)).await;
                if busy.waiting() == 0 {
                    storm_is_over.store(true, Ordering::Relaxed);
                }
                arrive(1);
            }
        };
        let rested = async {
            while !(storm_is_over.load(Ordering::Relaxed) && pulse.awake() == 1) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::select! {
            () = drizzle => {}
            rested = tokio::time::timeout(Duration::from_secs(60), rested) => assert!(rested.is_ok(), "{pulse:?}"),
        }
        assert_eq!(pulse.most_awake(), 12);
        stop.now();
        running.await.unwrap();
    }
}
