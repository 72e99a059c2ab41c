//! The kitchen service: cooks what is ordered and paid for.
//!
//! In: `order.placed` and `payment.confirmed`, whichever comes first; `order.cancellation_requested`,
//! `payment.declined`; its own `kitchen.ticket_accepted`; people's menus. Out: `kitchen.*`, which [`domain`] lists.
//! [`reactions`] says what follows from which event, [`http`] what people can ask.

use std::{str::FromStr, sync::Arc, time::Duration};

use eventing::{Identity, Platform, StartError};
use runtime::Service;

pub mod domain;
mod http;
pub mod reactions;

/// Who the kitchen is to the others.
pub const SERVICE: Identity = Identity { name: "kitchen", source: "/kitchen", topic: "kitchen" };

/// What can be set.
#[derive(Debug, Clone, clap::Args)]
#[group(id = "kitchen")]
pub struct Settings {
    /// How long the simulated cook takes for an order, such as 20ms or 2s; `manual`: a person packs each order with
    /// `POST /tickets/{id}/pack`.
    #[arg(long, env = "COOKING", value_name = "SPAN|manual", default_value = "20ms")]
    pub cooking: Cooking,
}

impl Settings {
    /// Whether a person cooks.
    #[must_use]
    pub fn is_manual(&self) -> bool {
        self.cooking == Cooking::Manual
    }
}

/// Who cooks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cooking {
    /// The simulated cook, who takes this long.
    Takes(Duration),
    /// A person.
    Manual,
}

impl FromStr for Cooking {
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
    let database = platform.database(&[]).await?;
    let writer = platform.writer(SERVICE, database);
    let reactions = Arc::new(reactions::KitchenReactions { cooking: settings.cooking });
    Ok(platform.assemble(SERVICE, writer.clone(), reactions, http::routes(writer)))
}
