//! The contract with whoever listens to delivery: what it writes is what `contract/` says, and what it reads is what
//! the others' `contract/` folders say they write.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that can't go on fails")]

use delivery::{
    domain::{Address, DeliveryEvent, DriverEvent, FailureReason},
    reactions::Heard,
};
use end_to_end::contract::{encoded, is_kept_by, reads_exactly};
use jiff::Timestamp;
use serde_json::Value;

/// One of every event that the domain can write; a new variant doesn't compile until it has its place here.
fn written() -> Vec<(String, Value)> {
    use DeliveryEvent::*;
    use DriverEvent::*;
    let at: Timestamp = "2026-11-24T09:00:00.123456789Z".parse().unwrap();
    let address = Address { street: "1 Quay".into(), city: "Porto".into(), postal_code: "4000".into() };
    let driver_id = || "dora".to_owned();
    let order_id = || "019a0000-0000-7000-8000-000000000001".to_owned();
    let delivery = [
        Requested { address, at },
        OrderReady { at },
        DriverAssigned { driver_id: driver_id() },
        OutForDelivery { driver_id: driver_id() },
        Delivered { driver_id: driver_id() },
        Failed { reason: FailureReason::NoDriver },
    ];
    let complete = |event: &DeliveryEvent| match event {
        Requested { .. } | OrderReady { .. } | DriverAssigned { .. } | OutForDelivery { .. } => (),
        Delivered { .. } | Failed { reason: FailureReason::NoDriver } => (),
    };
    delivery.iter().for_each(complete);
    let driver = [OnShift {}, Engaged { order_id: order_id() }, Released { order_id: order_id() }, OffShift {}];
    let complete = |event: &DriverEvent| match event {
        OnShift {} | Engaged { .. } | Released { .. } | OffShift {} => (),
    };
    driver.iter().for_each(complete);
    delivery.iter().map(encoded).chain(driver.iter().map(encoded)).collect()
}

#[test]
fn what_is_written_is_what_the_contract_says() {
    is_kept_by("delivery", delivery::SERVICE.source, &written());
}

#[test]
fn delivery_reads_its_own_events() {
    let event_type = "dev.rainstorm.delivery.out_for_delivery.v1";
    assert_eq!(reads_exactly::<Heard>("delivery", event_type, &[]), Heard::OutForDelivery {});
}

#[test]
fn delivery_reads_the_order_services_events() {
    let needed = ["address", "address.street", "address.city", "address.postal_code"];
    let heard = reads_exactly::<Heard>("order", "dev.rainstorm.order.placed.v1", &needed);
    assert!(matches!(heard, Heard::OrderPlaced { .. }));
}

#[test]
fn delivery_reads_the_kitchens_events() {
    let heard = reads_exactly::<Heard>("kitchen", "dev.rainstorm.kitchen.order_packed.v1", &[]);
    assert_eq!(heard, Heard::OrderPacked {});
}
