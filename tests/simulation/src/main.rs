//! `simulation`: runs seeds until one of them does not add up. `--help` says the rest.

use std::{process::ExitCode, time::Instant};

use clap::{Parser, ValueEnum};
use simulation::{Outcome, Simulation, SimulationError, crowd, sabotage::Sabotage};

// A world is made of millions of small pieces, and most of them live for a moment.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Simulates everything that may go wrong, each seed in another way.
#[derive(Debug, Parser)]
struct Settings {
    /// How many seeds.
    #[arg(long, default_value_t = 1000)]
    seeds: u64,
    /// The first one.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Only this seed, with everything that happens: how a failure is looked at.
    #[arg(long, conflicts_with_all = ["seeds", "from", "prove"])]
    seed: Option<u64>,
    /// Break a promise on purpose: then one of the seeds must fail.
    #[arg(long, value_enum)]
    sabotage: Option<Sabotage>,
    /// Break every promise on purpose, one after the other: each must be found.
    #[arg(long, conflicts_with = "sabotage")]
    prove: bool,
    /// Seeds that run at once.
    #[arg(long, default_value_t = std::thread::available_parallelism().map_or(1, usize::from))]
    threads: usize,
}

fn main() -> ExitCode {
    // A service that says what goes wrong would say little else here.
    let logs = std::env::var_os("RUST_LOG").map(|_| runtime::telemetry::start("simulation", runtime::WARNINGS));
    if let Some(Err(error)) = logs {
        eprintln!("error: {error}");
        return ExitCode::from(2);
    }
    let settings = Settings::parse();
    let holds = if let Some(seed) = settings.seed {
        tell(seed, settings.sabotage)
    } else if settings.prove {
        prove(&settings)
    } else {
        run(&settings)
    };
    match holds {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// One seed's whole story.
fn tell(seed: u64, sabotage: Option<Sabotage>) -> Result<bool, SimulationError> {
    let outcome = Simulation::new(sabotage)?.run(seed, true)?;
    outcome.story.iter().for_each(|line| println!("{line}"));
    report(&outcome, sabotage);
    Ok(outcome.wrong.is_empty() == sabotage.is_none())
}

fn run(settings: &Settings) -> Result<bool, SimulationError> {
    let begun = Instant::now();
    let crowd = crowd::run(settings.sabotage, settings.from..settings.from + settings.seeds, settings.threads)?;
    println!(
        "{} seeds, {} processes ended, {} orders accepted, {} records, {:.1} s",
        crowd.seeds,
        crowd.crashes,
        crowd.accepted,
        crowd.records,
        begun.elapsed().as_secs_f64()
    );
    if let Some(failed) = &crowd.failed {
        report(failed, settings.sabotage);
    }
    Ok(crowd.failed.is_none() == settings.sabotage.is_none())
}

fn prove(settings: &Settings) -> Result<bool, SimulationError> {
    let mut all_found = true;
    println!("{:<28} {:>7}  {:>12}  what was found", "sabotage", "promise", "after seeds");
    for sabotage in Sabotage::value_variants() {
        let name = sabotage.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
        let seeds = settings.from..settings.from + settings.seeds;
        let crowd = crowd::run(Some(*sabotage), seeds, settings.threads)?;
        all_found &= crowd.failed.is_some();
        let wrong = crowd.failed.as_ref().and_then(|failed| failed.wrong.first());
        let wrong = wrong.map_or("NOTHING", |wrong| wrong.lines().next().unwrap_or_default());
        println!("{name:<28} {:>7}  {:>12}  {wrong}", sabotage.promise(), crowd.seeds);
    }
    Ok(all_found)
}

fn report(outcome: &Outcome, sabotage: Option<Sabotage>) {
    for wrong in &outcome.wrong {
        println!("seed {}: {wrong}", outcome.seed);
    }
    if !outcome.wrong.is_empty() {
        let sabotage =
            sabotage.and_then(|it| it.to_possible_value()).map(|it| format!(" --sabotage {}", it.get_name()));
        let sabotage = sabotage.unwrap_or_default();
        println!("its whole story: cargo run -p simulation -- --seed {}{sabotage}", outcome.seed);
    }
}
