//! It rains: many orders at once, in every way Rainstorm runs, with instances that share the work and with a crash in
//! the middle. What is asserted is how every story ends; how fast it was is the bench's business.

use end_to_end::{Way, World, until};

const STORM: [&str; 14] = [
    "--calm",
    "20",
    "--peak",
    "120",
    "--calm-for",
    "2s",
    "--storm-for",
    "4s",
    "--cancel",
    "0.05",
    "--bad-cards",
    "0.05",
    "--seed",
    "7",
];

async fn every_order_of_a_storm_ends_as_it_should(way: Way) {
    if !way.is_possible() {
        return;
    }
    let world = World::start(way, &[]).await;
    world.seed(60).await;
    // Every kitchen's menu has reached the order service when orders for each are taken.
    for number in 0..5 {
        world.open_kitchen(&format!("extra-{number}")).await;
    }

    let summary = world.storm(&STORM).await;
    let count = |name: &str| summary[name].as_u64().unwrap_or_else(|| panic!("{name} in {summary}"));
    assert!(count("accepted") > 400, "{summary}");
    assert_eq!(count("accepted"), count("completed") + count("cancelled"), "{summary}");
    assert!(count("cancelled") > 0, "a storm without bad cards and changed minds shows little: {summary}");
    assert_eq!((count("unfinished"), count("wrongly_cancelled"), count("failed")), (0, 0, 0), "{summary}");

    if way == Way::Deployed {
        return; // Others may order there, too.
    }
    // The view agrees that every story has ended.
    let mut cursor = String::new();
    let mut seen = 0;
    loop {
        let (_, page) = world.get("query", &format!("/orders?limit=500{cursor}")).await;
        let orders = page["orders"].as_array().expect("orders");
        seen += orders.len();
        for order in orders {
            assert!(["completed", "cancelled"].contains(&order["status"].as_str().expect("a status")), "{order}");
        }
        match page["cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(seen as u64, count("accepted"));
}

#[tokio::test(flavor = "multi_thread")]
async fn embedded() {
    every_order_of_a_storm_ends_as_it_should(Way::Embedded(1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn embedded_with_two_instances_of_every_service() {
    every_order_of_a_storm_ends_as_it_should(Way::Embedded(2)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_kafka_and_postgres() {
    every_order_of_a_storm_ends_as_it_should(Way::KafkaAndPostgres(1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_kafka_and_postgres_with_two_instances_of_every_service() {
    every_order_of_a_storm_ends_as_it_should(Way::KafkaAndPostgres(2)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deployed_somewhere() {
    every_order_of_a_storm_ends_as_it_should(Way::Deployed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_demo_killed_in_mid_storm_and_started_again_brings_every_order_to_its_end() {
    // Everything slow enough that the kill meets orders in every state.
    let slow = [("COOKING", "300ms"), ("RIDING", "300ms")];
    let mut demo = World::storming(&["--calm", "50", "--peak", "150", "--drivers", "200"], &slow).await;
    let accepted = until("a few hundred orders", || async {
        let (_, page) = demo.get("query", "/orders?limit=500").await;
        let orders = page["orders"].as_array().map_or(0, Vec::len);
        (orders >= 300).then_some(orders)
    })
    .await;
    let (_, under_way) = demo.get("query", "/orders?status=cooking&limit=500").await;
    demo.kill().await;
    assert!(under_way["orders"].as_array().is_some_and(|orders| !orders.is_empty()), "nothing was under way");

    let (status, said) =
        demo.rainstorm_on_its_data(&["demo", "--no-storm", "--no-seed", "--exit", "--port", "0"]).await;
    assert_eq!(status, Some(0), "{said}");

    demo.serve_again().await;
    let (_, page) = demo.get("query", "/orders?limit=500").await;
    let orders = page["orders"].as_array().expect("orders");
    assert!(orders.len() >= accepted);
    for order in orders {
        assert!(["completed", "cancelled"].contains(&order["status"].as_str().expect("a status")), "{order}");
    }
}
