//! The events of a service, from its own topic. On the log the first occurrences of each stream's events stand in the
//! order of their versions, and a repeat has the same bytes; what is otherwise is refused, and named.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use event_sourcing::{Database, Recorded, restore};

use super::{Figures, Progress, RebuildError};
use crate::{
    Identity,
    log::{Batch, EventLog, Scan, Stretch},
    published_by,
};

/// Events that share a transaction.
const AT_ONCE: usize = 5_000;
/// Streams whose newest version is kept in memory; of the others the store is asked.
const RECENT: usize = 50_000;

/// Fills the events table from these stretches of the service's own topic.
pub(super) async fn restore(
    who: Identity,
    log: &Arc<dyn EventLog>,
    own: Vec<Stretch>,
    database: &Database,
    progress: &dyn Progress,
    figures: &mut Figures,
) -> Result<(), RebuildError> {
    progress.begin("reading its own events", own.iter().map(Stretch::records).sum());
    let mut history =
        History { database, newest: Newest::default(), pending: Vec::new(), repeats: Vec::new(), figures };
    let mut scan = Scan::of(log.clone(), own);
    while let Some(batch) = scan.next().await? {
        let records = batch.records.len() as u64;
        history.take(who, batch).await?;
        progress.advance(records);
    }
    history.flush().await?;
    database.filled("events").await?;
    let rows = database.fetch_at_leisure("SELECT COUNT(*) FROM events", []).await?;
    let stored = rows.first().ok_or(sqlx::Error::RowNotFound)?.int(0)?;
    if u64::try_from(stored).ok() == Some(figures.events) { Ok(()) } else { Err(RebuildError::NotAlone) }
}

struct History<'a> {
    database: &'a Database,
    newest: Newest,
    /// New as far as is known, and not stored yet.
    pending: Vec<Recorded>,
    /// Not new; they must be what is stored.
    repeats: Vec<Recorded>,
    figures: &'a mut Figures,
}

impl History<'_> {
    async fn take(&mut self, who: Identity, batch: Batch) -> Result<(), RebuildError> {
        let read: Vec<_> =
            batch.records.iter().map(|stored| (stored.offset, published_by(who.source, &stored.record))).collect();
        self.look_up(read.iter().filter_map(|(_, event)| event.as_ref())).await?;
        for (offset, event) in read {
            let Some(event) = event else {
                self.figures.strangers += 1;
                continue;
            };
            if event.version > self.newest.of(&event.stream_id) + 1 {
                // Perhaps only this memory is behind: an old event may have been repeated after newer ones.
                self.flush().await?;
                let stored = restore::newest(self.database, vec![event.stream_id.clone()]).await?;
                let newest = stored.get(&event.stream_id).copied().unwrap_or(0);
                self.newest.note(&event.stream_id, newest);
                if event.version > newest + 1 {
                    return Err(RebuildError::Gap {
                        topic: batch.partition.topic,
                        stream: event.stream_id,
                        newest,
                        came: event.version,
                        partition: batch.partition.number,
                        offset,
                    });
                }
            }
            if event.version == self.newest.of(&event.stream_id) + 1 {
                self.newest.note(&event.stream_id, event.version);
                self.pending.push(event);
            } else {
                self.repeats.push(event);
            }
        }
        if self.pending.len() + self.repeats.len() >= AT_ONCE { self.flush().await } else { Ok(()) }
    }

    /// Asks the store for the streams that go on here and aren't remembered.
    async fn look_up(&mut self, events: impl Iterator<Item = &Recorded>) -> Result<(), RebuildError> {
        let mut seen = HashSet::new();
        let unknown: Vec<String> = events
            .filter(|event| seen.insert(event.stream_id.clone()))
            .filter(|event| event.version > 1 && self.newest.of(&event.stream_id) == 0)
            .map(|event| event.stream_id.clone())
            .collect();
        for (stream, version) in restore::newest(self.database, unknown).await? {
            self.newest.note(&stream, version);
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), RebuildError> {
        let mut pending = std::mem::take(&mut self.pending);
        pending.sort_by(|a, b| (&a.stream_id, a.version).cmp(&(&b.stream_id, b.version)));
        let mut write = self.database.write_soon().await?;
        let new = restore::restore(&mut write, &pending).await?;
        write.commit().await?;
        self.figures.events += new;
        let mut repeats = std::mem::take(&mut self.repeats);
        let known = pending.len() as u64 - new;
        self.figures.repeats += known + repeats.len() as u64;
        if known > 0 {
            // Streams that began once more, long after they were forgotten here.
            pending.iter().for_each(|event| self.newest.forget(&event.stream_id));
            repeats.append(&mut pending);
        }
        self.must_be_stored(&repeats).await
    }

    async fn must_be_stored(&self, repeats: &[Recorded]) -> Result<(), RebuildError> {
        let keys = repeats.iter().map(|event| (event.stream_id.clone(), event.version)).collect();
        let stored = restore::stored(self.database, keys).await?;
        let stored: HashMap<_, _> = stored.iter().map(|event| ((&*event.stream_id, event.version), event)).collect();
        match repeats.iter().find(|event| stored.get(&(&*event.stream_id, event.version)) != Some(event)) {
            None => Ok(()),
            Some(other) => Err(RebuildError::OtherBytes { stream: other.stream_id.clone(), version: other.version }),
        }
    }
}

/// The newest version of each stream that was met lately.
#[derive(Default)]
struct Newest {
    versions: HashMap<String, (i64, u64)>,
    by_age: BTreeMap<u64, String>,
    turn: u64,
}

impl Newest {
    fn of(&self, stream: &str) -> i64 {
        self.versions.get(stream).map_or(0, |(version, _)| *version)
    }

    fn note(&mut self, stream: &str, version: i64) {
        self.forget(stream);
        self.turn += 1;
        self.versions.insert(stream.to_owned(), (version, self.turn));
        self.by_age.insert(self.turn, stream.to_owned());
        if self.versions.len() > RECENT
            && let Some((_, oldest)) = self.by_age.pop_first()
        {
            self.versions.remove(&oldest);
        }
    }

    fn forget(&mut self, stream: &str) {
        if let Some((_, turn)) = self.versions.remove(stream) {
            self.by_age.remove(&turn);
        }
    }
}
