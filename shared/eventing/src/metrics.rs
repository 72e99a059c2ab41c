//! What a service measures of its events: how many, how old, how long it takes, and what waits.

use std::{
    sync::{Arc, Once},
    time::Instant,
};

use event_sourcing::{Committed, Database, now};
use jiff::Timestamp;
use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry, exponential_buckets,
};
use runtime::metrics::{SECONDS, register};

/// Upper bounds of an event's age, in seconds: from what is at once to what lay there over night.
const AGES: [f64; 16] =
    [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0, 43200.0];

/// The measures of one service. Clones share them.
#[derive(Clone)]
pub struct Metrics(Arc<Families>);

struct Families {
    registry: Registry,
    begun: Instant,
    events: IntCounterVec,
    age: Histogram,
    batch_seconds: Histogram,
    batch_events: Histogram,
    published: IntCounter,
    appends: Histogram,
    commits: Histogram,
    outbox_events: IntGauge,
    outbox_age: Gauge,
    letters: IntGauge,
    start: GaugeVec,
    first_event: Once,
}

impl Default for Metrics {
    fn default() -> Self {
        let registry = Registry::new();
        let seconds = |name: &str, help: &str, bounds: &[f64]| {
            let opts = HistogramOpts::new(format!("rainstorm_{name}_seconds"), help).buckets(bounds.to_vec());
            register(&registry, Histogram::with_opts(opts))
        };
        let opts = |name: &str, help: &str| Opts::new(format!("rainstorm_{name}"), help);
        let sizes = exponential_buckets(1.0, 2.0, 11).unwrap_or_default();
        let size_opts = HistogramOpts::new("rainstorm_batch_events", "Events that came through the door together.");
        let outcomes = opts("events_total", "Events that came through the door, by what became of them.");
        let published = opts("events_published_total", "Events that were stored and are on the log, repeats included.");
        let waiting = opts("outbox_events", "Events that are stored and not on the log yet.");
        let waits = opts("outbox_age_seconds", "Age of the oldest event that is stored and not on the log yet.");
        let letters = opts("dead_letters_open", "Events that could not be handled, and those that wait behind them.");
        let start = opts("start_duration_seconds", "Time from the service's start until it has come so far.");
        Self(Arc::new(Families {
            begun: Instant::now(),
            age: seconds("event_age", "Age of an event when it was handled.", &AGES),
            batch_seconds: seconds("batch_duration", "Time from a batch's arrival to its answer.", &SECONDS),
            appends: seconds("log_append_duration", "Time until the log has what it was given.", &SECONDS),
            commits: seconds("store_commit_duration", "Time from a transaction's beginning to its commit.", &SECONDS),
            batch_events: register(&registry, Histogram::with_opts(size_opts.buckets(sizes))),
            events: register(&registry, IntCounterVec::new(outcomes, &["outcome"])),
            published: register(&registry, IntCounter::with_opts(published)),
            outbox_events: register(&registry, IntGauge::with_opts(waiting)),
            outbox_age: register(&registry, Gauge::with_opts(waits)),
            letters: register(&registry, IntGauge::with_opts(letters)),
            start: register(&registry, GaugeVec::new(start, &["phase"])),
            first_event: Once::new(),
            registry,
        }))
    }
}

impl Metrics {
    /// Where all of them are registered.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.0.registry
    }

    /// The service has come so far since its start; only the first time counts.
    pub fn started(&self, phase: &str) {
        let gauge = self.0.start.with_label_values(&[phase]);
        if gauge.get() == 0.0 {
            gauge.set(self.0.begun.elapsed().as_secs_f64());
        }
    }

    /// Events that came through the door, and what became of them.
    pub fn events(&self, outcome: &str, number: usize) {
        self.0.events.with_label_values(&[outcome]).inc_by(number as u64);
    }

    /// An event of this time was handled.
    pub fn handled(&self, time: &str) {
        self.0.first_event.call_once(|| self.started("first_event"));
        if let Ok(time) = time.parse::<Timestamp>() {
            self.0.age.observe(now().duration_since(time).as_secs_f64().max(0.0));
        }
    }

    /// So many events came together, and were answered for after so long.
    pub fn batch(&self, events: usize, since: Instant) {
        self.0.batch_events.observe(events as f64);
        self.0.batch_seconds.observe(since.elapsed().as_secs_f64());
    }

    /// So many events got onto the log.
    pub fn published(&self, events: usize, since: Instant) {
        self.0.published.inc_by(events as u64);
        self.0.appends.observe(since.elapsed().as_secs_f64());
    }

    /// What tells of every transaction.
    #[must_use]
    pub fn commits(&self) -> Committed {
        let it = self.clone();
        Arc::new(move |took| it.0.commits.observe(took.as_secs_f64()))
    }

    /// Looks what waits in the store now. What can't be seen stays as it was.
    pub async fn look(&self, database: &Database) {
        let letters = "SELECT COUNT(*) FROM dead_letters WHERE state IN ('failed', 'parked')";
        if let Ok([rows]) = database.fetch(letters, []).await.as_deref() {
            self.0.letters.set(rows.int(0).unwrap_or_default());
        }
        let outbox = "SELECT COUNT(*), COALESCE(MIN(time), '') FROM events WHERE published = 0";
        if let Ok([row]) = database.fetch(outbox, []).await.as_deref() {
            self.0.outbox_events.set(row.int(0).unwrap_or_default());
            let oldest = row.str(1).ok().and_then(|time| time.parse::<Timestamp>().ok());
            self.0.outbox_age.set(oldest.map_or(0.0, |time| now().duration_since(time).as_secs_f64().max(0.0)));
        }
    }
}
