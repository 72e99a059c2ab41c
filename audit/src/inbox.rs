//! The inboxes against the log: an event has its effect once because its id is remembered in the same transaction. So
//! whatever an event caused must be remembered, and whatever is remembered must have caused something.

use event_sourcing::Database;

use crate::{
    AuditError,
    hashes::Hashes,
    report::{Check, Who},
    run::Audit,
    services::{SERVICES, hash},
    stores::PAGE,
};

/// The effects of one service's events and commands: a cause, and the stream it has changed.
#[derive(Debug, Default)]
pub struct Effects {
    /// Those that must be remembered.
    remembered: Hashes,
    /// Those that may be.
    others: Hashes,
}

/// What stands for an effect: its service, the hash of its cause's id, and the stream.
#[must_use]
pub fn effect(service: usize, cause: u64, subject: &str) -> u64 {
    hash(&[&service.to_be_bytes(), &cause.to_be_bytes(), subject.as_bytes()])
}

impl Effects {
    pub fn note(&mut self, effect: u64, is_remembered: bool) {
        if is_remembered { self.remembered.insert(effect) } else { self.others.insert(effect) }
    }
}

impl Audit<'_> {
    /// Walks through a service's inbox.
    pub async fn sweep_inbox(&mut self, service: usize, database: &Database) -> Result<(), AuditError> {
        let broken = || AuditError::store(SERVICES[service].name);
        let mut effects = std::mem::take(&mut self.effects[service]);
        effects.remembered.settle();
        effects.others.settle();
        let mut remembered = vec![false; effects.remembered.all().len()];
        let mut after = [String::new(), String::new()];
        let sql = "SELECT source, id, stream_id FROM inbox WHERE done = 1 AND (source, id) > ($1, $2) \
                   ORDER BY source, id LIMIT $3";
        loop {
            let values = [after[0].as_str().into(), after[1].as_str().into(), PAGE.into()];
            let rows = database.fetch(sql, values).await.map_err(broken())?;
            let Some(last) = rows.last() else { break };
            after = [last.text(0).map_err(broken())?, last.text(1).map_err(broken())?];
            for row in &rows {
                let (source, id) = (row.str(0).map_err(broken())?, row.str(1).map_err(broken())?);
                let is_command = source == "command";
                // An event that changed only a table beside the events names no stream.
                for stream in row.str(2).map_err(broken())?.split(' ').filter(|stream| !stream.is_empty()) {
                    self.tally.checked(if is_command { Check::Commands } else { Check::Inbox }, 1);
                    let effect = effect(service, hash(&[id.as_bytes()]), stream);
                    if let Some(place) = effects.remembered.place(effect) {
                        remembered[place] = true;
                    } else if !effects.others.contains(effect)
                        && !has_effect(database, stream, id).await.map_err(broken())?
                    {
                        let name = SERVICES[service].name;
                        let (check, what) = match is_command {
                            true => {
                                (Check::Commands, format!("{name} accepted the command {id}, and nothing came of it"))
                            }
                            false => {
                                (Check::Inbox, format!("{name} remembers {id} of {source}, and nothing came of it"))
                            }
                        };
                        self.tally.fail(check, Who::Subject(stream.to_owned()), None, what);
                    }
                }
            }
        }
        let forgotten = effects.remembered.all().iter().zip(remembered).filter(|(_, remembered)| !remembered);
        for (effect, _) in forgotten {
            let what = format!(
                "{} doesn't remember what caused this: told again, it would happen again",
                SERVICES[service].name
            );
            self.tally.fail(Check::Inbox, Who::Effect(*effect), None, what);
        }
        Ok(())
    }
}

/// Whether the store itself has the effect: what isn't published yet, or came while the log was read.
async fn has_effect(database: &Database, stream: &str, cause: &str) -> Result<bool, sqlx::Error> {
    let sql = "SELECT version FROM events WHERE stream_id = $1 AND causation_id = $2";
    Ok(!database.fetch(sql, [stream.into(), cause.into()]).await?.is_empty())
}
