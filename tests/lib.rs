//! A whole Rainstorm for a scenario to play in, seen only from outside: over HTTP, and through the signals that end it.
//!
//! The same scenarios run in every way Rainstorm does ([`Way`]): embedded in one process always; as five processes and
//! a bridge on Kafka and PostgreSQL where `KAFKA_BROKERS` and `POSTGRES_URL` (a superuser's) are given.

pub mod contract;
mod world;

use std::time::Duration;

use serde_json::{Value, json};
pub use world::{PROVIDER, SERVICES, Signal, Way, World, kafka_client};

/// How long anything may take before a scenario gives up. It waits for conditions, so this is only reached by a bug.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// Asks again and again until `condition` gives something.
///
/// # Panics
/// If it doesn't within [`PATIENCE`]; `what` says what was hoped for.
pub async fn until<T, F: Future<Output = Option<T>>>(what: &str, mut condition: impl FnMut() -> F) -> T {
    let waiting = async {
        loop {
            if let Some(found) = condition().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    match tokio::time::timeout(PATIENCE, waiting).await {
        Ok(found) => found,
        Err(_) => panic!("waited {PATIENCE:?} in vain: {what}"),
    }
}

/// Runs each scenario embedded and on Kafka with PostgreSQL, alone and with two instances of every service, and with
/// services that sleep until they are asked.
#[macro_export]
macro_rules! in_every_way {
    ($($scenario:ident($settings:expr);)*) => {
        $crate::in_every_way!(@way embedded, $crate::Way::Embedded(1), $($scenario($settings);)*);
        $crate::in_every_way!(@way embedded_twice, $crate::Way::Embedded(2), $($scenario($settings);)*);
        $crate::in_every_way!(@way kafka_and_postgres, $crate::Way::KafkaAndPostgres(1), $($scenario($settings);)*);
        $crate::in_every_way!(@way kafka_and_postgres_twice, $crate::Way::KafkaAndPostgres(2), $($scenario($settings);)*);
        $crate::in_every_way!(@way asleep, $crate::Way::Asleep, $($scenario($settings);)*);
    };
    (@way $name:ident, $way:expr, $($scenario:ident($settings:expr);)*) => {
        mod $name {
            #[allow(unused_imports, reason = "what a scenario's settings need")]
            use super::*;
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $scenario() {
                    if $way.is_possible() {
                        super::$scenario($crate::World::start($way, &$settings).await).await;
                    }
                }
            )*
        }
    };
}

/// A customer, a kitchen and a driver fleet as a person would make them, in words that scenarios read well in.
impl World {
    /// Opens a kitchen with one dish, `soup` at 9.50.
    pub async fn open_kitchen(&self, kitchen: &str) {
        self.put_kitchen(kitchen, true, true).await;
        self.menu_is_known(kitchen).await;
    }

    /// Publishes the kitchen's menu again.
    pub async fn put_kitchen(&self, kitchen: &str, open: bool, available: bool) {
        let menu = json!([{"item_id": "soup", "name": "Soup", "price": 950, "available": available}]);
        let body = json!({"name": "Kitchen", "open": open, "currency": "EUR", "menu": menu});
        let (status, said) = self.put("kitchen", &format!("/kitchens/{kitchen}"), &body).await;
        assert_eq!(status, 200, "{said}");
    }

    /// Waits until the order service has its own copy of the kitchen's menu: it then knows that `bread` isn't on it.
    async fn menu_is_known(&self, kitchen: &str) {
        until("the menu to reach the order service", || async {
            let mut order = order(kitchen, "tok_ok");
            order["items"][0]["item_id"] = "bread".into();
            let (_, said) = self.post("order", "/orders", &order).await;
            said["errors"].to_string().contains("item_id").then_some(())
        })
        .await;
    }

    /// Puts `count` drivers on shift.
    pub async fn drivers_on_shift(&self, count: usize) {
        for number in 0..count {
            self.shift(&format!("driver-{number}"), true).await;
        }
    }

    /// Begins or ends a driver's shift.
    pub async fn shift(&self, driver: &str, on_shift: bool) {
        let (status, said) = self.put("delivery", &format!("/drivers/{driver}"), &json!({"on_shift": on_shift})).await;
        assert_eq!(status, 200, "{said}");
    }

    /// Orders one soup and returns the order's id.
    pub async fn place(&self, kitchen: &str, token: &str) -> String {
        let (status, said) = self.post("order", "/orders", &order(kitchen, token)).await;
        assert_eq!(status, 201, "{said}");
        assert_eq!(said["total"], json!({"amount": 950, "currency": "EUR"}), "{said}");
        said["order_id"].as_str().expect("an order id").to_owned()
    }

    /// Opens the kitchens that storms order from, and puts `drivers` drivers on shift.
    pub async fn seed(&self, drivers: usize) {
        let (kitchen, delivery, drivers) = (self.url("kitchen"), self.url("delivery"), drivers.to_string());
        let seed = ["seed", "--kitchen-url", kitchen, "--delivery-url", delivery, "--drivers", &drivers];
        let (status, said) = self.rainstorm(&seed).await;
        assert_eq!(status, Some(0), "{said}");
    }

    /// Lets it rain until the last order has come to its end as it should, and returns the storm's own summary.
    pub async fn storm(&self, arguments: &[&str]) -> Value {
        let mut storm = vec!["storm", "--json", "--url", self.url("order"), "--query-url", self.url("query")];
        storm.extend(arguments);
        let (status, said) = self.rainstorm(&storm).await;
        assert_eq!(status, Some(0), "{said}\n{:#?}", self.said());
        said.lines().find_map(|line| serde_json::from_str(line).ok()).expect("a summary")
    }

    /// Asks to cancel.
    pub async fn cancel(&self, order: &str) -> u16 {
        self.post("order", &format!("/orders/{order}/cancel"), &json!({})).await.0
    }

    /// The order as the query service shows it once it has this status.
    pub async fn order_in(&self, order: &str, status: &str) -> Value {
        self.order_when(order, &format!("be {status}"), |view| view["status"] == status).await
    }

    /// The order as the query service shows it once its timeline holds all of these events. (Each service's events come
    /// by a topic of their own: an order may show as completed before its ride does.)
    pub async fn order_told(&self, order: &str, names: &[&str]) -> Value {
        let all_in = |view: &Value| {
            let told = story(view);
            names.iter().all(|name| told.iter().any(|it| it == name))
        };
        self.order_when(order, &format!("have told {names:?}"), all_in).await
    }

    /// The order as the query service shows it once it is as wished.
    pub async fn order_when(&self, order: &str, what: &str, wished: impl Fn(&Value) -> bool) -> Value {
        let last = std::sync::Mutex::new(Value::Null);
        let hoped = format!("order {order} to {what}");
        let found = tokio::time::timeout(PATIENCE, async {
            loop {
                let (_, view) = self.get("query", &format!("/orders/{order}")).await;
                if wished(&view) {
                    return view;
                }
                *last.lock().expect("no panic holds it") = view;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        match found.await {
            Ok(view) => view,
            Err(_) => panic!("waited in vain for {hoped}; it was {:#}", last.lock().expect("no panic holds it")),
        }
    }
}

/// One soup for somebody.
#[must_use]
pub fn order(kitchen: &str, token: &str) -> Value {
    json!({
        "customer_id": "ada",
        "kitchen_id": kitchen,
        "items": [{"item_id": "soup", "quantity": 1}],
        "address": {"street": "1 Rain Road", "city": "Cloudville", "postal_code": "12345"},
        "payment_token": token,
    })
}

/// The events of an order's timeline by their short names, `order.placed` …
#[must_use]
pub fn story(view: &Value) -> Vec<String> {
    let timeline = view["timeline"].as_array().cloned().unwrap_or_default();
    let name = |event: &Value| {
        let full = event["type"].as_str().unwrap_or_default();
        full.trim_start_matches("dev.rainstorm.").trim_end_matches(".v1").to_owned()
    };
    timeline.iter().map(name).collect()
}
