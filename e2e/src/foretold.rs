//! What `tidegate plan` foretells, beside what the real control plane then does: the same manifests, released twice.
//!
//! Both sides are told as tracks: what has a value, and when it took another one. The tracks must have the same values in the same
//! order, and each value must last as long as it was foretold, give or take two seconds.

use std::collections::BTreeMap;
use std::fmt;
use std::future::ready;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use futures::StreamExt;
use futures::future::join_all;
use futures::stream::select_all;
use kube::Api;
use kube::api::{DynamicObject, GroupVersionKind, Patch, PatchParams};
use kube::core::ApiResource;
use kube::runtime::watcher::{self, Event, watcher};
use serde_json::{Value, json};
use tokio::process::Command;
use tokio::time::{Instant, sleep, timeout_at};

use crate::apply;
use crate::chart;
use crate::cluster::CONTROLLER;
use crate::controller::{Controller, binary};
use crate::environment::Environment;
use crate::load::{Load, LoadOptions};
use crate::pod::ImageBehaviour;
use crate::shop::{CANARY, NAME, STABLE, Shop, ShopOptions, service};
use crate::suite::Test;
use crate::wait::until;

/// How much longer or shorter than foretold something may last, in seconds.
const CLOSE: f64 = 2.0;
/// What happens in one decision is seen within so many seconds.
const NO_LENGTH: f64 = 0.1;
/// Requests a second.
const RATE: f64 = 100.0;
/// What the stand-in for kubelets takes to have a pod ready.
const READY_AFTER: &str = "400ms";
/// How long after its foretold end a release is still waited for.
const PATIENCE: Duration = Duration::from_secs(30);
/// So long requests are sent before a release: queries look back.
const BEFORE: Duration = Duration::from_secs(6);

const FIRST: &str = "blue";
const NEXT: &str = "green";
const HASH: &str = "rollouts-pod-template-hash";

/// A release to foretell.
struct Story {
    /// Its namespace.
    name: &'static str,
    /// As `--release` has it.
    release: &'static str,
    /// The share of requests that the new version fails.
    error_rate: f64,
    /// The Rollout's strategy; that of the demo's shop, with its analysis, if `None`.
    strategy: Option<fn() -> Value>,
    /// Whether a route divides the requests, so that there are weights.
    weights: bool,
}

const STORIES: &[Story] = &[
    Story { name: "foretold-good", release: "healthy", error_rate: 0.0, strategy: None, weights: true },
    Story { name: "foretold-bad", release: "errors=30%", error_rate: 0.3, strategy: None, weights: true },
    Story {
        name: "foretold-by-pods",
        release: "healthy",
        error_rate: 0.0,
        strategy: Some(|| {
            json!({"canary": {
                "maxSurge": 1, "maxUnavailable": 0,
                "steps": [{"setWeight": 20}, {"pause": {"duration": "5s"}}, {"setWeight": 60}, {"pause": {"duration": "5s"}}],
            }})
        }),
        weights: false,
    },
    Story {
        name: "foretold-blue-green",
        release: "healthy",
        error_rate: 0.0,
        strategy: Some(|| {
            json!({"blueGreen": {
                "activeService": "web-stable", "previewService": "web-canary",
                "autoPromotionSeconds": 6, "scaleDownDelaySeconds": 8, "previewReplicaCount": 2,
            }})
        }),
        weights: true,
    },
];

/// The tests of a full environment.
pub fn suite() -> &'static [Test] {
    &[("releases_go_as_they_were_planned", |environment| Box::pin(foretold(environment)))]
}

/// All at once: most of a release is waiting.
///
/// # Errors
/// One went otherwise than it was planned.
pub async fn foretold(environment: &mut Environment) -> Result<()> {
    chart::install(&environment.tools, &environment.client).await?;
    let arguments = ["--metricsPort=0", "--healthzPort=0", "--leader-elect=false"];
    let controller = Controller::start(&environment.cluster, &environment.folder, CONTROLLER, &arguments)?;
    let environment = &*environment;
    // One plan after the other, and before the releases: it takes as long as it takes.
    let mut prepared = Vec::new();
    for story in STORIES {
        prepared.push(Prepared::new(environment, story).await.context(story.name)?);
    }
    let told = join_all(prepared.into_iter().map(async |prepared| prepared.play(environment).await)).await;
    controller.stop().await;
    let mut otherwise = Vec::new();
    for told in told {
        match told {
            Ok(line) => println!("     {line}"),
            Err(error) => otherwise.push(format!("{error:#}")),
        }
    }
    ensure!(otherwise.is_empty(), "{}", otherwise.join("\n"));
    Ok(())
}

/// A story whose first version is out, and its plan.
struct Prepared {
    story: &'static Story,
    load: Option<Load>,
    plan: Value,
    took: Duration,
}

impl Prepared {
    async fn new(environment: &Environment, story: &'static Story) -> Result<Self> {
        let (manifests, load) = match story.strategy {
            None => {
                // The gateway follows up to two seconds late, which a plan does not know: the first measurement must be of
                // requests enough to be as bad as foretold, and the second must come before the next step.
                let (initial_delay, pause) = (6, 10);
                let namespace = story.name.to_owned();
                let options = ShopOptions { namespace, initial_delay, pause, ..ShopOptions::default() };
                let shop = Shop::open(environment, options, FIRST).await?;
                (shop.manifests(NEXT).to_vec(), Some(load(environment, story.name).await?))
            }
            Some(strategy) => {
                let manifests = |version| [service(STABLE), service(CANARY), rollout(strategy(), version)];
                let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": story.name}});
                apply::object(&environment.client, "", namespace).await?;
                for object in manifests(FIRST) {
                    apply::object(&environment.client, story.name, object).await?;
                }
                (manifests(NEXT).to_vec(), None)
            }
        };
        let (plan, took) = plan(environment, story, &manifests).await?;
        let image = ImageBehaviour { error_rate: Some(story.error_rate), ..ImageBehaviour::default() };
        environment.kubelet.set_image(story.name, NEXT, image);
        Ok(Self { story, load, plan, took })
    }

    /// Plays the story, and answers what is to be said of it and its plan.
    async fn play(self, environment: &Environment) -> Result<String> {
        let Self { story, load, plan, took } = self;
        let release = &plan["releases"][0];
        let foretold = Tracks::planned(release, story.weights);
        sleep(BEFORE).await;
        let within = Duration::from_secs_f64(foretold.end) + PATIENCE;
        let seen = Watched::release(environment, story, within).await.context(story.name)?;
        if let Some(load) = load {
            load.stop().await?;
        }
        let happened = seen.tracks(story.weights);
        let described = || format!("{}\nplanned:\n{foretold}\nhappened:\n{happened}", story.name);
        let apart = foretold.apart(&happened).with_context(described)?;
        let (planned, made) =
            (list(&release["analyses"][0]["metrics"][0]["measurements"]).count(), seen.measurements());
        // One more or less fits into two seconds.
        ensure!(planned.abs_diff(made) <= 1, "{}: {planned} measurements planned, {made} made", story.name);
        Ok(format!(
            "{}: planned in {:.1} s; over after {:.1} s, by the plan {:.1} s; {} changes, at most {apart:.1} s apart; {made} \
             measurements, by the plan {planned}",
            story.name,
            took.as_secs_f64(),
            happened.end,
            foretold.end,
            foretold.tracks.values().map(Vec::len).sum::<usize>(),
        ))
    }
}

async fn plan(environment: &Environment, story: &Story, manifests: &[Value]) -> Result<(Value, Duration)> {
    let file = environment.folder.join(format!("{}.yaml", story.name));
    // JSON is YAML too.
    let text: Vec<String> = manifests.iter().map(Value::to_string).collect();
    std::fs::write(&file, text.join("\n---\n")).with_context(|| format!("writing {}", file.display()))?;
    let began = Instant::now();
    let output = Command::new(binary()?)
        .args(["plan", "--namespace", story.name, "--release", story.release, "--output", "json", "--filename"])
        .arg(&file)
        .args(["--rps", &RATE.to_string(), "--error-rate", "0%", "--ready-after", READY_AFTER])
        .args(["--scrape-interval", "1s"])
        .output()
        .await
        .context("running tidegate plan")?;
    // 3 says that it would be rolled back.
    if !matches!(output.status.code(), Some(0 | 3)) {
        bail!("tidegate plan: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok((serde_json::from_slice(&output.stdout).context("reading the plan")?, began.elapsed()))
}

async fn load(environment: &Environment, namespace: &str) -> Result<Load> {
    let url = environment.gateway.as_ref().context("there is a gateway")?.url();
    let host = format!("{namespace}.example");
    let load = Load::start(LoadOptions { url, host, rate: RATE, timeout: Duration::from_secs(5) });
    until("the gateway answers", PATIENCE, async || {
        let now = load.elapsed();
        let second = load.summary(now.saturating_sub(Duration::from_secs(1))..now);
        Ok(second.all.sent > 0 && second.all.failed == 0)
    })
    .await?;
    Ok(load)
}

fn rollout(strategy: Value, version: &str) -> Value {
    let labels = json!({"app": NAME});
    let container =
        json!({"name": "web", "image": format!("example/web:{version}"), "ports": [{"containerPort": 8080}]});
    json!({
        "apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout", "metadata": {"name": NAME},
        "spec": {
            "replicas": 5,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
            "strategy": strategy,
        },
    })
}

/// What has which value from when on, in seconds since the change of the image.
struct Tracks {
    tracks: BTreeMap<&'static str, Vec<(f64, String)>>,
    outcome: String,
    end: f64,
}

impl Tracks {
    /// As the plan has it.
    fn planned(release: &Value, weights: bool) -> Self {
        let mut tracks = Self { tracks: BTreeMap::new(), outcome: text(&release["outcome"]), end: 0.0 };
        for row in list(&release["steps"]) {
            let stage = row["step"].as_u64().map_or_else(|| text(&row["what"]), |step| format!("step {step}"));
            tracks.add("stage", seconds(&row["from"]), stage);
            tracks.end = seconds(&row["to"]);
        }
        for sample in list(&release["timeline"]) {
            let at = seconds(&sample["at"]);
            for (track, pods) in [("old pods", "oldPods"), ("new pods", "newPods")] {
                tracks.add(track, at, sample[pods]["wanted"].to_string());
            }
            if weights {
                tracks.add("weight", at, percent(sample["weight"].as_f64().unwrap_or(f64::NAN)));
            }
        }
        tracks
    }

    /// Notes a value, if it is another one.
    fn add(&mut self, track: &'static str, at: f64, value: String) {
        let track = self.tracks.entry(track).or_default();
        if track.last().is_none_or(|(_, last)| *last != value) {
            track.push((at, value));
        }
    }

    /// The most seconds that a change came earlier or later than foretold. Each value must have lasted as long as foretold, give
    /// or take [`CLOSE`]: so a busy machine, on which every step is a little late, is not taken for another course.
    fn apart(&self, happened: &Self) -> Result<f64> {
        ensure!(self.outcome == happened.outcome, "{} was planned, {} happened", self.outcome, happened.outcome);
        let mut most = (self.end - happened.end).abs();
        for (name, track) in &self.tracks {
            let values = |track: &[(f64, String)]| track.iter().map(|(_, value)| value.clone()).collect::<Vec<_>>();
            let other = happened.tracks.get(name).map_or(&[][..], Vec::as_slice);
            ensure!(
                values(track) == values(other),
                "{name}: {:?} planned, {:?} happened",
                values(track),
                values(other)
            );
            let ends =
                |track: &[(f64, String)], end| track.iter().skip(1).map(|(at, _)| *at).chain([end]).collect::<Vec<_>>();
            let ends = ends(track, self.end).into_iter().zip(ends(other, happened.end));
            for (((from, value), (began, _)), (to, ended)) in track.iter().zip(other).zip(ends) {
                most = most.max((from - began).abs());
                let (planned, lasted) = (to - from, ended - began);
                ensure!(
                    (planned - lasted).abs() <= CLOSE,
                    "{name} {value}: planned for {planned:.1} s, lasted {lasted:.1} s"
                );
            }
        }
        Ok(most)
    }
}

impl fmt::Display for Tracks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, track) in &self.tracks {
            write!(f, "  {name}:")?;
            for (at, value) in track {
                write!(f, " {value} ({at:.1} s)")?;
            }
            writeln!(f)?;
        }
        write!(f, "  {} after {:.1} s", self.outcome, self.end)
    }
}

/// Everything that was seen of a release, with the time at which it came.
struct Watched {
    seen: Vec<(f64, Kind, Value)>,
    old_hash: String,
    steps: u64,
    outcome: &'static str,
    end: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Rollout,
    ReplicaSet,
    Route,
    Service,
    AnalysisRun,
}

const KINDS: [(Kind, &str, &str, &str); 5] = [
    (Kind::Rollout, "argoproj.io", "v1alpha1", "Rollout"),
    (Kind::ReplicaSet, "apps", "v1", "ReplicaSet"),
    (Kind::Route, "gateway.networking.k8s.io", "v1", "HTTPRoute"),
    (Kind::Service, "", "v1", "Service"),
    (Kind::AnalysisRun, "argoproj.io", "v1alpha1", "AnalysisRun"),
];

impl Watched {
    /// Changes the image and watches until the release is over and the pods that have to go are gone.
    async fn release(environment: &Environment, story: &Story, within: Duration) -> Result<Self> {
        let api = |group: &str, version: &str, kind: &str| {
            let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
            Api::<DynamicObject>::namespaced_with(environment.client.clone(), story.name, &resource)
        };
        let rollouts = api("argoproj.io", "v1alpha1", "Rollout");
        until("the first version is out", PATIENCE, async || {
            let status = &rollouts.get(NAME).await?.data["status"];
            Ok(status["phase"] == "Healthy" && status["stableRS"].is_string())
        })
        .await?;
        let rollout = rollouts.get(NAME).await?.data;
        let mut watched = Self {
            seen: Vec::new(),
            old_hash: text(&rollout["status"]["stableRS"]),
            steps: list(&rollout["spec"]["strategy"]["canary"]["steps"]).count() as u64,
            outcome: "",
            end: 0.0,
        };
        let mut changes = select_all(KINDS.map(|(kind, group, version, name)| {
            watcher(api(group, version, name), watcher::Config::default())
                .filter_map(move |event| {
                    ready(match event {
                        Ok(Event::Apply(object) | Event::InitApply(object)) => Some((kind, Some(object))),
                        Ok(Event::InitDone) => Some((kind, None)),
                        _ => None,
                    })
                })
                .boxed()
        }));
        let mut unlisted = KINDS.len();
        let mut began = Instant::now();
        let mut deadline = began + PATIENCE;
        while let Ok(Some((kind, object))) = timeout_at(deadline, changes.next()).await {
            let at = if unlisted == 0 { began.elapsed().as_secs_f64() } else { 0.0 };
            match object {
                Some(object) => {
                    let object = serde_json::to_value(object).context("an object is JSON")?;
                    watched.seen.push((at, kind, object));
                }
                None if unlisted > 0 => {
                    unlisted -= 1;
                    if unlisted == 0 {
                        let image = json!([{
                            "op": "replace", "path": "/spec/template/spec/containers/0/image",
                            "value": format!("example/web:{NEXT}"),
                        }]);
                        let image = serde_json::from_value(image).context("a replacement is a JSON patch")?;
                        began = Instant::now();
                        deadline = began + within;
                        rollouts.patch(NAME, &PatchParams::default(), &Patch::Json::<()>(image)).await?;
                    }
                }
                None => {}
            }
            if unlisted == 0 && watched.is_over() {
                watched.end = at;
                return Ok(watched);
            }
        }
        bail!("the release was not over after {within:?}:\n{}", watched.tracks(story.weights))
    }

    fn is_over(&mut self) -> bool {
        let Some(rollout) = self.last(Kind::Rollout, NAME) else { return false };
        let status = &rollout["status"];
        let hash = text(&status["currentPodHash"]);
        if hash == self.old_hash {
            return false;
        }
        let (outcome, goes) = if status["abort"] == true && status["phase"] == "Degraded" {
            ("rolledBack", &hash)
        } else if status["phase"] == "Healthy" && status["stableRS"] == *hash {
            ("completed", &self.old_hash)
        } else {
            return false;
        };
        let gone = self
            .pods(goes, self.seen.len())
            .is_some_and(|set| set["spec"]["replicas"] == 0 && set["status"]["replicas"].as_u64().unwrap_or(0) == 0);
        if gone {
            self.outcome = outcome;
        }
        gone
    }

    fn last(&self, kind: Kind, name: &str) -> Option<&Value> {
        last(&self.seen, kind, name)
    }

    /// The ReplicaSet with that hash, after so many changes.
    fn pods(&self, hash: &str, until: usize) -> Option<&Value> {
        let mut sets = self.seen[..until].iter().rev().filter(|(_, kind, _)| *kind == Kind::ReplicaSet);
        sets.find(|(_, _, set)| set["metadata"]["labels"][HASH] == *hash).map(|(_, _, set)| set)
    }

    fn tracks(&self, weights: bool) -> Tracks {
        let mut tracks = Tracks { tracks: BTreeMap::new(), outcome: self.outcome.to_owned(), end: self.end };
        let hashes = self.seen.iter().filter(|(_, kind, _)| *kind == Kind::Rollout);
        let mut hashes = hashes.map(|(_, _, rollout)| text(&rollout["status"]["currentPodHash"]));
        let new_hash = hashes.find(|hash| !hash.is_empty() && *hash != self.old_hash).unwrap_or_default();
        let listed = self.seen.iter().take_while(|(at, _, _)| *at == 0.0).count();
        for until in listed..=self.seen.len() {
            let at = if until == listed { 0.0 } else { self.seen[until - 1].0 };
            let wanted =
                |hash: &str| self.pods(hash, until).map_or(Value::from(0), |set| set["spec"]["replicas"].clone());
            tracks.add("old pods", at, wanted(&self.old_hash).to_string());
            tracks.add("new pods", at, wanted(&new_hash).to_string());
            if weights {
                tracks.add("weight", at, percent(weight(&self.seen[..until], &new_hash)));
            }
            let Some(rollout) = last(&self.seen[..until], Kind::Rollout, NAME) else { continue };
            if rollout["status"]["currentPodHash"] != *new_hash {
                continue;
            }
            let known = tracks.tracks.get("stage").map_or(&[][..], Vec::as_slice);
            let begins = known.is_empty();
            let stage = self.stage(&rollout["status"], &new_hash, known);
            // The first begins with the release, though the controller needs a moment to see it.
            tracks.add("stage", if begins { 0.0 } else { at }, stage);
        }
        // What begins when all is over has no length.
        if let Some(stages) = tracks.tracks.get_mut("stage")
            && stages.last().is_some_and(|(at, _)| *at >= self.end - NO_LENGTH)
        {
            stages.pop();
        }
        tracks
    }

    /// Where the release stands, in the words of a plan.
    fn stage(&self, status: &Value, new_hash: &str, known: &[(f64, String)]) -> String {
        let released = status["phase"] == "Healthy" && status["stableRS"] == *new_hash;
        let blue_green = &status["blueGreen"];
        let switched = blue_green["activeSelector"] == *new_hash || known.len() > 1;
        if status["abort"] == true {
            "aborted".to_owned()
        } else if !blue_green["activeSelector"].is_string() {
            match status["currentStepIndex"].as_u64() {
                Some(step) if step < self.steps => format!("step {step}"),
                _ if released => "released; old pods go".to_owned(),
                _ => "the rest of the pods and the traffic".to_owned(),
            }
        } else if released {
            "released; old pods stay a while".to_owned()
        } else if blue_green["activeSelector"] != *new_hash && list(&status["pauseConditions"]).next().is_some() {
            "until the automatic promotion".to_owned()
        } else if switched {
            "the active Service switches".to_owned()
        } else {
            "preview pods start".to_owned()
        }
    }

    fn measurements(&self) -> usize {
        let runs = self.seen.iter().rev().find(|(_, kind, _)| *kind == Kind::AnalysisRun);
        runs.map_or(0, |(_, _, run)| list(&run["status"]["metricResults"][0]["measurements"]).count())
    }
}

fn last<'a>(seen: &'a [(f64, Kind, Value)], kind: Kind, name: &str) -> Option<&'a Value> {
    let mut versions = seen.iter().rev().filter(|(_, of, object)| *of == kind && object["metadata"]["name"] == name);
    versions.next().map(|(_, _, object)| object)
}

/// The share of the requests that go to the new version: by the route, or else by the first Service.
fn weight(seen: &[(f64, Kind, Value)], new_hash: &str) -> f64 {
    let leads = |service: &str| {
        let service = last(seen, Kind::Service, service);
        service.is_some_and(|service| service["spec"]["selector"][HASH] == *new_hash)
    };
    let Some(route) = last(seen, Kind::Route, NAME) else { return f64::from(u8::from(leads(STABLE))) };
    let backends: Vec<_> = list(&route["spec"]["rules"][0]["backendRefs"]).collect();
    let weight = |backend: &Value| backend["weight"].as_f64().unwrap_or(1.0);
    let all: f64 = backends.iter().map(|backend| weight(backend)).sum();
    let new = backends.iter().filter(|backend| leads(backend["name"].as_str().unwrap_or_default()));
    new.map(|backend| weight(backend)).sum::<f64>() / all
}

fn percent(share: f64) -> String {
    // Adding nothing to a sum of nothing makes it 0 instead of -0.
    format!("{:.0}%", share * 100.0 + 0.0)
}

fn seconds(value: &Value) -> f64 {
    value.as_f64().unwrap_or(f64::NAN)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}
