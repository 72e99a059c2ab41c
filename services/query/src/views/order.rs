//! What the events of all services together say about one order.

use std::collections::BTreeMap;

use eventing::Incoming;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::View;

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
    /// All of them, in the order in which they are reached.
    pub const ALL: [Self; 8] = [
        Self::Placed,
        Self::Paid,
        Self::Cooking,
        Self::Packed,
        Self::OutForDelivery,
        Self::Delivered,
        Self::Completed,
        Self::Cancelled,
    ];

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
    /// When each status was reached, in microseconds since 1970; in the order of [`Status::ALL`].
    #[serde(default)]
    pub reached: [Option<i64>; Status::ALL.len()],
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
pub(super) const TIMELINE_ONLY: [&str; 13] = [
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
    /// When a status was reached, in microseconds since 1970.
    #[must_use]
    pub fn reached(&self, status: Status) -> Option<i64> {
        self.reached[status as usize]
    }

    fn reach(&mut self, status: Status, time: &str) {
        self.reached[status as usize] = time.parse::<Timestamp>().ok().map(Timestamp::as_microsecond);
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
    fn sequence(&self, source: &str) -> i64 {
        self.sequences.get(source).copied().unwrap_or(0)
    }

    fn advance(&mut self, source: &str, sequence: i64) {
        self.sequences.insert(source.to_owned(), sequence);
    }

    fn fold(&mut self, event: &Incoming) -> Result<(), String> {
        let name = eventing::name_and_version(&event.event_type).map(|(name, _)| name).unwrap_or_default();
        if TIMELINE_ONLY.contains(&name) {
            return Ok(());
        }
        let time = &event.time;
        match event.to::<OfOrder>()? {
            OfOrder::Placed { customer_id, kitchen_id, items, total } => {
                // These two become columns, and PostgreSQL's text has no room for it.
                if [&customer_id, &kitchen_id].iter().any(|id| id.contains('\0')) {
                    return Err("customer_id and kitchen_id must not contain NUL".to_owned());
                }
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
                self.captured = sum(self.captured, &amount)?;
                self.reach(Status::Paid, time);
            }
            OfOrder::PaymentRefunded { amount } => self.refunded = sum(self.refunded, &amount)?,
            OfOrder::TicketAccepted {} => self.reach(Status::Cooking, time),
            OfOrder::OrderPacked {} => self.reach(Status::Packed, time),
            OfOrder::OutForDelivery {} => self.reach(Status::OutForDelivery, time),
            OfOrder::Delivered {} => self.reach(Status::Delivered, time),
        }
        Ok(())
    }
}

fn sum(so_far: i64, more: &Money) -> Result<i64, String> {
    so_far.checked_add(more.amount).ok_or_else(|| "the sum of the amounts is beyond what can be counted".to_owned())
}
