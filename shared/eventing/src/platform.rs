//! What a service stands on: its database, the event log, its port. The same settings in every way to run.

use std::{collections::HashMap, future::Future, net::Ipv4Addr, process::ExitCode, sync::Arc, time::Duration};

use clap::Parser;
use event_sourcing::{Database, MIGRATIONS, Store, StoreError};
use futures::future::join_all;
use runtime::{
    Service, Stop,
    server::{Limits, serve},
    telemetry::{self, TelemetryError},
};
use sqlx::migrate::Migrator;
use tokio::net::TcpListener;
use utoipa_axum::router::OpenApiRouter;

use crate::{
    Door, Handler, Metrics, Reactions, Reactor, Writer,
    dead_letters::{self, DeadLetters},
    log::{EventLog, KafkaLog, LogError},
};

/// How long a start waits for its database.
const DATABASE_PATIENCE: Duration = Duration::from_secs(30);

/// Who a service is to the others.
#[derive(Debug, Clone, Copy)]
pub struct Identity {
    /// `order`; also names its dead letters and its consumer group.
    pub name: &'static str,
    /// The CloudEvents source of what it publishes.
    pub source: &'static str,
    /// The topic it publishes to.
    pub topic: &'static str,
}

/// Why a service can't start; each says which setting or file to look at.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("{0}")]
    Setting(String),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Log(#[from] LogError),
    #[error("PORT {port}: {source}")]
    Listen { port: u16, source: std::io::Error },
    #[error(transparent)]
    Telemetry(#[from] TelemetryError),
    #[error("the server failed: {0}")]
    Serve(#[from] std::io::Error),
}

/// The settings of the event log.
#[derive(Debug, Clone, clap::Args)]
pub struct LogSettings {
    /// Kafka's bootstrap servers, `host:port,host:port`. librdkafka's settings for TLS and SASL are taken from
    /// environment variables of their own names, such as `security.protocol` or `sasl.username`
    /// (or `KAFKA_SECURITY_PROTOCOL`, where a shell can't write the dots).
    #[arg(long, env = "KAFKA_BROKERS", value_name = "HOST:PORT,…")]
    pub kafka_brokers: Option<String>,
    /// Partitions of the topics that are created because they are missing.
    #[arg(long, env = "PARTITIONS", default_value_t = 12, value_parser = clap::value_parser!(i32).range(1..=1000))]
    pub partitions: i32,
}

impl LogSettings {
    /// The Kafka log these settings name.
    ///
    /// # Errors
    /// If they name none, or one of librdkafka's settings is wrong.
    pub fn kafka(&self) -> Result<KafkaLog, StartError> {
        let brokers = self.kafka_brokers.as_deref().unwrap_or_default();
        if brokers.is_empty() {
            let explain = "KAFKA_BROKERS is not set: where is the event log? (`rainstorm demo` brings one of its own)";
            return Err(StartError::Setting(explain.to_owned()));
        }
        Ok(KafkaLog::new(brokers, self.partitions, &librdkafka_settings(std::env::vars_os()))?)
    }
}

/// librdkafka's settings among the environment's variables: `security.protocol`, `ssl.…`, `sasl.…`, as they are or as
/// `KAFKA_SECURITY_PROTOCOL`, `KAFKA_SSL_…`, `KAFKA_SASL_…`.
pub fn librdkafka_settings(
    variables: impl Iterator<Item = (std::ffi::OsString, std::ffi::OsString)>,
) -> HashMap<String, String> {
    let passed_on = |name: &str| name == "security.protocol" || name.starts_with("ssl.") || name.starts_with("sasl.");
    let named = |name: String| match name.strip_prefix("KAFKA_") {
        Some(rest) => rest.to_lowercase().replace('_', "."),
        None => name,
    };
    variables
        .filter_map(|(name, value)| Some((named(name.into_string().ok()?), value.into_string().ok()?)))
        .filter(|(name, _)| passed_on(name))
        .collect()
}

/// What one service stands on.
#[derive(Clone)]
pub struct Platform {
    pub log: Arc<dyn EventLog>,
    /// `postgres://…` or `sqlite:PATH`.
    pub database_url: String,
    pub metrics: Metrics,
}

impl Platform {
    /// A service on this log and this database: `postgres://…` or `sqlite:PATH`.
    #[must_use]
    pub fn new(log: Arc<dyn EventLog>, database_url: impl Into<String>) -> Self {
        Self { log, database_url: database_url.into(), metrics: Metrics::default() }
    }

    /// The service's database, its tables brought up to date with `migrations` and the shared ones.
    ///
    /// # Errors
    /// If the database can't be used, after waiting for it for a while.
    pub async fn database(&self, migrations: &[&Migrator]) -> Result<Database, StartError> {
        let all: Vec<&Migrator> = std::iter::once(&MIGRATIONS).chain(migrations.iter().copied()).collect();
        let started = tokio::time::Instant::now();
        loop {
            match Database::open(&self.database_url, &all).await {
                Err(StoreError::Unavailable(error)) if started.elapsed() < DATABASE_PATIENCE => {
                    tracing::warn!(%error, "DATABASE_URL: the database does not answer yet");
                    tokio::time::sleep(Duration::from_millis(500)).await;
                }
                opened => {
                    self.metrics.started("database");
                    return Ok(opened?.measured(self.metrics.commits()));
                }
            }
        }
    }

    /// The streams of the service in its database, and the way from there to the log.
    #[must_use]
    pub fn writer(&self, who: Identity, database: Database) -> Writer {
        let topics = [who.topic.to_owned(), dead_letters::topic(who.name)];
        tokio::spawn(create_topics(self.log.clone(), topics.into()));
        Writer::new(Store::new(database), self.log.clone(), who, self.metrics.clone())
    }

    /// A writing service: what people can ask (`people`), and what it does about events.
    #[must_use]
    pub fn assemble<R: Reactions>(
        &self,
        who: Identity,
        writer: Writer,
        reactions: Arc<R>,
        people: OpenApiRouter,
    ) -> Service {
        let database = writer.store.database().clone();
        let outbox = writer.outbox.clone();
        self.listen(who.name, database, Arc::new(Reactor::new(writer, reactions)), people).finishing(move || {
            let outbox = outbox.clone();
            async move { outbox.finish().await }
        })
    }

    /// Any service whose door leads to `handler`.
    #[must_use]
    pub fn listen(
        &self,
        name: &'static str,
        database: Database,
        handler: Arc<dyn Handler>,
        people: OpenApiRouter,
    ) -> Service {
        let letters = DeadLetters::new(database.clone(), self.log.clone(), name);
        let door = Door::new(handler, database.clone(), letters, self.metrics.clone());
        let (metrics, store) = (self.metrics.clone(), database.clone());
        let look = move || {
            let (metrics, store) = (metrics.clone(), store.clone());
            async move { metrics.look(&store).await }
        };
        let ready = move || {
            let database = database.clone();
            async move { database.ping().await.map_err(|error| format!("its store does not answer: {error}")) }
        };
        self.metrics.started("ready");
        Service::new(name, people, door.router(), self.metrics.registry().clone(), ready).looking(look)
    }
}

/// Creates topics as soon as the log answers; a service starts and takes commands without it.
async fn create_topics(log: Arc<dyn EventLog>, topics: Vec<String>) {
    let names: Vec<&str> = topics.iter().map(String::as_str).collect();
    while let Err(error) = log.create_topics(&names).await {
        tracing::warn!(%error, ?topics, "topics can't be created yet");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// The settings of a service that runs by itself.
#[derive(Debug, Parser)]
#[command(version, about, long_about = None)]
struct Alone<S: clap::Args> {
    /// Where to listen, on every interface. 0: any free port.
    #[arg(long, env = "PORT", default_value_t = 8080)]
    port: u16,
    /// The service's own database: `postgres://user:password@host/database` or `sqlite:PATH`.
    #[arg(long, env = "DATABASE_URL", value_name = "URL")]
    database_url: String,
    #[command(flatten)]
    log: LogSettings,
    #[command(flatten)]
    own: S,
}

/// A service's `main`: reads its settings, starts it on its own port, and stops it in order.
pub fn run<S, F>(name: &str, start: impl FnOnce(S, Platform) -> F) -> ExitCode
where
    S: clap::Args,
    F: Future<Output = Result<Service, StartError>>,
{
    let settings = match runtime::settings::parse::<Alone<S>>() {
        Ok(settings) => settings,
        Err(code) => return code,
    };
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: threads can't be started: {error}");
            return ExitCode::FAILURE;
        }
    };
    let ran = runtime.block_on(async {
        let _telemetry = telemetry::start(name, runtime::WARNINGS)?;
        let stop = Stop::on_signal();
        let log = Arc::new(settings.log.kafka()?);
        let service = start(settings.own, Platform::new(log, settings.database_url)).await?;
        listen_and_serve((Ipv4Addr::UNSPECIFIED, settings.port), vec![service], stop).await
    });
    match ran {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Serves `services` behind one port until `stop`; the port is printed, so that whoever asked for port 0 knows it.
///
/// # Errors
/// If the port can't be had, or the server fails.
pub async fn listen_and_serve(
    (address, port): (Ipv4Addr, u16),
    services: Vec<Service>,
    stop: Stop,
) -> Result<(), StartError> {
    let listener = TcpListener::bind((address, port)).await.map_err(|source| StartError::Listen { port, source })?;
    eprintln!("listening on port {}", listener.local_addr()?.port());
    let finish = join_all(services.iter().map(Service::finish));
    serve(listener, runtime::service::router(services), stop, Limits::of_this_system(), finish).await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn librdkafkas_settings_pass_under_their_own_names_and_nothing_else_does() {
        let variables = [
            ("security.protocol", "SASL_SSL"),
            ("KAFKA_SASL_USERNAME", "order"),
            ("KAFKA_BROKERS", "localhost:9092"),
            ("KAFKA_SERVICE_HOST", "10.0.0.1"),
            ("HOME", "/"),
        ];
        let settings = librdkafka_settings(variables.into_iter().map(|(name, value)| (name.into(), value.into())));
        let expected = [("security.protocol", "SASL_SSL"), ("sasl.username", "order")];
        assert_eq!(settings, expected.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
    }
}
