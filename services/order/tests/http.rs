//! What people can ask the order service, through its real router, on a real database.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that can't go on fails")]

use axum::{Router, body::Body, http::Request};
use event_sourcing::Database;
use eventing::{Platform, log::EmbeddedLog};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use std::sync::Arc;
use tower::ServiceExt;

struct Setup {
    router: Router,
    database: Database,
    _folder: tempfile::TempDir,
}

async fn setup() -> Setup {
    let folder = tempfile::tempdir().unwrap();
    let log = EmbeddedLog::open(&folder.path().join("log"), 4).await.unwrap();
    let database_url = format!("sqlite:{}", folder.path().join("order.db").display());
    let platform = Platform::new(Arc::new(log), database_url);
    let service = order::service(order::Settings {}, platform.clone()).await.unwrap();
    let database = platform.database(&[&order::MIGRATIONS]).await.unwrap();
    let setup = Setup { router: runtime::service::router(vec![service]), database, _folder: folder };
    setup.publish_menu(1, true, 950, true).await;
    setup
}

fn soup() -> Value {
    json!({
        "customer_id": "ada", "kitchen_id": "luigis",
        "items": [{"item_id": "soup", "quantity": 2}],
        "address": {"street": "1 Rain Road", "city": "Cloudville", "postal_code": "12345"},
        "payment_token": "tok_ok",
    })
}

fn with(path: &str, value: Value) -> Value {
    let mut order = soup();
    *order.pointer_mut(path).unwrap() = value;
    order
}

fn without(path: &str) -> Value {
    let mut order = soup();
    let (parent, field) = path.rsplit_once('/').unwrap();
    order.pointer_mut(parent).unwrap().as_object_mut().unwrap().remove(field).unwrap();
    order
}

impl Setup {
    async fn send(&self, request: Request<Body>) -> (u16, Value, Option<String>) {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        let location = response.headers().get("location").map(|value| value.to_str().unwrap().to_owned());
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&body).unwrap_or(Value::Null), location)
    }

    async fn place_with(&self, key: Option<&str>, body: impl Into<Body>) -> (u16, Value, Option<String>) {
        let request = Request::post("/orders").header("content-type", "application/json");
        let request = key.into_iter().fold(request, |request, key| request.header("Idempotency-Key", key));
        self.send(request.body(body.into()).unwrap()).await
    }

    async fn place(&self, order: &Value) -> (u16, Value, Option<String>) {
        self.place_with(None, order.to_string()).await
    }

    async fn publish_menu(&self, sequence: i64, open: bool, price: i64, available: bool) {
        let event = json!({
            "specversion": "1.0", "id": format!("menu-{sequence}"), "source": "/kitchen", "subject": "luigis",
            "type": "dev.rainstorm.kitchen.menu_published.v1", "sequence": format!("{sequence:020}"),
            "datacontenttype": "application/json",
            "data": {"name": "Luigi's", "open": open, "currency": "EUR",
                "menu": [{"item_id": "soup", "name": "Soup", "price": price, "available": available}]},
        });
        let request = Request::post("/events").header("content-type", "application/cloudevents+json");
        let (status, said, _) = self.send(request.body(Body::from(event.to_string())).unwrap()).await;
        assert_eq!(status, 204, "{said}");
    }

    /// Rows in the tables that a command may leave something in.
    async fn traces(&self) -> i64 {
        let mut rows = 0;
        for sql in ["SELECT COUNT(*) FROM events", "SELECT COUNT(*) FROM inbox WHERE source = 'command'"] {
            rows += self.database.fetch(sql, []).await.unwrap()[0].int(0).unwrap();
        }
        rows
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_is_accepted_at_the_menus_price() {
    let it = setup().await;
    let (status, said, location) = it.place(&soup()).await;
    assert_eq!((status, &said["status"], &said["sequence"]), (201, &json!("placed"), &json!(1)), "{said}");
    assert_eq!(said["total"], json!({"amount": 1900, "currency": "EUR"}));
    assert_eq!(location.unwrap(), format!("/orders/{}", said["order_id"].as_str().unwrap()));
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_gets_its_4xx_with_the_field_and_leaves_no_trace() {
    let it = setup().await;
    let long = "x".repeat(201);
    let lines = |count: usize| json!(vec![json!({"item_id": "soup", "quantity": 1}); count]);
    let cases = [
        (with("/customer_id", json!(long)), 422, "customer_id"),
        (with("/customer_id", json!("")), 422, "customer_id"),
        (with("/customer_id", json!("a\u{0}b")), 422, "customer_id"),
        (with("/customer_id", json!(7)), 422, "customer_id"),
        (with("/address/street", json!(long)), 422, "address.street"),
        (with("/address/city", json!("a\nb")), 422, "address.city"),
        (with("/address/postal_code", json!("\u{7f}")), 422, "address.postal_code"),
        (with("/items", lines(0)), 422, "items"),
        (with("/items", lines(101)), 422, "items"),
        (with("/items/0/quantity", json!(0)), 422, "items[0].quantity"),
        (with("/items/0/quantity", json!(1001)), 422, "items[0].quantity"),
        (with("/items/0/quantity", json!(-1)), 422, "items[0].quantity"),
        (with("/items/0/quantity", json!("two")), 422, "items[0].quantity"),
        (with("/items/0/item_id", json!("caviar")), 422, "items[0].item_id"),
        (with("/kitchen_id", json!("nobodys")), 422, "kitchen_id"),
        (without("/payment_token"), 422, ""),
        (without("/address"), 422, ""),
        (json!([]), 422, ""),
        (json!("soup"), 422, ""),
    ];
    for (order, expected, field) in cases {
        let (status, said, _) = it.place(&order).await;
        assert_eq!(status, expected, "{order}: {said}");
        assert_eq!(said["status"], status, "problem details: {said}");
        let blamed = said["errors"].as_array().unwrap().iter().any(|error| error["field"] == field);
        assert!(field.is_empty() || blamed, "{field} is to be blamed: {said}");
    }
    for (body, expected) in [
        (b"{".to_vec(), 400),
        (b"".to_vec(), 400),
        (b"{\"customer_id\": \"\xff\"}".to_vec(), 400),
        ([soup().to_string().as_bytes(), b" trailing"].concat(), 400),
        (vec![b' '; 65 * 1024], 413),
    ] {
        let (status, said, _) = it.place_with(None, body).await;
        assert_eq!(status, expected, "{said}");
    }
    for media_type in ["text/plain", "application/xml", ""] {
        let request = Request::post("/orders").header("content-type", media_type).body(Body::from(soup().to_string()));
        assert_eq!(it.send(request.unwrap()).await.0, 415, "{media_type:?}");
    }
    for key in ["", "two words", "é"] {
        assert_eq!(it.place_with(Some(key), soup().to_string()).await.0, 400, "{key:?}");
    }
    let several = {
        let mut order = with("/customer_id", json!(""));
        order["items"][0]["quantity"] = json!(0);
        order
    };
    assert_eq!(it.place(&several).await.1["errors"].as_array().unwrap().len(), 2, "all at once");
    assert_eq!(it.traces().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_total_that_overflows_is_refused_and_so_is_a_closed_kitchen_and_a_sold_out_dish() {
    let it = setup().await;
    it.publish_menu(2, true, i64::MAX / 2, true).await;
    assert_eq!(it.place(&with("/items/0/quantity", json!(3))).await.0, 422);
    it.publish_menu(3, true, 950, false).await;
    assert_eq!(it.place(&soup()).await.0, 422);
    it.publish_menu(4, false, 950, true).await;
    assert_eq!(it.place(&soup()).await.0, 409);
    assert_eq!(it.traces().await, 0);
    // An old menu told again, under whatever id, changes nothing.
    it.publish_menu(1, true, 1, true).await;
    assert_eq!(it.place(&soup()).await.0, 409);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_key_is_the_same_order_whatever_the_menu_says_by_now() {
    let it = setup().await;
    let first = it.place_with(Some("key"), soup().to_string()).await;
    assert_eq!(first.0, 201);
    it.publish_menu(2, false, 1, false).await;
    assert_eq!(it.place_with(Some("key"), soup().to_string()).await, first);
    let (status, said, _) = it.place_with(Some("key"), with("/customer_id", json!("eve")).to_string()).await;
    assert_eq!((status, &said["errors"][0]["field"]), (422, &json!("Idempotency-Key")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rejection_is_not_remembered() {
    let it = setup().await;
    it.publish_menu(2, false, 950, true).await;
    assert_eq!(it.place_with(Some("key"), soup().to_string()).await.0, 409);
    it.publish_menu(3, true, 950, true).await;
    assert_eq!(it.place_with(Some("key"), soup().to_string()).await.0, 201);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_key_sent_many_times_at_once_makes_one_order() {
    let it = Arc::new(setup().await);
    let sends = (0..20).map(|_| {
        let it = it.clone();
        tokio::spawn(async move { it.place_with(Some("key"), soup().to_string()).await })
    });
    let answers: Vec<_> = futures::future::join_all(sends).await.into_iter().map(Result::unwrap).collect();
    assert!(answers.iter().all(|answer| answer == &answers[0] && answer.0 == 201), "{answers:?}");
    assert_eq!(it.traces().await, 2, "one event, one key");
}

#[tokio::test(flavor = "multi_thread")]
async fn asking_to_cancel_is_accepted_once_and_an_unknown_order_is_not_found() {
    let it = setup().await;
    let order = it.place(&soup()).await.1["order_id"].as_str().unwrap().to_owned();
    let cancel = |id: String| it.send(Request::post(format!("/orders/{id}/cancel")).body(Body::empty()).unwrap());
    assert_eq!(cancel(order.clone()).await.0, 202);
    assert_eq!(cancel(order).await.0, 202);
    assert_eq!(it.traces().await, 2);
    for unknown in ["019a0000-0000-7000-8000-000000000001", "soup", "%00", "%F0%9F%8D%B2"] {
        assert_eq!(cancel(unknown.to_owned()).await.0, 404, "{unknown}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_says_how_it_is_and_what_can_be_asked_of_it() {
    let it = setup().await;
    let get = |path: &str| it.send(Request::get(path).body(Body::empty()).unwrap());
    for path in ["/healthz/live", "/healthz/ready", "/metrics"] {
        assert_eq!(get(path).await.0, 200, "{path}");
    }
    let (status, openapi, _) = get("/openapi.json").await;
    assert_eq!(status, 200);
    assert!(openapi["paths"]["/orders"]["post"].is_object() && openapi["paths"]["/orders/{id}/cancel"].is_object());
    assert_eq!(get("/nowhere").await.0, 404);
    assert_eq!(get("/orders").await.0, 405);
}
