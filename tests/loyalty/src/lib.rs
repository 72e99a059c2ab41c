//! Loyalty: a service that joins late. It gives customers points for completed orders, one for each full unit of what
//! they have paid, for those of last year, too: it hears all of history the first time it is told anything. To join, it
//! needs this crate and one manifest; nobody else is changed or asked.
//!
//! In: `order.placed`, `order.completed`. Out: `loyalty.*`, which [`domain`] lists. [`reactions`] says what follows from
//! which event, `http` what people can ask.

use std::sync::Arc;

use eventing::{Identity, Platform, StartError};
use runtime::Service;

pub mod domain;
mod http;
pub mod reactions;

/// Who loyalty is to the others.
pub const SERVICE: Identity = Identity { name: "loyalty", source: "/loyalty", topic: "loyalty" };

/// What can be set: nothing yet.
#[derive(Debug, Clone, clap::Args)]
#[group(id = "loyalty")]
pub struct Settings {}

/// The service on its platform.
///
/// # Errors
/// If its database can't be used.
pub async fn service(_: Settings, platform: Platform) -> Result<Service, StartError> {
    let database = platform.database(&[]).await?;
    let writer = platform.writer(SERVICE, database);
    let people = http::routes(writer.clone());
    Ok(platform.assemble(SERVICE, writer, Arc::new(reactions::LoyaltyReactions), people))
}
