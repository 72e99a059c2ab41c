//! What may go wrong between two people and a soup, and how each story still ends. Every scenario runs in every way.

use end_to_end::{World, in_every_way, order, story, until};
use serde_json::json;

in_every_way! {
    a_declined_card_ends_the_order_before_anybody_cooks([]);
    a_flaky_provider_is_asked_again_in_place([]);
    a_slow_provider_delays_its_own_order_only_and_charges_once([("TICK_EVERY", "300ms")]);
    an_order_cancelled_while_it_cooks_is_refunded([("COOKING", "manual")]);
    an_order_cancelled_before_it_is_paid_costs_nothing([("TICK_EVERY", "300ms")]);
    a_packed_order_cannot_be_cancelled_and_is_delivered([("RIDING", "manual")]);
    a_kitchen_that_closes_before_the_money_comes_gives_it_back([("TICK_EVERY", "300ms")]);
    a_dish_sold_out_before_the_money_comes_gives_it_back([("TICK_EVERY", "300ms")]);
    an_order_waits_for_a_driver_and_the_first_on_shift_takes_it([]);
    an_order_that_finds_no_driver_in_time_is_refunded([("DELIVERY_PATIENCE", "500ms"), ("TICK_EVERY", "300ms")]);
    a_shift_may_end_during_the_ride_and_the_ride_is_finished([("RIDING", "manual")]);
    one_driver_carries_one_order_at_a_time([]);
    a_key_makes_a_repeated_order_the_same_order([]);
    people_read_what_they_wrote([]);
    everything_is_still_there_after_kill_9([("COOKING", "200ms"), ("RIDING", "200ms")]);
}

fn money(view: &serde_json::Value) -> (i64, i64) {
    let amount = |name: &str| view["money"][name]["amount"].as_i64().or(view["money"][name].as_i64()).unwrap_or(0);
    (amount("captured"), amount("refunded"))
}

/// The order as it is shown once it has this status and all of its money moved. (The view hears of orders and payments
/// from two topics, so either may show first.)
async fn settled(world: &World, order: &str, status: &str, captured: i64, refunded: i64) -> serde_json::Value {
    let what = format!("be {status} with {captured} captured and {refunded} refunded");
    world.order_when(order, &what, |view| view["status"] == status && money(view) == (captured, refunded)).await
}

async fn a_declined_card_ends_the_order_before_anybody_cooks(world: World) {
    world.open_kitchen("luigis").await;
    let order = world.place("luigis", "tok_declined").await;
    let view = world.order_in(&order, "cancelled").await;
    assert_eq!(view["cancellation"]["reason"], "payment_declined");
    assert_eq!(money(&view), (0, 0));
    assert!(!story(&view).contains(&"kitchen.ticket_accepted".to_owned()));
}

async fn a_flaky_provider_is_asked_again_in_place(world: World) {
    world.open_kitchen("luigis").await;
    world.drivers_on_shift(1).await;
    let order = world.place("luigis", "tok_flaky").await;
    let view = settled(&world, &order, "completed", 950, 0).await;
    assert!(!story(&view).contains(&"payment.charge_owed".to_owned()));
}

async fn a_slow_provider_delays_its_own_order_only_and_charges_once(world: World) {
    world.open_kitchen("luigis").await;
    world.drivers_on_shift(2).await;
    let slow = world.place("luigis", "tok_slow").await;
    let quick = world.place("luigis", "tok_ok").await;
    let quick = world.order_in(&quick, "completed").await;
    let view = settled(&world, &slow, "completed", 950, 0).await;
    assert!(view["ended_at"].as_str() > quick["ended_at"].as_str());
    world.order_told(&slow, &["payment.charge_owed"]).await;
}

async fn an_order_cancelled_while_it_cooks_is_refunded(world: World) {
    world.open_kitchen("luigis").await;
    let order = world.place("luigis", "tok_ok").await;
    world.order_in(&order, "cooking").await;
    assert_eq!(world.cancel(&order).await, 202);
    let view = settled(&world, &order, "cancelled", 950, 950).await;
    assert_eq!(view["cancellation"]["reason"], "customer_request");
    let (status, said) = world.post("kitchen", &format!("/tickets/{order}/pack"), &json!({})).await;
    assert_eq!(status, 409, "{said}");
    assert_eq!(world.cancel(&order).await, 202, "asking twice is no mistake");
}

async fn an_order_cancelled_before_it_is_paid_costs_nothing(world: World) {
    world.open_kitchen("luigis").await;
    let order = world.place("luigis", "tok_slow").await;
    assert_eq!(world.cancel(&order).await, 202);
    world.order_in(&order, "cancelled").await;
    let view = world
        .order_when(&order, "have its money settled", |view| {
            let told = story(view);
            told.contains(&"payment.voided".to_owned()) || told.contains(&"payment.refunded".to_owned())
        })
        .await;
    let (captured, refunded) = money(&view);
    assert_eq!(captured, refunded);
}

async fn a_packed_order_cannot_be_cancelled_and_is_delivered(world: World) {
    world.open_kitchen("luigis").await;
    world.drivers_on_shift(1).await;
    let order = world.place("luigis", "tok_ok").await;
    world.order_in(&order, "out_for_delivery").await;
    assert_eq!(world.cancel(&order).await, 202);
    world.order_told(&order, &["order.cancellation_refused"]).await;
    assert_eq!(world.cancel(&order).await, 409);
    let (status, said) = world.post("delivery", &format!("/deliveries/{order}/deliver"), &json!({})).await;
    assert_eq!(status, 200, "{said}");
    settled(&world, &order, "completed", 950, 0).await;
    assert_eq!(world.cancel(&order).await, 409);
}

async fn the_kitchen_changes_its_mind(world: &World, open: bool, available: bool) -> serde_json::Value {
    world.open_kitchen("luigis").await;
    // A slow card gives the kitchen time to change its mind before the money comes.
    let order = world.place("luigis", "tok_slow").await;
    world.put_kitchen("luigis", open, available).await;
    settled(world, &order, "cancelled", 950, 950).await
}

async fn a_kitchen_that_closes_before_the_money_comes_gives_it_back(world: World) {
    let view = the_kitchen_changes_its_mind(&world, false, true).await;
    assert_eq!(view["cancellation"]["reason"], "kitchen_closed");
    let closed = || async { (world.post("order", "/orders", &order("luigis", "tok_ok")).await.0 == 409).then_some(()) };
    until("new orders to be refused", closed).await;
}

async fn a_dish_sold_out_before_the_money_comes_gives_it_back(world: World) {
    let view = the_kitchen_changes_its_mind(&world, true, false).await;
    assert_eq!(view["cancellation"]["reason"], "sold_out");
    let sold_out =
        || async { (world.post("order", "/orders", &order("luigis", "tok_ok")).await.0 == 422).then_some(()) };
    until("new orders to be refused", sold_out).await;
}

async fn an_order_waits_for_a_driver_and_the_first_on_shift_takes_it(world: World) {
    world.open_kitchen("luigis").await;
    let order = world.place("luigis", "tok_ok").await;
    world.order_in(&order, "packed").await;
    world.shift("maria", true).await;
    world.order_in(&order, "completed").await;
    world.order_told(&order, &["delivery.driver_assigned"]).await;
}

async fn an_order_that_finds_no_driver_in_time_is_refunded(world: World) {
    world.open_kitchen("luigis").await;
    let order = world.place("luigis", "tok_ok").await;
    let view = settled(&world, &order, "cancelled", 950, 950).await;
    assert_eq!(
        (view["status"].as_str(), view["cancellation"]["reason"].as_str()),
        (Some("cancelled"), Some("no_driver"))
    );
}

async fn a_shift_may_end_during_the_ride_and_the_ride_is_finished(world: World) {
    world.open_kitchen("luigis").await;
    world.shift("maria", true).await;
    let order = world.place("luigis", "tok_ok").await;
    world.order_in(&order, "out_for_delivery").await;
    world.shift("maria", false).await;
    let (status, said) = world.post("delivery", &format!("/deliveries/{order}/deliver"), &json!({})).await;
    assert_eq!(status, 200, "{said}");
    world.order_in(&order, "completed").await;
    // Off shift: the next order waits.
    let next = world.place("luigis", "tok_ok").await;
    world.order_in(&next, "packed").await;
    until("the driver to be shown off shift", || async {
        let (_, drivers) = world.get("query", "/drivers").await;
        let drivers = drivers.as_array().or(drivers["drivers"].as_array()).cloned().unwrap_or_default();
        drivers.iter().any(|driver| driver["driver_id"] == "maria" && driver["on_shift"] == false).then_some(())
    })
    .await;
}

async fn one_driver_carries_one_order_at_a_time(world: World) {
    world.open_kitchen("luigis").await;
    world.shift("maria", true).await;
    let mut orders = Vec::new();
    for _ in 0..10 {
        orders.push(world.place("luigis", "tok_ok").await);
    }
    let mut rides = Vec::new();
    for order in &orders {
        world.order_in(order, "completed").await;
        let view = world.order_told(order, &["delivery.driver_released"]).await;
        let timeline = view["timeline"].as_array().expect("a timeline").clone();
        let sequence = |name: &str| {
            let event = timeline.iter().find(|event| event["type"] == format!("dev.rainstorm.delivery.{name}.v1"));
            event.and_then(|event| event["sequence"].as_i64()).expect("a sequence")
        };
        rides.push((sequence("driver_engaged"), sequence("driver_released")));
    }
    // On the driver's own stream every ride ends before the next begins.
    rides.sort_unstable();
    assert!(rides.iter().all(|(engaged, released)| engaged + 1 == *released), "{rides:?}");
}

async fn a_key_makes_a_repeated_order_the_same_order(world: World) {
    world.open_kitchen("luigis").await;
    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    let send = async |body: serde_json::Value| {
        let request = client.post(format!("{}/orders", world.url("order"))).header("Idempotency-Key", "once");
        let response = request.json(&body).send().await.expect("an answer");
        (response.status().as_u16(), response.json::<serde_json::Value>().await.expect("JSON"))
    };
    let (status, first) = send(order("luigis", "tok_ok")).await;
    assert_eq!(status, 201, "{first}");
    for _ in 0..3 {
        assert_eq!(send(order("luigis", "tok_ok")).await, (201, first.clone()));
    }
    assert_eq!(send(order("luigis", "tok_flaky")).await.0, 422);
}

async fn people_read_what_they_wrote(world: World) {
    world.open_kitchen("luigis").await;
    for _ in 0..20 {
        let order = world.place("luigis", "tok_ok").await;
        let (status, view) = world.get("query", &format!("/orders/{order}?at_least=1")).await;
        assert_eq!(status, 200, "{view}");
        assert!(view["sequence"].as_i64() >= Some(1), "{view}");
    }
    let unknown = uuid::Uuid::now_v7();
    assert_eq!(world.get("query", &format!("/orders/{unknown}")).await.0, 404);
}

async fn everything_is_still_there_after_kill_9(mut world: World) {
    world.open_kitchen("luigis").await;
    world.drivers_on_shift(5).await;
    let mut orders = Vec::new();
    for number in 0..60 {
        orders.push(world.place("luigis", "tok_ok").await);
        if number % 20 == 10 {
            // In the middle of everything: some cook, some ride, some have only just been accepted.
            world.crash_and_restart().await;
        }
    }
    for order in &orders {
        settled(&world, order, "completed", 950, 0).await;
    }
}
