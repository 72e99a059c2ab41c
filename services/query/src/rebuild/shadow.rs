//! The tables of a view that is being rebuilt: made by the same statements as the live ones, under other names, and
//! named like those in the end.

use event_sourcing::{Database, Index, Write};

use crate::{MIGRATIONS, batch::Tables};

/// The views that nobody is shown yet.
pub(super) const REBUILT: Tables = Tables {
    orders: "orders_rebuilt",
    kitchens: "kitchens_rebuilt",
    drivers: "drivers_rebuilt",
    timeline: "timeline_rebuilt",
    stats: "stats_rebuilt",
    revision: 0,
};
const SUFFIX: &str = "_rebuilt";

/// The statements that make the live tables.
fn statements() -> Vec<String> {
    let all: Vec<&str> = MIGRATIONS.iter().map(|migration| migration.sql.as_str()).collect();
    let all = all.join(";\n");
    let code: Vec<&str> = all.lines().filter(|line| !line.trim_start().starts_with("--")).collect();
    let code = code.join(" ");
    code.split(';').map(|it| it.split_whitespace().collect::<Vec<_>>().join(" ")).filter(|it| !it.is_empty()).collect()
}

/// The word behind `keyword`: a name.
fn name<'a>(statement: &'a str, keyword: &str) -> Option<&'a str> {
    statement.split(' ').skip_while(|word| *word != keyword).nth(1)
}

/// The same statement, with other names.
fn beside(statement: &str) -> String {
    let mut is_name = false;
    let words = statement.split(' ').map(|word| {
        let renamed = if is_name { format!("{word}{SUFFIX}") } else { word.to_owned() };
        is_name = ["TABLE", "INDEX", "ON", "INTO"].contains(&word);
        renamed
    });
    words.collect::<Vec<_>>().join(" ")
}

/// Makes the tables, empty. Those of a rebuild that was broken off are dropped.
pub(super) async fn create(database: &Database) -> Result<(), sqlx::Error> {
    remove(database).await?;
    let mut write = database.write().await?;
    for statement in statements() {
        write.execute(beside(&statement), []).await?;
    }
    write.commit().await
}

/// Drops the tables.
pub(super) async fn remove(database: &Database) -> Result<(), sqlx::Error> {
    let mut write = database.write().await?;
    for table in statements().iter().filter_map(|statement| name(statement, "TABLE")) {
        write.execute(format!("DROP TABLE IF EXISTS {table}{SUFFIX}"), []).await?;
    }
    write.commit().await
}

/// Puts the tables in the place of the live ones, with their indexes.
pub(super) async fn swap(write: &mut Write) -> Result<(), sqlx::Error> {
    let statements = statements();
    for table in statements.iter().filter_map(|statement| name(statement, "TABLE")) {
        let of_table = statements.iter().filter(|statement| name(statement, "ON") == Some(table));
        let indexes: Vec<Index> = of_table
            .filter_map(|definition| {
                let name = name(definition, "INDEX")?;
                Some(Index { new: format!("{name}{SUFFIX}"), name: name.to_owned(), definition: definition.clone() })
            })
            .collect();
        write.replace(table, &format!("{table}{SUFFIX}"), &indexes).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_statements_with_other_names_make_the_tables_beside_the_live_ones() {
        let index = "CREATE INDEX orders_status ON orders (status, order_id)";
        assert!(statements().contains(&index.to_owned()));
        assert_eq!(beside(index), "CREATE INDEX orders_status_rebuilt ON orders_rebuilt (status, order_id)");
        let tables: Vec<String> =
            statements().iter().filter_map(|it| Some(format!("{}{SUFFIX}", name(it, "TABLE")?))).collect();
        assert_eq!(tables, [REBUILT.orders, REBUILT.timeline, REBUILT.kitchens, REBUILT.drivers, REBUILT.stats]);
    }
}
