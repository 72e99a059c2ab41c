//! What a service remembers of what it has heard, so that nothing has its effect twice: made again from the causes that
//! its own events name. There may be more causes than fit into memory, so it is the database that brings causes and
//! events together.

use std::{collections::BTreeSet, sync::Arc};

use event_sourcing::{Database, Statement, Value, restore};

use super::{Figures, Progress, RebuildError, Replay, letters::WithoutEffect};
use crate::{
    Incoming, from_record, heading,
    log::{EventLog, Record, Scan, Stretch},
    name_and_version,
};

/// Events that share a transaction.
const AT_ONCE: usize = 5_000;
/// What only exists during a rebuild: a way from cause to effect, and the causes that were found to be events.
const PREPARE: [&str; 2] = [
    "CREATE INDEX rebuild_causes ON events (causation_id, stream_id)",
    "CREATE TABLE rebuild_heard (id TEXT NOT NULL PRIMARY KEY)",
];
const CLEAR_UP: [&str; 2] = ["DROP INDEX rebuild_causes", "DROP TABLE rebuild_heard"];
const INBOX: &str = "inbox (source, id, attempts, done, stream_id)";

/// Fills the inbox: with the events of the topics `hears` that have had an effect, and with commands. Those that are
/// `without_effect` have changed nothing that is kept beside the events, either.
pub(super) async fn restore(
    replay: &dyn Replay,
    log: &Arc<dyn EventLog>,
    hears: &[String],
    without_effect: WithoutEffect,
    database: &Database,
    progress: &dyn Progress,
    figures: &mut Figures,
) -> Result<(), RebuildError> {
    at_leisure(database, &PREPARE).await?;
    database.filled("events").await?;
    let heard = Stretch::all(&**log, hears).await?;
    progress.begin("reading what it has heard", heard.iter().map(Stretch::records).sum());
    let mut memory = Memory { database, without_effect, pending: Vec::new(), figures };
    let mut scan = Scan::of(log.clone(), heard);
    while let Some(batch) = scan.next().await? {
        let records = batch.records.len() as u64;
        memory.figures.heard += records;
        memory.pending.extend(batch.records.iter().filter_map(|stored| Told::read(replay, &stored.record)));
        if memory.pending.len() >= AT_ONCE {
            memory.flush().await?;
        }
        progress.advance(records);
    }
    memory.flush().await?;
    remember_commands(database, figures).await?;
    at_leisure(database, &CLEAR_UP).await
}

/// Statements that take as long as they take.
async fn at_leisure(database: &Database, statements: &[&str]) -> Result<(), RebuildError> {
    // What was written soon before is on the disk with it.
    let mut write = database.write().await?;
    write.claim(&["events"]).await?;
    for statement in statements {
        write.execute(*statement, []).await?;
    }
    Ok(write.commit().await?)
}

/// An event that the service was told of.
struct Told {
    source: String,
    id: String,
    /// Whether it concerns the service. The others are only known not to be commands.
    understood: bool,
    /// What the service keeps because of it.
    keeps: Vec<Statement>,
}

impl Told {
    fn read(replay: &dyn Replay, record: &Record) -> Option<Self> {
        let other_mode;
        let [id, source, event_type] = match heading(record) {
            Some(heading) => heading.map(ToOwned::to_owned),
            None => {
                other_mode = Incoming::read(from_record(record).ok()?).ok()?;
                [other_mode.id, other_mode.source, other_mode.event_type]
            }
        };
        let understood =
            name_and_version(&event_type).filter(|(name, version)| replay.understands(name) == Some(*version));
        let keeps = match understood {
            Some((name, _)) if replay.keeps(name) => {
                let event = from_record(record).ok().and_then(|event| Incoming::read(event).ok());
                // What doesn't read had no effect when it came, either.
                event.and_then(|event| replay.heard(&event).ok()).unwrap_or_default()
            }
            _ => Vec::new(),
        };
        let own = source == replay.who().source;
        (understood.is_some() || own).then(|| Self { understood: understood.is_some(), source, id, keeps })
    }
}

struct Memory<'a> {
    without_effect: WithoutEffect,
    database: &'a Database,
    pending: Vec<Told>,
    figures: &'a mut Figures,
}

impl Memory<'_> {
    async fn flush(&mut self) -> Result<(), RebuildError> {
        let told = std::mem::take(&mut self.pending);
        let ids: BTreeSet<&str> = told.iter().map(|event| &*event.id).collect();
        let effects = restore::effects(self.database, ids.into_iter().map(ToOwned::to_owned).collect()).await?;
        let mut rows: BTreeSet<[Value; 5]> = BTreeSet::new();
        let mut write = self.database.write_soon().await?;
        let counts = |it: &Told| it.understood && !self.without_effect.contains(&[it.source.clone(), it.id.clone()]);
        for event in told.into_iter().filter(counts) {
            let streams = effects.get(&event.id);
            if streams.is_none() && event.keeps.is_empty() {
                continue;
            }
            let streams: Vec<&str> = streams.into_iter().flatten().map(String::as_str).collect();
            rows.insert(done(event.source, event.id, &streams));
            for Statement { sql, values } in event.keeps {
                write.execute(sql, values).await?;
            }
        }
        self.figures.remembered += write.insert(INBOX, rows.into_iter().collect(), "ON CONFLICT DO NOTHING").await?;
        let heard = effects.into_keys().map(|id| [id.into()]).collect();
        write.insert("rebuild_heard (id)", heard, "ON CONFLICT DO NOTHING").await?;
        Ok(write.commit().await?)
    }
}

fn done(source: String, id: String, streams: &[&str]) -> [Value; 5] {
    [source.into(), id.into(), 0.into(), 1.into(), streams.join(" ").into()]
}

/// Remembers every cause that is no event as a command. Which of them were sent with an idempotency key isn't known; a
/// command without one has a random id that never comes again.
async fn remember_commands(database: &Database, figures: &mut Figures) -> Result<(), RebuildError> {
    let sql = "SELECT DISTINCT causation_id, stream_id FROM events \
               WHERE (causation_id, stream_id) > ($1, $2) \
               AND NOT EXISTS (SELECT 1 FROM rebuild_heard WHERE rebuild_heard.id = events.causation_id) \
               ORDER BY causation_id, stream_id LIMIT $3";
    database.filled("rebuild_heard").await?;
    let (mut after, mut command) = ((String::new(), String::new()), Command::default());
    loop {
        let values = [after.0.as_str().into(), after.1.as_str().into(), Value::Int(AT_ONCE as i64)];
        let rows = database.fetch_at_leisure(sql, values).await?;
        let mut done = Vec::new();
        for row in &rows {
            after = (row.text(0)?, row.text(1)?);
            if after.0 != command.id {
                done.extend(std::mem::take(&mut command).done());
                command.id.clone_from(&after.0);
            }
            command.streams.insert(after.1.clone());
        }
        let last = rows.is_empty();
        if last {
            done.extend(std::mem::take(&mut command).done());
        }
        let mut write = database.write_soon().await?;
        figures.commands += write.insert(INBOX, done, "ON CONFLICT DO NOTHING").await?;
        write.commit().await?;
        if last {
            return Ok(());
        }
    }
}

#[derive(Default)]
struct Command {
    id: String,
    streams: BTreeSet<String>,
}

impl Command {
    fn done(self) -> Option<[Value; 5]> {
        let streams: Vec<&str> = self.streams.iter().map(String::as_str).collect();
        (!streams.is_empty()).then(|| done("command".to_owned(), self.id.clone(), &streams))
    }
}
