//! The event store on a real database: SQLite always, PostgreSQL where `POSTGRES_URL` says so.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that can't go on fails")]

use std::io::Write;

use event_sourcing::{
    Cause, Database, Decider, DomainEvent, HandleError, MIGRATIONS, Statement, Store, StoreError, Stream, TraceContext,
    Unit,
};
use serde::{Deserialize, Serialize};
use sqlx::{AssertSqlSafe, Connection};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", content = "data")]
enum Counted {
    #[serde(rename = "dev.rainstorm.counter.counted.v1")]
    Counted {},
}
impl DomainEvent for Counted {}

#[derive(Debug, Clone, Default, PartialEq)]
struct Counter(u32);

#[derive(Debug, PartialEq, thiserror::Error)]
#[error("it counts to three only")]
struct Full;

impl Decider for Counter {
    type Event = Counted;
    type Command = ();
    type Rejection = Full;
    fn evolve(self, Counted::Counted {}: Counted) -> Self {
        Self(self.0 + 1)
    }
    fn decide(&self, (): ()) -> Result<Vec<Counted>, Full> {
        if self.0 < 3 { Ok(vec![Counted::Counted {}]) } else { Err(Full) }
    }
}

async fn on_every_database<F: Future<Output = ()>>(case: impl Fn(String) -> F) {
    let folder = tempfile::tempdir().unwrap();
    case(format!("sqlite:{}", folder.path().join("store.db").display())).await;
    let Ok(url) = std::env::var("POSTGRES_URL") else {
        assert!(std::env::var("RAINSTORM_REQUIRE_SERVERS").is_err(), "POSTGRES_URL is not set");
        let _ = writeln!(std::io::stderr(), "SKIPPED on PostgreSQL: POSTGRES_URL is not set");
        return;
    };
    let name = format!("s{}", uuid::Uuid::now_v7().simple());
    let mut connection = sqlx::PgConnection::connect(&url).await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(format!("CREATE DATABASE {name}"))).execute(&mut connection).await.unwrap();
    case(format!("{}/{name}", url.rsplit_once('/').unwrap().0)).await;
}

async fn open(url: &str) -> Store {
    Store::new(Database::open(url, &[&MIGRATIONS]).await.unwrap())
}

fn cause(key: Option<&str>) -> Cause {
    Cause::command(key, TraceContext::new())
}

/// One more event for a stream that is at `version`.
fn unit(stream: &str, version: i64, key: Option<&str>) -> Unit {
    let mut unit = Unit::default();
    let cause = cause(key);
    let mut stream = Stream::<Counter>::resume(stream.to_owned(), version, Counter(0));
    stream.execute((), &cause, jiff::Timestamp::now(), &mut unit).unwrap();
    unit.done = cause.remembered.then_some((cause.source, cause.id, stream.id));
    unit
}

async fn count(store: &Store, stream: &str) -> u32 {
    store.load::<Counter>(stream).await.unwrap().state.0
}

#[tokio::test(flavor = "multi_thread")]
async fn an_append_with_the_wrong_expected_version_changes_nothing() {
    on_every_database(|url| async move {
        let store = open(&url).await;
        store.commit(unit("a", 0, None)).await.unwrap();
        for wrong in [0, 2] {
            assert!(matches!(store.commit(unit("a", wrong, None)).await, Err(StoreError::Conflict)), "{wrong}");
        }
        assert_eq!(count(&store, "a").await, 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn units_that_share_a_transaction_fail_alone() {
    on_every_database(|url| async move {
        // Two stores as two processes have them: what one has just written, the other's group finds out when it writes.
        let stores = [open(&url).await, open(&url).await];
        let units = (0..200).map(|number| {
            let store = stores[number % 2].clone();
            // Every stream is wanted twice, from both sides: one of the two must lose, and nobody else.
            tokio::spawn(async move { store.commit(unit(&format!("s{}", number / 2), 0, None)).await })
        });
        let outcomes: Vec<_> = futures::future::join_all(units).await.into_iter().map(Result::unwrap).collect();
        for (number, pair) in outcomes.chunks(2).enumerate() {
            assert_eq!(pair.iter().filter(|outcome| outcome.is_ok()).count(), 1, "s{number}: {pair:?}");
            assert_eq!(count(&stores[0], &format!("s{number}")).await, 1);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cause_that_is_remembered_has_its_effect_once() {
    on_every_database(|url| async move {
        let stores = [open(&url).await, open(&url).await];
        let units = (0..40).map(|number| {
            let store = stores[number % 2].clone();
            tokio::spawn(async move { store.commit(unit(&format!("s{number}"), 0, Some("key"))).await })
        });
        let outcomes: Vec<_> = futures::future::join_all(units).await.into_iter().map(Result::unwrap).collect();
        assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1, "{outcomes:?}");
        let winner = stores[0].begun_by(&cause(Some("key"))).await.unwrap().unwrap();
        assert_eq!(count(&stores[1], &winner).await, 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_is_decided_again_when_somebody_was_faster_and_a_rejection_is_the_last_word() {
    on_every_database(|url| async move {
        let store = open(&url).await;
        let commands = (0..20).map(|_| {
            let store = store.clone();
            tokio::spawn(async move { store.handle::<Counter>(&cause(None), "a", || (), |_| vec![]).await })
        });
        let outcomes: Vec<_> = futures::future::join_all(commands).await.into_iter().map(Result::unwrap).collect();
        assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 3);
        assert!(outcomes.iter().all(|it| it.is_ok() || matches!(it, Err(HandleError::Rejected(Full)))));
        assert_eq!(count(&store, "a").await, 3);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_projection_is_kept_with_its_events_or_not_at_all() {
    on_every_database(|url| async move {
        let store = open(&url).await;
        let note = || {
            let sql = "INSERT INTO inbox (source, id, attempts, done, stream_id) VALUES ($1, $2, $3, 1, '')";
            Statement::new(sql, ["test".into(), "note".into(), 0.into()])
        };
        store.commit(unit("a", 0, None)).await.unwrap();
        let late = Unit { projections: vec![note()], ..unit("a", 0, None) };
        assert!(matches!(store.commit(late).await, Err(StoreError::Conflict)));
        let notes = async || store.database().fetch("SELECT COUNT(*) FROM inbox", []).await.unwrap()[0].int(0).unwrap();
        assert_eq!(notes().await, 0);
        store.commit(Unit { projections: vec![note()], ..unit("a", 1, None) }).await.unwrap();
        assert_eq!((notes().await, count(&store, "a").await), (1, 2));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_unpublished_is_listed_in_order_until_it_is_marked() {
    on_every_database(|url| async move {
        let store = open(&url).await;
        for version in 0..3 {
            store.commit(unit("a", version, None)).await.unwrap();
            store.commit(unit("b", version, None)).await.unwrap();
        }
        let lock = store.database().lock_publishing(&["a".to_owned()]).await.unwrap();
        let events = store.unpublished(Some(vec!["a".to_owned()]), 100).await.unwrap();
        assert_eq!(events.iter().map(|event| event.version).collect::<Vec<_>>(), [1, 2, 3]);
        store.mark_published(lock, &events[..2]).await.unwrap();
        let left = store.unpublished(None, 100).await.unwrap();
        let left: Vec<_> = left.iter().map(|event| (event.stream_id.as_str(), event.version)).collect();
        assert_eq!(left, [("a", 3), ("b", 1), ("b", 2), ("b", 3)]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn several_instances_may_prepare_the_tables_at_once() {
    on_every_database(|url| async move {
        let opens = (0..4).map(|_| {
            let url = url.clone();
            tokio::spawn(async move { Database::open(&url, &[&MIGRATIONS]).await.map(|_| ()) })
        });
        for opened in futures::future::join_all(opens).await {
            opened.unwrap().unwrap();
        }
    })
    .await;
}
