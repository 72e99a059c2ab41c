//! A storm's data, and copies of it in which a fault is planted: a data folder, or databases and topics on servers.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::{Path, PathBuf},
    sync::Arc,
};

use end_to_end::{PATIENCE, PROVIDER, SERVICES, Way, World};
use event_sourcing::Database;
use eventing::log::{EmbeddedLog, EventLog, KafkaLog, Partition, Record};
use serde_json::Value;
use tokio::sync::OnceCell;

use crate::faults::{self, Fault};

const PARTITIONS: i32 = 12;

/// Everything on a log.
pub type Records = BTreeMap<Partition, Vec<Record>>;

/// Whom faults befall: an order that was delivered, the driver who brought it, and the order that he brought next.
pub struct Victim {
    pub order: String,
    pub driver: String,
    pub next_order: String,
    /// The version at which the driver was released of the first.
    pub released: i64,
}

/// What a storm left behind.
pub struct Original {
    place: Place,
    records: Records,
    pub victim: Victim,
}

enum Place {
    Folder(PathBuf),
    /// A world that was killed, with its databases and its turn on Kafka.
    Servers(World),
}

/// A copy with a fault in it.
pub struct Copy {
    arguments: Vec<String>,
    settings: Vec<(String, String)>,
    folder: tempfile::TempDir,
}

impl Original {
    /// Lets it rain, and stops everything. The embedded storm is shared by all tests.
    pub async fn after_a_storm(way: Way) -> Self {
        let place = match way {
            Way::Embedded(_) => Place::Folder(embedded_storm().await),
            _ => Place::Servers(storm_on_servers(way).await),
        };
        let log: Arc<dyn EventLog> = match &place {
            Place::Folder(folder) => {
                Arc::new(EmbeddedLog::open(&folder.join("log.db"), PARTITIONS).await.expect("the log"))
            }
            Place::Servers(_) => kafka(),
        };
        let records = read(&*log).await;
        let delivery = Database::connect(&place.url("delivery")).await.expect("a database");
        let victim = victim(&delivery).await;
        delivery.close().await;
        Self { place, records, victim }
    }

    /// A copy with `fault` in it.
    pub async fn copy(&self, fault: Fault) -> Copy {
        let folder = tempfile::tempdir().expect("a folder");
        let name = format!("c{}", uuid::Uuid::now_v7().simple());
        let mut stores = HashMap::new();
        for service in SERVICES {
            let url = self.place.copy(service, folder.path(), &name).await;
            stores.insert(service, Database::connect(&url).await.expect("the copy"));
        }
        let ledger = self.place.copy(PROVIDER, folder.path(), &name).await;
        let ledger = Database::connect(&ledger).await.expect("the copy");
        let mut records = self.records.clone();
        faults::plant_in_stores(fault, &stores, &ledger, &self.victim).await;
        faults::plant_on_the_log(fault, &mut records, &stores, &self.victim).await;
        let (arguments, settings) = match &self.place {
            Place::Folder(_) => {
                let log = EmbeddedLog::open(&folder.path().join("log.db"), PARTITIONS).await.expect("a log");
                write(&log, &records).await;
                (vec!["--data".to_owned(), folder.path().display().to_string()], Vec::new())
            }
            Place::Servers(_) => {
                World::empty_kafka().await;
                write(&*kafka(), &records).await;
                let brokers = std::env::var("KAFKA_BROKERS").expect("asked for by is_possible");
                let url = |which| on_the_same_server(&self.place.url("order"), &format!("{name}_{which}"));
                let settings = [
                    ("KAFKA_BROKERS", brokers),
                    ("DATABASE_URL", url("{service}")),
                    ("PROVIDER_DATABASE_URL", url(PROVIDER)),
                ];
                (Vec::new(), settings.map(|(name, value)| (name.to_owned(), value)).to_vec())
            }
        };
        for store in stores.values() {
            store.close().await;
        }
        ledger.close().await;
        Copy { arguments, settings, folder }
    }
}

impl Copy {
    /// Audits it: the exit status, and the report.
    pub async fn audit(&self, more: &[&str]) -> (Option<i32>, Value) {
        let arguments = ["audit", "--json"].into_iter().chain(self.arguments.iter().map(String::as_str));
        let arguments: Vec<&str> = arguments.chain(more.iter().copied()).collect();
        let settings: Vec<_> = self.settings.iter().map(|(name, value)| (&**name, &**value)).collect();
        let (status, said) = World::run("rainstorm", &arguments, &settings).await;
        let report = said.lines().find_map(|line| serde_json::from_str(line).ok());
        (status, report.unwrap_or_else(|| panic!("no report: {said}")))
    }

    /// Where an embedded one lies.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}

/// The checks that failed.
pub fn failed(report: &Value) -> BTreeSet<String> {
    let rows = report["checks"].as_array().expect("checks").iter().filter(|row| row["failed"] != 0);
    rows.map(|row| row["check"].as_str().expect("a name").to_owned()).collect()
}

impl Place {
    fn url(&self, service: &str) -> String {
        match self {
            Self::Folder(folder) => sqlite(&folder.join(format!("{service}.db"))),
            Self::Servers(world) => world.database_url(service),
        }
    }

    async fn copy(&self, service: &str, folder: &Path, name: &str) -> String {
        match self {
            Self::Folder(original) => copy_file(original, folder, service),
            Self::Servers(_) => {
                let original = self.url(service);
                let (_, template) = original.rsplit_once('/').expect("a URL with a database");
                let admin = std::env::var("POSTGRES_URL").expect("asked for by is_possible");
                let sql = format!("CREATE DATABASE {name}_{service} TEMPLATE {template}");
                World::on_postgres(&admin, &sql).await;
                on_the_same_server(&original, &format!("{name}_{service}"))
            }
        }
    }
}

fn copy_file(original: &Path, folder: &Path, name: &str) -> String {
    for ending in ["db", "db-wal"] {
        let file = original.join(format!("{name}.{ending}"));
        if file.exists() {
            std::fs::copy(&file, folder.join(format!("{name}.{ending}"))).expect("a copy");
        }
    }
    sqlite(&folder.join(format!("{name}.db")))
}

fn sqlite(file: &Path) -> String {
    format!("sqlite:{}", file.display())
}

fn on_the_same_server(url: &str, database: &str) -> String {
    let (server, _) = url.rsplit_once('/').expect("a URL with a database");
    format!("{server}/{database}")
}

fn kafka() -> Arc<dyn EventLog> {
    let brokers = std::env::var("KAFKA_BROKERS").expect("asked for by is_possible");
    Arc::new(KafkaLog::new(&brokers, PARTITIONS, &HashMap::new()).expect("Kafka"))
}

const STORM: [&str; 14] = [
    "--calm",
    "10",
    "--peak",
    "40",
    "--calm-for",
    "1s",
    "--storm-for",
    "2s",
    "--cancel",
    "0.2",
    "--bad-cards",
    "0.1",
    "--seed",
    "11",
];
/// Few, so that each has to drive more than once.
const DRIVERS: usize = 8;

async fn embedded_storm() -> PathBuf {
    // Kept for all tests of this run, of which others may go on beside it; whoever sweeps the build folder sweeps it up.
    static STORM_DATA: OnceCell<PathBuf> = OnceCell::const_new();
    let rain = async {
        let folder = tempfile::Builder::new().prefix("audited-storm-").tempdir_in(env!("CARGO_TARGET_TMPDIR"));
        let folder = folder.expect("a folder").keep();
        let data = folder.to_str().expect("UTF-8").to_owned();
        let drivers = DRIVERS.to_string();
        let mut arguments = vec!["demo", "--exit", "--fresh", "--port", "0", "--data", &data, "--drivers", &drivers];
        arguments.extend(STORM);
        let (status, said) = World::run("rainstorm", &arguments, &[("RIDING", "1ms"), ("COOKING", "1ms")]).await;
        assert_eq!(status, Some(0), "{said}");
        folder
    };
    STORM_DATA.get_or_init(|| rain).await.clone()
}

async fn storm_on_servers(way: Way) -> World {
    let mut world = World::start(way, &[("RIDING", "1ms"), ("COOKING", "1ms")]).await;
    world.seed(DRIVERS).await;
    world.storm(&STORM).await;
    // The view has heard how every order ends; the refunds and the tickets may still be on their way.
    let rest = tokio::time::timeout(PATIENCE, async {
        loop {
            let brokers = std::env::var("KAFKA_BROKERS").expect("asked for by is_possible");
            let (stores, provider) = (world.database_url("{service}"), world.database_url(PROVIDER));
            let settings =
                [("KAFKA_BROKERS", &*brokers), ("DATABASE_URL", &stores), ("PROVIDER_DATABASE_URL", &provider)];
            let (status, said) = World::run("rainstorm", &["audit"], &settings).await;
            if status == Some(0) {
                return;
            }
            eprintln!("not at rest yet: {said}");
        }
    });
    rest.await.expect("everything comes to rest");
    world.kill().await;
    world
}

async fn read(log: &dyn EventLog) -> Records {
    let mut records = Records::new();
    for topic in ["orders", "payments", "kitchen", "deliveries"] {
        for (partition, begin, _) in log.watermarks(topic).await.expect("the log answers") {
            let read = log.read(&partition, begin, usize::MAX >> 1).await.expect("records");
            records.insert(partition, read.into_iter().map(|stored| stored.record).collect());
        }
    }
    records
}

async fn write(log: &dyn EventLog, records: &Records) {
    let topics: BTreeSet<&str> = records.keys().map(|partition| partition.topic.as_str()).collect();
    log.create_topics(&topics.into_iter().collect::<Vec<_>>()).await.expect("topics");
    for (partition, records) in records {
        // One after the other: it shall stand there as it is given, whatever its keys.
        for records in records.chunks(500) {
            log.append(&partition.topic, records.to_vec()).await.expect("appended");
        }
    }
}

/// Somebody who drove twice.
async fn victim(delivery: &Database) -> Victim {
    let sql = "SELECT stream_id, version, type, data FROM events WHERE type LIKE $1 ORDER BY stream_id, version";
    let rows = delivery.fetch(sql, ["dev.rainstorm.delivery.driver_%".into()]).await.expect("events");
    let text = |place: usize, column| rows[place].text(column).expect("text");
    let order_id = |place: usize| {
        let data: Value = rows[place].json(3).expect("JSON");
        data["order_id"].as_str().map(ToOwned::to_owned)
    };
    let twice = (0..rows.len().saturating_sub(2)).find(|first| {
        let kinds = [0, 1, 2].map(|next| text(first + next, 2));
        let kinds = kinds.each_ref().map(|kind| kind.split('.').nth(3).unwrap_or_default().to_owned());
        text(*first, 0) == text(first + 2, 0) && kinds == ["driver_engaged", "driver_released", "driver_engaged"]
    });
    let first = twice.expect("eight drivers and dozens of orders");
    Victim {
        driver: text(first, 0),
        order: order_id(first).expect("an order"),
        next_order: order_id(first + 2).expect("an order"),
        released: rows[first + 1].int(1).expect("a version"),
    }
}
