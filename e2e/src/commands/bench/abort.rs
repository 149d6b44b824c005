//! From a user's abort to weight 0: in the canary Ingress of nginx, and in an HTTPRoute.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use kube::Api;
use kube::api::{DynamicObject, GroupVersionKind, Patch, PatchParams};
use kube::core::ApiResource;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::apply;
use crate::audit::Audit;
use crate::cluster::{ADMIN, CONTROLLER};
use crate::environment::{Environment, EnvironmentOptions};
use crate::gateway::{GATEWAY_NAME, GATEWAY_NAMESPACE, GatewayOptions};
use crate::wait::until;

use super::{Figure, Scale, load_average};

const NAMESPACE: &str = "abort";
/// Rollouts for each router. One after the other is aborted, in each round.
const ROLLOUTS: usize = 4;
const PORT: u16 = 8080;
const PATIENCE: Duration = Duration::from_secs(120);

/// What moves the traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Router {
    Nginx,
    GatewayApi,
}

/// One Rollout under test.
struct Subject {
    router: Router,
    name: String,
    rollouts: Api<DynamicObject>,
}

pub(super) async fn measure(folder: &Path, scale: Scale) -> Result<Vec<Figure>> {
    let options = EnvironmentOptions { gateway: Some(GatewayOptions::default()), ..EnvironmentOptions::default() };
    let environment = Environment::start(folder, options).await?;
    let controller = super::start(&environment).await?;
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
    apply::object(&environment.client, "", namespace).await?;
    let kinds = [Router::Nginx, Router::GatewayApi];
    let subjects = kinds.iter().flat_map(|router| (0..ROLLOUTS).map(|number| (*router, number)));
    let subjects = try_join_all(subjects.map(|(router, number)| Subject::create(&environment, router, number))).await?;

    let mut latencies: [Vec<f64>; 2] = Default::default();
    for round in 1..=scale.abort_rounds {
        try_join_all(subjects.iter().map(|subject| subject.release(round))).await?;
        for subject in &subjects {
            let milliseconds = subject.abort(&environment.cluster.audit()).await?;
            latencies[usize::from(subject.router == Router::GatewayApi)].push(milliseconds);
        }
    }
    let load = load_average();
    controller.stop().await;
    environment.stop().await;

    for (kind, latencies) in kinds.iter().zip(&mut latencies) {
        latencies.sort_by(f64::total_cmp);
        let shown: Vec<String> = latencies.iter().map(|value| format!("{value:.0}")).collect();
        println!("abort to weight 0, {kind:?}: {} ms", shown.join(" "));
    }
    let [nginx, gateway] = &latencies;
    let figure = |what, value, goal, argo| Figure { what, value, unit: "ms", goal, argo, timing: true, load };
    Ok(vec![
        figure("abort to weight 0, nginx: median", median(nginx), 20.0, "23–101 ms"),
        figure("abort to weight 0, nginx: worst", worst(nginx), 60.0, "101 ms"),
        figure("abort to weight 0, HTTPRoute: median", median(gateway), 20.0, ""),
        figure("abort to weight 0, HTTPRoute: worst", worst(gateway), 60.0, ""),
    ])
}

impl Subject {
    async fn create(environment: &Environment, router: Router, number: usize) -> Result<Self> {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("argoproj.io", "v1alpha1", "Rollout"));
        let prefix = if router == Router::Nginx { "nginx" } else { "gateway" };
        let subject = Self {
            router,
            name: format!("{prefix}-{number}"),
            rollouts: Api::namespaced_with(environment.client.clone(), NAMESPACE, &resource),
        };
        let objects =
            [service(&subject.stable()), service(&subject.canary()), subject.route(), subject.rollout("version-0")];
        for object in objects {
            apply::object(&environment.client, NAMESPACE, object).await?;
        }
        subject.wait("it is healthy", |status| status["phase"] == "Healthy").await?;
        Ok(subject)
    }

    /// Brings an update to its endless pause at 20%.
    async fn release(&self, round: usize) -> Result<()> {
        let containers =
            json!({"spec": {"template": {"spec": {"containers": [container(&format!("version-{round}"))]}}}});
        self.rollouts.patch(&self.name, &PatchParams::default(), &Patch::Merge(containers)).await?;
        self.wait("it pauses at 20%", |status| {
            status["phase"] == "Paused" && status["canary"]["weights"]["canary"]["weight"] == 20
        })
        .await
    }

    /// Aborts it. From when the API server has stored that to when it has stored the weight, in milliseconds.
    async fn abort(&self, audit: &Audit) -> Result<f64> {
        // What the controller is still about to write about the release is not what is measured.
        sleep(Duration::from_millis(300)).await;
        let mark = audit.mark();
        let patch = Patch::Merge(json!({"status": {"abort": true}}));
        self.rollouts.patch_status(&self.name, &PatchParams::default(), &patch).await?;
        let (resource, route) = match self.router {
            Router::Nginx => ("ingresses", format!("{0}-{0}-canary", self.name)),
            Router::GatewayApi => ("httproutes", self.name.clone()),
        };
        let mut latency = None;
        until("the abort is carried out", PATIENCE, async || {
            let events = audit.since(mark)?;
            let of = |user, resource, name: &str| {
                let name = name.to_owned();
                events.iter().filter(move |event| {
                    event.is(user, resource, NAMESPACE) && event.object_ref.as_ref().is_some_and(|it| it.name == name)
                })
            };
            let aborted = of(ADMIN, "rollouts", &self.name).next();
            let routed = of(CONTROLLER, resource, &route).find(|event| event.weight(&self.canary()) == Some(0));
            latency = aborted.zip(routed).map(|(aborted, routed)| {
                let received = routed.stage_timestamp.duration_since(aborted.request_received_timestamp);
                let stored = routed.stage_timestamp.duration_since(aborted.stage_timestamp);
                (received.as_secs_f64() * 1e3, stored.as_secs_f64() * 1e3)
            });
            Ok(latency.is_some())
        })
        .await
        .with_context(|| self.name.clone())?;
        let (received, stored) = latency.context("it has just been measured")?;
        ensure!(received >= 0.0, "{}: the weight was 0 before the abort", self.name);
        // The answer comes after it is stored: a quick controller is done before that.
        Ok(stored.max(0.0))
    }

    async fn wait(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Result<()> {
        let mut last = Value::Null;
        until(what, PATIENCE, async || {
            let rollout = self.rollouts.get(&self.name).await?;
            let status = &rollout.data["status"];
            last = status.clone();
            let observed = status["observedGeneration"].as_str().and_then(|text| text.parse().ok());
            sleep(Duration::from_millis(75)).await;
            Ok(observed == rollout.metadata.generation && wanted(status))
        })
        .await
        .with_context(|| format!("{}: {last}", self.name))
    }

    fn stable(&self) -> String {
        format!("{}-stable", self.name)
    }

    fn canary(&self) -> String {
        format!("{}-canary", self.name)
    }

    fn rollout(&self, version: &str) -> Value {
        let labels = json!({"app": self.name});
        let routing = match self.router {
            Router::Nginx => json!({"nginx": {"stableIngress": self.name}}),
            Router::GatewayApi => {
                json!({"plugins": {"argoproj-labs/gatewayAPI": {"httpRoute": self.name, "namespace": NAMESPACE}}})
            }
        };
        json!({
            "apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout", "metadata": {"name": self.name},
            "spec": {
                "replicas": 1,
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": {"containers": [container(version)]}},
                "strategy": {"canary": {
                    "stableService": self.stable(),
                    "canaryService": self.canary(),
                    "abortScaleDownDelaySeconds": 1,
                    "trafficRouting": routing,
                    "steps": [{"setWeight": 20}, {"pause": {}}],
                }},
            },
        })
    }

    fn route(&self) -> Value {
        let host = format!("{}.example", self.name);
        match self.router {
            Router::Nginx => json!({
                "apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": self.name},
                "spec": {"ingressClassName": "nginx", "rules": [{"host": host, "http": {"paths": [{
                    "path": "/", "pathType": "Prefix",
                    "backend": {"service": {"name": self.stable(), "port": {"number": PORT}}},
                }]}}]},
            }),
            Router::GatewayApi => {
                let backend = |name: String, weight: u32| json!({"name": name, "port": PORT, "weight": weight});
                json!({
                    "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": {"name": self.name},
                    "spec": {
                        "parentRefs": [{"name": GATEWAY_NAME, "namespace": GATEWAY_NAMESPACE}],
                        "hostnames": [host],
                        "rules": [{"backendRefs": [backend(self.stable(), 100), backend(self.canary(), 0)]}],
                    },
                })
            }
        }
    }
}

fn service(name: &str) -> Value {
    let app = name.rsplit_once('-').map_or(name, |(app, _)| app);
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
        "spec": {"selector": {"app": app}, "ports": [{"port": PORT}]},
    })
}

fn container(version: &str) -> Value {
    json!({"name": "web", "image": format!("example/web:{version}"), "ports": [{"containerPort": PORT}]})
}

/// The middle one of sorted values.
fn median(sorted: &[f64]) -> f64 {
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::INFINITY)
}

fn worst(sorted: &[f64]) -> f64 {
    sorted.last().copied().unwrap_or(f64::INFINITY)
}
