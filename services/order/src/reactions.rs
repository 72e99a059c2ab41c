//! What the order service does about events: it keeps its copy of the menus, and ends orders as the others say.

use async_trait::async_trait;
use event_sourcing::Work;
use eventing::{Failure, Incoming, Reactions};
use serde::Deserialize;

use crate::{
    domain::{CancellationReason, Menu, MenuItem, Order, OrderCommand},
    menus,
};

/// The events the order service listens to, with the fields it reads and no others.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "type", content = "data")]
pub enum Heard {
    #[serde(rename = "dev.rainstorm.kitchen.menu_published.v1")]
    MenuPublished { open: bool, currency: String, menu: Vec<MenuItem> },
    #[serde(rename = "dev.rainstorm.payment.declined.v1")]
    PaymentDeclined {},
    #[serde(rename = "dev.rainstorm.kitchen.ticket_rejected.v1")]
    TicketRejected { reason: CancellationReason },
    #[serde(rename = "dev.rainstorm.kitchen.ticket_cancelled.v1")]
    TicketCancelled { reason: CancellationReason },
    #[serde(rename = "dev.rainstorm.kitchen.cancellation_refused.v1")]
    CancellationRefused { reason: String },
    #[serde(rename = "dev.rainstorm.delivery.failed.v1")]
    DeliveryFailed { reason: CancellationReason },
    #[serde(rename = "dev.rainstorm.delivery.delivered.v1")]
    Delivered {},
}

/// The order service's reactions.
pub struct OrderReactions;

#[async_trait]
impl Reactions for OrderReactions {
    fn understands(&self, name: &str) -> Option<&'static str> {
        match name {
            "kitchen.menu_published" => Some("v1"),
            "payment.declined" => Some("v1"),
            "kitchen.ticket_rejected" | "kitchen.ticket_cancelled" | "kitchen.cancellation_refused" => Some("v1"),
            "delivery.failed" | "delivery.delivered" => Some("v1"),
            _ => None,
        }
    }

    async fn react(&self, event: &Incoming, work: &mut Work<'_>) -> Result<(), Failure> {
        let command = match event.to::<Heard>().map_err(Failure::Never)? {
            Heard::MenuPublished { open, currency, menu: items } => {
                let sequence = event.sequence.ok_or_else(|| Failure::Never("a menu without a sequence".to_owned()))?;
                work.project(menus::keep(&event.subject, sequence, &Menu { open, currency, items }));
                return Ok(());
            }
            Heard::PaymentDeclined {} => OrderCommand::Cancel { reason: CancellationReason::PaymentDeclined },
            Heard::TicketRejected { reason } | Heard::TicketCancelled { reason } | Heard::DeliveryFailed { reason } => {
                OrderCommand::Cancel { reason }
            }
            Heard::CancellationRefused { reason } => OrderCommand::RefuseCancellation { reason },
            Heard::Delivered {} => OrderCommand::Complete,
        };
        let mut order = work.load::<Order>(&event.subject).await?;
        Ok(work.execute(&mut order, command)?)
    }
}
