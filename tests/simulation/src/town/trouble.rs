//! Everything that goes wrong beyond single steps: processes killed, stopped and frozen, stores and logs that go out,
//! groups that are dealt out anew, and events that kill whoever handles them.

use std::sync::Arc;

use eventing::{
    dead_letters::{DISCARD_REQUESTED, REDELIVERY_REQUESTED, State, histories, logged, topic, wish},
    to_record,
};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::{LOAD, SERVICES, Town, lock};
use crate::store::Shared;

impl Town {
    pub(super) async fn trouble(self: Arc<Self>) {
        let ends = Instant::now() + LOAD;
        while Instant::now() < ends {
            sleep(self.world.millis(0..=self.plan.strikes)).await;
            if self.plan.weather.crash == 0.0 {
                continue;
            }
            let for_a_while = Instant::now() + self.world.millis(10..=600);
            let running: Vec<_> = lock(&self.instances).values().flatten().cloned().collect();
            let instances: Vec<_> = running.iter().map(|instance| instance.process.clone()).collect();
            let bridges = lock(&self.bridges).clone();
            let stores: Vec<_> = self.databases.values().cloned().collect();
            match self.world.draw(0..=8) {
                0 => self.world.pick(&instances).iter().for_each(|process| process.kill()),
                1 => self.world.pick(&bridges).iter().for_each(|process| process.kill()),
                2 => self.log.rebalance(),
                3 => self.log.commit(),
                4 => {
                    if let Some(store) = self.world.pick(&stores) {
                        store.goes_out(for_a_while);
                        if self.world.happens(0.5) {
                            self.loses_power(store);
                        }
                    }
                }
                5 => self.world.log_goes_out(for_a_while),
                6 => {
                    if let Some(instance) = self.world.pick(&running) {
                        tokio::spawn(self.clone().stop(instance.clone()));
                    }
                }
                7 => {
                    let span = self.world.millis(100..=3000);
                    self.world.pick(&instances).iter().for_each(|process| process.freeze(span));
                }
                _ => {
                    let span = self.world.millis(100..=3000);
                    self.world.pick(&bridges).iter().for_each(|process| process.freeze(span));
                    // The group goes on without the one that has stopped.
                    self.log.rebalance();
                }
            }
        }
    }

    /// A store's machine stops at this moment, and it comes back with what is on its disk.
    fn loses_power(&self, store: &Shared) {
        let lost = self.world.draw(0..=store.at_risk());
        self.world.tell(|| format!("a store crashes and forgets {lost} commits"));
        if let Err(error) = store.crashes(lost) {
            lock(&self.refused).push(format!("a store did not come back: {error}"));
        }
    }

    /// Perhaps one of these events is one that its service can't survive.
    pub(super) fn poison(&self, service: &str, headers: &[(String, String)], body: &[u8]) {
        let Some((victim, kind)) = self.plan.poison.filter(|(victim, _)| *victim == service) else { return };
        let header = |name: &str| headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
        let mut events: Vec<Value> = serde_json::from_slice(body).unwrap_or_default();
        events.push(json!({"id": header("ce-id"), "type": header("ce-type")}));
        for event in events.iter().filter(|event| event["type"] == kind) {
            let mut chosen = lock(&self.poisoned);
            if let (None, Some(id)) = (chosen.as_ref(), event["id"].as_str()) {
                self.world.tell(|| format!("{victim} does not survive {kind} {id}"));
                self.world.poisons(victim, id);
                *chosen = Some(id.to_owned());
            }
        }
    }

    /// The services are mended, and somebody looks after what has become a dead letter: most are told again, some are
    /// given up. Whether there were any.
    pub(super) async fn look_after_letters(&self) -> Result<bool, String> {
        self.world.is_mended();
        let log = self.log.used_by(&self.world.company("an operator"));
        let mut any = false;
        for service in SERVICES {
            let letters = histories(&*log, service).await.map_err(|error| error.to_string())?;
            for letter in letters.into_values().map(|history| history.letter).filter(|it| it.state == State::Failed) {
                any = true;
                let wished = if self.world.happens(0.8) { REDELIVERY_REQUESTED } else { DISCARD_REQUESTED };
                self.world.tell(|| format!("{wished} of {:?} at {service}", letter.key()));
                let wish = wish(wished, &letter).and_then(|wish| to_record(logged(wish, service)));
                self.log.append_now(&topic(service), vec![wish.map_err(|error| error.to_string())?]);
            }
        }
        Ok(any)
    }

    /// What was looked after is dealt with.
    pub(super) async fn no_letter_is_open(&self) -> Result<(), String> {
        let log = self.log.used_by(&self.world.company("an operator"));
        for service in SERVICES {
            let letters = histories(&*log, service).await.map_err(|error| error.to_string())?;
            let mut open = letters.into_values().map(|history| history.letter).filter(|it| it.state.is_open());
            if let Some(letter) = open.next() {
                return Err(format!("a letter of {service} stays open: {:?}, {}", letter.key(), letter.reason));
            }
        }
        Ok(())
    }
}
