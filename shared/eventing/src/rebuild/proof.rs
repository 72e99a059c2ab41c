//! The proof that two stores are equal: row by row, page by page, whatever the order in which each of them sorts. What
//! may differ is named: rows of the old store that follow from events which aren't on the log yet, and what a rebuilt
//! one remembers more.

use std::collections::HashMap;

use event_sourcing::{Database, Row, Value, lists, placeholders};

use super::{Progress, RebuildError};
use crate::{from_json, to_record};

/// Rows that are compared at a time.
const PAGE: i64 = 1_000;
/// Differences that are told.
const TOLD: usize = 10;

/// A table as a proof compares it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Table {
    pub name: &'static str,
    /// The columns of its primary key.
    pub key: &'static [&'static str],
    /// The other columns.
    pub columns: &'static [&'static str],
}

const EVENTS: Table = Table {
    name: "events",
    key: &["stream_id", "version"],
    columns: &["id", "type", "time", "correlation_id", "causation_id", "traceparent", "tracestate", "data"],
};
/// How often an event was tried says nothing any more once it is done.
const INBOX: Table = Table { name: "inbox", key: &["source", "id"], columns: &["stream_id"] };
const LETTERS: Table = Table {
    name: "dead_letters",
    key: &["source", "id"],
    columns: &["subject", "state", "reason", "attempts", "time", "position", "origin", "event"],
};
/// Every row counts.
const ALL: &str = "1 = 1";

/// What became of the comparison of one table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Compared {
    pub table: String,
    /// In the old store.
    pub rows: u64,
    pub equal: u64,
    pub differing: u64,
    /// Only in the old store.
    pub missing: u64,
    /// Only in the new one.
    pub extra: u64,
    /// Of the old store, and not on the log yet, or because of something that isn't.
    pub unpublished: u64,
    /// Commands that the new store remembers without need.
    pub more: u64,
    /// Newer in the new store: the old one is being written, and hasn't heard of them yet.
    pub newer: u64,
}

impl Compared {
    /// A table that nothing is known of yet.
    #[must_use]
    pub fn of(table: &str) -> Self {
        Self { table: table.to_owned(), ..Self::default() }
    }

    /// Whether nothing differs but what may.
    #[must_use]
    pub fn is_equal(&self) -> bool {
        (self.differing, self.missing, self.extra) == (0, 0, 0)
    }
}

/// The comparison of two stores.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Proof {
    pub tables: Vec<Compared>,
    /// The first ones.
    pub differences: Vec<String>,
}

impl Proof {
    /// Whether the stores are equal.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.tables.iter().all(Compared::is_equal)
    }

    /// Events of the old store that aren't on the log yet, and so not in the new one.
    #[must_use]
    pub fn unpublished(&self) -> u64 {
        self.tables.iter().filter(|it| it.table == EVENTS.name).map(|it| it.unpublished).sum()
    }

    /// Keeps a difference, if it is one of the first.
    pub fn tell(&mut self, difference: impl FnOnce() -> String) {
        if self.differences.len() < TOLD {
            self.differences.push(difference());
        }
    }
}

impl std::fmt::Display for Proof {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [equal, differing, missing, extra] = ["equal", "differing", "missing", "extra"];
        writeln!(f, "{:<13} {:>10} {equal:>10} {differing:>10} {missing:>8} {extra:>8}", "table", "rows")?;
        for it in &self.tables {
            let Compared { table, rows, equal, differing, missing, extra, .. } = it;
            write!(f, "{table:<13} {rows:>10} {equal:>10} {differing:>10} {missing:>8} {extra:>8}")?;
            let excepted = [
                (it.unpublished, "not on the log yet"),
                (it.more, "remembered more: commands without a key"),
                (it.newer, "newer: the old one hasn't heard of them yet"),
            ];
            for (rows, what) in excepted.into_iter().filter(|(rows, _)| *rows > 0) {
                write!(f, "  {rows} {what}")?;
            }
            writeln!(f)?;
        }
        self.differences.iter().try_for_each(|difference| writeln!(f, "  {difference}"))
    }
}

/// Compares the store that was there with the one that was made from the log: their events, memory, open dead letters
/// and these `projections`. Neither is changed.
///
/// # Errors
/// If one of them doesn't answer.
pub async fn compare(
    projections: &[Table],
    old: &Database,
    new: &Database,
    progress: &dyn Progress,
) -> Result<Proof, RebuildError> {
    let mut proof = Proof::default();
    let unpublished =
        |table: &str, condition: &str| format!("SELECT 1 FROM {table} WHERE published = 0 AND {condition}");
    let comparison = |table, filter, unpublished, places| Comparison { table, filter, unpublished, places, old, new };
    let own = unpublished("events", "stream_id = $1 AND version = $2 LIMIT 1");
    comparison(EVENTS, ALL, own, &[0, 1][..]).run(&mut proof, progress).await?;
    let effect = unpublished("events", "causation_id = $1 LIMIT 1");
    comparison(INBOX, "done = 1", effect, &[1]).run(&mut proof, progress).await?;
    let letter = unpublished("dead_letters", "source = $1 AND id = $2");
    comparison(LETTERS, "state IN ('failed', 'parked')", letter, &[0, 1]).run(&mut proof, progress).await?;
    for table in projections {
        let stream = unpublished("events", "stream_id = $1 LIMIT 1");
        comparison(*table, ALL, stream, &[0]).run(&mut proof, progress).await?;
    }
    Ok(proof)
}

/// A row: its key, and the rest of it.
type Rows = Vec<(Vec<Value>, Vec<Value>)>;

struct Comparison<'a> {
    table: Table,
    /// Which rows count.
    filter: &'static str,
    /// Asks the old store whether a row follows from events that aren't on the log.
    unpublished: String,
    /// Which parts of the key that is asked with.
    places: &'a [usize],
    old: &'a Database,
    new: &'a Database,
}

impl Comparison<'_> {
    async fn run(&self, proof: &mut Proof, progress: &dyn Progress) -> Result<(), RebuildError> {
        let name = self.table.name;
        progress.begin(&format!("comparing {name}"), self.count(self.old, ALL).await?);
        let mut it = Compared::of(name);
        let (mut in_both, mut commands_in_both) = (0, 0);
        let mut after = None;
        loop {
            let page = self.page(self.old, after.as_deref()).await?;
            let Some((last, _)) = page.last() else { break };
            after = Some(last.clone());
            progress.advance(page.len() as u64);
            it.rows += page.len() as u64;
            let found = self.find(self.new, &page).await?;
            in_both += found.len() as u64;
            commands_in_both += found.keys().filter(|key| self.is_command(key)).count() as u64;
            for (key, old) in page {
                match found.get(&key) {
                    Some(new) if *new == old => it.equal += 1,
                    _ if self.is_unpublished(&key).await? => it.unpublished += 1,
                    Some(new) => {
                        it.differing += 1;
                        proof.tell(|| format!("{name} {}: {}", shown(&key), self.differing(&old, new)));
                    }
                    None => {
                        it.missing += 1;
                        proof.tell(|| format!("{name} {}: is missing in the rebuilt store", shown(&key)));
                    }
                }
            }
        }
        if self.table == INBOX {
            // The log doesn't say which commands had a key, so a rebuilt store remembers all of them.
            it.more = self.count(self.new, "source = 'command'").await?.saturating_sub(commands_in_both);
        }
        // What only the new store has must be looked for only where it has more rows than were found.
        if self.count(self.new, ALL).await? != in_both + it.more {
            self.extras(proof, &mut it).await?;
        }
        proof.tables.push(it);
        Ok(())
    }

    async fn extras(&self, proof: &mut Proof, it: &mut Compared) -> Result<(), RebuildError> {
        let mut after = None;
        loop {
            let page = self.page(self.new, after.as_deref()).await?;
            let Some((last, _)) = page.last() else { return Ok(()) };
            after = Some(last.clone());
            let known = self.find(self.old, &page).await?;
            for (key, _) in page.iter().filter(|(key, _)| !self.is_command(key) && !known.contains_key(key)) {
                it.extra += 1;
                proof.tell(|| format!("{} {}: isn't in the old store", self.table.name, shown(key)));
            }
        }
    }

    fn is_command(&self, key: &[Value]) -> bool {
        self.table == INBOX && key[0] == Value::from("command")
    }

    fn columns(&self) -> String {
        [self.table.key, self.table.columns].concat().join(", ")
    }

    fn row(&self, row: &Row) -> Result<(Vec<Value>, Vec<Value>), sqlx::Error> {
        let columns = 0..self.table.key.len() + self.table.columns.len();
        let mut key = columns.map(|column| row.value(column)).collect::<Result<Vec<_>, _>>()?;
        let mut rest = key.split_off(self.table.key.len());
        if self.table == LETTERS
            && let Some(event) = rest.last_mut()
            && let Some(record) = record_of(&event.to_string())
        {
            *event = record.into();
        }
        Ok((key, rest))
    }

    async fn page(&self, database: &Database, after: Option<&[Value]>) -> Result<Rows, sqlx::Error> {
        let (columns, filter, key) = (self.columns(), self.filter, self.table.key.join(", "));
        let mut values = after.map(<[Value]>::to_vec).unwrap_or_default();
        let behind =
            if values.is_empty() { String::new() } else { format!("AND ({key}) > {}", placeholders(1, values.len())) };
        values.push(PAGE.into());
        let sql = format!(
            "SELECT {columns} FROM {} WHERE {filter} {behind} ORDER BY {key} LIMIT ${}",
            self.table.name,
            values.len()
        );
        database.fetch(sql, values).await?.iter().map(|row| self.row(row)).collect()
    }

    /// The rows that have the same keys.
    async fn find(&self, database: &Database, page: &Rows) -> Result<HashMap<Vec<Value>, Vec<Value>>, sqlx::Error> {
        let mut found = HashMap::new();
        for piece in lists(page.iter().map(|(key, _)| key.clone()).collect()) {
            let wanted = placeholders(piece.len(), self.table.key.len());
            let (columns, key, filter) = (self.columns(), self.table.key.join(", "), self.filter);
            let sql =
                format!("SELECT {columns} FROM {} WHERE {filter} AND ({key}) IN (VALUES {wanted})", self.table.name);
            for row in database.fetch(sql, piece.into_iter().flatten().collect::<Vec<_>>()).await? {
                let (key, rest) = self.row(&row)?;
                found.insert(key, rest);
            }
        }
        Ok(found)
    }

    async fn count(&self, database: &Database, condition: &str) -> Result<u64, sqlx::Error> {
        let sql = format!("SELECT COUNT(*) FROM {} WHERE {} AND {condition}", self.table.name, self.filter);
        let rows = database.fetch_at_leisure(sql, []).await?;
        let count = rows.first().ok_or(sqlx::Error::RowNotFound)?.int(0)?;
        Ok(u64::try_from(count).unwrap_or_default())
    }

    async fn is_unpublished(&self, key: &[Value]) -> Result<bool, sqlx::Error> {
        let values: Vec<Value> = self.places.iter().map(|place| key[*place].clone()).collect();
        Ok(!self.old.fetch(self.unpublished.clone(), values).await?.is_empty())
    }

    fn differing(&self, old: &[Value], new: &[Value]) -> String {
        let pairs = self.table.columns.iter().zip(old.iter().zip(new));
        let differing = pairs.filter(|(_, (old, new))| old != new);
        let each = differing.map(|(column, (old, new))| format!("{column} was {old}, is {new}"));
        each.collect::<Vec<_>>().join("; ")
    }
}

/// A letter's event as the record that it is on the log: JSON may spell the same event in several ways.
fn record_of(event: &str) -> Option<String> {
    let record = to_record(from_json(serde_json::from_str(event).ok()?).ok()?).ok()?;
    serde_json::to_string(&record).ok()
}

fn shown(key: &[Value]) -> String {
    key.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}
