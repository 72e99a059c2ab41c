//! The ground on which a fault plays: a Rainstorm with a town in it, customers who order, and dice for the moment when
//! it happens. Every scenario ends in [`Ground::prove`].

use std::{
    fs::File,
    io::Write,
    ops::Range,
    time::{Duration, Instant},
};

use end_to_end::{Way, World};
use jiff::Timestamp;
use rand::{Rng, RngExt, SeedableRng, rngs::StdRng, seq::SliceRandom};
use serde_json::Value;
use tokio::task::JoinHandle;

use crate::{
    proof,
    report::{self, Recovery},
};

/// Five services and a bridge.
pub const ALONE: Way = Way::KafkaAndPostgres(1);
/// Two of each.
pub const TWICE: Way = Way::KafkaAndPostgres(2);

/// Where a scenario's own orders go.
pub const KITCHEN: &str = "soup-kitchen";

/// How large the storms are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Size {
    /// Some 280 orders in 9 s.
    Short,
    /// Some 1300 orders in 30 s.
    Full,
}

/// Which scenario is played, and how.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    pub name: &'static str,
    pub size: Size,
    pub seed: u64,
}

impl Plan {
    /// How long customers come.
    pub fn length(&self) -> Duration {
        match self.size {
            Size::Short => Duration::from_secs(9),
            Size::Full => Duration::from_secs(30),
        }
    }
}

/// A running Rainstorm, and what has been done to it.
pub struct Ground {
    pub plan: Plan,
    pub world: World,
    pub dice: StdRng,
    storms: Vec<JoinHandle<(Option<i32>, String)>>,
    /// A file for each storm, and one for the scenario itself, with the ids of the orders that were accepted.
    accepted: tempfile::TempDir,
    over: Option<(Instant, Timestamp)>,
    /// Whether customers may have gone away unheard, since nobody could take their order for long.
    pub unheard_customers: bool,
    /// Whether something was told that nobody can handle.
    pub dead_letters: bool,
    proved: bool,
}

impl Ground {
    /// A Rainstorm with these settings, kitchens open and drivers on shift.
    pub async fn prepare(plan: Plan, way: Way, settings: &[(&str, &str)]) -> Self {
        Self::in_world(plan, World::start(way, settings).await).await
    }

    /// Kitchens open and drivers on shift in a Rainstorm that runs.
    pub async fn in_world(plan: Plan, world: World) -> Self {
        world.seed(60).await;
        world.open_kitchen(KITCHEN).await;
        // Scenarios don't move each other's dice.
        let name = plan.name.bytes().fold(plan.seed, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
        let dice = StdRng::seed_from_u64(name);
        let accepted = tempfile::tempdir().expect("a temporary folder");
        let (unheard_customers, dead_letters, proved) = (false, false, false);
        Self { plan, world, dice, storms: Vec::new(), accepted, over: None, unheard_customers, dead_letters, proved }
    }

    /// Lets it rain, from now on, and returns when the first orders are under way.
    pub async fn rain(&mut self) {
        let [calm, calm_for, peak, storm_for] = match self.plan.size {
            Size::Short => ["20", "2s", "40", "5s"],
            Size::Full => ["20", "5s", "55", "20s"],
        };
        let urls = [self.world.url("order"), self.world.url("query")].map(ToOwned::to_owned);
        let seed = self.dice.next_u32().to_string();
        let accepted = self.accepted.path().join(format!("storm-{}", self.storms.len()));
        self.storms.push(tokio::spawn(async move {
            let [url, query_url] = &urls;
            let whereto = ["storm", "--json", "--url", url, "--query-url", query_url, "--seed", &seed];
            let weather = ["--calm", calm, "--calm-for", calm_for, "--peak", peak, "--storm-for", storm_for];
            let customers = ["--cancel", "0.05", "--bad-cards", "0.05", "--patience", "90s"];
            let noted = ["--accepted", accepted.to_str().expect("UTF-8")];
            World::run("rainstorm", &[&whereto[..], &weather, &customers, &noted].concat(), &[]).await
        }));
        let orders =
            || async { self.world.get("query", "/orders?limit=1").await.1["orders"][0].is_object().then_some(()) };
        end_to_end::until("the first orders", orders).await;
    }

    /// Lets a random time pass: whatever happens next happens at a moment that nobody has chosen.
    pub async fn moment(&mut self, milliseconds: Range<u64>) {
        tokio::time::sleep(Duration::from_millis(self.dice.random_range(milliseconds))).await;
    }

    /// In random order.
    pub fn shuffled<const N: usize>(&mut self, mut names: [&'static str; N]) -> [&'static str; N] {
        names.shuffle(&mut self.dice);
        names
    }

    /// An order of the scenario's own.
    pub async fn place(&self, token: &str) -> String {
        let order = self.world.place(KITCHEN, token).await;
        let file = File::options().create(true).append(true).open(self.accepted.path().join("scenario"));
        writeln!(file.expect("a file"), "{order}").expect("it can be noted");
        order
    }

    /// From now on it can recover.
    pub fn is_over(&mut self) {
        self.over = Some((Instant::now(), Timestamp::now()));
    }

    /// Proves that every accepted order has ended and nothing is stuck, and notes how long that took.
    pub async fn prove(mut self) {
        let (mut summaries, mut rained) = (Vec::new(), Instant::now());
        for storm in std::mem::take(&mut self.storms) {
            let (_, said) = storm.await.expect("the storm does not panic");
            let summary: Value = said.lines().find_map(|line| serde_json::from_str(line).ok()).unwrap_or_default();
            assert!(summary["accepted"].as_u64() > Some(0), "there was no storm: {said}");
            summaries.push(summary);
            rained = Instant::now();
        }
        let count = |name: &str| summaries.iter().filter_map(|summary| summary[name].as_u64()).sum::<u64>();
        let unheard = if self.unheard_customers { 0 } else { count("failed") };
        let trouble = (count("unfinished"), count("wrongly_cancelled"), unheard);
        if trouble.0 > 0 {
            eprintln!("    left to do: {:#?}", proof::left(&self.world).await);
        }
        assert_eq!(trouble, (0, 0, 0), "unfinished, wrongly cancelled, not accepted: {summaries:#?}");

        proof::nothing_is_stuck(&self.world).await;
        let quiet = Instant::now();
        let orders = proof::nothing_was_lost(&self.world, self.accepted.path()).await;
        if !self.dead_letters {
            proof::nothing_was_given_up(&self.world).await;
        }
        let (over, over_at) = self.over.unwrap_or((rained, Timestamp::now()));
        let moment = |order: &Value, name: &str| order[name].as_str().and_then(|text| text.parse::<Timestamp>().ok());
        let before = orders.iter().filter(|order| moment(order, "placed_at").is_some_and(|placed| placed < over_at));
        let caught_up = before.filter_map(|order| moment(order, "ended_at")).max().unwrap_or(over_at);
        report::add(Recovery {
            scenario: self.plan.name,
            seed: self.plan.seed,
            accepted: orders.len(),
            sent_again: count("retried"),
            unheard: count("failed"),
            caught_up_s: caught_up.duration_since(over_at).as_secs_f64().max(0.0),
            quiet_s: quiet.duration_since(over.max(rained)).as_secs_f64(),
        });
        self.proved = true;
    }
}

impl Drop for Ground {
    /// Whoever looks into a failure wants to know what the processes have said.
    fn drop(&mut self) {
        if !self.proved {
            self.world.said().iter().rev().take(60).rev().for_each(|line| eprintln!("    {line}"));
        }
    }
}
