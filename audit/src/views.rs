//! The query service's views against a fold of the log. The folds are the ones it uses itself, which are pure and have
//! tests of their own; how they are kept is what is proved here.

use std::collections::{BTreeMap, BTreeSet};

use event_sourcing::{Database, Row};
use query::views::{DriverView, KitchenView, OrderView, View};

use crate::{
    AuditError,
    report::{Check, Who},
    run::{Audit, Stories},
    services::{QUERY, SERVICES, hash},
    stores::{PAGE, keyed},
    story::{Fold, step},
};

const TABLES: [(&str, &str); 3] = [("orders", "order_id"), ("kitchens", "kitchen_id"), ("drivers", "driver_id")];

impl Fold {
    fn table(&self) -> usize {
        match self {
            Self::Order(_) => 0,
            Self::Kitchen(_) => 1,
            Self::Driver(_) => 2,
        }
    }

    /// How far it has come in the stream of each service.
    fn sequences(&self) -> [i64; 4] {
        let of = |source: &str| match self {
            Self::Order(view) => view.sequence(source),
            Self::Kitchen(view) => view.sequence(source),
            Self::Driver(view) => view.sequence(source),
        };
        std::array::from_fn(|service| of(SERVICES[service].source))
    }
}

/// A row as the view that it holds; an error says how its columns contradict it.
fn read(table: usize, row: &Row) -> Result<Result<Fold, String>, sqlx::Error> {
    Ok(Ok(match table {
        0 => {
            let view: OrderView = row.json(1)?;
            let columns = (row.text(2)?, row.text(3)?, row.text(4)?, row.int(5)?);
            let placed = i64::from(view.placed_at.is_some());
            let expected = (view.customer_id.clone(), view.kitchen_id.clone(), view.status.as_str().to_owned(), placed);
            if columns != expected {
                return Ok(Err(format!("its columns are {columns:?} and its view says {expected:?}")));
            }
            Fold::Order(Box::new(view))
        }
        1 => Fold::Kitchen(row.json::<KitchenView>(1)?),
        _ => Fold::Driver(row.json::<DriverView>(1)?),
    }))
}

impl Audit<'_> {
    /// Compares the rows of everybody in `stories`.
    pub async fn compare_views(&mut self, database: &Database, stories: &Stories) -> Result<(), AuditError> {
        for (table, (name, key)) in TABLES.into_iter().enumerate() {
            let ours = |fold: &Option<Fold>| fold.as_ref().is_some_and(|fold| fold.table() == table);
            let subjects: Vec<_> =
                stories.iter().filter(|(_, story)| ours(&story.fold)).map(|(subject, _)| subject.clone()).collect();
            let mut found = 0;
            let columns = match table {
                0 => format!("{key}, view, customer_id, kitchen_id, status, placed"),
                _ => format!("{key}, view"),
            };
            let mut missing: BTreeSet<&str> = subjects.iter().map(String::as_str).collect();
            for rows in keyed(database, &columns, name, key, subjects.clone()) {
                for row in rows.await.map_err(AuditError::store(QUERY))? {
                    let subject = row.text(0).map_err(AuditError::store(QUERY))?;
                    missing.remove(&*subject);
                    found += 1;
                    self.compare_view(table, &subject, &row, stories);
                }
            }
            self.tally.checked(Check::Views, found);
            for subject in missing {
                self.views_behind += 1;
                if !self.options.in_flight && !self.letters.hide(subject) {
                    let what = format!("has no row among the views of {name}");
                    self.tally.fail(Check::Views, Who::Subject(subject.to_owned()), None, what);
                }
            }
        }
        Ok(())
    }

    fn compare_view(&mut self, table: usize, subject: &str, row: &Row, stories: &Stories) {
        let Some(fold) = stories.get(subject).and_then(|story| story.fold.as_ref()) else { return };
        if self.letters.hide(subject) {
            return;
        }
        let what = match read(table, row) {
            Err(error) => format!("its view can't be read: {error}"),
            Ok(Err(contradiction)) => contradiction,
            Ok(Ok(view)) if view == *fold => return,
            Ok(Ok(view)) => {
                let (shown, expected) = (view.sequences(), fold.sequences());
                if shown != expected && self.options.in_flight {
                    self.views_behind += 1;
                    return;
                }
                difference(&view, fold)
            }
        };
        self.tally.fail(Check::Views, Who::Subject(subject.to_owned()), None, what);
    }

    /// Compares the timelines of the orders in `stories`.
    pub async fn compare_timelines(&mut self, database: &Database, stories: &mut Stories) -> Result<(), AuditError> {
        let subjects: Vec<_> =
            stories.iter().filter(|(_, story)| story.is_order).map(|(subject, _)| subject.clone()).collect();
        let columns = "order_id, source, subject, sequence, id, type, time, causation_id";
        for rows in keyed(database, columns, "timeline", "order_id", subjects) {
            for row in rows.await.map_err(AuditError::store(QUERY))? {
                self.compare_step(&row, stories).map_err(AuditError::store(QUERY))?;
            }
        }
        for (subject, story) in stories.iter().filter(|(_, story)| story.is_order) {
            let steps = || story.streams.iter().flatten().filter(|seen| !seen.late);
            let shown = steps().filter(|seen| seen.shown).count();
            if shown != steps().count() && !self.options.in_flight && !self.letters.hide(subject) {
                let what = format!("its timeline shows {shown} of {} events", steps().count());
                self.tally.fail(Check::Timelines, Who::Subject(subject.clone()), None, what);
            }
        }
        Ok(())
    }

    fn compare_step(&mut self, row: &Row, stories: &mut Stories) -> Result<(), sqlx::Error> {
        let (order, source, subject, sequence) = (row.str(0)?, row.str(1)?, row.str(2)?, row.int(3)?);
        self.tally.checked(Check::Timelines, 1);
        let step = step(source, subject, sequence, [row.str(4)?, row.str(5)?, row.str(6)?, row.str(7)?]);
        if subject != order {
            // A driver's, whose stream is in another slice.
            if let Some(ride) = self.rides.with(order) {
                ride.in_the_view = ride.in_the_view.wrapping_add(step);
            }
            return Ok(());
        }
        let service = SERVICES.iter().position(|service| service.source == source);
        let seen = service.and_then(|service| Some((service, stories.get_mut(order)?.at(service, sequence)?)));
        let wrong = match seen {
            Some((_, seen)) if seen.step == step => {
                seen.shown = true;
                return Ok(());
            }
            Some((service, seen)) => {
                seen.shown = true;
                (Some((service, sequence)), format!("its timeline tells {source} {sequence} otherwise"))
            }
            None if self.options.in_flight => return Ok(()),
            None => (None, format!("its timeline tells of {source} {sequence}, which is not on the log")),
        };
        if !self.letters.hide(order) {
            self.tally.fail(Check::Timelines, Who::Subject(order.to_owned()), wrong.0, wrong.1);
        }
        Ok(())
    }

    /// Finds rows about whom the log says nothing; while the system runs, they may have come since.
    pub async fn sweep_views(&mut self, database: &Database) -> Result<(), AuditError> {
        if self.options.in_flight {
            return Ok(());
        }
        self.folded.settle();
        for (table, key) in TABLES.into_iter().chain([("timeline", "order_id")]) {
            let distinct = if table == "timeline" { "DISTINCT" } else { "" };
            let sql = format!("SELECT {distinct} {key} FROM {table} WHERE {key} > $1 ORDER BY {key} LIMIT $2");
            let mut after = String::new();
            loop {
                let rows = database.fetch(&*sql, [after.as_str().into(), PAGE.into()]).await;
                let rows = rows.map_err(AuditError::store(QUERY))?;
                let Some(last) = rows.last() else { break };
                after = last.text(0).map_err(AuditError::store(QUERY))?;
                for row in &rows {
                    let subject = row.text(0).map_err(AuditError::store(QUERY))?;
                    if !self.folded.contains(hash(&[subject.as_bytes()])) {
                        let what = format!("has a row in {table}, and the log says nothing of it");
                        let check = if table == "timeline" { Check::Timelines } else { Check::Views };
                        self.tally.fail(check, Who::Subject(subject), None, what);
                    }
                }
            }
        }
        Ok(())
    }
}

impl Audit<'_> {
    /// Compares what the views are added up to. As long as anything is on its way or lies in the dead letters, it isn't
    /// added yet.
    pub async fn compare_sums(&mut self, database: &Database) -> Result<(), AuditError> {
        if self.options.in_flight || self.letters.hide_any() {
            self.tally.note(Check::Sums, "not compared: the views have not heard of everything".to_owned());
            return Ok(());
        }
        let rows = database.fetch("SELECT minute, name, value FROM stats WHERE value <> 0", []).await;
        let rows = rows.map_err(AuditError::store(QUERY))?;
        let row = |row: &Row| Ok(((row.int(0)?, row.text(1)?), row.int(2)?));
        let kept: BTreeMap<_, _> = rows.iter().map(row).collect::<Result<_, _>>().map_err(AuditError::store(QUERY))?;
        let expected: BTreeMap<_, _> = self.sums.rows().map(|(minute, name, value)| ((minute, name), value)).collect();
        self.tally.checked(Check::Sums, expected.len());
        let all: BTreeSet<_> = kept.keys().chain(expected.keys()).collect();
        for (minute, name) in all {
            let of = |sums: &BTreeMap<_, i64>| sums.get(&(*minute, name.clone())).copied().unwrap_or_default();
            let (is, should_be) = (of(&kept), of(&expected));
            if is != should_be {
                let what = format!("is {is}, and {should_be} by the log");
                self.tally.fail(Check::Sums, Who::Subject(format!("the sum {name:?} of minute {minute}")), None, what);
            }
        }
        Ok(())
    }
}

/// Where two views of one subject part, as JSON.
fn difference(view: &Fold, fold: &Fold) -> String {
    let json = |fold: &Fold| match fold {
        Fold::Order(view) => serde_json::to_value(view),
        Fold::Kitchen(view) => serde_json::to_value(view),
        Fold::Driver(view) => serde_json::to_value(view),
    };
    let (Ok(view), Ok(fold)) = (json(view), json(fold)) else { return "its view differs".to_owned() };
    let fields = fold.as_object().into_iter().flatten();
    let parts: Vec<_> = fields
        .filter(|(name, value)| view.get(name) != Some(value))
        .map(|(name, value)| format!("{name} is {}, and {value} by the log", view.get(name).unwrap_or_default()))
        .collect();
    format!("its view differs: {}", parts.join("; "))
}
