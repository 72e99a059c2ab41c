//! `rainstorm watch`: the heartbeat of a deployment in a cluster. How many pods of each service are wanted and ready, how
//! far each is behind, and of every wake-up from zero its moments: the event on the log, a pod wanted, its container
//! running, ready, the first effect.

mod cluster;
mod wakings;

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use eventing::{
    LogSettings, StartError,
    log::{EventLog, KafkaLog, Lag},
    sources::Sources,
};
use jiff::Timestamp;
use kube::{Client, Config, config::KubeConfigOptions};
use runtime::Stop;
use tokio::{sync::mpsc, task::JoinSet};

use crate::services;
use cluster::Change;
pub use wakings::Waking;
use wakings::{Seen, Wakings};

/// Between two looks at the log. What was seen there may have been so long before.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Between two pictures.
const SHOW_EVERY: Duration = Duration::from_secs(1);

/// Where to look.
#[derive(Debug, Clone, clap::Args)]
pub struct Where {
    /// The namespace of the services.
    #[arg(long, value_name = "NAME", default_value = "rainstorm")]
    namespace: String,
    /// kubectl's name for the cluster; without it, the one that kubectl points to, or the cluster this runs in.
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
}

#[derive(Debug, clap::Args)]
pub struct WatchArgs {
    #[command(flatten)]
    place: Where,
    /// Stop after so long; without it, on Ctrl-C.
    #[arg(long = "for", value_name = "SPAN", value_parser = runtime::settings::duration)]
    span: Option<Duration>,
    /// Print every wake-up as one JSON object on a line of its own, and no pictures.
    #[arg(long)]
    json: bool,
    /// Folder with the KafkaSource manifests; without it, the ones this program was built with.
    #[arg(long, env = "SOURCES", value_name = "DIR")]
    sources: Option<PathBuf>,
    /// Without Kafka's address there is no lag, and no event at the beginning of a wake-up.
    #[command(flatten)]
    log: LogSettings,
}

/// Why nothing can be seen.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    #[error(transparent)]
    Start(#[from] StartError),
    #[error("--context: {0}")]
    Context(#[from] kube::config::KubeconfigError),
    #[error("Kubernetes: {0}")]
    Kubernetes(#[from] kube::Error),
    #[error("Kubernetes: neither does kubectl point to a cluster, nor does this run in one ({0})")]
    Nowhere(#[from] kube::config::InferConfigError),
}

/// Watches until it is told to stop.
pub async fn watch(args: WatchArgs) -> Result<(), WatchError> {
    let stop = Stop::on_signal();
    let watch = Watch::start(&args.place, services::sources(args.sources.as_deref())?, &args.log).await?;
    let until = args.span.map(|span| Instant::now() + span);
    let mut told = 0;
    while !stop.requested() && until.is_none_or(|until| Instant::now() < until) {
        tokio::select! { () = tokio::time::sleep(SHOW_EVERY) => {}, () = stop.wait() => {} }
        let wakings = watch.wakings();
        for waking in &wakings[told..] {
            match serde_json::to_string(waking) {
                Ok(json) if args.json => println!("{json}"),
                _ => println!("{waking}"),
            }
        }
        told = wakings.len();
        if !args.json {
            println!("{}\n", watch.lines().join("\n"));
        }
    }
    Ok(())
}

/// Somebody who watches.
pub struct Watch {
    seen: Arc<Mutex<Picture>>,
    _tasks: JoinSet<()>,
}

/// What was seen so far.
#[derive(Default)]
struct Picture {
    sources: Sources,
    wakings: Wakings,
    /// Of each service and revision, pods wanted and ready.
    revisions: BTreeMap<(String, String), (u32, u32)>,
    /// Of each service that hears of events.
    behind: BTreeMap<String, Behind>,
}

/// How far a service is behind.
#[derive(Debug, Clone, Copy)]
struct Behind {
    lag: i64,
    /// The sum of what its groups have finished.
    finished: i64,
    at: Instant,
    /// Events a second since the look before.
    rate: f64,
}

impl Watch {
    /// Begins to watch a cluster and, if its address is given, the log; who hears what stands in this program.
    pub async fn over(place: &Where, log: &LogSettings) -> Result<Self, WatchError> {
        Self::start(place, services::sources(None)?, log).await
    }

    async fn start(place: &Where, sources: Sources, log: &LogSettings) -> Result<Self, WatchError> {
        let log = if log.kafka_brokers.is_some() { Some(log.kafka()?) } else { None };
        let config = match &place.context {
            Some(context) => {
                let options = KubeConfigOptions { context: Some(context.clone()), ..KubeConfigOptions::default() };
                Config::from_kubeconfig(&options).await?
            }
            None => Config::infer().await?,
        };
        let client = Client::try_from(config)?;
        // Whoever can't be asked is told now, not in a log line later.
        client.apiserver_version().await?;
        let seen = Arc::new(Mutex::new(Picture { sources: sources.clone(), ..Picture::default() }));
        let (changes, mut changed) = mpsc::unbounded_channel();
        let mut tasks = JoinSet::new();
        tasks.spawn(cluster::follow(client, place.namespace.clone(), changes));
        let picture = seen.clone();
        tasks.spawn(async move {
            while let Some(change) = changed.recv().await {
                now(&picture).change(change, Timestamp::now());
            }
        });
        if let Some(log) = log {
            tasks.spawn(look_at_the_log(log, sources, seen.clone()));
        }
        Ok(Self { seen, _tasks: tasks })
    }

    /// Every wake-up so far.
    pub fn wakings(&self) -> Vec<Waking> {
        now(&self.seen).wakings.complete().to_vec()
    }

    /// How many pods of a service are ready.
    pub fn ready(&self, service: &str) -> u32 {
        now(&self.seen).wakings.pods(service).1
    }

    /// A line for each service.
    pub fn lines(&self) -> Vec<String> {
        now(&self.seen).lines()
    }

    /// What gives the lines, for whoever shows them.
    pub fn shown(&self) -> impl Fn() -> Vec<String> + Send + 'static {
        let seen = self.seen.clone();
        move || now(&seen).lines()
    }
}

/// Nobody panics with a picture in his hands; and if: it is as good as before.
fn now(picture: &Mutex<Picture>) -> MutexGuard<'_, Picture> {
    picture.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Picture {
    fn hears(&self, service: &str) -> bool {
        self.sources.subscriptions.iter().any(|subscription| subscription.service == service)
    }

    fn change(&mut self, change: Change, at: Timestamp) {
        match change {
            Change::Running { service } => self.wakings.see(&service, self.hears(&service), at, Seen::Started),
            Change::Revision { service, revision, wanted, ready } => {
                self.revisions.insert((service.clone(), revision), (wanted, ready));
                let of_service = self.revisions.iter().filter(|((name, _), _)| *name == service).map(|(_, pods)| pods);
                let (wanted, ready) = of_service.fold((0, 0), |sum, pods| (sum.0 + pods.0, sum.1 + pods.1));
                let hears = self.hears(&service);
                self.wakings.see(&service, hears, at, Seen::Wanted(wanted));
                self.wakings.see(&service, hears, at, Seen::Ready(ready));
            }
        }
    }

    fn behind(&mut self, service: &str, lag: i64, finished: i64, oldest: Option<Timestamp>) {
        let (at, before) = (Instant::now(), self.behind.get(service).copied());
        let rate = before.map_or(0.0, |before| {
            let events = u32::try_from(finished - before.finished).unwrap_or_default();
            f64::from(events) / (at - before.at).as_secs_f64().max(0.001)
        });
        self.behind.insert(service.to_owned(), Behind { lag, finished, at, rate });
        let moment = Timestamp::now();
        if before.is_some_and(|before| finished > before.finished) {
            self.wakings.see(service, true, moment, Seen::Moved);
        }
        if let Some(since) = oldest {
            self.wakings.see(service, true, moment, Seen::Waits { since });
        }
    }

    fn lines(&self) -> Vec<String> {
        let names = self.revisions.keys().map(|(service, _)| service).chain(self.behind.keys());
        let services: std::collections::BTreeSet<&String> = names.collect();
        let mut lines =
            vec![format!("{:<10} {:>11}  {:<28} {:>8} {:>9}", "service", "ready/pods", "revisions", "lag", "events/s")];
        for service in services {
            let (wanted, ready) = self.wakings.pods(service);
            let alive =
                self.revisions.iter().filter(|((name, _), (wanted, ready))| name == service && wanted + ready > 0);
            let revisions: Vec<&str> = alive.map(|((_, revision), _)| revision.as_str()).collect();
            let (lag, rate) = match self.behind.get(service) {
                Some(behind) => (behind.lag.to_string(), format!("{:.0}", behind.rate)),
                None => ("–".to_owned(), "–".to_owned()),
            };
            let revisions = if revisions.is_empty() { "asleep".to_owned() } else { revisions.join(", ") };
            lines
                .push(format!("{service:<10} {:>11}  {revisions:<28} {lag:>8} {rate:>9}", format!("{ready}/{wanted}")));
        }
        lines
    }
}

/// Looks at the log again and again: how far everybody is, and since when something waits.
async fn look_at_the_log(log: KafkaLog, sources: Sources, seen: Arc<Mutex<Picture>>) {
    loop {
        for service in sources.services() {
            let mut lags = Vec::new();
            for subscription in sources.subscriptions.iter().filter(|it| it.service == service) {
                match log.lag(&subscription.group, &subscription.topics).await {
                    Ok(lag) => lags.extend(lag),
                    Err(error) => tracing::warn!(%error, service, "its lag can't be seen"),
                }
            }
            let behind = lags.iter().map(Lag::records).sum();
            let finished = lags.iter().map(|lag| lag.committed).sum();
            let mut oldest = None;
            for lag in lags.iter().filter(|lag| lag.records() > 0) {
                let first = log
                    .read(&lag.partition, lag.committed, 1)
                    .await
                    .ok()
                    .and_then(|records| records.into_iter().next());
                let time =
                    first.and_then(|stored| std::str::from_utf8(stored.record.header("ce_time")?).ok()?.parse().ok());
                oldest = [oldest, time].into_iter().flatten().min();
            }
            now(&seen).behind(&service, behind, finished, oldest);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
