//! What the order service does about events: it keeps its copy of the menus, and ends orders as the others say.

use async_trait::async_trait;
use event_sourcing::{Statement, Work};
use eventing::{
    Failure, Identity, Incoming, Reactions,
    rebuild::{Replay, Table},
};
use serde::Deserialize;
use sqlx::migrate::Migrator;

use crate::{
    MIGRATIONS, SERVICE,
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
        understands(name)
    }

    async fn react(&self, event: &Incoming, work: &mut Work<'_>) -> Result<(), Failure> {
        let command = match event.to::<Heard>().map_err(Failure::Never)? {
            Heard::MenuPublished { open, currency, menu: items } => {
                work.project(keep_menu(event, &Menu { open, currency, items })?);
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

fn understands(name: &str) -> Option<&'static str> {
    match name {
        "kitchen.menu_published" => Some("v1"),
        "payment.declined" => Some("v1"),
        "kitchen.ticket_rejected" | "kitchen.ticket_cancelled" | "kitchen.cancellation_refused" => Some("v1"),
        "delivery.failed" | "delivery.delivered" => Some("v1"),
        _ => None,
    }
}

fn keep_menu(event: &Incoming, menu: &Menu) -> Result<Statement, Failure> {
    let sequence = event.sequence.ok_or_else(|| Failure::Never("a menu without a sequence".to_owned()))?;
    Ok(menus::keep(&event.subject, sequence, menu))
}

/// How the order service's store is made again from the log: the menus are what it has heard, not what it has said.
pub struct OrderReplay;

impl Replay for OrderReplay {
    fn who(&self) -> Identity {
        SERVICE
    }

    fn migrations(&self) -> Vec<&'static Migrator> {
        vec![&MIGRATIONS]
    }

    fn understands(&self, name: &str) -> Option<&'static str> {
        understands(name)
    }

    fn projections(&self) -> &'static [Table] {
        &[Table { name: "menus", key: &["kitchen_id"], columns: &["sequence", "menu"] }]
    }

    fn keeps(&self, name: &str) -> bool {
        name == "kitchen.menu_published"
    }

    fn heard(&self, event: &Incoming) -> Result<Vec<Statement>, Failure> {
        match event.to::<Heard>().map_err(Failure::Never)? {
            Heard::MenuPublished { open, currency, menu: items } => {
                Ok(vec![keep_menu(event, &Menu { open, currency, items })?])
            }
            Heard::PaymentDeclined {} | Heard::CancellationRefused { .. } | Heard::Delivered {} => Ok(vec![]),
            Heard::TicketRejected { .. } | Heard::TicketCancelled { .. } | Heard::DeliveryFailed { .. } => Ok(vec![]),
        }
    }
}
