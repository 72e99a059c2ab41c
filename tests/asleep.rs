//! Everything begins at zero and goes back to it: a storm over services that sleep, one that is woken by nothing but the
//! passing of time, and what that finds.

use std::path::Path;

use end_to_end::{Way, World};

/// What a world was told, in the words of the tools that look at it.
async fn audit(world: &World, accepted: Option<&Path>) {
    let brokers = std::env::var("KAFKA_BROKERS").expect("asked for by is_possible");
    let (stores, provider) = (world.database_url("{service}"), world.database_url(end_to_end::PROVIDER));
    let settings = [("KAFKA_BROKERS", &*brokers), ("DATABASE_URL", &stores), ("PROVIDER_DATABASE_URL", &provider)];
    let accepted = accepted.map(|file| file.to_str().expect("UTF-8"));
    let arguments: Vec<&str> =
        std::iter::once("audit").chain(accepted.iter().flat_map(|file| ["--accepted", file])).collect();
    let (status, said) = World::run("rainstorm", &arguments, &settings).await;
    assert_eq!(status, Some(0), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_wakes_everybody_and_when_it_is_over_everybody_sleeps() {
    if !Way::Asleep.is_possible() {
        return;
    }
    // Time passes more slowly than anybody falls asleep, as in the cluster.
    let world = World::start(Way::Asleep, &[("TICK_EVERY", "3s")]).await;
    assert!(world.everybody_sleeps().await.iter().all(|(_, wakings)| *wakings <= 1), "asleep at first");
    world.seed(40).await;
    for number in 0..5 {
        world.open_kitchen(&format!("extra-{number}")).await;
    }

    let accepted = tempfile::NamedTempFile::new().expect("a file");
    let file = accepted.path().to_str().expect("UTF-8");
    let mut storm = vec!["--seed", "5", "--accepted", file];
    storm.extend(["--calm", "5", "--peak", "40", "--calm-for", "1s", "--storm-for", "3s", "--cancel", "0.05"]);
    let summary = world.storm(&storm).await;
    assert!(summary["accepted"].as_u64() > Some(100), "{summary}");

    for (service, wakings) in world.everybody_sleeps().await {
        assert!(wakings > 0, "{service} never woke");
    }
    audit(&world, Some(accepted.path())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_crashed_with_unpublished_events_and_then_slept_is_swept_out_by_the_tick() {
    if !Way::Asleep.is_possible() {
        return;
    }
    let world = World::start(Way::Asleep, &[("TICK_EVERY", "3s")]).await;
    world.open_kitchen("luigis").await;
    world.drivers_on_shift(1).await;
    world.everybody_sleeps().await;

    // The order service wakes where it can't reach the log; it takes the order all the same, and crashes.
    let brokers = std::env::var("KAFKA_BROKERS").expect("asked for by is_possible");
    world.set("order", "KAFKA_BROKERS", "127.0.0.1:1").await;
    let order = world.place("luigis", "tok_ok").await;
    world.kill_asleep("order").await;
    let unpublished = "SELECT COUNT(*) FROM events WHERE published = 0";
    assert_eq!(world.number("order", unpublished).await, 1, "the order is stored, and nobody has heard of it");

    // Nobody asks it for anything. Time wakes it.
    world.set("order", "KAFKA_BROKERS", &brokers).await;
    world.order_in(&order, "completed").await;
    world.everybody_sleeps().await;
    audit(&world, None).await;
}
