//! The dead letters of a service, from their own topic: what is open lies in the table again, what was discarded counts
//! as done, and what was redelivered has had its effect, which names its cause itself.

use std::collections::HashSet;

use event_sourcing::{Database, Value};

use super::RebuildError;
use crate::{
    dead_letters::{DeadLetter, State, histories},
    log::EventLog,
};

/// Source and id of events that have no effect, whatever the log says of them.
pub type WithoutEffect = HashSet<[String; 2]>;

/// Fills the dead letters' table; and the inbox, with what was discarded. Rows that are there stay as they are.
///
/// # Errors
/// If store or log don't answer.
pub async fn restore(service: &str, log: &dyn EventLog, database: &Database) -> Result<WithoutEffect, RebuildError> {
    let mut without_effect = WithoutEffect::new();
    let (mut open, mut discarded) = (Vec::new(), Vec::new());
    // What the service doesn't know of yet it will hear of.
    let letters = histories(log, service).await?.into_values().filter(|history| history.known);
    for letter in letters.map(|history| history.letter) {
        let [source, id] = letter.key();
        match letter.state {
            State::Failed | State::Parked => open.push(row(&letter)?),
            State::Discarded => discarded.push([source.into(), id.into(), 0.into(), 1.into(), "".into()]),
            State::Redelivered => continue,
        }
        without_effect.insert(letter.key());
    }
    let mut write = database.write_soon().await?;
    let columns =
        "dead_letters (source, id, subject, state, reason, attempts, time, position, origin, event, published)";
    write.insert(columns, open, "ON CONFLICT DO NOTHING").await?;
    write.insert("inbox (source, id, attempts, done, stream_id)", discarded, "ON CONFLICT DO NOTHING").await?;
    write.commit().await?;
    Ok(without_effect)
}

fn row(letter: &DeadLetter) -> Result<[Value; 11], sqlx::Error> {
    let json = |text: Result<String, serde_json::Error>| text.map_err(|error| sqlx::Error::Encode(error.into()));
    let [source, id] = letter.key();
    Ok([
        source.into(),
        id.into(),
        letter.subject().into(),
        letter.state.name().into(),
        letter.reason.as_str().into(),
        letter.attempts.into(),
        letter.time.as_str().into(),
        letter.position.into(),
        json(serde_json::to_string(&letter.origin))?.into(),
        json(serde_json::to_string(&letter.event))?.into(),
        1.into(),
    ])
}
