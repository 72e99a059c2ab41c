//! The one grammar of tests for a [`Decider`]: `given([events]).when(command).then([events])`.

use crate::Decider;

/// The events that have happened; an empty list for a stream that doesn't exist yet.
#[must_use]
pub fn given<D: Decider>(events: impl IntoIterator<Item = D::Event>) -> Given<D> {
    Given(D::fold(events))
}

/// A state that waits for its command.
pub struct Given<D: Decider>(D);

impl<D: Decider> Given<D> {
    /// Decides, and holds the outcome for one of the `then`s.
    pub fn when(self, command: D::Command) -> Outcome<D> {
        Outcome(self.0.decide(command))
    }

    /// The state itself, where a test is about what the events mean.
    pub fn state(self) -> D {
        self.0
    }
}

/// What came of the command.
#[must_use = "an outcome that nobody looks at tests nothing"]
pub struct Outcome<D: Decider>(Result<Vec<D::Event>, D::Rejection>);

impl<D: Decider> Outcome<D> {
    /// Exactly these events follow, in this order.
    #[track_caller]
    #[allow(clippy::panic, reason = "this is a test's assertion")]
    pub fn then(self, expected: impl IntoIterator<Item = D::Event>) {
        match self.0 {
            Ok(events) => assert_eq!(events, expected.into_iter().collect::<Vec<_>>()),
            Err(rejection) => panic!("expected events, but the command was rejected: {rejection}"),
        }
    }

    /// Nothing follows: there was nothing (more) to do.
    #[track_caller]
    pub fn then_nothing(self) {
        self.then([]);
    }

    /// The command is refused for this reason.
    #[track_caller]
    #[allow(clippy::panic, reason = "this is a test's assertion")]
    pub fn then_rejected(self, expected: &D::Rejection)
    where
        D::Rejection: PartialEq,
    {
        match self.0 {
            Ok(events) => panic!("expected the rejection \"{expected}\", but these events followed: {events:?}"),
            Err(rejection) => assert_eq!(&rejection, expected),
        }
    }
}
