//! The stores against the log, in both directions. What the log has of a subject is looked up in the store while its
//! slice is in memory; what a store has beyond that is found by one walk through its streams at the end.

use std::collections::HashSet;

use event_sourcing::{Database, Recorded, Row, Value, lists, placeholders};
use eventing::{published, to_record};

use crate::{
    AuditError,
    report::{Check, Who},
    run::{Audit, Stories},
    services::{SERVICES, hash, hash_of},
    slices::{Scan, Slice},
};

/// Rows that are read at a time.
pub const PAGE: i64 = 1000;
/// Longer streams (drivers, kitchens) are read page by page.
const SHORT: usize = 64;

const COLUMNS: &str = "stream_id, version, id, type, time, correlation_id, causation_id, traceparent, tracestate, \
                       data, published";

/// A stored event that wasn't on the log when it was looked up.
#[derive(Debug)]
pub struct Missing {
    service: usize,
    subject: String,
    version: i64,
    record: u64,
    published: bool,
}

/// The rows whose `key` is one of `keys`, some at a time.
pub fn keyed<'a>(
    database: &'a Database,
    columns: &'a str,
    table: &'a str,
    key: &'a str,
    keys: Vec<String>,
) -> impl Iterator<Item = impl Future<Output = Result<Vec<Row>, sqlx::Error>> + 'a> {
    lists(keys).map(move |piece| {
        let wanted = placeholders(piece.len(), 1);
        let sql = format!("SELECT {columns} FROM {table} WHERE {key} IN (VALUES {wanted})");
        database.fetch(sql, piece.into_iter().map(Value::from).collect::<Vec<_>>())
    })
}

fn recorded(row: &Row) -> Result<Recorded, sqlx::Error> {
    Ok(Recorded {
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
    })
}

impl Audit<'_> {
    /// Looks up in a service's store what the log has of its streams; what the store has beyond that is returned.
    pub async fn compare_store(
        &mut self,
        service: usize,
        database: &Database,
        stories: &mut Stories,
    ) -> Result<Vec<Missing>, AuditError> {
        let mut missing = Vec::new();
        let mut short = Vec::new();
        let mut long = Vec::new();
        for (subject, story) in stories.iter() {
            match story.streams[service].len() {
                0 => {}
                1..=SHORT => short.push(subject.clone()),
                _ => long.push(subject.clone()),
            }
        }
        for rows in keyed(database, COLUMNS, "events", "stream_id", short) {
            for row in rows.await.map_err(AuditError::store(SERVICES[service].name))? {
                self.compare_row(service, &row, stories, &mut missing)?;
            }
        }
        let sql =
            format!("SELECT {COLUMNS} FROM events WHERE stream_id = $1 AND version > $2 ORDER BY version LIMIT $3");
        for subject in long {
            let mut after = 0;
            loop {
                let rows = database.fetch(&*sql, [subject.as_str().into(), after.into(), PAGE.into()]).await;
                let rows = rows.map_err(AuditError::store(SERVICES[service].name))?;
                let Some(last) = rows.last() else { break };
                after = last.int(1).map_err(AuditError::store(SERVICES[service].name))?;
                for row in &rows {
                    self.compare_row(service, row, stories, &mut missing)?;
                }
            }
        }
        Ok(missing)
    }

    fn compare_row(
        &mut self,
        service: usize,
        row: &Row,
        stories: &mut Stories,
        missing: &mut Vec<Missing>,
    ) -> Result<(), AuditError> {
        let broken = AuditError::store(SERVICES[service].name);
        let (event, published_before) =
            recorded(row).and_then(|event| Ok((event, row.int(10)? == 1))).map_err(broken)?;
        self.tally.checked(Check::Published, 1);
        // The record that a service would publish for what is stored now.
        let record = published(SERVICES[service].source, &event).and_then(to_record);
        let at = Some((service, event.version));
        let record = match record {
            Ok(record) => hash_of(&record),
            Err(error) => {
                let what = format!("event {} is stored, and can't be published: {error}", event.version);
                self.tally.fail(Check::Published, Who::Subject(event.stream_id), at, what);
                return Ok(());
            }
        };
        let Some(seen) = stories.get_mut(&event.stream_id).and_then(|story| story.at(service, event.version)) else {
            let Recorded { stream_id: subject, version, .. } = event;
            missing.push(Missing { service, subject, version, record, published: published_before });
            return Ok(());
        };
        seen.stored = true;
        if seen.record != record {
            let what = format!("{} {}: store and log have other bytes", SERVICES[service].source, event.version);
            self.tally.fail(Check::Published, Who::Subject(event.stream_id), at, what);
        }
        Ok(())
    }

    /// Judges what was stored and not on the log, now that the log was read on: whatever was marked as published before
    /// must have come.
    pub fn judge_missing(&mut self, missing: Vec<Missing>, stories: &mut Stories) {
        for Missing { service, subject, version, record, published } in missing {
            let at = Some((service, version));
            let source = SERVICES[service].source;
            let came = stories.get_mut(&subject).and_then(|story| story.at(service, version)).map(|seen| {
                seen.stored = true;
                seen.record
            });
            let what = match came {
                Some(came) if came == record => continue,
                Some(_) => format!("{source} {version}: store and log have other bytes"),
                None if published => format!("{source} {version} is stored as published, and not on the log"),
                None => {
                    self.unpublished += 1;
                    if self.options.in_flight {
                        continue;
                    }
                    format!("{source} {version} is stored, and not published yet")
                }
            };
            self.tally.fail(Check::Published, Who::Subject(subject), at, what);
        }
    }

    /// Judges what is on the log and not in the store.
    pub fn judge_stored(&mut self, service: usize, stories: &mut Stories) {
        for (subject, story) in stories.iter_mut() {
            for seen in &mut story.streams[service] {
                self.tally.checked(Check::Stored, usize::from(!seen.late));
                if seen.stored || seen.late {
                    continue;
                }
                if self.letters.tell_of(seen.id) {
                    // Somebody else put it there; nobody here could handle it, and a letter says so.
                    seen.foreign = true;
                    self.foreign += 1;
                    continue;
                }
                let what = format!("{} {} is on the log, and not stored", SERVICES[service].source, seen.version);
                let at = Some((service, seen.version));
                self.tally.fail(Check::Stored, Who::Subject(subject.clone()), at, what);
            }
        }
    }

    /// Finds the streams of a store of which the log knows nothing; while the system runs, those among them that should
    /// be on the log are returned, to be looked for once more.
    pub async fn sweep_store(
        &mut self,
        service: usize,
        database: &Database,
    ) -> Result<Vec<(usize, String)>, AuditError> {
        let broken = || AuditError::store(SERVICES[service].name);
        self.streams[service].settle();
        let mut unknown = Vec::new();
        let mut after = String::new();
        let sql = "SELECT DISTINCT stream_id FROM events WHERE stream_id > $1 ORDER BY stream_id LIMIT $2";
        loop {
            let rows = database.fetch(sql, [after.as_str().into(), PAGE.into()]).await.map_err(broken())?;
            let Some(last) = rows.last() else { break };
            after = last.text(0).map_err(broken())?;
            for row in &rows {
                let subject = row.text(0).map_err(broken())?;
                if !self.streams[service].contains(hash(&[subject.as_bytes()])) {
                    unknown.push(subject);
                }
            }
        }
        let mut should_be_there = Vec::new();
        for subject in unknown {
            let sql = "SELECT version, published FROM events WHERE stream_id = $1 ORDER BY version";
            let rows = database.fetch(sql, [subject.as_str().into()]).await.map_err(broken())?;
            self.tally.checked(Check::Published, rows.len());
            let published = rows.iter().filter_map(|row| row.int(1).ok()).filter(|published| *published == 1).count();
            self.unpublished += (rows.len() - published) as u64;
            if self.options.in_flight {
                if published > 0 {
                    should_be_there.push((service, subject));
                }
            } else {
                let what = format!(
                    "{}: none of {} stored events is on the log; {published} are marked as published",
                    SERVICES[service].source,
                    rows.len()
                );
                self.tally.fail(Check::Published, Who::Subject(subject), None, what);
            }
        }
        Ok(should_be_there)
    }

    /// Looks for streams that the log didn't have in what has been appended since.
    pub async fn look_again(
        &mut self,
        slices: &mut [Slice],
        should_be_there: Vec<(usize, String)>,
    ) -> Result<(), AuditError> {
        if should_be_there.is_empty() {
            return Ok(());
        }
        let log = &*self.deployment.log;
        let mut came = HashSet::new();
        for slice in slices {
            for (service, partition, begin, end) in slice.tail(log).await?.partitions {
                let mut scan = Scan::new(log, &partition, begin, end);
                loop {
                    let records = scan.next().await?;
                    if records.is_empty() {
                        break;
                    }
                    let keys = records.into_iter().filter_map(|stored| stored.record.key);
                    came.extend(keys.map(|key| (service, key)));
                }
            }
        }
        for (service, subject) in should_be_there {
            if !came.contains(&(service, subject.clone().into_bytes())) {
                let what = format!("{}: stored as published, and not on the log", SERVICES[service].source);
                self.tally.fail(Check::Published, Who::Subject(subject), None, what);
            }
        }
        Ok(())
    }
}
