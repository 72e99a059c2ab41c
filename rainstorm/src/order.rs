//! `rainstorm order ID`: the story of one order, as a timeline.

use jiff::Timestamp;
use serde::Deserialize;

#[derive(Debug, clap::Args)]
pub struct OrderArgs {
    /// The order's id.
    id: String,
    /// Where the query service answers.
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    url: String,
}

/// Why there is no story.
#[derive(Debug, thiserror::Error)]
pub enum OrderError {
    #[error("{url} does not answer as the query service does; is it there? ({source})")]
    NoAnswer { url: String, source: reqwest::Error },
    #[error("{url} knows no order {id}")]
    Unknown { url: String, id: String },
}

#[derive(Deserialize)]
struct Order {
    order_id: String,
    status: String,
    timeline: Vec<Step>,
}

#[derive(Deserialize)]
struct Step {
    source: String,
    #[serde(rename = "type")]
    event_type: String,
    sequence: i64,
    time: Timestamp,
    latency_ms: Option<f64>,
}

/// Prints an order's timeline.
pub async fn order(args: OrderArgs) -> Result<(), OrderError> {
    let no_answer = |source| OrderError::NoAnswer { url: args.url.clone(), source };
    let client = eventing::http::client().build().map_err(no_answer)?;
    let address = format!("{}/orders/{}", args.url.trim_end_matches('/'), args.id);
    let response = client.get(address).send().await.map_err(no_answer)?;
    if response.status().as_u16() == 404 {
        return Err(OrderError::Unknown { url: args.url, id: args.id });
    }
    let order: Order = response.error_for_status().map_err(no_answer)?.json().await.map_err(no_answer)?;
    println!("order {} is {}", order.order_id, order.status);
    let Some(begin) = order.timeline.first().map(|step| step.time) else { return Ok(()) };
    println!("{:>12}  {:<12} {:>3}  {:<32} after its cause", "", "service", "no", "event");
    for step in order.timeline {
        let offset = step.time.duration_since(begin).as_secs_f64() * 1000.0;
        let name = step.event_type.trim_start_matches("dev.rainstorm.").trim_end_matches(".v1").to_owned();
        let latency = step.latency_ms.map(|latency| format!("{latency:.1} ms")).unwrap_or_default();
        println!(
            "{offset:>9.1} ms  {:<12} {:>3}  {name:<32} {latency}",
            step.source.trim_start_matches('/'),
            step.sequence
        );
    }
    Ok(())
}
