//! Rainstorm's command line: the demo, the storm, and the tools to run, watch and prove a deployment.

mod audit;
mod bench;
mod dead_letters;
mod demo;
mod healthy;
mod lag;
mod observe;
mod operate;
mod order;
mod rebuild;
mod seed;
mod serve;
mod services;
mod storm;
mod topics;
mod watch;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Five services allocate on many threads at once in one process.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A food-delivery system made of five services that never call each other.
///
/// They listen. Orders, payments, kitchens and drivers meet only through events on a log; each service sleeps until an
/// event wakes it. Begin with `rainstorm demo`: it brings everything it needs, and makes it rain.
#[derive(Debug, Parser)]
#[command(name = "rainstorm", version)]
struct Rainstorm {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run everything in this process and let it rain (what happens when no command is given).
    Demo(Box<demo::DemoArgs>),
    /// Let orders rain on a deployment: calm, ten times as many, calm again.
    Storm(storm::StormArgs),
    /// Open kitchens and put drivers on shift in a deployment.
    Seed(seed::SeedArgs),
    /// Run services in one process, on Kafka and databases of their own.
    Serve(Box<serve::ServeArgs>),
    /// Knock at the doors of services for every event on Kafka, as Knative's KafkaSource does.
    Bridge(serve::BridgeArgs),
    /// Tell the story of one order.
    Order(order::OrderArgs),
    /// Make a service's store again from the log alone, and prove that it equals the one that was there.
    Rebuild(rebuild::RebuildArgs),
    /// Show how far each service is behind, per partition.
    Lag(lag::LagArgs),
    /// Create every topic that is missing.
    Topics(topics::TopicsArgs),
    /// Ask a service whether it is ready; the status is the answer.
    Healthy(healthy::HealthyArgs),
    /// Follow a deployment in a cluster: who is awake, how far behind, and how each woke.
    Watch(watch::WatchArgs),
    /// See the organism live: lag, workers and events as pictures for the page, and as metrics.
    Observe(Box<observe::ObserveArgs>),
    /// Measure what this system does on this machine, beside what the machine itself does.
    Bench(bench::BenchArgs),
    /// A web server with nothing in it, for `bench` to compare with.
    #[command(hide = true)]
    Bare(bench::BareArgs),
    /// Serve the bench's rival: the same services calling each other.
    #[command(hide = true)]
    Chain(Box<bench::chain::ChainArgs>),
    /// Prove what the services promise, from the log and the stores of a deployment.
    Audit(audit::AuditArgs),
    /// See what the services could not handle, and have it handled again or given up.
    DeadLetters(dead_letters::DeadLettersArgs),
}

/// A service, if that is the name that this program was started under: the image holds one program with a name for each,
/// a quarter of the size of six.
fn as_a_service() -> Option<ExitCode> {
    let started_as = std::env::args_os().next()?;
    let name = std::path::Path::new(&started_as).file_name()?.to_str()?;
    match name.strip_suffix("-service")? {
        "order" => Some(eventing::run("order", ::order::service)),
        "payment" => Some(eventing::run("payment", payment::service)),
        "kitchen" => Some(eventing::run("kitchen", kitchen::service)),
        "delivery" => Some(eventing::run("delivery", delivery::service)),
        "query" => Some(eventing::run("query", query::service)),
        _ => None,
    }
}

fn main() -> ExitCode {
    if let Some(status) = as_a_service() {
        return status;
    }
    let parsed = match runtime::settings::parse::<Rainstorm>() {
        Ok(parsed) => parsed,
        Err(code) => return code,
    };
    let logged = match parsed.command {
        Some(Command::Audit(_) | Command::Rebuild(_)) => runtime::WARNINGS_BUT_SLOW_STATEMENTS,
        _ => runtime::WARNINGS,
    };
    let threads = match tokio::runtime::Runtime::new() {
        Ok(threads) => threads,
        Err(error) => {
            eprintln!("error: threads can't be started: {error}");
            return ExitCode::FAILURE;
        }
    };
    let ran: Result<(), Box<dyn std::error::Error>> = threads.block_on(async {
        let _telemetry = runtime::telemetry::start("rainstorm", logged)?;
        // `rainstorm` alone is `rainstorm demo`.
        let command = parsed.command.or_else(|| Rainstorm::parse_from(["rainstorm", "demo"]).command);
        match command {
            Some(Command::Demo(args)) => demo::demo(*args).await?,
            Some(Command::Storm(args)) => storm::storm(args).await?,
            Some(Command::Seed(args)) => seed::seed(args).await?,
            Some(Command::Serve(args)) => serve::serve(*args).await?,
            Some(Command::Bridge(args)) => serve::bridge(args).await?,
            Some(Command::Order(args)) => order::order(args).await?,
            Some(Command::Lag(args)) => lag::lag(args).await?,
            Some(Command::Watch(args)) => watch::watch(args).await?,
            Some(Command::Observe(args)) => observe::observe(*args).await?,
            Some(Command::Topics(args)) => topics::topics(args).await?,
            Some(Command::Healthy(args)) => healthy::healthy(args).await?,
            Some(Command::Bench(args)) => bench::bench(args).await?,
            Some(Command::Bare(args)) => bench::bare(args).await?,
            Some(Command::Chain(args)) => bench::chain::chain(*args).await?,
            Some(Command::Audit(args)) => audit::audit(args).await?,
            Some(Command::Rebuild(args)) => rebuild::rebuild(args).await?,
            Some(Command::DeadLetters(args)) => dead_letters::dead_letters(args).await?,
            None => {}
        }
        Ok(())
    });
    // What was aborted half-way may still hold a thread; there is nothing left to wait for.
    threads.shutdown_timeout(std::time::Duration::from_secs(1));
    match ran {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
