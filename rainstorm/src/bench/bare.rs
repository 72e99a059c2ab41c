//! `rainstorm bare`: a web server of the same making as the services, with nothing behind it but, where a database is
//! named, one handler that writes one row. No service can be quicker to start or to answer, or smaller.

use std::net::Ipv4Addr;

use axum::{
    Json, Router,
    extract::State,
    http::StatusCode,
    routing::{get, post},
};
use event_sourcing::{Database, MIGRATIONS, Store, Unit};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::{BenchError, floors};

#[derive(Debug, clap::Args)]
pub struct BareArgs {
    /// Where rows are written; without it nothing is.
    #[arg(long, value_name = "URL")]
    database_url: Option<String>,
}

/// `rainstorm bare`, until it is told to stop.
pub async fn bare(args: BareArgs) -> Result<(), BenchError> {
    let mut router = Router::new().route("/healthz/ready", get(|| async {}));
    if let Some(url) = &args.database_url {
        let store = Store::new(Database::open(url, &[&MIGRATIONS]).await?);
        router = router.route("/orders", post(write).with_state(store));
    }
    let failed = |source| BenchError::Process { name: "bare".to_owned(), source };
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(failed)?;
    eprintln!("listening on port {}", listener.local_addr().map_err(failed)?.port());
    let stop = runtime::Stop::on_signal();
    let until = async move { stop.wait().await };
    axum::serve(listener, router).with_graceful_shutdown(until).await.map_err(failed)
}

/// Writes one row, of an event like others, in the transaction of whoever else writes now.
async fn write(State(store): State<Store>, Json(_order): Json<Value>) -> Result<(StatusCode, Json<Value>), StatusCode> {
    let event = floors::event();
    let id = event.stream_id.clone();
    let written = store.commit(Unit { events: vec![event], ..Unit::default() }).await;
    written.map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?;
    Ok((StatusCode::CREATED, Json(json!({"order_id": id}))))
}
