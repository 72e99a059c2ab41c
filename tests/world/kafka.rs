//! The one Kafka that worlds share, one after the other: emptied for each, and read in groups of its own.

use std::path::Path;

use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions},
    client::DefaultClientContext,
};

use crate::PATIENCE;

/// What any client of it begins with.
pub fn client() -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", std::env::var("KAFKA_BROKERS").expect("asked for by is_possible"));
    config
}

/// Deletes every topic, and returns when they are gone.
pub async fn empty() {
    let admin: AdminClient<DefaultClientContext> = client().create().expect("a client");
    let topics = || {
        let metadata = admin.inner().fetch_metadata(None, PATIENCE).expect("Kafka answers");
        let names = metadata.topics().iter().map(|topic| topic.name().to_owned());
        names.filter(|name| !name.starts_with("__")).collect::<Vec<_>>()
    };
    crate::until("the topics to be gone", || async {
        let left = topics();
        if left.is_empty() {
            return Some(());
        }
        // A busy Kafka may refuse one of many; then it is asked again.
        let names: Vec<&str> = left.iter().map(String::as_str).collect();
        admin.delete_topics(&names, &AdminOptions::new()).await.expect("topics can be deleted");
        None
    })
    .await;
}

/// The project's manifests in `folder`, with consumer groups of this world's own: the topics are new, the groups' memory
/// must be, too.
pub fn manifests_with_groups_of(world: &str, folder: &Path) {
    let project = Path::new(env!("CARGO_MANIFEST_DIR")).join("../knative");
    copy_manifests(&project, folder, world).expect("the manifests can be copied");
}

fn copy_manifests(from: &Path, to: &Path, name: &str) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_manifests(&entry.path(), &target, name)?;
        } else {
            let text = std::fs::read_to_string(entry.path())?;
            std::fs::write(target, text.replace("consumerGroup: ", &format!("consumerGroup: {name}-")))?;
        }
    }
    Ok(())
}
