//! What must hold after every fault, looked at from outside: in the views, on the log, in the stores and in the
//! payment provider's books.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use end_to_end::{PATIENCE, PROVIDER, SERVICES, Way, World, until};
use serde_json::Value;

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Returns when nobody has anything left to do: no group is behind, no event unpublished, none begun and not finished,
/// nothing owed.
pub async fn nothing_is_stuck(world: &World) {
    let since = Instant::now();
    loop {
        let left = left(world).await;
        if left.is_empty() {
            return;
        }
        assert!(since.elapsed() < PATIENCE, "{left:?} for {PATIENCE:?}");
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// What somebody has still to do.
pub async fn left(world: &World) -> Vec<String> {
    let left = to_do(world).await;
    if left.is_empty() { lags(world).await } else { left }
}

/// What the stores still have to do: `kitchen has 3 unpublished events` …
async fn to_do(world: &World) -> Vec<String> {
    let mut left = Vec::new();
    for service in SERVICES {
        let mut questions = vec![
            ("unpublished events", "SELECT COUNT(*) FROM events WHERE published = 0"),
            ("events begun and not finished", "SELECT COUNT(*) FROM inbox WHERE done = 0"),
            ("dead letters that are not on the log", "SELECT COUNT(*) FROM dead_letters WHERE published = 0"),
        ];
        if service == "payment" {
            questions.push(("payments owed", "SELECT COUNT(*) FROM owed"));
        }
        for (what, sql) in questions {
            let count = world.number(service, sql).await;
            if count > 0 {
                left.push(format!("{service} has {count} {what}"));
            }
        }
    }
    left
}

/// Which groups have not yet heard of everything: `kitchen is behind by 12` …
async fn lags(world: &World) -> Vec<String> {
    let sources = world.sources();
    let (status, said) = match world.way() {
        Way::Embedded(_) => world.rainstorm_on_its_data(&["lag"]).await,
        _ => {
            let settings = [("KAFKA_BROKERS", &*brokers()), ("SOURCES", sources.to_str().expect("UTF-8"))];
            World::run("rainstorm", &["lag"], &settings).await
        }
    };
    let total = |line: &str| {
        let (service, rest) = line.split_once(' ')?;
        let lag = rest.trim_start().strip_prefix("(all)")?.trim().parse::<u64>().ok()?;
        Some((service.to_owned(), lag))
    };
    let totals: Vec<_> = said.lines().filter_map(total).collect();
    if status != Some(0) || totals.len() != SERVICES.len() {
        return vec![format!("rainstorm lag: {said}")];
    }
    let behind = totals.into_iter().filter(|(_, lag)| *lag > 0);
    behind.map(|(service, lag)| format!("{service} is behind by {lag}")).collect()
}

/// Proves, once nothing is stuck, with `rainstorm audit` and from the views: the orders in the files of the folder
/// `accepted` have ended, and every promise was kept. Returns the orders as the query service lists them.
pub async fn nothing_was_lost(world: &World, accepted: &Path) -> Vec<Value> {
    let mut ids = String::new();
    for file in std::fs::read_dir(accepted).expect("a folder") {
        ids += &std::fs::read_to_string(file.expect("a file").path()).expect("ids");
    }
    let all = accepted.join("all");
    std::fs::write(&all, &ids).expect("it can be written");
    let arguments = ["audit", "--accepted", all.to_str().expect("UTF-8")];
    let (status, said) = match world.way() {
        Way::Embedded(_) => world.rainstorm_on_its_data(&arguments).await,
        _ => {
            let (stores, provider) = (world.database_url("{service}"), world.database_url(PROVIDER));
            let stores = [("DATABASE_URL", stores.as_str()), ("PROVIDER_DATABASE_URL", &provider)];
            World::run("rainstorm", &arguments, &[&stores[..], &[("KAFKA_BROKERS", &brokers())]].concat()).await
        }
    };
    assert_eq!(status, Some(0), "{said}");

    let orders = orders(world).await;
    for id in ids.lines() {
        let order = orders.iter().find(|order| order["order_id"] == id);
        let ended = order.is_some_and(|order| order["ended_at"].is_string());
        assert!(ended, "order {id} was accepted, and has not ended: {order:#?}");
    }
    orders
}

/// Returns when every order that the order service has placed has reached the payment service.
pub async fn every_order_is_paid(world: &World) {
    let placed = "SELECT COUNT(*) FROM events WHERE type = 'dev.rainstorm.order.placed.v1'";
    let asked = "SELECT COUNT(DISTINCT stream_id) FROM events";
    until("every order to be paid or declined", || async {
        (world.number("payment", asked).await == world.number("order", placed).await).then_some(())
    })
    .await;
}

/// Returns when the order service has ended every order that it has placed.
pub async fn every_order_has_ended(world: &World) {
    let placed = "SELECT COUNT(*) FROM events WHERE type = 'dev.rainstorm.order.placed.v1'";
    let ended = "SELECT COUNT(*) FROM events \
                 WHERE type IN ('dev.rainstorm.order.completed.v1', 'dev.rainstorm.order.cancelled.v1')";
    until("every order to end", || async {
        (world.number("order", placed).await == world.number("order", ended).await).then_some(())
    })
    .await;
}

/// Proves that no service has given anything up.
pub async fn nothing_was_given_up(world: &World) {
    for service in SERVICES {
        let letters = world.number(service, "SELECT COUNT(*) FROM dead_letters").await;
        assert_eq!(letters, 0, "{service} has dead letters");
    }
}

fn brokers() -> String {
    std::env::var("KAFKA_BROKERS").expect("asked for by is_possible")
}

async fn orders(world: &World) -> Vec<Value> {
    let (mut orders, mut cursor) = (Vec::new(), String::new());
    loop {
        let (status, mut page) = world.get("query", &format!("/orders?limit=500{cursor}")).await;
        assert_eq!(status, 200, "{page}");
        orders.append(page["orders"].as_array_mut().expect("orders"));
        match page["cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return orders,
        }
    }
}
