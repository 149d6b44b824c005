//! Pauses: who asked for one, since when, and when it is over.

use jiff::Timestamp;

use crate::api::common::time;
use crate::api::rollout::RolloutStatus;
use crate::api::rollout_status::PauseCondition;
use crate::api::steps::Pause;

use super::draft::{Draft, after};

/// The pause of a `pause` step.
pub(super) const STEP: &str = "CanaryPauseStep";
/// The pause before the promotion of a blue-green preview.
pub(super) const BLUE_GREEN: &str = "BlueGreenPause";
/// The pause after an analysis that ended without a verdict.
pub(super) const INCONCLUSIVE: &str = "InconclusiveAnalysisRun";
/// The pause after an experiment that ended without a verdict.
pub(super) const INCONCLUSIVE_EXPERIMENT: &str = "InconclusiveExperiment";

/// The pause for this reason.
pub(super) fn find<'a>(status: &'a RolloutStatus, reason: &str) -> Option<&'a PauseCondition> {
    status.pause_conditions.iter().find(|condition| condition.reason == reason)
}

/// Pauses, unless paused for the same reason already.
pub(super) fn enter(draft: &mut Draft<'_>, reason: &str) {
    if find(&draft.status, reason).is_some() {
        return;
    }
    let start_time = time(draft.world.now);
    draft.status.pause_conditions.push(PauseCondition { reason: reason.to_owned(), start_time });
    draft.status.controller_pause = true;
    draft.because(format!("pause ({reason})"));
}

/// Ends the pause for this reason.
pub(super) fn leave(status: &mut RolloutStatus, reason: &str) {
    status.pause_conditions.retain(|condition| condition.reason != reason);
}

/// Ends every pause.
pub(super) fn clear(status: &mut RolloutStatus) {
    status.pause_conditions.clear();
    status.controller_pause = false;
}

/// Whether a `pause` step is over. Begins the pause on arrival at the step.
///
/// That we paused and the condition is gone means that a user has taken it away: a promotion.
pub(super) fn step_is_over(draft: &mut Draft<'_>, pause: &Pause) -> bool {
    let Some(condition) = find(&draft.status, STEP) else {
        if draft.status.controller_pause && draft.status.pause_conditions.is_empty() {
            return true;
        }
        begin_step(draft, pause);
        return false;
    };
    let started = condition.start_time.0;
    // A duration that cannot be read has been refused by validation: it never ends by itself.
    let Some(Ok(seconds)) = pause.duration.as_ref().map(|duration| duration.seconds()) else { return false };
    let counts = counts_from(draft, started);
    let end = after(counts, seconds.into());
    if draft.world.now >= end {
        return true;
    }
    if draft.world.now >= after(started, seconds.into()) && draft.doubt.is_none() {
        draft.doubt = Some(format!("its analysis began at {counts} only, so it lasts until {end}"));
    }
    wake_at_end(draft, pause);
    false
}

/// Seconds by which an analysis may begin after a pause without being late: each is noted in whole seconds.
const TOGETHER_SECONDS: i64 = 2;

/// When a pause begins to count that was entered at this time. Who asks for a pause beside an analysis wants the update
/// to be judged for so long: where nobody took the analysis up at first, that time does not count.
fn counts_from(draft: &Draft<'_>, started: Timestamp) -> Timestamp {
    let late = draft.analysed_since.filter(|since| *since > after(started, TOGETHER_SECONDS));
    late.unwrap_or(started)
}

/// Begins the pause of a step.
pub(super) fn begin_step(draft: &mut Draft<'_>, pause: &Pause) {
    enter(draft, STEP);
    wake_at_end(draft, pause);
}

fn wake_at_end(draft: &mut Draft<'_>, pause: &Pause) {
    let start = find(&draft.status, STEP).map(|condition| condition.start_time.0);
    if let (Some(start), Some(Ok(seconds))) = (start, pause.duration.as_ref().map(|duration| duration.seconds())) {
        draft.wake_after(counts_from(draft, start), seconds.into());
    }
}

/// To be called when all else is decided: without a condition we do not pause. While `spec.paused` holds everything, a
/// promotion that a user has given keeps for later; so it does while nothing judges the update.
pub(super) fn settle(draft: &mut Draft<'_>) {
    let kept = draft.world.rollout.spec.paused || draft.unjudged;
    if draft.status.pause_conditions.is_empty() && !kept {
        draft.status.controller_pause = false;
    }
}
