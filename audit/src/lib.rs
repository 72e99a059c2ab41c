//! The audit: proves what the services promise, from the event log and the stores alone. It knows the services' streams
//! as they are published and nothing of how they work; it runs no handler of theirs, writes nothing, and asks no clock.
//!
//! - [`streams`] are the published state machines, as tables.
//! - The log is read slice by slice ([`slices`](crate)), and from it what is true of each order, kitchen and driver.
//! - Each slice is looked up in the stores and judged; what is left in the stores beyond the log is swept up at the end.
//!
//! While the system runs (`in_flight`), a story may be unfinished, an event stored and not published yet, and a view
//! behind; all else must hold at any moment. To tell the two apart, the log is read up to where it ends, then the stores
//! are read, then the log once more: what the log had before must be stored, and what was stored as published must be on
//! the log after.

mod hashes;
mod inbox;
mod judge;
mod letters;
mod money;
mod report;
mod rides;
mod services;
mod slices;
mod stores;
mod story;
pub mod streams;
mod tell;
mod views;

use std::{collections::BTreeMap, sync::Arc};

use event_sourcing::Database;
use eventing::{
    Incoming, from_record,
    log::{EventLog, LogError, Partition, Stored},
    name_and_version,
};

use hashes::Hashes;
use inbox::Effects;
use letters::Letters;
pub use report::{Check, Differing, Excepted, Orders, Report, Row, Step, Told};
use report::{Tally, Who};
use rides::Rides;
use services::{ORDER, QUERY, SERVICES, hash, hash_of};
use slices::{Scan, Slice};
use story::{Story, Taken};

/// What is audited.
#[derive(Clone)]
pub struct Deployment {
    pub log: Arc<dyn EventLog>,
    /// By service (`order` …), the stores that may be looked at; what can't be checked without the others is skipped,
    /// and the report says so.
    pub stores: BTreeMap<String, Database>,
    /// The payment provider's own books.
    pub ledger: Option<Database>,
}

/// How it is audited.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The system runs: stories may be unfinished, and stores ahead of the log and views behind it.
    pub in_flight: bool,
    /// Orders that were accepted, as a client noted them.
    pub accepted: Vec<String>,
}

/// How far an audit has come.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    /// Records of the log that were read and judged, of so many.
    pub records: u64,
    pub of: u64,
    pub doing: &'static str,
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    #[error(transparent)]
    Log(#[from] LogError),
    #[error("the store of {service} can't be read: {source}")]
    Store { service: &'static str, source: sqlx::Error },
    #[error("the provider's ledger can't be read: {0}")]
    Ledger(sqlx::Error),
}

impl AuditError {
    pub(crate) fn store(service: &'static str) -> impl FnOnce(sqlx::Error) -> Self + Copy {
        move |source| Self::Store { service, source }
    }
}

type Stories = BTreeMap<String, Story>;

/// An audit under way.
struct Audit<'a> {
    deployment: &'a Deployment,
    options: &'a Options,
    tally: Tally,
    letters: Letters,
    orders: Orders,
    rides: Rides,
    /// By service: the streams on the log, the ids of its events, and what they were caused by.
    streams: [Hashes; 4],
    ids: [Hashes; 4],
    effects: [Effects; 4],
    /// Subjects that have a view.
    folded: Hashes,
    /// Keys of the provider's ledger that some order stands behind.
    charges: Hashes,
    records: u64,
    repeats: u64,
    foreign: u64,
    unpublished: u64,
    views_behind: u64,
}

/// Audits a deployment. `progress` is told now and then how far it has come.
///
/// # Errors
/// If the log or a store can't be read. What doesn't hold is no error but stands in the report.
pub async fn audit(
    deployment: &Deployment,
    options: &Options,
    progress: &mut (dyn FnMut(Progress) + Send),
) -> Result<Report, AuditError> {
    let log = &*deployment.log;
    let mut audit = Audit {
        deployment,
        options,
        letters: Letters::read(log).await?,
        tally: Tally::default(),
        orders: Orders::default(),
        rides: Rides::default(),
        streams: Default::default(),
        ids: Default::default(),
        effects: Default::default(),
        folded: Hashes::default(),
        charges: Hashes::default(),
        records: 0,
        repeats: 0,
        foreign: 0,
        unpublished: 0,
        views_behind: 0,
    };
    let mut slices = slices::plan(log).await?;
    let of = slices.iter().map(Slice::records).sum();
    let mut done = 0;
    for slice in &mut slices {
        audit
            .audit_slice(slice, &mut |records| {
                progress(Progress { records: done + records, of, doing: "the log, order by order" });
            })
            .await?;
        done += slice.records();
    }
    audit.sweep(&mut slices, &mut |doing| progress(Progress { records: of, of, doing })).await?;
    audit.report().await
}

impl Audit<'_> {
    async fn audit_slice(
        &mut self,
        slice: &mut Slice,
        progress: &mut (dyn FnMut(u64) + Send),
    ) -> Result<(), AuditError> {
        let mut stories = Stories::new();
        self.read(slice, &mut stories, false, progress).await?;
        let mut missing = Vec::new();
        for (service, database) in self.stores() {
            missing.extend(self.compare_store(service, &database, &mut stories).await?);
        }
        let query = self.deployment.stores.get(QUERY).cloned();
        if let Some(query) = &query {
            self.compare_views(query, &stories).await?;
            self.compare_timelines(query, &mut stories).await?;
        }
        let ledger = match &self.deployment.ledger {
            Some(ledger) => {
                let keys = stories
                    .values()
                    .flat_map(|story| money::Money::of(story).keys().map(ToOwned::to_owned).collect::<Vec<_>>());
                Some(money::find(ledger, keys.collect()).await.map_err(AuditError::Ledger)?)
            }
            None => None,
        };
        let tail = slice.tail(&*self.deployment.log).await?;
        self.read(&tail, &mut stories, true, progress).await?;
        self.judge_missing(missing, &mut stories);
        for (service, _) in self.stores() {
            self.judge_stored(service, &mut stories);
        }
        for (subject, story) in &stories {
            self.note(subject, story);
            self.judge(subject, story, ledger.as_ref());
        }
        self.rides.forget_settled(query.is_some());
        Ok(())
    }

    /// The stores that were given, with the places of their services.
    fn stores(&self) -> Vec<(usize, Database)> {
        let given = |service: &services::Service| self.deployment.stores.get(service.name).cloned();
        SERVICES.iter().enumerate().filter_map(|(place, service)| Some((place, given(service)?))).collect()
    }

    /// Reads the records of a slice into stories.
    async fn read(
        &mut self,
        slice: &Slice,
        stories: &mut Stories,
        late: bool,
        progress: &mut (dyn FnMut(u64) + Send),
    ) -> Result<(), AuditError> {
        let log = &*self.deployment.log;
        let mut read = 0;
        for (service, partition, begin, end) in &slice.partitions {
            let mut scan = Scan::new(log, partition, *begin, *end);
            loop {
                let records = scan.next().await?;
                if records.is_empty() {
                    break;
                }
                read += records.len() as u64;
                for stored in records.into_iter().filter(|stored| slice.has(&stored.record)) {
                    self.take(*service, partition, &stored, stories, late);
                }
                progress(read);
            }
        }
        Ok(())
    }

    /// Puts a record where it belongs.
    fn take(&mut self, service: usize, partition: &Partition, stored: &Stored, stories: &mut Stories, late: bool) {
        self.records += 1;
        let event = from_record(&stored.record).map_err(|_| None).and_then(|event| {
            Incoming::read(event).map_err(|never| {
                use cloudevents::AttributesReader;
                Some((never.0.id().to_owned(), never.0.ty().to_owned()))
            })
        });
        let event = match event {
            Ok(event) if is_ours(service, &event) => event,
            Ok(event) => return self.take_foreign(Some((&event.id, &event.event_type)), partition, stored),
            Err(Some((id, event_type))) => return self.take_foreign(Some((&id, &event_type)), partition, stored),
            Err(None) => return self.take_foreign(None, partition, stored),
        };
        self.tally.checked(Check::Streams, 1);
        let record = hash_of(&stored.record);
        let story = stories.entry(event.subject.clone()).or_default();
        match story.take(service, &event, record, late) {
            Taken::Next => self.ids[service].insert(hash(&[event.id.as_bytes()])),
            Taken::Repeated => self.repeats += 1,
            // Told again by whoever couldn't know: nobody here has acted upon it.
            Taken::Wrong(_) if self.letters.tell_of(hash(&[event.id.as_bytes()])) => self.foreign += 1,
            Taken::Wrong(what) => {
                let at = event.sequence.map(|version| (service, version));
                let place = format!("{}/{} offset {}", partition.topic, partition.number, stored.offset);
                let what = format!("{} {what} ({place})", event.source);
                self.tally.fail(Check::Streams, Who::Subject(event.subject), at, what);
            }
        }
    }

    /// A record that none of our services has written: it had no effect if it concerns nobody, or lies in dead letters.
    fn take_foreign(&mut self, event: Option<(&str, &str)>, partition: &Partition, stored: &Stored) {
        self.foreign += 1;
        let told = match event {
            Some((id, event_type)) => {
                let concerns_nobody =
                    name_and_version(event_type).is_none_or(|(name, _)| streams::machine(name).is_none());
                concerns_nobody || self.letters.tell_of(hash(&[id.as_bytes()]))
            }
            None => self.letters.tell_of_place(partition, stored.offset),
        };
        if !told && !self.options.in_flight {
            let what = format!(
                "{}/{} offset {}: no event of ours, and no dead letter tells of it",
                partition.topic, partition.number, stored.offset
            );
            let who = match event {
                Some((id, _)) => Who::Event(hash(&[id.as_bytes()])),
                None => Who::Nobody,
            };
            self.tally.fail(Check::Stored, who, None, what);
        }
    }

    /// Remembers of a story what has to be known of all.
    fn note(&mut self, subject: &str, story: &Story) {
        for (service, stream) in story.streams.iter().enumerate() {
            if !stream.is_empty() {
                self.streams[service].insert(hash(&[subject.as_bytes()]));
            }
        }
        if story.fold.is_some() {
            self.folded.insert(hash(&[subject.as_bytes()]));
        }
    }

    /// What can only be judged when everything was read.
    async fn sweep(
        &mut self,
        slices: &mut [Slice],
        progress: &mut (dyn FnMut(&'static str) + Send),
    ) -> Result<(), AuditError> {
        for service in 0..SERVICES.len() {
            self.streams[service].settle();
            for twice in self.ids[service].settle() {
                let what = format!("{}: two events have the same id", SERVICES[service].source);
                self.tally.fail(Check::Streams, Who::Event(twice), None, what);
            }
        }
        let mut should_be_there = Vec::new();
        for (service, database) in self.stores() {
            progress("the stores' streams");
            should_be_there.extend(self.sweep_store(service, &database).await?);
            progress("the inboxes");
            self.sweep_inbox(service, &database).await?;
        }
        self.look_again(slices, should_be_there).await?;
        self.judge_accepted().await?;
        if let Some(ledger) = self.deployment.ledger.clone() {
            progress("the provider's ledger");
            if !self.options.in_flight {
                self.sweep_ledger(&ledger).await.map_err(AuditError::Ledger)?;
            }
        }
        let query = self.deployment.stores.get(QUERY).cloned();
        self.judge_rides(query.is_some());
        if let Some(query) = query {
            progress("the views");
            self.sweep_views(&query).await?;
        }
        Ok(())
    }

    /// Every order that a client was told of is there.
    async fn judge_accepted(&mut self) -> Result<(), AuditError> {
        let options = self.options;
        for order in &options.accepted {
            self.tally.checked(Check::Commands, 1);
            if self.streams[ORDER].contains(hash(&[order.as_bytes()])) {
                continue;
            }
            // Accepted is stored; that it is published as well is judged elsewhere.
            let stored = match self.deployment.stores.get("order") {
                Some(store) => {
                    let sql = "SELECT version FROM events WHERE stream_id = $1";
                    let rows = store.fetch(sql, [order.as_str().into()]).await.map_err(AuditError::store("order"))?;
                    !rows.is_empty()
                }
                None => false,
            };
            if !stored {
                self.tally.fail(Check::Commands, Who::Subject(order.clone()), None, "was accepted, and is gone");
            }
        }
        Ok(())
    }

    async fn report(mut self) -> Result<Report, AuditError> {
        let differing = self.tell().await?;
        if self.views_behind > 0 && self.options.in_flight {
            self.tally.note(Check::Views, format!("{} on their way", self.views_behind));
        }
        let checks: Vec<Row> = Check::ALL.into_iter().map(|check| self.row(check)).collect();
        Ok(Report {
            passed: checks.iter().all(|row| row.failed == 0),
            orders: self.orders,
            records: self.records,
            repeats: self.repeats,
            foreign: self.foreign,
            unpublished: self.unpublished,
            checks,
            excepted: self.letters.excepted(),
            differing,
        })
    }

    fn row(&mut self, check: Check) -> Row {
        Row {
            check,
            title: check.title(),
            checked: self.tally.checked.remove(&check).unwrap_or_default(),
            failed: self.tally.failed.remove(&check).unwrap_or_default(),
            notes: self.tally.notes.remove(&check).unwrap_or_default(),
            skipped: self.skipped(check),
        }
    }

    /// What was not looked at, for want of a store.
    fn skipped(&self, check: Check) -> Option<String> {
        let writing = || SERVICES.iter().map(|service| service.name);
        let missing = |names: Vec<&'static str>| {
            let missing: Vec<_> =
                names.into_iter().filter(|name| !self.deployment.stores.contains_key(*name)).collect();
            (!missing.is_empty()).then(|| format!("no store of {}", missing.join(", ")))
        };
        match check {
            Check::Published | Check::Stored | Check::Inbox => missing(writing().collect()),
            Check::Commands => missing(vec!["order"]),
            Check::Views | Check::Timelines => missing(vec![QUERY]),
            Check::Ledger if self.deployment.ledger.is_none() => Some("no ledger".to_owned()),
            Check::Ends if self.options.in_flight => Some("the system runs: stories may be unfinished".to_owned()),
            _ => None,
        }
    }
}

/// Whether a service of ours may have written this, by the look of it.
fn is_ours(service: usize, event: &Incoming) -> bool {
    event.source == SERVICES[service].source
        && event.sequence.is_some_and(|version| version > 0)
        && story::known(&event.event_type).is_some()
}
