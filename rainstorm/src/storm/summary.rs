//! What came of a storm.

use std::{fmt, time::Duration};

use hdrhistogram::Histogram;
use serde::Serialize;

use super::{arrivals::Weather, tracker::Tracker};
use crate::watch::Waking;

/// Milliseconds that half, and 99 of 100, took at most.
#[derive(Debug, Clone, Serialize)]
pub struct Quantiles {
    pub p50: f64,
    pub p99: f64,
}

impl Quantiles {
    fn of(latencies: &Histogram<u64>) -> Self {
        let milliseconds = |quantile| {
            let micros = u32::try_from(latencies.value_at_quantile(quantile)).unwrap_or(u32::MAX);
            (f64::from(micros) / 100.0).round() / 10.0
        };
        Self { p50: milliseconds(0.5), p99: milliseconds(0.99) }
    }
}

/// The summary of a storm; as JSON, an object with these fields.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    /// Orders answered 201, and what became of them.
    pub accepted: u64,
    pub completed: u64,
    pub cancelled: u64,
    pub unfinished: usize,
    /// Orders that were never accepted.
    pub failed: usize,
    /// Cancelled though nobody asked and the card was good.
    pub wrongly_cancelled: usize,
    pub cancel_requests: u64,
    /// Requests sent again because nobody answered.
    pub retried: u64,
    /// Orders per second: asked for outside the storm, and accepted in it.
    pub calm_rate: f64,
    pub peak_rate: f64,
    /// From the moment an order was due to its 201.
    pub place_ms: Quantiles,
    /// From the moment an order was due to its completion.
    pub complete_ms: Quantiles,
    pub duration_s: f64,
    pub seed: u64,
    /// The most memory the demo's process had resident; `null` where the system runs elsewhere.
    pub rss_mb: Option<f64>,
    /// The first few of what went wrong.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub trouble: Vec<String>,
    /// How services woke meanwhile, where somebody watched.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub wakings: Vec<Waking>,
}

impl Summary {
    pub(super) fn of(weather: &Weather, tracker: &Tracker, took: Duration) -> Self {
        let counts = tracker.counts();
        let few = |what: &str, these: &mut dyn Iterator<Item = &String>| -> Vec<String> {
            these.take(10).map(|one| format!("{what}: {one}")).collect()
        };
        let mut trouble = few("not accepted", &mut counts.failures.iter());
        trouble.extend(few("unfinished", &mut counts.unfinished()));
        trouble.extend(few("wrongly cancelled", &mut counts.wrongly_cancelled.iter()));
        #[allow(clippy::cast_precision_loss, reason = "a rate for people")]
        let peak_rate = (counts.accepted_in_storm as f64 / weather.storm_for.as_secs_f64() * 10.0).round() / 10.0;
        Self {
            accepted: counts.accepted,
            completed: counts.completed,
            cancelled: counts.cancelled,
            unfinished: counts.in_flight(),
            failed: counts.failures.len(),
            wrongly_cancelled: counts.wrongly_cancelled.len(),
            cancel_requests: counts.cancel_requests,
            retried: counts.retried,
            calm_rate: weather.calm,
            peak_rate,
            place_ms: Quantiles::of(&counts.place),
            complete_ms: Quantiles::of(&counts.complete),
            duration_s: (took.as_secs_f64() * 10.0).round() / 10.0,
            seed: weather.seed,
            rss_mb: None,
            trouble,
            wakings: Vec::new(),
        }
    }

    /// Whether every order was accepted and ended as it should.
    #[must_use]
    pub fn succeeded(&self) -> bool {
        self.failed == 0 && self.unfinished == 0 && self.wrongly_cancelled == 0
    }

    /// One JSON object.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { accepted, completed, cancelled, unfinished, failed, .. } = self;
        writeln!(f, "The storm is over after {} s (seed {}).", self.duration_s, self.seed)?;
        writeln!(
            f,
            "  orders     {accepted} accepted: {completed} completed, {cancelled} cancelled, {unfinished} unfinished"
        )?;
        writeln!(
            f,
            "             {failed} not accepted, {} sent again, {} asked to cancel, {} wrongly cancelled",
            self.retried, self.cancel_requests, self.wrongly_cancelled
        )?;
        writeln!(f, "  rate       {} orders/s when calm, {} at the peak", self.calm_rate, self.peak_rate)?;
        writeln!(f, "  placing    {} ms at the median, {} ms for 99 of 100", self.place_ms.p50, self.place_ms.p99)?;
        write!(f, "  completed  {} ms at the median, {} ms for 99 of 100", self.complete_ms.p50, self.complete_ms.p99)?;
        if let Some(memory) = self.rss_mb {
            write!(f, "\n  memory     {memory} MB at most, everything in one process")?;
        }
        for trouble in &self.trouble {
            write!(f, "\n  {trouble}")?;
        }
        for waking in &self.wakings {
            write!(f, "\n  {waking}")?;
        }
        Ok(())
    }
}
