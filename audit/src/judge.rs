//! What is judged of one story, once everything about it was read: its streams obey their tables, every event has its
//! cause, it ends, and its money went where it should.

use uuid::Uuid;

use crate::{
    inbox::effect,
    money::{Entries, Money},
    report::{Check, Who},
    run::Audit,
    services::{DELIVERY, KITCHEN, ORDER, PAYMENT, SERVICES, hash},
    story::{Seen, Story},
    streams::{Because, Line, Walk, ends_well, is_contradiction},
};

impl Audit<'_> {
    /// Judges a story. `ledger` has the provider's entries for it, where there is a ledger to look at.
    pub fn judge(&mut self, subject: &str, story: &Story, ledger: Option<&Entries>) {
        let states: [&'static str; 4] = std::array::from_fn(|service| self.judge_stream(service, subject, story));
        self.note_rides(subject, story);
        if !story.streams.iter().flatten().any(|seen| seen.machine.of_an_order && !seen.foreign) {
            return;
        }
        let money = Money::of(story);
        money.keys().for_each(|key| self.charges.insert(hash(&[key.as_bytes()])));
        self.orders.placed += u64::from(money.placed.is_some());
        let excepted = self.letters.stop(subject);
        let state = states[ORDER];
        let count = match state {
            _ if excepted => &mut self.orders.excepted,
            "completed" => &mut self.orders.completed,
            "cancelled" => &mut self.orders.cancelled,
            _ => &mut self.orders.unfinished,
        };
        *count += 1;
        let fail =
            |audit: &mut Self, check, what| audit.tally.fail(check, Who::Subject(subject.to_owned()), None, what);
        self.tally.checked(Check::Ends, 1);
        if is_contradiction(state, states[PAYMENT], states[DELIVERY]) {
            let what = format!("order {state}, payment {}, delivery {}", states[PAYMENT], states[DELIVERY]);
            fail(self, Check::Ends, format!("never to be seen together: {what}"));
        }
        if excepted {
            return;
        }
        if money.placed.is_none() && !self.options.in_flight {
            fail(self, Check::States, "events of an order that nobody placed".to_owned());
        }
        let mut kept = None;
        if !self.options.in_flight {
            kept = Some(states[DELIVERY] == "delivered");
            if let Err(what) = ends_well(state, states[PAYMENT], states[KITCHEN], states[DELIVERY]) {
                fail(self, Check::Ends, what);
            }
        }
        self.tally.checked(Check::Money, 1);
        if let Err(what) = money.in_its_stream(kept) {
            fail(self, Check::Money, what);
        }
        if let Some(ledger) = ledger {
            self.tally.checked(Check::Ledger, 1);
            if let Err(what) = money.in_the_ledger(ledger, kept) {
                fail(self, Check::Ledger, what);
            }
        }
    }

    /// Walks through one stream; the state that it has come to.
    fn judge_stream(&mut self, service: usize, subject: &str, story: &Story) -> &'static str {
        let mut walk = Walk::default();
        let mut stream = story.streams[service].iter().filter(|seen| !seen.foreign).peekable();
        let Some(machine) = stream.peek().map(|seen| seen.machine) else { return walk.state() };
        self.tally.checked(Check::States, 1);
        let who = || Who::Subject(subject.to_owned());
        if machine.of_an_order != Uuid::try_parse(subject).is_ok() {
            self.tally.fail(Check::States, who(), None, "orders have UUIDs as ids, and nobody else has");
        }
        let mut causes: Vec<u64> = Vec::new();
        for seen in stream {
            let at = Some((service, seen.version));
            if seen.machine.source != SERVICES[service].source {
                let what = format!("{} under the source {}", seen.name, SERVICES[service].source);
                self.tally.fail(Check::States, who(), at, what);
                continue;
            }
            self.tally.checked(Check::Causes, 1);
            match walk.step(machine, seen.name) {
                Ok(line) => match because(story, seen, line) {
                    Ok(because) => self.note_effect(service, subject, seen, because),
                    // What came while the stores were being read may have a cause that came then, too.
                    Err(_) if seen.late => {}
                    Err(what) => self.tally.fail(Check::Causes, who(), at, what),
                },
                Err(what) => self.tally.fail(Check::States, who(), at, what),
            }
            // One cause has one effect in a stream, which may be several events next to each other.
            if machine.of_an_order && causes.last() != Some(&seen.cause) {
                if causes.contains(&seen.cause) {
                    let what = format!("what caused {} had an effect here before", seen.name);
                    self.tally.fail(Check::Inbox, who(), at, what);
                }
                causes.push(seen.cause);
            }
        }
        walk.state()
    }

    fn note_effect(&mut self, service: usize, subject: &str, seen: &Seen, because: Because) {
        let is_remembered = matches!(because, Because::Heard(_));
        self.effects[service].note(effect(service, seen.cause, subject), is_remembered);
    }
}

/// Which of the reasons that a line allows is this event's.
fn because(story: &Story, seen: &Seen, line: &Line) -> Result<Because, String> {
    let allowed = |wanted: &dyn Fn(&Because) -> bool| line.because_of.iter().copied().find(wanted);
    let Some(cause) = story.event(seen.cause) else {
        let by_itself = |because: &Because| matches!(because, Because::Command | Because::Ride);
        return allowed(&by_itself).ok_or_else(|| format!("the cause of {} is not on the log", seen.name));
    };
    let named =
        |because: &Because| matches!(because, Because::Heard(name) | Because::Found(name) if *name == cause.name);
    let because = allowed(&named).ok_or_else(|| format!("{} does not follow from {}", seen.name, cause.name))?;
    let reason = |seen: &Seen| seen.data.as_ref().and_then(|data| data.reason.clone());
    let expected = match (seen.name, cause.name) {
        ("order.cancelled", "payment.declined") | ("kitchen.ticket_cancelled", "payment.declined") => {
            Some("payment_declined".into())
        }
        ("kitchen.ticket_cancelled", _) => Some("customer_request".into()),
        ("order.cancelled", _) => reason(cause),
        _ => return Ok(because),
    };
    match reason(seen) {
        given if given == expected => Ok(because),
        given => Err(format!("{} for the reason {given:?}, and its cause says {expected:?}", seen.name)),
    }
}
