//! The money of one order: charged when it is placed, given back whole when it is cancelled, each at most once.
//! The provider may not answer in time; then it is stored what is owed, and asked again under the same key.

use event_sourcing::{Decider, DomainEvent};
use serde::{Deserialize, Serialize};
use std::convert::Infallible;

// ---- Event: the names and fields are what is stored -----------------------------------------------------------------

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", content = "data")]
pub enum PaymentEvent {
    /// The provider took the money.
    #[serde(rename = "dev.rainstorm.payment.confirmed.v1")]
    Confirmed { amount: Money, charge_key: String },
    #[serde(rename = "dev.rainstorm.payment.declined.v1")]
    Declined { reason: String },
    /// The provider gave all of it back.
    #[serde(rename = "dev.rainstorm.payment.refunded.v1")]
    Refunded { amount: Money, charge_key: String },
    /// Nothing was taken and nothing ever will be. No key: the order was cancelled before the provider was asked.
    #[serde(rename = "dev.rainstorm.payment.voided.v1")]
    Voided { charge_key: Option<String> },
    /// The provider was asked to charge and gave no answer.
    #[serde(rename = "dev.rainstorm.payment.charge_owed.v1")]
    ChargeOwed { amount: Money, payment_token: String, charge_key: String },
    /// The money is to be given back, if (`charge_taken`: since) it was taken.
    #[serde(rename = "dev.rainstorm.payment.refund_owed.v1")]
    RefundOwed { amount: Money, charge_key: String, refund_key: String, charge_taken: bool },
}

impl DomainEvent for PaymentEvent {}

/// An amount in minor units (cents) of an ISO 4217 currency.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Money {
    pub amount: i64,
    pub currency: String,
}

// ---- State ----------------------------------------------------------------------------------------------------------

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Payment {
    #[default]
    Unknown,
    /// Asked to charge; no answer yet.
    ChargeOwed {
        charge: Charge,
        payment_token: String,
    },
    Confirmed(Charge),
    Declined,
    /// Cancelled before the charge was answered: nobody charges any more, but was the money taken?
    SettlementOwed {
        charge: Charge,
        refund_key: String,
    },
    /// The money was taken and has to go back.
    RefundOwed {
        charge: Charge,
        refund_key: String,
    },
    Refunded(Charge),
    Voided,
}

/// How much, and the key under which the provider does it once, however often it is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Charge {
    pub amount: Money,
    pub charge_key: String,
}

/// What the provider still has to be asked, and under which keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owed {
    Nothing,
    /// Charge; the answer is a [`PaymentCommand::RecordCharge`].
    Charge {
        charge: Charge,
        payment_token: String,
    },
    /// Void the charge, or else refund it; the answer is a [`PaymentCommand::Settle`].
    Settlement {
        charge: Charge,
        refund_key: String,
    },
    /// Refund; the answer is a [`PaymentCommand::Refund`].
    Refund {
        charge: Charge,
        refund_key: String,
    },
}

impl Payment {
    #[must_use]
    pub fn owes(&self) -> Owed {
        match self.clone() {
            Self::ChargeOwed { charge, payment_token } => Owed::Charge { charge, payment_token },
            Self::SettlementOwed { charge, refund_key } => Owed::Settlement { charge, refund_key },
            Self::RefundOwed { charge, refund_key } => Owed::Refund { charge, refund_key },
            Self::Unknown | Self::Confirmed(_) | Self::Declined | Self::Refunded(_) | Self::Voided => Owed::Nothing,
        }
    }

    /// What is known to be taken from the customer, in minor units; given back or not.
    #[must_use]
    pub fn captured(&self) -> i64 {
        match self {
            Self::Confirmed(charge) | Self::RefundOwed { charge, .. } | Self::Refunded(charge) => charge.amount.amount,
            Self::Unknown | Self::ChargeOwed { .. } | Self::Declined | Self::SettlementOwed { .. } | Self::Voided => 0,
        }
    }

    /// What of it was given back, in minor units.
    #[must_use]
    pub fn refunded(&self) -> i64 {
        match self {
            Self::Refunded(charge) => charge.amount.amount,
            Self::Unknown
            | Self::ChargeOwed { .. }
            | Self::Confirmed(_)
            | Self::Declined
            | Self::SettlementOwed { .. }
            | Self::RefundOwed { .. }
            | Self::Voided => 0,
        }
    }
}

// ---- Command, decide ------------------------------------------------------------------------------------------------

/// What the provider answered. It is asked first, so that deciding stays pure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PaymentCommand {
    /// The order was placed, or its charge was asked for again.
    RecordCharge { amount: Money, payment_token: String, charge_key: String, outcome: ChargeOutcome },
    /// The order was cancelled after it was paid, or its refund was asked for again.
    Refund { refund_key: String, outcome: RefundOutcome },
    /// The order was cancelled before it was known to be paid; the provider need not be asked.
    GiveUpCharge { refund_key: String },
    /// The charge that was given up was looked into.
    Settle { outcome: SettleOutcome },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChargeOutcome {
    Paid,
    Declined { reason: String },
    NoAnswer,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefundOutcome {
    Refunded,
    NoAnswer,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SettleOutcome {
    /// The money had been taken, so the refund was asked for at once: its own answer.
    Taken(RefundOutcome),
    /// Declined or never seen; the provider will not take it under this key any more.
    NotTaken,
    NoAnswer,
}

impl Decider for Payment {
    type Event = PaymentEvent;
    type Command = PaymentCommand;
    /// Only events ask for payments, and what they say has happened: there is nobody to refuse.
    type Rejection = Infallible;

    /// Each event says all there is to know, so the state before it doesn't matter.
    fn evolve(self, event: PaymentEvent) -> Self {
        match event {
            PaymentEvent::Confirmed { amount, charge_key } => Self::Confirmed(Charge { amount, charge_key }),
            PaymentEvent::Declined { .. } => Self::Declined,
            PaymentEvent::Refunded { amount, charge_key } => Self::Refunded(Charge { amount, charge_key }),
            PaymentEvent::Voided { .. } => Self::Voided,
            PaymentEvent::ChargeOwed { amount, payment_token, charge_key } => {
                Self::ChargeOwed { charge: Charge { amount, charge_key }, payment_token }
            }
            PaymentEvent::RefundOwed { amount, charge_key, refund_key, charge_taken: true } => {
                Self::RefundOwed { charge: Charge { amount, charge_key }, refund_key }
            }
            PaymentEvent::RefundOwed { amount, charge_key, refund_key, charge_taken: false } => {
                Self::SettlementOwed { charge: Charge { amount, charge_key }, refund_key }
            }
        }
    }

    fn decide(&self, command: PaymentCommand) -> Result<Vec<PaymentEvent>, Infallible> {
        Ok(match command {
            PaymentCommand::RecordCharge { amount, payment_token, charge_key, outcome } => {
                self.record_charge(Charge { amount, charge_key }, payment_token, outcome)
            }
            PaymentCommand::Refund { refund_key, outcome } => self.refund(refund_key, outcome),
            PaymentCommand::GiveUpCharge { refund_key } => self.give_up_charge(refund_key),
            PaymentCommand::Settle { outcome } => self.settle(outcome),
        })
    }
}

impl Payment {
    fn record_charge(&self, asked: Charge, payment_token: String, outcome: ChargeOutcome) -> Vec<PaymentEvent> {
        match self {
            Self::Unknown => match outcome {
                ChargeOutcome::Paid => vec![asked.confirmed()],
                ChargeOutcome::Declined { reason } => vec![PaymentEvent::Declined { reason }],
                ChargeOutcome::NoAnswer => vec![asked.owed(payment_token)],
            },
            Self::ChargeOwed { charge, .. } if charge.charge_key == asked.charge_key => match outcome {
                ChargeOutcome::Paid => vec![charge.clone().confirmed()],
                ChargeOutcome::Declined { reason } => vec![PaymentEvent::Declined { reason }],
                ChargeOutcome::NoAnswer => vec![],
            },
            // Once the charge is given up, only the settlement says what became of it.
            Self::ChargeOwed { .. }
            | Self::Confirmed(_)
            | Self::Declined
            | Self::SettlementOwed { .. }
            | Self::RefundOwed { .. }
            | Self::Refunded(_)
            | Self::Voided => vec![],
        }
    }

    fn refund(&self, key: String, outcome: RefundOutcome) -> Vec<PaymentEvent> {
        match self {
            Self::Confirmed(charge) => vec![charge.clone().given_back(key, outcome)],
            Self::RefundOwed { charge, refund_key } if *refund_key == key => match outcome {
                RefundOutcome::Refunded => vec![charge.clone().refunded()],
                RefundOutcome::NoAnswer => vec![],
            },
            Self::Unknown
            | Self::ChargeOwed { .. }
            | Self::Declined
            | Self::SettlementOwed { .. }
            | Self::RefundOwed { .. }
            | Self::Refunded(_)
            | Self::Voided => vec![],
        }
    }

    fn give_up_charge(&self, refund_key: String) -> Vec<PaymentEvent> {
        match self {
            Self::Unknown => vec![PaymentEvent::Voided { charge_key: None }],
            Self::ChargeOwed { charge, .. } => vec![charge.clone().refund_owed(refund_key, false)],
            // The answer to the charge came in between: the order is cancelled all the same.
            Self::Confirmed(charge) => vec![charge.clone().refund_owed(refund_key, true)],
            Self::Declined
            | Self::SettlementOwed { .. }
            | Self::RefundOwed { .. }
            | Self::Refunded(_)
            | Self::Voided => vec![],
        }
    }

    fn settle(&self, outcome: SettleOutcome) -> Vec<PaymentEvent> {
        match self {
            Self::SettlementOwed { charge, refund_key } => match outcome {
                // Without an answer to the refund the charge is known at least, and from now on only the refund is owed.
                SettleOutcome::Taken(refund) => {
                    vec![charge.clone().confirmed(), charge.clone().given_back(refund_key.clone(), refund)]
                }
                SettleOutcome::NotTaken => {
                    vec![PaymentEvent::Voided { charge_key: Some(charge.charge_key.clone()) }]
                }
                SettleOutcome::NoAnswer => vec![],
            },
            Self::Unknown
            | Self::ChargeOwed { .. }
            | Self::Confirmed(_)
            | Self::Declined
            | Self::RefundOwed { .. }
            | Self::Refunded(_)
            | Self::Voided => vec![],
        }
    }
}

/// What can be said of a charge.
impl Charge {
    fn confirmed(self) -> PaymentEvent {
        PaymentEvent::Confirmed { amount: self.amount, charge_key: self.charge_key }
    }

    fn owed(self, payment_token: String) -> PaymentEvent {
        PaymentEvent::ChargeOwed { amount: self.amount, payment_token, charge_key: self.charge_key }
    }

    fn given_back(self, refund_key: String, outcome: RefundOutcome) -> PaymentEvent {
        match outcome {
            RefundOutcome::Refunded => self.refunded(),
            RefundOutcome::NoAnswer => self.refund_owed(refund_key, true),
        }
    }

    fn refunded(self) -> PaymentEvent {
        PaymentEvent::Refunded { amount: self.amount, charge_key: self.charge_key }
    }

    fn refund_owed(self, refund_key: String, charge_taken: bool) -> PaymentEvent {
        PaymentEvent::RefundOwed { amount: self.amount, charge_key: self.charge_key, refund_key, charge_taken }
    }
}

// ---- Specification --------------------------------------------------------------------------------------------------

#[cfg(test)]
mod specification {
    use super::*;
    use event_sourcing::specification::{self, Given};
    use event_sourcing::{decode, encode};
    use proptest::prelude::*;

    #[test]
    fn a_charge_is_confirmed_or_declined_or_owed_as_the_provider_answers() {
        given([]).when(charge(Paid)).then([confirmed()]);
        given([]).when(charge(no_funds())).then([declined()]);
        given([]).when(charge(ChargeOutcome::NoAnswer)).then([charge_owed()]);
    }

    #[test]
    fn an_owed_charge_is_asked_again_until_the_provider_answers() {
        given([charge_owed()]).when(charge(ChargeOutcome::NoAnswer)).then_nothing();
        given([charge_owed()]).when(charge(Paid)).then([confirmed()]);
        given([charge_owed()]).when(charge(no_funds())).then([declined()]);
    }

    #[test]
    fn an_answer_about_another_charge_is_none_about_this_one() {
        given([charge_owed()]).when(charge_under("another-key", Paid)).then_nothing();
    }

    #[test]
    fn an_order_is_charged_once_even_if_its_placing_is_told_twice() {
        given([confirmed()]).when(charge(Paid)).then_nothing();
        given([declined()]).when(charge(no_funds())).then_nothing();
        given([confirmed(), refunded()]).when(charge(Paid)).then_nothing();
    }

    #[test]
    fn a_cancelled_order_is_refunded_once_even_if_told_twice() {
        given([confirmed()]).when(refund(Refunded)).then([refunded()]);
        given([confirmed(), refunded()]).when(refund(Refunded)).then_nothing();
    }

    #[test]
    fn an_owed_refund_is_asked_again_until_the_provider_answers() {
        given([confirmed()]).when(refund(NoAnswer)).then([refund_owed()]);
        given([confirmed(), refund_owed()]).when(refund(NoAnswer)).then_nothing();
        given([confirmed(), refund_owed()]).when(refund(Refunded)).then([refunded()]);
        given([confirmed(), refund_owed()]).when(refund_under("another-key", Refunded)).then_nothing();
    }

    #[test]
    fn what_was_never_taken_is_not_refunded() {
        for events in [vec![], vec![declined()], vec![charge_owed()], vec![voided_unasked()]] {
            given(events).when(refund(Refunded)).then_nothing();
        }
    }

    #[test]
    fn an_order_that_was_cancelled_before_it_was_known_is_never_charged() {
        given([]).when(give_up()).then([voided_unasked()]);
        given([voided_unasked()]).when(charge(Paid)).then_nothing();
    }

    #[test]
    fn an_order_that_was_cancelled_while_its_charge_is_owed_is_not_charged_any_more() {
        given([charge_owed()]).when(give_up()).then([settlement_owed()]);
        given([charge_owed(), settlement_owed()]).when(give_up()).then_nothing();
        given([charge_owed(), settlement_owed()]).when(charge(Paid)).then_nothing();
    }

    #[test]
    fn a_charge_that_was_answered_just_before_it_was_given_up_is_refunded_by_the_tick() {
        given([charge_owed(), confirmed()]).when(give_up()).then([refund_owed()]);
        given([charge_owed(), declined()]).when(give_up()).then_nothing();
    }

    #[test]
    fn a_charge_that_was_given_up_is_voided_if_nothing_was_taken() {
        given([charge_owed(), settlement_owed()]).when(settle(SettleOutcome::NoAnswer)).then_nothing();
        given([charge_owed(), settlement_owed()]).when(settle(NotTaken)).then([voided()]);
    }

    #[test]
    fn a_charge_that_was_given_up_but_taken_is_confirmed_and_refunded() {
        given([charge_owed(), settlement_owed()]).when(settle(Taken(Refunded))).then([confirmed(), refunded()]);
    }

    #[test]
    fn a_charge_that_was_taken_but_not_yet_given_back_owes_only_the_refund() {
        given([charge_owed(), settlement_owed()]).when(settle(Taken(NoAnswer))).then([confirmed(), refund_owed()]);
        let state = given([charge_owed(), settlement_owed(), confirmed(), refund_owed()]).state();
        assert_eq!(state.owes(), Owed::Refund { charge: the_charge(), refund_key: "refund-key".into() });
    }

    #[test]
    fn nothing_is_settled_that_was_not_given_up() {
        for events in
            [vec![], vec![charge_owed()], vec![confirmed()], vec![declined()], vec![confirmed(), refund_owed()]]
        {
            given(events).when(settle(Taken(Refunded))).then_nothing();
        }
    }

    #[test]
    fn the_state_says_what_the_provider_is_still_to_be_asked() {
        let (charge, refund_key) = (the_charge(), "refund-key".to_owned());
        let owes = |events: &[PaymentEvent]| given(events.to_vec()).state().owes();
        assert_eq!(owes(&[charge_owed()]), Owed::Charge { charge: charge.clone(), payment_token: "tok_ok".into() });
        assert_eq!(owes(&[charge_owed(), settlement_owed()]), Owed::Settlement { charge, refund_key });
        assert_eq!(owes(&[confirmed()]), Owed::Nothing);
    }

    #[test]
    fn an_owed_refund_is_stored_as_its_contract_says() {
        let (event_type, data) = encode(&refund_owed()).unwrap();
        assert_eq!(event_type, "dev.rainstorm.payment.refund_owed.v1");
        let expected = serde_json::json!({
            "amount": {"amount": 2_950, "currency": "EUR"},
            "charge_key": "charge-key",
            "refund_key": "refund-key",
            "charge_taken": true,
        });
        assert_eq!(serde_json::from_str::<serde_json::Value>(&data).unwrap(), expected);
    }

    proptest! {
        #[test]
        fn the_money_is_here_or_there_and_never_moves_twice(commands in any_commands()) {
            let events = history(commands);
            let count = |of: fn(&PaymentEvent) -> bool| events.iter().filter(|event| of(event)).count();
            let confirmed = count(|event| matches!(event, PaymentEvent::Confirmed { .. }));
            let refunded = count(|event| matches!(event, PaymentEvent::Refunded { .. }));
            let declined = count(|event| matches!(event, PaymentEvent::Declined { .. }));
            let voided = count(|event| matches!(event, PaymentEvent::Voided { .. }));
            prop_assert!(confirmed + declined + voided <= 1, "more than one answer to the charge: {events:?}");
            prop_assert!(refunded <= confirmed, "refunded without, or more often than, taken: {events:?}");

            let mut state = Payment::default();
            for event in events {
                state = state.evolve(event);
                prop_assert!([0, 2_950].contains(&(state.captured() - state.refunded())), "{state:?}");
            }
        }

        #[test]
        fn a_command_that_is_repeated_does_nothing(commands in any_commands(), command in any_command()) {
            let state = Payment::fold(history(commands));
            let Ok(events) = state.decide(command.clone());
            let state = events.into_iter().fold(state, Payment::evolve);
            prop_assert_eq!(state.decide(command), Ok(vec![]));
        }

        #[test]
        fn a_cancelled_order_costs_nothing_once_the_provider_answers(
            commands in any_commands(), taken in any::<bool>(), refund_was_slow in any::<bool>(),
        ) {
            let mut state = Payment::fold(history(commands));
            let mut give = |command| {
                let Ok(events) = state.decide(command);
                state = events.into_iter().fold(std::mem::take(&mut state), Payment::evolve);
                state.clone()
            };
            let mut now = give(give_up());
            for _tick in 0..2 {
                now = match now.owes() {
                    Owed::Nothing => now,
                    Owed::Charge { .. } => panic!("a cancelled order is never charged"),
                    Owed::Settlement { .. } if !taken => give(settle(NotTaken)),
                    Owed::Settlement { .. } if refund_was_slow => give(settle(Taken(NoAnswer))),
                    Owed::Settlement { .. } => give(settle(Taken(Refunded))),
                    Owed::Refund { refund_key, .. } => give(refund_under(&refund_key, Refunded)),
                };
            }
            prop_assert_eq!(now.owes(), Owed::Nothing);
            prop_assert_eq!(now.captured(), now.refunded());
        }

        #[test]
        fn an_event_reads_back_as_it_was_written(event in any_event()) {
            let (event_type, data) = encode(&event).unwrap();
            prop_assert!(data.starts_with('{'), "data is a JSON object: {}", data);
            prop_assert_eq!(decode::<PaymentEvent>(&event_type, &data).unwrap(), event);
        }
    }

    // ---- builders ----

    use ChargeOutcome::Paid;
    use RefundOutcome::{NoAnswer, Refunded};
    use SettleOutcome::{NotTaken, Taken};

    fn given(events: impl IntoIterator<Item = PaymentEvent>) -> Given<Payment> {
        specification::given(events)
    }

    fn charge(outcome: ChargeOutcome) -> PaymentCommand {
        charge_under("charge-key", outcome)
    }

    fn charge_under(charge_key: &str, outcome: ChargeOutcome) -> PaymentCommand {
        let (amount, payment_token) = (the_charge().amount, "tok_ok".into());
        PaymentCommand::RecordCharge { amount, payment_token, charge_key: charge_key.into(), outcome }
    }

    fn no_funds() -> ChargeOutcome {
        ChargeOutcome::Declined { reason: "no funds".into() }
    }

    fn refund(outcome: RefundOutcome) -> PaymentCommand {
        refund_under("refund-key", outcome)
    }

    fn refund_under(refund_key: &str, outcome: RefundOutcome) -> PaymentCommand {
        PaymentCommand::Refund { refund_key: refund_key.into(), outcome }
    }

    fn give_up() -> PaymentCommand {
        PaymentCommand::GiveUpCharge { refund_key: "refund-key".into() }
    }

    fn settle(outcome: SettleOutcome) -> PaymentCommand {
        PaymentCommand::Settle { outcome }
    }

    fn the_charge() -> Charge {
        Charge { amount: Money { amount: 2_950, currency: "EUR".into() }, charge_key: "charge-key".into() }
    }

    fn confirmed() -> PaymentEvent {
        the_charge().confirmed()
    }

    fn declined() -> PaymentEvent {
        PaymentEvent::Declined { reason: "no funds".into() }
    }

    fn charge_owed() -> PaymentEvent {
        the_charge().owed("tok_ok".into())
    }

    fn refunded() -> PaymentEvent {
        the_charge().refunded()
    }

    fn refund_owed() -> PaymentEvent {
        the_charge().refund_owed("refund-key".into(), true)
    }

    fn settlement_owed() -> PaymentEvent {
        the_charge().refund_owed("refund-key".into(), false)
    }

    fn voided() -> PaymentEvent {
        PaymentEvent::Voided { charge_key: Some("charge-key".into()) }
    }

    fn voided_unasked() -> PaymentEvent {
        PaymentEvent::Voided { charge_key: None }
    }

    /// What is stored after `commands` in this order.
    fn history(commands: Vec<PaymentCommand>) -> Vec<PaymentEvent> {
        commands.into_iter().fold(vec![], |mut events, command| {
            let Ok(more) = Payment::fold(events.clone()).decide(command);
            events.extend(more);
            events
        })
    }

    fn any_commands() -> impl Strategy<Value = Vec<PaymentCommand>> {
        prop::collection::vec(any_command(), 0..20)
    }

    fn any_command() -> impl Strategy<Value = PaymentCommand> {
        let charge_outcome = prop::sample::select(vec![Paid, no_funds(), ChargeOutcome::NoAnswer]);
        let settle_outcome =
            prop::sample::select(vec![Taken(Refunded), Taken(NoAnswer), NotTaken, SettleOutcome::NoAnswer]);
        let charge_key = prop::sample::select(vec!["charge-key", "another-key"]);
        let refund_key = prop::sample::select(vec!["refund-key", "another-key"]);
        prop_oneof![
            (charge_key, charge_outcome).prop_map(|(key, outcome)| charge_under(key, outcome)),
            (refund_key, any_refund_outcome()).prop_map(|(key, outcome)| refund_under(key, outcome)),
            Just(give_up()),
            settle_outcome.prop_map(settle),
        ]
    }

    fn any_refund_outcome() -> impl Strategy<Value = RefundOutcome> {
        prop::sample::select(vec![Refunded, NoAnswer])
    }

    fn any_event() -> impl Strategy<Value = PaymentEvent> {
        let charge = (any::<i64>(), any::<[String; 2]>())
            .prop_map(|(amount, [currency, charge_key])| Charge { amount: Money { amount, currency }, charge_key });
        prop_oneof![
            charge.clone().prop_map(Charge::confirmed),
            any::<String>().prop_map(|reason| PaymentEvent::Declined { reason }),
            charge.clone().prop_map(Charge::refunded),
            any::<Option<String>>().prop_map(|charge_key| PaymentEvent::Voided { charge_key }),
            (charge.clone(), any::<String>()).prop_map(|(charge, token)| charge.owed(token)),
            (charge, any::<String>(), any::<bool>()).prop_map(|(charge, key, taken)| charge.refund_owed(key, taken)),
        ]
    }
}
