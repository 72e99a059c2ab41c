//! A kitchen's menu, as the kitchen publishes it: what it offers at which price, what is sold out, whether it is open.
//! The order service prices by it from a copy of its own; here it says whether a paid ticket can be cooked.

use std::collections::HashSet;

use event_sourcing::{Decider, DomainEvent};
use serde::{Deserialize, Serialize};

use super::{RejectionReason, TicketItem};

/// What happens in a kitchen's own stream. The names in quotes are what is stored and published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", content = "data")]
pub enum KitchenEvent {
    #[serde(rename = "dev.rainstorm.kitchen.menu_published.v1")]
    MenuPublished { name: String, open: bool, currency: String, menu: Vec<MenuItem> },
}

impl DomainEvent for KitchenEvent {}

/// One dish.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MenuItem {
    pub item_id: String,
    pub name: String,
    /// In minor units of the menu's currency.
    pub price: i64,
    /// False while it is sold out.
    pub available: bool,
}

/// A kitchen is known by the last menu that it published.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Kitchen {
    #[default]
    Unknown,
    Known {
        name: String,
        open: bool,
        currency: String,
        menu: Vec<MenuItem>,
    },
}

impl Kitchen {
    /// Whether all of `items` can be cooked now. A kitchen nobody knows is closed; a dish no longer on the menu is sold
    /// out.
    ///
    /// # Errors
    /// Why they can't be cooked.
    pub fn can_cook(&self, items: &[TicketItem]) -> Result<(), RejectionReason> {
        match self {
            Self::Unknown | Self::Known { open: false, .. } => Err(RejectionReason::KitchenClosed),
            Self::Known { open: true, menu, .. } => {
                let available: HashSet<_> =
                    menu.iter().filter(|dish| dish.available).map(|dish| &dish.item_id).collect();
                if items.iter().all(|item| available.contains(&item.item_id)) {
                    Ok(())
                } else {
                    Err(RejectionReason::SoldOut)
                }
            }
        }
    }
}

/// What the people of a kitchen ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KitchenCommand {
    PublishMenu { name: String, open: bool, currency: String, menu: Vec<MenuItem> },
}

/// Why a kitchen's command is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KitchenRejection {
    #[error("the menu has more than one item with the id \"{item_id}\"")]
    DuplicateItem { item_id: String },
}

impl Decider for Kitchen {
    type Event = KitchenEvent;
    type Command = KitchenCommand;
    type Rejection = KitchenRejection;

    /// A menu replaces the one before it.
    const EACH_EVENT_IS_COMPLETE: bool = true;

    fn evolve(self, event: KitchenEvent) -> Self {
        match event {
            KitchenEvent::MenuPublished { name, open, currency, menu } => Self::Known { name, open, currency, menu },
        }
    }

    fn decide(&self, command: KitchenCommand) -> Result<Vec<KitchenEvent>, KitchenRejection> {
        match command {
            KitchenCommand::PublishMenu { name, open, currency, menu } => {
                let mut seen = HashSet::new();
                if let Some(twice) = menu.iter().find(|item| !seen.insert(&item.item_id)) {
                    return Err(KitchenRejection::DuplicateItem { item_id: twice.item_id.clone() });
                }
                let event = KitchenEvent::MenuPublished { name, open, currency, menu };
                let changed = self.clone().evolve(event.clone()) != *self;
                Ok(if changed { vec![event] } else { vec![] })
            }
        }
    }
}

#[cfg(test)]
mod specification {
    use event_sourcing::{
        decode, encode,
        specification::{Given, given as given_events},
    };
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_kitchen_publishes_its_menu() {
        given([]).when(publish(true, [soup(true), bread(true)])).then([published(true, [soup(true), bread(true)])]);
    }

    #[test]
    fn the_same_menu_is_published_once_even_if_told_twice() {
        given([published(true, [soup(true)])]).when(publish(true, [soup(true)])).then_nothing();
    }

    #[test]
    fn whatever_changes_is_published_again() {
        let was = || given([published(true, [soup(true)])]);
        was().when(publish(false, [soup(true)])).then([published(false, [soup(true)])]);
        was().when(publish(true, [soup(false)])).then([published(true, [soup(false)])]);
        was().when(publish(true, [])).then([published(true, [])]);
    }

    #[test]
    fn a_menu_with_the_same_item_twice_is_rejected() {
        given([])
            .when(publish(true, [soup(true), bread(true), soup(false)]))
            .then_rejected(&KitchenRejection::DuplicateItem { item_id: "soup".into() });
    }

    #[test]
    fn an_open_kitchen_cooks_what_is_on_its_menu_and_not_sold_out() {
        let kitchen = given([published(true, [soup(true), bread(false)])]).state();
        assert_eq!(kitchen.can_cook(&[item("soup")]), Ok(()));
        assert_eq!(kitchen.can_cook(&[item("soup"), item("bread")]), Err(RejectionReason::SoldOut));
        assert_eq!(kitchen.can_cook(&[item("cake")]), Err(RejectionReason::SoldOut));
    }

    #[test]
    fn a_closed_or_unknown_kitchen_cooks_nothing() {
        let closed = given([published(false, [soup(true)])]).state();
        assert_eq!(closed.can_cook(&[item("soup")]), Err(RejectionReason::KitchenClosed));
        assert_eq!(Kitchen::Unknown.can_cook(&[item("soup")]), Err(RejectionReason::KitchenClosed));
    }

    #[test]
    fn a_menu_is_stored_under_its_contracts_name() {
        let (event_type, data) = encode(&published(true, [soup(true)])).unwrap();
        assert_eq!(event_type, "dev.rainstorm.kitchen.menu_published.v1");
        let soup = r#"{"item_id":"soup","name":"soup","price":450,"available":true}"#;
        assert_eq!(data, format!(r#"{{"name":"Casa","open":true,"currency":"EUR","menu":[{soup}]}}"#));
    }

    proptest! {
        #[test]
        fn a_repeated_command_does_nothing_and_every_event_reads_back(commands in prop::collection::vec(command(), 0..10)) {
            let mut kitchen = Kitchen::default();
            for command in commands {
                let Ok(events) = kitchen.decide(command.clone()) else { continue };
                for event in events {
                    let (event_type, data) = encode(&event).unwrap();
                    prop_assert_eq!(&decode::<KitchenEvent>(&event_type, &data).unwrap(), &event);
                    kitchen = kitchen.evolve(event);
                }
                prop_assert_eq!(kitchen.decide(command), Ok(vec![]));
            }
        }
    }

    fn command() -> impl Strategy<Value = KitchenCommand> {
        let item = prop_oneof![Just(soup(true)), Just(soup(false)), Just(bread(true))];
        (any::<bool>(), prop::collection::vec(item, 0..3)).prop_map(|(open, menu)| publish(open, menu))
    }

    fn given(events: impl IntoIterator<Item = KitchenEvent>) -> Given<Kitchen> {
        given_events(events)
    }

    fn publish(open: bool, menu: impl Into<Vec<MenuItem>>) -> KitchenCommand {
        KitchenCommand::PublishMenu { name: "Casa".into(), open, currency: "EUR".into(), menu: menu.into() }
    }

    fn published(open: bool, menu: impl Into<Vec<MenuItem>>) -> KitchenEvent {
        KitchenEvent::MenuPublished { name: "Casa".into(), open, currency: "EUR".into(), menu: menu.into() }
    }

    fn soup(available: bool) -> MenuItem {
        MenuItem { item_id: "soup".into(), name: "soup".into(), price: 450, available }
    }

    fn bread(available: bool) -> MenuItem {
        MenuItem { item_id: "bread".into(), name: "bread".into(), price: 120, available }
    }

    fn item(item_id: &str) -> TicketItem {
        TicketItem { item_id: item_id.into(), name: item_id.into(), quantity: 1 }
    }
}
