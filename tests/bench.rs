//! The bench measures what it says, wherever it runs. What it finds is no business of a test.

use std::fs;

use end_to_end::{Way, World};
use serde_json::Value;

/// Figures of a bench that takes seconds, and writes its document down.
async fn figures(settings: &[(&str, &str)]) -> Value {
    let docs = tempfile::tempdir().expect("a folder");
    let folder = docs.path().join("performance").display().to_string();
    let arguments = ["bench", "--quick", "--json", "--under-way", "40", "--drivers", "100", "--write", &folder];
    let (status, said) = World::run("rainstorm", &arguments, settings).await;
    assert_eq!(status, Some(0), "{said}");
    let document = docs.path().join("performance.md");
    let written = fs::read_to_string(&document).expect("a document");
    fs::remove_file(&document).expect("it can be deleted");
    let (status, rendered) = World::run("rainstorm", &["bench", "--render", &folder], &[]).await;
    assert_eq!(status, Some(0), "{rendered}");
    assert_eq!(fs::read_to_string(&document).expect("a document"), written, "from the same figures the same");
    let line = said.lines().find(|line| line.starts_with('{')).expect("one JSON object");
    let report: Value = serde_json::from_str(line).expect("JSON");
    for figure in report["figures"].as_array().expect("figures") {
        let name = figure["name"].as_str().expect("a name");
        assert!(written.contains(&format!("| {name} |")), "{name} in {written}");
    }
    report
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
async fn an_embedded_bench_has_every_figure_beside_its_floor() {
    is_sound(&figures(&[]).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bench_on_servers_has_every_figure_beside_its_floor_and_leaves_nothing_behind() {
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
