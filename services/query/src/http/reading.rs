//! How the answers' views are read from the database.

use event_sourcing::{Database, Row, Value};
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use crate::{
    stats::EVER,
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
        let rows = self.database.fetch(sql, values).await?;
        rows.iter().map(|row| Ok((row.text(0)?, row.json(1)?))).collect()
    }

    /// An order that was placed, as far as this view knows.
    pub async fn order(&self, order_id: &str) -> Result<Option<OrderView>, sqlx::Error> {
        let sql = "SELECT order_id, view FROM orders WHERE order_id = $1 AND placed = 1".to_owned();
        Ok(self.rows(sql, vec![order_id.into()]).await?.into_iter().next().map(|(_, view)| view))
    }

    /// The sums of all time and of the minutes since `minute`: minute, name, value.
    pub async fn sums(&self, minute: i64) -> Result<Vec<(i64, String, i64)>, sqlx::Error> {
        let sql = "SELECT minute, name, value FROM stats WHERE minute = $1 OR minute > $2 ORDER BY minute, name";
        let rows = self.database.fetch(sql, [EVER.into(), minute.into()]).await?;
        rows.iter().map(|row| Ok((row.int(0)?, row.text(1)?, row.int(2)?))).collect()
    }

    /// What happened to an order, up to what `view` holds: the view was read before, so nothing of it is missing here.
    pub async fn timeline(&self, order_id: &str, view: &OrderView) -> Result<Vec<Step>, sqlx::Error> {
        let sql = "SELECT id, type, source, subject, sequence, time, causation_id FROM timeline WHERE order_id = $1";
        let rows = self.database.fetch(sql, [order_id.into()]).await?;
        let step = |row: &Row| {
            Ok(Step {
                id: row.text(0)?,
                event_type: row.text(1)?,
                source: row.text(2)?,
                subject: row.text(3)?,
                sequence: row.int(4)?,
                time: row.text(5)?,
                causation_id: row.text(6)?,
                latency_ms: None,
            })
        };
        let mut steps: Vec<Step> = rows.iter().map(step).collect::<Result<_, sqlx::Error>>()?;
        steps.retain(|step| step.subject != order_id || step.sequence <= view.sequence(&step.source));
        Ok(timeline::tell(steps))
    }
}
