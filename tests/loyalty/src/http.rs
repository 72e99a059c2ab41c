//! What people can ask loyalty: how many points they have.

use axum::{Json, extract::State};
use eventing::Writer;
use runtime::{Problem, extract::PathParams};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{domain::Account, reactions::account_of};

/// The routes for people.
pub fn routes(writer: Writer) -> OpenApiRouter {
    OpenApiRouter::new().routes(routes!(get_points)).with_state(writer)
}

/// A customer's points.
#[derive(Serialize, ToSchema)]
struct Points {
    customer_id: String,
    points: i64,
}

/// How many points a customer has; whoever never got any has none.
#[utoipa::path(get, path = "/customers/{id}/points", params(("id" = String, Path, description = "The customer's id")),
    responses((status = 200, body = Points), (status = 503, body = Problem)))]
async fn get_points(
    State(writer): State<Writer>,
    PathParams(customer_id): PathParams<String>,
) -> Result<Json<Points>, Problem> {
    let account = writer.store.load::<Account>(&account_of(&customer_id)).await;
    let points = account.map_err(|error| Problem::unavailable(&error))?.state.balance;
    Ok(Json(Points { customer_id, points }))
}
