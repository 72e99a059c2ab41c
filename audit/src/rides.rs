//! Rides: an order's stream says which driver it was given to, and the driver's stream says which order was carried.
//! The two lie in different partitions, so each half is kept until the other has come.

use std::collections::HashMap;

use uuid::Uuid;

use crate::{
    report::{Check, Who},
    run::Audit,
    services::{DELIVERY, hash},
    story::{Seen, Story},
};

/// What both streams say of one ride; 0 where nothing was said. Driver and cause are in each: both halves happen in one
/// transaction, for one reason.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ride {
    assigned: u64,
    engaged: u64,
    delivered: u64,
    released: u64,
    /// The sum of the hashes of the driver's steps in the order's timeline, as the log has them and as the view has them.
    pub on_the_log: u64,
    pub in_the_view: u64,
}

impl Ride {
    fn is_settled(&self, with_view: bool) -> bool {
        self.assigned == self.engaged
            && self.delivered == self.released
            && (!with_view || self.on_the_log == self.in_the_view)
    }
}

/// All rides of which one half is still missing, by order.
#[derive(Debug, Default)]
pub struct Rides(HashMap<u128, Ride>);

impl Rides {
    /// The ride with an order; `None` if its id is none.
    pub fn with(&mut self, order: &str) -> Option<&mut Ride> {
        let order = Uuid::try_parse(order).ok()?;
        Some(self.0.entry(order.as_u128()).or_default())
    }

    /// Forgets those of which both halves have come and agree.
    pub fn forget_settled(&mut self, with_view: bool) {
        self.0.retain(|_, ride| !ride.is_settled(with_view));
    }
}

impl Audit<'_> {
    /// Notes what a story says of rides.
    pub fn note_rides(&mut self, subject: &str, story: &Story) {
        let mut carried: Option<&str> = None;
        let mut driver: Option<&str> = None;
        for seen in story.streams[DELIVERY].iter().filter(|seen| !seen.foreign) {
            let at = Some((DELIVERY, seen.version));
            let Some(data) = seen.data.as_deref() else { continue };
            let (driver_id, order_id) = (data.driver_id.as_deref(), data.order_id.as_deref());
            let wrong = match seen.name {
                "delivery.driver_assigned" => {
                    driver = driver_id;
                    self.note_ride(subject, driver_id, seen)
                }
                "delivery.out_for_delivery" => (driver_id != driver).then(|| "out with another driver".to_owned()),
                "delivery.delivered" if driver_id != driver => Some("delivered by another driver".to_owned()),
                "delivery.delivered" => self.note_ride(subject, driver_id, seen),
                "delivery.driver_engaged" => {
                    let busy = carried.map(|first| format!("{subject} carries {first} already"));
                    carried = order_id;
                    let order = order_id.unwrap_or_default();
                    let wrong = self.note_ride(order, Some(subject), seen);
                    if let Some(wrong) = busy.or(wrong) {
                        self.tally.fail(Check::Rides, Who::Subject(order.to_owned()), None, wrong);
                    }
                    None
                }
                "delivery.driver_released" => {
                    let order = order_id.unwrap_or_default();
                    let other = (carried.take() != order_id).then(|| format!("{subject} is released of another order"));
                    let wrong = self.note_ride(order, Some(subject), seen);
                    if let Some(wrong) = other.or(wrong) {
                        self.tally.fail(Check::Rides, Who::Subject(order.to_owned()), None, wrong);
                    }
                    None
                }
                _ => None,
            };
            if let Some(wrong) = wrong {
                self.tally.fail(Check::Rides, Who::Subject(subject.to_owned()), at, wrong);
            }
        }
    }

    /// Notes one half of a beginning or end; what is wrong, if it was said before.
    fn note_ride(&mut self, order: &str, driver: Option<&str>, seen: &Seen) -> Option<String> {
        self.tally.checked(Check::Rides, 1);
        let Some(ride) = self.rides.with(order) else { return Some(format!("{order} is no order's id")) };
        if !seen.machine.of_an_order {
            ride.on_the_log = ride.on_the_log.wrapping_add(seen.step);
        }
        let half = match seen.name {
            "delivery.driver_assigned" => &mut ride.assigned,
            "delivery.driver_engaged" => &mut ride.engaged,
            "delivery.delivered" => &mut ride.delivered,
            _ => &mut ride.released,
        };
        let said = std::mem::replace(half, hash(&[driver.unwrap_or_default().as_bytes(), &seen.cause.to_be_bytes()]));
        (said != 0).then(|| format!("{} for the second time", seen.name))
    }

    /// What is left once everything was read does not agree.
    pub fn judge_rides(&mut self, with_view: bool) {
        let mut left: Vec<_> = std::mem::take(&mut self.rides.0).into_iter().collect();
        left.sort_unstable_by_key(|(order, _)| *order);
        for (order, ride) in left {
            let order = Uuid::from_u128(order).to_string();
            // While the system runs, one half may have come before the other was read.
            let differ = |one: u64, other: u64| one != other && !(self.options.in_flight && (one == 0 || other == 0));
            if differ(ride.assigned, ride.engaged) {
                let what = "the order and the driver's own stream disagree on who was given this order";
                self.tally.fail(Check::Rides, Who::Subject(order.clone()), None, what);
            }
            if differ(ride.delivered, ride.released) {
                let what = "the order and the driver's own stream disagree on who brought it";
                self.tally.fail(Check::Rides, Who::Subject(order.clone()), None, what);
            }
            if with_view && ride.on_the_log != ride.in_the_view && !self.options.in_flight && !self.letters.hide(&order)
            {
                let what = "the timeline has other steps of the driver than the log";
                self.tally.fail(Check::Timelines, Who::Subject(order), None, what);
            }
        }
    }
}
