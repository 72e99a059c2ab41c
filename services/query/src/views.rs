//! The views as pure folds: what the events of all services together say about an order, a kitchen, a driver.
//!
//! Events of different services overtake each other, so an order's view must not depend on how their streams are
//! interleaved: its status is the furthest that anybody has reported. Within one stream only the next event is applied.

use eventing::Incoming;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use utoipa::ToSchema;

mod order;

use order::TIMELINE_ONLY;
pub use order::{Cancellation, Line, Money, OfOrder, OrderView, Status};

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
    fn sequence(&self, source: &str) -> i64;

    /// From now on `sequence` is the number of the newest event applied from `source`.
    fn advance(&mut self, source: &str, sequence: i64);

    /// Folds the next event in.
    ///
    /// # Errors
    /// Why it can't be read; then nothing has changed.
    fn fold(&mut self, event: &Incoming) -> Result<(), String>;

    /// Applies the event if it is the next of its stream.
    fn apply(&mut self, event: &Incoming) -> Applied {
        self.take(event, |view| view.fold(event))
    }

    /// Goes past the event if it is the next of its stream: it was discarded, and the ones behind it count.
    fn skip(&mut self, event: &Incoming) -> Applied {
        self.take(event, |_| Ok(()))
    }

    /// Does something about the event if it is the next of its stream.
    fn take(&mut self, event: &Incoming, with: impl FnOnce(&mut Self) -> Result<(), String>) -> Applied {
        let Some(sequence) = event.sequence else {
            return Applied::Unreadable("the event has no sequence, so its place in its stream is unknown".to_owned());
        };
        let expected = self.sequence(&event.source) + 1;
        match sequence {
            repeated if repeated < expected => Applied::Repeated,
            next if next == expected => match with(self) {
                Ok(()) => {
                    self.advance(&event.source, sequence);
                    Applied::Changed
                }
                Err(reason) => Applied::Unreadable(reason),
            },
            _ => Applied::TooEarly { expected },
        }
    }
}

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
    fn sequence(&self, _: &str) -> i64 {
        self.sequence
    }

    fn advance(&mut self, _: &str, sequence: i64) {
        self.sequence = sequence;
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
    fn sequence(&self, _: &str) -> i64 {
        self.sequence
    }

    fn advance(&mut self, _: &str, sequence: i64) {
        self.sequence = sequence;
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
