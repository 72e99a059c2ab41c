//! The query service: listens to everything, keeps views of it, and answers questions. It has no domain and changes
//! nothing; that is CQRS.
//!
//! [`views`] are pure folds of events, [`projection`] keeps them in the database, [`timeline`] orders the steps of an
//! order, [`http`] is what people can ask.

use std::sync::Arc;

pub use http::{OrderFilter, Page};

use eventing::{Platform, StartError};
use runtime::Service;
use sqlx::migrate::Migrator;

mod batch;
mod http;
pub mod projection;
pub mod rebuild;
pub mod timeline;
pub mod views;

/// The views' tables, for `Database::open`.
pub static MIGRATIONS: Migrator = sqlx::migrate!();

/// What can be set: nothing yet.
#[derive(Debug, Clone, clap::Args)]
#[group(id = "query")]
pub struct Settings {}

/// The service on its platform.
///
/// # Errors
/// If its database can't be used.
pub async fn service(_: Settings, platform: Platform) -> Result<Service, StartError> {
    let database = platform.database(&[&MIGRATIONS]).await?;
    let projection = Arc::new(projection::Projection::new(database.clone()));
    let people = http::routes(http::Views { database: database.clone(), changes: projection.changes() });
    Ok(platform.listen("query", database, projection, people))
}
