//! What delivery does about events. Order and kitchen tell from two topics that overtake each other; whichever of the
//! two facts comes second makes the delivery wait for a driver. Who gets which driver concerns many orders at once:
//! that is dispatch, behind every batch.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use event_sourcing::{Recorded, Statement, Work, decode, fold};
use eventing::{
    Failure, Identity, Incoming, Reactions,
    rebuild::{Replay, Table},
};
use jiff::Timestamp;
use serde::Deserialize;
use sqlx::migrate::Migrator;

use crate::{
    MIGRATIONS, Riding, SERVICE, Settings,
    dispatch::{self, Dispatch, Job},
    domain::{Address, Delivery, DeliveryCommand, Driver, DriverEvent},
    fleet,
};

/// The events delivery listens to, with the fields it reads and no others.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "type", content = "data")]
pub enum Heard {
    #[serde(rename = "dev.rainstorm.order.placed.v1")]
    OrderPlaced { address: Address },
    #[serde(rename = "dev.rainstorm.kitchen.order_packed.v1")]
    OrderPacked {},
    #[serde(rename = "dev.rainstorm.delivery.out_for_delivery.v1")]
    OutForDelivery {},
}

/// Delivery's reactions.
pub struct DeliveryReactions {
    dispatch: Arc<Dispatch>,
    riding: Riding,
    patience: Duration,
}

impl DeliveryReactions {
    pub(crate) fn new(settings: &Settings, dispatch: Arc<Dispatch>) -> Self {
        Self { dispatch, riding: settings.riding, patience: settings.delivery_patience }
    }
}

#[async_trait]
impl Reactions for DeliveryReactions {
    fn understands(&self, name: &str) -> Option<&'static str> {
        understands(name)
    }

    async fn react(&self, event: &Incoming, work: &mut Work<'_>) -> Result<(), Failure> {
        let heard = event.to::<Heard>().map_err(Failure::Never)?;
        let mut delivery = work.load::<Delivery>(&event.subject).await?;
        let command = match (heard, self.riding) {
            (Heard::OrderPlaced { address }, _) => DeliveryCommand::Request { address, at: work.now() },
            (Heard::OrderPacked {}, _) => DeliveryCommand::NoteReady { at: work.now() },
            (Heard::OutForDelivery {}, Riding::Takes(time)) if delivery.state.driver_id().is_some() => {
                // This is the simulated driver on the way; nothing is waited for. A shift that ends meanwhile is seen,
                // since the driver is looked up after the ride.
                work.pause(time).await;
                return dispatch::arrive(work, delivery).await;
            }
            (Heard::OutForDelivery {}, Riding::Takes(_) | Riding::Manual) => return Ok(()),
        };
        let waited = delivery.state.waiting_since();
        work.execute(&mut delivery, command)?;
        if let (None, Some(since)) = (waited, delivery.state.waiting_since()) {
            work.project(dispatch::waits(&delivery.id, since));
        }
        Ok(())
    }

    async fn settle(&self) -> Result<Vec<String>, Failure> {
        self.dispatch.run(&[Job::Match]).await
    }

    async fn tick(&self, now: Timestamp) -> Result<Vec<String>, Failure> {
        self.dispatch.run(&[Job::Match, Job::Expire { now, patience: self.patience }]).await
    }
}

fn understands(name: &str) -> Option<&'static str> {
    matches!(name, "order.placed" | "kitchen.order_packed" | "delivery.out_for_delivery").then_some("v1")
}

/// How delivery's store is made again from the log: who waits, and what each driver does, follows from its own streams.
pub struct DeliveryReplay;

impl Replay for DeliveryReplay {
    fn who(&self) -> Identity {
        SERVICE
    }

    fn migrations(&self) -> Vec<&'static Migrator> {
        vec![&MIGRATIONS]
    }

    fn understands(&self, name: &str) -> Option<&'static str> {
        understands(name)
    }

    fn projections(&self) -> &'static [Table] {
        &[
            Table { name: "waiting", key: &["order_id"], columns: &["since"] },
            Table { name: "drivers", key: &["driver_id"], columns: &["version", "free", "state"] },
        ]
    }

    fn keeps_of_own(&self) -> bool {
        true
    }

    fn own_stream(&self, stream_id: &str, events: &[Recorded]) -> Result<Vec<Statement>, Failure> {
        let is_driver = events.first().is_some_and(|it| decode::<DriverEvent>(&it.event_type, &it.data).is_ok());
        if is_driver {
            let driver = fold::<Driver>(stream_id, events)?;
            return Ok(vec![fleet::keep(&driver).map_err(|error| Failure::Never(error.to_string()))?]);
        }
        let since = fold::<Delivery>(stream_id, events)?.state.waiting_since();
        Ok(since.map(|since| dispatch::waits(stream_id, since)).into_iter().collect())
    }
}
