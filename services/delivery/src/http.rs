//! What people can ask delivery: drivers to begin and end their shifts, and, where nobody simulates the ride, to say
//! that an order has arrived.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use async_trait::async_trait;
use axum::{Json, extract::State, http::HeaderMap};
use event_sourcing::{Cause, Decider, TraceContext, Work};
use eventing::{AsyncReact, Failure, Writer};
use runtime::{
    Problem,
    extract::{JsonBody, PathParams},
    problem::FieldError,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

use crate::{
    dispatch::{self, Dispatch, Job},
    domain::{Delivery, DeliveryCommand, DeliveryRejection, DriverCommand},
    fleet,
};

/// The routes for people.
pub fn routes(writer: Writer, dispatch: Arc<Dispatch>) -> OpenApiRouter {
    let people = People { writer, dispatch };
    OpenApiRouter::new().routes(routes!(put_driver)).routes(routes!(deliver)).with_state(people)
}

#[derive(Clone)]
struct People {
    writer: Writer,
    dispatch: Arc<Dispatch>,
}

impl People {
    /// Gives a driver who may have become free the next order, then publishes that and what was `changed` before.
    async fn match_and_publish(&self, mut changed: Vec<String>) {
        match self.dispatch.run(&[Job::Match]).await {
            Ok(matched) => changed.extend(matched),
            // The command itself is stored; whatever event or tick comes next matches again.
            Err(failure) => tracing::warn!(%failure, "not matched yet"),
        }
        self.writer.outbox.publish_soon(changed);
    }
}

/// What a driver wants.
#[derive(Deserialize, ToSchema)]
struct Wish {
    on_shift: bool,
}

/// The shift is stored.
#[derive(Serialize, ToSchema)]
struct Shift {
    driver_id: String,
    on_shift: bool,
    /// The number of the newest event in the driver's own stream.
    sequence: i64,
}

/// Begins or ends a driver's shift; a ride under way is finished first. The same again changes nothing.
#[utoipa::path(put, path = "/drivers/{id}", request_body = Wish,
    params(("id" = String, Path, description = "The driver's id")),
    responses((status = 200, body = Shift),
        (status = 415, description = "The body must be JSON"),
        (status = 422, description = "The id or a field can't be accepted")))]
async fn put_driver(
    State(people): State<People>,
    PathParams(driver_id): PathParams<String>,
    headers: HeaderMap,
    JsonBody(Wish { on_shift }): JsonBody<Wish>,
) -> Result<Json<Shift>, Problem> {
    if let Some(reason) = wrong_stream_id(&driver_id) {
        return Err(Problem::invalid(vec![FieldError::new("id", reason)]));
    }
    let change = ChangeShift { driver_id: driver_id.clone(), on_shift, sequence: AtomicI64::default() };
    let cause = Cause::command(None, trace(&headers));
    let changed = people.writer.transact(&cause, HashMap::new(), &change).await;
    people.match_and_publish(changed.map_err(|failure| Problem::unavailable(&failure))?.1).await;
    Ok(Json(Shift { driver_id, on_shift, sequence: change.sequence.into_inner() }))
}

struct ChangeShift {
    driver_id: String,
    on_shift: bool,
    /// Of the newest event, once it is decided.
    sequence: AtomicI64,
}

#[async_trait]
impl AsyncReact for &ChangeShift {
    async fn react(&self, work: &mut Work<'_>) -> Result<(), Failure> {
        let mut driver = fleet::driver(work.store(), &self.driver_id).await?;
        let before = driver.version;
        let command = if self.on_shift { DriverCommand::GoOnShift } else { DriverCommand::GoOffShift };
        work.execute(&mut driver, command)?;
        self.sequence.store(driver.version, Ordering::Relaxed);
        if driver.version > before {
            work.project(fleet::keep(&driver).map_err(|error| Failure::Never(error.to_string()))?);
        }
        Ok(())
    }
}

/// The order has arrived.
#[derive(Serialize, ToSchema)]
struct Delivered {
    order_id: String,
    #[schema(example = "delivered")]
    status: &'static str,
}

/// Ends the ride with an order (manual mode) and frees its driver; once more changes nothing.
#[utoipa::path(post, path = "/deliveries/{id}/deliver", params(("id" = String, Path, description = "The order's id")),
    responses((status = 200, body = Delivered),
        (status = 404, description = "Nobody waits for such an order"),
        (status = 409, description = "The order is not on its way")))]
async fn deliver(
    State(people): State<People>,
    PathParams(id): PathParams<String>,
    headers: HeaderMap,
) -> Result<Json<Delivered>, Problem> {
    let Ok(order_id) = Uuid::try_parse(&id).map(|id| id.to_string()) else {
        return Err(Problem::not_found(DeliveryRejection::Unknown.to_string()));
    };
    // Once a ride could be ended nothing else ever becomes of it, so asking before is as good as asking inside.
    let delivery = people.writer.store.load::<Delivery>(&order_id).await;
    let delivery = delivery.map_err(|error| Problem::unavailable(&error))?;
    delivery.state.decide(DeliveryCommand::Deliver).map_err(|rejection| match rejection {
        DeliveryRejection::Unknown => Problem::not_found(rejection.to_string()),
        DeliveryRejection::NotOut | DeliveryRejection::Failed | DeliveryRejection::NotWaiting => {
            Problem::conflict(rejection.to_string())
        }
    })?;
    let mut cause = Cause::command(None, trace(&headers));
    cause.correlation_id = Some(order_id.clone());
    let changed = people.writer.transact(&cause, HashMap::new(), Arrival(&order_id)).await;
    people.match_and_publish(changed.map_err(|failure| Problem::unavailable(&failure))?.1).await;
    Ok(Json(Delivered { order_id, status: "delivered" }))
}

struct Arrival<'a>(&'a str);

#[async_trait]
impl AsyncReact for Arrival<'_> {
    async fn react(&self, work: &mut Work<'_>) -> Result<(), Failure> {
        let delivery = work.load::<Delivery>(self.0).await?;
        dispatch::arrive(work, delivery).await
    }
}

/// The id of a stream of its own, which must never meet that of an order.
fn wrong_stream_id(id: &str) -> Option<&'static str> {
    let allowed = |byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
    if id.is_empty() || id.len() > 64 || id.starts_with('-') || !id.bytes().all(allowed) {
        return Some("must be 1 to 64 lower-case letters, digits and hyphens, and not begin with a hyphen");
    }
    Uuid::try_parse(id).is_ok().then_some("must not be a UUID: orders have those")
}

fn trace(headers: &HeaderMap) -> TraceContext {
    let header = |name| headers.get(name).and_then(|value| value.to_str().ok());
    TraceContext::current().unwrap_or_else(|| TraceContext::read(header("traceparent"), header("tracestate")))
}
