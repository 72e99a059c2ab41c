//! The money of an order: taken once or not at all, and given back once or not at all. Where the provider didn't answer
//! in time it is owed, and a tick asks again.

use super::{Command, Heard, Machine, NEW, line};

pub(super) static PAYMENT: Machine = Machine {
    source: "/payments",
    of_an_order: true,
    lines: &[
        line("payment.confirmed", &[NEW], "confirmed", &[Heard("order.placed")]),
        line("payment.declined", &[NEW], "declined", &[Heard("order.placed")]),
        line("payment.charge_owed", &[NEW], "charge owed", &[Heard("order.placed")]),
        line("payment.confirmed", &["charge owed"], "confirmed", &[Command]),
        line("payment.declined", &["charge owed"], "declined", &[Command]),
        // Cancelled before the charge was answered: nobody charges any more, but was the money taken?
        line("payment.refund_owed", &["charge owed"], "settlement owed", &[Heard("order.cancelled")]),
        line("payment.confirmed", &["settlement owed"], "to be refunded", &[Command]),
        line("payment.voided", &["settlement owed"], "voided", &[Command]),
        line("payment.refunded", &["to be refunded"], "refunded", &[Command]),
        line("payment.refund_owed", &["to be refunded"], "refund owed", &[Command]),
        // Cancelled after it was paid.
        line("payment.refunded", &["confirmed"], "refunded", &[Heard("order.cancelled")]),
        line("payment.refund_owed", &["confirmed"], "refund owed", &[Heard("order.cancelled")]),
        line("payment.refunded", &["refund owed"], "refunded", &[Command]),
        // Cancelled before the order was known here.
        line("payment.voided", &[NEW], "voided", &[Heard("order.cancelled")]),
    ],
};

#[cfg(test)]
mod tests {
    use super::{super::tests::walk, PAYMENT};

    #[test]
    fn money_is_taken_once_and_given_back_once() {
        assert_eq!(walk(&PAYMENT, &["payment.confirmed", "payment.refunded"]), Ok("refunded"));
        assert!(walk(&PAYMENT, &["payment.confirmed", "payment.confirmed"]).is_err());
        assert!(walk(&PAYMENT, &["payment.confirmed", "payment.refunded", "payment.refunded"]).is_err());
        assert!(walk(&PAYMENT, &["payment.confirmed", "payment.refunded", "payment.confirmed"]).is_err());
    }

    #[test]
    fn what_was_not_taken_is_not_given_back() {
        for end in ["payment.declined", "payment.voided", "payment.charge_owed"] {
            assert!(walk(&PAYMENT, &[end, "payment.refunded"]).is_err(), "{end}");
        }
        assert!(walk(&PAYMENT, &["payment.refunded"]).is_err());
    }

    #[test]
    fn what_is_owed_is_settled_by_the_tick() {
        let owed = |more: &[&'static str]| walk(&PAYMENT, &[&["payment.charge_owed"], more].concat());
        assert_eq!(owed(&["payment.confirmed"]), Ok("confirmed"));
        assert_eq!(owed(&["payment.declined"]), Ok("declined"));
        assert_eq!(owed(&["payment.refund_owed", "payment.voided"]), Ok("voided"));
        assert_eq!(owed(&["payment.refund_owed", "payment.confirmed", "payment.refunded"]), Ok("refunded"));
        let taken = ["payment.refund_owed", "payment.confirmed", "payment.refund_owed", "payment.refunded"];
        assert_eq!(owed(&taken), Ok("refunded"));
        assert_eq!(walk(&PAYMENT, &["payment.confirmed", "payment.refund_owed", "payment.refunded"]), Ok("refunded"));
        assert!(walk(&PAYMENT, &["payment.confirmed", "payment.refund_owed", "payment.voided"]).is_err());
    }
}
