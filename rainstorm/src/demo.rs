//! `rainstorm demo`: everything in one process, with nothing installed: five services, each on a SQLite file of its
//! own, the embedded log, and the bridge that knocks at their doors. Then it rains.

use std::{
    collections::HashMap,
    fs::{File, TryLockError},
    net::Ipv4Addr,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use axum::Router;
use eventing::{
    StartError,
    bridge::{Bounds, Bridge, BridgeSettings, Pulse, RouterSink, Sink},
    log::{EmbeddedLog, EventLog, Lag},
    sources::Sources,
};
use futures::future::join_all;
use runtime::{
    Service, Stop,
    server::{Limits, serve},
};
use tokio::net::TcpListener;

use crate::{
    seed,
    services::{self, NAMES, ServiceSettings},
    storm::{self, Summary},
};

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
    if !args.no_seed {
        seed::open_town(&url, &url, args.drivers).await?;
        city.caught_up().await?;
    }
    let mut outcome = Ok(());
    if !args.no_storm {
        let pulses = city.bridge.pulses.clone();
        let mut plan = args.curve.plan(&url);
        plan.quiet = args.json && args.exit;
        let rained = tokio::select! {
            summary = storm::run(plan, move || pulse_lines(&pulses)) => Some(summary),
            () = stop.wait() => None,
        };
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
    server: tokio::task::JoinHandle<()>,
}

impl City {
    async fn start(args: &DemoArgs, stop: &Stop) -> Result<Self, DemoError> {
        let log: Arc<dyn EventLog> = Arc::new(EmbeddedLog::open(&log_file(&args.data), PARTITIONS).await?);
        let mut settings = args.settings.clone();
        let ledger = || format!("sqlite:{}", args.data.join("provider.db").display());
        settings.payment.provider_database_url.get_or_insert_with(ledger);
        let database_url = format!("sqlite:{}/{{service}}.db", args.data.display());

        let (mut routers, mut doors): (Vec<Router>, HashMap<&str, Vec<Router>>) = Default::default();
        let mut finish = Vec::new();
        for _ in 0..args.instances {
            let mut instance = Vec::new();
            for name in NAMES {
                let platform = services::platform(name, &database_url, log.clone());
                let service: Service = services::start(name, &settings, platform).await?;
                doors.entry(name).or_default().push(service.door());
                finish.push(service.finish());
                instance.push(service);
            }
            routers.push(runtime::service::router(instance));
        }
        let sinks = doors.into_iter().map(|(name, doors)| (name.to_owned(), in_turn(doors))).collect();
        let sources = services::sources(None)?;
        let bridge_settings = BridgeSettings { tick: args.tick_every, bounds: Bounds::default(), batch: BATCH };
        let bridge = Bridge::start(log.clone(), &sources, &sinks, &bridge_settings, stop).await?;

        let address = (Ipv4Addr::LOCALHOST, args.port);
        let listener =
            TcpListener::bind(address).await.map_err(|source| StartError::Listen { port: args.port, source })?;
        let port = listener.local_addr().map_err(StartError::Serve)?.port();
        eprintln!("listening on port {port}");
        let (router, limits, finish) = (one_after_the_other(routers), Limits::of_this_system(), join_all(finish));
        let server = tokio::spawn(serve(listener, router, stop.clone(), limits, finish));
        Ok(Self { port, log, sources, bridge, server })
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

/// The doors of several instances as one: each knock is the next one's.
fn in_turn(doors: Vec<Router>) -> Arc<dyn Sink> {
    struct InTurn(Vec<RouterSink>, AtomicUsize);
    #[async_trait]
    impl Sink for InTurn {
        async fn post(&self, headers: Vec<(String, String)>, body: Vec<u8>) -> Result<(u16, String), String> {
            self.0[self.1.fetch_add(1, Ordering::Relaxed) % self.0.len()].post(headers, body).await
        }
    }
    Arc::new(InTurn(doors.into_iter().map(RouterSink).collect(), AtomicUsize::new(0)))
}

/// The instances behind one port: each request is the next one's.
fn one_after_the_other(routers: Vec<Router>) -> Router {
    if let [only] = routers.as_slice() {
        return only.clone();
    }
    let turn = Arc::new(AtomicUsize::new(0));
    Router::new().fallback(move |request: axum::extract::Request| {
        let next = routers[turn.fetch_add(1, Ordering::Relaxed) % routers.len()].clone();
        async move { tower::ServiceExt::oneshot(next, request).await }
    })
}

/// The most memory this process has had resident, in MB; `None` where the system doesn't tell.
pub fn peak_memory_mb() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: f64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some((kib * 1.024 / 100.0).round() / 10.0)
}
