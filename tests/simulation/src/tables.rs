//! The stores' tables, made once from the services' own migrations and copied for every world.

use std::collections::BTreeMap;

use event_sourcing::MIGRATIONS;
use rusqlite::Connection;
use sqlx::migrate::Migrator;

use crate::sabotage::Sabotage;

/// Empty databases by the names of their services.
pub struct Tables(BTreeMap<&'static str, Connection>);

impl Tables {
    /// The tables of every service, as they are or as a sabotage needs them.
    ///
    /// # Errors
    /// If SQLite doesn't take a migration.
    pub fn new(sabotage: Option<Sabotage>) -> rusqlite::Result<Self> {
        let own: [(&str, &[&Migrator]); 6] = [
            ("order", &[&MIGRATIONS, &order::MIGRATIONS]),
            ("payment", &[&MIGRATIONS, &payment::MIGRATIONS]),
            ("kitchen", &[&MIGRATIONS]),
            ("delivery", &[&MIGRATIONS, &delivery::MIGRATIONS]),
            ("query", &[&MIGRATIONS, &query::MIGRATIONS]),
            ("provider", &[&payment::provider::simulated::MIGRATIONS]),
        ];
        let mut tables = BTreeMap::new();
        for (name, migrators) in own {
            let connection = Connection::open_in_memory()?;
            for migration in migrators.iter().flat_map(|migrator| migrator.iter()) {
                let mut sql = migration.sql.as_str().to_owned();
                if sabotage == Some(Sabotage::IgnoreTheExpectedVersion) {
                    sql = sql.replace("PRIMARY KEY (stream_id, version)", "CHECK (version > 0)");
                }
                connection.execute_batch(&sql)?;
            }
            tables.insert(name, connection);
        }
        Ok(Self(tables))
    }

    /// The empty database of one service.
    #[must_use]
    pub fn of(&self, service: &str) -> &Connection {
        &self.0[service]
    }
}
