//! `simulation`: runs seeds until one of them does not add up. `--help` says the rest.

use std::{process::ExitCode, sync::{Mutex, PoisonError, atomic::{AtomicBool, AtomicU64, Ordering}}, time::Instant};

use clap::Parser;
use simulation::{Outcome, Simulation, SimulationError, sabotage::Sabotage};

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
    #[arg(long, conflicts_with_all = ["seeds", "from"])]
    seed: Option<u64>,
    /// Break a promise on purpose: then a seed must fail, or this does.
    #[arg(long, value_enum)]
    sabotage: Option<Sabotage>,
    /// Seeds that run at once.
    #[arg(long, default_value_t = std::thread::available_parallelism().map_or(1, usize::from))]
    threads: usize,
}

fn main() -> ExitCode {
    // A service that says what goes wrong would say little else here.
    if std::env::var_os("RUST_LOG").is_some() {
        runtime::start_logging();
    }
    let settings = Settings::parse();
    match run(&settings) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(settings: &Settings) -> Result<bool, SimulationError> {
    if let Some(seed) = settings.seed {
        let outcome = Simulation::new(settings.sabotage)?.run(seed, true)?;
        outcome.story.iter().for_each(|line| println!("{line}"));
        report(&outcome);
        return Ok(outcome.wrong.is_empty());
    }
    let (begun, next, stop) = (Instant::now(), AtomicU64::new(settings.from), AtomicBool::new(false));
    let (runs, crashes, accepted, records) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let failed: Mutex<Option<Outcome>> = Mutex::default();
    let work = || -> Result<(), SimulationError> {
        let simulation = Simulation::new(settings.sabotage)?;
        while !stop.load(Ordering::Relaxed) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= settings.from + settings.seeds {
                break;
            }
            let outcome = simulation.run(seed, false)?;
            runs.fetch_add(1, Ordering::Relaxed);
            crashes.fetch_add(outcome.crashes, Ordering::Relaxed);
            accepted.fetch_add(outcome.accepted as u64, Ordering::Relaxed);
            records.fetch_add(outcome.records as u64, Ordering::Relaxed);
            if !outcome.wrong.is_empty() {
                stop.store(true, Ordering::Relaxed);
                let mut failed = failed.lock().unwrap_or_else(PoisonError::into_inner);
                if failed.as_ref().is_none_or(|earlier| outcome.seed < earlier.seed) {
                    *failed = Some(outcome);
                }
            }
        }
        Ok(())
    };
    let outcomes: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..settings.threads.max(1)).map(|_| scope.spawn(work)).collect();
        threads.into_iter().map(|thread| thread.join()).collect()
    });
    for outcome in outcomes {
        outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
    }
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    println!(
        "{} seeds, {} crashes, {} orders accepted, {} records, {:.1} s",
        count(&runs), count(&crashes), count(&accepted), count(&records), begun.elapsed().as_secs_f64()
    );
    let failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
    if let Some(outcome) = &failed {
        report(outcome);
    }
    Ok(failed.is_some() == settings.sabotage.is_some())
}

fn report(outcome: &Outcome) {
    for wrong in &outcome.wrong {
        println!("seed {}: {wrong}", outcome.seed);
    }
    if !outcome.wrong.is_empty() {
        println!("tell its story with: cargo run -p simulation -- --seed {}", outcome.seed);
    }
}
