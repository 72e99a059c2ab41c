//! What a topic of dead letters tells: each letter as it stands now, and what has happened to it.

use std::collections::{BTreeMap, BTreeSet};

use cloudevents::{AttributesReader, Event};

use super::{DeadLetter, Heard, REDELIVERY_REQUESTED, hear, named_by, topic};
use crate::{
    from_record,
    log::{EventLog, LogError},
};

/// Records that are read at a time: each may be as large as a record can be.
const PAGE: usize = 100;

/// A letter and its story.
#[derive(Debug, Clone)]
pub struct History {
    /// As it stands now.
    pub letter: DeadLetter,
    /// Whether the service knows of it: it may not have heard yet of what was refused on the way.
    pub known: bool,
    /// In the order of their times.
    pub steps: BTreeSet<Step>,
}

/// Something that happened to a letter.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Step {
    /// RFC 3339; empty if nobody has said.
    pub time: String,
    /// The name of a state, or what else it was.
    pub what: String,
    /// For people.
    pub why: String,
}

/// The letters of a service, by source and id.
///
/// # Errors
/// If the log doesn't answer.
pub async fn histories(log: &dyn EventLog, service: &str) -> Result<BTreeMap<[String; 2], History>, LogError> {
    let mut read = Reading::default();
    for (partition, low, high) in log.watermarks(&topic(service)).await? {
        let mut next = low;
        while next < high {
            let records = log.read(&partition, next, PAGE).await?;
            let Some(last) = records.last() else { break };
            next = last.offset + 1;
            // What is no CloudEvent has been put there by mistake; the service makes a letter of it.
            records.iter().filter_map(|stored| from_record(&stored.record).ok()).for_each(|event| read.hear(event));
        }
    }
    Ok(read.finish())
}

#[derive(Default)]
struct Reading {
    letters: BTreeMap<[String; 2], History>,
    wishes: Vec<([String; 2], Step)>,
}

impl Reading {
    fn hear(&mut self, event: Event) {
        match hear(&event) {
            Some(Heard::Letter) => {
                if let Some(letter) = DeadLetter::read(event) {
                    let step = Step {
                        time: letter.time.clone(),
                        what: letter.state.name().to_owned(),
                        why: if letter.state.is_open() { letter.reason.clone() } else { String::new() },
                    };
                    self.tell(letter, step, true);
                }
            }
            Some(Heard::Refused) => {
                let letter = DeadLetter::refused(event);
                let (time, what, why) = (String::new(), "refused".to_owned(), letter.reason.clone());
                self.tell(letter, Step { time, what, why }, false);
            }
            Some(Heard::Wish) => {
                let Some(key) = named_by(&event) else { return };
                let what = if event.ty() == REDELIVERY_REQUESTED { "redelivery asked" } else { "discard asked" };
                let time = event.time().and_then(|time| time.to_rfc3339().parse::<jiff::Timestamp>().ok());
                let time = time.map(|time| format!("{time:.6}")).unwrap_or_default();
                self.wishes.push((key, Step { time, what: what.to_owned(), why: String::new() }));
            }
            None => {}
        }
    }

    fn tell(&mut self, letter: DeadLetter, step: Step, known: bool) {
        let new = || History { letter: letter.clone(), known, steps: BTreeSet::new() };
        let history = self.letters.entry(letter.key()).or_insert_with(new);
        history.steps.insert(step);
        if known && (!history.known || letter.time >= history.letter.time) {
            history.letter = letter;
        }
        history.known |= known;
    }

    fn finish(mut self) -> BTreeMap<[String; 2], History> {
        for (key, step) in self.wishes {
            if let Some(history) = self.letters.get_mut(&key) {
                history.steps.insert(step);
            }
        }
        self.letters
    }
}
