//! Releases behind a gateway that follows the API server up to ten seconds late, as the load balancers of clouds do, under
//! real requests. The controller is told so by its propagation delay.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kube::api::{Api, DynamicObject, GroupVersionKind, Patch, PatchParams};
use kube::core::ApiResource;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::apply;
use crate::chart;
use crate::cluster::CONTROLLER;
use crate::controller::Controller;
use crate::environment::{Environment, EnvironmentOptions};
use crate::gateway::{GATEWAY_NAME, GATEWAY_NAMESPACE, GatewayOptions};
use crate::http::Http;
use crate::load::{Load, LoadOptions};
use crate::shop::{NAME, STABLE, Shop, ShopOptions, State, service};
use crate::suite::Test;
use crate::wait::until;

/// Traefik gathers the changes of so long before it looks at them.
const THROTTLE: &str = "--providers.kubernetesgateway.throttleduration=10s";
/// Those ten seconds, the two that Traefik takes for any new configuration, and one for a busy machine.
const PROPAGATION: &str = "--propagation-delay-seconds=13";
/// After so long the gateway does what the route says.
const FOLLOWED: Duration = Duration::from_secs(13);
const PATIENCE: Duration = Duration::from_secs(180);

const FIRST: &str = "blue";
const SECOND: &str = "green";
const THIRD: &str = "teal";

/// An environment with such a gateway.
pub fn options() -> EnvironmentOptions {
    let gateway = GatewayOptions { args: vec![THROTTLE.to_owned()], ..GatewayOptions::default() };
    EnvironmentOptions { gateway: Some(gateway), ..EnvironmentOptions::full() }
}

/// The tests of such an environment.
pub fn suite() -> &'static [Test] {
    &[("a_gateway_that_follows_late_loses_no_request", |environment| Box::pin(late(environment)))]
}

/// All at once, because most of the time is spent on waiting for the gateway.
async fn late(environment: &mut Environment) -> Result<()> {
    chart::install(&environment.tools, &environment.client).await?;
    let arguments = ["--metricsPort=0", "--healthzPort=0", "--leader-elect=false", PROPAGATION];
    let controller = Controller::start(&environment.cluster, &environment.folder, CONTROLLER, &arguments)?;
    let environment = &*environment;
    tokio::try_join!(superseded(environment), aborted(environment), rolled_back(environment), switched(environment))?;
    controller.stop().await;
    Ok(())
}

async fn superseded(environment: &Environment) -> Result<()> {
    let (shop, load) = half_way(environment, "superseded").await?;
    shop.release(THIRD, 0.0).await?;
    let end = |state: &State| state.phase == "Healthy" && state.stable == THIRD && none_left(state, SECOND);
    let state = shop.wait("the successor is out", PATIENCE, end).await?;
    ensure!(!state.aborted, "the good successor was aborted: {}", state.message);
    followed(load, "a release superseded at 50%").await
}

async fn aborted(environment: &Environment) -> Result<()> {
    let (shop, load) = half_way(environment, "aborted").await?;
    shop.abort().await?;
    let end = |state: &State| state.phase == "Degraded" && state.weights == (100, 0) && none_left(state, SECOND);
    shop.wait("the canary is gone", PATIENCE, end).await?;
    followed(load, "an abort at 50%").await
}

async fn rolled_back(environment: &Environment) -> Result<()> {
    let (shop, load) = half_way(environment, "rolled-back").await?;
    shop.release(FIRST, 0.0).await?;
    let end = |state: &State| state.phase == "Healthy" && state.weights == (100, 0) && none_left(state, SECOND);
    shop.wait("the canary is gone", PATIENCE, end).await?;
    followed(load, "a rollback at 50%").await
}

/// The old version is let go after three seconds: only the propagation delay keeps it for the gateway.
async fn switched(environment: &Environment) -> Result<()> {
    const NAMESPACE: &str = "switched";
    let client = &environment.client;
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
    apply::object(client, "", namespace).await?;
    for object in [service(STABLE), route(), blue_green()] {
        apply::object(client, NAMESPACE, object).await?;
    }
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("argoproj.io", "v1alpha1", "Rollout"));
    let rollouts: Api<DynamicObject> = Api::namespaced_with(client.clone(), NAMESPACE, &resource);
    let gateway = environment.gateway.as_ref().context("there is a gateway")?;
    let host = format!("{NAMESPACE}.example");
    serves(&gateway.url(), &host).await?;
    let load = Load::start(LoadOptions { url: gateway.url(), host, rate: 40.0, timeout: Duration::from_secs(10) });
    let image = json!([{"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": image(SECOND)}]);
    let image = serde_json::from_value(image).context("a replacement is a JSON patch")?;
    rollouts.patch(NAME, &PatchParams::default(), &Patch::Json::<()>(image)).await?;
    until("all pods are those of the new version", PATIENCE, async || {
        let rollout = rollouts.get(NAME).await?;
        let status = &rollout.data["status"];
        let observed = status["observedGeneration"].as_str().and_then(|text| text.parse().ok());
        let complete = status["phase"] == "Healthy" && status["replicas"] == 3 && status["updatedReplicas"] == 3;
        Ok(observed == rollout.metadata.generation && complete)
    })
    .await?;
    followed(load, "a blue-green switch").await
}

/// A shop whose release is at 50%, and whose gateway has followed.
async fn half_way(environment: &Environment, namespace: &str) -> Result<(Shop, Load)> {
    let options = ShopOptions {
        namespace: namespace.to_owned(),
        replicas: 3,
        scale_down_delay: 3,
        interval: 1,
        initial_delay: 15,
        ..ShopOptions::default()
    };
    let shop = Shop::open(environment, options, FIRST).await?;
    let steps = json!([{"setWeight": 50}, {"pause": {"duration": "25s"}}]);
    shop.patch(json!({"spec": {"strategy": {"canary": {"steps": steps}}}})).await?;
    let gateway = environment.gateway.as_ref().context("there is a gateway")?;
    serves(&gateway.url(), &format!("{namespace}.example")).await?;
    let load = shop.load(environment, 40.0)?;
    shop.release(SECOND, 0.0).await?;
    shop.wait("half of the traffic is on the canary", PATIENCE, |state| state.weights == (50, 50)).await?;
    sleep(FOLLOWED).await;
    let recent = load.elapsed().saturating_sub(Duration::from_secs(1))..load.elapsed();
    ensure!(load.summary(recent).versions.contains_key(SECOND), "the gateway has not followed to 50%");
    Ok((shop, load))
}

async fn serves(url: &str, host: &str) -> Result<()> {
    let http = Http::default();
    until("the gateway answers", PATIENCE, async || {
        Ok(http.get(url, Some(host), Duration::from_secs(5)).await?.status().is_success())
    })
    .await
}

/// The load goes on until the gateway has followed the last change, and has lost nothing.
async fn followed(load: Load, what: &str) -> Result<()> {
    sleep(FOLLOWED).await;
    let records = load.stop().await?;
    let lost: Vec<_> = records.iter().filter(|record| !record.is_ok()).collect();
    println!("     {what}: {} of {} requests lost", lost.len(), records.len());
    ensure!(lost.is_empty(), "{what}: {} of {} requests were lost, such as {:?}", lost.len(), records.len(), lost[0]);
    Ok(())
}

fn none_left(state: &State, version: &str) -> bool {
    state.pods.get(version).is_none_or(|pods| pods.wanted == 0 && pods.ready == 0)
}

fn image(version: &str) -> String {
    format!("example/web:{version}")
}

fn route() -> Value {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": {"name": NAME},
        "spec": {
            "parentRefs": [{"name": GATEWAY_NAME, "namespace": GATEWAY_NAMESPACE}],
            "hostnames": ["switched.example"],
            "rules": [{"backendRefs": [{"name": STABLE, "port": 8080}]}],
        },
    })
}

fn blue_green() -> Value {
    let labels = json!({"app": NAME});
    let container = json!({"name": "web", "image": image(FIRST), "ports": [{"containerPort": 8080}]});
    json!({
        "apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout", "metadata": {"name": NAME},
        "spec": {
            "replicas": 3,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
            "strategy": {"blueGreen": {"activeService": STABLE, "scaleDownDelaySeconds": 3}},
        },
    })
}
