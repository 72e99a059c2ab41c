//! Many seeds, a few at a time, until one does not add up.

use std::{
    ops::Range,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use crate::{Outcome, Simulation, SimulationError, sabotage::Sabotage};

/// What many seeds have come to.
#[derive(Debug, Default)]
pub struct Crowd {
    /// That were run.
    pub seeds: u64,
    pub crashes: u64,
    pub accepted: usize,
    pub records: usize,
    /// The first one that does not add up.
    pub failed: Option<Outcome>,
}

/// Runs `seeds` on so many threads, each seed on one of them.
///
/// # Errors
/// If there is no simulation.
pub fn run(sabotage: Option<Sabotage>, seeds: Range<u64>, threads: usize) -> Result<Crowd, SimulationError> {
    let (next, stop) = (AtomicU64::new(seeds.start), AtomicBool::new(false));
    let crowd: Mutex<Crowd> = Mutex::default();
    let work = || -> Result<(), SimulationError> {
        let simulation = Simulation::new(sabotage)?;
        while !stop.load(Ordering::Relaxed) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                break;
            }
            let outcome = simulation.run(seed, false)?;
            let mut crowd = crowd.lock().unwrap_or_else(PoisonError::into_inner);
            crowd.seeds += 1;
            crowd.crashes += outcome.crashes;
            crowd.accepted += outcome.accepted;
            crowd.records += outcome.records;
            if !outcome.wrong.is_empty() {
                stop.store(true, Ordering::Relaxed);
                if crowd.failed.as_ref().is_none_or(|earlier| outcome.seed < earlier.seed) {
                    crowd.failed = Some(outcome);
                }
            }
        }
        Ok(())
    };
    let ended: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads.max(1)).map(|_| scope.spawn(work)).collect();
        threads.into_iter().map(std::thread::ScopedJoinHandle::join).collect()
    });
    for thread in ended {
        // A panic in there is a bug of a service or of the simulation: nobody is to overlook it.
        thread.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
    }
    Ok(crowd.into_inner().unwrap_or_else(PoisonError::into_inner))
}
