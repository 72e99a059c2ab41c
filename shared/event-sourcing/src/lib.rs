//! Event sourcing: decide what happens, store it, fold it into state.
//!
//! - [`Decider`] is the pure core that each service writes; [`specification`] is how it is tested.
//! - [`Store`] keeps the streams, in PostgreSQL or SQLite ([`Database`]); its `events` table is also the outbox.
//! - [`Work`] gathers everything that follows from one event, so that it happens together or not at all.

mod database;
mod decider;
pub mod specification;
mod store;
mod trace;
mod work;

pub use database::{Database, PublishingLock, Statement, StoreError, Value, Write, bind, insert, pieces, placeholders};
pub use decider::{Decider, DomainEvent, MalformedEvent, decode, encode};
pub use store::{HandleError, MIGRATIONS, Recorded, Store, Unit};
pub use trace::TraceContext;
pub use work::{Cause, ExecuteError, Stream, Work};
