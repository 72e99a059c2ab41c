//! The four services of the chain. Each decides with the decider of the service it stands for, stores what follows, and
//! answers. Every call may be made again: whoever finds its work done in the store only says so.

use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::{Path, State},
    http::StatusCode,
    routing::{get, post, put},
};
use delivery::{
    Riding,
    domain::{Address, Delivery, DeliveryCommand, Driver, DriverCommand},
};
use event_sourcing::{
    Cause, Database, Decider, MIGRATIONS, Store, StoreError, Stream, TraceContext, Unit, new_id, now,
};
use eventing::StartError;
use kitchen::{
    Cooking,
    domain::{
        CancellationReason as Cancellation, Kitchen, KitchenCommand, MenuItem, Ticket, TicketCommand, TicketItem,
    },
};
use order::{
    domain::{self, CancellationReason, Menu, Order, OrderCommand},
    menus,
};
use payment::{
    domain::{Money, Payment, PaymentCommand},
    provider::{self, Patient, simulated::SimulatedProvider},
};
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};
use sqlx::migrate::Migrator;
use tokio::sync::{Mutex, Semaphore, mpsc};

use super::{
    ChainArgs,
    calls::{Answer, Caller, InHand},
};

type Trouble = Box<dyn std::error::Error + Send + Sync>;

const DONE: Answer = (StatusCode::OK, "done");

async fn store(args: &ChainArgs, service: &str, own: &[&Migrator]) -> Result<Store, StoreError> {
    let all: Vec<&Migrator> = std::iter::once(&MIGRATIONS).chain(own.iter().copied()).collect();
    Ok(Store::new(Database::open(&args.database_url.replace("{service}", service), &all).await?))
}

/// Adds to `unit` what follows from a command.
fn decide<D: Decider>(unit: &mut Unit, stream: &mut Stream<D>, command: D::Command) -> Result<(), Trouble> {
    Ok(stream.execute(command, &Cause::command(None, TraceContext::new()), now(), unit)?)
}

/// Decides one command and stores what follows.
async fn settle<D: Decider>(store: &Store, stream: &mut Stream<D>, command: D::Command) -> Result<(), Trouble> {
    let mut unit = Unit::default();
    decide(&mut unit, stream, command)?;
    if !unit.is_empty() {
        store.commit(unit).await?;
    }
    Ok(())
}

/// Somebody was faster, or the store doesn't answer: another try may do.
fn again(trouble: Trouble) -> Answer {
    tracing::debug!(%trouble, "answered 503");
    (StatusCode::SERVICE_UNAVAILABLE, "try again")
}

// ---- Payment --------------------------------------------------------------------------------------------------------

#[derive(Clone)]
struct Payments {
    store: Store,
    provider: Patient,
    in_hand: InHand,
}

#[derive(Deserialize)]
struct Charge {
    total: Money,
    payment_token: String,
}

/// `POST /payments/{order}` charges, `DELETE` gives back.
pub async fn payment(args: &ChainArgs) -> Result<Router, StartError> {
    let store = store(args, "payment", &[&payment::MIGRATIONS, &provider::simulated::MIGRATIONS]).await?;
    let ledger = match &args.payment.provider_database_url {
        Some(url) => provider::simulated::open_ledger(url).await?,
        None => store.database().clone(),
    };
    let provider = Patient::new(Arc::new(SimulatedProvider::new(ledger)), args.payment.provider_timeout);
    let payments = Payments { store, provider, in_hand: InHand::default() };
    Ok(Router::new().route("/payments/{id}", post(charge).delete(give_back)).with_state(payments))
}

async fn charge(State(it): State<Payments>, Path(id): Path<String>, Json(asked): Json<Charge>) -> Answer {
    let (in_hand, own) = (it.in_hand.clone(), id.clone());
    in_hand.once(&id, async move { it.charge(&own, asked).await.unwrap_or_else(again) }).await
}

async fn give_back(State(it): State<Payments>, Path(id): Path<String>) -> Answer {
    let (in_hand, key) = (it.in_hand.clone(), format!("refund {id}"));
    let refund_key = key.clone();
    in_hand.once(&key, async move { it.give_back(&id, refund_key).await.unwrap_or_else(again) }).await
}

impl Payments {
    async fn charge(&self, id: &str, Charge { total, payment_token }: Charge) -> Result<Answer, Trouble> {
        let mut payment = self.store.load::<Payment>(id).await?;
        if let Payment::Unknown | Payment::ChargeOwed { .. } = payment.state {
            let outcome = self.provider.charge(id, &total, &payment_token).await;
            let charge_key = id.to_owned();
            let command = PaymentCommand::RecordCharge { amount: total, payment_token, charge_key, outcome };
            settle(&self.store, &mut payment, command).await?;
        }
        Ok(match payment.state {
            Payment::Confirmed(_) => DONE,
            Payment::ChargeOwed { .. } => (StatusCode::SERVICE_UNAVAILABLE, "the provider does not answer"),
            _ => (StatusCode::CONFLICT, "not paid"),
        })
    }

    async fn give_back(&self, id: &str, refund_key: String) -> Result<Answer, Trouble> {
        let mut payment = self.store.load::<Payment>(id).await?;
        let command = match &payment.state {
            Payment::Confirmed(charge) => {
                let outcome = self.provider.refund(&refund_key, &charge.charge_key, &charge.amount).await;
                PaymentCommand::Refund { refund_key, outcome }
            }
            _ => PaymentCommand::GiveUpCharge { refund_key },
        };
        settle(&self.store, &mut payment, command).await?;
        Ok(DONE)
    }
}

// ---- Kitchen --------------------------------------------------------------------------------------------------------

#[derive(Clone)]
struct Tickets {
    store: Store,
    /// First come, first served.
    cooks: Arc<Semaphore>,
    cooking: Duration,
    in_hand: InHand,
}

#[derive(Deserialize)]
struct Wanted {
    kitchen_id: String,
    items: Vec<TicketItem>,
}

/// `POST /tickets/{order}` cooks, `DELETE` cancels unless it is packed. And where the menus are kept.
pub async fn kitchen(args: &ChainArgs) -> Result<(Router, Store), StartError> {
    let Cooking::Takes(cooking) = args.kitchen.cooking else {
        return Err(StartError::Setting("COOKING: nobody cooks by hand in the chain".to_owned()));
    };
    let (store, cooks) = (store(args, "kitchen", &[]).await?, Arc::new(Semaphore::new(args.cooks)));
    let tickets = Tickets { store: store.clone(), cooks, cooking, in_hand: InHand::default() };
    Ok((Router::new().route("/tickets/{id}", post(cook).delete(cancel)).with_state(tickets), store))
}

async fn cook(State(it): State<Tickets>, Path(id): Path<String>, Json(wanted): Json<Wanted>) -> Answer {
    let (in_hand, own) = (it.in_hand.clone(), id.clone());
    in_hand.once(&id, async move { it.cook(&own, wanted).await.unwrap_or_else(again) }).await
}

async fn cancel(State(it): State<Tickets>, Path(id): Path<String>) -> Answer {
    let cancelled = async {
        let mut ticket = it.store.load::<Ticket>(&id).await?;
        let command = TicketCommand::Cancel { reason: Cancellation::CustomerRequest };
        settle(&it.store, &mut ticket, command).await
    };
    cancelled.await.map_or_else(again, |()| DONE)
}

impl Tickets {
    async fn cook(&self, id: &str, Wanted { kitchen_id, items }: Wanted) -> Result<Answer, Trouble> {
        let mut ticket = self.store.load::<Ticket>(id).await?;
        if ticket.state == Ticket::Unknown {
            let kitchen = self.store.load::<Kitchen>(&kitchen_id).await?.state;
            let mut unit = Unit::default();
            decide(&mut unit, &mut ticket, TicketCommand::Create { kitchen_id, items, kitchen: kitchen.clone() })?;
            decide(&mut unit, &mut ticket, TicketCommand::NotePayment { kitchen })?;
            self.store.commit(unit).await?;
        }
        if ticket.state.is_cooking() {
            let _cook = self.cooks.acquire().await?;
            // Whoever was given up on while it waited isn't cooked for.
            ticket = self.store.load::<Ticket>(id).await?;
            if ticket.state.is_cooking() {
                tokio::time::sleep(self.cooking).await;
                settle(&self.store, &mut ticket, TicketCommand::Pack).await?;
            }
        }
        let packed = matches!(ticket.state, Ticket::Packed { .. });
        Ok(if packed { DONE } else { (StatusCode::CONFLICT, "not cooked") })
    }
}

// ---- Delivery -------------------------------------------------------------------------------------------------------

#[derive(Clone)]
struct Deliveries {
    store: Store,
    riding: Duration,
    /// Drivers who are free: nobody else gives them orders, so their streams needn't be read again.
    free: mpsc::UnboundedSender<Stream<Driver>>,
    next: Arc<Mutex<mpsc::UnboundedReceiver<Stream<Driver>>>>,
    in_hand: InHand,
}

#[derive(Deserialize)]
struct Destination {
    address: Address,
}

/// `POST /deliveries/{order}` brings it. And `PUT /drivers/{driver}`, for people: on shift.
pub async fn delivery(args: &ChainArgs) -> Result<(Router, Router), StartError> {
    let Riding::Takes(riding) = args.delivery.riding else {
        return Err(StartError::Setting("RIDING: nobody rides by hand in the chain".to_owned()));
    };
    let (free, next) = mpsc::unbounded_channel();
    let store = store(args, "delivery", &[&delivery::MIGRATIONS]).await?;
    let next = Arc::new(Mutex::new(next));
    let deliveries = Deliveries { store, riding, free, next, in_hand: InHand::default() };
    let inner = Router::new().route("/deliveries/{id}", post(deliver)).with_state(deliveries.clone());
    Ok((inner, Router::new().route("/drivers/{id}", put(on_shift)).with_state(deliveries)))
}

async fn on_shift(State(it): State<Deliveries>, Path(id): Path<String>) -> Answer {
    let came = async {
        let mut driver = it.store.load::<Driver>(&id).await?;
        let before = driver.version;
        settle(&it.store, &mut driver, DriverCommand::GoOnShift).await?;
        if driver.version > before {
            it.free.send(driver)?;
        }
        Ok(())
    };
    came.await.map_or_else(again, |()| DONE)
}

async fn deliver(State(it): State<Deliveries>, Path(id): Path<String>, Json(to): Json<Destination>) -> Answer {
    let (in_hand, own) = (it.in_hand.clone(), id.clone());
    in_hand.once(&id, async move { it.deliver(&own, to.address).await.unwrap_or_else(again) }).await
}

impl Deliveries {
    async fn deliver(&self, id: &str, address: Address) -> Result<Answer, Trouble> {
        let mut delivery = self.store.load::<Delivery>(id).await?;
        if delivery.state == Delivery::Unknown {
            let driver = self.next.lock().await.recv().await;
            let mut driver = driver.ok_or("there are no drivers")?;
            let mut unit = Unit::default();
            decide(&mut unit, &mut delivery, DeliveryCommand::Request { address, at: now() })?;
            decide(&mut unit, &mut delivery, DeliveryCommand::NoteReady { at: now() })?;
            decide(&mut unit, &mut delivery, DeliveryCommand::Assign { driver_id: driver.id.clone() })?;
            decide(&mut unit, &mut driver, DriverCommand::Engage { order_id: id.to_owned() })?;
            self.store.commit(unit).await?;

            tokio::time::sleep(self.riding).await;
            let mut unit = Unit::default();
            decide(&mut unit, &mut delivery, DeliveryCommand::Deliver)?;
            decide(&mut unit, &mut driver, DriverCommand::Release { order_id: id.to_owned() })?;
            self.store.commit(unit).await?;
            self.free.send(driver)?;
        }
        let delivered = delivery.state == Delivery::Delivered;
        Ok(if delivered { DONE } else { (StatusCode::CONFLICT, "not delivered") })
    }
}

// ---- Order ----------------------------------------------------------------------------------------------------------

#[derive(Clone)]
struct Orders {
    store: Store,
    /// Where the menus are published; order keeps a copy, as its service does.
    kitchen: Store,
    caller: Caller,
    /// Where payment, kitchen and delivery are asked.
    steps: [String; 3],
}

#[derive(Deserialize)]
struct Wish {
    customer_id: String,
    kitchen_id: String,
    items: Vec<Line>,
    address: domain::Address,
    payment_token: String,
}

#[derive(Deserialize)]
struct Line {
    item_id: String,
    quantity: u32,
}

#[derive(Clone, Deserialize)]
struct Published {
    name: String,
    open: bool,
    currency: String,
    menu: Vec<MenuItem>,
}

type Said = (StatusCode, Json<Value>);

fn said(status: StatusCode, detail: &str) -> Said {
    (status, Json(json!({"detail": detail})))
}

/// `POST /orders` for customers, `PUT /kitchens/{kitchen}` for kitchens, and whether it is ready.
pub async fn order(args: &ChainArgs, steps: [String; 3], kitchen: Store) -> Result<Router, StartError> {
    let store = store(args, "order", &[&order::MIGRATIONS]).await?;
    let client = eventing::http::client().build();
    let caller = Caller(client.map_err(|error| StartError::Setting(error.to_string()))?);
    let routes = Router::new().route("/orders", post(place)).route("/kitchens/{id}", put(publish));
    let routes = routes.route("/healthz/ready", get(|| async { "ready\n" }));
    Ok(routes.with_state(Orders { store, kitchen, caller, steps }))
}

async fn publish(State(it): State<Orders>, Path(id): Path<String>, Json(published): Json<Published>) -> Answer {
    let kept = async {
        let Published { name, open, currency, menu } = published;
        let mut kitchen = it.kitchen.load::<Kitchen>(&id).await?;
        let command = KitchenCommand::PublishMenu { name, open, currency: currency.clone(), menu: menu.clone() };
        settle(&it.kitchen, &mut kitchen, command).await?;
        let items = serde_json::from_value(serde_json::to_value(menu)?)?;
        let copy = menus::keep(&id, kitchen.version, &Menu { open, currency, items });
        Ok(it.store.commit(Unit { projections: vec![copy], ..Unit::default() }).await?)
    };
    kept.await.map_or_else(again, |()| DONE)
}

async fn place(State(it): State<Orders>, Json(wish): Json<Wish>) -> Said {
    // What is begun goes on, whether or not the customer waits for it.
    let placed = tokio::spawn(async move { it.place(wish).await });
    let trouble = |_| said(StatusCode::SERVICE_UNAVAILABLE, "try again");
    placed.await.map_or_else(|error| trouble(error.into()), |placed| placed.unwrap_or_else(trouble))
}

impl Orders {
    async fn place(&self, wish: Wish) -> Result<Said, Trouble> {
        let Wish { customer_id, kitchen_id, items, address, payment_token } = wish;
        let unknown = || said(StatusCode::UNPROCESSABLE_ENTITY, "kitchen_id: no such kitchen is known");
        let Some(menu) = menus::find(&self.store, &kitchen_id).await? else { return Ok(unknown()) };
        let items: Vec<_> = items.into_iter().map(|line| (line.item_id, line.quantity)).collect();
        let items = match domain::price(&menu, &items) {
            Ok(items) => items,
            Err(error) => return Ok(said(StatusCode::UNPROCESSABLE_ENTITY, &error.to_string())),
        };
        let mut order = Stream::resume(new_id().to_string(), 0, Order::default());
        let currency = menu.currency;
        let command = OrderCommand::Place { customer_id, kitchen_id, items, address, payment_token, currency };
        settle(&self.store, &mut order, command).await?;
        let Order::Placed { order: placed, .. } = order.state.clone() else { return Err("it was not placed".into()) };

        let asked = [
            json!({"total": placed.total, "payment_token": placed.payment_token}),
            json!({"kitchen_id": placed.kitchen_id, "items": placed.items}),
            json!({"address": placed.address}),
        ];
        for (step, body) in asked.iter().enumerate() {
            let url = format!("{}/{}", self.steps[step], order.id);
            match self.caller.call(Method::POST, &url, body).await {
                Some(StatusCode::OK) => {}
                Some(_) => {
                    self.undo(step, order);
                    return Ok(said(StatusCode::CONFLICT, "somebody down the road refused"));
                }
                None => {
                    self.undo(step, order);
                    return Ok(said(StatusCode::SERVICE_UNAVAILABLE, "somebody down the road does not answer"));
                }
            }
        }
        settle(&self.store, &mut order, OrderCommand::Complete).await?;
        Ok((StatusCode::CREATED, Json(json!({"order_id": order.id, "status": "completed", "total": placed.total}))))
    }

    /// Undoes what was done up to this step, as far as that goes: nobody waits for it. Who rides, rides on.
    fn undo(&self, step: usize, mut order: Stream<Order>) {
        use CancellationReason::{KitchenClosed, NoDriver, PaymentDeclined};
        let it = self.clone();
        tokio::spawn(async move {
            let reason = [PaymentDeclined, KitchenClosed, NoDriver][step];
            let cancelled = settle(&it.store, &mut order, OrderCommand::Cancel { reason }).await;
            for url in it.steps[..=step.min(1)].iter().rev() {
                let undone = it.caller.call(Method::DELETE, &format!("{url}/{}", order.id), &Value::Null).await;
                tracing::debug!(url, ?cancelled, ?undone, "given up");
            }
        });
    }
}
