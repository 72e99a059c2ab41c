//! Writes a long history to measure the audit with: an embedded log and all stores, as if so many orders had been
//! served. Nobody reacts here, so it takes minutes and not days; the audit proves that it is consistent.
//!
//!     cargo run --release -p audit --example history -- FOLDER 100000
//!     cargo run --release -- audit --data FOLDER

use std::{collections::BTreeMap, path::PathBuf};

use event_sourcing::{Database, MIGRATIONS, Recorded, Value};
use eventing::{
    Incoming,
    log::{EmbeddedLog, EventLog},
    published, to_record,
};
use jiff::{SignedDuration, Timestamp};
use query::views::{DriverView, OrderView, View};
use serde_json::json;
use uuid::Uuid;

const SERVICES: [(&str, &str, &str); 4] = [
    ("order", "/orders", "orders"),
    ("payment", "/payments", "payments"),
    ("kitchen", "/kitchen", "kitchen"),
    ("delivery", "/deliveries", "deliveries"),
];
/// Places in that list.
const ORDER: usize = 0;
const PAYMENT: usize = 1;
const KITCHEN: usize = 2;
const DELIVERY: usize = 3;
const DRIVERS: usize = 300;
/// Orders that are written together.
const BATCH: usize = 500;

type Anyhow<T> = Result<T, Box<dyn std::error::Error>>;

/// What is to be written next.
#[derive(Default)]
struct Batch {
    events: [Vec<Recorded>; 4],
    inbox: [Vec<[Value; 5]>; 4],
    ledger: Vec<[Value; 6]>,
    orders: Vec<[Value; 7]>,
    timeline: Vec<[Value; 8]>,
}

/// Tells stories.
struct Teller {
    now: Timestamp,
    /// Of each driver, the version of the stream.
    drivers: Vec<i64>,
    views: Vec<DriverView>,
    batch: Batch,
}

/// A story that is being told: its events so far, by service.
struct Story {
    id: String,
    versions: [i64; 4],
    view: OrderView,
}

impl Teller {
    /// One event; its id.
    fn event(
        &mut self,
        story: &mut Story,
        service: usize,
        name: &str,
        cause: &str,
        data: &serde_json::Value,
    ) -> String {
        story.versions[service] += 1;
        let stream = story.id.clone();
        let event = self.recorded(&stream, story.versions[service], name, cause, &story.id, data);
        let incoming = incoming(SERVICES[service].1, &event);
        story.view.apply(&incoming);
        self.store(service, event, &story.id)
    }

    fn recorded(
        &mut self,
        stream: &str,
        version: i64,
        name: &str,
        cause: &str,
        order: &str,
        data: &serde_json::Value,
    ) -> Recorded {
        self.now += SignedDuration::from_micros(37);
        Recorded {
            stream_id: stream.to_owned(),
            version,
            id: Uuid::now_v7().to_string(),
            event_type: format!("dev.rainstorm.{name}.v1"),
            time: format!("{:.6}", self.now),
            correlation_id: order.to_owned(),
            causation_id: cause.to_owned(),
            traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned(),
            tracestate: String::new(),
            data: data.to_string(),
        }
    }

    fn store(&mut self, service: usize, event: Recorded, order: &str) -> String {
        let id = event.id.clone();
        self.batch.timeline.push([
            order.into(),
            SERVICES[service].1.into(),
            event.stream_id.as_str().into(),
            event.version.into(),
            event.id.as_str().into(),
            event.event_type.as_str().into(),
            event.time.as_str().into(),
            event.causation_id.as_str().into(),
        ]);
        self.batch.events[service].push(event);
        id
    }

    /// The service remembers what caused a change of these streams.
    fn remember(&mut self, service: usize, source: &str, cause: &str, streams: &str) {
        self.batch.inbox[service].push([source.into(), cause.into(), 0.into(), 1.into(), streams.into()]);
    }

    /// A driver's event about an order.
    fn ride(&mut self, driver: usize, name: &str, cause: &str, order: &str) {
        self.drivers[driver] += 1;
        let (stream, version) = (driver_id(driver), self.drivers[driver]);
        let event = self.recorded(&stream, version, name, cause, order, &json!({"order_id": order}));
        let incoming = incoming("/deliveries", &event);
        self.views[driver].apply(&incoming);
        self.store(DELIVERY, event, order);
    }

    /// A whole story: most are completed, one in twenty has a bad card, one in twenty is cancelled by its customer.
    fn tell(&mut self, number: usize) {
        let id = Uuid::now_v7().to_string();
        let mut story = Story { id: id.clone(), versions: [0; 4], view: OrderView::default() };
        let key = Uuid::new_v4().to_string();
        let total = json!({"amount": 1900, "currency": "EUR"});
        let placed = self.event(
            &mut story,
            ORDER,
            "order.placed",
            &key,
            &json!({
                "customer_id": format!("customer-{}", number % 5000), "kitchen_id": "luigis",
                "items": [{"item_id": "margherita", "name": "Pizza Margherita", "quantity": 2, "unit_price": 950}],
                "total": total, "payment_token": "tok_ok",
                "address": {"street": "1 Rain Road", "city": "Cloudville", "postal_code": "12345"},
            }),
        );
        self.remember(ORDER, "command", &key, &id);
        let good_card = number % 20 != 7;
        let cancelled = good_card && number % 20 == 13;
        let outcome = if good_card { "payment.confirmed" } else { "payment.declined" };
        let data = if good_card { json!({"amount": total, "charge_key": placed}) } else { json!({"reason": "no"}) };
        let paid = self.event(&mut story, PAYMENT, outcome, &placed, &data);
        self.remember(PAYMENT, "/orders", &placed, &id);
        self.event(
            &mut story,
            KITCHEN,
            "kitchen.ticket_created",
            &placed,
            &json!({"kitchen_id": "luigis", "items": []}),
        );
        self.remember(KITCHEN, "/orders", &placed, &id);
        self.event(&mut story, DELIVERY, "delivery.requested", &placed, &json!({"at": "2026-01-01T00:00:00Z"}));
        self.remember(DELIVERY, "/orders", &placed, &id);
        let entry = |key: &str, kind: &str, outcome: &str| -> [Value; 6] {
            [key.into(), kind.into(), placed.as_str().into(), 1900.into(), "EUR".into(), outcome.into()]
        };
        self.batch.ledger.push(entry(&placed, "charge", if good_card { "paid" } else { "declined" }));
        if good_card {
            let accepted =
                self.event(&mut story, KITCHEN, "kitchen.ticket_accepted", &paid, &json!({"kitchen_id": "luigis"}));
            self.remember(KITCHEN, "/payments", &paid, &id);
            if cancelled {
                let wish = Uuid::new_v4().to_string();
                let wish = self.event(&mut story, ORDER, "order.cancellation_requested", &wish, &json!({}));
                let end = self.cancel(&mut story, &wish, "/orders", "customer_request");
                self.event(
                    &mut story,
                    PAYMENT,
                    "payment.refunded",
                    &end,
                    &json!({"amount": total, "charge_key": placed}),
                );
                self.remember(PAYMENT, "/orders", &end, &id);
                self.batch.ledger.push(entry(&end, "refund", "refunded"));
            } else {
                self.deliver(&mut story, &accepted, number % DRIVERS);
            }
        } else {
            self.cancel(&mut story, &paid, "/payments", "payment_declined");
        }
        let view = &story.view;
        self.batch.orders.push([
            id.into(),
            1.into(),
            1.into(),
            view.customer_id.as_str().into(),
            view.kitchen_id.as_str().into(),
            view.status.as_str().into(),
            serde_json::to_string(view).unwrap_or_default().into(),
        ]);
    }

    fn cancel(&mut self, story: &mut Story, cause: &str, source: &str, reason: &str) -> String {
        let id = story.id.clone();
        let ticket = self.event(story, KITCHEN, "kitchen.ticket_cancelled", cause, &json!({"reason": reason}));
        self.remember(KITCHEN, source, cause, &id);
        let end = self.event(story, ORDER, "order.cancelled", &ticket, &json!({"reason": reason}));
        self.remember(ORDER, "/kitchen", &ticket, &id);
        end
    }

    fn deliver(&mut self, story: &mut Story, accepted: &str, driver: usize) {
        let id = story.id.clone();
        let name = driver_id(driver);
        let data = json!({"driver_id": name});
        let packed = self.event(story, KITCHEN, "kitchen.order_packed", accepted, &json!({"kitchen_id": "luigis"}));
        self.remember(KITCHEN, "/kitchen", accepted, &id);
        let ready =
            self.event(story, DELIVERY, "delivery.order_ready", &packed, &json!({"at": "2026-01-01T00:00:00Z"}));
        self.remember(DELIVERY, "/kitchen", &packed, &id);
        self.event(story, DELIVERY, "delivery.driver_assigned", &ready, &data);
        let out = self.event(story, DELIVERY, "delivery.out_for_delivery", &ready, &data);
        self.ride(driver, "delivery.driver_engaged", &ready, &id);
        let delivered = self.event(story, DELIVERY, "delivery.delivered", &out, &data);
        self.ride(driver, "delivery.driver_released", &out, &id);
        self.remember(DELIVERY, "/deliveries", &out, &format!("{id} {name}"));
        self.event(story, ORDER, "order.completed", &delivered, &json!({}));
        self.remember(ORDER, "/deliveries", &delivered, &id);
    }
}

fn driver_id(driver: usize) -> String {
    format!("driver-{driver}")
}

fn incoming(source: &str, event: &Recorded) -> Incoming {
    #[allow(clippy::expect_used, reason = "a fixture that can't go on fails")]
    let event = published(source, event).expect("an event");
    #[allow(clippy::expect_used, reason = "a fixture that can't go on fails")]
    Incoming::read(event).map_err(|never| never.1).expect("an event")
}

/// Where it is written.
struct Place {
    log: EmbeddedLog,
    stores: Vec<Database>,
    query: Database,
    ledger: Database,
}

impl Place {
    async fn open(folder: &std::path::Path) -> Anyhow<Self> {
        let url = |name: &str| format!("sqlite:{}", folder.join(format!("{name}.db")).display());
        let mut stores = Vec::new();
        for (name, ..) in SERVICES {
            stores.push(Database::open(&url(name), &[&MIGRATIONS]).await?);
        }
        let log = EmbeddedLog::open(&folder.join("log.db"), 12).await?;
        log.create_topics(&SERVICES.map(|(_, _, topic)| topic)).await?;
        Ok(Self {
            log,
            stores,
            query: Database::open(&url("query"), &[&MIGRATIONS, &query::MIGRATIONS]).await?,
            ledger: payment::provider::simulated::open_ledger(&url("provider")).await?,
        })
    }

    async fn write(&self, batch: Batch) -> Anyhow<()> {
        for ((service, (_, source, topic)), (events, inbox)) in
            SERVICES.into_iter().enumerate().zip(batch.events.into_iter().zip(batch.inbox))
        {
            let records = events.iter().map(|event| published(source, event).and_then(to_record));
            self.log.append(topic, records.collect::<Result<_, _>>()?).await?;
            let mut write = self.stores[service].write_soon().await?;
            let columns = "events (stream_id, version, id, type, time, correlation_id, causation_id, traceparent, \
                           tracestate, data, published)";
            write.insert(columns, events.into_iter().map(row).collect(), "").await?;
            write.insert("inbox (source, id, attempts, done, stream_id)", inbox, "").await?;
            write.commit().await?;
        }
        let mut write = self.query.write_soon().await?;
        let columns = "orders (order_id, revision, placed, customer_id, kitchen_id, status, view)";
        write.insert(columns, batch.orders, "").await?;
        let columns = "timeline (order_id, source, subject, sequence, id, type, time, causation_id)";
        write.insert(columns, batch.timeline, "").await?;
        write.commit().await?;
        let mut write = self.ledger.write_soon().await?;
        let columns = "provider_ledger (idempotency_key, kind, charge_key, amount, currency, outcome)";
        write.insert(columns, batch.ledger, "").await?;
        Ok(write.commit().await?)
    }
}

fn row(event: Recorded) -> [Value; 11] {
    [
        event.stream_id.into(),
        event.version.into(),
        event.id.into(),
        event.event_type.into(),
        event.time.into(),
        event.correlation_id.into(),
        event.causation_id.into(),
        event.traceparent.into(),
        event.tracestate.into(),
        event.data.into(),
        1.into(),
    ]
}

#[tokio::main]
async fn main() -> Anyhow<()> {
    let mut arguments = std::env::args().skip(1);
    let folder = PathBuf::from(arguments.next().ok_or("which folder?")?);
    let orders: usize = arguments.next().ok_or("how many orders?")?.parse()?;
    std::fs::create_dir_all(&folder)?;
    let place = Place::open(&folder).await?;
    let mut teller = Teller {
        now: "2026-01-01T00:00:00Z".parse()?,
        drivers: vec![0; DRIVERS],
        views: vec![DriverView::default(); DRIVERS],
        batch: Batch::default(),
    };
    for driver in 0..DRIVERS {
        teller.drivers[driver] = 1;
        let command = Uuid::new_v4().to_string();
        let id = driver_id(driver);
        let event = teller.recorded(&id, 1, "delivery.driver_on_shift", &command, &id, &json!({}));
        teller.views[driver].apply(&incoming("/deliveries", &event));
        teller.batch.events[DELIVERY].push(event);
    }
    for number in 0..orders {
        teller.tell(number);
        if (number + 1) % BATCH == 0 || number + 1 == orders {
            place.write(std::mem::take(&mut teller.batch)).await?;
        }
        if (number + 1) % 50_000 == 0 {
            eprintln!("{} orders", number + 1);
        }
    }
    let mut write = place.query.write().await?;
    let views: BTreeMap<String, &DriverView> =
        teller.views.iter().enumerate().map(|(driver, view)| (driver_id(driver), view)).collect();
    let rows = views.into_iter().map(|(id, view)| Ok([id.into(), 1.into(), serde_json::to_string(view)?.into()]));
    let rows: Vec<[Value; 3]> = rows.collect::<Result<_, serde_json::Error>>()?;
    write.insert("drivers (driver_id, revision, view)", rows, "").await?;
    write.commit().await?;
    for store in place.stores.iter().chain([&place.query, &place.ledger]) {
        store.close().await;
    }
    Ok(())
}
