//! kill -9: of each process, of all of them, and of the servers that they stand on.

use end_to_end::SERVICES;

use crate::{
    ground::{ALONE, Ground, Plan, Size},
    servers::Server,
};

pub async fn each_service_is_killed_in_turn(plan: Plan) {
    let mut ground = Ground::prepare(plan, ALONE, &[]).await;
    let rounds = if plan.size == Size::Full { 3 } else { 1 };
    ground.rain().await;
    for _ in 0..rounds {
        for service in ground.shuffled(SERVICES) {
            ground.moment(100..1200).await;
            ground.world.kill_one(service).await;
            // For so long, nobody answers.
            ground.moment(0..800).await;
            ground.world.start_again(service, &[]).await;
        }
    }
    ground.is_over();
    ground.prove().await;
}

pub async fn the_bridge_is_killed_again_and_again(plan: Plan) {
    let mut ground = Ground::prepare(plan, ALONE, &[]).await;
    let rounds = if plan.size == Size::Full { 8 } else { 3 };
    ground.rain().await;
    for _ in 0..rounds {
        ground.moment(200..2500).await;
        ground.world.kill_one("bridge").await;
        ground.moment(0..500).await;
        ground.world.start_again("bridge", &[]).await;
    }
    ground.is_over();
    ground.prove().await;
}

pub async fn everything_is_killed_at_once(plan: Plan) {
    let mut ground = Ground::prepare(plan, ALONE, &[]).await;
    ground.rain().await;
    ground.moment(1500..5000).await;
    ground.world.kill().await;
    for process in ground.shuffled(["order", "payment", "kitchen", "delivery", "query", "bridge"]) {
        ground.world.start_again(process, &[]).await;
    }
    ground.is_over();
    ground.prove().await;
}

/// Orders are taken all the same.
pub async fn kafka_is_killed(plan: Plan) {
    let Some(kafka) = Server::kafka() else { return };
    is_killed(Ground::prepare(plan, ALONE, &[]).await, kafka).await;
}

/// What can't be stored is not accepted: a customer may give up before there is a database again.
pub async fn postgres_is_killed(plan: Plan) {
    let Some(postgres) = Server::postgres() else { return };
    let mut ground = Ground::prepare(plan, ALONE, &[]).await;
    ground.unheard_customers = true;
    is_killed(ground, postgres).await;
}

async fn is_killed(mut ground: Ground, server: Server) {
    let rounds = if ground.plan.size == Size::Full { 2 } else { 1 };
    ground.rain().await;
    for _ in 0..rounds {
        ground.moment(500..4000).await;
        server.kill();
        server.is_back().await;
    }
    ground.is_over();
    ground.prove().await;
}
