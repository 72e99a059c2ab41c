//! How the answers' views are read from the database.

use event_sourcing::{Database, Value, bind};
use serde::de::DeserializeOwned;
use sqlx::{AssertSqlSafe, Row};
use tokio::sync::watch;

use crate::{
    timeline::{self, Step},
    views::{OrderView, View},
};

/// The views, and word of their changes.
#[derive(Clone)]
pub struct Views {
    pub database: Database,
    pub changes: watch::Receiver<u64>,
}

impl Views {
    /// Rows of a key and its view.
    pub async fn rows<V: DeserializeOwned>(
        &self,
        sql: String,
        values: Vec<Value>,
    ) -> Result<Vec<(String, V)>, sqlx::Error> {
        let rows = bind(AssertSqlSafe(sql), values).fetch_all(self.database.pool()).await?;
        let read = rows.iter().map(|row| {
            let view = serde_json::from_str(row.try_get(1)?).map_err(|error| sqlx::Error::Decode(error.into()))?;
            Ok((row.try_get(0)?, view))
        });
        read.collect()
    }

    /// An order that was placed, as far as this view knows.
    pub async fn order(&self, order_id: &str) -> Result<Option<OrderView>, sqlx::Error> {
        let sql = "SELECT order_id, view FROM orders WHERE order_id = $1 AND placed = 1".to_owned();
        Ok(self.rows(sql, vec![order_id.into()]).await?.into_iter().next().map(|(_, view)| view))
    }

    /// What happened to an order, up to what `view` holds: the view was read before, so nothing of it is missing here.
    pub async fn timeline(&self, order_id: &str, view: &OrderView) -> Result<Vec<Step>, sqlx::Error> {
        let sql = "SELECT id, type, source, subject, sequence, time, causation_id FROM timeline WHERE order_id = $1";
        let rows = bind(AssertSqlSafe(sql.to_owned()), [order_id.into()]).fetch_all(self.database.pool()).await?;
        let step = |row: &sqlx::any::AnyRow| {
            Ok(Step {
                id: row.try_get(0)?,
                event_type: row.try_get(1)?,
                source: row.try_get(2)?,
                subject: row.try_get(3)?,
                sequence: row.try_get(4)?,
                time: row.try_get(5)?,
                causation_id: row.try_get(6)?,
                latency_ms: None,
            })
        };
        let mut steps: Vec<Step> = rows.iter().map(step).collect::<Result<_, sqlx::Error>>()?;
        steps.retain(|step| step.subject != order_id || step.sequence <= view.sequence(&step.source));
        Ok(timeline::tell(steps))
    }
}
