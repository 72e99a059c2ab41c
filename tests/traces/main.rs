//! One order is one story: every span of it hangs together, from the customer's request through every service to the
//! view, in every way Rainstorm runs; and no two stories are mixed.

mod receiver;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use end_to_end::{Way, World, until};
use eventing::log::{EventLog, KafkaLog};
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use serde_json::{Value, json};

use receiver::{Place, Receiver, Span};

const ORDERS: usize = 100;
/// So many of them change their minds, or can't pay.
const CANCELLED: usize = 10;
const DECLINED: usize = 10;

/// What every program is told, so that its spans come here at once.
fn settings<'a>(receiver: &'a Receiver, protocol: &'a str) -> Vec<(&'a str, &'a str)> {
    vec![
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &receiver.url),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol),
        ("OTEL_BSP_SCHEDULE_DELAY", "100"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "100000"),
    ]
}

/// Places orders of every kind, and waits until each has come to its end; their ids.
async fn tell_stories(world: &World, count: usize) -> Vec<String> {
    let mut orders = Vec::new();
    for number in 0..count {
        let declined = number % (count / DECLINED).max(2) == 1;
        let order = world.place("luigis", if declined { "tok_declined" } else { "tok_ok" }).await;
        if number % (count / CANCELLED).max(2) == 0 {
            assert!([202, 409].contains(&world.cancel(&order).await));
        }
        orders.push(order);
    }
    orders
}

async fn ended(world: &World, orders: &[String]) -> BTreeMap<String, Vec<Value>> {
    let mut stories = BTreeMap::new();
    for order in orders {
        let view = world
            .order_when(order, "end", |view| {
                let timeline = view["timeline"].as_array().cloned().unwrap_or_default();
                let told =
                    |name: &str| timeline.iter().any(|step| step["type"].as_str().unwrap_or_default().contains(name));
                match view["status"].as_str() {
                    // The driver's own events come from elsewhere, and may be told after the end.
                    Some("completed") => told("driver_released"),
                    Some("cancelled") => !told("payment.confirmed") || told("payment.refunded"),
                    _ => false,
                }
            })
            .await;
        stories.insert(order.clone(), view["timeline"].as_array().cloned().unwrap_or_default());
    }
    stories
}

/// What is wrong with the spans of these orders; empty if nothing is.
fn faults(spans: &[Span], stories: &BTreeMap<String, Vec<Value>>) -> Vec<String> {
    let mut wrong = Vec::new();
    let by_place: HashMap<&Place, &Span> = spans.iter().map(|span| (&span.place, span)).collect();
    if by_place.len() != spans.len() {
        wrong.push("two spans have the same id".to_owned());
    }
    // Where each trace begins.
    let mut roots: HashMap<&[u8], Vec<&Span>> = HashMap::new();
    for span in spans {
        match &span.parent {
            None => roots.entry(&span.place.0).or_default().push(span),
            Some(parent) if !by_place.contains_key(parent) => {
                wrong.push(format!("{} of {} is an orphan: {:?}", span.name, span.service, span.attributes));
            }
            Some(_) => {}
        }
        for link in span.links.iter().filter(|link| !by_place.contains_key(link)) {
            wrong.push(format!("{} of {} is linked to a span that isn't there: {link:?}", span.name, span.service));
        }
    }
    for (order, timeline) in stories {
        let of_order: Vec<&Span> = spans.iter().filter(|span| span.get("rainstorm.order.id") == order).collect();
        let traces: BTreeSet<&[u8]> = of_order.iter().map(|span| span.place.0.as_slice()).collect();
        // Its own request, and those of people who had something to do with it later, which are linked to it.
        let begun: Vec<&Span> = traces.iter().filter_map(|trace| roots.get(trace)).flatten().copied().collect();
        let placed: Vec<&&Span> = begun.iter().filter(|root| root.name == "POST /orders").collect();
        let [placed] = placed.as_slice() else {
            wrong.push(format!("{order}: {} requests placed it", placed.len()));
            continue;
        };
        for other in begun.iter().filter(|root| root.place != placed.place) {
            let to_it = other.links.iter().any(|(trace, _)| *trace == placed.place.0);
            let by_people = ["POST /orders/{id}/cancel", "POST /tickets/{id}/pack"].contains(&other.name.as_str());
            if !by_people || !to_it {
                wrong.push(format!("{order}: {} begins a story of its own", other.name));
            }
        }
        for span in spans.iter().filter(|span| traces.contains(span.place.0.as_slice())) {
            let whose = span.get("rainstorm.order.id");
            if !whose.is_empty() && whose != order {
                wrong.push(format!("{order}: {} belongs to {whose}", span.name));
            }
        }
        for step in timeline {
            let (id, name) = (step["id"].as_str().unwrap_or_default(), step["type"].as_str().unwrap_or_default());
            let with =
                |kind| of_order.iter().filter(move |span| span.kind == kind && span.get("messaging.message.id") == id);
            if with(SpanKind::Producer).count() == 0 {
                wrong.push(format!("{order}: nobody published {name}"));
            }
            if with(SpanKind::Consumer).count() == 0 {
                wrong.push(format!("{order}: nobody processed {name}"));
            }
        }
        if !of_order.iter().any(|span| {
            by_place.values().any(|child| child.name == "commit" && child.parent.as_ref() == Some(&span.place))
        }) {
            wrong.push(format!("{order}: no transaction belongs to it"));
        }
    }
    wrong
}

/// Waits until the spans that are there tell the stories without a fault.
async fn hang_together(receiver: &Receiver, stories: &BTreeMap<String, Vec<Value>>) -> Vec<Span> {
    let deadline = tokio::time::Instant::now() + end_to_end::PATIENCE;
    loop {
        let spans = receiver.spans();
        let wrong = faults(&spans, stories);
        if wrong.is_empty() {
            return spans;
        }
        if tokio::time::Instant::now() > deadline {
            panic!("{} faults in {} spans: {:#?}", wrong.len(), spans.len(), &wrong[..wrong.len().min(10)]);
        }
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
}

async fn every_story_hangs_together(way: Way, protocol: &str, more: &[(&str, &str)]) {
    if !way.is_possible() {
        return;
    }
    let receiver = Receiver::start().await;
    let settings = [settings(&receiver, protocol), more.to_vec()].concat();
    let world = World::start(way, &settings).await;
    world.open_kitchen("luigis").await;
    world.drivers_on_shift(20).await;
    let stories = ended(&world, &tell_stories(&world, ORDERS).await).await;
    let spans = hang_together(&receiver, &stories).await;

    let services: BTreeSet<&str> = spans.iter().map(|span| span.service.as_str()).collect();
    match way {
        Way::Embedded(_) => assert_eq!(services, BTreeSet::from(["rainstorm"])),
        _ => assert_eq!(services, BTreeSet::from(["order", "payment", "kitchen", "delivery", "query"])),
    }
    // Whoever takes a span away is noticed: the checks can fail.
    let without = |name: &str| spans.iter().filter(|span| span.name != name).cloned().collect::<Vec<_>>();
    for name in ["process order.placed", "publish kitchen.order_packed", "POST /orders", "commit"] {
        assert!(!faults(&without(name), &stories).is_empty(), "nobody misses {name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn embedded_over_http() {
    every_story_hangs_together(Way::Embedded(1), "http/protobuf", &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn embedded_over_grpc_with_two_instances() {
    every_story_hangs_together(Way::Embedded(2), "grpc", &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn five_processes_in_batches() {
    every_story_hangs_together(Way::KafkaAndPostgres(1), "grpc", &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn five_processes_event_by_event() {
    every_story_hangs_together(Way::KafkaAndPostgres(1), "http/protobuf", &[("BRIDGE_BATCH", "1")]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_crash_and_a_redelivery() {
    let way = Way::KafkaAndPostgres(1);
    if !way.is_possible() {
        return;
    }
    let receiver = Receiver::start().await;
    let mut world = World::start(way, &settings(&receiver, "http/protobuf")).await;
    world.open_kitchen("luigis").await;
    world.drivers_on_shift(20).await;
    let before = ended(&world, &tell_stories(&world, 20).await).await;
    hang_together(&receiver, &before).await;

    // Killed while nothing is going on, so that no span is lost with it: what is told again is told after it.
    for service in ["payment", "kitchen"] {
        world.kill_one(service).await;
    }
    let orders = tell_stories(&world, ORDERS).await;
    for service in ["payment", "kitchen"] {
        world.start_again(service, &[]).await;
    }
    let mut stories = ended(&world, &orders).await;
    stories.extend(before);
    hang_together(&receiver, &stories).await;
}

/// Of each order, where the kitchen has accepted it, as its event on the log says.
async fn accepted_in(log: &KafkaLog) -> HashMap<String, String> {
    let mut accepted = HashMap::new();
    for (partition, first, end) in log.watermarks("kitchen").await.expect("Kafka") {
        let records = log.read(&partition, first, usize::try_from(end).unwrap_or_default()).await.expect("Kafka");
        for record in records.into_iter().map(|stored| stored.record) {
            let text = |name: &str| String::from_utf8_lossy(record.header(name).unwrap_or_default()).into_owned();
            if text("ce_type").contains("kitchen.ticket_accepted") {
                accepted.insert(text("ce_subject"), text("ce_traceparent"));
            }
        }
    }
    accepted
}

#[tokio::test(flavor = "multi_thread")]
async fn through_a_dead_letter() {
    let way = Way::KafkaAndPostgres(1);
    if !way.is_possible() {
        return;
    }
    let receiver = Receiver::start().await;
    let settings = [settings(&receiver, "http/protobuf"), vec![("COOKING", "manual")]].concat();
    let world = World::start(way, &settings).await;
    world.open_kitchen("luigis").await;
    world.drivers_on_shift(20).await;
    let mut orders = Vec::new();
    for _ in 0..ORDERS {
        orders.push(world.place("luigis", "tok_ok").await);
    }
    for order in &orders {
        world.order_in(order, "cooking").await;
    }
    let brokers = std::env::var("KAFKA_BROKERS").expect("asked for by is_possible");
    let log = KafkaLog::new(&brokers, 12, &HashMap::new()).expect("Kafka");
    let accepted = accepted_in(&log).await;
    // Knative gave up on telling delivery of something, and its sink put that among delivery's dead letters.
    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    for order in &orders {
        let given_up = json!({
            "specversion": "1.0", "id": format!("lost-{order}"), "source": "/tests", "subject": order,
            "type": "dev.rainstorm.kitchen.order_packed.v1", "correlationid": order, "traceparent": accepted[order],
            "datacontenttype": "application/json", "data": {},
            "knativeerrordest": "http://delivery.rainstorm.svc.cluster.local/events", "knativeerrorcode": 503,
            "knativeerrordata": "no healthy upstream",
        });
        let request = client.post(world.door("delivery")).header("content-type", "application/cloudevents+json");
        let answer = request.body(given_up.to_string()).send().await.expect("an answer");
        assert!(answer.status().is_success(), "{}", answer.status());
        // What is packed now waits behind it.
        let (status, said) = world.post("kitchen", &format!("/tickets/{order}/pack"), &json!({})).await;
        assert_eq!(status, 200, "{said}");
    }
    let (_, places) = world.whereabouts();
    let places: Vec<(&str, &str)> = places.iter().map(|(name, value)| (*name, value.as_str())).collect();
    until("everything to wait", async || {
        let (_, said) = World::run("rainstorm", &["dead-letters", "list", "--json"], &places).await;
        let letters: Vec<Value> = serde_json::from_str(&said[..=said.rfind(']')?]).ok()?;
        (letters.iter().filter(|letter| letter["state"] == "parked").count() == orders.len()).then_some(())
    })
    .await;
    let again = ["dead-letters", "redeliver", "--all", "--service", "delivery"];
    let (status, said) = World::run("rainstorm", &again, &places).await;
    assert_eq!(status, Some(0), "{said}");
    let stories = ended(&world, &orders).await;
    let spans = hang_together(&receiver, &stories).await;
    let lost = spans.iter().filter(|span| span.get("messaging.message.id").starts_with("lost-"));
    let lost: BTreeSet<&str> = lost.map(|span| span.get("rainstorm.order.id")).collect();
    assert_eq!(lost.len(), orders.len(), "what was redelivered is part of its story");
}
