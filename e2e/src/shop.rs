//! A small web shop whose releases are watched from outside: a Rollout behind the gateway, judged by Prometheus while it
//! goes out.
//!
//! The version is the tag of the image. `ERROR_RATE` in the pod template makes a release bad (see [`crate::pod`]).

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::api::apps::v1::ReplicaSet;
use kube::api::{DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams};
use kube::core::ApiResource;
use kube::{Api, Client};
use serde_json::{Value, json};

use crate::apply;
use crate::environment::Environment;
use crate::gateway::{GATEWAY_NAME, GATEWAY_NAMESPACE, Gateway};
use crate::load::{Load, LoadOptions};
use crate::wait::until;

/// The name of the Rollout and of its route.
pub const NAME: &str = "web";
/// The Service of the version that is trusted.
pub const STABLE: &str = "web-stable";
/// The Service of the version on trial.
pub const CANARY: &str = "web-canary";
const PORT: u16 = 8080;

/// What may be chosen about a shop.
#[derive(Clone, Debug)]
pub struct ShopOptions {
    pub namespace: String,
    pub replicas: i32,
    /// How long the pauses after 20% and 50% are, in seconds.
    pub pause: u32,
    /// How long the old version is kept after a release, and the canary after an abort, in seconds.
    pub scale_down_delay: u32,
    /// Seconds between two measurements of the canary's error ratio.
    pub interval: u32,
    /// Seconds before the first of them.
    pub initial_delay: u32,
    /// The error ratio that the canary must stay below, 0 to 1.
    pub threshold: f64,
}

impl Default for ShopOptions {
    fn default() -> Self {
        Self {
            namespace: "shop".to_owned(),
            replicas: 5,
            pause: 8,
            scale_down_delay: 10,
            interval: 2,
            initial_delay: 4,
            threshold: 0.01,
        }
    }
}

/// The shop, as a client sees it.
#[derive(Clone)]
pub struct Shop {
    pub options: ShopOptions,
    pub client: Client,
    pub rollouts: Api<DynamicObject>,
    pub routes: Api<DynamicObject>,
    pub analysis_runs: Api<DynamicObject>,
    replica_sets: Api<ReplicaSet>,
    prometheus: String,
}

/// Where a release stands, as anybody can read it from the cluster.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    pub phase: String,
    pub message: String,
    /// The step that is under way, counted from 0, and how many there are.
    pub step: (i64, usize),
    pub aborted: bool,
    /// The version whose pods are stable, and that of the pod template.
    pub stable: String,
    pub current: String,
    /// The weights of the route: stable and canary.
    pub weights: (i64, i64),
    /// By version.
    pub pods: BTreeMap<String, Pods>,
    pub analysis: Option<Analysis>,
}

/// The pods of one version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pods {
    pub wanted: i32,
    pub ready: i32,
}

/// The newest AnalysisRun.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Analysis {
    pub phase: String,
    pub message: String,
    /// The measured values, the oldest first.
    pub values: Vec<String>,
}

impl Shop {
    /// Deploys the shop with a version that is good, and waits until it is healthy.
    ///
    /// # Errors
    /// The environment has no gateway or no Prometheus, an object is refused, or the shop is not healthy in a minute.
    pub async fn open(environment: &Environment, options: ShopOptions, version: &str) -> Result<Self> {
        let prometheus = environment.prometheus.as_ref().context("a shop needs a Prometheus")?.url();
        let client = environment.client.clone();
        let namespace = options.namespace.as_str();
        let api = |group, version, kind| {
            let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
            Api::<DynamicObject>::namespaced_with(client.clone(), namespace, &resource)
        };
        let shop = Self {
            rollouts: api("argoproj.io", "v1alpha1", "Rollout"),
            analysis_runs: api("argoproj.io", "v1alpha1", "AnalysisRun"),
            routes: api("gateway.networking.k8s.io", "v1", "HTTPRoute"),
            replica_sets: Api::namespaced(client.clone(), namespace),
            client: client.clone(),
            prometheus,
            options: options.clone(),
        };
        let namespaced = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}});
        apply::object(&client, "", namespaced).await?;
        for object in shop.manifests(version) {
            shop.apply(object).await?;
        }
        shop.wait("the shop is healthy", Duration::from_secs(60), |state| state.phase == "Healthy").await?;
        Ok(shop)
    }

    /// What somebody would write to deploy this version.
    pub fn manifests(&self, version: &str) -> [Value; 5] {
        [service(STABLE), service(CANARY), self.route(), self.template(), self.rollout(version)]
    }

    /// Applies an object of this namespace.
    ///
    /// # Errors
    /// As [`apply::object`].
    pub async fn apply(&self, object: Value) -> Result<()> {
        apply::object(&self.client, &self.options.namespace, object).await.map(drop)
    }

    /// A steady load on the shop's route.
    ///
    /// # Errors
    /// The environment has no gateway.
    pub fn load(&self, environment: &Environment, rate: f64) -> Result<Load> {
        let gateway = environment.gateway.as_ref().context("a shop needs a gateway")?;
        let timeout = Duration::from_secs(5);
        Ok(Load::start(LoadOptions { url: gateway.url(), host: self.host(), rate, timeout }))
    }

    /// Changes the pod template to another version, as `kubectl set image` would.
    ///
    /// # Errors
    /// The API server refuses it.
    pub async fn release(&self, version: &str, error_rate: f64) -> Result<()> {
        self.patch(json!({"spec": {"template": {"spec": {"containers": [container(version, error_rate)]}}}})).await
    }

    /// Merges a patch into the Rollout.
    ///
    /// # Errors
    /// The API server refuses it.
    pub async fn patch(&self, patch: Value) -> Result<()> {
        self.rollouts
            .patch(NAME, &PatchParams::default(), &Patch::Merge(patch))
            .await
            .context("patching the Rollout")?;
        Ok(())
    }

    /// Where the release stands.
    ///
    /// # Errors
    /// The API server does not answer.
    pub async fn state(&self) -> Result<State> {
        let rollout = self.rollouts.get(NAME).await?.data;
        let route = self.routes.get(NAME).await?.data;
        let sets = self.replica_sets.list(&ListParams::default()).await?.items;
        let runs = self.analysis_runs.list(&ListParams::default()).await?.items;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let status = &rollout["status"];
        let versions: BTreeMap<String, String> = sets.iter().filter_map(hash_and_version).collect();
        let version_of = |hash: &Value| versions.get(hash.as_str().unwrap_or_default()).cloned().unwrap_or_default();
        let weight = |service: &str| {
            let backends = route["spec"]["rules"][0]["backendRefs"].as_array().into_iter().flatten();
            backends
                .clone()
                .find(|backend| backend["name"] == service)
                .and_then(|it| it["weight"].as_i64())
                .unwrap_or(0)
        };
        let mut pods: BTreeMap<String, Pods> = BTreeMap::new();
        for set in &sets {
            let Some((_, version)) = hash_and_version(set) else { continue };
            let pods = pods.entry(version).or_default();
            pods.wanted += set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(0);
            pods.ready += set.status.as_ref().and_then(|status| status.ready_replicas).unwrap_or(0);
        }
        let newest = runs.iter().max_by_key(|run| run.metadata.creation_timestamp.clone().map(|time| time.0));
        let steps = rollout["spec"]["strategy"]["canary"]["steps"].as_array().map_or(0, Vec::len);
        let image = text(&rollout["spec"]["template"]["spec"]["containers"][0]["image"]);
        Ok(State {
            phase: text(&status["phase"]),
            message: text(&status["message"]),
            step: (status["currentStepIndex"].as_i64().unwrap_or(0), steps),
            aborted: status["abort"] == true,
            stable: version_of(&status["stableRS"]),
            current: tag(&image),
            weights: (weight(STABLE), weight(CANARY)),
            pods,
            analysis: newest.map(|run| analysis(&run.data)),
        })
    }

    /// The ReplicaSets by revision and version, and the AnalysisRuns by phase.
    ///
    /// # Errors
    /// The API server does not answer.
    pub async fn inventory(&self) -> Result<Vec<String>> {
        let sets = self.replica_sets.list(&ListParams::default()).await?.items;
        let runs = self.analysis_runs.list(&ListParams::default()).await?.items;
        let sets = sets.iter().map(|set| {
            let revision = set.metadata.annotations.as_ref().and_then(|all| all.get("rollout.argoproj.io/revision"));
            let version = hash_and_version(set).map(|(_, version)| version).unwrap_or_default();
            format!("ReplicaSet {version}, revision {}", revision.map_or("?", String::as_str))
        });
        let runs = runs.iter().map(|run| format!("AnalysisRun {}", analysis(&run.data).phase));
        let mut all: Vec<String> = sets.chain(runs).collect();
        all.sort();
        Ok(all)
    }

    /// Aborts the update, as `kubectl argo rollouts abort` does.
    ///
    /// # Errors
    /// The API server refuses it.
    pub async fn abort(&self) -> Result<()> {
        let patch = Patch::Merge(json!({"status": {"abort": true}}));
        self.rollouts.patch_status(NAME, &PatchParams::default(), &patch).await.context("aborting the update")?;
        Ok(())
    }

    /// Waits until the state is as wanted, and answers it.
    ///
    /// # Errors
    /// It is not, in time; the last state is in the message.
    pub async fn wait(&self, what: &str, within: Duration, wanted: impl Fn(&State) -> bool) -> Result<State> {
        let mut last = State::default();
        let reached = until(what, within, async || {
            last = self.state().await?;
            // A state that is older than the spec says nothing about it.
            let rollout = self.rollouts.get(NAME).await?;
            let observed = rollout.data["status"]["observedGeneration"].as_str().and_then(|text| text.parse().ok());
            Ok(observed == rollout.metadata.generation && wanted(&last))
        })
        .await;
        reached.with_context(|| format!("{}: {last:?}", self.options.namespace))?;
        Ok(last)
    }

    fn host(&self) -> String {
        format!("{}.example", self.options.namespace)
    }

    fn rollout(&self, version: &str) -> Value {
        let ShopOptions { namespace, replicas, pause, scale_down_delay, .. } = &self.options;
        let labels = json!({"app": NAME});
        json!({
            "apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout", "metadata": {"name": NAME},
            "spec": {
                "replicas": replicas,
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": {"containers": [container(version, 0.0)]}},
                "strategy": {"canary": {
                    "stableService": STABLE,
                    "canaryService": CANARY,
                    "scaleDownDelaySeconds": scale_down_delay,
                    "abortScaleDownDelaySeconds": scale_down_delay,
                    "trafficRouting": {"plugins": {"argoproj-labs/gatewayAPI": {"httpRoute": NAME, "namespace": namespace}}},
                    "analysis": {"templates": [{"templateName": "error-ratio"}]},
                    "steps": [
                        {"setWeight": 20}, {"pause": {"duration": pause}},
                        {"setWeight": 50}, {"pause": {"duration": pause}},
                    ],
                }},
            },
        })
    }

    fn template(&self) -> Value {
        let ShopOptions { interval, initial_delay, threshold, .. } = &self.options;
        let interval = format!("{interval}s");
        let initial_delay = format!("{initial_delay}s");
        self.template_with(
            &self.query(),
            json!({
                "interval": interval, "initialDelay": initial_delay, "failureLimit": 1,
                "successCondition": format!("result[0] < {threshold}"),
            }),
        )
    }

    /// The AnalysisTemplate with another query, and with `more` fields of the metric.
    pub fn template_with(&self, query: &str, more: Value) -> Value {
        let mut metric =
            json!({"name": "error-ratio", "provider": {"prometheus": {"address": self.prometheus, "query": query}}});
        if let (Some(metric), Value::Object(more)) = (metric.as_object_mut(), more) {
            metric.extend(more);
        }
        json!({
            "apiVersion": "argoproj.io/v1alpha1", "kind": "AnalysisTemplate", "metadata": {"name": "error-ratio"},
            "spec": {"metrics": [metric]},
        })
    }

    /// The share of the canary Service's requests in the last four seconds that failed; none failed where there were none.
    pub fn query(&self) -> String {
        let label = Gateway::service_label(&self.options.namespace, CANARY, PORT);
        let rate = |more: &str| format!("sum(rate(traefik_service_requests_total{{service=\"{label}\"{more}}}[4s]))");
        format!("({} or vector(0)) / ({} > 0 or vector(1))", rate(",code=~\"5..\""), rate(""))
    }

    fn route(&self) -> Value {
        let backend = |name, weight: u32| json!({"name": name, "port": PORT, "weight": weight});
        json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": {"name": NAME},
            "spec": {
                "parentRefs": [{"name": GATEWAY_NAME, "namespace": GATEWAY_NAMESPACE}],
                "hostnames": [self.host()],
                "rules": [{"backendRefs": [backend(STABLE, 100), backend(CANARY, 0)]}],
            },
        })
    }
}

/// One of the two Services.
pub fn service(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
        "spec": {"selector": {"app": NAME}, "ports": [{"port": PORT}]},
    })
}

fn container(version: &str, error_rate: f64) -> Value {
    json!({
        "name": "web", "image": format!("example/web:{version}"), "ports": [{"containerPort": PORT}],
        "env": [{"name": "ERROR_RATE", "value": error_rate.to_string()}],
    })
}

fn hash_and_version(set: &ReplicaSet) -> Option<(String, String)> {
    let hash = set.metadata.labels.as_ref()?.get("rollouts-pod-template-hash")?;
    let image = set.spec.as_ref()?.template.as_ref()?.spec.as_ref()?.containers.first()?.image.as_deref()?;
    Some((hash.clone(), tag(image)))
}

fn tag(image: &str) -> String {
    image.rsplit(':').next().unwrap_or_default().to_owned()
}

fn analysis(run: &Value) -> Analysis {
    let status = &run["status"];
    let result = &status["metricResults"][0];
    let measurements = result["measurements"].as_array().into_iter().flatten();
    Analysis {
        phase: status["phase"].as_str().unwrap_or_default().to_owned(),
        message: status["message"].as_str().unwrap_or_default().to_owned(),
        values: measurements.map(|one| one["value"].as_str().unwrap_or_default().to_owned()).collect(),
    }
}
