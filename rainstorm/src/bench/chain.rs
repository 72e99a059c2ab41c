//! The rival: the same order as a chain of synchronous HTTP calls between the same services. Order takes it and asks
//! payment, kitchen and delivery, one after the other, each behind a port of its own; the customer is answered when the
//! food is there. Deciders, event store (with its group commit), server, cook, driver and payment provider are those of
//! the services themselves, and it is spared what a chain doesn't need: no log, no outbox, no view.
//!
//! It is written as one would write it with care: connections are kept, every call is given up on after two seconds and
//! made again up to twice (`calls`), and is found done or under way when it is made again (`services`). Who is given
//! up on gets 503, and what was done for him is undone behind his back: the order cancelled, its ticket cancelled, its
//! money given back. `compare` sends the same storm to both.

mod calls;
mod compare;
mod crowd;
mod services;

use std::net::Ipv4Addr;

use axum::Router;
use eventing::StartError;
use runtime::{
    Stop,
    server::{Limits, serve},
};
use tokio::{net::TcpListener, task::JoinSet};

pub use compare::compare;

#[derive(Debug, clap::Args)]
pub struct ChainArgs {
    /// Each service's own database, with `{service}` where its name belongs.
    #[arg(long, env = "DATABASE_URL", value_name = "URL")]
    database_url: String,
    /// Cooks in the kitchen; each cooks one order at a time.
    #[arg(long, default_value_t = 8)]
    cooks: usize,
    #[command(flatten)]
    payment: payment::Settings,
    #[command(flatten)]
    kitchen: kitchen::Settings,
    #[command(flatten)]
    delivery: delivery::Settings,
}

/// Serves the chain until SIGTERM or Ctrl-C: what people ask of any service at the port it prints.
///
/// # Errors
/// If a database or a port can't be had.
pub async fn chain(args: ChainArgs) -> Result<(), StartError> {
    let stop = Stop::on_signal();
    let (port, serving) = start(&args, &stop).await?;
    eprintln!("listening on port {port}");
    serving.join_all().await;
    Ok(())
}

/// The four services, each behind a port of its own; order's is told.
async fn start(args: &ChainArgs, stop: &Stop) -> Result<(u16, JoinSet<()>), StartError> {
    let mut serving = JoinSet::new();
    let payments = listen(services::payment(args).await?, stop, &mut serving).await?;
    let (tickets, kitchen) = services::kitchen(args).await?;
    let tickets = listen(tickets, stop, &mut serving).await?;
    let (deliveries, fleet) = services::delivery(args).await?;
    let deliveries = listen(deliveries, stop, &mut serving).await?;
    let url = |port: u16, what: &str| format!("http://127.0.0.1:{port}/{what}");
    let steps = [url(payments, "payments"), url(tickets, "tickets"), url(deliveries, "deliveries")];
    let orders = services::order(args, steps, kitchen).await?.merge(fleet);
    Ok((listen(orders, stop, &mut serving).await?, serving))
}

async fn listen(router: Router, stop: &Stop, serving: &mut JoinSet<()>) -> Result<u16, StartError> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
    let listener = listener.map_err(|source| StartError::Listen { port: 0, source })?;
    let port = listener.local_addr()?.port();
    serving.spawn(serve(listener, router, stop.clone(), Limits::of_this_system(), async {}));
    Ok(port)
}

#[cfg(test)]
mod tests {
    use event_sourcing::Database;
    use serde_json::{Value, json};

    use super::*;
    use crate::seed;

    async fn numbers(folder: &std::path::Path, service: &str, sql: &str) -> Vec<i64> {
        let database = Database::connect(&format!("sqlite:{}/{service}.db", folder.display())).await.unwrap();
        let rows = database.fetch(sql, []).await.unwrap();
        rows.iter().map(|row| row.int(0).unwrap()).collect()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_order_goes_through_the_chain_and_is_charged_once_however_often_payment_is_asked() {
        #[derive(clap::Parser)]
        struct Alone {
            #[command(flatten)]
            args: ChainArgs,
        }
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}/{{service}}.db", folder.path().display());
        // This provider answers after two seconds: the first two calls of payment end before it has.
        let said = ["test", "--database-url", &url, "--provider-timeout", "1500ms"];
        let Alone { args } = <Alone as clap::Parser>::parse_from(said);
        let stop = Stop::default();
        let (port, serving) = start(&args, &stop).await.unwrap();
        let url = format!("http://127.0.0.1:{port}");
        seed::open_town(&url, &url, 2).await.unwrap();
        let order = json!({
            "customer_id": "ada", "kitchen_id": "luigis", "items": [{"item_id": "margherita", "quantity": 2}],
            "address": {"street": "1 Rain Road", "city": "Cloudville", "postal_code": "12345"},
            "payment_token": "tok_slow",
        });
        let answer = eventing::http::client().build().unwrap().post(format!("{url}/orders")).json(&order).send().await;
        let answer = answer.unwrap();
        assert_eq!(answer.status().as_u16(), 201);
        assert_eq!(answer.json::<Value>().await.unwrap()["status"], "completed");
        stop.now();
        serving.join_all().await;

        let events = |name: &str| format!("SELECT COUNT(*) FROM events WHERE type LIKE 'dev.rainstorm.{name}.v1'");
        for (service, name, times) in [
            ("payment", "payment.charge_owed", 1),
            ("payment", "payment.confirmed", 1),
            ("kitchen", "kitchen.order_packed", 1),
            ("delivery", "delivery.delivered", 1),
            ("delivery", "delivery.driver_released", 1),
            ("order", "order.completed", 1),
        ] {
            assert_eq!(numbers(folder.path(), service, &events(name)).await, [times], "{name}");
        }
        let ledger = "SELECT amount FROM provider_ledger WHERE outcome = 'paid'";
        assert_eq!(numbers(folder.path(), "payment", ledger).await, [1900]);
    }
}
