//! An order, from the moment it is placed until it is completed or cancelled: the only two ends there are.
//! The customer may ask to cancel at any time; whether that succeeds, the kitchen says, because it knows what is packed.

use event_sourcing::{Decider, DomainEvent};
use serde::{Deserialize, Serialize};

// ---- Event: the names and fields are what is stored -----------------------------------------------------------------

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", content = "data")]
pub enum OrderEvent {
    #[serde(rename = "dev.rainstorm.order.placed.v1")]
    Placed(PlacedOrder),
    #[serde(rename = "dev.rainstorm.order.cancellation_requested.v1")]
    CancellationRequested {},
    #[serde(rename = "dev.rainstorm.order.cancellation_refused.v1")]
    CancellationRefused { reason: String },
    #[serde(rename = "dev.rainstorm.order.cancelled.v1")]
    Cancelled { reason: CancellationReason },
    #[serde(rename = "dev.rainstorm.order.completed.v1")]
    Completed {},
}

impl DomainEvent for OrderEvent {}

/// What was ordered, by whom and for how much. It never changes again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlacedOrder {
    pub customer_id: String,
    pub kitchen_id: String,
    pub items: Vec<Line>,
    pub total: Money,
    pub address: Address,
    pub payment_token: String,
}

/// So many of one item, at the price that the menu named when the order was placed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    pub item_id: String,
    pub name: String,
    pub quantity: u32,
    /// In minor units of the order's currency.
    pub unit_price: i64,
}

/// An amount in minor units (cents) of an ISO 4217 currency.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Money {
    pub amount: i64,
    pub currency: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    pub street: String,
    pub city: String,
    pub postal_code: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CancellationReason {
    CustomerRequest,
    PaymentDeclined,
    KitchenClosed,
    SoldOut,
    NoDriver,
}

// ---- State ----------------------------------------------------------------------------------------------------------

#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "an order is unplaced for a moment only, so a box would save nothing")]
pub enum Order {
    #[default]
    Unplaced,
    Placed {
        order: PlacedOrder,
        stage: Stage,
    },
}

/// How far a placed order has come, as far as the order service itself decides it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    Underway,
    CancellationRequested,
    CancellationRefused,
    Cancelled,
    Completed,
}

impl Stage {
    /// What the customer is told. A request to cancel is no status yet: until it succeeds, the order stands.
    #[must_use]
    pub fn status(self) -> &'static str {
        match self {
            Self::Underway | Self::CancellationRequested | Self::CancellationRefused => "placed",
            Self::Cancelled => "cancelled",
            Self::Completed => "completed",
        }
    }
}

impl Order {
    fn at(self, stage: Stage) -> Self {
        match self {
            Self::Unplaced => Self::Unplaced,
            Self::Placed { order, .. } => Self::Placed { order, stage },
        }
    }
}

// ---- Command, rejection, decide -------------------------------------------------------------------------------------

#[derive(Debug, Clone, PartialEq)]
pub enum OrderCommand {
    Place {
        customer_id: String,
        kitchen_id: String,
        /// Already priced, see [`price`].
        items: Vec<Line>,
        address: Address,
        payment_token: String,
        currency: String,
    },
    /// The customer asks; the kitchen will answer.
    RequestCancellation,
    /// The kitchen answered that it is too late.
    RefuseCancellation { reason: String },
    /// Somebody down the road cannot, or need not, go on.
    Cancel { reason: CancellationReason },
    /// The food was delivered.
    Complete,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OrderRejection {
    #[error("the total is too large; order less")]
    TotalTooLarge,
    #[error("no such order was placed")]
    NotPlaced,
    #[error("the order is already packed and can't be cancelled any more")]
    AlreadyPacked,
    #[error("the order is already completed and can't be cancelled any more")]
    AlreadyCompleted,
}

impl Decider for Order {
    type Event = OrderEvent;
    type Command = OrderCommand;
    type Rejection = OrderRejection;

    fn evolve(self, event: OrderEvent) -> Self {
        match event {
            OrderEvent::Placed(order) => Self::Placed { order, stage: Stage::Underway },
            OrderEvent::CancellationRequested {} => self.at(Stage::CancellationRequested),
            OrderEvent::CancellationRefused { .. } => self.at(Stage::CancellationRefused),
            OrderEvent::Cancelled { .. } => self.at(Stage::Cancelled),
            OrderEvent::Completed {} => self.at(Stage::Completed),
        }
    }

    fn decide(&self, command: OrderCommand) -> Result<Vec<OrderEvent>, OrderRejection> {
        match self {
            Self::Unplaced => begin(command),
            Self::Placed { stage, .. } => go_on(*stage, command),
        }
    }
}

fn begin(command: OrderCommand) -> Result<Vec<OrderEvent>, OrderRejection> {
    match command {
        OrderCommand::Place { customer_id, kitchen_id, items, address, payment_token, currency } => {
            let amount = total(&items).ok_or(OrderRejection::TotalTooLarge)?;
            let total = Money { amount, currency };
            let order = PlacedOrder { customer_id, kitchen_id, items, total, address, payment_token };
            Ok(vec![OrderEvent::Placed(order)])
        }
        OrderCommand::RefuseCancellation { .. } => Ok(vec![]),
        OrderCommand::RequestCancellation | OrderCommand::Cancel { .. } | OrderCommand::Complete => {
            Err(OrderRejection::NotPlaced)
        }
    }
}

fn go_on(stage: Stage, command: OrderCommand) -> Result<Vec<OrderEvent>, OrderRejection> {
    use Stage::{CancellationRefused, CancellationRequested, Cancelled, Completed, Underway};
    match (command, stage) {
        (OrderCommand::Place { .. }, _) => Ok(vec![]),

        (OrderCommand::RequestCancellation, Underway) => Ok(vec![OrderEvent::CancellationRequested {}]),
        (OrderCommand::RequestCancellation, CancellationRequested | Cancelled) => Ok(vec![]),
        (OrderCommand::RequestCancellation, CancellationRefused) => Err(OrderRejection::AlreadyPacked),
        (OrderCommand::RequestCancellation, Completed) => Err(OrderRejection::AlreadyCompleted),

        (OrderCommand::RefuseCancellation { reason }, CancellationRequested) => {
            Ok(vec![OrderEvent::CancellationRefused { reason }])
        }
        (OrderCommand::RefuseCancellation { .. }, Underway | CancellationRefused | Cancelled | Completed) => Ok(vec![]),

        (OrderCommand::Cancel { reason }, Underway | CancellationRequested | CancellationRefused) => {
            Ok(vec![OrderEvent::Cancelled { reason }])
        }
        (OrderCommand::Complete, Underway | CancellationRequested | CancellationRefused) => {
            Ok(vec![OrderEvent::Completed {}])
        }
        (OrderCommand::Cancel { .. } | OrderCommand::Complete, Cancelled | Completed) => Ok(vec![]),
    }
}

/// The sum in minor units, or nothing if it doesn't fit.
fn total(items: &[Line]) -> Option<i64> {
    items.iter().try_fold(0_i64, |sum, line| sum.checked_add(line.unit_price.checked_mul(line.quantity.into())?))
}

// ---- Pricing: prices never come from the client ---------------------------------------------------------------------

/// The order service's own copy of what a kitchen last published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Menu {
    pub open: bool,
    pub currency: String,
    pub items: Vec<MenuItem>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MenuItem {
    pub item_id: String,
    pub name: String,
    /// In minor units of the menu's currency.
    pub price: i64,
    pub available: bool,
}

/// Why the menu doesn't serve a request; `index` counts the requested items from 0.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PricingError {
    #[error("the kitchen is closed")]
    KitchenClosed,
    #[error("the menu has no item \"{item_id}\"")]
    UnknownItem { index: usize, item_id: String },
    #[error("\"{item_id}\" is sold out")]
    SoldOut { index: usize, item_id: String },
}

/// The lines of an order for `items`, pairs of item id and quantity, at the menu's names and prices.
///
/// # Errors
/// The first reason why this kitchen can't cook them now.
pub fn price(menu: &Menu, items: &[(String, u32)]) -> Result<Vec<Line>, PricingError> {
    if !menu.open {
        return Err(PricingError::KitchenClosed);
    }
    let line = |(index, (item_id, quantity)): (usize, &(String, u32))| {
        let item_id = item_id.clone();
        match menu.items.iter().find(|item| item.item_id == item_id) {
            None => Err(PricingError::UnknownItem { index, item_id }),
            Some(item) if !item.available => Err(PricingError::SoldOut { index, item_id }),
            Some(item) => Ok(Line { item_id, name: item.name.clone(), quantity: *quantity, unit_price: item.price }),
        }
    };
    items.iter().enumerate().map(line).collect()
}

// ---- Specification --------------------------------------------------------------------------------------------------

#[cfg(test)]
mod specification {
    use super::*;
    use event_sourcing::specification::{self, Given};
    use event_sourcing::{decode, encode};
    use proptest::prelude::*;

    #[test]
    fn an_order_is_placed_with_its_total() {
        given([]).when(place()).then([placed()]);
        let Order::Placed { order, stage } = given([placed()]).state() else { panic!("the order was placed") };
        assert_eq!((order.total, stage), (euros(2_950), Stage::Underway));
    }

    #[test]
    fn an_order_that_was_placed_is_not_placed_again() {
        for ended in [vec![], vec![requested()], vec![cancelled(NoDriver)], vec![completed()]] {
            given([vec![placed()], ended].concat()).when(place()).then_nothing();
        }
    }

    #[test]
    fn a_total_that_overflows_is_rejected_wherever_it_does() {
        let too_large = OrderRejection::TotalTooLarge;
        given([]).when(place_lines(vec![line("truffle", 2, i64::MAX)])).then_rejected(&too_large);
        let two_lines = vec![line("truffle", 1, i64::MAX), line("tea", 1, 1)];
        given([]).when(place_lines(two_lines)).then_rejected(&too_large);
    }

    #[test]
    fn a_customer_may_ask_to_cancel_and_asking_twice_is_asking_once() {
        given([placed()]).when(request()).then([requested()]);
        given([placed(), requested()]).when(request()).then_nothing();
        given([placed(), requested(), cancelled(CustomerRequest)]).when(request()).then_nothing();
    }

    #[test]
    fn it_is_too_late_to_ask_once_the_order_is_packed_or_completed() {
        given([placed(), requested(), refused()]).when(request()).then_rejected(&OrderRejection::AlreadyPacked);
        given([placed(), completed()]).when(request()).then_rejected(&OrderRejection::AlreadyCompleted);
    }

    #[test]
    fn a_refusal_answers_a_request_and_nothing_else() {
        given([placed(), requested()]).when(refuse()).then([refused()]);
        given([]).when(refuse()).then_nothing();
        given([placed()]).when(refuse()).then_nothing();
        given([placed(), requested(), refused()]).when(refuse()).then_nothing();
        given([placed(), requested(), completed()]).when(refuse()).then_nothing();
    }

    #[test]
    fn an_order_is_cancelled_at_any_stage_before_its_end() {
        given([placed()]).when(cancel(PaymentDeclined)).then([cancelled(PaymentDeclined)]);
        given([placed(), requested()]).when(cancel(CustomerRequest)).then([cancelled(CustomerRequest)]);
        given([placed(), requested(), refused()]).when(cancel(NoDriver)).then([cancelled(NoDriver)]);
    }

    #[test]
    fn an_order_is_completed_also_while_a_request_to_cancel_waits_for_its_answer() {
        given([placed()]).when(complete()).then([completed()]);
        given([placed(), requested()]).when(complete()).then([completed()]);
        given([placed(), requested(), refused()]).when(complete()).then([completed()]);
    }

    #[test]
    fn an_order_that_ended_keeps_its_end() {
        for end in [cancelled(CustomerRequest), completed()] {
            given([placed(), end.clone()]).when(cancel(NoDriver)).then_nothing();
            given([placed(), end]).when(complete()).then_nothing();
        }
    }

    #[test]
    fn an_order_that_was_never_placed_neither_ends_nor_is_asked_to() {
        for command in [request(), cancel(NoDriver), complete()] {
            given([]).when(command).then_rejected(&OrderRejection::NotPlaced);
        }
    }

    #[test]
    fn a_customer_sees_an_order_as_placed_until_it_ends() {
        let status = |events: &[OrderEvent]| match given(events.to_vec()).state() {
            Order::Unplaced => panic!("the order was placed"),
            Order::Placed { stage, .. } => stage.status(),
        };
        assert_eq!(status(&[placed(), requested(), refused()]), "placed");
        assert_eq!(status(&[placed(), completed()]), "completed");
        assert_eq!(status(&[placed(), cancelled(SoldOut)]), "cancelled");
    }

    #[test]
    fn a_price_comes_from_the_menu() {
        assert_eq!(price(&menu(), &wanted(&[("ramen", 2), ("tea", 1)])).unwrap(), lines());
    }

    #[test]
    fn the_menu_says_which_item_it_does_not_serve() {
        let first_reason = |items: &[(&str, u32)]| price(&menu(), &wanted(items)).unwrap_err();
        let (pizza, gyoza) = ("pizza".to_owned(), "gyoza".to_owned());
        assert_eq!(first_reason(&[("pizza", 1)]), PricingError::UnknownItem { index: 0, item_id: pizza });
        assert_eq!(first_reason(&[("tea", 1), ("gyoza", 1)]), PricingError::SoldOut { index: 1, item_id: gyoza });
    }

    #[test]
    fn a_closed_kitchen_prices_nothing() {
        let closed = Menu { open: false, ..menu() };
        assert_eq!(price(&closed, &wanted(&[("tea", 1)])), Err(PricingError::KitchenClosed));
    }

    #[test]
    fn a_placed_order_is_stored_as_its_contract_says() {
        let (event_type, data) = encode(&placed()).unwrap();
        assert_eq!(event_type, "dev.rainstorm.order.placed.v1");
        let expected = serde_json::json!({
            "customer_id": "ada",
            "kitchen_id": "noodle-bar",
            "items": [
                {"item_id": "ramen", "name": "Ramen", "quantity": 2, "unit_price": 1_300},
                {"item_id": "tea", "name": "Tea", "quantity": 1, "unit_price": 350},
            ],
            "total": {"amount": 2_950, "currency": "EUR"},
            "address": {"street": "Rain Street 1", "city": "Bergen", "postal_code": "5003"},
            "payment_token": "tok_ok",
        });
        assert_eq!(serde_json::from_str::<serde_json::Value>(&data).unwrap(), expected);
    }

    proptest! {
        #[test]
        fn an_order_is_placed_once_and_ends_at_most_once(commands in any_commands()) {
            let events = history(commands);
            let count = |of: fn(&OrderEvent) -> bool| events.iter().filter(|event| of(event)).count();
            let ended = |event: &OrderEvent| {
                matches!(event, OrderEvent::Cancelled { .. } | OrderEvent::Completed {})
            };
            prop_assert!(count(|event| matches!(event, OrderEvent::Placed(_))) <= 1);
            prop_assert!(count(ended) <= 1);
            prop_assert!(events.iter().rev().skip(1).all(|event| !ended(event)), "nothing follows the end: {events:?}");
        }

        #[test]
        fn a_command_that_is_repeated_does_nothing(commands in any_commands(), command in any_command()) {
            let state = Order::fold(history(commands));
            if let Ok(events) = state.decide(command.clone()) {
                let state = events.into_iter().fold(state, Order::evolve);
                prop_assert_eq!(state.decide(command), Ok(vec![]));
            }
        }

        #[test]
        fn a_total_is_the_exact_sum_or_the_order_is_rejected(items in prop::collection::vec(any_line(), 0..5)) {
            let exact: i128 = items.iter().map(|line| i128::from(line.unit_price) * i128::from(line.quantity)).sum();
            match Order::Unplaced.decide(place_lines(items)).as_deref() {
                Ok([OrderEvent::Placed(order)]) => prop_assert_eq!(i128::from(order.total.amount), exact),
                outcome => {
                    prop_assert_eq!(outcome, Err(&OrderRejection::TotalTooLarge));
                    prop_assert!(exact > i128::from(i64::MAX));
                }
            }
        }

        #[test]
        fn an_event_reads_back_as_it_was_written(event in any_event()) {
            let (event_type, data) = encode(&event).unwrap();
            prop_assert!(data.starts_with('{'), "data is a JSON object: {}", data);
            prop_assert_eq!(decode::<OrderEvent>(&event_type, &data).unwrap(), event);
        }
    }

    // ---- builders ----

    use CancellationReason::{CustomerRequest, KitchenClosed, NoDriver, PaymentDeclined, SoldOut};

    fn given(events: impl IntoIterator<Item = OrderEvent>) -> Given<Order> {
        specification::given(events)
    }

    fn place() -> OrderCommand {
        place_lines(lines())
    }

    fn place_lines(items: Vec<Line>) -> OrderCommand {
        OrderCommand::Place {
            customer_id: "ada".into(),
            kitchen_id: "noodle-bar".into(),
            items,
            address: address(),
            payment_token: "tok_ok".into(),
            currency: "EUR".into(),
        }
    }

    fn request() -> OrderCommand {
        OrderCommand::RequestCancellation
    }

    fn refuse() -> OrderCommand {
        OrderCommand::RefuseCancellation { reason: "packed".into() }
    }

    fn cancel(reason: CancellationReason) -> OrderCommand {
        OrderCommand::Cancel { reason }
    }

    fn complete() -> OrderCommand {
        OrderCommand::Complete
    }

    fn placed() -> OrderEvent {
        OrderEvent::Placed(PlacedOrder {
            customer_id: "ada".into(),
            kitchen_id: "noodle-bar".into(),
            items: lines(),
            total: euros(2_950),
            address: address(),
            payment_token: "tok_ok".into(),
        })
    }

    fn requested() -> OrderEvent {
        OrderEvent::CancellationRequested {}
    }

    fn refused() -> OrderEvent {
        OrderEvent::CancellationRefused { reason: "packed".into() }
    }

    fn cancelled(reason: CancellationReason) -> OrderEvent {
        OrderEvent::Cancelled { reason }
    }

    fn completed() -> OrderEvent {
        OrderEvent::Completed {}
    }

    fn address() -> Address {
        Address { street: "Rain Street 1".into(), city: "Bergen".into(), postal_code: "5003".into() }
    }

    fn euros(amount: i64) -> Money {
        Money { amount, currency: "EUR".into() }
    }

    fn line(item_id: &str, quantity: u32, unit_price: i64) -> Line {
        Line { item_id: item_id.into(), name: item_id.into(), quantity, unit_price }
    }

    fn lines() -> Vec<Line> {
        let named = |name: &str, line| Line { name: name.into(), ..line };
        vec![named("Ramen", line("ramen", 2, 1_300)), named("Tea", line("tea", 1, 350))]
    }

    fn menu() -> Menu {
        let item = |item_id: &str, name: &str, price, available| MenuItem {
            item_id: item_id.into(),
            name: name.into(),
            price,
            available,
        };
        let items = vec![
            item("ramen", "Ramen", 1_300, true),
            item("gyoza", "Gyoza", 700, false),
            item("tea", "Tea", 350, true),
        ];
        Menu { open: true, currency: "EUR".into(), items }
    }

    fn wanted(items: &[(&str, u32)]) -> Vec<(String, u32)> {
        items.iter().map(|(item_id, quantity)| ((*item_id).to_owned(), *quantity)).collect()
    }

    /// What is stored after `commands` in this order, whatever became of each.
    fn history(commands: Vec<OrderCommand>) -> Vec<OrderEvent> {
        commands.into_iter().fold(vec![], |mut events, command| {
            events.extend(Order::fold(events.clone()).decide(command).unwrap_or_default());
            events
        })
    }

    fn any_commands() -> impl Strategy<Value = Vec<OrderCommand>> {
        prop::collection::vec(any_command(), 0..20)
    }

    fn any_command() -> impl Strategy<Value = OrderCommand> {
        prop_oneof![Just(place()), Just(request()), Just(refuse()), any_reason().prop_map(cancel), Just(complete()),]
    }

    fn any_event() -> impl Strategy<Value = OrderEvent> {
        prop_oneof![
            (any::<[String; 7]>(), prop::collection::vec(any_line(), 0..5), any::<i64>()).prop_map(
                |([customer_id, kitchen_id, currency, street, city, postal_code, payment_token], items, amount)| {
                    let address = Address { street, city, postal_code };
                    let total = Money { amount, currency };
                    OrderEvent::Placed(PlacedOrder { customer_id, kitchen_id, items, total, address, payment_token })
                }
            ),
            Just(requested()),
            any::<String>().prop_map(|reason| OrderEvent::CancellationRefused { reason }),
            any_reason().prop_map(cancelled),
            Just(completed()),
        ]
    }

    fn any_line() -> impl Strategy<Value = Line> {
        let prices = prop_oneof![0..10_000_i64, 0..=i64::MAX];
        (any::<String>(), any::<String>(), any::<u32>(), prices)
            .prop_map(|(item_id, name, quantity, unit_price)| Line { item_id, name, quantity, unit_price })
    }

    fn any_reason() -> impl Strategy<Value = CancellationReason> {
        prop::sample::select(vec![CustomerRequest, PaymentDeclined, KitchenClosed, SoldOut, NoDriver])
    }
}
