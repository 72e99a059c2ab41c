//! The contract with whoever listens to payments: what is written is what `contract/` says, and what is read is what
//! the order service's `contract/` folder says it writes.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that can't go on fails")]

use end_to_end::contract::{encoded, is_kept_by, reads_exactly};
use payment::{
    domain::{Money, PaymentEvent},
    reactions::Heard,
};
use serde_json::Value;

/// One of every event that the domain can write; a new variant doesn't compile until it has its place here.
fn written() -> Vec<(String, Value)> {
    use PaymentEvent::*;
    let amount = || Money { amount: 900, currency: "EUR".into() };
    let key = || "key".to_owned();
    let events = [
        Confirmed { amount: amount(), charge_key: key() },
        Declined { reason: "card_declined".into() },
        Refunded { amount: amount(), charge_key: key() },
        Voided { charge_key: Some(key()) },
        ChargeOwed { amount: amount(), payment_token: "tok_slow".into(), charge_key: key() },
        RefundOwed { amount: amount(), charge_key: key(), refund_key: key(), charge_taken: true },
    ];
    let complete = |event: &PaymentEvent| match event {
        Confirmed { .. }
        | Declined { .. }
        | Refunded { .. }
        | Voided { .. }
        | ChargeOwed { .. }
        | RefundOwed { .. } => (),
    };
    events.iter().for_each(complete);
    events.iter().map(encoded).collect()
}

#[test]
fn what_is_written_is_what_the_contract_says() {
    is_kept_by("payment", payment::SERVICE.source, &written());
}

#[test]
fn the_payment_service_reads_the_order_services_events() {
    let needed = ["total", "total.amount", "total.currency", "payment_token"];
    reads_exactly::<Heard>("order", "dev.rainstorm.order.placed.v1", &needed);
    reads_exactly::<Heard>("order", "dev.rainstorm.order.cancelled.v1", &[]);
}
