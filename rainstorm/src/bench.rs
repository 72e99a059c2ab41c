//! `rainstorm bench`: what this system does on this machine, beside what the machine itself does with the same log and
//! the same store. Every figure that the documents claim comes from here.

pub mod chain;
mod city;
mod databases;
mod floors;
mod load;
mod report;

use std::time::Duration;

use city::{City, Place, Process};
use report::{Figure, Part, Report, Target};

#[derive(Debug, clap::Args)]
pub struct BenchArgs {
    /// Measure for seconds instead of minutes: to see that it works, not to claim anything.
    #[arg(long)]
    quick: bool,
    /// Print the figures as one JSON object.
    #[arg(long)]
    json: bool,
    /// Kafka's brokers; with PostgreSQL, five services of their own and a bridge are measured instead of the demo.
    #[arg(long, env = "KAFKA_BROKERS", value_name = "HOST:PORT,…", requires = "postgres_url")]
    kafka_brokers: Option<String>,
    /// A PostgreSQL database, from which this bench creates others and drops them again.
    #[arg(long, env = "POSTGRES_URL", value_name = "URL")]
    postgres_url: Option<String>,
    /// Orders that are kept under way while the capacity is measured.
    #[arg(long, default_value_t = 2000)]
    under_way: usize,
    /// Drivers on shift.
    #[arg(long, default_value_t = 1000)]
    drivers: usize,
}

/// Why there are no figures.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    #[error("no folder for the data: {0}")]
    Folder(std::io::Error),
    #[error("{name}: {source}")]
    Process { name: String, source: std::io::Error },
    #[error("POSTGRES_URL: {0}")]
    Postgres(sqlx::Error),
    #[error("a service does not answer: {0}")]
    Http(reqwest::Error),
    #[error("an order was not accepted: {0}")]
    Refused(String),
    #[error("no order has ended for a minute, after {0} before and {1} in all")]
    Stuck(i64, i64),
    #[error(transparent)]
    Storm(Box<crate::storm::StormError>),
    #[error(transparent)]
    Seed(#[from] crate::seed::SeedError),
    #[error(transparent)]
    Store(#[from] event_sourcing::StoreError),
    #[error(transparent)]
    Log(#[from] eventing::log::LogError),
    #[error(transparent)]
    Start(#[from] eventing::StartError),
}

/// `rainstorm bench`.
pub async fn bench(args: BenchArgs) -> Result<(), BenchError> {
    let place = match (args.kafka_brokers, args.postgres_url) {
        (Some(brokers), Some(postgres)) => Place::Servers { brokers, postgres },
        _ => Place::Embedded,
    };
    let seconds = |quick, thorough| Duration::from_secs(if args.quick { quick } else { thorough });
    let mut figures = Vec::new();

    eprintln!("how many orders a second are completed, {} under way all the time ...", args.under_way);
    let city = City::start(&place, args.drivers).await?;
    let started = city.processes.iter().map(|process| process.start.as_secs_f64()).fold(0.0, f64::max);
    let idle: f64 = city.processes.iter().filter_map(Process::resident).sum();
    let sustained = load::sustained(&city, args.under_way, seconds(3, 10), seconds(10, 60)).await;
    let most: f64 = city.processes.iter().filter_map(Process::most_resident).sum();
    // Its databases go, whatever came of it.
    city.stop().await?;
    let sustained = sustained?;

    eprintln!("what log and store do alone ...");
    let floors = floors::of(&place, seconds(2, 10)).await?;
    let events = sustained.records;
    let goal = match place {
        Place::Embedded => 2000.0,
        Place::Servers { .. } => 1000.0,
    };
    figures.push(
        Figure::new(Part::Capacity, "orders from placed to completed", sustained.completed, "orders/s")
            .beside("the records of an order appended to the log alone", floors.records / events)
            .to_be(Target::AtLeast(goal)),
    );
    figures.push(
        Figure::new(Part::Capacity, "events stored", sustained.completed * events, "events/s")
            .beside("transactions of one event in one store alone", floors.transactions),
    );
    figures.push(Figure::new(Part::Capacity, "records on the log for an order", events, "records"));
    figures.push(Figure::new(Part::Capacity, "processor time for an order", sustained.cpu * 1000.0, "ms"));
    figures.push(Figure::new(Part::Start, "slowest process from start to ready", started * 1000.0, "ms"));
    figures.push(Figure::new(Part::Start, "memory of all processes, kitchens open", idle, "MB"));
    figures.push(Figure::new(Part::Start, "memory of all processes, at most", most, "MB"));

    eprintln!("the same storm over this and over the same services calling each other ...");
    let (beside, plots) = chain::compare(&place, args.quick).await?;
    figures.extend(beside);

    let date = jiff::Timestamp::now().round(jiff::Unit::Second).map_or_else(|_| String::new(), |now| now.to_string());
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let report = Report {
        date,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        place: place.name().to_owned(),
        command: std::env::args().collect::<Vec<_>>().join(" "),
        machine: machine(),
        processors,
        quick: args.quick,
        figures,
        plots,
    };
    if args.json {
        println!("{}", serde_json::to_string(&report).unwrap_or_default());
    } else {
        println!("{report}");
    }
    Ok(())
}

/// Processor and system, as far as the system says.
fn machine() -> String {
    let read = |file: &str| std::fs::read_to_string(file).unwrap_or_default();
    let processors = read("/proc/cpuinfo");
    let model = processors.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or(std::env::consts::ARCH, |(_, model)| model);
    let system = read("/proc/sys/kernel/osrelease");
    format!("{model}, {} {}", std::env::consts::OS, system.trim()).trim_end().to_owned()
}
