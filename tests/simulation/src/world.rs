//! The world that the services run in: one clock, one source of chance, and processes that die, freeze and wait. All of
//! it is drawn from one seed and runs on one thread, so the same seed always tells the same story.
//!
//! Whatever a process does to the outside (a statement, a commit, an append, a request) it does between two
//! [`Process::step`]s. There, and only there, the world may let time pass, let others go first, or end the process: a
//! crash between any two effects. A process that has ended never returns from its step, so nothing it held in memory
//! can reach anybody any more.

use std::{
    collections::{BTreeSet, hash_map::DefaultHasher},
    hash::{Hash, Hasher},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use event_sourcing::{Ambient, Database};
use jiff::Timestamp;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::{
    sync::Notify,
    time::{Instant, sleep},
};

use crate::{
    meter::{Allocated, Meter},
    sabotage::Sabotage,
};

/// How likely each kind of trouble is at one step, while there is trouble at all.
#[derive(Debug, Clone, Copy)]
pub struct Weather {
    pub crash: f64,
    pub failure: f64,
    pub delay: f64,
    pub lost: f64,
    pub again: f64,
}

impl Weather {
    /// Nothing goes wrong.
    pub const CALM: Self = Self { crash: 0.0, failure: 0.0, delay: 0.0, lost: 0.0, again: 0.0 };
}

/// Told of a process that has ended.
type Bury = Box<dyn Fn(u64) + Send>;

/// Finds the database at a URL.
pub type Databases = Box<dyn Fn(&str) -> Option<Database>>;

/// One world, of one seed.
pub struct World {
    pub seed: u64,
    pub sabotage: Option<Sabotage>,
    chance: Mutex<StdRng>,
    weather: Mutex<Weather>,
    born: Instant,
    told: Mutex<Told>,
    poison: Mutex<BTreeSet<(String, String)>>,
    log_out_until: Mutex<Option<Instant>>,
    processes: AtomicU64,
    crashes: AtomicU64,
    /// A process has ended: whoever kept something for it gives it back.
    buried: Mutex<Vec<Bury>>,
    meter: Option<Meter>,
}

struct Told {
    lines: Option<Vec<String>>,
    fingerprint: DefaultHasher,
}

impl World {
    /// A calm world; `tell`: it writes down everything that happens.
    #[must_use]
    pub fn new(seed: u64, sabotage: Option<Sabotage>, tell: bool) -> Arc<Self> {
        Arc::new(Self::born(seed, sabotage, tell))
    }

    /// A world in which everything that is asked for is counted, and nothing but ids is left to chance.
    #[must_use]
    pub fn metered(seed: u64, allocated: Allocated) -> Arc<Self> {
        Arc::new(Self { meter: Some(Meter::new(allocated)), ..Self::born(seed, None, false) })
    }

    fn born(seed: u64, sabotage: Option<Sabotage>, tell: bool) -> Self {
        Self {
            seed,
            sabotage,
            chance: Mutex::new(StdRng::seed_from_u64(seed)),
            weather: Mutex::new(Weather::CALM),
            born: Instant::now(),
            told: Mutex::new(Told { lines: tell.then(Vec::new), fingerprint: DefaultHasher::new() }),
            poison: Mutex::default(),
            log_out_until: Mutex::default(),
            processes: AtomicU64::new(0),
            crashes: AtomicU64::new(0),
            buried: Mutex::default(),
            meter: None,
        }
    }

    /// Who counts, if somebody does.
    pub fn meter(&self) -> Option<&Meter> {
        self.meter.as_ref()
    }

    /// Does what is the simulation's own, and not to be counted.
    pub fn aside<T>(&self, work: impl FnOnce() -> T) -> T {
        match &self.meter {
            Some(meter) => meter.aside(work),
            None => work(),
        }
    }

    fn dice(&self) -> MutexGuard<'_, StdRng> {
        self.chance.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether something of this likelihood happens now.
    pub fn happens(&self, likelihood: f64) -> bool {
        likelihood > 0.0 && self.dice().random_bool(likelihood)
    }

    /// A number from `range`; where things are counted always the last.
    pub fn draw(&self, range: std::ops::RangeInclusive<u64>) -> u64 {
        if self.meter.is_some() { *range.end() } else { self.dice().random_range(range) }
    }

    /// One of several; `None` of nothing.
    pub fn pick<'a, T>(&self, some: &'a [T]) -> Option<&'a T> {
        let last = u64::try_from(some.len()).ok()?.checked_sub(1)?;
        some.get(usize::try_from(self.draw(0..=last)).ok()?)
    }

    /// A span of milliseconds from `range`.
    pub fn millis(&self, range: std::ops::RangeInclusive<u64>) -> Duration {
        Duration::from_millis(self.draw(range))
    }

    /// What is likely to go wrong now.
    pub fn weather(&self) -> Weather {
        *self.weather.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes what is likely to go wrong.
    pub fn becomes(&self, weather: Weather) {
        *self.weather.lock().unwrap_or_else(PoisonError::into_inner) = weather;
    }

    /// Whether this promise is broken on purpose.
    pub fn breaks(&self, sabotage: Sabotage) -> bool {
        self.sabotage == Some(sabotage)
    }

    /// Whether it writes down what happens.
    pub fn tells(&self) -> bool {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).lines.is_some()
    }

    /// Writes down what happens.
    pub fn tell(&self, what: impl FnOnce() -> String) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.lines.is_some() {
            let line = format!("{:>9.3} {}", self.born.elapsed().as_secs_f64(), what());
            line.hash(&mut told.fingerprint);
            if let Some(lines) = &mut told.lines {
                lines.push(line);
            }
        }
    }

    /// Everything that was written down, and a number that stands for it.
    pub fn story(&self) -> (Vec<String>, u64) {
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        (told.lines.clone().unwrap_or_default(), told.fingerprint.finish())
    }

    /// From now on this event kills every process of the service that handles it.
    pub fn poisons(&self, service: &str, event: &str) {
        self.poison.lock().unwrap_or_else(PoisonError::into_inner).insert((service.to_owned(), event.to_owned()));
    }

    /// Whether this event kills.
    pub fn is_poison(&self, service: &str, event: &str) -> bool {
        let poison = self.poison.lock().unwrap_or_else(PoisonError::into_inner);
        poison.iter().any(|(kills, id)| kills == service && id == event)
    }

    /// The services are mended: no event kills any more.
    pub fn is_mended(&self) {
        self.poison.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// The log answers nobody until then.
    pub fn log_goes_out(&self, until: Instant) {
        *self.log_out_until.lock().unwrap_or_else(PoisonError::into_inner) = Some(until);
    }

    /// Whether the log answers nobody.
    pub fn log_is_out(&self) -> bool {
        let until = *self.log_out_until.lock().unwrap_or_else(PoisonError::into_inner);
        until.is_some_and(|until| Instant::now() < until)
    }

    /// How often a process was ended.
    pub fn crashes(&self) -> u64 {
        self.crashes.load(Ordering::Relaxed)
    }

    /// A new process.
    pub fn process(self: &Arc<Self>, name: impl Into<String>) -> Arc<Process> {
        self.someone(name.into(), false)
    }

    /// Another company: it goes on, whoever asked it.
    pub fn company(self: &Arc<Self>, name: &str) -> Arc<Process> {
        self.someone(name.to_owned(), true)
    }

    fn someone(self: &Arc<Self>, name: String, lasting: bool) -> Arc<Process> {
        Arc::new(Process {
            world: self.clone(),
            id: self.processes.fetch_add(1, Ordering::Relaxed),
            name,
            lasting,
            dead: AtomicBool::new(false),
            died: Notify::new(),
            doomed: AtomicBool::new(false),
            let_down: AtomicU64::new(0),
            frozen_until: Mutex::new(None),
        })
    }

    /// `bury` is told of every process that has ended.
    pub fn when_one_dies(&self, bury: impl Fn(u64) + Send + 'static) {
        self.buried.lock().unwrap_or_else(PoisonError::into_inner).push(Box::new(bury));
    }

    /// What time it is there.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        // Some day; it only has to be the same one every time.
        let birth = Timestamp::constant(1_764_000_000, 0);
        birth.checked_add(self.born.elapsed()).unwrap_or(birth)
    }

    /// Bits for ids.
    pub fn bits(&self) -> u128 {
        self.dice().random()
    }
}

/// A process, as far as the world is concerned.
pub struct Process {
    pub world: Arc<World>,
    pub id: u64,
    pub name: String,
    lasting: bool,
    dead: AtomicBool,
    died: Notify,
    doomed: AtomicBool,
    let_down: AtomicU64,
    frozen_until: Mutex<Option<Instant>>,
}

/// The outside did not do what it was asked for.
pub struct Trouble;

impl Process {
    /// Whether it has ended.
    pub fn is_dead(&self) -> bool {
        self.dead.load(Ordering::Relaxed)
    }

    /// Ends it, as `kill -9` does.
    pub fn kill(&self) {
        if self.lasting || self.dead.swap(true, Ordering::Relaxed) {
            return;
        }
        self.world.crashes.fetch_add(1, Ordering::Relaxed);
        self.world.tell(|| format!("{} dies", self.name));
        for bury in self.world.buried.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            bury(self.id);
        }
        self.died.notify_waiters();
    }

    /// A store did not do what it was asked for.
    pub fn is_let_down(&self) {
        self.let_down.fetch_add(1, Ordering::Relaxed);
    }

    /// How often a store did not do what this process asked for.
    pub fn was_let_down(&self) -> u64 {
        self.let_down.load(Ordering::Relaxed)
    }

    /// It ends at its next step.
    pub fn doom(&self) {
        self.doomed.store(true, Ordering::Relaxed);
    }

    /// Stops it for a while, as SIGSTOP and SIGCONT do: then it goes on with what it believes to be true.
    pub fn freeze(&self, span: Duration) {
        self.world.tell(|| format!("{} is stopped for {span:?}", self.name));
        *self.frozen_until.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + span);
    }

    /// Returns when it has ended.
    pub async fn death(&self) {
        loop {
            let mut died = std::pin::pin!(self.died.notified());
            died.as_mut().enable();
            if self.is_dead() {
                return;
            }
            died.await;
        }
    }

    /// Between two effects. Returns if the process still lives, and with [`Trouble`] if what it asks for fails.
    pub async fn step(&self, what: impl Fn() -> String) -> Result<(), Trouble> {
        let frozen = *self.frozen_until.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(until) = frozen {
            tokio::time::sleep_until(until).await;
        }
        let weather = self.world.weather();
        if self.world.happens(weather.delay) {
            sleep(self.world.millis(0..=8)).await;
        }
        if self.doomed.load(Ordering::Relaxed) || self.world.happens(weather.crash) {
            self.kill();
        }
        if self.is_dead() {
            return std::future::pending().await;
        }
        if self.world.happens(weather.failure) {
            self.world.tell(|| format!("{}: {} fails", self.name, what()));
            return Err(Trouble);
        }
        self.world.tell(|| format!("{}: {}", self.name, what()));
        Ok(())
    }

    /// After an effect: the process may end before it learns of it.
    pub async fn afterwards(&self) {
        if self.doomed.load(Ordering::Relaxed) || self.world.happens(self.world.weather().crash) {
            self.kill();
        }
        if self.is_dead() {
            std::future::pending::<()>().await;
        }
    }
}

/// Answers for the world where the plumbing asks.
pub struct Answers {
    pub world: Arc<World>,
    pub databases: Databases,
}

impl Ambient for Answers {
    fn now(&self) -> Timestamp {
        self.world.now()
    }

    fn random(&self) -> u128 {
        self.world.bits()
    }

    fn database(&self, url: &str) -> Option<Database> {
        (self.databases)(url)
    }
}
