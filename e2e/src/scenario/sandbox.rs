//! The sandbox as a world: the cluster in memory, with the controller in the same process.
//!
//! In virtual time, on a runtime of one thread whose clock is paused, every run is the same.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use futures::FutureExt;
use futures::future::BoxFuture;
use jiff::Timestamp;
use kube::Client;
use kube::core::Status;
use tidegate::cli::in_process;
use tidegate::clock::Clock;
use tidegate::controller::{self, settings::Settings};
use tidegate::providers::http::{HttpError, Request, Response, Transport};
use tidegate::providers::{JobTarget, Providers};
use tidegate::sandbox::cluster::Cluster;
use tidegate::sandbox::prometheus::Prometheus;
use tidegate::sandbox::traffic::{Conduct, Load, Target};
use tidegate::sandbox::workloads::{Behaviour as PodBehaviour, Name};
use tidegate::sandbox::{Call, Fault, Faults};
use tokio::task::JoinHandle;

use super::parse::Scenario;
use super::run::run;
use super::step::{Behaviour, Switch};
use super::world::World;

/// When every scenario begins: any instant will do, if only it is the same.
const EPOCH: &str = "2026-01-05T08:00:00Z";

/// As often as the Prometheus of the real world here.
const SCRAPES: Duration = Duration::from_secs(1);

/// Nobody listens there; only the sandbox's own Prometheus answers to it.
const PROMETHEUS: &str = "http://prometheus.sandbox:9090";

/// A cluster in memory for one scenario, and its controller.
pub struct Sandbox {
    cluster: Cluster,
    clock: Clock,
    namespace: String,
    controller: Option<JoinHandle<Result<()>>>,
    prometheus: InMemory,
    forbidden: BTreeSet<String>,
}

/// The kinds that nobody may update or patch.
struct Forbidden(BTreeSet<String>);

/// The way from the controller to the sandbox's Prometheus, without a network.
#[derive(Clone)]
struct InMemory {
    prometheus: Prometheus,
    clock: Clock,
    stopped: Arc<AtomicBool>,
}

/// Runs a scenario in a sandbox of its own and answers its trace. Time is what tokio's clock says.
///
/// # Errors
/// As [`run`]; or the controller ended by itself.
pub async fn play(scenario: &Scenario) -> Result<String> {
    let mut sandbox = Sandbox::start(&scenario.name)?;
    let trace = run(&mut sandbox, scenario).await?;
    sandbox.stop().await?;
    Ok(trace)
}

impl Sandbox {
    fn start(namespace: &str) -> Result<Self> {
        let epoch: Timestamp = EPOCH.parse().context("a constant")?;
        let clock = Clock::starting_at(epoch);
        let cluster = Cluster::builder().server(in_process::server(&clock, 1)).scrape_interval(SCRAPES).start();
        let usual = cluster.default_behaviour();
        // As fast as the pods of the real world here.
        let default = PodBehaviour { start_after: Duration::ZERO, ready_after: Duration::from_millis(200), ..usual };
        cluster.set_default_behaviour(default);
        let prometheus =
            InMemory { prometheus: cluster.prometheus().clone(), clock: clock.clone(), stopped: Arc::default() };
        let mut sandbox = Self {
            cluster,
            clock,
            namespace: namespace.to_owned(),
            controller: None,
            prometheus,
            forbidden: BTreeSet::new(),
        };
        sandbox.start_controller();
        Ok(sandbox)
    }

    fn start_controller(&mut self) {
        let (client, clock) = (self.cluster.client(&self.namespace), self.clock.clone());
        let jobs = JobTarget { client: client.clone(), namespace: None, other_cluster: false };
        let providers = Providers::new(Arc::new(self.prometheus.clone()), jobs, clock.clone(), None);
        self.controller = Some(tokio::spawn(async move {
            let ended = controller::run(client, providers, clock, Settings::default(), std::future::pending()).await;
            ended.context("the controller")
        }));
    }

    async fn stop(self) -> Result<()> {
        if let Some(controller) = self.controller {
            if controller.is_finished() {
                controller.await.context("the controller panicked")??;
                bail!("the controller ended by itself");
            }
            controller.abort();
        }
        self.cluster.stop().await;
        Ok(())
    }
}

impl Faults for Forbidden {
    fn before(&self, call: &Call) -> Fault {
        if !matches!(call.verb, "update" | "patch") || !self.0.contains(&call.resource) {
            return Fault::None;
        }
        let Call { verb, resource, name, .. } = call;
        let message = format!("{resource} \"{name}\" is forbidden: cannot {verb} resource");
        let mut status = Status::failure(&message, "Forbidden");
        status.code = 403;
        Fault::Refuse(Box::new(status))
    }
}

impl InMemory {
    fn answer(&self, request: &Request) -> Result<Response, HttpError> {
        let failed = |problem: &str| {
            // In the words of the real client, so that messages agree.
            Err(HttpError::Failed { origin: PROMETHEUS.to_owned(), problem: problem.to_owned() })
        };
        if self.stopped.load(Ordering::Relaxed) || !request.url.as_str().starts_with(PROMETHEUS) {
            return failed(
                "error sending request: client error (Connect): tcp connect error: Connection refused (os error 111)",
            );
        }
        Ok(in_process::ask(&self.prometheus, request, self.clock.now()))
    }
}

impl Transport for InMemory {
    fn send(&self, request: Request) -> BoxFuture<'_, Result<Response, HttpError>> {
        async move { self.answer(&request) }.boxed()
    }
}

impl World for Sandbox {
    fn title(&self) -> &'static str {
        "sandbox"
    }

    fn client(&self) -> Client {
        self.cluster.client(&self.namespace)
    }

    fn real_time(&self) -> bool {
        false
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    fn prometheus(&self) -> String {
        PROMETHEUS.to_owned()
    }

    async fn behave(&mut self, tag: &str, behaviour: Behaviour) -> Result<()> {
        let mut pods = self.cluster.default_behaviour();
        match behaviour {
            Behaviour::Well => {}
            Behaviour::Err(share) => pods.error_rate = share,
            Behaviour::NeverReady => pods.never_ready = true,
            Behaviour::ReadyAfter(delay) => pods.ready_after = delay,
        }
        self.cluster.set_image(tag, pods);
        Ok(())
    }

    async fn send(&mut self, rate: u32, host: &str) -> Result<()> {
        self.cluster.send(host, Load { target: Target::host(host), rate: f64::from(rate) });
        Ok(())
    }

    async fn lost(&mut self) -> Option<String> {
        let lost = self.cluster.requests(|record| record.total().lost());
        (lost > 0).then(|| format!("{lost} requests"))
    }

    async fn accept_route(&mut self, route: &str, accept: bool) -> Result<()> {
        // As Traefik says it.
        let refuses = Conduct::Refuses { reason: "NoMatchingParent".to_owned(), message: String::new() };
        let conduct = if accept { Conduct::Follows } else { refuses };
        self.cluster.set_gateway(Some(Name::new(&self.namespace, route)), conduct);
        Ok(())
    }

    async fn switch_prometheus(&mut self, to: Switch) -> Result<()> {
        self.prometheus.stopped.store(to == Switch::Off, Ordering::Relaxed);
        Ok(())
    }

    async fn switch_writes(&mut self, kind: &str, to: Switch) -> Result<()> {
        match to {
            Switch::On => self.forbidden.remove(kind),
            Switch::Off => self.forbidden.insert(kind.to_owned()),
        };
        self.cluster.server().set_faults(Arc::new(Forbidden(self.forbidden.clone())));
        Ok(())
    }

    async fn switch_controller(&mut self, to: Switch) -> Result<()> {
        match to {
            Switch::On => {
                ensure!(self.controller.is_none(), "the controller is running");
                self.start_controller();
            }
            Switch::Off => {
                let controller = self.controller.take().context("the controller is not running")?;
                controller.abort();
                let ended = controller.await;
                ensure!(
                    ended.is_err_and(|error| error.is_cancelled()),
                    "the controller had ended before it was killed"
                );
            }
        }
        Ok(())
    }
}
