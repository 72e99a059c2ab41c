//! Who is told of which topics, and how far it multiplies: read from the KafkaSource, PingSource and Service manifests
//! in `knative/`, so that one set of files wires the laptop and the cluster.

use std::{collections::BTreeMap, path::Path};

use serde::Deserialize;

use crate::dead_letters;

/// A consumer group and the service it knocks at: one KafkaSource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscription {
    /// The sink's name: `order`, `payment` …
    pub service: String,
    pub group: String,
    pub topics: Vec<String>,
}

impl Subscription {
    /// Whether it is of events; another one of the same service is of its dead letters.
    #[must_use]
    pub fn hears_events(&self) -> bool {
        !self.topics.iter().any(|topic| topic.ends_with(dead_letters::TOPIC))
    }
}

/// How far a service multiplies: what its Knative Service says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scale {
    /// `autoscaling.knative.dev/max-scale`; pods there, workers here.
    pub most: usize,
    /// `rainstorm.dev/waiting-per-worker`: one more worker wakes for every so many events that wait. (What Knative goes
    /// by, requests in flight, says nothing here: a worker has one, with a whole batch in it.)
    pub waiting_per_worker: u64,
}

const MAX_SCALE: &str = "autoscaling.knative.dev/max-scale";
const WAITING_PER_WORKER: &str = "rainstorm.dev/waiting-per-worker";

/// Everything that the manifests say about who hears what.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sources {
    pub subscriptions: Vec<Subscription>,
    /// The services that are told that time passes: one PingSource each.
    pub ticks: Vec<String>,
    /// By service, where its manifest says so.
    pub scale: BTreeMap<String, Scale>,
}

/// Why the manifests can't be used.
#[derive(Debug, thiserror::Error)]
pub enum SourcesError {
    #[error("{file}: {reason}")]
    File { file: String, reason: String },
    #[error("{folder} has no KafkaSource: nobody would hear of any event")]
    Nothing { folder: String },
}

#[derive(Deserialize)]
#[serde(tag = "kind")]
enum Manifest {
    KafkaSource {
        spec: KafkaSourceSpec,
    },
    PingSource {
        spec: PingSourceSpec,
    },
    Service {
        metadata: Named,
        #[serde(default)]
        spec: ServiceSpec,
    },
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
struct Named {
    name: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct ServiceSpec {
    template: Template,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Template {
    metadata: TemplateMetadata,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct TemplateMetadata {
    annotations: BTreeMap<String, String>,
}

impl Template {
    /// What the annotations say; nothing where one of the two is missing.
    fn scale(&self) -> Result<Option<Scale>, String> {
        let annotations = &self.metadata.annotations;
        let number = |name: &str| match annotations.get(name).map(|text| (text, text.parse::<u64>())) {
            None => Ok(None),
            Some((_, Ok(number @ 1..))) => Ok(Some(number)),
            Some((text, _)) => Err(format!("{name}: {text:?} must be a number from 1 on")),
        };
        let (most, waiting) = (number(MAX_SCALE)?, number(WAITING_PER_WORKER)?);
        let scale = |(most, waiting_per_worker)| Scale {
            most: usize::try_from(most).unwrap_or(usize::MAX),
            waiting_per_worker,
        };
        Ok(most.zip(waiting).map(scale))
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct KafkaSourceSpec {
    consumer_group: String,
    topics: Vec<String>,
    sink: Sink,
}

#[derive(Deserialize)]
struct PingSourceSpec {
    sink: Sink,
}

#[derive(Deserialize)]
struct Sink {
    #[serde(rename = "ref")]
    reference: Reference,
}

#[derive(Deserialize)]
struct Reference {
    name: String,
}

impl Sources {
    /// Reads every `.yaml` file in `folder` and below.
    ///
    /// # Errors
    /// If one can't be read, naming it.
    pub fn read(folder: &Path) -> Result<Self, SourcesError> {
        let mut files = Vec::new();
        collect(folder, &mut files)
            .map_err(|error| SourcesError::File { file: folder.display().to_string(), reason: error.to_string() })?;
        files.sort();
        let read = files.iter().map(|file| {
            let text = std::fs::read_to_string(file);
            let name = file.display().to_string();
            text.map_err(|error| SourcesError::File { file: name.clone(), reason: error.to_string() })
                .map(|text| (name, text))
        });
        let texts = read.collect::<Result<Vec<_>, _>>()?;
        let sources = Self::parse(texts.iter().map(|(name, text)| (name.as_str(), text.as_str())))?;
        if sources.subscriptions.is_empty() {
            return Err(SourcesError::Nothing { folder: folder.display().to_string() });
        }
        Ok(sources)
    }

    /// Reads manifests from texts, each with the name of its file.
    ///
    /// # Errors
    /// If one can't be read, naming it.
    pub fn parse<'a>(files: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, SourcesError> {
        let mut sources = Self::default();
        for (file, text) in files {
            let manifests: Vec<Manifest> = serde_saphyr::from_multiple(text)
                .map_err(|error| SourcesError::File { file: file.to_owned(), reason: error.to_string() })?;
            for manifest in manifests {
                match manifest {
                    Manifest::KafkaSource { spec } => sources.subscriptions.push(Subscription {
                        service: spec.sink.reference.name,
                        group: spec.consumer_group,
                        topics: spec.topics,
                    }),
                    Manifest::PingSource { spec } => sources.ticks.push(spec.sink.reference.name),
                    Manifest::Service { metadata, spec } => {
                        let wrong = |reason| SourcesError::File { file: file.to_owned(), reason };
                        if let Some(scale) = spec.template.scale().map_err(wrong)? {
                            sources.scale.insert(metadata.name, scale);
                        }
                    }
                    Manifest::Other => {}
                }
            }
        }
        Ok(sources)
    }

    /// Only what concerns these services.
    #[must_use]
    pub fn for_services(mut self, services: &[&str]) -> Self {
        self.subscriptions.retain(|subscription| services.contains(&subscription.service.as_str()));
        self.ticks.retain(|service| services.contains(&service.as_str()));
        self.scale.retain(|service, _| services.contains(&service.as_str()));
        self
    }

    /// The services that hear of anything, each once, as they come.
    #[must_use]
    pub fn services(&self) -> Vec<String> {
        let mut services: Vec<String> = Vec::new();
        for subscription in &self.subscriptions {
            if !services.contains(&subscription.service) {
                services.push(subscription.service.clone());
            }
        }
        services
    }

    /// Every topic that somebody hears, once.
    #[must_use]
    pub fn topics(&self) -> Vec<&str> {
        let mut topics: Vec<_> =
            self.subscriptions.iter().flat_map(|it| it.topics.iter().map(String::as_str)).collect();
        topics.sort_unstable();
        topics.dedup();
        topics
    }
}

fn collect(folder: &Path, files: &mut Vec<std::path::PathBuf>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml") {
            files.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const KITCHEN: &str = "
apiVersion: sources.knative.dev/v1beta1
kind: KafkaSource
metadata: {name: kitchen}
spec:
  consumerGroup: rainstorm-kitchen
  topics: [orders, payments]
  sink: {ref: {kind: Service, name: kitchen}, uri: /events}
---
apiVersion: sources.knative.dev/v1
kind: PingSource
spec: {schedule: '*/5 * * * *', sink: {ref: {name: kitchen}}}
---
apiVersion: serving.knative.dev/v1
kind: Service
metadata: {name: kitchen}
spec:
  template:
    metadata:
      annotations:
        autoscaling.knative.dev/max-scale: '7'
        rainstorm.dev/waiting-per-worker: '30'
---
apiVersion: v1
kind: Service
metadata: {name: postgres}
spec: {clusterIP: None}
---
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources: []
";

    #[test]
    fn the_manifests_say_who_hears_what_and_other_kinds_are_not_our_business() {
        let sources = Sources::parse([("kitchen.yaml", KITCHEN)]).unwrap();
        let kitchen = Subscription {
            service: "kitchen".into(),
            group: "rainstorm-kitchen".into(),
            topics: vec!["orders".into(), "payments".into()],
        };
        let scale = BTreeMap::from([("kitchen".into(), Scale { most: 7, waiting_per_worker: 30 })]);
        assert_eq!(sources, Sources { subscriptions: vec![kitchen], ticks: vec!["kitchen".into()], scale });
        assert_eq!(sources.clone().for_services(&["order"]), Sources::default());
    }

    #[test]
    fn a_manifest_that_does_not_read_is_named() {
        let broken = KITCHEN.replace("consumerGroup", "consumergroup");
        let error = Sources::parse([("knative/kitchen.yaml", broken.as_str())]).unwrap_err().to_string();
        assert!(error.contains("knative/kitchen.yaml") && error.contains("consumerGroup"), "{error}");
        let broken = KITCHEN.replace("'7'", "many");
        let error = Sources::parse([("knative/kitchen.yaml", broken.as_str())]).unwrap_err().to_string();
        assert!(error.contains("knative/kitchen.yaml") && error.contains("max-scale: \"many\""), "{error}");
    }
}
