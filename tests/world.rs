//! Starts the processes of a Rainstorm, speaks to them, and ends them.

use std::{
    collections::HashMap,
    io::Write,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{
        Arc, LazyLock, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions},
    client::DefaultClientContext,
};
use serde_json::Value;
use sqlx::Connection;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    sync::{Mutex as AsyncMutex, OnceCell, OwnedMutexGuard},
};

use crate::PATIENCE;

const SERVICES: [&str; 5] = ["order", "payment", "kitchen", "delivery", "query"];

/// In which way a Rainstorm runs, and how many instances of every service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// One process with everything in it.
    Embedded(usize),
    /// A process for every instance of a service, and as many bridges, on Kafka and PostgreSQL.
    KafkaAndPostgres(usize),
    /// Somebody else's: `RAINSTORM_URL`, and `RAINSTORM_ORDER_URL` … where services answer apart from each other.
    Deployed,
}

impl Way {
    fn instances(self) -> usize {
        match self {
            Self::Embedded(instances) | Self::KafkaAndPostgres(instances) => instances,
            Self::Deployed => 1,
        }
    }

    /// Whether the servers this way needs were given; says so where not, and fails where they must be.
    #[must_use]
    pub fn is_possible(self) -> bool {
        let given = |names: &[&str]| names.iter().all(|name| std::env::var(name).is_ok());
        let (possible, needs) = match self {
            Self::Embedded(_) => (true, ""),
            Self::KafkaAndPostgres(_) => {
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
    /// Of each service, where its instances answer.
    urls: HashMap<String, Vec<String>>,
    turn: AtomicUsize,
    /// How often the groups have forgotten how far they had come.
    forgotten: usize,
    /// The topics have fixed names, so worlds on one Kafka take turns. Given back last, when the processes are dead.
    turn_on_kafka: Option<OwnedMutexGuard<()>>,
}

struct Process {
    child: Child,
    port: u16,
    said: Arc<Mutex<Vec<String>>>,
}

impl World {
    /// Starts a Rainstorm with these settings (environment variables) for all of its processes.
    pub async fn start(way: Way, settings: &[(&str, &str)]) -> Self {
        let mut world = Self::of(way, settings);
        if let Way::KafkaAndPostgres(_) = way {
            static ONE_AT_A_TIME: LazyLock<Arc<AsyncMutex<()>>> = LazyLock::new(Arc::default);
            world.turn_on_kafka = Some(ONE_AT_A_TIME.clone().lock_owned().await);
            Self::empty_kafka().await;
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
            client: reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().expect("a client"),
            processes: Vec::new(),
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
            process.child.kill().await.expect("it can be killed");
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

    /// The folder with the data of an embedded one.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    async fn start_demo(&mut self, arguments: &[&str]) {
        let data = self.data();
        let arguments = arguments.iter().map(Path::new).chain([Path::new("--data"), data.as_path()]);
        let process = self.spawn("rainstorm", arguments, &[]).await;
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
        match self.way {
            Way::Embedded(instances) => {
                let instances = instances.to_string();
                self.start_demo(&["demo", "--no-storm", "--no-seed", "--port", "0", "--instances", &instances]).await;
            }
            Way::KafkaAndPostgres(instances) => {
                for _ in 0..instances {
                    self.start_instance().await;
                }
            }
            Way::Deployed => {
                let all = std::env::var("RAINSTORM_URL").expect("asked for by is_possible");
                for service in SERVICES {
                    let own = std::env::var(format!("RAINSTORM_{}_URL", service.to_uppercase()));
                    self.urls.insert(service.to_owned(), vec![own.unwrap_or_else(|_| all.clone())]);
                }
            }
        }
    }

    /// One process of every service, and a bridge that knocks at their doors.
    async fn start_instance(&mut self) {
        let mut sinks = Vec::new();
        for service in SERVICES {
            let url = self.database_url(service);
            let process = self.spawn(&format!("{service}-service"), [], &[("PORT", "0"), ("DATABASE_URL", &url)]).await;
            let url = format!("http://127.0.0.1:{}", process.port);
            sinks.push(format!("{service}={url}/events"));
            self.urls.entry(service.to_owned()).or_default().push(url);
            self.processes.push(process);
        }
        let sources = self.sources();
        let sinks = sinks.join(",");
        let settings = [("PORT", "0"), ("SINKS", sinks.as_str()), ("SOURCES", sources.to_str().expect("UTF-8"))];
        let bridge = self.spawn("rainstorm", [Path::new("bridge")], &settings).await;
        self.processes.push(bridge);
    }

    /// The project's manifests, with consumer groups of this world's own: the topics are new, the groups' memory must
    /// be, too.
    #[must_use]
    pub fn sources(&self) -> PathBuf {
        let folder = self.folder.path().join(format!("knative-{}", self.forgotten));
        let groups = format!("{}-{}", self.name, self.forgotten);
        let copied = folder.exists() || copy_manifests(&manifests(), &folder, &groups).is_ok();
        assert!(copied, "the manifests can be copied");
        folder
    }

    /// A service's database.
    #[must_use]
    pub fn database_url(&self, service: &str) -> String {
        if let Way::Embedded(_) = self.way {
            return format!("sqlite:{}", self.data().join(format!("{service}.db")).display());
        }
        let url = std::env::var("POSTGRES_URL").expect("asked for by is_possible");
        let (server, _) = url.rsplit_once('/').expect("a URL with a database");
        format!("{server}/{}_{service}", self.name)
    }

    async fn create_databases(&self) {
        let url = std::env::var("POSTGRES_URL").expect("asked for by is_possible");
        for service in SERVICES {
            Self::on_postgres(&url, &format!("CREATE DATABASE {}_{service}", self.name)).await;
        }
    }

    async fn spawn<'a>(
        &self,
        program: &str,
        arguments: impl IntoIterator<Item = &'a Path>,
        settings: &[(&str, &str)],
    ) -> Process {
        let mut child = Command::new(programs().await.join(program))
            .args(arguments)
            .envs(self.settings.iter().map(|(name, value)| (name, value)))
            .envs(settings.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| panic!("{program} does not start: {error}"));
        let said: Arc<Mutex<Vec<String>>> = Arc::default();
        let mut lines = BufReader::new(child.stderr.take().expect("it is piped")).lines();
        let (port, listening) = tokio::sync::oneshot::channel();
        let (hearing, name) = (said.clone(), program.to_owned());
        tokio::spawn(async move {
            let mut port = Some(port);
            while let Ok(Some(line)) = lines.next_line().await {
                let announced = line.strip_prefix("listening on port ").and_then(|port| port.parse::<u16>().ok());
                match (announced, port.take()) {
                    (Some(announced), Some(waiting)) => drop(waiting.send(announced)),
                    (_, waiting) => {
                        port = waiting;
                        hearing.lock().expect("no panic holds it").push(format!("{name}: {line}"));
                    }
                }
            }
        });
        let port = tokio::time::timeout(PATIENCE, listening).await.ok().and_then(Result::ok);
        let port = port.unwrap_or_else(|| panic!("{program} did not start: {:?}", said.lock().expect("unpoisoned")));
        Process { child, port, said }
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
        self.processes.iter().filter_map(|process| process.child.id()).collect()
    }

    /// Deletes every topic, and returns when they are gone.
    pub async fn empty_kafka() {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", std::env::var("KAFKA_BROKERS").expect("asked for by is_possible"));
        let admin: AdminClient<DefaultClientContext> = config.create().expect("a client");
        let topics = || {
            let metadata = admin.inner().fetch_metadata(None, PATIENCE).expect("Kafka answers");
            let names = metadata.topics().iter().map(|topic| topic.name().to_owned());
            names.filter(|name| !name.starts_with("__")).collect::<Vec<_>>()
        };
        let all = topics();
        let names: Vec<&str> = all.iter().map(String::as_str).collect();
        if !names.is_empty() {
            admin.delete_topics(&names, &AdminOptions::new()).await.expect("topics can be deleted");
            crate::until("the topics to be gone", || async { topics().is_empty().then_some(()) }).await;
        }
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
        self.processes.iter().flat_map(|process| process.said.lock().expect("unpoisoned").clone()).collect()
    }
}

/// `knative/` of the project.
fn manifests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../knative")
}

fn copy_manifests(from: &Path, to: &Path, name: &str) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_manifests(&entry.path(), &target, name)?;
        } else {
            let text = std::fs::read_to_string(entry.path())?;
            std::fs::write(target, text.replace("consumerGroup: ", &format!("consumerGroup: {name}-")))?;
        }
    }
    Ok(())
}

/// The folder with the project's programs, built from what stands in the workspace now.
async fn programs() -> PathBuf {
    static BUILT: OnceCell<PathBuf> = OnceCell::const_new();
    let build = async {
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ stands in the workspace");
        let mut build = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        build.args(["build", "--quiet", "--workspace", "--bins"]).current_dir(workspace);
        if !cfg!(debug_assertions) {
            build.arg("--release");
        }
        let built = build.status().await;
        assert!(built.expect("cargo runs").success(), "the programs can't be built");
        // This test is target/debug/deps/name-hash; the programs stand two folders up from it.
        let test = std::env::current_exe().expect("its own path");
        test.ancestors().nth(2).expect("target/debug").to_owned()
    };
    BUILT.get_or_init(|| build).await.clone()
}
