//! What stands behind the one door: whoever is told of events.

use async_trait::async_trait;
use event_sourcing::StoreError;

use crate::Incoming;

/// Why an event had no effect.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// It passes: deliver the event again.
    #[error("not now: {0}")]
    Retry(String),
    /// This event can never be handled: it goes to the dead letters with this reason.
    #[error("never: {0}")]
    Never(String),
}

impl Failure {
    /// The failure of several events together, where nobody knows which of them is to blame: it passes, because they
    /// are told again one by one.
    #[must_use]
    pub fn shared_by(self, events: usize) -> Self {
        match self {
            Self::Never(reason) if events > 1 => Self::Retry(reason),
            own => own,
        }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Malformed(_) | StoreError::Refused(_) => Self::Never(error.to_string()),
            passing => Self::Retry(passing.to_string()),
        }
    }
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        StoreError::from(error).into()
    }
}

impl<R: std::error::Error> From<event_sourcing::ExecuteError<R>> for Failure {
    fn from(error: event_sourcing::ExecuteError<R>) -> Self {
        Self::Never(error.to_string())
    }
}

/// What handling an event has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handled {
    /// Its effects are durable and published, and the inbox was brought up to date with them.
    Effect,
    /// It had no effect: the inbox is to forget it.
    Nothing,
}

/// A service, as its door sees it.
#[async_trait]
pub trait Handler: Send + Sync + 'static {
    /// Whether events of this name (`order.placed`, without prefix and version) concern the service, and which
    /// version of it is understood.
    fn understands(&self, name: &str) -> Option<&'static str>;

    /// Handles events that were not handled before, in order for each subject. One outcome each, in the same order;
    /// where one fails, later ones of its subject must not be tried.
    async fn handle(&self, events: &[Incoming]) -> Vec<Result<Handled, Failure>>;

    /// These events' effects are stored; what of them isn't published yet is to be published now. `streams` are those
    /// that the events changed.
    async fn seen(&self, _streams: Vec<String>) -> Result<(), Failure> {
        Ok(())
    }

    /// Time has passed.
    async fn tick(&self, _now: jiff::Timestamp) -> Result<(), Failure> {
        Ok(())
    }
}
