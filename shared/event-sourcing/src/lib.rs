//! Event sourcing: decide what happens, store it, fold it into state.

mod decider;
pub mod specification;

pub use decider::{Decider, DomainEvent, MalformedEvent, decode, encode};
