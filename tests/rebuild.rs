//! A store that is lost is made again from the log alone: each of the five, after a storm with everything that may
//! happen to an order, and the system goes on with it. A view is made again while it rains.
//!
//! `RAINSTORM_REBUILD_ORDERS` says how many orders rain first; for as many as it takes to believe it:
//! `RAINSTORM_REBUILD_ORDERS=20000 tests/servers/with cargo test --workspace --test rebuild it_on_kafka`. With `each_store`
//! instead, and `--release`, for two cores can't take both storms at once without, it is the embedded one as well.

use std::{
    collections::BTreeSet,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use end_to_end::{PATIENCE, SERVICES, Way, World, order, until};
use event_sourcing::{Database, Value as Column};
use serde_json::{Value, json};
use sqlx::Connection;

fn orders() -> u64 {
    let asked = std::env::var("RAINSTORM_REBUILD_ORDERS").ok();
    asked.map_or(300, |orders| orders.parse().expect("RAINSTORM_REBUILD_ORDERS is a number"))
}

#[tokio::test(flavor = "multi_thread")]
async fn each_store_is_rebuilt_and_proved_equal_and_the_system_goes_on_with_it_embedded() {
    each_store_is_rebuilt(Way::Embedded(1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_store_is_rebuilt_and_proved_equal_and_the_system_goes_on_with_it_on_kafka_and_postgres() {
    each_store_is_rebuilt(Way::KafkaAndPostgres(1)).await;
}

async fn each_store_is_rebuilt(way: Way) {
    if !way.is_possible() {
        return;
    }
    let mut world = World::start(way, &[("DELIVERY_PATIENCE", "3s"), ("TICK_EVERY", "500ms")]).await;
    let (completed, keyed) = live_through_everything(&world).await;
    idle(&world).await;
    // A store that is there and in use is left alone.
    let (status, said) = try_rebuild(&world, &["order"]).await;
    let reason = if let Way::Embedded(_) = way { "another demo is running" } else { "DATABASE_URL postgres://" };
    assert!(status == Some(1) && said.contains(reason), "{said}");
    world.kill().await;

    for service in SERVICES {
        let was = lose(&world, service).await;
        let said = rebuild(&world, &[service, "--equals", &was]).await;
        eprintln!("{said}");
        assert!(said.contains(&format!("{service}: equal to ")), "{said}");
        assert!(
            said.lines().any(|line| line.starts_with("dead_letters ") && !line.contains(" 0          0 ")),
            "{said}"
        );
    }

    world.serve_again().await;
    let again = world.place("corner", "tok_ok").await;
    world.order_in(&again, "completed").await;
    world.order_in(&completed, "completed").await;
    assert_eq!(place_once(&world).await, keyed, "the key is remembered");

    // All of history is told again, and nothing follows from it.
    idle(&world).await;
    world.kill().await;
    let before = events(&world).await;
    world.forget_positions().await;
    world.serve_again().await;
    idle(&world).await;
    world.kill().await;
    assert_eq!(events(&world).await, before);
    if let Way::Embedded(_) = way {
        a_planted_difference_is_found(&world).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_is_rebuilt_while_it_rains_and_no_order_ever_vanishes_embedded() {
    a_view_is_rebuilt_while_it_rains(Way::Embedded(1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_is_rebuilt_while_it_rains_and_no_order_ever_vanishes_on_kafka_and_postgres() {
    a_view_is_rebuilt_while_it_rains(Way::KafkaAndPostgres(2)).await;
}

async fn a_view_is_rebuilt_while_it_rains(way: Way) {
    if !way.is_possible() {
        return;
    }
    let world = World::start(way, &[]).await;
    world.seed(100).await;
    let mut storm = vec!["--seed", "12", "--calm", "20", "--calm-for", "1s"];
    storm.extend(["--peak", "60", "--storm-for", "8s", "--cancel", "0.05"]);
    let over = AtomicBool::new(false);
    let raining = async {
        world.storm(&storm).await;
        over.store(true, Ordering::SeqCst);
    };
    let looking = async {
        let mut seen = BTreeSet::new();
        while !over.load(Ordering::SeqCst) {
            let (status, page) = world.get("query", "/orders?limit=500").await;
            let shown = page["orders"].as_array().unwrap_or_else(|| panic!("{status}: {page}"));
            let shown: BTreeSet<String> =
                shown.iter().map(|order| order["order_id"].as_str().expect("an id").to_owned()).collect();
            assert!(seen.is_subset(&shown) || shown.len() == 500, "{:?} vanished", seen.difference(&shown));
            seen.extend(shown);
            if let Some(oldest) = seen.first() {
                let (status, view) = world.get("query", &format!("/orders/{oldest}")).await;
                assert_eq!((status, view["order_id"].as_str()), (200, Some(oldest.as_str())), "{view}");
            }
        }
        assert!(seen.len() > 100, "{} orders", seen.len());
    };
    let rebuilding = async {
        let mut times = 0;
        while !over.load(Ordering::SeqCst) {
            let said = rebuild(&world, &["query"]).await;
            assert!(said.contains("the rebuilt view is the live one now"), "{said}");
            times += 1;
        }
        assert!(times > 1, "it was rebuilt {times} times while it rained");
    };
    tokio::join!(raining, looking, rebuilding);
    idle(&world).await;
    let said = rebuild(&world, &["query", "--dry-run"]).await;
    assert!(said.contains("query: equal to the live view") && !said.contains("newer"), "{said}");
}

/// Orders of every kind. Returns one that was completed, and the answer to one that was sent with a key.
async fn live_through_everything(world: &World) -> (String, Value) {
    world.open_kitchen("corner").await;
    // No driver is on shift, and nobody waits for longer than three seconds.
    let undelivered = world.place("corner", "tok_ok").await;
    world.order_in(&undelivered, "cancelled").await;
    world.seed(200).await;
    world.open_kitchen("corner").await;
    let completed = world.place("corner", "tok_slow").await;
    let keyed = place_once(world).await;

    let peak = (orders() / 100).clamp(100, 200);
    let (peak, storm) = (peak.to_string(), format!("{}s", orders() / peak));
    let (order, query) = (world.url("order").to_owned(), world.url("query").to_owned());
    let mut arguments = vec!["storm", "--json", "--url", &order, "--query-url", &query, "--seed", "11"];
    arguments.extend(["--calm", "20", "--calm-for", "1s", "--peak", &peak, "--storm-for", &storm]);
    arguments.extend(["--cancel", "0.05", "--bad-cards", "0.05"]);
    let (_, said) = world.rainstorm(&arguments).await;
    let summary: Value = said.lines().find_map(|line| serde_json::from_str(line).ok()).expect("a summary");
    assert_eq!((&summary["unfinished"], &summary["failed"]), (&0.into(), &0.into()), "{summary}");
    assert!(summary["accepted"].as_u64() >= Some(orders()) && summary["cancelled"].as_u64() > Some(0), "{summary}");

    put_aside(world).await;
    // Somebody goes home, and somebody is on the way when the store is lost.
    world.shift("driver-0", true).await;
    world.shift("driver-0", false).await;
    world.order_in(&completed, "completed").await;
    world.order_told(&completed, &["payment.charge_owed"]).await;
    (completed, keyed)
}

/// Events that nobody can handle: they wait in the dead letters, or were discarded.
async fn put_aside(world: &World) {
    let tell = async |service: &str, id: &str, about: &str, event_type: &str| {
        let subject = about.parse::<uuid::Uuid>().map_or_else(|_| about.to_owned(), |id| id.to_string());
        let event = json!({
            "specversion": "1.0", "id": id, "source": "/tests", "type": format!("dev.rainstorm.{event_type}"),
            "subject": subject, "datacontenttype": "application/json", "data": {"of": "the future", "n": 1.50},
        });
        let client = reqwest::Client::builder().no_proxy().build().expect("a client");
        let request = client.post(world.door(service)).header("content-type", "application/cloudevents+json");
        let answer = request.body(event.to_string()).send().await.expect("an answer");
        assert!(answer.status().is_success(), "{answer:?}");
    };
    let nobody = "019a0000-0000-7000-8000-00000000dead";
    for service in ["payment", "kitchen", "delivery", "query"] {
        tell(service, "future", nobody, "order.placed.v9").await;
        tell(service, "behind", nobody, "order.placed.v1").await;
    }
    tell("order", "no-menu", "nowhere", "kitchen.menu_published.v1").await;
    tell("order", "menu", "nowhere", "kitchen.menu_published.v9").await;
    tell("query", "never", "nowhere", "kitchen.menu_published.v9").await;
    let url = world.url("order").to_owned();
    for (service, letter) in [("order", "no-menu"), ("query", "never")] {
        let url = if let Way::Embedded(_) = world.way() { vec!["--url", &url] } else { vec![] };
        let discard = [&["dead-letters", "discard", letter, "--service", service, "--yes"][..], &url].concat();
        let (status, said) = on_its_log(world, &discard).await;
        assert_eq!(status, Some(0), "{said}");
    }
    until("both to be discarded", || async {
        let (_, said) = on_its_log(world, &["dead-letters", "list", "--all", "--json"]).await;
        (said.matches("\"discarded\"").count() == 2).then_some(())
    })
    .await;
}

async fn place_once(world: &World) -> Value {
    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    let request = client.post(format!("{}/orders", world.url("order"))).header("Idempotency-Key", "once");
    let response = request.json(&order("corner", "tok_ok")).send().await.expect("an answer");
    assert_eq!(response.status(), 201);
    response.json().await.expect("JSON")
}

/// Returns when everybody has heard everything, however much that is: patience is for whoever doesn't get on.
async fn idle(world: &World) {
    let (mut least, mut since) = (u64::MAX, Instant::now());
    loop {
        let said = on_its_log(world, &["lag"]).await.1;
        let totals = said.lines().filter(|line| line.contains("(all)"));
        let behind: Vec<u64> = totals.filter_map(|line| line.split_whitespace().last()?.parse().ok()).collect();
        let all: u64 = behind.iter().sum();
        if behind.len() == SERVICES.len() && all == 0 {
            return;
        }
        if behind.len() == SERVICES.len() && all < least {
            (least, since) = (all, Instant::now());
        }
        assert!(since.elapsed() < PATIENCE, "nobody gets on: {said}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn on_its_log(world: &World, arguments: &[&str]) -> (Option<i32>, String) {
    let (sources, data) = (world.sources(), world.data());
    let mut arguments = arguments.to_vec();
    match world.way() {
        Way::Embedded(_) => {
            arguments.extend(["--data", data.to_str().expect("UTF-8")]);
            world.rainstorm(&arguments).await
        }
        _ => {
            if arguments[0] != "dead-letters" {
                arguments.extend(["--sources", sources.to_str().expect("UTF-8")]);
            }
            let brokers = std::env::var("KAFKA_BROKERS").expect("asked for by is_possible");
            World::run("rainstorm", &arguments, &[("KAFKA_BROKERS", &brokers)]).await
        }
    }
}

async fn rebuild(world: &World, arguments: &[&str]) -> String {
    let (status, said) = try_rebuild(world, arguments).await;
    assert_eq!(status, Some(0), "{said}");
    said
}

async fn try_rebuild(world: &World, arguments: &[&str]) -> (Option<i32>, String) {
    let url = world.database_url(arguments[0]);
    let mut arguments = [&["rebuild"], arguments].concat();
    if let Way::KafkaAndPostgres(_) = world.way() {
        arguments.extend(["--database-url", &url]);
    }
    on_its_log(world, &arguments).await
}

/// A service's store is lost; returns where a copy of it is.
async fn lose(world: &World, service: &str) -> String {
    let url = world.database_url(service);
    let Some(file) = url.strip_prefix("sqlite:") else {
        let (server, name) = url.rsplit_once('/').expect("a URL with a database");
        let servers = std::env::var("POSTGRES_URL").expect("asked for by is_possible");
        // A killed process's connections end a little later.
        until("nobody to be connected", || async {
            let admin = Database::connect(&servers).await.expect("it answers");
            let sql = "SELECT 1 FROM pg_stat_activity WHERE datname = $1";
            admin.fetch(sql, [name.into()]).await.expect("it answers").is_empty().then_some(())
        })
        .await;
        raw(&servers, &format!("CREATE DATABASE {name}_was TEMPLATE {name}")).await;
        if service == "payment" {
            // The provider's books stand beside payment's tables, and belong to another company.
            raw(&url, "DROP TABLE events, inbox, dead_letters, owed").await;
            raw(&url, "DELETE FROM _sqlx_migrations WHERE version < 200").await;
        } else {
            raw(&servers, &format!("DROP DATABASE {name}")).await;
            raw(&servers, &format!("CREATE DATABASE {name}")).await;
        }
        return format!("{server}/{name}_was");
    };
    // What its process had not written into the file itself belongs to it.
    Database::connect(&url).await.expect("a store").close().await;
    let was = format!("{file}.was");
    std::fs::rename(file, &was).expect("it can be moved");
    format!("sqlite:{was}")
}

async fn raw(url: &str, sql: &str) {
    let mut connection = sqlx::PgConnection::connect(url).await.expect("it answers");
    let done = sqlx::raw_sql(sqlx::AssertSqlSafe(sql.to_owned())).execute(&mut connection).await;
    done.unwrap_or_else(|error| panic!("{sql}: {error}"));
}

/// How many events each store has.
async fn events(world: &World) -> Vec<(&'static str, i64)> {
    let mut counts = Vec::new();
    for service in SERVICES {
        let table = if service == "query" { "timeline" } else { "events" };
        counts.push((service, world.number(service, &format!("SELECT COUNT(*) FROM {table}")).await));
    }
    counts
}

async fn a_planted_difference_is_found(world: &World) {
    let planted = [
        (
            "order",
            "events",
            "UPDATE events SET data = data || ' ' WHERE version = 2 AND stream_id = (SELECT MAX(stream_id) FROM events WHERE version = 2)",
        ),
        ("order", "inbox", "UPDATE inbox SET stream_id = 'another' WHERE id = 'once'"),
        ("order", "menus", "UPDATE menus SET menu = '{}' WHERE kitchen_id = 'corner'"),
        (
            "payment",
            "events",
            "UPDATE events SET published = 0, version = version + 1 WHERE version = 1 AND stream_id = (SELECT MIN(stream_id) FROM events GROUP BY stream_id HAVING COUNT(*) = 1)",
        ),
        ("payment", "owed", "INSERT INTO owed (order_id) VALUES ('nobody')"),
        (
            "kitchen",
            "inbox",
            "UPDATE inbox SET stream_id = stream_id || ' corner' WHERE id = (SELECT MIN(id) FROM inbox WHERE done = 1)",
        ),
        (
            "kitchen",
            "inbox",
            "INSERT INTO inbox (source, id, attempts, done, stream_id) VALUES ('/orders', 'never', 1, 1, '')",
        ),
        ("delivery", "waiting", "INSERT INTO waiting (order_id, since) VALUES ('nobody', '2026')"),
        ("delivery", "drivers", "DELETE FROM drivers WHERE driver_id = 'driver-0'"),
        ("delivery", "drivers", "UPDATE drivers SET free = 1 - free WHERE driver_id = 'driver-0'"),
        ("delivery", "events", "DELETE FROM events WHERE version = 1 AND stream_id = 'driver-0'"),
    ];
    for (service, table, sql) in planted {
        let url = world.database_url(service);
        let file = url.strip_prefix("sqlite:").expect("a file");
        Database::connect(&url).await.expect("a store").close().await;
        let copy = format!("{file}.planted");
        std::fs::copy(file, &copy).expect("a copy");
        plant(&format!("sqlite:{copy}"), sql).await;
        let said = try_rebuild(world, &[service, "--dry-run", "--equals", &format!("sqlite:{copy}")]).await;
        let is_found = said.1.lines().any(|line| {
            let columns: Vec<&str> = line.split_whitespace().collect();
            columns.first() == Some(&table) && columns.get(3..6).is_some_and(|counts| counts.contains(&"1"))
        });
        assert!(said.0 == Some(1) && is_found && said.1.contains("NOT EQUAL"), "{table}, {sql}: {}", said.1);
        assert!(!Path::new(&format!("{file}.rebuilt.db")).exists());
    }
    rebuild(world, &["order", "--dry-run"]).await;

    let views = [
        ("orders", "UPDATE orders SET customer_id = 'eve' WHERE order_id = (SELECT MAX(order_id) FROM orders)"),
        ("orders", "DELETE FROM orders WHERE order_id = (SELECT MIN(order_id) FROM orders)"),
        ("kitchens", "UPDATE kitchens SET view = REPLACE(view, 'Soup', 'Stew') WHERE kitchen_id = 'corner'"),
        ("drivers", "INSERT INTO drivers (driver_id, revision, view) VALUES ('nobody', 1, '{}')"),
        ("timeline", "UPDATE timeline SET causation_id = '' WHERE id = (SELECT MAX(id) FROM timeline)"),
    ];
    for (table, sql) in views {
        plant(&world.database_url("query"), sql).await;
        let (status, said) = try_rebuild(world, &["query"]).await;
        let first = said.lines().find(|line| line.starts_with(&format!("  {table} ")));
        assert!(status == Some(1) && first.is_some() && said.contains("the live view stays"), "{table}: {said}");
        rebuild(world, &["query", "--replace"]).await;
        rebuild(world, &["query", "--dry-run"]).await;
    }
}

async fn plant(url: &str, sql: &str) {
    let database = Database::connect(url).await.expect("a store");
    let mut write = database.write().await.expect("a transaction");
    let changed = write.execute(sql, Vec::<Column>::new()).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    assert_eq!(changed, 1, "{sql}");
    write.commit().await.expect("it is kept");
    database.close().await;
}
