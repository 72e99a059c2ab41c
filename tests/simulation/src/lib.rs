//! A simulation of everything that may go wrong: the services' real deciders, reactions, inbox, outbox, doors and
//! projections, and the real bridge, over a simulated log, store, network and clock, on one thread and from one seed.
//!
//! [`world`] has time, chance and processes that die between any two effects; [`store`] and [`log`] are what the
//! services stand on; [`town`] has the people, the trouble, and the way from the first order to silence. [`sabotage`]
//! breaks one promise at a time, to prove that the simulation would see it. [`meter`] counts what an order costs where
//! nothing goes wrong, and [`budget`] says what it may cost.

pub mod budget;
pub mod crowd;
pub mod gate;
pub mod log;
pub mod meter;
pub mod sabotage;
pub mod statement;
pub mod store;
pub mod tables;
pub mod town;
pub mod world;

use std::{path::Path, rc::Rc, sync::Arc};

use eventing::sources::{Sources, SourcesError};

use meter::{Allocated, Counts};
use sabotage::Sabotage;
use tables::Tables;
use town::{Stretch, Town};
use world::{Answers, World};

/// What every run shares.
pub struct Simulation {
    tables: Tables,
    sources: Sources,
    sabotage: Option<Sabotage>,
}

/// What one seed has come to.
#[derive(Debug)]
pub struct Outcome {
    pub seed: u64,
    /// Processes that were ended.
    pub crashes: u64,
    pub accepted: usize,
    pub records: usize,
    /// What does not add up, for people; empty if everything does.
    pub wrong: Vec<String>,
    /// Statements of services that read whole tables, if the story was asked for.
    pub scans: Vec<String>,
    /// Everything that happened, if it was asked for.
    pub story: Vec<String>,
    /// The same for the same story.
    pub fingerprint: u64,
}

/// Why there is no simulation.
#[derive(Debug, thiserror::Error)]
pub enum SimulationError {
    #[error("the stores can't be made: {0}")]
    Store(#[from] rusqlite::Error),
    #[error(transparent)]
    Sources(#[from] SourcesError),
    #[error("no clock can be made: {0}")]
    Runtime(#[from] std::io::Error),
    #[error("what was counted does not add up: {0}")]
    Wrong(String),
}

impl Simulation {
    /// With nothing broken, or with one promise.
    ///
    /// # Errors
    /// If tables or manifests can't be read.
    pub fn new(sabotage: Option<Sabotage>) -> Result<Self, SimulationError> {
        // Who hears what is read from the same files as everywhere.
        let sources = Sources::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../knative"))?;
        Ok(Self { tables: Tables::new(sabotage)?, sources, sabotage })
    }

    /// One world from its first moment to silence, and whether all of it adds up.
    ///
    /// # Errors
    /// If the world can't be made.
    pub fn run(&self, seed: u64, tell: bool) -> Result<Outcome, SimulationError> {
        // Time passes only when nobody has anything to do.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()?;
        let outcome = runtime.block_on(self.live(seed, tell));
        event_sourcing::simulate(None);
        outcome
    }

    /// What `orders` cost that come in this way and of which every one is delivered, while nothing goes wrong.
    ///
    /// # Errors
    /// If the world can't be made, or if anything in it does not add up.
    pub fn count(
        &self,
        seed: u64,
        stretch: Stretch,
        orders: u64,
        allocated: Allocated,
    ) -> Result<Counts, SimulationError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()?;
        let counted = runtime.block_on(async {
            let town = self.town(World::metered(seed, allocated))?;
            town.count(stretch, orders).await.map_err(SimulationError::Wrong)
        });
        event_sourcing::simulate(None);
        counted
    }

    /// A town in this world, which from now on answers on this thread.
    fn town(&self, world: Arc<World>) -> Result<Arc<Town>, SimulationError> {
        let town = Town::new(&world, &self.tables, &self.sources)?;
        let asked = Arc::downgrade(&town);
        let databases = Box::new(move |url: &str| asked.upgrade().and_then(|town| town.database(url)));
        event_sourcing::simulate(Some(Rc::new(Answers { world, databases })));
        Ok(town)
    }

    async fn live(&self, seed: u64, tell: bool) -> Result<Outcome, SimulationError> {
        let world = World::new(seed, self.sabotage, tell);
        let town = self.town(world.clone())?;
        let mut wrong = Vec::new();
        wrong.extend(town.live().await.err());
        let mut scans = Vec::new();
        for store in town.databases.values() {
            match store.scans() {
                Ok(found) => scans.extend(found),
                Err(error) => wrong.push(error.to_string()),
            }
        }
        wrong.extend(town.adds_up().await);
        let accepted = town.accepted().len();
        let (records, _) = town.log.size();
        let (story, fingerprint) = world.story();
        Ok(Outcome { seed, crashes: world.crashes(), accepted, records, wrong, scans, story, fingerprint })
    }
}
