//! How groups read from a log in a file: who holds which partition, and of which a batch is out.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use async_trait::async_trait;
use tokio::sync::Notify;

use super::{EmbeddedLog, state::State, writer::Task};
use crate::log::{Batch, EventLog, LogError, Member, Partition};

pub struct EmbeddedMember {
    log: EmbeddedLog,
    group: String,
    topics: HashSet<String>,
    id: u64,
    /// Its group's.
    bell: Arc<Notify>,
    /// Where the search for a partition with records begins, so that all get their turn.
    turn: AtomicU64,
}

/// A partition that a member holds.
struct Mine<'a> {
    topic: &'a str,
    number: i32,
    /// Its number in the file.
    id: i64,
    /// Where the group stands, and where the partition ends.
    next: i64,
    end: i64,
    /// Whether a batch of it is out.
    out: bool,
}

impl EmbeddedMember {
    /// Joins the group.
    pub fn join(log: EmbeddedLog, group: &str, topics: &[String], id: u64) -> Self {
        let bell = {
            let mut state = log.0.known.lock();
            let group = state.groups.entry(group.to_owned()).or_default();
            group.members.push(id);
            group.topics.extend(topics.iter().cloned());
            group.bell.clone()
        };
        // Who holds what is another question now.
        bell.notify_waiters();
        let (group, topics) = (group.to_owned(), topics.iter().cloned().collect());
        Self { log, group, topics, id, bell, turn: AtomicU64::new(0) }
    }

    /// The partitions that are this member's.
    fn mine<'a>(&'a self, state: &'a State) -> impl Iterator<Item = Mine<'a>> + 'a {
        let group = state.groups.get(&self.group);
        let rank = group.and_then(|group| group.members.iter().position(|id| *id == self.id));
        let members = group.map_or(1, |group| group.members.len().max(1));
        let ours = state.topics.iter().filter(|(topic, _)| self.topics.contains(*topic));
        let partitions = ours.flat_map(|(topic, infos)| (0..).zip(infos).map(move |it| (topic.as_str(), it)));
        let held = partitions.enumerate().filter(move |(index, _)| Some(index % members) == rank);
        held.map(move |(_, (topic, (number, info)))| Mine {
            topic,
            number,
            id: info.id,
            next: group.map_or(0, |group| group.next(info.id)),
            end: info.end,
            out: group.is_some_and(|group| group.out.contains_key(&info.id)),
        })
    }

    fn take(&self) -> Option<(Partition, i64)> {
        let mut state = self.log.0.known.lock();
        let ready: Vec<Mine> = self.mine(&state).filter(|mine| mine.next < mine.end && !mine.out).collect();
        let turn = usize::try_from(self.turn.fetch_add(1, Ordering::Relaxed)).unwrap_or_default();
        let mine = ready.get(turn % ready.len().max(1))?;
        let (id, taken) = (mine.id, (Partition { topic: mine.topic.to_owned(), number: mine.number }, mine.next));
        state.groups.get_mut(&self.group)?.out.insert(id, self.id);
        Some(taken)
    }

    fn give_back(&self, partition: &Partition, next: Option<i64>) {
        let mut state = self.log.0.known.lock();
        if let Some(info) = state.info(partition)
            && let Some(group) = state.groups.get_mut(&self.group)
            && group.out.get(&info.id) == Some(&self.id)
        {
            group.out.remove(&info.id);
            if let Some(next) = next {
                group.finished(info.id, next);
            }
        }
        drop(state);
        self.bell.notify_waiters();
    }

    fn forget(&self) {
        if let Some(group) = self.log.0.known.lock().groups.get_mut(&self.group) {
            group.members.retain(|id| *id != self.id);
            group.out.retain(|_, id| *id != self.id);
        }
        self.bell.notify_waiters();
    }
}

impl Drop for EmbeddedMember {
    fn drop(&mut self) {
        self.forget();
    }
}

#[async_trait]
impl Member for EmbeddedMember {
    async fn next(&self, limit: usize) -> Result<Batch, LogError> {
        loop {
            let mut bell = std::pin::pin!(self.bell.notified());
            bell.as_mut().enable();
            if let Some((partition, offset)) = self.take() {
                // Whoever stops waiting for the records gives the partition back.
                let mut taken = Taken { member: self, partition: Some(partition.clone()) };
                let records = self.log.read(&partition, offset, limit).await?;
                taken.partition = None;
                return Ok(Batch { partition, records, lease: 0 });
            }
            bell.await;
        }
    }

    async fn finished(&self, batch: &Batch) {
        self.give_back(&batch.partition, batch.records.last().map(|record| record.offset + 1));
    }

    async fn returned(&self, batch: &Batch) {
        self.give_back(&batch.partition, None);
    }

    fn holds(&self, partition: &Partition) -> bool {
        let state = self.log.0.known.lock();
        let holder = |id| state.groups.get(&self.group)?.out.get(&id).copied();
        state.info(partition).and_then(|info| holder(info.id)) == Some(self.id)
    }

    fn waiting(&self) -> u64 {
        let state = self.log.0.known.lock();
        self.mine(&state).map(|mine| u64::try_from(mine.end - mine.next).unwrap_or_default()).sum()
    }

    async fn arrival(&self) {
        loop {
            let mut bell = std::pin::pin!(self.bell.notified());
            bell.as_mut().enable();
            if self.mine(&self.log.0.known.lock()).any(|mine| mine.next < mine.end && !mine.out) {
                return;
            }
            bell.await;
        }
    }

    async fn leave(&self) {
        self.forget();
        if let Err(error) = self.log.0.write(Task::Positions).await {
            tracing::warn!(%error, "positions were not written down; some events will be told again");
        }
    }
}

/// Gives a partition back if reading its records is given up.
struct Taken<'a> {
    member: &'a EmbeddedMember,
    partition: Option<Partition>,
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        if let Some(partition) = self.partition.take() {
            self.member.give_back(&partition, None);
        }
    }
}
