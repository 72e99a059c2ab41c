//! Event sourcing: decide what happens, store it, fold it into state.
//!
//! - [`Decider`] is the pure core that each service writes; [`specification`] is how it is tested.
//! - [`Store`] keeps the streams, in PostgreSQL or SQLite ([`Database`]); its `events` table is also the outbox.
//! - [`now`] and [`new_id`] are the only clock and the only source of ids, so that a simulation can be both.
//! - [`Work`] gathers everything that follows from one event, so that it happens together or not at all.

mod ambient;
mod database;
mod decider;
pub mod restore;
pub mod specification;
pub mod sqlite;
mod store;
mod trace;
mod work;

pub use ambient::{Ambient, chance, new_id, now, random_id, simulate};
pub use database::{
    Backend, Committed, Database, Index, PublishingLock, Row, Statement, StoreError, Transaction, Value, Write, lists,
    pieces, placeholders,
};
pub use decider::{Decider, DomainEvent, MalformedEvent, decode, encode};
pub use store::{HandleError, MIGRATIONS, Recorded, Store, Unit, fold};
pub use trace::{STORY, TraceContext};
pub use work::{Cause, ExecuteError, Stream, Work};
