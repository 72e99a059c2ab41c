//! A store made again from a log as it should be, and from logs that are broken: on SQLite always, on PostgreSQL where
//! `POSTGRES_URL` says so.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that can't go on fails")]

use std::{
    io::Write,
    sync::{Arc, LazyLock},
};

use event_sourcing::{Database, MIGRATIONS, Recorded, Statement, Value};
use eventing::{
    Failure, Identity, Incoming, Origin,
    dead_letters::{self, DeadLetter, State},
    log::{EmbeddedLog, EventLog, Record},
    published,
    rebuild::{self, Figures, RebuildError, Replay, Table, proof},
    to_record,
};
use sqlx::{
    AssertSqlSafe, Connection, SqlStr,
    migrate::{Migration, MigrationType, Migrator},
};

const WHO: Identity = Identity { name: "counter", source: "/counter", topic: "counts" };
const OTHERS: &str = "/tests";

static MIGRATIONS_OF_ITS_OWN: LazyLock<Migrator> = LazyLock::new(|| {
    let table =
        "CREATE TABLE kept (source TEXT NOT NULL, id TEXT NOT NULL, subject TEXT NOT NULL, PRIMARY KEY (source, id))";
    Migrator::with_migrations(vec![migration(100, table)])
});

fn migration(version: i64, sql: &'static str) -> Migration {
    Migration::new(version, "a test's".into(), MigrationType::Simple, SqlStr::from_static(sql), false)
}

/// A service that counts what it is told, and keeps how much that was, and what it has heard of names.
struct Counting;

impl Replay for Counting {
    fn who(&self) -> Identity {
        WHO
    }
    fn migrations(&self) -> Vec<&'static Migrator> {
        vec![&MIGRATIONS_OF_ITS_OWN]
    }
    fn understands(&self, name: &str) -> Option<&'static str> {
        ["test.add", "test.named"].contains(&name).then_some("v1")
    }
    fn projections(&self) -> &'static [Table] {
        &[Table { name: "kept", key: &["source", "id"], columns: &["subject"] }]
    }
    fn keeps_of_own(&self) -> bool {
        true
    }
    fn own_stream(&self, stream_id: &str, events: &[Recorded]) -> Result<Vec<Statement>, Failure> {
        Ok(vec![kept("own", stream_id, &events.len().to_string())])
    }
    fn keeps(&self, name: &str) -> bool {
        name == "test.named"
    }
    fn heard(&self, event: &Incoming) -> Result<Vec<Statement>, Failure> {
        if event.data == "{}" {
            Err(Failure::Never("no name".into()))
        } else {
            Ok(vec![kept("heard", &event.id, &event.data)])
        }
    }
}

fn kept(source: &str, id: &str, subject: &str) -> Statement {
    let sql = "INSERT INTO kept (source, id, subject) VALUES ($1, $2, $3)";
    Statement::new(sql, [source.into(), id.into(), subject.into()])
}

fn event(stream: &str, version: i64, caused_by: &str) -> Recorded {
    Recorded {
        stream_id: stream.into(),
        version,
        id: format!("{stream}-{version}"),
        event_type: "dev.rainstorm.counter.counted.v1".into(),
        time: "2026-11-25T09:00:00.000001Z".into(),
        correlation_id: stream.into(),
        causation_id: caused_by.into(),
        traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into(),
        tracestate: if version == 1 { String::new() } else { "a=1".into() },
        data: format!(r#"{{"by": {version} }}"#),
    }
}

fn told(id: &str, name: &str, data: &str) -> Recorded {
    let event_type = format!("dev.rainstorm.test.{name}.v1");
    Recorded { id: id.into(), event_type, data: data.into(), ..event(id, 1, "somebody") }
}

fn records(source: &str, events: impl IntoIterator<Item = Recorded>) -> Vec<Record> {
    events.into_iter().map(|event| to_record(published(source, &event).unwrap()).unwrap()).collect()
}

struct Setup {
    log: Arc<dyn EventLog>,
    urls: Vec<String>,
    _folder: tempfile::TempDir,
}

/// A log, and empty databases of every kind there is, `each` of them.
async fn setup(each: usize) -> Setup {
    let folder = tempfile::tempdir().unwrap();
    let log = EmbeddedLog::open(&folder.path().join("log"), 3).await.unwrap();
    log.create_topics(&[WHO.topic, "tests"]).await.unwrap();
    let mut urls: Vec<_> =
        (0..each).map(|number| format!("sqlite:{}", folder.path().join(format!("{number}.db")).display())).collect();
    match std::env::var("POSTGRES_URL") {
        Ok(url) => {
            let mut connection = sqlx::PgConnection::connect(&url).await.unwrap();
            for _ in 0..each {
                let name = format!("r{}", uuid::Uuid::now_v7().simple());
                sqlx::raw_sql(AssertSqlSafe(format!("CREATE DATABASE {name}"))).execute(&mut connection).await.unwrap();
                urls.push(format!("{}/{name}", url.rsplit_once('/').unwrap().0));
            }
        }
        Err(_) => {
            assert!(std::env::var("RAINSTORM_REQUIRE_SERVERS").is_err(), "POSTGRES_URL is not set");
            let _ = writeln!(std::io::stderr(), "SKIPPED on PostgreSQL: POSTGRES_URL is not set");
        }
    }
    Setup { log: Arc::new(log), urls, _folder: folder }
}

impl Setup {
    async fn append(&self, source: &str, events: impl IntoIterator<Item = Recorded>) {
        let topic = if source == WHO.source { WHO.topic } else { "tests" };
        self.log.append(topic, records(source, events)).await.unwrap();
    }

    async fn rebuild(&self, url: &str) -> Result<(Database, Figures), RebuildError> {
        let database = rebuild::open_empty(&Counting, url).await?;
        let hears = ["tests".to_owned(), WHO.topic.to_owned()];
        let figures = rebuild::rebuild(&Counting, &self.log, &hears, &database, &()).await?;
        Ok((database, figures))
    }

    /// Why the log can't be taken for the truth, in every database's words.
    async fn refused(&self) -> String {
        let mut reasons = Vec::new();
        for url in &self.urls {
            reasons.push(self.rebuild(url).await.expect_err("a broken log").to_string());
        }
        reasons.dedup();
        assert_eq!(reasons.len(), 1, "{reasons:?}");
        reasons.remove(0)
    }
}

async fn rows(database: &Database, sql: &str, columns: usize) -> Vec<Vec<String>> {
    let rows = database.fetch(sql, []).await.unwrap();
    let mut rows: Vec<Vec<String>> =
        rows.iter().map(|row| (0..columns).map(|it| row.value(it).unwrap().to_string()).collect()).collect();
    rows.sort();
    rows
}

#[tokio::test(flavor = "multi_thread")]
async fn events_memory_and_what_is_kept_beside_them_come_back() {
    let it = setup(1).await;
    let numbers = [("1", "add", "{}"), ("2", "add", "{}"), ("3", "add", "{}"), ("4", "named", r#"{"a":1}"#)];
    let of_others = numbers.map(|(id, name, data)| told(id, name, data));
    it.append(OTHERS, of_others.into_iter().chain([told("5", "named", "{}"), told("6", "unknown", "{}")])).await;
    it.append(WHO.source, [event("a", 1, "1"), event("b", 1, "1"), event("a", 2, "a key"), event("b", 2, "b-1")]).await;
    it.append(WHO.source, [event("a", 3, "2"), event("c", 1, "random"), event("d", 1, "random")]).await;
    // Published twice, as after a crash; and what nobody here has written.
    it.append(WHO.source, [event("a", 2, "a key"), event("a", 3, "2"), event("a", 1, "1")]).await;
    it.log.append(WHO.topic, vec![Record { value: Some(b"garbage".to_vec()), ..Record::default() }]).await.unwrap();
    it.log.append(WHO.topic, records("/elsewhere", [event("e", 7, "1")])).await.unwrap();
    for url in &it.urls {
        let (database, figures) = it.rebuild(url).await.unwrap();
        let expected =
            Figures { events: 7, repeats: 3, strangers: 2, heard: 18, remembered: 3, commands: 2, seconds: 0.0 };
        assert_eq!(Figures { seconds: 0.0, ..figures }, expected);
        let events = "SELECT stream_id, version, id, type, time, correlation_id, causation_id, traceparent, tracestate, data \
                      FROM events WHERE published = 1";
        let stored = rows(&database, events, 10).await;
        let a2 = event("a", 2, "a key");
        let (time, trace) = (a2.time.as_str(), a2.traceparent.as_str());
        let expected = ["a", "2", "a-2", &*a2.event_type, time, "a", "a key", trace, "a=1", r#"{"by": 2 }"#];
        assert_eq!((stored.len(), &stored[1][..]), (7, &expected.map(ToOwned::to_owned)[..]));
        let memory = rows(&database, "SELECT source, id, attempts, done, stream_id FROM inbox", 5).await;
        let expected = [
            [OTHERS, "1", "0", "1", "a b"],
            [OTHERS, "2", "0", "1", "a"],
            [OTHERS, "4", "0", "1", ""],
            ["command", "a key", "0", "1", "a"],
            ["command", "random", "0", "1", "c d"],
        ];
        assert_eq!(memory, expected.map(|row| row.map(ToOwned::to_owned).to_vec()));
        let beside = rows(&database, "SELECT source, id, subject FROM kept", 3).await;
        let expected =
            [["heard", "4", r#"{"a":1}"#], ["own", "a", "3"], ["own", "b", "2"], ["own", "c", "1"], ["own", "d", "1"]];
        assert_eq!(beside, expected.map(|row| row.map(ToOwned::to_owned).to_vec()));
        let error = rebuild::open_empty(&Counting, url).await.unwrap_err().to_string();
        assert!(error.contains("isn't empty") && error.contains("events"), "{error}");
    }
}

/// Puts a letter on its topic, as the service has known it at this second.
async fn tell_of_letter(it: &Setup, of: &Recorded, state: State, second: u64) {
    let event = published(OTHERS, of).unwrap();
    let letter = DeadLetter::failed(event, Origin::default(), "it does not read", 2);
    let time = format!("2026-11-25T09:00:{second:02}.000000Z");
    let letter = DeadLetter { state, time, position: 7, ..letter };
    let topic = dead_letters::topic(WHO.name);
    it.log.create_topics(&[&topic]).await.unwrap();
    it.log.append(&topic, vec![letter.record(WHO.name).unwrap()]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_come_back_as_they_were_last_and_have_no_effect() {
    let it = setup(1).await;
    let named = |id: &str| told(id, "named", r#"{"a":1}"#);
    it.append(OTHERS, ["failed", "parked", "discarded", "redelivered", "healthy"].map(named)).await;
    it.append(WHO.source, [event("a", 1, "redelivered")]).await;
    let told = [
        ("failed", State::Failed, 1),
        ("parked", State::Parked, 3),
        ("parked", State::Redelivered, 2),
        ("discarded", State::Failed, 1),
        ("discarded", State::Discarded, 2),
        ("redelivered", State::Redelivered, 2),
        ("redelivered", State::Failed, 1),
    ];
    for (id, state, second) in told {
        tell_of_letter(&it, &named(id), state, second).await;
        // As from a publisher that died before it knew that the log had it.
        tell_of_letter(&it, &named(id), state, second).await;
    }
    for url in &it.urls {
        let (database, _) = it.rebuild(url).await.unwrap();
        let letters =
            "SELECT source, id, subject, state, reason, attempts, time, position, published FROM dead_letters";
        let row = |id: &str, state: &str, second: u64| {
            let time = format!("2026-11-25T09:00:{second:02}.000000Z");
            [OTHERS, id, id, state, "it does not read", "2", &time, "7", "1"].map(ToOwned::to_owned).to_vec()
        };
        assert_eq!(rows(&database, letters, 9).await, [row("failed", "failed", 1), row("parked", "parked", 3)]);
        let whole = rows(&database, "SELECT event FROM dead_letters WHERE id = 'failed'", 1).await;
        let whole: serde_json::Value = serde_json::from_str(&whole[0][0]).unwrap();
        assert_eq!((&whole["id"], whole.get("deadletterstate")), (&"failed".into(), None));
        let memory = rows(&database, "SELECT source, id, stream_id FROM inbox", 3).await;
        let expected = [[OTHERS, "discarded", ""], [OTHERS, "healthy", ""], [OTHERS, "redelivered", "a"]];
        assert_eq!(memory, expected.map(|row| row.map(ToOwned::to_owned).to_vec()));
        let kept = rows(&database, "SELECT id FROM kept WHERE source = 'heard'", 1).await;
        assert_eq!(kept, [["healthy"], ["redelivered"]]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn more_events_than_a_batch_or_the_memory_of_streams_holds_come_back_in_bounded_pieces() {
    let it = setup(1).await;
    let streams = if it.urls.len() > 1 { 8_000 } else { 12_000 };
    for version in 1..=2 {
        let events =
            (0..streams).map(|number| event(&format!("s{number:06}"), version, &format!("{number}-{version}")));
        it.append(WHO.source, events).await;
    }
    // Old ones again after all the others.
    it.append(WHO.source, (0..10).map(|number| event(&format!("s{number:06}"), 1, &format!("{number}-1")))).await;
    it.append(WHO.source, (0..10).map(|number| event(&format!("s{number:06}"), 3, "last"))).await;
    for url in &it.urls {
        let (database, figures) = it.rebuild(url).await.unwrap();
        assert_eq!((figures.events, figures.repeats, figures.commands), (2 * streams + 10, 10, 2 * streams + 1));
        assert_eq!(rows(&database, "SELECT id FROM kept WHERE source = 'own'", 1).await.len() as u64, streams);
        assert_eq!(rows(&database, "SELECT stream_id FROM inbox WHERE id = 'last'", 1).await[0][0].len(), 79);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_with_a_gap_is_refused_and_the_gap_is_named() {
    let it = setup(1).await;
    it.append(WHO.source, [event("a", 1, "1"), event("b", 1, "1"), event("a", 3, "2")]).await;
    let reason = it.refused().await;
    assert!(reason.contains("stream a of topic counts goes from version 1 to version 3"), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_begins_in_the_middle_of_a_stream_is_refused() {
    let it = setup(1).await;
    it.append(WHO.source, [event("a", 2, "1")]).await;
    let reason = it.refused().await;
    assert!(reason.contains("from version 0 to version 2"), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_with_two_events_of_one_version_is_refused_and_the_version_is_named() {
    for column in ["id", "time", "cause", "trace", "data"] {
        let it = setup(1).await;
        let mut other = event("a", 1, "1");
        match column {
            "id" => other.id = "another".into(),
            "time" => other.time = "2026-11-25T09:00:00.000002Z".into(),
            "cause" => other.causation_id = "2".into(),
            "trace" => other.tracestate = "b=2".into(),
            _ => other.data = r#"{"by":1}"#.into(),
        }
        it.append(WHO.source, [event("a", 1, "1"), event("a", 2, "2"), other]).await;
        let reason = it.refused().await;
        assert!(reason.contains("version 1 of stream a is there twice, with different content"), "{column}: {reason}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_topic_there_is_nothing_to_rebuild_from() {
    let folder = tempfile::tempdir().unwrap();
    let log = EmbeddedLog::open(&folder.path().join("log"), 3).await.unwrap();
    let it = Setup { log: Arc::new(log), ..setup(1).await };
    let reason = it.refused().await;
    assert!(reason.contains("no topic counts"), "{reason}");
}

/// What is done to the old store, and the table and counts that the proof shows: rows, equal, differing, missing, extra,
/// not on the log.
const PLANTED: [(&str, &str, [u64; 6]); 11] = [
    ("UPDATE events SET published = 0", "events", [3, 3, 0, 0, 0, 0]),
    ("UPDATE events SET data = data || ' ' WHERE id = 'a-2'", "events", [3, 2, 1, 0, 0, 0]),
    ("UPDATE events SET tracestate = '' WHERE id = 'a-2'", "events", [3, 2, 1, 0, 0, 0]),
    ("DELETE FROM events WHERE id = 'a-1'", "events", [2, 2, 0, 0, 1, 0]),
    ("UPDATE events SET stream_id = 'z' WHERE id = 'a-2'", "events", [3, 2, 0, 1, 1, 0]),
    ("UPDATE events SET stream_id = 'z', published = 0 WHERE id = 'b-1'", "events", [3, 2, 0, 0, 1, 1]),
    ("UPDATE inbox SET stream_id = 'b' WHERE id = '1'", "inbox", [2, 1, 1, 0, 0, 0]),
    ("UPDATE inbox SET done = 0 WHERE id = '1'", "inbox", [1, 1, 0, 0, 1, 0]),
    ("UPDATE inbox SET attempts = 4", "inbox", [2, 2, 0, 0, 0, 0]),
    ("DELETE FROM inbox WHERE source = 'command'", "inbox", [1, 1, 0, 0, 0, 0]),
    ("UPDATE kept SET subject = '3' WHERE id = 'a'", "kept", [2, 1, 1, 0, 0, 0]),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_proof_finds_every_difference_and_only_those_that_count() {
    let it = setup(2).await;
    it.append(OTHERS, [told("1", "add", "{}")]).await;
    it.append(WHO.source, [event("a", 1, "1"), event("b", 1, "1"), event("a", 2, "a key")]).await;
    for urls in it.urls.chunks(2) {
        let (old, _) = it.rebuild(&urls[0]).await.unwrap();
        let (new, _) = it.rebuild(&urls[1]).await.unwrap();
        assert!(proof::compare(Counting.projections(), &old, &new, &()).await.unwrap().holds());
        for (sql, table, [rows, equal, differing, missing, extra, unpublished]) in PLANTED {
            let saved = save(&old).await;
            change(&old, sql).await;
            let proof = proof::compare(Counting.projections(), &old, &new, &()).await.unwrap();
            let found = proof.tables.iter().find(|it| it.table == table).unwrap();
            let counts = [found.rows, found.equal, found.differing, found.missing, found.extra, found.unpublished];
            assert_eq!(counts, [rows, equal, differing, missing, extra, unpublished], "{sql}: {proof}");
            assert_eq!(proof.holds(), differing + missing + extra == 0, "{sql}: {proof}");
            assert_eq!(proof.differences.len() as u64, differing + missing + extra, "{sql}: {proof}");
            restore(&old, saved).await;
        }
        assert!(proof::compare(Counting.projections(), &old, &new, &()).await.unwrap().holds());
    }
}

const SAVED: [(&str, usize); 3] = [
    (
        "events (stream_id, version, id, type, time, correlation_id, causation_id, traceparent, tracestate, data, published)",
        11,
    ),
    ("inbox (source, id, attempts, done, stream_id)", 5),
    ("kept (source, id, subject)", 3),
];

async fn save(database: &Database) -> Vec<Vec<Vec<Value>>> {
    let mut tables = Vec::new();
    for (table, columns) in SAVED {
        let (name, all) = table.split_once(' ').unwrap();
        let sql = format!("SELECT {} FROM {name}", all.trim_matches(['(', ')']));
        let rows = database.fetch(sql, []).await.unwrap();
        tables.push(rows.iter().map(|row| (0..columns).map(|it| row.value(it).unwrap()).collect()).collect());
    }
    tables
}

async fn restore(database: &Database, tables: Vec<Vec<Vec<Value>>>) {
    let mut write = database.write().await.unwrap();
    for ((table, columns), rows) in SAVED.into_iter().zip(tables) {
        write.execute(format!("DELETE FROM {}", table.split(' ').next().unwrap()), []).await.unwrap();
        for row in rows {
            let values = event_sourcing::placeholders(1, columns);
            write.execute(format!("INSERT INTO {table} VALUES {values}"), row).await.unwrap();
        }
    }
    write.commit().await.unwrap();
}

async fn change(database: &Database, sql: &str) {
    let mut write = database.write().await.unwrap();
    assert!(write.execute(sql, []).await.unwrap() > 0, "{sql}");
    write.commit().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_keep_in_the_same_database_is_left_alone() {
    let it = setup(1).await;
    it.append(WHO.source, [event("a", 1, "1")]).await;
    for url in &it.urls {
        let theirs = Migrator::with_migrations(vec![migration(900, "CREATE TABLE theirs (id TEXT)")]);
        Database::open(url, &[&theirs]).await.unwrap().close().await;
        let (database, _) = it.rebuild(url).await.unwrap();
        assert!(rows(&database, "SELECT id FROM theirs", 1).await.is_empty());
        // As strict as ever where nobody expects somebody else.
        assert!(Database::open(url, &[&MIGRATIONS]).await.is_err());
    }
}
