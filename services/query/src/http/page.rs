//! Which orders somebody wants to see, as a question to the database: everything that was said is checked here, before
//! anything is asked.

use event_sourcing::Value;
use runtime::Problem;
use serde::Deserialize;
use utoipa::IntoParams;
use uuid::Uuid;

use super::bad_parameter;
use crate::views::Status;

/// Orders on a page, at most, and unless told otherwise.
const LIMIT: i64 = 500;
const USUAL: i64 = 50;

/// Which orders, as it was said.
#[derive(Debug, Clone, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct OrderFilter {
    customer_id: Option<String>,
    /// `placed`, `paid`, `cooking`, `packed`, `out_for_delivery`, `delivered`, `completed` or `cancelled`.
    status: Option<String>,
    /// 1 to 500; 50 if it isn't given.
    #[param(minimum = 1, maximum = 500)]
    limit: Option<i64>,
    /// From the page before.
    cursor: Option<String>,
}

/// The question.
#[derive(Debug, Clone, PartialEq)]
pub struct Page {
    /// Asks for one order more than the page has: that tells whether there is a next one.
    pub sql: String,
    pub values: Vec<Value>,
    pub limit: usize,
}

impl OrderFilter {
    /// The question, newest orders first.
    ///
    /// # Errors
    /// Which parameter can't be accepted.
    pub fn page(self) -> Result<Page, Problem> {
        let limit = self.limit.unwrap_or(USUAL);
        if !(1..=LIMIT).contains(&limit) {
            return Err(bad_parameter("limit", "must be 1 to 500"));
        }
        let mut values: Vec<Value> = Vec::new();
        let mut sql = "SELECT order_id, view FROM orders WHERE placed = 1".to_owned();
        let mut and = |condition: &str, value: Value| {
            values.push(value);
            sql.push_str(&format!(" AND {condition} ${}", values.len()));
        };
        if let Some(customer_id) = self.customer_id {
            if customer_id.contains('\0') {
                return Err(bad_parameter("customer_id", "must not contain NUL"));
            }
            and("customer_id =", customer_id.into());
        }
        if let Some(status) = self.status {
            let known: Status = serde_json::from_value(status.into()).map_err(|_| {
                bad_parameter(
                    "status",
                    "must be placed, paid, cooking, packed, out_for_delivery, delivered, completed or cancelled",
                )
            })?;
            and("status =", known.as_str().into());
        }
        if let Some(cursor) = self.cursor {
            let last: Uuid = cursor.parse().map_err(|_| bad_parameter("cursor", "must come from the page before"))?;
            and("order_id <", last.to_string().into());
        }
        values.push((limit + 1).into());
        sql.push_str(&format!(" ORDER BY order_id DESC LIMIT ${}", values.len()));
        Ok(Page { sql, values, limit: usize::try_from(limit).unwrap_or(usize::MAX) })
    }
}
