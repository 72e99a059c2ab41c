//! An order: placed, then one of two ends. A wish to cancel stands in between until the kitchen has answered.

use super::{Command, Heard, Machine, NEW, line};

pub(super) static ORDER: Machine = Machine {
    source: "/orders",
    of_an_order: true,
    lines: &[
        line("order.placed", &[NEW], "placed", &[Command]),
        line("order.cancellation_requested", &["placed"], "to be cancelled", &[Command]),
        line(
            "order.cancellation_refused",
            &["to be cancelled"],
            "not to be cancelled",
            &[Heard("kitchen.cancellation_refused")],
        ),
        line(
            "order.cancelled",
            &["placed", "to be cancelled", "not to be cancelled"],
            "cancelled",
            &[
                Heard("payment.declined"),
                Heard("kitchen.ticket_rejected"),
                Heard("kitchen.ticket_cancelled"),
                Heard("delivery.failed"),
            ],
        ),
        line(
            "order.completed",
            &["placed", "to be cancelled", "not to be cancelled"],
            "completed",
            &[Heard("delivery.delivered")],
        ),
    ],
};

#[cfg(test)]
mod tests {
    use super::{super::tests::walk, ORDER};

    #[test]
    fn an_order_has_one_end() {
        assert_eq!(walk(&ORDER, &["order.placed", "order.completed"]), Ok("completed"));
        assert_eq!(walk(&ORDER, &["order.placed", "order.cancelled"]), Ok("cancelled"));
        for more in ["order.completed", "order.cancelled", "order.cancellation_requested", "order.placed"] {
            assert!(walk(&ORDER, &["order.placed", "order.completed", more]).is_err(), "{more}");
            assert!(walk(&ORDER, &["order.placed", "order.cancelled", more]).is_err(), "{more}");
        }
    }

    #[test]
    fn a_wish_to_cancel_is_answered_once_and_stops_nothing_by_itself() {
        let wished = ["order.placed", "order.cancellation_requested"];
        assert_eq!(walk(&ORDER, &[&wished[..], &["order.completed"]].concat()), Ok("completed"));
        let refused = [&wished[..], &["order.cancellation_refused"]].concat();
        assert_eq!(walk(&ORDER, &[&refused[..], &["order.cancelled"]].concat()), Ok("cancelled"));
        assert!(walk(&ORDER, &[&refused[..], &["order.cancellation_refused"]].concat()).is_err());
        assert!(walk(&ORDER, &["order.placed", "order.cancellation_refused"]).is_err());
    }

    #[test]
    fn nothing_happens_to_an_order_that_was_not_placed() {
        for event in ["order.completed", "order.cancelled", "order.cancellation_requested"] {
            assert!(walk(&ORDER, &[event]).is_err(), "{event}");
        }
    }
}
