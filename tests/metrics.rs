//! What is measured, as Prometheus reads it: every family by its name, type and labels, in every way Rainstorm runs.
//! `tests/observability/families.txt` lists them, and whoever asks about one (alerts, dashboard) is held to that list.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write,
    process::{Command, Stdio},
};

use end_to_end::{Way, World, until};

const LISTED: &str = include_str!("observability/families.txt");
/// Labels that every histogram and summary has.
const OF_THE_FORMAT: [&str; 2] = ["le", "quantile"];

/// Families as they are listed: name, type, labels.
fn families(exposition: &str) -> BTreeSet<String> {
    let mut types: BTreeMap<&str, &str> = BTreeMap::new();
    let mut labels: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for line in exposition.lines() {
        if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            types.insert(name, kind);
        } else if !line.starts_with('#') && !line.is_empty() {
            let (name, rest) = line.split_once(['{', ' ']).expect("a name and a value");
            let family = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix));
            let family = family.filter(|family| types.contains_key(family)).unwrap_or(name);
            let rest = if line.contains('{') { rest.rsplit_once("} ").map_or("", |(labels, _)| labels) } else { "" };
            let names = rest.split("\",").filter_map(|label| Some(label.split_once('=')?.0));
            labels.entry(family).or_default().extend(names.filter(|name| !OF_THE_FORMAT.contains(name)));
        }
    }
    let line = |(name, kind): (&&str, &&str)| {
        let labels = labels.get(name).into_iter().flatten().copied();
        [*name, *kind].into_iter().chain(labels).collect::<Vec<_>>().join(" ")
    };
    types.iter().map(line).collect()
}

fn listed() -> BTreeSet<String> {
    LISTED.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).map(ToOwned::to_owned).collect()
}

/// Prometheus' own tool has nothing to say about it; where it is installed, as in CI.
fn promtool_has_no_objection(exposition: &str) {
    let promtool =
        Command::new("promtool").args(["check", "metrics"]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let Ok(mut promtool) = promtool else {
        assert!(std::env::var("RAINSTORM_REQUIRE_SERVERS").is_err(), "promtool is missing");
        let _ = writeln!(std::io::stderr(), "SKIPPED: promtool isn't there to look at the metrics");
        return;
    };
    promtool.stdin.take().expect("a pipe").write_all(exposition.as_bytes()).expect("it reads");
    let said = promtool.wait_with_output().expect("it ends");
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
}

async fn measured(url: &str) -> String {
    let answer = reqwest::get(format!("{url}/metrics")).await.expect("an answer");
    assert_eq!(answer.headers()["content-type"], "text/plain; version=0.0.4");
    answer.text().await.expect("text")
}

/// Lets every kind of thing happen that is counted: an order, one that is cancelled, an event that nobody can handle.
async fn let_things_happen(world: &World) {
    world.open_kitchen("luigis").await;
    world.drivers_on_shift(1).await;
    let (good, bad) = (world.place("luigis", "tok_ok").await, world.place("luigis", "tok_declined").await);
    world.order_in(&good, "completed").await;
    world.order_in(&bad, "cancelled").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_that_is_measured_is_listed_and_named_as_prometheus_wants_it() {
    let world = World::start(Way::Embedded(1), &[]).await;
    let_things_happen(&world).await;
    let exposition = measured(world.url("query")).await;
    promtool_has_no_objection(&exposition);
    assert_eq!(families(&exposition), listed());

    let value = |line: &str| {
        let found = exposition.lines().find_map(|known| known.strip_prefix(line));
        found.unwrap_or_else(|| panic!("no {line} in {exposition}")).trim().parse::<f64>().expect("a number")
    };
    assert_eq!(value("rainstorm_orders{status=\"completed\",service=\"query\"}"), 1.0);
    assert_eq!(value("rainstorm_orders{status=\"cancelled\",service=\"query\"}"), 1.0);
    assert_eq!(value("rainstorm_captured_minor_units{currency=\"EUR\",service=\"query\"}"), 950.0);
    assert_eq!(value("rainstorm_outbox_events{service=\"order\"}"), 0.0);
    let route = "rainstorm_http_request_duration_seconds_count{method=\"POST\",route=\"/orders\",status=\"201\",service=\"order\"}";
    assert_eq!(value(route), 2.0);
    assert!(value("rainstorm_events_total{outcome=\"handled\",service=\"payment\"}") >= 2.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn five_processes_measure_the_same_and_an_observer_sees_how_far_they_are() {
    let way = Way::KafkaAndPostgres(1);
    if !way.is_possible() {
        return;
    }
    let mut world = World::start(way, &[]).await;
    let observer = world.start_observer().await;
    let_things_happen(&world).await;
    let mut found = families(&measured(&observer).await);
    for service in end_to_end::SERVICES {
        let exposition = measured(world.url(service)).await;
        promtool_has_no_objection(&exposition);
        found.extend(families(&exposition));
    }
    let unlisted: Vec<_> = found.difference(&listed()).cloned().collect();
    assert!(unlisted.is_empty(), "{unlisted:#?}");
    until("the query service to have counted both orders", async || {
        let exposition = measured(world.url("query")).await;
        exposition.contains("rainstorm_orders{status=\"completed\",service=\"query\"} 1").then_some(())
    })
    .await;
    until("the observer to see that nobody is behind", async || {
        let exposition = measured(&observer).await;
        let lags: Vec<_> = exposition.lines().filter(|line| line.starts_with("rainstorm_lag_records{")).collect();
        (lags.len() >= 12 * 5 && lags.iter().all(|line| line.ends_with(" 0"))).then_some(())
    })
    .await;

    // Its pictures: whoever hears of what, who is awake, and that nobody may operate here.
    let mut pictures = reqwest::get(format!("{observer}/organism")).await.expect("an answer");
    assert_eq!(pictures.headers()["content-type"], "text/event-stream");
    let mut text = String::new();
    let frame = loop {
        let more = pictures.chunk().await.expect("the stream goes on").expect("more");
        text.push_str(&String::from_utf8_lossy(&more));
        let whole = text.split("\n\n").filter_map(|message| message.split_once("data: "));
        let frames = whole.filter_map(|(_, json)| serde_json::from_str::<serde_json::Value>(json).ok());
        let seen = |frame: &serde_json::Value| frame["services"][0]["handled"].as_u64() > Some(0);
        if let Some(frame) = frames.filter(seen).last() {
            break frame;
        }
    };
    assert_eq!((&frame["mode"], &frame["can"]), (&"processes".into(), &serde_json::json!([])), "{frame:#}");
    let nerves = frame["nerves"].as_array().expect("a list");
    let hears = |to: &str| nerves.iter().filter(|nerve| nerve["to"] == to).count();
    assert_eq!(end_to_end::SERVICES.map(hears), [3, 1, 3, 3, 4], "{frame:#}");
    assert!(nerves.iter().all(|nerve| nerve["partitions"].as_array().map(Vec::len) == Some(12)), "{frame:#}");
}
