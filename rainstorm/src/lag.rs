//! `rainstorm lag`: how far each service is behind, per partition.

use std::{path::PathBuf, sync::Arc};

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

/// Prints the lag of every service.
pub async fn lag(args: LagArgs) -> Result<(), StartError> {
    let sources = services::sources(args.sources.as_deref())?;
    let log: Arc<dyn EventLog> = if args.log.kafka_brokers.is_some() {
        Arc::new(args.log.kafka()?)
    } else {
        let file = demo::log_file(&args.data);
        if !file.exists() {
            let explain =
                format!("neither KAFKA_BROKERS is set nor is there a log at {}; run the demo first", file.display());
            return Err(StartError::Setting(explain));
        }
        Arc::new(EmbeddedLog::open(&file, args.log.partitions).await?)
    };
    println!("{:<10} {:<12} {:>9} {:>10} {:>10} {:>8}", "service", "topic", "partition", "committed", "end", "lag");
    for subscription in &sources.subscriptions {
        let lag = log.lag(&subscription.group, &subscription.topics).await?;
        for one in lag.iter().filter(|lag| args.all || lag.records() > 0) {
            let place = &one.partition;
            println!(
                "{:<10} {:<12} {:>9} {:>10} {:>10} {:>8}",
                subscription.service,
                place.topic,
                place.number,
                one.committed,
                one.end,
                one.records()
            );
        }
        let total: i64 = lag.iter().map(Lag::records).sum();
        println!("{:<10} {:<12} {:>9} {:>10} {:>10} {total:>8}", subscription.service, "(all)", "", "", "");
    }
    Ok(())
}
