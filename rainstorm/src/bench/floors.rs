//! What the machine does with the same log and the same store when nobody thinks about it: no order can be quicker.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use event_sourcing::{Database, MIGRATIONS, Recorded, Store, Unit};
use eventing::log::{EmbeddedLog, EventLog, KafkaLog, Record};
use tokio::task::JoinSet;

use super::{BenchError, city::Place, databases::Databases, waiting::Waits};

/// Who appends or commits at once.
const WRITERS: usize = 16;
/// Records of one append, as a batch of a storm has them.
const BATCH: usize = 100;
const TOPIC: &str = "rainstorm-bench";
const STORE: &str = "floor";
/// Of the records that are waited for.
const TRIPS: &str = "rainstorm-bench-trips";
/// How long one may be on its way.
const PATIENCE: Duration = Duration::from_secs(30);

/// Per second.
pub struct Floors {
    pub records: f64,
    /// Each appends one event to a stream of its own; they share commits as those of a service do.
    pub transactions: f64,
    /// Milliseconds from one who appends to one who waits for it.
    pub trips: Waits,
}

/// Measures both for so long each.
///
/// # Errors
/// If log or store can't be used.
pub async fn of(place: &Place, length: Duration) -> Result<Floors, BenchError> {
    let folder = tempfile::tempdir().map_err(BenchError::Folder)?;
    let log: Arc<dyn EventLog> = match place {
        Place::Embedded => Arc::new(EmbeddedLog::open(&folder.path().join("log.db"), 12).await?),
        Place::Servers { brokers, .. } => Arc::new(KafkaLog::new(brokers, 12, &Default::default())?),
    };
    log.create_topics(&[TOPIC]).await?;
    let mut writers = JoinSet::new();
    let until = Instant::now() + length;
    for writer in 0..WRITERS {
        writers.spawn(append(log.clone(), writer, until));
    }
    let records = sum(writers).await? / length.as_secs_f64();
    let trips = trips(&log, if length < Duration::from_secs(5) { 50 } else { 500 }).await?;

    let databases = match place {
        Place::Embedded => None,
        Place::Servers { postgres, .. } => Some(Databases::create(postgres, vec![STORE]).await?),
    };
    let in_a_file = || format!("sqlite:{}", folder.path().join("store.db").display());
    let url = databases.as_ref().map_or_else(in_a_file, |databases| databases.url(STORE));
    let database = Database::open(&url, &[&MIGRATIONS]).await?;
    let store = Store::new(database.clone());
    let mut writers = JoinSet::new();
    let until = Instant::now() + length;
    for _ in 0..WRITERS * 16 {
        writers.spawn(commit(store.clone(), until));
    }
    let transactions = sum(writers).await? / length.as_secs_f64();
    database.close().await;
    if let Some(databases) = databases {
        databases.drop().await?;
    }
    Ok(Floors { records, transactions, trips })
}

async fn sum(mut writers: JoinSet<Result<u32, BenchError>>) -> Result<f64, BenchError> {
    let mut sum = 0.0;
    while let Some(written) = writers.join_next().await {
        sum += f64::from(written.map_err(|error| BenchError::Refused(error.to_string()))??);
    }
    Ok(sum)
}

async fn append(log: Arc<dyn EventLog>, writer: usize, until: Instant) -> Result<u32, BenchError> {
    let mut written = 0;
    while Instant::now() < until {
        let key = |number: usize| format!("{writer}-{written}-{number}").into_bytes();
        log.append(TOPIC, (0..BATCH).map(key).map(record).collect()).await?;
        written += u32::try_from(BATCH).unwrap_or_default();
    }
    Ok(written)
}

async fn commit(store: Store, until: Instant) -> Result<u32, BenchError> {
    let mut written = 0;
    while Instant::now() < until {
        store.commit(Unit { events: vec![event()], ..Unit::default() }).await?;
        written += 1;
    }
    Ok(written)
}

/// An event as large as others, the first of its stream.
pub fn event() -> Recorded {
    let id = event_sourcing::new_id().to_string();
    Recorded {
        stream_id: id.clone(),
        version: 1,
        id: event_sourcing::new_id().to_string(),
        event_type: "dev.rainstorm.bench.written.v1".to_owned(),
        time: event_sourcing::now().to_string(),
        correlation_id: id.clone(),
        causation_id: id,
        traceparent: String::new(),
        tracestate: String::new(),
        data: format!("{{\"text\":\"{}\"}}", "x".repeat(190)),
    }
}

/// How long a record takes from whoever appends it to whoever waits for it, when nothing else is to be done.
async fn trips(log: &Arc<dyn EventLog>, count: usize) -> Result<Waits, BenchError> {
    log.create_topics(&[TRIPS]).await?;
    let member = log.join("rainstorm-bench", &[TRIPS.to_owned()]).await?;
    let mut waits = Vec::new();
    // The first has to wait until the group knows who reads what.
    for number in 0..=count {
        let begun = Instant::now();
        log.append(TRIPS, vec![record(format!("{number}").into_bytes())]).await?;
        let heard = tokio::time::timeout(PATIENCE, member.next(1)).await;
        let heard = heard.map_err(|_| BenchError::Refused("nobody hears what is appended".to_owned()))??;
        if number > 0 {
            waits.push(begun.elapsed().as_secs_f64() * 1000.0);
        }
        member.finished(&heard).await;
    }
    member.leave().await;
    Ok(Waits::of(waits))
}

/// As large as an event of an order: twelve attributes and its data.
fn record(key: Vec<u8>) -> Record {
    let text = |length: usize| vec![b'x'; length];
    let headers = (0..12).map(|attribute| (format!("ce_attribute{attribute}"), text(36))).collect();
    Record { key: Some(key), headers, value: Some(text(200)) }
}
