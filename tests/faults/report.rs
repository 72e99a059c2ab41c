//! How long it took to recover from each fault: a table for people, JSON lines for `docs/reliability.md`.

use std::{
    io::Write,
    sync::{Mutex, PoisonError},
};

use serde::Serialize;

/// What came of one scenario.
#[derive(Debug, Clone, Serialize)]
pub struct Recovery {
    pub scenario: &'static str,
    pub seed: u64,
    /// Orders accepted; every one of them has ended.
    pub accepted: usize,
    /// Requests that customers sent again.
    pub sent_again: u64,
    /// Customers who gave up before anybody took their order.
    pub unheard: u64,
    /// From the fault's end until the last order placed before that had ended.
    pub caught_up_s: f64,
    /// From the fault's end, or the last order's if it rained on, until nobody had anything left to do.
    pub quiet_s: f64,
}

static RECOVERIES: Mutex<Vec<Recovery>> = Mutex::new(Vec::new());

/// Notes a scenario that has ended as it should.
pub fn add(recovery: Recovery) {
    RECOVERIES.lock().unwrap_or_else(PoisonError::into_inner).push(recovery);
}

/// Prints the table, and adds to the file that `RAINSTORM_FAULTS_REPORT` names.
pub fn print() {
    let recoveries = RECOVERIES.lock().unwrap_or_else(PoisonError::into_inner);
    println!(
        "{:<62} {:>8} {:>10} {:>7} {:>12} {:>8}",
        "scenario", "accepted", "sent again", "unheard", "caught up", "quiet"
    );
    for Recovery { scenario, accepted, sent_again, unheard, caught_up_s, quiet_s, .. } in recoveries.iter() {
        println!(
            "{:<62} {accepted:>8} {sent_again:>10} {unheard:>7} {caught_up_s:>10.1} s {quiet_s:>6.1} s",
            scenario.replace('_', " ")
        );
    }
    if let Ok(path) = std::env::var("RAINSTORM_FAULTS_REPORT") {
        let file = std::fs::OpenOptions::new().create(true).append(true).open(&path);
        let mut file = file.unwrap_or_else(|error| panic!("RAINSTORM_FAULTS_REPORT {path}: {error}"));
        for recovery in recoveries.iter() {
            let line = serde_json::to_string(recovery).expect("it is JSON");
            writeln!(file, "{line}").expect("the report can be written");
        }
    }
}
