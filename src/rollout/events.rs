//! The events of a Rollout: their reasons and texts are read by people, notification triggers and tests.

use crate::api::analysis::AnalysisPhase;
use crate::api::resource::{INGRESS, ObjectRef, VIRTUAL_SERVICE};
use crate::plan::{Action, Event, FailedAction};

pub(super) fn added(namespace: &str, name: &str) -> Event {
    Event::normal("RolloutAddedToInformer", format!("Rollout resource added to informer: {namespace}/{name}"))
}

pub(super) fn updated(revision: i64) -> Event {
    Event::normal("RolloutUpdated", format!("Rollout updated to revision {revision}"))
}

pub(super) fn created(replica_set: &str, revision: i64) -> Event {
    Event::normal("NewReplicaSetCreated", format!("Created ReplicaSet {replica_set} (revision {revision})"))
}

pub(super) fn create_failed(message: &str) -> Event {
    Event::warning("ReplicaSetCreateError", message)
}

pub(super) fn scaled(replica_set: &str, revision: i64, from: i32, to: i32) -> Event {
    let way = if to > from { "up" } else { "down" };
    Event::normal(
        "ScalingReplicaSet",
        format!("Scaled {way} ReplicaSet {replica_set} (revision {revision}) from {from} to {to}"),
    )
}

pub(super) fn update_failed(replica_set: &str, error: &str) -> Event {
    Event::warning("ReplicaSetUpdateError", format!("Failed to update ReplicaSet {replica_set}: {error}"))
}

pub(super) fn not_completed(revision: i64, hash: &str) -> Event {
    Event::normal(
        "RolloutNotCompleted",
        format!("Rollout not completed, started update to revision {revision} ({hash})"),
    )
}

pub(super) fn completed(revision: i64, hash: &str, reason: &str) -> Event {
    Event::normal("RolloutCompleted", format!("Rollout completed update to revision {revision} ({hash}): {reason}"))
}

pub(super) fn step_completed(done: usize, count: usize, step: &str) -> Event {
    Event::normal("RolloutStepCompleted", format!("Rollout step {done}/{count} completed ({step})"))
}

pub(super) fn skip_steps(why: &str) -> Event {
    Event::normal("SkipSteps", why)
}

pub(super) fn paused(reason: &str) -> Event {
    Event::normal("RolloutPaused", format!("Rollout is paused ({reason})"))
}

pub(super) fn resumed() -> Event {
    Event::normal("RolloutResumed", "Rollout is resumed")
}

pub(super) fn aborted(message: &str) -> Event {
    Event::warning("RolloutAborted", message)
}

pub(super) fn switched(service: &str, from: &str, to: &str) -> Event {
    Event::normal("SwitchService", format!("Switched selector for service '{service}' from '{from}' to '{to}'"))
}

pub(super) fn updated_destination_rule(what: &str) -> Event {
    Event::normal("UpdatedDestinationRule", what)
}

/// What tells of a router's write towards this weight, for the routers whose writes Argo Rollouts tells of.
pub(super) fn routed(edit: &Action, weight: i32) -> Option<Event> {
    let ObjectRef { resource, name, .. } = edit.object();
    Some(match (*resource, edit.kind()) {
        (VIRTUAL_SERVICE, _) => {
            let message = format!("VirtualService `{name}` set to desiredWeight '{weight}'");
            Event::normal("Updated VirtualService", message)
        }
        (INGRESS, FailedAction::Create) => Event::normal(
            "CreatingCanaryIngress",
            format!("Creating canary ingress `{name}` with desiredWeight '{weight}'"),
        ),
        (INGRESS, _) => {
            Event::normal("PatchingCanaryIngress", format!("Updating ingress `{name}` to desiredWeight '{weight}'"))
        }
        _ => return None,
    })
}

pub(super) fn virtual_service_not_found(name: &str) -> Event {
    Event::warning("VirtualServiceNotFound", format!("VirtualService `{name}` not found"))
}

pub(super) fn weight_updated(from: Option<i32>, to: i32) -> Event {
    let details = match from {
        Some(from) if from == to => String::new(),
        Some(from) => format!("from {from} to {to}"),
        None => format!("to {to}"),
    };
    Event::normal("TrafficWeightUpdated", format!("Traffic weight updated {details}"))
}

pub(super) fn routing_failed(error: &str) -> Event {
    Event::warning("TrafficRoutingError", error)
}

pub(super) fn analysis(kind: &str, run: &str, phase: AnalysisPhase, previous: Option<AnalysisPhase>) -> Event {
    let warning = matches!(phase, AnalysisPhase::Failed | AnalysisPhase::Error);
    let previous = previous.map_or("NoPreviousStatus", AnalysisPhase::as_str);
    Event {
        warning,
        reason: format!("AnalysisRun{phase}"),
        message: format!("{kind} Analysis Run '{run}' Status New: '{phase}' Previous: '{previous}'"),
        of: None,
    }
}

pub(super) fn experiment_created(name: &str) -> Event {
    Event::normal("ExperimentCreated", format!("Created Experiment '{name}'"))
}

pub(super) fn reconcile_failed(message: &str) -> Event {
    Event::warning("ReconciliationError", message)
}
