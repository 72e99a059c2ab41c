//! `rainstorm audit`: proves what the services promise, from the log and the stores of a deployment. What is checked
//! stands in the crate `audit`; here is where everything lies, and how the answer is printed.

mod beside;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use ::audit::{Deployment, Options, Progress, Report};
use event_sourcing::{Database, StoreError};
use eventing::{LogSettings, StartError};
use indicatif::{ProgressBar, ProgressStyle};
use runtime::Stop;

use crate::{demo, services::NAMES};
use beside::Beside;

/// Between two rounds of `--follow`.
const ROUND: Duration = Duration::from_secs(2);

#[derive(Debug, clap::Args)]
pub struct AuditArgs {
    /// The demo's data folder, which is audited where no Kafka is named; the demo may be running.
    #[arg(long, value_name = "DIR", default_value = demo::DATA)]
    data: PathBuf,
    /// Each service's own database, with `{service}` where its name belongs.
    #[arg(long, env = "DATABASE_URL", value_name = "URL")]
    database_url: Option<String>,
    /// The database of one service, where they have no name in common: `order=postgres://…`. What is not given is not
    /// looked at, and the report says so.
    #[arg(long = "store", env = "STORES", value_name = "SERVICE=URL", value_delimiter = ',')]
    stores: Vec<String>,
    /// The simulated payment provider's own database; without it, its tables beside payment's.
    #[arg(long, env = "PROVIDER_DATABASE_URL", value_name = "URL")]
    provider_database_url: Option<String>,
    /// A file with the ids of orders that were accepted, one on each line, as `rainstorm storm --accepted` writes it:
    /// each of them must be there.
    #[arg(long, value_name = "FILE")]
    accepted: Option<PathBuf>,
    /// The system runs: stories may be unfinished, and views behind. All else must hold.
    #[arg(long)]
    in_flight: bool,
    /// Go on while the system runs, round after round, until Ctrl-C or the first failure.
    #[arg(long)]
    follow: bool,
    /// Print the report as one JSON object (with --follow, one for each round).
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    log: LogSettings,
}

/// Why the audit did not pass.
#[derive(Debug, thiserror::Error)]
pub enum AuditCommandError {
    #[error(transparent)]
    Start(#[from] StartError),
    #[error("{setting}: {source}")]
    Store { setting: String, source: StoreError },
    #[error("--accepted {file}: {source}")]
    Accepted { file: String, source: std::io::Error },
    #[error(transparent)]
    Unreadable(#[from] ::audit::AuditError),
    #[error("not everything holds; the report says what")]
    Failed,
}

/// Audits, once or round after round.
pub async fn audit(args: AuditArgs) -> Result<(), AuditCommandError> {
    let deployment = deployment(&args).await?;
    if !args.follow {
        let report = round(&args, &deployment).await?;
        print(&args, &report);
        return if report.passed { Ok(()) } else { Err(AuditCommandError::Failed) };
    }
    let stop = Stop::on_signal();
    for number in 1.. {
        let report = tokio::select! {
            report = round(&args, &deployment) => report?,
            () = stop.wait() => return Ok(()),
        };
        if args.json || !report.passed {
            print(&args, &report);
        } else {
            println!("{}", line(number, &report));
        }
        if !report.passed {
            return Err(AuditCommandError::Failed);
        }
        tokio::select! { () = tokio::time::sleep(ROUND) => {}, () = stop.wait() => return Ok(()) }
    }
    Ok(())
}

async fn round(args: &AuditArgs, deployment: &Deployment) -> Result<Report, AuditCommandError> {
    let accepted = match &args.accepted {
        None => Vec::new(),
        Some(file) => {
            let wrong = |source| AuditCommandError::Accepted { file: file.display().to_string(), source };
            let text = std::fs::read_to_string(file).map_err(wrong)?;
            // A client that was killed may have left half a line.
            let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
            whole.lines().map(ToOwned::to_owned).collect()
        }
    };
    let options = Options { in_flight: args.in_flight || args.follow, accepted };
    let bar = ProgressBar::new(0);
    let style = ProgressStyle::with_template("{msg} {wide_bar} {human_pos}/{human_len} {per_sec} {eta}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    let mut progress = |Progress { records, of, doing }| {
        bar.set_length(of);
        bar.set_position(records);
        bar.set_message(doing);
    };
    let report = ::audit::audit(deployment, &options, &mut progress).await;
    bar.finish_and_clear();
    Ok(report?)
}

fn print(args: &AuditArgs, report: &Report) {
    match serde_json::to_string(report) {
        Ok(json) if args.json => println!("{json}"),
        _ => println!("{report}"),
    }
}

/// What one round of `--follow` has found.
fn line(number: usize, report: &Report) -> String {
    let ::audit::Orders { placed, completed, cancelled, unfinished, excepted } = report.orders;
    let Report { records, repeats, unpublished, .. } = report;
    format!(
        "round {number}: holds. {records} records, {repeats} repeats, {unpublished} not published yet; {placed} orders: \
         {completed} completed, {cancelled} cancelled, {unfinished} under way, {excepted} behind a dead letter"
    )
}

/// Where everything lies.
async fn deployment(args: &AuditArgs) -> Result<Deployment, AuditCommandError> {
    let mut urls = named(&args.stores)?;
    let mut ledger = args.provider_database_url.clone();
    let log: Arc<dyn eventing::log::EventLog> = if args.log.kafka_brokers.is_some() {
        Arc::new(args.log.kafka()?)
    } else {
        let file = demo::log_file(&args.data);
        if !file.exists() {
            let explain =
                format!("neither KAFKA_BROKERS is set nor is there a log at {}; run the demo first", file.display());
            return Err(StartError::Setting(explain).into());
        }
        let lies_there = |name: &str| Some(args.data.join(format!("{name}.db"))).filter(|file| file.exists());
        if args.database_url.is_none() {
            for name in NAMES {
                if let Some(file) = lies_there(name) {
                    urls.entry(name.to_owned()).or_insert_with(|| sqlite(&file));
                }
            }
        }
        ledger = ledger.or_else(|| lies_there("provider").map(|file| sqlite(&file)));
        Arc::new(Beside::open(file, args.log.partitions).await.map_err(StartError::from)?)
    };
    if let Some(url) = &args.database_url {
        if !url.contains("{service}") {
            let explain = "DATABASE_URL needs {service} in it; --store names the database of one service";
            return Err(StartError::Setting(explain.to_owned()).into());
        }
        for name in NAMES {
            urls.entry(name.to_owned()).or_insert_with(|| url.replace("{service}", name));
        }
    }
    let mut stores = BTreeMap::new();
    for (name, url) in urls {
        let store = Database::connect(&url).await;
        let wrong = |source| AuditCommandError::Store { setting: format!("the store of {name}"), source };
        stores.insert(name.clone(), store.map_err(wrong)?);
    }
    for missing in NAMES.iter().filter(|name| !stores.contains_key(**name)) {
        eprintln!("note: no store of {missing} was given, so it is not looked at");
    }
    let ledger = match ledger {
        Some(url) => Some(
            Database::connect(&url)
                .await
                .map_err(|source| AuditCommandError::Store { setting: "PROVIDER_DATABASE_URL".to_owned(), source })?,
        ),
        None => beside_payment(stores.get("payment")).await,
    };
    if ledger.is_none() {
        eprintln!("note: the provider's ledger was not found; PROVIDER_DATABASE_URL says where it is");
    }
    Ok(Deployment { log, stores, ledger })
}

/// Payment's own database, if the provider keeps its books there.
async fn beside_payment(payment: Option<&Database>) -> Option<Database> {
    let payment = payment?;
    let there = payment.fetch("SELECT outcome FROM provider_ledger LIMIT 1", []).await;
    there.is_ok().then(|| payment.clone())
}

fn sqlite(file: &Path) -> String {
    format!("sqlite:{}", file.display())
}

fn named(stores: &[String]) -> Result<BTreeMap<String, String>, StartError> {
    let one = |store: &String| match store.split_once('=') {
        Some((name, url)) if NAMES.contains(&name) => Ok((name.to_owned(), url.to_owned())),
        _ => Err(StartError::Setting(format!("STORES: {store:?} must be SERVICE=URL, of {}", NAMES.join(", ")))),
    };
    stores.iter().map(one).collect()
}
