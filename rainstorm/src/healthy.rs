//! `rainstorm healthy`: asks a service whether it is ready. For containers, which hold nothing else that could ask.

use std::time::Duration;

#[derive(Debug, clap::Args)]
pub struct HealthyArgs {
    /// What to ask; without it, the readiness of whatever listens on `--port` here.
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// The port to ask here.
    #[arg(long, env = "PORT", default_value_t = 8080)]
    port: u16,
}

/// Why it is not.
#[derive(Debug, thiserror::Error)]
pub enum HealthyError {
    #[error("{url} does not answer: {source}")]
    Silent { url: String, source: reqwest::Error },
    #[error("{url} answers {status}: {body}")]
    NotReady { url: String, status: reqwest::StatusCode, body: String },
}

/// Returns if the answer is a good one.
pub async fn healthy(args: HealthyArgs) -> Result<(), HealthyError> {
    let url = args.url.unwrap_or_else(|| format!("http://127.0.0.1:{}/healthz/ready", args.port));
    let silent = |source| HealthyError::Silent { url: url.clone(), source };
    let client = eventing::http::client().timeout(Duration::from_secs(3)).build().map_err(silent)?;
    let answer = client.get(&url).send().await.map_err(silent)?;
    let status = answer.status();
    if status.is_success() {
        return Ok(());
    }
    Err(HealthyError::NotReady { status, body: answer.text().await.unwrap_or_default().trim().to_owned(), url })
}
