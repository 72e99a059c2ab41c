//! How long people wait: for the answer to an order, until the view shows it, and until it is out for delivery. Orders
//! come when their time has come, whether or not earlier ones were answered (open loop), and their waiting counts from
//! that moment.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use eventing::log::{EventLog, Record, Scan, Stretch};
use jiff::Timestamp;
use tokio::task::JoinSet;

use super::{
    BenchError, Rates,
    city::City,
    load::answered,
    report::{Figure, Part, Target},
};
use crate::{
    services,
    storm::{Orders, StormError},
};

/// Customers a second, at most, who also wait until the view shows their order.
const LOOKING: f64 = 20.0;

/// Milliseconds that each of some people waited, shortest first.
#[derive(Debug, Clone, Default)]
pub struct Waits(Vec<f64>);

impl Waits {
    pub fn of(mut waits: Vec<f64>) -> Self {
        waits.sort_by(f64::total_cmp);
        Self(waits)
    }

    /// The time that so many of a hundred waited at most; `None` if nobody was there.
    pub fn percentile(&self, percent: f64) -> Option<f64> {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
        let rank = (percent / 100.0 * self.0.len() as f64).ceil() as usize;
        self.0.get(rank.saturating_sub(1)).copied()
    }
}

/// What people have waited for.
pub struct Waited {
    /// From the moment an order was due to its answer.
    pub answer: Waits,
    /// From the same moment to the view showing it, of some.
    pub visible: Waits,
    /// From `order.placed` to `delivery.out_for_delivery`, by the events' own times.
    pub out: Waits,
}

/// Sends `rate` orders a second for `length`, and returns when all of them have ended.
///
/// # Errors
/// If an order isn't accepted, or the log or a service doesn't answer.
pub async fn in_city(city: &City, rate: f64, length: Duration) -> Result<Waited, BenchError> {
    let client = eventing::http::client().timeout(Duration::from_secs(60)).build().map_err(BenchError::Http)?;
    let mut orders = Orders::at(&client, city.url("order"), city.url("query")).await?;
    let topics = ["order", "delivery"].into_iter().filter_map(services::topic_of).map(ToOwned::to_owned);
    let topics: Vec<String> = topics.collect();
    let before = Stretch::all(&*city.log, &topics).await?;

    let looking = (LOOKING / rate).min(1.0);
    let (mut looked, mut customers) = (0.0, JoinSet::new());
    let mut due = Instant::now();
    let end = due + length;
    while due < end {
        tokio::time::sleep_until(due.into()).await;
        looked += looking;
        let looks = looked >= 1.0;
        looked -= f64::from(u8::from(looks));
        let query = looks.then(|| city.url("query").to_owned());
        customers.spawn(customer(client.clone(), city.url("order").to_owned(), query, orders.one_more(), due));
        due += Duration::from_secs_f64(1.0 / rate);
    }
    let (mut answer, mut visible) = (Vec::new(), Vec::new());
    while let Some(served) = customers.join_next().await {
        let (answered, seen) = served.map_err(|error| BenchError::Refused(error.to_string()))??;
        answer.push(answered);
        visible.extend(seen);
    }
    super::load::all_ended(&client, city).await?;
    let out = journeys(&city.log, before, &topics).await?;
    Ok(Waited { answer: Waits::of(answer), visible: Waits::of(visible), out })
}

/// Orders, and says after how many milliseconds the answer came and, where `query` is given, the view showed the order.
async fn customer(
    client: reqwest::Client,
    url: String,
    query: Option<String>,
    body: serde_json::Value,
    due: Instant,
) -> Result<(f64, Option<f64>), BenchError> {
    let since = |due: Instant| due.elapsed().as_secs_f64() * 1000.0;
    let placed = answered(client.post(format!("{url}/orders")).json(&body), 201).await?;
    let answer = since(due);
    let Some(query) = query else { return Ok((answer, None)) };
    let id = placed["order_id"].as_str().unwrap_or_default();
    answered(client.get(format!("{query}/orders/{id}?at_least=1")), 200).await?;
    Ok((answer, Some(since(due))))
}

/// How long each order took from being placed to being out for delivery, of those that began behind `before`.
async fn journeys(log: &Arc<dyn EventLog>, before: Vec<Stretch>, topics: &[String]) -> Result<Waits, BenchError> {
    let begin: HashMap<_, _> = before.into_iter().map(|stretch| (stretch.partition, stretch.to)).collect();
    let mut stretches = Stretch::all(&**log, topics).await?;
    for stretch in &mut stretches {
        stretch.from = begin.get(&stretch.partition).copied().unwrap_or(stretch.from);
    }
    let (mut placed, mut out) = (HashMap::new(), HashMap::new());
    let mut scan = Scan::of(log.clone(), stretches);
    while let Some(batch) = scan.next().await? {
        for stored in &batch.records {
            let Some((subject, time)) = happened(&stored.record, "order.placed.") else {
                out.extend(happened(&stored.record, "delivery.out_for_delivery."));
                continue;
            };
            placed.insert(subject, time);
        }
    }
    let took = placed.iter().filter_map(|(order, placed)| {
        let out: &Timestamp = out.get(order)?;
        Some(out.duration_since(*placed).as_secs_f64() * 1000.0)
    });
    Ok(Waits::of(took.collect()))
}

/// Whom and when an event of this kind befell.
fn happened(record: &Record, kind: &str) -> Option<(String, Timestamp)> {
    let header = |name: &str| {
        let value = record.headers.iter().find_map(|(known, value)| (known == name).then_some(value));
        value.and_then(|value| std::str::from_utf8(value).ok())
    };
    if !header("ce_type")?.contains(kind) {
        return None;
    }
    Some((header("ce_subject")?.to_owned(), header("ce_time")?.parse().ok()?))
}

/// The same orders, sent to a handler at `url` behind which there is nothing.
///
/// # Errors
/// If one isn't accepted.
pub async fn at_bare_handler(url: &str, bodies: &[serde_json::Value], rate: f64) -> Result<Waits, BenchError> {
    let client = eventing::http::client().timeout(Duration::from_secs(60)).build().map_err(BenchError::Http)?;
    let (mut customers, mut due) = (JoinSet::new(), Instant::now());
    for body in bodies {
        tokio::time::sleep_until(due.into()).await;
        customers.spawn(customer(client.clone(), url.to_owned(), None, body.clone(), due));
        due += Duration::from_secs_f64(1.0 / rate);
    }
    let mut answer = Vec::new();
    while let Some(served) = customers.join_next().await {
        answer.push(served.map_err(|error| BenchError::Refused(error.to_string()))??.0);
    }
    Ok(Waits::of(answer))
}

/// Trips over the log between an order being placed and being out for delivery: payment hears of it, kitchen of the
/// payment and of its own ticket, delivery of the packed order.
const TRIPS: f64 = 4.0;
/// Milliseconds that a cook takes meanwhile, unless told otherwise.
const COOKING: f64 = 20.0;
/// Until the view shows an order, at most: milliseconds when it is calm, and in the storm.
const VISIBLE: (f64, f64) = (100.0, 500.0);

/// What the people of several stretches have waited, calm and peak in turn, beside a bare handler and the bare log.
pub fn figures(rates: &Rates, calm: &[Waited], peak: &[Waited], bare: &(Waits, Waits), trips: &Waits) -> Vec<Figure> {
    let mut figures = Vec::new();
    let median = |of: &[Waited], what: fn(&Waited) -> &Waits, percent| {
        Waits::of(of.iter().filter_map(|waited| what(waited).percentile(percent)).collect()).percentile(50.0)
    };
    let add = |figures: &mut Vec<Figure>,
               part,
               name: String,
               value: Option<f64>,
               beside: Option<(&str, f64)>,
               target: Option<f64>| {
        let Some(value) = value else { return };
        let figure = Figure::new(part, name, value, "ms");
        let figure = beside.iter().fold(figure, |figure, (name, value)| figure.beside(*name, *value));
        figures.push(target.iter().fold(figure, |figure, most| figure.aiming_at(Target::AtMost(*most))));
    };
    for (when, rate, waited, bare, soon) in
        [("calm", rates.calm, calm, &bare.0, VISIBLE.0), ("at the peak", rates.peak, peak, &bare.1, VISIBLE.1)]
    {
        figures.push(Figure::new(Part::Placing, format!("orders sent, {when}"), rate, "orders/s"));
        for percent in [50.0, 99.0] {
            let name = |what: &str| format!("{what}, {when}: p{percent:.0}");
            let bare = bare.percentile(percent).map(|bare| ("a bare handler that writes one row", bare));
            let trip = trips.percentile(percent);
            let one = trip.map(|trip| ("one trip over the bare log", trip));
            let all = trip.map(|trip| ("four trips over the bare log and the cooking", TRIPS * trip + COOKING));
            let is_tail = percent > 50.0;
            add(
                &mut figures,
                Part::Placing,
                name("placing an order"),
                median(waited, |it| &it.answer, percent),
                bare,
                None,
            );
            let visible = median(waited, |it| &it.visible, percent);
            add(
                &mut figures,
                Part::Journey,
                name("placed to visible in the view"),
                visible,
                one,
                is_tail.then_some(soon),
            );
            add(
                &mut figures,
                Part::Journey,
                name("placed to out for delivery"),
                median(waited, |it| &it.out, percent),
                all,
                None,
            );
        }
    }
    let p99 = |of| median(of, |it: &Waited| &it.answer, 99.0);
    if let (Some(calm), Some(peak)) = (p99(calm), p99(peak)) {
        let figure = Figure::new(Part::Placing, "placing an order: p99 at the peak, of calm's", peak / calm, "times");
        figures.push(figure.aiming_at(Target::AtMost(2.0)));
    }
    figures
}

/// Bodies of orders for the kitchens of `city`.
///
/// # Errors
/// If no kitchen is open there.
pub async fn bodies(city: &City, count: usize) -> Result<Vec<serde_json::Value>, BenchError> {
    let client = eventing::http::client().build().map_err(BenchError::Http)?;
    let orders: Result<Orders, StormError> = Orders::at(&client, city.url("order"), city.url("query")).await;
    let mut orders = orders?;
    Ok((0..count).map(|_| orders.one_more()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_what_so_many_waited_at_most() {
        let waits = Waits::of((1..=200).rev().map(f64::from).collect());
        assert_eq!([50.0, 99.0].map(|percent| waits.percentile(percent)), [Some(100.0), Some(198.0)]);
        assert_eq!(Waits::of(vec![7.0]).percentile(99.0), Some(7.0));
        assert_eq!(Waits::default().percentile(50.0), None);
    }

    #[test]
    fn an_event_of_another_kind_tells_nothing() {
        let headers = [
            ("ce_type", "dev.rainstorm.order.placed.v1"),
            ("ce_subject", "an-order"),
            ("ce_time", "2026-11-29T07:00:00.000001Z"),
        ];
        let headers = headers.map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec())).to_vec();
        let record = Record { key: None, headers, value: None };
        let (order, time) = happened(&record, "order.placed.").expect("it is one");
        assert_eq!((order.as_str(), time.as_microsecond() % 1000), ("an-order", 1));
        assert_eq!(happened(&record, "delivery.out_for_delivery."), None);
    }
}
