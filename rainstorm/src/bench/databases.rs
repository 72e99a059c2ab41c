//! Databases on a server that are there only while something is measured.

use sqlx::{AssertSqlSafe, Connection, PgConnection};

use super::BenchError;

pub struct Databases {
    postgres: String,
    /// Of this run, so that two don't meet.
    mark: String,
    names: Vec<&'static str>,
}

impl Databases {
    /// Creates empty ones with these names.
    ///
    /// # Errors
    /// If the server doesn't want to.
    pub async fn create(postgres: &str, names: Vec<&'static str>) -> Result<Self, BenchError> {
        let mark = format!("bench_{}", uuid::Uuid::now_v7().simple());
        for name in &names {
            execute(postgres, format!("CREATE DATABASE {mark}_{name}")).await?;
        }
        Ok(Self { postgres: postgres.to_owned(), mark, names })
    }

    /// Where one of them is.
    pub fn url(&self, name: &str) -> String {
        let base = self.postgres.rsplit_once('/').map_or(self.postgres.as_str(), |(base, _)| base);
        format!("{base}/{}_{name}", self.mark)
    }

    /// Drops them.
    ///
    /// # Errors
    /// If the server doesn't want to.
    pub async fn drop(self) -> Result<(), BenchError> {
        for name in &self.names {
            execute(&self.postgres, format!("DROP DATABASE {}_{name} WITH (FORCE)", self.mark)).await?;
        }
        Ok(())
    }
}

async fn execute(url: &str, sql: String) -> Result<(), BenchError> {
    let mut connection = PgConnection::connect(url).await.map_err(BenchError::Postgres)?;
    // The name of a database can't be a bound value; these were made a moment ago.
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await.map_err(BenchError::Postgres)?;
    connection.close().await.map_err(BenchError::Postgres)
}
