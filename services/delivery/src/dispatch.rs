//! Dispatch brings orders that wait and drivers who are free together, the longest-waiting order first.
//!
//! Why no driver is ever left free beside a waiting order: every commit that adds an order or frees a driver is followed
//! by a matching that reads after it, in whatever instance. Of two commits the matching behind the later one sees both.
//! Where two matchings want the same order or driver, one of them conflicts and reads again; it stops only when it has
//! read that nobody waits or nobody is free.

use std::{collections::HashMap, time::Duration};

use event_sourcing::{Cause, Recorded, Statement, StoreError, Stream, Unit, Value, Work};
use eventing::{Failure, Writer};
use futures::future::join_all;
use jiff::Timestamp;
use tokio::sync::Mutex;

use crate::{
    SERVICE,
    domain::{Delivery, DeliveryCommand, Driver, DriverCommand},
    fleet,
};

/// Orders that are looked at together.
const AT_ONCE: i64 = 100;
/// Rounds in which others were always faster, before somebody else's turn may come.
const IN_VAIN: usize = 20;

/// What dispatch has to do.
#[derive(Debug, Clone, Copy)]
pub enum Job {
    /// Give waiting orders to free drivers.
    Match,
    /// Give up on orders that have waited for longer than this.
    Expire { now: Timestamp, patience: Duration },
}

/// The dispatch of one instance. Its turns are taken one after the other; other instances are met in the store.
pub struct Dispatch {
    writer: Writer,
    turn: Mutex<()>,
}

impl Dispatch {
    /// Dispatches what `writer` writes.
    #[must_use]
    pub fn new(writer: Writer) -> Self {
        Self { writer, turn: Mutex::default() }
    }

    /// Does these jobs, each until nothing of it is left. Returns the streams that were changed; they are not published
    /// yet.
    ///
    /// # Errors
    /// If the store doesn't answer; what was changed before that is published all the same.
    pub async fn run(&self, jobs: &[Job]) -> Result<Vec<String>, Failure> {
        let _turn = self.turn.lock().await;
        let mut changed = Vec::new();
        for job in jobs {
            if let Err(failure) = self.finish(*job, &mut changed).await {
                self.writer.outbox.publish_soon(changed);
                return Err(failure);
            }
        }
        Ok(changed)
    }

    async fn finish(&self, job: Job, changed: &mut Vec<String>) -> Result<(), Failure> {
        let mut in_vain = 0;
        while in_vain < IN_VAIN {
            let units = match job {
                Job::Match => self.pairs().await?,
                Job::Expire { now, patience } => self.overdue(now, patience).await?,
            };
            // Each is a unit of its own, so that one conflict doesn't spoil the others; they share a transaction.
            let more = units.len() as i64 >= AT_ONCE;
            let outcomes = join_all(units.into_iter().map(|unit| self.commit(unit))).await;
            let before = changed.len();
            let mut somebody_was_faster = false;
            let mut trouble = Ok(());
            for outcome in outcomes {
                match outcome {
                    Ok(streams) => changed.extend(streams),
                    Err(StoreError::Conflict) => somebody_was_faster = true,
                    Err(error) => trouble = Err(error),
                }
            }
            trouble?;
            if !more && !somebody_was_faster {
                return Ok(());
            }
            in_vain = if changed.len() > before { 0 } else { in_vain + 1 };
        }
        Err(Failure::Retry("others keep dispatching the same orders".to_owned()))
    }

    async fn commit(&self, unit: Option<Unit>) -> Result<Vec<String>, StoreError> {
        let unit = unit.ok_or(StoreError::Conflict)?;
        let streams = unit.events.iter().map(|event| event.stream_id.clone()).collect();
        self.writer.store.commit(unit).await.map(|()| streams)
    }

    /// What gives the longest-waiting orders to free drivers; `None` where somebody was faster.
    async fn pairs(&self) -> Result<Vec<Option<Unit>>, Failure> {
        let sql = "SELECT order_id FROM waiting ORDER BY since, order_id LIMIT $1";
        let mut orders = self.waiting(sql, [AT_ONCE.into()]).await?;
        if orders.is_empty() {
            return Ok(Vec::new());
        }
        let drivers = fleet::free(&self.writer.store, orders.len() as i64).await?;
        orders.truncate(drivers.len());
        let history = self.writer.store.history(orders.clone()).await?;
        let pairs = orders.iter().zip(drivers).map(|(order_id, driver)| self.assign(order_id, driver, &history));
        join_all(pairs).await.into_iter().collect()
    }

    async fn assign(
        &self,
        order_id: &str,
        mut driver: Stream<Driver>,
        history: &HashMap<String, Vec<Recorded>>,
    ) -> Result<Option<Unit>, Failure> {
        let Some((mut work, mut delivery)) = self.still_waiting(order_id, history).await? else { return Ok(None) };
        work.execute(&mut delivery, DeliveryCommand::Assign { driver_id: driver.id.clone() })?;
        work.execute(&mut driver, DriverCommand::Engage { order_id: order_id.to_owned() })?;
        work.project(waits_no_more(order_id));
        work.project(fleet::keep(&driver).map_err(|error| Failure::Never(error.to_string()))?);
        Ok(Some(work.finish()))
    }

    /// What fails the deliveries that have waited for longer than `patience`; `None` where somebody was faster.
    async fn overdue(&self, now: Timestamp, patience: Duration) -> Result<Vec<Option<Unit>>, Failure> {
        // Before the beginning of time nobody waited.
        let Ok(deadline) = now.checked_sub(patience) else { return Ok(Vec::new()) };
        let sql = "SELECT order_id FROM waiting WHERE since < $1 ORDER BY since, order_id LIMIT $2";
        let orders = self.waiting(sql, [sortable(deadline).into(), AT_ONCE.into()]).await?;
        let history = self.writer.store.history(orders.clone()).await?;
        let expired = orders.iter().map(async |order_id| {
            let Some((mut work, mut delivery)) = self.still_waiting(order_id, &history).await? else { return Ok(None) };
            work.execute(&mut delivery, DeliveryCommand::Expire { now, patience })?;
            work.project(waits_no_more(order_id));
            Ok(Some(work.finish()))
        });
        join_all(expired).await.into_iter().collect()
    }

    async fn waiting<const N: usize>(&self, sql: &str, values: [Value; N]) -> Result<Vec<String>, sqlx::Error> {
        let rows = self.writer.store.database().fetch(sql, values).await?;
        rows.iter().map(|row| row.text(0)).collect()
    }

    /// A delivery that waits, and work that changes it. The event that made it wait is its cause: that one, and not the
    /// one that freed a driver, is the story it belongs to.
    async fn still_waiting<'a>(
        &'a self,
        order_id: &str,
        history: &'a HashMap<String, Vec<Recorded>>,
    ) -> Result<Option<(Work<'a>, Stream<Delivery>)>, Failure> {
        let Some(newest) = history.get(order_id).and_then(|events| events.last()) else { return Ok(None) };
        let cause = Cause {
            source: SERVICE.source.to_owned(),
            id: newest.id.clone(),
            correlation_id: Some(order_id.to_owned()),
            trace: newest.trace().step("dispatch"),
            remembered: false,
        };
        let work = Work::new(&self.writer.store, cause, history);
        let delivery = work.load::<Delivery>(order_id).await?;
        Ok(delivery.state.waiting_since().is_some().then_some((work, delivery)))
    }
}

/// Ends a ride: the order is delivered and its driver released, in one transaction. Does nothing if nobody is out with
/// it.
///
/// # Errors
/// If the store doesn't answer.
pub async fn arrive(work: &mut Work<'_>, mut delivery: Stream<Delivery>) -> Result<(), Failure> {
    let Some(driver_id) = delivery.state.driver_id() else { return Ok(()) };
    let mut driver = fleet::driver(work.store(), driver_id).await?;
    work.execute(&mut delivery, DeliveryCommand::Deliver)?;
    work.execute(&mut driver, DriverCommand::Release { order_id: delivery.id.clone() })?;
    work.project(fleet::keep(&driver).map_err(|error| Failure::Never(error.to_string()))?);
    Ok(())
}

/// Notes that an order waits for a driver.
#[must_use]
pub fn waits(order_id: &str, since: Timestamp) -> Statement {
    let values = [order_id.into(), sortable(since).into()];
    Statement::new("INSERT INTO waiting (order_id, since) VALUES ($1, $2)", values)
}

fn waits_no_more(order_id: &str) -> Statement {
    Statement::new("DELETE FROM waiting WHERE order_id = $1", [order_id.into()])
}

/// RFC 3339 of one length, so that earlier is smaller as text.
fn sortable(time: Timestamp) -> String {
    format!("{time:.9}")
}
