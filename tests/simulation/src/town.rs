//! A town in a world: the five services with their bridges, the people who order, cook and drive, and everything that
//! goes wrong while they do. After a while the trouble ends; then every story must end, too, and all of it add up.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use audit::{Deployment, Options};
use axum::{
    Router,
    body::Body,
    http::{Request, StatusCode},
};
use event_sourcing::Database;
use eventing::{
    Platform, StartError,
    bridge::{Bounds, Bridge, BridgeSettings, Sink},
    sources::Sources,
};
use http_body_util::BodyExt;
use runtime::{Service, Stop};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use tower::ServiceExt;

use crate::{
    log::SharedLog,
    sabotage::Sabotage,
    store::Shared,
    tables::Tables,
    world::{Process, Weather, World},
};

/// The services, by name.
pub const SERVICES: [&str; 5] = ["order", "payment", "kitchen", "delivery", "query"];

/// How long people and trouble come.
const LOAD: Duration = Duration::from_secs(4);
/// Nothing new on the log for so long means that nothing will come by itself any more.
const SILENCE: Duration = Duration::from_secs(9);
/// How long everything may take to come to its end.
const PATIENCE: Duration = Duration::from_secs(90);

/// The source and the topic of what a service publishes.
pub fn published_by(service: &str) -> (&'static str, &'static str) {
    let identity = match service {
        "order" => order::SERVICE,
        "payment" => payment::SERVICE,
        "kitchen" => kitchen::SERVICE,
        _ => delivery::SERVICE,
    };
    (identity.source, identity.topic)
}

/// Events that a service may not survive.
const POISON: [(&str, &str); 6] = [
    ("order", "dev.rainstorm.delivery.delivered.v1"),
    ("payment", "dev.rainstorm.order.placed.v1"),
    ("kitchen", "dev.rainstorm.payment.confirmed.v1"),
    ("delivery", "dev.rainstorm.kitchen.order_packed.v1"),
    ("delivery", "dev.rainstorm.delivery.out_for_delivery.v1"),
    ("query", "dev.rainstorm.kitchen.ticket_accepted.v1"),
];

/// What differs from town to town.
#[derive(Debug, Clone, Copy)]
struct Plan {
    orders: u64,
    drivers: u64,
    instances: u64,
    bridges: u64,
    partitions: u64,
    batch: u64,
    patience: Duration,
    tick: Duration,
    weather: Weather,
    /// A service and a type of event: the first one of these kills it each time.
    poison: Option<(&'static str, &'static str)>,
    /// The chaos strikes once in so many milliseconds.
    strikes: u64,
}

impl Plan {
    fn draw(world: &World) -> Self {
        let bad = [0.0, 0.5, 1.0, 2.0][usize::try_from(world.draw(0..=3)).unwrap_or_default()];
        Self {
            orders: world.draw(1..=5),
            drivers: world.draw(0..=3),
            instances: world.draw(1..=2),
            bridges: world.draw(1..=2),
            partitions: world.draw(1..=3),
            batch: world.draw(1..=8),
            patience: world.millis(300..=4000),
            tick: world.millis(200..=1500),
            weather: Weather {
                crash: 0.0015 * bad,
                failure: 0.003 * bad,
                delay: 0.05,
                lost: 0.01 * bad,
                again: 0.03 * bad,
            },
            poison: world.happens(0.3).then(|| world.pick(&POISON).copied()).flatten(),
            strikes: world.draw(50..=1000),
        }
    }
}

/// A running instance of a service.
#[derive(Clone)]
struct Instance {
    process: Arc<Process>,
    /// Told to stop: it takes nothing new and finishes what it has begun.
    stopping: Arc<AtomicBool>,
    in_flight: Arc<()>,
    door: Router,
    people: Router,
}

/// The town.
pub struct Town {
    pub world: Arc<World>,
    pub log: Arc<SharedLog>,
    pub databases: BTreeMap<&'static str, Arc<Shared>>,
    plan: Plan,
    sources: Sources,
    handles: Mutex<BTreeMap<String, Database>>,
    instances: Mutex<BTreeMap<&'static str, Vec<Instance>>>,
    bridges: Mutex<Vec<Arc<Process>>>,
    /// By idempotency key, the order that was accepted under it.
    accepted: Mutex<BTreeMap<String, String>>,
    /// The event that kills.
    poisoned: Mutex<Option<String>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Town {
    /// An empty town, nobody at work yet.
    ///
    /// # Errors
    /// If SQLite can't keep the stores.
    pub fn new(world: &Arc<World>, tables: &Tables, sources: &Sources) -> rusqlite::Result<Arc<Self>> {
        let plan = Plan::draw(world);
        world.tell(|| format!("{plan:?}"));
        let log = SharedLog::new(world, i32::try_from(plan.partitions).unwrap_or(1));
        let mut databases = BTreeMap::new();
        for service in SERVICES.into_iter().chain(["provider"]) {
            databases.insert(service, Shared::new(world, service, tables.of(service))?);
        }
        let mut handles = BTreeMap::new();
        let provider = world.company("the payment provider");
        handles.insert("simulated:provider".to_owned(), databases["provider"].used_by(&provider));
        if world.breaks(Sabotage::PublishBeforeCommit) {
            for service in &SERVICES[..4] {
                let (log, (_, topic)) = (log.clone(), published_by(service));
                databases[service].publishes_before_commit(Box::new(move |records| log.append_now(topic, records)));
            }
        }
        let (handles, instances) = (Mutex::new(handles), Mutex::default());
        let (bridges, accepted, poisoned) = (Mutex::default(), Mutex::default(), Mutex::default());
        let (world, sources) = (world.clone(), sources.clone());
        Ok(Arc::new(Self { world, log, databases, plan, sources, handles, instances, bridges, accepted, poisoned }))
    }

    /// Who answers at this URL.
    pub fn database(&self, url: &str) -> Option<Database> {
        lock(&self.handles).get(url).cloned()
    }

    /// Orders that customers hold an acceptance of.
    pub fn accepted(&self) -> BTreeMap<String, String> {
        lock(&self.accepted).clone()
    }

    /// Lets it all happen, until nothing happens any more.
    ///
    /// # Errors
    /// What is still under way after a very long time.
    pub async fn live(self: &Arc<Self>) -> Result<(), String> {
        for service in SERVICES {
            for number in 0..self.plan.instances {
                tokio::spawn(self.clone().keep_serving(service, number));
            }
        }
        for number in 0..self.plan.bridges {
            tokio::spawn(self.clone().keep_knocking(number));
        }
        self.open_kitchen(true).await;
        for driver in 0..self.plan.drivers {
            self.shift(driver, true).await;
        }
        self.world.becomes(self.plan.weather);
        let mut people = tokio::task::JoinSet::new();
        for number in 0..self.plan.orders {
            people.spawn(self.clone().customer(number));
        }
        people.spawn(self.clone().people_who_change_their_minds());
        people.spawn(self.clone().trouble());
        people.join_all().await;
        self.world.becomes(Weather::CALM);
        self.world.tell(|| "the trouble is over".to_owned());
        self.come_to_rest().await
    }

    async fn come_to_rest(&self) -> Result<(), String> {
        let ends = Instant::now() + PATIENCE;
        let (mut size, mut since) = (0, Instant::now());
        loop {
            self.log.commit();
            let (records, idle) = self.log.size();
            let left = self.left();
            if records != size || !idle {
                (size, since) = (records, Instant::now());
            } else if since.elapsed() > SILENCE && left.is_empty() {
                return Ok(());
            }
            if Instant::now() > ends {
                return Err(format!("stuck: {}", if idle { left } else { "events wait for ever".to_owned() }));
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// What still has to be done, in a store.
    fn left(&self) -> String {
        let mut left = Vec::new();
        for service in &SERVICES[..4] {
            let unpublished = self.databases[service].number("SELECT COUNT(*) FROM events WHERE published = 0");
            if unpublished != 0 {
                left.push(format!("{unpublished} unpublished events of {service}"));
            }
        }
        let owed = self.databases["payment"].number("SELECT COUNT(*) FROM owed");
        if owed != 0 {
            left.push(format!("{owed} payments owed"));
        }
        left.join(", ")
    }

    /// What does not add up, after everything has come to rest: what the audit finds, and what only the customers know.
    pub async fn adds_up(&self) -> Vec<String> {
        let mut wrong = self.audit().await;
        let mut placed: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (key, order) in
            self.databases["order"].pairs("SELECT causation_id, stream_id FROM events WHERE version = 1")
        {
            placed.entry(key).or_default().insert(order);
        }
        for (key, order) in self.accepted() {
            match placed.get(&key) {
                Some(orders) if orders.len() == 1 && orders.contains(&order) => {}
                orders => {
                    wrong.push(format!("{key} was accepted as {order}, and these orders were placed: {orders:?}"))
                }
            }
        }
        wrong
    }

    /// The same audit as `rainstorm audit`'s.
    async fn audit(&self) -> Vec<String> {
        let auditor = self.world.company("the auditor");
        let store = |name: &str| self.databases[name].audited_by(&auditor);
        let deployment = Deployment {
            log: self.log.used_by(&auditor),
            stores: SERVICES.into_iter().map(|name| (name.to_owned(), store(name))).collect(),
            ledger: Some(store("provider")),
        };
        let options = Options { in_flight: false, accepted: self.accepted().into_values().collect() };
        match audit::audit(&deployment, &options, &mut |_| ()).await {
            Ok(report) if report.passed => Vec::new(),
            Ok(report) => {
                let failed = report.checks.iter().filter(|row| row.failed > 0);
                let failed = failed.map(|row| format!("{} does not hold", row.title));
                failed.chain([report.to_string()]).collect()
            }
            Err(error) => vec![error.to_string()],
        }
    }

    // ---- Services and bridges, started again whenever they have ended -------------------------------------------

    async fn keep_serving(self: Arc<Self>, service: &'static str, number: u64) {
        loop {
            let process = self.world.process(format!("{service}-{number}"));
            let url = format!("simulated:{service}/{}", process.id);
            lock(&self.handles).insert(url.clone(), self.databases[service].used_by(&process));
            let platform = Platform { log: self.log.used_by(&process), database_url: url };
            let started = tokio::select! {
                biased;
                started = self.start(service, platform) => started.ok(),
                () = process.death() => None,
            };
            if let Some(service_) = started {
                let door = service_.door();
                let people = runtime::service::router(vec![service_]);
                let (stopping, in_flight) = (Arc::default(), Arc::new(()));
                let instance = Instance { process: process.clone(), stopping, in_flight, door, people };
                lock(&self.instances).entry(service).or_default().push(instance);
                process.death().await;
            }
            for instances in lock(&self.instances).values_mut() {
                instances.retain(|instance| !instance.process.is_dead());
            }
            sleep(self.world.millis(5..=500)).await;
        }
    }

    async fn start(&self, name: &str, platform: Platform) -> Result<Service, StartError> {
        let working = Duration::from_millis(20);
        match name {
            "order" => order::service(order::Settings {}, platform).await,
            "payment" => {
                let provider_database_url = Some("simulated:provider".to_owned());
                let provider_timeout = Duration::from_millis(300);
                payment::service(payment::Settings { provider_database_url, provider_timeout }, platform).await
            }
            "kitchen" => {
                kitchen::service(kitchen::Settings { cooking: kitchen::Cooking::Takes(working) }, platform).await
            }
            "delivery" => {
                let (riding, delivery_patience) = (delivery::Riding::Takes(working), self.plan.patience);
                delivery::service(delivery::Settings { riding, delivery_patience }, platform).await
            }
            _ => query::service(query::Settings {}, platform).await,
        }
    }

    async fn keep_knocking(self: Arc<Self>, number: u64) {
        loop {
            let process = self.world.process(format!("bridge-{number}"));
            lock(&self.bridges).push(process.clone());
            let sink = |service: &'static str| -> Arc<dyn Sink> {
                Arc::new(Door { town: self.clone(), bridge: process.clone(), service })
            };
            let sinks = SERVICES.into_iter().map(|service| (service.to_owned(), sink(service))).collect();
            let bounds = Bounds { most: 3, target: 4, rest: Duration::from_secs(1), beat: Duration::from_millis(50) };
            let batch = usize::try_from(self.plan.batch).unwrap_or(1);
            let settings = BridgeSettings { batch, tick: self.plan.tick, bounds };
            let (log, stop) = (self.log.used_by(&process), Stop::default());
            let started = tokio::select! {
                biased;
                started = Bridge::start(log, &self.sources, &sinks, &settings, &stop) => started.ok(),
                () = process.death() => None,
            };
            match started {
                Some(_bridge) => process.death().await,
                None => process.kill(),
            }
            lock(&self.bridges).retain(|process| !process.is_dead());
            sleep(self.world.millis(5..=500)).await;
        }
    }

    fn instance(&self, service: &str) -> Option<Instance> {
        let instances = lock(&self.instances).get(service).cloned().unwrap_or_default();
        let serves = |it: &Instance| !it.process.is_dead() && !it.stopping.load(Ordering::Relaxed);
        let alive: Vec<_> = instances.into_iter().filter(serves).collect();
        self.world.pick(&alive).cloned()
    }

    /// As SIGTERM does: what is in flight is finished, and then it ends.
    async fn stop(self: Arc<Self>, instance: Instance) {
        self.world.tell(|| format!("{} is told to stop", instance.process.name));
        instance.stopping.store(true, Ordering::Relaxed);
        let ends = Instant::now() + runtime::server::SHUTDOWN;
        // Whoever asks it something holds on to it for as long.
        while Arc::strong_count(&instance.in_flight) > 2 && Instant::now() < ends && !instance.process.is_dead() {
            sleep(Duration::from_millis(10)).await;
        }
        instance.process.kill();
    }

    // ---- Trouble --------------------------------------------------------------------------------------------------

    async fn trouble(self: Arc<Self>) {
        let ends = Instant::now() + LOAD;
        while Instant::now() < ends {
            sleep(self.world.millis(0..=self.plan.strikes)).await;
            if self.plan.weather.crash == 0.0 {
                continue;
            }
            let for_a_while = Instant::now() + self.world.millis(10..=600);
            let running: Vec<_> = lock(&self.instances).values().flatten().cloned().collect();
            let instances: Vec<_> = running.iter().map(|instance| instance.process.clone()).collect();
            let bridges = lock(&self.bridges).clone();
            let stores: Vec<_> = self.databases.values().cloned().collect();
            match self.world.draw(0..=8) {
                0 => self.world.pick(&instances).iter().for_each(|process| process.kill()),
                1 => self.world.pick(&bridges).iter().for_each(|process| process.kill()),
                2 => self.log.rebalance(),
                3 => self.log.commit(),
                4 => self.world.pick(&stores).iter().for_each(|store| store.goes_out(for_a_while)),
                5 => self.log.goes_out(for_a_while),
                6 => {
                    if let Some(instance) = self.world.pick(&running) {
                        tokio::spawn(self.clone().stop(instance.clone()));
                    }
                }
                7 => {
                    let span = self.world.millis(100..=3000);
                    self.world.pick(&instances).iter().for_each(|process| process.freeze(span));
                }
                _ => {
                    let span = self.world.millis(100..=3000);
                    self.world.pick(&bridges).iter().for_each(|process| process.freeze(span));
                    // The group goes on without the one that has stopped.
                    self.log.rebalance();
                }
            }
        }
    }

    /// Perhaps one of these events is one that its service can't survive.
    fn poison(&self, service: &str, headers: &[(String, String)], body: &[u8]) {
        let Some((victim, kind)) = self.plan.poison.filter(|(victim, _)| *victim == service) else { return };
        let header = |name: &str| headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
        let mut events: Vec<Value> = serde_json::from_slice(body).unwrap_or_default();
        events.push(json!({"id": header("ce-id"), "type": header("ce-type")}));
        for event in events.iter().filter(|event| event["type"] == kind) {
            let mut chosen = lock(&self.poisoned);
            if let (None, Some(id)) = (chosen.as_ref(), event["id"].as_str()) {
                self.world.tell(|| format!("{victim} does not survive {kind} {id}"));
                self.world.poisons(victim, id);
                *chosen = Some(id.to_owned());
            }
        }
    }

    // ---- People ---------------------------------------------------------------------------------------------------

    async fn customer(self: Arc<Self>, number: u64) {
        sleep(self.world.millis(0..=2500)).await;
        let token = ["tok_ok", "tok_ok", "tok_ok", "tok_ok", "tok_declined", "tok_flaky", "tok_slow"];
        let body = json!({
            "customer_id": format!("customer-{number}"),
            "kitchen_id": "luigis",
            "items": [{"item_id": "soup", "quantity": self.world.draw(1..=3)}],
            "address": {"street": "1 Rain Road", "city": "Cloudville", "postal_code": "12345"},
            "payment_token": self.world.pick(&token),
        });
        let key = format!("key-{number}");
        let (status, said) = self.insist("order", "POST", "/orders", &body, Some(&key)).await;
        let Some(order_id) = said["order_id"].as_str().filter(|_| status == StatusCode::CREATED) else { return };
        self.world.tell(|| format!("order {order_id} is accepted under {key}"));
        lock(&self.accepted).insert(key, order_id.to_owned());
        if self.world.happens(0.3) {
            sleep(self.world.millis(0..=800)).await;
            self.insist("order", "POST", &format!("/orders/{order_id}/cancel"), &json!({}), None).await;
        }
    }

    async fn people_who_change_their_minds(self: Arc<Self>) {
        let ends = Instant::now() + LOAD;
        while Instant::now() < ends {
            sleep(self.world.millis(0..=2000)).await;
            match self.world.draw(0..=3) {
                0 => self.open_kitchen(false).await,
                1 => self.open_kitchen(true).await,
                2 => self.shift(self.world.draw(0..=3), false).await,
                _ => self.shift(self.world.draw(0..=3), true).await,
            }
        }
    }

    async fn open_kitchen(&self, available: bool) {
        let menu = json!([{"item_id": "soup", "name": "Soup", "price": 950, "available": available}]);
        let body = json!({"name": "Luigi's", "open": true, "currency": "EUR", "menu": menu});
        self.insist("kitchen", "PUT", "/kitchens/luigis", &body, None).await;
    }

    async fn shift(&self, driver: u64, on_shift: bool) {
        let body = json!({"on_shift": on_shift});
        self.insist("delivery", "PUT", &format!("/drivers/driver-{driver}"), &body, None).await;
    }

    /// Asks until somebody gives an answer that isn't «ask again».
    async fn insist(
        &self,
        service: &str,
        method: &str,
        path: &str,
        body: &Value,
        key: Option<&str>,
    ) -> (StatusCode, Value) {
        loop {
            if let Some((status, said)) = self.ask(service, method, path, body, key).await
                && !status.is_server_error()
                // The menu is on its way to the order service.
                && !said.to_string().contains("no kitchen")
            {
                return (status, said);
            }
            sleep(self.world.millis(20..=200)).await;
        }
    }

    async fn ask(
        &self,
        service: &str,
        method: &str,
        path: &str,
        body: &Value,
        key: Option<&str>,
    ) -> Option<(StatusCode, Value)> {
        let instance = self.instance(service)?;
        let mut request = Request::builder().method(method).uri(path).header("content-type", "application/json");
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        let request = request.body(Body::from(body.to_string())).ok()?;
        let answer = tokio::spawn(instance.people.oneshot(request));
        let answer = tokio::select! {
            biased;
            answer = answer => answer.ok()?.ok()?,
            () = instance.process.death() => return None,
        };
        if self.world.happens(self.world.weather().lost) {
            return None;
        }
        let status = answer.status();
        let said = answer.into_body().collect().await.ok()?.to_bytes();
        Some((status, serde_json::from_slice(&said).unwrap_or_default()))
    }
}

/// A service's door as a bridge finds it: somewhere on a network that loses requests and answers.
struct Door {
    town: Arc<Town>,
    bridge: Arc<Process>,
    service: &'static str,
}

#[async_trait]
impl Sink for Door {
    async fn post(&self, headers: Vec<(String, String)>, body: Vec<u8>) -> Result<(u16, String), String> {
        let world = &self.town.world;
        if self.bridge.step(|| format!("knocks at {}", self.service)).await.is_err() {
            return Err("the request was lost".to_owned());
        }
        let tick = headers.iter().any(|(name, value)| name == "ce-type" && value == eventing::TICK);
        if tick && world.breaks(Sabotage::NoTicks) {
            return Ok((204, String::new()));
        }
        self.town.poison(self.service, &headers, &body);
        let instance = self.town.instance(self.service).ok_or("nobody answers")?;
        let request =
            headers.into_iter().fold(Request::post("/events"), |request, (name, value)| request.header(name, value));
        let request = request.body(Body::from(body)).map_err(|error| error.to_string())?;
        // Whatever becomes of the bridge, the service goes on with it.
        let answer = tokio::spawn(instance.door.oneshot(request));
        let answer = tokio::select! {
            biased;
            answer = answer => answer.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?,
            () = instance.process.death() => return Err("the connection was reset".to_owned()),
            () = sleep(Duration::from_secs(5)) => return Err("no answer in time".to_owned()),
        };
        self.bridge.afterwards().await;
        if world.happens(world.weather().lost) {
            return Err("the answer was lost".to_owned());
        }
        let status = answer.status().as_u16();
        world.tell(|| format!("{} is answered {status} by {}", self.bridge.name, instance.process.name));
        let said = answer.into_body().collect().await.map_err(|error| error.to_string())?.to_bytes();
        Ok((status, String::from_utf8_lossy(&said).into_owned()))
    }
}
