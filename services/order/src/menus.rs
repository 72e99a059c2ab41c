//! The order service's own copy of the menus: told by the kitchen, kept here, read for every price.

use event_sourcing::{Statement, Store, StoreError};

use crate::domain::Menu;

/// Keeps `menu` unless a newer one is kept already: an old menu told again changes nothing.
#[must_use]
pub fn keep(kitchen_id: &str, sequence: i64, menu: &Menu) -> Statement {
    let menu = serde_json::to_string(menu).unwrap_or_default();
    Statement::new(
        "INSERT INTO menus (kitchen_id, sequence, menu) VALUES ($1, $2, $3) ON CONFLICT (kitchen_id) \
         DO UPDATE SET sequence = excluded.sequence, menu = excluded.menu WHERE menus.sequence < excluded.sequence",
        [kitchen_id.into(), sequence.into(), menu.into()],
    )
}

/// The menu of a kitchen, if one was published.
///
/// # Errors
/// If the store doesn't answer.
pub async fn find(store: &Store, kitchen_id: &str) -> Result<Option<Menu>, StoreError> {
    let sql = "SELECT menu FROM menus WHERE kitchen_id = $1";
    let rows = store.database().fetch(sql, [kitchen_id.into()]).await?;
    Ok(rows.first().map(|row| row.json(0)).transpose()?)
}
