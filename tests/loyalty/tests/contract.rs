//! The contract with whoever listens to loyalty, and what it reads of the order service's events.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that can't go on fails")]

use end_to_end::contract::{encoded, is_kept_by, reads_exactly};
use loyalty::{
    domain::{AccountEvent, PurchaseEvent},
    reactions::Heard,
};

#[test]
fn what_is_written_is_what_the_contract_says() {
    let written = [
        encoded(&PurchaseEvent::Noted { customer_id: "ada".into(), points: 9 }),
        encoded(&PurchaseEvent::Rewarded {}),
        encoded(&AccountEvent::PointsEarned { order_id: "an order".into(), points: 9, balance: 21 }),
    ];
    is_kept_by("../tests/loyalty", loyalty::SERVICE.source, &written);
}

#[test]
fn loyalty_reads_the_order_services_events() {
    let needed = ["customer_id", "total", "total.amount"];
    reads_exactly::<Heard>("order", "dev.rainstorm.order.placed.v1", &needed);
    reads_exactly::<Heard>("order", "dev.rainstorm.order.completed.v1", &[]);
}
