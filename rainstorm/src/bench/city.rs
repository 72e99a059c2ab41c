//! A Rainstorm to be measured: processes of this very program, with data of their own, as a user would start them.

use std::{
    collections::HashMap,
    path::Path,
    process::Stdio,
    sync::Arc,
    time::{Duration, Instant},
};

use eventing::log::{EmbeddedLog, EventLog, KafkaLog};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};

use super::{BenchError, databases::Databases};
use crate::{
    demo, seed,
    services::{self, NAMES},
};

/// How long anything may take to start or to stop.
const PATIENCE: Duration = Duration::from_secs(60);
/// The database in which payment's simulated provider keeps its ledger.
pub const PROVIDER: &str = "provider";

/// Where logs and stores are: in this process and in files, or on servers.
#[derive(Debug, Clone)]
pub enum Place {
    Embedded,
    /// Kafka's brokers, and the URL of a PostgreSQL database from which others can be created.
    Servers {
        brokers: String,
        postgres: String,
    },
}

impl Place {
    /// For people.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Embedded => "embedded",
            Self::Servers { .. } => "Kafka and PostgreSQL",
        }
    }
}

/// Processes, and where they answer.
pub struct City {
    pub processes: Vec<Process>,
    urls: HashMap<&'static str, String>,
    databases: Option<Databases>,
    pub log: Arc<dyn EventLog>,
    data: tempfile::TempDir,
}

impl City {
    /// Starts one: six kitchens, and so many drivers on shift.
    ///
    /// # Errors
    /// What didn't start.
    pub async fn start(place: &Place, drivers: usize) -> Result<Self, BenchError> {
        let data = tempfile::tempdir().map_err(BenchError::Folder)?;
        let (mut processes, mut urls, mut databases) = (Vec::new(), HashMap::new(), None);
        let log: Arc<dyn EventLog> = match place {
            Place::Embedded => {
                let demo = start_demo(data.path()).await?;
                urls.extend(NAMES.map(|name| (name, demo.url())));
                processes.push(demo);
                Arc::new(EmbeddedLog::watch(&demo::log_file(data.path())).await?)
            }
            Place::Servers { brokers, postgres } => {
                let names = NAMES.into_iter().chain([PROVIDER]).collect();
                let created = databases.insert(Databases::create(postgres, names).await?);
                processes = start_services(brokers, created).await?;
                urls.extend(NAMES.into_iter().zip(processes.iter().map(Process::url)));
                Arc::new(KafkaLog::new(brokers, 12, &HashMap::new())?)
            }
        };
        let city = Self { processes, urls, databases, log, data };
        seed::open_town(city.url("kitchen"), city.url("delivery"), drivers).await?;
        Ok(city)
    }

    /// Where a service answers.
    pub fn url(&self, service: &str) -> &str {
        self.urls.get(service).map_or("", String::as_str)
    }

    /// Records that stand on the log of the services' own topics.
    ///
    /// # Errors
    /// If the log doesn't answer.
    pub async fn records(&self) -> Result<i64, BenchError> {
        let mut records = 0;
        for topic in NAMES.into_iter().filter_map(services::topic_of) {
            let marks = self.log.watermarks(topic).await?;
            records += marks.into_iter().map(|(_, begin, end)| end - begin).sum::<i64>();
        }
        Ok(records)
    }

    /// Seconds of processor time that its processes have had.
    pub fn cpu(&self) -> f64 {
        self.processes.iter().filter_map(Process::cpu).sum()
    }

    /// The folder in which the demo's data is.
    pub fn data(&self) -> &Path {
        self.data.path()
    }

    /// Ends its processes in order; its data stays.
    ///
    /// # Errors
    /// If somebody didn't end.
    pub async fn halt(&mut self) -> Result<(), BenchError> {
        // Whoever knocks goes first.
        for mut process in std::mem::take(&mut self.processes).into_iter().rev() {
            process.stop().await?;
        }
        Ok(())
    }

    /// Ends it in order, and deletes its data.
    ///
    /// # Errors
    /// If somebody didn't end.
    pub async fn stop(mut self) -> Result<(), BenchError> {
        self.halt().await?;
        if let Some(databases) = self.databases.take() {
            databases.drop().await?;
        }
        Ok(())
    }
}

/// Everything in one process.
///
/// # Errors
/// If it doesn't start.
pub async fn start_demo(data: &Path) -> Result<Process, BenchError> {
    let mut command = rainstorm()?;
    command.args(["demo", "--no-storm", "--no-seed", "--port", "0", "--data"]).arg(data);
    Process::start("demo", command).await
}

/// A process for each service, in their usual order, and a bridge behind them.
async fn start_services(brokers: &str, databases: &Databases) -> Result<Vec<Process>, BenchError> {
    let (mut processes, mut sinks) = (Vec::new(), Vec::new());
    for name in NAMES {
        let process = start_service(name, brokers, databases).await?;
        sinks.push(format!("{name}={}/events", process.url()));
        processes.push(process);
    }
    let mut command = rainstorm()?;
    command.args(["bridge", "--port", "0", "--sink", &sinks.join(",")]).env("KAFKA_BROKERS", brokers);
    processes.push(Process::start("bridge", command).await?);
    Ok(processes)
}

/// One service in a process of its own.
///
/// # Errors
/// If it doesn't start.
pub async fn start_service(name: &str, brokers: &str, databases: &Databases) -> Result<Process, BenchError> {
    let mut command = rainstorm()?;
    command.args(["serve", name, "--port", "0"]).env("KAFKA_BROKERS", brokers);
    command.env("DATABASE_URL", databases.url(name)).env("PROVIDER_DATABASE_URL", databases.url(PROVIDER));
    Process::start(name, command).await
}

/// `rainstorm bare`, which writes to this database if one is named.
///
/// # Errors
/// If nobody knows where this program is.
pub fn bare(database_url: Option<&str>) -> Result<Command, BenchError> {
    let mut command = rainstorm()?;
    command.arg("bare");
    if let Some(url) = database_url {
        command.args(["--database-url", url]);
    }
    Ok(command)
}

/// This very program.
///
/// # Errors
/// If nobody knows where it is.
pub fn rainstorm() -> Result<Command, BenchError> {
    let path =
        std::env::current_exe().map_err(|source| BenchError::Process { name: "rainstorm".to_owned(), source })?;
    Ok(Command::new(path))
}

/// A process of this program that serves.
pub struct Process {
    pub name: String,
    /// From before it was started until it was ready.
    pub start: Duration,
    /// When it was started.
    pub begun: Instant,
    port: u16,
    child: Child,
}

impl Process {
    /// Starts it, and returns when it is ready.
    ///
    /// # Errors
    /// If it doesn't start.
    pub async fn start(name: &str, mut command: Command) -> Result<Self, BenchError> {
        let failed = |source| BenchError::Process { name: name.to_owned(), source };
        let begun = Instant::now();
        let command = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().map_err(failed)?;
        let said = child.stderr.take().ok_or_else(|| failed(std::io::ErrorKind::BrokenPipe.into()))?;
        let mut lines = BufReader::new(said).lines();
        let mut last = String::new();
        let listening = async {
            while let Ok(Some(line)) = lines.next_line().await {
                if let Some(port) = line.strip_prefix("listening on port ").and_then(|port| port.parse().ok()) {
                    return Some(port);
                }
                last = line;
            }
            None
        };
        let port = tokio::time::timeout(PATIENCE, listening).await.ok().flatten();
        let port = port.ok_or_else(|| failed(std::io::Error::other(format!("it does not start: {last}"))))?;
        // Nobody reads what it says from now on, and it must not have to wait for a reader.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        let mut process = Self { name: name.to_owned(), start: Duration::ZERO, begun, port, child };
        process.ready().await?;
        process.start = begun.elapsed();
        Ok(process)
    }

    async fn ready(&self) -> Result<(), BenchError> {
        let client = eventing::http::client().build().map_err(BenchError::Http)?;
        let url = format!("{}/healthz/ready", self.url());
        let asked = Instant::now();
        loop {
            match client.get(&url).send().await {
                Ok(answer) if answer.status().is_success() => return Ok(()),
                _ if asked.elapsed() > PATIENCE => {
                    let source = std::io::Error::other("it does not become ready");
                    return Err(BenchError::Process { name: self.name.clone(), source });
                }
                _ => tokio::time::sleep(Duration::from_millis(1)).await,
            }
        }
    }

    /// Where it answers.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Seconds of processor time that it has had; `None` where the system doesn't tell.
    pub fn cpu(&self) -> Option<f64> {
        let stat = self.of_system("stat")?;
        // After the name, which stands in brackets and may hold anything.
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
        let ticks = fields.next()?.parse::<f64>().ok()? + fields.next()?.parse::<f64>().ok()?;
        Some(ticks / rustix::param::clock_ticks_per_second() as f64)
    }

    /// Memory that it has resident now, in MB (10⁶ bytes).
    pub fn resident(&self) -> Option<f64> {
        self.of_system("status").and_then(|status| demo::memory_mb(&status, "VmRSS:"))
    }

    /// The most memory it has had resident, in MB.
    pub fn most_resident(&self) -> Option<f64> {
        self.of_system("status").and_then(|status| demo::memory_mb(&status, "VmHWM:"))
    }

    /// Runs something that ends by itself: the seconds that it took, and the most memory in MB.
    ///
    /// # Errors
    /// If it fails; with the last of what it said.
    pub async fn to_its_end(name: &str, mut command: Command) -> Result<(f64, f64), BenchError> {
        let failed = |source| BenchError::Process { name: name.to_owned(), source };
        let begun = Instant::now();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
        let child = command.spawn().map_err(failed)?;
        let process = Self { name: name.to_owned(), start: Duration::ZERO, begun, port: 0, child };
        let status_file = process.child.id().map(|id| Path::new("/proc").join(id.to_string()).join("status"));
        let mut most: f64 = 0.0;
        let mut ended = std::pin::pin!(process.child.wait_with_output());
        let output = loop {
            // What a process has had at most is gone when it has ended, so it is asked all along.
            let look_again = tokio::time::sleep(Duration::from_millis(5));
            tokio::select! { output = &mut ended => break output.map_err(failed)?, () = look_again => {} }
            let status = status_file.as_ref().and_then(|file| std::fs::read_to_string(file).ok()).unwrap_or_default();
            most = most.max(demo::memory_mb(&status, "VmHWM:").unwrap_or_default());
        };
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            let last = said.lines().last().unwrap_or_default();
            return Err(failed(std::io::Error::other(format!("{}: {last}", output.status))));
        }
        Ok((begun.elapsed().as_secs_f64(), most))
    }

    fn of_system(&self, what: &str) -> Option<String> {
        std::fs::read_to_string(Path::new("/proc").join(self.child.id()?.to_string()).join(what)).ok()
    }

    /// Tells it to stop, and returns when it has ended.
    ///
    /// # Errors
    /// If it doesn't.
    pub async fn stop(&mut self) -> Result<(), BenchError> {
        let failed = |name: &str, source| BenchError::Process { name: name.to_owned(), source };
        let pid = self.child.id().and_then(|id| rustix::process::Pid::from_raw(id.cast_signed()));
        if let Some(pid) = pid {
            // One that has just ended by itself can't hear it, and needn't.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        match tokio::time::timeout(PATIENCE, self.child.wait()).await {
            Ok(ended) => ended.map(|_| ()).map_err(|source| failed(&self.name, source)),
            Err(_) => Err(failed(&self.name, std::io::Error::other("it does not stop"))),
        }
    }
}
