//! The bench measures what it says, wherever it runs. What it finds is no business of a test.

use end_to_end::{Way, World};
use serde_json::Value;

/// Figures of a bench that takes seconds.
async fn figures(settings: &[(&str, &str)]) -> Value {
    let arguments = ["bench", "--quick", "--json", "--under-way", "40", "--drivers", "100"];
    let (status, said) = World::run("rainstorm", &arguments, settings).await;
    assert_eq!(status, Some(0), "{said}");
    let line = said.lines().find(|line| line.starts_with('{')).expect("one JSON object");
    serde_json::from_str(line).expect("JSON")
}

fn value(report: &Value, name: &str) -> f64 {
    let figures = report["figures"].as_array().expect("figures");
    let figure = figures.iter().find(|figure| figure["name"] == name);
    figure.unwrap_or_else(|| panic!("no {name} in {report}"))["value"].as_f64().expect("a number")
}

fn is_sound(report: &Value) {
    for figure in report["figures"].as_array().expect("figures") {
        assert!(figure["value"].as_f64().is_some_and(|value| value > 0.0), "{figure}");
        if let Some(floor) = figure.get("floor") {
            let ratio = floor["ratio"].as_f64().expect("a ratio");
            assert!(ratio > 0.0, "{figure}");
        }
    }
    // What an order leaves on the log when everything goes well, its rides among it; at the edges of the time that is
    // counted some have more of it inside than others.
    let records = value(report, "records on the log for an order");
    assert!((10.0..20.0).contains(&records), "{records}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bench_has_every_figure_beside_its_floor_and_leaves_nothing_behind() {
    is_sound(&figures(&[]).await);
    if !Way::KafkaAndPostgres(1).is_possible() {
        return;
    }
    World::empty_kafka().await;
    let [brokers, postgres] = ["KAFKA_BROKERS", "POSTGRES_URL"].map(|name| std::env::var(name).expect("given"));
    is_sound(&figures(&[("KAFKA_BROKERS", &brokers), ("POSTGRES_URL", &postgres)]).await);
    World::on_postgres(
        &postgres,
        "DO $$ BEGIN ASSERT NOT EXISTS (SELECT 1 FROM pg_database WHERE datname LIKE 'bench%'); END $$",
    )
    .await;
}
