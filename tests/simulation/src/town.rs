//! A town in a world: the five services with their bridges, the people who order, cook and drive, and everything that
//! goes wrong while they do. After a while the trouble ends; then every story must end, too, and all of it add up.

mod checks;
mod door;
mod people;
mod processes;
mod stretch;
mod trouble;

pub use stretch::Stretch;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicBool},
    time::Duration,
};

use axum::Router;
use event_sourcing::Database;
use eventing::sources::Sources;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use crate::{
    log::SharedLog,
    sabotage::Sabotage,
    store::Shared,
    tables::Tables,
    world::{Process, Weather, World},
};

/// The services, by name.
pub const SERVICES: [&str; 5] = ["order", "payment", "kitchen", "delivery", "query"];

/// How long people and trouble come.
const LOAD: Duration = Duration::from_secs(4);
/// Nothing new on the log for so long means that nothing will come by itself any more.
const SILENCE: Duration = Duration::from_secs(9);
/// How long everything may take to come to its end.
const PATIENCE: Duration = Duration::from_secs(90);

/// The source and the topic of what a service publishes.
pub fn published_by(service: &str) -> (&'static str, &'static str) {
    let identity = match service {
        "order" => order::SERVICE,
        "payment" => payment::SERVICE,
        "kitchen" => kitchen::SERVICE,
        _ => delivery::SERVICE,
    };
    (identity.source, identity.topic)
}

/// Events that a service may not survive.
const POISON: [(&str, &str); 6] = [
    ("order", "dev.rainstorm.delivery.delivered.v1"),
    ("payment", "dev.rainstorm.order.placed.v1"),
    ("kitchen", "dev.rainstorm.payment.confirmed.v1"),
    ("delivery", "dev.rainstorm.kitchen.order_packed.v1"),
    ("delivery", "dev.rainstorm.delivery.out_for_delivery.v1"),
    ("query", "dev.rainstorm.kitchen.ticket_accepted.v1"),
];

/// What differs from town to town.
#[derive(Debug, Clone, Copy)]
struct Plan {
    orders: u64,
    drivers: u64,
    instances: u64,
    bridges: u64,
    partitions: u64,
    batch: u64,
    patience: Duration,
    tick: Duration,
    weather: Weather,
    /// A service and a type of event: the first one of these kills it each time.
    poison: Option<(&'static str, &'static str)>,
    /// The chaos strikes once in so many milliseconds.
    strikes: u64,
}

impl Plan {
    /// Where things are counted: time by itself brings nothing, and how many events share a batch doesn't depend on
    /// which partition they happen to be on.
    const STEADY: Self = Self {
        orders: 0,
        drivers: 20,
        instances: 1,
        bridges: 1,
        partitions: 1,
        batch: 128,
        patience: Duration::from_secs(3600),
        tick: Duration::from_secs(3600),
        weather: Weather::CALM,
        poison: None,
        strikes: 0,
    };

    fn draw(world: &World) -> Self {
        let bad = [0.0, 0.5, 1.0, 2.0][usize::try_from(world.draw(0..=3)).unwrap_or_default()];
        Self {
            orders: world.draw(1..=5),
            drivers: world.draw(0..=3),
            instances: world.draw(1..=2),
            bridges: world.draw(1..=2),
            partitions: world.draw(1..=3),
            batch: world.draw(1..=8),
            patience: world.millis(300..=4000),
            tick: world.millis(200..=1500),
            weather: Weather {
                crash: 0.0015 * bad,
                failure: 0.003 * bad,
                delay: 0.05,
                lost: 0.01 * bad,
                again: 0.03 * bad,
            },
            poison: world.happens(0.3).then(|| world.pick(&POISON).copied()).flatten(),
            strikes: world.draw(50..=1000),
        }
    }
}

/// A running instance of a service.
#[derive(Clone)]
struct Instance {
    process: Arc<Process>,
    /// Told to stop: it takes nothing new and finishes what it has begun.
    stopping: Arc<AtomicBool>,
    /// It has ended because it was told to, and not by an accident.
    stopped: Arc<AtomicBool>,
    in_flight: Arc<()>,
    door: Router,
    people: Router,
}

/// The town.
pub struct Town {
    pub world: Arc<World>,
    pub log: Arc<SharedLog>,
    pub databases: BTreeMap<&'static str, Arc<Shared>>,
    /// Empty ones, to be filled from the log.
    again: BTreeMap<&'static str, Arc<Shared>>,
    plan: Plan,
    sources: Sources,
    handles: Mutex<BTreeMap<String, Database>>,
    instances: Mutex<BTreeMap<&'static str, Vec<Instance>>>,
    bridges: Mutex<Vec<Arc<Process>>>,
    /// By idempotency key, the order that was accepted under it.
    accepted: Mutex<BTreeMap<String, String>>,
    /// The event that kills.
    poisoned: Mutex<Option<String>>,
    /// What nobody should have been told.
    refused: Mutex<Vec<String>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Town {
    /// An empty town, nobody at work yet.
    ///
    /// # Errors
    /// If SQLite can't keep the stores.
    pub fn new(world: &Arc<World>, tables: &Tables, sources: &Sources) -> rusqlite::Result<Arc<Self>> {
        let plan = if world.meter().is_some() { Plan::STEADY } else { Plan::draw(world) };
        world.tell(|| format!("{plan:?}"));
        let log = SharedLog::new(world, i32::try_from(plan.partitions).unwrap_or(1));
        let mut databases = BTreeMap::new();
        for service in SERVICES.into_iter().chain(["provider"]) {
            databases.insert(service, Shared::new(world, service, tables.of(service))?);
        }
        let mut again = BTreeMap::new();
        for service in &SERVICES[..4] {
            again.insert(*service, Shared::new(world, service, tables.of(service))?);
        }
        let mut handles = BTreeMap::new();
        let provider = world.company("the payment provider");
        handles.insert("simulated:provider".to_owned(), databases["provider"].used_by(&provider));
        if world.breaks(Sabotage::PublishBeforeCommit) {
            for service in &SERVICES[..4] {
                let (log, (_, topic)) = (log.clone(), published_by(service));
                databases[service].publishes_before_commit(Box::new(move |records| log.append_now(topic, records)));
            }
        }
        let (handles, instances) = (Mutex::new(handles), Mutex::default());
        let (bridges, accepted, poisoned, refused) = Default::default();
        let (world, sources) = (world.clone(), sources.clone());
        Ok(Arc::new(Self {
            world,
            log,
            databases,
            again,
            plan,
            sources,
            handles,
            instances,
            bridges,
            accepted,
            poisoned,
            refused,
        }))
    }

    /// Who answers at this URL.
    pub fn database(&self, url: &str) -> Option<Database> {
        lock(&self.handles).get(url).cloned()
    }

    /// Orders that customers hold an acceptance of.
    pub fn accepted(&self) -> BTreeMap<String, String> {
        lock(&self.accepted).clone()
    }

    /// Lets it all happen, until nothing happens any more.
    ///
    /// # Errors
    /// What is still under way after a very long time.
    pub async fn live(self: &Arc<Self>) -> Result<(), String> {
        self.opens();
        let served = timeout(PATIENCE, self.clone().serve_everybody()).await;
        self.world.becomes(Weather::CALM);
        self.world.tell(|| "the trouble is over".to_owned());
        served.map_err(|_| "stuck: customers wait for ever".to_owned())?;
        self.come_to_rest().await?;
        if self.look_after_letters().await? {
            self.come_to_rest().await?;
            self.no_letter_is_open().await?;
        }
        Ok(())
    }

    /// Services and bridges begin to work.
    fn opens(self: &Arc<Self>) {
        for service in SERVICES {
            for number in 0..self.plan.instances {
                tokio::spawn(self.clone().keep_serving(service, number));
            }
        }
        for number in 0..self.plan.bridges {
            tokio::spawn(self.clone().keep_knocking(number));
        }
    }

    /// Returns when nobody wants anything any more.
    async fn serve_everybody(self: Arc<Self>) {
        self.open_kitchen(true).await;
        for driver in 0..self.plan.drivers {
            self.shift(driver, true).await;
        }
        self.world.becomes(self.plan.weather);
        let mut people = JoinSet::new();
        for number in 0..self.plan.orders {
            people.spawn(self.clone().customer(number));
        }
        people.spawn(self.clone().people_who_change_their_minds());
        people.spawn(self.clone().trouble());
        people.join_all().await;
    }

    async fn come_to_rest(&self) -> Result<(), String> {
        let ends = Instant::now() + PATIENCE;
        let (mut size, mut since) = (0, Instant::now());
        loop {
            self.log.commit();
            let (records, idle) = self.log.size();
            let left = self.left();
            if records != size || !idle {
                (size, since) = (records, Instant::now());
            } else if since.elapsed() > SILENCE && left.is_empty() {
                return Ok(());
            }
            if Instant::now() > ends {
                return Err(format!("stuck: {}", if idle { left } else { "events wait for ever".to_owned() }));
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// What still has to be done, in a store.
    fn left(&self) -> String {
        let mut left = Vec::new();
        for service in &SERVICES[..4] {
            let unpublished = self.databases[service].number("SELECT COUNT(*) FROM events WHERE published = 0");
            if unpublished != 0 {
                left.push(format!("{unpublished} unpublished events of {service}"));
            }
        }
        let owed = self.databases["payment"].number("SELECT COUNT(*) FROM owed");
        if owed != 0 {
            left.push(format!("{owed} payments owed"));
        }
        left.join(", ")
    }
}
