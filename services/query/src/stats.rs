//! What the views come to when they are added up: every row contributes some facts, and the table `stats` has their
//! sums, over all time and per minute. When a row changes, the difference between what it contributes now and what it
//! did before is added in the same transaction; so the sums are exact, whatever came twice or out of order, and a
//! rebuild arrives at the same ones.
//!
//! | name | value |
//! |---|---|
//! | `now {status}` | orders in this status |
//! | `reached {status}` | orders that ever reached it; per minute: in this minute |
//! | `captured {currency}`, `refunded {currency}` | money, in minor units |
//! | `leg {n} {bucket}` | per minute: orders that ended this leg of their way in it, by how long it took |
//! | `drivers free`, `drivers riding`, `drivers off_shift` | drivers |

use std::{collections::BTreeMap, fmt};

use event_sourcing::{Value, Write};

use crate::views::{DriverView, OrderView, Status};

/// All of time, where a minute is asked for.
pub const EVER: i64 = 0;
/// The most money that one order counts for, in minor units: more than anybody eats for, and so little that the sum of
/// everything fits its column, whatever an event may say.
const MOST: i64 = 1_000_000_000_000;
const MICROS_PER_MINUTE: i64 = 60_000_000;
/// Buckets of durations: so many for each doubling, so a figure read from them is at most 9 % off.
const PER_DOUBLING: f64 = 4.0;

/// The ways between two statuses whose durations are kept.
pub const LEGS: [(Status, Status); 6] = [
    (Status::Placed, Status::Paid),
    (Status::Paid, Status::Cooking),
    (Status::Cooking, Status::Packed),
    (Status::Packed, Status::OutForDelivery),
    (Status::OutForDelivery, Status::Delivered),
    (Status::Placed, Status::Completed),
];

/// What is added up.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fact {
    Now(Status),
    Reached(Status),
    /// The place of the leg in [`LEGS`], and the bucket of its duration.
    Leg(usize, i32),
    Captured(String),
    Refunded(String),
    Drivers(&'static str),
}

impl fmt::Display for Fact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Now(status) => write!(f, "now {}", status.as_str()),
            Self::Reached(status) => write!(f, "reached {}", status.as_str()),
            Self::Leg(leg, bucket) => write!(f, "leg {leg} {bucket}"),
            Self::Captured(currency) => write!(f, "captured {currency}"),
            Self::Refunded(currency) => write!(f, "refunded {currency}"),
            Self::Drivers(state) => write!(f, "drivers {state}"),
        }
    }
}

/// Sums by minute and fact.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Sums(BTreeMap<(i64, Fact), i64>);

impl Sums {
    /// Adds up.
    pub fn add(&mut self, facts: &[((i64, Fact), i64)], times: i64) {
        for (key, value) in facts {
            let sum = self.0.entry(key.clone()).or_default();
            *sum = sum.saturating_add(value.saturating_mul(times));
        }
    }

    /// Those that are not zero, as they are called in the table.
    pub fn rows(&self) -> impl Iterator<Item = (i64, String, i64)> {
        let changed = self.0.iter().filter(|(_, value)| **value != 0);
        changed.map(|((minute, fact), value)| (*minute, fact.to_string(), *value))
    }

    /// Adds them to those in `table`.
    pub(crate) async fn write(&self, write: &mut Write, table: &str) -> Result<(), sqlx::Error> {
        // In one order everywhere, so that two instances never wait for each other crosswise.
        let rows = self.rows().map(|(minute, name, value)| [minute.into(), name.into(), Value::Int(value)]);
        let add = format!("ON CONFLICT (minute, name) DO UPDATE SET value = {table}.value + excluded.value");
        write.insert(&format!("{table} (minute, name, value)"), rows.collect(), &add).await.map(|_| ())
    }
}

/// What an order contributes; nothing before it was placed.
pub fn of_order(order: &OrderView) -> Vec<((i64, Fact), i64)> {
    let Some(total) = order.total.as_ref().filter(|_| order.placed_at.is_some()) else { return Vec::new() };
    let mut facts = vec![((EVER, Fact::Now(order.status)), 1)];
    for status in Status::ALL {
        if let Some(at) = order.reached(status) {
            facts.extend([EVER, minute(at)].map(|minute| ((minute, Fact::Reached(status)), 1)));
        }
    }
    for (leg, (from, to)) in LEGS.into_iter().enumerate() {
        if let Some((from, to)) = order.reached(from).zip(order.reached(to)) {
            facts.push(((minute(to), Fact::Leg(leg, bucket(to - from))), 1));
        }
    }
    let counted = |amount: i64| amount.clamp(-MOST, MOST);
    facts.push(((EVER, Fact::Captured(total.currency.clone())), counted(order.captured)));
    facts.push(((EVER, Fact::Refunded(total.currency.clone())), counted(order.refunded)));
    facts
}

/// What a driver contributes; nothing before the first shift.
pub fn of_driver(driver: &DriverView) -> Vec<((i64, Fact), i64)> {
    let state = match driver {
        DriverView { sequence: 0, .. } => return Vec::new(),
        DriverView { order_id: Some(_), .. } => "riding",
        DriverView { on_shift: true, .. } => "free",
        DriverView { .. } => "off_shift",
    };
    vec![((EVER, Fact::Drivers(state)), 1)]
}

/// The minute of a moment, in minutes since 1970.
fn minute(micros: i64) -> i64 {
    micros.div_euclid(MICROS_PER_MINUTE)
}

/// The bucket of a duration; clocks of two services may disagree, so it may be negative: that is bucket 0.
fn bucket(micros: i64) -> i32 {
    // A duration of an i64 of microseconds is in bucket 252 at most.
    ((micros.max(1) as f64).log2() * PER_DOUBLING).round() as i32
}

/// The middle of a bucket, in milliseconds.
#[must_use]
pub fn milliseconds(bucket: i32) -> f64 {
    2_f64.powf(f64::from(bucket) / PER_DOUBLING) / 1_000.0
}

/// The value below which a share of what is in the buckets lies, in milliseconds.
#[must_use]
pub fn quantile(buckets: &BTreeMap<i32, i64>, share: f64) -> Option<f64> {
    let all: i64 = buckets.values().sum();
    let wanted = (all as f64 * share).ceil().max(1.0);
    let mut so_far = 0;
    let reached = buckets.iter().find(|(_, count)| {
        so_far += **count;
        so_far as f64 >= wanted
    });
    reached.map(|(bucket, _)| milliseconds(*bucket))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_read_back_within_nine_percent() {
        for micros in [1, 999, 1_000, 15_432, 1_000_000, 3_600_000_000] {
            let read = milliseconds(bucket(micros)) * 1000.0;
            assert!((read / micros as f64 - 1.0).abs() < 0.091, "{micros} is read as {read}");
        }
        assert_eq!(bucket(-5), 0);
    }

    #[test]
    fn whatever_an_event_may_say_the_sum_can_be_counted() {
        let total = Some(crate::views::Money { amount: 1, currency: "EUR".to_owned() });
        let order = OrderView {
            placed_at: Some(String::new()),
            captured: i64::MAX,
            refunded: i64::MIN,
            total,
            ..OrderView::default()
        };
        let mut sums = Sums::default();
        for times in [1, 1, 1, -1] {
            sums.add(&of_order(&order), times);
        }
        let of = |wanted: &str| sums.rows().find(|(_, name, _)| name == wanted).map(|(.., value)| value);
        assert_eq!((of("captured EUR"), of("refunded EUR")), (Some(2 * MOST), Some(-2 * MOST)));
    }

    #[test]
    fn half_of_everything_is_below_the_median_and_nothing_has_none() {
        let buckets = [(10, 98), (20, 1), (30, 1)].into();
        assert_eq!(quantile(&buckets, 0.5), Some(milliseconds(10)));
        assert_eq!(quantile(&buckets, 0.99), Some(milliseconds(20)));
        assert_eq!(quantile(&buckets, 1.0), Some(milliseconds(30)));
        assert_eq!(quantile(&BTreeMap::new(), 0.5), None);
    }
}
