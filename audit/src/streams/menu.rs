//! A kitchen's menus, each replacing the one before.

use super::{Command, Machine, NEW, line};

pub(super) static MENU: Machine = Machine {
    source: "/kitchen",
    of_an_order: false,
    lines: &[line("kitchen.menu_published", &[NEW, "published"], "published", &[Command])],
};

#[cfg(test)]
mod tests {
    use super::{super::tests::walk, MENU};

    #[test]
    fn a_kitchen_publishes_menus_and_nothing_else() {
        assert_eq!(walk(&MENU, &["kitchen.menu_published", "kitchen.menu_published"]), Ok("published"));
        assert!(walk(&MENU, &["kitchen.menu_published", "kitchen.order_packed"]).is_err());
    }
}
