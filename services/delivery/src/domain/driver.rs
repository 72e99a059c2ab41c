//! A driver carries one order at a time, and only an order taken up on shift. A shift that ends during a ride ends at
//! once, but the ride is finished first: only then the driver is gone.

use event_sourcing::{Decider, DomainEvent};
use serde::{Deserialize, Serialize};

/// What happens to a driver, in the driver's own stream. The names in quotes are what is stored and published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", content = "data")]
pub enum DriverEvent {
    #[serde(rename = "dev.rainstorm.delivery.driver_on_shift.v1")]
    OnShift {},
    #[serde(rename = "dev.rainstorm.delivery.driver_engaged.v1")]
    Engaged { order_id: String },
    #[serde(rename = "dev.rainstorm.delivery.driver_released.v1")]
    Released { order_id: String },
    #[serde(rename = "dev.rainstorm.delivery.driver_off_shift.v1")]
    OffShift {},
}

impl DomainEvent for DriverEvent {}

/// What a driver does now. A driver's stream grows for years, so its last state is also kept as a row of its own.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Driver {
    #[default]
    OffShift,
    Free,
    Riding {
        order_id: String,
        /// The shift ended during the ride.
        leaves_after: bool,
    },
}

impl Driver {
    #[must_use]
    pub fn is_free(&self) -> bool {
        matches!(self, Self::Free)
    }

    /// The order that the driver carries.
    #[must_use]
    pub fn riding(&self) -> Option<&str> {
        match self {
            Self::Riding { order_id, .. } => Some(order_id),
            Self::OffShift | Self::Free => None,
        }
    }
}

/// What a driver is asked to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DriverCommand {
    GoOnShift,
    GoOffShift,
    /// Take this order; its delivery is assigned in the same transaction.
    Engage {
        order_id: String,
    },
    /// Be free of this order; it is delivered in the same transaction.
    Release {
        order_id: String,
    },
}

/// Why a driver's command is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DriverRejection {
    #[error("the driver is not free")]
    NotFree,
}

impl Decider for Driver {
    type Event = DriverEvent;
    type Command = DriverCommand;
    type Rejection = DriverRejection;

    fn evolve(self, event: DriverEvent) -> Self {
        match event {
            DriverEvent::OnShift {} => match self {
                Self::OffShift | Self::Free => Self::Free,
                Self::Riding { order_id, .. } => Self::Riding { order_id, leaves_after: false },
            },
            DriverEvent::OffShift {} => match self {
                Self::OffShift | Self::Free => Self::OffShift,
                Self::Riding { order_id, .. } => Self::Riding { order_id, leaves_after: true },
            },
            DriverEvent::Engaged { order_id } => Self::Riding { order_id, leaves_after: false },
            DriverEvent::Released { .. } => match self {
                Self::Free | Self::Riding { leaves_after: false, .. } => Self::Free,
                Self::OffShift | Self::Riding { leaves_after: true, .. } => Self::OffShift,
            },
        }
    }

    fn decide(&self, command: DriverCommand) -> Result<Vec<DriverEvent>, DriverRejection> {
        match command {
            DriverCommand::GoOnShift => Ok(match self {
                Self::OffShift | Self::Riding { leaves_after: true, .. } => vec![DriverEvent::OnShift {}],
                Self::Free | Self::Riding { leaves_after: false, .. } => vec![],
            }),
            DriverCommand::GoOffShift => Ok(match self {
                Self::Free | Self::Riding { leaves_after: false, .. } => vec![DriverEvent::OffShift {}],
                Self::OffShift | Self::Riding { leaves_after: true, .. } => vec![],
            }),
            DriverCommand::Engage { order_id } => match self {
                Self::Free => Ok(vec![DriverEvent::Engaged { order_id }]),
                Self::OffShift | Self::Riding { .. } => Err(DriverRejection::NotFree),
            },
            DriverCommand::Release { order_id } => match self.riding() {
                Some(riding) if riding == order_id => Ok(vec![DriverEvent::Released { order_id }]),
                Some(_) | None => Ok(vec![]),
            },
        }
    }
}

#[cfg(test)]
mod specification {
    use event_sourcing::{
        decode, encode,
        specification::{Given, given as given_events},
    };
    use proptest::prelude::*;

    use super::{
        DriverCommand::{GoOffShift, GoOnShift},
        *,
    };

    #[test]
    fn a_driver_goes_on_and_off_shift() {
        given([]).when(GoOnShift).then([on_shift()]);
        given([on_shift()]).when(GoOffShift).then([off_shift()]);
        given([on_shift(), off_shift()]).when(GoOnShift).then([on_shift()]);
    }

    #[test]
    fn a_shift_told_twice_does_nothing() {
        given([on_shift()]).when(GoOnShift).then_nothing();
        given([]).when(GoOffShift).then_nothing();
        given([on_shift(), engaged("a")]).when(GoOnShift).then_nothing();
        given([on_shift(), engaged("a"), off_shift()]).when(GoOffShift).then_nothing();
    }

    #[test]
    fn only_a_free_driver_is_engaged() {
        given([on_shift()]).when(engage("a")).then([engaged("a")]);
        given([]).when(engage("a")).then_rejected(&DriverRejection::NotFree);
        given([on_shift(), engaged("a")]).when(engage("b")).then_rejected(&DriverRejection::NotFree);
        given([on_shift(), engaged("a"), off_shift()]).when(engage("b")).then_rejected(&DriverRejection::NotFree);
        assert_eq!(given([on_shift(), engaged("a")]).state().riding(), Some("a"));
    }

    #[test]
    fn a_driver_is_released_once_and_from_that_order_only() {
        given([on_shift(), engaged("a")]).when(release("a")).then([released("a")]);
        given([on_shift(), engaged("a")]).when(release("b")).then_nothing();
        given([on_shift(), engaged("a"), released("a")]).when(release("a")).then_nothing();
        assert!(given([on_shift(), engaged("a"), released("a")]).state().is_free());
    }

    #[test]
    fn a_shift_that_ends_during_a_ride_is_stored_at_once_and_the_ride_is_finished() {
        given([on_shift(), engaged("a")]).when(GoOffShift).then([off_shift()]);
        given([on_shift(), engaged("a"), off_shift()]).when(release("a")).then([released("a")]);
        assert_eq!(given([on_shift(), engaged("a"), off_shift(), released("a")]).state(), Driver::OffShift);
    }

    #[test]
    fn a_driver_who_comes_back_during_the_ride_stays_after_it() {
        given([on_shift(), engaged("a"), off_shift()]).when(GoOnShift).then([on_shift()]);
        assert!(given([on_shift(), engaged("a"), off_shift(), on_shift(), released("a")]).state().is_free());
    }

    #[test]
    fn events_are_stored_under_their_contracts_names() {
        let stored = |event, name: &str, data: &str| {
            assert_eq!(encode(&event).unwrap(), (format!("dev.rainstorm.delivery.{name}.v1"), data.to_owned()));
        };
        stored(on_shift(), "driver_on_shift", "{}");
        stored(engaged("a"), "driver_engaged", r#"{"order_id":"a"}"#);
        stored(released("a"), "driver_released", r#"{"order_id":"a"}"#);
        stored(off_shift(), "driver_off_shift", "{}");
    }

    proptest! {
        #[test]
        fn a_driver_never_rides_two_orders_and_never_takes_one_off_shift(
            commands in prop::collection::vec(command(), 0..30),
        ) {
            let (mut on_shift, mut riding) = (false, None);
            for event in run(commands).1 {
                match event {
                    DriverEvent::OnShift {} => prop_assert!(!std::mem::replace(&mut on_shift, true)),
                    DriverEvent::OffShift {} => prop_assert!(std::mem::replace(&mut on_shift, false)),
                    DriverEvent::Engaged { order_id } => {
                        prop_assert!(on_shift);
                        prop_assert_eq!(riding.replace(order_id), None);
                    }
                    DriverEvent::Released { order_id } => prop_assert_eq!(riding.take(), Some(order_id)),
                }
            }
        }

        #[test]
        fn a_repeated_command_does_nothing(
            before in prop::collection::vec(command(), 0..10), command in command(),
        ) {
            let (driver, _) = run(before.into_iter().chain([command.clone()]));
            prop_assert!(matches!(driver.decide(command).as_deref(), Ok([]) | Err(_)));
        }

        #[test]
        fn every_event_and_every_state_reads_back_as_it_was_written(
            commands in prop::collection::vec(command(), 0..20),
        ) {
            let (driver, events) = run(commands);
            for event in events {
                let (event_type, data) = encode(&event).unwrap();
                prop_assert_eq!(decode::<DriverEvent>(&event_type, &data).unwrap(), event);
            }
            let row = serde_json::to_string(&driver).unwrap();
            prop_assert_eq!(serde_json::from_str::<Driver>(&row).unwrap(), driver);
        }
    }

    /// The state and the events after `commands`, those that are rejected left out.
    fn run(commands: impl IntoIterator<Item = DriverCommand>) -> (Driver, Vec<DriverEvent>) {
        commands.into_iter().fold((Driver::default(), vec![]), |(driver, mut events), command| {
            let new = driver.decide(command).unwrap_or_default();
            events.extend(new.clone());
            (new.into_iter().fold(driver, Driver::evolve), events)
        })
    }

    fn command() -> impl Strategy<Value = DriverCommand> {
        let order = || prop_oneof![Just("a"), Just("b"), Just("c")];
        prop_oneof![Just(GoOnShift), Just(GoOffShift), order().prop_map(engage), order().prop_map(release)]
    }

    fn given(events: impl IntoIterator<Item = DriverEvent>) -> Given<Driver> {
        given_events(events)
    }

    fn engage(order_id: &str) -> DriverCommand {
        DriverCommand::Engage { order_id: order_id.into() }
    }

    fn release(order_id: &str) -> DriverCommand {
        DriverCommand::Release { order_id: order_id.into() }
    }

    fn on_shift() -> DriverEvent {
        DriverEvent::OnShift {}
    }

    fn off_shift() -> DriverEvent {
        DriverEvent::OffShift {}
    }

    fn engaged(order_id: &str) -> DriverEvent {
        DriverEvent::Engaged { order_id: order_id.into() }
    }

    fn released(order_id: &str) -> DriverEvent {
        DriverEvent::Released { order_id: order_id.into() }
    }
}
