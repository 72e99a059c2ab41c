//! The sums of the views: exact, whatever comes twice, out of order, or to several instances.

use std::collections::BTreeMap;

use event_sourcing::Database;
use eventing::{Handled, Handler, Incoming};
use query::{
    stats::{Sums, of_driver, of_order},
    views::{DriverView, OrderView},
};
use serde_json::json;

use crate::{ORDER, Setup, cancelled, delivered, event, nothing, on_every_database, orders, stream};

impl Setup {
    /// What the table says; zeros aside.
    async fn kept(&self) -> BTreeMap<(i64, String), i64> {
        let database = Database::connect(&self.platform.database_url).await.unwrap();
        let rows = database.fetch("SELECT minute, name, value FROM stats WHERE value <> 0", []).await.unwrap();
        rows.iter().map(|row| ((row.int(0).unwrap(), row.text(1).unwrap()), row.int(2).unwrap())).collect()
    }

    /// What the rows of the views come to.
    async fn added_up(&self) -> BTreeMap<(i64, String), i64> {
        let database = Database::connect(&self.platform.database_url).await.unwrap();
        let mut sums = Sums::default();
        for row in database.fetch("SELECT view FROM orders", []).await.unwrap() {
            sums.add(&of_order(&row.json::<OrderView>(0).unwrap()), 1);
        }
        for row in database.fetch("SELECT view FROM drivers", []).await.unwrap() {
            sums.add(&of_driver(&row.json::<DriverView>(0).unwrap()), 1);
        }
        sums.rows().map(|(minute, name, value)| ((minute, name), value)).collect()
    }
}

/// A day in town: one order that was delivered, one that was cancelled, a few that wait, two drivers.
fn day() -> Vec<Vec<Incoming>> {
    let other = cancelled().map(|events| {
        let other = |of: Incoming| {
            let name = of.event_type.trim_start_matches("dev.rainstorm.").trim_end_matches(".v1").to_owned();
            event(&of.source, crate::OTHER, of.sequence.unwrap(), &name, serde_json::from_str(&of.data).unwrap())
        };
        events.into_iter().map(other).collect::<Vec<_>>()
    });
    let engaged = ("delivery.driver_engaged", json!({"order_id": ORDER}));
    let mia = stream("/deliveries", "mia", vec![nothing("delivery.driver_on_shift"), engaged]);
    let ben = ["delivery.driver_on_shift", "delivery.driver_off_shift"].map(nothing);
    let ben = stream("/deliveries", "ben", ben.into());
    let waiting = orders(7..=9).into_iter().map(|order| vec![order]);
    delivered().into_iter().chain(other).chain([mia, ben]).chain(waiting).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_counts_are_those_of_the_views_whatever_comes_twice_or_late_or_elsewhere() {
    on_every_database(async |it| {
        let another = it.another().await;
        let mut streams = day();
        // The streams' events in turn, the last stream first, each batch to the other instance and then again to this one.
        let mut turn = 0;
        while streams.iter().any(|stream| !stream.is_empty()) {
            let batch: Vec<Incoming> =
                streams.iter_mut().rev().filter(|stream| !stream.is_empty()).map(|stream| stream.remove(0)).collect();
            let instances = if turn % 2 == 0 { [&another, &it.projection] } else { [&it.projection, &another] };
            assert!(instances[0].handle(&batch).await.iter().all(|outcome| outcome == &Ok(Handled::Effect)));
            assert!(instances[1].handle(&batch).await.iter().all(|outcome| outcome == &Ok(Handled::Nothing)));
            assert_eq!(it.kept().await, it.added_up().await, "after batch {turn}");
            turn += 1;
        }
        let (status, stats) = it.get("/stats").await;
        assert_eq!(status, 200, "{stats}");
        assert_eq!(stats["now"]["completed"], 1);
        assert_eq!((&stats["now"]["cancelled"], &stats["now"]["placed"]), (&json!(1), &json!(3)), "{stats}");
        assert_eq!((&stats["funnel"]["placed"], &stats["funnel"]["paid"]), (&json!(5), &json!(2)), "{stats}");
        assert_eq!(stats["revenue"], json!([{"currency": "EUR", "captured": 1900, "refunded": 950}]));
        assert_eq!(stats["drivers"], json!({"free": 0, "off_shift": 1, "riding": 1}));
        // These are of another day.
        assert_eq!(stats["minutes"], json!([]));
        assert_eq!(stats["legs"][0]["count"], 0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_minutes_are_told_one_by_one_and_the_legs_with_how_long_they_took() {
    let it = crate::setup(None).await;
    let begun = jiff::Timestamp::now();
    let at = |mut event: Incoming, millis: i64| {
        event.time = format!("{:.6}", begun + jiff::SignedDuration::from_millis(millis));
        event
    };
    let [order, payment, ..] = delivered();
    it.tell(&[at(order[0].clone(), 0), at(payment[0].clone(), 250)]).await;
    let (_, stats) = it.get("/stats").await;
    let minutes = stats["minutes"].as_array().unwrap();
    let sum = |status: &str| minutes.iter().filter_map(|minute| minute[status].as_i64()).sum::<i64>();
    assert_eq!((sum("placed"), sum("paid"), sum("cooking")), (1, 1, 0), "{stats}");
    let leg = &stats["legs"][0];
    assert_eq!((&leg["from"], &leg["to"], &leg["count"]), (&json!("placed"), &json!("paid"), &json!(1)), "{stats}");
    let p50 = leg["p50_ms"].as_f64().unwrap();
    assert!((p50 / 250.0 - 1.0).abs() < 0.1, "{leg}");
    assert_eq!(stats["legs"][5]["p99_ms"], json!(null), "nothing was completed");
}
