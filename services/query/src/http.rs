//! What people can ask: about orders, kitchens and drivers, as the events so far tell it.

use std::{collections::HashMap, time::Duration};

use axum::{Json, extract::State, http::StatusCode};
use event_sourcing::{Database, Value, bind};
use jiff::Timestamp;
use runtime::{
    Problem,
    extract::{PathParams, QueryParams},
    problem::FieldError,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use sqlx::{AssertSqlSafe, Row};
use tokio::{sync::watch, time::Instant};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

use crate::views::{Cancellation, Dish, DriverView, KitchenView, Line, Money, OrderView, Status};

/// How long a question waits for the view to come as far as was asked for.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often it looks whether another instance has brought it there.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Orders on a page, and tickets on a board, at most.
const LIMIT: i64 = 500;

/// The views, and word of their changes.
#[derive(Clone)]
pub struct Views {
    pub database: Database,
    pub changes: watch::Receiver<u64>,
}

/// The routes for people.
pub fn routes(views: Views) -> OpenApiRouter {
    OpenApiRouter::new()
        .routes(routes!(get_order))
        .routes(routes!(list_orders))
        .routes(routes!(list_kitchens))
        .routes(routes!(get_board))
        .routes(routes!(list_drivers))
        .with_state(views)
}

/// An order, and everything that happened to it.
#[derive(Serialize, ToSchema)]
struct OrderDetails {
    #[serde(flatten)]
    order: OrderSummary,
    items: Vec<Line>,
    money: MoneyMoved,
    /// When the status was reached.
    since: String,
    /// The version of the order's own stream that this shows.
    sequence: i64,
    timeline: Vec<Step>,
}

/// An order in a list.
#[derive(Serialize, ToSchema)]
struct OrderSummary {
    order_id: String,
    customer_id: String,
    kitchen_id: String,
    status: Status,
    total: Option<Money>,
    placed_at: Option<String>,
    /// When it was completed or cancelled.
    ended_at: Option<String>,
    cancellation: Option<Cancellation>,
}

/// What moved between the customer's card and us.
#[derive(Serialize, ToSchema)]
struct MoneyMoved {
    captured: Money,
    refunded: Money,
}

/// One event in the story of an order.
#[derive(Serialize, ToSchema)]
struct Step {
    id: String,
    #[serde(rename = "type")]
    event_type: String,
    source: String,
    /// The stream it belongs to: the order's, or a driver's.
    subject: String,
    sequence: i64,
    time: String,
    causation_id: String,
    /// From what caused it to this; null if that is no event of this story.
    latency_ms: Option<f64>,
}

/// Orders, newest first.
#[derive(Serialize, ToSchema)]
struct OrderPage {
    orders: Vec<OrderSummary>,
    /// Ask with this for the next page; null on the last.
    cursor: Option<String>,
}

/// A kitchen and what there is to eat.
#[derive(Serialize, ToSchema)]
struct KitchenDetails {
    kitchen_id: String,
    name: String,
    open: bool,
    currency: String,
    menu: Vec<Dish>,
}

/// What a kitchen has to do.
#[derive(Serialize, ToSchema)]
struct Board {
    kitchen_id: String,
    name: String,
    open: bool,
    /// Oldest first.
    tickets: Vec<Ticket>,
}

/// An order on a kitchen's board.
#[derive(Serialize, ToSchema)]
struct Ticket {
    order_id: String,
    status: Status,
    since: String,
    items: Vec<Line>,
}

/// What a driver is doing.
#[derive(Serialize, ToSchema)]
struct DriverDetails {
    driver_id: String,
    on_shift: bool,
    /// The order that is being carried.
    order_id: Option<String>,
}

#[derive(Deserialize, IntoParams)]
struct AtLeast {
    /// Wait (for five seconds at most) until the view holds this version of the order's own stream.
    #[param(minimum = 1)]
    at_least: Option<i64>,
}

#[derive(Deserialize, IntoParams)]
struct OrderFilter {
    customer_id: Option<String>,
    /// `placed`, `paid`, `cooking`, `packed`, `out_for_delivery`, `delivered`, `completed` or `cancelled`.
    status: Option<String>,
    /// 1 to 500; 50 if it isn't given.
    #[param(minimum = 1, maximum = 500)]
    limit: Option<i64>,
    /// From the page before.
    cursor: Option<String>,
}

/// One order with its timeline.
#[utoipa::path(get, path = "/orders/{id}", params(("id" = String, Path, description = "The order's id"), AtLeast),
    responses((status = 200, body = OrderDetails), (status = 400, body = Problem), (status = 404, body = Problem),
        (status = 412, body = Problem), (status = 503, body = Problem)))]
async fn get_order(
    State(mut views): State<Views>,
    PathParams(id): PathParams<String>,
    QueryParams(AtLeast { at_least }): QueryParams<AtLeast>,
) -> Result<Json<OrderDetails>, Problem> {
    let unknown = || Problem::not_found(format!("there is no order {id:?}"));
    let order_id = id.parse::<Uuid>().map_err(|_| unknown())?.to_string();
    let wanted = at_least.unwrap_or(1);
    if wanted < 1 {
        return Err(bad_parameter("at_least", "must be 1 or more"));
    }
    let deadline = Instant::now() + if at_least.is_some() { PATIENCE } else { Duration::ZERO };
    loop {
        let found = views.order(&order_id).await.map_err(|error| Problem::unavailable(&error))?;
        let sequence = found.as_ref().map_or(0, own_sequence);
        match found {
            Some(view) if sequence >= wanted => {
                let timeline = views.timeline(&order_id).await.map_err(|error| Problem::unavailable(&error))?;
                return Ok(Json(details(order_id, view, sequence, timeline)));
            }
            None if Instant::now() >= deadline => return Err(unknown()),
            Some(_) if Instant::now() >= deadline => {
                let detail = format!("the view is at sequence {sequence} of this order, not at {wanted} yet");
                return Err(Problem::new(StatusCode::PRECONDITION_FAILED, detail));
            }
            Some(_) | None => {
                // Woken by this instance's projection; another's shows in the database only.
                let _ = tokio::time::timeout(LOOK_EVERY, views.changes.changed()).await;
            }
        }
    }
}

/// Orders, newest first.
#[utoipa::path(get, path = "/orders", params(OrderFilter),
    responses((status = 200, body = OrderPage), (status = 400, body = Problem), (status = 503, body = Problem)))]
async fn list_orders(
    State(views): State<Views>,
    QueryParams(filter): QueryParams<OrderFilter>,
) -> Result<Json<OrderPage>, Problem> {
    let limit = filter.limit.unwrap_or(50);
    if !(1..=LIMIT).contains(&limit) {
        return Err(bad_parameter("limit", "must be 1 to 500"));
    }
    let mut values: Vec<Value> = Vec::new();
    let mut sql = "SELECT order_id, view FROM orders WHERE placed = 1".to_owned();
    let mut and = |condition: &str, value: Value| {
        values.push(value);
        sql.push_str(&format!(" AND {condition} ${}", values.len()));
    };
    if let Some(customer_id) = filter.customer_id {
        if customer_id.contains('\0') {
            return Err(bad_parameter("customer_id", "must not have control characters"));
        }
        and("customer_id =", customer_id.into());
    }
    if let Some(status) = filter.status {
        let known: Status = serde_json::from_value(status.into()).map_err(|_| {
            bad_parameter(
                "status",
                "must be placed, paid, cooking, packed, out_for_delivery, delivered, completed or cancelled",
            )
        })?;
        and("status =", known.as_str().into());
    }
    if let Some(cursor) = filter.cursor {
        let last: Uuid = cursor.parse().map_err(|_| bad_parameter("cursor", "must come from the page before"))?;
        and("order_id <", last.to_string().into());
    }
    and("1 = 1 ORDER BY order_id DESC LIMIT", limit.into());
    let rows: Vec<(String, OrderView)> = views.rows(sql, values).await.map_err(|error| Problem::unavailable(&error))?;
    let full = i64::try_from(rows.len()).is_ok_and(|count| count == limit);
    let cursor = rows.last().filter(|_| full).map(|(order_id, _)| order_id.clone());
    let orders = rows.into_iter().map(|(order_id, view)| summary(order_id, &view)).collect();
    Ok(Json(OrderPage { orders, cursor }))
}

/// Every kitchen with its menu.
#[utoipa::path(get, path = "/kitchens", responses((status = 200, body = Vec<KitchenDetails>), (status = 503, body = Problem)))]
async fn list_kitchens(State(views): State<Views>) -> Result<Json<Vec<KitchenDetails>>, Problem> {
    let sql = "SELECT kitchen_id, view FROM kitchens ORDER BY kitchen_id".to_owned();
    let rows: Vec<(String, KitchenView)> =
        views.rows(sql, vec![]).await.map_err(|error| Problem::unavailable(&error))?;
    let kitchen = |(kitchen_id, view): (String, KitchenView)| {
        let KitchenView { name, open, currency, menu, .. } = view;
        KitchenDetails { kitchen_id, name, open, currency, menu }
    };
    Ok(Json(rows.into_iter().map(kitchen).collect()))
}

/// What a kitchen has to do: its orders from the payment until they are on their way.
#[utoipa::path(get, path = "/kitchens/{id}/board", params(("id" = String, Path, description = "The kitchen's id")),
    responses((status = 200, body = Board), (status = 404, body = Problem), (status = 503, body = Problem)))]
async fn get_board(State(views): State<Views>, PathParams(id): PathParams<String>) -> Result<Json<Board>, Problem> {
    let unknown = || Problem::not_found(format!("there is no kitchen {id:?}"));
    if id.contains('\0') {
        return Err(unknown());
    }
    let sql = "SELECT kitchen_id, view FROM kitchens WHERE kitchen_id = $1".to_owned();
    let found: Vec<(String, KitchenView)> =
        views.rows(sql, vec![id.as_str().into()]).await.map_err(|error| Problem::unavailable(&error))?;
    let (kitchen_id, kitchen) = found.into_iter().next().ok_or_else(unknown)?;
    let sql = "SELECT order_id, view FROM orders WHERE kitchen_id = $1 AND status IN ('paid', 'cooking', 'packed') \
               AND placed = 1 ORDER BY order_id LIMIT $2";
    let orders: Vec<(String, OrderView)> = views
        .rows(sql.to_owned(), vec![id.as_str().into(), LIMIT.into()])
        .await
        .map_err(|error| Problem::unavailable(&error))?;
    let ticket = |(order_id, view): (String, OrderView)| Ticket {
        order_id,
        status: view.status,
        since: view.since,
        items: view.items,
    };
    let tickets = orders.into_iter().map(ticket).collect();
    Ok(Json(Board { kitchen_id, name: kitchen.name, open: kitchen.open, tickets }))
}

/// Every driver.
#[utoipa::path(get, path = "/drivers", responses((status = 200, body = Vec<DriverDetails>), (status = 503, body = Problem)))]
async fn list_drivers(State(views): State<Views>) -> Result<Json<Vec<DriverDetails>>, Problem> {
    let sql = "SELECT driver_id, view FROM drivers ORDER BY driver_id".to_owned();
    let rows: Vec<(String, DriverView)> =
        views.rows(sql, vec![]).await.map_err(|error| Problem::unavailable(&error))?;
    let driver = |(driver_id, view): (String, DriverView)| DriverDetails {
        driver_id,
        on_shift: view.on_shift,
        order_id: view.order_id,
    };
    Ok(Json(rows.into_iter().map(driver).collect()))
}

fn bad_parameter(name: &str, reason: &str) -> Problem {
    Problem::bad_request(format!("{name} {reason}")).with_errors(vec![FieldError::new(name, reason)])
}

fn own_sequence(view: &OrderView) -> i64 {
    view.sequences.get("/orders").copied().unwrap_or(0)
}

fn summary(order_id: String, view: &OrderView) -> OrderSummary {
    OrderSummary {
        order_id,
        customer_id: view.customer_id.clone(),
        kitchen_id: view.kitchen_id.clone(),
        status: view.status,
        total: view.total.clone(),
        placed_at: view.placed_at.clone(),
        ended_at: view.ended_at.clone(),
        cancellation: view.cancellation.clone(),
    }
}

fn details(order_id: String, view: OrderView, sequence: i64, timeline: Vec<Step>) -> OrderDetails {
    let currency = view.total.as_ref().map_or_else(String::new, |total| total.currency.clone());
    let money = |amount| Money { amount, currency: currency.clone() };
    let moved = MoneyMoved { captured: money(view.captured), refunded: money(view.refunded) };
    let order = summary(order_id, &view);
    OrderDetails { order, items: view.items, money: moved, since: view.since, sequence, timeline }
}

impl Views {
    /// Rows of a key and its view.
    async fn rows<V: DeserializeOwned>(
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
    async fn order(&self, order_id: &str) -> Result<Option<OrderView>, sqlx::Error> {
        let sql = "SELECT order_id, view FROM orders WHERE order_id = $1 AND placed = 1".to_owned();
        Ok(self.rows(sql, vec![order_id.into()]).await?.into_iter().next().map(|(_, view)| view))
    }

    async fn timeline(&self, order_id: &str) -> Result<Vec<Step>, sqlx::Error> {
        let sql = "SELECT id, type, source, subject, sequence, time, causation_id FROM timeline \
                   WHERE order_id = $1 ORDER BY time, source, subject, sequence";
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
        let times: HashMap<String, Timestamp> =
            steps.iter().filter_map(|step| Some((step.id.clone(), step.time.parse().ok()?))).collect();
        for step in &mut steps {
            if let (Some(cause), Some(own)) = (times.get(&step.causation_id), times.get(&step.id)) {
                step.latency_ms = Some((own.duration_since(*cause).as_secs_f64() * 1_000_000.0).round() / 1000.0);
            }
        }
        Ok(steps)
    }
}
