//! A delivery: address and food come in any order, the second of the two makes it wait for a driver, and it ends
//! delivered or, if nobody was free in time, failed.

use super::{Command, Found, Heard, Machine, NEW, line};

pub(super) static DELIVERY: Machine = Machine {
    source: "/deliveries",
    of_an_order: true,
    lines: &[
        line("delivery.requested", &[NEW], "waiting for its food", &[Heard("order.placed")]),
        line(
            "delivery.order_ready",
            &["waiting for its food"],
            "waiting for a driver",
            &[Heard("kitchen.order_packed")],
        ),
        line("delivery.order_ready", &[NEW], "waiting for its address", &[Heard("kitchen.order_packed")]),
        line("delivery.requested", &["waiting for its address"], "waiting for a driver", &[Heard("order.placed")]),
        line(
            "delivery.driver_assigned",
            &["waiting for a driver"],
            "assigned",
            &[Found("delivery.requested"), Found("delivery.order_ready")],
        ),
        line(
            "delivery.out_for_delivery",
            &["assigned"],
            "out",
            &[Found("delivery.requested"), Found("delivery.order_ready")],
        ),
        line("delivery.delivered", &["out"], "delivered", &[Heard("delivery.out_for_delivery"), Command]),
        line(
            "delivery.failed",
            &["waiting for a driver"],
            "failed",
            &[Found("delivery.requested"), Found("delivery.order_ready")],
        ),
    ],
};

#[cfg(test)]
mod tests {
    use super::{super::tests::walk, DELIVERY};

    const WAITING: [&str; 2] = ["delivery.requested", "delivery.order_ready"];
    const OUT: [&str; 2] = ["delivery.driver_assigned", "delivery.out_for_delivery"];

    #[test]
    fn address_and_food_come_in_any_order() {
        assert_eq!(walk(&DELIVERY, &WAITING), Ok("waiting for a driver"));
        assert_eq!(walk(&DELIVERY, &["delivery.order_ready", "delivery.requested"]), Ok("waiting for a driver"));
        assert!(walk(&DELIVERY, &["delivery.requested", "delivery.driver_assigned"]).is_err());
        assert!(walk(&DELIVERY, &["delivery.requested", "delivery.failed"]).is_err());
    }

    #[test]
    fn a_delivery_has_one_driver_and_one_end() {
        let delivered = [&WAITING[..], &OUT, &["delivery.delivered"]].concat();
        assert_eq!(walk(&DELIVERY, &delivered), Ok("delivered"));
        assert_eq!(walk(&DELIVERY, &[&WAITING[..], &["delivery.failed"]].concat()), Ok("failed"));
        assert!(walk(&DELIVERY, &[&WAITING[..], &OUT, &OUT].concat()).is_err());
        assert!(walk(&DELIVERY, &[&WAITING[..], &OUT, &["delivery.failed"]].concat()).is_err());
        assert!(walk(&DELIVERY, &[&delivered[..], &["delivery.delivered"]].concat()).is_err());
        assert!(walk(&DELIVERY, &[&WAITING[..], &["delivery.delivered"]].concat()).is_err());
    }
}
