//! Releases that are disturbed: the controller is killed again and again, or something that a release needs is taken away.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::future::{join_all, try_join_all};
use k8s_openapi::api::core::v1::Service;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::audit::Audit;
use crate::chart;
use crate::cluster::CONTROLLER;
use crate::controller::Controller;
use crate::environment::Environment;
use crate::gateway::{GATEWAY_NAME, GATEWAY_NAMESPACE};
use crate::load::Load;
use crate::shop::{CANARY, NAME, Shop, ShopOptions, State, service};
use crate::suite::Test;
use crate::wait::until;

/// How long a release, or what is to be seen of it, may take on a machine that is busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);
/// The moments of the kills in the suite.
const SEED: u64 = 1;
/// Shops whose releases go out at the same time, each a little after the one before, so that one kill hits several moments.
const SHOPS: usize = 4;
/// A run in which the controller was killed less often says too little.
const FEWEST_KILLS: u32 = 8;

/// Longer than Traefik waits before it takes up a change, and shorter than the default, so that the test does not take long.
const PROPAGATION: Duration = Duration::from_secs(3);

const FIRST: &str = "blue";
pub(crate) const GOOD: &str = "green";
pub(crate) const BAD: &str = "red";

/// All of them, as tests of a full environment.
pub fn suite() -> &'static [Test] {
    &[
        ("releases_end_the_same_though_the_controller_is_killed", |environment| Box::pin(killed(environment, SEED))),
        ("a_release_without_prometheus_is_rolled_back", |environment| Box::pin(without_prometheus(environment))),
        ("a_query_that_prometheus_cannot_parse_rolls_back", |environment| Box::pin(unparsable_query(environment))),
        ("a_route_that_the_gateway_refuses_holds_the_release", |environment| Box::pin(refused_route(environment))),
        ("an_abort_needs_no_canary_service", |environment| Box::pin(missing_service(environment))),
    ]
}

/// Lets a good and a bad release go out in several shops while the controller is killed at seeded moments, and compares how
/// each ends with how they end undisturbed.
///
/// # Errors
/// An end differs, a request was lost, or the controller was not killed often enough.
pub async fn killed(environment: &mut Environment, seed: u64) -> Result<()> {
    let environment = &*environment;
    let mut controller = start(environment).await?;
    let calm = open(environment, "calm").await?;
    let expected = releases(environment, &calm).await.context("undisturbed")?;

    let names: Vec<String> = (0..SHOPS).map(|number| format!("killed-{number}")).collect();
    let shops = try_join_all(names.iter().map(|name| open(environment, name))).await?;
    let stories = join_all(shops.iter().enumerate().map(async |(number, shop)| {
        sleep(Duration::from_secs(5) * u32::try_from(number).unwrap_or(0)).await;
        releases(environment, shop).await.with_context(|| shop.options.namespace.clone())
    }));
    let mut kills = 0;
    let stories = tokio::select! {
        stories = stories => stories,
        error = kill_again_and_again(environment, &mut controller, seed, &mut kills) => return error,
    };
    controller.kill().await;
    for story in stories {
        let story = story?;
        ensure!(story == expected, "ended differently after {kills} kills:\n{story:#?}\nundisturbed:\n{expected:#?}");
    }
    println!(
        "     {kills} kills (seed {seed}) in {SHOPS} shops with a good and a bad release each; all ended as undisturbed"
    );
    ensure!(kills >= FEWEST_KILLS, "only {kills} kills");
    Ok(())
}

/// Never ends by itself but with an error.
async fn kill_again_and_again(
    environment: &Environment,
    controller: &mut Controller,
    seed: u64,
    kills: &mut u32,
) -> Result<()> {
    let audit = environment.cluster.audit();
    let mut random = fastrand::Rng::with_seed(seed);
    loop {
        if random.bool() {
            // Between two writes of one plan.
            after_writes(&audit, random.usize(1..8)).await?;
        } else {
            sleep(Duration::from_millis(random.u64(0..2_000))).await;
        }
        ensure!(controller.is_running(), "the controller has ended by itself:\n{}", controller.log()?);
        controller.kill().await;
        *kills += 1;
        sleep(Duration::from_millis(random.u64(0..1_000))).await;
        controller.restart()?;
        // After a restart nobody knows for how long the gateway has been following, so that what depends on it waits for the
        // propagation delay anew. Killed more often than that, nothing would ever go on.
        sleep(PROPAGATION + Duration::from_millis(random.u64(0..1_000))).await;
    }
}

/// Waits for so many more writes of the controller's, but not for ever.
async fn after_writes(audit: &Audit, count: usize) -> Result<()> {
    let (mark, began) = (audit.mark(), Instant::now());
    let mut seen = mark;
    while began.elapsed() < Duration::from_secs(2) {
        let end = audit.mark();
        if end != seen {
            seen = end;
            let writes = audit.since(mark)?.iter().filter(|event| event.user.username == CONTROLLER).count();
            if writes >= count {
                break;
            }
        }
        sleep(Duration::from_millis(1)).await;
    }
    Ok(())
}

/// How a good release and then a bad one ended.
type Ends = [(State, Vec<String>); 2];

async fn releases(environment: &Environment, shop: &Shop) -> Result<Ends> {
    let load = serve(environment, shop).await?;
    shop.release(GOOD, 0.0).await?;
    let none_left =
        |state: &State, version: &str| state.pods.get(version).is_none_or(|pods| pods.wanted == 0 && pods.ready == 0);
    let good = shop
        .wait("the good release is healthy", PATIENCE, |state| {
            state.phase == "Healthy" && state.stable == GOOD && none_left(state, FIRST)
        })
        .await?;
    let good = (comparable(good), shop.inventory().await?);
    shop.release(BAD, 0.5).await?;
    let bad = shop
        .wait("the bad release is rolled back", PATIENCE, |state| {
            state.phase == "Degraded" && state.current == BAD && none_left(state, BAD)
        })
        .await?;
    let bad = (comparable(bad), shop.inventory().await?);
    let records = load.stop().await?;
    let lost: Vec<_> = records.iter().filter(|it| !it.is_ok() && it.version.as_deref() != Some(BAD)).collect();
    ensure!(lost.is_empty(), "{} of {} requests were lost, such as {:?}", lost.len(), records.len(), lost[0]);
    ensure!(records.iter().any(|record| record.version.as_deref() == Some(BAD)), "the bad release got no request");
    Ok([good, bad])
}

/// How often it was measured differs from run to run.
fn comparable(mut state: State) -> State {
    if let Some(analysis) = &mut state.analysis {
        analysis.values.clear();
    }
    state
}

async fn without_prometheus(environment: &mut Environment) -> Result<()> {
    let controller = start(environment).await?;
    let shop = open(environment, "no-prometheus").await?;
    let limited = json!({"interval": "1s", "consecutiveErrorLimit": 1, "successCondition": "result[0] < 0.01"});
    shop.apply(shop.template_with(&shop.query(), limited)).await?;
    let load = serve(environment, &shop).await?;
    shop.patch(long_pauses()).await?;
    shop.release(GOOD, 0.0).await?;
    shop.wait("the release is under way", PATIENCE, |state| state.weights.1 == 20 && state.phase == "Paused").await?;
    prometheus(environment)?.kill().await;
    let ended = shop.wait("the release is rolled back", PATIENCE, rolled_back).await;
    prometheus(environment)?.restart().await?;
    let message = ended?.message;
    says(&message, &["error-ratio", "consecutiveErrors", "onnection refused"])?;
    end(controller, load).await
}

async fn unparsable_query(environment: &mut Environment) -> Result<()> {
    let controller = start(environment).await?;
    let shop = open(environment, "bad-query").await?;
    let limited = json!({"interval": "1s", "consecutiveErrorLimit": 1, "successCondition": "result[0] < 0.01"});
    shop.apply(shop.template_with("sum(rate(", limited)).await?;
    let load = serve(environment, &shop).await?;
    shop.patch(long_pauses()).await?;
    shop.release(GOOD, 0.0).await?;
    let ended = shop.wait("the release is rolled back", PATIENCE, rolled_back).await?;
    says(&ended.message, &["error-ratio", "parse error"])?;
    end(controller, load).await
}

async fn refused_route(environment: &mut Environment) -> Result<()> {
    let controller = start(environment).await?;
    let shop = open(environment, "refused-route").await?;
    // The gateway has no listener of this name. What it was programmed with before may stay or go.
    let parent = |section: Value| {
        let parent = json!({"name": GATEWAY_NAME, "namespace": GATEWAY_NAMESPACE, "sectionName": section});
        Patch::Merge(json!({"spec": {"parentRefs": [parent]}}))
    };
    let parameters = PatchParams::default();
    shop.routes.patch(NAME, &parameters, &parent(json!("none"))).await?;
    shop.release(GOOD, 0.0).await?;
    let held = shop
        .wait("the message names the route", PATIENCE, |state| {
            state.current == GOOD && state.message.contains("HTTPRoute")
        })
        .await?;
    says(&held.message, &[&format!("HTTPRoute {}/{NAME}", shop.options.namespace), GATEWAY_NAME])?;
    sleep(Duration::from_secs(3)).await;
    let held = shop.state().await?;
    ensure!(held.step.0 == 0 && held.stable == FIRST, "it went on without the gateway: {held:?}");
    shop.routes.patch(NAME, &parameters, &parent(json!("http"))).await?;
    let load = serve(environment, &shop).await?;
    shop.wait("the release goes on", PATIENCE, |state| state.phase == "Healthy" && state.stable == GOOD).await?;
    end(controller, load).await
}

async fn missing_service(environment: &mut Environment) -> Result<()> {
    let controller = start(environment).await?;
    let shop = open(environment, "no-service").await?;
    let load = serve(environment, &shop).await?;
    shop.patch(long_pauses()).await?;
    shop.release(GOOD, 0.0).await?;
    shop.wait("the release is under way", PATIENCE, |state| state.weights.1 == 20 && state.phase == "Paused").await?;
    let services: Api<Service> = Api::namespaced(shop.client.clone(), &shop.options.namespace);
    services.delete(CANARY, &DeleteParams::default()).await?;
    let degraded = shop.wait("the Rollout is degraded", PATIENCE, |state| state.phase == "Degraded").await?;
    says(&degraded.message, &["InvalidSpec", CANARY, "not found"])?;
    shop.abort().await?;
    shop.wait("no weight is left on the canary", PATIENCE, |state| state.aborted && state.weights == (100, 0)).await?;
    // Of the canary, too, no pod is left after its delay.
    let gone = |state: &State| state.pods.get(GOOD).is_some_and(|pods| pods.wanted == 0 && pods.ready == 0);
    shop.wait("the canary is gone", PATIENCE, gone).await?;
    // Repaired and tried again, it goes through.
    shop.apply(service(CANARY)).await?;
    load.stop().await?;
    let load = serve(environment, &shop).await?;
    let retry = Patch::Merge(json!({"status": {"abort": false}}));
    shop.rollouts.patch_status(NAME, &PatchParams::default(), &retry).await?;
    shop.wait("the release is tried again", PATIENCE, |state| state.weights.1 == 20).await?;
    end(controller, load).await
}

pub(crate) async fn start(environment: &Environment) -> Result<Controller> {
    chart::install(&environment.tools, &environment.client).await?;
    let delay = format!("--propagation-delay-seconds={}", PROPAGATION.as_secs());
    let arguments = ["--metricsPort=0", "--healthzPort=0", "--leader-elect=false", &delay];
    Controller::start(&environment.cluster, &environment.folder, CONTROLLER, &arguments)
}

async fn end(controller: Controller, load: Load) -> Result<()> {
    load.stop().await?;
    controller.stop().await;
    Ok(())
}

/// A shop whose releases are quick.
pub(crate) async fn open(environment: &Environment, namespace: &str) -> Result<Shop> {
    let options = ShopOptions {
        namespace: namespace.to_owned(),
        replicas: 3,
        pause: 5,
        scale_down_delay: 3,
        interval: 1,
        initial_delay: 2,
        ..ShopOptions::default()
    };
    Shop::open(environment, options, FIRST).await
}

/// A load that is being served.
pub(crate) async fn serve(environment: &Environment, shop: &Shop) -> Result<Load> {
    until("the gateway answers", PATIENCE, async || {
        let probe = shop.load(environment, 20.0)?;
        sleep(Duration::from_millis(500)).await;
        let records = probe.stop().await?;
        Ok(records.iter().all(crate::load::Record::is_ok))
    })
    .await?;
    shop.load(environment, 40.0)
}

/// So that nothing ends before it is disturbed.
pub(crate) fn long_pauses() -> Value {
    let pause = json!({"pause": {"duration": "1h"}});
    json!({"spec": {"strategy": {"canary": {"steps": [{"setWeight": 20}, pause, {"setWeight": 50}, pause]}}}})
}

fn rolled_back(state: &State) -> bool {
    state.phase == "Degraded" && state.aborted && state.weights == (100, 0)
}

fn says(message: &str, words: &[&str]) -> Result<()> {
    let missing: Vec<_> = words.iter().filter(|word| !message.contains(**word)).collect();
    ensure!(missing.is_empty(), "the message does not say {missing:?}: {message}");
    println!("     {message}");
    Ok(())
}

fn prometheus(environment: &mut Environment) -> Result<&mut crate::prometheus::Prometheus> {
    environment.prometheus.as_mut().context("the environment has no Prometheus")
}
