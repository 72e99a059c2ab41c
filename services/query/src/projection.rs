//! Keeps the views in the database. A batch is one transaction: the rows it touches are read, the events folded into
//! them in memory, and the changed rows written back, each only if nobody else has changed it meanwhile.

use std::collections::{BTreeMap, HashSet};

use async_trait::async_trait;
use event_sourcing::{Database, Value, Write, pieces, placeholders};
use eventing::{Failure, Handled, Handler, Incoming, name_and_version};
use tokio::sync::{Mutex, watch};

use crate::views::{Applied, DriverView, Kind, KitchenView, OrderView, View};

/// Orders that are kept in memory, at most.
const RECENT: usize = 5_000;
/// How often a batch is folded again because another instance was faster.
const CONFLICTS: usize = 20;

/// The views' keeper.
pub struct Projection {
    database: Database,
    /// One batch at a time in this process: an order's events come from several topics at once, and would otherwise
    /// meet at its row. Whoever has the turn has the orders that were folded last, so that they needn't be read again.
    /// Another instance may have changed one meanwhile: then its revision says so, or a gap that isn't there.
    turn: Mutex<Rows<OrderView>>,
    changed: watch::Sender<u64>,
}

/// A view as it was read, and what has become of it.
struct Kept<V> {
    view: V,
    revision: i64,
    changed: bool,
    /// Not read for this batch, so the database may know more.
    remembered: bool,
}

impl<V> Kept<V> {
    fn read(view: V, revision: i64) -> Self {
        Self { view, revision, changed: false, remembered: false }
    }

    /// As it stands in the database now.
    fn written(self) -> Self {
        Self { revision: self.revision + i64::from(self.changed), changed: false, remembered: true, ..self }
    }
}

/// The rows of one kind that a batch touches, by key.
type Rows<V> = BTreeMap<String, Kept<V>>;

type Outcomes = Vec<Result<Handled, Failure>>;

/// What is done about events.
#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    Fold,
    /// They were discarded: the views go past them, and no timeline tells of them.
    Skip,
}

/// All rows that a batch touches.
struct Touched {
    orders: Rows<OrderView>,
    kitchens: Rows<KitchenView>,
    drivers: Rows<DriverView>,
}

/// What a batch has come to in memory.
#[derive(Default)]
struct Folded {
    outcomes: Outcomes,
    timeline: Vec<[Value; 8]>,
    /// Source and id of each event that has changed something.
    applied: Vec<[Value; 2]>,
    /// A gap shows in a row that was only remembered: the missing event may have come to another instance.
    outdated: bool,
}

impl Projection {
    /// Keeps the views in `database`.
    #[must_use]
    pub fn new(database: Database) -> Self {
        Self { database, turn: Mutex::default(), changed: watch::Sender::new(0) }
    }

    /// Changes whenever views do.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Does `what` about a batch until no other instance gets in between.
    async fn settle(&self, events: &[Incoming], what: What) -> Outcomes {
        let mut failure = Failure::Retry("other instances keep changing the same views".to_owned());
        let mut recent = self.turn.lock().await;
        for _ in 0..CONFLICTS {
            match self.apply(&mut recent, events, what).await {
                Ok(Some(outcomes)) => return outcomes,
                Ok(None) => {}
                Err(error) if met(&error) => {}
                Err(error) => {
                    failure = error.into();
                    break;
                }
            }
        }
        events.iter().map(|_| Err(failure.clone())).collect()
    }

    /// Folds a batch and writes it; `None` if it must be read and folded again. What was remembered of its orders is
    /// forgotten then.
    async fn apply(
        &self,
        recent: &mut Rows<OrderView>,
        events: &[Incoming],
        what: What,
    ) -> Result<Option<Outcomes>, sqlx::Error> {
        let mut touched = self.load(recent, events).await?;
        let mut folded = touched.fold(events, what);
        if folded.outdated {
            return Ok(None);
        }
        if !folded.applied.is_empty() {
            let mut write = self.database.write().await?;
            if !touched.write(&mut write).await? {
                return Ok(None);
            }
            folded.write(&mut write).await?;
            write.commit().await?;
            self.changed.send_modify(|changes| *changes += 1);
        }
        recent.extend(touched.orders.into_iter().map(|(order_id, kept)| (order_id, kept.written())));
        while recent.len() > RECENT {
            // Ids are in the order of time: the first is the oldest.
            recent.pop_first();
        }
        Ok(Some(folded.outcomes))
    }

    async fn load(&self, recent: &mut Rows<OrderView>, events: &[Incoming]) -> Result<Touched, sqlx::Error> {
        let keys = |kind| {
            let ours = events.iter().filter(move |event| kind_of(event) == Some(kind));
            ours.map(|event| event.subject.clone()).collect::<HashSet<_>>().into_iter().collect::<Vec<_>>()
        };
        let (known, unknown): (Vec<_>, Vec<_>) =
            keys(Kind::Order).into_iter().partition(|order_id| recent.contains_key(order_id));
        let mut orders: Rows<OrderView> = self.read("orders", "order_id", unknown).await?;
        orders.extend(known.into_iter().filter_map(|order_id| recent.remove_entry(&order_id)));
        let kitchens = self.read("kitchens", "kitchen_id", keys(Kind::Kitchen)).await?;
        let drivers = self.read("drivers", "driver_id", keys(Kind::Driver)).await?;
        Ok(Touched { orders, kitchens, drivers })
    }

    async fn read<V: View>(&self, table: &str, key: &str, keys: Vec<String>) -> Result<Rows<V>, sqlx::Error> {
        let mut rows = Rows::new();
        for piece in pieces(keys) {
            let wanted = placeholders(piece.len(), 1);
            let sql = format!("SELECT {key}, revision, view FROM {table} WHERE {key} IN (VALUES {wanted})");
            for row in self.database.fetch(sql, piece.iter().cloned().map(Value::from).collect::<Vec<_>>()).await? {
                rows.insert(row.text(0)?, Kept::read(row.json(2)?, row.int(1)?));
            }
            for key in piece {
                rows.entry(key).or_insert_with(|| Kept::read(V::default(), 0));
            }
        }
        Ok(rows)
    }
}

impl Touched {
    /// Folds the events in, in order; after one that fails, no later one of its subject.
    fn fold(&mut self, events: &[Incoming], what: What) -> Folded {
        let mut stuck = HashSet::new();
        let mut folded = Folded::default();
        for event in events {
            if stuck.contains(&event.subject) {
                folded.outcomes.push(Err(Failure::Retry("an earlier event of its subject failed".to_owned())));
                continue;
            }
            let (applied, remembered) = match kind_of(event) {
                Some(Kind::Order) => fold(&mut self.orders, event, what),
                Some(Kind::Kitchen) => fold(&mut self.kitchens, event, what),
                Some(Kind::Driver) => fold(&mut self.drivers, event, what),
                None => (Applied::Repeated, false),
            };
            let outcome = match applied {
                Applied::Changed => {
                    folded.timeline.extend(step(event).filter(|_| what == What::Fold));
                    folded.applied.push([event.source.clone().into(), event.id.clone().into()]);
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

    /// Writes the changed rows; false if another instance has changed one of them meanwhile.
    async fn write(&self, write: &mut Write) -> Result<bool, sqlx::Error> {
        Ok(write_orders(write, &self.orders).await?
            && write_rows(write, "kitchens", "kitchen_id", &self.kitchens).await?
            && write_rows(write, "drivers", "driver_id", &self.drivers).await?)
    }
}

impl Folded {
    /// Writes what is kept of the events themselves.
    async fn write(&mut self, write: &mut Write) -> Result<(), sqlx::Error> {
        self.timeline.sort();
        let columns = "timeline (order_id, source, subject, sequence, id, type, time, causation_id)";
        write.insert(columns, std::mem::take(&mut self.timeline), "ON CONFLICT DO NOTHING").await?;
        // The views remember by their sequences what they were told; the inbox has only counted the attempt.
        self.applied.sort();
        for piece in pieces(std::mem::take(&mut self.applied)) {
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
fn fold<V: View>(rows: &mut Rows<V>, event: &Incoming, what: What) -> (Applied, bool) {
    let Some(kept) = rows.get_mut(&event.subject) else { return (Applied::Repeated, false) };
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

async fn write_orders(write: &mut Write, rows: &Rows<OrderView>) -> Result<bool, sqlx::Error> {
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
    let columns = "orders (order_id, revision, placed, customer_id, kitchen_id, status, view)";
    let conflict = "ON CONFLICT (order_id) DO UPDATE SET revision = excluded.revision, placed = excluded.placed, \
                    customer_id = excluded.customer_id, kitchen_id = excluded.kitchen_id, status = excluded.status, \
                    view = excluded.view WHERE orders.revision = excluded.revision - 1";
    Ok(write.insert(columns, changed, conflict).await? == count)
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

/// Whether two transactions waited for each other, and this one was given up for the other's sake.
fn met(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|error| matches!(error.code().as_deref(), Some("40001" | "40P01")))
}

#[async_trait]
impl Handler for Projection {
    fn understands(&self, name: &str) -> Option<&'static str> {
        Kind::of(name).map(|_| "v1")
    }

    async fn handle(&self, events: &[Incoming]) -> Outcomes {
        self.settle(events, What::Fold).await
    }

    async fn discard(&self, event: &Incoming) -> Result<(), Failure> {
        match self.settle(std::slice::from_ref(event), What::Skip).await.into_iter().next() {
            Some(Err(Failure::Retry(reason))) => Err(Failure::Retry(reason)),
            // One without a place in its stream leaves no gap.
            _ => Ok(()),
        }
    }
}
