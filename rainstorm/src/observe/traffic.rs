//! What goes over the log: how many of which events, how long orders take, and how old what waits is.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    time::{Duration, Instant},
};

use eventing::{
    heading,
    log::{Batch, Partition, Record},
    name_and_version,
};
use jiff::Timestamp;
use rand::RngExt;

use super::frame::{Orders, Sample};

/// Events of one frame that are shown.
const SAMPLES: usize = 40;
/// How far back rates and journeys are told of.
const RATE: Duration = Duration::from_secs(2);
const JOURNEYS: Duration = Duration::from_secs(10);
/// Journeys that are kept, and orders whose beginning is.
const MOST: usize = 50_000;
/// Times of records that are kept of each partition, and how far they are apart at least.
const TIMES: usize = 4_000;
const APART_MS: i64 = 50;

/// What was seen so far.
#[derive(Default)]
pub struct Traffic {
    events: BTreeMap<String, u64>,
    samples: Vec<Sample>,
    seen: u64,
    /// When which orders were placed that haven't ended.
    placed: HashMap<String, Timestamp>,
    journeys: VecDeque<(Instant, f64)>,
    /// Orders placed, completed and cancelled, as they were seen.
    moments: VecDeque<(Instant, [u64; 3])>,
    /// Offsets and when the records there were made.
    times: HashMap<Partition, VecDeque<(i64, Timestamp)>>,
}

fn text<'a>(record: &'a Record, name: &str) -> Option<&'a str> {
    std::str::from_utf8(record.header(name)?).ok()
}

impl Traffic {
    /// Takes in what has arrived.
    pub fn take(&mut self, batch: &Batch, now: Instant) {
        let mut counts = [0; 3];
        for stored in &batch.records {
            let Some([id, _, event_type]) = heading(&stored.record) else { continue };
            let Some((name, _)) = name_and_version(event_type) else { continue };
            let time = text(&stored.record, "ce_time").unwrap_or_default();
            let parsed = time.parse::<Timestamp>().ok();
            if let Some(time) = parsed {
                self.note_time(&batch.partition, stored.offset, time);
            }
            *self.events.entry(name.to_owned()).or_default() += 1;
            let order = text(&stored.record, "ce_correlationid").unwrap_or_default();
            match (name, parsed) {
                ("order.placed", Some(time)) => {
                    counts[0] += 1;
                    if self.placed.len() < MOST {
                        self.placed.insert(order.to_owned(), time);
                    }
                }
                ("order.completed", Some(time)) => {
                    counts[1] += 1;
                    if let Some(placed) = self.placed.remove(order) {
                        self.journeys.push_back((now, time.duration_since(placed).as_secs_f64() * 1000.0));
                    }
                }
                ("order.cancelled", _) => {
                    counts[2] += 1;
                    self.placed.remove(order);
                }
                _ => {}
            }
            self.sample(|| Sample {
                id: id.to_owned(),
                name: name.to_owned(),
                subject: text(&stored.record, "ce_subject").unwrap_or_default().to_owned(),
                order_id: order.parse::<uuid::Uuid>().ok().map(|id| id.to_string()),
                at: time.to_owned(),
            });
        }
        self.moments.push_back((now, counts));
        if self.journeys.len() > MOST {
            self.journeys.drain(..MOST / 2);
        }
    }

    /// Each event of a frame is as likely to be shown as any other.
    fn sample(&mut self, sample: impl FnOnce() -> Sample) {
        self.seen += 1;
        if self.samples.len() < SAMPLES {
            self.samples.push(sample());
        } else {
            let place = usize::try_from(rand::rng().random_range(0..self.seen)).unwrap_or(SAMPLES);
            if let Some(shown) = self.samples.get_mut(place) {
                *shown = sample();
            }
        }
    }

    fn note_time(&mut self, partition: &Partition, offset: i64, time: Timestamp) {
        let times = match self.times.get_mut(partition) {
            Some(times) => times,
            None => self.times.entry(partition.clone()).or_default(),
        };
        if times.back().is_none_or(|(_, last)| time.as_millisecond() - last.as_millisecond() >= APART_MS) {
            times.push_back((offset, time));
        }
        if times.len() > TIMES {
            // Of what is old every other one does.
            let mut keep = false;
            times.retain(|_| {
                keep = !keep;
                keep
            });
        }
    }

    /// How old the record at this offset is, about; the oldest known one may be younger.
    pub fn age_ms(&self, partition: &Partition, offset: i64, now: Timestamp) -> Option<u64> {
        let times = self.times.get(partition)?;
        let behind = times.partition_point(|(known, _)| *known <= offset);
        let (_, time) = times.get(behind.saturating_sub(1))?;
        Some(u64::try_from(now.duration_since(*time).as_millis()).unwrap_or_default())
    }

    /// What was seen since this was asked before.
    pub fn frame(&mut self) -> (BTreeMap<String, u64>, Vec<Sample>) {
        self.seen = 0;
        (std::mem::take(&mut self.events), std::mem::take(&mut self.samples))
    }

    /// How orders are doing, as far as the log tells it.
    pub fn orders(&mut self, now: Instant) -> Orders {
        while self.moments.front().is_some_and(|(at, _)| now.duration_since(*at) > RATE) {
            self.moments.pop_front();
        }
        while self.journeys.front().is_some_and(|(at, _)| now.duration_since(*at) > JOURNEYS) {
            self.journeys.pop_front();
        }
        let a_second = |what: usize| {
            let sum: u64 = self.moments.iter().map(|(_, counts)| counts[what]).sum();
            sum as f64 / RATE.as_secs_f64()
        };
        let mut journeys: Vec<f64> = self.journeys.iter().map(|(_, ms)| *ms).collect();
        journeys.sort_by(f64::total_cmp);
        let below =
            |share: f64| journeys.get(((journeys.len() as f64 * share).ceil() as usize).saturating_sub(1)).copied();
        Orders {
            placed_per_s: a_second(0),
            completed_per_s: a_second(1),
            cancelled_per_s: a_second(2),
            journey_p50_ms: below(0.5),
            journey_p99_ms: below(0.99),
            ..Orders::default()
        }
    }
}
