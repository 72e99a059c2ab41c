//! Keeps the views in the database. A batch is one transaction: the rows it touches are read, the events folded into
//! them in memory, and the changed rows written back, each only if nobody else has changed it meanwhile.

use std::collections::{BTreeMap, HashSet};

use async_trait::async_trait;
use event_sourcing::{Database, StoreError, Value, Write, bind, insert, pieces, placeholders};
use eventing::{Failure, Handled, Handler, Incoming, name_and_version};
use sqlx::{AssertSqlSafe, Row};
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
    /// meet at its row. Whoever has the turn has the orders that were folded last, so that they needn't be read again;
    /// if another instance has changed one meanwhile, its revision says so.
    turn: Mutex<Rows<OrderView>>,
    changed: watch::Sender<u64>,
}

/// A view as it was read, and what has become of it.
struct Kept<V> {
    view: V,
    revision: i64,
    changed: bool,
}

impl<V> Kept<V> {
    /// As it stands in the database now.
    fn written(self) -> Self {
        Self { revision: self.revision + i64::from(self.changed), changed: false, ..self }
    }
}

/// The rows of one kind that a batch touches, by key.
type Rows<V> = BTreeMap<String, Kept<V>>;

type Outcomes = Vec<Result<Handled, Failure>>;

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

    async fn apply(&self, recent: &mut Rows<OrderView>, events: &[Incoming]) -> Result<Option<Outcomes>, StoreError> {
        let keys = |kind| {
            let ours = events.iter().filter(move |event| kind_of(event) == Some(kind));
            ours.map(|event| event.subject.clone()).collect::<HashSet<_>>().into_iter().collect::<Vec<_>>()
        };
        let (known, unknown): (Vec<_>, Vec<_>) =
            keys(Kind::Order).into_iter().partition(|order_id| recent.contains_key(order_id));
        let mut orders: Rows<OrderView> = self.read("orders", "order_id", unknown).await?;
        let known: HashSet<String> = known.into_iter().collect();
        orders.extend(known.iter().filter_map(|order_id| recent.remove_entry(order_id)));
        let mut kitchens: Rows<KitchenView> = self.read("kitchens", "kitchen_id", keys(Kind::Kitchen)).await?;
        let mut drivers: Rows<DriverView> = self.read("drivers", "driver_id", keys(Kind::Driver)).await?;

        let mut stuck = HashSet::new();
        let mut outcomes = Vec::new();
        let mut timeline = Vec::new();
        let mut applied_now: Vec<[Value; 2]> = Vec::new();
        for event in events {
            if stuck.contains(&event.subject) {
                outcomes.push(Err(Failure::Retry("an earlier event of its subject failed".to_owned())));
                continue;
            }
            let applied = match kind_of(event) {
                Some(Kind::Order) => fold(&mut orders, event),
                Some(Kind::Kitchen) => fold(&mut kitchens, event),
                Some(Kind::Driver) => fold(&mut drivers, event),
                None => Applied::Repeated,
            };
            let outcome = match applied {
                Applied::Changed => {
                    timeline.extend(step(event));
                    applied_now.push([event.source.clone().into(), event.id.clone().into()]);
                    Ok(Handled::Effect)
                }
                Applied::Repeated => Ok(Handled::Nothing),
                // What is missing here, another instance may have applied since this order was kept in memory.
                Applied::TooEarly { .. } if known.contains(&event.subject) => return Ok(None),
                Applied::TooEarly { expected } => Err(Failure::Retry(format!(
                    "event {:?} came before event {expected} of its stream",
                    event.sequence
                ))),
                Applied::Unreadable(reason) => Err(Failure::Never(reason)),
            };
            if outcome.is_err() {
                stuck.insert(event.subject.clone());
            }
            outcomes.push(outcome);
        }
        let mut write = self.database.write().await?;
        let written = write_orders(&mut write, &orders).await?
            && write_rows(&mut write, "kitchens", "kitchen_id", kitchens).await?
            && write_rows(&mut write, "drivers", "driver_id", drivers).await?;
        if !written {
            return Ok(None);
        }
        timeline.sort();
        let columns = "timeline (order_id, source, subject, sequence, id, type, time, causation_id)";
        insert(&mut write.tx, columns, timeline, "ON CONFLICT DO NOTHING").await?;
        // The views remember by their sequences what they were told; the inbox has only counted the attempt.
        applied_now.sort();
        for piece in pieces(applied_now) {
            let sql = format!("DELETE FROM inbox WHERE (source, id) IN (VALUES {})", placeholders(piece.len(), 2));
            bind(AssertSqlSafe(sql), piece.into_iter().flatten()).execute(&mut *write.tx).await?;
        }
        write.commit().await?;
        recent.extend(orders.into_iter().map(|(order_id, kept)| (order_id, kept.written())));
        while recent.len() > RECENT {
            // Ids are in the order of time: the first is the oldest.
            recent.pop_first();
        }
        self.changed.send_modify(|changes| *changes += 1);
        Ok(Some(outcomes))
    }

    async fn read<V: View>(&self, table: &str, key: &str, keys: Vec<String>) -> Result<Rows<V>, StoreError> {
        let mut rows = Rows::new();
        for piece in pieces(keys) {
            let wanted = placeholders(piece.len(), 1);
            let sql = format!("SELECT {key}, revision, view FROM {table} WHERE {key} IN (VALUES {wanted})");
            let found = bind(AssertSqlSafe(sql), piece.iter().cloned().map(Value::from));
            for row in found.fetch_all(self.database.pool()).await? {
                let view = serde_json::from_str(row.try_get(2)?).map_err(|error| sqlx::Error::Decode(error.into()))?;
                rows.insert(row.try_get(0)?, Kept { view, revision: row.try_get(1)?, changed: false });
            }
            for key in piece {
                rows.entry(key).or_insert_with(|| Kept { view: V::default(), revision: 0, changed: false });
            }
        }
        Ok(rows)
    }
}

fn kind_of(event: &Incoming) -> Option<Kind> {
    Kind::of(name_and_version(&event.event_type)?.0)
}

fn fold<V: View>(rows: &mut Rows<V>, event: &Incoming) -> Applied {
    let Some(kept) = rows.get_mut(&event.subject) else { return Applied::Repeated };
    let applied = kept.view.apply(event);
    kept.changed |= applied == Applied::Changed;
    applied
}

/// The event's row in the timeline of its order, if it belongs to one.
fn step(event: &Incoming) -> Option<[Value; 8]> {
    let of_an_order = kind_of(event) == Some(Kind::Order) || event.correlation_id != event.subject;
    of_an_order.then(|| {
        let order_id = if kind_of(event) == Some(Kind::Order) { &event.subject } else { &event.correlation_id };
        [
            order_id.as_str().into(),
            event.source.as_str().into(),
            event.subject.as_str().into(),
            event.sequence.unwrap_or_default().into(),
            event.id.as_str().into(),
            event.event_type.as_str().into(),
            event.time.as_str().into(),
            event.causation_id.as_str().into(),
        ]
    })
}

fn json(view: &impl View) -> Result<Value, StoreError> {
    let text = serde_json::to_string(view).map_err(|error| sqlx::Error::Encode(error.into()))?;
    Ok(text.into())
}

/// Writes the changed rows; false if another instance has changed one of them meanwhile.
async fn write_orders(write: &mut Write, rows: &Rows<OrderView>) -> Result<bool, StoreError> {
    let changed = rows.iter().filter(|(_, kept)| kept.changed).map(|(order_id, kept)| {
        let Kept { view, revision, .. } = kept;
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
    let changed: Vec<[Value; 7]> = changed.collect::<Result<_, StoreError>>()?;
    let count = changed.len() as u64;
    let columns = "orders (order_id, revision, placed, customer_id, kitchen_id, status, view)";
    let conflict = "ON CONFLICT (order_id) DO UPDATE SET revision = excluded.revision, placed = excluded.placed, \
                    customer_id = excluded.customer_id, kitchen_id = excluded.kitchen_id, status = excluded.status, \
                    view = excluded.view WHERE orders.revision = excluded.revision - 1";
    Ok(insert(&mut write.tx, columns, changed, conflict).await? == count)
}

async fn write_rows<V: View>(write: &mut Write, table: &str, key: &str, rows: Rows<V>) -> Result<bool, StoreError> {
    let changed = rows.into_iter().filter(|(_, kept)| kept.changed);
    let changed = changed.map(|(key, kept)| Ok([key.into(), (kept.revision + 1).into(), json(&kept.view)?]));
    let changed: Vec<[Value; 3]> = changed.collect::<Result<_, StoreError>>()?;
    let count = changed.len() as u64;
    let conflict = format!(
        "ON CONFLICT ({key}) DO UPDATE SET revision = excluded.revision, view = excluded.view \
         WHERE {table}.revision = excluded.revision - 1"
    );
    Ok(insert(&mut write.tx, &format!("{table} ({key}, revision, view)"), changed, &conflict).await? == count)
}

#[async_trait]
impl Handler for Projection {
    fn understands(&self, name: &str) -> Option<&'static str> {
        Kind::of(name).map(|_| "v1")
    }

    async fn handle(&self, events: &[Incoming]) -> Outcomes {
        let mut failure = Failure::Retry("other instances keep changing the same views".to_owned());
        let mut recent = self.turn.lock().await;
        for _ in 0..CONFLICTS {
            match self.apply(&mut recent, events).await {
                Ok(Some(outcomes)) => return outcomes,
                // A row has changed, or two transactions waited for each other: fold again.
                Ok(None) | Err(StoreError::Conflict) => {}
                Err(error) => {
                    failure = error.into();
                    break;
                }
            }
        }
        events.iter().map(|_| Err(failure.clone())).collect()
    }
}
