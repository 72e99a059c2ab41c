//! A town that is watched while it rains: who orders, and who is awake.

use std::{
    collections::BTreeMap,
    pin::pin,
    time::{Duration, Instant},
};

use serde::Deserialize;
use tokio::task::JoinSet;

use super::super::{BenchError, city::City};
use crate::{services::NAMES, storm::Orders};

/// Between two looks at who is awake: about the bridge's own beat.
const LOOK_EVERY: Duration = Duration::from_millis(25);
/// How long after the last order anybody may be awake.
const PATIENCE: Duration = Duration::from_secs(60);

/// When somebody looked, and each service's workers that were awake then.
pub type Look = (Instant, [f64; 5]);

/// Who looks at the workers.
pub struct Watcher {
    client: reqwest::Client,
    measures: String,
    stats: String,
}

#[derive(Deserialize)]
struct Stats {
    funnel: BTreeMap<String, i64>,
}

impl Watcher {
    /// Looks where the workers are: at the bridge, or at the process that is everything.
    pub fn of(city: &City, client: &reqwest::Client) -> Self {
        let bridge = city.processes.iter().find(|process| process.name == "bridge");
        let measures = bridge.or(city.processes.first()).map(|process| format!("{}/metrics", process.url()));
        let stats = format!("{}/stats", city.url("query"));
        Self { client: client.clone(), measures: measures.unwrap_or_default(), stats }
    }

    /// Looks again and again until that is done.
    pub async fn watch(&self, doing: impl Future<Output = Result<(), BenchError>>) -> Result<Vec<Look>, BenchError> {
        let (mut doing, mut looks) = (pin!(doing), Vec::new());
        loop {
            tokio::select! {
                biased;
                done = &mut doing => return done.map(|()| looks),
                look = self.look() => looks.push(look?),
            }
        }
    }

    /// Looks until all orders have ended and nobody is awake.
    pub async fn rest(&self) -> Result<Vec<Look>, BenchError> {
        let (begun, mut looks) = (Instant::now(), Vec::new());
        loop {
            let (at, awake) = self.look().await?;
            looks.push((at, awake));
            let awake: f64 = awake.iter().sum();
            if awake == 0.0 && self.nothing_is_under_way().await? {
                return Ok(looks);
            }
            if begun.elapsed() > PATIENCE {
                return Err(BenchError::Restless(awake));
            }
        }
    }

    async fn look(&self) -> Result<Look, BenchError> {
        tokio::time::sleep(LOOK_EVERY).await;
        let text = self.get(&self.measures).await?.text().await.map_err(BenchError::Http)?;
        Ok((Instant::now(), awake(&text)))
    }

    async fn nothing_is_under_way(&self) -> Result<bool, BenchError> {
        let Stats { funnel } = self.get(&self.stats).await?.json().await.map_err(BenchError::Http)?;
        let of = |status| funnel.get(status).copied().unwrap_or_default();
        Ok(of("placed") == of("completed") + of("cancelled"))
    }

    async fn get(&self, url: &str) -> Result<reqwest::Response, BenchError> {
        let answer = self.client.get(url).send().await.map_err(BenchError::Http)?;
        answer.error_for_status().map_err(BenchError::Http)
    }
}

/// Each service's workers awake, as the bridge exposes them.
fn awake(measures: &str) -> [f64; 5] {
    let of = |line: &str| {
        let (labels, value) = line.strip_prefix("rainstorm_workers_awake{")?.rsplit_once("} ")?;
        let place =
            NAMES.iter().position(|name| labels.split(',').any(|label| label == format!("service=\"{name}\"")))?;
        Some((place, value.parse::<f64>().ok()?))
    };
    let mut awake = [0.0; 5];
    measures.lines().filter_map(of).for_each(|(place, workers)| awake[place] += workers);
    awake
}

/// Everybody who orders. They come when their time has come, whether or not those before them were answered.
pub struct Customers {
    client: reqwest::Client,
    url: String,
    orders: Orders,
    sent: JoinSet<Result<(), BenchError>>,
}

impl Customers {
    pub async fn of(city: &City, client: &reqwest::Client) -> Result<Self, BenchError> {
        let orders = Orders::at(client, city.url("order"), city.url("query")).await?;
        let url = format!("{}/orders", city.url("order"));
        Ok(Self { client: client.clone(), url, orders, sent: JoinSet::new() })
    }

    /// So many a second come for so long, the first at once.
    pub async fn come(&mut self, rate: f64, length: Duration) -> Result<(), BenchError> {
        let begun = Instant::now();
        for number in 0_u32.. {
            let due = Duration::from_secs_f64(f64::from(number) / rate);
            if due >= length {
                break;
            }
            tokio::time::sleep_until((begun + due).into()).await;
            let (client, url, body) = (self.client.clone(), self.url.clone(), self.orders.one_more());
            self.sent.spawn(async move { order(&client, &url, &body).await });
            while let Some(answered) = self.sent.try_join_next() {
                answered.map_err(|error| BenchError::Refused(error.to_string()))??;
            }
        }
        tokio::time::sleep_until((begun + length).into()).await;
        Ok(())
    }

    /// Returns when all have been answered.
    pub async fn answered(&mut self) -> Result<(), BenchError> {
        while let Some(answered) = self.sent.join_next().await {
            answered.map_err(|error| BenchError::Refused(error.to_string()))??;
        }
        Ok(())
    }
}

async fn order(client: &reqwest::Client, url: &str, body: &serde_json::Value) -> Result<(), BenchError> {
    let answer = client.post(url).json(body).send().await.map_err(BenchError::Http)?;
    match answer.status().as_u16() {
        201 => Ok(()),
        status => Err(BenchError::Refused(format!("{status} {}", answer.text().await.unwrap_or_default()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_are_read_for_each_service_and_nothing_else_is() {
        let text = "# TYPE rainstorm_workers_awake gauge\nrainstorm_workers_awake{service=\"order\"} 2\n\
                    rainstorm_workers_awake{zone=\"a\",service=\"query\"} 12\nrainstorm_workers_awake_ever{service=\"order\"} 9\n\
                    rainstorm_events_waiting{service=\"kitchen\"} 40\n";
        assert_eq!(awake(text), [2.0, 0.0, 0.0, 0.0, 12.0]);
    }
}
