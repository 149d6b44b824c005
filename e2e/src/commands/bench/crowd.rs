//! Many Rollouts at once: created, left alone, updated.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures::{StreamExt, TryStreamExt};
use kube::api::{DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams};
use kube::core::ApiResource;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::apply;
use crate::audit::Mark;
use crate::cluster::CONTROLLER;
use crate::controller::Controller;
use crate::environment::{Environment, EnvironmentOptions};
use crate::kubelet::KubeletOptions;

use super::{Figure, Scale, load_average};

const NAMESPACE: &str = "crowd";
/// How many requests of the bench itself are under way at once.
const CONCURRENCY: usize = 16;
const PATIENCE: Duration = Duration::from_secs(600);
/// After so long without a write nothing more is expected.
const QUIET: Duration = Duration::from_secs(3);

/// What a stretch of the bench has cost.
struct Cost {
    seconds: f64,
    /// Milliseconds of CPU for each Rollout.
    cpu: f64,
    /// Writes for each Rollout.
    writes: f64,
    /// Those among them that are Events: each tells a person something, and Argo Rollouts sends the same ones.
    events: f64,
    load: f64,
}

pub(super) async fn measure(folder: &Path, scale: Scale) -> Result<Vec<Figure>> {
    let kubelet = KubeletOptions { silent_start: Duration::from_secs(1), concurrency: 64, ..KubeletOptions::default() };
    let environment =
        Environment::start(folder, EnvironmentOptions { kubelet, ..EnvironmentOptions::default() }).await?;
    let controller = super::start(&environment).await?;
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
    apply::object(&environment.client, "", namespace).await?;
    let crowd = Crowd::watch(&environment);
    // Its own start is not what is measured.
    sleep(Duration::from_secs(2)).await;
    let fresh = controller.usage()?;

    let names: Vec<String> = (0..scale.rollouts).map(|number| format!("web-{number:03}")).collect();
    let created = cost(&environment, &controller, &format!("{} created", names.len()), names.len(), async || {
        each(&names, async |name| {
            crowd.api.create(&PostParams::default(), &rollout(name)?).await.context("creating a Rollout").map(drop)
        })
        .await?;
        crowd.all_healthy(&names, "one").await
    })
    .await?;

    let before = controller.usage()?;
    sleep(Duration::from_secs(scale.idle_seconds)).await;
    let after = controller.usage()?;
    let core = 100.0 * (after.cpu - before.cpu).as_secs_f64() / scale.idle_seconds as f64;
    let idle_load = load_average();
    println!(
        "idle with {}: {:.1} MB, {core:.2}% of a core ({:.1} MB when empty, {:.1} MB peak)",
        names.len(),
        after.resident as f64 / 1e6,
        fresh.resident as f64 / 1e6,
        after.peak as f64 / 1e6
    );

    let some = &names[..scale.updated];
    let updated = cost(&environment, &controller, &format!("{} updated", some.len()), some.len(), async || {
        each(some, async |name| {
            let image = json!({"spec": {"template": {"spec": {"containers": [container("two")]}}}});
            let patched = crowd.api.patch(name, &PatchParams::default(), &Patch::Merge(image)).await;
            patched.context("updating a Rollout").map(drop)
        })
        .await?;
        crowd.all_healthy(some, "two").await
    })
    .await?;
    drop(crowd);
    controller.stop().await;
    environment.stop().await;

    let figure = |what, value, unit, goal, argo, timing, load| Figure { what, value, unit, goal, argo, timing, load };
    Ok(vec![
        figure("500 created: until all are Healthy", created.seconds, "s", 15.0, "61 s", true, created.load),
        figure("500 created: CPU each", created.cpu, "ms", 4.0, "24 ms", false, created.load),
        figure("500 created: API writes each", created.writes, "", 8.0, "9.9", false, created.load),
        figure(
            "500 created: API writes each, without Events",
            created.writes - created.events,
            "",
            8.0,
            "9.9",
            false,
            created.load,
        ),
        figure("idle with 500: resident", after.resident as f64 / 1e6, "MB", 30.0, "124 MB", false, idle_load),
        figure("idle with 500: of a core", core, "%", 0.2, "", false, idle_load),
        figure("200 updated: until all are Healthy", updated.seconds, "s", 15.0, "74 s", true, updated.load),
        figure("200 updated: CPU each", updated.cpu, "ms", 10.0, "66 ms", false, updated.load),
        figure("200 updated: API writes each", updated.writes, "", 18.0, "30", false, updated.load),
        figure(
            "200 updated: API writes each, without Events",
            updated.writes - updated.events,
            "",
            18.0,
            "30",
            false,
            updated.load,
        ),
    ])
}

/// Measures what it costs the controller to get something done, with what it does afterwards.
async fn cost(
    environment: &Environment,
    controller: &Controller,
    what: &str,
    count: usize,
    work: impl AsyncFnOnce() -> Result<()>,
) -> Result<Cost> {
    let (mark, before, others) = (environment.cluster.audit().mark(), controller.usage()?, environment.usage()?);
    let began = Instant::now();
    if let Err(error) = work().await {
        bail!("{what}: {error:#}\nthe end of the controller's log:\n{}", tail(&controller.log()?, 20));
    }
    let seconds = began.elapsed().as_secs_f64();
    settle(environment, mark).await?;
    let each = |value: f64| value / count as f64;
    let writes = environment.cluster.audit().writes(CONTROLLER, mark)?;
    let others: Vec<String> = environment
        .usage()?
        .iter()
        .map(|(name, usage)| {
            let cpu = usage.cpu - others.get(name).map_or(Duration::ZERO, |usage| usage.cpu);
            format!("{name} {:.1} s", cpu.as_secs_f64())
        })
        .collect();
    let sum = |counts: &dyn Fn(&str) -> bool| {
        writes.iter().filter(|(what, _)| counts(what)).map(|(_, count)| *count).sum::<usize>() as f64
    };
    let cost = Cost {
        seconds,
        cpu: each((controller.usage()?.cpu - before.cpu).as_secs_f64() * 1e3),
        // Leases are not for any Rollout.
        writes: each(sum(&|what| !what.contains("leases"))),
        events: each(sum(&|what| what.contains("events"))),
        load: load_average(),
    };
    println!(
        "{what}: {seconds:.1} s, {:.2} ms CPU and {:.2} writes each, {:.2} of them Events; CPU of others: {}",
        cost.cpu,
        cost.writes,
        cost.events,
        others.join(", ")
    );
    for (write, count) in &writes {
        println!("    {:>6.2} {write}", each(*count as f64));
    }
    Ok(cost)
}

/// Waits until the controller writes nothing more.
async fn settle(environment: &Environment, mark: Mark) -> Result<()> {
    let count = || {
        Ok::<usize, anyhow::Error>(
            environment
                .cluster
                .audit()
                .writes(CONTROLLER, mark)?
                .iter()
                .filter(|(what, _)| !what.contains("leases"))
                .map(|(_, count)| count)
                .sum(),
        )
    };
    let (mut last, mut since, began) = (count()?, Instant::now(), Instant::now());
    while since.elapsed() < QUIET && began.elapsed() < PATIENCE {
        sleep(Duration::from_millis(250)).await;
        let now = count()?;
        if now != last {
            (last, since) = (now, Instant::now());
        }
    }
    Ok(())
}

async fn each(names: &[String], work: impl AsyncFn(&str) -> Result<()>) -> Result<()> {
    futures::stream::iter(names).map(|name| work(name)).buffer_unordered(CONCURRENCY).try_collect().await
}

/// The Rollouts, as a watch sees them.
struct Crowd {
    api: Api<DynamicObject>,
    healthy: Arc<Mutex<BTreeMap<String, String>>>,
    _watch: JoinSet<()>,
}

impl Crowd {
    fn watch(environment: &Environment) -> Self {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("argoproj.io", "v1alpha1", "Rollout"));
        let api: Api<DynamicObject> = Api::namespaced_with(environment.client.clone(), NAMESPACE, &resource);
        let healthy = Arc::new(Mutex::new(BTreeMap::new()));
        let mut watch = JoinSet::new();
        watch.spawn(follow(api.clone(), healthy.clone()));
        Self { api, healthy, _watch: watch }
    }

    /// Waits until all of them are healthy with this version.
    async fn all_healthy(&self, names: &[String], version: &str) -> Result<()> {
        let began = Instant::now();
        loop {
            let missing = {
                let healthy = self.healthy.lock().unwrap_or_else(PoisonError::into_inner);
                names.iter().filter(|name| healthy.get(*name).is_none_or(|healthy| healthy != version)).count()
            };
            if missing == 0 {
                return Ok(());
            }
            if began.elapsed() > PATIENCE {
                bail!("{missing} of {} were not healthy within {PATIENCE:?}", names.len());
            }
            sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Keeps the version with which each Rollout is healthy.
async fn follow(api: Api<DynamicObject>, healthy: Arc<Mutex<BTreeMap<String, String>>>) {
    let mut events = watcher(api, watcher::Config::default()).boxed();
    while let Some(event) = events.next().await {
        let rollout = match event {
            Ok(Event::Apply(rollout) | Event::InitApply(rollout)) => rollout,
            Ok(_) => continue,
            Err(_) => {
                sleep(Duration::from_millis(200)).await;
                continue;
            }
        };
        let mut healthy = healthy.lock().unwrap_or_else(PoisonError::into_inner);
        match version(&rollout) {
            Some(version) => healthy.insert(rollout.name_any(), version),
            None => healthy.remove(&rollout.name_any()),
        };
    }
}

fn version(rollout: &DynamicObject) -> Option<String> {
    let status = &rollout.data["status"];
    let observed = status["observedGeneration"].as_str()?.parse().ok();
    let current = status["stableRS"] == status["currentPodHash"] && observed == rollout.metadata.generation;
    let image = rollout.data["spec"]["template"]["spec"]["containers"][0]["image"].as_str()?;
    (current && status["phase"] == "Healthy").then(|| image.rsplit(':').next().unwrap_or_default().to_owned())
}

fn rollout(name: &str) -> Result<DynamicObject> {
    let labels = json!({"app": name});
    let pause = json!({"pause": {"duration": "2s"}});
    let object = json!({
        "apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout", "metadata": {"name": name},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container("one")]}},
            "strategy": {"canary": {"steps": [{"setWeight": 20}, pause, {"setWeight": 50}, pause]}},
        },
    });
    serde_json::from_value(object).context("a Rollout")
}

/// As long as users' containers are, and without ports: nothing listens.
fn container(version: &str) -> Value {
    json!({
        "name": "web",
        "image": format!("example/web:{version}"),
        "env": [{"name": "MODE", "value": "production"}, {"name": "REGION", "value": "north"}],
        "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "256Mi"}},
    })
}

fn tail(text: &str, lines: usize) -> String {
    let all: Vec<_> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}
