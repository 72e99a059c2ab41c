//! The payment provider as this service sees it: another company, which may be slow, may fail, and may have done what
//! it was asked although its answer never came. So everything is asked under a key, and asking again under the same key
//! does nothing twice.

pub mod simulated;

use std::{future::Future, sync::Arc, time::Duration};

use async_trait::async_trait;

use crate::domain::{ChargeOutcome, Money, RefundOutcome, SettleOutcome};

/// How often a quick failure is tried in place, and the first pause, which doubles.
const TRIES: u32 = 4;
const PAUSE: Duration = Duration::from_millis(10);

/// The provider failed, quickly: it may be asked again at once.
#[derive(Debug, thiserror::Error)]
#[error("the payment provider failed: {0}")]
pub struct ProviderFailed(pub String);

/// What became of a charge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Charged {
    Paid,
    Declined { reason: String },
}

/// What became of a charge that nobody wants any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// It was taken before; the money has to be given back.
    Taken,
    /// It was not taken and never will be: the key is void.
    NotTaken,
}

/// The port. A real provider's adapter would stand beside [`simulated`].
#[async_trait]
pub trait Provider: Send + Sync + 'static {
    /// Takes `amount`, once for each key.
    async fn charge(&self, key: &str, amount: &Money, token: &str) -> Result<Charged, ProviderFailed>;
    /// Gives back what was taken under `charge_key`, once for each key.
    async fn refund(&self, key: &str, charge_key: &str, amount: &Money) -> Result<(), ProviderFailed>;
    /// Makes sure that a charge which wasn't taken never is.
    async fn settle(&self, charge_key: &str) -> Result<Settled, ProviderFailed>;
}

/// A provider with a limit to how long one call may take, and a few tries in place for quick failures. A call that
/// takes too long is not tried again here: it may have succeeded, and asking once more would only take longer.
#[derive(Clone)]
pub struct Patient {
    provider: Arc<dyn Provider>,
    limit: Duration,
}

impl Patient {
    /// `provider`, with `limit` for each call.
    #[must_use]
    pub fn new(provider: Arc<dyn Provider>, limit: Duration) -> Self {
        Self { provider, limit }
    }

    /// See [`Provider::charge`].
    pub async fn charge(&self, key: &str, amount: &Money, token: &str) -> ChargeOutcome {
        match self.ask(|| self.provider.charge(key, amount, token)).await {
            Some(Charged::Paid) => ChargeOutcome::Paid,
            Some(Charged::Declined { reason }) => ChargeOutcome::Declined { reason },
            None => ChargeOutcome::NoAnswer,
        }
    }

    /// See [`Provider::refund`].
    pub async fn refund(&self, key: &str, charge_key: &str, amount: &Money) -> RefundOutcome {
        match self.ask(|| self.provider.refund(key, charge_key, amount)).await {
            Some(()) => RefundOutcome::Refunded,
            None => RefundOutcome::NoAnswer,
        }
    }

    /// See [`Provider::settle`]; what was taken is given back under `refund_key`.
    pub async fn settle(&self, charge_key: &str, refund_key: &str, amount: &Money) -> SettleOutcome {
        match self.ask(|| self.provider.settle(charge_key)).await {
            Some(Settled::Taken) => SettleOutcome::Taken(self.refund(refund_key, charge_key, amount).await),
            Some(Settled::NotTaken) => SettleOutcome::NotTaken,
            None => SettleOutcome::NoAnswer,
        }
    }

    async fn ask<T, F: Future<Output = Result<T, ProviderFailed>>>(&self, call: impl Fn() -> F) -> Option<T> {
        for attempt in 0..TRIES {
            match tokio::time::timeout(self.limit, call()).await {
                Ok(Ok(answer)) => return Some(answer),
                Ok(Err(error)) => tracing::debug!(%error, attempt, "asked again in place"),
                Err(_) => return None,
            }
            if attempt + 1 < TRIES {
                tokio::time::sleep(PAUSE * 2_u32.pow(attempt)).await;
            }
        }
        None
    }
}
