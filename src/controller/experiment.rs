//! Experiments: observe, decide, act.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};
use tracing::warn;

use crate::api::common::time;
use crate::api::resource::{self, ObjectRef};
use crate::api::{Experiment, Rollout};
use crate::experiment::{self, ExperimentWorld};
use crate::plan::{Event, Failure};
use crate::traffic;

use super::Shell;
use super::envelope::{Object, Unreadable};
use super::execute::{Subject, difference};
use super::index::Index;
use super::queue::Next;
use super::reconcile::{Pass, Settled};
use super::references::rollout_of;
use super::world::templates;

/// For how long Services may be followed late: see the guard's own default.
const PROPAGATION_DELAY: Duration = Duration::from_secs(5);

/// Decides about an Experiment and does what is decided.
pub async fn run(shell: &Arc<Shell>, object: &ObjectRef) -> Next {
    let mut pass = Pass::begin(shell, object);
    let next = loop {
        if let Err(next) = pass.freshen().await {
            break next;
        }
        pass.look_for_absent().await;
        let found = {
            let index = shell.index();
            match index.entry_of(object).map(|entry| &entry.object) {
                Some(Object::Experiment(experiment)) => {
                    let failures = pass.memory.failures.clone();
                    let set = shell.settings.propagation_delay_seconds;
                    Some(Ok(view(&index, experiment, shell.clock.now(), failures, set)))
                }
                Some(Object::Unreadable(unreadable)) => Some(Err(unreadable.clone())),
                _ => None,
            }
        };
        let world = match found {
            Some(Ok(world)) => world,
            Some(Err(unreadable)) => break refuse(shell, &pass, &unreadable).await,
            None => {
                shell.forget(object);
                return Next::Idle;
            }
        };
        pass.also_told = rollout_of(&world.experiment);
        let plan = experiment::decide(&world);
        let metadata = &world.experiment.metadata;
        let subject = Subject {
            reference: object.clone(),
            uid: metadata.uid.clone().unwrap_or_default(),
            resource_version: metadata.resource_version.clone().unwrap_or_default(),
        };
        let old = world.experiment.status.clone().unwrap_or_default();
        match pass.settle(subject, &old, plan).await {
            Settled::Again => {}
            Settled::Finished(next) => break next,
        }
    };
    pass.end(next)
}

/// Whether an event on an Experiment is about the phase of one of its AnalysisRuns.
pub fn tells_of_a_run(event: &Event) -> bool {
    event.reason.starts_with("AnalysisRun") && event.reason != "AnalysisRunTerminating"
}

/// The World of an Experiment as the index shows it.
fn view(
    index: &Index,
    experiment: &Arc<Experiment>,
    now: Timestamp,
    failures: Vec<Failure>,
    propagation_delay_seconds: Option<u32>,
) -> ExperimentWorld {
    let metadata = &experiment.metadata;
    let namespace = metadata.namespace.as_deref().unwrap_or_default();
    let uid = metadata.uid.as_deref().unwrap_or_default();
    let named: Vec<_> = experiment.spec.analyses.iter().map(|analysis| analysis.template()).collect();
    let owner = rollout_of(experiment)
        .and_then(|(rollout, uid)| index.rollout(&rollout).filter(|it| it.metadata.uid.as_ref() == Some(&uid)));
    let mut world = ExperimentWorld {
        now,
        replica_sets: Vec::new(),
        services: Default::default(),
        analysis_runs: Vec::new(),
        templates: templates(index, &named, namespace),
        weighted: Default::default(),
        propagation_delay_seconds: propagation_delay_seconds.unwrap_or_else(|| delay(owner)),
        failures,
        experiment: experiment.clone(),
    };
    for child in index.controlled(uid, resource::REPLICA_SET) {
        if let Object::ReplicaSet(replica_set) = &child.object {
            world.replica_sets.push(replica_set.as_ref().clone());
        }
    }
    for child in index.controlled(uid, resource::SERVICE) {
        if let (Object::Service(service), false) = (&child.object, child.deleting) {
            world.services.insert(service.name.clone(), service.uid.clone());
        }
    }
    for child in index.controlled(uid, resource::ANALYSIS_RUN) {
        match &child.object {
            Object::AnalysisRun(run) => world.analysis_runs.push(run.clone()),
            Object::Unreadable(unreadable) => {
                world.analysis_runs.push(Arc::new(super::envelope::failed_run(unreadable)));
            }
            _ => {}
        }
    }
    let weights = owner.and_then(|rollout| rollout.status.as_ref()?.canary.weights.as_ref());
    let additional = weights.iter().flat_map(|weights| &weights.additional).filter(|to| to.weight > 0);
    world.weighted = additional.map(|to| to.service_name.clone()).collect();
    world
}

/// Seconds for which the routers of a Rollout may follow late.
fn delay(rollout: Option<&Arc<Rollout>>) -> u32 {
    let routing = rollout.and_then(|rollout| rollout.spec.strategy.traffic_routing());
    let routers = routing.map(traffic::routers).unwrap_or_default();
    let longest = routers.iter().map(|router| router.propagation_delay()).fold(PROPAGATION_DELAY, Duration::max);
    u32::try_from(longest.as_secs()).unwrap_or(u32::MAX)
}

/// Says on an Experiment that does not decode what is wrong with it.
async fn refuse(shell: &Shell, pass: &Pass<'_>, unreadable: &Unreadable) -> Next {
    let Unreadable { error, meta, status } = unreadable;
    let text = format!("The Experiment \"{}\" is invalid: {error}", meta.name);
    let mut conditions = status["conditions"].as_array().cloned().unwrap_or_default();
    conditions.retain(|condition| condition["type"] != "InvalidSpec" || condition["message"] == *text);
    if !conditions.iter().any(|condition| condition["type"] == "InvalidSpec") {
        let time = serde_json::to_value(time(shell.clock.now())).unwrap_or(Value::Null);
        conditions.push(json!({
            "type": "InvalidSpec", "status": "True", "reason": "InvalidSpec", "message": text,
            "lastUpdateTime": time, "lastTransitionTime": time,
        }));
    }
    let old = json!({ "conditions": status["conditions"] });
    let Some(changes) = difference(&old, json!({ "conditions": conditions })) else {
        return shell.resync(pass.object());
    };
    warn!(object = %pass.object(), %error, "the spec cannot be decoded");
    let subject = Subject {
        reference: pass.object().clone(),
        uid: meta.uid.clone(),
        resource_version: meta.resource_version.clone(),
    };
    match pass.overwrite_status(subject, &changes).await {
        Next::Idle => shell.resync(pass.object()),
        next => next,
    }
}
