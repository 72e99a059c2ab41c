//! A batch of events and the rows of the views that it touches: read together, changed in memory, written together. The
//! live views and one that is being rebuilt beside them differ in the names of their tables only.

use std::collections::{BTreeMap, HashSet};

use event_sourcing::{Database, Row, Value, Write, lists, placeholders};
use eventing::{Failure, Handled, Incoming, name_and_version};

use crate::{
    stats::{Fact, Sums, of_driver, of_order},
    views::{Applied, DriverView, Kind, KitchenView, OrderView, View},
};

/// Orders that are kept in memory, at most.
const RECENT: usize = 5_000;

/// Where views are kept.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tables {
    pub orders: &'static str,
    pub kitchens: &'static str,
    pub drivers: &'static str,
    pub timeline: &'static str,
    pub stats: &'static str,
    /// Of a row that isn't there yet, before it changes for the first time.
    pub revision: i64,
}

/// The views that people are shown.
pub(crate) const LIVE: Tables = Tables {
    orders: "orders",
    kitchens: "kitchens",
    drivers: "drivers",
    timeline: "timeline",
    stats: "stats",
    revision: 0,
};

impl Tables {
    /// The names of all of them.
    pub fn names(&self) -> [&'static str; 5] {
        [self.orders, self.kitchens, self.drivers, self.timeline, self.stats]
    }
}

/// Where rows are read: as everybody sees them, or as a transaction does.
pub(crate) enum Rowsource<'a> {
    Everybodys(&'a Database),
    Own(&'a mut Write),
}

impl Rowsource<'_> {
    pub async fn fetch(&mut self, sql: String, values: Vec<Value>) -> Result<Vec<Row>, sqlx::Error> {
        match self {
            Self::Everybodys(database) => database.fetch(sql, values).await,
            Self::Own(write) => write.fetch(sql, values).await,
        }
    }
}

/// A view as it was read, and what has become of it.
pub(crate) struct Kept<V> {
    view: V,
    revision: i64,
    pub changed: bool,
    /// What it contributed to the sums before it changed.
    before: Vec<((i64, Fact), i64)>,
    /// Not read for this batch, so the database may know more.
    remembered: bool,
}

impl<V> Kept<V> {
    fn read(view: V, revision: i64) -> Self {
        Self { view, revision, changed: false, before: Vec::new(), remembered: false }
    }

    /// As it stands in the database now.
    fn written(self) -> Self {
        let revision = self.revision + i64::from(self.changed);
        Self { revision, changed: false, before: Vec::new(), remembered: true, ..self }
    }
}

/// The rows of one kind that a batch touches, by key.
pub(crate) type Rows<V> = BTreeMap<String, Kept<V>>;

pub(crate) type Outcomes = Vec<Result<Handled, Failure>>;

/// What is done about events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    Fold,
    /// They were discarded: the views go past them, and no timeline tells of them.
    Skip,
}

/// All rows that a batch touches.
pub(crate) struct Touched {
    pub orders: Rows<OrderView>,
    kitchens: Rows<KitchenView>,
    drivers: Rows<DriverView>,
}

/// What a batch has come to in memory.
#[derive(Default)]
pub(crate) struct Folded {
    pub outcomes: Outcomes,
    timeline: Vec<[Value; 8]>,
    /// Source and id of each event that has changed something.
    pub applied: Vec<[Value; 2]>,
    /// A gap shows in a row that was only remembered: the missing event may have come to another instance.
    pub outdated: bool,
}

impl Touched {
    /// The rows that `events` touch. Those of `recent` are taken from there and needn't be read.
    pub async fn load(
        mut from: Rowsource<'_>,
        tables: Tables,
        recent: &mut Rows<OrderView>,
        events: &[Incoming],
    ) -> Result<Self, sqlx::Error> {
        let keys = |kind| {
            let ours = events.iter().filter(move |event| kind_of(event) == Some(kind));
            ours.map(|event| event.subject.clone()).collect::<HashSet<_>>().into_iter().collect::<Vec<_>>()
        };
        let (known, unknown): (Vec<_>, Vec<_>) =
            keys(Kind::Order).into_iter().partition(|order_id| recent.contains_key(order_id));
        let revision = tables.revision;
        let mut orders: Rows<OrderView> = read(&mut from, tables.orders, "order_id", unknown, revision).await?;
        orders.extend(known.into_iter().filter_map(|order_id| recent.remove_entry(&order_id)));
        let kitchens = read(&mut from, tables.kitchens, "kitchen_id", keys(Kind::Kitchen), revision).await?;
        let drivers = read(&mut from, tables.drivers, "driver_id", keys(Kind::Driver), revision).await?;
        Ok(Self { orders, kitchens, drivers })
    }

    /// Keeps the orders in memory for the batches that come next.
    pub fn remember(self, recent: &mut Rows<OrderView>) {
        recent.extend(self.orders.into_iter().map(|(order_id, kept)| (order_id, kept.written())));
        while recent.len() > RECENT {
            // Ids are in the order of time: the first is the oldest.
            recent.pop_first();
        }
    }

    /// What the event does to its row, and whether that was only remembered.
    pub fn apply(&mut self, event: &Incoming, what: What) -> (Applied, bool) {
        match kind_of(event) {
            Some(Kind::Order) => fold(&mut self.orders, event, what, of_order),
            Some(Kind::Kitchen) => fold(&mut self.kitchens, event, what, |_| Vec::new()),
            Some(Kind::Driver) => fold(&mut self.drivers, event, what, of_driver),
            None => (Applied::Repeated, false),
        }
    }

    /// Does `what` about the events, in order; after one that fails, no later one of its subject.
    pub fn settle(&mut self, events: &[Incoming], what: What) -> Folded {
        let mut stuck = HashSet::new();
        let mut folded = Folded::default();
        for event in events {
            if stuck.contains(&event.subject) {
                folded.outcomes.push(Err(Failure::Retry("an earlier event of its subject failed".to_owned())));
                continue;
            }
            let (applied, remembered) = self.apply(event, what);
            let outcome = match applied {
                Applied::Changed => {
                    folded.changed_by(event, what);
                    Ok(Handled::Effect)
                }
                Applied::Repeated => Ok(Handled::Nothing),
                Applied::TooEarly { expected } => {
                    folded.outdated |= remembered;
                    let came = event.sequence.unwrap_or_default();
                    Err(Failure::Retry(format!("event {came} came before event {expected} of its stream")))
                }
                Applied::Unreadable(reason) => Err(Failure::Never(reason)),
            };
            if outcome.is_err() {
                stuck.insert(&event.subject);
            }
            folded.outcomes.push(outcome);
        }
        folded
    }

    /// What the changed rows add to the sums.
    fn sums(&self) -> Sums {
        let mut sums = Sums::default();
        for order in self.orders.values().filter(|order| order.changed) {
            sums.add(&order.before, -1);
            sums.add(&of_order(&order.view), 1);
        }
        for driver in self.drivers.values().filter(|driver| driver.changed) {
            sums.add(&driver.before, -1);
            sums.add(&of_driver(&driver.view), 1);
        }
        sums
    }

    /// Writes what the changed rows add to the sums. Others wait for these rows until the transaction ends, so this comes
    /// last.
    pub async fn write_sums(&self, write: &mut Write, tables: Tables) -> Result<(), sqlx::Error> {
        self.sums().write(write, tables.stats).await
    }

    /// Writes the changed rows; false if another instance has changed one of them meanwhile.
    pub async fn write(&self, write: &mut Write, tables: Tables) -> Result<bool, sqlx::Error> {
        Ok(write_orders(write, tables.orders, &self.orders).await?
            && write_rows(write, tables.kitchens, "kitchen_id", &self.kitchens).await?
            && write_rows(write, tables.drivers, "driver_id", &self.drivers).await?)
    }
}

impl Folded {
    /// An event has changed its row.
    pub fn changed_by(&mut self, event: &Incoming, what: What) {
        self.timeline.extend(step(event).filter(|_| what == What::Fold));
        self.applied.push([event.source.clone().into(), event.id.clone().into()]);
    }

    /// Writes the events' steps into the timeline.
    pub async fn write_timeline(&mut self, write: &mut Write, tables: Tables) -> Result<(), sqlx::Error> {
        self.timeline.sort();
        let table = tables.timeline;
        let columns = format!("{table} (order_id, source, subject, sequence, id, type, time, causation_id)");
        write.insert(&columns, std::mem::take(&mut self.timeline), "ON CONFLICT DO NOTHING").await.map(|_| ())
    }

    /// Clears up behind events that the door has counted as begun.
    pub async fn clear_inbox(&mut self, write: &mut Write) -> Result<(), sqlx::Error> {
        // The views remember by their sequences what they were told; the inbox has only counted the attempt.
        self.applied.sort();
        for piece in lists(std::mem::take(&mut self.applied)) {
            let sql = format!("DELETE FROM inbox WHERE (source, id) IN (VALUES {})", placeholders(piece.len(), 2));
            write.execute(sql, piece.into_iter().flatten().collect::<Vec<_>>()).await?;
        }
        Ok(())
    }
}

fn kind_of(event: &Incoming) -> Option<Kind> {
    Kind::of(name_and_version(&event.event_type)?.0)
}

/// What the event did to its row, and whether that was only remembered.
fn fold<V: View>(
    rows: &mut Rows<V>,
    event: &Incoming,
    what: What,
    contributes: impl Fn(&V) -> Vec<((i64, Fact), i64)>,
) -> (Applied, bool) {
    let Some(kept) = rows.get_mut(&event.subject) else { return (Applied::Repeated, false) };
    if !kept.changed {
        kept.before = contributes(&kept.view);
    }
    let applied = match what {
        What::Fold => kept.view.apply(event),
        What::Skip => kept.view.skip(event),
    };
    kept.changed |= applied == Applied::Changed;
    (applied, kept.remembered)
}

/// The event's row in the timeline of its order, if it belongs to one.
fn step(event: &Incoming) -> Option<[Value; 8]> {
    let order_id = match kind_of(event)? {
        Kind::Order => &event.subject,
        Kind::Kitchen | Kind::Driver if event.correlation_id == event.subject => return None,
        Kind::Kitchen | Kind::Driver => &event.correlation_id,
    };
    Some([
        order_id.as_str().into(),
        event.source.as_str().into(),
        event.subject.as_str().into(),
        event.sequence.unwrap_or_default().into(),
        event.id.as_str().into(),
        event.event_type.as_str().into(),
        event.time.as_str().into(),
        event.causation_id.as_str().into(),
    ])
}

fn json(view: &impl View) -> Result<Value, sqlx::Error> {
    let text = serde_json::to_string(view).map_err(|error| sqlx::Error::Encode(error.into()))?;
    Ok(text.into())
}

async fn write_orders(write: &mut Write, table: &str, rows: &Rows<OrderView>) -> Result<bool, sqlx::Error> {
    let changed = rows.iter().filter(|(_, kept)| kept.changed).map(|(order_id, Kept { view, revision, .. })| {
        Ok([
            order_id.as_str().into(),
            (revision + 1).into(),
            i64::from(view.placed_at.is_some()).into(),
            view.customer_id.as_str().into(),
            view.kitchen_id.as_str().into(),
            view.status.as_str().into(),
            json(view)?,
        ])
    });
    let changed: Vec<[Value; 7]> = changed.collect::<Result<_, sqlx::Error>>()?;
    let count = changed.len() as u64;
    let columns = format!("{table} (order_id, revision, placed, customer_id, kitchen_id, status, view)");
    let conflict = format!(
        "ON CONFLICT (order_id) DO UPDATE SET revision = excluded.revision, placed = excluded.placed, \
         customer_id = excluded.customer_id, kitchen_id = excluded.kitchen_id, status = excluded.status, \
         view = excluded.view WHERE {table}.revision = excluded.revision - 1"
    );
    Ok(write.insert(&columns, changed, &conflict).await? == count)
}

async fn write_rows<V: View>(write: &mut Write, table: &str, key: &str, rows: &Rows<V>) -> Result<bool, sqlx::Error> {
    let changed = rows.iter().filter(|(_, kept)| kept.changed);
    let changed = changed.map(|(key, kept)| Ok([key.as_str().into(), (kept.revision + 1).into(), json(&kept.view)?]));
    let changed: Vec<[Value; 3]> = changed.collect::<Result<_, sqlx::Error>>()?;
    let count = changed.len() as u64;
    let conflict = format!(
        "ON CONFLICT ({key}) DO UPDATE SET revision = excluded.revision, view = excluded.view \
         WHERE {table}.revision = excluded.revision - 1"
    );
    Ok(write.insert(&format!("{table} ({key}, revision, view)"), changed, &conflict).await? == count)
}

async fn read<V: View>(
    from: &mut Rowsource<'_>,
    table: &str,
    key: &str,
    keys: Vec<String>,
    revision: i64,
) -> Result<Rows<V>, sqlx::Error> {
    let mut rows = Rows::new();
    for piece in lists(keys) {
        let wanted = placeholders(piece.len(), 1);
        let sql = format!("SELECT {key}, revision, view FROM {table} WHERE {key} IN (VALUES {wanted})");
        for row in from.fetch(sql, piece.iter().cloned().map(Value::from).collect::<Vec<_>>()).await? {
            rows.insert(row.text(0)?, Kept::read(row.json(2)?, row.int(1)?));
        }
        for key in piece {
            rows.entry(key).or_insert_with(|| Kept::read(V::default(), revision));
        }
    }
    Ok(rows)
}
