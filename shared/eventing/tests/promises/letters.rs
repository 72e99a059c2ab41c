//! How events become dead letters, from wherever they come, and what a letter keeps of them.

use std::{collections::HashMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use cloudevents::{AttributesReader, Data, Event, EventBuilder, EventBuilderV10};
use eventing::{
    bridge::{Bounds, Bridge, BridgeSettings, RouterSink, Sink},
    dead_letters::{History, REDELIVERY_REQUESTED},
    log::{EventLog, Lag, Record},
    sources::{Sources, Subscription},
    to_record,
};
use runtime::Stop;

use super::{Setup, add, knock, on_every_database, redelivery::unreadable};

/// A door that refuses what mentions `REFUSED`, as a service refuses what is no event to it.
struct Refusing(RouterSink);
#[async_trait]
impl Sink for Refusing {
    async fn post(&self, headers: Vec<(String, String)>, body: Vec<u8>) -> Result<(u16, String), String> {
        let mentions = |bytes: &[u8], word: &str| bytes.windows(word.len()).any(|it| it == word.as_bytes());
        let texts = || headers.iter().flat_map(|(name, value)| [name.as_bytes(), value.as_bytes()]).chain([&*body]);
        let is_letter = texts().any(|text| mentions(text, "knativeerrordest"));
        if !is_letter && texts().any(|text| mentions(text, "REFUSED")) {
            return Ok((422, "I don't take\nthat".to_owned()));
        }
        self.0.post(headers, body).await
    }
}

impl Setup {
    /// Lets a bridge knock for both of the service's subscriptions until everything on the log is delivered.
    async fn bridge(&self) {
        let subscription = |group: &str, topic: &str| Subscription {
            service: "counter".into(),
            group: group.into(),
            topics: vec![topic.into()],
        };
        let letters = "counter.dead-letters";
        let subscriptions = vec![subscription("counter", "tests"), subscription("counter-letters", letters)];
        let sources = Sources { subscriptions, ..Sources::default() };
        let door: Arc<dyn Sink> = Arc::new(Refusing(RouterSink(self.doors[0].clone())));
        let sinks = HashMap::from([("counter".to_owned(), door)]);
        let stop = Stop::default();
        let bounds = Bounds { rest: Duration::from_millis(50), ..Bounds::default() };
        let settings = BridgeSettings { bounds, ..BridgeSettings::default() };
        let log: Arc<dyn EventLog> = self.log.clone();
        let bridge = Bridge::start(log, &sources, &sinks, &settings, &stop).await.unwrap();
        assert_eq!(bridge.pulses.len(), 1, "one pulse of the service, of both its subscriptions");
        let pulse = bridge.pulses[0].clone();
        let delivered = async {
            loop {
                let mut behind = 0;
                for (group, topic) in [("counter", "tests"), ("counter-letters", letters)] {
                    let lag = self.log.lag(group, &[topic.to_owned()]).await.unwrap();
                    behind += lag.iter().map(Lag::records).sum::<i64>();
                }
                if behind == 0 && pulse.awake() == 0 {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), delivered).await.expect("everything is delivered in time");
        assert_eq!((pulse.waiting(), pulse.wakings()), (0, pulse.sleeps()));
        stop.now();
        bridge.finish().await;
    }

    async fn append(&self, records: Vec<Record>) {
        self.log.append("tests", records).await.unwrap();
    }

    async fn letter(&self, matches: impl Fn(&History) -> bool) -> History {
        let found: Vec<_> = self.histories().await.into_values().filter(matches).collect();
        assert_eq!(found.len(), 1, "{found:#?}");
        found.into_iter().next().unwrap()
    }
}

fn bytes(event: &Event) -> Vec<u8> {
    match event.data() {
        None => vec![],
        Some(Data::Binary(bytes)) => bytes.clone(),
        other => panic!("{other:?}"),
    }
}

/// A record with a key of its own, so that its partition is known to be the same each time.
fn record(key: &[u8], headers: &[(&str, &[u8])], value: Option<&[u8]>) -> Record {
    let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), value.to_vec())).collect();
    Record { key: Some(key.to_vec()), headers, value: value.map(<[u8]>::to_vec) }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_is_no_event_becomes_a_letter_whole() {
    let large = vec![0xfe; 1_000_000];
    let many: Vec<(String, Vec<u8>)> = (0..200).map(|number| (format!("h{number}"), vec![b'x'; 300])).collect();
    let many: Vec<(&str, &[u8])> = many.iter().map(|(name, value)| (name.as_str(), value.as_slice())).collect();
    let event: &[(&str, &[u8])] = &[("ce_specversion", b"1.0"), ("ce_id", b"e"), ("ce_source", b"/tests")];
    let add_type: (&str, &[u8]) = ("ce_type", b"dev.rainstorm.test.add.v1");
    let records = [
        record(b"zero", &[], Some(b"")),
        record(b"nothing", &[("x-why", b"tombstone")], None),
        record(b"\xff\x00", &[("same", b"1"), ("same", b"\xc3\x28"), ("Odd Name", b"")], Some(b"garbage")),
        record(b"large", &[], Some(&large)),
        record(b"many", &many, Some(b"{}")),
        record(b"no type", event, Some(br#"{"by":1}"#)),
        record(b"not utf-8", &[event, &[add_type, ("ce_subject", b"\xff")]].concat(), Some(b"1")),
        record(b"control", &[event, &[add_type, ("ce_subject", b"a\x00b")]].concat(), Some(b"1")),
        record(b"odd attribute", &[event, &[add_type, ("ce_föö", b"1")]].concat(), Some(b"1")),
        record(b"structured", &[("content-type", b"application/cloudevents+json")], Some(b"{\"id\": 1")),
    ];
    on_every_database(|it| {
        let records = records.clone();
        async move {
            it.append(records.to_vec()).await;
            it.append(vec![to_record(add("healthy", "s", 5)).unwrap()]).await;
            it.bridge().await;
            assert_eq!(it.counted("s").await, [5]);
            assert_eq!(it.on_dead_letter_topic().await.len(), records.len(), "one record each, and none of a letter");
            let letters: Vec<_> = it.all_histories().await;
            for record in records {
                let origin = |letter: &&History| letter.letter.origin.key() == record.key;
                let found = letters.iter().find(origin).unwrap_or_else(|| panic!("{record:?}"));
                let letter = &found.letter;
                assert_eq!((letter.state.name(), letter.attempts, letter.subject()), ("failed", 1, ""));
                assert_eq!(bytes(&letter.event), record.value.clone().unwrap_or_default());
                assert_eq!(letter.origin.headers(), record.headers);
                assert_eq!(letter.origin.topic.as_deref(), Some("tests"));
                let place =
                    format!("partition:{}/offset:{}", letter.origin.partition.unwrap(), letter.origin.offset.unwrap());
                assert_eq!(letter.event.id(), place);
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_is_rejected_becomes_a_letter_with_its_bytes_its_place_its_trace_and_foreign_headers() {
    on_every_database(|it| async move {
        let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let mut event = unreadable("r1", "s");
        event.set_extension("traceparent", trace.to_owned());
        let mut rejected = to_record(event).unwrap();
        let odd = b"{ \"by\": \"one\",\n \"by\": 1.50 }".to_vec();
        rejected.value = Some(odd.clone());
        rejected.headers.push(("x-app".to_owned(), b"\xfe".to_vec()));
        // Once among others and once alone, as a batch and as a single request carry it.
        it.append(vec![rejected.clone(), to_record(add("r2", "s", 2)).unwrap()]).await;
        it.bridge().await;
        let history = it.letter(|history| history.letter.event.id() == "r1").await;
        let letter = &history.letter;
        assert_eq!(bytes(&letter.event), odd);
        assert_eq!(letter.event.extension("traceparent").map(ToString::to_string).as_deref(), Some(trace));
        assert_eq!(letter.origin.headers(), [("x-app".to_owned(), b"\xfe".to_vec())]);
        assert_eq!((letter.origin.topic.as_deref(), letter.origin.offset), (Some("tests"), Some(0)));
        assert!(letter.reason.contains("test.add") && letter.attempts == 1, "{letter:?}");
        assert_eq!(letter.event.datacontenttype(), Some("application/json"));
        // What was added on the way is none of the event's own.
        let own: Vec<_> = letter.event.iter_extensions().map(|(name, _)| name).collect();
        assert_eq!(own, ["traceparent"]);
        let parked = it.letter(|history| history.letter.event.id() == "r2").await;
        assert_eq!((parked.letter.state.name(), parked.letter.origin.offset), ("parked", Some(1)));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_service_refuses_becomes_its_letter_and_later_events_park_behind_it() {
    on_every_database(|it| async move {
        let mut refused = add("r1", "s", 1);
        refused.set_extension("note", "REFUSED".to_owned());
        it.append(vec![to_record(refused).unwrap()]).await;
        it.bridge().await;
        let history = it.letter(|history| history.letter.event.id() == "r1").await;
        assert!(history.known && history.letter.reason.contains("422 I don't take that"), "{history:?}");
        assert_eq!(history.letter.origin.topic.as_deref(), Some("tests"));
        let own: Vec<_> = history.letter.event.iter_extensions().map(|(name, _)| name).collect();
        assert_eq!(own, ["note"]);
        let steps: Vec<_> = history.steps.iter().map(|step| step.what.as_str()).collect();
        assert_eq!(steps, ["refused", "failed"]);
        // Later events of its subject wait; and the wish that it be redelivered comes from the log.
        it.append(vec![to_record(add("r2", "s", 2)).unwrap()]).await;
        it.bridge().await;
        assert_eq!(it.counted("s").await, super::redelivery::NONE);
        let wish = it.wish(REDELIVERY_REQUESTED, "r1").await;
        it.log.append("counter.dead-letters", vec![to_record(wish).unwrap()]).await.unwrap();
        it.bridge().await;
        assert_eq!(it.counted("s").await, [1, 2]);
        let closed = [("r1".to_owned(), "redelivered"), ("r2".to_owned(), "redelivered")];
        assert_eq!(it.states().await, closed);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_from_among_the_dead_letters_is_not_put_there_again() {
    on_every_database(|it| async move {
        let mut refused = add("r1", "s", 1);
        refused.set_extension("note", "REFUSED".to_owned());
        it.log.append("counter.dead-letters", vec![to_record(refused).unwrap()]).await.unwrap();
        it.bridge().await;
        assert_eq!(it.on_dead_letter_topic().await.len(), 1);
    })
    .await;
}

/// As Knative's sink of dead letters writes it.
fn given_up(event: Event) -> Event {
    EventBuilderV10::from(event)
        .extension("knativeerrordest", "http://counter.rainstorm.svc.cluster.local/events".to_owned())
        .extension("knativeerrorcode", "503".to_owned())
        .extension("knativeerrordata", "Service\n Unavailable".to_owned())
        .build()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_knative_gave_up_becomes_a_letter_unless_it_has_had_its_effect() {
    on_every_database(|it| async move {
        // KafkaSource says of no event on which topic it stood.
        it.tell(&[add("k0", "s", 1), given_up(add("k0", "s", 1)), given_up(add("k1", "s", 2)), add("k2", "s", 3)])
            .await;
        let states =
            [("k0", "redelivered"), ("k1", "failed"), ("k2", "parked")].map(|(id, state)| (id.to_owned(), state));
        assert_eq!((it.states().await, it.counted("s").await), (states.to_vec(), vec![1]));
        let letter = &it.histories().await["k1"].letter;
        assert!(letter.reason.contains("503") && letter.origin.topic.is_none(), "{letter:?}");
        // Told again it is still one letter, and what the service hears of its own letters changes nothing.
        it.tell(&[given_up(add("k1", "s", 2))]).await;
        let own: Vec<Event> = it.on_dead_letter_topic().await;
        assert_eq!(own.len(), 3);
        it.tell(&own).await;
        assert_eq!(it.states().await, states);
        let wish = it.wish(REDELIVERY_REQUESTED, "k1").await;
        it.tell(&[wish]).await;
        assert_eq!(it.counted("s").await, [1, 2, 3]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_kafkasource_wrapped_keeps_its_place_and_one_that_reads_by_now_is_handled() {
    on_every_database(|it| async move {
        let wrapped = |offset: i64| {
            EventBuilderV10::new()
                .id(format!("partition:3/offset:{offset}"))
                .source("/apis/v1/namespaces/rainstorm/kafkasources/counter#tests")
                .ty(eventing::NOT_A_CLOUD_EVENT)
                .subject(format!("partition:3#{offset}"))
        };
        let garbage = wrapped(17).data("application/octet-stream", b"garbage".to_vec()).build().unwrap();
        // This is an event by now: whoever wrapped it knew less.
        let record = to_record(add("e1", "s", 4)).unwrap();
        let headers: Vec<_> = record.headers.iter().map(|(name, value)| (name, base64(value))).collect();
        let readable = wrapped(18)
            .extension("kafkatopic", "tests".to_owned())
            .extension("kafkaheaders", serde_json::json!(headers).to_string())
            .data("application/octet-stream", record.value.clone().unwrap())
            .build()
            .unwrap();
        it.tell(&[garbage, readable, add("e0", "s", 3)]).await;
        let letters = it.histories().await;
        let origin = &letters["partition:3/offset:17"].letter.origin;
        assert_eq!((origin.topic.as_deref(), origin.partition, origin.offset), (Some("tests"), Some(3), Some(17)));
        for id in ["partition:3/offset:17", "partition:3/offset:18"] {
            let wish = it.wish(REDELIVERY_REQUESTED, id).await;
            it.tell(&[wish.clone(), wish]).await;
        }
        let states = [("partition:3/offset:17", "failed"), ("partition:3/offset:18", "redelivered")];
        assert_eq!(it.states().await, states.map(|(id, state)| (id.to_owned(), state)));
        assert_eq!(it.counted("s").await, [3, 4]);
    })
    .await;
}

fn base64(bytes: &[u8]) -> String {
    use base64::{Engine, prelude::BASE64_STANDARD};
    BASE64_STANDARD.encode(bytes)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_before_a_letter_in_a_batch_is_handled_and_what_comes_after_it_waits() {
    on_every_database(|it| async move {
        let newer = EventBuilderV10::from(add("v2", "s", 5)).ty("dev.rainstorm.test.more.v2").build().unwrap();
        assert_eq!(knock(&it.doors[0], &[add("e1", "s", 1), newer, add("e3", "s", 3)]).await, 204);
        let states = [("e3".to_owned(), "parked"), ("v2".to_owned(), "failed")];
        assert_eq!((it.states().await, it.counted("s").await), (states.to_vec(), vec![1]));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_overtakes_an_event_of_its_subject_that_may_have_crashed_its_handler() {
    on_every_database(|it| async move {
        for _ in 0..3 {
            assert_eq!(knock(&it.doors[0], &[add("c1", "s", 13)]).await, 503);
        }
        assert_eq!(knock(&it.doors[0], &[add("c1", "s", 13), add("e2", "s", 2), add("e3", "t", 3)]).await, 503);
        assert_eq!((it.counted("s").await, it.counted("t").await), (vec![], vec![3]));
        it.tell(&[add("c1", "s", 13), add("e2", "s", 2)]).await;
        let states = [("c1".to_owned(), "failed"), ("e2".to_owned(), "parked")];
        assert_eq!(it.states().await, states);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reason_that_no_database_could_keep_is_kept_legibly_each_time() {
    on_every_database(|it| async move {
        it.tell(&[add("r1", "s", 66)]).await;
        for attempts in 1..=2 {
            let letter = it.histories().await["r1"].letter.clone();
            assert!(letter.reason.starts_with("two lines") && letter.reason.len() == 1000, "{}", letter.reason);
            assert_eq!(letter.attempts, attempts);
            it.tell(&[it.wish(REDELIVERY_REQUESTED, "r1").await]).await;
        }
        it.mend();
        it.tell(&[it.wish(REDELIVERY_REQUESTED, "r1").await]).await;
        assert_eq!(it.counted("s").await, [66]);
    })
    .await;
}
