//! What a sabotaged store does with the statements it is given: see [`Sabotage`] for what each breaks. With no sabotage
//! every statement passes as it is.

use std::{collections::BTreeMap, sync::Mutex};

use event_sourcing::{Row, Value};

use crate::{sabotage::Sabotage, world::World};

/// A store's statements, under sabotage.
pub struct Sabotaged<'a> {
    pub sabotage: Option<Sabotage>,
    pub world: &'a World,
    pub seen: &'a Mutex<BTreeMap<String, i64>>,
}

type Question = (String, Vec<Value>);

impl Sabotaged<'_> {
    fn seen(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, i64>> {
        self.seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// What is really asked; `None`: nothing, and nothing is found.
    pub fn question(&self, sql: String, mut values: Vec<Value>) -> Option<Question> {
        match self.sabotage {
            Some(Sabotage::SkipTheInbox) if sql.starts_with("SELECT") && sql.contains("FROM inbox") => return None,
            Some(Sabotage::DontPark) if sql.starts_with("SELECT DISTINCT subject FROM dead_letters") => return None,
            Some(Sabotage::ForgetTheKeys) if sql.starts_with("INSERT INTO provider_ledger") => {
                // Who is asked again finds no entry under that key, and makes another.
                if let Some(Value::Text(key)) = values.first_mut() {
                    *key = format!("{key}#{}", self.world.draw(0..=1_000_000));
                }
            }
            _ => {}
        }
        Some((sql, values))
    }

    /// Remembers which versions were read.
    pub fn answered(&self, sql: &str, rows: &[Row]) {
        if self.sabotage == Some(Sabotage::IgnoreTheExpectedVersion) && sql.starts_with("SELECT stream_id, version, id")
        {
            let read = rows.iter().filter_map(|row| Some((row.text(0).ok()?, row.int(1).ok()?)));
            self.seen().extend(read);
        }
    }

    /// The versions that a commit is checked against: those that were read, and not those that are there.
    pub fn versions(&self, sql: &str, values: &[Value]) -> Option<Vec<Row>> {
        if self.sabotage != Some(Sabotage::IgnoreTheExpectedVersion)
            || !sql.starts_with("SELECT stream_id, MAX(version)")
        {
            return None;
        }
        let seen = self.seen();
        let stream = |value: &Value| match value {
            Value::Text(stream) => Some(stream.clone()),
            Value::Int(_) => None,
        };
        let known = values.iter().filter_map(stream).filter_map(|stream| Some((seen.get(&stream).copied()?, stream)));
        Some(known.map(|(version, stream)| Row::of(vec![stream.into(), version.into()])).collect())
    }

    /// What is really changed.
    pub fn changes(&self, mut sql: String, mut values: Vec<Value>) -> Vec<Question> {
        match self.sabotage {
            Some(Sabotage::SkipTheInbox) => sql = sql.replace(" WHERE inbox.done = 0", ""),
            Some(Sabotage::DontCountAttempts) => sql = sql.replace("inbox.attempts + 1", "inbox.attempts"),
            Some(Sabotage::IgnoreTheRevision) => {
                if let Some(condition) = sql.find(" WHERE orders.revision") {
                    sql.truncate(condition);
                }
            }
            Some(Sabotage::HalfATransaction) if sql.starts_with("INSERT INTO timeline") && self.world.happens(0.1) => {
                return Vec::new();
            }
            Some(Sabotage::ForgetWhoWaits) if sql.starts_with("INSERT INTO waiting") && self.world.happens(0.5) => {
                return Vec::new();
            }
            Some(Sabotage::ForgetWhoRides)
                if sql.starts_with("INSERT INTO drivers (driver_id, version") && values.get(3).is_some_and(rides) =>
            {
                values[2] = Value::Int(1);
                values[3] = r#"{"state":"free"}"#.into();
            }
            Some(Sabotage::KeepTheMoney) if sql.starts_with("UPDATE provider_ledger") => {
                if let Some(outcome) = values.get_mut(1).filter(|outcome| **outcome == Value::from("refunded")) {
                    *outcome = "pending".into();
                }
            }
            Some(Sabotage::ForgetTheKeys) if sql.starts_with("UPDATE provider_ledger") => {
                sql = sql.replace("idempotency_key = $1", "idempotency_key LIKE $1 || '#%' AND outcome = 'pending'");
            }
            _ => {}
        }
        vec![(sql, values)]
    }
}

fn rides(state: &Value) -> bool {
    matches!(state, Value::Text(state) if state.contains("riding"))
}
