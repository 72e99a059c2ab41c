//! Those who knock: two at once, and as Knative's KafkaSource does it; and programs that are told to stop.

use end_to_end::Signal;

use crate::ground::{ALONE, Ground, Plan};

pub async fn two_bridges_come_and_go(plan: Plan) {
    let mut ground = Ground::prepare(plan, ALONE, &[]).await;
    ground.rain().await;
    ground.moment(500..2000).await;
    ground.world.start_another_bridge("bridge-2").await;
    ground.moment(2000..4000).await;
    ground.world.kill_one("bridge").await;
    ground.moment(500..2000).await;
    ground.world.start_again("bridge", &[]).await;
    ground.is_over();
    ground.prove().await;
}

/// One event a request, as Knative's KafkaSource sends them, to services that are killed.
pub async fn events_come_singly_to_services_that_are_killed(plan: Plan) {
    let mut ground = Ground::prepare(plan, ALONE, &[("BRIDGE_BATCH", "1")]).await;
    ground.rain().await;
    for service in ground.shuffled(["payment", "kitchen", "delivery", "query"]) {
        ground.moment(500..1500).await;
        ground.world.kill_one(service).await;
        ground.world.start_again(service, &[]).await;
    }
    ground.is_over();
    ground.prove().await;
}

/// SIGTERM, as a rolling update does it: what is in flight is finished, what is stored is on the log, and nobody's
/// order is refused.
pub async fn everybody_is_told_to_stop_in_turn(plan: Plan) {
    let mut ground = Ground::prepare(plan, ALONE, &[]).await;
    ground.rain().await;
    for process in ground.shuffled(["order", "payment", "kitchen", "delivery", "query", "bridge"]) {
        ground.moment(300..1000).await;
        ground.world.signal(process, Signal::TERM);
        assert_eq!(ground.world.ended(process).await, Some(0), "{process} did not stop in order");
        if process != "bridge" {
            let unpublished = "SELECT COUNT(*) FROM events WHERE published = 0";
            assert_eq!(ground.world.number(process, unpublished).await, 0, "{process} left work behind");
        }
        ground.world.start_again(process, &[]).await;
    }
    ground.is_over();
    ground.prove().await;
}

pub async fn two_storms_at_once(plan: Plan) {
    let mut ground = Ground::prepare(plan, ALONE, &[]).await;
    ground.rain().await;
    ground.rain().await;
    ground.prove().await;
}
