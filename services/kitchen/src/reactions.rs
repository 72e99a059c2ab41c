//! What the kitchen does about events. Order and payment come from two topics and overtake each other; the ticket
//! remembers the first of the two, and whichever comes second is answered with accepted or rejected.

use async_trait::async_trait;
use event_sourcing::Work;
use eventing::{Failure, Identity, Incoming, Reactions, rebuild::Replay};
use serde::Deserialize;

use crate::{
    Cooking, SERVICE,
    domain::{CancellationReason, Kitchen, Ticket, TicketCommand, TicketItem},
};

/// The events the kitchen listens to, with the fields it reads and no others.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "type", content = "data")]
pub enum Heard {
    #[serde(rename = "dev.rainstorm.order.placed.v1")]
    OrderPlaced { kitchen_id: String, items: Vec<TicketItem> },
    #[serde(rename = "dev.rainstorm.order.cancellation_requested.v1")]
    CancellationRequested {},
    #[serde(rename = "dev.rainstorm.payment.confirmed.v1")]
    PaymentConfirmed {},
    #[serde(rename = "dev.rainstorm.payment.declined.v1")]
    PaymentDeclined {},
    #[serde(rename = "dev.rainstorm.kitchen.ticket_accepted.v1")]
    TicketAccepted {},
}

/// The kitchen's reactions.
pub struct KitchenReactions {
    pub cooking: Cooking,
}

#[async_trait]
impl Reactions for KitchenReactions {
    fn understands(&self, name: &str) -> Option<&'static str> {
        understands(name)
    }

    async fn react(&self, event: &Incoming, work: &mut Work<'_>) -> Result<(), Failure> {
        let heard = event.to::<Heard>().map_err(Failure::Never)?;
        let mut ticket = work.load::<Ticket>(&event.subject).await?;
        let command = match heard {
            Heard::OrderPlaced { kitchen_id, items } => {
                let kitchen = work.load::<Kitchen>(&kitchen_id).await?.state;
                TicketCommand::Create { kitchen_id, items, kitchen }
            }
            Heard::PaymentConfirmed {} => {
                let kitchen = match ticket.state.kitchen_id() {
                    Some(kitchen_id) => work.load::<Kitchen>(kitchen_id).await?.state,
                    None => Kitchen::Unknown,
                };
                TicketCommand::NotePayment { kitchen }
            }
            Heard::CancellationRequested {} => TicketCommand::Cancel { reason: CancellationReason::CustomerRequest },
            Heard::PaymentDeclined {} => TicketCommand::Cancel { reason: CancellationReason::PaymentDeclined },
            Heard::TicketAccepted {} => match self.cooking {
                Cooking::Takes(time) if ticket.state.is_cooking() => {
                    // This is the simulated cook at work; nothing is waited for. If the ticket is cancelled meanwhile,
                    // packing conflicts with that, and this reaction runs again and sees it.
                    work.pause(time).await;
                    TicketCommand::Pack
                }
                Cooking::Takes(_) | Cooking::Manual => return Ok(()),
            },
        };
        Ok(work.execute(&mut ticket, command)?)
    }
}

fn understands(name: &str) -> Option<&'static str> {
    match name {
        "order.placed" | "order.cancellation_requested" => Some("v1"),
        "payment.confirmed" | "payment.declined" => Some("v1"),
        "kitchen.ticket_accepted" => Some("v1"),
        _ => None,
    }
}

/// How the kitchen's store is made again from the log: it keeps nothing beside its events.
pub struct KitchenReplay;

impl Replay for KitchenReplay {
    fn who(&self) -> Identity {
        SERVICE
    }

    fn understands(&self, name: &str) -> Option<&'static str> {
        understands(name)
    }
}
