//! Keeps the views in the database. A batch is one transaction: the rows it touches are read, the events folded into
//! them in memory, and the changed rows written back, each only if nobody else has changed it meanwhile (another
//! instance, or a rebuilt view that was swapped in).

use async_trait::async_trait;
use event_sourcing::Database;
use eventing::{Failure, Handler, Incoming};
use tokio::sync::{Mutex, watch};

use crate::{
    batch::{LIVE, Outcomes, Rows, Rowsource, Touched, What},
    views::{Kind, OrderView},
};

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
                    failure = Failure::from(error).shared_by(events.len());
                    break;
                }
            }
        }
        events.iter().map(|_| Err(failure.clone())).collect()
    }

    /// Does it in memory and writes it; `None` if the rows must be read again. What was remembered of the batch's orders
    /// is forgotten then.
    async fn apply(
        &self,
        recent: &mut Rows<OrderView>,
        events: &[Incoming],
        what: What,
    ) -> Result<Option<Outcomes>, sqlx::Error> {
        let mut touched = Touched::load(Rowsource::Everybodys(&self.database), LIVE, recent, events).await?;
        let mut folded = touched.settle(events, what);
        if folded.outdated {
            return Ok(None);
        }
        if !folded.applied.is_empty() {
            let mut write = self.database.write().await?;
            if !touched.write(&mut write, LIVE).await? {
                return Ok(None);
            }
            folded.write_timeline(&mut write, LIVE).await?;
            folded.clear_inbox(&mut write).await?;
            touched.write_sums(&mut write, LIVE).await?;
            write.commit().await?;
            self.changed.send_modify(|changes| *changes += 1);
        }
        touched.remember(recent);
        Ok(Some(folded.outcomes))
    }
}

/// Which version of events of this name the views are made of.
pub(crate) fn understood(name: &str) -> Option<&'static str> {
    Kind::of(name).map(|_| "v1")
}

/// Whether two transactions waited for each other, and this one was given up for the other's sake.
fn met(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|error| matches!(error.code().as_deref(), Some("40001" | "40P01")))
}

#[async_trait]
impl Handler for Projection {
    fn understands(&self, name: &str) -> Option<&'static str> {
        understood(name)
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
