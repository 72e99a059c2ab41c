//! The delivery service: finds a driver for what is packed, and brings it.
//!
//! In: `order.placed` and `kitchen.order_packed`, whichever comes first; its own `delivery.out_for_delivery`; drivers'
//! shifts; ticks. Out: `delivery.*`, which [`domain`] lists. [`reactions`] says what follows from which event,
//! `dispatch` brings orders and drivers together, and `http` says what people can ask.

use std::{str::FromStr, sync::Arc, time::Duration};

use eventing::{Identity, Platform, StartError};
use runtime::Service;
use sqlx::migrate::Migrator;

mod dispatch;
pub mod domain;
mod fleet;
mod http;
pub mod reactions;

/// Who delivery is to the others.
pub const SERVICE: Identity = Identity { name: "delivery", source: "/deliveries", topic: "deliveries" };

/// The tables of its projections.
pub static MIGRATIONS: Migrator = sqlx::migrate!();

/// What can be set.
#[derive(Debug, Clone, clap::Args)]
#[group(id = "delivery")]
pub struct Settings {
    /// How long a simulated ride takes, such as 20ms or 2s; `manual`: a person ends each ride with
    /// `POST /deliveries/{id}/deliver`.
    #[arg(long, env = "RIDING", value_name = "SPAN|manual", default_value = "20ms")]
    pub riding: Riding,
    /// How long an order that is ready waits for a driver before its delivery fails.
    #[arg(long, env = "DELIVERY_PATIENCE", value_name = "SPAN", default_value = "2m",
        value_parser = runtime::settings::duration)]
    pub delivery_patience: Duration,
}

impl Settings {
    /// Whether a person says that a ride is over.
    #[must_use]
    pub fn is_manual(&self) -> bool {
        self.riding == Riding::Manual
    }
}

/// Who says that a ride is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Riding {
    /// The simulated driver, who takes this long.
    Takes(Duration),
    /// A person.
    Manual,
}

impl FromStr for Riding {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "manual" { Ok(Self::Manual) } else { runtime::settings::duration(text).map(Self::Takes) }
    }
}

/// The service on its platform.
///
/// # Errors
/// If its database can't be used.
pub async fn service(settings: Settings, platform: Platform) -> Result<Service, StartError> {
    let database = platform.database(&[&MIGRATIONS]).await?;
    let writer = platform.writer(SERVICE, database);
    let dispatch = Arc::new(dispatch::Dispatch::new(writer.clone()));
    let reactions = reactions::DeliveryReactions::new(&settings, dispatch.clone());
    Ok(platform.assemble(SERVICE, writer.clone(), Arc::new(reactions), http::routes(writer, dispatch)))
}
