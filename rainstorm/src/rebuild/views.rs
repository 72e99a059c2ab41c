//! The views of query: made again beside the live ones, while the service runs or not.

use std::sync::Arc;

use event_sourcing::Database;
use eventing::{
    Platform, StartError,
    log::EventLog,
    rebuild::{Proof, proof},
    sources::Subscription,
};
use query::rebuild::{Outcome, Rebuild, Swap, TABLES};

use super::{Bars, RebuildArgs, RebuildError, sqlite, without_password};
use crate::{demo, services};

/// Rebuilds the views where they are.
pub async fn rebuild(args: &RebuildArgs, name: &str, log: &Arc<dyn EventLog>) -> Result<(), RebuildError> {
    let url = match &args.database_url {
        Some(url) if args.log.kafka_brokers.is_some() => url.replace("{service}", name),
        None if args.log.kafka_brokers.is_some() => {
            let explain = "DATABASE_URL is not set: which store has the views?";
            return Err(StartError::Setting(explain.to_owned()).into());
        }
        _ => sqlite(&args.data.join(format!("{name}.db"))),
    };
    let sources = services::sources(args.sources.as_deref())?.for_services(&[name]);
    let subscription = sources.subscriptions.into_iter().find(Subscription::hears_events);
    let subscription =
        subscription.ok_or_else(|| StartError::Setting(format!("SOURCES: no KafkaSource has {name} as its sink")))?;
    let platform = Platform::new(log.clone(), url.clone());
    let database = platform.database(&[&query::MIGRATIONS]).await?;
    let swap = match (args.dry_run, args.replace) {
        (true, _) => Swap::Never,
        (false, true) => Swap::Always,
        (false, false) => Swap::IfEqual,
    };
    let it = Rebuild {
        service: name,
        database: &database,
        log,
        hears: subscription.topics,
        group: subscription.group,
        swap,
    };
    let bars = Bars::new(name);
    let outcome = it.run(&bars).await.map_err(|source| RebuildError::Views { service: name.to_owned(), source })?;
    bars.finish();
    tell(name, &url, &outcome);
    let mut holds = outcome.proof.is_none_or(|proof| proof.holds() || args.replace);
    if let (Some(equals), false) = (&args.equals, args.dry_run) {
        holds &= compared(name, &equals.replace("{service}", name), &database).await?.holds();
    }
    database.close().await;
    if holds { Ok(()) } else { Err(RebuildError::Differs { service: name.to_owned(), left: None }) }
}

fn tell(name: &str, url: &str, outcome: &Outcome) {
    let Outcome { events, seconds, locked, proof, swapped } = outcome;
    let rate = *events as f64 / seconds.max(0.001);
    println!("{name}: {events} events folded in {seconds:.1} s ({rate:.0} events/s)");
    if let Some(memory) = demo::peak_memory_mb() {
        println!("{name}: at most {memory:.0} MB of memory");
    }
    match proof {
        Some(proof) => {
            let outcome = if proof.holds() { "equal" } else { "NOT EQUAL" };
            println!("{name}: {outcome} to the live view in {}\n{proof}", without_password(url));
        }
        None => println!("{name}: there is no live view to compare it with"),
    }
    let what = if *swapped { "the rebuilt view is the live one now" } else { "the live view stays" };
    println!("{name}: {what}; it stood still for {:.0} ms", locked.as_secs_f64() * 1000.0);
}

async fn compared(name: &str, url: &str, new: &Database) -> Result<Proof, RebuildError> {
    let failed = |source| RebuildError::Store { setting: format!("--equals {}", without_password(url)), source };
    let old = Database::connect(url).await.map_err(|error| failed(error.into()))?;
    let bars = Bars::new(name);
    let proof = proof::compare(&TABLES, &old, new, &bars).await.map_err(failed)?;
    bars.finish();
    old.close().await;
    let outcome = if proof.holds() { "equal" } else { "NOT EQUAL" };
    println!("{name}: {outcome} to {}\n{proof}", without_password(url));
    Ok(proof)
}
