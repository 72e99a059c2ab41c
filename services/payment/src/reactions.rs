//! What the payment service does about events: an order is charged, a cancelled one is given its money back. The
//! provider is asked first and the answer is stored then; if that is lost in between, it is asked again under the same
//! key, the id of the event that asked.

use async_trait::async_trait;
use event_sourcing::{Cause, Recorded, Statement, Stream, Work, fold};
use eventing::{
    AsyncReact, Failure, Identity, Incoming, Reactions, Writer,
    rebuild::{Replay, Table},
};
use serde::Deserialize;
use sqlx::migrate::Migrator;
use tokio::time::{Duration, Instant};

use crate::{
    MIGRATIONS, SERVICE,
    domain::{ChargeOutcome, Money, Owed, Payment, PaymentCommand},
    provider::Patient,
};

/// Payments that one tick takes on, and how long it may take: a provider that is down must not hold the tick up.
const AT_A_TICK: i64 = 500;
const TICK_BUDGET: Duration = Duration::from_secs(5);
/// Payments that are asked for at once.
const AT_ONCE: usize = 16;

/// The events the payment service listens to, with the fields it reads and no others.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "type", content = "data")]
pub enum Heard {
    #[serde(rename = "dev.rainstorm.order.placed.v1")]
    OrderPlaced { total: Money, payment_token: String },
    #[serde(rename = "dev.rainstorm.order.cancelled.v1")]
    OrderCancelled {},
}

/// The payment service's reactions.
pub struct PaymentReactions {
    pub writer: Writer,
    pub provider: Patient,
}

#[async_trait]
impl Reactions for PaymentReactions {
    fn understands(&self, name: &str) -> Option<&'static str> {
        understands(name)
    }

    async fn react(&self, event: &Incoming, work: &mut Work<'_>) -> Result<(), Failure> {
        let heard = event.to::<Heard>().map_err(Failure::Never)?;
        let mut payment = work.load::<Payment>(&event.subject).await?;
        let command = match heard {
            Heard::OrderPlaced { total, payment_token } => {
                let charge_key = event.id.clone();
                let outcome = match payment.state {
                    Payment::Unknown => self.provider.charge(&charge_key, &total, &payment_token).await,
                    // It is charged, owed, or cancelled already: nothing is asked.
                    _ => ChargeOutcome::NoAnswer,
                };
                PaymentCommand::RecordCharge { amount: total, payment_token, charge_key, outcome }
            }
            Heard::OrderCancelled {} => match &payment.state {
                Payment::Confirmed(charge) => {
                    let outcome = self.provider.refund(&event.id, &charge.charge_key, &charge.amount).await;
                    PaymentCommand::Refund { refund_key: event.id.clone(), outcome }
                }
                _ => PaymentCommand::GiveUpCharge { refund_key: event.id.clone() },
            },
        };
        record(work, &mut payment, command)
    }

    async fn tick(&self, _: jiff::Timestamp) -> Result<Vec<String>, Failure> {
        let sql = "SELECT order_id FROM owed ORDER BY order_id LIMIT $1";
        let rows = self.writer.store.database().fetch(sql, [AT_A_TICK.into()]).await?;
        let owed = rows.iter().map(|row| row.text(0)).collect::<Result<Vec<String>, _>>()?;
        let started = Instant::now();
        let history = self.writer.store.history(owed.clone()).await?;
        let mut changed = Vec::new();
        for some in owed.chunks(AT_ONCE).take_while(|_| started.elapsed() < TICK_BUDGET) {
            let asked = some.iter().map(|order_id| async {
                // The story goes on where it stopped.
                let newest = history.get(order_id).and_then(|events| events.last());
                let trace = newest.map(|event| event.trace().step("ask again"));
                let mut cause = Cause::command(None, trace.unwrap_or_default());
                cause.correlation_id = Some(order_id.clone());
                self.writer.transact(&cause, Default::default(), AskAgain { provider: &self.provider, order_id }).await
            });
            for outcome in futures::future::join_all(asked).await {
                changed.extend(outcome?.1);
            }
        }
        Ok(changed)
    }
}

/// Asks the provider again for what a payment owes.
struct AskAgain<'a> {
    provider: &'a Patient,
    order_id: &'a str,
}

#[async_trait]
impl AsyncReact for AskAgain<'_> {
    async fn react(&self, work: &mut Work<'_>) -> Result<(), Failure> {
        let mut payment = work.load::<Payment>(self.order_id).await?;
        let command = match payment.state.owes() {
            Owed::Nothing => return Ok(()),
            Owed::Charge { charge, payment_token } => {
                let outcome = self.provider.charge(&charge.charge_key, &charge.amount, &payment_token).await;
                PaymentCommand::RecordCharge {
                    amount: charge.amount,
                    payment_token,
                    charge_key: charge.charge_key,
                    outcome,
                }
            }
            Owed::Settlement { charge, refund_key } => {
                let outcome = self.provider.settle(&charge.charge_key, &refund_key, &charge.amount).await;
                PaymentCommand::Settle { outcome }
            }
            Owed::Refund { charge, refund_key } => {
                let outcome = self.provider.refund(&refund_key, &charge.charge_key, &charge.amount).await;
                PaymentCommand::Refund { refund_key, outcome }
            }
        };
        record(work, &mut payment, command)
    }
}

/// Decides, and keeps the list of what is owed in step with it.
fn record(work: &mut Work<'_>, payment: &mut Stream<Payment>, command: PaymentCommand) -> Result<(), Failure> {
    let owed_before = payment.state.owes() != Owed::Nothing;
    work.execute(payment, command)?;
    let owed = payment.state.owes() != Owed::Nothing;
    match (owed_before, owed) {
        (false, true) => work.project(owes(&payment.id)),
        (true, false) => {
            work.project(Statement::new("DELETE FROM owed WHERE order_id = $1", [payment.id.as_str().into()]));
        }
        (true, true) | (false, false) => {}
    }
    Ok(())
}

fn owes(order_id: &str) -> Statement {
    Statement::new("INSERT INTO owed (order_id) VALUES ($1)", [order_id.into()])
}

fn understands(name: &str) -> Option<&'static str> {
    matches!(name, "order.placed" | "order.cancelled").then_some("v1")
}

/// How payment's store is made again from the log. The provider isn't asked: its books are another company's, and what
/// it answered is in payment's own events.
pub struct PaymentReplay;

impl Replay for PaymentReplay {
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
        &[Table { name: "owed", key: &["order_id"], columns: &[] }]
    }

    fn keeps_of_own(&self) -> bool {
        true
    }

    fn own_stream(&self, order_id: &str, events: &[Recorded]) -> Result<Vec<Statement>, Failure> {
        let owed = fold::<Payment>(order_id, events)?.state.owes() != Owed::Nothing;
        Ok(owed.then(|| owes(order_id)).into_iter().collect())
    }
}
