//! What became of the orders: who was accepted, who has ended, and how long it took.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use hdrhistogram::Histogram;
use jiff::Timestamp;
use serde::Deserialize;
use tokio::time::Instant;

use super::arrivals::Arrival;

/// Between two looks at the view, at least.
const LOOK_EVERY: Duration = Duration::from_millis(300);
/// A look at thousands of orders takes a while; so many times as long nobody looks. Whoever watches a storm must not be
/// what slows the system down.
const REST: u32 = 9;
const LONGEST_REST: Duration = Duration::from_secs(5);
const PAGE: usize = 500;

/// Latencies in microseconds, up to an hour.
type Latencies = Histogram<u64>;

/// Shared by customers, watcher and display.
#[derive(Default)]
pub struct Tracker {
    counts: Mutex<Counts>,
    all_sent: AtomicBool,
}

/// What is known so far.
pub struct Counts {
    pub accepted: u64,
    pub accepted_in_storm: u64,
    pub completed: u64,
    pub cancelled: u64,
    pub cancel_requests: u64,
    pub retried: u64,
    /// Why orders were not accepted.
    pub failures: Vec<String>,
    /// Cancelled though nobody asked and the card was good: `order (reason)`.
    pub wrongly_cancelled: Vec<String>,
    pub place: Latencies,
    pub complete: Latencies,
    under_way: BTreeMap<String, UnderWay>,
    may_be_cancelled: BTreeSet<String>,
    last_end: Instant,
}

struct UnderWay {
    placing: Duration,
    bad_card: bool,
}

impl Default for Counts {
    #[allow(clippy::expect_used, reason = "constant bounds that hdrhistogram documents as valid")]
    fn default() -> Self {
        let latencies = || Latencies::new_with_bounds(1, 3_600_000_000, 3).expect("valid bounds");
        Self {
            accepted: 0,
            accepted_in_storm: 0,
            completed: 0,
            cancelled: 0,
            cancel_requests: 0,
            retried: 0,
            failures: Vec::new(),
            wrongly_cancelled: Vec::new(),
            place: latencies(),
            complete: latencies(),
            under_way: BTreeMap::new(),
            may_be_cancelled: BTreeSet::new(),
            last_end: Instant::now(),
        }
    }
}

impl Counts {
    /// Orders accepted and not ended.
    pub fn in_flight(&self) -> usize {
        self.under_way.len()
    }

    /// Their ids, oldest first.
    pub fn unfinished(&self) -> impl Iterator<Item = &String> {
        self.under_way.keys()
    }

    fn ended(&mut self, order: &Seen) {
        let Some(was) = self.under_way.remove(&order.order_id) else { return };
        self.last_end = Instant::now();
        if order.status == "completed" {
            self.completed += 1;
            if let (Some(placed), Some(ended)) = (order.placed_at, order.ended_at) {
                let story = Duration::try_from(ended.duration_since(placed)).unwrap_or_default();
                self.complete.saturating_record(micros(was.placing + story));
            }
        } else {
            self.cancelled += 1;
            if !was.bad_card && !self.may_be_cancelled.contains(&order.order_id) {
                let reason = order.cancellation.as_ref().and_then(|it| it.reason.clone()).unwrap_or_default();
                self.wrongly_cancelled.push(format!("{} ({reason})", order.order_id));
            }
        }
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

impl Tracker {
    /// What is known so far.
    pub fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn accepted(&self, order_id: &str, arrival: &Arrival, due: Instant) {
        let placing = due.elapsed();
        let mut counts = self.counts();
        counts.accepted += 1;
        counts.accepted_in_storm += u64::from(arrival.in_storm);
        counts.place.saturating_record(micros(placing));
        counts.under_way.insert(order_id.to_owned(), UnderWay { placing, bad_card: arrival.bad_card });
        counts.last_end = Instant::now();
    }

    pub fn failed(&self, reason: String) {
        self.counts().failures.push(reason);
    }

    pub fn retried(&self) {
        self.counts().retried += 1;
    }

    pub fn asked_to_cancel(&self, order_id: &str) {
        let mut counts = self.counts();
        if counts.may_be_cancelled.insert(order_id.to_owned()) {
            counts.cancel_requests += 1;
        }
    }

    /// Nobody will come any more.
    pub fn all_sent(&self) {
        self.all_sent.store(true, Ordering::SeqCst);
    }
}

#[derive(Deserialize)]
struct Page {
    orders: Vec<Seen>,
    cursor: Option<String>,
}

#[derive(Deserialize)]
struct Seen {
    order_id: String,
    status: String,
    placed_at: Option<Timestamp>,
    ended_at: Option<Timestamp>,
    cancellation: Option<Cancellation>,
}

#[derive(Deserialize)]
struct Cancellation {
    reason: Option<String>,
}

async fn page(client: &reqwest::Client, url: &str, filter: &str, cursor: Option<&str>) -> Result<Page, reqwest::Error> {
    let cursor = cursor.map(|cursor| format!("&cursor={cursor}")).unwrap_or_default();
    let answer = client.get(format!("{url}/orders?limit={PAGE}{filter}{cursor}")).send().await?;
    answer.error_for_status()?.json().await
}

/// How many orders are under way in the view, whoever placed them.
pub async fn under_way(client: &reqwest::Client, url: &str) -> Result<usize, reqwest::Error> {
    let mut count = 0;
    for status in ["placed", "paid", "cooking", "packed", "out_for_delivery", "delivered"] {
        let filter = format!("&status={status}");
        let mut cursor = None;
        loop {
            let page = page(client, url, &filter, cursor.as_deref()).await?;
            count += page.orders.len();
            cursor = page.cursor;
            if cursor.is_none() {
                break;
            }
        }
    }
    Ok(count)
}

/// Looks at the view again and again, until everything has ended or nothing has for `patience`.
pub async fn watch(tracker: Arc<Tracker>, client: reqwest::Client, url: String, patience: Duration) {
    let mut pause = LOOK_EVERY;
    loop {
        tokio::time::sleep(pause).await;
        let looking = Instant::now();
        let all_sent = tracker.all_sent.load(Ordering::SeqCst);
        let oldest = tracker.counts().under_way.keys().next().cloned();
        let Some(oldest) = oldest else {
            if all_sent {
                return;
            }
            continue;
        };
        // Newest first, down to the oldest that is under way: ids are in the order of time.
        let mut cursor = None;
        loop {
            let Ok(page) = page(&client, &url, "", cursor.as_deref()).await else { break };
            let mut counts = tracker.counts();
            page.orders.iter().filter(|order| order.ended_at.is_some()).for_each(|order| counts.ended(order));
            let reached = page.orders.last().is_none_or(|order| order.order_id <= oldest);
            cursor = page.cursor;
            if reached || cursor.is_none() {
                break;
            }
        }
        pause = (looking.elapsed() * REST).clamp(LOOK_EVERY, LONGEST_REST);
        let counts = tracker.counts();
        if all_sent && (counts.under_way.is_empty() || counts.last_end.elapsed() > patience) {
            return;
        }
    }
}
