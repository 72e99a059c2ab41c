//! What the page is shown: one picture of the organism, complete in itself, so that one that is missed is no loss.

use std::collections::BTreeMap;

use serde::Serialize;

/// The organism at one moment.
#[derive(Debug, Clone, Serialize)]
pub struct Frame {
    /// RFC 3339.
    pub at: String,
    /// Since the frame before.
    pub interval_ms: u64,
    pub mode: &'static str,
    /// What an operator can do here.
    pub can: Vec<&'static str>,
    pub manual: Manual,
    pub declining: bool,
    pub drivers_off: bool,
    pub services: Vec<Service>,
    pub nerves: Vec<Nerve>,
    /// Events that appeared on the log since the frame before, by name.
    pub events: BTreeMap<String, u64>,
    /// Some of them.
    pub samples: Vec<Sample>,
    pub storm: Option<Storm>,
    pub orders: Orders,
    pub drivers: Drivers,
}

/// Who works by hand.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Manual {
    pub cooking: bool,
    pub riding: bool,
}

/// A service.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Service {
    pub name: String,
    /// Where it publishes.
    pub topic: Option<String>,
    /// `asleep`, `awake`, `slowed`, `stopped` or `killed`.
    pub state: &'static str,
    /// Awake, and at most.
    pub workers: u64,
    pub most: u64,
    /// `workers` or `pods`.
    pub unit: &'static str,
    /// Since its start.
    pub wakings: u64,
    /// Events a second.
    pub rate: f64,
    /// Events that were finished, and deliveries that were made again; since the beginning.
    pub handled: u64,
    pub retried: u64,
    /// Events that wait, and the age of the oldest.
    pub lag: u64,
    pub oldest_ms: Option<u64>,
    /// Open ones.
    pub dead_letters: usize,
    /// Newest first.
    pub errors: Vec<Trouble>,
    pub start: Option<Start>,
}

/// Something that went wrong.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Trouble {
    pub at: String,
    pub text: String,
}

/// How a service started.
#[derive(Debug, Clone, Serialize)]
pub struct Start {
    /// Name and milliseconds since the beginning.
    pub phases: Vec<(String, f64)>,
}

/// From a topic to a service that hears it.
#[derive(Debug, Clone, Serialize)]
pub struct Nerve {
    pub topic: String,
    /// Who publishes there.
    pub from: String,
    pub to: String,
    pub lag: u64,
    pub oldest_ms: Option<u64>,
    /// The lag of each partition.
    pub partitions: Vec<u64>,
}

/// An event that was seen on the log.
#[derive(Debug, Clone, Serialize)]
pub struct Sample {
    pub id: String,
    #[serde(rename = "type")]
    pub name: String,
    pub subject: String,
    pub order_id: Option<String>,
    pub at: String,
}

/// Rain.
#[derive(Debug, Clone, Serialize)]
pub struct Storm {
    /// Orders a second, now and at most.
    pub rate: f64,
    pub peak: f64,
    /// From which second on how many.
    pub planned: Vec<(f64, f64)>,
    pub second: f64,
}

/// How orders are doing.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Orders {
    pub placed_per_s: f64,
    pub completed_per_s: f64,
    pub cancelled_per_s: f64,
    /// How long `POST /orders` took to answer, lately.
    pub placing_p50_ms: Option<f64>,
    pub placing_p99_ms: Option<f64>,
    /// From placed to completed, lately.
    pub journey_p50_ms: Option<f64>,
    pub journey_p99_ms: Option<f64>,
    pub under_way: u64,
}

/// How drivers are doing.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Drivers {
    pub on_shift: u64,
    pub free: u64,
}
