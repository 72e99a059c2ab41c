//! How the four streams of one order end together: the only ends there are, and what is never true at any moment.

/// The states in which the streams of one order rest together.
#[derive(Debug)]
pub struct End {
    pub order: &'static str,
    pub payment: &'static [&'static str],
    pub ticket: &'static [&'static str],
    pub delivery: &'static [&'static str],
}

const PACKED: &[&str] = &["packed", "packed, and not to be cancelled"];

static ENDS: [End; 5] = [
    // Eaten.
    End { order: "completed", payment: &["confirmed"], ticket: PACKED, delivery: &["delivered"] },
    // The card was no good; the customer may have changed his mind besides.
    End { order: "cancelled", payment: &["declined"], ticket: &["cancelled"], delivery: &["waiting for its food"] },
    // The kitchen couldn't, or needn't.
    End {
        order: "cancelled",
        payment: &["refunded"],
        ticket: &["rejected", "cancelled"],
        delivery: &["waiting for its food"],
    },
    // The customer changed his mind before the provider had answered.
    End { order: "cancelled", payment: &["voided"], ticket: &["cancelled"], delivery: &["waiting for its food"] },
    // Nobody was free to bring it.
    End { order: "cancelled", payment: &["refunded"], ticket: PACKED, delivery: &["failed"] },
];

/// Whether the streams of an order rest in one of the ends there are.
///
/// # Errors
/// What is unfinished, or doesn't go together.
pub fn ends_well(order: &str, payment: &str, ticket: &str, delivery: &str) -> Result<&'static End, String> {
    let fits = |end: &&End| {
        end.order == order
            && end.payment.contains(&payment)
            && end.ticket.contains(&ticket)
            && end.delivery.contains(&delivery)
    };
    if let Some(end) = ENDS.iter().find(fits) {
        return Ok(end);
    }
    let all = format!("order {order}; payment {payment}; ticket {ticket}; delivery {delivery}");
    if ENDS.iter().any(|end| end.order == order) {
        Err(format!("these ends don't go together: {all}"))
    } else {
        Err(format!("the story has no end: {all}"))
    }
}

/// What must not be, not even for a moment: food that was delivered, and money that was not taken or is given back.
#[must_use]
pub fn is_contradiction(order: &str, payment: &str, delivery: &str) -> bool {
    let arrives = ["assigned", "out", "delivered"].contains(&delivery) || order == "completed";
    let unpaid = ["declined", "voided", "settlement owed", "to be refunded", "refund owed", "refunded"];
    arrives && (unpaid.contains(&payment) || order == "cancelled")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delivered_order_is_completed_and_paid() {
        assert!(ends_well("completed", "confirmed", "packed", "delivered").is_ok());
        assert!(ends_well("completed", "confirmed", "packed, and not to be cancelled", "delivered").is_ok());
        for payment in ["refunded", "declined", "voided", "charge owed", "refund owed"] {
            assert!(ends_well("completed", payment, "packed", "delivered").is_err(), "{payment}");
        }
        assert!(ends_well("cancelled", "refunded", "packed", "delivered").is_err());
        assert!(ends_well("completed", "confirmed", "packed", "out").is_err());
    }

    #[test]
    fn a_cancelled_order_costs_nothing() {
        assert!(ends_well("cancelled", "refunded", "packed", "failed").is_ok());
        assert!(ends_well("cancelled", "refunded", "rejected", "waiting for its food").is_ok());
        assert!(ends_well("cancelled", "declined", "cancelled", "waiting for its food").is_ok());
        assert!(ends_well("cancelled", "confirmed", "cancelled", "waiting for its food").is_err());
    }

    #[test]
    fn an_order_that_waits_for_anything_has_no_end() {
        let said = ends_well("placed", "confirmed", "cooking", "waiting for its food").unwrap_err();
        assert!(said.contains("no end") && said.contains("cooking"), "{said}");
    }

    #[test]
    fn money_and_food_never_go_to_the_same_customer() {
        assert!(is_contradiction("placed", "refunded", "out"));
        assert!(is_contradiction("cancelled", "confirmed", "delivered"));
        assert!(is_contradiction("completed", "refund owed", "delivered"));
        assert!(!is_contradiction("placed", "confirmed", "delivered"));
        assert!(!is_contradiction("cancelled", "refunded", "failed"));
        // The view of one reader: the delivery may be known before the payment is.
        assert!(!is_contradiction("placed", "unheard of", "out"));
    }
}
