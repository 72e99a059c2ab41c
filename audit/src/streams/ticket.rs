//! A ticket, an order in its kitchen: order and payment come in any order, the second of the two is answered, and
//! packing is the point of no return.

use super::{Command, Heard, Machine, NEW, line};

pub(super) static TICKET: Machine = Machine {
    source: "/kitchen",
    of_an_order: true,
    lines: &[
        line("kitchen.ticket_created", &[NEW], "waiting for its payment", &[Heard("order.placed")]),
        line("kitchen.ticket_accepted", &["waiting for its payment"], "cooking", &[Heard("payment.confirmed")]),
        line("kitchen.ticket_rejected", &["waiting for its payment"], "rejected", &[Heard("payment.confirmed")]),
        line("kitchen.payment_noted", &[NEW], "waiting for its order", &[Heard("payment.confirmed")]),
        line("kitchen.ticket_created", &["waiting for its order"], "ordered and paid", &[Heard("order.placed")]),
        line("kitchen.ticket_accepted", &["ordered and paid"], "cooking", &[Heard("order.placed")]),
        line("kitchen.ticket_rejected", &["ordered and paid"], "rejected", &[Heard("order.placed")]),
        line("kitchen.order_packed", &["cooking"], "packed", &[Heard("kitchen.ticket_accepted"), Command]),
        line(
            "kitchen.ticket_cancelled",
            &[NEW, "waiting for its payment", "waiting for its order", "cooking"],
            "cancelled",
            &[Heard("order.cancellation_requested"), Heard("payment.declined")],
        ),
        line(
            "kitchen.cancellation_refused",
            &["packed"],
            "packed, and not to be cancelled",
            &[Heard("order.cancellation_requested")],
        ),
    ],
};

#[cfg(test)]
mod tests {
    use super::{super::tests::walk, TICKET};

    const COOKING: [&str; 2] = ["kitchen.ticket_created", "kitchen.ticket_accepted"];

    #[test]
    fn order_and_payment_come_in_any_order() {
        assert_eq!(walk(&TICKET, &COOKING), Ok("cooking"));
        let paid_first = ["kitchen.payment_noted", "kitchen.ticket_created", "kitchen.ticket_accepted"];
        assert_eq!(walk(&TICKET, &paid_first), Ok("cooking"));
        assert_eq!(walk(&TICKET, &["kitchen.ticket_created", "kitchen.ticket_rejected"]), Ok("rejected"));
        assert!(walk(&TICKET, &["kitchen.ticket_accepted"]).is_err());
        assert!(walk(&TICKET, &["kitchen.payment_noted", "kitchen.ticket_accepted"]).is_err());
    }

    #[test]
    fn only_what_was_accepted_is_packed_and_only_once() {
        assert!(walk(&TICKET, &["kitchen.ticket_created", "kitchen.order_packed"]).is_err());
        assert!(walk(&TICKET, &["kitchen.ticket_created", "kitchen.ticket_rejected", "kitchen.order_packed"]).is_err());
        assert_eq!(walk(&TICKET, &[&COOKING[..], &["kitchen.order_packed"]].concat()), Ok("packed"));
        let twice = ["kitchen.order_packed", "kitchen.order_packed"];
        assert!(walk(&TICKET, &[&COOKING[..], &twice].concat()).is_err());
    }

    #[test]
    fn packing_is_the_point_of_no_return() {
        assert_eq!(walk(&TICKET, &["kitchen.ticket_cancelled"]), Ok("cancelled"));
        assert_eq!(walk(&TICKET, &[&COOKING[..], &["kitchen.ticket_cancelled"]].concat()), Ok("cancelled"));
        let packed = [&COOKING[..], &["kitchen.order_packed"]].concat();
        assert!(walk(&TICKET, &[&packed[..], &["kitchen.ticket_cancelled"]].concat()).is_err());
        assert!(walk(&TICKET, &[&packed[..], &["kitchen.cancellation_refused"]].concat()).is_ok());
        assert!(walk(&TICKET, &[&COOKING[..], &["kitchen.cancellation_refused"]].concat()).is_err());
        assert!(walk(&TICKET, &["kitchen.ticket_cancelled", "kitchen.ticket_created"]).is_err());
    }
}
