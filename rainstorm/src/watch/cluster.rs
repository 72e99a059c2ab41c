//! What Kubernetes knows: how many pods of each service are wanted and ready, and when a container began to run.

use futures::StreamExt;
use k8s_openapi::api::{apps::v1::Deployment, core::v1::Pod};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{ListParams, WatchEvent, WatchParams},
};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc::UnboundedSender;

/// Knative's label on what belongs to a service, and to one of its revisions.
const SERVICE: &str = "serving.knative.dev/service";
const REVISION: &str = "serving.knative.dev/revision";

/// A change that was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A revision of a service wants so many pods, and has so many that are ready.
    Revision { service: String, revision: String, wanted: u32, ready: u32 },
    /// A pod of a service runs its container.
    Running { service: String },
}

fn label<K: ResourceExt>(object: &K, name: &str) -> Option<String> {
    object.labels().get(name).cloned()
}

/// What a deployment says; one that is gone wants nothing.
fn of_deployment(deployment: &Deployment, gone: bool) -> Option<Change> {
    let count = |number: Option<i32>| if gone { 0 } else { number.and_then(|it| u32::try_from(it).ok()).unwrap_or(0) };
    Some(Change::Revision {
        service: label(deployment, SERVICE)?,
        revision: label(deployment, REVISION)?,
        wanted: count(deployment.spec.as_ref()?.replicas),
        ready: count(deployment.status.as_ref().and_then(|status| status.ready_replicas)),
    })
}

/// A pod whose own container runs; Knative's, which stands in front of it, doesn't count.
fn of_pod(pod: &Pod, gone: bool) -> Option<Change> {
    let statuses = pod.status.as_ref()?.container_statuses.as_ref()?;
    let own = statuses.iter().find(|status| status.name != "queue-proxy")?;
    let runs = own.state.as_ref()?.running.is_some();
    (runs && !gone).then(|| label(pod, SERVICE).map(|service| Change::Running { service }))?
}

/// Tells what changes, for ever: first what there is, then what becomes of it.
pub async fn follow(client: Client, namespace: String, changes: UnboundedSender<Change>) {
    let deployments = follow_kind(Api::<Deployment>::namespaced(client.clone(), &namespace), of_deployment, &changes);
    let pods = follow_kind(Api::<Pod>::namespaced(client, &namespace), of_pod, &changes);
    futures::join!(deployments, pods);
}

async fn follow_kind<K>(api: Api<K>, change: fn(&K, bool) -> Option<Change>, changes: &UnboundedSender<Change>)
where
    K: Resource + Clone + DeserializeOwned + std::fmt::Debug,
{
    while !changes.is_closed() {
        if let Err(error) = follow_once(&api, change, changes).await {
            tracing::warn!(%error, "Kubernetes does not answer; asking again");
            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        }
    }
}

/// Lists, then watches until Kubernetes has had enough of it.
async fn follow_once<K>(
    api: &Api<K>,
    change: fn(&K, bool) -> Option<Change>,
    changes: &UnboundedSender<Change>,
) -> Result<(), kube::Error>
where
    K: Resource + Clone + DeserializeOwned + std::fmt::Debug,
{
    let tell = |object: &K, gone| {
        if let Some(change) = change(object, gone) {
            // Whoever has asked may have gone; the loop above sees it.
            let _ = changes.send(change);
        }
    };
    let list = api.list(&ListParams::default().labels(SERVICE)).await?;
    list.items.iter().for_each(|object| tell(object, false));
    let version = list.metadata.resource_version.unwrap_or_default();
    let watched = api.watch(&WatchParams::default().labels(SERVICE), &version).await?;
    let mut watched = std::pin::pin!(watched);
    while let Some(event) = watched.next().await {
        match event? {
            WatchEvent::Added(object) | WatchEvent::Modified(object) => tell(&object, false),
            WatchEvent::Deleted(object) => tell(&object, true),
            WatchEvent::Bookmark(_) => {}
            // The version is too old, most of the time: begin again.
            WatchEvent::Error(_) => return Ok(()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_deployment_of_a_revision_says_what_is_wanted_and_ready() {
        let deployment = json!({
            "metadata": {"name": "order-00001-deployment", "labels": {SERVICE: "order", REVISION: "order-00001"}},
            "spec": {"replicas": 3, "selector": {}, "template": {}}, "status": {"readyReplicas": 2},
        });
        let deployment: Deployment = serde_json::from_value(deployment).unwrap();
        let change =
            |wanted, ready| Change::Revision { service: "order".into(), revision: "order-00001".into(), wanted, ready };
        assert_eq!(of_deployment(&deployment, false), Some(change(3, 2)));
        assert_eq!(of_deployment(&deployment, true), Some(change(0, 0)));
        assert_eq!(of_deployment(&Deployment::default(), false), None, "somebody else's");
    }

    #[test]
    fn a_pod_runs_when_its_own_container_does() {
        let pod = |own: serde_json::Value| {
            let waiting = json!({"waiting": {}});
            let status = |name: &str, state| json!({"name": name, "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": state});
            let running = json!({"running": {"startedAt": "2026-11-26T12:00:00Z"}});
            let of_knative = if own == waiting { running } else { waiting };
            let pod = json!({
                "metadata": {"name": "a-pod", "labels": {SERVICE: "order"}},
                "status": {"containerStatuses": [status("queue-proxy", of_knative), status("order", own)]},
            });
            serde_json::from_value::<Pod>(pod).unwrap()
        };
        let running = json!({"running": {"startedAt": "2026-11-26T12:00:00Z"}});
        assert_eq!(of_pod(&pod(running), false), Some(Change::Running { service: "order".into() }));
        assert_eq!(of_pod(&pod(json!({"waiting": {}})), false), None);
    }
}
