//! The contract with whoever listens to the kitchen: what it writes is what `contract/` says, and what it reads is what
//! the others' `contract/` folders say they write.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that can't go on fails")]

use end_to_end::contract::{encoded, is_kept_by, reads_exactly};
use kitchen::{
    domain::{CancellationReason, KitchenEvent, MenuItem, RefusalReason, RejectionReason, TicketEvent, TicketItem},
    reactions::Heard,
};
use serde_json::Value;

/// One of every event that the domain can write; a new variant doesn't compile until it has its place here.
fn written() -> Vec<(String, Value)> {
    use TicketEvent::*;
    let dish = MenuItem { item_id: "soup".into(), name: "Soup".into(), price: 450, available: true };
    let menu =
        KitchenEvent::MenuPublished { name: "Casa".into(), open: true, currency: "EUR".into(), menu: vec![dish] };
    let item = TicketItem { item_id: "soup".into(), name: "Soup".into(), quantity: 2 };
    let ticket = [
        TicketCreated { kitchen_id: "casa".into(), items: vec![item] },
        PaymentNoted {},
        TicketAccepted { kitchen_id: "casa".into() },
        TicketRejected { reason: RejectionReason::KitchenClosed },
        TicketRejected { reason: RejectionReason::SoldOut },
        TicketCancelled { reason: CancellationReason::CustomerRequest },
        TicketCancelled { reason: CancellationReason::PaymentDeclined },
        CancellationRefused { reason: RefusalReason::Packed },
        OrderPacked { kitchen_id: "casa".into() },
    ];
    let complete = |event: &TicketEvent| match event {
        TicketCreated { .. } | PaymentNoted {} | TicketAccepted { .. } | TicketRejected { .. } => (),
        TicketCancelled { .. } | CancellationRefused { .. } | OrderPacked { .. } => (),
    };
    ticket.iter().for_each(complete);
    let KitchenEvent::MenuPublished { .. } = &menu;
    ticket.iter().map(encoded).chain([encoded(&menu)]).collect()
}

#[test]
fn what_is_written_is_what_the_contract_says() {
    is_kept_by("kitchen", kitchen::SERVICE.source, &written());
}

#[test]
fn the_kitchen_reads_its_own_events() {
    let event_type = "dev.rainstorm.kitchen.ticket_accepted.v1";
    assert_eq!(reads_exactly::<Heard>("kitchen", event_type, &[]), Heard::TicketAccepted {});
}

#[test]
fn the_kitchen_reads_the_order_services_events() {
    let heard = reads_exactly::<Heard>(
        "order",
        "dev.rainstorm.order.placed.v1",
        &["kitchen_id", "items", "items[0].item_id", "items[0].name", "items[0].quantity"],
    );
    assert!(matches!(heard, Heard::OrderPlaced { items, .. } if !items.is_empty()));
    let heard = reads_exactly::<Heard>("order", "dev.rainstorm.order.cancellation_requested.v1", &[]);
    assert_eq!(heard, Heard::CancellationRequested {});
}

#[test]
fn the_kitchen_reads_the_payment_services_events() {
    let heard = reads_exactly::<Heard>("payment", "dev.rainstorm.payment.confirmed.v1", &[]);
    assert_eq!(heard, Heard::PaymentConfirmed {});
    assert_eq!(reads_exactly::<Heard>("payment", "dev.rainstorm.payment.declined.v1", &[]), Heard::PaymentDeclined {});
}
