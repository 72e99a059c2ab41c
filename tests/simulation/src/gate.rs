//! A turn that one process has at a time. A process that ends gives it back at that moment, as a database takes back the
//! locks of a session whose connection is gone.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

/// Who may go in, and who waits.
#[derive(Default)]
pub struct Gate {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    tickets: u64,
    inside: Option<Ticket>,
    waiting: VecDeque<(Ticket, Arc<Notify>)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Ticket {
    process: u64,
    number: u64,
}

impl Gate {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for its turn.
    pub async fn enter(self: &Arc<Self>, process: u64) -> Turn {
        let called = Arc::new(Notify::new());
        let ticket = {
            let mut state = self.state();
            state.tickets += 1;
            let ticket = Ticket { process, number: state.tickets };
            if state.inside.is_none() {
                state.inside = Some(ticket);
            } else {
                state.waiting.push_back((ticket, called.clone()));
            }
            ticket
        };
        while self.state().inside != Some(ticket) {
            called.notified().await;
        }
        Turn { gate: self.clone(), ticket }
    }

    /// Whoever is inside has lost its turn.
    pub fn evict(&self) {
        self.state().next();
    }

    /// The process has ended; whether it was inside.
    pub fn bury(&self, process: u64) -> bool {
        let mut state = self.state();
        state.waiting.retain(|(ticket, _)| ticket.process != process);
        let was_inside = state.inside.is_some_and(|ticket| ticket.process == process);
        if was_inside {
            state.next();
        }
        was_inside
    }
}

impl State {
    fn next(&mut self) {
        self.inside = None;
        if let Some((ticket, called)) = self.waiting.pop_front() {
            self.inside = Some(ticket);
            called.notify_one();
        }
    }
}

/// Being inside, until this is dropped.
pub struct Turn {
    gate: Arc<Gate>,
    ticket: Ticket,
}

impl Turn {
    /// Whether it is still this one's turn.
    pub fn is_valid(&self) -> bool {
        self.gate.state().inside == Some(self.ticket)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut state = self.gate.state();
        if state.inside == Some(self.ticket) {
            state.next();
        } else {
            let ticket = self.ticket;
            state.waiting.retain(|(waiting, _)| *waiting != ticket);
        }
    }
}
