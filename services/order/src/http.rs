//! What people can ask the order service: to take an order, and to cancel one.

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, HeaderName, StatusCode, header},
};
use event_sourcing::{Cause, HandleError, StoreError, TraceContext, decode, new_id};
use eventing::Writer;
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
    domain::{self, Money, Order, OrderCommand, OrderEvent, OrderRejection, PlacedOrder, PricingError, Stage},
    menus,
};

/// Lines of an order, and of one line.
const LINES: usize = 100;
const QUANTITY: u32 = 1_000;
/// Characters of a text that a person wrote.
const TEXT: usize = 200;
/// A key that was sent with an order, so that sending it again is the same order.
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// The routes for people.
pub fn routes(writer: Writer) -> OpenApiRouter {
    OpenApiRouter::new().routes(routes!(place_order)).routes(routes!(cancel_order)).with_state(writer)
}

/// An order as a customer wishes it. The prices come from the kitchen's menu.
#[derive(Debug, Clone, Deserialize, ToSchema)]
struct OrderRequest {
    #[schema(example = "ada", min_length = 1, max_length = 200)]
    customer_id: String,
    #[schema(example = "luigis")]
    kitchen_id: String,
    #[schema(min_items = 1, max_items = 100)]
    items: Vec<ItemRequest>,
    address: AddressRequest,
    /// `tok_ok` pays, `tok_declined` declines, `tok_flaky` fails twice before it pays, `tok_slow` takes 2 s.
    #[schema(example = "tok_ok", min_length = 1, max_length = 200)]
    payment_token: String,
}

/// So many of one item.
#[derive(Debug, Clone, Deserialize, ToSchema)]
struct ItemRequest {
    #[schema(example = "margherita")]
    item_id: String,
    #[schema(minimum = 1, maximum = 1000)]
    quantity: u32,
}

/// Where to.
#[derive(Debug, Clone, Deserialize, ToSchema)]
struct AddressRequest {
    #[schema(example = "1 Rain Road", min_length = 1, max_length = 200)]
    street: String,
    #[schema(example = "Cloudville", min_length = 1, max_length = 200)]
    city: String,
    #[schema(example = "12345", min_length = 1, max_length = 200)]
    postal_code: String,
}

/// The order as it was accepted.
#[derive(Debug, Serialize, ToSchema)]
struct OrderAccepted {
    order_id: String,
    status: &'static str,
    total: Total,
    /// The version of the order's own stream: ask the query service for `?at_least=` this to read your own write.
    sequence: i64,
}

/// An amount in minor units (cents) of an ISO 4217 currency.
#[derive(Debug, Serialize, ToSchema)]
struct Total {
    amount: i64,
    currency: String,
}

/// A change of mind that was heard; the kitchen decides.
#[derive(Debug, Serialize, ToSchema)]
struct CancellationAccepted {
    order_id: String,
    status: &'static str,
}

type Placed = (StatusCode, [(HeaderName, String); 1], Json<OrderAccepted>);

/// Places an order. With an `Idempotency-Key`, sending the same order again gives the same answer.
#[utoipa::path(post, path = "/orders", request_body = OrderRequest,
    params(("Idempotency-Key" = Option<String>, Header, description = "1 to 200 visible ASCII characters")),
    responses((status = 201, body = OrderAccepted),
        (status = 409, description = "The kitchen is closed"),
        (status = 415, description = "The body must be JSON"),
        (status = 422, description = "A field can't be accepted")))]
async fn place_order(
    State(writer): State<Writer>,
    headers: HeaderMap,
    JsonBody(request): JsonBody<OrderRequest>,
) -> Result<Placed, Problem> {
    let errors = request.errors();
    if !errors.is_empty() {
        return Err(Problem::invalid(errors));
    }
    let cause = Cause::command(idempotency_key(&headers)?, trace(&headers));
    if let Some(answer) = placed_before(&writer, &cause, &request).await? {
        return Ok(answer);
    }
    let command = priced(&writer, &request).await?;
    let order_id = new_id().to_string();
    let stored = writer.store.handle::<Order>(&cause, &order_id, || command.clone(), |_| vec![]).await;
    match stored {
        Ok(order) => {
            writer.outbox.publish_soon(vec![order_id.clone()]);
            match order.state {
                Order::Placed { order, .. } => Ok(accepted(order_id, order.total)),
                Order::Unplaced => Err(Problem::not_found("the order was not placed")),
            }
        }
        Err(HandleError::Rejected(rejection @ OrderRejection::TotalTooLarge)) => {
            Err(Problem::invalid(vec![FieldError::new("items", rejection.to_string())]))
        }
        Err(HandleError::Rejected(rejection)) => Err(Problem::conflict(rejection.to_string())),
        // Somebody sent the same key at the same moment and was faster.
        Err(HandleError::Store(conflict @ StoreError::Conflict)) => {
            match placed_before(&writer, &cause, &request).await? {
                Some(answer) => Ok(answer),
                None => Err(Problem::unavailable(&conflict)),
            }
        }
        Err(HandleError::Store(error)) => Err(Problem::unavailable(&error)),
    }
}

/// Asks to cancel an order. The kitchen answers, because it knows whether the food is packed.
#[utoipa::path(post, path = "/orders/{id}/cancel", params(("id" = String, Path, description = "The order's id")),
    responses((status = 202, body = CancellationAccepted),
        (status = 404, description = "There is no such order"),
        (status = 409, description = "The order has ended")))]
async fn cancel_order(
    State(writer): State<Writer>,
    PathParams(order_id): PathParams<String>,
    headers: HeaderMap,
) -> Result<(StatusCode, Json<CancellationAccepted>), Problem> {
    let unknown = || Problem::not_found(format!("there is no order {order_id:?}"));
    let stream = order_id.parse::<Uuid>().map_err(|_| unknown())?.to_string();
    let cause = Cause::command(None, trace(&headers));
    let asked = writer.store.handle::<Order>(&cause, &stream, || OrderCommand::RequestCancellation, |_| vec![]).await;
    match asked {
        Ok(order) => {
            writer.outbox.publish_soon(vec![stream.clone()]);
            let status = match order.state {
                Order::Placed { stage: Stage::CancellationRequested, .. } => "cancellation_requested",
                Order::Placed { stage, .. } => stage.status(),
                Order::Unplaced => return Err(unknown()),
            };
            Ok((StatusCode::ACCEPTED, Json(CancellationAccepted { order_id: stream, status })))
        }
        Err(HandleError::Rejected(OrderRejection::NotPlaced)) => Err(unknown()),
        Err(HandleError::Rejected(rejection)) => Err(Problem::conflict(rejection.to_string())),
        Err(HandleError::Store(error)) => Err(Problem::unavailable(&error)),
    }
}

fn accepted(order_id: String, total: Money) -> Placed {
    let location = format!("/orders/{order_id}");
    let total = Total { amount: total.amount, currency: total.currency };
    let body = OrderAccepted { order_id, status: Stage::Underway.status(), total, sequence: 1 };
    (StatusCode::CREATED, [(header::LOCATION, location)], Json(body))
}

/// The answer that the same key was given before: the order as it was placed then, whatever became of it or the menu.
async fn placed_before(writer: &Writer, cause: &Cause, request: &OrderRequest) -> Result<Option<Placed>, Problem> {
    if !cause.remembered {
        return Ok(None);
    }
    let unavailable = |error: StoreError| Problem::unavailable(&error);
    let Some(order_id) = writer.store.begun_by(cause).await.map_err(unavailable)? else { return Ok(None) };
    let first = writer.store.first(&order_id).await.map_err(unavailable)?;
    let placed = first.map(|event| decode::<OrderEvent>(&event.event_type, &event.data)).transpose();
    match placed.map_err(|error| unavailable(error.into()))? {
        Some(OrderEvent::Placed(order)) if request.is_what_was_placed(&order) => {
            Ok(Some(accepted(order_id, order.total)))
        }
        _ => {
            let reason = "this key was used for another order; a new order needs a new key";
            Err(Problem::invalid(vec![FieldError::new("Idempotency-Key", reason)]))
        }
    }
}

/// The command, with prices from the service's own copy of the menu.
async fn priced(writer: &Writer, request: &OrderRequest) -> Result<OrderCommand, Problem> {
    let menu = menus::find(&writer.store, &request.kitchen_id).await.map_err(|error| Problem::unavailable(&error))?;
    let invalid = |field: String, reason: String| Problem::invalid(vec![FieldError::new(field, reason)]);
    let Some(menu) = menu else {
        return Err(invalid("kitchen_id".to_owned(), format!("no kitchen {:?} is known", request.kitchen_id)));
    };
    let items: Vec<_> = request.items.iter().map(|item| (item.item_id.clone(), item.quantity)).collect();
    let items = domain::price(&menu, &items).map_err(|error| match &error {
        PricingError::KitchenClosed => Problem::conflict(error.to_string()),
        PricingError::UnknownItem { index, .. } | PricingError::SoldOut { index, .. } => {
            invalid(format!("items[{index}].item_id"), error.to_string())
        }
    })?;
    let AddressRequest { street, city, postal_code } = request.address.clone();
    Ok(OrderCommand::Place {
        customer_id: request.customer_id.clone(),
        kitchen_id: request.kitchen_id.clone(),
        items,
        address: domain::Address { street, city, postal_code },
        payment_token: request.payment_token.clone(),
        currency: menu.currency,
    })
}

impl OrderRequest {
    /// Everything that is wrong with it, at once.
    fn errors(&self) -> Vec<FieldError> {
        let address = &self.address;
        let texts = [
            ("customer_id", &self.customer_id),
            ("kitchen_id", &self.kitchen_id),
            ("address.street", &address.street),
            ("address.city", &address.city),
            ("address.postal_code", &address.postal_code),
            ("payment_token", &self.payment_token),
        ];
        let wrong = |(field, text): (&str, &String)| wrong_text(text).map(|reason| FieldError::new(field, reason));
        let mut errors: Vec<FieldError> = texts.into_iter().filter_map(wrong).collect();
        if self.items.is_empty() || self.items.len() > LINES {
            errors.push(FieldError::new("items", format!("must be 1 to {LINES} lines")));
        }
        for (index, item) in self.items.iter().enumerate().take(LINES) {
            if let Some(reason) = wrong_text(&item.item_id) {
                errors.push(FieldError::new(format!("items[{index}].item_id"), reason));
            }
            if !(1..=QUANTITY).contains(&item.quantity) {
                errors.push(FieldError::new(format!("items[{index}].quantity"), format!("must be 1 to {QUANTITY}")));
            }
        }
        errors
    }

    fn is_what_was_placed(&self, order: &PlacedOrder) -> bool {
        let address = &self.address;
        let lines = order.items.iter().map(|line| (&line.item_id, line.quantity));
        self.customer_id == order.customer_id
            && self.kitchen_id == order.kitchen_id
            && self.payment_token == order.payment_token
            && (&address.street, &address.city, &address.postal_code)
                == (&order.address.street, &order.address.city, &order.address.postal_code)
            && self.items.iter().map(|item| (&item.item_id, item.quantity)).eq(lines)
    }
}

fn wrong_text(text: &str) -> Option<String> {
    if text.is_empty() || text.chars().count() > TEXT {
        Some(format!("must be 1 to {TEXT} characters"))
    } else if text.chars().any(char::is_control) {
        Some("must not have control characters".to_owned())
    } else {
        None
    }
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let Some(value) = headers.get(IDEMPOTENCY_KEY) else { return Ok(None) };
    let visible = |key: &&str| (1..=TEXT).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic());
    match value.to_str().ok().filter(visible) {
        Some(key) => Ok(Some(key)),
        None => {
            let reason = format!("must be 1 to {TEXT} visible ASCII characters");
            Err(Problem::bad_request("the Idempotency-Key can't be used")
                .with_errors(vec![FieldError::new("Idempotency-Key", reason)]))
        }
    }
}

fn trace(headers: &HeaderMap) -> TraceContext {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    TraceContext::current().unwrap_or_else(|| TraceContext::read(text("traceparent"), text("tracestate")))
}
