//! The contract with whoever listens to orders: what is written is what `contract/` says, and what is read is what the
//! others' `contract/` folders say they write.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that can't go on fails")]

use end_to_end::contract::{encoded, is_kept_by, reads_exactly};
use order::{
    domain::{Address, CancellationReason, Line, Money, OrderEvent, PlacedOrder},
    reactions::Heard,
};
use serde_json::Value;

/// One of every event that the domain can write; a new variant doesn't compile until it has its place here.
fn written() -> Vec<(String, Value)> {
    use OrderEvent::*;
    let line = Line { item_id: "soup".into(), name: "Soup".into(), quantity: 2, unit_price: 450 };
    let placed = PlacedOrder {
        customer_id: "ada".into(),
        kitchen_id: "casa".into(),
        items: vec![line],
        total: Money { amount: 900, currency: "EUR".into() },
        address: Address { street: "1 Quay".into(), city: "Porto".into(), postal_code: "4000".into() },
        payment_token: "tok_ok".into(),
    };
    let reasons = [
        CancellationReason::CustomerRequest,
        CancellationReason::PaymentDeclined,
        CancellationReason::KitchenClosed,
        CancellationReason::SoldOut,
        CancellationReason::NoDriver,
    ];
    let mut events =
        vec![Placed(placed), CancellationRequested {}, CancellationRefused { reason: "packed".into() }, Completed {}];
    events.extend(reasons.map(|reason| Cancelled { reason }));
    let complete = |event: &OrderEvent| match event {
        Placed(_) | CancellationRequested {} | CancellationRefused { .. } | Cancelled { .. } | Completed {} => (),
    };
    events.iter().for_each(complete);
    events.iter().map(encoded).collect()
}

#[test]
fn what_is_written_is_what_the_contract_says() {
    is_kept_by("order", order::SERVICE.source, &written());
}

#[test]
fn the_order_service_reads_the_kitchens_events() {
    let menu = ["open", "currency", "menu", "menu[0].item_id", "menu[0].name", "menu[0].price", "menu[0].available"];
    let heard = reads_exactly::<Heard>("kitchen", "dev.rainstorm.kitchen.menu_published.v1", &menu);
    assert!(matches!(heard, Heard::MenuPublished { menu, .. } if !menu.is_empty()));
    reads_exactly::<Heard>("kitchen", "dev.rainstorm.kitchen.ticket_rejected.v1", &["reason"]);
    reads_exactly::<Heard>("kitchen", "dev.rainstorm.kitchen.ticket_cancelled.v1", &["reason"]);
    reads_exactly::<Heard>("kitchen", "dev.rainstorm.kitchen.cancellation_refused.v1", &["reason"]);
}

#[test]
fn the_order_service_reads_payments_and_deliveries() {
    reads_exactly::<Heard>("payment", "dev.rainstorm.payment.declined.v1", &[]);
    reads_exactly::<Heard>("delivery", "dev.rainstorm.delivery.failed.v1", &["reason"]);
    reads_exactly::<Heard>("delivery", "dev.rainstorm.delivery.delivered.v1", &[]);
}
