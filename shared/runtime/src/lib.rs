//! What every service needs to run and knows nothing about any of them: settings, HTTP with clear answers, health,
//! metrics, graceful shutdown.

pub mod extract;
mod openapi;
pub mod problem;
pub mod server;
pub mod service;
pub mod settings;

pub use problem::Problem;
pub use service::{Service, Stop};

/// What a service tells: warnings.
pub const WARNINGS: &str = "warn";
/// What a tool tells that walks through whole stores: its statements are slow by nature, and no news.
pub const WARNINGS_BUT_SLOW_STATEMENTS: &str = "warn,sqlx::query=error";

/// Logs for people on stderr; `RUST_LOG` chooses what, and `otherwise` where it isn't set.
pub fn start_logging(otherwise: &str) {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(otherwise));
    // A second start in one process (tests) keeps the first.
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).try_init();
}
