//! What people ask, and what they get for an answer.

use std::time::Duration;

use eventing::{Handled, Handler};
use serde_json::json;
use tokio::time::Instant;

use crate::{ORDER, OTHER, cancelled, delivered, on_every_database, orders, setup, stream};

#[tokio::test(flavor = "multi_thread")]
async fn people_read_their_own_write_whichever_instance_applies_it() {
    on_every_database(async |it| {
        let [order, ..] = delivered();
        let another = it.another().await;
        for (event, sequence) in order.iter().zip(1..) {
            let path = format!("/orders/{ORDER}?at_least={sequence}");
            let (applied, (status, view)) = tokio::join!(
                async {
                    tokio::time::sleep(Duration::from_millis(200)).await;
                    another.handle(std::slice::from_ref(event)).await
                },
                it.get(&path)
            );
            assert_eq!(applied, [Ok(Handled::Effect)]);
            assert_eq!((status, &view["sequence"]), (200, &json!(sequence)));
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_that_does_not_come_that_far_says_so_after_five_seconds() {
    let it = setup(None).await;
    it.tell(&delivered()[0][..1]).await;
    let started = Instant::now();
    let (unknown, behind) = (format!("/orders/{OTHER}?at_least=1"), format!("/orders/{ORDER}?at_least=9"));
    let ((unknown, _), (behind, problem)) = tokio::join!(it.get(&unknown), it.get(&behind));
    assert_eq!((unknown, behind), (404, 412));
    assert!(problem["detail"].as_str().unwrap().contains("sequence 1 "), "{problem}");
    assert!((5.0..8.0).contains(&started.elapsed().as_secs_f64()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_goes_from_the_newest_order_to_the_oldest_and_the_last_one_has_no_cursor() {
    on_every_database(async |it| {
        let many = orders(1..=20);
        it.tell(&many).await;
        let mut seen = Vec::new();
        let mut cursor = String::new();
        for more in [true, false] {
            let (status, page) = it.get(&format!("/orders?customer_id=ada&status=placed&limit=10{cursor}")).await;
            assert_eq!((status, page["cursor"].is_string()), (200, more));
            let ids = page["orders"].as_array().unwrap().iter().map(|order| order["order_id"].as_str().unwrap());
            seen.extend(ids.map(ToOwned::to_owned));
            cursor = format!("&cursor={}", page["cursor"].as_str().unwrap_or_default());
        }
        let newest_first: Vec<_> = many.iter().rev().map(|event| event.subject.clone()).collect();
        assert_eq!(seen, newest_first);
        for nobodys in ["/orders?customer_id=eve", "/orders?status=cancelled", "/orders?customer_id=%27%20OR%201=1--"] {
            assert_eq!(it.get(nobodys).await, (200, json!({"orders": [], "cursor": null})), "{nobodys}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_order_is_listed_with_what_became_of_it() {
    on_every_database(async |it| {
        it.tell(&cancelled().concat()).await;
        let listed = it.get("/orders?status=cancelled").await.1["orders"][0].clone();
        let cancellation = json!({
            "requested_at": "2026-11-24T09:00:08.000000Z",
            "refused_at": null,
            "cancelled_at": "2026-11-24T09:00:12.000000Z",
            "reason": "customer_request",
        });
        let expected = json!({
            "order_id": ORDER,
            "customer_id": "ada",
            "kitchen_id": "luigis",
            "status": "cancelled",
            "total": {"amount": 950, "currency": "EUR"},
            "placed_at": "2026-11-24T09:00:04.000000Z",
            "ended_at": "2026-11-24T09:00:12.000000Z",
            "cancellation": cancellation,
        });
        assert_eq!(listed, expected);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kitchens_board_has_what_is_paid_and_not_yet_on_its_way() {
    on_every_database(async |it| {
        let menu = json!({"name": "Luigi's", "open": true, "currency": "EUR", "menu": []});
        let menu = stream("/kitchen", "luigis", vec![("kitchen.menu_published", menu)]);
        let [order, payment, ticket, ride] = delivered();
        it.tell(&[menu, order[..1].to_vec(), orders(2..=9)].concat()).await;
        let tickets = async || it.get("/kitchens/luigis/board").await.1["tickets"].clone();
        assert_eq!(tickets().await, json!([]));
        for (events, status) in [(payment, "paid"), (ticket[..2].to_vec(), "cooking"), (ticket[2..].to_vec(), "packed")]
        {
            it.tell(&events).await;
            let on_board = tickets().await;
            assert_eq!((on_board.as_array().unwrap().len(), &on_board[0]["status"]), (1, &json!(status)));
            assert_eq!((&on_board[0]["order_id"], &on_board[0]["items"][0]["name"]), (&json!(ORDER), &json!("Soup")));
        }
        it.tell(&ride).await;
        assert_eq!(tickets().await, json!([]));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_questions_get_their_4xx() {
    on_every_database(async |it| {
        it.tell(&delivered()[0][..1]).await;
        let order = |query: &str| format!("/orders/{ORDER}?at_least={query}");
        let cases = [
            ("/orders?limit=0".to_owned(), 400),
            ("/orders?limit=501".to_owned(), 400),
            ("/orders?limit=many".to_owned(), 400),
            ("/orders?limit=1&limit=2".to_owned(), 400),
            ("/orders?status=hungry".to_owned(), 400),
            ("/orders?status=placed%00".to_owned(), 400),
            ("/orders?cursor=nowhere".to_owned(), 400),
            ("/orders?cursor=%00".to_owned(), 400),
            ("/orders?customer_id=%00".to_owned(), 400),
            (order("0"), 400),
            (order("-1"), 400),
            (order("9223372036854775808"), 400),
            (order(""), 400),
            ("/orders/soup".to_owned(), 404),
            ("/orders/%00".to_owned(), 404),
            (format!("/orders/{OTHER}"), 404),
            ("/kitchens/nobodys/board".to_owned(), 404),
            ("/kitchens/%00/board".to_owned(), 404),
        ];
        for (path, expected) in cases {
            let (status, said) = it.get(&path).await;
            assert_eq!((status, &said["status"]), (expected, &json!(expected)), "{path}: {said}");
        }
        assert_eq!(it.get(&order("1")).await.0, 200);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_question_is_documented_with_its_answers() {
    let it = setup(None).await;
    let document = it.get("/openapi.json").await.1;
    for path in ["/orders", "/orders/{id}", "/kitchens", "/kitchens/{id}/board", "/drivers"] {
        let answers = &document["paths"][path]["get"]["responses"];
        assert!(answers["200"]["content"]["application/json"]["schema"].is_object(), "{path}");
        assert!(answers["503"].is_object(), "{path}");
    }
    for shape in ["OrderDetails", "Step", "OrderPage", "KitchenDetails", "Board", "DriverDetails", "Problem"] {
        assert!(document["components"]["schemas"][shape].is_object(), "{shape}");
    }
}
