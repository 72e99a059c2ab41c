//! `rainstorm observe`: the senses of the organism. What goes over the log and how far everybody is behind is read from
//! the log itself, who is awake from the programs' own measures or, in a cluster, from Kubernetes. Nothing of it is in
//! anybody's way: who is slow to look misses pictures, and no event ever waits for a picture.

pub mod frame;
mod measures;
mod traffic;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    convert::Infallible,
    net::Ipv4Addr,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use axum::{
    Router,
    extract::State,
    response::sse::{Event, KeepAlive, Sse},
    routing::get,
};
use eventing::{
    LogSettings, StartError,
    bridge::{Bounds, named_url},
    dead_letters::{self, histories},
    listen_and_serve,
    log::{EventLog, Lag, LogError, Partition, Stretch, Tail},
    sources::{Sources, Subscription},
};
use futures::{Stream, future::join_all};
use jiff::Timestamp;
use prometheus::{GaugeVec, IntGaugeVec, Opts, Registry};
use runtime::{Stop, metrics::register};
use tokio::sync::watch;
use utoipa_axum::router::OpenApiRouter;

use crate::{
    operate::{Operator, OperatorArgs},
    services::{self, NAMES},
    watch::{Watch, WatchError, Where},
};
use frame::{Drivers, Frame, Nerve, Service, Start, Trouble};
use measures::Measures;
use traffic::Traffic;

/// Between two pictures, two looks at the positions, and two at the measures and dead letters.
const FRAME_EVERY: Duration = Duration::from_millis(200);
const LOOK_EVERY: Duration = Duration::from_millis(250);
const ASK_EVERY: Duration = Duration::from_secs(1);
/// How long a program may take to say what it measures.
const PATIENCE: Duration = Duration::from_secs(2);
/// Troubles of a service that are told, and rates are over so long.
const TROUBLES: usize = 5;
const RATE: Duration = Duration::from_secs(2);

#[derive(Debug, clap::Args)]
pub struct ObserveArgs {
    /// Where to answer, on every interface: /organism for the page, /metrics, /healthz. 0: any free port.
    #[arg(long, env = "PORT", default_value_t = 8082)]
    port: u16,
    /// Where a program answers: `order=http://host:port`; the services, and `bridge`.
    #[arg(long = "program", env = "PROGRAMS", value_name = "NAME=URL", value_delimiter = ',')]
    programs: Vec<String>,
    /// Ask Kubernetes who is awake, and no program: asking one that sleeps would wake it.
    #[arg(long, env = "CLUSTER", conflicts_with = "programs")]
    cluster: bool,
    #[command(flatten)]
    place: Where,
    /// Folder with the KafkaSource manifests; without it, the ones this program was built with.
    #[arg(long, env = "SOURCES", value_name = "DIR")]
    sources: Option<PathBuf>,
    #[command(flatten)]
    operator: OperatorArgs,
    #[command(flatten)]
    log: LogSettings,
}

/// Why nothing can be observed.
#[derive(Debug, thiserror::Error)]
pub enum ObserveError {
    #[error(transparent)]
    Start(#[from] StartError),
    #[error(transparent)]
    Watch(#[from] WatchError),
}

/// Observes until SIGTERM or Ctrl-C.
pub async fn observe(args: ObserveArgs) -> Result<(), ObserveError> {
    let stop = Stop::on_signal();
    let sources = services::sources(args.sources.as_deref())?;
    let programs = args.programs.iter().map(|program| {
        let wrong = |reason: &str| StartError::Setting(format!("PROGRAMS: {program:?} {reason}"));
        let bare = |url: reqwest::Url| url.as_str().trim_end_matches('/').to_owned();
        named_url(program).map(|(name, url)| (name.to_owned(), bare(url))).map_err(wrong)
    });
    let programs: BTreeMap<String, String> = programs.collect::<Result<_, _>>()?;
    let log: Arc<dyn EventLog> = Arc::new(args.log.kafka()?);
    let operator = args.operator.operator(&programs, log.clone())?;
    let sight = match args.cluster {
        true => Sight::Cluster(Box::new(Watch::over(&args.place, &args.log).await?)),
        false => Sight::Programs(programs.into_values().map(|url| format!("{url}/metrics")).collect()),
    };
    let observer = Observer::new(log, sources, sight, operator.clone());
    let registry = observer.registry.clone();
    let looked = observer.clone();
    let own =
        runtime::Service::new("observer", OpenApiRouter::new(), OpenApiRouter::new(), registry, || async { Ok(()) })
            .looking(move || looked.clone().measure());
    let mut more = observer.router();
    if let Some(operator) = operator {
        more = more.merge(operator.router());
    }
    listen_and_serve((Ipv4Addr::UNSPECIFIED, args.port), vec![own.with(more)], stop).await?;
    Ok(())
}

/// How it is seen who is awake.
pub enum Sight {
    /// The programs' own measures, at these addresses.
    Programs(Vec<String>),
    Cluster(Box<Watch>),
}

/// Who looks.
pub struct Observer {
    log: Arc<dyn EventLog>,
    sources: Sources,
    sight: Sight,
    operator: Option<Arc<Operator>>,
    client: reqwest::Client,
    seen: Mutex<Seen>,
    frames: watch::Sender<Option<Arc<str>>>,
    registry: Registry,
    lag: IntGaugeVec,
    oldest: GaugeVec,
}

/// What was seen so far.
#[derive(Default)]
struct Seen {
    traffic: Traffic,
    measures: Measures,
    /// Of each service that hears events, its positions.
    positions: BTreeMap<String, Vec<Lag>>,
    /// Of each service, the sum of what it has finished each time it was looked.
    finished: HashMap<String, VecDeque<(Instant, i64)>>,
    /// Of each service, open dead letters and their reasons.
    letters: HashMap<String, (usize, Vec<Trouble>)>,
    /// Where the topics of dead letters ended when they were read.
    letters_end: HashMap<String, i64>,
    /// Of each service, that its deliveries are made again: when it was first seen, and how many there were.
    retried: HashMap<String, (u64, Option<Trouble>)>,
    last_frame: Option<Instant>,
}

impl Observer {
    /// Looks at `log` for those that hear of it by `sources`. Nothing is looked at while nobody is shown anything.
    pub fn new(log: Arc<dyn EventLog>, sources: Sources, sight: Sight, operator: Option<Arc<Operator>>) -> Arc<Self> {
        let registry = Registry::new();
        let lag = Opts::new("rainstorm_lag_records", "Records on the log that a service has not finished.");
        let oldest =
            Opts::new("rainstorm_oldest_event_age_seconds", "Age of the oldest event that a service has not finished.");
        let observer = Arc::new(Self {
            lag: register(&registry, IntGaugeVec::new(lag, &["service", "topic", "partition"])),
            oldest: register(&registry, GaugeVec::new(oldest, &["service"])),
            log,
            sources,
            sight,
            operator,
            client: eventing::http::client().timeout(PATIENCE).build().unwrap_or_default(),
            seen: Mutex::default(),
            frames: watch::Sender::new(None),
            registry,
        });
        tokio::spawn(look(observer.clone()));
        observer
    }

    /// What is measured here.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// `GET /organism`.
    pub fn router(self: &Arc<Self>) -> Router {
        Router::new().route("/organism", get(organism)).with_state(self.clone())
    }

    /// Nobody panics with what was seen in his hands; and if: it is as good as before.
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who hears events, and not dead letters only.
    fn subscriptions(&self) -> impl Iterator<Item = &Subscription> {
        self.sources.subscriptions.iter().filter(|subscription| subscription.hears_events())
    }

    fn topics(&self) -> Vec<String> {
        let topics: BTreeSet<&String> = self.subscriptions().flat_map(|subscription| &subscription.topics).collect();
        topics.into_iter().cloned().collect()
    }

    /// Reads on from the end of the log.
    async fn follow(&self) -> Result<Infallible, LogError> {
        let stretches = Stretch::all(&*self.log, &self.topics()).await?;
        let from: Vec<(Partition, i64)> = stretches.into_iter().map(|it| (it.partition, it.to)).collect();
        let mut tail = Tail::of(self.log.clone(), from);
        loop {
            let batch = tail.next().await?;
            self.seen().traffic.take(&batch, Instant::now());
        }
    }

    /// Looks how far everybody is.
    async fn look_at_positions(&self) -> Result<(), LogError> {
        let asked = self.subscriptions().map(async |subscription| {
            let lag = self.log.lag(&subscription.group, &subscription.topics).await?;
            Ok::<_, LogError>((subscription.service.clone(), lag))
        });
        let mut positions: BTreeMap<String, Vec<Lag>> = BTreeMap::new();
        for answer in join_all(asked).await {
            let (service, lag) = answer?;
            positions.entry(service).or_default().extend(lag);
        }
        let now = Instant::now();
        let mut seen = self.seen();
        for (service, lags) in &positions {
            let finished = seen.finished.entry(service.clone()).or_default();
            finished.push_back((now, lags.iter().map(|lag| lag.committed).sum()));
            while finished.len() > 2 && now.duration_since(finished[1].0) >= RATE {
                finished.pop_front();
            }
        }
        seen.positions = positions;
        Ok(())
    }

    /// Asks the programs what they measure.
    async fn ask(&self) {
        let Sight::Programs(urls) = &self.sight else { return };
        let texts = urls.iter().map(async |url| self.client.get(url).send().await.ok()?.text().await.ok());
        let texts: Vec<String> = join_all(texts).await.into_iter().flatten().collect();
        let mut seen = self.seen();
        let seen = &mut *seen;
        seen.measures.take(&texts, Instant::now());
        for service in NAMES {
            let now = seen.measures.of("deliveries_retried_total", service).unwrap_or_default() as u64;
            let (before, trouble) = seen.retried.entry(service.to_owned()).or_insert((now, None));
            if now > *before {
                let text = format!("{} deliveries had to be made again", now - *before);
                *trouble = Some(Trouble { at: Timestamp::now().to_string(), text });
                *before = now;
            }
        }
    }

    /// Reads the dead letters again where some came.
    async fn look_at_letters(&self) -> Result<(), LogError> {
        for service in NAMES {
            let end: i64 = match self.log.watermarks(&dead_letters::topic(service)).await {
                Ok(marks) => marks.iter().map(|(.., end)| end).sum(),
                // A topic that isn't there yet has none.
                Err(_) => continue,
            };
            if self.seen().letters_end.get(service) == Some(&end) {
                continue;
            }
            let letters = histories(&*self.log, service).await?;
            let open = letters.values().map(|history| &history.letter).filter(|letter| letter.state.is_open());
            let mut troubles: Vec<Trouble> = open
                .clone()
                .filter(|letter| letter.state == dead_letters::State::Failed)
                .map(|letter| Trouble { at: letter.time.clone(), text: letter.reason.clone() })
                .collect();
            troubles.sort_by(|a, b| b.cmp(a));
            troubles.truncate(TROUBLES);
            let mut seen = self.seen();
            seen.letters.insert(service.to_owned(), (open.count(), troubles));
            seen.letters_end.insert(service.to_owned(), end);
        }
        Ok(())
    }

    /// Sets the gauges, for whoever asks for `/metrics`.
    pub async fn measure(self: Arc<Self>) {
        let watched = self.frames.receiver_count() > 0;
        if !watched && let Err(error) = self.look_at_positions().await {
            tracing::warn!(%error, "positions can't be seen");
        }
        let positions = self.seen().positions.clone();
        for (service, lags) in positions {
            for lag in &lags {
                let Partition { topic, number } = &lag.partition;
                self.lag.with_label_values(&[&service, topic, &number.to_string()]).set(lag.records());
            }
            let oldest = self.oldest(&lags, watched).await;
            self.oldest.with_label_values(&[&service]).set(oldest.map_or(0.0, |ms| ms as f64 / 1000.0));
        }
    }

    /// The age of the oldest that waits, in milliseconds; read from the log itself where it wasn't seen coming.
    async fn oldest(&self, lags: &[Lag], seen: bool) -> Option<u64> {
        let mut oldest = None;
        for lag in lags.iter().filter(|lag| lag.records() > 0) {
            let now = Timestamp::now();
            let known = if seen { self.seen().traffic.age_ms(&lag.partition, lag.committed, now) } else { None };
            let age = match known {
                Some(age) => Some(age),
                None => self.log.read(&lag.partition, lag.committed, 1).await.ok().and_then(|first| {
                    let time = std::str::from_utf8(first.first()?.record.header("ce_time")?).ok()?.parse().ok()?;
                    u64::try_from(now.duration_since(time).as_millis()).ok()
                }),
            };
            oldest = oldest.max(age);
        }
        oldest
    }

    /// The picture of this moment.
    fn frame(&self) -> Frame {
        let (now, time) = (Instant::now(), Timestamp::now());
        let mut seen = self.seen();
        let since = seen.last_frame.replace(now).map_or(FRAME_EVERY, |last| now.duration_since(last));
        let (events, samples) = seen.traffic.frame();
        let mut orders = seen.traffic.orders(now);
        orders.placing_p50_ms = seen.measures.placing(0.5);
        orders.placing_p99_ms = seen.measures.placing(0.99);
        let in_status = |status: &&str| seen.measures.which("orders", "query", status).unwrap_or_default();
        let under_way = ["placed", "paid", "cooking", "packed", "out_for_delivery", "delivered"];
        orders.under_way = under_way.iter().map(in_status).sum::<f64>() as u64;
        let drivers = |state| seen.measures.which("drivers", "query", state).unwrap_or_default() as u64;
        let free = drivers("free");
        let mut nerves = Vec::new();
        let services = NAMES.iter().map(|name| self.service(name, &seen, now, time, &mut nerves)).collect();
        let said = self.operator.as_ref().map(|operator| operator.said()).unwrap_or_default();
        Frame {
            at: format!("{time:.3}"),
            interval_ms: u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
            mode: match &self.sight {
                Sight::Cluster(_) => "cluster",
                Sight::Programs(_) if self.operator.as_ref().is_some_and(|operator| operator.is_embedded()) => {
                    "embedded"
                }
                Sight::Programs(_) => "processes",
            },
            can: said.can,
            manual: said.manual,
            declining: said.declining,
            drivers_off: said.drivers_off,
            services,
            nerves,
            events,
            samples,
            storm: said.storm,
            orders,
            drivers: Drivers { on_shift: free + drivers("riding"), free },
        }
    }

    fn service(&self, name: &str, seen: &Seen, now: Instant, time: Timestamp, nerves: &mut Vec<Nerve>) -> Service {
        let age = |lag: &Lag| seen.traffic.age_ms(&lag.partition, lag.committed, time);
        let (mut lag, mut oldest) = (0, None);
        let mut topics: BTreeMap<&str, Vec<&Lag>> = BTreeMap::new();
        for position in seen.positions.get(name).into_iter().flatten() {
            topics.entry(&position.partition.topic).or_default().push(position);
        }
        for (topic, mut positions) in topics {
            positions.sort_by_key(|position| position.partition.number);
            let partitions: Vec<u64> =
                positions.iter().map(|it| u64::try_from(it.records()).unwrap_or_default()).collect();
            let waiting = positions.iter().filter(|position| position.records() > 0);
            let nerve = Nerve {
                topic: topic.to_owned(),
                from: services::of_topic(topic).unwrap_or_default().to_owned(),
                to: name.to_owned(),
                lag: partitions.iter().sum(),
                oldest_ms: waiting.filter_map(|position| age(position)).max(),
                partitions,
            };
            lag += nerve.lag;
            oldest = oldest.max(nerve.oldest_ms);
            nerves.push(nerve);
        }
        let finished = seen.finished.get(name);
        let rate = finished.and_then(|finished| Some((finished.front()?, finished.back()?))).map(|(first, last)| {
            let (events, seconds) = (last.1 - first.1, last.0.duration_since(first.0).as_secs_f64());
            if seconds > 0.0 && now.duration_since(last.0) < RATE { events.max(0) as f64 / seconds } else { 0.0 }
        });
        let handled = finished.and_then(|finished| finished.back()).map_or(0, |(_, events)| *events);
        let count = |what: &str| seen.measures.of(what, name).unwrap_or_default() as u64;
        let most = self.sources.scale.get(name).map_or(Bounds::default().most, |scale| scale.most);
        let (workers, unit) = match &self.sight {
            Sight::Programs(_) => (count("workers_awake"), "workers"),
            Sight::Cluster(watch) => (u64::from(watch.ready(name)), "pods"),
        };
        let state = self.operator.as_ref().and_then(|operator| operator.state_of(name));
        // Whoever knocks at a door behind which nobody is does no work.
        let workers = if matches!(state, Some("stopped" | "killed")) { 0 } else { workers };
        let (dead_letters, letters) = seen.letters.get(name).cloned().unwrap_or_default();
        let mut errors = letters;
        errors.extend(seen.retried.get(name).and_then(|(_, trouble)| trouble.clone()));
        errors.sort_by(|a, b| b.cmp(a));
        errors.truncate(TROUBLES);
        let phases = seen.measures.phases(name);
        Service {
            name: name.to_owned(),
            topic: services::topic_of(name).map(ToOwned::to_owned),
            state: state.unwrap_or(if workers > 0 { "awake" } else { "asleep" }),
            workers,
            most: most as u64,
            unit,
            wakings: match &self.sight {
                Sight::Programs(_) => count("worker_wakings_total"),
                Sight::Cluster(watch) => watch.wakings().iter().filter(|waking| waking.service == name).count() as u64,
            },
            rate: (rate.unwrap_or_default() * 10.0).round() / 10.0,
            handled: u64::try_from(handled).unwrap_or_default(),
            retried: count("deliveries_retried_total"),
            lag,
            oldest_ms: oldest,
            dead_letters,
            errors,
            start: (!phases.is_empty()).then_some(Start { phases }),
        }
    }
}

/// Looks as long as somebody is shown something, and rests in between.
async fn look(observer: Arc<Observer>) {
    loop {
        while observer.frames.receiver_count() == 0 {
            tokio::time::sleep(FRAME_EVERY).await;
        }
        *observer.seen() = Seen::default();
        tokio::select! {
            () = observer.frames.closed() => {}
            () = again("the log can't be followed", Duration::from_secs(1), || async { observer.follow().await.map(drop) }) => {}
            () = again("positions can't be seen", LOOK_EVERY, || observer.look_at_positions()) => {}
            () = again("dead letters can't be seen", ASK_EVERY, || observer.look_at_letters()) => {}
            () = again("", ASK_EVERY, || async { observer.ask().await; Ok(()) }) => {}
            () = again("", FRAME_EVERY, || async {
                if let Ok(json) = serde_json::to_string(&observer.frame()) {
                    observer.frames.send_replace(Some(json.into()));
                }
                Ok(())
            }) => {}
        }
    }
}

/// Does something again and again, for ever.
async fn again<F: Future<Output = Result<(), LogError>>>(wrong: &str, every: Duration, what: impl Fn() -> F) {
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Err(error) = what().await {
            tracing::warn!(%error, "{wrong}");
        }
    }
}

/// Pictures, some five a second. Who takes them too slowly misses some.
async fn organism(State(observer): State<Arc<Observer>>) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let mut frames = observer.frames.subscribe();
    frames.mark_unchanged();
    let told = futures::stream::unfold((frames, 0_u64), |(mut frames, number)| async move {
        frames.changed().await.ok()?;
        let frame = frames.borrow_and_update().clone().unwrap_or_default();
        let message = Event::default().event("frame").id(number.to_string()).data(frame);
        Some((Ok(message), (frames, number + 1)))
    });
    Sse::new(told).keep_alive(KeepAlive::new().interval(Duration::from_secs(10)))
}
