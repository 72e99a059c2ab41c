//! PostgreSQL: how it is connected to, and who waits for whom when it is written to.

use std::time::Duration;

use async_trait::async_trait;
use sqlx::{
    AssertSqlSafe, Connection, Executor, PgPool, Postgres,
    migrate::{MigrateError, Migrator},
    postgres::{PgArguments, PgConnectOptions, PgPoolOptions},
    query::Query,
};

use super::{Backend, Index, PublishingLock, Row, StoreError, Transaction, Value};
use crate::sqlite::PREPARED;

/// Connections that one process keeps to one database, at most.
const CONNECTIONS: u32 = 5;
const RELAXED_CONNECTIONS: u32 = 3;
/// The same for whoever only looks at tables that others keep: it asks one thing at a time.
const LOOKING_CONNECTIONS: u32 = 2;

/// A connection that nobody has used for so long is asked whether it still works. Asking each time would be a round trip
/// for every statement.
const DOUBTFUL: Duration = Duration::from_secs(1);

/// A pool of connections to one database.
#[derive(Debug)]
pub(super) struct Server {
    pool: PgPool,
    /// Connections whose commits don't wait for the disk: see [`super::Database::write_soon`].
    relaxed: PgPool,
}

impl Server {
    /// Connects to `url`; `looking`: to tables that others keep.
    pub async fn connect(url: &str, looking: bool) -> Result<Self, StoreError> {
        let most = if looking { LOOKING_CONNECTIONS } else { CONNECTIONS };
        let options = url.parse::<PgConnectOptions>()?.statement_cache_capacity(PREPARED);
        let pool = connections(true, most).connect_with(options.clone()).await?;
        let relaxed = connections(false, RELAXED_CONNECTIONS).connect_lazy_with(options);
        Ok(Self { pool, relaxed })
    }

    /// PostgreSQL's own lock serializes instances.
    pub async fn migrate(&self, migrator: &Migrator) -> Result<(), MigrateError> {
        migrator.run(&self.pool).await
    }
}

#[async_trait]
impl Backend for Server {
    fn system(&self) -> &'static str {
        "postgresql"
    }

    async fn fetch(&self, sql: String, values: Vec<Value>) -> Result<Vec<Row>, sqlx::Error> {
        let rows = bind(sql, values).fetch_all(&self.pool).await?;
        Ok(rows.into_iter().map(Row::from_server).collect())
    }

    async fn begin(&self, durable: bool) -> Result<Box<dyn Transaction>, sqlx::Error> {
        let pool = if durable { &self.pool } else { &self.relaxed };
        Ok(Box::new(OnServer { tx: pool.begin().await? }))
    }

    async fn filled(&self, table: &str) -> Result<(), sqlx::Error> {
        bind(format!("ANALYZE {table}"), Vec::new()).execute(&self.pool).await.map(|_| ())
    }

    async fn lock_publishing(&self, streams: &[String]) -> Result<PublishingLock, sqlx::Error> {
        let mut tx = self.relaxed.begin().await?;
        sqlx::query(
            "SELECT pg_advisory_xact_lock(key)::text FROM (SELECT DISTINCT hashtextextended(value, 1) AS key \
             FROM json_array_elements_text($1::json) ORDER BY 1) AS keys",
        )
        .bind(serde_json::Value::from(streams).to_string())
        .fetch_all(&mut *tx)
        .await?;
        Ok(PublishingLock { transaction: Some(Box::new(OnServer { tx })), turn: None })
    }

    async fn close(&self) {
        self.pool.close().await;
        self.relaxed.close().await;
    }
}

struct OnServer {
    tx: sqlx::Transaction<'static, Postgres>,
}

#[async_trait]
impl Transaction for OnServer {
    async fn fetch(&mut self, sql: String, values: Vec<Value>) -> Result<Vec<Row>, sqlx::Error> {
        let rows = bind(sql, values).fetch_all(&mut *self.tx).await?;
        Ok(rows.into_iter().map(Row::from_server).collect())
    }

    async fn execute(&mut self, sql: String, values: Vec<Value>) -> Result<u64, sqlx::Error> {
        Ok(bind(sql, values).execute(&mut *self.tx).await?.rows_affected())
    }

    async fn claim(&mut self, tables: &[&str]) -> Result<(), sqlx::Error> {
        (&mut *self.tx).execute("SET LOCAL statement_timeout = 0").await?;
        (&mut *self.tx).execute("SET LOCAL idle_in_transaction_session_timeout = 0").await?;
        for table in tables {
            self.execute(format!("LOCK TABLE {table} IN EXCLUSIVE MODE"), Vec::new()).await?;
        }
        Ok(())
    }

    async fn replace(&mut self, old: &str, new: &str, indexes: &[Index]) -> Result<(), sqlx::Error> {
        let table = [
            format!("DROP TABLE {old}"),
            format!("ALTER TABLE {new} RENAME TO {old}"),
            format!("ALTER INDEX {new}_pkey RENAME TO {old}_pkey"),
        ];
        let indexes = indexes.iter().map(|Index { new, name, .. }| format!("ALTER INDEX {new} RENAME TO {name}"));
        for statement in table.into_iter().chain(indexes) {
            self.execute(statement, Vec::new()).await?;
        }
        Ok(())
    }

    async fn commit(self: Box<Self>) -> Result<(), sqlx::Error> {
        self.tx.commit().await
    }
}

/// A query with its values bound in order.
fn bind(sql: String, values: Vec<Value>) -> Query<'static, Postgres, PgArguments> {
    // Every statement is written in this project; what comes from outside is only ever a bound value.
    values.into_iter().fold(sqlx::query(AssertSqlSafe(sql)), |query, value| match value {
        Value::Text(text) => query.bind(text),
        Value::Int(number) => query.bind(number),
    })
}

fn connections(durable: bool, most: u32) -> PgPoolOptions {
    PgPoolOptions::new()
        .max_connections(most)
        .acquire_timeout(Duration::from_secs(5))
        .test_before_acquire(false)
        .before_acquire(|connection, so_far| {
            Box::pin(async move { Ok(so_far.idle_for < DOUBTFUL || connection.ping().await.is_ok()) })
        })
        .after_connect(move |connection, _| {
            Box::pin(async move {
                let session = "SET idle_in_transaction_session_timeout = '15s'; SET statement_timeout = '15s'";
                connection.execute(session).await?;
                if !durable {
                    connection.execute("SET synchronous_commit = off").await?;
                }
                Ok(())
            })
        })
}
