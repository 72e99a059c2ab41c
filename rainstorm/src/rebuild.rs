//! `rainstorm rebuild SERVICE`: a service's store, made again from the log alone, and proved equal to the one that was
//! there. A writing service is stopped meanwhile; the views of query are made beside the live ones and swapped.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use event_sourcing::{Database, StoreError};
use eventing::{
    LogSettings, StartError,
    log::{EmbeddedLog, EventLog, LogError},
    rebuild::{self, Figures, Proof, Replay, proof},
};

use crate::{
    demo,
    services::{self, NAMES},
};

mod display;
mod place;
mod views;

use display::Bars;

#[derive(Debug, clap::Args)]
pub struct RebuildArgs {
    /// Whose store; `all`: one after the other.
    #[arg(value_parser = clap::builder::PossibleValuesParser::new(NAMES.into_iter().chain(["all"])))]
    service: String,
    /// The demo's data folder, where no Kafka is named. The demo must not be running on it, except for query's views.
    #[arg(long, value_name = "DIR", default_value = demo::DATA)]
    data: PathBuf,
    /// With Kafka: the empty store to fill (for query: the store that has the views), with `{service}` where the
    /// service's name belongs: `postgres://user:password@host/{service}`.
    #[arg(long, env = "DATABASE_URL", value_name = "URL")]
    database_url: Option<String>,
    /// The store to compare it with, which isn't changed. With the demo's data: by default the one that is there.
    #[arg(long, value_name = "URL")]
    equals: Option<String>,
    /// Compare, and leave everything as it was.
    #[arg(long)]
    dry_run: bool,
    /// Put the rebuilt store (or view) in place even if the one that is there can't be read or differs.
    #[arg(long, conflicts_with = "dry_run")]
    replace: bool,
    /// Folder with the KafkaSource manifests; without it, the ones this program was built with.
    #[arg(long, env = "SOURCES", value_name = "DIR")]
    sources: Option<PathBuf>,
    #[command(flatten)]
    log: LogSettings,
}

/// Why a store was not made again, or not put in place.
#[derive(Debug, thiserror::Error)]
pub enum RebuildError {
    #[error(transparent)]
    Start(#[from] StartError),
    #[error(transparent)]
    Data(#[from] demo::DemoError),
    #[error("{setting}: {source}")]
    Store { setting: String, source: rebuild::RebuildError },
    #[error("{service}: {source}")]
    Rebuild { service: String, source: rebuild::RebuildError },
    #[error("{service}: {source}")]
    Views { service: String, source: query::rebuild::RebuildError },
    #[error("{service}: the rebuilt store differs from the one that was there{0}", left.as_ref().map(|left| format!("; it stands in {left}, and --replace puts it in place")).unwrap_or_default())]
    Differs { service: String, left: Option<String> },
    #[error(
        "{service}: {events} events of the store that is there aren't on the log yet; let the service run until it has \
         published them, then rebuild it (the rebuilt store stands in {left})"
    )]
    Unpublished { service: String, events: u64, left: String },
    #[error("{file}: {reason}")]
    Place { file: String, reason: String },
}

/// Rebuilds what was asked for.
pub async fn rebuild(args: RebuildArgs) -> Result<(), RebuildError> {
    let names = if args.service == "all" { NAMES.to_vec() } else { vec![args.service.as_str()] };
    let on_kafka = args.log.kafka_brokers.is_some();
    if args.database_url.is_some() && !on_kafka {
        let explain = "DATABASE_URL is set, but KAFKA_BROKERS is not: the demo's stores are files in --data";
        return Err(StartError::Setting(explain.to_owned()).into());
    }
    if on_kafka && (args.dry_run || args.replace) && names != ["query"] {
        let explain = "--dry-run and --replace are for the demo's stores and for query's views: on servers an empty store \
                       is filled, and the old one is left alone";
        return Err(StartError::Setting(explain.to_owned()).into());
    }
    if on_kafka && names.len() > 1 && args.database_url.as_ref().is_some_and(|url| !url.contains("{service}")) {
        let explain = "DATABASE_URL needs {service} in it, since several services can't share a database";
        return Err(StartError::Setting(explain.to_owned()).into());
    }
    let log: Arc<dyn EventLog> = if on_kafka { Arc::new(args.log.kafka()?) } else { embedded(&args.data).await? };
    for name in names {
        match services::replay(name) {
            Some(replay) if on_kafka => on_servers(&args, name, &*replay, &log).await?,
            Some(replay) => in_folder(&args, name, &*replay, &log).await?,
            None => views::rebuild(&args, name, &log).await?,
        }
    }
    Ok(())
}

async fn embedded(data: &Path) -> Result<Arc<dyn EventLog>, RebuildError> {
    let file = demo::log_file(data);
    if !file.exists() {
        let explain =
            format!("neither KAFKA_BROKERS is set nor is there a log at {}; run the demo first", file.display());
        return Err(StartError::Setting(explain).into());
    }
    Ok(Arc::new(EmbeddedLog::watch(&file).await.map_err(StartError::Log)?))
}

/// A writing service on Kafka and a database server.
async fn on_servers(
    args: &RebuildArgs,
    name: &str,
    replay: &dyn Replay,
    log: &Arc<dyn EventLog>,
) -> Result<(), RebuildError> {
    let explain = "DATABASE_URL is not set: which empty store is to be filled?";
    let url = args.database_url.as_ref().ok_or_else(|| StartError::Setting(explain.to_owned()))?;
    let database = filled(args, name, replay, log, &url.replace("{service}", name)).await?;
    let old = args.equals.as_ref().map(|url| url.replace("{service}", name));
    let proof = compared(name, replay, old.as_deref(), &database).await?;
    database.close().await;
    match proof {
        Some(proof) if !proof.holds() => Err(RebuildError::Differs { service: name.to_owned(), left: None }),
        _ => Ok(()),
    }
}

/// A writing service on the demo's files.
async fn in_folder(
    args: &RebuildArgs,
    name: &str,
    replay: &dyn Replay,
    log: &Arc<dyn EventLog>,
) -> Result<(), RebuildError> {
    let _held = demo::hold(&args.data, false)?;
    let there = args.data.join(format!("{name}.db"));
    let new = args.data.join(format!("{name}.rebuilt.db"));
    place::remove(&new)?;
    let database = filled(args, name, replay, log, &sqlite(&new)).await?;
    let old = args.equals.clone().or_else(|| there.exists().then(|| sqlite(&there)));
    let proof = compared(name, replay, old.as_deref(), &database).await;
    database.close().await;
    if args.dry_run {
        place::remove(&new)?;
    }
    let left = (!args.dry_run).then(|| new.display().to_string());
    let differs = || Err(RebuildError::Differs { service: name.to_owned(), left: left.clone() });
    match proof {
        Err(error) if !args.replace => return Err(error),
        Err(error) => eprintln!("{error}"),
        Ok(Some(proof)) if !proof.holds() && !args.replace => return differs(),
        Ok(Some(proof)) if proof.unpublished() > 0 && !args.dry_run => {
            let events = proof.unpublished();
            return Err(RebuildError::Unpublished { service: name.to_owned(), events, left: left.unwrap_or_default() });
        }
        Ok(_) => {}
    }
    if args.dry_run {
        return Ok(());
    }
    if let Ok(killed) = Database::connect(&sqlite(&there)).await {
        // What a killed process has left beside its file gets into it.
        killed.close().await;
    }
    place::put(&new, &there)
}

fn sqlite(file: &Path) -> String {
    format!("sqlite:{}", file.display())
}

/// The store at `url`, filled from the log.
async fn filled(
    args: &RebuildArgs,
    name: &str,
    replay: &dyn Replay,
    log: &Arc<dyn EventLog>,
    url: &str,
) -> Result<Database, RebuildError> {
    let failed = |source| RebuildError::Rebuild { service: name.to_owned(), source };
    let hears = hears(args, name)?;
    let database = rebuild::open_empty(replay, url)
        .await
        .map_err(|source| RebuildError::Store { setting: format!("DATABASE_URL {}", without_password(url)), source })?;
    let bars = Bars::new(name);
    let figures = rebuild::rebuild(replay, log, &hears, &database, &bars).await.map_err(failed)?;
    bars.finish();
    tell(name, &figures);
    Ok(database)
}

/// The topics that a service is told of.
fn hears(args: &RebuildArgs, name: &str) -> Result<Vec<String>, RebuildError> {
    let sources = services::sources(args.sources.as_deref())?.for_services(&[name]);
    Ok(sources.topics().into_iter().map(ToOwned::to_owned).collect())
}

/// Compares the rebuilt store with the old one, if there is one.
async fn compared(
    name: &str,
    replay: &dyn Replay,
    old: Option<&str>,
    new: &Database,
) -> Result<Option<Proof>, RebuildError> {
    let Some(url) = old else {
        println!("{name}: there is no other store to compare it with");
        return Ok(None);
    };
    let failed = |source| RebuildError::Store { setting: format!("--equals {}", without_password(url)), source };
    let old = Database::connect(url).await.map_err(|error: StoreError| failed(error.into()))?;
    let bars = Bars::new(name);
    let proof = proof::compare(replay.projections(), &old, new, &bars).await.map_err(failed)?;
    bars.finish();
    old.close().await;
    let outcome = if proof.holds() { "equal" } else { "NOT EQUAL" };
    println!("{name}: {outcome} to {}\n{proof}", without_password(url));
    Ok(Some(proof))
}

fn tell(name: &str, figures: &Figures) {
    let Figures { events, repeats, strangers, heard, remembered, commands, seconds } = figures;
    let rate = *events as f64 / seconds.max(0.001);
    println!(
        "{name}: {events} events in {seconds:.1} s ({rate:.0} events/s), {heard} records heard, \
         {remembered} events and {commands} commands remembered"
    );
    if *repeats + *strangers > 0 {
        println!("{name}: {repeats} repeats on the log, {strangers} records that aren't its own");
    }
    if let Some(memory) = demo::peak_memory_mb() {
        println!("{name}: at most {memory:.0} MB of memory");
    }
}

fn without_password(url: &str) -> String {
    match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://{host}"),
        _ => url.to_owned(),
    }
}

impl From<LogError> for RebuildError {
    fn from(error: LogError) -> Self {
        Self::Start(error.into())
    }
}
