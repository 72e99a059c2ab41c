//! Letters as people read them: a table, a JSON list, one of them whole.

use std::fmt::Write;

use cloudevents::{AttributesReader, Data};
use eventing::dead_letters::State;
use jiff::Timestamp;
use serde_json::json;

use super::Letter;

/// Bytes of a hexadecimal line.
const LINE: usize = 32;

/// Prints the open letters; `all`: the closed ones, too.
pub fn list(letters: &[Letter], all: bool, as_json: bool) {
    let shown: Vec<_> = letters.iter().filter(|letter| all || letter.state().is_open()).collect();
    if as_json {
        let list: Vec<_> = shown.iter().map(|letter| in_json(letter, letters)).collect();
        println!("{:#}", json!(list));
        return;
    }
    if shown.is_empty() {
        println!("no dead letters");
        return;
    }
    let header =
        ["service", "id", "subject", "type", "state", "attempts", "age", "behind", "reason"].map(ToOwned::to_owned);
    let rows: Vec<[String; 9]> =
        std::iter::once(header).chain(shown.iter().map(|letter| row(letter, letters))).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..8).map(width).collect();
    for row in &rows {
        let mut line = String::new();
        for (text, width) in row.iter().zip(&widths) {
            let _ = write!(line, "{text:<width$}  ");
        }
        println!("{line}{}", row[8]);
    }
}

fn row(it: &Letter, all: &[Letter]) -> [String; 9] {
    let letter = &it.history.letter;
    let behind = if it.state() == State::Failed { it.behind(all).count().to_string() } else { String::new() };
    [
        it.service.clone(),
        it.name(),
        it.subject().to_owned(),
        it.event_type().to_owned(),
        state(it).to_owned(),
        letter.attempts.to_string(),
        age(&letter.time),
        behind,
        letter.reason.clone(),
    ]
}

fn in_json(it: &Letter, all: &[Letter]) -> serde_json::Value {
    let letter = &it.history.letter;
    json!({
        "service": it.service,
        "id": it.name(),
        "event_id": letter.event.id(),
        "source": letter.event.source(),
        "subject": it.subject(),
        "order_id": it.order(),
        "type": letter.event.ty(),
        "state": it.state(),
        "known_to_the_service": it.history.known,
        "attempts": letter.attempts,
        "reason": letter.reason,
        "time": letter.time,
        "position": letter.position,
        "parked_behind_it": it.behind(all).count(),
        "topic": letter.origin.topic,
        "partition": letter.origin.partition,
        "offset": letter.origin.offset,
    })
}

/// The state, and whether the service has heard of it at all.
fn state(it: &Letter) -> &'static str {
    if it.history.known { it.state().name() } else { "refused" }
}

/// For how long it has been so.
fn age(time: &str) -> String {
    let Ok(time) = time.parse::<Timestamp>() else { return String::new() };
    let seconds = Timestamp::now().duration_since(time).as_secs().max(0);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86400 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86400),
    }
}

/// Prints everything that is known of a letter.
pub fn show(it: &Letter) {
    let letter = &it.history.letter;
    let known = |text: Option<String>| text.unwrap_or_else(|| "unknown".to_owned());
    let place = [
        ("topic", letter.origin.topic.clone()),
        ("partition", letter.origin.partition.map(|it| it.to_string())),
        ("offset", letter.origin.offset.map(|it| it.to_string())),
    ];
    println!("dead letter {} of {}: {}", it.name(), it.service, state(it));
    println!("  reason        {}", letter.reason);
    println!("  attempts      {}", letter.attempts);
    println!("  order         {}", known(it.order()));
    for (name, value) in place {
        println!("  {name:<13} {}", known(value));
    }
    if let Some(key) = letter.origin.key() {
        println!("  key           {}", line(&key));
    }
    println!("the event");
    let mut attributes: Vec<_> = letter.event.iter().map(|(name, value)| (name, value.to_string())).collect();
    attributes.sort();
    for (name, value) in attributes {
        println!("  {name:<15} {value}");
    }
    let headers = letter.origin.headers();
    if !headers.is_empty() {
        println!("headers that are no part of it");
        headers.iter().for_each(|(name, value)| println!("  {name:<15} {}", line(value)));
    }
    let bytes = match letter.event.data() {
        None => Vec::new(),
        Some(Data::Binary(bytes)) => bytes.clone(),
        Some(Data::String(text)) => text.clone().into_bytes(),
        Some(Data::Json(value)) => value.to_string().into_bytes(),
    };
    println!("its {} bytes", bytes.len());
    print!("{}", whole(&bytes));
    println!("what has happened to it");
    for step in &it.history.steps {
        println!("  {:<27} {:<16} {}", step.time, step.what, step.why);
    }
}

fn text(bytes: &[u8]) -> Option<&str> {
    let legible = |text: &&str| !text.chars().any(|it| it.is_control() && !it.is_whitespace());
    std::str::from_utf8(bytes).ok().filter(legible)
}

/// A few bytes in one line.
fn line(bytes: &[u8]) -> String {
    match text(bytes) {
        Some(text) => text.to_owned(),
        None => format!("0x{}", hex(bytes)),
    }
}

/// As text, or in hexadecimal lines.
fn whole(bytes: &[u8]) -> String {
    match text(bytes) {
        Some("") => String::new(),
        Some(text) => format!("  {text}\n"),
        None => bytes.chunks(LINE).map(|bytes| format!("  {}\n", hex(bytes))).collect(),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_shown_as_text_where_they_are_text_and_in_hexadecimal_where_not() {
        assert_eq!(whole(b""), "");
        assert_eq!(whole(b"{\"a\":\n1}"), "  {\"a\":\n1}\n");
        assert_eq!(whole(&[0, 255]), "  00ff\n");
        assert_eq!(whole(&[7; 33]).lines().count(), 2);
        assert_eq!((line("Käse".as_bytes()), line(&[200])), ("Käse".to_owned(), "0xc8".to_owned()));
    }
}
