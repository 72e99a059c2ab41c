//! The query service: listens to everything, keeps views of it, and answers questions. It has no domain and changes
//! nothing; that is CQRS.
//!
//! [`views`] are pure folds of events, [`projection`] keeps them in the database, [`stats`] adds them up, [`timeline`]
//! orders the steps of an order, [`http`] is what people can ask.

use std::sync::Arc;

pub use http::{OrderFilter, Page};

use eventing::{Platform, StartError};
use runtime::Service;
use sqlx::migrate::Migrator;

mod batch;
mod http;
pub mod live;
mod numbers;
mod page;
pub mod projection;
pub mod rebuild;
pub mod stats;
pub mod timeline;
pub mod views;

/// The views' tables, for `Database::open`.
pub static MIGRATIONS: Migrator = sqlx::migrate!();

/// What can be set.
#[derive(Debug, Clone, Default, clap::Args)]
#[group(id = "query")]
pub struct Settings {
    /// Where `rainstorm observe` answers: what the page shows live comes from there.
    #[arg(long, env = "OBSERVER_URL", value_name = "URL", value_parser = url)]
    pub observer_url: Option<String>,
    /// Where an observer answers that lets people operate: the page's buttons are passed on to it. Whoever reaches this
    /// service may press them.
    #[arg(long, env = "OPERATOR_URL", value_name = "URL", value_parser = url)]
    pub operator_url: Option<String>,
    /// Where a trace is shown, with {trace_id} where its id belongs, such as http://localhost:16686/trace/{trace_id}.
    #[arg(long, env = "TRACES_URL", value_name = "URL", value_parser = url)]
    pub traces_url: Option<String>,
}

/// An address of the web.
fn url(text: &str) -> Result<String, String> {
    let is_one = text.starts_with("http://") || text.starts_with("https://");
    if is_one { Ok(text.to_owned()) } else { Err("must begin with http:// or https://".to_owned()) }
}

/// The service on its platform.
///
/// # Errors
/// If its database can't be used.
pub async fn service(settings: Settings, platform: Platform) -> Result<Service, StartError> {
    let database = platform.database(&[&MIGRATIONS]).await?;
    let projection = Arc::new(projection::Projection::new(database.clone()));
    let views = http::Views { database: database.clone(), changes: projection.changes() };
    let numbers = numbers::Numbers::new(views.clone(), platform.metrics.registry());
    let people = http::routes(views).merge(live::routes(live::Live::new(platform.log.clone())));
    let service = platform.listen("query", database, projection, people).looking(move || numbers.clone().look());
    let Settings { observer_url, operator_url, traces_url } = settings;
    Ok(service.with(page::routes(page::Ways::new(observer_url, operator_url, traces_url))))
}
