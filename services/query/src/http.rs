//! What people can ask: about orders, kitchens and drivers, as the events so far tell it.

use std::time::Duration;

use axum::{Json, extract::State, http::StatusCode};
use runtime::{
    Problem,
    extract::{PathParams, QueryParams},
    problem::FieldError,
};
use serde::Deserialize;
use tokio::time::Instant;
use utoipa::IntoParams;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

use crate::views::{DriverView, KitchenView, OrderView, View};

mod answers;
mod page;
mod reading;
mod stats;

use answers::{Board, DriverDetails, KitchenDetails, ORDERS, OrderDetails, OrderPage, Ticket, details, summary};
pub use page::{OrderFilter, Page};
pub use reading::Views;

/// How long a question waits for the view to come as far as was asked for.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often it looks whether another instance has brought it there.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Tickets on a board, at most.
const LIMIT: i64 = 500;

/// The routes for people.
pub fn routes(views: Views) -> OpenApiRouter {
    OpenApiRouter::new()
        .routes(routes!(get_order))
        .routes(routes!(list_orders))
        .routes(routes!(list_kitchens))
        .routes(routes!(get_board))
        .routes(routes!(list_drivers))
        .routes(routes!(stats::get_stats))
        .with_state(views)
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct AtLeast {
    /// Wait (for five seconds at most) until the view holds this version of the order's own stream.
    #[param(minimum = 1)]
    at_least: Option<i64>,
}

/// One order with its timeline.
#[utoipa::path(get, path = "/orders/{id}", params(("id" = String, Path, description = "The order's id"), AtLeast),
    responses((status = 200, body = OrderDetails),
        (status = 404, description = "There is no such order"),
        (status = 412, description = "The view has not come as far as asked for")))]
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
        let sequence = found.as_ref().map_or(0, |view| view.sequence(ORDERS));
        match found {
            Some(view) if sequence >= wanted => {
                let timeline = views.timeline(&order_id, &view).await.map_err(|error| Problem::unavailable(&error))?;
                return Ok(Json(details(order_id, view, timeline)));
            }
            None if Instant::now() >= deadline => return Err(unknown()),
            Some(_) if Instant::now() >= deadline => {
                let detail = format!("the view holds sequence {sequence} of this order, not {wanted} yet");
                return Err(Problem::new(StatusCode::PRECONDITION_FAILED, detail));
            }
            // Woken by this instance's projection; another's shows in the database only.
            Some(_) | None => tokio::select! {
                Ok(()) = views.changes.changed() => {}
                () = tokio::time::sleep(LOOK_EVERY) => {}
            },
        }
    }
}

/// Orders, newest first.
#[utoipa::path(get, path = "/orders", params(OrderFilter),
    responses((status = 200, body = OrderPage)))]
async fn list_orders(
    State(views): State<Views>,
    QueryParams(filter): QueryParams<OrderFilter>,
) -> Result<Json<OrderPage>, Problem> {
    let Page { sql, values, limit } = filter.page()?;
    let rows: Vec<(String, OrderView)> = views.rows(sql, values).await.map_err(|error| Problem::unavailable(&error))?;
    let more = rows.len() > limit;
    let orders: Vec<_> = rows.into_iter().take(limit).map(|(order_id, view)| summary(order_id, &view)).collect();
    let cursor = orders.last().filter(|_| more).map(|order| order.order_id.clone());
    Ok(Json(OrderPage { orders, cursor }))
}

/// Every kitchen with its menu.
#[utoipa::path(get, path = "/kitchens", responses((status = 200, body = Vec<KitchenDetails>)))]
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
    responses((status = 200, body = Board), (status = 404, description = "There is no such kitchen")))]
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
#[utoipa::path(get, path = "/drivers", responses((status = 200, body = Vec<DriverDetails>)))]
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
