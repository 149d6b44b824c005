//! The conditions of an Experiment. One with the same status and reason stays as it is; the time of transition is kept
//! while the status is the same.

use crate::api::analysis::AnalysisPhase;
use crate::api::common::Condition;
use crate::api::experiment::{ExperimentStatus, template_status};

use super::draft::Draft;
use super::status;

const INVALID_SPEC: &str = "InvalidSpec";
const PROGRESSING: &str = "Progressing";

/// Says what is wrong with the spec, or that nothing is any more.
pub(super) fn invalid_spec(draft: &mut Draft<'_>, message: Option<&str>) {
    match message {
        None => draft.status.conditions.retain(|condition| condition.type_ != INVALID_SPEC),
        Some(message) => {
            if find(&draft.status, INVALID_SPEC).is_none_or(|condition| condition.message != message) {
                replace(draft, INVALID_SPEC, "True", INVALID_SPEC, message.to_owned());
            }
        }
    }
}

/// Says how the experiment gets on. The rest of the status must be final by now.
pub(super) fn progressing(draft: &mut Draft<'_>) {
    let name = draft.name();
    let says = |what: &str| format!("Experiment \"{name}\" {what}");
    let late = draft.status.template_statuses.iter().any(|template| template.status == template_status::FAILED);
    let running = draft.status.available_at.is_some() && !status::duration_has_passed(draft);
    if draft.status.phase == AnalysisPhase::Successful {
        set(draft, "False", "ExperimentCompleted", says("has successfully ran and completed."));
    } else if late {
        set(draft, "False", "ProgressDeadlineExceeded", says("has timed out progressing."));
    } else if draft.status.phase.completed() {
        // How it ended is said by the phase.
    } else if made_progress(&draft.observed, &draft.status) {
        replace(draft, PROGRESSING, "True", "ReplicaSetUpdated", says("is progressing."));
    } else if running {
        set(draft, "True", "NewReplicaSetAvailable", says("is running."));
    }
}

fn made_progress(old: &ExperimentStatus, new: &ExperimentStatus) -> bool {
    new.template_statuses.iter().any(|template| {
        let counts = |status: &crate::api::experiment::ExperimentTemplateStatus| {
            (status.replicas, status.updated_replicas, status.ready_replicas, status.available_replicas)
        };
        let before = old.template_statuses.iter().find(|old| old.name == template.name);
        before.is_none_or(|before| counts(before) != counts(template))
    })
}

fn find<'a>(status: &'a ExperimentStatus, type_: &str) -> Option<&'a Condition> {
    status.conditions.iter().find(|condition| condition.type_ == type_)
}

fn set(draft: &mut Draft<'_>, status: &str, reason: &str, message: String) {
    let same = |condition: &Condition| condition.status == status && condition.reason == reason;
    if !find(&draft.status, PROGRESSING).is_some_and(same) {
        replace(draft, PROGRESSING, status, reason, message);
    }
}

fn replace(draft: &mut Draft<'_>, type_: &str, status: &str, reason: &str, message: String) {
    Condition::put(&mut draft.status.conditions, draft.world.now, type_, status, reason, message);
}
