//! The wish that letters be redelivered or discarded: put on the log, or where a demo keeps the log to itself, said at
//! its door.

use std::{
    collections::BTreeSet,
    io::{IsTerminal, Write},
    sync::Arc,
    time::Duration,
};

use eventing::{
    EventError, StartError,
    dead_letters::{DISCARD_REQUESTED, REDELIVERY_REQUESTED, State, logged, topic, wish},
    log::EventLog,
    to_record,
};

use super::{DeadLettersError, DiscardArgs, DoorArgs, Letter, Place, RedeliverArgs, find, showing};
use crate::demo;

/// Where a demo answers unless it was told otherwise.
const DEMO: &str = "http://127.0.0.1:8080";
const PATIENCE: Duration = Duration::from_secs(30);

pub async fn redeliver(args: RedeliverArgs) -> Result<(), DeadLettersError> {
    let letters = args.place.letters().await?;
    let chosen: Vec<&Letter> = match (&args.id, &args.subject) {
        (Some(id), _) => vec![still_open(find(&letters, id)?)?],
        (None, Some(subject)) => {
            let of_subject =
                |letter: &&Letter| letter.subject() == subject || letter.order().is_some_and(|order| order == *subject);
            let chosen = first_ones(letters.iter().filter(of_subject));
            if chosen.is_empty() {
                return Err(DeadLettersError::Unknown(format!("of {subject}")));
            }
            chosen
        }
        (None, None) => first_ones(letters.iter()),
    };
    if chosen.is_empty() {
        println!("no dead letters");
        return Ok(());
    }
    let way = Way::choose(&args.door, &args.place).await?;
    for letter in chosen {
        way.tell(letter, REDELIVERY_REQUESTED).await?;
        let behind = match letter.behind(&letters).count() {
            0 => String::new(),
            waiting => format!(", and the {waiting} behind it"),
        };
        println!("{}: {} {} is to be handled again{behind}", letter.service, letter.event_type(), letter.name());
    }
    way.explain();
    Ok(())
}

pub async fn discard(args: DiscardArgs) -> Result<(), DeadLettersError> {
    let letters = args.place.letters().await?;
    let letter = still_open(find(&letters, &args.id)?)?;
    let before = letters.iter().find(|other| {
        !letter.subject().is_empty()
            && (&other.service, other.subject()) == (&letter.service, letter.subject())
            && other.state().is_open()
            && other.history.letter.position < letter.history.letter.position
    });
    if let Some(before) = before {
        return Err(DeadLettersError::NotFirst(letter.name(), before.name()));
    }
    showing::show(letter);
    match letter.order() {
        Some(order) => println!("\nDiscarded, it leaves {order} unfinished: {} never handles it.", letter.service),
        None => println!("\nWhich order it leaves unfinished is not known: it names none."),
    }
    match letter.behind(&letters).count() {
        0 => println!("Nothing waits behind it."),
        waiting => println!("The {waiting} that wait behind it will be handled without it."),
    }
    if !args.yes {
        ask()?;
    }
    let way = Way::choose(&args.door, &args.place).await?;
    way.tell(letter, DISCARD_REQUESTED).await?;
    println!("{}: {} {} is to be discarded", letter.service, letter.event_type(), letter.name());
    way.explain();
    Ok(())
}

fn ask() -> Result<(), DeadLettersError> {
    if !std::io::stdin().is_terminal() {
        return Err(DeadLettersError::NobodyToAsk);
    }
    print!("Discard it? [y/N] ");
    std::io::stdout().flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    if ["y", "yes"].contains(&answer.trim().to_lowercase().as_str()) {
        Ok(())
    } else {
        Err(DeadLettersError::NotWished)
    }
}

fn still_open(letter: &Letter) -> Result<&Letter, DeadLettersError> {
    let state = letter.state();
    if state.is_open() { Ok(letter) } else { Err(DeadLettersError::Closed(letter.name(), state.name())) }
}

/// What failed; and of a subject of which nothing has, the first that waits.
pub fn first_ones<'a>(letters: impl Iterator<Item = &'a Letter>) -> Vec<&'a Letter> {
    let open: Vec<_> = letters.filter(|letter| letter.state().is_open()).collect();
    let stream = |letter: &Letter| (letter.service.clone(), letter.subject().to_owned());
    let failed = open.iter().filter(|letter| letter.state() == State::Failed).map(|letter| stream(letter));
    let mut begun: BTreeSet<_> = failed.collect();
    open.into_iter().filter(|letter| letter.state() == State::Failed || begun.insert(stream(letter))).collect()
}

/// Puts a wish on the log, where the letter's service hears of it.
pub async fn wish_for(log: &dyn EventLog, letter: &Letter, what: &str) -> Result<(), DeadLettersError> {
    let record = to_record(logged(wish(what, &letter.history.letter)?, &letter.service))?;
    Ok(log.append(&topic(&letter.service), vec![record]).await?)
}

/// How a service hears of a wish.
enum Way {
    Log(Arc<dyn EventLog>),
    /// A log that nobody holds now, and the right to it.
    Asleep(Arc<dyn EventLog>, #[expect(dead_code, reason = "it is held until the wish is written")] std::fs::File),
    Door(reqwest::Client, String),
}

impl Way {
    async fn choose(door: &DoorArgs, place: &Place) -> Result<Self, DeadLettersError> {
        let url = match &door.url {
            Some(url) => url.clone(),
            None if place.log.kafka_brokers.is_some() => return Ok(Self::Log(place.log().await?)),
            // The process that runs a demo is the only one that may write to its log.
            None => match demo::hold(&place.data, false) {
                Ok(held) => return Ok(Self::Asleep(place.log().await?, held)),
                Err(_) => DEMO.to_owned(),
            },
        };
        let client = eventing::http::client().timeout(PATIENCE).build();
        let client = client.map_err(|error| StartError::Setting(error.to_string()))?;
        Ok(Self::Door(client, url))
    }

    async fn tell(&self, letter: &Letter, what: &str) -> Result<(), DeadLettersError> {
        match self {
            Self::Log(log) | Self::Asleep(log, _) => wish_for(&**log, letter, what).await,
            Self::Door(client, url) => {
                let wish = wish(what, &letter.history.letter)?;
                let url = if url.ends_with("/events") {
                    url.clone()
                } else {
                    format!("{}/{}/events", url.trim_end_matches('/'), letter.service)
                };
                let body = serde_json::to_vec(&wish).map_err(|error| EventError::Invalid(error.to_string()))?;
                let request = client.post(&url).header("content-type", "application/cloudevents+json").body(body);
                let answer = request.send().await.and_then(reqwest::Response::error_for_status);
                let not_taken = |error: reqwest::Error| error.without_url().to_string();
                answer.map(|_| ()).map_err(|error| DeadLettersError::NotTaken { url, reason: not_taken(error) })
            }
        }
    }

    fn explain(&self) {
        if let Self::Asleep(..) = self {
            println!("No demo runs on this data: it takes effect when one is started next.");
        }
    }
}
