//! What services and bridges ask of the outside, counted while they work, and what memory they take on the way from one
//! question to the next. One thread runs everything, so whatever was allocated since the last question was allocated
//! for the one that follows; what the simulation itself needs in order to answer is left out.

use std::{
    collections::BTreeMap,
    ops::{Add, Sub},
    sync::{Mutex, MutexGuard, PoisonError},
};

/// What was allocated, since some moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Memory {
    /// Times that memory was asked for, or for more of it.
    pub allocations: u64,
    pub bytes: u64,
}

impl Add for Memory {
    type Output = Self;

    fn add(self, more: Self) -> Self {
        Self { allocations: self.allocations + more.allocations, bytes: self.bytes + more.bytes }
    }
}

impl Sub for Memory {
    type Output = Self;

    fn sub(self, less: Self) -> Self {
        Self { allocations: self.allocations - less.allocations, bytes: self.bytes - less.bytes }
    }
}

/// Says what was allocated until now; only a program knows its allocator.
pub type Allocated = fn() -> Memory;

/// What was counted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// By kind (`statements`) and name (`order: select events`).
    pub asked: BTreeMap<&'static str, BTreeMap<String, u64>>,
    /// By what followed.
    pub memory: BTreeMap<String, Memory>,
}

/// Counts, between [`starts`](Self::starts) and [`ends`](Self::ends).
pub struct Meter {
    allocated: Allocated,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    counting: bool,
    counts: Counts,
    /// What had been allocated when the last question was asked or answered.
    since: Memory,
}

impl Meter {
    /// Counts nothing yet.
    #[must_use]
    pub fn new(allocated: Allocated) -> Self {
        Self { allocated, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on it counts, from nothing.
    pub fn starts(&self) {
        *self.state() = State { counting: true, counts: Counts::default(), since: (self.allocated)() };
    }

    /// It counts no more: what has come together.
    pub fn ends(&self) -> Counts {
        std::mem::take(&mut *self.state()).counts
    }

    /// So many more of something, by its kind and its name.
    pub fn adds<const N: usize>(&self, more: [(&'static str, &dyn Fn() -> String, usize); N]) {
        self.aside(|| {
            let mut state = self.state();
            if state.counting {
                for (kind, name, number) in more {
                    *state.counts.asked.entry(kind).or_default().entry(name()).or_default() += number as u64;
                }
            }
        });
    }

    /// Whatever was allocated since this was last said was allocated for this.
    pub fn spends(&self, on: impl FnOnce() -> String) {
        let now = (self.allocated)();
        let mut state = self.state();
        if state.counting {
            let spent = now - state.since;
            let sum = state.counts.memory.entry(on()).or_default();
            *sum = *sum + spent;
        }
        state.since = (self.allocated)();
    }

    /// Does something that isn't counted.
    pub fn aside<T>(&self, work: impl FnOnce() -> T) -> T {
        let before = (self.allocated)();
        let done = work();
        let mut state = self.state();
        state.since = state.since + ((self.allocated)() - before);
        done
    }
}

/// What kind of statement it is: `select events`, `insert inbox`.
#[must_use]
pub fn shape(sql: &str) -> String {
    let mut words = sql.split_whitespace();
    let verb = words.next().unwrap_or_default().to_lowercase();
    let table = match verb.as_str() {
        "update" => words.next(),
        _ => words.skip_while(|word| !matches!(*word, "FROM" | "INTO")).nth(1),
    };
    let table = table.unwrap_or_default().trim_matches(|end: char| !end.is_alphanumeric());
    format!("{verb} {table}")
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    thread_local! {
        static ALLOCATED: Cell<Memory> = const { Cell::new(Memory { allocations: 0, bytes: 0 }) };
    }

    fn allocate(bytes: u64) {
        ALLOCATED.set(ALLOCATED.get() + Memory { allocations: 1, bytes });
    }

    #[test]
    fn what_is_allocated_is_spent_on_what_follows_and_what_is_done_aside_on_nothing() {
        let meter = Meter::new(|| ALLOCATED.get());
        allocate(1);
        meter.spends(|| "nothing counts yet".to_owned());
        meter.starts();
        allocate(2);
        meter.aside(|| allocate(4));
        allocate(8);
        meter.spends(|| "one".to_owned());
        allocate(16);
        meter.adds([("questions", &|| "two".to_owned(), 3)]);
        meter.spends(|| "two".to_owned());
        let counts = meter.ends();
        let memory = |allocations, bytes| Memory { allocations, bytes };
        assert_eq!(counts.memory, [("one".to_owned(), memory(2, 10)), ("two".to_owned(), memory(1, 16))].into());
        assert_eq!(counts.asked["questions"]["two"], 3);
        allocate(32);
        meter.spends(|| "three".to_owned());
        assert_eq!(meter.ends(), Counts::default());
    }

    #[test]
    fn a_statement_is_known_by_what_it_does_and_to_which_table() {
        assert_eq!(shape("SELECT a, b FROM inbox WHERE (source, id) IN (VALUES ($1,$2))"), "select inbox");
        assert_eq!(shape("INSERT INTO events (stream_id) VALUES ($1)"), "insert events");
        assert_eq!(shape("UPDATE events SET published = 1"), "update events");
        assert_eq!(shape("DELETE FROM waiting WHERE order_id = $1"), "delete waiting");
    }
}
