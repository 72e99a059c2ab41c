//! Everybody who orders in a comparison: when they come, what they are answered, and what that comes to.

use std::time::{Duration, Instant};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::Value;
use tokio::task::JoinSet;

/// When a customer gives up.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// Of the moments at which they come.
const SEED: u64 = 20_261_124;
/// How many times as many come in the storm.
const TENFOLD: f64 = 10.0;

/// Calm, ten times as many, and calm again; lengths in seconds.
#[derive(Debug, Clone, Copy)]
pub struct Curve {
    /// Orders a second while it is calm.
    pub calm: f64,
    pub before: f64,
    pub storm: f64,
    pub after: f64,
}

impl Curve {
    /// When each of them comes: at some moment of a slot of his own, always the same.
    pub fn due(&self) -> Vec<Duration> {
        let mut dice = StdRng::seed_from_u64(SEED);
        let (mut due, mut begin) = (Vec::new(), 0.0);
        for (rate, length) in [(self.calm, self.before), (self.calm * TENFOLD, self.storm), (self.calm, self.after)] {
            let slots =
                std::iter::successors(Some(0.0), |slot| Some(slot + 1.0)).take_while(|slot| *slot < rate * length);
            due.extend(slots.map(|slot| Duration::from_secs_f64(begin + (slot + dice.random::<f64>()) / rate)));
            begin += length;
        }
        due
    }

    fn is_storm(&self, due: Duration) -> bool {
        (self.before..self.before + self.storm).contains(&due.as_secs_f64())
    }
}

/// What one customer was answered.
#[derive(Debug, Clone, Copy)]
pub struct Answered {
    pub due: Duration,
    /// From the moment it was due, whatever the answer was.
    pub took: Duration,
    pub accepted: bool,
}

/// Sends each order when it is due, whatever became of those before.
pub async fn order(
    client: &reqwest::Client,
    url: &str,
    due: &[Duration],
    bodies: &[Value],
    started: Instant,
) -> Vec<Answered> {
    let mut customers = JoinSet::new();
    for (due, body) in due.iter().copied().zip(bodies) {
        tokio::time::sleep_until((started + due).into()).await;
        let request = client.post(format!("{url}/orders")).timeout(PATIENCE).json(body);
        customers.spawn(async move {
            let accepted = match request.send().await {
                // A connection is kept only if its answer was read to the end.
                Ok(answer) => answer.status().as_u16() == 201 && answer.bytes().await.is_ok(),
                Err(_) => false,
            };
            Answered { due, took: started.elapsed().saturating_sub(due), accepted }
        });
    }
    customers.join_all().await
}

/// What one system did with one storm.
#[derive(Debug, Default)]
pub struct Run {
    pub answered: Vec<Answered>,
    /// When orders were completed, after the start.
    pub completed: Vec<Duration>,
}

impl Run {
    /// Milliseconds within which this share of those who came in the storm were answered.
    pub fn placing_in_storm(&self, curve: &Curve, share: f64) -> f64 {
        let storm = self.answered.iter().filter(|it| curve.is_storm(it.due));
        quantile(storm.map(milliseconds).collect(), share)
    }

    /// Of a hundred orders that were sent, so many were completed.
    #[allow(clippy::cast_precision_loss, reason = "far below 2⁵² orders")]
    pub fn completed_of_100(&self) -> f64 {
        self.completed.len() as f64 * 100.0 / self.answered.len().max(1) as f64
    }

    /// For each second in which somebody came, milliseconds within which 99 of 100 of them were answered.
    pub fn placing(&self) -> Vec<(u64, f64)> {
        let last = self.answered.iter().map(|it| it.due.as_secs()).max().unwrap_or_default();
        let of = |second| self.answered.iter().filter(move |it| it.due.as_secs() == second).map(milliseconds);
        let seconds = (0..=last).map(|second| (second, of(second).collect::<Vec<_>>()));
        seconds.filter(|(_, took)| !took.is_empty()).map(|(second, took)| (second, quantile(took, 0.99))).collect()
    }

    /// Orders completed in each of so many seconds.
    #[allow(clippy::cast_precision_loss, reason = "far below 2⁵² orders")]
    pub fn completing(&self, seconds: u64) -> Vec<(u64, f64)> {
        let of = |second| self.completed.iter().filter(|it| it.as_secs() == second).count() as f64;
        (0..seconds).map(|second| (second, of(second))).collect()
    }

    /// Seconds until the last order was completed.
    pub fn seconds(&self) -> u64 {
        self.completed.iter().max().map_or(0, |last| last.as_secs() + 1)
    }
}

fn milliseconds(answered: &Answered) -> f64 {
    answered.took.as_secs_f64() * 1000.0
}

/// The smallest of these that this share of them doesn't exceed; 0 of none.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "an index")]
pub fn quantile(mut values: Vec<f64>, share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let place = (values.len() as f64 * share).ceil() as usize;
    values.get(place.saturating_sub(1)).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CURVE: Curve = Curve { calm: 10.0, before: 1.0, storm: 2.0, after: 1.0 };

    fn answered(due: f64, milliseconds: u64) -> Answered {
        let took = Duration::from_millis(milliseconds);
        Answered { due: Duration::from_secs_f64(due), took, accepted: true }
    }

    #[test]
    fn ten_times_as_many_come_in_the_storm_and_always_at_the_same_moments() {
        let due = CURVE.due();
        assert_eq!((due.len(), due.iter().filter(|due| CURVE.is_storm(**due)).count()), (220, 200));
        assert!(due.is_sorted());
        assert_eq!(due, CURVE.due());
    }

    #[test]
    fn a_quantile_is_one_of_the_values() {
        let values = || (1..=200).rev().map(f64::from).collect::<Vec<_>>();
        assert_eq!([0.5, 0.99, 1.0].map(|share| quantile(values(), share)), [100.0, 198.0, 200.0]);
        assert_eq!((quantile(vec![7.0], 0.5), quantile(vec![], 0.5)), (7.0, 0.0));
    }

    #[test]
    fn a_customer_counts_for_the_second_in_which_he_came_and_an_order_for_the_one_in_which_it_was_completed() {
        let run = Run {
            answered: vec![answered(0.2, 5), answered(0.9, 3000), answered(2.5, 7), answered(2.6, 9)],
            completed: [0.3, 3.9, 3.95].map(Duration::from_secs_f64).into(),
        };
        assert_eq!(run.placing(), [(0, 3000.0), (2, 9.0)]);
        assert_eq!(run.completing(run.seconds()), [(0, 1.0), (1, 0.0), (2, 0.0), (3, 2.0)]);
        assert_eq!(run.completed_of_100(), 75.0);
        assert_eq!([0.5, 0.99].map(|share| run.placing_in_storm(&CURVE, share)), [7.0, 9.0]);
    }
}
