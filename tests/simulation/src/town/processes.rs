//! The services and the bridges: each is started again some time after it has ended.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use eventing::{
    Platform, StartError,
    bridge::{Bounds, Bridge, BridgeSettings, Sink},
};
use runtime::{Service, Stop};
use tokio::time::{Instant, sleep};

use super::{Instance, SERVICES, Town, door::Door, lock};
use crate::sabotage::Sabotage;

impl Town {
    pub(super) async fn keep_serving(self: Arc<Self>, service: &'static str, number: u64) {
        loop {
            let process = self.world.process(format!("{service}-{number}"));
            let url = format!("simulated:{service}/{}", process.id);
            lock(&self.handles).insert(url.clone(), self.databases[service].used_by(&process));
            let platform = Platform::new(self.log.used_by(&process), url);
            let started = tokio::select! {
                biased;
                started = self.start(service, platform) => started.ok(),
                () = process.death() => None,
            };
            if let Some(service_) = started {
                let door = service_.door();
                let people = runtime::service::router(vec![service_]);
                let (stopping, stopped, in_flight) = (Arc::default(), Arc::default(), Arc::new(()));
                let instance = Instance { process: process.clone(), stopping, stopped, in_flight, door, people };
                lock(&self.instances).entry(service).or_default().push(instance);
                process.death().await;
            }
            for instances in lock(&self.instances).values_mut() {
                instances.retain(|instance| !instance.process.is_dead());
            }
            sleep(self.world.millis(5..=500)).await;
        }
    }

    pub(super) async fn start(&self, name: &str, platform: Platform) -> Result<Service, StartError> {
        let working = Duration::from_millis(20);
        match name {
            "order" => order::service(order::Settings {}, platform).await,
            "payment" => {
                let provider_database_url = Some("simulated:provider".to_owned());
                let provider_timeout = Duration::from_millis(300);
                payment::service(payment::Settings { provider_database_url, provider_timeout }, platform).await
            }
            "kitchen" => {
                kitchen::service(kitchen::Settings { cooking: kitchen::Cooking::Takes(working) }, platform).await
            }
            "delivery" => {
                let (riding, delivery_patience) = (delivery::Riding::Takes(working), self.plan.patience);
                delivery::service(delivery::Settings { riding, delivery_patience }, platform).await
            }
            _ => query::service(query::Settings::default(), platform).await,
        }
    }

    pub(super) async fn keep_knocking(self: Arc<Self>, number: u64) {
        loop {
            let process = self.world.process(format!("bridge-{number}"));
            lock(&self.bridges).push(process.clone());
            let sink = |service: &'static str| -> Arc<dyn Sink> {
                Arc::new(Door { town: self.clone(), bridge: process.clone(), service })
            };
            let sinks = SERVICES.into_iter().map(|service| (service.to_owned(), sink(service))).collect();
            let bounds = Bounds { most: 3, target: 4, rest: Duration::from_secs(1), beat: Duration::from_millis(50) };
            let batch = usize::try_from(self.plan.batch).unwrap_or(1);
            let settings = BridgeSettings { batch, tick: self.plan.tick, bounds };
            let (log, stop) = (self.log.used_by(&process), Stop::default());
            let started = tokio::select! {
                biased;
                started = Bridge::start(log, &self.sources, &sinks, &settings, &stop) => started.ok(),
                () = process.death() => None,
            };
            match started {
                Some(_bridge) => process.death().await,
                None => process.kill(),
            }
            lock(&self.bridges).retain(|process| !process.is_dead());
            sleep(self.world.millis(5..=500)).await;
        }
    }

    pub(super) fn instance(&self, service: &str) -> Option<Instance> {
        let instances = lock(&self.instances).get(service).cloned().unwrap_or_default();
        let serves = |it: &Instance| !it.process.is_dead() && !it.stopping.load(Ordering::Relaxed);
        let alive: Vec<_> = instances.into_iter().filter(serves).collect();
        self.world.pick(&alive).cloned()
    }

    /// As SIGTERM does: what is in flight is finished, and then it ends.
    pub(super) async fn stop(self: Arc<Self>, instance: Instance) {
        self.world.tell(|| format!("{} is told to stop", instance.process.name));
        instance.stopping.store(true, Ordering::Relaxed);
        let ends = Instant::now() + runtime::server::SHUTDOWN;
        // Whoever asks it something holds on to it for as long.
        let finishes = !self.world.breaks(Sabotage::StopAtOnce);
        while finishes
            && Arc::strong_count(&instance.in_flight) > 2
            && Instant::now() < ends
            && !instance.process.is_dead()
        {
            sleep(Duration::from_millis(10)).await;
        }
        instance.stopped.store(!instance.process.is_dead(), Ordering::Relaxed);
        instance.process.kill();
    }
}
