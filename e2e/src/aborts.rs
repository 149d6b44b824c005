//! Aborts while something is broken: the traffic is back on stable and the canary gone all the same, within the delays that
//! the Rollout says.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::networking::v1::Ingress;
use kube::api::{Api, DeleteParams, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams};
use kube::core::ApiResource;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::apply;
use crate::chart;
use crate::cluster::CONTROLLER;
use crate::controller::{self, Controller};
use crate::disruption::{BAD, GOOD, PATIENCE, long_pauses, open, serve, start};
use crate::environment::Environment;
use crate::load::Load;
use crate::refusing::Refusing;
use crate::shop::{NAME, Shop, State, service};
use crate::suite::Test;
use crate::wait::until;

/// `abortScaleDownDelaySeconds` where the user has not set it.
const DEFAULT_DELAY: Duration = Duration::from_secs(30);
/// What a machine that is busy may add to it.
const SLACK: Duration = Duration::from_secs(20);
/// From an abort to the weight, where half of the calls are refused: some of them several times, each with a pause after.
const REFUSED: Duration = Duration::from_secs(30);

/// All of them, as tests of a full environment.
pub fn suite() -> &'static [Test] {
    &[
        ("an_abort_needs_no_ingress", |environment| Box::pin(missing_ingress(environment))),
        ("an_abort_ends_a_full_promotion_that_never_gets_ready", |environment| Box::pin(never_ready(environment))),
        ("an_abort_gets_through_when_half_of_the_calls_are_refused", |environment| Box::pin(half_refused(environment))),
    ]
}

/// The canary's own Ingress is deleted, and then the user's.
async fn missing_ingress(environment: &mut Environment) -> Result<()> {
    let controller = start(environment).await?;
    for (namespace, deleted) in [("no-canary-ingress", "web-web-canary"), ("no-ingress", NAME)] {
        let shop = Nginx::open(environment, namespace).await?;
        shop.image(GOOD).await?;
        let half = async || Ok(shop.weight().await? == Some(50) && shop.phase().await? == "Paused");
        until("half of the traffic is on the canary", PATIENCE, half).await?;
        let ingresses = shop.ingresses();
        ingresses.delete(deleted, &DeleteParams::default()).await?;
        shop.abort().await?;
        let aborted = Instant::now();
        let off = async || Ok(shop.weight().await?.is_none_or(|weight| weight == 0));
        until("no weight is left on the canary", SLACK, off).await?;
        until("the canary is gone", SLACK, async || Ok(shop.sizes().await? == [0, 3])).await?;
        let gone = aborted.elapsed();
        println!("     Ingress {deleted} deleted: the canary is gone {:.1} s after the abort", gone.as_secs_f64());
        ensure!(shop.phase().await? == "Degraded", "it is {}", shop.phase().await?);
        let left = ingresses.get_opt("web-web-canary").await?;
        ensure!(left.is_none_or(|it| weight_of(&it) == Some(0)), "the canary's Ingress is there again, with a weight");
    }
    controller.stop().await;
    Ok(())
}

async fn never_ready(environment: &mut Environment) -> Result<()> {
    let controller = start(environment).await?;
    let shop = open(environment, "never-ready").await?;
    let load = serve(environment, &shop).await?;
    shop.patch(long_pauses()).await?;
    // The delay is the default.
    shop.patch(json!({"spec": {"strategy": {"canary": {"abortScaleDownDelaySeconds": null}}}})).await?;
    let never = json!({"e2e.tidegate.dev/ready-after-ms": "never"});
    shop.patch(json!({"spec": {"template": {"metadata": {"annotations": never}}}})).await?;
    until("the canary has a pod", PATIENCE, async || Ok(shop.sizes().await? == [1, 3])).await?;
    shop.status(json!({"promoteFull": true})).await?;
    until("the canary has all of its pods", PATIENCE, async || Ok(shop.sizes().await? == [3, 3])).await?;
    sleep(Duration::from_secs(5)).await;
    shop.abort().await?;
    let aborted = Instant::now();
    shop.wait("the abort is seen", SLACK, |state| state.aborted && state.weights == (100, 0)).await?;
    until("the canary is gone", DEFAULT_DELAY + SLACK, async || Ok(shop.sizes().await? == [0, 3])).await?;
    let gone = aborted.elapsed();
    println!("     promoted in full and never ready: the canary is gone {:.1} s after the abort", gone.as_secs_f64());
    let state = shop.state().await?;
    ensure!(state.phase == "Degraded" && state.weights == (100, 0), "it ends as {state:?}");
    let records = load.stop().await?;
    let lost = records.iter().filter(|record| !record.is_ok()).count();
    ensure!(lost == 0, "{lost} of {} requests were lost", records.len());
    controller.stop().await;
    Ok(())
}

async fn half_refused(environment: &mut Environment) -> Result<()> {
    chart::install(&environment.tools, &environment.client).await?;
    let proxy = Refusing::start(environment.cluster.client(CONTROLLER).await?, 1).await?;
    let kubeconfig = proxy.kubeconfig(&environment.folder)?.display().to_string();
    let arguments = [
        "controller",
        "--kubeconfig",
        &kubeconfig,
        "--metricsPort=0",
        "--healthzPort=0",
        "--leader-elect=false",
        "--propagation-delay-seconds=3",
    ];
    let arguments = arguments.map(str::to_owned).to_vec();
    let controller = Controller::start_program(controller::binary()?, &environment.folder, arguments)?;
    let names = ["refused-0", "refused-1", "refused-2"];
    let shops = try_join_all(names.map(|name| under_way(environment, name))).await?;
    proxy.refuse(0.5);
    let aborted = try_join_all(shops.iter().map(|(shop, _)| aborted(shop))).await;
    println!("     {} calls were refused", proxy.refused());
    proxy.refuse(0.0);
    aborted?;
    for (_, load) in shops {
        let records = load.stop().await?;
        let lost = records.iter().filter(|record| !record.is_ok()).count();
        ensure!(lost == 0, "{lost} of {} requests were lost", records.len());
    }
    controller.stop().await;
    Ok(())
}

/// A release that pauses at 20%, under requests.
async fn under_way(environment: &Environment, namespace: &str) -> Result<(Shop, Load)> {
    let shop = open(environment, namespace).await?;
    let load = serve(environment, &shop).await?;
    shop.patch(long_pauses()).await?;
    shop.release(BAD, 0.0).await?;
    shop.wait("the release is under way", PATIENCE, |state| state.weights.1 == 20 && state.phase == "Paused").await?;
    Ok((shop, load))
}

async fn aborted(shop: &Shop) -> Result<()> {
    shop.abort().await?;
    let began = Instant::now();
    shop.wait("no weight is left on the canary", REFUSED, |state| state.weights == (100, 0)).await?;
    let back = began.elapsed().as_secs_f64();
    let gone = |state: &State| state.phase == "Degraded" && state.pods.get(BAD).is_some_and(|pods| pods.wanted == 0);
    shop.wait("the canary is gone", REFUSED + SLACK, gone).await?;
    let gone = began.elapsed().as_secs_f64();
    println!("     the traffic is back {back:.1} s and the canary gone {gone:.1} s after the abort");
    Ok(())
}

/// A Rollout behind the objects of ingress-nginx, which nobody serves.
struct Nginx<'a> {
    environment: &'a Environment,
    namespace: &'a str,
}

impl<'a> Nginx<'a> {
    async fn open(environment: &'a Environment, namespace: &'a str) -> Result<Self> {
        let shop = Self { environment, namespace };
        let client = &environment.client;
        let own = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}});
        apply::object(client, "", own).await?;
        for object in [service("web-stable"), service("web-canary"), ingress(), rollout()] {
            apply::object(client, namespace, object).await?;
        }
        until("it is healthy", PATIENCE, async || Ok(shop.phase().await? == "Healthy")).await?;
        Ok(shop)
    }

    fn rollouts(&self) -> Api<DynamicObject> {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("argoproj.io", "v1alpha1", "Rollout"));
        Api::namespaced_with(self.environment.client.clone(), self.namespace, &resource)
    }

    fn ingresses(&self) -> Api<Ingress> {
        Api::namespaced(self.environment.client.clone(), self.namespace)
    }

    async fn image(&self, version: &str) -> Result<()> {
        let path = "/spec/template/spec/containers/0/image";
        let patch = json!([{"op": "replace", "path": path, "value": format!("example/web:{version}")}]);
        let patch = serde_json::from_value(patch).context("a replacement is a JSON patch")?;
        self.rollouts().patch(NAME, &PatchParams::default(), &Patch::Json::<()>(patch)).await?;
        Ok(())
    }

    async fn abort(&self) -> Result<()> {
        let abort = Patch::Merge(json!({"status": {"abort": true}}));
        self.rollouts().patch_status(NAME, &PatchParams::default(), &abort).await?;
        Ok(())
    }

    async fn phase(&self) -> Result<String> {
        Ok(self.rollouts().get(NAME).await?.data["status"]["phase"].as_str().unwrap_or_default().to_owned())
    }

    /// What the canary's Ingress takes; none without it.
    async fn weight(&self) -> Result<Option<i64>> {
        Ok(self.ingresses().get_opt("web-web-canary").await?.as_ref().and_then(weight_of))
    }

    async fn sizes(&self) -> Result<Vec<i32>> {
        sizes(Api::namespaced(self.environment.client.clone(), self.namespace)).await
    }
}

impl Shop {
    async fn sizes(&self) -> Result<Vec<i32>> {
        sizes(Api::namespaced(self.client.clone(), &self.options.namespace)).await
    }

    async fn status(&self, status: Value) -> Result<()> {
        let patch = Patch::Merge(json!({"status": status}));
        self.rollouts.patch_status(NAME, &PatchParams::default(), &patch).await?;
        Ok(())
    }
}

/// How many pods the ReplicaSets want, the smallest first.
async fn sizes(sets: Api<ReplicaSet>) -> Result<Vec<i32>> {
    let sets = sets.list(&ListParams::default()).await?.items;
    let mut sizes: Vec<i32> = sets.iter().filter_map(|set| set.spec.as_ref()?.replicas).collect();
    sizes.sort_unstable();
    Ok(sizes)
}

fn weight_of(ingress: &Ingress) -> Option<i64> {
    ingress.metadata.annotations.as_ref()?.get("nginx.ingress.kubernetes.io/canary-weight")?.parse().ok()
}

fn ingress() -> Value {
    let backend = json!({"service": {"name": "web-stable", "port": {"number": 8080}}});
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": NAME},
        "spec": {
            "ingressClassName": "nginx",
            "rules": [{"host": "web.example", "http": {"paths": [
                {"path": "/", "pathType": "Prefix", "backend": backend},
            ]}}],
        },
    })
}

fn rollout() -> Value {
    let labels = json!({"app": NAME});
    let container = json!({"name": "web", "image": "example/web:blue", "ports": [{"containerPort": 8080}]});
    json!({
        "apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout", "metadata": {"name": NAME},
        "spec": {
            "replicas": 3,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
            "strategy": {"canary": {
                "stableService": "web-stable",
                "canaryService": "web-canary",
                "abortScaleDownDelaySeconds": 3,
                "trafficRouting": {"nginx": {"stableIngress": NAME}},
                "steps": [{"setWeight": 50}, {"pause": {}}],
            }},
        },
    })
}
