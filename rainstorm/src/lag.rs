//! `rainstorm lag`: how far each service is behind, per partition.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use eventing::{
    LogSettings, StartError,
    log::{EmbeddedLog, EventLog, Lag},
};

use crate::{demo, services};

#[derive(Debug, clap::Args)]
pub struct LagArgs {
    /// Folder with the KafkaSource manifests; without it, the ones this program was built with.
    #[arg(long, env = "SOURCES", value_name = "DIR")]
    sources: Option<PathBuf>,
    /// The demo's data folder, which is looked at where no Kafka is named.
    #[arg(long, value_name = "DIR", default_value = demo::DATA)]
    data: PathBuf,
    /// Show partitions without lag too.
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    log: LogSettings,
}

/// The log that the settings name; where they name none, the demo's in its data folder.
///
/// # Errors
/// If there is none, or it can't be opened.
pub async fn open_log(data: &Path, settings: &LogSettings) -> Result<Arc<dyn EventLog>, StartError> {
    if settings.kafka_brokers.is_some() {
        return Ok(Arc::new(settings.kafka()?));
    }
    let file = demo::log_file(data);
    if !file.exists() {
        let explain =
            format!("neither KAFKA_BROKERS is set nor is there a log at {}; run the demo first", file.display());
        return Err(StartError::Setting(explain));
    }
    Ok(Arc::new(EmbeddedLog::open(&file, settings.partitions).await?))
}

/// Prints the lag of every service.
pub async fn lag(args: LagArgs) -> Result<(), StartError> {
    let sources = services::sources(args.sources.as_deref())?;
    let log = open_log(&args.data, &args.log).await?;
    println!("{:<10} {:<22} {:>9} {:>10} {:>10} {:>8}", "service", "topic", "partition", "committed", "end", "lag");
    for service in sources.services() {
        let mut total = 0;
        for subscription in sources.subscriptions.iter().filter(|it| it.service == service) {
            let lag = log.lag(&subscription.group, &subscription.topics).await?;
            for one in lag.iter().filter(|lag| args.all || lag.records() > 0) {
                let place = &one.partition;
                println!(
                    "{service:<10} {:<22} {:>9} {:>10} {:>10} {:>8}",
                    place.topic,
                    place.number,
                    one.committed,
                    one.end,
                    one.records()
                );
            }
            total += lag.iter().map(Lag::records).sum::<i64>();
        }
        println!("{service:<10} {:<22} {:>9} {:>10} {:>10} {total:>8}", "(all)", "", "", "");
    }
    Ok(())
}
