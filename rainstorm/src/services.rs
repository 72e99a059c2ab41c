//! The five services as a list: which there are, and how each is started on its platform.

use std::{path::Path, sync::Arc};

use eventing::{Identity, Platform, StartError, log::EventLog, rebuild::Replay, sources::Sources};
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

/// Who the writing services are.
const WRITERS: [Identity; 4] = [order::SERVICE, payment::SERVICE, kitchen::SERVICE, delivery::SERVICE];

/// The topic that a service publishes to.
pub fn topic_of(name: &str) -> Option<&'static str> {
    WRITERS.iter().find(|service| service.name == name).map(|service| service.topic)
}

/// The service that publishes to a topic.
pub fn of_topic(topic: &str) -> Option<&'static str> {
    WRITERS.iter().find(|service| service.topic == topic).map(|service| service.name)
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
    Platform::new(log, database_url.replace("{service}", name))
}

/// The manifests in `folder`; without one, those this program was built with.
///
/// # Errors
/// If one can't be read.
pub fn sources(folder: Option<&Path>) -> Result<Sources, StartError> {
    let read = match folder {
        Some(folder) => Sources::read(folder),
        None => Sources::parse([
            ("knative/order/service.yaml", include_str!("../../knative/order/service.yaml")),
            ("knative/order/kafkasource.yaml", include_str!("../../knative/order/kafkasource.yaml")),
            ("knative/order/dead-letters.yaml", include_str!("../../knative/order/dead-letters.yaml")),
            ("knative/payment/service.yaml", include_str!("../../knative/payment/service.yaml")),
            ("knative/payment/kafkasource.yaml", include_str!("../../knative/payment/kafkasource.yaml")),
            ("knative/payment/dead-letters.yaml", include_str!("../../knative/payment/dead-letters.yaml")),
            ("knative/kitchen/service.yaml", include_str!("../../knative/kitchen/service.yaml")),
            ("knative/kitchen/kafkasource.yaml", include_str!("../../knative/kitchen/kafkasource.yaml")),
            ("knative/kitchen/dead-letters.yaml", include_str!("../../knative/kitchen/dead-letters.yaml")),
            ("knative/delivery/service.yaml", include_str!("../../knative/delivery/service.yaml")),
            ("knative/delivery/kafkasource.yaml", include_str!("../../knative/delivery/kafkasource.yaml")),
            ("knative/delivery/dead-letters.yaml", include_str!("../../knative/delivery/dead-letters.yaml")),
            ("knative/query/service.yaml", include_str!("../../knative/query/service.yaml")),
            ("knative/query/kafkasource.yaml", include_str!("../../knative/query/kafkasource.yaml")),
            ("knative/query/dead-letters.yaml", include_str!("../../knative/query/dead-letters.yaml")),
            ("knative/ticks.yaml", include_str!("../../knative/ticks.yaml")),
        ]),
    };
    read.map_err(|error| StartError::Setting(error.to_string()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    impl ServiceSettings {
        /// As they are when nobody sets anything.
        pub fn usual() -> Self {
            #[derive(clap::Parser)]
            struct Alone {
                #[command(flatten)]
                settings: ServiceSettings,
            }
            <Alone as clap::Parser>::parse_from(["test"]).settings
        }
    }

    #[test]
    fn whoever_listens_live_hears_what_the_query_service_hears() {
        let sources = sources(None).unwrap();
        let subscription = sources.subscriptions.iter().find(|it| it.service == "query" && it.topics.len() > 1);
        let hears: BTreeSet<&str> = subscription.unwrap().topics.iter().map(String::as_str).collect();
        assert_eq!(hears, BTreeSet::from(query::live::TOPICS));
        assert_eq!(hears, WRITERS.map(|service| service.topic).into());
    }

    /// The types that a service's Triggers let pass, as `k8s/components/brokers/triggers.yaml` says.
    fn triggered(service: &str) -> BTreeSet<String> {
        let manifests = include_str!("../../k8s/components/brokers/triggers.yaml");
        let of_service =
            manifests.split("---\n").filter(|trigger| trigger.contains(&format!("      name: {service}\n")));
        let types = of_service.flat_map(str::lines).filter_map(|line| line.trim().strip_prefix("type: dev.rainstorm."));
        types.filter_map(|name| name.strip_suffix(".v1")).map(ToOwned::to_owned).collect()
    }

    #[test]
    fn a_trigger_wakes_a_service_for_exactly_what_it_understands() {
        let mut published = Vec::new();
        for service in NAMES {
            let Ok(contract) =
                std::fs::read_dir(format!("{}/../services/{service}/contract", env!("CARGO_MANIFEST_DIR")))
            else {
                continue;
            };
            let names = contract.map(|file| file.unwrap().file_name().into_string().unwrap());
            published.extend(names.filter_map(|name| name.strip_suffix(".v1.schema.json").map(ToOwned::to_owned)));
        }
        assert!(published.len() > 20, "the contracts have moved");
        for service in NAMES {
            let Some(replay) = replay(service) else {
                assert!(triggered(service).is_empty(), "{service} wants everything");
                continue;
            };
            let understood = published.iter().filter(|name| replay.understands(name).is_some()).cloned();
            assert_eq!(triggered(service), understood.collect(), "{service}");
        }
    }
}
