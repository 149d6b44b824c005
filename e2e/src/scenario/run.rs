//! Runs a scenario on a world.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod};
use kube::api::{
    ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams, PostParams, TypeMeta,
};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, sleep_until};

use super::condition::Condition;
use super::gitops;
use super::pace;
use super::parse::Scenario;
use super::record::Recorder;
use super::snapshot;
use super::step::Action;
use super::trace::{self, Kind, Section, State};
use super::world::World;
use crate::apply;
use crate::gateway::{GATEWAY_NAME, GATEWAY_NAMESPACE};

/// Before a step that does something after one that waited, and at the end, nothing may have changed for so long: what the
/// controller still writes belongs to the step before. Long beside a round trip, short beside any pause.
///
/// The real controller writes its Events behind everything else, so that under load they come late.
const QUIET: Duration = Duration::from_millis(500);
const QUIET_IN_REAL_TIME: Duration = Duration::from_millis(1200);
/// But not so many times longer is waited for quiet: a background analysis is never quiet.
const UNQUIET: u32 = 3;
/// How long a write of ours may stay unseen.
const SEEN: Duration = Duration::from_secs(20);
/// From one ReplicaSet to the next.
const AGE: Duration = Duration::from_millis(1100);
/// How long what the committed trace has may come late on a real cluster.
const LATE: Duration = Duration::from_secs(20);
/// A real cluster on a busy machine is given at least this long for whatever is waited for.
const PATIENCE: Duration = Duration::from_secs(45);

/// Runs a scenario and answers its trace.
///
/// # Errors
/// A step could not be done, or what was waited for did not come; the line is named, and the message has the trace so far.
pub async fn run(world: &mut impl World, scenario: &Scenario) -> Result<String> {
    let client = world.client();
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": scenario.name}});
    apply::object(&client, "", namespace).await?;
    let mut run = Run {
        recorder: Recorder::start(&client, &scenario.name, &scenario.rollout).await,
        quiet: if world.real_time() { QUIET_IN_REAL_TIME } else { QUIET },
        pace: if world.real_time() { scenario.pace } else { 1 },
        patience: if world.real_time() { PATIENCE } else { Duration::ZERO },
        expected: world.real_time().then(|| super::expected(scenario)),
        client,
        scenario,
        sections: Vec::new(),
        events_from: 0,
        waited: false,
        shortened: Vec::new(),
        hidden: vec![(world.prometheus(), "${PROMETHEUS}".to_owned())],
        own: BTreeSet::new(),
    };
    for step in &scenario.steps {
        let done = run.step(world, &step.action, &step.text).await;
        if let Err(error) = done {
            let error = error.context(format!("line {}: - {}", step.line, step.text));
            return Err(error.context(format!("pods: {}\nthe trace so far:\n{}", run.pods().await, run.trace())));
        }
    }
    run.close_section().await;
    run.catch_up_with(trace::is_same).await;
    let changes = run.recorder.changes();
    let rollouts = changes.iter().filter(|change| change.kind == Kind::Rollout && !change.deleted);
    for change in rollouts.filter(|change| !run.own.contains(&change.revision)) {
        gitops::check(&change.object).with_context(|| format!("the trace is:\n{}", run.trace()))?;
    }
    Ok(run.trace())
}

struct Run<'a> {
    scenario: &'a Scenario,
    client: Client,
    recorder: Recorder,
    quiet: Duration,
    pace: u32,
    /// The least that is waited.
    patience: Duration,
    /// On a real cluster, the committed trace.
    expected: Option<String>,
    sections: Vec<Section>,
    /// Events before this one are not of the present section.
    events_from: usize,
    /// Whether the last step waited for something.
    waited: bool,
    /// Durations in manifests, as they are and as they were written.
    shortened: Vec<(String, String)>,
    /// What differs between worlds, and what stands for it.
    hidden: Vec<(String, String)>,
    /// The resourceVersions of Rollouts that a step has written: their statuses are not yet the controller's.
    own: BTreeSet<u64>,
}

impl Run<'_> {
    async fn step(&mut self, world: &mut impl World, action: &Action, text: &str) -> Result<()> {
        if action.acts() {
            self.open_section(text).await?;
            self.act(world, action).await?;
            return Ok(());
        }
        self.waited = true;
        match action {
            Action::Wait { condition, within } => {
                let within = pace::shorter(*within, self.pace).max(self.patience);
                self.wait(condition, within).await
            }
            Action::Expect(condition) => {
                self.settle().await;
                self.recorder.look_at_all();
                self.check(condition)
            }
            Action::ExpectNoLoss => {
                self.settle().await;
                let lost = world.lost().await;
                ensure!(lost.is_none(), "lost: {}; {}", lost.unwrap_or_default(), self.describe());
                Ok(())
            }
            Action::Hold { time, condition } => {
                let until = Instant::now() + pace::shorter(*time, self.pace);
                let Some(condition) = condition else {
                    sleep_until(until).await;
                    return Ok(());
                };
                self.settle().await;
                self.recorder.look_at_all();
                let ended = |state: &State, events: &[String]| !condition.holds(state, events);
                ensure!(
                    !self.recorder.until(until, self.events_from, ended).await,
                    "it does not hold any more; {}",
                    self.describe()
                );
                Ok(())
            }
            _ => Ok(()),
        }
    }

    async fn open_section(&mut self, text: &str) -> Result<()> {
        self.close_section().await;
        let newest = Api::<Namespace>::all(self.client.clone()).list(&ListParams::default().limit(1)).await?;
        let newest = newest.metadata.resource_version.and_then(|version| version.parse().ok());
        let after = newest.context("a list without a resourceVersion that is a number")?;
        self.events_from = self.recorder.event_count();
        self.recorder.look_at_all();
        self.sections.push(Section { text: text.to_owned(), after, state: None });
        Ok(())
    }

    /// Lets what the last steps have caused come to rest, and takes the state down.
    async fn close_section(&mut self) {
        if !std::mem::take(&mut self.waited) {
            return;
        }
        self.settle().await;
        self.take_state();
        self.catch_up_with(trace::is_beginning).await;
    }

    fn take_state(&mut self) {
        let state = self.recorder.ask(0, |state, _| state.summary());
        if let Some(section) = self.sections.last_mut() {
            section.state = Some(state);
        }
    }

    /// Gives what is expected some more time: on a busy machine it comes late, and is then taken for a part of what follows.
    async fn catch_up_with(&mut self, agree: fn(&str, &str) -> bool) {
        let Some(expected) = self.expected.clone() else { return };
        let deadline = Instant::now() + LATE;
        while !agree(&expected, &self.trace()) && self.recorder.next(deadline).await {
            self.settle().await;
            if self.sections.last().is_some_and(|section| section.state.is_some()) {
                self.take_state();
            }
        }
    }

    async fn wait(&mut self, condition: &Condition, within: Duration) -> Result<()> {
        let holds = |state: &State, events: &[String]| condition.holds(state, events);
        if !self.recorder.until(Instant::now() + within, self.events_from, holds).await {
            bail!("not within {within:?}; {}", self.describe());
        }
        Ok(())
    }

    async fn settle(&self) {
        self.recorder.settle(self.quiet, self.quiet * UNQUIET).await;
    }

    fn check(&self, condition: &Condition) -> Result<()> {
        ensure!(self.holds(condition), "it does not hold; {}", self.describe());
        Ok(())
    }

    fn holds(&self, condition: &Condition) -> bool {
        self.recorder.ask(self.events_from, |state, events| condition.holds(state, events))
    }

    fn describe(&self) -> String {
        self.recorder.ask(0, |state, _| format!("the state is {}", state.summary()))
    }

    /// The pods that are there, for whoever looks for the cause of a failure.
    async fn pods(&self) -> String {
        let pods = Api::<Pod>::namespaced(self.client.clone(), &self.scenario.name).list(&ListParams::default()).await;
        let described = pods.iter().flatten().map(|pod| {
            let status = pod.status.clone().unwrap_or_default();
            let conditions = status.conditions.unwrap_or_default();
            let ready = conditions.iter().any(|it| it.type_ == "Ready" && it.status == "True");
            let ready = if ready { "" } else { " (not ready)" };
            format!("{} {}{ready}", pod.name_any(), status.phase.unwrap_or_default())
        });
        described.collect::<Vec<_>>().join(", ")
    }

    fn trace(&self) -> String {
        let state = State::new(&self.scenario.name, &self.scenario.rollout);
        let changes = self.recorder.changes();
        let mut trace = trace::render(&self.scenario.title, state, &changes, &self.sections);
        for (there, written) in &self.hidden {
            trace = trace.replace(there, written);
        }
        // Only where a duration stands alone: `10s` is not a part of `110s`.
        for (shortened, written) in &self.shortened {
            trace = trace.replace(&format!(" {shortened})"), &format!(" {written})"));
        }
        trace
    }

    async fn act(&mut self, world: &mut impl World, action: &Action) -> Result<()> {
        match action {
            Action::Apply(yaml) => self.apply(&snapshot::with_times(yaml, world.now())).await,
            Action::SetImage { container, image } => self.set_image(container, image).await,
            Action::Patch { kind, name, patch, status } => {
                let text = snapshot::with_times(&self.filled_in(patch), world.now());
                let mut patch: Value = serde_saphyr::from_str(&text).context("parsing the patch")?;
                self.shorten(&mut patch);
                let real = |kind| self.recorder.ask(0, |state, _| state.real_name(kind, name));
                let name = Kind::of(kind).map_or_else(|| name.clone(), real);
                self.patch(kind, &name, &patch, *status).await
            }
            Action::Promote => self.promote().await,
            Action::PromoteFully => {
                self.unpause().await?;
                self.patch_status(json!({"promoteFull": true})).await
            }
            Action::SkipStep => {
                let next = self.next_step().await?;
                self.patch_status(json!({"pauseConditions": null, "currentStepIndex": next})).await
            }
            Action::Abort => self.patch_status(json!({"abort": true})).await,
            Action::Retry => self.patch_status(json!({"abort": false})).await,
            Action::Pause => self.patch_spec(json!({"paused": true})).await,
            Action::Resume => self.patch_spec(json!({"paused": false})).await,
            Action::Restart => {
                // What the time is only the cluster knows: it may be a virtual one.
                let probe = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "now"}});
                let probe: ConfigMap = serde_json::from_value(probe)?;
                let params = PostParams { dry_run: true, ..PostParams::default() };
                let maps = Api::<ConfigMap>::namespaced(self.client.clone(), &self.scenario.name);
                let now = maps.create(&params, &probe).await?.metadata.creation_timestamp;
                self.patch_spec(json!({"restartAt": now})).await
            }
            Action::Undo { revision } => self.undo(*revision).await,
            Action::Scale(replicas) => {
                let patch = json!({"spec": {"replicas": replicas}});
                let name = &self.scenario.rollout;
                let api = self.api("rollouts").await?;
                api.patch_scale(name, &PatchParams::default(), &Patch::Merge(patch)).await?;
                let seen = api.get(name).await?;
                self.see("rollouts", &seen).await
            }
            Action::Delete { kind, name } => {
                self.api(kind).await?.delete(name, &DeleteParams::background()).await?;
                Ok(())
            }
            Action::Behave { tag, behaviour } => world.behave(tag, *behaviour).await,
            Action::Send { rate, host } => world.send(*rate, &self.filled_in(host)).await,
            Action::Accept { route, accept } => {
                world.accept_route(route, *accept).await?;
                let section = (!accept).then_some("no-such-listener");
                let parent = json!({"namespace": GATEWAY_NAMESPACE, "name": GATEWAY_NAME, "sectionName": section});
                self.patch("httproutes", route, &json!({"spec": {"parentRefs": [parent]}}), false).await
            }
            Action::Prometheus(to) => world.switch_prometheus(*to).await,
            Action::Controller(to) => world.switch_controller(*to).await,
            Action::Writes { kind, to } => world.switch_writes(kind, *to).await,
            Action::Exchange => world.exchange_controller().await,
            Action::Save(file) => {
                let file = super::folder().join("manifests").join(file);
                snapshot::save(&self.client, &self.scenario.name, &file, world.now(), &self.hidden).await
            }
            Action::Wait { .. } | Action::Expect(_) | Action::ExpectNoLoss | Action::Hold { .. } => Ok(()),
        }
    }

    async fn apply(&mut self, yaml: &str) -> Result<()> {
        let documents: Vec<Value> =
            serde_saphyr::from_multiple(&self.filled_in(yaml)).context("parsing the manifest")?;
        // The statuses of Rollouts, which name what is made after them.
        let mut statuses = Vec::new();
        for mut document in documents.into_iter().filter(|document| !document.is_null()) {
            self.shorten(&mut document);
            if document.pointer("/metadata/ownerReferences/0/uid").is_some_and(|uid| uid == "${UID}") {
                let uid = self.rollout().await?["metadata"]["uid"].take();
                document["metadata"]["ownerReferences"][0]["uid"] = uid;
            }
            // The status of a Rollout can be applied by its subresource only; a takeover begins with one.
            let is_rollout = document["kind"] == "Rollout";
            let status = document.as_object_mut().filter(|_| is_rollout).and_then(|object| object.remove("status"));
            let applied = apply::object(&self.client, &self.scenario.name, document).await?;
            let Some(plural) = applied.types.as_ref().and_then(|types| plural(&types.kind)) else { continue };
            self.see(plural, &applied).await?;
            statuses.extend(status.map(|status| (applied.name_any(), json!({"status": status}))));
            if plural == "replicasets" {
                // Ages tell ReplicaSets apart, in whole seconds.
                sleep(AGE).await;
            }
        }
        for (name, status) in statuses {
            self.patch("rollouts", &name, &status, true).await?;
        }
        Ok(())
    }

    async fn set_image(&mut self, container: &str, image: &str) -> Result<()> {
        let rollout = self.rollout().await?;
        let mut containers = rollout["spec"]["template"]["spec"]["containers"].clone();
        let mut all = containers.as_array_mut().context("a Rollout without containers")?.iter_mut();
        let found = all.find(|it| it["name"] == container).with_context(|| format!("no container {container}"))?;
        found["image"] = image.into();
        self.patch_spec(json!({"template": {"spec": {"containers": containers}}})).await
    }

    /// As the kubectl plugin does it.
    async fn promote(&mut self) -> Result<()> {
        let rollout = self.rollout().await?;
        let status = &rollout["status"];
        self.unpause().await?;
        let paused = status["pauseConditions"].as_array().is_some_and(|pauses| !pauses.is_empty());
        let inconclusive = status["canary"]["currentStepAnalysisRunStatus"]["status"] == "Inconclusive";
        let patch = if paused && inconclusive {
            let next = self.next_step().await?;
            json!({"pauseConditions": null, "controllerPause": false, "currentStepIndex": next})
        } else if paused {
            json!({"pauseConditions": null})
        } else if rollout["spec"]["strategy"]["canary"]["steps"].is_array() {
            json!({"pauseConditions": null, "currentStepIndex": self.next_step().await?})
        } else {
            return Ok(());
        };
        self.patch_status(patch).await
    }

    async fn next_step(&self) -> Result<i64> {
        let rollout = self.rollout().await?;
        let steps = rollout["spec"]["strategy"]["canary"]["steps"].as_array().map_or(0, Vec::len);
        let index = rollout["status"]["currentStepIndex"].as_i64().unwrap_or(0);
        Ok((index + 1).min(i64::try_from(steps).unwrap_or(i64::MAX)))
    }

    async fn unpause(&mut self) -> Result<()> {
        if self.rollout().await?["spec"]["paused"] == true {
            self.patch_spec(json!({"paused": false})).await?;
        }
        Ok(())
    }

    /// As the kubectl plugin does it.
    async fn undo(&mut self, to: Option<i64>) -> Result<()> {
        let sets = self.api("replicasets").await?.list(&ListParams::default()).await?;
        let mut revisions: Vec<(i64, Value)> = sets
            .into_iter()
            .filter(|set| set.owner_references().iter().any(|owner| owner.name == self.scenario.rollout))
            .filter_map(|set| Some((set.annotations().get("rollout.argoproj.io/revision")?.parse().ok()?, set.data)))
            .collect();
        revisions.sort_by_key(|(revision, _)| std::cmp::Reverse(*revision));
        let chosen = match to {
            Some(wanted) => revisions.into_iter().find(|(revision, _)| *revision == wanted),
            None => revisions.into_iter().nth(1),
        };
        let (_, mut data) = chosen.context("no such revision")?;
        let mut template = data["spec"]["template"].take();
        if let Some(labels) = template["metadata"]["labels"].as_object_mut() {
            labels.remove("rollouts-pod-template-hash");
        }
        let patch = json!([{"op": "replace", "path": "/spec/template", "value": template}]);
        let patch = serde_json::from_value(patch).context("a replacement is a JSON patch")?;
        let api = self.api("rollouts").await?;
        let patched = api.patch(&self.scenario.rollout, &PatchParams::default(), &Patch::Json::<()>(patch)).await?;
        self.see("rollouts", &patched).await
    }

    async fn patch_spec(&mut self, spec: Value) -> Result<()> {
        let name = self.scenario.rollout.clone();
        self.patch("rollouts", &name, &json!({"spec": spec}), false).await
    }

    async fn patch_status(&mut self, status: Value) -> Result<()> {
        let name = self.scenario.rollout.clone();
        self.patch("rollouts", &name, &json!({"status": status}), true).await
    }

    async fn patch(&mut self, kind: &str, name: &str, patch: &Value, status: bool) -> Result<()> {
        let api = self.api(kind).await?;
        let (params, patch) = (PatchParams::default(), Patch::Merge(patch));
        let patched = if status {
            api.patch_status(name, &params, &patch).await?
        } else {
            api.patch(name, &params, &patch).await?
        };
        self.see(kind, &patched).await
    }

    /// Waits until the recorder has seen what was written, so that no condition holds by what was there before.
    async fn see(&mut self, kind: &str, written: &DynamicObject) -> Result<()> {
        let Some(kind) = Kind::of(kind) else { return Ok(()) };
        let revision = written.resource_version().and_then(|version| version.parse().ok()).unwrap_or(0);
        self.own.insert(revision);
        let seen = self.recorder.catch_up(kind, &written.name_any(), revision, Instant::now() + SEEN).await;
        ensure!(seen, "a write was not seen by a watch within {SEEN:?}");
        Ok(())
    }

    async fn rollout(&self) -> Result<Value> {
        let rollout = self.api("rollouts").await?.get(&self.scenario.rollout).await?;
        Ok(serde_json::to_value(rollout)?)
    }

    async fn api(&self, plural: &str) -> Result<Api<DynamicObject>> {
        let resource = match Kind::of(plural) {
            Some(kind) => {
                let (group, version, name, plural) = kind.resource();
                ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, name), plural)
            }
            None => {
                let (group, name) = match plural {
                    "analysistemplates" => ("argoproj.io/v1alpha1", "AnalysisTemplate"),
                    "poddisruptionbudgets" => ("policy/v1", "PodDisruptionBudget"),
                    _ => bail!("{plural:?} is not a resource that steps know"),
                };
                let types = TypeMeta { api_version: group.to_owned(), kind: name.to_owned() };
                apply::kind(&self.client, &types).await?.0
            }
        };
        Ok(Api::namespaced_with(self.client.clone(), &self.scenario.name, &resource))
    }

    fn filled_in(&self, yaml: &str) -> String {
        let mut text = yaml.replace("${NAMESPACE}", &self.scenario.name);
        for (there, written) in &self.hidden {
            text = text.replace(written, there);
        }
        text
    }

    fn shorten(&mut self, document: &mut Value) {
        self.shortened.extend(pace::shorten(document, self.pace));
    }
}

fn plural(kind: &str) -> Option<&'static str> {
    Kind::ALL.into_iter().map(Kind::resource).find(|(_, _, name, _)| *name == kind).map(|(_, _, _, plural)| plural)
}
