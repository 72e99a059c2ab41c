//! The events of several topics, merged by time: an order's events, which stand in partitions of the same number, come
//! close together, so that its row is read and written once instead of for every event.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use eventing::{
    Incoming, from_record, heading,
    log::{EventLog, LogError, Record, Scan, Stretch},
    name_and_version,
};

use crate::views::Kind;

/// So few records are not merged.
const FEW: u64 = 5_000;

/// What is still to be read.
pub(super) struct Merged<'a> {
    log: &'a Arc<dyn EventLog>,
    /// What is to be merged, group by group.
    waiting: VecDeque<Vec<Vec<Stretch>>>,
    /// The group that is being read.
    open: Vec<Source>,
}

struct Source {
    scan: Scan,
    /// Read, with how many records were passed over before each.
    events: VecDeque<(u64, Incoming)>,
    /// Passed over since the last event.
    passed: u64,
    ended: bool,
}

impl<'a> Merged<'a> {
    /// The events in `stretches` that concern a view.
    pub fn of(log: &'a Arc<dyn EventLog>, stretches: Vec<Stretch>) -> Self {
        let stretches = stretches.into_iter().filter(|stretch| stretch.records() > 0);
        let mut groups: BTreeMap<i32, Vec<Vec<Stretch>>> = BTreeMap::new();
        for stretch in stretches {
            groups.entry(stretch.partition.number).or_default().push(vec![stretch]);
        }
        if groups.values().flatten().flatten().map(Stretch::records).sum::<u64>() <= FEW {
            // It isn't worth the clients.
            let all = groups.into_values().flatten().flatten().collect();
            return Self { log, waiting: VecDeque::from([vec![all]]), open: Vec::new() };
        }
        Self { log, waiting: groups.into_values().collect(), open: Vec::new() }
    }

    /// At most `limit` events, and how many records that were; `None` at the end.
    pub async fn next(&mut self, limit: usize) -> Result<Option<(u64, Vec<Incoming>)>, LogError> {
        let (mut records, mut events) = (0, Vec::new());
        while events.len() < limit {
            for source in &mut self.open {
                source.fill().await?;
            }
            records += self.open.iter_mut().map(|source| std::mem::take(&mut source.passed)).sum::<u64>();
            self.open.retain(|source| !source.events.is_empty());
            let earliest = self.open.iter_mut().min_by(|a, b| a.time().cmp(b.time()));
            match earliest.and_then(|source| source.events.pop_front()) {
                Some((passed, event)) => {
                    records += passed + 1;
                    events.push(event);
                }
                None => match self.waiting.pop_front() {
                    Some(group) => {
                        self.open = group.into_iter().map(|it| Source::of(self.log, it)).collect();
                    }
                    None => break,
                },
            }
        }
        Ok((records > 0).then_some((records, events)))
    }
}

impl Source {
    fn of(log: &Arc<dyn EventLog>, stretches: Vec<Stretch>) -> Self {
        Self { scan: Scan::of(log.clone(), stretches), events: VecDeque::new(), passed: 0, ended: false }
    }

    fn time(&self) -> &str {
        self.events.front().map_or("", |(_, event)| &event.time)
    }

    /// Reads until there is an event, or nothing more.
    async fn fill(&mut self) -> Result<(), LogError> {
        while self.events.is_empty() && !self.ended {
            let Some(batch) = self.scan.next().await? else {
                self.ended = true;
                return Ok(());
            };
            for stored in batch.records {
                match read(&stored.record) {
                    Some(event) => self.events.push_back((std::mem::take(&mut self.passed), event)),
                    None => self.passed += 1,
                }
            }
        }
        Ok(())
    }
}

/// The event, if it concerns a view, in whatever version. What is no event is a dead letter of no stream.
fn read(record: &Record) -> Option<Incoming> {
    let concerns = |event_type: &str| name_and_version(event_type).is_some_and(|(name, _)| Kind::of(name).is_some());
    match heading(record) {
        Some([_, _, event_type]) if !concerns(event_type) => None,
        _ => Incoming::read(from_record(record).ok()?).ok().filter(|event| concerns(&event.event_type)),
    }
}
