//! Proof that the simulation can fail: each of these breaks one promise on purpose, at the edge where services meet
//! their store and their log, so that the services' own code stays what it is. Every one of them must be found.

/// A promise that is broken, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Sabotage {
    /// A commit is answered before it is durable, and a crash loses it.
    CommitLater,
    /// Events go onto the log before the transaction that stores them is committed.
    PublishBeforeCommit,
    /// The log acknowledges records before it has them, and loses some.
    AcknowledgeFirst,
    /// Nobody comes to sweep out what a crash left unpublished.
    NoTicks,
    /// The events of a stream reach the log in the reverse of their order.
    ReorderTheOutbox,
    /// A published event is not always told in the same bytes.
    OtherBytes,
    /// Nobody remembers what was handled.
    SkipTheInbox,
    /// An append is not refused when the stream has moved on.
    IgnoreTheExpectedVersion,
    /// A group's position moves on before its batch is answered for.
    CommitOffsetsFirst,
    /// The log forgets its oldest record.
    ForgetTheOldest,
    /// A view's row is overwritten although another instance has changed it.
    IgnoreTheRevision,
    /// A view's row and the timeline beside it are not one transaction.
    HalfATransaction,
    /// Attempts are not counted before an event is handled, so one that crashes its handler is tried for ever.
    DontCountAttempts,
    /// Events don't park behind a dead letter of their stream.
    DontPark,
    /// The payment provider forgets under which keys it was asked.
    ForgetTheKeys,
    /// Refunds are confirmed but not made.
    KeepTheMoney,
    /// Who waits for a driver is forgotten.
    ForgetWhoWaits,
    /// A driver stays free although an order was given to them.
    ForgetWhoRides,
    /// Who is told to stop ends at once, whatever it has begun.
    StopAtOnce,
    /// While the log is out, nothing is stored either.
    WaitForTheLog,
}

impl Sabotage {
    /// The number of the promise that is broken, as `docs/reliability.md` counts them.
    #[must_use]
    pub fn promise(self) -> u8 {
        match self {
            Self::CommitLater | Self::AcknowledgeFirst | Self::NoTicks | Self::CommitOffsetsFirst => 1,
            Self::PublishBeforeCommit | Self::ReorderTheOutbox | Self::OtherBytes => 2,
            Self::SkipTheInbox | Self::IgnoreTheExpectedVersion => 3,
            Self::DontCountAttempts | Self::DontPark => 4,
            Self::ForgetTheOldest => 5,
            Self::IgnoreTheRevision | Self::HalfATransaction => 6,
            Self::ForgetTheKeys | Self::KeepTheMoney | Self::ForgetWhoWaits | Self::ForgetWhoRides => 7,
            Self::StopAtOnce | Self::WaitForTheLog => 8,
        }
    }
}
