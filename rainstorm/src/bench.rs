//! `rainstorm bench`: what this system does on this machine, beside what the machine itself does with the same log and
//! the same store. Every figure that the documents claim comes from here.

mod bare;
pub mod chain;
mod city;
mod databases;
mod document;
mod drawing;
mod floors;
mod load;
mod reaction;
mod replay;
mod report;
mod start;
mod waiting;

use std::time::Duration;

pub use bare::{BareArgs, bare};
use city::{City, Place, Process};
use databases::Databases;
use floors::Floors;
use load::Sustained;
use report::{Figure, Part, Report, Target};
use waiting::Waits;

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
    #[command(flatten)]
    document: document::DocumentArgs,
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
    #[error("not at rest a minute after the last order: {0} workers are awake, and orders may be under way")]
    Restless(f64),
    #[error("nothing was measured")]
    Nothing,
    #[error(transparent)]
    Document(#[from] document::DocumentError),
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
    if let Some(folder) = &args.document.render {
        return Ok(document::write(folder)?);
    }
    let place = match (&args.kafka_brokers, &args.postgres_url) {
        (Some(brokers), Some(postgres)) => Place::Servers { brokers: brokers.clone(), postgres: postgres.clone() },
        _ => Place::Embedded,
    };
    let mut runs = Vec::new();
    for _ in 0..args.document.runs {
        runs.push(whole_run(&args, &place).await?);
    }
    let report = document::merge(runs).ok_or(BenchError::Nothing)?;
    if let Some(folder) = &args.document.write {
        document::keep(folder, &report)?;
        document::write(folder)?;
    }
    if args.json {
        println!("{}", serde_json::to_string(&report).unwrap_or_default());
    } else {
        println!("{report}");
    }
    Ok(())
}

/// Everything once.
async fn whole_run(args: &BenchArgs, place: &Place) -> Result<Report, BenchError> {
    let seconds = |quick, thorough| Duration::from_secs(if args.quick { quick } else { thorough });
    eprintln!("what log and store do alone ...");
    let floors = floors::of(place, seconds(2, 10)).await?;
    eprintln!("how soon a process is of use ...");
    let mut figures = start::of(place, if args.quick { 1 } else { 7 }).await?;

    let mut city = City::start(place, args.drivers).await?;
    let measured = in_city(args, place, &floors, &mut city).await;
    // Its databases go, whatever came of it.
    city.stop().await?;
    figures.extend(measured?);

    eprintln!("how soon workers wake, and what they cost ...");
    let (reaction, mut plots) = reaction::measure(place, args.quick).await?;
    figures.extend(reaction);
    eprintln!("the same storm over this and over the same services calling each other ...");
    let (beside, curves) = chain::compare(place, args.quick).await?;
    figures.extend(beside);
    plots.extend(curves);
    // In the order of the document.
    figures.sort_by_key(|figure| figure.part);

    let date = jiff::Timestamp::now().round(jiff::Unit::Second).map_or_else(|_| String::new(), |now| now.to_string());
    Ok(Report {
        date,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        place: place.name().to_owned(),
        command: std::env::args().collect::<Vec<_>>().join(" "),
        machine: machine(),
        processors: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        quick: args.quick,
        figures,
        plots,
    })
}

/// What a city is needed for.
async fn in_city(args: &BenchArgs, place: &Place, floors: &Floors, city: &mut City) -> Result<Vec<Figure>, BenchError> {
    let seconds = |quick, thorough| Duration::from_secs(if args.quick { quick } else { thorough });
    eprintln!("how many orders a second are completed, {} under way all the time ...", args.under_way);
    let sustained = load::sustained(city, args.under_way, seconds(3, 10), seconds(10, 60)).await?;
    let mut figures = capacity(place, floors, &sustained);
    load::all_ended(&eventing::http::client().build().map_err(BenchError::Http)?, city).await?;

    let rates = Rates { calm: sustained.completed * 0.1, peak: sustained.completed * 0.8 };
    eprintln!("how long people wait, at {:.0} and at {:.0} orders a second ...", rates.calm, rates.peak);
    let (mut calm, mut peak) = (Vec::new(), Vec::new());
    for _ in 0..if args.quick { 1 } else { 3 } {
        calm.push(waiting::in_city(city, rates.calm, seconds(4, 20)).await?);
        peak.push(waiting::in_city(city, rates.peak, seconds(4, 20)).await?);
    }
    let bare = bare_waits(place, city, &rates, seconds(2, 10)).await?;
    figures.extend(waiting::figures(&rates, &calm, &peak, &bare, &floors.trips));
    let most: f64 = city.processes.iter().filter_map(Process::most_resident).sum();
    figures.push(Figure::new(Part::Start, "memory of all processes, at most", most, "MB"));

    // On servers the log may have more on it than what this city has written.
    if matches!(place, Place::Embedded) {
        eprintln!("how quickly all of it is made again and proved ...");
        city.halt().await?;
        figures.extend(replay::of(&city.log, city.data()).await?);
    }
    Ok(figures)
}

fn capacity(place: &Place, floors: &Floors, sustained: &Sustained) -> Vec<Figure> {
    let goal = match place {
        Place::Embedded => 2000.0,
        Place::Servers { .. } => 1000.0,
    };
    let events = sustained.records;
    let figure = |name: &str, value, unit: &str| Figure::new(Part::Capacity, name, value, unit);
    vec![
        figure("orders from placed to completed", sustained.completed, "orders/s")
            .beside("the records of an order appended to the log alone", floors.records / events)
            .aiming_at(Target::AtLeast(goal)),
        figure("events stored", sustained.completed * events, "events/s")
            .beside("transactions of one event in one store alone", floors.transactions),
        figure("records on the log for an order", events, "records"),
        figure("processor time for an order", sustained.cpu * 1000.0, "ms"),
    ]
}

/// Orders a second.
pub struct Rates {
    pub calm: f64,
    pub peak: f64,
}

/// How long people wait for a handler that only writes a row, at both rates.
async fn bare_waits(place: &Place, city: &City, rates: &Rates, length: Duration) -> Result<(Waits, Waits), BenchError> {
    let data = tempfile::tempdir().map_err(BenchError::Folder)?;
    let databases = match place {
        Place::Embedded => None,
        Place::Servers { postgres, .. } => Some(Databases::create(postgres, vec!["bare"]).await?),
    };
    let in_a_file = || format!("sqlite:{}", data.path().join("bare.db").display());
    let url = databases.as_ref().map_or_else(in_a_file, |databases| databases.url("bare"));
    let mut process = Process::start("bare", city::bare(Some(&url))?).await?;
    let mut waits = Vec::new();
    for rate in [rates.calm, rates.peak] {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let count = (rate * length.as_secs_f64()).ceil() as usize;
        let bodies = waiting::bodies(city, count).await?;
        waits.push(waiting::at_bare_handler(&process.url(), &bodies, rate).await?);
    }
    process.stop().await?;
    if let Some(databases) = databases {
        databases.drop().await?;
    }
    let peak = waits.pop().unwrap_or_default();
    Ok((waits.pop().unwrap_or_default(), peak))
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
