//! The shapes of the answers, and how they are made of the views.

use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    timeline::Step,
    views::{Cancellation, Dish, Line, Money, OrderView, Status, View},
};

/// The source of the orders' own streams.
pub const ORDERS: &str = "/orders";

/// An order, and everything that happened to it.
#[derive(Serialize, ToSchema)]
pub struct OrderDetails {
    #[serde(flatten)]
    pub order: OrderSummary,
    pub items: Vec<Line>,
    pub money: MoneyMoved,
    /// When the status was reached.
    pub since: String,
    /// The version of the order's own stream that this shows.
    pub sequence: i64,
    pub timeline: Vec<Step>,
}

/// An order in a list.
#[derive(Serialize, ToSchema)]
pub struct OrderSummary {
    pub order_id: String,
    pub customer_id: String,
    pub kitchen_id: String,
    pub status: Status,
    pub total: Option<Money>,
    pub placed_at: Option<String>,
    /// When it was completed or cancelled.
    pub ended_at: Option<String>,
    pub cancellation: Option<Cancellation>,
}

/// What moved between the customer's card and us.
#[derive(Serialize, ToSchema)]
pub struct MoneyMoved {
    pub captured: Money,
    pub refunded: Money,
}

/// Orders, newest first.
#[derive(Serialize, ToSchema)]
pub struct OrderPage {
    pub orders: Vec<OrderSummary>,
    /// Ask with this for the next page; null on the last.
    pub cursor: Option<String>,
}

/// A kitchen and what there is to eat.
#[derive(Serialize, ToSchema)]
pub struct KitchenDetails {
    pub kitchen_id: String,
    pub name: String,
    pub open: bool,
    pub currency: String,
    pub menu: Vec<Dish>,
}

/// What a kitchen has to do.
#[derive(Serialize, ToSchema)]
pub struct Board {
    pub kitchen_id: String,
    pub name: String,
    pub open: bool,
    /// Oldest first.
    pub tickets: Vec<Ticket>,
}

/// An order on a kitchen's board.
#[derive(Serialize, ToSchema)]
pub struct Ticket {
    pub order_id: String,
    pub status: Status,
    pub since: String,
    pub items: Vec<Line>,
}

/// What a driver is doing.
#[derive(Serialize, ToSchema)]
pub struct DriverDetails {
    pub driver_id: String,
    pub on_shift: bool,
    /// The order that is being carried.
    pub order_id: Option<String>,
}

/// An order in a list.
#[must_use]
pub fn summary(order_id: String, view: &OrderView) -> OrderSummary {
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

/// An order by itself.
#[must_use]
pub fn details(order_id: String, view: OrderView, timeline: Vec<Step>) -> OrderDetails {
    let sequence = view.sequence(ORDERS);
    let currency = view.total.as_ref().map_or_else(String::new, |total| total.currency.clone());
    let money = |amount| Money { amount, currency: currency.clone() };
    let moved = MoneyMoved { captured: money(view.captured), refunded: money(view.refunded) };
    let order = summary(order_id, &view);
    OrderDetails { order, items: view.items, money: moved, since: view.since, sequence, timeline }
}
