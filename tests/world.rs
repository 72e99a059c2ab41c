//! Starts the processes of a Rainstorm, speaks to them, and ends them.

mod activator;
mod kafka;
mod process;

use std::{
    collections::HashMap,
    io::Write,
    path::{Path, PathBuf},
    sync::{
        Arc, LazyLock,
        atomic::{AtomicUsize, Ordering},
    },
};

use event_sourcing::Database;
use serde_json::Value;
use sqlx::Connection;
use tokio::{
    process::Command,
    sync::{Mutex, OwnedMutexGuard},
};

use activator::Activator;
pub use kafka::client as kafka_client;
pub use process::Signal;
use process::{Plan, Process, free_port, programs};

use crate::PATIENCE;

/// The services, by name.
pub const SERVICES: [&str; 5] = ["order", "payment", "kitchen", "delivery", "query"];

/// The payment provider, which has a database of its own where there are databases.
pub const PROVIDER: &str = "provider";

/// In which way a Rainstorm runs, and how many instances of every service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// One process with everything in it.
    Embedded(usize),
    /// A process for every instance of a service, and as many bridges, on Kafka and PostgreSQL.
    KafkaAndPostgres(usize),
    /// As in the cluster, on Kafka and PostgreSQL: no service has a process until somebody asks for it, nor for long
    /// after; events come singly, some twice, and some are told again while they are still being handled.
    Asleep,
    /// Somebody else's: `RAINSTORM_URL`, and `RAINSTORM_ORDER_URL` … where services answer apart from each other.
    Deployed,
}

impl Way {
    fn instances(self) -> usize {
        match self {
            Self::Embedded(instances) | Self::KafkaAndPostgres(instances) => instances,
            Self::Asleep | Self::Deployed => 1,
        }
    }

    /// Whether the servers this way needs were given; says so where not, and fails where they must be.
    #[must_use]
    pub fn is_possible(self) -> bool {
        let given = |names: &[&str]| names.iter().all(|name| std::env::var(name).is_ok());
        let (possible, needs) = match self {
            Self::Embedded(_) => (true, ""),
            Self::KafkaAndPostgres(_) | Self::Asleep => {
                let possible = given(&["KAFKA_BROKERS", "POSTGRES_URL"]);
                let required = std::env::var("RAINSTORM_REQUIRE_SERVERS").is_ok();
                assert!(possible || !required, "KAFKA_BROKERS or POSTGRES_URL is missing");
                (possible, "KAFKA_BROKERS and POSTGRES_URL (tests/servers/with brings both)")
            }
            Self::Deployed => (given(&["RAINSTORM_URL"]), "RAINSTORM_URL"),
        };
        if !possible {
            // Past the test harness, which shows what a passing test prints to nobody.
            let _ = writeln!(std::io::stderr(), "SKIPPED: {self:?} needs {needs}");
        }
        possible
    }
}

/// A running Rainstorm.
pub struct World {
    way: Way,
    settings: Vec<(String, String)>,
    folder: tempfile::TempDir,
    /// Makes this world's databases its own.
    name: String,
    client: reqwest::Client,
    processes: Vec<Process>,
    /// In front of services that sleep.
    activators: Vec<Activator>,
    /// Of each service, where its instances answer.
    urls: HashMap<String, Vec<String>>,
    turn: AtomicUsize,
    /// How often the groups have forgotten how far they had come.
    forgotten: usize,
    /// The topics have fixed names, so worlds on one Kafka take turns. Given back last, when the processes are dead.
    turn_on_kafka: Option<OwnedMutexGuard<()>>,
}

impl Drop for World {
    /// Who is put to sleep ends in order; a scenario that got its soup all the same must not hide that.
    fn drop(&mut self) {
        for activator in &self.activators {
            activator.is_over();
            assert!(
                activator.is_orderly() || std::thread::panicking(),
                "a service that was told to stop did not end well"
            );
        }
    }
}

impl World {
    /// Starts a Rainstorm with these settings (environment variables) for all of its processes.
    pub async fn start(way: Way, settings: &[(&str, &str)]) -> Self {
        Self::start_after(way, settings, |_| ()).await
    }

    /// Starts a Rainstorm after `prepare` has seen to the folder where its data is going to be.
    pub async fn start_after(way: Way, settings: &[(&str, &str)], prepare: impl FnOnce(&Path)) -> Self {
        let mut world = Self::of(way, settings);
        prepare(&world.data());
        if let Way::KafkaAndPostgres(_) | Way::Asleep = way {
            static ONE_AT_A_TIME: LazyLock<Arc<Mutex<()>>> = LazyLock::new(Arc::default);
            world.turn_on_kafka = Some(ONE_AT_A_TIME.clone().lock_owned().await);
            kafka::empty().await;
            world.create_databases().await;
        }
        world.start_processes().await;
        world
    }

    fn of(way: Way, settings: &[(&str, &str)]) -> Self {
        Self {
            way,
            settings: settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            folder: tempfile::tempdir().expect("a temporary folder"),
            name: format!("w{}", uuid::Uuid::now_v7().simple()),
            client: eventing::http::client().timeout(PATIENCE).build().expect("a client"),
            processes: Vec::new(),
            activators: Vec::new(),
            urls: HashMap::new(),
            turn: AtomicUsize::new(0),
            forgotten: 0,
            turn_on_kafka: None,
        }
    }

    /// A demo in the middle of its storm.
    pub async fn storming(storm: &[&str], settings: &[(&str, &str)]) -> Self {
        let mut world = Self::of(Way::Embedded(1), settings);
        let mut arguments = vec!["demo", "--port", "0"];
        arguments.extend(storm);
        world.start_demo(&arguments).await;
        world
    }

    /// Kills every process with SIGKILL.
    pub async fn kill(&mut self) {
        for process in &mut self.processes {
            process.kill().await;
        }
        for activator in &self.activators {
            activator.kill().await;
        }
    }

    /// Lets `rainstorm` run on this world's data folder, to its end.
    pub async fn rainstorm_on_its_data(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let data = self.data();
        let arguments: Vec<&str> = arguments.iter().copied().chain(["--data", data.to_str().expect("UTF-8")]).collect();
        self.rainstorm(&arguments).await
    }

    /// Lets every group forget how far it has come: all of history will be told again. Nothing may be running.
    pub async fn forget_positions(&mut self) {
        self.forgotten += 1;
        if let Way::Embedded(_) = self.way {
            let url = format!("sqlite:{}", self.data().join("log.db").display());
            let mut log = sqlx::SqliteConnection::connect(&url).await.expect("a log");
            sqlx::raw_sql("UPDATE positions SET next = 0").execute(&mut log).await.expect("positions");
            log.close().await.expect("it can be closed");
        }
    }

    /// Serves the data folder again.
    pub async fn serve_again(&mut self) {
        self.processes.clear();
        self.start_processes().await;
    }

    /// Where its data is: what `rainstorm`'s tools are told to find it, as flags and settings.
    #[must_use]
    pub fn whereabouts(&self) -> (Vec<String>, Vec<(&'static str, String)>) {
        match self.way {
            Way::Embedded(_) => (vec!["--data".to_owned(), self.data().display().to_string()], Vec::new()),
            Way::KafkaAndPostgres(_) | Way::Asleep | Way::Deployed => {
                let brokers = std::env::var("KAFKA_BROKERS").expect("asked for by is_possible");
                (Vec::new(), vec![("KAFKA_BROKERS", brokers)])
            }
        }
    }

    /// Where events for a service are posted.
    #[must_use]
    pub fn door(&self, service: &str) -> String {
        match self.way {
            Way::Embedded(_) => format!("{}/{service}/events", self.url(service)),
            Way::KafkaAndPostgres(_) | Way::Asleep | Way::Deployed => format!("{}/events", self.url(service)),
        }
    }

    /// The folder with the data of an embedded one.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    async fn start_demo(&mut self, arguments: &[&str]) {
        let plan = Plan::new("demo", "rainstorm", &self.settings);
        let plan = arguments.iter().fold(plan, |plan, argument| plan.argument(argument));
        let process = Process::start(plan.argument("--data").argument(self.data())).await;
        let url = format!("http://127.0.0.1:{}", process.port);
        self.urls = SERVICES.iter().map(|service| ((*service).to_owned(), vec![url.clone()])).collect();
        self.processes.push(process);
    }

    /// Kills every process with SIGKILL and starts all of them again on the same data.
    pub async fn crash_and_restart(&mut self) {
        self.kill().await;
        self.start_processes().await;
    }

    async fn start_processes(&mut self) {
        self.processes.clear();
        self.urls.clear();
        self.activators.drain(..).for_each(|activator| activator.is_over());
        match self.way {
            Way::Embedded(instances) => {
                let instances = instances.to_string();
                self.start_demo(&["demo", "--no-storm", "--no-seed", "--port", "0", "--instances", &instances]).await;
            }
            Way::KafkaAndPostgres(instances) => {
                for instance in 1..=instances {
                    self.start_instance(instance).await;
                }
            }
            Way::Asleep => self.start_asleep().await,
            Way::Deployed => {
                let all = std::env::var("RAINSTORM_URL").expect("asked for by is_possible");
                for service in SERVICES {
                    let own = std::env::var(format!("RAINSTORM_{}_URL", service.to_uppercase()));
                    self.urls.insert(service.to_owned(), vec![own.unwrap_or_else(|_| all.clone())]);
                }
            }
        }
    }

    /// One process of every service, and a bridge that knocks at their doors. Those of the second instance are called
    /// `order-2` … `bridge-2`.
    async fn start_instance(&mut self, instance: usize) {
        let suffix = if instance == 1 { String::new() } else { format!("-{instance}") };
        let mut sinks = Vec::new();
        for service in SERVICES {
            let plan = self.plan(service, &suffix).setting("PORT", free_port().to_string());
            let process = Process::start(plan).await;
            let url = format!("http://127.0.0.1:{}", process.port);
            sinks.push(format!("{service}={url}/events"));
            self.urls.entry(service.to_owned()).or_default().push(url);
            self.processes.push(process);
        }
        self.start_bridge(&format!("bridge{suffix}"), &sinks.join(",")).await;
    }

    /// How a process of a service is started.
    fn plan(&self, service: &str, suffix: &str) -> Plan {
        let plan = Plan::new(format!("{service}{suffix}"), &format!("{service}-service"), &self.settings);
        let plan = plan.setting("DATABASE_URL", self.database_url(service));
        plan.setting("PROVIDER_DATABASE_URL", self.database_url(PROVIDER))
    }

    /// Somebody in front of each service, and a bridge that tells single events, as KafkaSource does. No service has a
    /// process yet.
    async fn start_asleep(&mut self) {
        let mut sinks = Vec::new();
        for service in SERVICES {
            let activator = Activator::start(self.plan(service, "")).await;
            sinks.push(format!("{service}={}/events", activator.url()));
            self.urls.insert(service.to_owned(), vec![activator.url().to_owned()]);
            self.activators.push(activator);
        }
        let single = ("BRIDGE_BATCH".to_owned(), "1".to_owned());
        if !self.settings.contains(&single) {
            self.settings.push(single);
        }
        self.start_bridge("bridge", &sinks.join(",")).await;
    }

    /// Returns when every service of a sleeping world sleeps; how often each has woken.
    pub async fn everybody_sleeps(&self) -> Vec<(String, usize)> {
        crate::until("everybody to sleep", || async {
            for activator in &self.activators {
                if activator.is_awake().await {
                    return None;
                }
            }
            Some(())
        })
        .await;
        let mut wakings = Vec::new();
        for activator in &self.activators {
            let (woken, slept) = activator.wakings_and_sleeps();
            assert!(slept <= woken, "{} slept {slept} times and woke {woken} times", activator.name().await);
            wakings.push((activator.name().await, woken));
        }
        wakings
    }

    /// The activator in front of a service of a sleeping world.
    async fn activator(&self, service: &str) -> &Activator {
        for activator in &self.activators {
            if activator.name().await == service {
                return activator;
            }
        }
        panic!("nobody stands in front of {service}")
    }

    /// From its next waking on, a service of a sleeping world has this setting.
    pub async fn set(&self, service: &str, name: &str, value: &str) {
        self.activator(service).await.set(name, value).await;
    }

    /// Ends a service of a sleeping world with SIGKILL, if it is awake.
    pub async fn kill_asleep(&self, service: &str) {
        self.activator(service).await.kill().await;
    }

    async fn start_bridge(&mut self, name: &str, sinks: &str) {
        let plan = Plan::new(name, "rainstorm", &self.settings).argument("bridge").setting("SINKS", sinks);
        let plan = plan.setting("PORT", "0").setting("SOURCES", self.sources().to_str().expect("UTF-8"));
        let bridge = Process::start(plan).await;
        self.processes.push(bridge);
    }

    /// Starts another bridge that knocks at the doors of the first instance.
    pub async fn start_another_bridge(&mut self, name: &str) {
        let sinks = SERVICES.map(|service| format!("{service}={}/events", self.urls[service][0]));
        self.start_bridge(name, &sinks.join(",")).await;
    }

    /// Starts somebody who observes all of it; where he answers.
    pub async fn start_observer(&mut self) -> String {
        let mut programs: Vec<String> = SERVICES.iter().map(|name| format!("{name}={}", self.url(name))).collect();
        programs.push(format!("bridge=http://127.0.0.1:{}", self.process("bridge").port));
        let plan = Plan::new("observer", "rainstorm", &self.settings).argument("observe");
        let plan = plan.setting("PORT", "0").setting("PROGRAMS", programs.join(","));
        let plan = plan.setting("SOURCES", self.sources().display().to_string());
        let observer = Process::start(plan).await;
        let url = format!("http://127.0.0.1:{}", observer.port);
        self.processes.push(observer);
        url
    }

    /// The manifests that this world's bridges read, with consumer groups of its own.
    #[must_use]
    pub fn sources(&self) -> PathBuf {
        let folder = self.folder.path().join(format!("knative-{}", self.forgotten));
        if !folder.exists() {
            kafka::manifests_with_groups_of(&format!("{}-{}", self.name, self.forgotten), &folder);
        }
        folder
    }

    fn process(&self, name: &str) -> &Process {
        let found = self.processes.iter().find(|process| process.name() == name);
        found.unwrap_or_else(|| panic!("there is no process {name}"))
    }

    fn process_mut(&mut self, name: &str) -> &mut Process {
        let found = self.processes.iter_mut().find(|process| process.name() == name);
        found.unwrap_or_else(|| panic!("there is no process {name}"))
    }

    /// Kills one process with SIGKILL: a service by its name, or `bridge`.
    pub async fn kill_one(&mut self, name: &str) {
        self.process_mut(name).kill().await;
    }

    /// Sends one process a signal.
    pub fn signal(&self, name: &str, signal: Signal) {
        self.process(name).signal(signal);
    }

    /// The exit status of a process that ends by itself.
    pub async fn ended(&mut self, name: &str) -> Option<i32> {
        self.process_mut(name).ended().await
    }

    /// Starts a process that has ended again, with these settings besides those it had at first.
    pub async fn start_again(&mut self, name: &str, settings: &[(&str, &str)]) {
        self.process_mut(name).start_again(settings).await;
    }

    /// A service's database, or the payment [`PROVIDER`]'s.
    #[must_use]
    pub fn database_url(&self, service: &str) -> String {
        if let Way::Embedded(_) = self.way {
            return format!("sqlite:{}", self.data().join(format!("{service}.db")).display());
        }
        let url = std::env::var("POSTGRES_URL").expect("asked for by is_possible");
        let (server, _) = url.rsplit_once('/').expect("a URL with a database");
        format!("{server}/{}_{service}", self.name)
    }

    /// The one number that the database of a service, or of the [`PROVIDER`], answers.
    pub async fn number(&self, database: &str, sql: &str) -> i64 {
        let store = Database::connect(&self.database_url(database)).await.expect("the store answers");
        let rows = store.fetch(sql.to_owned(), []).await.unwrap_or_else(|error| panic!("{database}: {sql}: {error}"));
        store.close().await;
        rows[0].int(0).expect("a number")
    }

    async fn create_databases(&self) {
        let url = std::env::var("POSTGRES_URL").expect("asked for by is_possible");
        for service in SERVICES.into_iter().chain([PROVIDER]) {
            Self::on_postgres(&url, &format!("CREATE DATABASE {}_{service}", self.name)).await;
        }
    }

    /// Where an instance of a service answers; another one each time, where there are several.
    #[must_use]
    pub fn url(&self, service: &str) -> &str {
        let urls = &self.urls[service];
        &urls[self.turn.fetch_add(1, Ordering::Relaxed) % urls.len()]
    }

    /// `GET`: the status and the body.
    pub async fn get(&self, service: &str, path: &str) -> (u16, Value) {
        self.send(self.client.get(format!("{}{path}", self.url(service)))).await
    }

    /// `POST` of JSON.
    pub async fn post(&self, service: &str, path: &str, body: &Value) -> (u16, Value) {
        self.send(self.client.post(format!("{}{path}", self.url(service))).json(body)).await
    }

    /// `PUT` of JSON.
    pub async fn put(&self, service: &str, path: &str, body: &Value) -> (u16, Value) {
        self.send(self.client.put(format!("{}{path}", self.url(service))).json(body)).await
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> (u16, Value) {
        let response = request.send().await.expect("the service answers");
        let status = response.status().as_u16();
        let text = response.text().await.expect("a body");
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    /// Lets `rainstorm` run against this world and returns its exit status and what it printed.
    pub async fn rainstorm(&self, arguments: &[&str]) -> (Option<i32>, String) {
        Self::run("rainstorm", arguments, &[]).await
    }

    /// Lets one of the project's programs run to its end; its exit status and what it printed.
    pub async fn run(program: &str, arguments: &[&str], settings: &[(&str, &str)]) -> (Option<i32>, String) {
        let mut command = Command::new(programs().await.join(program));
        // The servers that these tests were given are theirs, not the program's.
        command.env_remove("KAFKA_BROKERS").args(arguments).envs(settings.iter().copied()).kill_on_drop(true);
        let output = command.output().await.expect("it starts");
        let said = String::from_utf8_lossy(&output.stderr);
        (output.status.code(), format!("{}\n{said}", String::from_utf8_lossy(&output.stdout)))
    }

    /// The ids of its processes.
    #[must_use]
    pub fn pids(&self) -> Vec<u32> {
        self.processes.iter().filter_map(|process| process.id()).collect()
    }

    /// Deletes every topic, and returns when they are gone.
    pub async fn empty_kafka() {
        kafka::empty().await;
    }

    /// Runs a statement on a PostgreSQL server.
    pub async fn on_postgres(url: &str, sql: &str) {
        let mut connection = sqlx::PgConnection::connect(url).await.expect("PostgreSQL answers");
        let sql = sqlx::AssertSqlSafe(sql.to_owned());
        sqlx::raw_sql(sql).execute(&mut connection).await.expect("it can be done");
    }

    /// In which way it runs.
    #[must_use]
    pub fn way(&self) -> Way {
        self.way
    }

    /// How many instances of each service there are.
    #[must_use]
    pub fn instances(&self) -> usize {
        self.way.instances()
    }

    /// What the processes have said, for a test that failed.
    #[must_use]
    pub fn said(&self) -> Vec<String> {
        self.processes.iter().flat_map(Process::said).collect()
    }
}
