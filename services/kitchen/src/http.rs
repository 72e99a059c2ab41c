//! What people can ask the kitchen: to publish a menu, and, where nobody simulates the cook, to pack an order.

use std::collections::HashSet;

use axum::{Json, extract::State, http::HeaderMap};
use event_sourcing::{Cause, HandleError, TraceContext};
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

use crate::domain::{Kitchen, KitchenCommand, MenuItem, Ticket, TicketCommand, TicketRejection};

/// Dishes on one menu.
const MENU_LIMIT: usize = 500;
/// In minor units: a million of most currencies. So the largest order there can be (100 lines of 1,000) stays below
/// 2^53, where every reader of JSON is exact, and far from overflowing 64 bits.
const PRICE_LIMIT: i64 = 100_000_000;
/// Characters of a name.
const NAME_LIMIT: usize = 200;

/// The routes for people.
pub fn routes(writer: Writer) -> OpenApiRouter {
    OpenApiRouter::new().routes(routes!(put_kitchen)).routes(routes!(pack)).with_state(writer)
}

/// A kitchen as its people want it to be.
#[derive(Deserialize, ToSchema)]
struct Menu {
    #[schema(example = "Casa Chuva")]
    name: String,
    /// Whether it takes orders now.
    open: bool,
    /// ISO 4217.
    #[schema(example = "EUR")]
    currency: String,
    menu: Vec<Dish>,
}

/// One dish on a menu.
#[derive(Deserialize, ToSchema)]
struct Dish {
    #[schema(example = "caldo-verde")]
    item_id: String,
    #[schema(example = "Caldo verde")]
    name: String,
    /// In minor units of the menu's currency.
    #[schema(example = 450)]
    price: i64,
    /// False while it is sold out.
    available: bool,
}

/// The menu is stored.
#[derive(Serialize, ToSchema)]
struct Published {
    kitchen_id: String,
    /// The number of this menu in the kitchen's own stream.
    sequence: i64,
}

/// Publishes a kitchen's menu, which replaces the one before; the same menu again changes nothing.
#[utoipa::path(put, path = "/kitchens/{id}", request_body = Menu,
    params(("id" = String, Path, description = "The kitchen's id")),
    responses((status = 200, body = Published),
        (status = 415, description = "The body must be JSON"),
        (status = 422, description = "A field can't be accepted")))]
async fn put_kitchen(
    State(writer): State<Writer>,
    PathParams(kitchen_id): PathParams<String>,
    headers: HeaderMap,
    JsonBody(menu): JsonBody<Menu>,
) -> Result<Json<Published>, Problem> {
    let errors = menu.errors(&kitchen_id);
    if !errors.is_empty() {
        return Err(Problem::invalid(errors));
    }
    let cause = Cause::command(None, trace(&headers));
    let stored = writer.store.handle::<Kitchen>(&cause, &kitchen_id, || menu.command(), |_| vec![]).await;
    let kitchen = stored.map_err(|error| match error {
        HandleError::Rejected(rejection) => Problem::invalid(vec![FieldError::new("menu", rejection.to_string())]),
        HandleError::Store(error) => Problem::unavailable(&error),
    })?;
    writer.outbox.publish_soon(vec![kitchen_id.clone()]);
    Ok(Json(Published { kitchen_id, sequence: kitchen.version }))
}

impl Menu {
    fn command(&self) -> KitchenCommand {
        let dish = |dish: &Dish| MenuItem {
            item_id: dish.item_id.clone(),
            name: dish.name.clone(),
            price: dish.price,
            available: dish.available,
        };
        KitchenCommand::PublishMenu {
            name: self.name.clone(),
            open: self.open,
            currency: self.currency.clone(),
            menu: self.menu.iter().map(dish).collect(),
        }
    }

    /// Everything that is wrong with it, at once.
    fn errors(&self, kitchen_id: &str) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let mut check = |field: String, wrong: Option<&str>| {
            errors.extend(wrong.map(|reason| FieldError::new(field, reason)));
        };
        check("id".to_owned(), wrong_stream_id(kitchen_id));
        check("name".to_owned(), wrong_name(&self.name));
        let is_code = self.currency.len() == 3 && self.currency.bytes().all(|letter| letter.is_ascii_uppercase());
        check("currency".to_owned(), (!is_code).then_some("must be an ISO 4217 code: three capital letters"));
        check("menu".to_owned(), (self.menu.len() > MENU_LIMIT).then_some("has more than 500 items"));
        let mut seen = HashSet::new();
        for (place, dish) in self.menu.iter().take(MENU_LIMIT).enumerate() {
            let field = |name| format!("menu[{place}].{name}");
            check(field("item_id"), wrong_id(&dish.item_id));
            check(field("item_id"), (!seen.insert(&dish.item_id)).then_some("stands on the menu twice"));
            check(field("name"), wrong_name(&dish.name));
            let in_range = (0..=PRICE_LIMIT).contains(&dish.price);
            check(field("price"), (!in_range).then_some("must be 0 to 100,000,000 minor units"));
        }
        errors
    }
}

fn wrong_name(name: &str) -> Option<&'static str> {
    match name.chars().count() {
        0 => Some("must not be empty"),
        1..=NAME_LIMIT => name.chars().any(char::is_control).then_some("must not contain control characters"),
        _ => Some("must have at most 200 characters"),
    }
}

fn wrong_id(id: &str) -> Option<&'static str> {
    let allowed = |byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
    let fits = (1..=64).contains(&id.len()) && !id.starts_with('-') && id.bytes().all(allowed);
    (!fits).then_some("must be 1 to 64 lower-case letters, digits and hyphens, and not begin with a hyphen")
}

/// The id of a stream of its own, which must never meet that of an order.
fn wrong_stream_id(id: &str) -> Option<&'static str> {
    wrong_id(id).or_else(|| Uuid::try_parse(id).is_ok().then_some("must not be a UUID: orders have those"))
}

/// The order stands packed.
#[derive(Serialize, ToSchema)]
struct Packed {
    order_id: String,
    #[schema(example = "packed")]
    status: &'static str,
}

/// Packs an order that is being cooked (manual mode); once more changes nothing.
#[utoipa::path(post, path = "/tickets/{id}/pack", params(("id" = String, Path, description = "The order's id")),
    responses((status = 200, body = Packed),
        (status = 404, description = "The kitchen knows no such order"),
        (status = 409, description = "The order isn't being cooked")))]
async fn pack(
    State(writer): State<Writer>,
    PathParams(id): PathParams<String>,
    headers: HeaderMap,
) -> Result<Json<Packed>, Problem> {
    let Ok(order_id) = Uuid::try_parse(&id).map(|id| id.to_string()) else {
        return Err(Problem::not_found(TicketRejection::Unknown.to_string()));
    };
    let cause = Cause::command(None, trace(&headers));
    let packed = writer.store.handle::<Ticket>(&cause, &order_id, || TicketCommand::Pack, |_| vec![]).await;
    packed.map_err(|error| match error {
        HandleError::Rejected(TicketRejection::Unknown) => Problem::not_found(TicketRejection::Unknown.to_string()),
        HandleError::Rejected(rejection) => Problem::conflict(rejection.to_string()),
        HandleError::Store(error) => Problem::unavailable(&error),
    })?;
    writer.outbox.publish_soon(vec![order_id.clone()]);
    Ok(Json(Packed { order_id, status: "packed" }))
}

fn trace(headers: &HeaderMap) -> TraceContext {
    let header = |name| headers.get(name).and_then(|value| value.to_str().ok());
    TraceContext::current().unwrap_or_else(|| TraceContext::read(header("traceparent"), header("tracestate")))
}
