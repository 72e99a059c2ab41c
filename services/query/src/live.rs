//! What is happening, as it happens: every event of every service as server-sent events
//! (<https://html.spec.whatwg.org/multipage/server-sent-events.html>), read from the log itself. So every instance tells
//! the same, and whoever was cut off goes on at any of them where he was.

use std::{collections::BTreeMap, convert::Infallible, fmt, str::FromStr, sync::Arc, time::Duration};

use axum::{
    extract::State,
    http::{HeaderMap, StatusCode},
    response::sse::{Event, KeepAlive, Sse},
};
use eventing::{
    from_record,
    log::{Batch, EventLog, LogError, Partition, Stored, Tail},
    name_and_version,
};
use futures::Stream;
use runtime::{Problem, extract::QueryParams};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

/// What there is to hear of: the topics of the writing services.
pub const TOPICS: [&str; 4] = ["orders", "payments", "kitchen", "deliveries"];

/// Listeners at the same time, of one instance.
const LISTENERS: usize = 100;
/// How often a silent stream says that it is still there.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// Where the events come from.
pub struct Live {
    log: Arc<dyn EventLog>,
    places: Arc<Semaphore>,
}

impl Live {
    /// Tells of the events on `log`.
    #[must_use]
    pub fn new(log: Arc<dyn EventLog>) -> Arc<Self> {
        Arc::new(Self { log, places: Arc::new(Semaphore::new(LISTENERS)) })
    }
}

/// The route for people.
pub fn routes(live: Arc<Live>) -> OpenApiRouter {
    OpenApiRouter::new().routes(routes!(get_live)).with_state(live)
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Filter {
    /// Only what belongs to this order.
    order: Option<String>,
    /// Only what this service says: `/orders`, `/payments`, `/kitchen` or `/deliveries`.
    source: Option<String>,
}

/// An event that has happened. What it carries isn't told: that has addresses and cards in it.
#[derive(Serialize, ToSchema)]
struct Happened {
    id: String,
    /// Without prefix and version: `order.placed`.
    #[serde(rename = "type")]
    name: String,
    source: String,
    /// The stream it belongs to.
    subject: String,
    sequence: i64,
    time: String,
    /// The order it belongs to; null if it is about a kitchen's menu or a driver's shift.
    order_id: Option<String>,
    causation_id: String,
}

/// Events of all services from now on, or from behind `Last-Event-ID`. Each message is a list of events that came
/// together.
#[utoipa::path(get, path = "/live",
    params(Filter, ("Last-Event-ID" = Option<String>, Header, description = "The `id` of the last message that was heard")),
    responses((status = 200, description = "Server-sent events: `event: events`, its data a list",
            body = Vec<Happened>, content_type = "text/event-stream"),
        (status = 400, description = "The Last-Event-ID is none of this stream's")))]
async fn get_live(
    State(live): State<Arc<Live>>,
    headers: HeaderMap,
    QueryParams(filter): QueryParams<Filter>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Problem> {
    let heard = match headers.get("last-event-id") {
        None => None,
        Some(id) => {
            let read = id.to_str().ok().and_then(|id| id.parse::<Position>().ok());
            Some(read.ok_or_else(|| Problem::bad_request("the Last-Event-ID is none of this stream's"))?)
        }
    };
    let Ok(place) = live.places.clone().try_acquire_owned() else {
        return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too many listen already; try again later"));
    };
    let (position, from) = begin(&*live.log, heard).await.map_err(|error| Problem::unavailable(&error))?;
    let tail = Tail::of(live.log.clone(), from);
    let told =
        futures::stream::unfold((tail, position, filter, place), |(mut tail, mut position, filter, place)| async {
            loop {
                // The stream ends with the log: the listener comes again by itself, and goes on where this ended.
                let batch = tail.next().await.ok()?;
                position.advance(&batch);
                let events: Vec<Happened> =
                    batch.records.iter().filter_map(happened).filter(|it| filter.lets(it)).collect();
                if events.is_empty() {
                    continue;
                }
                let message = Event::default().event("events").id(position.to_string()).json_data(events).ok()?;
                return Some((Ok(message), (tail, position, filter, place)));
            }
        });
    Ok(Sse::new(told).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)))
}

/// Where to begin to listen: behind what was `heard`, or now.
async fn begin(log: &dyn EventLog, heard: Option<Position>) -> Result<(Position, Vec<(Partition, i64)>), LogError> {
    let mut from = Vec::new();
    for topic in TOPICS {
        for (partition, first, end) in log.watermarks(topic).await? {
            // A partition that nobody has told of is new.
            let next = heard.as_ref().map_or(end, |heard| heard.next(&partition).unwrap_or(first).clamp(first, end));
            from.push((partition, next));
        }
    }
    let mut position = Position::default();
    for (partition, next) in &from {
        position.set(partition, *next);
    }
    Ok((position, from))
}

impl Filter {
    fn lets(&self, event: &Happened) -> bool {
        self.order.as_ref().is_none_or(|order| event.order_id.as_ref() == Some(order))
            && self.source.as_ref().is_none_or(|source| event.source == *source)
    }
}

fn happened(stored: &Stored) -> Option<Happened> {
    let event = from_record(&stored.record).ok()?;
    use cloudevents::AttributesReader;
    let text = |name: &str| event.extension(name).map(ToString::to_string);
    let (name, _) = name_and_version(event.ty())?;
    let subject = event.subject()?.to_owned();
    let correlation_id = text("correlationid").filter(|id| *id != subject || id.parse::<uuid::Uuid>().is_ok());
    Some(Happened {
        id: event.id().to_owned(),
        name: name.to_owned(),
        source: event.source().to_string(),
        subject,
        sequence: text("sequence")?.parse().ok()?,
        time: event.time().map(|time| time.to_rfc3339()).unwrap_or_default(),
        order_id: correlation_id,
        causation_id: text("causationid").unwrap_or_default(),
    })
}

/// How far a listener has come on the log: of each topic the next offset of each partition, written
/// `orders=3.0.12,payments=…`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Position(BTreeMap<String, Vec<i64>>);

impl Position {
    fn next(&self, partition: &Partition) -> Option<i64> {
        self.0.get(&partition.topic)?.get(usize::try_from(partition.number).ok()?).copied()
    }

    fn set(&mut self, partition: &Partition, next: i64) {
        let Ok(number) = usize::try_from(partition.number) else { return };
        let offsets = self.0.entry(partition.topic.clone()).or_default();
        if offsets.len() <= number {
            offsets.resize(number + 1, 0);
        }
        offsets[number] = next;
    }

    fn advance(&mut self, batch: &Batch) {
        if let Some(last) = batch.records.last() {
            self.set(&batch.partition, last.offset + 1);
        }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, (topic, offsets)) in self.0.iter().enumerate() {
            let offsets: Vec<_> = offsets.iter().map(ToString::to_string).collect();
            write!(f, "{}{topic}={}", if place > 0 { "," } else { "" }, offsets.join("."))?;
        }
        Ok(())
    }
}

impl FromStr for Position {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut topics = BTreeMap::new();
        for topic in text.split(',') {
            let (topic, offsets) = topic.split_once('=').filter(|(topic, _)| TOPICS.contains(topic)).ok_or(())?;
            let number = |offset: &str| offset.parse().ok().filter(|offset| *offset >= 0).ok_or(());
            let offsets = offsets.split('.').map(number).collect::<Result<Vec<i64>, ()>>()?;
            if topics.insert(topic.to_owned(), offsets).is_some() {
                return Err(());
            }
        }
        Ok(Self(topics))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_read_as_it_was_written_and_nothing_else_is() {
        let mut position = Position::default();
        position.set(&Partition { topic: "orders".to_owned(), number: 2 }, 12);
        position.set(&Partition { topic: "kitchen".to_owned(), number: 0 }, 7);
        assert_eq!(position.to_string(), "kitchen=7,orders=0.0.12");
        assert_eq!(position.to_string().parse(), Ok(position));
        for wrong in ["", "orders", "orders=", "orders=1.-2", "orders=a", "secrets=1", "orders=1,orders=2", "orders=1,"]
        {
            assert_eq!(wrong.parse::<Position>(), Err(()), "{wrong:?}");
        }
    }
}
