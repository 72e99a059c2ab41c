//! A purchase is noted when its order is placed, and rewarded once, when it is completed; its points go to its
//! customer's account in the same transaction.

use std::convert::Infallible;

use event_sourcing::{Decider, DomainEvent};
use serde::{Deserialize, Serialize};

/// What happens to a purchase, in the order's stream. The names in quotes are what is stored and published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", content = "data")]
pub enum PurchaseEvent {
    #[serde(rename = "dev.rainstorm.loyalty.purchase_noted.v1")]
    Noted { customer_id: String, points: i64 },
    #[serde(rename = "dev.rainstorm.loyalty.purchase_rewarded.v1")]
    Rewarded {},
}

impl DomainEvent for PurchaseEvent {}

/// How far a purchase has come.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Purchase {
    #[default]
    Unknown,
    Noted {
        customer_id: String,
        points: i64,
    },
    Rewarded,
}

/// What is asked of a purchase.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PurchaseCommand {
    Note { customer_id: String, points: i64 },
    Reward,
}

impl Decider for Purchase {
    type Event = PurchaseEvent;
    type Command = PurchaseCommand;
    type Rejection = Infallible;

    fn evolve(self, event: PurchaseEvent) -> Self {
        match event {
            PurchaseEvent::Noted { customer_id, points } => Self::Noted { customer_id, points },
            PurchaseEvent::Rewarded {} => Self::Rewarded,
        }
    }

    fn decide(&self, command: PurchaseCommand) -> Result<Vec<PurchaseEvent>, Infallible> {
        Ok(match (self, command) {
            (Self::Unknown, PurchaseCommand::Note { customer_id, points }) => {
                vec![PurchaseEvent::Noted { customer_id, points }]
            }
            (Self::Noted { .. }, PurchaseCommand::Reward) => vec![PurchaseEvent::Rewarded {}],
            (Self::Noted { .. } | Self::Rewarded, PurchaseCommand::Note { .. }) => vec![],
            (Self::Unknown | Self::Rewarded, PurchaseCommand::Reward) => vec![],
        })
    }
}

/// What happens to a customer's account, in a stream of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", content = "data")]
pub enum AccountEvent {
    #[serde(rename = "dev.rainstorm.loyalty.points_earned.v1")]
    PointsEarned { order_id: String, points: i64, balance: i64 },
}

impl DomainEvent for AccountEvent {}

/// A customer's account.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Account {
    pub balance: i64,
}

/// What is asked of an account. Each purchase asks once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Earn {
    pub order_id: String,
    pub points: i64,
}

impl Decider for Account {
    type Event = AccountEvent;
    type Command = Earn;
    type Rejection = Infallible;

    /// Each event says the balance.
    const EACH_EVENT_IS_COMPLETE: bool = true;

    fn evolve(self, AccountEvent::PointsEarned { balance, .. }: AccountEvent) -> Self {
        Self { balance }
    }

    fn decide(&self, Earn { order_id, points }: Earn) -> Result<Vec<AccountEvent>, Infallible> {
        let balance = self.balance.saturating_add(points);
        Ok(if points > 0 { vec![AccountEvent::PointsEarned { order_id, points, balance }] } else { vec![] })
    }
}

#[cfg(test)]
mod specification {
    use event_sourcing::specification::given;

    use super::*;

    fn note() -> PurchaseCommand {
        PurchaseCommand::Note { customer_id: "ada".into(), points: 9 }
    }

    fn noted() -> PurchaseEvent {
        PurchaseEvent::Noted { customer_id: "ada".into(), points: 9 }
    }

    #[test]
    fn a_purchase_is_rewarded_once_and_only_if_it_is_known() {
        given::<Purchase>([]).when(note()).then([noted()]);
        given::<Purchase>([noted()]).when(note()).then_nothing();
        given::<Purchase>([noted()]).when(PurchaseCommand::Reward).then([PurchaseEvent::Rewarded {}]);
        given::<Purchase>([noted(), PurchaseEvent::Rewarded {}]).when(PurchaseCommand::Reward).then_nothing();
        given::<Purchase>([]).when(PurchaseCommand::Reward).then_nothing();
    }

    #[test]
    fn an_account_says_its_balance_with_every_purchase() {
        let earn = |points| Earn { order_id: "a".into(), points };
        let earned = |points, balance| AccountEvent::PointsEarned { order_id: "a".into(), points, balance };
        given::<Account>([]).when(earn(9)).then([earned(9, 9)]);
        given::<Account>([earned(9, 9)]).when(earn(3)).then([earned(3, 12)]);
        given::<Account>([]).when(earn(0)).then_nothing();
    }
}
