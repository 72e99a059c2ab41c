//! The way from a bridge to a service's door, over a network that loses requests and answers.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use axum::{body::Body, http::Request};
use eventing::bridge::Sink;
use http_body_util::BodyExt;
use tokio::time::sleep;
use tower::ServiceExt;

use super::Town;
use crate::{sabotage::Sabotage, world::Process};

/// A service's door as a bridge finds it: somewhere on a network that loses requests and answers.
pub struct Door {
    pub town: Arc<Town>,
    pub bridge: Arc<Process>,
    pub service: &'static str,
}

#[async_trait]
impl Sink for Door {
    async fn post(&self, headers: Vec<(String, String)>, body: Vec<u8>) -> Result<(u16, String), String> {
        let world = &self.town.world;
        if let Some(meter) = world.meter() {
            meter.spends(|| "knock".to_owned());
            let bytes = body.len() + headers.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
            meter.adds([
                ("doors", &|| format!("requests at {}", self.service), 1),
                ("doors", &|| "bytes in requests".to_owned(), bytes),
            ]);
        }
        if self.bridge.step(|| format!("knocks at {}", self.service)).await.is_err() {
            return Err("the request was lost".to_owned());
        }
        let tick = headers.iter().any(|(name, value)| name == "ce-type" && value == eventing::TICK);
        if tick && world.breaks(Sabotage::NoTicks) {
            return Ok((204, String::new()));
        }
        self.town.poison(self.service, &headers, &body);
        let instance = self.town.instance(self.service).ok_or("nobody answers")?;
        let request =
            headers.into_iter().fold(Request::post("/events"), |request, (name, value)| request.header(name, value));
        let request = request.body(Body::from(body)).map_err(|error| error.to_string())?;
        // Whatever becomes of the bridge, the service goes on with it.
        let answer = tokio::spawn(instance.door.oneshot(request));
        let answer = tokio::select! {
            biased;
            answer = answer => answer.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?,
            () = instance.process.death() => return Err("the connection was reset".to_owned()),
            () = sleep(Duration::from_secs(5)) => return Err("no answer in time".to_owned()),
        };
        self.bridge.afterwards().await;
        if world.happens(world.weather().lost) {
            return Err("the answer was lost".to_owned());
        }
        let status = answer.status().as_u16();
        world.tell(|| format!("{} is answered {status} by {}", self.bridge.name, instance.process.name));
        let said = answer.into_body().collect().await.map_err(|error| error.to_string())?.to_bytes();
        if let Some(meter) = world.meter() {
            meter.spends(|| "answer".to_owned());
        }
        Ok((status, String::from_utf8_lossy(&said).into_owned()))
    }
}
