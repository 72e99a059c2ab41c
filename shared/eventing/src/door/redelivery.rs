//! What becomes of dead letters that somebody takes up again: one is handed to the handler once more, or given up, and
//! what waits behind it follows, in order. Whatever ends in between, the wish is told again and this goes on where it
//! was: what has had its effect is found in the inbox.

use cloudevents::{AttributesReader, Event};

use super::{ALONE_FROM, Door, InHand, MAX_ATTEMPTS, Sorted};
use crate::{
    Failure, Incoming, NOT_A_CLOUD_EVENT,
    dead_letters::{DeadLetter, LOGGED_ON, REDELIVERY_REQUESTED, State, named_by},
    from_record,
    origin::ON_THE_WAY,
};

impl Door {
    /// Takes in what a bridge or Knative could not tell; it may have had its effect all the same.
    pub(super) async fn adopt(&self, mut letter: DeadLetter) -> Result<(), Failure> {
        let key = letter.key();
        if self.known(vec![key.clone()]).await?.get(&key).is_some_and(|known| known.done) {
            letter.state = State::Redelivered;
        }
        self.bury(vec![letter]).await
    }

    /// Does what somebody wishes of a dead letter. A wish that isn't on the log yet is put there, and heard of again.
    pub(super) async fn grant(&self, wish: Event) -> Result<(), Failure> {
        if wish.extension(LOGGED_ON).is_none_or(|topic| topic.to_string() != self.letters.topic()) {
            return self.letters.log(wish).await;
        }
        let Some(key) = named_by(&wish) else {
            tracing::warn!(wish = wish.id(), "it names no dead letter");
            return Ok(());
        };
        // What has happened is told before something else happens.
        self.letters.publish().await?;
        let subject = match self.letters.find(&key).await? {
            None => wish.subject().unwrap_or_default().to_owned(),
            Some(letter) => {
                let subject = letter.subject().to_owned();
                if wish.ty() == REDELIVERY_REQUESTED {
                    if subject.is_empty() {
                        return self.hand_over(letter).await.map(|_| ());
                    }
                } else if !self.give_up(letter).await? {
                    return Ok(());
                }
                subject
            }
        };
        self.go_on(&subject, &key).await
    }

    /// Hands over what is open of `subject`, in order: all up to the letter of this key, if that is open, and then what is
    /// parked. What can't be handled still stops it.
    async fn go_on(&self, subject: &str, key: &[String; 2]) -> Result<(), Failure> {
        while let Some(first) = self.letters.first(subject).await? {
            if first.state == State::Failed && self.letters.find(key).await?.is_none() {
                break;
            }
            if !self.hand_over(first).await? {
                break;
            }
        }
        Ok(())
    }

    /// Hands a letter to the handler, alone if it was tried several times; false if it can't be handled still.
    async fn hand_over(&self, letter: DeadLetter) -> Result<bool, Failure> {
        // What was no event may be one to whoever reads it now.
        if letter.event.ty() == NOT_A_CLOUD_EVENT
            && let Ok(mut event) = from_record(&letter.origin.record(&letter.event))
        {
            letter.origin.place().put(&mut event, &ON_THE_WAY);
            match self.sort(event) {
                Sorted::Ours(event) => self.handle_ours(vec![*event]).await?,
                Sorted::Never(letter) => self.bury(vec![*letter]).await?,
                _ => {}
            }
            return self.close(&letter).await;
        }
        let mut event = letter.event.clone();
        letter.origin.put(&mut event, &ON_THE_WAY);
        let event = match self.sort(event) {
            Sorted::Ours(event) => *event,
            Sorted::Never(never) => {
                self.letters.failed_again(&letter, &never.reason, 1).await?;
                return Ok(false);
            }
            // It concerns nobody here any more.
            _ => return self.close(&letter).await,
        };
        let known = self.known(vec![letter.key()]).await?;
        let known = known.get(&letter.key());
        let attempts = letter.attempts.max(known.map_or(0, |known| known.attempts));
        let (_alone, _shared) = if attempts + 1 >= ALONE_FROM {
            (Some(self.room.write().await), None)
        } else {
            (None, Some(self.room.read().await))
        };
        match known {
            Some(known) if known.done => self.handler.seen(known.changed(&event.subject)).await?,
            Some(known) if known.attempts >= MAX_ATTEMPTS => {
                let reason = format!("its handler crashed {} times", known.attempts);
                self.letters.failed_again(&letter, &reason, known.attempts).await?;
                return Ok(false);
            }
            _ => {
                let (rejected, outcome) = self.try_now(vec![event]).await?;
                outcome?;
                if let Some((_, reason)) = rejected.into_iter().next() {
                    self.letters.failed_again(&letter, &reason, 1).await?;
                    return Ok(false);
                }
            }
        }
        self.close(&letter).await
    }

    async fn close(&self, letter: &DeadLetter) -> Result<bool, Failure> {
        self.letters.redelivered(letter).await?;
        self.metrics.events("redelivered", 1);
        Ok(true)
    }

    /// Gives a letter up, if it is the first of its subject; false if it isn't.
    async fn give_up(&self, letter: DeadLetter) -> Result<bool, Failure> {
        let first = self.letters.first(letter.subject()).await?;
        if !letter.subject().is_empty() && first.is_some_and(|first| first.key() != letter.key()) {
            tracing::warn!(event = letter.event.id(), "another letter of its subject comes first; it is not discarded");
            return Ok(false);
        }
        let Some(_taken) = InHand::take(&self.in_hand, vec![letter.key()]) else {
            return Err(Failure::Retry("it is being handled right now".to_owned()));
        };
        // Its data is what could not be read, perhaps.
        let mut bare = letter.event.clone();
        bare.take_data();
        if let Ok(event) = Incoming::read(bare) {
            self.handler.discard(&event).await?;
        }
        self.letters.discarded(&letter).await?;
        self.metrics.events("discarded", 1);
        Ok(true)
    }
}
