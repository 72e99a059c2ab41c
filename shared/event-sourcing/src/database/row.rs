//! What goes into a statement, and what comes out of it.

use std::fmt::Write;

use sqlx::{Column, Row as _, TypeInfo, postgres::PgRow};

/// Rows that one statement carries. Few sizes mean few statements to prepare.
const ROWS_AT_ONCE: [usize; 8] = [128, 64, 32, 16, 8, 4, 2, 1];

/// A parameter of a statement.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Value {
    Text(String),
    Int(i64),
}
impl std::fmt::Display for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Int(number) => number.fmt(f),
        }
    }
}
impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}
impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}
impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Int(number)
    }
}

/// One statement and its parameters (`$1`, `$2` …): how a projection beside the events is kept.
#[derive(Debug, Clone)]
pub struct Statement {
    pub sql: &'static str,
    pub values: Vec<Value>,
}

impl Statement {
    /// `sql` with `$1` … standing for `values`.
    pub fn new<const N: usize>(sql: &'static str, values: [Value; N]) -> Self {
        Self { sql, values: values.into() }
    }
}

/// A row of an answer. Columns count from 0.
pub struct Row(Source);

enum Source {
    Server(PgRow),
    Values(Vec<Value>),
}

impl Row {
    /// A row of these values: what a simulation answers.
    #[must_use]
    pub fn of(values: Vec<Value>) -> Self {
        Self(Source::Values(values))
    }

    pub(super) fn from_server(row: PgRow) -> Self {
        Self(Source::Server(row))
    }

    /// A column of text.
    ///
    /// # Errors
    /// If there is no such column, or it holds something else.
    pub fn text(&self, column: usize) -> Result<String, sqlx::Error> {
        self.str(column).map(ToOwned::to_owned)
    }

    /// A column of text, borrowed.
    ///
    /// # Errors
    /// If there is no such column, or it holds something else.
    pub fn str(&self, column: usize) -> Result<&str, sqlx::Error> {
        match &self.0 {
            Source::Server(row) => row.try_get(column),
            Source::Values(values) => match values.get(column) {
                Some(Value::Text(text)) => Ok(text),
                other => Err(unlike(other, column)),
            },
        }
    }

    /// A column of whole numbers.
    ///
    /// # Errors
    /// If there is no such column, or it holds something else.
    pub fn int(&self, column: usize) -> Result<i64, sqlx::Error> {
        match &self.0 {
            Source::Server(row) => match type_of(row, column)? {
                "INT4" => row.try_get::<i32, _>(column).map(i64::from),
                _ => row.try_get(column),
            },
            Source::Values(values) => match values.get(column) {
                Some(Value::Int(number)) => Ok(*number),
                other => Err(unlike(other, column)),
            },
        }
    }

    /// A column of either kind.
    ///
    /// # Errors
    /// If there is no such column, or it holds neither text nor a whole number.
    pub fn value(&self, column: usize) -> Result<Value, sqlx::Error> {
        match &self.0 {
            Source::Server(row) => match type_of(row, column)? {
                "INT4" | "INT8" => self.int(column).map(Value::Int),
                _ => self.text(column).map(Value::Text),
            },
            Source::Values(values) => values.get(column).cloned().ok_or_else(|| unlike(None, column)),
        }
    }

    /// A column of JSON text, read as what it stands for.
    ///
    /// # Errors
    /// If there is no such column, or it reads as something else.
    pub fn json<T: serde::de::DeserializeOwned>(&self, column: usize) -> Result<T, sqlx::Error> {
        serde_json::from_str(self.str(column)?).map_err(|error| sqlx::Error::Decode(error.into()))
    }
}

/// PostgreSQL's name for the type of a column.
fn type_of(row: &PgRow, column: usize) -> Result<&str, sqlx::Error> {
    Ok(row.try_column(column)?.type_info().name())
}

fn unlike(found: Option<&Value>, column: usize) -> sqlx::Error {
    sqlx::Error::Decode(format!("column {column} holds {found:?}").into())
}

/// `($1,$2),($3,$4)` for two rows of two columns: a VALUES list, for INSERT and for `IN`.
#[must_use]
pub fn placeholders(rows: usize, columns: usize) -> String {
    let mut list = String::with_capacity(rows * columns * 6);
    for value in 0..rows * columns {
        list.push_str(match (value, value % columns) {
            (0, _) => "(",
            (_, 0) => "),(",
            _ => ",",
        });
        // Nothing stops anybody from writing into a string.
        let _ = write!(list, "${}", value + 1);
    }
    list.push(')');
    list
}

/// Splits `rows` into pieces of few different sizes, so that few different statements are prepared.
pub fn pieces<T>(mut rows: Vec<T>) -> impl Iterator<Item = Vec<T>> {
    std::iter::from_fn(move || {
        let size = ROWS_AT_ONCE.into_iter().find(|size| *size <= rows.len())?;
        let rest = rows.split_off(size);
        Some(std::mem::replace(&mut rows, rest))
    })
}

/// The same for rows that are looked for (`IN (VALUES …)`), where it does no harm if one stands there twice: the last
/// piece is filled up with one of its rows, so that up to 128 rows are one statement and one answer to wait for.
pub fn lists<T: Clone>(mut rows: Vec<T>) -> impl Iterator<Item = Vec<T>> {
    let [most, ..] = ROWS_AT_ONCE;
    std::iter::from_fn(move || {
        let last = rows.last()?.clone();
        let rest = rows.split_off(most.min(rows.len()));
        let mut piece = std::mem::replace(&mut rows, rest);
        let size = ROWS_AT_ONCE.into_iter().rev().find(|size| *size >= piece.len()).unwrap_or(most);
        piece.resize(size, last);
        Some(piece)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_the_number_of_rows_each_goes_into_a_statement_of_a_known_size() {
        for count in 0..300 {
            let rows: Vec<usize> = (0..count).collect();
            assert_eq!(pieces(rows.clone()).flatten().collect::<Vec<_>>(), rows);
            let mut looked_for: Vec<usize> = lists(rows.clone()).flatten().collect();
            assert_eq!(lists(rows.clone()).count(), count.div_ceil(128));
            assert!(lists(rows.clone()).chain(pieces(rows.clone())).all(|it| ROWS_AT_ONCE.contains(&it.len())));
            looked_for.sort_unstable();
            looked_for.dedup();
            assert_eq!(looked_for, rows);
        }
    }

    #[test]
    fn a_list_of_placeholders_counts_through_all_rows() {
        assert_eq!(placeholders(1, 1), "($1)");
        assert_eq!(placeholders(2, 3), "($1,$2,$3),($4,$5,$6)");
    }
}
