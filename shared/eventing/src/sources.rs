//! Who is told of which topics: read from the KafkaSource and PingSource manifests in `knative/`, so that one set of
//! files wires the laptop and the cluster.

use std::path::Path;

use serde::Deserialize;

/// A consumer group and the service it knocks at: one KafkaSource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscription {
    /// The sink's name: `order`, `payment` …
    pub service: String,
    pub group: String,
    pub topics: Vec<String>,
}

/// Everything that the manifests say about who hears what.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sources {
    pub subscriptions: Vec<Subscription>,
    /// The services that are told that time passes: one PingSource each.
    pub ticks: Vec<String>,
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
    #[serde(other)]
    Other,
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
spec: {}
";

    #[test]
    fn the_manifests_say_who_hears_what_and_other_kinds_are_not_our_business() {
        let sources = Sources::parse([("kitchen.yaml", KITCHEN)]).unwrap();
        let kitchen = Subscription {
            service: "kitchen".into(),
            group: "rainstorm-kitchen".into(),
            topics: vec!["orders".into(), "payments".into()],
        };
        assert_eq!(sources, Sources { subscriptions: vec![kitchen], ticks: vec!["kitchen".into()] });
        assert_eq!(sources.clone().for_services(&["order"]), Sources::default());
    }

    #[test]
    fn a_manifest_that_does_not_read_is_named() {
        let broken = KITCHEN.replace("consumerGroup", "consumergroup");
        let error = Sources::parse([("knative/kitchen.yaml", broken.as_str())]).unwrap_err().to_string();
        assert!(error.contains("knative/kitchen.yaml") && error.contains("consumerGroup"), "{error}");
    }
}
