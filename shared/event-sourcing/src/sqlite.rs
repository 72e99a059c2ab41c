//! SQLite as the rest of this crate wants it: statements with `$1` …, answers in rows, errors in sqlx's words. A
//! simulation uses it for its own databases, too.

use std::{path::Path, time::Duration};

use rusqlite::{Connection, Error, ErrorCode, OpenFlags, types::ValueRef};

use crate::{Row, Value};

/// Different statements that a connection keeps prepared.
pub const PREPARED: usize = 256;
/// How long to wait for somebody who writes to the same file from another process.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Opens a file, for one thread at a time.
///
/// # Errors
/// Whatever SQLite says.
pub fn connect(file: &Path, access: OpenFlags) -> Result<Connection, Error> {
    let connection = Connection::open_with_flags(file, access | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_timeout(PATIENCE)?;
    connection.set_prepared_statement_cache_capacity(PREPARED);
    Ok(connection)
}

/// Runs one statement; `$1` … are the values in order, wherever they stand.
///
/// # Errors
/// Whatever SQLite says.
pub fn run(connection: &Connection, sql: &str, values: &[Value]) -> Result<Vec<Row>, sqlx::Error> {
    let mut statement = connection.prepare_cached(&numbered(sql)).map_err(failed)?;
    if statement.parameter_count() > values.len() {
        return Err(sqlx::Error::Protocol(format!("{} values are too few for {sql}", values.len())));
    }
    for (index, value) in (1..=statement.parameter_count()).zip(values) {
        match value {
            Value::Text(text) => statement.raw_bind_parameter(index, text),
            Value::Int(number) => statement.raw_bind_parameter(index, number),
        }
        .map_err(failed)?;
    }
    let columns = statement.column_count();
    let mut rows = statement.raw_query();
    let mut found = Vec::new();
    while let Some(row) = rows.next().map_err(failed)? {
        let value = |column| match row.get_ref(column).map_err(failed)? {
            ValueRef::Integer(number) => Ok(Value::Int(number)),
            ValueRef::Text(text) => Ok(Value::Text(String::from_utf8_lossy(text).into_owned())),
            other => Err(sqlx::Error::Protocol(format!("{} in {sql}", other.data_type()))),
        };
        found.push(Row::of((0..columns).map(value).collect::<Result<_, _>>()?));
    }
    Ok(found)
}

/// `?1` instead of `$1`, which PostgreSQL asks for: to SQLite the latter is a name, and it looks through all names for
/// each value of a statement.
fn numbered(sql: &str) -> String {
    let mut numbered = String::with_capacity(sql.len());
    let mut rest = sql;
    while let Some(place) = rest.find('$') {
        let (before, after) = rest.split_at(place);
        numbered.push_str(before);
        let is_value = after[1..].starts_with(|next: char| next.is_ascii_digit());
        numbered.push(if is_value { '?' } else { '$' });
        rest = &after[1..];
    }
    numbered.push_str(rest);
    numbered
}

/// SQLite's error in sqlx's words.
#[must_use]
pub fn failed(error: Error) -> sqlx::Error {
    if error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) {
        sqlx::Error::Database(Box::new(Taken(error)))
    } else {
        sqlx::Error::Protocol(error.to_string())
    }
}

/// A unique key is taken.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
struct Taken(Error);

impl sqlx::error::DatabaseError for Taken {
    fn message(&self) -> &str {
        match &self.0 {
            Error::SqliteFailure(_, Some(said)) => said,
            _ => "a unique key is taken",
        }
    }

    fn kind(&self) -> sqlx::error::ErrorKind {
        sqlx::error::ErrorKind::UniqueViolation
    }

    fn as_error(&self) -> &(dyn std::error::Error + Send + Sync + 'static) {
        self
    }

    fn as_error_mut(&mut self) -> &mut (dyn std::error::Error + Send + Sync + 'static) {
        self
    }

    fn into_error(self: Box<Self>) -> Box<dyn std::error::Error + Send + Sync + 'static> {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_found_by_their_number_wherever_and_however_often_they_stand() {
        let connection = Connection::open_in_memory().unwrap();
        let sql = "SELECT $2, $1, $2, '$', '$x'";
        let rows = run(&connection, sql, &[1.into(), "two".into()]).unwrap();
        let [row] = &rows[..] else { panic!("one row") };
        let values: Vec<Value> = (0..5).map(|column| row.value(column).unwrap()).collect();
        assert_eq!(values, ["two".into(), 1.into(), "two".into(), "$".into(), "$x".into()] as [Value; 5]);
        assert!(run(&connection, "SELECT $1, $2", &[1.into()]).is_err());
    }
}
