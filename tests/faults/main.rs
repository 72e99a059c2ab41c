//! Everything that may go wrong with the real thing, during a storm: processes and servers killed, frozen, starved and
//! lied to. After each fault every accepted order has ended as it should, nothing is stuck, and the time to recover is
//! in the table at the end (and, a JSON object a line, in the file that `RAINSTORM_FAULTS_REPORT` names).
//!
//! ```sh
//! tests/servers/with cargo test -p end-to-end --test faults       # small storms, as in CI: ten minutes
//! just faults full                                                # large ones
//! RAINSTORM_SEED=7 just faults short kill                         # the moments of run 7, those with `kill` in the name
//! ```
//!
//! `RAINSTORM_FAULTS` is `short` (the default), `full`, or `off`.

mod bridges;
mod clocks;
mod frozen;
mod ground;
mod kills;
mod money;
mod proof;
mod records;
mod report;
mod room;
mod servers;

use std::{pin::Pin, process::ExitCode, time::Duration};

use end_to_end::Way;
use ground::Plan;
use libtest_mimic::{Arguments, Trial};

type Scenario = fn(Plan) -> Pin<Box<dyn Future<Output = ()>>>;

/// A list of scenarios by name; each is an async function.
macro_rules! scenarios {
    ($($module:ident: $($scenario:ident)+;)+) => {
        [$($((stringify!($scenario), (|plan| Box::pin($module::$scenario(plan))) as Scenario)),+),+]
    };
}

/// No scenario takes longer than this, unless something is stuck.
const PATIENCE: Duration = Duration::from_secs(300);

fn main() -> ExitCode {
    let scenarios = scenarios! {
        kills: each_service_is_killed_in_turn
               the_bridge_is_killed_again_and_again
               everything_is_killed_at_once
               kafka_is_killed
               postgres_is_killed;
        bridges: two_bridges_come_and_go
                 events_come_singly_to_services_that_are_killed
                 everybody_is_told_to_stop_in_turn
                 two_storms_at_once;
        frozen: a_frozen_bridge_wakes_when_another_has_its_partitions
                a_frozen_service_wakes
                a_frozen_service_wakes_beside_its_twin
                a_kitchen_slowed_to_a_tenth_holds_nobody_up
                a_service_that_slept_through_the_storm_catches_up
                a_query_service_that_slept_through_the_storm_catches_up;
        money: the_payment_provider_is_down
               the_payment_provider_is_slow
               the_payment_providers_answers_are_lost;
        records: records_that_nobody_can_handle_hurt_nobody
                 everything_is_told_twice;
        room: postgres_has_no_connection_left
              the_disk_is_full;
        clocks: clocks_are_an_hour_apart;
    };
    let size = match std::env::var("RAINSTORM_FAULTS").as_deref() {
        Ok("off") => return ExitCode::SUCCESS,
        Ok("full") => ground::Size::Full,
        Ok("short") | Err(_) => ground::Size::Short,
        Ok(other) => panic!("RAINSTORM_FAULTS: {other:?} is none of short, full, off"),
    };
    if !Way::KafkaAndPostgres(1).is_possible() {
        return ExitCode::SUCCESS;
    }
    let seed = std::env::var("RAINSTORM_SEED").map(|seed| seed.parse().expect("RAINSTORM_SEED is a number"));
    let seed = seed.unwrap_or_else(|_| rand::random_range(0..1_000_000));
    eprintln!("faults: {size:?}; RAINSTORM_SEED={seed} repeats the moments of this run");

    // One after the other: they share the servers that they kill.
    let arguments = Arguments { test_threads: Some(1), ..Arguments::from_args() };
    let trial = |(name, scenario): (&'static str, Scenario)| {
        let plan = Plan { name, size, seed };
        Trial::test(name, move || {
            let runtime = tokio::runtime::Runtime::new()?;
            let played = runtime.block_on(async { tokio::time::timeout(PATIENCE, scenario(plan)).await });
            played.map_err(|_| format!("it is stuck: not over after {PATIENCE:?}").into())
        })
    };
    let played = libtest_mimic::run(&arguments, scenarios.into_iter().map(trial).collect());
    report::print();
    played.exit_code()
}
