//! Eventing: how events travel between services that never call each other.

pub mod bridge;
pub mod dead_letters;
mod door;
mod event;
mod handler;
pub mod http;
pub mod log;
mod metrics;
mod origin;
mod outbox;
mod platform;
mod reactor;
pub mod rebuild;
mod request;
pub mod sources;

pub use door::Door;
pub use event::{
    EventError, Incoming, NOT_A_CLOUD_EVENT, TICK, TYPE_PREFIX, complete, from_json, from_record, heading,
    name_and_version, published, published_by, to_record,
};
pub use handler::{Failure, Handled, Handler};
pub use metrics::Metrics;
pub use origin::Origin;
pub use outbox::Outbox;
pub use platform::{Identity, LogSettings, Platform, StartError, librdkafka_settings, listen_and_serve, run};
pub use reactor::{AsyncReact, Reactions, Reactor, Writer};
pub use request::events_of;
