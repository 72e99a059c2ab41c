//! What loyalty does about events: it notes what was ordered, and rewards it when it is completed. Both are told by the
//! order's own stream, so they come in this order.

use async_trait::async_trait;
use event_sourcing::Work;
use eventing::{Failure, Identity, Incoming, Reactions, rebuild::Replay};
use serde::Deserialize;

use crate::{
    SERVICE,
    domain::{Account, Earn, Purchase, PurchaseCommand},
};

/// Minor units for which there is a point.
const FOR_A_POINT: i64 = 100;

/// The events loyalty listens to, with the fields it reads and no others.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "type", content = "data")]
pub enum Heard {
    #[serde(rename = "dev.rainstorm.order.placed.v1")]
    OrderPlaced { customer_id: String, total: Total },
    #[serde(rename = "dev.rainstorm.order.completed.v1")]
    OrderCompleted {},
}

/// In minor units; of whatever currency.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Total {
    pub amount: i64,
}

/// Loyalty's reactions.
pub struct LoyaltyReactions;

#[async_trait]
impl Reactions for LoyaltyReactions {
    fn understands(&self, name: &str) -> Option<&'static str> {
        understands(name)
    }

    async fn react(&self, event: &Incoming, work: &mut Work<'_>) -> Result<(), Failure> {
        let heard = event.to::<Heard>().map_err(Failure::Never)?;
        let mut purchase = work.load::<Purchase>(&event.subject).await?;
        match (heard, purchase.state.clone()) {
            (Heard::OrderPlaced { customer_id, total }, _) => {
                let points = total.amount / FOR_A_POINT;
                Ok(work.execute(&mut purchase, PurchaseCommand::Note { customer_id, points })?)
            }
            (Heard::OrderCompleted {}, Purchase::Noted { customer_id, points }) => {
                let mut account = work.load::<Account>(&account_of(&customer_id)).await?;
                work.execute(&mut purchase, PurchaseCommand::Reward)?;
                Ok(work.execute(&mut account, Earn { order_id: event.subject.clone(), points })?)
            }
            (Heard::OrderCompleted {}, Purchase::Unknown | Purchase::Rewarded) => Ok(()),
        }
    }
}

/// The stream of a customer's account: never an order's, and of characters that any attribute may have.
#[must_use]
pub fn account_of(customer_id: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let letter = |byte: u8| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    format!("account:{}", customer_id.bytes().map(letter).collect::<String>())
}

fn understands(name: &str) -> Option<&'static str> {
    matches!(name, "order.placed" | "order.completed").then_some("v1")
}

/// How loyalty's store is made again from the log: it keeps nothing beside its events.
pub struct LoyaltyReplay;

impl Replay for LoyaltyReplay {
    fn who(&self) -> Identity {
        SERVICE
    }

    fn understands(&self, name: &str) -> Option<&'static str> {
        understands(name)
    }
}
