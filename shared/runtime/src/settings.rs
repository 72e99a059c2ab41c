//! Settings are environment variables, and flags of the same names. One that nobody knows is an error that names it,
//! and so is one that is all but spelt right: a typo must not pass for a default.

use std::{process::ExitCode, time::Duration};

use clap::Parser;

use crate::telemetry;

/// Parses flags and environment; on an error, prints it and says with which status to leave.
///
/// # Errors
/// The exit status, after the explanation was printed.
pub fn parse<S: Parser>() -> Result<S, ExitCode> {
    let mut known = known_variables(&S::command());
    known.extend(telemetry::VARIABLES.map(ToOwned::to_owned));
    let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    if let Some((typo, meant)) = names.filter_map(|name| misspelt(&name, &known)).next() {
        eprintln!("error: there is no setting {typo}; did you mean {meant}?");
        return Err(ExitCode::from(2));
    }
    S::try_parse().map_err(|error| {
        // An explanation that nobody hears changes nothing about the status.
        let _ = error.print();
        let text = error.to_string();
        for (flag, variable) in flags(&S::command()).into_iter().filter(|_| error.use_stderr()) {
            if text.contains(&format!("{flag} ")) {
                eprintln!("note: {flag} may also come from the environment, as {variable}");
            }
        }
        ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
    })
}

fn known_variables(command: &clap::Command) -> Vec<String> {
    let own = command.get_arguments().filter_map(|argument| argument.get_env()?.to_str().map(ToOwned::to_owned));
    own.chain(command.get_subcommands().flat_map(known_variables)).collect()
}

/// Every flag that has a variable, with it.
fn flags(command: &clap::Command) -> std::collections::BTreeSet<(String, String)> {
    let own = command
        .get_arguments()
        .filter_map(|argument| Some((format!("--{}", argument.get_long()?), argument.get_env()?.to_str()?.to_owned())));
    own.chain(command.get_subcommands().flat_map(flags)).collect()
}

/// The setting that was meant, if `name` is one or two letters off. Short names are too close to everything.
fn misspelt(name: &str, known: &[String]) -> Option<(String, String)> {
    if known.iter().any(|known| known == name) {
        return None;
    }
    let close = |known: &&String| known.len() >= 8 && strsim::damerau_levenshtein(name, known) <= 2;
    known.iter().find(close).map(|meant| (name.to_owned(), meant.clone()))
}

/// A span of time as people write it: `300ms`, `10s`, `2m`, `1h`.
///
/// # Errors
/// What is wrong with the text.
pub fn duration(text: &str) -> Result<Duration, String> {
    let explain = || format!("{text:?} is no span of time; write it like 300ms, 10s, 2m or 1h");
    let span: jiff::SignedDuration = text.parse().map_err(|_| explain())?;
    Duration::try_from(span).map_err(|_| explain())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_setting_is_found_and_a_foreign_one_left_alone() {
        let known = ["DATABASE_URL", "KAFKA_BROKERS", "PORT"].map(ToOwned::to_owned);
        let meant = |name| misspelt(name, &known).map(|(_, meant)| meant);
        assert_eq!(meant("DATABSE_URL").as_deref(), Some("DATABASE_URL"));
        assert_eq!(meant("KAFKA_BROKER").as_deref(), Some("KAFKA_BROKERS"));
        for foreign in ["PATH", "POST", "DATABASE_URL", "KAFKA_SERVICE_HOST", "HOME"] {
            assert_eq!(meant(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn spans_of_time_read_as_people_write_them() {
        assert_eq!(duration("300ms"), Ok(Duration::from_millis(300)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        assert!(duration("soon").unwrap_err().contains("soon"));
        assert!(duration("-1s").is_err());
    }
}
