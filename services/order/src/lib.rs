//! The order service: takes orders and knows how each one ends.
//!
//! In: people's orders and changes of mind; `kitchen.menu_published`; whatever ends an order: `payment.declined`,
//! `kitchen.ticket_rejected`, `kitchen.ticket_cancelled`, `kitchen.cancellation_refused`, `delivery.failed`,
//! `delivery.delivered`. Out: `order.*`, which [`domain`] lists. [`reactions`] says what follows from which event,
//! [`http`] what people can ask.

use std::sync::Arc;

use eventing::{Identity, Platform, StartError};
use runtime::Service;
use sqlx::migrate::Migrator;

pub mod domain;
mod http;
pub mod menus;
pub mod reactions;

/// Who the order service is to the others.
pub const SERVICE: Identity = Identity { name: "order", source: "/orders", topic: "orders" };

/// The tables of its own, for `Database::open`.
pub static MIGRATIONS: Migrator = sqlx::migrate!();

/// What can be set: nothing yet.
#[derive(Debug, Clone, clap::Args)]
#[group(id = "order")]
pub struct Settings {}

/// The service on its platform.
///
/// # Errors
/// If its database can't be used.
pub async fn service(_: Settings, platform: Platform) -> Result<Service, StartError> {
    let database = platform.database(&[&MIGRATIONS]).await?;
    let writer = platform.writer(SERVICE, database);
    Ok(platform.assemble(SERVICE, writer.clone(), Arc::new(reactions::OrderReactions), http::routes(writer)))
}
