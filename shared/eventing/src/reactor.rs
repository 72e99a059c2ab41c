//! How a writing service handles events: its reactions decide, and each event's effects are committed together with
//! the note that it was handled, then published, then answered for.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use async_trait::async_trait;
use event_sourcing::{Cause, Recorded, Store, StoreError, Unit, Work};
use futures::future::join_all;
use tracing::Instrument;

use crate::{Failure, Handled, Handler, Identity, Incoming, Metrics, Outbox, log::EventLog};

/// How often an event is decided again because somebody else was faster, before it is delivered again instead.
const CONFLICTS: usize = 20;

/// What a writing service does about events of others. This is what `reactions.rs` of each service is.
#[async_trait]
pub trait Reactions: Send + Sync + 'static {
    /// See [`Handler::understands`].
    fn understands(&self, name: &str) -> Option<&'static str>;

    /// Decides what follows from `event` and gathers it in `work`. It may be called again for the same event: when
    /// somebody else changed a stream meanwhile, or after a crash. Then it sees what is true by then.
    async fn react(&self, event: &Incoming, work: &mut Work<'_>) -> Result<(), Failure>;

    /// After a batch: what concerns many streams at once. Returns the streams it has changed.
    async fn settle(&self) -> Result<Vec<String>, Failure> {
        Ok(Vec::new())
    }

    /// See [`Handler::discard`].
    async fn discard(&self, _event: &Incoming) -> Result<(), Failure> {
        Ok(())
    }

    /// Time has passed. Returns the streams it has changed.
    async fn tick(&self, _now: jiff::Timestamp) -> Result<Vec<String>, Failure> {
        Ok(Vec::new())
    }
}

/// A writing service's streams, and the way from there to the log.
#[derive(Clone)]
pub struct Writer {
    pub store: Store,
    pub outbox: Outbox,
}

impl Writer {
    /// The streams in `store`, published as `who`.
    #[must_use]
    pub fn new(store: Store, log: Arc<dyn EventLog>, who: Identity, metrics: Metrics) -> Self {
        let outbox = Outbox::new(store.clone(), log, who, metrics);
        Self { store, outbox }
    }

    /// Does one piece of work: `react` decides on what is stored, again and again until nobody else was faster.
    /// Returns whether it had an effect, and the streams that were changed; they are not published yet.
    ///
    /// # Errors
    /// What `react` says, or the store's trouble.
    pub async fn transact(
        &self,
        cause: &Cause,
        mut prefetched: HashMap<String, Vec<Recorded>>,
        react: impl AsyncReact,
    ) -> Result<(Handled, Vec<String>), Failure> {
        for _ in 0..CONFLICTS {
            let mut work = Work::new(&self.store, cause.clone(), &prefetched);
            react.react(&mut work).await?;
            let unit = work.finish();
            if unit.is_empty() {
                return Ok((Handled::Nothing, Vec::new()));
            }
            let streams = streams(&unit);
            match self.store.commit(unit).await {
                Ok(()) => return Ok((Handled::Effect, streams)),
                // The same event, handled by somebody else at the same moment.
                Err(StoreError::Conflict) if cause.remembered && self.store.begun_by(cause).await?.is_some() => {
                    return Ok((Handled::Effect, streams));
                }
                Err(StoreError::Conflict) => prefetched.clear(),
                Err(error) => return Err(error.into()),
            }
        }
        Err(Failure::Retry("others keep changing the same streams".to_owned()))
    }
}

fn streams(unit: &Unit) -> Vec<String> {
    let streams: BTreeSet<_> = unit.events.iter().map(|event| event.stream_id.clone()).collect();
    streams.into_iter().collect()
}

/// Something that decides on a [`Work`], perhaps several times.
#[async_trait]
pub trait AsyncReact: Send + Sync {
    /// Decides once.
    async fn react(&self, work: &mut Work<'_>) -> Result<(), Failure>;
}

struct ToEvent<'a, R>(&'a R, &'a Incoming);

#[async_trait]
impl<R: Reactions> AsyncReact for ToEvent<'_, R> {
    async fn react(&self, work: &mut Work<'_>) -> Result<(), Failure> {
        self.0.react(self.1, work).await
    }
}

/// The [`Handler`] of a writing service.
pub struct Reactor<R> {
    writer: Writer,
    reactions: Arc<R>,
}

impl<R: Reactions> Reactor<R> {
    /// Lets `reactions` write with `writer`.
    #[must_use]
    pub fn new(writer: Writer, reactions: Arc<R>) -> Self {
        Self { writer, reactions }
    }

    /// The events of one subject, one after the other; a failure stops those behind it.
    async fn one_subject(
        &self,
        events: Vec<(usize, &Incoming)>,
        history: Vec<Recorded>,
    ) -> Vec<(usize, Result<(Handled, Vec<String>), Failure>)> {
        let mut prefetched = HashMap::from([(events[0].1.subject.clone(), history)]);
        let mut outcomes = Vec::new();
        let mut failed = false;
        for (place, event) in events {
            if failed {
                outcomes.push((place, Err(Failure::Retry("an earlier event of its stream failed".to_owned()))));
                continue;
            }
            let known = std::mem::take(&mut prefetched);
            let cause = event.cause();
            let reacted = self.writer.transact(&cause, known, ToEvent(&*self.reactions, event));
            let outcome = reacted.instrument(event.span.clone()).await;
            failed = outcome.is_err();
            outcomes.push((place, outcome));
        }
        outcomes
    }
}

#[async_trait]
impl<R: Reactions> Handler for Reactor<R> {
    fn understands(&self, name: &str) -> Option<&'static str> {
        self.reactions.understands(name)
    }

    async fn handle(&self, events: &[Incoming]) -> Vec<Result<Handled, Failure>> {
        let mut subjects: BTreeMap<&str, Vec<(usize, &Incoming)>> = BTreeMap::new();
        for (place, event) in events.iter().enumerate() {
            subjects.entry(&event.subject).or_default().push((place, event));
        }
        let all = |failure: &Failure| events.iter().map(|_| Err(failure.clone())).collect();
        let ids = subjects.keys().map(|subject| (*subject).to_owned()).collect();
        let mut history = match self.writer.store.history(ids).await {
            Ok(history) => history,
            Err(error) => return all(&Failure::from(error).shared_by(events.len())),
        };
        let handled = subjects
            .into_iter()
            .map(|(subject, events)| self.one_subject(events, history.remove(subject).unwrap_or_default()));
        let mut outcomes: Vec<_> = join_all(handled).await.into_iter().flatten().collect();
        outcomes.sort_by_key(|(place, _)| *place);

        let changed = outcomes.iter().filter_map(|(_, outcome)| outcome.as_ref().ok()).flat_map(|(_, streams)| streams);
        let mut changed: BTreeSet<String> = changed.cloned().collect();
        let settled = self.reactions.settle().await;
        changed.extend(settled.iter().flatten().cloned());
        // Only now may anybody hear that it is done.
        let published = self.writer.outbox.publish(changed.into_iter().collect()).await;
        let done = settled.map(|_| ()).and(published);
        let answer = |outcome: Result<(Handled, _), _>| outcome.and_then(|(handled, _)| done.clone().map(|()| handled));
        outcomes.into_iter().map(|(_, outcome)| answer(outcome)).collect()
    }

    async fn seen(&self, streams: Vec<String>) -> Result<(), Failure> {
        let settled = self.reactions.settle().await?;
        self.writer.outbox.publish(streams.into_iter().chain(settled).collect()).await
    }

    async fn discard(&self, event: &Incoming) -> Result<(), Failure> {
        self.reactions.discard(event).await
    }

    async fn tick(&self, now: jiff::Timestamp) -> Result<(), Failure> {
        let changed = self.reactions.tick(now).await?;
        self.writer.outbox.publish(changed).await?;
        self.writer.outbox.sweep().await
    }
}
