//! The contract with all producers: the views read what their `contract/` folders say they write, and know every type.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that can't go on fails")]

use std::path::Path;

use end_to_end::contract::reads_exactly;
use query::views::{Kind, OfDriver, OfKitchen, OfOrder};

fn full(name: &str) -> String {
    format!("dev.rainstorm.{name}.v1")
}

#[test]
fn the_views_read_every_producers_events() {
    let placed = [
        "customer_id",
        "kitchen_id",
        "items",
        "items[0].item_id",
        "items[0].name",
        "items[0].quantity",
        "items[0].unit_price",
        "total",
        "total.amount",
        "total.currency",
    ];
    reads_exactly::<OfOrder>("order", &full("order.placed"), &placed);
    reads_exactly::<OfOrder>("order", &full("order.cancellation_requested"), &[]);
    reads_exactly::<OfOrder>("order", &full("order.cancellation_refused"), &[]);
    reads_exactly::<OfOrder>("order", &full("order.cancelled"), &["reason"]);
    reads_exactly::<OfOrder>("order", &full("order.completed"), &[]);
    let amount = ["amount", "amount.amount", "amount.currency"];
    reads_exactly::<OfOrder>("payment", &full("payment.confirmed"), &amount);
    reads_exactly::<OfOrder>("payment", &full("payment.refunded"), &amount);
    reads_exactly::<OfOrder>("kitchen", &full("kitchen.ticket_accepted"), &[]);
    reads_exactly::<OfOrder>("kitchen", &full("kitchen.order_packed"), &[]);
    reads_exactly::<OfOrder>("delivery", &full("delivery.out_for_delivery"), &[]);
    reads_exactly::<OfOrder>("delivery", &full("delivery.delivered"), &[]);
    let menu =
        ["name", "open", "currency", "menu", "menu[0].item_id", "menu[0].name", "menu[0].price", "menu[0].available"];
    reads_exactly::<OfKitchen>("kitchen", &full("kitchen.menu_published"), &menu);
    reads_exactly::<OfDriver>("delivery", &full("delivery.driver_on_shift"), &[]);
    reads_exactly::<OfDriver>("delivery", &full("delivery.driver_off_shift"), &[]);
    reads_exactly::<OfDriver>("delivery", &full("delivery.driver_engaged"), &["order_id"]);
    reads_exactly::<OfDriver>("delivery", &full("delivery.driver_released"), &[]);
}

#[test]
fn no_type_that_anybody_publishes_is_unknown_to_the_views() {
    for service in ["order", "payment", "kitchen", "delivery"] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(service).join("contract");
        for file in std::fs::read_dir(folder).unwrap() {
            let file = file.unwrap().file_name().into_string().unwrap();
            let name = file.trim_end_matches(".json").trim_end_matches(".schema").trim_end_matches(".v1");
            assert!(Kind::of(name).is_some(), "{name}");
        }
    }
}
