//! How soon a sleeping service is of use, and how much room it takes: from the start of its process until it is ready and
//! until it has had its first effect; beside a web server with nothing in it.

use super::{
    BenchError,
    city::{self, Place, Process},
    databases::Databases,
    load::answered,
    report::{Figure, Part, Target},
    waiting::Waits,
};
use crate::services::NAMES;

/// What a process may take, at most: milliseconds until it is ready, and MB at rest.
const READY: f64 = 150.0;
const AT_REST: f64 = 25.0;

/// An event of the producer's contract that has an effect on a service that knows nothing yet.
fn first_event(service: &str) -> &'static str {
    match service {
        "order" => include_str!("../../../services/kitchen/contract/kitchen.menu_published.v1.json"),
        _ => include_str!("../../../services/order/contract/order.placed.v1.json"),
    }
}

/// What starts have taken, in milliseconds, and MB.
#[derive(Default)]
struct Starts {
    ready: Vec<f64>,
    effect: Vec<f64>,
    memory: Vec<f64>,
}

impl Starts {
    fn ready(&mut self, process: &Process) {
        self.ready.push(process.start.as_secs_f64() * 1000.0);
        self.memory.extend(process.resident());
    }
}

fn median(values: Vec<f64>) -> f64 {
    Waits::of(values).percentile(50.0).unwrap_or(f64::NAN)
}

/// Starts each process so many times, one after the other, each on empty stores.
///
/// # Errors
/// What didn't start, or had no effect.
pub async fn of(place: &Place, times: usize) -> Result<Vec<Figure>, BenchError> {
    let (mut bare, mut services) = (Starts::default(), NAMES.map(|name| (name, Starts::default())));
    let mut demo = Starts::default();
    let client = eventing::http::client().build().map_err(BenchError::Http)?;
    for _ in 0..times {
        // Turn by turn, so that whatever else the machine does befalls all of them.
        let mut process = Process::start("bare", city::bare(None)?).await?;
        bare.ready(&process);
        process.stop().await?;
        match place {
            Place::Embedded => {
                let data = tempfile::tempdir().map_err(BenchError::Folder)?;
                let mut process = city::start_demo(data.path()).await?;
                demo.ready(&process);
                process.stop().await?;
            }
            Place::Servers { brokers, postgres } => {
                let names = NAMES.into_iter().chain([city::PROVIDER]).collect();
                let databases = Databases::create(postgres, names).await?;
                for (name, starts) in &mut services {
                    let mut process = city::start_service(name, brokers, &databases).await?;
                    starts.ready(&process);
                    let told = client
                        .post(format!("{}/events", process.url()))
                        .header("content-type", "application/cloudevents+json")
                        .body(first_event(name));
                    answered(told, 204).await?;
                    starts.effect.push(process.begun.elapsed().as_secs_f64() * 1000.0);
                    process.stop().await?;
                }
                databases.drop().await?;
            }
        }
    }
    let (bare_ready, bare_memory) = (median(bare.ready), median(bare.memory));
    let beside_bare = |figure: Figure, value| figure.beside("a web server with nothing in it", value);
    let figure = |name: String, value, unit| Figure::new(Part::Start, name, value, unit);
    if matches!(place, Place::Embedded) {
        let ready = figure(
            "the demo, five services and a log in one process: start to ready".to_owned(),
            median(demo.ready),
            "ms",
        );
        let memory = figure("the demo: memory at rest".to_owned(), median(demo.memory), "MB");
        return Ok(vec![beside_bare(ready, bare_ready), beside_bare(memory, bare_memory)]);
    }
    let mut figures = Vec::new();
    for (name, starts) in services {
        let ready = figure(format!("{name}: start to ready"), median(starts.ready), "ms");
        figures.push(beside_bare(ready.aiming_at(Target::AtMost(READY)), bare_ready));
        figures.push(figure(format!("{name}: start to the first effect"), median(starts.effect), "ms"));
        let memory = figure(format!("{name}: memory at rest"), median(starts.memory), "MB");
        figures.push(beside_bare(memory.aiming_at(Target::AtMost(AT_REST)), bare_memory));
    }
    Ok(figures)
}
