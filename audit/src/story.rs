//! What the log says of one subject: of an order, all four services' streams of it; of a kitchen or a driver, the one
//! stream there is. Events themselves are not kept, only what tells them apart and the few fields that are judged.

use eventing::Incoming;
use query::views::{Applied, DriverView, Kind, KitchenView, OrderView, View};
use serde::Deserialize;

use crate::{
    services::hash,
    streams::{Machine, machine},
};

/// An event on the log.
#[derive(Debug)]
pub struct Seen {
    pub version: i64,
    /// Of its id.
    pub id: u64,
    /// Of every byte of its record.
    pub record: u64,
    /// Of the id of its cause.
    pub cause: u64,
    /// Of its line in a timeline.
    pub step: u64,
    pub machine: &'static Machine,
    /// `order.placed`
    pub name: &'static str,
    pub data: Option<Box<Data>>,
    /// It came while the stores were being read, so they and its cause may not have been seen yet.
    pub late: bool,
    /// The store has it.
    pub stored: bool,
    /// Its order's timeline has it.
    pub shown: bool,
    /// Nobody has stored it, and a dead letter says that it couldn't be handled either: somebody else put it there.
    pub foreign: bool,
}

/// An amount in minor units of a currency.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Money {
    pub amount: i64,
    pub currency: Box<str>,
}

/// The fields of events that are judged.
#[derive(Debug, Default, Deserialize)]
pub struct Data {
    #[serde(alias = "total")]
    pub amount: Option<Money>,
    pub charge_key: Option<Box<str>>,
    pub refund_key: Option<Box<str>>,
    pub driver_id: Option<Box<str>>,
    pub order_id: Option<Box<str>>,
    pub reason: Option<Box<str>>,
    /// The event's own id: what others are asked under.
    #[serde(skip)]
    pub id: Box<str>,
}

/// The fold of the events, as the query service should have it.
#[derive(Debug, PartialEq)]
pub enum Fold {
    Order(Box<OrderView>),
    Kitchen(KitchenView),
    Driver(DriverView),
}

/// What became of a record.
#[derive(Debug, PartialEq, Eq)]
pub enum Taken {
    /// It is the next of its stream.
    Next,
    /// It stands there already, with the same bytes.
    Repeated,
    /// It is not what should come here.
    Wrong(String),
}

/// Everything of one subject.
#[derive(Debug, Default)]
pub struct Story {
    /// By service; each in order of version.
    pub streams: [Vec<Seen>; 4],
    pub fold: Option<Fold>,
    /// Whether it is an order's.
    pub is_order: bool,
}

impl Story {
    /// Takes an event in; `record` stands for all of its bytes.
    pub fn take(&mut self, service: usize, event: &Incoming, record: u64, late: bool) -> Taken {
        let version = event.sequence.unwrap_or_default();
        let stream = &mut self.streams[service];
        let last = stream.last().map_or(0, |seen| seen.version);
        if version <= last
            && let Ok(place) = stream.binary_search_by_key(&version, |seen| seen.version)
        {
            if stream[place].record == record {
                return Taken::Repeated;
            }
            let same_id = stream[place].id == hash(&[event.id.as_bytes()]);
            let what = if same_id { "told again with other bytes" } else { "told again as another event" };
            return Taken::Wrong(format!("event {version} is {what}"));
        }
        let Some((machine, name)) = known(&event.event_type) else {
            return Taken::Wrong(format!("{} is no type of ours", event.event_type));
        };
        self.is_order |= machine.of_an_order;
        let seen = Seen {
            version,
            id: hash(&[event.id.as_bytes()]),
            record,
            cause: hash(&[event.causation_id.as_bytes()]),
            step: step_of(event),
            machine,
            name,
            data: data(name, event),
            late,
            stored: false,
            shown: false,
            foreign: false,
        };
        let place = stream.partition_point(|seen| seen.version < version);
        stream.insert(place, seen);
        self.fold(name, event);
        match version - last {
            1 => Taken::Next,
            2.. => Taken::Wrong(format!("event {version} stands where event {} should", last + 1)),
            ..=0 => Taken::Wrong(format!("event {version} stands behind event {last}")),
        }
    }

    /// Folds an event into the view of its subject.
    fn fold(&mut self, name: &str, event: &Incoming) {
        let Some(kind) = Kind::of(name) else { return };
        let fold = self.fold.get_or_insert_with(|| match kind {
            Kind::Order => Fold::Order(Box::default()),
            Kind::Kitchen => Fold::Kitchen(KitchenView::default()),
            Kind::Driver => Fold::Driver(DriverView::default()),
        });
        // An event that can't be applied leaves the view as it is, here as there.
        let _: Applied = match fold {
            Fold::Order(view) => view.apply(event),
            Fold::Kitchen(view) => view.apply(event),
            Fold::Driver(view) => view.apply(event),
        };
    }

    /// An event of this id in any stream of the story.
    pub fn event(&self, id: u64) -> Option<&Seen> {
        self.streams.iter().flatten().find(|seen| seen.id == id)
    }

    /// The event at this place.
    pub fn at(&mut self, service: usize, version: i64) -> Option<&mut Seen> {
        let stream = &mut self.streams[service];
        let place = stream.binary_search_by_key(&version, |seen| seen.version).ok()?;
        stream.get_mut(place)
    }
}

/// The kind of stream and the name of an event of ours, in the version that everybody speaks.
#[must_use]
pub fn known(event_type: &str) -> Option<(&'static Machine, &'static str)> {
    match eventing::name_and_version(event_type) {
        Some((name, "v1")) => machine(name),
        Some(_) | None => None,
    }
}

/// What is kept of an event's data, if anything of it is judged.
fn data(name: &str, event: &Incoming) -> Option<Box<Data>> {
    let judged = matches!(
        name,
        "order.placed"
            | "order.cancelled"
            | "payment.confirmed"
            | "payment.refunded"
            | "payment.refund_owed"
            | "kitchen.ticket_rejected"
            | "kitchen.ticket_cancelled"
            | "delivery.failed"
            | "delivery.driver_assigned"
            | "delivery.out_for_delivery"
            | "delivery.delivered"
            | "delivery.driver_engaged"
            | "delivery.driver_released"
    );
    judged.then(|| {
        // What can't be read leaves its fields empty, and is judged as that.
        let data: Data = serde_json::from_str(&event.data).unwrap_or_default();
        Box::new(Data { id: event.id.as_str().into(), ..data })
    })
}

/// What a timeline says of an event.
fn step_of(event: &Incoming) -> u64 {
    let sequence = event.sequence.unwrap_or_default();
    step(&event.source, &event.subject, sequence, [&event.id, &event.event_type, &event.time, &event.causation_id])
}

/// A line of a timeline: where the event stands, then its id, type, time and cause.
#[must_use]
pub fn step(source: &str, subject: &str, sequence: i64, [id, event_type, time, cause]: [&str; 4]) -> u64 {
    let texts = [source, subject, id, event_type, time, cause].map(str::as_bytes);
    let sequence = sequence.to_be_bytes();
    hash(&[texts[0], texts[1], &sequence, texts[2], texts[3], texts[4], texts[5]])
}
