//! The same storm over the choreography and over the chain, first with all well and then with a slow kitchen.
//!
//! A kitchen has so many cooks, each of whom has one order in hand at a time, for so long; in a slow one everything takes
//! them ten times as long, so it packs a tenth as many: less than a storm brings, more than a calm day. The chain has
//! them within. The kitchen service has a cook for everybody unless people pack (`--cooking manual`), so here its cooks
//! are people: they hear of a ticket from the live feed, cook, and pack it over HTTP.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use runtime::server::Limits;
use serde::Deserialize;
use serde_json::Value;
use tokio::{
    process::Command,
    sync::mpsc,
    task::{AbortHandle, JoinSet},
};

use super::crowd::{self, Curve, Run, quantile};
use crate::{
    bench::{
        BenchError,
        city::{Place, Process},
        databases::Databases,
        report::{Axis, Figure, Part, Plot, Series},
    },
    seed,
    services::NAMES,
    storm::Orders,
};

const DRIVERS: usize = 300;
/// How long a cook has an order in hand.
const COOKING: Duration = Duration::from_millis(20);
/// How long nothing may end before what is still under way is given up.
const PATIENCE: Duration = Duration::from_secs(30);
const RIVAL: &str = "the chain of calls";
/// The database in which payment's simulated provider keeps its ledger.
const PROVIDER: &str = "provider";

struct Kitchen {
    id: &'static str,
    name: &'static str,
    cooks: usize,
    cooking: Duration,
}

/// Measures both.
///
/// # Errors
/// If somebody doesn't start, or doesn't answer at all.
pub async fn compare(place: &Place, quick: bool) -> Result<(Vec<Figure>, Vec<Plot>), BenchError> {
    // For its effect: so many customers at once need more open files than a shell gives.
    let _ = Limits::of_this_system();
    // Cooks for four times the storm when all is well, and for two fifths of it, or a fifth, when they are slow.
    let (curve, cooks, pairs) = if quick {
        (Curve { calm: 10.0, before: 1.0, storm: 2.0, after: 1.0 }, 4, 1)
    } else {
        (Curve { calm: 20.0, before: 5.0, storm: 8.0, after: 12.0 }, 8, 3)
    };
    let (mut figures, mut plots) = (Vec::new(), Vec::new());
    for (id, name, cooking) in [("well", "all well", COOKING), ("slow", "kitchen slow", COOKING * 10)] {
        let kitchen = Kitchen { id, name, cooks, cooking };
        let (mut choreography, mut chain) = (Vec::new(), Vec::new());
        for _ in 0..pairs {
            let (run, bodies) = of_choreography(place, &kitchen, &curve).await?;
            choreography.push(run);
            chain.push(of_chain(place, &kitchen, &curve, &bodies).await?);
        }
        figures.extend(figures_of(&kitchen, &curve, &choreography, &chain));
        plots.extend(plots_of(&kitchen, &choreography, &chain));
    }
    Ok((figures, plots))
}

fn figures_of(kitchen: &Kitchen, curve: &Curve, choreography: &[Run], chain: &[Run]) -> [Figure; 3] {
    let figure = |name: &str, unit: &str, of: &dyn Fn(&Run) -> f64| {
        let [ours, theirs] = [choreography, chain].map(|runs| runs.iter().map(of).collect::<Vec<f64>>());
        let figure = Figure::new(Part::Chain, format!("{name}, {}", kitchen.name), quantile(ours.clone(), 0.5), unit);
        let runs = if ours.len() > 1 { ours } else { Vec::new() };
        Figure { runs, ..figure.beside(RIVAL, quantile(theirs, 0.5)) }
    };
    [
        figure("answer to an order in a storm, median", "ms", &|run| run.placing_in_storm(curve, 0.5)),
        figure("answer to an order in a storm, p99", "ms", &|run| run.placing_in_storm(curve, 0.99)),
        figure("of 100 orders sent, completed", "orders", &Run::completed_of_100),
    ]
}

fn plots_of(kitchen: &Kitchen, choreography: &[Run], chain: &[Run]) -> [Plot; 2] {
    let seconds = choreography.iter().chain(chain).map(Run::seconds).max().unwrap_or_default();
    let series = |of: &dyn Fn(&Run) -> Vec<(u64, f64)>| {
        [("choreography", choreography), (RIVAL, chain)]
            .map(|(name, runs)| Series { name: name.to_owned(), model: false, points: middle(runs.iter().map(of)) })
            .into()
    };
    let plot = |what: &str, title: &str, unit: &str, logarithmic, series| Plot {
        part: Part::Chain,
        id: format!("chain-{what}-{}", kitchen.id),
        title: format!("{title}, {}", kitchen.name),
        x: Axis { name: "since the start".to_owned(), unit: "s".to_owned(), logarithmic: false },
        y: Axis { name: title.to_owned(), unit: unit.to_owned(), logarithmic },
        series,
    };
    [
        plot("placing", "answer to an order, p99", "ms", true, series(&Run::placing)),
        plot("completed", "orders completed", "orders/s", false, series(&|run| run.completing(seconds))),
    ]
}

/// The median of several runs, second by second.
#[allow(clippy::cast_precision_loss, reason = "seconds")]
fn middle(runs: impl Iterator<Item = Vec<(u64, f64)>>) -> Vec<(f64, f64)> {
    let mut seconds: BTreeMap<u64, Vec<f64>> = BTreeMap::new();
    runs.flatten().for_each(|(second, value)| seconds.entry(second).or_default().push(value));
    seconds.into_iter().map(|(second, values)| (second as f64, quantile(values, 0.5))).collect()
}

// ---- The chain ------------------------------------------------------------------------------------------------------

async fn of_chain(place: &Place, kitchen: &Kitchen, curve: &Curve, bodies: &[Value]) -> Result<Run, BenchError> {
    let mut ground = Ground::new(place).await?;
    let mut command = ground.command("chain")?;
    command.args(["--cooks", &kitchen.cooks.to_string(), "--cooking", &format!("{}ms", kitchen.cooking.as_millis())]);
    command.env("DATABASE_URL", ground.url("{service}")).env("PROVIDER_DATABASE_URL", ground.url(PROVIDER));
    let url = ground.start("chain", command).await?;
    let ran = async {
        seed::open_town(&url, &url, DRIVERS).await?;
        let client = eventing::http::client().build().map_err(BenchError::Http)?;
        let answered = crowd::order(&client, &url, &curve.due(), bodies, Instant::now()).await;
        // Its 201 says that the order is completed.
        let completed = answered.iter().filter(|it| it.accepted).map(|it| it.due + it.took).collect();
        Ok(Run { answered, completed })
    };
    let ran = ran.await;
    ground.stop().await?;
    ran
}

// ---- The choreography -----------------------------------------------------------------------------------------------

async fn of_choreography(place: &Place, kitchen: &Kitchen, curve: &Curve) -> Result<(Run, Vec<Value>), BenchError> {
    let mut ground = Ground::new(place).await?;
    let urls = start_choreography(place, &mut ground).await?;
    let ran = rain_over_choreography(&urls, kitchen, curve).await;
    ground.stop().await?;
    ran
}

async fn start_choreography(place: &Place, ground: &mut Ground) -> Result<BTreeMap<&'static str, String>, BenchError> {
    let Place::Servers { brokers, .. } = place else {
        let mut command = ground.command("demo")?;
        command
            .args(["--no-storm", "--no-seed", "--cooking", "manual", "--port", "0", "--data"])
            .arg(ground.data.path());
        let url = ground.start("demo", command).await?;
        return Ok(NAMES.map(|name| (name, url.clone())).into());
    };
    let (mut urls, mut sinks) = (BTreeMap::new(), Vec::new());
    for name in NAMES {
        let mut command = ground.command("serve")?;
        command.args([name, "--cooking", "manual", "--port", "0"]).env("KAFKA_BROKERS", brokers);
        command.env("DATABASE_URL", ground.url(name)).env("PROVIDER_DATABASE_URL", ground.url(PROVIDER));
        let url = ground.start(name, command).await?;
        sinks.push(format!("{name}={url}/events"));
        urls.insert(name, url);
    }
    let mut command = ground.command("bridge")?;
    command.args(["--port", "0", "--sink", &sinks.join(",")]).env("KAFKA_BROKERS", brokers);
    ground.start("bridge", command).await?;
    Ok(urls)
}

async fn rain_over_choreography(
    urls: &BTreeMap<&'static str, String>,
    kitchen: &Kitchen,
    curve: &Curve,
) -> Result<(Run, Vec<Value>), BenchError> {
    let client = eventing::http::client().build().map_err(BenchError::Http)?;
    seed::open_town(&urls["kitchen"], &urls["delivery"], DRIVERS).await?;
    let mut orders = Orders::at(&client, &urls["order"], &urls["query"]).await?;
    let due = curve.due();
    let bodies: Vec<Value> = due.iter().map(|_| orders.one_more()).collect();

    let (told, tickets) = mpsc::unbounded_channel();
    let tickets = Arc::new(tokio::sync::Mutex::new(tickets));
    let mut cooks = JoinSet::new();
    for _ in 0..kitchen.cooks {
        cooks.spawn(cook(client.clone(), urls["kitchen"].clone(), tickets.clone(), kitchen.cooking));
    }
    let ends = Ends::listen(&client, &urls["query"], told).await?;
    let started = Instant::now();
    let answered = crowd::order(&client, &urls["order"], &due, &bodies, started).await;
    ends.of(answered.iter().filter(|it| it.accepted).count()).await;
    let completed = ends.completed(started);
    Ok((Run { answered, completed }, bodies))
}

/// Takes the next ticket, cooks it and says that it is packed, again and again.
async fn cook(
    client: reqwest::Client,
    url: String,
    tickets: Arc<tokio::sync::Mutex<mpsc::UnboundedReceiver<String>>>,
    cooking: Duration,
) {
    let next = async || tickets.lock().await.recv().await;
    while let Some(order_id) = next().await {
        tokio::time::sleep(cooking).await;
        let pack = || client.post(format!("{url}/tickets/{order_id}/pack")).timeout(crowd::PATIENCE).send();
        while pack().await.map_or(true, |answer| answer.status().is_server_error()) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// What the live feed tells of an event.
#[derive(Deserialize)]
struct Happened {
    #[serde(rename = "type")]
    name: String,
    subject: String,
}

/// When orders ended, and whether they were completed, as the live feed tells.
struct Ends {
    heard: Arc<Mutex<Vec<(Instant, bool)>>>,
    listening: AbortHandle,
}

impl Ends {
    /// Listens from now on, and hands on every ticket that is to be cooked.
    async fn listen(
        client: &reqwest::Client,
        url: &str,
        tickets: mpsc::UnboundedSender<String>,
    ) -> Result<Self, BenchError> {
        let mut feed = client.get(format!("{url}/live")).send().await.map_err(BenchError::Http)?;
        let heard = Arc::new(Mutex::new(Vec::new()));
        let ends = heard.clone();
        let listening = tokio::spawn(async move {
            let mut waiting = Vec::new();
            while let Ok(Some(piece)) = feed.chunk().await {
                waiting.extend_from_slice(&piece);
                let Some(end) = waiting.iter().rposition(|byte| *byte == b'\n') else { continue };
                let whole: Vec<u8> = waiting.drain(..=end).collect();
                for happened in whole.split(|byte| *byte == b'\n').flat_map(happened) {
                    match happened.name.as_str() {
                        // Nobody cooks any more once the storm is over.
                        "kitchen.ticket_accepted" => drop(tickets.send(happened.subject)),
                        name @ ("order.completed" | "order.cancelled") => {
                            let end = (Instant::now(), name == "order.completed");
                            ends.lock().unwrap_or_else(PoisonError::into_inner).push(end);
                        }
                        _ => {}
                    }
                }
            }
        });
        Ok(Self { heard, listening: listening.abort_handle() })
    }

    /// Returns when so many have ended, or nothing has for long.
    async fn of(&self, accepted: usize) {
        let (mut known, mut newest) = (0, Instant::now());
        while known < accepted && newest.elapsed() < PATIENCE {
            tokio::time::sleep(Duration::from_millis(20)).await;
            let now = self.heard.lock().unwrap_or_else(PoisonError::into_inner).len();
            if now > known {
                (known, newest) = (now, Instant::now());
            }
        }
    }

    fn completed(&self, started: Instant) -> Vec<Duration> {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.iter().filter(|(_, completed)| *completed).map(|(at, _)| *at - started).collect()
    }
}

impl Drop for Ends {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

/// The events in a line of the feed, if it has any.
fn happened(line: &[u8]) -> Vec<Happened> {
    let data = line.strip_prefix(b"data:").unwrap_or_default();
    serde_json::from_slice(data).unwrap_or_default()
}

// ---- What both stand on ---------------------------------------------------------------------------------------------

/// Processes of this program, and where their data is.
struct Ground {
    processes: Vec<Process>,
    databases: Option<Databases>,
    data: tempfile::TempDir,
}

impl Ground {
    async fn new(place: &Place) -> Result<Self, BenchError> {
        let data = tempfile::tempdir().map_err(BenchError::Folder)?;
        let databases = match place {
            Place::Embedded => None,
            Place::Servers { postgres, .. } => {
                Some(Databases::create(postgres, NAMES.into_iter().chain([PROVIDER]).collect()).await?)
            }
        };
        Ok(Self { processes: Vec::new(), databases, data })
    }

    /// A database of this name.
    fn url(&self, service: &str) -> String {
        let in_a_file = || format!("sqlite:{}/{service}.db", self.data.path().display());
        self.databases.as_ref().map_or_else(in_a_file, |databases| databases.url(service))
    }

    fn command(&self, name: &str) -> Result<Command, BenchError> {
        let failed = |source| BenchError::Process { name: name.to_owned(), source };
        let mut command = Command::new(std::env::current_exe().map_err(failed)?);
        command.arg(name);
        Ok(command)
    }

    /// Starts a process; where it answers.
    async fn start(&mut self, name: &str, command: Command) -> Result<String, BenchError> {
        let process = Process::start(name, command).await?;
        let url = process.url();
        self.processes.push(process);
        Ok(url)
    }

    async fn stop(mut self) -> Result<(), BenchError> {
        for process in self.processes.iter_mut().rev() {
            process.stop().await?;
        }
        match self.databases.take() {
            Some(databases) => databases.drop().await,
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_feed_is_read_line_by_line_and_what_is_no_event_is_none() {
        let line = br#"data: [{"id":"1","type":"order.completed","subject":"a"},{"type":"x","subject":"b"}]"#;
        let read: Vec<_> = happened(line).into_iter().map(|it| (it.name, it.subject)).collect();
        assert_eq!(read, [("order.completed", "a"), ("x", "b")].map(|(a, b)| (a.to_owned(), b.to_owned())));
        for none in ["", "event: events", ": keep-alive", "id: orders=1"] {
            assert!(happened(none.as_bytes()).is_empty());
        }
    }

    #[test]
    fn of_several_runs_the_middle_is_told_second_by_second() {
        let runs = [vec![(0, 5.0), (1, 9.0)], vec![(0, 1.0), (1, 7.0)], vec![(0, 3.0)]];
        assert_eq!(middle(runs.into_iter()), [(0.0, 3.0), (1.0, 7.0)]);
    }
}
