//! The sums of the views as an answer.

use std::collections::BTreeMap;

use axum::{Json, extract::State};
use event_sourcing::now;
use jiff::Timestamp;
use runtime::Problem;
use serde::Serialize;
use utoipa::ToSchema;

use super::Views;
use crate::{
    stats::{EVER, LEGS, quantile},
    views::Status,
};

/// Minutes that are told one by one, and those that the legs are told of.
const MINUTES: i64 = 60;
const LEG_MINUTES: i64 = 15;

/// What the views come to when they are added up.
#[derive(Debug, Default, Serialize, ToSchema)]
pub struct Stats {
    /// The last hour's minutes in which something happened, newest last.
    pub minutes: Vec<Minute>,
    /// How many orders are in each status.
    pub now: BTreeMap<String, i64>,
    /// How many orders ever reached each status.
    pub funnel: BTreeMap<String, i64>,
    pub revenue: Vec<Revenue>,
    /// How long the legs of an order's way took, in the last fifteen minutes.
    pub legs: Vec<Leg>,
    pub drivers: BTreeMap<String, i64>,
}

/// How many orders reached each status in one minute.
#[derive(Debug, Serialize, ToSchema)]
pub struct Minute {
    /// Its beginning, RFC 3339.
    pub minute: String,
    #[serde(flatten)]
    pub reached: BTreeMap<String, i64>,
}

/// Money in one currency, in minor units.
#[derive(Debug, Default, Serialize, ToSchema)]
pub struct Revenue {
    pub currency: String,
    pub captured: i64,
    pub refunded: i64,
}

/// From one status to another.
#[derive(Debug, Serialize, ToSchema)]
pub struct Leg {
    pub leg: String,
    pub from: Status,
    pub to: Status,
    pub count: i64,
    pub p50_ms: Option<f64>,
    pub p99_ms: Option<f64>,
}

/// Counts per minute, the funnel, revenue, and how long each leg takes: sums that change in the same transaction as the
/// views.
#[utoipa::path(get, path = "/stats", responses((status = 200, body = Stats)))]
pub async fn get_stats(State(views): State<Views>) -> Result<Json<Stats>, Problem> {
    let this_minute = now().as_second().div_euclid(60);
    let rows = views.sums(this_minute - MINUTES).await.map_err(|error| Problem::unavailable(&error))?;
    Ok(Json(stats(rows, this_minute)))
}

/// What `(minute, name, value)` say, in order of minutes.
fn stats(rows: Vec<(i64, String, i64)>, this_minute: i64) -> Stats {
    let mut stats = Stats::default();
    for status in Status::ALL {
        stats.now.insert(status.as_str().to_owned(), 0);
        stats.funnel.insert(status.as_str().to_owned(), 0);
    }
    let mut legs: [BTreeMap<i32, i64>; LEGS.len()] = Default::default();
    let mut revenue: BTreeMap<String, Revenue> = BTreeMap::new();
    let mut minutes: BTreeMap<i64, BTreeMap<String, i64>> = BTreeMap::new();
    for (minute, name, value) in rows {
        let mut words = name.split(' ');
        let (kind, what) = (words.next().unwrap_or_default(), words.next().unwrap_or_default().to_owned());
        let in_currency = || Revenue { currency: what.clone(), ..Revenue::default() };
        match kind {
            "now" => *stats.now.entry(what).or_default() = value,
            "drivers" => *stats.drivers.entry(what).or_default() = value,
            "captured" => revenue.entry(what.clone()).or_insert_with(in_currency).captured = value,
            "refunded" => revenue.entry(what.clone()).or_insert_with(in_currency).refunded = value,
            "reached" if minute == EVER => *stats.funnel.entry(what).or_default() = value,
            "reached" => *minutes.entry(minute).or_default().entry(what).or_default() = value,
            "leg" if minute > this_minute - LEG_MINUTES => {
                let bucket = words.next().and_then(|bucket| bucket.parse().ok());
                let leg = what.parse::<usize>().ok().and_then(|leg| legs.get_mut(leg));
                if let Some((leg, bucket)) = leg.zip(bucket) {
                    *leg.entry(bucket).or_default() += value;
                }
            }
            _ => {}
        }
    }
    stats.minutes = minutes.into_iter().map(|(minute, reached)| Minute { minute: begins(minute), reached }).collect();
    stats.revenue = revenue.into_values().collect();
    stats.legs = LEGS.into_iter().zip(&legs).map(|((from, to), buckets)| leg(from, to, buckets)).collect();
    stats
}

fn begins(minute: i64) -> String {
    Timestamp::from_second(minute * 60).map(|time| time.to_string()).unwrap_or_default()
}

fn leg(from: Status, to: Status, buckets: &BTreeMap<i32, i64>) -> Leg {
    let rounded = |share| quantile(buckets, share).map(|ms| (ms * 10.0).round() / 10.0);
    Leg {
        leg: format!("{} → {}", from.as_str(), to.as_str()),
        from,
        to,
        count: buckets.values().sum(),
        p50_ms: rounded(0.5),
        p99_ms: rounded(0.99),
    }
}
