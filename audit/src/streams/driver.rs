//! A driver: engaged only while free, which is on shift and carrying nothing. A shift that ends during a ride ends at
//! once, and the ride is finished.

use super::{Because::Ride, Command, Machine, NEW, line};

pub(super) static DRIVER: Machine = Machine {
    source: "/deliveries",
    of_an_order: false,
    lines: &[
        line("delivery.driver_on_shift", &[NEW, "off shift"], "free", &[Command]),
        line("delivery.driver_off_shift", &["free"], "off shift", &[Command]),
        line("delivery.driver_engaged", &["free"], "riding", &[Ride]),
        line("delivery.driver_released", &["riding"], "free", &[Ride]),
        line("delivery.driver_off_shift", &["riding"], "riding home", &[Command]),
        line("delivery.driver_on_shift", &["riding home"], "riding", &[Command]),
        line("delivery.driver_released", &["riding home"], "off shift", &[Ride]),
    ],
};

#[cfg(test)]
mod tests {
    use super::{super::tests::walk, DRIVER};

    const RIDING: [&str; 2] = ["delivery.driver_on_shift", "delivery.driver_engaged"];

    #[test]
    fn a_driver_carries_one_order_at_a_time() {
        let released = [&RIDING[..], &["delivery.driver_released"]].concat();
        assert_eq!(walk(&DRIVER, &released), Ok("free"));
        assert!(walk(&DRIVER, &[&RIDING[..], &["delivery.driver_engaged"]].concat()).is_err());
        assert!(walk(&DRIVER, &[&released[..], &["delivery.driver_released"]].concat()).is_err());
    }

    #[test]
    fn nobody_is_engaged_off_shift() {
        assert!(walk(&DRIVER, &["delivery.driver_engaged"]).is_err());
        let off = ["delivery.driver_on_shift", "delivery.driver_off_shift", "delivery.driver_engaged"];
        assert!(walk(&DRIVER, &off).is_err());
    }

    #[test]
    fn a_ride_is_finished_after_the_shift() {
        let leaving = [&RIDING[..], &["delivery.driver_off_shift"]].concat();
        assert_eq!(walk(&DRIVER, &[&leaving[..], &["delivery.driver_released"]].concat()), Ok("off shift"));
        assert_eq!(walk(&DRIVER, &[&leaving[..], &["delivery.driver_on_shift"]].concat()), Ok("riding"));
        assert!(walk(&DRIVER, &[&leaving[..], &["delivery.driver_engaged"]].concat()).is_err());
    }
}
