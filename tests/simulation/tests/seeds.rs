//! A few hundred seeds add up, and every promise that is broken on purpose is found. `cargo run -p simulation` runs any
//! number of them.

use clap::ValueEnum;
use simulation::{Simulation, crowd, sabotage::Sabotage};

const THREADS: usize = 2;

#[test]
fn the_same_seed_tells_the_same_story() {
    let simulation = Simulation::new(None).expect("a simulation");
    for seed in 0..5 {
        let first = simulation.run(seed, true).expect("a world");
        let second = simulation.run(seed, true).expect("a world");
        assert!(first.story.len() > 100, "seed {seed} tells nothing");
        let differs = first.story.iter().zip(&second.story).position(|(a, b)| a != b);
        assert_eq!((differs, first.fingerprint), (None, second.fingerprint), "seed {seed}");
    }
}

#[test]
fn nobody_reads_a_whole_table_to_do_his_work() {
    let simulation = Simulation::new(None).expect("a simulation");
    for seed in 0..5 {
        let outcome = simulation.run(seed, true).expect("a world");
        assert!(outcome.scans.is_empty(), "seed {seed}: {:#?}", outcome.scans);
    }
}

#[test]
fn whatever_goes_wrong_everything_adds_up() {
    let crowd = crowd::run(None, 0..300, THREADS).expect("a simulation");
    assert!(crowd.failed.is_none(), "{:#?}", crowd.failed);
    assert_eq!(crowd.seeds, 300);
    assert!(crowd.crashes > 300 && crowd.accepted > 300, "too little went wrong: {crowd:?}");
}

#[test]
fn every_promise_that_is_broken_on_purpose_is_found() {
    for sabotage in Sabotage::value_variants() {
        let crowd = crowd::run(Some(*sabotage), 0..1000, THREADS).expect("a simulation");
        assert!(crowd.failed.is_some(), "{sabotage:?} was not found in {} seeds", crowd.seeds);
    }
}
