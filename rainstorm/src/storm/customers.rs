//! What a customer does: looks at the menu, orders, and sometimes changes his mind.

use std::{
    fs::File,
    io::{self, Write},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{
    StormPlan,
    arrivals::{Arrival, OpenKitchen},
    tracker::Tracker,
};

/// How often an order is sent before the customer gives up: only where nobody answered, or asked to come again.
const ATTEMPTS: u32 = 6;

#[derive(Deserialize)]
struct Kitchen {
    kitchen_id: String,
    open: bool,
    menu: Vec<Dish>,
}

#[derive(Deserialize)]
struct Dish {
    item_id: String,
    available: bool,
}

#[derive(Deserialize)]
struct Accepted {
    order_id: String,
}

/// The kitchens that have something to eat.
pub async fn open_kitchens(client: &reqwest::Client, url: &str) -> Result<Vec<OpenKitchen>, reqwest::Error> {
    let response = client.get(format!("{url}/kitchens")).send().await?.error_for_status()?;
    let kitchens: Vec<Kitchen> = response.json().await?;
    let open = kitchens.into_iter().filter(|kitchen| kitchen.open).map(|kitchen| OpenKitchen {
        kitchen_id: kitchen.kitchen_id,
        dishes: kitchen.menu.into_iter().filter(|dish| dish.available).map(|dish| dish.item_id).collect(),
    });
    Ok(open.filter(|kitchen| !kitchen.dishes.is_empty()).collect())
}

/// Returns when the order service has its own copy of the kitchen's menu: it then refuses a dish that isn't on it, and
/// no longer the kitchen. A refused order leaves no trace.
pub async fn menu_is_known(client: &reqwest::Client, url: &str, kitchen: &OpenKitchen) -> Result<bool, reqwest::Error> {
    let nonsense = json!({
        "customer_id": "storm", "kitchen_id": kitchen.kitchen_id, "payment_token": "tok_ok",
        "items": [{"item_id": "not-on-any-menu", "quantity": 1}],
        "address": {"street": "1 Rain Road", "city": "Cloudville", "postal_code": "12345"},
    });
    let said = client.post(format!("{url}/orders")).json(&nonsense).send().await?.text().await?;
    Ok(!said.contains("\"kitchen_id\""))
}

/// An order as it is sent; `declining`: every card is declined.
pub fn body(arrival: &Arrival, declining: bool) -> Value {
    let items = arrival.items.iter().map(|(item_id, quantity)| json!({"item_id": item_id, "quantity": quantity}));
    json!({
        "customer_id": arrival.customer_id,
        "kitchen_id": arrival.kitchen_id,
        "items": items.collect::<Vec<_>>(),
        "address": {"street": "1 Rain Road", "city": "Cloudville", "postal_code": "12345"},
        "payment_token": if arrival.bad_card || declining { "tok_declined" } else { "tok_ok" },
    })
}

/// Everybody who orders.
pub struct Customers {
    client: reqwest::Client,
    url: String,
    tracker: Arc<Tracker>,
    declining: Arc<AtomicBool>,
    /// Where every order that was accepted is noted.
    accepted: Option<Mutex<File>>,
}

impl Customers {
    /// Customers as the plan says, who note in its file what they are promised.
    ///
    /// # Errors
    /// If that file can't be opened.
    pub fn new(client: reqwest::Client, plan: &StormPlan, tracker: Arc<Tracker>) -> io::Result<Self> {
        let open = |file| File::options().create(true).append(true).open(file).map(Mutex::new);
        let accepted = plan.accepted.as_ref().map(open).transpose()?;
        Ok(Self { client, url: plan.url.clone(), tracker, declining: plan.declining.clone(), accepted })
    }

    /// Notes an order that was accepted, at once and in one write: whatever is killed next, the note stays.
    fn note(&self, order_id: &str) -> io::Result<()> {
        match &self.accepted {
            Some(file) => {
                let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
                file.write_all(format!("{order_id}\n").as_bytes())?;
                file.flush()
            }
            None => Ok(()),
        }
    }

    /// Orders; `due` is when this was to begin.
    pub async fn order(self: Arc<Self>, arrival: Arrival, due: Instant) {
        match self.place(&arrival).await {
            Ok(order_id) => {
                if let Err(error) = self.note(&order_id) {
                    self.tracker.failed(format!("{order_id} was accepted and could not be noted: {error}"));
                }
                self.tracker.accepted(&order_id, &arrival, due);
                if let Some(pause) = arrival.cancels_after {
                    tokio::time::sleep(pause).await;
                    self.cancel(&order_id).await;
                }
            }
            Err(reason) => self.tracker.failed(reason),
        }
    }

    async fn place(&self, arrival: &Arrival) -> Result<String, String> {
        let body = body(arrival, self.declining.load(Ordering::Relaxed));
        let mut reason = String::new();
        for attempt in 0..ATTEMPTS {
            if attempt > 0 {
                self.tracker.retried();
                tokio::time::sleep(Duration::from_millis(100 << attempt)).await;
            }
            let request = self.client.post(format!("{}/orders", self.url)).header("Idempotency-Key", &arrival.key);
            match request.json(&body).send().await {
                Ok(response) if response.status().as_u16() == 201 => {
                    let accepted: Result<Accepted, _> = response.json().await;
                    return accepted.map(|accepted| accepted.order_id).map_err(|error| error.to_string());
                }
                Ok(response) if response.status().is_server_error() || response.status().as_u16() == 429 => {
                    reason = response.status().to_string();
                }
                Ok(response) => {
                    return Err(format!("{} {}", response.status(), response.text().await.unwrap_or_default()));
                }
                Err(error) => reason = error.to_string(),
            }
        }
        Err(reason)
    }

    /// A customer who isn't heard asks again; one who is told that it is too late lets it be.
    async fn cancel(&self, order_id: &str) {
        for _ in 0..ATTEMPTS {
            self.tracker.asked_to_cancel(order_id);
            match self.client.post(format!("{}/orders/{order_id}/cancel", self.url)).send().await {
                Ok(response) if !response.status().is_server_error() => return,
                _ => tokio::time::sleep(Duration::from_millis(200)).await,
            }
        }
    }
}
