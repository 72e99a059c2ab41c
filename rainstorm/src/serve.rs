//! `rainstorm serve`: any of the services in one process; and `rainstorm bridge`, which knocks at their doors.

use std::{collections::HashMap, net::Ipv4Addr, path::PathBuf, sync::Arc};

use eventing::{
    LogSettings, StartError,
    bridge::{Bounds, Bridge, BridgeSettings, HttpSink, Pulse, Sink, named_url},
    listen_and_serve,
};
use prometheus::{IntCounterVec, IntGaugeVec, Opts, Registry};
use runtime::{Service, Stop};
use utoipa_axum::router::OpenApiRouter;

use crate::services::{self, NAMES, ServiceSettings};

#[derive(Debug, clap::Args)]
pub struct ServeArgs {
    /// The services to run, behind one port.
    #[arg(required = true, value_parser = clap::builder::PossibleValuesParser::new(NAMES))]
    services: Vec<String>,
    /// Where to listen, on every interface. 0: any free port.
    #[arg(long, env = "PORT", default_value_t = 8080)]
    port: u16,
    /// Each service's own database, with `{service}` where its name belongs:
    /// `postgres://user:password@host/{service}` or `sqlite:DIR/{service}.db`.
    #[arg(long, env = "DATABASE_URL", value_name = "URL")]
    database_url: String,
    #[command(flatten)]
    log: LogSettings,
    #[command(flatten)]
    settings: ServiceSettings,
}

/// Runs services until SIGTERM or Ctrl-C.
pub async fn serve(args: ServeArgs) -> Result<(), StartError> {
    let mut names = args.services;
    names.sort();
    names.dedup();
    if names.len() > 1 && !args.database_url.contains("{service}") {
        let explain = "DATABASE_URL needs {service} in it, since several services can't share a database";
        return Err(StartError::Setting(explain.to_owned()));
    }
    let stop = Stop::on_signal();
    let log = Arc::new(args.log.kafka()?);
    let mut started = Vec::new();
    for name in &names {
        let platform = services::platform(name, &args.database_url, log.clone());
        started.push(services::start(name, &args.settings, platform).await?);
    }
    listen_and_serve((Ipv4Addr::UNSPECIFIED, args.port), started, stop).await
}

#[derive(Debug, clap::Args)]
pub struct BridgeArgs {
    /// Folder with the KafkaSource and PingSource manifests; without it, the ones this program was built with.
    #[arg(long, env = "SOURCES", value_name = "DIR")]
    sources: Option<PathBuf>,
    /// Where a service's door is: `order=http://host:port/events`. One for each service.
    #[arg(long = "sink", env = "SINKS", value_name = "SERVICE=URL", value_delimiter = ',', required = true)]
    sinks: Vec<String>,
    /// Where to answer /healthz and /metrics. 0: any free port.
    #[arg(long, env = "PORT", default_value_t = 8081)]
    port: u16,
    /// How often the writing services are told that time passes.
    #[arg(long, env = "TICK_EVERY", default_value = "2s", value_parser = runtime::settings::duration)]
    tick_every: std::time::Duration,
    /// Events that one request carries, at most. 1 is how KafkaSource does it.
    #[arg(long, env = "BRIDGE_BATCH", default_value_t = 128, value_parser = clap::value_parser!(u16).range(1..=1000))]
    batch: u16,
    #[command(flatten)]
    log: LogSettings,
}

/// Knocks until SIGTERM or Ctrl-C.
pub async fn bridge(args: BridgeArgs) -> Result<(), StartError> {
    let stop = Stop::on_signal();
    let sources = services::sources(args.sources.as_deref())?;
    let mut sinks: HashMap<String, Arc<dyn Sink>> = HashMap::new();
    for sink in &args.sinks {
        let wrong = |reason: &str| StartError::Setting(format!("SINKS: {sink:?} {reason}"));
        let (name, url) = named_url(sink).map_err(wrong)?;
        if !sources.subscriptions.iter().any(|subscription| subscription.service == name) {
            return Err(wrong("names a service that no KafkaSource has as its sink"));
        }
        let door = HttpSink::new(url).map_err(|error| wrong(&error))?;
        sinks.insert(name.to_owned(), Arc::new(door));
    }
    if let Some(missing) = sources.subscriptions.iter().find(|it| !sinks.contains_key(&it.service)) {
        let explain = format!("SINKS: where is {}? Its KafkaSource is in the manifests", missing.service);
        return Err(StartError::Setting(explain));
    }
    let log = Arc::new(args.log.kafka()?);
    let settings = BridgeSettings { batch: args.batch.into(), tick: args.tick_every, bounds: Bounds::default() };
    let bridge = loop {
        match Bridge::start(log.clone(), &sources, &sinks, &settings, &stop).await {
            Ok(bridge) => break bridge,
            Err(error) if !stop.requested() => {
                tracing::warn!(%error, "KAFKA_BROKERS: the log does not answer yet");
                tokio::time::sleep(std::time::Duration::from_secs(1)).await;
            }
            Err(error) => return Err(error.into()),
        }
    };
    let metrics = Registry::new();
    // The names are constants; a registry of its own can't have them already.
    let _ = metrics.register(Box::new(PulseMetrics::new(bridge.pulses.clone())));
    let own = Service::new("bridge", OpenApiRouter::new(), OpenApiRouter::new(), metrics, || async { Ok(()) });
    listen_and_serve((Ipv4Addr::UNSPECIFIED, args.port), vec![own], stop).await?;
    // Whatever isn't answered by then is delivered again by the next bridge.
    let _ = tokio::time::timeout(runtime::server::SHUTDOWN, bridge.finish()).await;
    Ok(())
}

/// The pulses as metrics.
pub struct PulseMetrics {
    pulses: Vec<Arc<Pulse>>,
    awake: IntGaugeVec,
    waiting: IntGaugeVec,
    counts: [IntCounterVec; 4],
}

impl PulseMetrics {
    /// Metrics of these pulses, labelled by service.
    #[allow(clippy::expect_used, reason = "at start-up, with names that are constants")]
    pub fn new(pulses: Vec<Arc<Pulse>>) -> Self {
        let gauge = |name: &str, help: &str| IntGaugeVec::new(Opts::new(name, help), &["service"]).expect("valid name");
        let count =
            |name: &str, help: &str| IntCounterVec::new(Opts::new(name, help), &["service"]).expect("valid name");
        Self {
            pulses,
            awake: gauge("rainstorm_workers_awake", "Event workers awake."),
            waiting: gauge("rainstorm_events_waiting", "Events fetched and not yet delivered."),
            counts: [
                count("rainstorm_worker_wakings_total", "Times an event worker woke."),
                count("rainstorm_worker_sleeps_total", "Times an event worker went to sleep."),
                count("rainstorm_events_delivered_total", "Events delivered to the service's door."),
                count("rainstorm_deliveries_retried_total", "Deliveries that failed and were made again."),
            ],
        }
    }
}

impl prometheus::core::Collector for PulseMetrics {
    fn desc(&self) -> Vec<&prometheus::core::Desc> {
        let gauges = [&self.awake, &self.waiting].into_iter().flat_map(prometheus::core::Collector::desc);
        gauges.chain(self.counts.iter().flat_map(prometheus::core::Collector::desc)).collect()
    }

    fn collect(&self) -> Vec<prometheus::proto::MetricFamily> {
        for pulse in &self.pulses {
            let label = [pulse.service.as_str()];
            self.awake.with_label_values(&label).set(i64::try_from(pulse.awake()).unwrap_or(i64::MAX));
            self.waiting.with_label_values(&label).set(i64::try_from(pulse.waiting()).unwrap_or(i64::MAX));
            let now = [pulse.wakings(), pulse.sleeps(), pulse.delivered_so_far(), pulse.retries()];
            for (count, now) in self.counts.iter().zip(now) {
                let count = count.with_label_values(&label);
                count.inc_by(now.saturating_sub(count.get()));
            }
        }
        let gauges = [&self.awake, &self.waiting].into_iter().flat_map(prometheus::core::Collector::collect);
        gauges.chain(self.counts.iter().flat_map(prometheus::core::Collector::collect)).collect()
    }
}
