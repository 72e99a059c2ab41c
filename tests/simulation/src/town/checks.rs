//! Whether all of it adds up, after everything has come to rest: what the audit finds, what only the customers know, and
//! whether each store can be made again from the log.

use std::collections::{BTreeMap, BTreeSet};

use audit::{Deployment, Options};
use event_sourcing::Database;
use eventing::rebuild::{self, Replay};

use super::{SERVICES, Town, lock};

impl Town {
    /// What does not add up, after everything has come to rest: what the audit finds, and what only the customers know.
    pub async fn adds_up(&self) -> Vec<String> {
        let mut wrong = lock(&self.refused).clone();
        wrong.extend(self.audit().await);
        wrong.extend(self.rebuilt().await);
        let mut placed: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (key, order) in
            self.databases["order"].pairs("SELECT causation_id, stream_id FROM events WHERE version = 1")
        {
            placed.entry(key).or_default().insert(order);
        }
        for (key, order) in self.accepted() {
            match placed.get(&key) {
                Some(orders) if orders.len() == 1 && orders.contains(&order) => {}
                orders => {
                    wrong.push(format!("{key} was accepted as {order}, and these orders were placed: {orders:?}"))
                }
            }
        }
        wrong
    }

    /// The same audit as `rainstorm audit`'s.
    pub(super) async fn audit(&self) -> Vec<String> {
        let auditor = self.world.company("the auditor");
        let store = |name: &str| self.databases[name].audited_by(&auditor);
        let deployment = Deployment {
            log: self.log.used_by(&auditor),
            stores: SERVICES.into_iter().map(|name| (name.to_owned(), store(name))).collect(),
            ledger: Some(store("provider")),
        };
        let options = Options { in_flight: false, accepted: self.accepted().into_values().collect() };
        match audit::audit(&deployment, &options, &mut |_| ()).await {
            Ok(report) if report.passed => Vec::new(),
            Ok(report) => {
                let failed = report.checks.iter().filter(|row| row.failed > 0);
                let failed = failed.map(|row| format!("{} does not hold", row.title));
                failed.chain([report.to_string()]).collect()
            }
            Err(error) => vec![error.to_string()],
        }
    }

    /// Each writing service's store, made again from the log: nothing is missing and nothing differs.
    pub(super) async fn rebuilt(&self) -> Vec<String> {
        let replays: [Box<dyn Replay>; 4] = [
            Box::new(order::reactions::OrderReplay),
            Box::new(payment::reactions::PaymentReplay),
            Box::new(kitchen::reactions::KitchenReplay),
            Box::new(delivery::reactions::DeliveryReplay),
        ];
        let mut wrong = Vec::new();
        for replay in replays {
            match self.rebuild(&*replay).await {
                Ok(proof) if proof.holds() => {}
                Ok(proof) => {
                    wrong.push(format!("{}, made again from the log, is another:\n{proof}", replay.who().name))
                }
                Err(error) => wrong.push(format!("{} can't be made again from the log: {error}", replay.who().name)),
            }
        }
        wrong
    }

    pub(super) async fn rebuild(&self, replay: &dyn Replay) -> Result<rebuild::Proof, rebuild::RebuildError> {
        let name = replay.who().name;
        let rebuilder = self.world.company("the rebuild");
        let url = format!("simulated:{name}/again");
        lock(&self.handles).insert(url.clone(), self.again[name].audited_by(&rebuilder));
        let again: Database = rebuild::open_empty(replay, &url).await?;
        let ours = self.sources.subscriptions.iter().filter(|subscription| subscription.service == name);
        let hears: Vec<String> = ours.flat_map(|subscription| subscription.topics.clone()).collect();
        let log = self.log.used_by(&rebuilder);
        rebuild::rebuild(replay, &log, &hears, &again, &()).await?;
        rebuild::proof::compare(replay.projections(), &self.databases[name].audited_by(&rebuilder), &again, &()).await
    }
}
