//! `rainstorm audit` passes on what a storm leaves behind, and finds whatever is planted in a copy of it: one fault at a
//! time, each named with the order that it befell.

mod copy;
mod faults;

use std::collections::BTreeSet;

use end_to_end::{Way, World, until};
use event_sourcing::Recorded;
use eventing::{
    log::{EmbeddedLog, EventLog, Record},
    published, to_record,
};
use serde_json::Value;

use copy::{Original, failed};
use faults::{FAULTS, Fault, ON_SERVERS};

async fn every_fault_is_found_and_its_order_named(way: Way) {
    if !way.is_possible() {
        return;
    }
    let original = Original::after_a_storm(way).await;
    let untouched = original.copy(Fault::None).await;
    let (status, report) = untouched.audit(&[]).await;
    assert_eq!(status, Some(0), "{report:#}");
    assert_eq!((report["passed"].as_bool(), report["repeats"].as_u64()), (Some(true), Some(0)), "{report:#}");
    assert!(report["orders"]["completed"].as_u64() > Some(20), "{report:#}");
    assert!(report["orders"]["cancelled"].as_u64() > Some(0), "a storm without cancelled orders shows little");
    for row in report["checks"].as_array().expect("checks") {
        assert!(row["checked"].as_u64() > Some(0), "nothing was checked: {row}");
    }

    let embedded = matches!(way, Way::Embedded(_));
    for (fault, check) in FAULTS.into_iter().filter(|(fault, _)| embedded || ON_SERVERS.contains(fault)) {
        let copy = original.copy(fault).await;
        let (status, report) = copy.audit(&[]).await;
        assert_eq!(status, Some(1), "{fault:?} was not found: {report:#}");
        assert!(failed(&report).contains(check), "{fault:?} was found by {:?} only: {report:#}", failed(&report));
        let order = if fault == Fault::TwoOrdersAtOnce { &original.victim.next_order } else { &original.victim.order };
        let named = report["differing"].as_array().expect("a list").iter().find(|one| one["id"] == order.as_str());
        let named = named.unwrap_or_else(|| panic!("{fault:?} doesn't name {order}: {report:#}"));
        assert!(named["timeline"].as_array().is_some_and(|steps| steps.len() > 10), "{fault:?}: {named:#}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_fault_in_an_embedded_deployment_is_found_and_its_order_named() {
    every_fault_is_found_and_its_order_named(Way::Embedded(1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_fault_on_kafka_and_postgres_is_found_and_its_order_named() {
    every_fault_is_found_and_its_order_named(Way::KafkaAndPostgres(1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_happen_is_counted_and_no_fault() {
    let original = Original::after_a_storm(Way::Embedded(1)).await;
    let (status, report) = original.copy(Fault::SameBytesAgain).await.audit(&[]).await;
    assert_eq!((status, report["repeats"].as_u64()), (Some(0), Some(3)), "{report:#}");

    let (status, report) = original.copy(Fault::GarbageInDeadLetters).await.audit(&[]).await;
    assert_eq!((status, report["foreign"].as_u64()), (Some(0), Some(1)), "{report:#}");
    assert_eq!(report["excepted"].as_array().map(Vec::len), Some(1), "{report:#}");

    // While the system runs, a story may be unfinished; when it is said to rest, it may not.
    let unfinished = original.copy(Fault::Unfinished).await;
    let (_, report) = unfinished.audit(&["--in-flight"]).await;
    assert!(!failed(&report).contains("ends"), "{report:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_count_that_is_not_that_of_the_views_is_found() {
    let original = Original::after_a_storm(Way::Embedded(1)).await;
    let (status, report) = original.copy(Fault::OtherCount).await.audit(&[]).await;
    assert_eq!((status, failed(&report)), (Some(1), BTreeSet::from(["sums".to_owned()])), "{report:#}");
    assert_eq!(report["differing"][0]["id"], "the sum \"now completed\" of minute 0");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_accepted_order_that_is_gone_is_missed() {
    let original = Original::after_a_storm(Way::Embedded(1)).await;
    let copy = original.copy(Fault::None).await;
    let note = copy.folder().join("accepted");
    let note_name = note.to_str().expect("UTF-8");
    let gone = uuid::Uuid::now_v7().to_string();

    std::fs::write(&note, format!("{}\n{}", original.victim.order, &gone[..20])).expect("it can be written");
    let (status, report) = copy.audit(&["--accepted", note_name]).await;
    assert_eq!(status, Some(0), "half a line is no promise: {report:#}");

    std::fs::write(&note, format!("{}\n{gone}\n", original.victim.order)).expect("it can be written");
    let (status, report) = copy.audit(&["--accepted", note_name]).await;
    assert_eq!((status, failed(&report)), (Some(1), BTreeSet::from(["commands".to_owned()])), "{report:#}");
    assert_eq!(report["differing"][0]["id"], gone.as_str());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_not_given_is_said_to_be_skipped() {
    let original = Original::after_a_storm(Way::Embedded(1)).await;
    let copy = original.copy(Fault::None).await;
    std::fs::remove_file(copy.folder().join("query.db")).expect("it was there");
    let (status, report) = copy.audit(&[]).await;
    assert_eq!(status, Some(0), "{report:#}");
    let views = report["checks"].as_array().and_then(|checks| checks.iter().find(|row| row["check"] == "views"));
    assert_eq!(views.map(|row| row["skipped"].clone()), Some("no store of query".into()), "{report:#}");
}

/// What another program, of a future version, might write.
fn from_the_future(order: &str) -> Record {
    let event = Recorded {
        stream_id: order.to_owned(),
        version: 7,
        id: uuid::Uuid::now_v7().to_string(),
        event_type: "dev.rainstorm.kitchen.order_packed.v9".to_owned(),
        time: "2026-11-24T09:00:00.123456Z".to_owned(),
        correlation_id: order.to_owned(),
        causation_id: "somebody".to_owned(),
        traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned(),
        tracestate: String::new(),
        data: "{}".to_owned(),
    };
    published("/kitchen", &event).and_then(to_record).expect("a record")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_behind_a_dead_letter_is_listed_apart_and_all_others_are_judged() {
    let mut world = World::start(Way::Embedded(1), &[("COOKING", "manual")]).await;
    world.open_kitchen("luigis").await;
    world.drivers_on_shift(2).await;
    let (stuck, other) = (world.place("luigis", "tok_ok").await, world.place("luigis", "tok_ok").await);
    for order in [&stuck, &other] {
        world.order_in(order, "cooking").await;
    }
    world.kill().await;
    let log = EmbeddedLog::open(&world.data().join("log.db"), 12).await.expect("the log");
    log.append("kitchen", vec![from_the_future(&stuck)]).await.expect("appended");
    drop(log);
    world.serve_again().await;
    for order in [&stuck, &other] {
        let (status, said) = world.post("kitchen", &format!("/tickets/{order}/pack"), &Value::Null).await;
        assert_eq!(status, 200, "{said}");
    }
    world.order_in(&other, "completed").await;
    // The letter about what came first, and the healthy one that waits behind it, both reach the topic.
    until("both letters", || async {
        let (_, said) = world.rainstorm_on_its_data(&["audit", "--in-flight", "--json"]).await;
        let report: Value = said.lines().find_map(|line| serde_json::from_str(line).ok())?;
        (report["excepted"][0]["letters"].as_u64()? >= 2).then_some(())
    })
    .await;
    world.kill().await;
    let (status, said) = world.rainstorm_on_its_data(&["audit", "--json"]).await;
    let report: Value = said.lines().find_map(|line| serde_json::from_str(line).ok()).expect("a report");
    assert_eq!(status, Some(0), "{report:#}");
    assert_eq!(report["orders"]["excepted"], 1, "{report:#}");
    assert_eq!(report["orders"]["completed"], 1, "{report:#}");
    let excepted: Vec<_> = report["excepted"].as_array().expect("a list").iter().collect();
    assert!(excepted.iter().all(|one| one["id"] == stuck.as_str()), "{report:#}");
    assert!(excepted.iter().any(|one| one["service"] == "delivery" && one["letters"] == 2), "{report:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_audit_holds_while_it_rains_and_after_a_kill() {
    let storm = ["--calm", "20", "--peak", "60", "--calm-for", "1s", "--storm-for", "60s", "--drivers", "100"];
    let mut demo = World::storming(&storm, &[]).await;
    for enough in [20, 120] {
        until("orders", || async {
            let (_, page) = demo.get("query", "/orders?limit=500").await;
            (page["orders"].as_array().map_or(0, Vec::len) >= enough).then_some(())
        })
        .await;
        let (status, said) = demo.rainstorm_on_its_data(&["audit", "--in-flight"]).await;
        assert_eq!(status, Some(0), "{said}");
    }
    demo.kill().await;
    let (status, said) = demo.rainstorm_on_its_data(&["audit", "--in-flight"]).await;
    assert_eq!(status, Some(0), "{said}");
    let again = ["demo", "--no-storm", "--no-seed", "--exit", "--port", "0"];
    let (status, said) = demo.rainstorm_on_its_data(&again).await;
    assert_eq!(status, Some(0), "{said}");
    let (status, said) = demo.rainstorm_on_its_data(&["audit"]).await;
    assert_eq!(status, Some(0), "{said}");
}
