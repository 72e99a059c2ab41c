//! What must hold after every fault, looked at from outside: in the views, on the log, in the stores and in the
//! payment provider's books.

use std::time::{Duration, Instant};

use end_to_end::{PATIENCE, PROVIDER, SERVICES, World};
use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection, PgConnection};

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Returns when nobody has anything left to do: no group is behind, no event unpublished, none begun and not finished,
/// nothing owed.
pub async fn nothing_is_stuck(world: &World) {
    let since = Instant::now();
    loop {
        let mut left = to_do(world).await;
        if left.is_empty() {
            left = lags(world).await;
        }
        if left.is_empty() {
            return;
        }
        assert!(since.elapsed() < PATIENCE, "{left:?} for {PATIENCE:?}");
        tokio::time::sleep(LOOK_EVERY).await;
    }
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
            let count = number(world, service, sql).await;
            if count > 0 {
                left.push(format!("{service} has {count} {what}"));
            }
        }
    }
    left
}

/// Which groups are behind: `kitchen is behind by 12` …
async fn lags(world: &World) -> Vec<String> {
    let brokers = std::env::var("KAFKA_BROKERS").expect("the scenarios run on Kafka");
    let sources = world.sources();
    let settings = [("KAFKA_BROKERS", brokers.as_str()), ("SOURCES", sources.to_str().expect("UTF-8"))];
    let (status, said) = World::run("rainstorm", &["lag"], &settings).await;
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

/// Proves, once nothing is stuck, that `accepted` orders have ended, that the money is where it belongs, and that
/// nothing was given up. Returns the orders as the query service lists them.
pub async fn nothing_was_lost(world: &World, accepted: usize) -> Vec<Value> {
    let orders = orders(world).await;
    assert!(orders.len() >= accepted, "{accepted} orders were accepted, {} are known", orders.len());
    let under_way = |order: &&Value| !["completed", "cancelled"].contains(&order["status"].as_str().unwrap_or(""));
    let unfinished: Vec<_> = orders.iter().filter(under_way).collect();
    assert!(unfinished.is_empty(), "{unfinished:#?}");

    // Captured less refunded, by the provider's own books, is what was eaten.
    let completed = orders.iter().filter(|order| order["status"] == "completed");
    let eaten: i64 = completed.map(|order| order["total"]["amount"].as_i64().expect("a total")).sum();
    let kept = "SELECT COALESCE(SUM(CASE outcome WHEN 'paid' THEN amount WHEN 'refunded' THEN -amount ELSE 0 END), 0)\
                ::bigint FROM provider_ledger";
    assert_eq!(number(world, PROVIDER, kept).await, eaten, "what the provider took and kept is not what was eaten");
    orders
}

/// Proves that no service has given anything up.
pub async fn nothing_was_given_up(world: &World) {
    for service in SERVICES {
        let letters = number(world, service, "SELECT COUNT(*) FROM dead_letters").await;
        assert_eq!(letters, 0, "{service} has dead letters");
    }
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

/// The one number that a database answers.
pub async fn number(world: &World, database: &str, sql: &str) -> i64 {
    let mut connection = PgConnection::connect(&world.database_url(database)).await.expect("PostgreSQL answers");
    let found = sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(&mut connection).await;
    found.unwrap_or_else(|error| panic!("{database}: {sql}: {error}"))
}
