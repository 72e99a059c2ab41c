//! The log: partitions in memory, appended to and read as Kafka allows it. Members of a group lose and get partitions at
//! any moment, positions are committed late, records are told again, and an append may fail with some of it done.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use event_sourcing::{Recorded, Row};
use eventing::{
    from_record,
    log::{Batch, EventLog, Lag, LogError, Member, Partition, Record, Stored},
    published, to_record,
};
use tokio::sync::Notify;

use crate::{
    sabotage::Sabotage,
    world::{Process, World},
};

/// The log, whoever uses it.
pub struct SharedLog {
    world: Arc<World>,
    partitions_per_topic: i32,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    partitions: BTreeMap<Partition, Vec<Record>>,
    groups: BTreeMap<String, Group>,
    members: u64,
    leases: u64,
}

#[derive(Default)]
struct Group {
    /// By number, which process each member is of, and what it listens to.
    members: BTreeMap<u64, (u64, BTreeSet<String>)>,
    committed: BTreeMap<Partition, i64>,
    held: BTreeMap<Partition, Held>,
}

/// A partition in a member's hands.
struct Held {
    member: u64,
    /// The next offset to hand out.
    position: i64,
    /// The first offset of the batch that is out.
    out: Option<i64>,
    /// Of that batch.
    lease: u64,
}

impl SharedLog {
    /// An empty log.
    #[must_use]
    pub fn new(world: &Arc<World>, partitions_per_topic: i32) -> Arc<Self> {
        let log = Arc::new(Self {
            world: world.clone(),
            partitions_per_topic,
            state: Mutex::default(),
            changed: Notify::new(),
        });
        let buried = Arc::downgrade(&log);
        world.when_one_dies(move |process| {
            if let Some(log) = buried.upgrade() {
                let mut state = log.state();
                let mut lost = false;
                for group in state.groups.values_mut() {
                    let before = group.members.len();
                    group.members.retain(|_, (of, _)| *of != process);
                    lost |= group.members.len() < before;
                }
                drop(state);
                if lost {
                    log.rebalance();
                }
            }
        });
        log
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As one process uses it.
    pub fn used_by(self: &Arc<Self>, process: &Arc<Process>) -> Arc<dyn EventLog> {
        Arc::new(SimulatedLog { shared: self.clone(), process: process.clone() })
    }

    /// Deals every group's partitions out anew. Whoever gets one goes on where the group last committed, and what
    /// somebody still has in hand is no longer theirs.
    pub fn rebalance(&self) {
        self.world.tell(|| "the groups are rebalanced".to_owned());
        let state = &mut *self.state();
        for group in state.groups.values_mut() {
            group.held.clear();
            for partition in state.partitions.keys() {
                let listening: Vec<u64> = group
                    .members
                    .iter()
                    .filter(|(_, (_, topics))| topics.contains(&partition.topic))
                    .map(|(member, _)| *member)
                    .collect();
                if let Some(member) = self.world.pick(&listening) {
                    let position = group.committed.get(partition).copied().unwrap_or(0);
                    group.held.insert(partition.clone(), Held { member: *member, position, out: None, lease: 0 });
                }
            }
        }
        self.changed.notify_waiters();
    }

    /// Commits what every group has finished.
    pub fn commit(&self) {
        let state = &mut *self.state();
        for group in state.groups.values_mut() {
            for (partition, held) in &group.held {
                group.committed.insert(partition.clone(), held.out.unwrap_or(held.position));
            }
        }
    }

    /// Records on the log, and whether every group has committed all of them.
    pub fn size(&self) -> (usize, bool) {
        let state = self.state();
        let end = |partition: &Partition| {
            state.partitions.get(partition).map_or(0, |records| i64::try_from(records.len()).unwrap_or(i64::MAX))
        };
        let idle = |group: &Group| {
            group.held.iter().all(|(partition, held)| {
                held.out.is_none()
                    && held.position >= end(partition)
                    && group.committed.get(partition).copied().unwrap_or(0) >= end(partition)
            })
        };
        (state.partitions.values().map(Vec::len).sum(), state.groups.values().all(idle))
    }

    /// Appends at once, whatever goes wrong in the world.
    pub fn append_now(&self, topic: &str, records: Vec<Record>) {
        let state = &mut *self.state();
        for record in records {
            let number = match &record.key {
                // Any way will do that always gives the same key the same partition.
                Some(key) => key.iter().fold(7_i32, |hash, byte| hash.wrapping_mul(31).wrapping_add(i32::from(*byte))),
                None => i32::try_from(self.world.draw(0..=1000)).unwrap_or_default(),
            };
            let number = number.rem_euclid(self.partitions_per_topic);
            state.partitions.entry(Partition { topic: topic.to_owned(), number }).or_default().push(record);
        }
        self.changed.notify_waiters();
    }

    fn holds_event(&self, topic: &str, id: &str) -> bool {
        let state = self.state();
        let ours = state.partitions.iter().filter(|(partition, _)| partition.topic == topic);
        ours.flat_map(|(_, records)| records).any(|record| record.header("ce_id") == Some(id.as_bytes()))
    }

    /// What a sabotaged log makes of the records it is given.
    fn sabotaged(&self, topic: &str, mut records: Vec<Record>) -> Vec<Record> {
        if self.world.breaks(Sabotage::ReorderTheOutbox) {
            records.reverse();
        }
        if self.world.breaks(Sabotage::OtherBytes) {
            for record in &mut records {
                let id = record.header("ce_id").map(|id| String::from_utf8_lossy(id).into_owned()).unwrap_or_default();
                if self.holds_event(topic, &id) {
                    record.headers.push(("ce_again".to_owned(), b"yes".to_vec()));
                }
            }
        }
        records
    }
}

/// The record of a stored event.
pub fn record_of(service: &str, row: &Row) -> Result<Record, sqlx::Error> {
    let event = Recorded {
        stream_id: row.text(0)?,
        version: row.int(1)?,
        id: row.text(2)?,
        event_type: row.text(3)?,
        time: row.text(4)?,
        correlation_id: row.text(5)?,
        causation_id: row.text(6)?,
        traceparent: row.text(7)?,
        tracestate: row.text(8)?,
        data: row.text(9)?,
    };
    let (source, _) = crate::town::published_by(service);
    let record = published(source, &event).and_then(to_record);
    record.map_err(|error| sqlx::Error::Protocol(error.to_string()))
}

/// The log as one process sees it.
struct SimulatedLog {
    shared: Arc<SharedLog>,
    process: Arc<Process>,
}

impl SimulatedLog {
    async fn step(&self, what: impl Fn() -> String) -> Result<(), LogError> {
        let answered = self.process.step(what).await;
        if answered.is_err() || self.process.world.log_is_out() {
            return Err(LogError::Unavailable("the simulated log is out".to_owned()));
        }
        Ok(())
    }
}

/// Bytes of a record.
fn size(record: &Record) -> usize {
    let headers = record.headers.iter().map(|(name, value)| name.len() + value.len());
    let parts = [&record.key, &record.value].into_iter().map(|part| part.as_ref().map_or(0, Vec::len));
    headers.chain(parts).sum()
}

fn names(records: &[Record]) -> String {
    let name = |record: &Record| from_record(record).map(|event| event.to_string()).unwrap_or_default();
    let short = |text: String| {
        let line = |start: &str| text.lines().find_map(|line| line.trim().strip_prefix(start).map(str::to_owned));
        let kind = line("type: ").unwrap_or_default();
        format!("{} of {}", kind.trim_matches('\''), line("subject: ").unwrap_or_default().trim_matches('\''))
    };
    records.iter().map(name).map(short).collect::<Vec<_>>().join(", ")
}

#[async_trait]
impl EventLog for SimulatedLog {
    async fn create_topics(&self, topics: &[&str]) -> Result<(), LogError> {
        self.step(|| "creates topics".to_owned()).await?;
        let mut new = false;
        for topic in topics {
            for number in 0..self.shared.partitions_per_topic {
                let partition = Partition { topic: (*topic).to_owned(), number };
                let mut state = self.shared.state();
                new |= !state.partitions.contains_key(&partition);
                state.partitions.entry(partition).or_default();
            }
        }
        if new {
            self.shared.rebalance();
        }
        Ok(())
    }

    async fn append(&self, topic: &str, records: Vec<Record>) -> Result<(), LogError> {
        let world = &self.process.world;
        let records = self.shared.sabotaged(topic, records);
        if let Some(meter) = world.meter() {
            meter.spends(|| "append".to_owned());
            let bytes = records.iter().map(size).sum();
            meter.adds([
                ("log", &|| "appends".to_owned(), 1),
                ("log", &|| "records appended".to_owned(), records.len()),
                ("log", &|| "bytes appended".to_owned(), bytes),
            ]);
        }
        self.step(|| format!("appends to {topic}: {}", names(&records))).await?;
        if world.breaks(Sabotage::AcknowledgeFirst) && world.happens(0.05) {
            return Ok(());
        }
        if world.happens(world.weather().failure * 2.0) {
            // Some of it arrives, and nobody is told.
            let some = world.draw(0..=u64::try_from(records.len()).unwrap_or_default());
            let some = records.into_iter().take(usize::try_from(some).unwrap_or_default()).collect();
            self.shared.append_now(topic, some);
            return Err(LogError::Unavailable("the broker went away".to_owned()));
        }
        world.aside(|| self.shared.append_now(topic, records));
        self.process.afterwards().await;
        Ok(())
    }

    async fn join(&self, group: &str, topics: &[String]) -> Result<Arc<dyn Member>, LogError> {
        self.step(|| format!("joins {group}")).await?;
        let number = {
            let mut state = self.shared.state();
            state.members += 1;
            let number = state.members;
            let topics = topics.iter().cloned().collect();
            let members = &mut state.groups.entry(group.to_owned()).or_default().members;
            members.insert(number, (self.process.id, topics));
            number
        };
        self.shared.rebalance();
        let (shared, process, group) = (self.shared.clone(), self.process.clone(), group.to_owned());
        Ok(Arc::new(SimulatedMember { shared, process, group, number }))
    }

    async fn read(&self, partition: &Partition, offset: i64, limit: usize) -> Result<Vec<Stored>, LogError> {
        self.step(|| "reads".to_owned()).await?;
        let state = self.shared.state();
        let records = state.partitions.get(partition).map(Vec::as_slice).unwrap_or_default();
        let forgotten = usize::from(self.process.world.breaks(Sabotage::ForgetTheOldest));
        let first = usize::try_from(offset).unwrap_or_default().max(forgotten);
        let stored = (0..).zip(records).skip(first).take(limit);
        Ok(stored.map(|(offset, record)| Stored { offset, record: record.clone() }).collect())
    }

    async fn watermarks(&self, topic: &str) -> Result<Vec<(Partition, i64, i64)>, LogError> {
        self.step(|| "asks for the log's ends".to_owned()).await?;
        let state = self.shared.state();
        let ours = state.partitions.iter().filter(|(partition, _)| partition.topic == topic);
        let end = |records: &Vec<Record>| i64::try_from(records.len()).unwrap_or(i64::MAX);
        Ok(ours.map(|(partition, records)| (partition.clone(), 0, end(records))).collect())
    }

    async fn lag(&self, group: &str, topics: &[String]) -> Result<Vec<Lag>, LogError> {
        let mut lag = Vec::new();
        for topic in topics {
            for (partition, _, end) in self.watermarks(topic).await? {
                let state = self.shared.state();
                let committed = state.groups.get(group).and_then(|group| group.committed.get(&partition));
                lag.push(Lag { committed: committed.copied().unwrap_or(0), partition, end });
            }
        }
        Ok(lag)
    }
}

struct SimulatedMember {
    shared: Arc<SharedLog>,
    process: Arc<Process>,
    group: String,
    number: u64,
}

impl SimulatedMember {
    fn take(&self, limit: usize) -> Option<Batch> {
        let world = &self.shared.world;
        let state = &mut *self.shared.state();
        let group = state.groups.get_mut(&self.group)?;
        let ready: Vec<Partition> = group
            .held
            .iter()
            .filter(|(partition, held)| {
                held.member == self.number && held.out.is_none() && waits(state.partitions.get(*partition), held) > 0
            })
            .map(|(partition, _)| partition.clone())
            .collect();
        let partition = world.pick(&ready)?.clone();
        let held = group.held.get_mut(&partition)?;
        if world.happens(world.weather().again) {
            // At least once: all of it may come again, at any time.
            held.position = i64::try_from(world.draw(0..=u64::try_from(held.position).ok()?)).ok()?;
        }
        let records = state.partitions.get(&partition)?;
        let limit = usize::try_from(world.draw(1..=u64::try_from(limit).ok()?)).ok()?;
        let first = usize::try_from(held.position).ok()?;
        let batch: Vec<Stored> = (held.position..)
            .zip(records.iter().skip(first).take(limit))
            .map(|(offset, record)| Stored { offset, record: record.clone() })
            .collect();
        held.out = Some(held.position);
        state.leases += 1;
        held.lease = state.leases;
        world.tell(|| format!("{} takes {}", self.process.name, place(&partition, &batch)));
        if world.breaks(Sabotage::CommitOffsetsFirst) {
            group.committed.insert(partition.clone(), held.position + i64::try_from(batch.len()).ok()?);
        }
        Some(Batch { partition, records: batch, lease: state.leases })
    }

    /// The partition, if this batch of it is still in this member's hands.
    fn settle(&self, batch: &Batch, with: impl FnOnce(&mut Held, &mut BTreeMap<Partition, i64>)) {
        let mut state = self.shared.state();
        let Some(group) = state.groups.get_mut(&self.group) else { return };
        if let Some(held) = group.held.get_mut(&batch.partition)
            && held.member == self.number
            && held.lease == batch.lease
        {
            held.out = None;
            with(held, &mut group.committed);
        }
        drop(state);
        self.shared.changed.notify_waiters();
    }

    fn is_waiting(&self, also_in_hand: bool) -> u64 {
        let state = self.shared.state();
        let Some(group) = state.groups.get(&self.group) else { return 0 };
        let mine = group.held.iter().filter(|(_, held)| held.member == self.number);
        let mine = mine.filter(|(_, held)| also_in_hand || held.out.is_none());
        mine.map(|(partition, held)| waits(state.partitions.get(partition), held)).sum()
    }
}

fn place(partition: &Partition, records: &[Stored]) -> String {
    let end = |record: Option<&Stored>| record.map_or(-1, |record| record.offset);
    format!("{}/{} from {} to {}", partition.topic, partition.number, end(records.first()), end(records.last()))
}

fn waits(records: Option<&Vec<Record>>, held: &Held) -> u64 {
    let records = records.map_or(0, Vec::len) as u64;
    records.saturating_sub(u64::try_from(held.position).unwrap_or_default())
}

#[async_trait]
impl Member for SimulatedMember {
    async fn next(&self, limit: usize) -> Result<Batch, LogError> {
        loop {
            let mut changed = std::pin::pin!(self.shared.changed.notified());
            changed.as_mut().enable();
            if self.process.is_dead() {
                return std::future::pending().await;
            }
            if let Some(batch) = self.shared.world.aside(|| self.take(limit)) {
                if let Some(meter) = self.shared.world.meter() {
                    meter.adds([
                        ("log", &|| "batches taken".to_owned(), 1),
                        ("log", &|| "records taken".to_owned(), batch.records.len()),
                    ]);
                }
                return Ok(batch);
            }
            changed.await;
        }
    }

    async fn finished(&self, batch: &Batch) {
        // The answer has come; the process may end before the position is committed.
        self.process.afterwards().await;
        let world = &self.shared.world;
        let last = batch.records.last().map_or(0, |record| record.offset);
        self.settle(batch, |held, committed| {
            world.tell(|| format!("{} is done with {}", self.process.name, place(&batch.partition, &batch.records)));
            held.position = last + 1;
            if world.happens(0.5) {
                committed.insert(batch.partition.clone(), last + 1);
            }
        });
    }

    async fn returned(&self, batch: &Batch) {
        self.settle(batch, |_, _| ());
    }

    fn holds(&self, partition: &Partition) -> bool {
        let state = self.shared.state();
        let held = state.groups.get(&self.group).and_then(|group| group.held.get(partition));
        held.is_some_and(|held| held.member == self.number)
    }

    fn waiting(&self) -> u64 {
        if self.process.is_dead() { 0 } else { self.is_waiting(true) }
    }

    async fn arrival(&self) {
        loop {
            let mut changed = std::pin::pin!(self.shared.changed.notified());
            changed.as_mut().enable();
            if self.is_waiting(false) > 0 && !self.process.is_dead() {
                return;
            }
            changed.await;
        }
    }

    async fn leave(&self) {
        if let Some(group) = self.shared.state().groups.get_mut(&self.group) {
            group.members.remove(&self.number);
        }
        self.shared.rebalance();
    }
}
