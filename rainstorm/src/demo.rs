//! `rainstorm demo`: everything in one process, with nothing installed: five services, each on a SQLite file of its
//! own, the embedded log, and the bridge that knocks at their doors. Then it rains.

use std::{
    collections::{BTreeMap, HashMap},
    fs::{File, TryLockError},
    net::Ipv4Addr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use axum::{Router, extract::State, http::header, routing::get};
use eventing::{
    StartError,
    bridge::{Bounds, Bridge, BridgeSettings, Pulse, Sink},
    log::{EmbeddedLog, EventLog, Lag},
    sources::Sources,
};
use futures::future::join_all;
use prometheus::Registry;
use runtime::{
    Stop, metrics,
    server::{Limits, serve},
};
use tokio::{net::TcpListener, task::JoinError};

use crate::{
    observe::{Observer, Sight, frame::Manual},
    operate::{Operator, Urls},
    seed,
    serve::PulseMetrics,
    services::{self, NAMES, ServiceSettings},
    storm::{self, StormError, Summary},
};
use seat::Seat;

pub mod seat;

/// Where the demo keeps its data unless told otherwise.
pub const DATA: &str = ".rainstorm";

/// Partitions of the demo's topics.
const PARTITIONS: i32 = 12;

/// Events that one knock carries, at most: most of them concern somebody else, and those cost next to nothing.
const BATCH: usize = 512;

#[derive(Debug, clap::Args)]
pub struct DemoArgs {
    /// The port for everything, on this machine only. 0: any free port.
    #[arg(long, env = "PORT", default_value_t = 8080)]
    port: u16,
    /// Where the data is kept between runs: one SQLite file for each service, and the event log.
    #[arg(long, value_name = "DIR", default_value = DATA)]
    data: PathBuf,
    /// Begin empty: delete the data of earlier runs first.
    #[arg(long)]
    fresh: bool,
    /// Stop after the storm; the exit status is 0 only if every order reached its end.
    #[arg(long)]
    exit: bool,
    /// Open the kitchens and put the drivers on shift, then only serve.
    #[arg(long)]
    no_storm: bool,
    /// Open no kitchen and put nobody on shift.
    #[arg(long, requires = "no_storm")]
    no_seed: bool,
    /// Drivers on shift.
    #[arg(long, default_value_t = seed::FLEET)]
    drivers: usize,
    /// Instances of every service, sharing its database.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=8))]
    instances: u8,
    /// How often the writing services are told that time passes.
    #[arg(long, env = "TICK_EVERY", default_value = "2s", value_parser = runtime::settings::duration)]
    tick_every: Duration,
    /// Print the summary as one JSON object.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    curve: storm::Curve,
    #[command(flatten)]
    settings: ServiceSettings,
}

/// Why the demo ended early.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    #[error("--data {folder}: {reason}")]
    Data { folder: String, reason: String },
    #[error(transparent)]
    Start(#[from] StartError),
    #[error(transparent)]
    Log(#[from] eventing::log::LogError),
    #[error(transparent)]
    Seed(#[from] seed::SeedError),
    #[error(transparent)]
    Storm(#[from] storm::StormError),
    #[error("not every order reached its end as it should; the summary says which")]
    Unfinished,
}

/// The event log's file in a data folder.
pub fn log_file(data: &Path) -> PathBuf {
    data.join("log.db")
}

/// Runs the demo.
pub async fn demo(args: DemoArgs) -> Result<(), DemoError> {
    let _held = hold(&args.data, args.fresh)?;
    let stop = Stop::on_signal();
    let city = City::start(&args, &stop).await?;
    let url = format!("http://127.0.0.1:{}", city.port);
    eprintln!("see it live: {url}/");
    if !args.no_seed {
        seed::open_town(&url, &url, args.drivers).await?;
        city.caught_up().await?;
    }
    let mut outcome = Ok(());
    if !args.no_storm {
        let pulses = city.bridge.pulses.clone();
        let mut plan = args.curve.plan(&url);
        plan.quiet = args.json && args.exit;
        let weather = plan.weather.clone();
        let storm = tokio::spawn(storm::run(plan, move || pulse_lines(&pulses)));
        city.operator.sees_rain(weather, storm.abort_handle());
        let rained = tokio::select! { rained = storm => heard(rained), () = stop.wait() => None };
        if let Some(mut summary) = rained.transpose()? {
            summary.rss_mb = peak_memory_mb();
            city.report(&summary, args.json);
            if !summary.succeeded() {
                outcome = Err(DemoError::Unfinished);
            }
        }
    }
    if args.exit {
        if !stop.requested() && outcome.is_ok() && !storm::all_ended(&url, &stop).await? {
            outcome = Err(DemoError::Unfinished);
        }
        stop.now();
    } else if !stop.requested() {
        eprintln!("serving at {url} until Ctrl-C; try: curl {url}/orders?limit=3");
    }
    city.finish().await?;
    outcome
}

/// What became of a storm; `None` if an operator has ended it.
fn heard(rained: Result<Result<Summary, StormError>, JoinError>) -> Option<Result<Summary, StormError>> {
    match rained {
        Ok(rained) => Some(rained),
        Err(ended) if ended.is_cancelled() => None,
        Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
    }
}

/// Takes the data folder for this process, emptied if asked for.
///
/// # Errors
/// If another process has it.
pub fn hold(data: &Path, fresh: bool) -> Result<File, DemoError> {
    let wrong = |reason: String| DemoError::Data { folder: data.display().to_string(), reason };
    std::fs::create_dir_all(data).map_err(|error| wrong(error.to_string()))?;
    let lock = File::create(data.join("lock")).map_err(|error| wrong(error.to_string()))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            return Err(wrong("another demo is running on this data; stop it, or name another folder".to_owned()));
        }
        Err(TryLockError::Error(error)) => return Err(wrong(error.to_string())),
    }
    if fresh {
        for entry in std::fs::read_dir(data).map_err(|error| wrong(error.to_string()))?.flatten() {
            let ours = entry.path().file_name().is_some_and(|name| name.to_string_lossy().contains(".db"));
            if ours {
                std::fs::remove_file(entry.path()).map_err(|error| wrong(error.to_string()))?;
            }
        }
    }
    Ok(lock)
}

/// Everything that runs in the process.
struct City {
    port: u16,
    log: Arc<dyn EventLog>,
    sources: Sources,
    bridge: Bridge,
    operator: Arc<Operator>,
    server: tokio::task::JoinHandle<()>,
}

impl City {
    async fn start(args: &DemoArgs, stop: &Stop) -> Result<Self, DemoError> {
        let log: Arc<dyn EventLog> = Arc::new(EmbeddedLog::open(&log_file(&args.data), PARTITIONS).await?);
        let mut settings = args.settings.clone();
        let ledger = || format!("sqlite:{}", args.data.join("provider.db").display());
        settings.payment.provider_database_url.get_or_insert_with(ledger);
        let database_url = format!("sqlite:{}/{{service}}.db", args.data.display());

        let (mut seats, mut faces) = (BTreeMap::new(), Vec::new());
        for name in NAMES {
            let (seat, face) = Seat::take(name, &settings, (log.clone(), &database_url), args.instances).await?;
            seats.insert(name, seat);
            faces.push(face);
        }
        let sink =
            |(name, seat): (&&str, &Arc<Seat>)| -> (String, Arc<dyn Sink>) { ((*name).to_owned(), seat.clone()) };
        let sinks: HashMap<String, Arc<dyn Sink>> = seats.iter().map(sink).collect();
        let sources = services::sources(None)?;
        let bridge_settings = BridgeSettings { tick: args.tick_every, bounds: Bounds::default(), batch: BATCH };
        let bridge = Bridge::start(log.clone(), &sources, &sinks, &bridge_settings, stop).await?;

        let address = (Ipv4Addr::LOCALHOST, args.port);
        let listener =
            TcpListener::bind(address).await.map_err(|source| StartError::Listen { port: args.port, source })?;
        let port = listener.local_addr().map_err(StartError::Serve)?.port();
        eprintln!("listening on port {port}");

        let url = format!("http://127.0.0.1:{port}");
        let manual = Manual { cooking: settings.kitchen.is_manual(), riding: settings.delivery.is_manual() };
        let usual = args.curve.plan(&url).weather;
        let operator = Operator::new(Urls::all(&url), log.clone(), manual, usual, seats.clone());
        let sight = Sight::Programs(vec![format!("{url}/metrics")]);
        let observer = Observer::new(log.clone(), sources.clone(), sight, Some(operator.clone()));
        let pulses = Registry::new();
        // A registry of its own can't have these names already.
        let _ = pulses.register(Box::new(PulseMetrics::new(bridge.pulses.clone())));
        let front = Router::new()
            .route("/metrics", get(measures))
            .with_state(Measured { seats: seats.clone(), pulses, observer: observer.clone() })
            .merge(observer.router())
            .merge(operator.router())
            .fallback_service(runtime::service::router(faces));
        let finish = async move { drop(join_all(seats.values().map(|seat| seat.finish())).await) };
        let limits = Limits::of_this_system();
        let server = tokio::spawn(serve(listener, front, stop.clone(), limits, finish));
        Ok(Self { port, log, sources, bridge, operator, server })
    }

    /// Returns when every service has heard of everything so far.
    async fn caught_up(&self) -> Result<(), DemoError> {
        loop {
            let mut behind = 0;
            for subscription in &self.sources.subscriptions {
                let lag = self.log.lag(&subscription.group, &subscription.topics).await?;
                behind += lag.iter().map(Lag::records).sum::<i64>();
            }
            if behind == 0 {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn report(&self, summary: &Summary, json: bool) {
        if json {
            println!("{}", summary.to_json());
            return;
        }
        println!("{summary}");
        for pulse in &self.bridge.pulses {
            println!(
                "  {:<9} {:>7} events, up to {} workers, woke {} times, awake now: {}",
                pulse.service,
                pulse.delivered_so_far(),
                pulse.most_awake(),
                pulse.wakings(),
                pulse.awake()
            );
        }
    }

    async fn finish(self) -> Result<(), DemoError> {
        self.server.await.map_err(|error| StartError::Serve(error.into()))?;
        self.bridge.finish().await;
        Ok(())
    }
}

/// What each service's workers are doing, a line for the display.
fn pulse_lines(pulses: &[Arc<Pulse>]) -> Vec<String> {
    let one = |pulse: &Arc<Pulse>| {
        format!(
            "{:<9} lag {:>6}   workers {:>2}   handled {:>8}",
            pulse.service,
            pulse.waiting(),
            pulse.awake(),
            pulse.delivered_so_far()
        )
    };
    pulses.iter().map(one).collect()
}

/// Everybody in this process who measures something.
#[derive(Clone)]
struct Measured {
    seats: BTreeMap<&'static str, Arc<Seat>>,
    pulses: Registry,
    observer: Arc<Observer>,
}

/// What those measure who sit in their seats now, the bridge, and the observer.
async fn measures(State(it): State<Measured>) -> ([(header::HeaderName, &'static str); 1], String) {
    for seat in it.seats.values() {
        seat.look().await;
    }
    it.observer.clone().measure().await;
    let mut registries: Vec<_> = it.seats.values().flat_map(|seat| seat.metrics()).collect();
    registries.extend([("bridge", it.pulses), ("observer", it.observer.registry().clone())]);
    ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], metrics::expose(&registries))
}

/// The most memory this process has had resident, in MB; `None` where the system doesn't tell.
pub fn peak_memory_mb() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    memory_mb(&status, "VmHWM:").map(|memory| (memory * 10.0).round() / 10.0)
}

/// The memory, in MB (10⁶ bytes), that Linux tells under this name in the `status` of a process.
pub fn memory_mb(status: &str, name: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: f64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(kib * 1.024 / 1000.0)
}
