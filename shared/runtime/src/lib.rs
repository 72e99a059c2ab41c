//! What every service needs to run and knows nothing about any of them: settings, HTTP with clear answers, health,
//! metrics, graceful shutdown.

pub mod extract;
pub mod metrics;
mod openapi;
pub mod problem;
pub mod server;
pub mod service;
pub mod settings;
pub mod telemetry;

pub use problem::Problem;
pub use service::{Service, Stop};

/// What a service tells: warnings.
pub const WARNINGS: &str = "warn";
/// What a tool tells that walks through whole stores: its statements are slow by nature, and no news.
pub const WARNINGS_BUT_SLOW_STATEMENTS: &str = "warn,sqlx::query=error";
