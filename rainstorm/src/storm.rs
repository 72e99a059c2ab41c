//! `rainstorm storm`: customers, as many as a rainy evening has. Open loop: an order is sent when its time has come,
//! whether or not earlier ones were answered, and its latency counts from that moment. So a slow system can't hide
//! behind the customers it keeps waiting.

mod arrivals;
mod customers;
mod display;
mod summary;
mod tracker;

use std::{
    path::PathBuf,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use eventing::LogSettings;
use rand::{SeedableRng, rngs::StdRng};
use runtime::{Stop, settings::duration};
use tokio::time::Instant;

pub use arrivals::Weather;
use arrivals::{Arrival, OpenKitchen};
use customers::Customers;
use display::Display;
pub use summary::Summary;
use tracker::Tracker;
pub use tracker::under_way;

use crate::watch::{Watch, WatchError, Where};

/// How long the menus may take to get around.
const MENUS: Duration = Duration::from_secs(15);

/// How orders come.
#[derive(Debug, Clone, clap::Args)]
pub struct Curve {
    /// Orders per second before and after the storm.
    #[arg(long, default_value_t = 40.0, value_parser = rate)]
    calm: f64,
    /// Orders per second in the storm.
    #[arg(long, default_value_t = 400.0, value_parser = rate)]
    peak: f64,
    /// How long it is calm, before the storm and again after it.
    #[arg(long, default_value = "10s", value_parser = duration)]
    calm_for: Duration,
    /// How long the storm lasts.
    #[arg(long, default_value = "15s", value_parser = duration)]
    storm_for: Duration,
    /// The share of customers who change their minds.
    #[arg(long = "cancel", default_value_t = 0.03, value_parser = share)]
    cancelling: f64,
    /// The share of customers whose card is declined.
    #[arg(long, default_value_t = 0.03, value_parser = share)]
    bad_cards: f64,
    /// Makes the same customers come at the same moments again.
    #[arg(long)]
    seed: Option<u64>,
    /// Append the id of every order to this file the moment it is accepted: what the system has promised, as its
    /// customers know it. `rainstorm audit --accepted FILE` holds it to that.
    #[arg(long, value_name = "FILE")]
    accepted: Option<PathBuf>,
    /// Give up on unfinished orders when none has ended for so long.
    #[arg(long, default_value = "60s", value_parser = duration)]
    patience: Duration,
}

fn rate(text: &str) -> Result<f64, String> {
    let rate: f64 = text.parse().map_err(|_| format!("{text:?} is no number"))?;
    if rate > 0.0 && rate <= 100_000.0 { Ok(rate) } else { Err("must be above 0 and at most 100000".to_owned()) }
}

fn share(text: &str) -> Result<f64, String> {
    let share: f64 = text.parse().map_err(|_| format!("{text:?} is no number"))?;
    if (0.0..=1.0).contains(&share) { Ok(share) } else { Err("must be between 0 and 1".to_owned()) }
}

impl Curve {
    /// This curve against a deployment that answers everything at `url`.
    #[must_use]
    pub fn plan(&self, url: &str) -> StormPlan {
        let weather = Weather {
            calm: self.calm,
            peak: self.peak,
            calm_for: self.calm_for,
            storm_for: self.storm_for,
            cancelling: self.cancelling,
            bad_cards: self.bad_cards,
            seed: self.seed.unwrap_or_else(rand::random),
        };
        let plan = StormPlan::new(weather, url, url);
        StormPlan { patience: self.patience, accepted: self.accepted.clone(), quiet: false, ..plan }
    }
}

#[derive(Debug, clap::Args)]
pub struct StormArgs {
    /// Where orders are taken.
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    url: String,
    /// Where the query service answers, if elsewhere.
    #[arg(long, value_name = "URL")]
    query_url: Option<String>,
    /// Print the summary as one JSON object.
    #[arg(long)]
    json: bool,
    /// Watch the cluster meanwhile, as `rainstorm watch` does; every wake-up is part of the summary.
    #[arg(long)]
    watch: bool,
    #[command(flatten)]
    place: Where,
    #[command(flatten)]
    log: LogSettings,
    #[command(flatten)]
    curve: Curve,
}

/// A storm to come.
#[derive(Debug, Clone)]
pub struct StormPlan {
    pub weather: Weather,
    url: String,
    query_url: String,
    patience: Duration,
    accepted: Option<PathBuf>,
    /// Show nothing while it goes on.
    pub quiet: bool,
    /// Whether every customer's card is declined, from now on.
    pub declining: Arc<AtomicBool>,
}

impl StormPlan {
    /// This weather over a deployment that takes orders at `url` and answers questions at `query_url`.
    #[must_use]
    pub fn new(weather: Weather, url: &str, query_url: &str) -> Self {
        Self {
            weather,
            url: url.to_owned(),
            query_url: query_url.to_owned(),
            patience: Duration::from_secs(60),
            accepted: None,
            quiet: true,
            declining: Arc::default(),
        }
    }
}

/// Why it didn't rain.
#[derive(Debug, thiserror::Error)]
pub enum StormError {
    #[error("{url} does not answer; is the system running there? ({source})")]
    NoAnswer { url: String, source: reqwest::Error },
    #[error("no kitchen at {url} is open with something to eat; `rainstorm seed` opens some")]
    NothingToEat { url: String },
    #[error("--accepted {file}: {source}")]
    Accepted { file: String, source: std::io::Error },
    #[error("--watch: {0}")]
    Watch(#[from] WatchError),
    #[error("not every order reached its end as it should; the summary says which")]
    Unfinished,
}

/// `rainstorm storm`.
pub async fn storm(args: StormArgs) -> Result<(), StormError> {
    let mut plan = args.curve.plan(args.url.trim_end_matches('/'));
    if let Some(url) = &args.query_url {
        url.trim_end_matches('/').clone_into(&mut plan.query_url);
    }
    let watch = if args.watch { Some(Watch::over(&args.place, &args.log).await?) } else { None };
    let summary = match &watch {
        Some(watch) => run(plan, watch.shown()).await?,
        None => run(plan, Vec::new).await?,
    };
    let summary = Summary { wakings: watch.map(|watch| watch.wakings()).unwrap_or_default(), ..summary };
    if args.json {
        println!("{}", summary.to_json())
    } else {
        println!("{summary}")
    }
    if summary.succeeded() { Ok(()) } else { Err(StormError::Unfinished) }
}

/// Lets it rain as planned, and returns when every order has ended or patience has. `more` adds lines to the display.
pub async fn run(plan: StormPlan, more: impl Fn() -> Vec<String> + Send + 'static) -> Result<Summary, StormError> {
    let no_answer = |url: &str, source| StormError::NoAnswer { url: url.to_owned(), source };
    let client = eventing::http::client().timeout(Duration::from_secs(30)).build();
    let client = client.map_err(|source| no_answer(&plan.url, source))?;
    let kitchens = kitchens(&client, &plan).await?;
    let arrivals: Vec<Arrival> = arrivals::schedule(&plan.weather, &kitchens);
    let tracker = Arc::new(Tracker::default());
    let customers = Customers::new(client.clone(), &plan, tracker.clone());
    let customers = Arc::new(customers.map_err(|source| StormError::Accepted {
        file: plan.accepted.unwrap_or_default().display().to_string(),
        source,
    })?);

    let started = Instant::now();
    let display = Display::start(arrivals.len(), tracker.clone(), more, plan.quiet);
    let watching = tokio::spawn(tracker::watch(tracker.clone(), client, plan.query_url.clone(), plan.patience));
    let mut sent = tokio::task::JoinSet::new();
    for arrival in arrivals {
        let due = started + arrival.at;
        tokio::time::sleep_until(due).await;
        sent.spawn(customers.clone().order(arrival, due));
        while sent.try_join_next().is_some() {}
    }
    while sent.join_next().await.is_some() {}
    tracker.all_sent();
    // A watcher that panicked is a bug; what is unfinished then counts as unfinished.
    let _ = watching.await;
    display.finish();
    Ok(Summary::of(&plan.weather, &tracker, started.elapsed()))
}

/// Orders one after the other, for whoever decides himself when they come: good cards, and nobody changes his mind.
pub struct Orders {
    dice: StdRng,
    weather: Weather,
    kitchens: Vec<OpenKitchen>,
    number: usize,
}

impl Orders {
    /// Orders for the kitchens of a deployment that takes them at `url` and answers questions at `query_url`.
    ///
    /// # Errors
    /// If nobody answers, or no kitchen is open.
    pub async fn at(client: &reqwest::Client, url: &str, query_url: &str) -> Result<Self, StormError> {
        let weather = Weather { cancelling: 0.0, bad_cards: 0.0, ..Weather::usual() };
        let kitchens = kitchens(client, &StormPlan::new(weather.clone(), url, query_url)).await?;
        Ok(Self { dice: StdRng::seed_from_u64(weather.seed), weather, kitchens, number: 0 })
    }

    /// The body of the next one.
    pub fn one_more(&mut self) -> serde_json::Value {
        self.number += 1;
        let (number, weather) = (self.number, &self.weather);
        customers::body(
            &arrivals::arrival(&mut self.dice, Duration::ZERO, false, number, weather, &self.kitchens),
            false,
        )
    }
}

/// The kitchens that orders are going to be for. What was published a moment ago may still be on its way to the query
/// service and to the order service.
async fn kitchens(client: &reqwest::Client, plan: &StormPlan) -> Result<Vec<OpenKitchen>, StormError> {
    let no_answer = |url: &str, source| StormError::NoAnswer { url: url.to_owned(), source };
    let patience = Instant::now() + MENUS;
    loop {
        let open = customers::open_kitchens(client, &plan.query_url).await;
        let open = open.map_err(|source| no_answer(&plan.query_url, source))?;
        let mut known = !open.is_empty();
        for kitchen in &open {
            let asked = customers::menu_is_known(client, &plan.url, kitchen).await;
            known &= asked.map_err(|source| no_answer(&plan.url, source))?;
        }
        if known {
            return Ok(open);
        }
        if Instant::now() > patience {
            return Err(StormError::NothingToEat { url: plan.query_url.clone() });
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Waits until no order in the view is under way any more; whether that happened before progress stopped for long.
pub async fn all_ended(url: &str, stop: &Stop) -> Result<bool, StormError> {
    let no_answer = |source| StormError::NoAnswer { url: url.to_owned(), source };
    let client = eventing::http::client().build().map_err(no_answer)?;
    let (mut under_way, mut since) = (usize::MAX, Instant::now());
    while !stop.requested() {
        let now = tracker::under_way(&client, url).await.map_err(no_answer)?;
        if now == 0 {
            return Ok(true);
        }
        if now != under_way {
            (under_way, since) = (now, Instant::now());
        } else if since.elapsed() > Duration::from_secs(60) {
            return Ok(false);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(false)
}
