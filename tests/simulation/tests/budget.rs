//! What an order costs, compared with what it may: `budget.json`. Counts and not times, so that it holds on any machine.
//! This is the only test here, because what others allocate beside it would be counted, too.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that can't go on fails")]

use std::{alloc::System, path::Path};

use simulation::{
    Simulation,
    budget::{Budget, differences, figures, table},
    meter::Memory,
    town::Stretch,
};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const ORDERS: u64 = 100;

fn allocated() -> Memory {
    let stats = ALLOCATOR.stats();
    // The allocator counts an allocation that grows by what it grows by, among its bytes.
    let (allocations, bytes) = (stats.allocations + stats.reallocations, stats.bytes_allocated);
    Memory { allocations: allocations as u64, bytes: bytes as u64 }
}

fn measured(seed: u64) -> Budget {
    let simulation = Simulation::new(None).expect("a simulation");
    let stretches = [("calm", Stretch::Calm), ("storm", Stretch::Storm)];
    let measured = stretches.map(|(name, stretch)| {
        let counts = simulation.count(seed, stretch, ORDERS, allocated).expect("a stretch in which nothing goes wrong");
        // In a storm everybody works at once, and whose memory it is can't be told.
        (name.to_owned(), figures(&counts, ORDERS, stretch == Stretch::Calm))
    });
    measured.into()
}

#[test]
fn an_order_costs_what_the_budget_says_and_no_less() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("budget.json");
    let now = measured(1);
    let again = differences(&now, &measured(1));
    assert!(again.is_empty(), "the same orders cost another time:\n{}", table(&again));

    if std::env::var("RAINSTORM_BUDGET").is_ok_and(|wish| wish == "write") {
        let written = serde_json::to_string_pretty(&now).expect("numbers") + "\n";
        std::fs::write(&file, written).expect("budget.json can be written");
        return;
    }
    let budget = std::fs::read_to_string(&file).expect("tests/simulation/budget.json");
    let budget: Budget = serde_json::from_str(&budget).expect("budget.json holds kinds, names and numbers");
    let differ = differences(&budget, &now);
    assert!(
        differ.is_empty(),
        "an order doesn't cost what tests/simulation/budget.json says:\n\n{}\n\nIf it is meant to (more only for a \
         reason, less by all means), write the new budget and commit it with what changed it:\n\n    \
         RAINSTORM_BUDGET=write cargo test --workspace --test budget\n",
        table(&differ)
    );
}
