//! The world outside: the one place where the plumbing asks what time it is, draws ids and finds who answers at a
//! database's URL, so that a simulation can answer instead and the same seed always tells the same story.

use std::{cell::RefCell, rc::Rc};

use jiff::Timestamp;
use uuid::Uuid;

use crate::Database;

/// Who answers for the world outside.
pub trait Ambient {
    /// What time it is.
    fn now(&self) -> Timestamp;
    /// Bits that nobody can foresee.
    fn random(&self) -> u128;
    /// The database at `url`.
    fn database(&self, url: &str) -> Option<Database>;
}

thread_local! {
    static AMBIENT: RefCell<Option<Rc<dyn Ambient>>> = const { RefCell::new(None) };
}

/// From now on `ambient` answers on this thread; `None`: the real world does.
pub fn simulate(ambient: Option<Rc<dyn Ambient>>) {
    AMBIENT.with(|answering| *answering.borrow_mut() = ambient);
}

fn simulated<T>(ask: impl FnOnce(&dyn Ambient) -> T) -> Option<T> {
    AMBIENT.with(|answering| answering.borrow().as_deref().map(ask))
}

/// The simulated database at `url`, if this thread's world is simulated and knows one.
pub(crate) fn simulated_database(url: &str) -> Option<Database> {
    simulated(|ambient| ambient.database(url)).flatten()
}

/// What time it is.
#[must_use]
pub fn now() -> Timestamp {
    simulated(|ambient| ambient.now()).unwrap_or_else(Timestamp::now)
}

/// A new id, a UUIDv7: ids sort by the time at which they were drawn.
#[must_use]
pub fn new_id() -> Uuid {
    let drawn = simulated(|ambient| {
        let millis = u64::try_from(ambient.now().as_millisecond()).unwrap_or_default();
        let mut random = [0; 10];
        random.copy_from_slice(&ambient.random().to_be_bytes()[..10]);
        uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid()
    });
    drawn.unwrap_or_else(Uuid::now_v7)
}

/// A random UUID (version 4).
#[must_use]
pub fn random_id() -> Uuid {
    let drawn = simulated(|ambient| uuid::Builder::from_random_bytes(ambient.random().to_be_bytes()).into_uuid());
    drawn.unwrap_or_else(Uuid::new_v4)
}

/// A number from 0 (included) to 1 (excluded).
#[must_use]
pub fn chance() -> f64 {
    // As many bits as a double holds.
    (random_id().as_u128() & ((1 << 52) - 1)) as f64 / (1_u64 << 52) as f64
}
