//! A template of an Experiment: its pods, from the first to the last.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::json;

use crate::api::common::time;
use crate::api::experiment::{ExperimentTemplate, ExperimentTemplateStatus, template_status};
use crate::api::names::SCALE_DOWN_DEADLINE;
use crate::api::replica_set::ReplicaSet;
use crate::api::resource::{REPLICA_SET, ROLLOUT};
use crate::plan::{Action, Event, Failure};

use super::decide::transition;
use super::draft::{Draft, after};
use super::{replica_sets, services, status};

/// A write for a template that failed.
pub(super) struct Trouble {
    message: String,
    /// Whether trying again would be of no use.
    is_final: bool,
}

impl Trouble {
    /// Time counts from the last progress of the template.
    pub fn new(draft: &mut Draft<'_>, what: &str, failure: &Failure, status: &ExperimentTemplateStatus) -> Self {
        let first = status.last_transition_time.as_ref().map(|Time(at)| *at);
        Self { message: format!("{what}: {}", failure.error), is_final: draft.is_final(failure, first) }
    }
}

/// Makes, scales and lets go the pods of a template, and says how they get on.
pub(super) fn reconcile(draft: &mut Draft<'_>, template: &ExperimentTemplate) {
    let before = draft.observed.template_statuses.iter().find(|status| status.name == template.name).cloned();
    let before = before.unwrap_or_else(|| ExperimentTemplateStatus {
        name: template.name.clone(),
        ..ExperimentTemplateStatus::default()
    });
    let mut status = before.clone();
    let lives = !draft.ending && !status.is_completed();
    let replica_set = replica_sets::find(draft.world, template);
    let trouble = match replica_set {
        None if lives => create(draft, template, &mut status),
        Some(set) if lives => run(draft, template, set, &mut status),
        Some(set) => let_go(draft, set, &mut status),
        None => services::remove(draft, &mut status),
    };
    count(draft, replica_set, &mut status);
    if !status.is_completed() {
        assess(draft, template, lives, trouble.as_ref(), &mut status);
    }
    if before.status != status.status {
        let warning = [template_status::FAILED, template_status::ERROR].contains(&status.status.as_str());
        let what = format!("Template '{}'", template.name);
        let message = transition(&what, &before.status, &status.status, &status.message);
        draft.because(message.as_str());
        draft.events.push(Event { warning, reason: format!("Template{}", status.status), message, of: None });
    }
    match draft.status.template_statuses.iter_mut().find(|known| known.name == template.name) {
        Some(known) => *known = status,
        None => draft.status.template_statuses.push(status),
    }
}

/// Creates the ReplicaSet, with its size at once: nothing stands on its being empty first.
fn create(
    draft: &mut Draft<'_>,
    template: &ExperimentTemplate,
    status: &mut ExperimentTemplateStatus,
) -> Option<Trouble> {
    let now = time(draft.world.now);
    // Time counts from the first attempt.
    status.last_transition_time.get_or_insert(now);
    let body = replica_sets::body(draft, template);
    let name = replica_sets::name(draft.world, template);
    let object = draft.object(REPLICA_SET, &name);
    let size = template.desired_replicas();
    let event = (size > 0).then(|| scaled(&name, 0, size));
    let failure = draft.act(Action::Create { object, body }, event)?;
    let what = format!("Failed to create ReplicaSet for template '{}'", template.name);
    Some(Trouble::new(draft, &what, failure, status))
}

/// Keeps the pods of a template at its size, with a Service before them if it is to have one.
fn run(
    draft: &mut Draft<'_>,
    template: &ExperimentTemplate,
    replica_set: &ReplicaSet,
    status: &mut ExperimentTemplateStatus,
) -> Option<Trouble> {
    let size = template.desired_replicas();
    let trouble = if size > 0 { services::ensure(draft, template, replica_set, status) } else { None };
    if replica_set.replicas == size {
        return trouble;
    }
    trouble.or(scale(draft, replica_set, size, status))
}

/// Lets the pods go: after the delay, and not before traffic has gone elsewhere; then the Service.
fn let_go(draft: &mut Draft<'_>, replica_set: &ReplicaSet, status: &mut ExperimentTemplateStatus) -> Option<Trouble> {
    if replica_set.replicas == 0 {
        return if replica_set.status.available == 0 { services::remove(draft, status) } else { None };
    }
    let has_traffic = !status.service_name.is_empty() && draft.world.weighted.contains(&status.service_name);
    if has_traffic {
        draft.because(format!("{} keeps its pods: routes still send traffic to them", replica_set.name));
        annotate(draft, replica_set, None);
        return None;
    }
    let mut delay = draft.experiment.spec.scale_down_delay_seconds();
    if !status.service_name.is_empty() && belongs_to_rollout(draft) {
        // A route that has just been changed may be followed late.
        delay = delay.max(i32::try_from(draft.world.propagation_delay_seconds).unwrap_or(i32::MAX));
    }
    let deadline = replica_set.annotations.get(SCALE_DOWN_DEADLINE).and_then(|text| text.parse::<Timestamp>().ok());
    match deadline {
        _ if delay <= 0 => scale(draft, replica_set, 0, status),
        Some(deadline) if draft.world.now >= deadline => scale(draft, replica_set, 0, status),
        Some(deadline) => {
            draft.wake_at(deadline);
            None
        }
        None => {
            let Time(deadline) = time(after(draft.world.now, delay.into()));
            draft.wake_at(deadline);
            annotate(draft, replica_set, Some(deadline.to_string()));
            None
        }
    }
}

fn scale(
    draft: &mut Draft<'_>,
    replica_set: &ReplicaSet,
    to: i32,
    status: &mut ExperimentTemplateStatus,
) -> Option<Trouble> {
    let from = replica_set.replicas;
    let known = replica_set.annotations.contains_key(SCALE_DOWN_DEADLINE);
    let annotations = known.then(|| (SCALE_DOWN_DEADLINE.to_owned(), None));
    let action = Action::Scale {
        // Growing is safe whatever else has changed; shrinking stands on this very state.
        replica_set: replica_sets::basis(draft, replica_set, to < from),
        from,
        to,
        annotations: annotations.into_iter().collect::<BTreeMap<_, _>>(),
    };
    let Some(failure) = draft.act(action, Some(scaled(&replica_set.name, from, to))) else {
        status.last_transition_time = Some(time(draft.world.now));
        return None;
    };
    draft.events.push(Event::warning(
        "ReplicaSetUpdateError",
        format!("Failed to scale {}: {}", replica_set.name, failure.error),
    ));
    let what = format!("Unable to scale ReplicaSet for template '{}' to {to}", status.name);
    Some(Trouble::new(draft, &what, failure, status))
}

/// Sets the deadline of a ReplicaSet that is to go, or takes it away.
fn annotate(draft: &mut Draft<'_>, replica_set: &ReplicaSet, deadline: Option<String>) {
    if replica_set.annotations.get(SCALE_DOWN_DEADLINE) == deadline.as_ref() {
        return;
    }
    let what = match &deadline {
        Some(deadline) => format!("{SCALE_DOWN_DEADLINE}={deadline}"),
        None => format!("{SCALE_DOWN_DEADLINE} removed"),
    };
    let patch = json!({ "metadata": { "annotations": { (SCALE_DOWN_DEADLINE): deadline } } });
    let object = replica_sets::basis(draft, replica_set, false);
    draft.act(Action::MergePatch { object, patch, what }, None);
}

/// Takes over what was observed of the pods; any change counts as progress.
fn count(draft: &Draft<'_>, replica_set: Option<&ReplicaSet>, status: &mut ExperimentTemplateStatus) {
    let observed = replica_set.map(|set| set.status.clone()).unwrap_or_default();
    let counts = |status: &ExperimentTemplateStatus| {
        (status.replicas, status.updated_replicas, status.ready_replicas, status.available_replicas)
    };
    let before = counts(status);
    status.replicas = observed.replicas;
    status.updated_replicas = observed.replicas;
    status.ready_replicas = observed.ready;
    status.available_replicas = observed.available;
    if counts(status) != before {
        status.last_transition_time = Some(time(draft.world.now));
    }
}

/// How a template gets on that has not come to its end.
fn assess(
    draft: &mut Draft<'_>,
    template: &ExperimentTemplate,
    lives: bool,
    trouble: Option<&Trouble>,
    status: &mut ExperimentTemplateStatus,
) {
    let set = |status: &mut ExperimentTemplateStatus, to: &str, message: String| {
        to.clone_into(&mut status.status);
        status.message = message;
    };
    if let Some(trouble) = trouble.filter(|trouble| trouble.is_final) {
        return set(status, template_status::ERROR, trouble.message.clone());
    }
    if !lives {
        return set(status, template_status::SUCCESSFUL, String::new());
    }
    let is_there = replica_sets::find(draft.world, template).is_some();
    if is_there && trouble.is_none() && status.available_replicas == template.desired_replicas() {
        let over = status::duration_has_passed(draft);
        let to = if over { template_status::SUCCESSFUL } else { template_status::RUNNING };
        return set(status, to, String::new());
    }
    let seconds = draft.experiment.spec.progress_deadline_seconds();
    let from = status.last_transition_time.as_ref().map_or(draft.world.now, |Time(from)| *from);
    let deadline = after(from, seconds.into());
    if draft.world.now > deadline {
        let message = format!("Template '{}' exceeded its progressDeadlineSeconds ({seconds})", template.name);
        return set(status, template_status::FAILED, message);
    }
    // The deadline itself is still in time.
    draft.wake_at(after(deadline, 1));
    set(status, template_status::PROGRESSING, trouble.map_or(String::new(), |trouble| trouble.message.clone()));
}

/// Whether a Rollout controls the Experiment, and may have given traffic to it.
fn belongs_to_rollout(draft: &Draft<'_>) -> bool {
    let owners = draft.experiment.metadata.owner_references.iter().flatten();
    owners.into_iter().any(|owner| owner.controller == Some(true) && owner.kind == ROLLOUT.kind)
}

fn scaled(replica_set: &str, from: i32, to: i32) -> Event {
    let way = if to > from { "up" } else { "down" };
    Event::normal("ScalingReplicaSet", format!("Scaled {way} ReplicaSet {replica_set} from {from} to {to}"))
}
