//! A delivery brings one packed order to its address. It waits for a driver once two facts are there, whichever comes
//! first: where to, and that the food is ready. Who waits too long for a driver fails; who has one arrives.

use std::time::Duration;

use event_sourcing::{Decider, DomainEvent};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

mod driver;

pub use driver::{Driver, DriverCommand, DriverEvent, DriverRejection};

/// What happens to a delivery, in the order's stream. The names in quotes are what is stored and published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", content = "data")]
pub enum DeliveryEvent {
    #[serde(rename = "dev.rainstorm.delivery.requested.v1")]
    Requested { address: Address, at: Timestamp },
    #[serde(rename = "dev.rainstorm.delivery.order_ready.v1")]
    OrderReady { at: Timestamp },
    #[serde(rename = "dev.rainstorm.delivery.driver_assigned.v1")]
    DriverAssigned { driver_id: String },
    #[serde(rename = "dev.rainstorm.delivery.out_for_delivery.v1")]
    OutForDelivery { driver_id: String },
    #[serde(rename = "dev.rainstorm.delivery.delivered.v1")]
    Delivered { driver_id: String },
    #[serde(rename = "dev.rainstorm.delivery.failed.v1")]
    Failed { reason: FailureReason },
}

impl DomainEvent for DeliveryEvent {}

/// Where the customer waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    pub street: String,
    pub city: String,
    pub postal_code: String,
}

/// Why an order never arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureReason {
    NoDriver,
}

/// How far a delivery has come.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Delivery {
    #[default]
    Unknown,
    /// The address is known; the food is not ready.
    Requested,
    /// The food is ready; the address is not known.
    Ready,
    /// Waits for a driver, since the second of the two facts came.
    Waiting {
        since: Timestamp,
    },
    Out {
        driver_id: String,
    },
    Delivered,
    Failed,
}

impl Delivery {
    /// Since when it waits for a driver, if it does.
    #[must_use]
    pub fn waiting_since(&self) -> Option<Timestamp> {
        match self {
            Self::Waiting { since } => Some(*since),
            Self::Unknown | Self::Requested | Self::Ready => None,
            Self::Out { .. } | Self::Delivered | Self::Failed => None,
        }
    }

    /// The driver who is on the way with it.
    #[must_use]
    pub fn driver_id(&self) -> Option<&str> {
        match self {
            Self::Out { driver_id } => Some(driver_id),
            Self::Unknown | Self::Requested | Self::Ready => None,
            Self::Waiting { .. } | Self::Delivered | Self::Failed => None,
        }
    }
}

/// What is asked of a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeliveryCommand {
    Request {
        address: Address,
        at: Timestamp,
    },
    NoteReady {
        at: Timestamp,
    },
    /// Give it to this driver, who is engaged in the same transaction.
    Assign {
        driver_id: String,
    },
    Deliver,
    /// Give up, if it has waited for a driver for more than `patience`.
    Expire {
        now: Timestamp,
        patience: Duration,
    },
}

/// Why a delivery's command is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DeliveryRejection {
    #[error("the delivery is not waiting for a driver")]
    NotWaiting,
    #[error("there is no such delivery")]
    Unknown,
    #[error("no driver is on the way with this delivery yet")]
    NotOut,
    #[error("the delivery failed, since no driver was free in time")]
    Failed,
}

impl Decider for Delivery {
    type Event = DeliveryEvent;
    type Command = DeliveryCommand;
    type Rejection = DeliveryRejection;

    fn evolve(self, event: DeliveryEvent) -> Self {
        match event {
            DeliveryEvent::Requested { at, .. } => match self {
                Self::Unknown | Self::Requested => Self::Requested,
                Self::Ready => Self::Waiting { since: at },
                Self::Waiting { .. } | Self::Out { .. } | Self::Delivered | Self::Failed => self,
            },
            DeliveryEvent::OrderReady { at } => match self {
                Self::Unknown | Self::Ready => Self::Ready,
                Self::Requested => Self::Waiting { since: at },
                Self::Waiting { .. } | Self::Out { .. } | Self::Delivered | Self::Failed => self,
            },
            DeliveryEvent::DriverAssigned { driver_id } | DeliveryEvent::OutForDelivery { driver_id } => {
                Self::Out { driver_id }
            }
            DeliveryEvent::Delivered { .. } => Self::Delivered,
            DeliveryEvent::Failed { .. } => Self::Failed,
        }
    }

    fn decide(&self, command: DeliveryCommand) -> Result<Vec<DeliveryEvent>, DeliveryRejection> {
        match command {
            DeliveryCommand::Request { address, at } => Ok(match self {
                Self::Unknown | Self::Ready => vec![DeliveryEvent::Requested { address, at }],
                Self::Requested | Self::Waiting { .. } => vec![],
                Self::Out { .. } | Self::Delivered | Self::Failed => vec![],
            }),
            DeliveryCommand::NoteReady { at } => Ok(match self {
                Self::Unknown | Self::Requested => vec![DeliveryEvent::OrderReady { at }],
                Self::Ready | Self::Waiting { .. } => vec![],
                Self::Out { .. } | Self::Delivered | Self::Failed => vec![],
            }),
            DeliveryCommand::Assign { driver_id } => match self {
                Self::Waiting { .. } => Ok(vec![
                    DeliveryEvent::DriverAssigned { driver_id: driver_id.clone() },
                    DeliveryEvent::OutForDelivery { driver_id },
                ]),
                Self::Unknown | Self::Requested | Self::Ready => Err(DeliveryRejection::NotWaiting),
                Self::Out { .. } | Self::Delivered | Self::Failed => Err(DeliveryRejection::NotWaiting),
            },
            DeliveryCommand::Deliver => match self {
                Self::Out { driver_id } => Ok(vec![DeliveryEvent::Delivered { driver_id: driver_id.clone() }]),
                Self::Delivered => Ok(vec![]),
                Self::Unknown => Err(DeliveryRejection::Unknown),
                Self::Requested | Self::Ready | Self::Waiting { .. } => Err(DeliveryRejection::NotOut),
                Self::Failed => Err(DeliveryRejection::Failed),
            },
            DeliveryCommand::Expire { now, patience } => Ok(match self {
                Self::Waiting { since } if waited(*since, now) > patience => {
                    vec![DeliveryEvent::Failed { reason: FailureReason::NoDriver }]
                }
                // Before the food is ready nobody looks for a driver, so nobody can be late.
                Self::Unknown | Self::Requested | Self::Ready | Self::Waiting { .. } => vec![],
                Self::Out { .. } | Self::Delivered | Self::Failed => vec![],
            }),
        }
    }
}

/// Nothing, if the clocks of two hosts disagree so far that `since` lies ahead.
fn waited(since: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(since)).unwrap_or_default()
}

#[cfg(test)]
mod specification {
    use event_sourcing::{
        decode, encode,
        specification::{Given, given as given_events},
    };
    use proptest::prelude::*;

    use super::{
        DeliveryCommand::Deliver,
        DeliveryRejection::{NotOut, NotWaiting},
        *,
    };

    #[test]
    fn an_address_waits_for_the_food() {
        given([]).when(request(1)).then([requested(1)]);
        given([requested(1)]).when(note_ready(5)).then([ready(5)]);
        assert_eq!(given([requested(1), ready(5)]).state().waiting_since(), Some(second(5)));
    }

    #[test]
    fn the_food_waits_for_an_address() {
        given([]).when(note_ready(1)).then([ready(1)]);
        given([ready(1)]).when(request(5)).then([requested(5)]);
        assert_eq!(given([ready(1), requested(5)]).state().waiting_since(), Some(second(5)));
    }

    #[test]
    fn an_address_or_food_told_twice_does_nothing() {
        given([requested(1)]).when(request(2)).then_nothing();
        given([ready(1)]).when(note_ready(2)).then_nothing();
        for story in [vec![], vec![assigned(), out()], vec![assigned(), out(), delivered()], vec![failed()]] {
            let story = || given([requested(1), ready(5)].into_iter().chain(story.clone()));
            story().when(request(9)).then_nothing();
            story().when(note_ready(9)).then_nothing();
        }
    }

    #[test]
    fn a_waiting_delivery_goes_out_with_its_driver_at_once() {
        given([requested(1), ready(5)]).when(assign()).then([assigned(), out()]);
        assert_eq!(given([requested(1), ready(5), assigned(), out()]).state().driver_id(), Some("dora"));
    }

    #[test]
    fn a_delivery_that_does_not_wait_gets_no_driver() {
        let assign = |events: Vec<_>| given(events).when(assign());
        assign(vec![]).then_rejected(&NotWaiting);
        assign(vec![requested(1)]).then_rejected(&NotWaiting);
        assign(vec![ready(1)]).then_rejected(&NotWaiting);
        assign(vec![requested(1), ready(5), assigned(), out()]).then_rejected(&NotWaiting);
        assign(vec![requested(1), ready(5), assigned(), out(), delivered()]).then_rejected(&NotWaiting);
        assign(vec![requested(1), ready(5), failed()]).then_rejected(&NotWaiting);
    }

    #[test]
    fn what_is_out_is_delivered_once() {
        given([requested(1), ready(5), assigned(), out()]).when(Deliver).then([delivered()]);
        given([requested(1), ready(5), assigned(), out(), delivered()]).when(Deliver).then_nothing();
    }

    #[test]
    fn what_is_not_out_is_not_delivered() {
        given([]).when(Deliver).then_rejected(&DeliveryRejection::Unknown);
        given([requested(1)]).when(Deliver).then_rejected(&NotOut);
        given([ready(1)]).when(Deliver).then_rejected(&NotOut);
        given([requested(1), ready(5)]).when(Deliver).then_rejected(&NotOut);
        given([requested(1), ready(5), failed()]).when(Deliver).then_rejected(&DeliveryRejection::Failed);
    }

    #[test]
    fn a_delivery_fails_when_no_driver_is_free_for_longer_than_its_patience() {
        given([requested(1), ready(5)]).when(expire(15, 10)).then_nothing();
        given([requested(1), ready(5)]).when(expire(16, 10)).then([failed()]);
        given([requested(1), ready(5), failed()]).when(expire(99, 10)).then_nothing();
    }

    #[test]
    fn a_clock_that_is_behind_fails_nothing() {
        given([requested(1), ready(5)]).when(expire(0, 0)).then_nothing();
    }

    #[test]
    fn only_what_waits_for_a_driver_expires() {
        given([]).when(expire(99, 10)).then_nothing();
        given([requested(1)]).when(expire(99, 10)).then_nothing();
        given([ready(1)]).when(expire(99, 10)).then_nothing();
        given([requested(1), ready(5), assigned(), out()]).when(expire(99, 10)).then_nothing();
        given([requested(1), ready(5), assigned(), out(), delivered()]).when(expire(99, 10)).then_nothing();
    }

    #[test]
    fn events_are_stored_under_their_contracts_names() {
        let stored = |event, name: &str, data: &str| {
            assert_eq!(encode(&event).unwrap(), (format!("dev.rainstorm.delivery.{name}.v1"), data.to_owned()));
        };
        let address = r#"{"street":"1 Quay","city":"Porto","postal_code":"4000"}"#;
        stored(requested(1), "requested", &format!(r#"{{"address":{address},"at":"1970-01-01T00:00:01Z"}}"#));
        stored(ready(5), "order_ready", r#"{"at":"1970-01-01T00:00:05Z"}"#);
        stored(assigned(), "driver_assigned", r#"{"driver_id":"dora"}"#);
        stored(out(), "out_for_delivery", r#"{"driver_id":"dora"}"#);
        stored(delivered(), "delivered", r#"{"driver_id":"dora"}"#);
        stored(failed(), "failed", r#"{"reason":"no_driver"}"#);
    }

    proptest! {
        #[test]
        fn a_delivery_is_assigned_at_most_once_and_has_one_end(commands in prop::collection::vec(command(), 0..30)) {
            let (_, events) = run(commands);
            let count = |is: fn(&DeliveryEvent) -> bool| events.iter().filter(|event| is(event)).count();
            let assigned = count(|event| matches!(event, DeliveryEvent::DriverAssigned { .. }));
            let out = count(|event| matches!(event, DeliveryEvent::OutForDelivery { .. }));
            let delivered = count(|event| matches!(event, DeliveryEvent::Delivered { .. }));
            let failed = count(|event| matches!(event, DeliveryEvent::Failed { .. }));
            prop_assert!(assigned + failed <= 1, "assigned twice, or failed with a driver: {events:?}");
            prop_assert!(delivered + failed <= 1, "more than one end: {events:?}");
            prop_assert!(out == assigned && delivered <= out, "delivered by nobody: {events:?}");
        }

        #[test]
        fn address_and_food_lead_to_the_same_delivery_in_any_order_and_number(
            told in prop::collection::vec(any::<bool>(), 0..6),
        ) {
            let command = |address| if address { request(5) } else { note_ready(5) };
            let (delivery, events) = run(told.into_iter().chain([true, false]).map(command));
            prop_assert_eq!(delivery, Delivery::Waiting { since: second(5) });
            prop_assert_eq!(events.len(), 2);
        }

        #[test]
        fn a_repeated_command_does_nothing(
            before in prop::collection::vec(command(), 0..10), command in command(),
        ) {
            let (delivery, _) = run(before.into_iter().chain([command.clone()]));
            prop_assert!(matches!(delivery.decide(command).as_deref(), Ok([]) | Err(_)));
        }

        #[test]
        fn every_event_reads_back_as_it_was_written(commands in prop::collection::vec(command(), 0..20)) {
            for event in run(commands).1 {
                let (event_type, data) = encode(&event).unwrap();
                prop_assert_eq!(decode::<DeliveryEvent>(&event_type, &data).unwrap(), event);
            }
        }
    }

    /// The state and the events after `commands`, those that are rejected left out.
    fn run(commands: impl IntoIterator<Item = DeliveryCommand>) -> (Delivery, Vec<DeliveryEvent>) {
        commands.into_iter().fold((Delivery::default(), vec![]), |(delivery, mut events), command| {
            let new = delivery.decide(command).unwrap_or_default();
            events.extend(new.clone());
            (new.into_iter().fold(delivery, Delivery::evolve), events)
        })
    }

    fn command() -> impl Strategy<Value = DeliveryCommand> {
        prop_oneof![
            (0..50i64).prop_map(request),
            (0..50i64).prop_map(note_ready),
            Just(assign()),
            Just(Deliver),
            (0..100i64, 0..50u64).prop_map(|(now, patience)| expire(now, patience)),
        ]
    }

    fn given(events: impl IntoIterator<Item = DeliveryEvent>) -> Given<Delivery> {
        given_events(events)
    }

    fn request(at: i64) -> DeliveryCommand {
        DeliveryCommand::Request { address: address(), at: second(at) }
    }

    fn note_ready(at: i64) -> DeliveryCommand {
        DeliveryCommand::NoteReady { at: second(at) }
    }

    fn assign() -> DeliveryCommand {
        DeliveryCommand::Assign { driver_id: "dora".into() }
    }

    fn expire(now: i64, patience: u64) -> DeliveryCommand {
        DeliveryCommand::Expire { now: second(now), patience: Duration::from_secs(patience) }
    }

    fn requested(at: i64) -> DeliveryEvent {
        DeliveryEvent::Requested { address: address(), at: second(at) }
    }

    fn ready(at: i64) -> DeliveryEvent {
        DeliveryEvent::OrderReady { at: second(at) }
    }

    fn assigned() -> DeliveryEvent {
        DeliveryEvent::DriverAssigned { driver_id: "dora".into() }
    }

    fn out() -> DeliveryEvent {
        DeliveryEvent::OutForDelivery { driver_id: "dora".into() }
    }

    fn delivered() -> DeliveryEvent {
        DeliveryEvent::Delivered { driver_id: "dora".into() }
    }

    fn failed() -> DeliveryEvent {
        DeliveryEvent::Failed { reason: FailureReason::NoDriver }
    }

    fn address() -> Address {
        Address { street: "1 Quay".into(), city: "Porto".into(), postal_code: "4000".into() }
    }

    fn second(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }
}
