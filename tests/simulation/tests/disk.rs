//! What a store's crash may lose, and what it may not.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that can't go on fails")]

use std::{rc::Rc, sync::Arc};

use async_trait::async_trait;
use event_sourcing::Database;
use eventing::{Door, Failure, Handled, Handler, Incoming, Metrics, dead_letters::DeadLetters, from_json};
use serde_json::{Map, json};
use simulation::{
    log::SharedLog,
    store::Shared,
    tables::Tables,
    world::{Answers, World},
};

/// To whom events mean nothing, while others commit something that waits for the disk.
struct Unmoved(Database);

#[async_trait]
impl Handler for Unmoved {
    fn understands(&self, _: &str) -> Option<&'static str> {
        Some("v1")
    }

    async fn handle(&self, events: &[Incoming]) -> Vec<Result<Handled, Failure>> {
        let mut write = self.0.write().await.expect("a store");
        write.execute("INSERT INTO owed (order_id) VALUES ('another')", Vec::new()).await.expect("a statement");
        write.commit().await.expect("a commit");
        events.iter().map(|_| Ok(Handled::Nothing)).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn an_event_without_effect_that_was_answered_for_leaves_nothing_behind_whatever_the_store_forgets() {
    let world = World::new(1, None, false);
    event_sourcing::simulate(Some(Rc::new(Answers { world: world.clone(), databases: Box::new(|_| None) })));
    let tables = Tables::new(None).expect("tables");
    let store = Shared::new(&world, "payment", tables.of("payment")).expect("a store");
    let process = world.process("payment");
    let (database, log) = (store.used_by(&process), SharedLog::new(&world, 1).used_by(&process));
    let letters = DeadLetters::new(database.clone(), log, "payment");
    let handler = Arc::new(Unmoved(database.clone()));
    let door = Door::new(handler, database, letters, Metrics::default());
    let event = json!({
        "specversion": "1.0", "id": "1", "source": "/orders", "type": "dev.rainstorm.order.completed.v1",
        "subject": "some-order", "time": "2026-01-01T00:00:00Z", "datacontenttype": "application/json", "data": {},
    });
    let event: Map<_, _> = event.as_object().expect("an object").clone();

    door.handle(vec![from_json(event).expect("an event")]).await.expect("it is answered for");
    assert_eq!(store.number("SELECT COUNT(*) FROM inbox"), 0);
    store.crashes(store.at_risk()).expect("it crashes");

    assert_eq!(store.number("SELECT COUNT(*) FROM owed"), 1, "what waited for the disk is there");
    assert_eq!(store.number("SELECT COUNT(*) FROM inbox"), 0, "nobody will tell it again");
    event_sourcing::simulate(None);
}
