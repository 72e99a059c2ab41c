//! What is heard live, and that whoever is cut off goes on where he was, at whichever instance.

use axum::{body::Body, http::Request, response::Response};
use eventing::{Incoming, to_record};
use http_body_util::BodyExt;
use serde_json::Value;
use tower::ServiceExt;

use crate::{ORDER, OTHER, Setup, delivered, orders, setup};

/// A listener.
struct Listener(Body);

impl Setup {
    async fn listen(&self, query: &str, heard: Option<&str>) -> Response {
        let mut request = Request::get(format!("/live{query}"));
        if let Some(heard) = heard {
            request = request.header("last-event-id", heard);
        }
        self.router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap()
    }

    async fn say(&self, topic: &str, events: &[Incoming]) {
        let records = events.iter().map(|event| to_record(event.original.clone()).unwrap()).collect();
        self.platform.log.append(topic, records).await.unwrap();
    }
}

impl Listener {
    fn new(response: Response) -> Self {
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self(response.into_body())
    }

    /// The next message: its id, and the events in it.
    async fn hear(&mut self) -> (String, Vec<Value>) {
        let mut text = String::new();
        while !text.ends_with("\n\n") {
            let frame = self.0.frame().await.expect("the stream goes on").unwrap();
            text.push_str(std::str::from_utf8(&frame.into_data().unwrap()).unwrap());
        }
        let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().to_owned();
        assert_eq!(field("event: "), "events", "{text}");
        (field("id: "), serde_json::from_str(&field("data: ")).unwrap())
    }

    /// What is heard until so many events have come: the last id, and the events' names.
    async fn hear_all(&mut self, count: usize) -> (String, Vec<String>) {
        let (mut last, mut names) = (String::new(), Vec::new());
        while names.len() < count {
            let (id, events) = self.hear().await;
            names.extend(events.iter().map(|event| event["type"].as_str().unwrap().to_owned()));
            last = id;
        }
        (last, names)
    }
}

async fn with_topics() -> Setup {
    let it = setup(None).await;
    it.platform.log.create_topics(&query::live::TOPICS).await.unwrap();
    it
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_was_cut_off_hears_what_he_has_missed_and_nothing_twice() {
    let it = with_topics().await;
    let [order, payment, ..] = delivered();
    it.say("orders", &orders(7..=9)).await;
    let mut listener = Listener::new(it.listen("", None).await);
    it.say("orders", &order[..1]).await;
    let (heard, events) = listener.hear().await;
    assert_eq!(events.len(), 1, "what was before is not told: {events:?}");
    assert_eq!((&events[0]["type"], &events[0]["order_id"]), (&Value::from("order.placed"), &Value::from(ORDER)));
    assert!(events[0].get("data").is_none(), "nobody's address is told");
    drop(listener);

    it.say("payments", &payment).await;
    it.say("orders", &order[1..]).await;
    let mut again = Listener::new(it.listen("", Some(&heard)).await);
    let (last, mut names) = again.hear_all(2).await;
    names.sort();
    assert_eq!(names, ["order.completed", "payment.confirmed"]);
    it.say("orders", &orders(10..=10)).await;
    assert_eq!(again.hear().await.1.len(), 1);
    let mut at_the_end = Listener::new(it.listen("", Some(&last)).await);
    assert_eq!(at_the_end.hear_all(1).await.1, ["order.placed"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_hears_of_one_order_or_one_service_if_that_is_what_is_asked() {
    let it = with_topics().await;
    let [order, payment, ..] = delivered();
    let mut of_order = Listener::new(it.listen(&format!("?order={ORDER}"), None).await);
    let mut of_service = Listener::new(it.listen("?source=/payments", None).await);
    it.say("orders", &order).await;
    it.say("payments", &payment).await;
    let mut names = of_order.hear_all(3).await.1;
    names.sort();
    assert_eq!(names, ["order.completed", "order.placed", "payment.confirmed"]);
    assert_eq!(of_service.hear_all(1).await.1, ["payment.confirmed"]);
    let mut of_other = Listener::new(it.listen(&format!("?order={OTHER}"), None).await);
    it.say("orders", &order).await;
    let other = crate::event("/orders", OTHER, 1, crate::placed().0, crate::placed().1);
    let mut named = other.original.clone();
    cloudevents::AttributesWriter::set_subject(&mut named, Some(OTHER.to_owned()));
    named.set_extension("correlationid", OTHER);
    it.platform.log.append("orders", vec![to_record(named).unwrap()]).await.unwrap();
    assert_eq!(of_other.hear().await.1[0]["subject"], OTHER);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_position_that_is_none_of_ours_is_refused() {
    let it = with_topics().await;
    for wrong in ["7", "secrets=1", "orders=-1", "orders=1.x"] {
        let response = it.listen("", Some(wrong)).await;
        assert_eq!(response.status(), 400, "{wrong}");
    }
    // One of more partitions than there are, or beyond the end, is taken as far as it goes.
    let mut listener = Listener::new(it.listen("", Some("orders=99.99.99.99.99.99,kitchen=0")).await);
    it.say("kitchen", &delivered()[2][..1]).await;
    assert_eq!(listener.hear_all(1).await.1, ["kitchen.ticket_created"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_listen_and_one_more_is_told_to_come_again() {
    let it = with_topics().await;
    let mut listening = Vec::new();
    for _ in 0..100 {
        listening.push(Listener::new(it.listen("", None).await));
    }
    assert_eq!(it.listen("", None).await.status(), 503);
    listening.pop();
    assert_eq!(it.listen("", None).await.status(), 200);
}
