//! What a service could not handle, and how the people who look after it bring the story to its end: with
//! `rainstorm dead-letters`, in every way Rainstorm runs.

use std::time::Duration;

use end_to_end::{Way, World, in_every_way, story, until};
use rdkafka::{
    ClientConfig,
    message::{Header, OwnedHeaders},
    producer::{FutureProducer, FutureRecord},
};
use serde_json::{Value, json};

in_every_way! {
    an_event_of_a_future_version_holds_up_its_own_order_until_it_is_discarded([("COOKING", "manual")]);
    a_redelivered_letter_brings_its_order_to_its_end([("COOKING", "manual")]);
    a_view_goes_on_behind_an_event_that_was_discarded([]);
}

/// `rainstorm dead-letters` on this world: its exit status and what it printed.
async fn dead_letters(world: &World, arguments: &[&str]) -> (Option<i32>, String) {
    let (flags, settings) = world.whereabouts();
    let arguments = ["dead-letters"].into_iter().chain(arguments.iter().copied());
    let arguments: Vec<&str> = arguments.chain(flags.iter().map(String::as_str)).collect();
    let settings: Vec<_> = settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
    World::run("rainstorm", &arguments, &settings).await
}

/// The same, where something is asked of a service: a demo that runs has a log that nobody else may write to.
async fn ask(world: &World, service: &str, arguments: &[&str]) -> String {
    let url = world.url(service).to_owned();
    let mut arguments = arguments.to_vec();
    if let Way::Embedded(_) = world.way() {
        arguments.extend(["--url", &url]);
    }
    let (status, said) = dead_letters(world, &arguments).await;
    assert_eq!(status, Some(0), "{said}");
    said
}

async fn list(world: &World, more: &[&str]) -> Vec<Value> {
    let (status, said) = dead_letters(world, &[&["list", "--json"], more].concat()).await;
    assert_eq!(status, Some(0), "{said}");
    let end = said.rfind(']').expect("a list") + 1;
    serde_json::from_str(&said[..end]).unwrap_or_else(|error| panic!("{error}: {said}"))
}

/// The letters once they are as wished.
async fn listed(world: &World, what: &str, more: &[&str], wished: impl Fn(&[Value]) -> bool) -> Vec<Value> {
    until(what, || async {
        let letters = list(world, more).await;
        wished(&letters).then_some(letters)
    })
    .await
}

/// Tells a service of an event, as Knative would.
async fn tell(world: &World, service: &str, event: &Value) {
    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    until("the event to be heard", || async {
        let request = client.post(world.door(service)).header("content-type", "application/cloudevents+json");
        let answer = request.body(event.to_string()).send().await.expect("an answer");
        assert_ne!(answer.status().as_u16(), 400, "{event}");
        answer.status().is_success().then_some(())
    })
    .await;
}

fn event(id: &str, order: &str, event_type: &str) -> Value {
    json!({
        "specversion": "1.0", "id": id, "source": "/tests", "type": event_type, "subject": order,
        "correlationid": order, "datacontenttype": "application/json", "data": {"of": "the future"},
    })
}

async fn an_event_of_a_future_version_holds_up_its_own_order_until_it_is_discarded(world: World) {
    world.open_kitchen("luigis").await;
    world.drivers_on_shift(2).await;
    let (stuck, other) = (world.place("luigis", "tok_ok").await, world.place("luigis", "tok_ok").await);
    for order in [&stuck, &other] {
        world.order_in(order, "cooking").await;
    }
    let poison = format!("poison-{stuck}");
    tell(&world, "delivery", &event(&poison, &stuck, "dev.rainstorm.kitchen.order_packed.v9")).await;
    for order in [&stuck, &other] {
        let (status, said) = world.post("kitchen", &format!("/tickets/{order}/pack"), &json!({})).await;
        assert_eq!(status, 200, "{said}");
    }
    world.order_in(&other, "completed").await;
    let letters = listed(&world, "what waits to be listed", &[], |letters| letters.len() == 2).await;
    assert_eq!((&letters[0]["id"], &letters[0]["order_id"]), (&json!(poison), &json!(stuck)), "{letters:#?}");
    assert_eq!((&letters[0]["state"], &letters[0]["parked_behind_it"]), (&json!("failed"), &json!(1)));
    assert_eq!((&letters[1]["state"], &letters[1]["service"]), (&json!("parked"), &json!("delivery")));
    assert!(letters[0]["reason"].as_str().is_some_and(|reason| reason.contains("v9")), "{letters:#?}");
    assert_eq!(letters[1]["topic"], "kitchen", "where it stood");

    // To hand it over again changes nothing, as nothing was mended.
    ask(&world, "delivery", &["redeliver", "--order", &stuck]).await;
    // Where a wish is told twice, as anything may be, it may be tried twice.
    let twice = world.way() == Way::Asleep;
    let tried = |letters: &[Value]| match letters[0]["attempts"].as_u64() {
        Some(3) => twice,
        attempts => attempts == Some(2),
    };
    assert_eq!(listed(&world, "it to be tried again", &[], tried).await.len(), 2);

    // Nobody is there to be asked, so nothing is discarded.
    let (status, said) = dead_letters(&world, &["discard", &poison[..20]]).await;
    assert_eq!(status, Some(1), "{said}");
    assert!(said.contains("--yes") && said.contains(&format!("leaves {stuck} unfinished")), "{said}");
    let said = ask(&world, "delivery", &["discard", &poison, "--yes"]).await;
    assert!(said.contains("The 1 that wait behind it"), "{said}");
    world.order_in(&stuck, "completed").await;
    let all = listed(&world, "all to be closed", &["--all"], |letters| {
        letters.iter().all(|letter| letter["state"] == "discarded" || letter["state"] == "redelivered")
    })
    .await;
    assert_eq!((all.len() >= 2, &all[0]["state"]), (true, &json!("discarded")), "{all:#?}");
    assert_eq!(list(&world, &[]).await, Vec::<Value>::new());
    let (status, said) = dead_letters(&world, &["discard", &poison, "--yes"]).await;
    assert!(status == Some(1) && said.contains("is discarded: nothing waits there any more"), "{said}");

    // Told again it never has an effect, nor is it a new letter.
    tell(&world, "delivery", &event(&poison, &stuck, "dev.rainstorm.kitchen.order_packed.v9")).await;
    assert_eq!(list(&world, &[]).await, Vec::<Value>::new());
}

async fn a_redelivered_letter_brings_its_order_to_its_end(world: World) {
    world.open_kitchen("luigis").await;
    world.drivers_on_shift(1).await;
    let order = world.place("luigis", "tok_ok").await;
    world.order_in(&order, "cooking").await;
    // Knative gave up on telling delivery, and its sink put the event among delivery's dead letters.
    let mut given_up = event(&format!("lost-{order}"), &order, "dev.rainstorm.kitchen.order_packed.v1");
    given_up["knativeerrordest"] = json!("http://delivery.rainstorm.svc.cluster.local/events");
    given_up["knativeerrorcode"] = json!(503);
    given_up["knativeerrordata"] = json!("no healthy upstream");
    tell(&world, "delivery", &given_up).await;
    let (status, said) = world.post("kitchen", &format!("/tickets/{order}/pack"), &json!({})).await;
    assert_eq!(status, 200, "{said}");
    let letters = listed(&world, "what waits to be listed", &[], |letters| letters.len() == 2).await;
    assert!(letters[0]["reason"].as_str().is_some_and(|it| it.contains("503 no healthy upstream")), "{letters:#?}");

    ask(&world, "delivery", &["redeliver", "--all", "--service", "delivery"]).await;
    world.order_in(&order, "completed").await;
    // What follows of the first may have parked behind the second.
    let closed = |letters: &[Value]| letters.iter().all(|letter| letter["state"] == "redelivered");
    assert!(listed(&world, "all to be closed", &["--all"], closed).await.len() >= 2);
    let view = world.order_told(&order, &["delivery.order_ready"]).await;
    assert_eq!(story(&view).iter().filter(|name| *name == "delivery.order_ready").count(), 1);
    let (status, said) = dead_letters(&world, &["show", &format!("lost-{order}")]).await;
    assert_eq!(status, Some(0), "{said}");
    let asked = said.find("redelivery asked").expect("the wish is part of its story");
    assert!(said.find("failed").is_some_and(|failed| failed < asked), "{said}");
    assert!(said.contains(r#"{"of":"the future"}"#), "{said}");
}

async fn a_view_goes_on_behind_an_event_that_was_discarded(world: World) {
    world.open_kitchen("luigis").await;
    let order = world.place("luigis", "tok_declined").await;
    world.order_in(&order, "cancelled").await;
    // What a newer order service would say of this order next, and something behind it.
    let next = |id: &str, version: &str, sequence: i64| {
        let mut event = event(id, &order, &format!("dev.rainstorm.order.cancellation_refused.{version}"));
        event["source"] = json!("/orders");
        event["sequence"] = json!(format!("{sequence:020}"));
        event["time"] = json!("2026-11-25T09:00:00Z");
        event
    };
    let (newer, behind) = (format!("newer-{order}"), format!("behind-{order}"));
    tell(&world, "query", &next(&newer, "v2", 3)).await;
    tell(&world, "query", &next(&behind, "v1", 4)).await;
    // What others have to say of a cancelled order may come late, and parks behind it, too.
    let both = |letters: &[Value]| {
        let ours = letters.iter().filter(|letter| [&newer, &behind].iter().any(|id| letter["id"] == ***id));
        ours.map(|letter| &letter["state"]).eq(["failed", "parked"])
    };
    assert_eq!(listed(&world, "both to be listed", &[], both).await[0]["service"], "query");
    ask(&world, "query", &["discard", &newer, "--yes"]).await;
    let view = world.order_when(&order, "show what came behind it", |view| view["sequence"] == 4).await;
    let ids: Vec<_> = view["timeline"].as_array().expect("a timeline").iter().map(|step| &step["id"]).collect();
    assert!(ids.contains(&&json!(behind)) && !ids.contains(&&json!(newer)), "{ids:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_commands_say_what_is_wrong_and_leave_with_a_status_that_says_so_too() {
    let mut world = World::start(Way::Embedded(1), &[]).await;
    let (status, said) = dead_letters(&world, &["list"]).await;
    assert_eq!((status, said.trim()), (Some(0), "no dead letters"));
    world.open_kitchen("luigis").await;
    let order = world.place("luigis", "tok_declined").await;
    world.order_in(&order, "cancelled").await;
    let newer = |id: &str| event(id, &order, "dev.rainstorm.order.placed.v2");
    tell(&world, "payment", &newer("abc-1")).await;
    tell(&world, "payment", &newer("abc-2")).await;
    tell(&world, "kitchen", &newer("abc-1")).await;
    let (status, said) = dead_letters(&world, &["list", "--service", "payment"]).await;
    assert!(status == Some(0) && said.lines().count() >= 3 && said.contains("order.placed.v2"), "{said}");
    let nowhere = ["--url", "http://127.0.0.1:1"];
    for (arguments, expected, named) in [
        (&["show", "xyz"][..], 1, "no dead letter xyz"),
        (&["show", "abc"], 1, "abc-2 of payment"),
        (&["show", "abc-1"], 1, "abc-1 of kitchen"),
        (&["show", "abc-1", "--service", "kitchen"], 0, "dead letter abc-1 of kitchen: failed"),
        (&["list", "--service", "cook"], 1, "--service cook"),
        (&["redeliver"], 2, "--all"),
        (&["redeliver", "abc-2", "--all"], 2, "--all"),
        (&["redeliver", "--subject", "nobody"], 1, "of nobody"),
        (&["redeliver", "abc-2", nowhere[0], nowhere[1]], 1, "http://127.0.0.1:1"),
        (&["discard", "abc-2", "--yes"], 1, "comes first: abc-1"),
        (&["discard", "abc-1", "--service", "payment"], 1, "--yes"),
    ] {
        let (status, said) = dead_letters(&world, arguments).await;
        assert_eq!(status, Some(expected), "{arguments:?}: {said}");
        assert!(said.contains(named), "{arguments:?} should name {named}: {said}");
        assert!(!said.contains("panicked"), "{said}");
    }
    assert_eq!(list(&world, &[]).await.len(), 3, "nothing has happened");

    // Where no demo runs, the wish waits on the log for the next one.
    world.kill().await;
    let (status, said) = dead_letters(&world, &["discard", "abc-1", "--service", "payment", "--yes"]).await;
    assert!(status == Some(0) && said.contains("when one is started next"), "{said}");
    assert_eq!(list(&world, &[]).await.len(), 3);
    world.serve_again().await;
    listed(&world, "the wish to be granted", &[], |letters| letters.len() == 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn records_that_are_no_events_reach_the_letters_whole_and_hold_up_nobody() {
    let way = Way::KafkaAndPostgres(1);
    if !way.is_possible() {
        return;
    }
    let world = World::start(way, &[]).await;
    world.open_kitchen("luigis").await;
    world.drivers_on_shift(1).await;
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", std::env::var("KAFKA_BROKERS").expect("asked for by is_possible"));
    let producer: FutureProducer = config.set("message.max.bytes", "1048576").create().expect("a producer");
    let megabyte = vec![0xab; 1_000_000];
    let headers = OwnedHeaders::new().insert(Header { key: "x-app", value: Some(&b"\xff\x01"[..]) });
    for (key, value) in [("nothing", &b""[..]), ("garbage", b"no event"), ("megabyte", &megabyte)] {
        let record = FutureRecord::to("payments").key(key).payload(value).headers(headers.clone());
        producer.send(record, Duration::from_secs(30)).await.expect("it is taken");
    }
    let order = world.place("luigis", "tok_ok").await;
    world.order_in(&order, "completed").await;
    // Order, kitchen and query hear of payments.
    let letters = listed(&world, "all of them to be listed", &[], |letters| letters.len() == 9).await;
    assert!(letters.iter().all(|letter| letter["topic"] == "payments" && letter["state"] == "failed"), "{letters:#?}");
    let of_query: Vec<_> = letters.iter().filter(|letter| letter["service"] == "query").collect();
    let mut shown = Vec::new();
    for letter in of_query {
        let id = letter["id"].as_str().expect("an id");
        let (status, said) = dead_letters(&world, &["show", id, "--service", "query"]).await;
        assert!(status == Some(0) && said.contains("x-app           0xff01"), "{said}");
        shown.push(said);
    }
    let shows = |key: &str, bytes: &str| {
        shown.iter().any(|said| said.contains(&format!("  key           {key}\n")) && said.contains(bytes))
    };
    assert!(shows("nothing", "its 0 bytes") && shows("garbage", "its 8 bytes\n  no event\n"), "{shown:?}");
    assert!(shows("megabyte", &format!("its 1000000 bytes\n  {}", "ab".repeat(32))));
}
