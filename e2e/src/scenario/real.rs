//! The real control plane as a world: one environment and one `tidegate controller` for all scenarios.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use kube::api::{DynamicObject, GroupVersionKind, ListParams};
use kube::core::ApiResource;
use kube::{Api, Client, ResourceExt};
use serde_json::Value;
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
    play_and(shared, scenario, async |_| Ok(())).await
}

/// The same, and prints what the analyses found and what became of the requests: what the trace leaves out.
///
/// # Errors
/// As [`run`].
pub async fn play_and_tell(shared: Arc<Mutex<Shared>>, scenario: &Scenario) -> Result<String> {
    play_and(shared, scenario, async |real| real.tell().await).await
}

async fn play_and(
    shared: Arc<Mutex<Shared>>,
    scenario: &Scenario,
    at_the_end: impl AsyncFnOnce(&Real) -> Result<()>,
) -> Result<String> {
    let (client, prometheus) = {
        let shared = shared.lock().await;
        let prometheus = shared.environment.prometheus.as_ref().context("the environment has no Prometheus")?;
        (shared.environment.client.clone(), prometheus.url())
    };
    let mut real = Real { shared, client, namespace: scenario.name.clone(), prometheus, loads: Vec::new() };
    let played = run(&mut real, scenario).await;
    at_the_end(&real).await?;
    for load in real.loads {
        load.stop().await?;
    }
    played
}

impl Real {
    async fn tell(&self) -> Result<()> {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("argoproj.io", "v1alpha1", "AnalysisRun"));
        let runs: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), &self.namespace, &resource);
        for run in runs.list(&ListParams::default()).await? {
            let status = &run.data["status"];
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let time = |field: &str| status[field].as_str().and_then(|time| time.parse::<Timestamp>().ok());
            let took = time("startedAt").zip(time("completedAt")).map(|(from, to)| to.duration_since(from));
            let took = took.map(|took| format!(" after {took:#}")).unwrap_or_default();
            println!("     {}: {}{took}", run.name_any(), text(&status["phase"]));
            for metric in status["metricResults"].as_array().into_iter().flatten() {
                let last = metric["measurements"].as_array().and_then(|all| all.last()).unwrap_or(&Value::Null);
                println!("       {}: {} {}", text(&metric["name"]), text(&metric["message"]), text(&last["value"]));
                println!("       {}", last["metadata"]);
            }
        }
        for load in &self.loads {
            let summary = load.summary(Duration::ZERO..load.elapsed());
            let late = summary.all.latency(0.99);
            println!("     {} requests in {:.0?}, 99% within {late:.0?}", summary.all.sent, load.elapsed());
            for (version, counts) in &summary.versions {
                println!("       {version:?}: {} of {} failed", counts.failed, counts.sent);
            }
        }
        Ok(())
    }
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
