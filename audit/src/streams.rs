//! The state machines that the streams are published under, one file for each kind of stream. They are written down
//! here once more, as tables, and not taken from the services: an audit that asked the services' own code would only
//! prove that the code agrees with itself.

mod delivery;
mod driver;
mod menu;
mod order;
mod payment;
mod story;
mod ticket;

pub use story::{ends_well, is_contradiction};

use Because::{Command, Found, Heard};

/// The state of a stream without events.
const NEW: &str = "unheard of";

/// What an event may be caused by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Because {
    /// A command: a person's, or a tick that asks again for what is owed. It may leave no trace but its effect.
    Command,
    /// An event of this name that the service was told. Its inbox remembers that.
    Heard(&'static str),
    /// An event of the same stream, which the service found by itself. Nothing remembers it but the effect.
    Found(&'static str),
    /// Whatever caused the event about the same ride in the order's stream: see the fleet.
    Ride,
}

/// One line of a table: this event, in one of these states, leads to that one, for one of these reasons.
#[derive(Debug)]
pub struct Line {
    pub event: &'static str,
    pub from: &'static [&'static str],
    pub to: &'static str,
    pub because_of: &'static [Because],
}

const fn line(
    event: &'static str,
    from: &'static [&'static str],
    to: &'static str,
    because_of: &'static [Because],
) -> Line {
    Line { event, from, to, because_of }
}

/// A kind of stream.
#[derive(Debug)]
pub struct Machine {
    /// The CloudEvents source of the service whose streams these are.
    pub source: &'static str,
    /// Whether there is one for each order, under the order's id.
    pub of_an_order: bool,
    pub lines: &'static [Line],
}

static MACHINES: [&Machine; 6] =
    [&order::ORDER, &payment::PAYMENT, &ticket::TICKET, &menu::MENU, &delivery::DELIVERY, &driver::DRIVER];

/// The kind of stream that events of this name (`order.placed`) belong to, and the name itself.
#[must_use]
pub fn machine(event: &str) -> Option<(&'static Machine, &'static str)> {
    MACHINES.iter().find_map(|machine| {
        let line = machine.lines.iter().find(|line| line.event == event)?;
        Some((*machine, line.event))
    })
}

/// A stream on its way through its table.
#[derive(Debug, Clone, Copy, Default)]
pub struct Walk {
    last: Option<&'static Line>,
}

impl Walk {
    /// Where it stands.
    #[must_use]
    pub fn state(self) -> &'static str {
        self.last.map_or(NEW, |line| line.to)
    }

    /// Goes on with an event; the line that allows it. Where none does, the walk goes on as if one had, so that one
    /// mistake is told once.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn step(&mut self, machine: &'static Machine, event: &str) -> Result<&'static Line, String> {
        let lines = || machine.lines.iter().filter(|line| line.event == event);
        let state = self.state();
        if let Some(line) = lines().find(|line| line.from.contains(&state)) {
            self.last = Some(line);
            return Ok(line);
        }
        match lines().next() {
            Some(line) => {
                self.last = Some(line);
                Err(format!("{event} can't follow: the stream was {state}"))
            }
            None => Err(format!("{event} belongs to another kind of stream")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Walks through events; the last state, or what is wrong.
    pub(super) fn walk(machine: &'static Machine, events: &[&str]) -> Result<&'static str, String> {
        let mut walk = Walk::default();
        for event in events {
            walk.step(machine, event)?;
        }
        Ok(walk.state())
    }

    #[test]
    fn every_published_type_stands_in_a_table_and_every_name_in_a_table_is_published() {
        let mut published = Vec::new();
        for service in ["order", "payment", "kitchen", "delivery"] {
            let folder = format!("{}/../services/{service}/contract", env!("CARGO_MANIFEST_DIR"));
            for entry in std::fs::read_dir(folder).unwrap() {
                let name = entry.unwrap().file_name().into_string().unwrap();
                published.extend(name.strip_suffix(".v1.schema.json").map(ToOwned::to_owned));
            }
        }
        assert!(published.len() > 20, "the contracts have moved");
        for name in &published {
            assert!(machine(name).is_some(), "{name} stands in no table");
        }
        for line in MACHINES.iter().flat_map(|machine| machine.lines) {
            assert!(published.iter().any(|name| name == line.event), "{} is published by nobody", line.event);
            for because in line.because_of {
                if let Heard(cause) | Found(cause) = because {
                    assert!(published.iter().any(|name| name == cause), "{cause} is published by nobody");
                }
            }
        }
    }

    #[test]
    fn every_state_that_a_line_begins_in_is_reached_by_another() {
        for machine in MACHINES {
            for state in machine.lines.iter().flat_map(|line| line.from) {
                let reached = *state == NEW || machine.lines.iter().any(|line| line.to == *state);
                assert!(reached, "nothing leads to {state} in {}", machine.source);
            }
        }
    }

    #[test]
    fn a_mistake_is_told_once_and_the_walk_goes_on_behind_it() {
        let mut walk = Walk::default();
        walk.step(&order::ORDER, "order.placed").unwrap();
        walk.step(&order::ORDER, "order.completed").unwrap();
        assert!(walk.step(&order::ORDER, "order.cancelled").unwrap_err().contains("completed"));
        assert_eq!(walk.state(), "cancelled");
        assert!(walk.step(&order::ORDER, "payment.confirmed").unwrap_err().contains("another kind"));
    }
}
