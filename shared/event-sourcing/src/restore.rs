//! A store made again from what is on the log: events go in as they are, in bulk and as published, and come out again
//! to be compared or folded. What is on the log has happened, so nothing is decided here.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::{
    Database, Recorded, StoreError, Value, Write, lists, placeholders,
    store::{COLUMNS, recorded, row},
};

/// Events that are read at a time.
const PAGE: i64 = 2_000;

/// Stores events that are on the log already; those that are stored stay as they are. How many were new.
///
/// # Errors
/// Whatever the database says.
pub async fn restore(write: &mut Write, events: &[Recorded]) -> Result<u64, sqlx::Error> {
    let rows = events.iter().map(|event| {
        let [stream, version, id, event_type, time, correlation, causation, parent, state, data] = row(event);
        [stream, version, id, event_type, time, correlation, causation, parent, state, data, Value::Int(1)]
    });
    write.insert(&format!("events ({COLUMNS}, published)"), rows.collect(), "ON CONFLICT DO NOTHING").await
}

/// The stored events with these streams and versions.
///
/// # Errors
/// If the database doesn't answer.
pub async fn stored(database: &Database, keys: Vec<(String, i64)>) -> Result<Vec<Recorded>, sqlx::Error> {
    let mut events = Vec::new();
    for piece in lists(keys) {
        let wanted = placeholders(piece.len(), 2);
        let sql = format!("SELECT {COLUMNS} FROM events WHERE (stream_id, version) IN (VALUES {wanted})");
        let values = piece.into_iter().flat_map(|(stream, version)| [stream.into(), version.into()]);
        for row in database.fetch(sql, values.collect::<Vec<Value>>()).await? {
            events.push(recorded(&row)?);
        }
    }
    Ok(events)
}

/// The newest version of each of these streams; a stream without events has no entry.
///
/// # Errors
/// If the database doesn't answer.
pub async fn newest(database: &Database, streams: Vec<String>) -> Result<HashMap<String, i64>, sqlx::Error> {
    let mut newest = HashMap::new();
    for piece in lists(streams) {
        let wanted = placeholders(piece.len(), 1);
        let sql = format!(
            "SELECT stream_id, MAX(version) FROM events WHERE stream_id IN (VALUES {wanted}) GROUP BY stream_id"
        );
        for row in database.fetch(sql, piece.into_iter().map(Value::from).collect::<Vec<_>>()).await? {
            newest.insert(row.text(0)?, row.int(1)?);
        }
    }
    Ok(newest)
}

/// Of each of these causes, the streams in which it has an effect; one without effect has no entry.
///
/// # Errors
/// If the database doesn't answer.
pub async fn effects(
    database: &Database,
    causes: Vec<String>,
) -> Result<BTreeMap<String, BTreeSet<String>>, sqlx::Error> {
    let mut effects: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for piece in lists(causes) {
        let wanted = placeholders(piece.len(), 1);
        let sql = format!("SELECT causation_id, stream_id FROM events WHERE causation_id IN (VALUES {wanted})");
        for row in database.fetch(sql, piece.into_iter().map(Value::from).collect::<Vec<_>>()).await? {
            effects.entry(row.text(0)?).or_default().insert(row.text(1)?);
        }
    }
    Ok(effects)
}

/// All streams, one after the other.
pub struct Streams<'a> {
    database: &'a Database,
    /// Read, and not handed out yet.
    page: std::vec::IntoIter<Recorded>,
    /// The first event of the stream that is next.
    first: Option<Recorded>,
    last: Option<(String, i64)>,
}

impl<'a> Streams<'a> {
    /// The streams in `database`.
    #[must_use]
    pub fn of(database: &'a Database) -> Self {
        Self { database, page: Vec::new().into_iter(), first: None, last: None }
    }

    /// The events of the next stream, in order; `None` after the last one.
    ///
    /// # Errors
    /// If the database doesn't answer.
    pub async fn next(&mut self) -> Result<Option<Vec<Recorded>>, StoreError> {
        let first = match self.first.take() {
            Some(first) => Some(first),
            None => self.event().await?,
        };
        let Some(first) = first else { return Ok(None) };
        let mut stream = vec![first];
        while let Some(event) = self.event().await? {
            if event.stream_id != stream[0].stream_id {
                self.first = Some(event);
                break;
            }
            stream.push(event);
        }
        Ok(Some(stream))
    }

    async fn event(&mut self) -> Result<Option<Recorded>, StoreError> {
        if let Some(event) = self.page.next() {
            return Ok(Some(event));
        }
        // No stream's id is empty.
        let (stream, version) = self.last.clone().unwrap_or_default();
        let sql = format!(
            "SELECT {COLUMNS} FROM events WHERE (stream_id, version) > ($1, $2) ORDER BY stream_id, version LIMIT $3"
        );
        let rows = self.database.fetch(sql, [stream.into(), version.into(), PAGE.into()]).await?;
        let events = rows.iter().map(recorded).collect::<Result<Vec<_>, _>>()?;
        if let Some(last) = events.last() {
            self.last = Some((last.stream_id.clone(), last.version));
        }
        self.page = events.into_iter();
        Ok(self.page.next())
    }
}
