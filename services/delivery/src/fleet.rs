//! The drivers as rows, one each with its last state: a driver's stream grows for years, and nobody wants to read it
//! from its beginning for every order. A row changes in the same transaction as its stream, and it names the version it
//! was made of: whoever decides on a row that is out of date conflicts, and reads again.

use event_sourcing::{Row, Statement, Store, StoreError, Stream};

use crate::domain::Driver;

/// One driver; off shift, if nobody has heard of them.
///
/// # Errors
/// If the database doesn't answer.
pub async fn driver(store: &Store, driver_id: &str) -> Result<Stream<Driver>, StoreError> {
    let sql = "SELECT driver_id, version, state FROM drivers WHERE driver_id = $1";
    let rows = store.database().fetch(sql, [driver_id.into()]).await?;
    let unknown = || Ok(Stream::resume(driver_id.to_owned(), 0, Driver::default()));
    rows.first().map_or_else(unknown, |row| Ok(stream(row)?))
}

/// Free drivers, those with the least behind them first: so the work spreads over the fleet.
///
/// # Errors
/// If the database doesn't answer.
pub async fn free(store: &Store, limit: i64) -> Result<Vec<Stream<Driver>>, StoreError> {
    let sql = "SELECT driver_id, version, state FROM drivers WHERE free = 1 ORDER BY version, driver_id LIMIT $1";
    let rows = store.database().fetch(sql, [limit.into()]).await?;
    Ok(rows.iter().map(stream).collect::<Result<_, _>>()?)
}

/// Keeps the row of a driver whose stream has changed.
///
/// # Errors
/// If the state can't be written as JSON, which would be a bug.
pub fn keep(driver: &Stream<Driver>) -> Result<Statement, serde_json::Error> {
    let state = serde_json::to_string(&driver.state)?;
    let free = i64::from(driver.state.is_free());
    Ok(Statement::new(
        "INSERT INTO drivers (driver_id, version, free, state) VALUES ($1, $2, $3, $4) ON CONFLICT (driver_id) \
         DO UPDATE SET version = excluded.version, free = excluded.free, state = excluded.state",
        [driver.id.clone().into(), driver.version.into(), free.into(), state.into()],
    ))
}

fn stream(row: &Row) -> Result<Stream<Driver>, sqlx::Error> {
    Ok(Stream::resume(row.text(0)?, row.int(1)?, row.json(2)?))
}
