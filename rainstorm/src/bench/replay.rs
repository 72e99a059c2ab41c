//! How quickly everything can be made again, caught up with and proved: records of the log a second, beside what reading
//! them takes when nothing is done with them.

use std::{path::Path, sync::Arc, time::Instant};

use eventing::log::{EventLog, Scan, Stretch};

use super::{
    BenchError,
    city::{self, Process},
    report::{Figure, Part, Target},
};
use crate::services::{self, NAMES};

/// Events a second, and MB of memory: Kafka Streams with exactly_once_v2 caught up at 58,000/s and took 739 MB on such a
/// machine.
const RATE: f64 = 60_000.0;
const MEMORY: f64 = 73.9;

/// Reads the demo's log, rebuilds each store in its data folder beside the one that is there, and audits. The demo must
/// not be at work.
///
/// # Errors
/// If any of it fails, or a store that was made again differs.
pub async fn of(log: &Arc<dyn EventLog>, data: &Path) -> Result<Vec<Figure>, BenchError> {
    let topics: Vec<String> = NAMES.into_iter().filter_map(services::topic_of).map(ToOwned::to_owned).collect();
    let (raw, records) = read(log, &topics).await?;
    let mut figures = Vec::new();
    let floor = "the log read, and nothing done with it";
    for name in NAMES {
        let mut command = city::rainstorm()?;
        command.args(["rebuild", name, "--dry-run", "--data"]).arg(data);
        let (seconds, memory) = Process::to_its_end("rebuild", command).await?;
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
    command.arg("--data").arg(data);
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
