//! `rainstorm dead-letters`: what the services could not handle, read from their topics of dead letters alone, and the
//! wish that a letter be redelivered or discarded, which is put there.

mod asking;
mod showing;

pub use asking::{first_ones, wish_for};

use std::{path::PathBuf, sync::Arc};

use cloudevents::{AttributesReader, event::ExtensionValue};
use eventing::{
    LogSettings, NOT_A_CLOUD_EVENT, StartError,
    dead_letters::{History, State, histories},
    log::{EventLog, LogError},
};

use crate::{demo, lag::open_log, services};

#[derive(Debug, clap::Args)]
pub struct DeadLettersArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List what is open: what failed, why, and how much waits behind it.
    List(ListArgs),
    /// Show one letter whole, with what has happened to it.
    Show(ShowArgs),
    /// Hand letters to their service again, each with what waits behind it.
    Redeliver(RedeliverArgs),
    /// Give a letter up and let what waits behind it go on.
    Discard(DiscardArgs),
}

#[derive(Debug, clap::Args)]
struct ListArgs {
    /// Those that were redelivered or discarded, too.
    #[arg(long)]
    all: bool,
    /// Print a JSON list.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: Place,
}

#[derive(Debug, clap::Args)]
struct ShowArgs {
    /// The letter's id, or the beginning of it.
    id: String,
    #[command(flatten)]
    place: Place,
}

#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("which").required(true))]
struct RedeliverArgs {
    /// The letter's id, or the beginning of it.
    #[arg(group = "which")]
    id: Option<String>,
    /// Every letter of this subject, or of this order.
    #[arg(long, visible_alias = "order", value_name = "ID", group = "which")]
    subject: Option<String>,
    /// Every letter, of one service if --service names it.
    #[arg(long, group = "which")]
    all: bool,
    #[command(flatten)]
    door: DoorArgs,
    #[command(flatten)]
    place: Place,
}

#[derive(Debug, clap::Args)]
struct DiscardArgs {
    /// The letter's id, or the beginning of it.
    id: String,
    /// Don't ask.
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    door: DoorArgs,
    #[command(flatten)]
    place: Place,
}

#[derive(Debug, clap::Args)]
struct DoorArgs {
    /// Tell the service at its door instead of on the log: where several services answer, or one with its `/events`.
    /// Where a demo runs this is how it hears, at http://127.0.0.1:8080 unless said otherwise.
    #[arg(long)]
    url: Option<String>,
}

/// Where the letters are.
#[derive(Debug, clap::Args)]
struct Place {
    /// Only those of this service.
    #[arg(long)]
    service: Option<String>,
    /// Folder with the KafkaSource manifests, which name the services; without it, the ones this program was built with.
    #[arg(long, env = "SOURCES", value_name = "DIR")]
    sources: Option<PathBuf>,
    /// The demo's data folder, which is looked at where no Kafka is named.
    #[arg(long, value_name = "DIR", default_value = demo::DATA)]
    data: PathBuf,
    #[command(flatten)]
    log: LogSettings,
}

/// Why nothing was done.
#[derive(Debug, thiserror::Error)]
pub enum DeadLettersError {
    #[error(transparent)]
    Start(#[from] StartError),
    #[error(transparent)]
    Log(#[from] LogError),
    #[error("--service {0}: there is no such service; there are {1}")]
    Service(String, String),
    #[error("there is no dead letter {0}; `rainstorm dead-letters list --all` names those there are")]
    Unknown(String),
    #[error("{0} may be any of these; give more of the id, or --service: {1}")]
    Ambiguous(String, String),
    #[error("dead letter {0} is {1}: nothing waits there any more")]
    Closed(String, &'static str),
    #[error("dead letter {0} is not the first of its subject; discard or redeliver what comes first: {1}")]
    NotFirst(String, String),
    #[error("nothing is discarded without a yes; say it with --yes, as there is nobody to be asked here")]
    NobodyToAsk,
    #[error("nothing is discarded")]
    NotWished,
    #[error("{url} does not take it: {reason}; is the service there? --url says where else it may be")]
    NotTaken { url: String, reason: String },
    #[error("no wish can be made of it: {0}")]
    Wish(#[from] eventing::EventError),
    #[error("standard input: {0}")]
    Input(#[from] std::io::Error),
}

/// `rainstorm dead-letters …`
pub async fn dead_letters(args: DeadLettersArgs) -> Result<(), DeadLettersError> {
    match args.command {
        Command::List(ListArgs { all, json, place }) => {
            showing::list(&place.letters().await?, all, json);
            Ok(())
        }
        Command::Show(ShowArgs { id, place }) => {
            let letters = place.letters().await?;
            showing::show(find(&letters, &id)?);
            Ok(())
        }
        Command::Redeliver(args) => asking::redeliver(args).await,
        Command::Discard(args) => asking::discard(args).await,
    }
}

impl Place {
    async fn log(&self) -> Result<Arc<dyn EventLog>, StartError> {
        open_log(&self.data, &self.log).await
    }

    /// Every letter that the topics tell of, by service, in the order of their places.
    async fn letters(&self) -> Result<Vec<Letter>, DeadLettersError> {
        let mut names = services::sources(self.sources.as_deref())?.services();
        if let Some(service) = &self.service {
            if !names.contains(service) {
                return Err(DeadLettersError::Service(service.clone(), names.join(", ")));
            }
            names.retain(|name| name == service);
        }
        Ok(letters_of(&*self.log().await?, &names).await?)
    }
}

/// Every letter of these services, in the order of their places.
pub async fn letters_of(log: &dyn EventLog, services: &[String]) -> Result<Vec<Letter>, LogError> {
    let mut letters = Vec::new();
    for service in services {
        let told = histories(log, service).await?.into_values();
        let mut of_service: Vec<_> = told.map(|history| Letter { service: service.clone(), history }).collect();
        of_service.sort_by_key(|letter| (letter.history.letter.position, letter.name()));
        letters.extend(of_service);
    }
    Ok(letters)
}

/// A letter of a service.
#[derive(Debug, Clone)]
pub struct Letter {
    service: String,
    history: History,
}

impl Letter {
    fn state(&self) -> State {
        self.history.letter.state
    }

    fn subject(&self) -> &str {
        self.history.letter.subject()
    }

    /// What people call it: the event's id, or the place of a record that is no event.
    fn name(&self) -> String {
        let letter = &self.history.letter;
        let origin = &letter.origin;
        match (&origin.topic, origin.partition, origin.offset) {
            (Some(topic), Some(partition), Some(offset)) if letter.event.ty() == NOT_A_CLOUD_EVENT => {
                format!("{topic}:{partition}:{offset}")
            }
            _ => letter.event.id().to_owned(),
        }
    }

    /// `order.placed.v1`
    fn event_type(&self) -> &str {
        self.history.letter.event.ty().trim_start_matches(eventing::TYPE_PREFIX)
    }

    /// The order it belongs to, as far as that can be known.
    fn order(&self) -> Option<String> {
        match self.history.letter.event.extension("correlationid") {
            Some(ExtensionValue::String(order)) => Some(order.clone()),
            _ => Some(self.subject().to_owned()).filter(|subject| !subject.is_empty()),
        }
    }

    /// Those that wait behind it, in their order.
    fn behind<'a>(&'a self, all: &'a [Self]) -> impl Iterator<Item = &'a Self> {
        let of_subject = move |other: &&Self| {
            !self.subject().is_empty() && other.service == self.service && other.subject() == self.subject()
        };
        let later = move |other: &&Self| other.history.letter.position > self.history.letter.position;
        let open = all.iter().filter(of_subject).filter(later).filter(|other| other.state().is_open());
        open.take_while(|other| other.state() == State::Parked)
    }
}

/// The one letter that is meant by `id`.
fn find<'a>(letters: &'a [Letter], id: &str) -> Result<&'a Letter, DeadLettersError> {
    let named = |letter: &&Letter| letter.name() == id || letter.history.letter.event.id() == id;
    let mut found: Vec<_> = letters.iter().filter(named).collect();
    if found.is_empty() {
        found = letters.iter().filter(|letter| letter.name().starts_with(id)).collect();
    }
    match found.as_slice() {
        [] => Err(DeadLettersError::Unknown(id.to_owned())),
        [only] => Ok(only),
        several => {
            let names: Vec<_> =
                several.iter().map(|letter| format!("{} of {}", letter.name(), letter.service)).collect();
            Err(DeadLettersError::Ambiguous(id.to_owned(), names.join(", ")))
        }
    }
}
