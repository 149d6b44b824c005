//! `status.duration`: how long an update took, without the time that people took to decide, and how it ended.

use crate::api::common::time;
use crate::api::rollout::RolloutStatus;
use crate::api::rollout_status::DurationStatus;

use super::draft::Draft;
use super::scene::Scene;
use super::{blue_green, pauses};

/// Goes on with the record. To be called when the rest of the status but phase and conditions is final.
pub(super) fn track(scene: &Scene<'_>, draft: &mut Draft<'_>) {
    let now = time(draft.world.now);
    let mut record = draft.status.duration.take().unwrap_or_default();
    let running = record.rollout_started_at.is_some() && record.finished_at.is_none();
    if begins(scene, &draft.status, &record, running) {
        record = DurationStatus { rollout_started_at: Some(now.clone()), ..DurationStatus::default() };
    }
    if record.finished_at.is_none() {
        let ending = ending(scene, &draft.status);
        let waits_for_people = ending.is_none() && is_manual_pause(scene, &draft.status);
        match (waits_for_people, &record.manual_pause_started_at) {
            (true, None) => record.manual_pause_started_at = Some(now.clone()),
            (false, Some(since)) => {
                let seconds = now.0.duration_since(since.0).as_secs().max(0);
                let total = record.total_manual_pause_duration_seconds.get_or_insert(0);
                *total = total.saturating_add(seconds);
                record.manual_pause_started_at = None;
            }
            _ => {}
        }
        if let Some(ending) = ending {
            record.finished_at = Some(now);
            ending.clone_into(&mut record.completion_status);
        }
    }
    draft.status.duration = Some(record);
}

/// Whether the clock starts: at first sight, with a new template, or with a retry. On the way back to a version that was
/// there before, the clock of the update that is given up goes on.
fn begins(scene: &Scene<'_>, status: &RolloutStatus, record: &DurationStatus, running: bool) -> bool {
    let retried = scene.observed.aborted_at.is_some() && status.aborted_at.is_none() && !scene.is_promoted(status);
    let another = scene.observed.current_pod_hash != status.current_pod_hash;
    record.rollout_started_at.is_none() || another && !(running && goes_back(scene)) || !another && retried
}

/// How the update has ended, if it has.
fn ending(scene: &Scene<'_>, status: &RolloutStatus) -> Option<&'static str> {
    if status.abort {
        return Some("Aborted");
    }
    let complete = scene.revisions.new.is_some_and(|new| new.status.available >= scene.replicas);
    if !(complete && scene.is_promoted(status)) {
        return None;
    }
    let was_stable = scene.observed.stable_rs == status.stable_rs;
    Some(completion(scene, was_stable || skips_steps(scene)))
}

/// What a promotion that is made now is called.
pub(super) fn promotion(scene: &Scene<'_>) -> &'static str {
    completion(scene, skips_steps(scene))
}

fn completion(scene: &Scene<'_>, steps_skipped: bool) -> &'static str {
    match goes_back(scene) {
        true if steps_skipped => "FastRolledBack",
        true => "RolledBack",
        false if scene.observed.promote_full => "FastPromoted",
        false => "Promoted",
    }
}

fn skips_steps(scene: &Scene<'_>) -> bool {
    scene.is_rollback_within_window() || scene.blue_green.is_some() && blue_green::fast_rollback(scene).is_some()
}

/// Whether the desired version is older than another one that is known.
fn goes_back(scene: &Scene<'_>) -> bool {
    scene.revisions.new.is_some_and(|new| scene.revisions.all().any(|other| other.created > new.created))
}

/// Whether the Rollout waits for a person.
fn is_manual_pause(scene: &Scene<'_>, status: &RolloutStatus) -> bool {
    let endless = scene.step(status).and_then(|step| step.pause.as_ref()).is_some_and(|pause| pause.duration.is_none());
    let waits_for_promotion = scene.blue_green.is_some_and(|strategy| strategy.pause_seconds().is_none());
    scene.rollout.spec.paused
        || pauses::find(status, pauses::INCONCLUSIVE).is_some()
        || endless && pauses::find(status, pauses::STEP).is_some()
        || waits_for_promotion && pauses::find(status, pauses::BLUE_GREEN).is_some()
}
