//! The views as pure folds: what the events of all services together say about an order, a kitchen, a driver.
//!
//! Events of different services overtake each other, so an order's view must not depend on how their streams are
//! interleaved: its status is the furthest that anybody has reported. Within one stream only the next event is applied.

use std::collections::BTreeMap;

use eventing::Incoming;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use utoipa::ToSchema;

/// What an event did to a view.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Applied {
    /// It was the next one.
    Changed,
    /// It was applied before.
    Repeated,
    /// An earlier one of its stream is still missing.
    TooEarly { expected: i64 },
    /// It can't be read.
    Unreadable(String),
}

/// A fold with a row of its own.
pub trait View: Default + Clone + Serialize + DeserializeOwned + Send + Sync {
    /// The number of the newest event applied from `source`; 0 if none was.
    fn sequence(&mut self, source: &str) -> &mut i64;

    /// Folds the next event in.
    ///
    /// # Errors
    /// Why it can't be read; then nothing has changed.
    fn fold(&mut self, event: &Incoming) -> Result<(), String>;

    /// Applies the event if it is the next of its stream.
    fn apply(&mut self, event: &Incoming) -> Applied {
        let Some(sequence) = event.sequence else {
            return Applied::Unreadable("the event has no sequence, so its place in its stream is unknown".to_owned());
        };
        let expected = *self.sequence(&event.source) + 1;
        match sequence {
            repeated if repeated < expected => Applied::Repeated,
            next if next == expected => match self.fold(event) {
                Ok(()) => {
                    *self.sequence(&event.source) = sequence;
                    Applied::Changed
                }
                Err(reason) => Applied::Unreadable(reason),
            },
            _ => Applied::TooEarly { expected },
        }
    }
}

// ---- Orders ---------------------------------------------------------------------------------------------------------

/// An amount in minor units (cents) of an ISO 4217 currency.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Money {
    pub amount: i64,
    pub currency: String,
}

/// So many of one item.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Line {
    pub item_id: String,
    pub name: String,
    pub quantity: u32,
    /// In minor units.
    pub unit_price: i64,
}

/// How far an order has come. The variants stand in the order in which they are reached.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    #[default]
    Placed,
    Paid,
    Cooking,
    Packed,
    OutForDelivery,
    Delivered,
    Completed,
    Cancelled,
}

impl Status {
    /// As it is written everywhere.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Placed => "placed",
            Self::Paid => "paid",
            Self::Cooking => "cooking",
            Self::Packed => "packed",
            Self::OutForDelivery => "out_for_delivery",
            Self::Delivered => "delivered",
            Self::Completed => "completed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// What became of the wish to cancel, or of the order without anybody's wish.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Cancellation {
    pub requested_at: Option<String>,
    pub refused_at: Option<String>,
    pub cancelled_at: Option<String>,
    /// Why the order was cancelled.
    pub reason: Option<String>,
}

/// What the events of all services say about an order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderView {
    pub status: Status,
    /// When the status was reached.
    pub since: String,
    pub customer_id: String,
    pub kitchen_id: String,
    pub items: Vec<Line>,
    pub total: Option<Money>,
    /// In minor units of the total's currency.
    pub captured: i64,
    pub refunded: i64,
    pub cancellation: Option<Cancellation>,
    pub placed_at: Option<String>,
    pub ended_at: Option<String>,
    /// By source, what this was computed from.
    pub sequences: BTreeMap<String, i64>,
}

/// The events that an order's view is made of, with the fields it reads and no others.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "type", content = "data")]
pub enum OfOrder {
    #[serde(rename = "dev.rainstorm.order.placed.v1")]
    Placed { customer_id: String, kitchen_id: String, items: Vec<Line>, total: Money },
    #[serde(rename = "dev.rainstorm.order.cancellation_requested.v1")]
    CancellationRequested {},
    #[serde(rename = "dev.rainstorm.order.cancellation_refused.v1")]
    CancellationRefused {},
    #[serde(rename = "dev.rainstorm.order.cancelled.v1")]
    Cancelled { reason: String },
    #[serde(rename = "dev.rainstorm.order.completed.v1")]
    Completed {},
    #[serde(rename = "dev.rainstorm.payment.confirmed.v1")]
    PaymentConfirmed { amount: Money },
    #[serde(rename = "dev.rainstorm.payment.refunded.v1")]
    PaymentRefunded { amount: Money },
    #[serde(rename = "dev.rainstorm.kitchen.ticket_accepted.v1")]
    TicketAccepted {},
    #[serde(rename = "dev.rainstorm.kitchen.order_packed.v1")]
    OrderPacked {},
    #[serde(rename = "dev.rainstorm.delivery.out_for_delivery.v1")]
    OutForDelivery {},
    #[serde(rename = "dev.rainstorm.delivery.delivered.v1")]
    Delivered {},
}

/// The events that stand in an order's timeline and say nothing more to its view.
const TIMELINE_ONLY: [&str; 13] = [
    "payment.declined",
    "payment.voided",
    "payment.charge_owed",
    "payment.refund_owed",
    "kitchen.ticket_created",
    "kitchen.payment_noted",
    "kitchen.ticket_rejected",
    "kitchen.ticket_cancelled",
    "kitchen.cancellation_refused",
    "delivery.requested",
    "delivery.order_ready",
    "delivery.driver_assigned",
    "delivery.failed",
];

impl OrderView {
    fn reach(&mut self, status: Status, time: &str) {
        if status > self.status || self.since.is_empty() {
            self.status = status;
            time.clone_into(&mut self.since);
        }
        if status >= Status::Completed {
            self.ended_at = Some(time.to_owned());
        }
    }

    fn cancellation(&mut self) -> &mut Cancellation {
        self.cancellation.get_or_insert_default()
    }
}

impl View for OrderView {
    fn sequence(&mut self, source: &str) -> &mut i64 {
        self.sequences.entry(source.to_owned()).or_insert(0)
    }

    fn fold(&mut self, event: &Incoming) -> Result<(), String> {
        let name = eventing::name_and_version(&event.event_type).map(|(name, _)| name).unwrap_or_default();
        if TIMELINE_ONLY.contains(&name) {
            return Ok(());
        }
        let time = &event.time;
        match event.to::<OfOrder>()? {
            OfOrder::Placed { customer_id, kitchen_id, items, total } => {
                (self.customer_id, self.kitchen_id, self.items) = (customer_id, kitchen_id, items);
                self.total = Some(total);
                self.placed_at = Some(time.clone());
                self.reach(Status::Placed, time);
            }
            OfOrder::CancellationRequested {} => self.cancellation().requested_at = Some(time.clone()),
            OfOrder::CancellationRefused {} => self.cancellation().refused_at = Some(time.clone()),
            OfOrder::Cancelled { reason } => {
                self.cancellation().reason = Some(reason);
                self.cancellation().cancelled_at = Some(time.clone());
                self.reach(Status::Cancelled, time);
            }
            OfOrder::Completed {} => self.reach(Status::Completed, time),
            OfOrder::PaymentConfirmed { amount } => {
                self.captured += amount.amount;
                self.reach(Status::Paid, time);
            }
            OfOrder::PaymentRefunded { amount } => self.refunded += amount.amount,
            OfOrder::TicketAccepted {} => self.reach(Status::Cooking, time),
            OfOrder::OrderPacked {} => self.reach(Status::Packed, time),
            OfOrder::OutForDelivery {} => self.reach(Status::OutForDelivery, time),
            OfOrder::Delivered {} => self.reach(Status::Delivered, time),
        }
        Ok(())
    }
}

// ---- Kitchens and drivers -------------------------------------------------------------------------------------------

/// One dish on a menu.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Dish {
    pub item_id: String,
    pub name: String,
    /// In minor units of the menu's currency.
    pub price: i64,
    pub available: bool,
}

/// What a kitchen last published.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KitchenView {
    pub name: String,
    pub open: bool,
    pub currency: String,
    pub menu: Vec<Dish>,
    pub sequence: i64,
}

/// The event that a kitchen's view is made of.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "type", content = "data")]
pub enum OfKitchen {
    #[serde(rename = "dev.rainstorm.kitchen.menu_published.v1")]
    MenuPublished { name: String, open: bool, currency: String, menu: Vec<Dish> },
}

impl View for KitchenView {
    fn sequence(&mut self, _: &str) -> &mut i64 {
        &mut self.sequence
    }

    fn fold(&mut self, event: &Incoming) -> Result<(), String> {
        let OfKitchen::MenuPublished { name, open, currency, menu } = event.to()?;
        (self.name, self.open, self.currency, self.menu) = (name, open, currency, menu);
        Ok(())
    }
}

/// What a driver is doing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DriverView {
    pub on_shift: bool,
    /// The order that is being carried.
    pub order_id: Option<String>,
    pub sequence: i64,
}

/// The events that a driver's view is made of.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "type", content = "data")]
pub enum OfDriver {
    #[serde(rename = "dev.rainstorm.delivery.driver_on_shift.v1")]
    OnShift {},
    #[serde(rename = "dev.rainstorm.delivery.driver_off_shift.v1")]
    OffShift {},
    #[serde(rename = "dev.rainstorm.delivery.driver_engaged.v1")]
    Engaged { order_id: String },
    #[serde(rename = "dev.rainstorm.delivery.driver_released.v1")]
    Released {},
}

impl View for DriverView {
    fn sequence(&mut self, _: &str) -> &mut i64 {
        &mut self.sequence
    }

    fn fold(&mut self, event: &Incoming) -> Result<(), String> {
        match event.to()? {
            OfDriver::OnShift {} => self.on_shift = true,
            OfDriver::OffShift {} => self.on_shift = false,
            OfDriver::Engaged { order_id } => self.order_id = Some(order_id),
            OfDriver::Released {} => self.order_id = None,
        }
        Ok(())
    }
}

/// Which view an event belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Order,
    Kitchen,
    Driver,
}

impl Kind {
    /// The kind of view that events of this name (`order.placed`) change; `None` if no view knows it.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        match name {
            "kitchen.menu_published" => Some(Self::Kitchen),
            "delivery.driver_on_shift" | "delivery.driver_off_shift" => Some(Self::Driver),
            "delivery.driver_engaged" | "delivery.driver_released" => Some(Self::Driver),
            "order.placed" | "order.cancellation_requested" | "order.cancellation_refused" => Some(Self::Order),
            "order.cancelled" | "order.completed" => Some(Self::Order),
            "payment.confirmed" | "payment.refunded" => Some(Self::Order),
            "kitchen.ticket_accepted" | "kitchen.order_packed" => Some(Self::Order),
            "delivery.out_for_delivery" | "delivery.delivered" => Some(Self::Order),
            other => TIMELINE_ONLY.contains(&other).then_some(Self::Order),
        }
    }
}
