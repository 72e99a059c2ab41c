//! The payment service: takes the money for an order, and gives it back when there is nothing to eat.
//!
//! In: `order.placed`, `order.cancelled`, the tick. Out: `payment.*`, which [`domain`] lists. [`reactions`] says what
//! follows from which event; [`provider`] is the company that moves the money, a port with a simulated one behind it.

use std::{sync::Arc, time::Duration};

use event_sourcing::StoreError;
use eventing::{Identity, Platform, StartError};
use runtime::Service;
use sqlx::migrate::Migrator;
use utoipa_axum::router::OpenApiRouter;

pub mod domain;
pub mod provider;
pub mod reactions;

use provider::{Patient, simulated::SimulatedProvider};

/// Who the payment service is to the others.
pub const SERVICE: Identity = Identity { name: "payment", source: "/payments", topic: "payments" };

/// The tables of its own, for `Database::open`.
pub static MIGRATIONS: Migrator = sqlx::migrate!();

/// What can be set.
#[derive(Debug, Clone, clap::Args)]
#[group(id = "payment")]
pub struct Settings {
    /// The simulated payment provider's own database; without it, tables of its own beside payment's.
    #[arg(long, env = "PROVIDER_DATABASE_URL", value_name = "URL")]
    pub provider_database_url: Option<String>,
    /// How long one call to the payment provider may take before the charge or refund is noted as owed.
    #[arg(long, env = "PROVIDER_TIMEOUT", value_name = "SPAN", default_value = "300ms",
        value_parser = runtime::settings::duration)]
    pub provider_timeout: Duration,
}

/// The service on its platform.
///
/// # Errors
/// If a database can't be used.
pub async fn service(settings: Settings, platform: Platform) -> Result<Service, StartError> {
    let beside = settings.provider_database_url.is_none();
    let migrations: &[&Migrator] =
        if beside { &[&MIGRATIONS, &provider::simulated::MIGRATIONS] } else { &[&MIGRATIONS] };
    let database = platform.database(migrations).await?;
    let ledger = match settings.provider_database_url {
        None => database.clone(),
        Some(url) => provider::simulated::open_ledger(&url).await.map_err(|error| match error {
            StoreError::Url(reason) => StartError::Setting(format!("PROVIDER_DATABASE_URL: {reason}")),
            other => other.into(),
        })?,
    };
    let provider = Patient::new(Arc::new(SimulatedProvider::new(ledger)), settings.provider_timeout);
    let writer = platform.writer(SERVICE, database);
    let reactions = Arc::new(reactions::PaymentReactions { writer: writer.clone(), provider });
    Ok(platform.assemble(SERVICE, writer, reactions, OpenApiRouter::new()))
}
