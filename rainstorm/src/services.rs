//! The five services as a list: which there are, and how each is started on its platform.

use std::{path::Path, sync::Arc};

use eventing::{Platform, StartError, log::EventLog, rebuild::Replay, sources::Sources};
use runtime::Service;

/// The services, by name.
pub const NAMES: [&str; 5] = ["order", "payment", "kitchen", "delivery", "query"];

/// What can be set of each service.
#[derive(Debug, Clone, clap::Args)]
pub struct ServiceSettings {
    #[command(flatten)]
    pub order: order::Settings,
    #[command(flatten)]
    pub payment: payment::Settings,
    #[command(flatten)]
    pub kitchen: kitchen::Settings,
    #[command(flatten)]
    pub delivery: delivery::Settings,
    #[command(flatten)]
    pub query: query::Settings,
}

/// Starts one service.
///
/// # Errors
/// If there is no such service, or what it stands on can't be used.
pub async fn start(name: &str, settings: &ServiceSettings, platform: Platform) -> Result<Service, StartError> {
    let settings = settings.clone();
    match name {
        "order" => order::service(settings.order, platform).await,
        "payment" => payment::service(settings.payment, platform).await,
        "kitchen" => kitchen::service(settings.kitchen, platform).await,
        "delivery" => delivery::service(settings.delivery, platform).await,
        "query" => query::service(settings.query, platform).await,
        other => Err(StartError::Setting(format!("there is no service {other}; there are {}", NAMES.join(", ")))),
    }
}

/// How a writing service's store is made again from the log; `None` for one that keeps views only.
pub fn replay(name: &str) -> Option<Box<dyn Replay>> {
    match name {
        "order" => Some(Box::new(order::reactions::OrderReplay)),
        "payment" => Some(Box::new(payment::reactions::PaymentReplay)),
        "kitchen" => Some(Box::new(kitchen::reactions::KitchenReplay)),
        "delivery" => Some(Box::new(delivery::reactions::DeliveryReplay)),
        _ => None,
    }
}

/// What a service stands on; `{service}` in the URL is its name, so that each has a database of its own.
pub fn platform(name: &str, database_url: &str, log: Arc<dyn EventLog>) -> Platform {
    Platform { log, database_url: database_url.replace("{service}", name) }
}

/// The manifests in `folder`; without one, those this program was built with.
///
/// # Errors
/// If one can't be read.
pub fn sources(folder: Option<&Path>) -> Result<Sources, StartError> {
    let read = match folder {
        Some(folder) => Sources::read(folder),
        None => Sources::parse([
            ("knative/order/kafkasource.yaml", include_str!("../../knative/order/kafkasource.yaml")),
            ("knative/payment/kafkasource.yaml", include_str!("../../knative/payment/kafkasource.yaml")),
            ("knative/kitchen/kafkasource.yaml", include_str!("../../knative/kitchen/kafkasource.yaml")),
            ("knative/delivery/kafkasource.yaml", include_str!("../../knative/delivery/kafkasource.yaml")),
            ("knative/query/kafkasource.yaml", include_str!("../../knative/query/kafkasource.yaml")),
            ("knative/ticks.yaml", include_str!("../../knative/ticks.yaml")),
        ]),
    };
    read.map_err(|error| StartError::Setting(error.to_string()))
}
