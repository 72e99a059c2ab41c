//! What is known of a log's file without looking: where each partition ends, and how far each group has come.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use rusqlite::Connection;
use tokio::sync::Notify;

use super::{LogError, Partition, unavailable};

/// A record's row id is its partition's number in the file, then its offset: a partition's records lie together.
pub const OFFSET_BITS: u32 = 40;

#[derive(Default)]
pub struct State {
    /// Each with its partitions, in order of their numbers.
    pub topics: BTreeMap<String, Vec<Info>>,
    pub groups: HashMap<String, Group>,
}

/// A partition.
#[derive(Clone, Copy)]
pub struct Info {
    /// Its number in the file.
    pub id: i64,
    /// The offset of the next record.
    pub end: i64,
}

/// A group; partitions have their numbers in the file here.
#[derive(Default)]
pub struct Group {
    pub members: Vec<u64>,
    /// What its members read.
    pub topics: HashSet<String>,
    /// Rings when there may be more for them.
    pub bell: Arc<Notify>,
    next: HashMap<i64, i64>,
    /// Partitions of which a batch is out, and with whom.
    pub out: HashMap<i64, u64>,
    changed: HashSet<i64>,
}

impl Group {
    /// The next offset to hand out after what is finished.
    pub fn next(&self, partition: i64) -> i64 {
        self.next.get(&partition).copied().unwrap_or(0)
    }

    pub fn finished(&mut self, partition: i64, next: i64) {
        self.next.insert(partition, next);
        self.changed.insert(partition);
    }
}

impl State {
    pub fn read(file: &Connection) -> Result<Self, LogError> {
        Self::rows(file).map_err(unavailable)
    }

    fn rows(file: &Connection) -> Result<Self, rusqlite::Error> {
        let mut state = Self::default();
        let ends = "SELECT topic, id, (SELECT MAX(r.id) FROM records r WHERE r.id >= p.id << ?1 \
             AND r.id < (p.id + 1) << ?1) FROM partitions p ORDER BY topic, number";
        let mut statement = file.prepare_cached(ends)?;
        let mut rows = statement.query([OFFSET_BITS])?;
        while let Some(row) = rows.next()? {
            let id: i64 = row.get(1)?;
            let end = row.get::<_, Option<i64>>(2)?.map_or(0, |newest| newest - (id << OFFSET_BITS) + 1);
            state.topics.entry(row.get(0)?).or_default().push(Info { id, end });
        }
        let mut statement = file.prepare_cached("SELECT member_group, partition, next FROM positions")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            state.groups.entry(row.get(0)?).or_default().next.insert(row.get(1)?, row.get(2)?);
        }
        Ok(state)
    }

    /// A topic's partitions; none, if there is no such topic.
    pub fn partitions<'a>(&'a self, topic: &'a str) -> impl Iterator<Item = (Partition, Info)> + 'a {
        let infos = self.topics.get(topic).map(Vec::as_slice).unwrap_or_default();
        infos.iter().zip(0..).map(move |(info, number)| (Partition { topic: topic.to_owned(), number }, *info))
    }

    pub fn info(&self, partition: &Partition) -> Option<Info> {
        let number = usize::try_from(partition.number).ok()?;
        self.topics.get(&partition.topic)?.get(number).copied()
    }

    /// What has changed since the last time: group, partition, and the next offset.
    pub fn changes(&mut self) -> Vec<(String, i64, i64)> {
        let mut changes = Vec::new();
        for (name, group) in &mut self.groups {
            let changed = std::mem::take(&mut group.changed);
            changes.extend(changed.into_iter().map(|partition| (name.clone(), partition, group.next(partition))));
        }
        changes
    }

    /// They could not be written down, and are not to be forgotten.
    pub fn unwritten(&mut self, changes: Vec<(String, i64, i64)>) {
        for (group, partition, _) in changes {
            self.groups.entry(group).or_default().changed.insert(partition);
        }
    }
}
