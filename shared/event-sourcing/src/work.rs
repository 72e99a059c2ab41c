//! What one event (or command) changes: streams are loaded, commands decided on them, and everything that follows is
//! gathered in one [`Unit`], which is committed together or not at all.

use std::collections::HashMap;

use jiff::Timestamp;

use crate::{
    Decider, MalformedEvent, Recorded, Statement, Store, StoreError, TraceContext, Unit, encode, new_id, now,
    store::fold,
};

/// Why something happens: the event or the command behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    /// The CloudEvents source of the event; `command` for a command.
    pub source: String,
    /// Its id; becomes the causation id of what follows.
    pub id: String,
    /// The story it belongs to; a stream's own id where it begins one.
    pub correlation_id: Option<String>,
    pub trace: TraceContext,
    /// Whether its effect is remembered in the inbox, so that it has it once.
    pub remembered: bool,
}

impl Cause {
    /// A command; one with an idempotency key has its effect once.
    #[must_use]
    pub fn command(idempotency_key: Option<&str>, trace: TraceContext) -> Self {
        Self {
            source: "command".to_owned(),
            id: idempotency_key.map_or_else(|| new_id().to_string(), ToOwned::to_owned),
            correlation_id: None,
            trace,
            remembered: idempotency_key.is_some(),
        }
    }
}

/// Why a command had no effect on a stream.
#[derive(Debug, thiserror::Error)]
pub enum ExecuteError<R: std::error::Error> {
    #[error(transparent)]
    Rejected(R),
    #[error(transparent)]
    Malformed(#[from] MalformedEvent),
}

/// A stream as it was loaded, and as the commands executed since have left it.
#[derive(Debug, Clone)]
pub struct Stream<D> {
    pub id: String,
    /// Of its newest event; 0 if it has none.
    pub version: i64,
    pub state: D,
}

impl<D: Decider> Stream<D> {
    /// A stream whose folded state was kept beside its events.
    #[must_use]
    pub fn resume(id: String, version: i64, state: D) -> Self {
        Self { id, version, state }
    }

    /// Decides `command` and adds what follows to `unit`.
    ///
    /// # Errors
    /// The domain's rejection.
    pub fn execute(
        &mut self,
        command: D::Command,
        cause: &Cause,
        now: Timestamp,
        unit: &mut Unit,
    ) -> Result<(), ExecuteError<D::Rejection>> {
        for event in self.state.decide(command).map_err(ExecuteError::Rejected)? {
            let (event_type, data) = encode(&event)?;
            self.version += 1;
            unit.events.push(Recorded {
                stream_id: self.id.clone(),
                version: self.version,
                id: new_id().to_string(),
                event_type,
                time: format!("{now:.6}"),
                correlation_id: cause.correlation_id.clone().unwrap_or_else(|| self.id.clone()),
                causation_id: cause.id.clone(),
                traceparent: cause.trace.child().traceparent(),
                tracestate: cause.trace.state.clone(),
                data,
            });
            self.state = std::mem::take(&mut self.state).evolve(event);
        }
        Ok(())
    }
}

/// Everything that follows from one event.
pub struct Work<'a> {
    store: &'a Store,
    prefetched: &'a HashMap<String, Vec<Recorded>>,
    cause: Cause,
    now: Timestamp,
    unit: Unit,
}

impl<'a> Work<'a> {
    /// `prefetched` has the history of streams that were read beforehand, an empty one for those without events.
    #[must_use]
    pub fn new(store: &'a Store, cause: Cause, prefetched: &'a HashMap<String, Vec<Recorded>>) -> Self {
        Self { store, prefetched, cause, now: now(), unit: Unit::default() }
    }

    /// A stream, folded.
    ///
    /// # Errors
    /// If the store doesn't answer.
    pub async fn load<D: Decider>(&self, stream_id: &str) -> Result<Stream<D>, StoreError> {
        match self.prefetched.get(stream_id) {
            Some(events) => fold(stream_id, events),
            None => self.store.load(stream_id).await,
        }
    }

    /// Decides `command`; what follows belongs to this unit of work.
    ///
    /// # Errors
    /// The domain's rejection.
    pub fn execute<D: Decider>(
        &mut self,
        stream: &mut Stream<D>,
        command: D::Command,
    ) -> Result<(), ExecuteError<D::Rejection>> {
        stream.execute(command, &self.cause, self.now, &mut self.unit)
    }

    /// Keeps a projection beside the events, in the same transaction.
    pub fn project(&mut self, statement: Statement) {
        self.unit.projections.push(statement);
    }

    /// Lets time pass: a simulated person works. What is decided after it happens after it.
    pub async fn pause(&mut self, time: std::time::Duration) {
        tokio::time::sleep(time).await;
        self.now = now();
    }

    /// The `now` of its commands: when this work began, or when its last pause ended.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// The store, for what isn't a stream.
    #[must_use]
    pub fn store(&self) -> &Store {
        self.store
    }

    /// What has been gathered, and whether its cause is to be remembered with it.
    #[must_use]
    pub fn finish(self) -> Unit {
        let Self { cause, mut unit, .. } = self;
        if cause.remembered && !unit.is_empty() {
            let streams: std::collections::BTreeSet<_> = unit.events.iter().map(|event| &event.stream_id[..]).collect();
            let streams = streams.into_iter().collect::<Vec<_>>().join(" ");
            unit.done = Some((cause.source, cause.id, streams));
        }
        unit
    }
}
