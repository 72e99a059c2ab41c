//! What a wake-up from zero consists of, put together from what is seen of it.

use std::{collections::BTreeMap, fmt};

use jiff::Timestamp;
use serde::Serialize;

/// Something that was seen of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// Events wait for it; the oldest of them was stored then.
    Waits { since: Timestamp },
    /// It has finished with some of what waited.
    Moved,
    /// So many pods are wanted.
    Wanted(u32),
    /// The container of a pod runs.
    Started,
    /// So many pods are ready.
    Ready(u32),
}

/// The moments of one wake-up; `None` where it wasn't seen, as of an event if a person woke the service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Waking {
    pub service: String,
    /// The event was stored.
    pub event: Option<Timestamp>,
    /// Knative wanted a pod: the event had reached its activator.
    pub wanted: Timestamp,
    /// A container ran.
    pub started: Option<Timestamp>,
    /// A pod was ready.
    pub ready: Option<Timestamp>,
    /// The first of what waited was done, and its effect durable.
    pub effect: Option<Timestamp>,
}

/// Milliseconds from one moment to another.
fn between(from: Timestamp, to: Timestamp) -> i64 {
    (to - from).get_milliseconds() + 1000 * (to - from).get_seconds()
}

impl fmt::Display for Waking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let first = self.event.unwrap_or(self.wanted);
        write!(f, "{:<10} woke", self.service)?;
        let moments = [
            ("event", self.event),
            ("wanted", Some(self.wanted)),
            ("started", self.started),
            ("ready", self.ready),
            ("effect", self.effect),
        ];
        for (name, moment) in moments {
            match moment {
                Some(moment) => write!(f, "  {name} {:+} ms", between(first, moment))?,
                None => write!(f, "  {name} –")?,
            }
        }
        Ok(())
    }
}

/// What is known of one service now.
#[derive(Debug, Default)]
struct State {
    wanted: u32,
    ready: u32,
    waits_since: Option<Timestamp>,
    waking: Option<Waking>,
}

/// Follows services, and remembers how each woke.
#[derive(Debug, Default)]
pub struct Wakings {
    services: BTreeMap<String, State>,
    complete: Vec<Waking>,
}

impl Wakings {
    /// Takes note of something. `hears`: whether events wake it, so that a wake-up ends with an effect.
    pub fn see(&mut self, service: &str, hears: bool, at: Timestamp, seen: Seen) {
        let state = self.services.entry(service.to_owned()).or_default();
        match seen {
            Seen::Waits { since } => {
                if state.waits_since.is_none() {
                    state.waits_since = Some(since);
                }
                // Knative may have been quicker than whoever looked at the log.
                if let Some(waking) = state.waking.as_mut().filter(|waking| waking.event.is_none()) {
                    waking.event = Some(since).filter(|since| *since <= waking.wanted);
                }
            }
            Seen::Wanted(wanted) => {
                if state.wanted == 0 && wanted > 0 && state.ready == 0 && state.waking.is_none() {
                    state.waking = Some(Waking {
                        service: service.to_owned(),
                        event: state.waits_since,
                        wanted: at,
                        started: None,
                        ready: None,
                        effect: None,
                    });
                }
                if wanted == 0 {
                    // It went back to sleep before all of it was seen.
                    self.complete.extend(state.waking.take());
                }
                state.wanted = wanted;
            }
            Seen::Started => {
                if let Some(waking) = &mut state.waking {
                    waking.started.get_or_insert(at);
                }
            }
            Seen::Ready(ready) => {
                state.ready = ready;
                if ready > 0
                    && let Some(waking) = &mut state.waking
                {
                    waking.ready.get_or_insert(at);
                    if !hears {
                        self.complete.extend(state.waking.take());
                    }
                }
            }
            Seen::Moved => {
                state.waits_since = None;
                if let Some(mut waking) = state.waking.take_if(|waking| waking.ready.is_some()) {
                    waking.effect = Some(at);
                    self.complete.push(waking);
                }
            }
        }
    }

    /// Pods of a service that are wanted, and that are ready.
    pub fn pods(&self, service: &str) -> (u32, u32) {
        self.services.get(service).map_or((0, 0), |state| (state.wanted, state.ready))
    }

    /// Every wake-up so far of which everything was seen that will be, in the order in which they ended.
    pub fn complete(&self) -> &[Waking] {
        &self.complete
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(milliseconds: i64) -> Timestamp {
        Timestamp::from_millisecond(1_790_000_000_000 + milliseconds).unwrap()
    }

    fn seen(hears: bool, what: &[(i64, Seen)]) -> Wakings {
        let mut wakings = Wakings::default();
        for (moment, seen) in what {
            wakings.see("kitchen", hears, at(*moment), *seen);
        }
        wakings
    }

    #[test]
    fn a_wake_up_is_complete_with_its_first_effect() {
        let story = [
            (0, Seen::Wanted(0)),
            (20, Seen::Waits { since: at(5) }),
            (40, Seen::Wanted(1)),
            (900, Seen::Started),
            (1000, Seen::Ready(1)),
            (1100, Seen::Moved),
            (1200, Seen::Moved),
        ];
        assert!(seen(true, &story[..5]).complete().is_empty());
        let wakings = seen(true, &story);
        let [waking] = wakings.complete() else { panic!("{wakings:?}") };
        let expected = (Some(at(5)), at(40), Some(at(900)), Some(at(1000)), Some(at(1100)));
        assert_eq!((waking.event, waking.wanted, waking.started, waking.ready, waking.effect), expected);
        let told = waking.to_string();
        assert!(told.contains("event +0 ms  wanted +35 ms  started +895 ms  ready +995 ms  effect +1095 ms"), "{told}");
    }

    #[test]
    fn whom_a_person_wakes_has_no_event_and_is_awake_when_ready() {
        let wakings = seen(false, &[(0, Seen::Wanted(1)), (300, Seen::Ready(1)), (400, Seen::Wanted(2))]);
        let [waking] = wakings.complete() else { panic!("{wakings:?}") };
        assert_eq!((waking.event, waking.started, waking.ready, waking.effect), (None, None, Some(at(300)), None));
    }

    #[test]
    fn an_event_that_is_seen_late_still_counts_and_one_that_came_later_does_not() {
        let late = seen(true, &[(40, Seen::Wanted(1)), (60, Seen::Waits { since: at(5) }), (70, Seen::Wanted(0))]);
        assert_eq!(late.complete()[0].event, Some(at(5)));
        let later = seen(true, &[(40, Seen::Wanted(1)), (60, Seen::Waits { since: at(50) }), (70, Seen::Wanted(0))]);
        assert_eq!(later.complete()[0].event, None);
    }

    #[test]
    fn growing_is_no_waking_and_each_night_is_followed_by_another() {
        let day = [
            (0, Seen::Wanted(1)),
            (10, Seen::Ready(1)),
            (20, Seen::Moved),
            (30, Seen::Wanted(3)),
            (40, Seen::Ready(3)),
        ];
        let wakings =
            seen(true, &[&day[..], &[(50, Seen::Ready(0)), (60, Seen::Wanted(2)), (70, Seen::Wanted(0))]].concat());
        assert_eq!(wakings.complete().len(), 1, "pods that were replaced did not sleep");
        let night = [(50, Seen::Ready(0)), (60, Seen::Wanted(0))];
        let wakings = seen(true, &[&day[..], &night, &day, &night].concat());
        assert_eq!(wakings.complete().len(), 2);
        assert_eq!(wakings.pods("kitchen"), (0, 0));
    }
}
