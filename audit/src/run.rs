//! The course of an audit: slice by slice through the log, each looked up in the stores and judged, then a sweep through
//! the stores for what the log doesn't have.

use std::collections::BTreeMap;

use event_sourcing::Database;
use query::stats::{Sums, of_driver, of_order};

use crate::{
    AuditError, Check, Deployment, Options, Orders, Report, Row,
    hashes::Hashes,
    inbox::Effects,
    letters::Letters,
    money,
    report::{Tally, Who},
    rides::Rides,
    services::{self, ORDER, QUERY, SERVICES, hash},
    slices::Slice,
    story::{Fold, Story},
};

/// By subject.
pub type Stories = BTreeMap<String, Story>;

/// An audit under way.
pub struct Audit<'a> {
    pub deployment: &'a Deployment,
    pub options: &'a Options,
    pub tally: Tally,
    pub letters: Letters,
    pub orders: Orders,
    pub rides: Rides,
    /// By service: the streams on the log, the ids of its events, and what they were caused by.
    pub streams: [Hashes; 4],
    pub ids: [Hashes; 4],
    pub effects: [Effects; 4],
    /// Subjects that have a view.
    pub folded: Hashes,
    /// What the views add up to.
    pub sums: Sums,
    /// Keys of the provider's ledger that some order stands behind.
    pub charges: Hashes,
    pub records: u64,
    pub repeats: u64,
    pub foreign: u64,
    pub unpublished: u64,
    pub views_behind: u64,
}

impl<'a> Audit<'a> {
    /// An audit that has read the dead letters, and nothing else yet.
    pub async fn new(deployment: &'a Deployment, options: &'a Options) -> Result<Self, AuditError> {
        Ok(Self {
            deployment,
            options,
            letters: Letters::read(&*deployment.log).await?,
            tally: Tally::default(),
            orders: Orders::default(),
            rides: Rides::default(),
            streams: Default::default(),
            ids: Default::default(),
            effects: Default::default(),
            folded: Hashes::default(),
            sums: Sums::default(),
            charges: Hashes::default(),
            records: 0,
            repeats: 0,
            foreign: 0,
            unpublished: 0,
            views_behind: 0,
        })
    }

    /// Reads a slice, looks it up in the stores, and judges it.
    pub async fn audit_slice(
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
        if self.options.in_flight {
            let tail = slice.tail(&*self.deployment.log).await?;
            self.read(&tail, &mut stories, true, progress).await?;
        }
        // The provider is asked before anything is stored, so whatever is on the log is in its books by now.
        let ledger = match &self.deployment.ledger {
            Some(ledger) => Some(money::find(ledger, &stories).await.map_err(AuditError::Ledger)?),
            None => None,
        };
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

    /// Remembers of a story what has to be known of all.
    fn note(&mut self, subject: &str, story: &Story) {
        for (service, stream) in story.streams.iter().enumerate() {
            if !stream.is_empty() {
                self.streams[service].insert(hash(&[subject.as_bytes()]));
            }
        }
        match &story.fold {
            Some(Fold::Order(order)) => self.sums.add(&of_order(order), 1),
            Some(Fold::Driver(driver)) => self.sums.add(&of_driver(driver), 1),
            Some(Fold::Kitchen(_)) | None => {}
        }
        if story.fold.is_some() {
            self.folded.insert(hash(&[subject.as_bytes()]));
        }
    }

    /// What can only be judged when everything was read.
    pub async fn sweep(
        &mut self,
        slices: &mut [Slice],
        progress: &mut (dyn FnMut(&'static str) + Send),
    ) -> Result<(), AuditError> {
        for (service, known) in SERVICES.iter().enumerate() {
            self.streams[service].settle();
            for twice in self.ids[service].settle() {
                let what = format!("{}: two events have the same id", known.source);
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
            self.compare_sums(&query).await?;
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

    /// What was found.
    pub async fn report(mut self) -> Result<Report, AuditError> {
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
            Check::Views | Check::Timelines | Check::Sums => missing(vec![QUERY]),
            Check::Ledger if self.deployment.ledger.is_none() => Some("no ledger".to_owned()),
            Check::Ends if self.options.in_flight => Some("the system runs: stories may be unfinished".to_owned()),
            _ => None,
        }
    }
}
