//! SIGSTOP: a process that is neither dead nor alive. Others go on without it; when it wakes it believes that it still
//! holds what it held.

use std::time::Duration;

use end_to_end::{Signal, World};

use crate::{
    ground::{ALONE, Ground, Plan, TWICE},
    proof,
};

/// Longer than a member may be silent in its group (6 s), and than a session may hold a lock (15 s).
const FROZEN: Duration = Duration::from_secs(20);

pub async fn a_frozen_bridge_wakes_when_another_has_its_partitions(plan: Plan) {
    let mut ground = Ground::prepare(plan, ALONE, &[]).await;
    ground.world.start_another_bridge("bridge-2").await;
    ground.rain().await;
    ground.moment(500..3000).await;
    ground.world.signal("bridge", Signal::STOP);
    // The other one takes over everything, and then wakes a zombie.
    let order = ground.place("tok_ok").await;
    let (_, ()) = tokio::join!(ground.world.order_in(&order, "completed"), tokio::time::sleep(FROZEN));
    ground.world.signal("bridge", Signal::CONT);
    ground.is_over();
    ground.prove().await;
}

pub async fn a_frozen_service_wakes(plan: Plan) {
    let mut ground = Ground::prepare(plan, ALONE, &[]).await;
    let [service, ..] = ground.shuffled(["order", "payment", "kitchen", "delivery", "query"]);
    freeze(ground, service).await;
}

/// Its twin writes the same streams meanwhile, some of which it holds locked.
pub async fn a_frozen_service_wakes_beside_its_twin(plan: Plan) {
    let mut ground = Ground::prepare(plan, TWICE, &[]).await;
    let [service, ..] = ground.shuffled(["payment", "kitchen", "delivery", "query"]);
    freeze(ground, service).await;
}

async fn freeze(mut ground: Ground, service: &'static str) {
    eprintln!("    {service} is frozen");
    ground.rain().await;
    ground.moment(500..3000).await;
    ground.world.signal(service, Signal::STOP);
    tokio::time::sleep(FROZEN).await;
    ground.world.signal(service, Signal::CONT);
    ground.is_over();
    ground.prove().await;
}

/// What the others do doesn't wait for it: while it still goes slowly, every order that was accepted is paid.
pub async fn a_kitchen_slowed_to_a_tenth_holds_nobody_up(plan: Plan) {
    let mut ground = Ground::prepare(plan, ALONE, &[]).await;
    ground.rain().await;
    let others_go_on = async {
        tokio::time::sleep(plan.length()).await;
        proof::every_order_is_paid(&ground.world).await;
    };
    tokio::select! {
        () = others_go_on => (),
        () = slowed_to_a_tenth(&ground.world, "kitchen") => (),
    }
    ground.world.signal("kitchen", Signal::CONT);
    ground.is_over();
    ground.prove().await;
}

/// For ever: awake a tenth of the time, frozen the rest.
async fn slowed_to_a_tenth(world: &World, service: &str) {
    loop {
        world.signal(service, Signal::STOP);
        tokio::time::sleep(Duration::from_millis(90)).await;
        world.signal(service, Signal::CONT);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub async fn a_service_that_slept_through_the_storm_catches_up(plan: Plan) {
    let mut ground = Ground::prepare(plan, ALONE, &[]).await;
    let [service, ..] = ground.shuffled(["kitchen", "delivery"]);
    eprintln!("    {service} is away");
    ground.rain().await;
    ground.world.kill_one(service).await;
    tokio::time::sleep(plan.length()).await;
    // The others didn't wait.
    proof::every_order_is_paid(&ground.world).await;
    ground.world.start_again(service, &[]).await;
    ground.is_over();
    ground.prove().await;
}

/// Nobody sees anything of the storm, and then all of it.
pub async fn a_query_service_that_slept_through_the_storm_catches_up(plan: Plan) {
    let mut ground = Ground::prepare(plan, ALONE, &[]).await;
    ground.rain().await;
    ground.world.kill_one("query").await;
    tokio::time::sleep(plan.length()).await;
    proof::every_order_has_ended(&ground.world).await;
    ground.world.start_again("query", &[]).await;
    ground.is_over();
    ground.prove().await;
}
