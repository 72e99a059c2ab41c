//! What an operator can do to the organism, from the page: let it rain, poison it, take its drivers away, and, where it
//! all runs in one process, stop, slow and kill its services. Off unless asked for: whoever reaches this may do it.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{Json, Router, extract::State, http::StatusCode, routing::post};
use event_sourcing::{new_id, now};
use eventing::{
    StartError, TYPE_PREFIX,
    dead_letters::{DISCARD_REQUESTED, REDELIVERY_REQUESTED},
    log::{EventLog, Record},
};
use futures::{StreamExt, stream};
use runtime::{
    Problem,
    extract::{JsonBody, PathParams},
    problem::FieldError,
};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::{task::AbortHandle, time::Instant};

use crate::{
    dead_letters::{first_ones, letters_of, wish_for},
    demo::seat::{Change, Seat},
    observe::frame::{Manual, Storm},
    services::NAMES,
    storm::{self, StormPlan, Weather},
};

/// How long what an operator wants may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// Orders a second that nobody can want more of.
const MOST: f64 = 2_000.0;

/// What an operator may do.
#[derive(Debug, Clone, clap::Args)]
pub struct OperatorArgs {
    /// Let whoever reaches this port make it rain, poison events, take drivers off shift and more, with the buttons on
    /// the page. It needs --program for order, kitchen, delivery and query.
    #[arg(long, env = "OPERATE")]
    operate: bool,
}

impl OperatorArgs {
    /// The operator's hands, if there are to be any.
    pub fn operator(
        &self,
        programs: &BTreeMap<String, String>,
        log: Arc<dyn EventLog>,
    ) -> Result<Option<Arc<Operator>>, StartError> {
        if !self.operate {
            return Ok(None);
        }
        let of = |name: &str| {
            let missing = || StartError::Setting(format!("OPERATE: PROGRAMS does not say where {name} is"));
            programs.get(name).cloned().ok_or_else(missing)
        };
        let urls =
            Urls { order: of("order")?, kitchen: of("kitchen")?, delivery: of("delivery")?, query: of("query")? };
        Ok(Some(Operator::new(urls, log, Manual::default(), Weather::usual(), BTreeMap::new())))
    }
}

/// Where the services take commands and questions.
#[derive(Debug, Clone)]
pub struct Urls {
    pub order: String,
    pub kitchen: String,
    pub delivery: String,
    pub query: String,
}

impl Urls {
    /// All at one place.
    pub fn all(url: &str) -> Self {
        let [order, kitchen, delivery, query] = std::array::from_fn(|_| url.to_owned());
        Self { order, kitchen, delivery, query }
    }
}

/// The operator's hands.
pub struct Operator {
    urls: Urls,
    log: Arc<dyn EventLog>,
    client: reqwest::Client,
    manual: Manual,
    /// Of services in this process.
    seats: BTreeMap<&'static str, Arc<Seat>>,
    /// A usual storm here.
    usual: Weather,
    storm: Mutex<Option<Raining>>,
    /// Whether every card is declined.
    declining: Arc<AtomicBool>,
    drivers_off: AtomicBool,
}

struct Raining {
    task: AbortHandle,
    weather: Weather,
    begun: Instant,
}

/// What the page is told of it.
#[derive(Debug, Clone, Default)]
pub struct Said {
    pub can: Vec<&'static str>,
    pub manual: Manual,
    pub declining: bool,
    pub drivers_off: bool,
    pub storm: Option<Storm>,
}

type Done = Result<Json<Value>, Problem>;

fn done(said: impl Into<String>) -> Done {
    Ok(Json(json!({"said": said.into()})))
}

fn wrong(field: &str, reason: &str) -> Problem {
    Problem::invalid(vec![FieldError::new(field, reason)])
}

impl Operator {
    /// Hands on the services at `urls`, and on those in `seats` by themselves.
    pub fn new(
        urls: Urls,
        log: Arc<dyn EventLog>,
        manual: Manual,
        usual: Weather,
        seats: BTreeMap<&'static str, Arc<Seat>>,
    ) -> Arc<Self> {
        Arc::new(Self {
            urls,
            log,
            client: eventing::http::client().timeout(PATIENCE).build().unwrap_or_default(),
            manual,
            usual,
            seats,
            storm: Mutex::default(),
            declining: Arc::default(),
            drivers_off: AtomicBool::new(false),
        })
    }

    /// Its routes.
    pub fn router(self: &Arc<Self>) -> Router {
        Router::new()
            .route("/operator/storm", post(rain))
            .route("/operator/services/{name}/{change}", post(change_service))
            .route("/operator/cards", post(cards))
            .route("/operator/drivers", post(drivers))
            .route("/operator/poison", post(poison))
            .route("/operator/dead-letters", post(letters))
            .route("/operator/orders", post(order))
            .route("/operator/pack", post(pack))
            .route("/operator/deliver", post(deliver))
            .with_state(self.clone())
    }

    /// Whether the services are in this process.
    pub fn is_embedded(&self) -> bool {
        !self.seats.is_empty()
    }

    /// `slowed`, `stopped` or `killed`; `None` if nothing is the matter.
    pub fn state_of(&self, service: &str) -> Option<&'static str> {
        self.seats.get(service)?.state()
    }

    /// What can be done, and what was.
    pub fn said(&self) -> Said {
        let mut can = vec!["storm", "orders", "drivers", "cards", "poison", "dead_letters", "pack", "deliver"];
        if self.is_embedded() {
            can.extend(["stop", "slow", "kill", "start"]);
        }
        Said {
            can,
            manual: self.manual,
            declining: self.declining.load(Ordering::Relaxed),
            drivers_off: self.drivers_off.load(Ordering::Relaxed),
            storm: self.raining().as_ref().and_then(Raining::now),
        }
    }

    fn raining(&self) -> MutexGuard<'_, Option<Raining>> {
        self.storm.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets it rain from now on, and nothing else.
    pub fn rain(&self, weather: Weather) {
        let mut plan = StormPlan::new(weather.clone(), &self.urls.order, &self.urls.query);
        plan.declining = self.declining.clone();
        let task = tokio::spawn(async move {
            if let Err(error) = storm::run(plan, Vec::new).await {
                tracing::warn!(%error, "it does not rain");
            }
        });
        let raining = Raining { task: task.abort_handle(), weather, begun: Instant::now() };
        if let Some(before) = self.raining().replace(raining) {
            before.task.abort();
        }
    }

    /// It is told of a storm that somebody else has begun.
    pub fn sees_rain(&self, weather: Weather, task: AbortHandle) {
        *self.raining() = Some(Raining { task, weather, begun: Instant::now() });
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Result<Value, Problem> {
        let answer = request.send().await.map_err(|error| Problem::unavailable(&error.without_url()))?;
        let status = StatusCode::from_u16(answer.status().as_u16()).unwrap_or(StatusCode::BAD_GATEWAY);
        let body: Value = answer.json().await.unwrap_or_default();
        if status.is_success() {
            return Ok(body);
        }
        let text = |name: &str| body[name].as_str().map(ToOwned::to_owned);
        Err(Problem::new(status, text("detail").or(text("title")).unwrap_or_else(|| status.to_string())))
    }
}

impl Raining {
    /// `None` once it is over.
    fn now(&self) -> Option<Storm> {
        let second = self.begun.elapsed().as_secs_f64();
        let planned = self.weather.planned();
        let current = planned.iter().rev().find(|(from, _)| *from <= second).map_or(0.0, |(_, rate)| *rate);
        let over = planned.last().is_some_and(|(end, _)| second >= *end);
        (!over && !self.task.is_finished()).then_some(Storm { rate: current, peak: self.weather.peak, planned, second })
    }
}

#[derive(Deserialize)]
struct Rain {
    weather: String,
}

/// `calm`, `storm`, `tenfold` (ten times what it rains now) or `stop`.
async fn rain(State(operator): State<Arc<Operator>>, JsonBody(Rain { weather }): JsonBody<Rain>) -> Done {
    let Weather { calm, peak, calm_for, storm_for, .. } = operator.usual;
    let curve = |calm, peak, calm_for, storm_for| Weather { calm, peak, calm_for, storm_for, ..Weather::usual() };
    match weather.as_str() {
        "calm" => {
            operator.rain(curve(calm, calm, Duration::ZERO, Duration::from_secs(600)));
            done(format!("{calm} orders a second for ten minutes"))
        }
        "storm" => {
            operator.rain(curve(calm, peak, calm_for, storm_for));
            done(format!("{calm} orders a second, then {peak}, then {calm} again"))
        }
        "tenfold" => {
            let now = operator.raining().as_ref().and_then(Raining::now).map_or(calm, |storm| storm.rate.max(1.0));
            let peak = (now * 10.0).min(MOST);
            operator.rain(curve(now.min(peak), peak, Duration::from_secs(3), Duration::from_secs(20)));
            done(format!("{peak} orders a second for 20 seconds"))
        }
        "stop" => {
            if let Some(raining) = operator.raining().take() {
                raining.task.abort();
            }
            done("the rain stops")
        }
        _ => Err(wrong("weather", "must be calm, storm, tenfold or stop")),
    }
}

async fn change_service(
    State(operator): State<Arc<Operator>>,
    PathParams((name, change)): PathParams<(String, String)>,
    JsonBody(_): JsonBody<Value>,
) -> Done {
    let Some(seat) = operator.seats.get(name.as_str()) else {
        return Err(Problem::not_found(format!("there is no service {name:?} in this process")));
    };
    let (change, said) = match change.as_str() {
        "stop" => (Change::Stop, "finishes what it has in hand and stops"),
        "slow" => (Change::Slow, "takes ten times as long for everything"),
        "kill" => (Change::Kill, "is killed"),
        "start" => (Change::Start, "starts"),
        _ => return Err(Problem::not_found("a service can be told to stop, slow, kill or start")),
    };
    seat.change(change).await.map_err(|error| Problem::unavailable(&error))?;
    done(format!("{name} {said}"))
}

#[derive(Deserialize)]
struct Cards {
    declining: bool,
}

async fn cards(State(operator): State<Arc<Operator>>, JsonBody(Cards { declining }): JsonBody<Cards>) -> Done {
    operator.declining.store(declining, Ordering::Relaxed);
    done(if declining { "every new customer's card is declined" } else { "cards are good again" })
}

#[derive(Deserialize)]
struct Shift {
    on_shift: bool,
}

#[derive(Deserialize)]
struct Driver {
    driver_id: String,
    on_shift: bool,
}

/// Half of the drivers go home, or all come back.
async fn drivers(State(operator): State<Arc<Operator>>, JsonBody(Shift { on_shift }): JsonBody<Shift>) -> Done {
    let drivers = operator.send(operator.client.get(format!("{}/drivers", operator.urls.query))).await?;
    let drivers: Vec<Driver> = serde_json::from_value(drivers).map_err(|error| Problem::unavailable(&error))?;
    let change = drivers.into_iter().filter(|driver| driver.on_shift != on_shift);
    let change: Vec<String> = change.step_by(if on_shift { 1 } else { 2 }).map(|driver| driver.driver_id).collect();
    let told = stream::iter(change).map(async |driver| {
        let url = format!("{}/drivers/{driver}", operator.urls.delivery);
        operator.send(operator.client.put(url).json(&json!({"on_shift": on_shift}))).await
    });
    let told: Vec<_> = told.buffer_unordered(16).collect().await;
    let told = told.into_iter().collect::<Result<Vec<_>, _>>()?.len();
    operator.drivers_off.store(!on_shift, Ordering::Relaxed);
    done(format!("{told} drivers {}", if on_shift { "come back" } else { "go home" }))
}

/// An order that says nothing of what an order says: nobody who needs it can ever handle it.
async fn poison(State(operator): State<Arc<Operator>>, JsonBody(_): JsonBody<Value>) -> Done {
    let (order, id) = (new_id().to_string(), new_id().to_string());
    let sequence = format!("{:020}", 1);
    let headers = [
        ("ce_specversion", "1.0"),
        ("ce_id", &id),
        ("ce_source", "/orders"),
        ("ce_type", &format!("{TYPE_PREFIX}order.placed.v1")),
        ("ce_subject", &order),
        ("ce_partitionkey", &order),
        ("ce_sequence", &sequence),
        ("ce_time", &format!("{:.6}", now())),
        ("ce_correlationid", &order),
        ("ce_causationid", "operator"),
        ("content-type", "application/json"),
    ];
    let headers = headers.map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec()));
    let record = Record {
        key: Some(order.as_bytes().to_vec()),
        headers: headers.into(),
        value: Some(br#"{"poison": true}"#.to_vec()),
    };
    let unavailable = |error: eventing::log::LogError| Problem::unavailable(&error);
    operator.log.append(order::SERVICE.topic, vec![record]).await.map_err(unavailable)?;
    done(format!("an order.placed that says nothing is on the log: {id}"))
}

#[derive(Deserialize)]
struct Letters {
    #[serde(rename = "do")]
    what: String,
}

/// Has all open dead letters handled again, or given up; each with what waits behind it.
async fn letters(State(operator): State<Arc<Operator>>, JsonBody(Letters { what }): JsonBody<Letters>) -> Done {
    let (wish, said) = match what.as_str() {
        "redeliver" => (REDELIVERY_REQUESTED, "are to be handled again"),
        "discard" => (DISCARD_REQUESTED, "are given up"),
        _ => return Err(wrong("do", "must be redeliver or discard")),
    };
    let names: Vec<String> = NAMES.map(ToOwned::to_owned).into();
    let letters = letters_of(&*operator.log, &names).await.map_err(|error| Problem::unavailable(&error))?;
    let chosen = first_ones(letters.iter());
    for letter in &chosen {
        wish_for(&*operator.log, letter, wish).await.map_err(|error| Problem::unavailable(&error))?;
    }
    done(format!("{} dead letters {said}", chosen.len()))
}

#[derive(Deserialize)]
struct ByHand {
    kitchen_id: String,
    item_id: String,
    quantity: u32,
    card: String,
}

async fn order(State(operator): State<Arc<Operator>>, JsonBody(order): JsonBody<ByHand>) -> Done {
    let card = if operator.declining.load(Ordering::Relaxed) { "tok_declined" } else { &order.card };
    let body = json!({
        "customer_id": "you", "kitchen_id": order.kitchen_id, "payment_token": card,
        "items": [{"item_id": order.item_id, "quantity": order.quantity}],
        "address": {"street": "1 Rain Road", "city": "Cloudville", "postal_code": "12345"},
    });
    let accepted = operator.send(operator.client.post(format!("{}/orders", operator.urls.order)).json(&body)).await?;
    Ok(Json(json!({"said": "your order was taken", "order_id": accepted["order_id"]})))
}

#[derive(Deserialize)]
struct OfOrder {
    order_id: uuid::Uuid,
}

async fn pack(State(operator): State<Arc<Operator>>, JsonBody(OfOrder { order_id }): JsonBody<OfOrder>) -> Done {
    operator.send(operator.client.post(format!("{}/tickets/{order_id}/pack", operator.urls.kitchen))).await?;
    done("packed")
}

async fn deliver(State(operator): State<Arc<Operator>>, JsonBody(OfOrder { order_id }): JsonBody<OfOrder>) -> Done {
    operator.send(operator.client.post(format!("{}/deliveries/{order_id}/deliver", operator.urls.delivery))).await?;
    done("delivered")
}
