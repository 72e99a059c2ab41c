//! The rebuilt view compared with the live one, row by row, in the transaction that keeps the live one from going on.
//! The rebuilt one may be ahead: it holds what is on the log, the live one what it was told.

use std::{collections::HashSet, sync::Arc};

use event_sourcing::{Value, Write, placeholders};
use eventing::{
    Incoming, from_record,
    log::{EventLog, LogError, Scan, Stretch},
    rebuild::{Proof, Table, proof::Compared},
};

use super::{RebuildError, TABLES};
use crate::views::{DriverView, KitchenView, OrderView, View};

/// Rows that are looked at together.
const PAGE: i64 = 1_000;
/// Events in flight that are told apart, at most.
const IN_FLIGHT: u64 = 1_000_000;

/// What the live view may not have heard of yet: the subjects, and the orders they belong to, of the events behind its
/// group's position.
pub(super) enum InFlight {
    These(HashSet<String>),
    /// More than can be told apart.
    Anything,
}

impl InFlight {
    pub async fn read(log: &Arc<dyn EventLog>, group: &str, topics: &[String]) -> Result<Self, LogError> {
        let lags = log.lag(group, topics).await?;
        let behind = lags.into_iter().map(|it| Stretch { partition: it.partition, from: it.committed, to: it.end });
        let behind: Vec<Stretch> = behind.collect();
        if behind.iter().map(Stretch::records).sum::<u64>() > IN_FLIGHT {
            return Ok(Self::Anything);
        }
        let mut these = HashSet::new();
        let mut scan = Scan::of(log.clone(), behind);
        while let Some(batch) = scan.next().await? {
            for stored in batch.records {
                if let Some(event) = from_record(&stored.record).ok().and_then(|it| Incoming::read(it).ok()) {
                    these.extend([event.subject, event.correlation_id]);
                }
            }
        }
        Ok(Self::These(these))
    }

    /// Whether the row may not be up to date: sums aren't as long as anything is in flight.
    fn has(&self, table: &str, key: &str) -> bool {
        match self {
            Self::These(these) if table == "stats" => !these.is_empty(),
            Self::These(these) => these.contains(key),
            Self::Anything => true,
        }
    }
}

/// Compares all tables; `None` if there is nothing in the live ones.
pub(super) async fn compare(write: &mut Write, in_flight: &InFlight) -> Result<Option<Proof>, RebuildError> {
    let mut proof = Proof::default();
    for table in &TABLES {
        let mut it = Compared::of(table.name);
        let rows = write.fetch(format!("SELECT COUNT(*) FROM {}", table.name), []).await?;
        let rows = rows.first().ok_or(sqlx::Error::RowNotFound)?.int(0)?;
        it.rows = u64::try_from(rows).unwrap_or_default();
        live_rows(write, table, in_flight, &mut it, &mut proof).await?;
        extra_rows(write, table, in_flight, &mut it, &mut proof).await?;
        proof.tables.push(it);
    }
    // Sums of nothing are there from the beginning.
    Ok(proof.tables.iter().any(|it| it.rows > 0 && it.table != "stats").then_some(proof))
}

/// `{table}.{column}`, each.
fn of(table: &str, columns: &[&str]) -> Vec<String> {
    columns.iter().map(|column| format!("{table}.{column}")).collect()
}

/// The keys of the rows of `rows` for which `condition` holds, with what else is asked of them; in pages.
async fn differing(
    write: &mut Write,
    table: &Table,
    [rows, others]: [&str; 2],
    condition: &str,
    and: &str,
    after: &[Value],
) -> Result<Vec<Vec<Value>>, sqlx::Error> {
    let key = of(rows, table.key);
    let same: Vec<String> =
        key.iter().zip(of(others, table.key)).map(|(ours, theirs)| format!("{ours} = {theirs}")).collect();
    let (key, same) = (key.join(", "), same.join(" AND "));
    let behind =
        if after.is_empty() { String::new() } else { format!("AND ({key}) > {}", placeholders(1, after.len())) };
    let mut values = after.to_vec();
    values.push(PAGE.into());
    let sql = format!(
        "SELECT {key}{and} FROM {rows} LEFT JOIN {others} ON {same} WHERE ({condition}) {behind} \
         ORDER BY {key} LIMIT ${}",
        values.len()
    );
    let found = write.fetch(sql, values).await?;
    let columns = table.key.len() + usize::from(!and.is_empty()) * 3;
    found.iter().map(|row| (0..columns).map(|column| row.value(column)).collect()).collect()
}

async fn live_rows(
    write: &mut Write,
    table: &Table,
    in_flight: &InFlight,
    it: &mut Compared,
    proof: &mut Proof,
) -> Result<(), RebuildError> {
    let rebuilt = format!("{}_rebuilt", table.name);
    let missing = format!("{rebuilt}.{} IS NULL", table.key[0]);
    let pairs = of(table.name, table.columns).into_iter().zip(of(&rebuilt, table.columns));
    let unlike: Vec<String> = pairs.map(|(live, rebuilt)| format!("{live} <> {rebuilt}")).collect();
    let condition = format!("{missing} OR {}", unlike.join(" OR "));
    let last = table.columns[table.columns.len() - 1];
    let text = |table: &str| format!("COALESCE(CAST({table}.{last} AS TEXT), '')");
    let and = format!(", CASE WHEN {missing} THEN 1 ELSE 0 END, {}, {}", text(table.name), text(&rebuilt));
    let mut after = Vec::new();
    loop {
        let found = differing(write, table, [table.name, &rebuilt], &condition, &and, &after).await?;
        let Some(page_end) = found.last() else { break };
        after = page_end[..table.key.len()].to_vec();
        for mut key in found {
            let said = key.split_off(table.key.len());
            let [live, rebuilt] = [1, 2].map(|place| said[place].to_string());
            if said[0] == Value::Int(1) {
                it.missing += 1;
                proof.tell(|| format!("{} {}: is missing in the rebuilt view", table.name, shown(&key)));
            } else if in_flight.has(table.name, &key[0].to_string()) && goes_on(table.name, &live, &rebuilt) {
                it.newer += 1;
            } else {
                it.differing += 1;
                proof.tell(|| format!("{} {}: was {live}, is {rebuilt}", table.name, shown(&key)));
            }
        }
    }
    it.equal = it.rows - it.missing - it.newer - it.differing;
    Ok(())
}

async fn extra_rows(
    write: &mut Write,
    table: &Table,
    in_flight: &InFlight,
    it: &mut Compared,
    proof: &mut Proof,
) -> Result<(), RebuildError> {
    let rebuilt = format!("{}_rebuilt", table.name);
    let condition = format!("{}.{} IS NULL", table.name, table.key[0]);
    let mut after = Vec::new();
    loop {
        let found = differing(write, table, [&rebuilt, table.name], &condition, "", &after).await?;
        let Some(page_end) = found.last() else { return Ok(()) };
        after.clone_from(page_end);
        for key in found {
            if in_flight.has(table.name, &key[0].to_string()) {
                it.newer += 1;
            } else {
                it.extra += 1;
                proof.tell(|| format!("{} {}: isn't in the live view", table.name, shown(&key)));
            }
        }
    }
}

/// Whether the rebuilt row was computed from at least what the live one was.
fn goes_on(table: &str, live: &str, rebuilt: &str) -> bool {
    fn both<V: View>(live: &str, rebuilt: &str, covers: impl Fn(&V, &V) -> bool) -> bool {
        let read = |text| serde_json::from_str::<V>(text).ok();
        read(rebuilt).zip(read(live)).is_some_and(|(rebuilt, live)| covers(&rebuilt, &live))
    }
    match table {
        "orders" => both::<OrderView>(live, rebuilt, |rebuilt, live| {
            live.sequences.iter().all(|(source, sequence)| rebuilt.sequence(source) >= *sequence)
        }),
        "kitchens" => both::<KitchenView>(live, rebuilt, |rebuilt, live| rebuilt.sequence >= live.sequence),
        "drivers" => both::<DriverView>(live, rebuilt, |rebuilt, live| rebuilt.sequence >= live.sequence),
        // What is in flight is added.
        "stats" => true,
        // A step never changes.
        _ => false,
    }
}

fn shown(key: &[Value]) -> String {
    key.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}
