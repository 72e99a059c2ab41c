//! `rainstorm topics`: creates every topic that is missing, and ends. A service creates its own as it starts; where all
//! are to be there before anybody starts, this does it.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use eventing::{LogSettings, StartError, dead_letters, log::EventLog};

use crate::services;

/// How long the log may take to answer.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug, clap::Args)]
pub struct TopicsArgs {
    /// Folder with the KafkaSource manifests; without it, the ones this program was built with.
    #[arg(long, env = "SOURCES", value_name = "DIR")]
    sources: Option<PathBuf>,
    #[command(flatten)]
    log: LogSettings,
}

/// Creates the topics that somebody hears, and everybody's dead letters.
pub async fn topics(args: TopicsArgs) -> Result<(), StartError> {
    let sources = services::sources(args.sources.as_deref())?;
    let log = args.log.kafka()?;
    let letters: Vec<String> = sources.services().iter().map(|service| dead_letters::topic(service)).collect();
    let mut topics = sources.topics();
    topics.extend(letters.iter().map(String::as_str));
    topics.sort_unstable();
    topics.dedup();
    let since = Instant::now();
    while let Err(error) = log.create_topics(&topics).await {
        if since.elapsed() > PATIENCE {
            return Err(error.into());
        }
        tracing::warn!(%error, "KAFKA_BROKERS: the log does not answer yet");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    println!("{} topics are there: {}", topics.len(), topics.join(", "));
    Ok(())
}
