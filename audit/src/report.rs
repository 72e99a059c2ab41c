//! What an audit has found, as a table and, where something doesn't hold, with the stories of the first orders that it
//! doesn't hold for.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use serde::Serialize;

/// Orders that are named, at most, and findings about each.
const NAMED: usize = 10;
const FINDINGS: usize = 8;

/// What is checked, in the order of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Check {
    Streams,
    Published,
    Stored,
    Commands,
    States,
    Causes,
    Ends,
    Money,
    Ledger,
    Rides,
    Inbox,
    Views,
    Timelines,
    Sums,
}

impl Check {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::Streams,
        Self::Published,
        Self::Stored,
        Self::Commands,
        Self::States,
        Self::Causes,
        Self::Ends,
        Self::Money,
        Self::Ledger,
        Self::Rides,
        Self::Inbox,
        Self::Views,
        Self::Timelines,
        Self::Sums,
    ];

    /// What holds if it holds.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::Streams => "streams stand on the log in version order, repeats with the same bytes",
            Self::Published => "what is stored is on the log, byte for byte",
            Self::Stored => "what is on the log is stored",
            Self::Commands => "every accepted command has its events",
            Self::States => "every stream obeys its state machine",
            Self::Causes => "every event has its cause on the log, or is a command's",
            Self::Ends => "every story has one end",
            Self::Money => "payments: what was taken and not given back is what was delivered",
            Self::Ledger => "the provider's ledger says the same",
            Self::Rides => "no driver carried two orders at once",
            Self::Inbox => "every event had its effect once, and is remembered for it",
            Self::Views => "every view is the fold of the log",
            Self::Timelines => "every timeline is the log's",
            Self::Sums => "the counts are those of the views",
        }
    }
}

/// Of whom something is told. While the log is read only hashes are kept of most things; the names are looked up for
/// what is told in the end.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Who {
    /// An order's, kitchen's or driver's id.
    Subject(String),
    /// Whatever the event with this id hash is about.
    Event(u64),
    /// Whatever has an effect with this hash: see `inbox`.
    Effect(u64),
    /// Nobody that could be named.
    Nobody,
}

/// One thing that doesn't hold.
#[derive(Debug, Clone)]
pub(crate) struct Finding {
    pub check: Check,
    /// Service and version of the event that differs, if it is one.
    pub at: Option<(usize, i64)>,
    pub what: String,
}

/// What is gathered while the audit goes on.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub checked: BTreeMap<Check, u64>,
    pub failed: BTreeMap<Check, u64>,
    pub notes: BTreeMap<Check, Vec<String>>,
    pub findings: BTreeMap<Who, Vec<Finding>>,
}

impl Tally {
    pub fn checked(&mut self, check: Check, count: usize) {
        *self.checked.entry(check).or_default() += count as u64;
    }

    pub fn note(&mut self, check: Check, note: String) {
        self.notes.entry(check).or_default().push(note);
    }

    /// Something doesn't hold. All are counted, the first are told.
    pub fn fail(&mut self, check: Check, who: Who, at: Option<(usize, i64)>, what: impl Into<String>) {
        *self.failed.entry(check).or_default() += 1;
        if self.findings.len() < NAMED || self.findings.contains_key(&who) {
            let about = self.findings.entry(who).or_default();
            if about.len() < FINDINGS {
                about.push(Finding { check, at, what: what.into() });
            }
        }
    }
}

/// A line of the table.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    pub check: Check,
    pub title: &'static str,
    pub checked: u64,
    pub failed: u64,
    /// What else is to be said.
    pub notes: Vec<String>,
    /// Why it was not, or not wholly, checked.
    pub skipped: Option<String>,
}

/// An order for which something doesn't hold.
#[derive(Debug, Clone, Serialize)]
pub struct Differing {
    /// The order's id, or a kitchen's or driver's.
    pub id: String,
    pub findings: Vec<Told>,
    /// Everything on the log that belongs to it, in order of time.
    pub timeline: Vec<Step>,
}

/// One thing that doesn't hold.
#[derive(Debug, Clone, Serialize)]
pub struct Told {
    pub check: Check,
    pub what: String,
}

/// An event in the timeline of an order.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Step {
    pub time: String,
    pub source: String,
    pub subject: String,
    pub sequence: i64,
    #[serde(rename = "type")]
    pub event_type: String,
    pub id: String,
    pub causation_id: String,
    /// Where it stands.
    pub partition: i32,
    pub offset: i64,
    /// What is wrong with it.
    pub differs: Vec<String>,
}

/// An order that waits behind a dead letter, and so is judged apart.
#[derive(Debug, Clone, Serialize)]
pub struct Excepted {
    pub id: String,
    /// The service that could not handle something of it, and what became of the letter.
    pub service: String,
    pub state: String,
    pub reason: String,
    /// Letters of this order and service.
    pub letters: usize,
}

/// Orders, by what became of them.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Orders {
    pub placed: u64,
    pub completed: u64,
    pub cancelled: u64,
    pub unfinished: u64,
    pub excepted: u64,
}

/// What an audit has found.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    pub passed: bool,
    pub orders: Orders,
    /// Records that were read, first occurrences and repeats.
    pub records: u64,
    /// Of them, those that stood there before with the same bytes.
    pub repeats: u64,
    /// Records that are no event of ours: they had no effect, and lie in dead letters or concern nobody.
    pub foreign: u64,
    /// Events that are stored and not published yet.
    pub unpublished: u64,
    pub checks: Vec<Row>,
    pub excepted: Vec<Excepted>,
    pub differing: Vec<Differing>,
}

impl Report {
    /// The ids that something doesn't hold for, those that are named.
    #[must_use]
    pub fn differing_ids(&self) -> BTreeSet<&str> {
        self.differing.iter().map(|one| one.id.as_str()).collect()
    }

    /// How often a check failed.
    #[must_use]
    pub fn failed(&self, check: Check) -> u64 {
        self.checks.iter().find(|row| row.check == check).map_or(0, |row| row.failed)
    }
}

/// 1234567 as 1,234,567.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let groups: Vec<_> = digits.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy).collect();
    groups.join(",")
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for one in &self.differing {
            writeln!(f, "{one}")?;
        }
        for one in &self.excepted {
            let more = if one.letters > 1 { format!(", and {} more", one.letters - 1) } else { String::new() };
            writeln!(f, "behind a dead letter: {} ({} {}: {}{more})", one.id, one.service, one.state, one.reason)?;
        }
        let width = Check::ALL.iter().map(|check| check.title().len()).max().unwrap_or_default();
        writeln!(f, "{:<width$} {:>12} {:>8}", "", "checked", "failed")?;
        for row in &self.checks {
            let skipped = row.skipped.as_ref().map(|why| format!("  SKIPPED: {why}")).unwrap_or_default();
            let notes = row.notes.iter().map(|note| format!("  {note}")).collect::<String>();
            let mark = if row.failed > 0 { "  ✗" } else { "" };
            let (checked, failed) = (grouped(row.checked), grouped(row.failed));
            writeln!(f, "{:<width$} {checked:>12} {failed:>8}{mark}{notes}{skipped}", row.title)?;
        }
        let Orders { placed, completed, cancelled, unfinished, excepted } = self.orders;
        let numbers = [placed, completed, cancelled, unfinished, excepted].map(grouped);
        let [placed, completed, cancelled, unfinished, excepted] = numbers;
        writeln!(
            f,
            "{placed} orders: {completed} completed, {cancelled} cancelled, {unfinished} unfinished, {excepted} behind \
             a dead letter"
        )?;
        let numbers = [self.records, self.repeats, self.foreign, self.unpublished].map(grouped);
        let [records, repeats, foreign, unpublished] = numbers;
        write!(
            f,
            "{records} records, of them {repeats} repeats and {foreign} foreign; {unpublished} events not published yet"
        )
    }
}

impl fmt::Display for Differing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.id)?;
        for finding in &self.findings {
            writeln!(f, "  ✗ {}", finding.what)?;
        }
        for step in &self.timeline {
            let name = eventing::name_and_version(&step.event_type).map_or(&*step.event_type, |(name, _)| name);
            let whose = if step.subject == self.id { String::new() } else { format!(" {}", step.subject) };
            let Step { time, sequence, partition, offset, .. } = step;
            let source = step.source.trim_start_matches('/');
            let differs = if step.differs.is_empty() { "" } else { "  ✗ " };
            writeln!(
                f,
                "    {time:<27} {source:<10} {sequence:>3}  {name:<32} {partition:>3}/{offset:<8}{whose}{differs}{}",
                step.differs.join("; ")
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_in_groups() {
        assert_eq!([0, 999, 1000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
    }

    #[test]
    fn all_failures_are_counted_and_the_first_orders_told() {
        let mut tally = Tally::default();
        for order in 0..50 {
            for number in 0..20 {
                tally.fail(Check::Money, Who::Subject(format!("{order:02}")), None, format!("{number}"));
            }
        }
        assert_eq!(tally.failed[&Check::Money], 1000);
        assert_eq!(tally.findings.len(), NAMED);
        assert!(tally.findings.values().all(|findings| findings.len() == FINDINGS));
    }
}
