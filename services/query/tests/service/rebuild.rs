//! The views made again beside the live ones, while those are shown and kept.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use cloudevents::{AttributesReader, AttributesWriter};
use event_sourcing::Database;
use eventing::{Failure, Handled, Handler, Incoming, to_record};
use query::rebuild::{Outcome, Rebuild, RebuildError, Swap};
use serde_json::{Value, json};

use crate::{ORDER, OTHER, Setup, cancelled, delivered, event, nothing, on_every_database, orders, stream};

const TOPICS: [(&str, &str); 4] =
    [("/orders", "orders"), ("/payments", "payments"), ("/kitchen", "kitchen"), ("/deliveries", "deliveries")];
const GROUP: &str = "query";

impl Setup {
    /// Puts events on the log.
    async fn publish(&self, events: &[Incoming]) {
        for (source, topic) in TOPICS {
            self.platform.log.create_topics(&[topic]).await.unwrap();
            let ours = events.iter().filter(|event| event.source == source);
            let records = ours.map(|event| to_record(event.original.clone()).unwrap()).collect::<Vec<_>>();
            self.platform.log.append(topic, records).await.unwrap();
        }
    }

    /// Puts events on the log, and tells the service of them.
    async fn publish_and_tell(&self, events: &[Incoming]) {
        self.publish(events).await;
        self.tell(events).await;
        self.is_told_everything().await;
    }

    /// The group has finished what is on the log.
    async fn is_told_everything(&self) {
        let topics: Vec<String> = TOPICS.map(|(_, topic)| topic.to_owned()).into();
        let member = self.platform.log.join(GROUP, &topics).await.unwrap();
        while member.waiting() > 0 {
            let batch = member.next(1_000).await.unwrap();
            member.finished(&batch).await;
        }
        member.leave().await;
    }

    /// An event is a dead letter.
    async fn put_aside(&self, source: &str, id: &str, state: &str) {
        let columns = "source, id, subject, state, reason, attempts, position, event";
        let values = format!("'{source}', '{id}', '{ORDER}', '{state}', '', 1, 1, ''");
        self.change(&format!("INSERT INTO dead_letters ({columns}) VALUES ({values})")).await;
    }

    async fn database(&self) -> Database {
        Database::connect(&self.platform.database_url).await.unwrap()
    }

    async fn rebuild(&self, swap: Swap) -> Result<Outcome, RebuildError> {
        let (database, hears) = (self.database().await, TOPICS.map(|(_, topic)| topic.to_owned()).into());
        let it = Rebuild {
            service: "query",
            database: &database,
            log: &self.platform.log,
            hears,
            group: GROUP.to_owned(),
            swap,
        };
        it.run(&()).await
    }

    async fn change(&self, sql: &str) {
        let mut write = self.database().await.write().await.unwrap();
        assert!(write.execute(sql, []).await.unwrap() > 0, "{sql}");
        write.commit().await.unwrap();
    }

    /// The names of all tables and indexes.
    async fn schema(&self) -> Vec<String> {
        let sql = if self.platform.database_url.starts_with("sqlite:") {
            "SELECT type || ' ' || name || ' ' || tbl_name FROM sqlite_master ORDER BY 1"
        } else {
            "SELECT indexdef::text FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1"
        };
        self.database().await.fetch(sql, []).await.unwrap().iter().map(|row| row.text(0).unwrap()).collect()
    }

    /// What people see.
    async fn seen(&self) -> Vec<Value> {
        let mut seen = Vec::new();
        for path in [
            format!("/orders/{ORDER}"),
            format!("/orders/{OTHER}"),
            "/orders".into(),
            "/kitchens".into(),
            "/drivers".into(),
            "/stats".into(),
        ] {
            seen.push(self.get(&path).await.1);
        }
        seen
    }
}

/// One order that was delivered, one that was cancelled, a kitchen and a driver.
fn town() -> Vec<Incoming> {
    let menu = json!({"name": "Luigi's", "open": true, "currency": "EUR", "menu": []});
    let kitchen = stream("/kitchen", "luigis", vec![("kitchen.menu_published", menu)]);
    let engaged = ("delivery.driver_engaged", json!({"order_id": ORDER}));
    let driver = stream("/deliveries", "mia", vec![nothing("delivery.driver_on_shift"), engaged]);
    let other = cancelled().into_iter().flatten().map(|of| {
        let name = of.event_type.trim_start_matches("dev.rainstorm.").trim_end_matches(".v1").to_owned();
        event(&of.source, OTHER, of.sequence.unwrap(), &name, serde_json::from_str(&of.data).unwrap())
    });
    kitchen.into_iter().chain(driver).chain(delivered().into_iter().flatten()).chain(other).collect()
}

fn effect(outcomes: &[Result<Handled, Failure>]) -> bool {
    outcomes.iter().all(|outcome| outcome == &Ok(Handled::Effect))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuilt_view_takes_the_live_ones_place_and_nothing_changes_for_whoever_looks() {
    on_every_database(async |it| {
        let town = town();
        let [order, .., ride] = delivered();
        let later: Vec<_> = town
            .iter()
            .filter(|event| event.subject == ORDER)
            .filter(|event| event.id == order[1].id || event.id == ride[4].id)
            .cloned()
            .collect();
        let first: Vec<_> = town.into_iter().filter(|event| later.iter().all(|later| later.id != event.id)).collect();
        it.publish_and_tell(&first).await;
        let (seen, schema) = (it.seen().await, it.schema().await);
        for _ in 0..2 {
            let outcome = it.rebuild(Swap::IfEqual).await.unwrap();
            let proof = outcome.proof.unwrap();
            assert!(outcome.swapped && proof.holds() && proof.tables.iter().all(|it| it.rows > 0), "{proof}");
            assert_eq!(outcome.events, first.len() as u64);
            assert_eq!((it.seen().await, it.schema().await), (seen.clone(), schema.clone()));
        }
        // This instance remembers the order as it was before.
        assert_eq!(it.projection.handle(&first).await, vec![Ok(Handled::Nothing); first.len()]);
        it.publish_and_tell(&later).await;
        assert_eq!(it.order().await["status"], "completed");
        assert!(it.rebuild(Swap::Never).await.unwrap().proof.unwrap().holds());
        assert_eq!(it.schema().await, schema);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_that_is_lost_is_made_again() {
    on_every_database(async |it| {
        it.publish_and_tell(&town()).await;
        let seen = it.seen().await;
        for table in ["orders", "kitchens", "drivers", "timeline"] {
            it.change(&format!("DELETE FROM {table}")).await;
        }
        assert_ne!(it.seen().await, seen);
        let outcome = it.rebuild(Swap::IfEqual).await.unwrap();
        assert!(outcome.swapped && outcome.proof.is_none());
        assert_eq!(it.seen().await, seen);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_live_view_was_not_told_yet_is_newer_and_no_difference() {
    on_every_database(async |it| {
        let town = town();
        let menu = json!({"name": "Luigi's", "open": false, "currency": "EUR", "menu": []});
        let closed = event("/kitchen", "luigis", 2, "kitchen.menu_published", menu);
        let (told, not_told) = town.split_at(town.len() - 3);
        let not_told = [not_told, &[closed], &orders(7..=9)].concat();
        it.publish_and_tell(told).await;
        it.publish(&not_told).await;
        let outcome = it.rebuild(Swap::IfEqual).await.unwrap();
        let proof = outcome.proof.unwrap();
        assert!(outcome.swapped && proof.tables.iter().map(|it| it.newer).sum::<u64>() >= 6, "{proof}");
        let seen = it.seen().await;
        assert_eq!(it.projection.handle(&not_told).await, vec![Ok(Handled::Nothing); not_told.len()]);
        assert_eq!(it.seen().await, seen);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_that_differs_stays_unless_it_is_to_be_replaced() {
    on_every_database(async |it| {
        it.publish_and_tell(&town()).await;
        let planted = [
            "UPDATE orders SET view = REPLACE(view, '950', '951') WHERE view LIKE '%completed%'".to_owned(),
            format!("UPDATE orders SET status = 'placed' WHERE order_id = '{ORDER}'"),
            format!("DELETE FROM orders WHERE order_id = '{ORDER}'"),
            "UPDATE kitchens SET view = REPLACE(view, 'Luigi', 'Mario')".to_owned(),
            "UPDATE drivers SET driver_id = 'max'".to_owned(),
            "DELETE FROM timeline WHERE subject = 'mia'".to_owned(),
            "UPDATE timeline SET time = '2026' WHERE subject = 'mia'".to_owned(),
            "UPDATE stats SET value = value + 1 WHERE name = 'now completed'".to_owned(),
            "DELETE FROM stats WHERE name = 'reached paid'".to_owned(),
        ];
        for sql in planted {
            it.change(&sql).await;
            let outcome = it.rebuild(Swap::IfEqual).await.unwrap();
            let proof = outcome.proof.unwrap();
            assert!(!outcome.swapped && !proof.holds() && !proof.differences.is_empty(), "{sql}: {proof}");
            assert!(it.rebuild(Swap::Always).await.unwrap().swapped);
            assert!(it.rebuild(Swap::Never).await.unwrap().proof.unwrap().holds(), "{sql}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_with_a_gap_is_refused_and_the_live_view_stays() {
    on_every_database(async |it| {
        let town = town();
        it.publish_and_tell(&town).await;
        let (seen, schema) = (it.seen().await, it.schema().await);
        it.publish(&[event(
            "/payments",
            ORDER,
            3,
            "payment.refunded",
            json!({"amount": {"amount": 1, "currency": "EUR"}}),
        )])
        .await;
        let error = it.rebuild(Swap::Always).await.unwrap_err().to_string();
        assert!(error.contains(&format!("event 2 of stream {ORDER} of /payments is missing")), "{error}");
        assert_eq!((it.seen().await, it.schema().await), (seen, schema));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_left_out_as_they_are_live() {
    on_every_database(async |it| {
        let [order, payment, ..] = delivered();
        let bad = event("/kitchen", ORDER, 1, "kitchen.ticket_accepted", json!("no object"));
        it.publish_and_tell(&[order[0].clone(), payment[0].clone()]).await;
        it.publish(&[bad.clone(), event("/kitchen", ORDER, 2, "kitchen.order_packed", json!({})), order[1].clone()])
            .await;
        it.put_aside("/kitchen", &bad.id, "failed").await;
        // What came behind it is parked, as it belongs to the same subject.
        it.put_aside("/kitchen", &format!("/kitchen-{ORDER}-2"), "parked").await;
        it.put_aside("/orders", &order[1].id, "parked").await;
        it.is_told_everything().await;
        let outcome = it.rebuild(Swap::IfEqual).await.unwrap();
        assert!(outcome.swapped, "{}", outcome.proof.unwrap());
        assert_eq!(it.order().await["status"], "paid");
        // The order's own event was redelivered: the others still wait.
        it.change("DELETE FROM dead_letters WHERE source = '/orders'").await;
        assert!(effect(&it.projection.handle(&order[1..]).await));
        assert!(it.rebuild(Swap::IfEqual).await.unwrap().swapped);
        assert_eq!(it.order().await["status"], "completed");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_discarded_event_is_gone_past_as_it_was_live() {
    on_every_database(async |it| {
        let [order, _, ticket, _] = delivered();
        let bad = event("/kitchen", ORDER, 1, "kitchen.ticket_created", json!({}));
        let mut future = bad.original.clone();
        future.set_type("dev.rainstorm.kitchen.ticket_created.v9");
        let bad = Incoming { event_type: future.ty().to_owned(), original: future, ..bad };
        it.publish(&[vec![bad.clone()], ticket[1..].to_vec()].concat()).await;
        it.publish_and_tell(&order[..1]).await;
        let seen = it.seen().await;
        // Nobody has decided yet: the view stops before it, and isn't broken.
        it.put_aside("/kitchen", &bad.id, "failed").await;
        for event in &ticket[1..] {
            it.put_aside("/kitchen", &event.id, "parked").await;
        }
        let outcome = it.rebuild(Swap::IfEqual).await.unwrap();
        assert!(outcome.swapped && it.seen().await == seen, "{:?}", outcome.proof);

        it.projection.discard(&bad).await.unwrap();
        it.change("DELETE FROM dead_letters").await;
        let columns = "source, id, attempts, done, stream_id";
        it.change(&format!("INSERT INTO inbox ({columns}) VALUES ('/kitchen', '{}', 0, 1, '')", bad.id)).await;
        it.tell(&ticket[1..]).await;
        let seen = it.seen().await;
        assert_eq!((&seen[0]["status"], seen[0]["timeline"].as_array().map(Vec::len)), (&json!("packed"), Some(3)));
        let outcome = it.rebuild(Swap::IfEqual).await.unwrap();
        assert!(outcome.swapped && it.seen().await == seen, "{:?}", outcome.proof);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_is_rebuilt_again_and_again_while_two_instances_keep_it_and_people_look() {
    on_every_database(async |it| {
        it.publish(&town()).await;
        let it = Arc::new(it);
        let instances = [Arc::new(it.another().await), Arc::new(it.another().await)];
        let done = Arc::new(AtomicBool::new(false));
        let looking = tokio::spawn({
            let (it, done) = (it.clone(), done.clone());
            async move {
                let mut most = 0;
                while !done.load(Ordering::SeqCst) {
                    let (status, page) = it.get("/orders?limit=500").await;
                    let found = page["orders"].as_array().map_or(0, Vec::len);
                    assert!(status == 200 && found >= most, "{found} of {most} orders: {page}");
                    most = found;
                }
                most
            }
        });
        let keeping = instances.map(|instance| {
            let (it, town) = (it.clone(), town());
            tokio::spawn(async move {
                let many = (10..=60).map(|number| orders(number..=number));
                for events in std::iter::once(town).chain(many) {
                    it.publish(&events).await;
                    while instance.handle(&events).await.iter().any(Result::is_err) {}
                }
            })
        });
        let keeping = futures::future::join_all(keeping);
        let rebuilding = async {
            let mut rebuilt = 0;
            while !done.load(Ordering::SeqCst) {
                let outcome = it.rebuild(Swap::IfEqual).await.unwrap();
                assert!(outcome.swapped, "{}", outcome.proof.unwrap());
                rebuilt += 1;
            }
            rebuilt
        };
        let finished = async {
            keeping.await.into_iter().for_each(Result::unwrap);
            done.store(true, Ordering::SeqCst);
        };
        let (rebuilt, ()) = tokio::join!(rebuilding, finished);
        assert!(rebuilt > 1, "it was rebuilt {rebuilt} times");
        assert!(looking.await.unwrap() > 10);
        it.is_told_everything().await;
        let proof = it.rebuild(Swap::Never).await.unwrap().proof.unwrap();
        assert!(proof.holds() && proof.tables.iter().all(|it| it.newer == 0), "{proof}");
    })
    .await;
}
