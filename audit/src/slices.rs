//! How a log of any size is audited in little memory: slice by slice. What belongs to one order has one key, and where
//! all topics have as many partitions it stands in partitions of the same number. So a slice is one partition of each
//! topic; where it is still too much, it is read several times, and each time only a share of its subjects is looked at.

use std::collections::BTreeMap;

use eventing::log::{EventLog, LogError, Partition, Record, Stored};

use crate::services::{SERVICES, Service, hash};

/// Records that are held in memory together, about.
const AT_ONCE: i64 = 400_000;
/// Records that are read at a time.
const CHUNK: usize = 1000;

/// What is audited together.
#[derive(Debug, Clone)]
pub struct Slice {
    /// With the service whose topic it is, and from where to where it is read.
    pub partitions: Vec<(usize, Partition, i64, i64)>,
    /// Of the subjects, those whose hash leaves this remainder.
    share: (u64, u64),
}

impl Slice {
    /// Whether a record is to be looked at with this slice.
    pub fn has(&self, record: &Record) -> bool {
        self.share.1 == 1 || hash(&[subject(record)]) % self.share.1 == self.share.0
    }

    /// Records in it, those of other shares included.
    pub fn records(&self) -> u64 {
        self.partitions.iter().map(|(_, _, begin, end)| u64::try_from(end - begin).unwrap_or_default()).sum()
    }

    /// What was appended behind it by now; from now on this is where it ends.
    pub async fn tail(&mut self, log: &dyn EventLog) -> Result<Self, LogError> {
        let mut tail = Self { partitions: Vec::new(), share: self.share };
        let mut ends = BTreeMap::new();
        for topic in SERVICES.iter().map(|service| service.topic) {
            ends.extend(log.watermarks(topic).await?.into_iter().map(|(partition, _, end)| (partition, end)));
        }
        for (service, partition, _, end) in &mut self.partitions {
            if let Some(now) = ends.get(partition).copied().filter(|now| now > end) {
                tail.partitions.push((*service, partition.clone(), *end, now));
                *end = now;
            }
        }
        Ok(tail)
    }
}

/// What a record is about, without reading it as an event.
fn subject(record: &Record) -> &[u8] {
    record.header("ce_subject").or(record.key.as_deref()).unwrap_or_default()
}

/// Everything on the log, in slices.
pub async fn plan(log: &dyn EventLog) -> Result<Vec<Slice>, LogError> {
    let mut by_number: BTreeMap<i32, Vec<_>> = BTreeMap::new();
    let mut sizes = Vec::new();
    for (service, Service { topic, .. }) in SERVICES.iter().enumerate() {
        let partitions = log.watermarks(topic).await?;
        sizes.push(partitions.len());
        for (partition, begin, end) in partitions {
            by_number.entry(partition.number).or_default().push((service, partition, begin, end));
        }
    }
    // A topic that isn't there yet is in nobody's way.
    sizes.retain(|size| *size > 0);
    let same = sizes.windows(2).all(|pair| pair[0] == pair[1]);
    let groups: Vec<Vec<_>> =
        if same { by_number.into_values().collect() } else { vec![by_number.into_values().flatten().collect()] };
    let shares = |partitions: Vec<(usize, Partition, i64, i64)>| {
        let records: i64 = partitions.iter().map(|(_, _, begin, end)| end - begin).sum();
        let count = u64::try_from(1 + records / AT_ONCE).unwrap_or(1);
        (0..count).map(move |one| Slice { partitions: partitions.clone(), share: (one, count) })
    };
    Ok(groups.into_iter().flat_map(shares).collect())
}

/// The records of a partition from `next` to `end`, a piece at a time.
pub struct Scan<'a> {
    log: &'a dyn EventLog,
    partition: &'a Partition,
    next: i64,
    end: i64,
}

impl<'a> Scan<'a> {
    pub fn new(log: &'a dyn EventLog, partition: &'a Partition, begin: i64, end: i64) -> Self {
        Self { log, partition, next: begin, end }
    }

    /// The next records; none at the end.
    pub async fn next(&mut self) -> Result<Vec<Stored>, LogError> {
        if self.next >= self.end {
            return Ok(Vec::new());
        }
        let mut records = self.log.read(self.partition, self.next, CHUNK).await?;
        records.retain(|stored| stored.offset < self.end);
        self.next = records.last().map_or(self.end, |stored| stored.offset + 1);
        Ok(records)
    }
}
