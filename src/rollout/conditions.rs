//! The conditions of a Rollout. Their order is part of the contract: a condition that changes moves to the end, and the
//! phase is taken from the first that matches.

use crate::api::blue_green::BlueGreenStrategy;
use crate::api::common::Condition;
use crate::api::rollout::RolloutStatus;
use crate::api::rollout_status::BlueGreenStatus;
use crate::api::steps::CanaryStep;

use super::draft::{Draft, after};
use super::scene::Scene;
use super::{analysis_runs, blue_green, events, restart};

const AVAILABLE: &str = "Available";
const COMPLETED: &str = "Completed";
const HEALTHY: &str = "Healthy";
const PAUSED: &str = "Paused";
const PROGRESSING: &str = "Progressing";
const REPLICA_FAILURE: &str = "ReplicaFailure";
pub(super) const INVALID_SPEC: &str = "InvalidSpec";

pub(super) const ABORTED: &str = "RolloutAborted";
pub(super) const TIMED_OUT: &str = "ProgressDeadlineExceeded";
const CREATE_ERROR: &str = "ReplicaSetCreateError";
const AVAILABLE_REASON: &str = "AvailableReason";
const NEW_AVAILABLE: &str = "NewReplicaSetAvailable";

pub(super) fn find<'a>(status: &'a RolloutStatus, type_: &str) -> Option<&'a Condition> {
    status.conditions.iter().find(|condition| condition.type_ == type_)
}

/// Sets a condition and tells whether that changed anything. With the same status and reason nothing changes, not even
/// the message; the time of transition is kept while the status is the same.
fn set(draft: &mut Draft<'_>, type_: &str, status: &str, reason: &str, message: impl Into<String>) -> bool {
    let same = |condition: &Condition| condition.status == status && condition.reason == reason;
    if find(&draft.status, type_).is_some_and(same) {
        return false;
    }
    replace(draft, type_, status, reason, message);
    true
}

/// The same, but also bumps a condition that is there already.
fn replace(draft: &mut Draft<'_>, type_: &str, status: &str, reason: &str, message: impl Into<String>) {
    Condition::put(&mut draft.status.conditions, draft.world.now, type_, status, reason, message.into());
}

fn remove(draft: &mut Draft<'_>, type_: &str) {
    draft.status.conditions.retain(|condition| condition.type_ != type_);
}

/// Says what is wrong with the spec, or that nothing is any more.
pub(super) fn invalid_spec(draft: &mut Draft<'_>, message: Option<&str>) {
    match message {
        None => remove(draft, INVALID_SPEC),
        Some(message) => {
            if find(&draft.status, INVALID_SPEC).is_none_or(|condition| condition.message != message) {
                replace(draft, INVALID_SPEC, "True", INVALID_SPEC, message);
            }
        }
    }
}

/// What the conditions say about one decision beside what the status says itself.
#[derive(Default)]
pub(super) struct Facts {
    /// Why this decision aborted the update.
    pub abort_cause: Option<String>,
    /// Name of the ReplicaSet that this decision creates.
    pub created: Option<String>,
    /// Why the new ReplicaSet could not be created.
    pub create_error: Option<String>,
    /// Whether an update began with this decision.
    pub started_over: bool,
    /// Why this update needs no steps.
    pub skip: Option<&'static str>,
}

/// Whether the status says that this ReplicaSet could not be created.
pub(super) fn says_not_created(status: &RolloutStatus, replica_set: &str) -> bool {
    let named = format!("\"{replica_set}\"");
    find(status, PROGRESSING)
        .is_some_and(|condition| condition.reason == CREATE_ERROR && condition.message.contains(&named))
}

/// Brings the conditions in line with the rest of the status, which must be final by now.
pub(super) fn update(scene: &Scene<'_>, draft: &mut Draft<'_>, facts: &Facts) {
    pause(scene, draft);
    let became_unhealthy = healthy(scene, draft);
    if draft.status.abort {
        abort(scene, draft, facts);
    } else {
        progressing(scene, draft, facts, became_unhealthy);
    }
    available(scene, draft);
    replica_failure(scene, draft);
    completed(draft);
    wake_for_deadline(scene, draft);
}

fn pause(scene: &Scene<'_>, draft: &mut Draft<'_>) {
    let paused = !draft.status.pause_conditions.is_empty() || scene.rollout.spec.paused;
    let reason = find(&draft.status, PROGRESSING).map(|condition| condition.reason.clone()).unwrap_or_default();
    if reason == ABORTED {
        if !draft.status.abort {
            set(draft, PROGRESSING, "Unknown", "RolloutRetry", "Retrying Rollout after abort");
            // This is told first, then how it goes on.
            draft.wake_now();
        }
    } else if paused && is_healthy(scene, &draft.status) {
        // There is nothing that the pause holds.
    } else if paused {
        set(draft, PROGRESSING, "Unknown", "RolloutPaused", "Rollout is paused");
    } else if reason == "RolloutPaused" {
        set(draft, PROGRESSING, "Unknown", "RolloutResumed", "Rollout is resumed");
    }
    if paused {
        set(draft, PAUSED, "True", "RolloutPaused", "Rollout is paused");
    } else if says_paused(&draft.status) {
        set(draft, PAUSED, "False", "RolloutPaused", "Rollout is paused");
    }
}

/// Returns whether this decision found a healthy Rollout to be no longer so. A restart is over when every pod has been
/// replaced: in between, between one pod and the next, all of them may be available.
fn healthy(scene: &Scene<'_>, draft: &mut Draft<'_>) -> bool {
    let paused = !draft.status.pause_conditions.is_empty() || scene.rollout.spec.paused;
    if !paused && !restart::is_under_way(scene, &draft.status) && is_healthy(scene, &draft.status) {
        set(draft, HEALTHY, "True", "RolloutHealthy", "Rollout is healthy");
        false
    } else {
        // The condition appears with the first health only.
        find(&draft.status, HEALTHY).is_some()
            && set(draft, HEALTHY, "False", "RolloutHealthy", "Rollout is not healthy")
    }
}

/// Every pod is new and available, and the generation had been observed before this decision.
fn is_healthy(scene: &Scene<'_>, status: &RolloutStatus) -> bool {
    let replicas = scene.replicas;
    let steps = scene.canary.steps.len();
    let at_end = steps == 0 || status.current_step_index.is_none_or(|index| index as usize == steps);
    status.updated_replicas == replicas
        && status.available_replicas == replicas
        && (scene.blue_green.is_some() || status.replicas == replicas)
        && at_end
        && scene
            .blue_green
            .is_none_or(|strategy| leads_to_current(strategy, &status.blue_green, &status.current_pod_hash))
        && is_stable(status)
        && scene.observed.observed_generation == scene.generation()
}

/// Whether the Services of blue-green select the current version. Old pods may stay beside it.
fn leads_to_current(strategy: &BlueGreenStrategy, selected: &BlueGreenStatus, current: &str) -> bool {
    selected.active_selector == current && (strategy.preview_service.is_empty() || selected.preview_selector == current)
}

fn is_stable(status: &RolloutStatus) -> bool {
    !status.stable_rs.is_empty() && status.stable_rs == status.current_pod_hash
}

fn abort(scene: &Scene<'_>, draft: &mut Draft<'_>, facts: &Facts) {
    let revision = scene.revisions.number();
    let mut message = format!("Rollout aborted update to revision {revision}");
    if let Some(cause) = &facts.abort_cause {
        message = format!("{message}: {cause}");
    }
    if set(draft, PROGRESSING, "False", ABORTED, message.clone()) {
        draft.event(events::aborted(&message));
    }
}

fn progressing(scene: &Scene<'_>, draft: &mut Draft<'_>, facts: &Facts, became_unhealthy: bool) {
    if let Some(error) = &facts.create_error {
        set(draft, PROGRESSING, "False", CREATE_ERROR, error);
        return;
    }
    let name = scene.revisions.new.map(|new| new.name.as_str()).or(facts.created.as_deref());
    let restarting = restart::is_under_way(scene, &draft.status);
    // What a restart takes away it is about to replace: that, too, is to take no longer than the deadline.
    let lost_pods = draft.status.available_replicas < scene.observed.available_replicas;
    if let Some(created) = &facts.created {
        replace(draft, PROGRESSING, "True", "NewReplicaSetCreated", format!("Created new replica set \"{created}\""));
    } else if find(&draft.status, PROGRESSING).is_none() && name.is_some() {
        let message = format!("Found new replica set \"{}\"", name.unwrap_or_default());
        set(draft, PROGRESSING, "True", "FoundNewReplicaSet", message);
        draft.wake_now();
    } else if !restarting && is_healthy(scene, &draft.status) {
        let message = format!("ReplicaSet \"{}\" has successfully progressed.", name.unwrap_or_default());
        set(draft, PROGRESSING, "True", NEW_AVAILABLE, message);
    } else if !draft.status.pause_conditions.is_empty() || scene.rollout.spec.paused {
        // Said by `pause` already: a pause is not measured by its progress.
    } else if became_unhealthy && !restarting && is_stable(&draft.status) {
        let message = "Rollout does not have minimum availability";
        replace(draft, PROGRESSING, "True", "ReplicaSetNotAvailable", message);
    } else if became_unhealthy
        || facts.started_over
        || made_progress(scene.observed, &draft.status)
        || restarting && lost_pods
    {
        replace(draft, PROGRESSING, "True", "ReplicaSetUpdated", subject(scene, name, "is progressing."));
    } else if timed_out(scene, &draft.status) {
        set(draft, PROGRESSING, "False", TIMED_OUT, subject(scene, name, "has timed out progressing."));
    }
}

/// `ReplicaSet "web-abc" is progressing.`
fn subject(scene: &Scene<'_>, replica_set: Option<&str>, predicate: &str) -> String {
    match replica_set {
        Some(name) => format!("ReplicaSet \"{name}\" {predicate}"),
        None => format!("Rollout \"{}\" {predicate}", scene.name()),
    }
}

/// Pods were updated, became ready or available, old ones went, or the update itself went on.
pub(super) fn made_progress(old: &RolloutStatus, new: &RolloutStatus) -> bool {
    let old_pods = |status: &RolloutStatus| status.replicas - status.updated_replicas;
    let index_moved = match (old.current_step_index, new.current_step_index) {
        (Some(old), Some(new)) => old != new,
        _ => false,
    };
    new.updated_replicas != old.updated_replicas
        || old_pods(new) < old_pods(old)
        || new.ready_replicas > old.ready_replicas
        || new.available_replicas > old.available_replicas
        || new.stable_rs != old.stable_rs
        || index_moved
        || new.current_step_hash != old.current_step_hash
        || new.blue_green != old.blue_green
}

/// Whether the progress deadline has passed without progress. The status must have its new counts already.
pub(super) fn timed_out(scene: &Scene<'_>, status: &RolloutStatus) -> bool {
    if !deadline_applies(scene, status) {
        return false;
    }
    let Some(condition) = find(status, PROGRESSING) else { return false };
    condition.reason == TIMED_OUT || deadline(scene, condition).is_some_and(|deadline| scene.world.now >= deadline)
}

/// The message of a deadline that has passed.
pub(super) fn timeout_message(scene: &Scene<'_>) -> String {
    subject(scene, scene.revisions.new.map(|new| new.name.as_str()), "has timed out progressing.")
}

fn deadline(scene: &Scene<'_>, progressing: &Condition) -> Option<jiff::Timestamp> {
    let measured = !matches!(progressing.reason.as_str(), ABORTED | "RolloutPaused" | TIMED_OUT);
    let seconds = scene.rollout.spec.progress_deadline_seconds();
    measured.then(|| after(progressing.last_update_time.0, seconds.into()))
}

/// Time is not measured where waiting is the purpose.
fn deadline_applies(scene: &Scene<'_>, status: &RolloutStatus) -> bool {
    let waits = |step: &CanaryStep| step.pause.is_some() || step.analysis.is_some() || step.experiment.is_some();
    let paused = !status.pause_conditions.is_empty() || scene.rollout.spec.paused;
    let delayed = scene.revisions.others.iter().any(|other| super::scale_down::deadline(other).is_some());
    let analysing = blue_green::is_analysing(status);
    !paused
        && !analysing
        && !analysis_runs::is_awaited(scene, status)
        && !status.abort
        && !delayed
        && !scene.step(status).is_some_and(waits)
        && !is_healthy(scene, status)
}

fn wake_for_deadline(scene: &Scene<'_>, draft: &mut Draft<'_>) {
    if !deadline_applies(scene, &draft.status) {
        return;
    }
    let deadline = find(&draft.status, PROGRESSING).and_then(|condition| deadline(scene, condition));
    if let Some(deadline) = deadline.filter(|deadline| *deadline > scene.world.now) {
        draft.wake_at(deadline);
    }
}

fn available(scene: &Scene<'_>, draft: &mut Draft<'_>) {
    if draft.status.available_replicas >= scene.replicas {
        set(draft, AVAILABLE, "True", AVAILABLE_REASON, "Rollout has minimum availability");
    } else {
        set(draft, AVAILABLE, "False", AVAILABLE_REASON, "Rollout does not have minimum availability");
    }
}

/// The failure of a ReplicaSet, the new one's first.
fn replica_failure(scene: &Scene<'_>, draft: &mut Draft<'_>) {
    let new = scene.revisions.new.into_iter();
    let failure = new.chain(scene.revisions.all()).find_map(|replica_set| replica_set.status.failure.as_ref());
    match failure {
        Some(failure) => {
            set(draft, REPLICA_FAILURE, &failure.status, &failure.reason, failure.message.as_str());
        }
        None => remove(draft, REPLICA_FAILURE),
    }
}

fn completed(draft: &mut Draft<'_>) {
    let status = if is_stable(&draft.status) { "True" } else { "False" };
    set(draft, COMPLETED, status, "RolloutCompleted", "RolloutCompleted");
}

/// Whether the status says that the Rollout is paused.
pub(super) fn says_paused(status: &RolloutStatus) -> bool {
    find(status, PAUSED).is_some_and(|condition| condition.status == "True")
}

/// Whether the status says that an update is under way already.
pub(super) fn says_not_completed(status: &RolloutStatus) -> bool {
    find(status, COMPLETED).is_some_and(|condition| condition.status == "False")
}
