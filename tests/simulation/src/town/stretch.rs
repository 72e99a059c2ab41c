//! A stretch of ordinary work: nothing goes wrong, nobody changes their mind, and every order is delivered, so that what
//! one of them costs can be counted.

use std::{sync::Arc, time::Duration};

use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use super::{PATIENCE, Town};
use crate::meter::Counts;

/// Orders that come before anything is counted: whatever is made once is made by then.
const WARM_UP: u64 = 10;
/// After so long without work whoever has worked is asleep.
const LULL: Duration = Duration::from_secs(5);

/// How orders come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stretch {
    /// One at a time, each when the one before it is done: hardly anything shares a batch or a transaction.
    Calm,
    /// All at the same moment.
    Storm,
}

impl Town {
    /// What `orders` cost that come in this way.
    ///
    /// # Errors
    /// If one of them is not delivered, or if anything else does not add up.
    pub(crate) async fn count(self: &Arc<Self>, stretch: Stretch, orders: u64) -> Result<Counts, String> {
        let meter = self.world.meter().ok_or("nobody counts in this world")?;
        self.opens();
        self.open_kitchen(true).await;
        for driver in 0..self.plan.drivers {
            self.shift(driver, true).await;
        }
        self.serves(0..WARM_UP, Stretch::Calm).await?;
        self.serves(WARM_UP..2 * WARM_UP, stretch).await?;
        sleep(LULL).await;
        meter.starts();
        self.serves(2 * WARM_UP..2 * WARM_UP + orders, stretch).await?;
        let counts = meter.ends();
        match self.adds_up().await {
            wrong if wrong.is_empty() => Ok(counts),
            wrong => Err(wrong.join("\n")),
        }
    }

    async fn serves(self: &Arc<Self>, numbers: std::ops::Range<u64>, stretch: Stretch) -> Result<(), String> {
        let mut people = JoinSet::new();
        let last = numbers.end;
        for number in numbers {
            let town = self.clone();
            people.spawn(async move { town.places_an_order(number, 2, Some("tok_ok")).await });
            if stretch == Stretch::Calm {
                self.serves_all(&mut people).await?;
            }
        }
        self.serves_all(&mut people).await?;
        let completed = "SELECT COUNT(*) FROM events WHERE type = 'dev.rainstorm.order.completed.v1'";
        match self.world.aside(|| self.databases["order"].number(completed)) {
            completed if u64::try_from(completed) == Ok(last) => Ok(()),
            completed => Err(format!("{completed} of {last} orders are completed")),
        }
    }

    /// Returns when these people have their answers, and nothing is left to do about them.
    async fn serves_all(&self, people: &mut JoinSet<Option<String>>) -> Result<(), String> {
        while let Some(answered) = people.join_next().await {
            answered.ok().flatten().ok_or("an order was not accepted")?;
        }
        let ends = Instant::now() + PATIENCE;
        let rests = || {
            self.log.commit();
            let (_, idle) = self.log.size();
            idle && self.left().is_empty()
        };
        while !self.world.aside(rests) {
            if Instant::now() > ends {
                return Err(format!("stuck: {}", self.left()));
            }
            sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }
}
