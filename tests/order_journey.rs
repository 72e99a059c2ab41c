//! The story of one order, told once and run in every way Rainstorm does.
//!
//! Hop by hop, each reaction stands in `services/<service>/src/reactions.rs`, what it decides in `domain.rs` beside it:
//!
//! | what happens | who decides it | because of |
//! |---|---|---|
//! | `order.placed` | order | `POST /orders` |
//! | `payment.confirmed` | payment | `order.placed` |
//! | `kitchen.ticket_created` | kitchen | `order.placed` |
//! | `kitchen.ticket_accepted` | kitchen | `payment.confirmed` (or `order.placed`, if that came later) |
//! | `kitchen.order_packed` | kitchen | its own `kitchen.ticket_accepted`: the cook is done |
//! | `delivery.requested` | delivery | `order.placed` |
//! | `delivery.order_ready` | delivery | `kitchen.order_packed` |
//! | `delivery.driver_assigned`, `out_for_delivery`, `driver_engaged` | delivery | an order waits and a driver is free |
//! | `delivery.delivered`, `driver_released` | delivery | its own `delivery.out_for_delivery`: the driver is there |
//! | `order.completed` | order | `delivery.delivered` |

use std::collections::HashMap;

use end_to_end::{Way, World, story};
use serde_json::Value;

async fn an_order_is_placed_paid_cooked_delivered_and_completed(way: Way) {
    if !way.is_possible() {
        return;
    }
    let world = World::start(way, &[]).await;
    world.open_kitchen("rainstorm-e2e").await;
    world.shift("rainstorm-e2e", true).await;

    let order = world.place("rainstorm-e2e", "tok_ok").await;

    world.order_in(&order, "completed").await;

    let mut expected = vec![
        "order.placed",
        "payment.confirmed",
        "kitchen.ticket_created",
        "kitchen.ticket_accepted",
        "kitchen.order_packed",
        "delivery.requested",
        "delivery.order_ready",
        "delivery.driver_assigned",
        "delivery.driver_engaged",
        "delivery.out_for_delivery",
        "delivery.delivered",
        "delivery.driver_released",
        "order.completed",
    ];
    let view = world.order_told(&order, &expected).await;
    let mut told = story(&view);
    // The kitchen makes a note of a payment that it hears of before the order.
    expected.extend(told.iter().find(|name| *name == "kitchen.payment_noted").map(|_| "kitchen.payment_noted"));
    expected.sort_unstable();
    told.sort();
    assert_eq!(told, expected);

    // Every step but the first names the step that caused it, and all of them were caused by this one story.
    let timeline = view["timeline"].as_array().expect("a timeline");
    let ids: HashMap<&str, &Value> =
        timeline.iter().map(|event| (event["id"].as_str().expect("an id"), event)).collect();
    for event in timeline {
        let caused_by_one_of_them = ids.contains_key(event["causation_id"].as_str().expect("a cause"));
        assert_eq!(caused_by_one_of_them, event["type"] != "dev.rainstorm.order.placed.v1", "{event}");
        assert_eq!(event["latency_ms"].is_number(), caused_by_one_of_them, "{event}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn embedded() {
    an_order_is_placed_paid_cooked_delivered_and_completed(Way::Embedded(1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_kafka_and_postgres() {
    an_order_is_placed_paid_cooked_delivered_and_completed(Way::KafkaAndPostgres(1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deployed_somewhere() {
    an_order_is_placed_paid_cooked_delivered_and_completed(Way::Deployed).await;
}
