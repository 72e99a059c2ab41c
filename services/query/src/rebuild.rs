//! The views, made again from the log beside the live ones while those are shown and kept, and swapped in one step.
//!
//! Why the rebuilt view is never behind: while the live tables are locked, what the live view holds has been on the log
//! before; the end of the log is read after that, and everything up to there is folded. Whatever is delivered later is
//! either a repeat of what the rebuilt view holds, or the next of its stream.
//!
//! Why nobody takes a rebuilt row for one that they remember: its revision is higher than any that was there before.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use event_sourcing::{Database, StoreError, Write, now};
use eventing::{
    Incoming,
    log::{EventLog, LogError, Partition, Stretch},
    name_and_version,
    rebuild::{self, Progress, Proof, Table, letters},
};

use crate::{
    batch::{Folded, LIVE, Rows, Rowsource, Tables, Touched, What},
    projection::understood,
    views::{Applied, OrderView},
};

mod comparison;
mod merged;
mod shadow;

use merged::Merged;

/// Events that are folded at a time.
const AT_ONCE: usize = 2_000;
/// With so few records left the rest is folded under the lock.
const NEARLY: u64 = 1_000;
/// How often it is begun again because a dead letter came or went meanwhile.
const TRIES: usize = 5;

/// The views' tables, as a proof compares those of two stores.
pub const TABLES: [Table; 5] = [
    Table { name: "orders", key: &["order_id"], columns: &["placed", "customer_id", "kitchen_id", "status", "view"] },
    Table { name: "kitchens", key: &["kitchen_id"], columns: &["view"] },
    Table { name: "drivers", key: &["driver_id"], columns: &["view"] },
    Table {
        name: "timeline",
        key: &["order_id", "source", "subject", "sequence"],
        columns: &["id", "type", "time", "causation_id"],
    },
    Table { name: "stats", key: &["minute", "name"], columns: &["value"] },
];

/// Why the views can't be made again.
#[derive(Debug, thiserror::Error)]
pub enum RebuildError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Log(#[from] LogError),
    #[error("there is nothing on the log: is this the right one?")]
    NothingThere,
    #[error("the log is broken: event {expected} of stream {stream} of {source_name} is missing; {came} is there")]
    Gap { source_name: String, stream: String, expected: i64, came: i64 },
    #[error(transparent)]
    Letters(#[from] rebuild::RebuildError),
    #[error("somebody else is rebuilding the same views; let them finish")]
    NotAlone,
    #[error("dead letters keep coming and going; try again when that is over")]
    Restless,
}

impl From<sqlx::Error> for RebuildError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

/// What is to become of the rebuilt view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Swap {
    /// It takes the live one's place if it is equal to it, or if that one is empty.
    IfEqual,
    /// It takes the live one's place.
    Always,
    /// It is thrown away.
    Never,
}

/// What a rebuild of the views came to.
#[derive(Debug)]
pub struct Outcome {
    /// Events that were folded.
    pub events: u64,
    pub seconds: f64,
    /// How long the live view could not go on.
    pub locked: Duration,
    /// Compared with the live view; `None` if that was empty.
    pub proof: Option<Proof>,
    pub swapped: bool,
}

/// Which views are made again from what.
pub struct Rebuild<'a> {
    /// Whose dead letters are left out.
    pub service: &'a str,
    pub database: &'a Database,
    pub log: &'a Arc<dyn EventLog>,
    /// The topics that query is told of, and the group that tells it.
    pub hears: Vec<String>,
    pub group: String,
    pub swap: Swap,
}

impl Rebuild<'_> {
    /// Makes the views again.
    ///
    /// # Errors
    /// If store or log don't answer, or the log is broken. The live view isn't touched then.
    pub async fn run(&self, progress: &dyn Progress) -> Result<Outcome, RebuildError> {
        let started = Instant::now();
        if self.is_new().await? {
            letters::restore(self.service, &**self.log, self.database).await?;
        }
        for _ in 0..TRIES {
            shadow::create(self.database).await?;
            let outcome = self.attempt(progress).await;
            if !outcome.as_ref().is_ok_and(|outcome| outcome.as_ref().is_some_and(|outcome| outcome.swapped)) {
                shadow::remove(self.database).await?;
            }
            if let Some(outcome) = outcome? {
                return Ok(Outcome { seconds: started.elapsed().as_secs_f64(), ..outcome });
            }
        }
        Err(RebuildError::Restless)
    }

    /// `None` if it must be begun again.
    async fn attempt(&self, progress: &dyn Progress) -> Result<Option<Outcome>, RebuildError> {
        let letters = Letters::read(Rowsource::Everybodys(self.database)).await?;
        let revision = self.high_revision().await?;
        let mut filling = Filling {
            tables: Tables { revision, ..shadow::REBUILT },
            letters: &letters,
            recent: Rows::new(),
            read: HashMap::new(),
            skipped: HashSet::new(),
            events: 0,
        };
        let mut rest = filling.rest(self).await?;
        if rest.is_empty() {
            return Err(RebuildError::NothingThere);
        }
        progress.begin("folding the views", rest.iter().map(Stretch::records).sum());
        while rest.iter().map(Stretch::records).sum::<u64>() > NEARLY {
            filling.fold(self, rest, None, progress).await?;
            rest = filling.rest(self).await?;
        }
        for table in [LIVE, shadow::REBUILT].map(|it| it.names()).as_flattened() {
            self.database.filled(table).await?;
        }
        self.swap(filling, progress).await
    }

    /// Under the lock: folds the rest of the log, compares, and swaps.
    async fn swap(&self, mut filling: Filling<'_>, progress: &dyn Progress) -> Result<Option<Outcome>, RebuildError> {
        let mut write = self.database.write().await?;
        write.claim(&[&LIVE.names()[..], &["dead_letters"]].concat()).await?;
        let locked = Instant::now();
        if Letters::read(Rowsource::Own(&mut write)).await? != *filling.letters
            || self.has_overtaken(&filling, &mut write).await?
        {
            return Ok(None);
        }
        let rest = filling.rest(self).await?;
        filling.fold(self, rest, Some(&mut write), progress).await?;
        let in_flight = comparison::InFlight::read(self.log, &self.group, &self.hears).await?;
        let proof = comparison::compare(&mut write, &in_flight).await?;
        let swap = match self.swap {
            Swap::IfEqual => proof.as_ref().is_none_or(Proof::holds),
            Swap::Always => true,
            Swap::Never => false,
        };
        if swap {
            shadow::swap(&mut write).await?;
            write.commit().await?;
        } else {
            drop(write);
        }
        let (events, locked) = (filling.events, locked.elapsed());
        Ok(Some(Outcome { events, seconds: 0.0, locked, proof, swapped: swap }))
    }

    /// Whether the store was lost as a whole, and not only its views.
    async fn is_new(&self) -> Result<bool, RebuildError> {
        for table in [LIVE.orders, LIVE.kitchens, LIVE.drivers, LIVE.timeline, "dead_letters", "inbox"] {
            if !self.database.fetch(format!("SELECT 1 FROM {table} LIMIT 1"), []).await?.is_empty() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// A revision that no row has had: later than any clock has given so far, in microseconds.
    async fn high_revision(&self) -> Result<i64, RebuildError> {
        let mut highest = now().as_microsecond();
        for table in [LIVE.orders, LIVE.kitchens, LIVE.drivers] {
            let rows = self.database.fetch(format!("SELECT COALESCE(MAX(revision), 0) FROM {table}"), []).await?;
            highest = highest.max(rows.first().ok_or(sqlx::Error::RowNotFound)?.int(0)? + 1);
        }
        Ok(highest)
    }

    /// Whether a live row's revision has come up to the rebuilt ones meanwhile.
    async fn has_overtaken(&self, filling: &Filling<'_>, write: &mut Write) -> Result<bool, RebuildError> {
        for table in [LIVE.orders, LIVE.kitchens, LIVE.drivers] {
            let sql = format!("SELECT 1 FROM {table} WHERE revision > $1 LIMIT 1");
            if !write.fetch(sql, [filling.tables.revision.into()]).await?.is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Source and id of events that the live view was not, or not to be, changed by.
#[derive(PartialEq, Eq)]
struct Letters {
    /// They wait in the dead letters.
    open: HashSet<(String, String)>,
    /// Views go past them.
    discarded: HashSet<(String, String)>,
}

impl Letters {
    async fn read(mut from: Rowsource<'_>) -> Result<Self, RebuildError> {
        let mut keys = async |sql: &str| {
            let rows = from.fetch(sql.to_owned(), Vec::new()).await?;
            rows.iter().map(|row| Ok((row.text(0)?, row.text(1)?))).collect::<Result<_, sqlx::Error>>()
        };
        let open = keys("SELECT source, id FROM dead_letters WHERE state IN ('failed', 'parked')").await?;
        // The views remember by their sequences what they were told: only what was discarded is done in the inbox.
        let discarded = keys("SELECT source, id FROM inbox WHERE done = 1").await?;
        Ok(Self { open, discarded })
    }

    /// What is done about an event; `None`: nothing.
    fn settle(&self, event: &Incoming) -> Option<What> {
        if self.open.is_empty() && self.discarded.is_empty() {
            return Some(What::Fold);
        }
        let key = (event.source.clone(), event.id.clone());
        match (self.open.contains(&key), self.discarded.contains(&key)) {
            (true, _) => None,
            (false, true) => Some(What::Skip),
            (false, false) => Some(What::Fold),
        }
    }
}

/// The rebuilt view while it is filled.
struct Filling<'a> {
    tables: Tables,
    letters: &'a Letters,
    recent: Rows<OrderView>,
    /// How far each partition was read.
    read: HashMap<Partition, i64>,
    /// Subject and source of streams of which an event was left out, so that what follows in them is, too.
    skipped: HashSet<(String, String)>,
    events: u64,
}

impl Filling<'_> {
    /// What of the log wasn't read so far.
    async fn rest(&self, it: &Rebuild<'_>) -> Result<Vec<Stretch>, RebuildError> {
        let mut stretches = Stretch::all(&**it.log, &it.hears).await?;
        for stretch in &mut stretches {
            stretch.from = self.read.get(&stretch.partition).copied().unwrap_or(stretch.from);
        }
        Ok(stretches)
    }

    /// Folds everything in `stretches`, within `write` if there is one.
    async fn fold(
        &mut self,
        it: &Rebuild<'_>,
        stretches: Vec<Stretch>,
        mut write: Option<&mut Write>,
        progress: &dyn Progress,
    ) -> Result<(), RebuildError> {
        self.read.extend(stretches.iter().map(|stretch| (stretch.partition.clone(), stretch.to)));
        let mut merged = Merged::of(it.log, stretches);
        while let Some((records, events)) = merged.next(AT_ONCE).await? {
            match &mut write {
                Some(write) => self.fold_batch(&events, write).await?,
                None => {
                    let mut write = it.database.write_soon().await?;
                    self.fold_batch(&events, &mut write).await?;
                    write.commit().await?;
                }
            }
            progress.advance(records);
        }
        Ok(())
    }

    async fn fold_batch(&mut self, events: &[Incoming], write: &mut Write) -> Result<(), RebuildError> {
        let mut touched = Touched::load(Rowsource::Own(write), self.tables, &mut self.recent, events).await?;
        let mut folded = Folded::default();
        for event in events {
            let stream = || (event.subject.clone(), event.source.clone());
            let Some(what) = self.letters.settle(event) else {
                self.skipped.insert(stream());
                continue;
            };
            let is_understood = what == What::Skip || understands(event);
            match is_understood.then(|| touched.apply(event, what).0) {
                Some(Applied::Changed) => folded.changed_by(event, what),
                Some(Applied::Repeated) => {}
                // Whoever delivers it will find that it is a dead letter.
                None | Some(Applied::Unreadable(_)) => {
                    self.skipped.insert(stream());
                }
                Some(Applied::TooEarly { .. }) if self.skipped.contains(&stream()) => {}
                Some(Applied::TooEarly { expected }) => {
                    let (stream, source_name) = stream();
                    let came = event.sequence.unwrap_or_default();
                    return Err(RebuildError::Gap { source_name, stream, expected, came });
                }
            }
        }
        self.events += folded.applied.len() as u64;
        if !touched.write(write, self.tables).await? {
            return Err(RebuildError::NotAlone);
        }
        folded.write_timeline(write, self.tables).await?;
        touched.write_sums(write, self.tables).await?;
        touched.remember(&mut self.recent);
        Ok(())
    }
}

fn understands(event: &Incoming) -> bool {
    name_and_version(&event.event_type).is_some_and(|(name, version)| understood(name) == Some(version))
}
