//! Dead letters that are taken up again: handed over once more after a fix, or given up, with what waits behind them.

use std::{collections::BTreeMap, sync::atomic::Ordering};

use axum::Router;
use cloudevents::Event;
use eventing::dead_letters::{DISCARD_REQUESTED, History, REDELIVERY_REQUESTED, histories, logged, wish};

use eventing::log::EventLog;

use super::{Counted, Setup, add, knock, on_every_database};

pub const NONE: [i64; 0] = [];

impl Setup {
    /// Everything that its topic tells, by the letters' ids.
    pub async fn histories(&self) -> BTreeMap<String, History> {
        let histories = histories(&*self.log, "counter").await.unwrap();
        histories.into_iter().map(|([_, id], history)| (id, history)).collect()
    }

    /// The same, where ids may be those of several sources.
    pub async fn all_histories(&self) -> Vec<History> {
        histories(&*self.log, "counter").await.unwrap().into_values().collect()
    }

    /// Every record there, as the event it is.
    pub async fn on_dead_letter_topic(&self) -> Vec<Event> {
        let mut events = Vec::new();
        for (partition, low, _) in self.log.watermarks("counter.dead-letters").await.unwrap() {
            for stored in self.log.read(&partition, low, 100_000).await.unwrap() {
                events.push(eventing::from_record(&stored.record).unwrap());
            }
        }
        events
    }

    /// The letters' ids with their states.
    pub async fn states(&self) -> Vec<(String, &'static str)> {
        self.histories().await.into_iter().map(|(id, history)| (id, history.letter.state.name())).collect()
    }

    /// The wish for this letter, as it comes from the topic.
    pub async fn wish(&self, event_type: &str, id: &str) -> Event {
        logged(wish(event_type, &self.histories().await[id].letter).unwrap(), "counter")
    }

    async fn redeliver(&self, id: &str) -> u16 {
        knock(&self.doors[1], &[self.wish(REDELIVERY_REQUESTED, id).await]).await
    }

    async fn discard(&self, id: &str) -> u16 {
        knock(&self.doors[0], &[self.wish(DISCARD_REQUESTED, id).await]).await
    }

    pub fn mend(&self) {
        self.handler.mended.store(true, Ordering::SeqCst);
    }

    /// What was counted, in order.
    pub async fn counted(&self, stream: &str) -> Vec<i64> {
        let history = self.writer.store.history(vec![stream.to_owned()]).await.unwrap();
        let counted = history.get(stream).into_iter().flatten().map(|event| {
            let json = format!(r#"{{"type":"{}","data":{}}}"#, event.event_type, event.data);
            let Counted::Counted { by } = serde_json::from_str(&json).unwrap();
            by
        });
        counted.collect()
    }

    /// Tells events one after the other, each until it is heard.
    pub async fn tell(&self, events: &[Event]) {
        for (event, door) in events.iter().zip(self.doors.iter().cycle()) {
            until_heard(door, event).await;
        }
    }
}

async fn until_heard(door: &Router, event: &Event) {
    for _ in 0..1000 {
        match knock(door, std::slice::from_ref(event)).await {
            204 => return,
            503 => tokio::task::yield_now().await,
            other => panic!("{other}"),
        }
    }
    panic!("it is not heard: {event:?}");
}

/// An event that the handler doesn't read until it is mended; then it counts 1.
pub fn unreadable(id: &str, subject: &str) -> Event {
    let mut event = add(id, subject, 1);
    event.set_data("application/json", serde_json::json!({"by": "one"}));
    event
}

fn states<const N: usize>(expected: [(&str, &'static str); N]) -> Vec<(String, &'static str)> {
    expected.map(|(id, state)| (id.to_owned(), state)).into()
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_fix_a_letter_and_what_waits_behind_it_are_handled_once_and_in_order() {
    on_every_database(|it| async move {
        let newer = |id: &str| {
            use cloudevents::{EventBuilder, EventBuilderV10};
            EventBuilderV10::from(add(id, "version", 5)).ty("dev.rainstorm.test.more.v2").build().unwrap()
        };
        it.tell(&[newer("v2"), add("v3", "version", 7)]).await;
        it.tell(&[unreadable("r1", "rejected"), add("r2", "rejected", 2), add("r3", "rejected", 3)]).await;
        it.tell(&[add("c1", "crashed", 13), add("c2", "crashed", 2)]).await;
        let failed = [("c1", "failed"), ("c2", "parked"), ("r1", "failed"), ("r2", "parked"), ("r3", "parked")];
        assert_eq!(
            it.states().await,
            states(failed).into_iter().chain(states([("v2", "failed"), ("v3", "parked")])).collect::<Vec<_>>()
        );

        it.mend();
        for id in ["v2", "r1", "c1"] {
            assert_eq!(it.redeliver(id).await, 204, "{id}");
        }
        assert_eq!(it.counted("version").await, [5, 7]);
        assert_eq!(it.counted("rejected").await, [1, 2, 3]);
        assert_eq!(it.counted("crashed").await, [13, 2]);
        assert!(it.states().await.iter().all(|(_, state)| *state == "redelivered"), "{:?}", it.states().await);

        // Nothing waits any more, and nothing has a second effect.
        it.tell(&[unreadable("r1", "rejected"), add("r2", "rejected", 2), add("r4", "rejected", 4)]).await;
        assert_eq!(it.redeliver("r1").await, 204);
        assert_eq!(it.counted("rejected").await, [1, 2, 3, 4]);
        let history = &it.histories().await["r1"];
        let steps: Vec<_> = history.steps.iter().map(|step| step.what.as_str()).collect();
        assert_eq!(steps, ["failed", "redelivered"]);
        assert_eq!((history.letter.attempts, it.histories().await["c1"].letter.attempts), (2, 6));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_handled_still_stays_and_so_does_what_waits_behind_it() {
    on_every_database(|it| async move {
        it.tell(&[unreadable("r1", "s"), add("r2", "s", 2)]).await;
        assert_eq!(it.redeliver("r1").await, 204);
        assert_eq!(it.states().await, states([("r1", "failed"), ("r2", "parked")]));
        assert_eq!(it.histories().await["r1"].letter.attempts, 2);
        it.tell(&[add("r3", "s", 3)]).await;
        assert_eq!(it.counted("s").await, NONE);
        assert_eq!(it.states().await, states([("r1", "failed"), ("r2", "parked"), ("r3", "parked")]));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waited_may_fail_when_its_turn_comes_and_the_rest_waits_for_that() {
    on_every_database(|it| async move {
        it.tell(&[unreadable("r1", "s"), add("r2", "s", 2), unreadable("r3", "s"), add("r4", "s", 4)]).await;
        assert_eq!(it.discard("r1").await, 204);
        let expected = [("r1", "discarded"), ("r2", "redelivered"), ("r3", "failed"), ("r4", "parked")];
        assert_eq!((it.states().await, it.counted("s").await), (states(expected), vec![2]));
        it.mend();
        assert_eq!(it.redeliver("r1").await, 204, "that one is closed; nothing happens");
        assert_eq!(it.counted("s").await, [2]);
        assert_eq!(it.redeliver("r4").await, 204, "in order, up to the one that is named");
        assert_eq!(it.counted("s").await, [2, 1, 4]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_that_crashes_its_handler_again_is_a_letter_again() {
    on_every_database(|it| async move {
        it.tell(&[add("c1", "s", 13), add("c2", "s", 2)]).await;
        let wish = it.wish(REDELIVERY_REQUESTED, "c1").await;
        let mut answers = Vec::new();
        while answers.last() != Some(&204) && answers.len() < 20 {
            answers.push(knock(&it.doors[0], std::slice::from_ref(&wish)).await);
        }
        assert_eq!(answers, [503, 503, 503, 503, 503, 204], "it begins anew, and ends again");
        assert_eq!(it.states().await, states([("c1", "failed"), ("c2", "parked")]));
        assert_eq!(it.histories().await["c1"].letter.attempts, 10);
        it.mend();
        assert_eq!(it.redeliver("c1").await, 204);
        assert_eq!(it.counted("s").await, [13, 2]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redelivery_that_ends_after_the_effect_goes_on_and_has_no_second_one() {
    on_every_database(|it| async move {
        it.tell(&[unreadable("r1", "s"), add("r2", "s", 2), add("r3", "s", 3)]).await;
        it.mend();
        let wish = [it.wish(REDELIVERY_REQUESTED, "r1").await];
        // The effect is stored, and not published.
        it.log.1.store(false, Ordering::SeqCst);
        assert_eq!(knock(&it.doors[0], &wish).await, 503);
        assert_eq!(it.counted("s").await, [1]);
        it.log.1.store(true, Ordering::SeqCst);
        // It is closed, and its topic doesn't say so.
        *it.log.2.lock().unwrap() = Some("counter.dead-letters");
        assert_eq!(knock(&it.doors[1], &wish).await, 503);
        assert_eq!(knock(&it.doors[0], &[add("r4", "s", 4)]).await, 503, "no event overtakes");
        assert_eq!(it.states().await[0].1, "failed");
        *it.log.2.lock().unwrap() = None;
        assert_eq!(knock(&it.doors[0], &wish).await, 204);
        it.tell(&[add("r4", "s", 4)]).await;
        assert_eq!(it.counted("s").await, [1, 2, 3, 4]);
        assert!(it.states().await.iter().all(|(_, state)| *state == "redelivered"), "{:?}", it.states().await);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_ends_while_it_handles_a_letter_leaves_it_to_another() {
    on_every_database(|it| async move {
        it.tell(&[unreadable("r1", "s"), add("r2", "s", 77), add("r3", "s", 3)]).await;
        it.mend();
        let wish = [it.wish(REDELIVERY_REQUESTED, "r1").await];
        let held = it.handler.slow.lock().await;
        let (door, asked) = (it.doors[0].clone(), wish.clone());
        let killed = tokio::spawn(async move { knock(&door, &asked).await });
        while it.counted("s").await != [1] {
            tokio::task::yield_now().await;
        }
        killed.abort();
        assert!(killed.await.unwrap_err().is_cancelled());
        drop(held);
        assert_eq!(knock(&it.doors[1], &wish).await, 204);
        assert_eq!(it.counted("s").await, [1, 77, 3]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_instances_that_redeliver_at_once_and_new_arrivals_keep_the_order() {
    on_every_database(|it| async move {
        for round in 0..4 {
            let subject = format!("s{round}");
            let number = |number: i64| add(&format!("{subject}-{number:02}"), &subject, number);
            let first = unreadable(&format!("{subject}-01"), &subject);
            it.tell(&std::iter::once(first).chain((2..10).map(number)).collect::<Vec<_>>()).await;
            it.mend();
            let wish = it.wish(REDELIVERY_REQUESTED, &format!("{subject}-01")).await;
            let redelivering = it.doors.clone().map(|door| {
                let wish = wish.clone();
                tokio::spawn(async move { until_heard(&door, &wish).await })
            });
            let (doors, arrivals) = (it.doors.clone(), (10..30).map(number).collect::<Vec<_>>());
            let arriving = tokio::spawn(async move {
                for (event, door) in arrivals.iter().zip(doors.iter().cycle()) {
                    until_heard(door, event).await;
                }
            });
            for task in redelivering.into_iter().chain([arriving]) {
                task.await.unwrap();
            }
            // Whatever parked last was still seen by whoever was clearing up.
            assert_eq!(it.counted(&subject).await, (1..30).collect::<Vec<_>>());
            assert!(it.states().await.iter().all(|(_, state)| *state == "redelivered"), "{:?}", it.states().await);
            it.handler.mended.store(false, Ordering::SeqCst);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_discarded_letter_never_has_an_effect_and_what_waits_behind_it_goes_on() {
    on_every_database(|it| async move {
        it.tell(&[unreadable("r1", "s"), add("r2", "s", 2), add("r3", "s", 3)]).await;
        assert_eq!(it.discard("r2").await, 204, "a letter that only waits is not given up");
        assert_eq!(it.states().await, states([("r1", "failed"), ("r2", "parked"), ("r3", "parked")]));
        assert_eq!(it.discard("r1").await, 204);
        let closed = states([("r1", "discarded"), ("r2", "redelivered"), ("r3", "redelivered")]);
        assert_eq!((it.states().await, it.counted("s").await), (closed.clone(), vec![2, 3]));
        assert_eq!(*it.handler.discarded.lock().unwrap(), ["r1"]);
        // Told again, even if it could be handled by now, and asked for again.
        it.mend();
        it.tell(&[unreadable("r1", "s"), add("r4", "s", 4)]).await;
        assert_eq!(it.discard("r1").await, 204);
        assert_eq!(it.redeliver("r1").await, 204);
        assert_eq!((it.states().await, it.counted("s").await), (closed, vec![2, 3, 4]));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_discarded_event_that_cannot_even_be_tried_is_no_new_letter_when_it_is_told_again() {
    on_every_database(|it| async move {
        use cloudevents::{EventBuilder, EventBuilderV10};
        let newer = EventBuilderV10::from(add("v2", "s", 5)).ty("dev.rainstorm.test.more.v2").build().unwrap();
        it.tell(std::slice::from_ref(&newer)).await;
        assert_eq!(it.discard("v2").await, 204);
        it.tell(&[newer, add("v3", "s", 3)]).await;
        assert_eq!((it.states().await, it.counted("s").await), (states([("v2", "discarded")]), vec![3]));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_handled_in_the_meantime_is_not_discarded_any_more() {
    on_every_database(|it| async move {
        it.tell(&[unreadable("r1", "s"), add("r2", "s", 2)]).await;
        it.mend();
        let both = [it.wish(REDELIVERY_REQUESTED, "r1").await, it.wish(DISCARD_REQUESTED, "r1").await];
        it.log.1.store(false, Ordering::SeqCst);
        assert_eq!(knock(&it.doors[0], &both[..1]).await, 503, "its effect is stored");
        it.log.1.store(true, Ordering::SeqCst);
        assert_eq!(knock(&it.doors[1], &both[1..]).await, 204);
        assert_eq!(it.states().await, states([("r1", "redelivered"), ("r2", "redelivered")]));
        assert_eq!(it.counted("s").await, [1, 2]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wish_that_is_posted_at_the_door_is_put_on_the_log_first() {
    on_every_database(|it| async move {
        it.tell(&[unreadable("r1", "s")]).await;
        it.mend();
        let posted = wish(REDELIVERY_REQUESTED, &it.histories().await["r1"].letter).unwrap();
        it.log.1.store(false, Ordering::SeqCst);
        assert_eq!(knock(&it.doors[0], std::slice::from_ref(&posted)).await, 503);
        it.log.1.store(true, Ordering::SeqCst);
        assert_eq!(knock(&it.doors[0], &[posted]).await, 204);
        let steps: Vec<_> = it.histories().await["r1"].steps.iter().map(|step| step.what.clone()).collect();
        assert_eq!(steps, ["failed", "redelivery asked"]);
        assert_eq!(it.counted("s").await, NONE, "it is granted when it is heard of");
    })
    .await;
}
