//! The payment provider that ships: it moves no money, but keeps its books as durably as an outside company would.
//!
//! | token | what it does |
//! |---|---|
//! | `tok_ok` | pays |
//! | `tok_declined` | declines |
//! | `tok_flaky` | fails twice, quickly, before it pays |
//! | `tok_slow` | takes two seconds, and pays even if nobody waits for the answer |
//! | any other | declines: it knows no such card |

use std::time::Duration;

use async_trait::async_trait;
use event_sourcing::{Database, StoreError, Value, Write};
use sqlx::migrate::Migrator;

use super::{Charged, Provider, ProviderFailed, Settled};
use crate::domain::Money;

/// The ledger's tables.
pub static MIGRATIONS: Migrator = sqlx::migrate!("./provider_migrations");

const SLOW: Duration = Duration::from_secs(2);
/// Times that the flaky card fails first.
const FLAKY: i64 = 2;

/// The ledger in a database of its own.
///
/// # Errors
/// If it can't be used.
pub async fn open_ledger(url: &str) -> Result<Database, StoreError> {
    Database::open(url, &[&MIGRATIONS]).await
}

/// The simulated provider.
#[derive(Clone)]
pub struct SimulatedProvider {
    ledger: Database,
}

impl From<sqlx::Error> for ProviderFailed {
    fn from(error: sqlx::Error) -> Self {
        Self(error.to_string())
    }
}

struct Entry {
    outcome: String,
    failures: i64,
}

impl SimulatedProvider {
    /// Keeps its books in `ledger`.
    #[must_use]
    pub fn new(ledger: Database) -> Self {
        Self { ledger }
    }

    /// The entry for a key, made as pending if there is none, and the transaction that holds it: whoever asks under the
    /// same key at the same moment waits.
    async fn entry(
        &self,
        key: &str,
        kind: &str,
        charge_key: &str,
        amount: &Money,
    ) -> Result<(Write, Entry), sqlx::Error> {
        let mut write = self.ledger.write().await?;
        let sql = "INSERT INTO provider_ledger (idempotency_key, kind, charge_key, amount, currency, outcome) \
             VALUES ($1, $2, $3, $4, $5, 'pending') \
             ON CONFLICT (idempotency_key) DO UPDATE SET kind = provider_ledger.kind RETURNING outcome, failures";
        let values: [Value; 5] =
            [key.into(), kind.into(), charge_key.into(), amount.amount.into(), amount.currency.as_str().into()];
        let rows = write.fetch(sql, values).await?;
        let row = rows.first().ok_or(sqlx::Error::RowNotFound)?;
        let entry = Entry { outcome: row.text(0)?, failures: row.int(1)? };
        Ok((write, entry))
    }

    async fn close(mut write: Write, key: &str, outcome: &str, failures: i64) -> Result<(), sqlx::Error> {
        let sql = "UPDATE provider_ledger SET outcome = $2, failures = $3 WHERE idempotency_key = $1";
        write.execute(sql, [key.into(), outcome.into(), failures.into()]).await?;
        write.commit().await
    }

    async fn take(&self, key: &str, amount: &Money, token: &str) -> Result<Charged, ProviderFailed> {
        let (write, entry) = self.entry(key, "charge", key, amount).await?;
        let outcome = match (entry.outcome.as_str(), token) {
            ("pending", "tok_flaky") if entry.failures < FLAKY => {
                Self::close(write, key, "pending", entry.failures + 1).await?;
                return Err(ProviderFailed("503 from the card's bank".to_owned()));
            }
            ("pending", "tok_ok" | "tok_flaky" | "tok_slow") => "paid",
            ("pending", _) => "declined",
            (known, _) => known,
        };
        let charged = match outcome {
            "paid" => Charged::Paid,
            "voided" => Charged::Declined { reason: "the charge was voided".to_owned() },
            _ => Charged::Declined { reason: "card_declined".to_owned() },
        };
        Self::close(write, key, outcome, entry.failures).await?;
        Ok(charged)
    }

    async fn is_decided(&self, key: &str) -> Result<bool, sqlx::Error> {
        let sql = "SELECT 1 FROM provider_ledger WHERE idempotency_key = $1 AND outcome <> 'pending'";
        Ok(!self.ledger.fetch(sql, [key.into()]).await?.is_empty())
    }
}

#[async_trait]
impl Provider for SimulatedProvider {
    async fn charge(&self, key: &str, amount: &Money, token: &str) -> Result<Charged, ProviderFailed> {
        if token != "tok_slow" || self.is_decided(key).await? {
            return self.take(key, amount, token).await;
        }
        // The bank goes on with it, whether or not the caller waits.
        let (provider, key, amount, token) = (self.clone(), key.to_owned(), amount.clone(), token.to_owned());
        let slow = tokio::spawn(async move {
            tokio::time::sleep(SLOW).await;
            provider.take(&key, &amount, &token).await
        });
        slow.await.map_err(|error| ProviderFailed(error.to_string()))?
    }

    async fn refund(&self, key: &str, charge_key: &str, amount: &Money) -> Result<(), ProviderFailed> {
        let (write, entry) = self.entry(key, "refund", charge_key, amount).await?;
        Ok(Self::close(write, key, "refunded", entry.failures).await?)
    }

    async fn settle(&self, charge_key: &str) -> Result<Settled, ProviderFailed> {
        let nothing = Money { amount: 0, currency: String::new() };
        let (write, entry) = self.entry(charge_key, "charge", charge_key, &nothing).await?;
        if entry.outcome == "paid" {
            write.commit().await?;
            return Ok(Settled::Taken);
        }
        let outcome = if entry.outcome == "pending" { "voided" } else { entry.outcome.as_str() };
        Self::close(write, charge_key, outcome, entry.failures).await?;
        Ok(Settled::NotTaken)
    }
}
