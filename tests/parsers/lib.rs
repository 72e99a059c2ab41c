//! Every parser that reads bytes from outside, with what must hold whatever those bytes are: it never panics, and what
//! it accepts means the same when it is written and read again. Each function here is one parser. `cargo test` throws
//! mutilated samples at them; `fuzz/run` lets libFuzzer look for worse.

mod samples;

use axum::{
    extract::Query,
    http::{HeaderMap, HeaderName, HeaderValue, Uri},
};
use cloudevents::Event;
use event_sourcing::TraceContext;
use eventing::{
    Incoming, bridge::named_url, events_of, from_json, from_record, librdkafka_settings, log::Record, sources::Sources,
    to_record,
};
use query::{OrderFilter, live::Position};

/// A parser under attack: its name, what it does with bytes from outside, and samples to begin with.
pub struct Parser {
    pub name: &'static str,
    pub read: fn(&[u8]),
    pub samples: fn() -> Vec<Vec<u8>>,
}

/// All of them.
pub const PARSERS: [Parser; 7] = [
    Parser { name: "request", read: request, samples: samples::requests },
    Parser { name: "record", read: record, samples: samples::records },
    Parser { name: "question", read: question, samples: samples::questions },
    Parser { name: "manifests", read: manifests, samples: samples::manifests },
    Parser { name: "settings", read: settings, samples: samples::settings },
    Parser { name: "trace", read: trace, samples: samples::traces },
    Parser { name: "position", read: position, samples: samples::positions },
];

/// A request at the door: header lines, an empty line, the body.
pub fn request(bytes: &[u8]) {
    let end = bytes.windows(2).position(|two| two == b"\n\n");
    let (head, body) = end.map_or((bytes, &b""[..]), |end| (&bytes[..end], &bytes[end + 2..]));
    let mut headers = HeaderMap::new();
    for line in head.split(|byte| *byte == b'\n') {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        if let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(&line[..colon]), HeaderValue::from_bytes(line[colon + 1..].trim_ascii()))
        {
            headers.append(name, value);
        }
    }
    for event in events_of(&headers, body).unwrap_or_default() {
        is_the_same_on_the_log(event);
    }
}

/// A record as it lies in the embedded log's file; one from Kafka has the same parts.
pub fn record(bytes: &[u8]) {
    let Ok(record) = postcard::from_bytes::<Record>(bytes) else { return };
    let stored = postcard::to_allocvec(&record).expect("what was read can be written");
    assert_eq!(postcard::from_bytes::<Record>(&stored).expect("what was written can be read"), record);
    if let Ok(event) = from_record(&record) {
        is_the_same_on_the_log(event);
    }
}

/// An event that was accepted can be put on a log, where it is the same record each time, and says there what it said
/// before. It can be a dead letter, too, whatever its data is.
fn is_the_same_on_the_log(event: Event) {
    let first = to_record(event.clone()).expect("an event is a record");
    let read = from_record(&first).expect("a record of an event is that event");
    assert_eq!(to_record(read.clone()).expect("an event is a record"), first);
    match (Incoming::read(event.clone()), Incoming::read(read)) {
        (Ok(before), Ok(after)) => {
            assert_eq!((before.id, before.source, before.subject), (after.id, after.source, after.subject));
            assert_eq!((before.event_type, before.data), (after.event_type, after.data));
            assert_eq!((before.sequence, before.time), (after.sequence, after.time));
        }
        (Err(before), Err(after)) => assert_eq!(before.1, after.1),
        (before, after) => panic!("it is handled only one way: {before:?} {after:?}"),
    }
    let letter = serde_json::to_string(&event).expect("a letter can be kept");
    let kept = serde_json::from_str(&letter).expect("a letter that was kept is JSON");
    let kept = from_json(kept).expect("a letter that was kept can be read");
    assert_eq!(to_record(kept).expect("an event is a record"), first, "{letter}");
}

/// What stands behind the `?` of `GET /orders`.
pub fn question(bytes: &[u8]) {
    let Ok(uri) = Uri::try_from([b"/orders?", bytes].concat()) else { return };
    let Ok(Query(filter)) = Query::<OrderFilter>::try_from_uri(&uri) else { return };
    let Ok(page) = filter.page() else { return };
    assert!((1..=500).contains(&page.limit));
    assert!((1..=4).contains(&page.values.len()));
    for number in 1..=page.values.len() {
        assert_eq!(page.sql.matches(&format!("${number}")).count(), 1, "{}", page.sql);
    }
    // What a customer said is a value, never a part of the question.
    let known =
        "SELECT order_id, view FROM orders WHERE placed = 1 AND customer_id = status order_id < ORDER BY DESC LIMIT";
    let word = |word: &str| known.split(' ').any(|known| known == word) || word.starts_with('$');
    assert!(page.sql.split(' ').all(word), "{}", page.sql);
}

/// The `Last-Event-ID` of `GET /live`.
pub fn position(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(position) = text.parse::<Position>() else { return };
    assert_eq!(position.to_string().parse(), Ok(position), "{text:?}");
}

/// The manifests in `knative/`.
pub fn manifests(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(alone) = Sources::parse([("some.yaml", text)]) else { return };
    let known = samples::MANIFEST;
    let both = Sources::parse([("known.yaml", known), ("some.yaml", text)]).expect("each can be read by itself");
    assert!(both.subscriptions.ends_with(&alone.subscriptions) && both.ticks.ends_with(&alone.ticks));
    assert!(alone.topics().windows(2).all(|two| two[0] < two[1]));
}

/// Settings, a line each: a span of time, a sink, or a variable of the environment.
pub fn settings(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    for line in text.lines() {
        if let Ok(span) = runtime::settings::duration(line) {
            let written = format!("{}s {}ns", span.as_secs(), span.subsec_nanos());
            assert_eq!(runtime::settings::duration(&written), Ok(span), "{line:?}");
        }
        if let Ok((service, url)) = named_url(line) {
            assert!(url.scheme() == "http" && url.has_host(), "{url}");
            let written = format!("{service}={url}");
            assert_eq!(named_url(&written), Ok((service, url)), "{line:?}");
        }
    }
    let variables = text.lines().filter_map(|line| line.split_once('='));
    let passed_on = librdkafka_settings(variables.map(|(name, value)| (name.into(), value.into())));
    for name in passed_on.keys() {
        assert!(name == "security.protocol" || name.starts_with("ssl.") || name.starts_with("sasl."), "{name}");
    }
    let again = passed_on.iter().map(|(name, value)| (name.into(), value.into()));
    assert_eq!(librdkafka_settings(again), passed_on);
}

/// `traceparent` and `tracestate`, a line each.
pub fn trace(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let mut lines = text.split('\n');
    let (parent, state) = (lines.next(), lines.next());
    let read = TraceContext::read(parent, state);
    let written = read.traceparent();
    assert_eq!(written.len(), 55);
    let again = TraceContext::read(Some(&written), Some(&read.state));
    assert_eq!((again.traceparent(), &again.state), (written.clone(), &read.state));
    let child = read.child();
    assert_eq!(child.traceparent()[..36], written[..36]);
    assert_ne!(child.traceparent(), written);
    if let Some(parent) = parent.filter(|parent| parent.starts_with("00-") && read.state == state.unwrap_or_default()) {
        assert!(parent == written || state.unwrap_or_default().is_empty(), "{parent} {written}");
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*, sample::Index};

    use super::*;

    /// Texts that have been too much for parsers before.
    const ODD: &[&str] =
        &["\0", "\n", "\r\n", "%", "\u{80}", "\\u0000", "\\ud800", "99999999999999999999", "[[[[", "&a *a", "-1"];

    /// Bytes that can be read where a test failed.
    #[derive(Clone)]
    struct Bytes(Vec<u8>);

    impl std::fmt::Debug for Bytes {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            write!(f, "b\"{}\"", self.0.escape_ascii())
        }
    }

    /// What happens to a sample on its way.
    #[derive(Debug, Clone)]
    enum Mishap {
        Flip(Index, u8),
        Cut(Index),
        Lose(Index, usize),
        Repeat(Index, usize),
        Insert(Index, Vec<u8>),
    }

    fn mishap() -> impl Strategy<Value = Mishap> {
        let odd = prop::sample::select(ODD).prop_map(Vec::from);
        let odd = prop_oneof![vec(any::<u8>(), 1..8), odd];
        prop_oneof![
            4 => (any::<Index>(), any::<u8>()).prop_map(|(place, byte)| Mishap::Flip(place, byte)),
            1 => any::<Index>().prop_map(Mishap::Cut),
            2 => (any::<Index>(), 1..40_usize).prop_map(|(place, length)| Mishap::Lose(place, length)),
            2 => (any::<Index>(), 1..40_usize).prop_map(|(place, length)| Mishap::Repeat(place, length)),
            4 => (any::<Index>(), odd).prop_map(|(place, odd)| Mishap::Insert(place, odd)),
        ]
    }

    fn befall(bytes: &mut Vec<u8>, mishap: Mishap) {
        if bytes.is_empty() {
            return;
        }
        let end = |place: usize, length: usize| (place + length).min(bytes.len());
        match mishap {
            Mishap::Flip(place, byte) => {
                let place = place.index(bytes.len());
                bytes[place] ^= byte;
            }
            Mishap::Cut(place) => bytes.truncate(place.index(bytes.len())),
            Mishap::Lose(place, length) => {
                let place = place.index(bytes.len());
                bytes.drain(place..end(place, length));
            }
            Mishap::Repeat(place, length) => {
                let place = place.index(bytes.len());
                let piece = bytes[place..end(place, length)].to_vec();
                bytes.splice(place..place, piece);
            }
            Mishap::Insert(place, odd) => {
                let place = place.index(bytes.len());
                bytes.splice(place..place, odd);
            }
        }
    }

    /// Samples, each with a few mishaps; and now and then anything at all.
    fn attack(name: &str) {
        let parser = PARSERS.iter().find(|parser| parser.name == name).expect("it is one of them");
        let samples = (parser.samples)();
        assert!(samples.len() > 2, "{name} has samples");
        samples.iter().for_each(|sample| (parser.read)(sample));
        let mutilated = (prop::sample::select(samples), vec(mishap(), 1..5)).prop_map(|(mut bytes, mishaps)| {
            mishaps.into_iter().for_each(|mishap| befall(&mut bytes, mishap));
            bytes
        });
        let bytes = prop_oneof![9 => mutilated, 1 => vec(any::<u8>(), 0..200)];
        let config = ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() };
        proptest!(config, |(bytes in bytes.prop_map(Bytes))| (parser.read)(&bytes.0));
    }

    #[test]
    fn a_request_at_the_door_is_refused_or_is_the_same_event_on_the_log() {
        attack("request");
    }

    #[test]
    fn a_record_is_no_event_or_is_the_same_event_however_often_it_is_written() {
        attack("record");
    }

    #[test]
    fn a_question_is_refused_or_asked_with_everything_said_as_a_value() {
        attack("question");
    }

    #[test]
    fn manifests_are_refused_or_say_the_same_beside_others() {
        attack("manifests");
    }

    #[test]
    fn a_setting_is_refused_or_means_the_same_when_it_is_written_again() {
        attack("settings");
    }

    #[test]
    fn a_trace_is_carried_on_or_begun_and_always_written_as_the_specification_says() {
        attack("trace");
    }
}
