//! Kafka and PostgreSQL as processes that die. `tests/servers/kafka` and `tests/servers/postgres` start them again, as a
//! cluster would, and say in a file which process it is.

use std::{io::Write, path::PathBuf, time::Duration};

use end_to_end::{Signal, kafka_client, until};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rustix::process::{Pid, kill_process};
use sqlx::{Connection, PgConnection};

/// A server that comes back when it is killed.
pub struct Server {
    kind: Kind,
    pid_file: PathBuf,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Kafka,
    Postgres,
}

impl Server {
    /// The Kafka of this run, if its process is known.
    pub fn kafka() -> Option<Self> {
        Self::of(Kind::Kafka, "KAFKA_PID_FILE")
    }

    /// The PostgreSQL of this run, if its process is known.
    pub fn postgres() -> Option<Self> {
        Self::of(Kind::Postgres, "POSTGRES_PID_FILE")
    }

    fn of(kind: Kind, variable: &str) -> Option<Self> {
        let Ok(pid_file) = std::env::var(variable) else {
            let required = std::env::var("RAINSTORM_REQUIRE_SERVERS").is_ok();
            assert!(!required, "{variable} is missing: {kind:?} can't be killed");
            let _ =
                writeln!(std::io::stderr(), "SKIPPED: {kind:?} can't be killed; tests/servers/with says its process");
            return None;
        };
        Some(Self { kind, pid_file: pid_file.into() })
    }

    /// Kills it with SIGKILL.
    pub fn kill(&self) {
        let pid = std::fs::read_to_string(&self.pid_file).ok().and_then(|pid| Pid::from_raw(pid.trim().parse().ok()?));
        kill_process(pid.expect("a process id"), Signal::KILL).expect("it runs");
    }

    /// Returns when it does its work again.
    pub async fn is_back(&self) {
        match self.kind {
            Kind::Kafka => until("Kafka to lead its partitions again", || async { kafka_leads().then_some(()) }).await,
            Kind::Postgres => {
                let url = std::env::var("POSTGRES_URL").expect("the scenarios run on PostgreSQL");
                until("PostgreSQL to answer again", || async { PgConnection::connect(&url).await.ok() }).await;
            }
        }
    }
}

/// Whether every partition has a leader.
fn kafka_leads() -> bool {
    let Ok(client) = kafka_client().create::<BaseConsumer>() else { return false };
    let Ok(metadata) = client.fetch_metadata(None, Duration::from_secs(1)) else { return false };
    let mut partitions = metadata.topics().iter().flat_map(|topic| topic.partitions());
    !metadata.topics().is_empty() && partitions.all(|partition| partition.leader() >= 0)
}
