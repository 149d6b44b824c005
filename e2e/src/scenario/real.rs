//! The real control plane as a world: one environment and one `tidegate controller` for all scenarios.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use kube::Client;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep};

use super::parse::Scenario;
use super::run::run;
use super::step::{Behaviour, Switch};
use super::world::World;
use crate::controller::Controller;
use crate::environment::Environment;
use crate::http::Http;
use crate::load::{Load, LoadOptions};
use crate::pod::{ImageBehaviour, ReadyAfter};

/// A gateway takes up a new route, and a Service's pods, within this time.
const SERVED: Duration = Duration::from_secs(30);

/// What all scenarios share.
pub struct Shared {
    pub environment: Environment,
    pub controller: Controller,
    /// Another one, that does not run.
    pub other: Option<Controller>,
}

/// The real control plane, for one scenario.
pub struct Real {
    shared: Arc<Mutex<Shared>>,
    client: Client,
    namespace: String,
    prometheus: String,
    loads: Vec<Load>,
}

/// What a gateway says, or does not, when it knows no such route, has no pod to ask, or the pod does not answer.
fn is_lost(status: Option<u16>) -> bool {
    status.is_none_or(|status| matches!(status, 404 | 502..=504))
}

/// Runs a scenario in a namespace of its own and answers its trace.
///
/// # Errors
/// As [`run`].
pub async fn play(shared: Arc<Mutex<Shared>>, scenario: &Scenario) -> Result<String> {
    let (client, prometheus) = {
        let shared = shared.lock().await;
        let prometheus = shared.environment.prometheus.as_ref().context("the environment has no Prometheus")?;
        (shared.environment.client.clone(), prometheus.url())
    };
    let mut real = Real { shared, client, namespace: scenario.name.clone(), prometheus, loads: Vec::new() };
    let played = run(&mut real, scenario).await;
    for load in real.loads {
        load.stop().await?;
    }
    played
}

impl World for Real {
    fn title(&self) -> &'static str {
        "real cluster"
    }

    fn client(&self) -> Client {
        self.client.clone()
    }

    fn real_time(&self) -> bool {
        true
    }

    fn now(&self) -> Timestamp {
        tidegate::clock::Clock::system().now()
    }

    fn prometheus(&self) -> String {
        self.prometheus.clone()
    }

    async fn behave(&mut self, tag: &str, behaviour: Behaviour) -> Result<()> {
        let image = match behaviour {
            Behaviour::Well => ImageBehaviour::default(),
            Behaviour::Err(share) => ImageBehaviour { error_rate: Some(share), ..Default::default() },
            Behaviour::NeverReady => ImageBehaviour { ready_after: Some(ReadyAfter::Never), ..Default::default() },
            Behaviour::ReadyAfter(delay) => {
                ImageBehaviour { ready_after: Some(ReadyAfter::Delay(delay)), ..Default::default() }
            }
        };
        self.shared.lock().await.environment.kubelet.set_image(&self.namespace, tag, image);
        Ok(())
    }

    async fn send(&mut self, rate: u32, host: &str) -> Result<()> {
        let url = {
            let shared = self.shared.lock().await;
            shared.environment.gateway.as_ref().context("the environment has no gateway")?.url()
        };
        let http = Http::default();
        let deadline = Instant::now() + SERVED;
        while !http.get(&url, Some(host), SERVED).await.is_ok_and(|answer| !is_lost(Some(answer.status().as_u16()))) {
            ensure!(Instant::now() < deadline, "the gateway leads {host} to no pod within {SERVED:?}");
            sleep(Duration::from_millis(100)).await;
        }
        self.loads.push(Load::start(LoadOptions {
            url,
            host: host.to_owned(),
            rate: f64::from(rate),
            timeout: Duration::from_secs(5),
        }));
        Ok(())
    }

    async fn lost(&mut self) -> Option<String> {
        let records = self.loads.iter().flat_map(Load::records);
        let lost: Vec<_> = records.filter(|record| is_lost(record.status)).collect();
        let (first, last) = (lost.first()?, lost.last()?);
        let (count, status, from, to) = (lost.len(), first.status, first.due, last.due);
        Some(format!("{count} requests ({status:?} and so on), due {from:?} to {to:?} after the first one"))
    }

    async fn accept_route(&mut self, _route: &str, _accept: bool) -> Result<()> {
        Ok(())
    }

    async fn switch_prometheus(&mut self, to: Switch) -> Result<()> {
        let mut shared = self.shared.lock().await;
        let prometheus = shared.environment.prometheus.as_mut().context("the environment has no Prometheus")?;
        match to {
            Switch::On => prometheus.restart().await,
            Switch::Off => {
                prometheus.kill().await;
                Ok(())
            }
        }
    }

    async fn exchange_controller(&mut self) -> Result<()> {
        let shared = &mut *self.shared.lock().await;
        let other = shared.other.as_mut().context("there is no other controller here")?;
        shared.controller.kill().await;
        std::mem::swap(&mut shared.controller, other);
        shared.controller.restart()
    }

    async fn switch_controller(&mut self, to: Switch) -> Result<()> {
        let controller = &mut self.shared.lock().await.controller;
        match to {
            Switch::On => controller.restart(),
            Switch::Off => {
                controller.kill().await;
                Ok(())
            }
        }
    }
}
