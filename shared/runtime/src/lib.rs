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

/// Logs for people on stderr; `RUST_LOG` chooses what (default: warnings).
pub fn start_logging() {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn"));
    // A second start in one process (tests) keeps the first.
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).try_init();
}
