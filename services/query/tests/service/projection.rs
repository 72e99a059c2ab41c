//! The views on a real database, fed as the door feeds them.

use std::sync::Arc;

use eventing::{Failure, Handled, Handler};
use serde_json::{Value, json};

use crate::{ORDER, OTHER, cancelled, delivered, event, nothing, on_every_database, orders, stream};

#[tokio::test(flavor = "multi_thread")]
async fn an_orders_story_is_told_with_its_timeline_and_latencies_and_told_twice_is_the_same() {
    on_every_database(async |it| {
        let events: Vec<_> = delivered().into_iter().flatten().collect();
        it.tell(&events).await;
        let order = it.order().await;
        assert_eq!((&order["status"], &order["sequence"]), (&json!("completed"), &json!(2)));
        assert_eq!(order["money"], json!({"captured": order["total"], "refunded": {"amount": 0, "currency": "EUR"}}));
        let timeline = order["timeline"].as_array().unwrap();
        assert_eq!(timeline.len(), events.len());
        assert!(timeline.is_sorted_by_key(|step| step["time"].as_str().unwrap()));
        let of = |name: &str| timeline.iter().find(|step| step["type"] == format!("dev.rainstorm.{name}.v1")).unwrap();
        assert_eq!(of("order.placed")["latency_ms"], json!(0.0));
        assert_eq!(of("order.completed")["latency_ms"], json!(4000.0));

        for instance in [&it.projection, &it.another().await] {
            assert_eq!(instance.handle(&events).await, vec![Ok(Handled::Nothing); events.len()]);
        }
        assert_eq!(it.order().await, order);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_others_know_first_is_unknown_until_it_is_placed() {
    on_every_database(async |it| {
        let [order, payment, ticket, _] = cancelled();
        it.tell(&[payment, ticket].concat()).await;
        assert_eq!(it.get(&format!("/orders/{ORDER}")).await.0, 404);
        assert_eq!(it.get("/orders").await.1, json!({"orders": [], "cursor": null}));
        it.tell(&order[..1]).await;
        let view = it.order().await;
        assert_eq!((&view["status"], &view["money"]["refunded"]["amount"]), (&json!("cooking"), &json!(950)));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gap_or_a_bad_event_stops_its_own_subject_only() {
    on_every_database(async |it| {
        let [order, _, ticket, _] = delivered();
        let bad = event("/payments", OTHER, 1, "payment.confirmed", json!({"amount": "much"}));
        let behind = event("/payments", OTHER, 2, "payment.refunded", json!({}));
        let good = orders(3..=3).remove(0);
        let told = [order[0].clone(), ticket[1].clone(), ticket[0].clone(), bad, behind, good];
        let outcomes = it.projection.handle(&told).await;
        assert_eq!(outcomes[0], Ok(Handled::Effect));
        assert!(matches!(&outcomes[1], Err(Failure::Retry(gap)) if gap.contains("event 1")), "{outcomes:?}");
        assert!(matches!(outcomes[2], Err(Failure::Retry(_))), "nothing more of this subject: {outcomes:?}");
        assert!(matches!(outcomes[3], Err(Failure::Never(_))), "{outcomes:?}");
        assert!(matches!(outcomes[4], Err(Failure::Retry(_))), "{outcomes:?}");
        assert_eq!(outcomes[5], Ok(Handled::Effect));
        assert_eq!(it.order().await["status"], "placed");
        // Told in order, it goes on.
        it.tell(&ticket).await;
        assert_eq!(it.order().await["status"], "packed");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_instances_that_fold_the_same_orders_at_once_lose_nothing() {
    on_every_database(async |it| {
        let instances = [Arc::new(it.another().await), Arc::new(it.another().await)];
        let tasks = delivered().into_iter().enumerate().map(|(number, stream)| {
            let instances = instances.clone();
            tokio::spawn(async move {
                for (place, event) in stream.into_iter().enumerate() {
                    // The streams change hands, and others come along in the same batch.
                    let batch = [orders(10..=40), vec![event]].concat();
                    while instances[(number + place) % 2].handle(&batch).await.last() != Some(&Ok(Handled::Effect)) {}
                }
            })
        });
        futures::future::join_all(tasks).await.into_iter().for_each(Result::unwrap);
        let order = it.order().await;
        assert_eq!((&order["status"], order["timeline"].as_array().unwrap().len()), (&json!("completed"), 11));
        assert_eq!(it.get("/orders").await.1["orders"].as_array().unwrap().len(), 32);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_gets_an_order_back_goes_on_where_another_has_left_off() {
    on_every_database(async |it| {
        let [.., ride] = delivered();
        let another = it.another().await;
        it.tell(&ride[..1]).await;
        assert_eq!(another.handle(&ride[1..2]).await, [Ok(Handled::Effect)]);
        // What the first remembers of the order is old now: an event seems to be missing, and then isn't.
        it.tell(&ride[2..3]).await;
        // Nor does it miss that the next one has been applied already.
        assert_eq!(another.handle(&ride[3..4]).await, [Ok(Handled::Effect)]);
        assert_eq!(it.projection.handle(&ride[3..4]).await, [Ok(Handled::Nothing)]);
        it.tell(&ride[4..]).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kitchens_and_drivers_are_shown_as_they_said_last_and_a_ride_is_in_its_orders_timeline() {
    on_every_database(async |it| {
        let menu = |open: bool| {
            let dish = json!({"item_id": "soup", "name": "Soup", "price": 950, "available": open});
            let data = json!({"name": "Luigi's", "open": open, "currency": "EUR", "menu": [dish]});
            ("kitchen.menu_published", data)
        };
        let mut menus = stream("/kitchen", "luigis", vec![menu(true), menu(false)]);
        let engaged = ("delivery.driver_engaged", json!({"order_id": ORDER}));
        let released = ("delivery.driver_released", json!({"order_id": ORDER}));
        let on_shift = nothing("delivery.driver_on_shift");
        let off_shift = nothing("delivery.driver_off_shift");
        let mut driver = stream("/deliveries", "mia", vec![on_shift, engaged, off_shift, released]);
        for own in menus.iter_mut().chain([&mut driver[0]]) {
            own.correlation_id = own.subject.clone();
        }
        driver[2].correlation_id = "mia".to_owned();
        let [order, ..] = delivered();
        it.tell(&[menus, driver[..2].to_vec(), order[..1].to_vec()].concat()).await;

        let kitchens = it.get("/kitchens").await.1;
        assert_eq!((&kitchens[0]["open"], &kitchens[0]["menu"][0]["available"]), (&json!(false), &json!(false)));
        let riding = json!([{"driver_id": "mia", "on_shift": true, "order_id": ORDER}]);
        assert_eq!(it.get("/drivers").await.1, riding);
        it.tell(&driver[2..]).await;
        assert_eq!(it.get("/drivers").await.1, json!([{"driver_id": "mia", "on_shift": false, "order_id": null}]));
        let order = it.order().await;
        let subjects: Vec<&Value> = order["timeline"].as_array().unwrap().iter().map(|step| &step["subject"]).collect();
        assert_eq!(subjects, [ORDER, "mia", "mia"]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_discarded_event_leaves_no_gap_and_no_trace_and_the_story_goes_on_behind_it() {
    on_every_database(async |it| {
        let [order, _, ticket, _] = delivered();
        let paid = |sequence| event("/payments", ORDER, sequence, "payment.confirmed", json!({"amount": "much"}));
        let refunded =
            event("/payments", ORDER, 2, "payment.refunded", json!({"amount": {"amount": 950, "currency": "EUR"}}));
        it.tell(&order[..1]).await;
        assert!(matches!(it.projection.handle(&[paid(1)]).await[0], Err(Failure::Never(_))));
        assert!(matches!(it.projection.handle(std::slice::from_ref(&refunded)).await[0], Err(Failure::Retry(_))));
        // By another instance, so that what the first remembers is old, and twice, as after a crash.
        let another = it.another().await;
        for instance in [&another, &another, &it.projection] {
            assert_eq!(instance.discard(&paid(1)).await, Ok(()));
        }
        it.tell(&[refunded]).await;
        it.tell(&ticket).await;
        assert!(matches!(it.projection.discard(&paid(7)).await, Err(Failure::Retry(_))), "its turn has not come");
        let order = it.order().await;
        assert_eq!((&order["status"], &order["money"]["captured"]["amount"]), (&json!("packed"), &json!(0)));
        let told: Vec<_> = order["timeline"].as_array().unwrap().iter().map(|step| step["type"].clone()).collect();
        assert!(!told.contains(&json!("dev.rainstorm.payment.confirmed.v1")) && told.len() == 5, "{told:?}");
        // An event that no view knows, or that has no place in its stream, leaves no gap.
        let mut placeless = event("/payments", ORDER, 3, "payment.refunded", json!({}));
        placeless.sequence = None;
        let unknown = event("/loyalty", ORDER, 1, "loyalty.points_earned", json!({}));
        for event in [placeless, unknown] {
            assert_eq!(it.projection.discard(&event).await, Ok(()));
        }
    })
    .await;
}
