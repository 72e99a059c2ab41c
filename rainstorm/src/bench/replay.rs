//! How quickly everything can be made again, caught up with and proved: records of the log a second, beside what reading
//! them takes when nothing is done with them.

use std::{path::Path, sync::Arc, time::Instant};

use eventing::log::{EventLog, Scan, Stretch};

use super::{
    BenchError,
    city::{self, Place, Process},
    databases::Databases,
    report::{Figure, Part, Target},
};
use crate::services::{self, NAMES};

/// Events a second, and MB of memory: Kafka Streams with exactly_once_v2 caught up at 58,000/s and took 739 MB on such a
/// machine.
const RATE: f64 = 60_000.0;
const MEMORY: f64 = 73.9;

/// What stands on the log, and the stores that hold it.
pub struct Past<'a> {
    pub place: &'a Place,
    pub log: Arc<dyn EventLog>,
    /// The demo's data folder.
    pub data: &'a Path,
    /// The services' databases, on servers.
    pub databases: Option<&'a Databases>,
}

/// Reads, rebuilds each store, and audits. Nobody else may be at work.
///
/// # Errors
/// If any of it fails.
pub async fn of(past: &Past<'_>) -> Result<Vec<Figure>, BenchError> {
    let topics: Vec<String> = NAMES.into_iter().filter_map(services::topic_of).map(ToOwned::to_owned).collect();
    let (raw, records) = read(&past.log, &topics).await?;
    let mut figures = Vec::new();
    let floor = "the log read, and nothing done with it";
    for name in NAMES {
        let empty = match past.place {
            Place::Servers { postgres, .. } => Some(Databases::create(postgres, vec![name]).await?),
            Place::Embedded => None,
        };
        let done = rebuilt(past, name, empty.as_ref()).await;
        if let Some(empty) = empty {
            empty.drop().await?;
        }
        let (seconds, memory) = done?;
        figures.push(
            Figure::new(
                Part::Replay,
                format!("{name}'s store rebuilt and compared, start to end"),
                records / seconds,
                "events/s",
            )
            .beside(floor, raw)
            .aiming_at(Target::AtLeast(RATE)),
        );
        figures.push(
            Figure::new(Part::Replay, format!("{name}'s store rebuilt: memory at most"), memory, "MB")
                .aiming_at(Target::AtMost(MEMORY)),
        );
    }
    let mut command = city::rainstorm()?;
    command.args(["audit", "--json"]);
    match past.place {
        Place::Embedded => command.arg("--data").arg(past.data),
        Place::Servers { brokers, .. } => {
            let url = |name| past.databases.map(|databases| databases.url(name)).unwrap_or_default();
            let stores = NAMES.map(|name| format!("{name}={}", url(name))).join(",");
            command.env("KAFKA_BROKERS", brokers).args(["--store", &stores]);
            command.env("PROVIDER_DATABASE_URL", url(city::PROVIDER))
        }
    };
    let (seconds, memory) = Process::to_its_end("audit", command).await?;
    figures.push(
        Figure::new(Part::Replay, "everything audited, start to end", records / seconds, "events/s")
            .beside(floor, raw)
            .aiming_at(Target::AtLeast(RATE)),
    );
    figures.push(Figure::new(Part::Replay, "everything audited: memory at most", memory, "MB"));
    Ok(figures)
}

/// Records a second, and how many there are.
async fn read(log: &Arc<dyn EventLog>, topics: &[String]) -> Result<(f64, f64), BenchError> {
    let begun = Instant::now();
    let mut scan = Scan::of(log.clone(), Stretch::all(&**log, topics).await?);
    let mut records = 0.0;
    while let Some(batch) = scan.next().await? {
        #[allow(clippy::cast_precision_loss, reason = "far below 2⁵² records")]
        let more = batch.records.len() as f64;
        records += more;
    }
    Ok((records / begun.elapsed().as_secs_f64(), records))
}

/// How long `rainstorm rebuild` takes, its start and the comparison included, and how much memory.
async fn rebuilt(past: &Past<'_>, name: &'static str, empty: Option<&Databases>) -> Result<(f64, f64), BenchError> {
    let mut command = city::rainstorm()?;
    command.args(["rebuild", name]);
    match (past.place, empty) {
        (Place::Servers { brokers, .. }, Some(empty)) => {
            let old = past.databases.map(|databases| databases.url(name)).unwrap_or_default();
            command.env("KAFKA_BROKERS", brokers);
            if name == "query" {
                // The views are made beside those that are there.
                command.args(["--dry-run", "--database-url", &old])
            } else {
                command.args(["--database-url", &empty.url(name), "--equals", &old])
            }
        }
        _ => command.args(["--dry-run", "--data"]).arg(past.data),
    };
    Process::to_its_end("rebuild", command).await
}
