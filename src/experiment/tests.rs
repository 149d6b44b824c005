//! Experiments in a cluster in miniature: it carries plans out, or any part of them, and makes pods available.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::analysis::templates::Templates;
use crate::api::Experiment;
use crate::api::analysis::{AnalysisPhase, AnalysisRun};
use crate::api::experiment::ExperimentStatus;
use crate::api::names::{POD_TEMPLATE_HASH, SCALE_DOWN_DEADLINE};
use crate::api::replica_set::{ReplicaSet, ReplicaSetStatus};
use crate::plan::{Action, FailedAction, Failure};

const POD_SECONDS: i64 = 5;

struct Sim {
    world: ExperimentWorld,
    /// When the pods of each ReplicaSet were last made.
    pods: BTreeMap<String, Timestamp>,
    never_ready: bool,
    /// Messages of all events, and what was scaled.
    told: Vec<String>,
    version: u64,
}

impl Sim {
    fn new(spec: Value) -> Self {
        let experiment = json!({
            "metadata": {"name": "trial", "namespace": "shop", "uid": "experiment-uid", "resourceVersion": "1"},
            "spec": spec,
        });
        let mut templates = Templates::default();
        let check = json!({"args": [{"name": "hash", "value": ""}], "metrics": [{"name": "m", "provider": {"web": {"url": "http://x/{{args.hash}}"}}}]});
        templates.namespaced.insert("check".to_owned(), Arc::new(serde_json::from_value(check).unwrap()));
        let world = ExperimentWorld {
            now: "2026-01-01T00:00:00Z".parse().unwrap(),
            experiment: Arc::new(serde_json::from_value(experiment).unwrap()),
            replica_sets: Vec::new(),
            services: BTreeMap::new(),
            analysis_runs: Vec::new(),
            templates,
            weighted: BTreeSet::new(),
            propagation_delay_seconds: 5,
            failures: Vec::new(),
        };
        Self { world, pods: BTreeMap::new(), never_ready: false, told: Vec::new(), version: 1 }
    }

    fn edit(&mut self, change: impl FnOnce(&mut Experiment)) {
        change(Arc::make_mut(&mut self.world.experiment));
    }

    fn status(&self) -> ExperimentStatus {
        self.world.experiment.status.clone().unwrap_or_default()
    }

    /// Decides until nothing changes any more. `keep` says which writes are made; the status is the last one.
    fn settle(&mut self, keep: &mut dyn FnMut() -> bool) {
        for _ in 0..30 {
            let plan = decide(&self.world);
            assert_eq!(plan, decide(&self.world), "the same World gives the same Plan");
            let mut all = true;
            for action in &plan.actions {
                if keep() { self.carry_out(action) } else { all = false }
            }
            let before = self.status();
            if !all || !keep() {
                continue;
            }
            self.told.extend(plan.events.iter().map(|event| format!("{}: {}", event.reason, event.message)));
            self.edit(|experiment| experiment.status = Some(plan.status.clone()));
            if plan.actions.is_empty() && before == plan.status {
                return;
            }
        }
        panic!("a hot loop: {:#?}", decide(&self.world));
    }

    fn run(&mut self, seconds: i64) {
        self.run_with(seconds, &mut || true);
    }

    fn run_with(&mut self, seconds: i64, keep: &mut dyn FnMut() -> bool) {
        for _ in 0..=seconds {
            self.settle(keep);
            self.world.now += SignedDuration::from_secs(1);
            for set in &mut self.world.replica_sets {
                let since = self.pods[&set.name];
                let ready = !self.never_ready && self.world.now >= since + SignedDuration::from_secs(POD_SECONDS);
                set.status.replicas = set.replicas;
                let available = if ready { set.replicas } else { set.status.available.min(set.replicas) };
                set.status.available = available;
                set.status.ready = available;
            }
        }
    }

    fn carry_out(&mut self, action: &Action) {
        self.version += 1;
        match action {
            Action::Create { object, body } if object.resource.kind == "ReplicaSet" => {
                let text = |value: &Value| serde_json::from_value(value.clone()).unwrap();
                let set = ReplicaSet {
                    name: object.name.clone(),
                    uid: object.name.clone(),
                    resource_version: self.version.to_string(),
                    created: self.world.now,
                    deleting: false,
                    labels: text(&body["metadata"]["labels"]),
                    annotations: text(&body["metadata"]["annotations"]),
                    controller: Some("experiment-uid".to_owned()),
                    generation: 1,
                    selector: serde_json::from_value(body["spec"]["selector"].clone()).unwrap(),
                    min_ready_seconds: 0,
                    template: Arc::new(body["spec"]["template"].clone().into()),
                    replicas: i32::try_from(body["spec"]["replicas"].as_i64().unwrap()).unwrap(),
                    status: ReplicaSetStatus::default(),
                };
                if !self.world.replica_sets.iter().any(|known| known.name == set.name) {
                    self.pods.insert(set.name.clone(), self.world.now);
                    self.world.replica_sets.push(set);
                }
            }
            Action::Create { object, .. } if object.resource.kind == "Service" => {
                self.world.services.insert(object.name.clone(), object.name.clone());
            }
            Action::Create { object, body } => {
                let mut run: AnalysisRun = serde_json::from_value(body.clone()).unwrap();
                run.metadata.uid = Some(object.name.clone());
                if !self.world.analysis_runs.iter().any(|known| known.metadata.name == run.metadata.name) {
                    self.world.analysis_runs.push(Arc::new(run));
                }
            }
            Action::Scale { replica_set, from, to, .. } => {
                self.told.push(action.to_string());
                let now = self.world.now;
                let set = self.set(&replica_set.object.name);
                assert_eq!(set.replicas, *from);
                set.replicas = *to;
                set.annotations.remove(SCALE_DOWN_DEADLINE);
                self.pods.insert(replica_set.object.name.clone(), now);
            }
            Action::MergePatch { object, patch, .. } if object.object.resource.kind == "ReplicaSet" => {
                let deadline = patch["metadata"]["annotations"][SCALE_DOWN_DEADLINE].as_str().map(str::to_owned);
                let set = self.set(&object.object.name);
                set.annotations.remove(SCALE_DOWN_DEADLINE);
                set.annotations.extend(deadline.map(|deadline| (SCALE_DOWN_DEADLINE.to_owned(), deadline)));
            }
            Action::MergePatch { object, .. } => self.run_named(&object.object.name, |run| run.spec.terminate = true),
            Action::Delete { object, .. } => drop(self.world.services.remove(&object.object.name)),
            Action::JsonPatch { .. } | Action::Evict { .. } | Action::Confirmed { .. } => panic!("{action}"),
        }
    }

    fn set(&mut self, name: &str) -> &mut ReplicaSet {
        self.world.replica_sets.iter_mut().find(|set| set.name == name).unwrap()
    }

    fn run_named(&mut self, name: &str, change: impl FnOnce(&mut AnalysisRun)) {
        let mut runs = self.world.analysis_runs.iter_mut();
        change(Arc::make_mut(runs.find(|run| run.metadata.name.as_deref() == Some(name)).unwrap()));
    }

    fn judge(&mut self, name: &str, phase: AnalysisPhase) {
        self.run_named(name, |run| {
            let status = run.status.get_or_insert_default();
            status.phase = phase;
            status.message = format!("says {phase}");
        });
    }

    fn sizes(&self) -> Vec<i32> {
        self.world.replica_sets.iter().map(|set| set.replicas).collect()
    }
}

fn template(name: &str, labels: Value) -> Value {
    json!({
        "name": name,
        "selector": {"matchLabels": {"app": "web"}},
        "template": {"metadata": {"labels": labels}, "spec": {"containers": [
            {"name": "web", "image": "web:v1", "ports": [{"containerPort": 80}, {"containerPort": 81}]},
        ]}},
    })
}

fn one(more: Value) -> Value {
    let mut spec = json!({"templates": [template("a", json!({"app": "web"}))], "duration": "60s"});
    json_patch::merge(&mut spec, &more);
    spec
}

#[test]
fn it_lasts_from_when_all_pods_are_available_and_the_pods_outlive_it_by_the_delay() {
    let mut sim = Sim::new(one(json!({"templates": [
        template("a", json!({"app": "web"})), template("b", json!({"app": "web", "role": "b"})),
    ]})));
    sim.run(1);
    assert_eq!(sim.status().phase, AnalysisPhase::Pending);
    sim.run(10);
    assert_eq!(sim.status().phase, AnalysisPhase::Running);
    assert_eq!(sim.status().available_at.unwrap().0.to_string(), "2026-01-01T00:00:05Z");
    sim.run(48);
    assert_eq!(sim.status().phase, AnalysisPhase::Running);
    sim.run(10);
    assert_eq!(sim.status().phase, AnalysisPhase::Successful);
    assert_eq!(sim.sizes(), [1, 1], "for 30 seconds");
    sim.run(30);
    assert_eq!(sim.sizes(), [0, 0]);
    assert_eq!(sim.status().conditions.last().unwrap().reason, "ExperimentCompleted");
    let expected = [
        "ScalingReplicaSet: Scaled up ReplicaSet trial-a from 0 to 1",
        "TemplateProgressing: Template 'a' transitioned from  -> Progressing",
        "ScalingReplicaSet: Scaled up ReplicaSet trial-b from 0 to 1",
        "TemplateProgressing: Template 'b' transitioned from  -> Progressing",
        "ExperimentPending: Experiment transitioned from  -> Pending",
        "TemplateRunning: Template 'a' transitioned from Progressing -> Running",
        "TemplateRunning: Template 'b' transitioned from Progressing -> Running",
        "ExperimentRunning: Experiment transitioned from Pending -> Running",
        "TemplateSuccessful: Template 'a' transitioned from Running -> Successful",
        "TemplateSuccessful: Template 'b' transitioned from Running -> Successful",
        "ExperimentSuccessful: Experiment transitioned from Running -> Successful",
    ];
    let told: Vec<_> = sim.told.iter().filter(|line| !line.contains("down") && !line.starts_with("scale")).collect();
    assert_eq!(told, expected);
}

/// (required, phase of the run, whether the duration passes) and what becomes of the experiment.
#[test]
fn phases_follow_from_templates_and_analyses() {
    use AnalysisPhase::{Error, Failed, Inconclusive, Running, Successful};
    for (required, run, seconds, phase) in [
        (false, Running, 10, Running),
        (false, Running, 70, Successful),
        (false, Successful, 10, Running),
        (false, Successful, 70, Successful),
        (false, Failed, 10, Failed),
        (false, Error, 10, Error),
        (false, Inconclusive, 10, Inconclusive),
        (true, Running, 70, Running),
        (true, Successful, 10, Successful),
        (true, Failed, 10, Failed),
        (true, Inconclusive, 10, Inconclusive),
    ] {
        let analysis = json!({"name": "x", "templateName": "check", "requiredForCompletion": required});
        let mut sim = Sim::new(one(json!({"analyses": [analysis]})));
        sim.run(8);
        sim.judge("trial-x", run);
        sim.run(seconds);
        assert_eq!(sim.status().phase, phase, "required: {required}, {run} after {seconds} s");
        assert_eq!(sim.status().analysis_runs[0].phase, run);
        let ended = sim.world.analysis_runs[0].spec.terminate;
        assert_eq!(ended, phase.completed() && !run.completed(), "{required} {run}");
        if phase == Failed {
            assert_eq!(sim.status().message, "says Failed");
        }
    }
}

#[test]
fn an_argument_can_name_the_pods_and_the_time() {
    let value = "{{templates.a.podTemplateHash}} {{ templates.a.replicaset.name }} {{experiment.availableAt}} {{experiment.finishedAt}}";
    let analysis =
        |value: &str| json!({"name": "x", "templateName": "check", "args": [{"name": "hash", "value": value}]});
    let mut sim = Sim::new(one(json!({"analyses": [analysis(value)]})));
    sim.run(10);
    let hash = sim.world.replica_sets[0].hash().to_owned();
    let given = sim.world.analysis_runs[0].spec.args[0].value.clone().unwrap();
    assert_eq!(given, format!("{hash} trial-a 2026-01-01T00:00:05Z 2026-01-01T00:01:05Z"));

    let mut sim = Sim::new(one(json!({"analyses": [analysis("{{templates.b.podTemplateHash}}")]})));
    sim.run(10);
    assert_eq!(sim.status().phase, AnalysisPhase::Error);
    assert!(
        sim.status().message.ends_with("failed to resolve {{templates.b.podTemplateHash}}"),
        "{}",
        sim.status().message
    );
}

#[test]
fn no_service_reaches_the_pods_of_another_template_or_of_the_revision_they_were_copied_from() {
    let plain = Sim::new(one(json!({})));
    let mut plain = plain;
    plain.run(1);
    let usual = plain.world.replica_sets[0].hash().to_owned();
    let labels = json!({"app": "web", (POD_TEMPLATE_HASH): usual});
    let mut sim = Sim::new(one(
        json!({"templates": [template("a", labels), template("b", json!({"app": "web"})), template("c", json!({"app": "web"}))]}),
    ));
    sim.run(1);
    let hashes: BTreeSet<_> = sim.world.replica_sets.iter().map(|set| set.hash().to_owned()).collect();
    assert_eq!(hashes.len(), 3);
    assert_ne!(sim.world.replica_sets[0].hash(), usual, "the revision of the Rollout has it");
    for set in &sim.world.replica_sets {
        assert_eq!(set.template.labels()[POD_TEMPLATE_HASH], set.hash());
        assert_eq!(set.selector.match_labels.as_ref().unwrap()[POD_TEMPLATE_HASH], set.hash());
    }
}

#[test]
fn pods_stay_until_routes_have_let_go_of_them() {
    let mut template = template("a", json!({"app": "web"}));
    template["service"] = json!({});
    let mut sim = Sim::new(json!({"templates": [template], "scaleDownDelaySeconds": 0}));
    let owner = json!([{"apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout", "name": "web", "uid": "r", "controller": true}]);
    sim.edit(|experiment| experiment.metadata.owner_references = serde_json::from_value(owner).unwrap());
    sim.run(10);
    let status = &sim.status().template_statuses[0];
    assert_eq!((status.service_name.as_str(), status.status.as_str()), ("trial-a", "Running"));
    sim.world.weighted.insert("trial-a".to_owned());
    sim.edit(|experiment| experiment.spec.terminate = true);
    sim.run(100);
    assert_eq!(sim.status().phase, AnalysisPhase::Successful);
    assert_eq!(sim.sizes(), [1], "a route still leads there");
    sim.world.weighted.clear();
    sim.run(3);
    assert_eq!(sim.sizes(), [1], "and may be followed late");
    sim.run(5);
    assert_eq!(sim.sizes(), [0]);
    assert!(sim.world.services.is_empty() && sim.status().template_statuses[0].service_name.is_empty());
}

#[test]
fn a_refusal_that_stays_ends_it_and_a_server_that_does_not_answer_is_asked_again() {
    for (refused, after, status) in
        [(true, 0, "Progressing"), (true, 29, "Progressing"), (true, 30, "Error"), (false, 30, "Progressing")]
    {
        let mut sim = Sim::new(one(json!({})));
        let Some(Action::Create { object, .. }) = decide(&sim.world).actions.pop() else {
            panic!("nothing is created")
        };
        sim.world.failures.push(Failure { object, action: FailedAction::Create, error: "no".to_owned(), refused });
        let first = decide(&sim.world);
        let experiment = Arc::make_mut(&mut sim.world.experiment);
        experiment.status = Some(first.status);
        sim.world.now += SignedDuration::from_secs(after);
        let plan = decide(&sim.world);
        assert_eq!(plan.actions.len(), 1, "what failed is planned again, or nobody writes the status");
        let template = &plan.status.template_statuses[0];
        assert_eq!(
            (template.status.as_str(), template.message.as_str()),
            (status, "Failed to create ReplicaSet for template 'a': no"),
            "after {after} s"
        );
        if status == "Progressing" && refused {
            let end = sim.world.now + SignedDuration::from_secs(30 - after);
            assert_eq!(plan.wake, Some(end), "it is looked at again when the refusal is final");
        }
    }
}

#[test]
fn what_makes_no_progress_fails_and_lets_the_others_go() {
    let mut sim = Sim::new(one(json!({"progressDeadlineSeconds": 20, "scaleDownDelaySeconds": 0})));
    sim.never_ready = true;
    sim.run(20);
    assert_eq!(sim.status().phase, AnalysisPhase::Pending);
    sim.run(3);
    assert_eq!(sim.status().phase, AnalysisPhase::Failed);
    assert_eq!(sim.status().message, "Template 'a' exceeded its progressDeadlineSeconds (20)");
    assert_eq!(sim.status().conditions.last().unwrap().reason, "ProgressDeadlineExceeded");
    assert_eq!(sim.sizes(), [0]);
}

#[test]
fn an_invalid_spec_keeps_it_from_going_on_but_not_from_ending() {
    let mut sim = Sim::new(one(json!({})));
    sim.edit(|experiment| experiment.spec.templates[0].selector = None);
    sim.run(10);
    assert!(sim.sizes().is_empty());
    let condition = sim.status().conditions[0].clone();
    assert_eq!((condition.type_.as_str(), sim.status().phase), ("InvalidSpec", AnalysisPhase::None));
    assert_eq!(
        condition.message,
        "The Experiment \"trial\" is invalid: spec.templates[0].selector: Required value: the labels of the pods"
    );

    let mut sim = Sim::new(one(json!({"scaleDownDelaySeconds": 0})));
    sim.run(10);
    sim.edit(|experiment| {
        experiment.spec.duration = Some("soon".to_owned());
        experiment.spec.terminate = true;
    });
    sim.run(3);
    assert_eq!(sim.sizes(), [0]);
}

proptest! {
    /// Whatever a crash, a refusal or a timeout leaves of a plan, the next decision carries on from what is there.
    #[test]
    fn every_part_of_a_plan_leads_to_the_same_end(seed in any::<u64>(), phase in 0..3_usize) {
        let mut random = seed;
        let mut keep = || {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            random >> 62 != 0
        };
        let mut template = template("a", json!({"app": "web"}));
        template["service"] = json!({});
        let analysis = json!({"name": "x", "templateName": "check", "requiredForCompletion": true});
        let mut sim = Sim::new(json!({"templates": [template], "duration": "60s", "analyses": [analysis]}));
        sim.run_with(8, &mut keep);
        let phase = [AnalysisPhase::Successful, AnalysisPhase::Failed, AnalysisPhase::Inconclusive][phase];
        sim.judge("trial-x", phase);
        sim.run_with(45, &mut keep);
        prop_assert_eq!(sim.status().phase, phase);
        prop_assert_eq!(sim.sizes(), [0]);
        prop_assert!(sim.world.services.is_empty());
        prop_assert_eq!(sim.world.analysis_runs.len(), 1);
    }
}
