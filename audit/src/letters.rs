//! Dead letters: what some service could not handle. Whoever waits behind one is listed apart, because his story can't
//! go on until a person has decided; and a record that is no event of ours is no fault if a letter tells of it.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use cloudevents::AttributesReader;
use eventing::{
    dead_letters::{self, Heard, hear},
    from_record,
    log::{EventLog, LogError, Partition, Record},
};

use crate::{
    report::Excepted,
    services::{QUERY, SERVICES, hash},
    slices::Scan,
};

/// Every letter, as it stands now.
#[derive(Debug, Default)]
pub struct Letters {
    /// By service, source and id; the newest word counts.
    letters: BTreeMap<(&'static str, String, String), Letter>,
    /// The hashes of the ids of all events that they are about.
    ids: HashSet<u64>,
    excepted: BTreeSet<String>,
    unseen: BTreeSet<String>,
}

#[derive(Debug, Clone)]
struct Letter {
    /// The subject, and the order it belongs to.
    about: [String; 2],
    state: String,
    /// When it came into this state; what has none is older than what has.
    time: String,
    reason: String,
}

impl Letter {
    fn stops_the_story(&self) -> bool {
        // Whoever put a letter there without a word about its state (the bridge, Knative) could not deliver it.
        self.state != "redelivered"
    }
}

impl Letters {
    /// Reads the dead letters of every service.
    pub async fn read(log: &dyn EventLog) -> Result<Self, LogError> {
        let mut letters = Self::default();
        for service in SERVICES.iter().map(|service| service.name).chain([QUERY]) {
            for (partition, begin, end) in log.watermarks(&dead_letters::topic(service)).await? {
                let mut scan = Scan::new(log, &partition, begin, end);
                loop {
                    let records = scan.next().await?;
                    if records.is_empty() {
                        break;
                    }
                    records.iter().for_each(|stored| letters.take(service, &stored.record));
                }
            }
        }
        letters.sum_up();
        Ok(letters)
    }

    fn take(&mut self, service: &'static str, record: &Record) {
        let Ok(event) = from_record(record) else { return };
        if hear(&event) == Some(Heard::Wish) {
            return;
        }
        let text = |name: &str| event.extension(name).map(ToString::to_string);
        let state = text("deadletterstate").unwrap_or_else(|| "failed".to_owned());
        let reason = text("deadletterreason").or_else(|| text("knativeerrordata")).unwrap_or_default();
        let subject = event.subject().unwrap_or_default().to_owned();
        let order = text("correlationid").unwrap_or_else(|| subject.clone());
        let key = (service, event.source().to_string(), event.id().to_owned());
        self.ids.insert(hash(&[event.id().as_bytes()]));
        let letter =
            Letter { about: [subject, order], state, time: text("deadlettertime").unwrap_or_default(), reason };
        if self.letters.get(&key).is_none_or(|known| known.time <= letter.time) {
            self.letters.insert(key, letter);
        }
    }

    fn sum_up(&mut self) {
        for ((service, ..), letter) in self.letters.iter().filter(|(_, letter)| letter.stops_the_story()) {
            let about = letter.about.iter().filter(|about| !about.is_empty()).cloned();
            self.excepted.extend(about.clone());
            if *service == QUERY {
                self.unseen.extend(about);
            }
        }
    }

    /// Whether a letter about this subject, or its order, is open or was discarded.
    pub fn stop(&self, subject: &str) -> bool {
        self.excepted.contains(subject)
    }

    /// Whether the query service could not be told something about this subject.
    pub fn hide(&self, subject: &str) -> bool {
        self.unseen.contains(subject)
    }

    /// Whether the query service could not be told everything.
    pub fn hide_any(&self) -> bool {
        !self.unseen.is_empty()
    }

    /// Whether a letter tells of the event whose id has this hash.
    pub fn tell_of(&self, id: u64) -> bool {
        self.ids.contains(&id)
    }

    /// Whether a letter tells of the record at this place, which is no event: KafkaSource and the bridge give it an id
    /// that says where it stands, and a source that ends with its topic.
    pub fn tell_of_place(&self, partition: &Partition, offset: i64) -> bool {
        let id = format!("partition:{}/offset:{offset}", partition.number);
        let topic = format!("#{}", partition.topic);
        self.letters.keys().any(|(_, source, known)| *known == id && source.ends_with(&topic))
    }

    /// Whoever waits, with the first reason why.
    pub fn excepted(&self) -> Vec<Excepted> {
        let mut waiting: BTreeMap<(String, &str), Excepted> = BTreeMap::new();
        for ((service, _, id), letter) in self.letters.iter().filter(|(_, letter)| letter.stops_the_story()) {
            let about = letter.about.iter().rev().find(|about| !about.is_empty()).unwrap_or(id).clone();
            let parked = letter.state == "parked";
            let one = waiting.entry((about.clone(), service)).or_insert_with(|| Excepted {
                id: about,
                service: (*service).to_owned(),
                state: letter.state.clone(),
                reason: letter.reason.clone(),
                letters: 0,
            });
            one.letters += 1;
            if !parked && one.state == "parked" {
                one.state.clone_from(&letter.state);
                one.reason.clone_from(&letter.reason);
            }
        }
        waiting.into_values().collect()
    }
}

#[cfg(test)]
mod tests {
    use event_sourcing::Recorded;
    use eventing::{
        Origin,
        dead_letters::{DeadLetter, State},
        published,
    };

    use super::*;

    fn told(service: &'static str, states: &[(&str, &str)]) -> Letters {
        let mut letters = Letters::default();
        for (number, (id, state)) in states.iter().enumerate() {
            let event = Recorded {
                stream_id: "an-order".into(),
                version: 1,
                id: (*id).to_owned(),
                event_type: "dev.rainstorm.order.placed.v1".into(),
                time: "2026-11-24T09:00:00.123456Z".into(),
                correlation_id: "an-order".into(),
                causation_id: "cause".into(),
                traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into(),
                tracestate: String::new(),
                data: "{}".into(),
            };
            let event = published("/orders", &event).unwrap();
            let (state, time) = (State::named(state).unwrap(), format!("2026-11-24T10:00:{number:02}Z"));
            let failed = DeadLetter::failed(event, Origin::default(), &format!("{id} is bad"), 1);
            letters.take(service, &DeadLetter { state, time, ..failed }.record(service).unwrap());
        }
        letters.sum_up();
        letters
    }

    #[test]
    fn an_order_waits_while_a_letter_is_open_or_if_it_was_discarded() {
        for (states, waits) in [
            (&[("a", "failed")][..], true),
            (&[("a", "failed"), ("b", "parked")], true),
            (&[("a", "failed"), ("a", "redelivered")], false),
            (&[("a", "failed"), ("b", "parked"), ("a", "redelivered")], true),
            (&[("a", "failed"), ("a", "discarded")], true),
            (&[("a", "failed"), ("a", "redelivered"), ("a", "failed")], true),
        ] {
            assert_eq!(told("kitchen", states).stop("an-order"), waits, "{states:?}");
        }
        assert!(!told("kitchen", &[("a", "failed")]).stop("another"));
    }

    #[test]
    fn only_a_letter_of_query_excuses_a_view() {
        assert!(!told("kitchen", &[("a", "failed")]).hide("an-order"));
        assert!(told(QUERY, &[("a", "failed")]).hide("an-order"));
    }

    #[test]
    fn whoever_waits_is_listed_once_with_what_failed() {
        let listed = told("kitchen", &[("b", "parked"), ("a", "parked"), ("c", "failed")]).excepted();
        assert_eq!(listed.len(), 1);
        let Excepted { id, service, state, reason, letters } = &listed[0];
        assert_eq!((&id[..], &service[..], &state[..], &reason[..]), ("an-order", "kitchen", "failed", "c is bad"));
        assert_eq!(*letters, 3);
    }
}
