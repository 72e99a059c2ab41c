//! The outbox: what is stored gets onto the log, each stream in order, whatever dies in between. The events table is
//! the list of what is to do; this file empties it.
//!
//! One publisher at a time has the right to a stream (also among several processes) and always begins with the lowest
//! version that isn't on the log yet. It marks events as published only after the log has them; a crash in between
//! means that the same bytes are published twice, never that an event is missing or out of order.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use event_sourcing::{Recorded, STORY, Store};
use tokio::sync::{mpsc, oneshot};
use tracing::{Span, info_span};
use tracing_opentelemetry::OpenTelemetrySpanExt;

use crate::{Failure, Identity, Metrics, log::EventLog, name_and_version, published, to_record};

/// Events that a sweep takes on at a time.
const SWEEP: i64 = 1000;
/// How long to wait before a failed publication is tried again by itself.
const RETRY: Duration = Duration::from_millis(500);

struct Request {
    streams: Vec<String>,
    answer: Option<oneshot::Sender<Result<(), Failure>>>,
}

/// Publishes what a service stores.
#[derive(Clone)]
pub struct Outbox {
    store: Store,
    requests: mpsc::UnboundedSender<Request>,
}

impl Outbox {
    /// Publishes the events in `store` as `who`.
    #[must_use]
    pub fn new(store: Store, log: Arc<dyn EventLog>, who: Identity, metrics: Metrics) -> Self {
        let (requests, requested) = mpsc::unbounded_channel();
        tokio::spawn(publish_requests(Publisher { store: store.clone(), log, who, metrics }, requested));
        Self { store, requests }
    }

    /// Publishes what `streams` have not published yet, and returns when the log has it.
    ///
    /// # Errors
    /// If store or log don't answer; it is tried again by itself all the same.
    pub async fn publish(&self, streams: Vec<String>) -> Result<(), Failure> {
        if streams.is_empty() {
            return Ok(());
        }
        let (answer, answered) = oneshot::channel();
        let gone = || Failure::Retry("the service is stopping".to_owned());
        self.requests.send(Request { streams, answer: Some(answer) }).map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }

    /// Publishes them soon; nobody waits.
    pub fn publish_soon(&self, streams: Vec<String>) {
        // Where nobody listens any more the service is stopping, and the next tick finds what is left.
        let _ = self.requests.send(Request { streams, answer: None });
    }

    /// Returns when the log has whatever was to be published until now, however long that takes.
    pub async fn finish(&self) {
        loop {
            let (answer, answered) = oneshot::channel();
            let asked = self.requests.send(Request { streams: Vec::new(), answer: Some(answer) });
            match (asked, answered.await) {
                (Ok(()), Ok(Err(Failure::Retry(_)))) => tokio::time::sleep(RETRY).await,
                _ => return,
            }
        }
    }

    /// Publishes whatever a crash left behind.
    ///
    /// # Errors
    /// If store or log don't answer.
    pub async fn sweep(&self) -> Result<(), Failure> {
        loop {
            let left = self.store.unpublished(None, SWEEP).await?;
            if left.is_empty() {
                return Ok(());
            }
            let streams: BTreeSet<String> = left.into_iter().map(|event| event.stream_id).collect();
            self.publish(streams.into_iter().collect()).await?;
        }
    }
}

struct Publisher {
    store: Store,
    log: Arc<dyn EventLog>,
    who: Identity,
    metrics: Metrics,
}

/// Takes all requests that wait and serves them with one publication, until the last [`Outbox`] is gone.
async fn publish_requests(publisher: Publisher, mut requested: mpsc::UnboundedReceiver<Request>) {
    // What failed and isn't waited for by anybody who would ask again.
    let mut unfinished = BTreeSet::new();
    loop {
        let mut requests = Vec::new();
        if unfinished.is_empty() {
            if requested.recv_many(&mut requests, 1024).await == 0 {
                return;
            }
        } else {
            tokio::select! {
                biased;
                count = requested.recv_many(&mut requests, 1024) => if count == 0 { return },
                () = tokio::time::sleep(RETRY) => {}
            }
        }
        let mut streams: BTreeSet<String> = std::mem::take(&mut unfinished);
        streams.extend(requests.iter().flat_map(|request| request.streams.iter().cloned()));
        let outcome = publisher.publish(streams.iter().cloned().collect()).await;
        if let Err(error) = &outcome {
            tracing::warn!(%error, topic = publisher.who.topic, "not published yet");
            unfinished = streams;
        }
        for request in requests {
            if let Some(answer) = request.answer {
                let _ = answer.send(outcome.clone());
            }
        }
    }
}

impl Publisher {
    /// The span of an event's way to the log, which hangs on the one in which it happened.
    fn span(&self, event: &Recorded) -> Span {
        let name = name_and_version(&event.event_type).map_or(event.event_type.as_str(), |(name, _)| name);
        let span = info_span!(
            target: STORY,
            parent: None,
            "publish",
            otel.name = format_args!("publish {name}"),
            otel.kind = "producer",
            messaging.system = "kafka",
            messaging.operation.name = "send",
            messaging.operation.type = "send",
            messaging.destination.name = self.who.topic,
            messaging.message.id = event.id,
            rainstorm.event.type = name,
            rainstorm.order.id = event.correlation_id,
        );
        if !span.is_disabled() {
            // It has just been made, so it has no parent yet.
            let _ = span.set_parent(event.trace().elsewhere());
        }
        span
    }

    async fn publish(&self, streams: Vec<String>) -> Result<(), Failure> {
        if streams.is_empty() {
            return Ok(());
        }
        let lock = self.store.database().lock_publishing(&streams).await?;
        let events: Vec<Recorded> = self.store.unpublished(Some(streams), SWEEP).await?;
        let records = events.iter().map(|event| published(self.who.source, event).and_then(to_record));
        let records = records.collect::<Result<Vec<_>, _>>().map_err(|error| Failure::Never(error.to_string()))?;
        if records.is_empty() {
            return Ok(());
        }
        let (begun, spans) = (Instant::now(), events.iter().map(|event| self.span(event)).collect::<Vec<_>>());
        self.log.append(self.who.topic, records).await.map_err(|error| Failure::Retry(error.to_string()))?;
        self.metrics.published(events.len(), begun);
        drop(spans);
        Ok(self.store.mark_published(lock, &events).await?)
    }
}
