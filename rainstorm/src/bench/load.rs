//! Customers for a bench: as many orders under way as are asked for, no more and no fewer, for as long as it lasts. What
//! completes in that time is what the system can do, however long the queues would have grown otherwise.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use serde::Deserialize;
use tokio::{sync::Semaphore, task::JoinSet};

use super::{BenchError, city::City};
use crate::storm::{Orders, StormError};

/// Requests in flight at once.
const CUSTOMERS: usize = 32;
/// Between two looks at how many have ended.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How long nothing may end before the bench is given up.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a system has done in some time.
#[derive(Debug, Clone, Copy)]
pub struct Sustained {
    /// Orders completed a second.
    pub completed: f64,
    /// Seconds of processor time that the system's processes took for each.
    pub cpu: f64,
    /// Records that stand on the log for each.
    pub records: f64,
}

#[derive(Deserialize)]
struct Stats {
    funnel: Funnel,
}

#[derive(Deserialize)]
struct Funnel {
    completed: i64,
    cancelled: i64,
}

async fn ended(client: &reqwest::Client, city: &City) -> Result<(i64, i64), BenchError> {
    let answer = client.get(format!("{}/stats", city.url("query"))).send().await.map_err(BenchError::Http)?;
    let stats: Stats = answer.error_for_status().map_err(BenchError::Http)?.json().await.map_err(BenchError::Http)?;
    Ok((stats.funnel.completed, stats.funnel.cancelled))
}

/// Keeps `under_way` orders under way, counts for `length` after `warm_up`, and then lets what is under way end.
///
/// # Errors
/// If an order is not accepted, or nothing ends any more.
pub async fn sustained(
    city: &City,
    under_way: usize,
    warm_up: Duration,
    length: Duration,
) -> Result<Sustained, BenchError> {
    let client = eventing::http::client().timeout(Duration::from_secs(60)).build().map_err(BenchError::Http)?;
    let orders = Orders::at(&client, city.url("order"), city.url("query")).await?;
    let orders = Arc::new(std::sync::Mutex::new(orders));
    let room = Arc::new(Semaphore::new(under_way));
    let mut customers = JoinSet::new();
    for _ in 0..CUSTOMERS {
        customers.spawn(customer(client.clone(), city.url("order").to_owned(), orders.clone(), room.clone()));
    }

    let (completed, cancelled) = ended(&client, city).await?;
    let (before, mut known) = (completed + cancelled, completed + cancelled);
    let begun = Instant::now();
    let mut newest = Instant::now();
    let mut first = None;
    let sustained = loop {
        tokio::time::sleep(LOOK_EVERY).await;
        if let Some(gone) = customers.try_join_next() {
            gone.map_err(|error| BenchError::Refused(error.to_string()))??;
        }
        let (completed, cancelled) = ended(&client, city).await?;
        let now = completed + cancelled;
        if now > known {
            room.add_permits(usize::try_from(now - known).unwrap_or_default());
            (known, newest) = (now, Instant::now());
        } else if newest.elapsed() > PATIENCE {
            return Err(BenchError::Stuck(before, now));
        }
        if begun.elapsed() < warm_up {
            continue;
        }
        if first.is_none() {
            first = Some((city.records().await?, city.cpu(), completed, Instant::now()));
        }
        let Some((records_then, cpu_then, completed_then, since)) = first else { continue };
        if since.elapsed() >= length {
            #[allow(clippy::cast_precision_loss, reason = "far below 2⁵² orders")]
            let count = (completed - completed_then) as f64;
            let (seconds, cpu) = (since.elapsed().as_secs_f64(), city.cpu() - cpu_then);
            #[allow(clippy::cast_precision_loss, reason = "far below 2⁵² records")]
            let records = (city.records().await? - records_then) as f64;
            break Sustained { completed: count / seconds, cpu: cpu / count, records: records / count };
        }
    };
    // Whoever is about to order still does; nobody else comes.
    room.close();
    while let Some(gone) = customers.join_next().await {
        gone.map_err(|error| BenchError::Refused(error.to_string()))??;
    }
    Ok(sustained)
}

/// Orders whenever there is room, until there never will be again.
async fn customer(
    client: reqwest::Client,
    url: String,
    orders: Arc<std::sync::Mutex<Orders>>,
    room: Arc<Semaphore>,
) -> Result<(), BenchError> {
    while let Ok(permit) = room.acquire().await {
        permit.forget();
        let body = orders.lock().unwrap_or_else(std::sync::PoisonError::into_inner).one_more();
        answered(client.post(format!("{url}/orders")).json(&body), 201).await?;
    }
    Ok(())
}

/// What is answered, if that is JSON, to a request that must be answered with this status.
///
/// # Errors
/// If nobody answers, or with another status.
pub async fn answered(request: reqwest::RequestBuilder, status: u16) -> Result<serde_json::Value, BenchError> {
    let answer = request.send().await.map_err(BenchError::Http)?;
    if answer.status().as_u16() != status {
        let status = answer.status();
        return Err(BenchError::Refused(format!("{status} {}", answer.text().await.unwrap_or_default())));
    }
    let said = answer.text().await.map_err(BenchError::Http)?;
    // Where there is nothing to be said, nothing is.
    Ok(serde_json::from_str(&said).unwrap_or_default())
}

/// Returns when no order is under way any more.
///
/// # Errors
/// If nothing ends any more.
pub async fn all_ended(client: &reqwest::Client, city: &City) -> Result<(), BenchError> {
    let (mut known, mut newest) = (ended(client, city).await?, Instant::now());
    let before = known;
    while crate::storm::under_way(client, city.url("query")).await.map_err(BenchError::Http)? > 0 {
        tokio::time::sleep(4 * LOOK_EVERY).await;
        let now = ended(client, city).await?;
        if now != known {
            (known, newest) = (now, Instant::now());
        } else if newest.elapsed() > PATIENCE {
            return Err(BenchError::Stuck(before.0 + before.1, now.0 + now.1));
        }
    }
    Ok(())
}

impl From<StormError> for BenchError {
    fn from(error: StormError) -> Self {
        Self::Storm(Box::new(error))
    }
}
