//! People: who orders, who changes their mind, who opens kitchens and goes on shift. They ask until they are answered.

use std::sync::{Arc, atomic::Ordering};

use axum::{
    body::Body,
    http::{Request, StatusCode},
};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use tower::ServiceExt;

use super::{LOAD, Town, lock};

impl Town {
    pub(super) async fn customer(self: Arc<Self>, number: u64) {
        sleep(self.world.millis(0..=2500)).await;
        let token = ["tok_ok", "tok_ok", "tok_ok", "tok_ok", "tok_declined", "tok_flaky", "tok_slow"];
        let (quantity, token) = (self.world.draw(1..=3), self.world.pick(&token).copied());
        let Some(order_id) = self.places_an_order(number, quantity, token).await else { return };
        if self.world.happens(0.3) {
            sleep(self.world.millis(0..=800)).await;
            self.insist("order", "POST", &format!("/orders/{order_id}/cancel"), &json!({}), None).await;
        }
    }

    /// The order's id, if it is accepted.
    pub(super) async fn places_an_order(&self, number: u64, quantity: u64, token: Option<&str>) -> Option<String> {
        let body = json!({
            "customer_id": format!("customer-{number}"),
            "kitchen_id": "luigis",
            "items": [{"item_id": "soup", "quantity": quantity}],
            "address": {"street": "1 Rain Road", "city": "Cloudville", "postal_code": "12345"},
            "payment_token": token,
        });
        let key = format!("key-{number}");
        let (status, said) = self.insist("order", "POST", "/orders", &body, Some(&key)).await;
        let order_id = said["order_id"].as_str().filter(|_| status == StatusCode::CREATED)?;
        self.world.tell(|| format!("order {order_id} is accepted under {key}"));
        lock(&self.accepted).insert(key, order_id.to_owned());
        Some(order_id.to_owned())
    }

    pub(super) async fn people_who_change_their_minds(self: Arc<Self>) {
        let ends = Instant::now() + LOAD;
        while Instant::now() < ends {
            sleep(self.world.millis(0..=2000)).await;
            match self.world.draw(0..=3) {
                0 => self.open_kitchen(false).await,
                1 => self.open_kitchen(true).await,
                2 => self.shift(self.world.draw(0..=3), false).await,
                _ => self.shift(self.world.draw(0..=3), true).await,
            }
        }
    }

    pub(super) async fn open_kitchen(&self, available: bool) {
        let menu = json!([{"item_id": "soup", "name": "Soup", "price": 950, "available": available}]);
        let body = json!({"name": "Luigi's", "open": true, "currency": "EUR", "menu": menu});
        self.insist("kitchen", "PUT", "/kitchens/luigis", &body, None).await;
    }

    pub(super) async fn shift(&self, driver: u64, on_shift: bool) {
        let body = json!({"on_shift": on_shift});
        self.insist("delivery", "PUT", &format!("/drivers/driver-{driver}"), &body, None).await;
    }

    /// Asks until somebody gives an answer that isn't «ask again».
    pub(super) async fn insist(
        &self,
        service: &str,
        method: &str,
        path: &str,
        body: &Value,
        key: Option<&str>,
    ) -> (StatusCode, Value) {
        loop {
            if let Some((status, said)) = self.ask(service, method, path, body, key).await
                && !status.is_server_error()
                // The menu is on its way to the order service.
                && !said.to_string().contains("no kitchen")
            {
                return (status, said);
            }
            sleep(self.world.millis(20..=200)).await;
        }
    }

    pub(super) async fn ask(
        &self,
        service: &str,
        method: &str,
        path: &str,
        body: &Value,
        key: Option<&str>,
    ) -> Option<(StatusCode, Value)> {
        let instance = self.instance(service)?;
        let mut request = Request::builder().method(method).uri(path).header("content-type", "application/json");
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        let request = request.body(Body::from(body.to_string())).ok()?;
        let let_down = instance.process.was_let_down();
        let answer = tokio::spawn(instance.people.oneshot(request));
        let answer = tokio::select! {
            biased;
            answer = answer => answer.ok()?.ok()?,
            () = instance.process.death() => {
                if instance.stopped.load(Ordering::Relaxed) {
                    let what = format!("{} was told to stop and did not finish {method} {path}", instance.process.name);
                    lock(&self.refused).push(what);
                }
                return None;
            }
        };
        if self.world.happens(self.world.weather().lost) {
            return None;
        }
        let status = answer.status();
        let said = answer.into_body().collect().await.ok()?.to_bytes();
        let said = serde_json::from_slice(&said).unwrap_or_default();
        if status.is_server_error() && instance.process.was_let_down() == let_down {
            let what = format!("{} answered {method} {path} although its store did: {said}", instance.process.name);
            lock(&self.refused).push(what);
        }
        Some((status, said))
    }
}
