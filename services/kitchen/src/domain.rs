//! A ticket is one order in one kitchen. It is cooked once two facts are there, whichever comes first: what to cook,
//! and that it is paid for. Packing it is the point of no return: until then it can be cancelled, and never after.

use event_sourcing::{Decider, DomainEvent};
use serde::{Deserialize, Serialize};

mod menu;

pub use menu::{Kitchen, KitchenCommand, KitchenEvent, KitchenRejection, MenuItem};

/// What happens to a ticket, in the order's stream. The names in quotes are what is stored and published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", content = "data")]
pub enum TicketEvent {
    #[serde(rename = "dev.rainstorm.kitchen.ticket_created.v1")]
    TicketCreated { kitchen_id: String, items: Vec<TicketItem> },
    #[serde(rename = "dev.rainstorm.kitchen.payment_noted.v1")]
    PaymentNoted {},
    #[serde(rename = "dev.rainstorm.kitchen.ticket_accepted.v1")]
    TicketAccepted { kitchen_id: String },
    #[serde(rename = "dev.rainstorm.kitchen.ticket_rejected.v1")]
    TicketRejected { reason: RejectionReason },
    #[serde(rename = "dev.rainstorm.kitchen.ticket_cancelled.v1")]
    TicketCancelled { reason: CancellationReason },
    #[serde(rename = "dev.rainstorm.kitchen.cancellation_refused.v1")]
    CancellationRefused { reason: RefusalReason },
    #[serde(rename = "dev.rainstorm.kitchen.order_packed.v1")]
    OrderPacked { kitchen_id: String },
}

impl DomainEvent for TicketEvent {}

/// What to cook, and how many of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TicketItem {
    pub item_id: String,
    pub name: String,
    pub quantity: u32,
}

/// Why a kitchen doesn't cook a paid ticket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RejectionReason {
    KitchenClosed,
    SoldOut,
}

/// Why somebody wants a ticket cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CancellationReason {
    CustomerRequest,
    PaymentDeclined,
}

/// Why a ticket is not cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalReason {
    Packed,
}

/// How far a ticket has come.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Ticket {
    #[default]
    Unknown,
    /// Waits for the payment.
    Created {
        kitchen_id: String,
        items: Vec<TicketItem>,
    },
    /// Waits for the order.
    PaymentNoted,
    Cooking {
        kitchen_id: String,
        items: Vec<TicketItem>,
    },
    Packed {
        cancellation_refused: bool,
    },
    Rejected,
    Cancelled,
}

impl Ticket {
    /// The kitchen of a ticket that waits for its payment or is being cooked.
    #[must_use]
    pub fn kitchen_id(&self) -> Option<&str> {
        match self {
            Self::Created { kitchen_id, .. } | Self::Cooking { kitchen_id, .. } => Some(kitchen_id),
            Self::Unknown | Self::PaymentNoted | Self::Packed { .. } | Self::Rejected | Self::Cancelled => None,
        }
    }

    /// What is still to be cooked.
    #[must_use]
    pub fn items(&self) -> &[TicketItem] {
        match self {
            Self::Created { items, .. } | Self::Cooking { items, .. } => items,
            Self::Unknown | Self::PaymentNoted | Self::Packed { .. } | Self::Rejected | Self::Cancelled => &[],
        }
    }

    #[must_use]
    pub fn is_cooking(&self) -> bool {
        matches!(self, Self::Cooking { .. })
    }
}

/// What the kitchen is asked to do about an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TicketCommand {
    /// The order is known; `kitchen` is the kitchen it was placed with, as it is now.
    Create {
        kitchen_id: String,
        items: Vec<TicketItem>,
        kitchen: Kitchen,
    },
    /// The order is paid for; `kitchen` is that of [`Ticket::kitchen_id`] as it is now, and `Unknown` without one.
    NotePayment {
        kitchen: Kitchen,
    },
    Cancel {
        reason: CancellationReason,
    },
    Pack,
}

/// Why a ticket can't be packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TicketRejection {
    #[error("there is no such ticket")]
    Unknown,
    #[error("the ticket is not paid for yet")]
    NotPaid,
    #[error("the ticket is paid for, but its order has not arrived yet")]
    NotOrdered,
    #[error("the kitchen rejected this ticket")]
    Rejected,
    #[error("the ticket was cancelled")]
    Cancelled,
}

impl Decider for Ticket {
    type Event = TicketEvent;
    type Command = TicketCommand;
    type Rejection = TicketRejection;

    fn evolve(self, event: TicketEvent) -> Self {
        match event {
            TicketEvent::TicketCreated { kitchen_id, items } => Self::Created { kitchen_id, items },
            TicketEvent::PaymentNoted {} => Self::PaymentNoted,
            TicketEvent::TicketAccepted { .. } => match self {
                Self::Created { kitchen_id, items } => Self::Cooking { kitchen_id, items },
                // Nothing else is ever accepted.
                Self::Unknown | Self::PaymentNoted | Self::Cooking { .. } => self,
                Self::Packed { .. } | Self::Rejected | Self::Cancelled => self,
            },
            TicketEvent::TicketRejected { .. } => Self::Rejected,
            TicketEvent::TicketCancelled { .. } => Self::Cancelled,
            TicketEvent::OrderPacked { .. } => Self::Packed { cancellation_refused: false },
            TicketEvent::CancellationRefused { .. } => Self::Packed { cancellation_refused: true },
        }
    }

    fn decide(&self, command: TicketCommand) -> Result<Vec<TicketEvent>, TicketRejection> {
        match command {
            TicketCommand::Create { kitchen_id, items, kitchen } => Ok(match self {
                Self::Unknown => vec![TicketEvent::TicketCreated { kitchen_id, items }],
                Self::PaymentNoted => {
                    let answer = accept_or_reject(&kitchen_id, &items, &kitchen);
                    vec![TicketEvent::TicketCreated { kitchen_id, items }, answer]
                }
                Self::Created { .. } | Self::Cooking { .. } => vec![],
                Self::Packed { .. } | Self::Rejected | Self::Cancelled => vec![],
            }),
            TicketCommand::NotePayment { kitchen } => Ok(match self {
                Self::Unknown => vec![TicketEvent::PaymentNoted {}],
                Self::Created { kitchen_id, items } => vec![accept_or_reject(kitchen_id, items, &kitchen)],
                Self::PaymentNoted | Self::Cooking { .. } => vec![],
                Self::Packed { .. } | Self::Rejected | Self::Cancelled => vec![],
            }),
            TicketCommand::Cancel { reason } => Ok(match (self, reason) {
                // What comes after an early cancellation finds the ticket cancelled, and does nothing.
                (Self::Unknown | Self::Created { .. } | Self::PaymentNoted | Self::Cooking { .. }, reason) => {
                    vec![TicketEvent::TicketCancelled { reason }]
                }
                (Self::Packed { cancellation_refused: false }, CancellationReason::CustomerRequest) => {
                    vec![TicketEvent::CancellationRefused { reason: RefusalReason::Packed }]
                }
                // Only what is paid for is cooked, so no declined payment asks for an answer here.
                (Self::Packed { cancellation_refused: false }, CancellationReason::PaymentDeclined) => vec![],
                (Self::Packed { cancellation_refused: true } | Self::Rejected | Self::Cancelled, _) => vec![],
            }),
            TicketCommand::Pack => match self {
                Self::Cooking { kitchen_id, .. } => {
                    Ok(vec![TicketEvent::OrderPacked { kitchen_id: kitchen_id.clone() }])
                }
                Self::Packed { .. } => Ok(vec![]),
                Self::Unknown => Err(TicketRejection::Unknown),
                Self::Created { .. } => Err(TicketRejection::NotPaid),
                Self::PaymentNoted => Err(TicketRejection::NotOrdered),
                Self::Rejected => Err(TicketRejection::Rejected),
                Self::Cancelled => Err(TicketRejection::Cancelled),
            },
        }
    }
}

/// The kitchen's answer, once an order is both known and paid for.
fn accept_or_reject(kitchen_id: &str, items: &[TicketItem], kitchen: &Kitchen) -> TicketEvent {
    match kitchen.can_cook(items) {
        Ok(()) => TicketEvent::TicketAccepted { kitchen_id: kitchen_id.to_owned() },
        Err(reason) => TicketEvent::TicketRejected { reason },
    }
}

#[cfg(test)]
mod specification {
    use event_sourcing::{
        decode, encode,
        specification::{Given, given as given_events},
    };
    use proptest::prelude::*;

    use super::*;
    use CancellationReason::{CustomerRequest, PaymentDeclined};
    use RejectionReason::{KitchenClosed, SoldOut};

    #[test]
    fn an_order_waits_for_its_payment() {
        given([]).when(create(open())).then([created()]);
        given([created()]).when(note_payment(open())).then([accepted()]);
    }

    #[test]
    fn a_payment_waits_for_its_order() {
        given([]).when(note_payment(Kitchen::Unknown)).then([payment_noted()]);
        given([payment_noted()]).when(create(open())).then([created(), accepted()]);
    }

    #[test]
    fn an_order_or_a_payment_told_twice_does_nothing() {
        given([created()]).when(create(open())).then_nothing();
        given([payment_noted()]).when(note_payment(Kitchen::Unknown)).then_nothing();
        for end in [vec![], vec![packed()], vec![cancelled(CustomerRequest)]] {
            let story = || given([created(), accepted()].into_iter().chain(end.clone()));
            story().when(create(open())).then_nothing();
            story().when(note_payment(open())).then_nothing();
        }
    }

    #[test]
    fn a_kitchen_rejects_a_paid_order_when_it_is_closed_or_a_dish_is_sold_out() {
        given([created()]).when(note_payment(Kitchen::Unknown)).then([rejected(KitchenClosed)]);
        given([created()]).when(note_payment(closed())).then([rejected(KitchenClosed)]);
        given([created()]).when(note_payment(sold_out())).then([rejected(SoldOut)]);
        given([payment_noted()]).when(create(closed())).then([created(), rejected(KitchenClosed)]);
        given([payment_noted()]).when(create(sold_out())).then([created(), rejected(SoldOut)]);
    }

    #[test]
    fn an_order_that_is_not_paid_yet_is_created_even_while_the_kitchen_is_closed() {
        given([]).when(create(closed())).then([created()]);
    }

    #[test]
    fn a_ticket_is_cancelled_until_it_is_packed() {
        given([created()]).when(cancel(CustomerRequest)).then([cancelled(CustomerRequest)]);
        given([created()]).when(cancel(PaymentDeclined)).then([cancelled(PaymentDeclined)]);
        given([payment_noted()]).when(cancel(CustomerRequest)).then([cancelled(CustomerRequest)]);
        given([created(), accepted()]).when(cancel(CustomerRequest)).then([cancelled(CustomerRequest)]);
    }

    #[test]
    fn a_cancellation_known_before_the_order_cancels_at_once_and_what_comes_later_does_nothing() {
        given([]).when(cancel(CustomerRequest)).then([cancelled(CustomerRequest)]);
        given([cancelled(CustomerRequest)]).when(create(open())).then_nothing();
        given([cancelled(CustomerRequest)]).when(note_payment(open())).then_nothing();
        given([cancelled(CustomerRequest)]).when(cancel(PaymentDeclined)).then_nothing();
    }

    #[test]
    fn a_packed_order_is_not_cancelled_and_the_customer_hears_so_once() {
        given([created(), accepted(), packed()]).when(cancel(CustomerRequest)).then([refused()]);
        given([created(), accepted(), packed(), refused()]).when(cancel(CustomerRequest)).then_nothing();
        given([created(), accepted(), packed()]).when(cancel(PaymentDeclined)).then_nothing();
    }

    #[test]
    fn a_rejected_ticket_needs_no_cancellation() {
        given([created(), rejected(SoldOut)]).when(cancel(CustomerRequest)).then_nothing();
    }

    #[test]
    fn what_is_cooking_is_packed_once() {
        given([created(), accepted()]).when(TicketCommand::Pack).then([packed()]);
        given([created(), accepted(), packed()]).when(TicketCommand::Pack).then_nothing();
        given([created(), accepted(), packed(), refused()]).when(TicketCommand::Pack).then_nothing();
    }

    #[test]
    fn what_is_not_cooking_is_not_packed() {
        let pack = |events: Vec<_>| given(events).when(TicketCommand::Pack);
        pack(vec![]).then_rejected(&TicketRejection::Unknown);
        pack(vec![created()]).then_rejected(&TicketRejection::NotPaid);
        pack(vec![payment_noted()]).then_rejected(&TicketRejection::NotOrdered);
        pack(vec![created(), rejected(SoldOut)]).then_rejected(&TicketRejection::Rejected);
        pack(vec![cancelled(CustomerRequest)]).then_rejected(&TicketRejection::Cancelled);
    }

    #[test]
    fn a_ticket_knows_its_kitchen_and_items_until_it_is_packed() {
        let cooking = given([created(), accepted()]).state();
        assert!(cooking.is_cooking());
        assert_eq!((cooking.kitchen_id(), cooking.items()), (Some("casa"), &[soup()][..]));
        let packed = given([created(), accepted(), packed()]).state();
        assert!(!packed.is_cooking());
        assert_eq!((packed.kitchen_id(), packed.items()), (None, &[][..]));
    }

    #[test]
    fn events_are_stored_under_their_contracts_names() {
        let stored = |event, name: &str, data: &str| {
            assert_eq!(encode(&event).unwrap(), (format!("dev.rainstorm.kitchen.{name}.v1"), data.to_owned()));
        };
        let items = r#"[{"item_id":"soup","name":"Soup","quantity":2}]"#;
        stored(created(), "ticket_created", &format!(r#"{{"kitchen_id":"casa","items":{items}}}"#));
        stored(payment_noted(), "payment_noted", "{}");
        stored(accepted(), "ticket_accepted", r#"{"kitchen_id":"casa"}"#);
        stored(rejected(KitchenClosed), "ticket_rejected", r#"{"reason":"kitchen_closed"}"#);
        stored(cancelled(PaymentDeclined), "ticket_cancelled", r#"{"reason":"payment_declined"}"#);
        stored(refused(), "cancellation_refused", r#"{"reason":"packed"}"#);
        stored(packed(), "order_packed", r#"{"kitchen_id":"casa"}"#);
    }

    proptest! {
        #[test]
        fn a_ticket_has_one_answer_and_one_end(commands in prop::collection::vec(command(), 0..20)) {
            let (_, events) = run(commands);
            let count = |is: fn(&TicketEvent) -> bool| events.iter().filter(|event| is(event)).count();
            let packed = count(|event| matches!(event, TicketEvent::OrderPacked { .. }));
            let cancelled = count(|event| matches!(event, TicketEvent::TicketCancelled { .. }));
            let rejected = count(|event| matches!(event, TicketEvent::TicketRejected { .. }));
            let accepted = count(|event| matches!(event, TicketEvent::TicketAccepted { .. }));
            let refused = count(|event| matches!(event, TicketEvent::CancellationRefused { .. }));
            prop_assert!(packed + cancelled + rejected <= 1, "more than one end: {events:?}");
            prop_assert!(accepted + rejected <= 1, "more than one answer: {events:?}");
            prop_assert!(packed <= accepted && refused <= packed, "packed unpaid, or refused unpacked: {events:?}");
        }

        #[test]
        fn order_and_payment_lead_to_the_same_ticket_in_any_order_and_number(
            kitchen in kitchen(), told in prop::collection::vec(any::<bool>(), 0..6),
        ) {
            let command = |order| if order { create(kitchen.clone()) } else { note_payment(kitchen.clone()) };
            let (ticket, _) = run(told.into_iter().chain([true, false]).map(command));
            let (expected, _) = run([create(kitchen.clone()), note_payment(kitchen.clone())]);
            prop_assert_eq!(ticket, expected);
        }

        #[test]
        fn a_repeated_command_does_nothing(
            before in prop::collection::vec(command(), 0..10), command in command(),
        ) {
            let (ticket, _) = run(before.into_iter().chain([command.clone()]));
            prop_assert!(matches!(ticket.decide(command).as_deref(), Ok([]) | Err(_)));
        }

        #[test]
        fn every_event_reads_back_as_it_was_written(commands in prop::collection::vec(command(), 0..20)) {
            for event in run(commands).1 {
                let (event_type, data) = encode(&event).unwrap();
                prop_assert_eq!(decode::<TicketEvent>(&event_type, &data).unwrap(), event);
            }
        }
    }

    /// The state and the events after `commands`, those that are rejected left out.
    fn run(commands: impl IntoIterator<Item = TicketCommand>) -> (Ticket, Vec<TicketEvent>) {
        commands.into_iter().fold((Ticket::default(), vec![]), |(ticket, mut events), command| {
            let new = ticket.decide(command).unwrap_or_default();
            events.extend(new.clone());
            (new.into_iter().fold(ticket, Ticket::evolve), events)
        })
    }

    fn command() -> impl Strategy<Value = TicketCommand> {
        prop_oneof![
            3 => kitchen().prop_map(create),
            3 => kitchen().prop_map(note_payment),
            1 => prop_oneof![Just(cancel(CustomerRequest)), Just(cancel(PaymentDeclined))],
            3 => Just(TicketCommand::Pack),
        ]
    }

    fn kitchen() -> impl Strategy<Value = Kitchen> {
        prop_oneof![3 => Just(open()), 1 => Just(closed()), 1 => Just(sold_out()), 1 => Just(Kitchen::Unknown)]
    }

    fn given(events: impl IntoIterator<Item = TicketEvent>) -> Given<Ticket> {
        given_events(events)
    }

    fn create(kitchen: Kitchen) -> TicketCommand {
        TicketCommand::Create { kitchen_id: "casa".into(), items: vec![soup()], kitchen }
    }

    fn note_payment(kitchen: Kitchen) -> TicketCommand {
        TicketCommand::NotePayment { kitchen }
    }

    fn cancel(reason: CancellationReason) -> TicketCommand {
        TicketCommand::Cancel { reason }
    }

    fn created() -> TicketEvent {
        TicketEvent::TicketCreated { kitchen_id: "casa".into(), items: vec![soup()] }
    }

    fn payment_noted() -> TicketEvent {
        TicketEvent::PaymentNoted {}
    }

    fn accepted() -> TicketEvent {
        TicketEvent::TicketAccepted { kitchen_id: "casa".into() }
    }

    fn rejected(reason: RejectionReason) -> TicketEvent {
        TicketEvent::TicketRejected { reason }
    }

    fn cancelled(reason: CancellationReason) -> TicketEvent {
        TicketEvent::TicketCancelled { reason }
    }

    fn refused() -> TicketEvent {
        TicketEvent::CancellationRefused { reason: RefusalReason::Packed }
    }

    fn packed() -> TicketEvent {
        TicketEvent::OrderPacked { kitchen_id: "casa".into() }
    }

    fn soup() -> TicketItem {
        TicketItem { item_id: "soup".into(), name: "Soup".into(), quantity: 2 }
    }

    fn open() -> Kitchen {
        known(true, true)
    }

    fn closed() -> Kitchen {
        known(false, true)
    }

    fn sold_out() -> Kitchen {
        known(true, false)
    }

    fn known(open: bool, available: bool) -> Kitchen {
        let soup = MenuItem { item_id: "soup".into(), name: "Soup".into(), price: 450, available };
        Kitchen::Known { name: "Casa".into(), open, currency: "EUR".into(), menu: vec![soup] }
    }
}
