//! The steps: when one is done, and what comes next.

use crate::api::steps::CanaryStep;

use super::draft::Draft;
use super::scene::Scene;
use super::{events, pauses, replicas};

/// What the completion of steps depends on, as observed.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ready {
    /// Every ReplicaSet has the size that the step asks for, with enough pods available.
    pub pods: bool,
    /// The routers were seen to make the weight of the step; true without routers.
    pub weight: bool,
    /// The routers were seen to have the routes that header and mirror steps make, and no others.
    pub routes: bool,
    /// The analysis of the step was successful.
    pub analysis: bool,
    /// The experiment of the step was successful.
    pub experiment: bool,
    /// The analysis in the background, if there is to be one, has been taken up.
    pub judged: bool,
}

/// Goes one step further if the current one is done.
pub(super) fn advance(scene: &Scene<'_>, draft: &mut Draft<'_>, ready: Ready) {
    let Some(index) = replicas::current_step(scene.canary, &draft.status) else { return };
    let steps = &scene.canary.steps;
    let step = &steps[index];
    let done = if let Some(pause) = &step.pause {
        pauses::step_is_over(draft, pause)
    } else if step.set_canary_scale.is_some() {
        ready.pods
    } else if step.set_weight.is_some() {
        ready.pods && ready.weight
    } else if step.analysis.is_some() {
        ready.analysis
    } else if step.experiment.is_some() {
        ready.experiment
    } else {
        step.set_header_route.is_some() || step.set_mirror_route.is_some()
    };
    if !done || !ready.judged {
        return;
    }
    // One that rides along with another kind of step has to be there as well.
    let makes = step.set_header_route.is_some() || step.set_mirror_route.is_some();
    if makes && !ready.routes {
        draft.wait(format!("{} is written and not read back yet", describe(step)));
        return;
    }
    let next = index + 1;
    // All of the traffic comes after the last step.
    if next == steps.len() && draft.awaits_analysis() {
        return;
    }
    draft.event(events::step_completed(next, steps.len(), &describe(step)));
    draft.because(format!("step {next}/{} is done ({})", steps.len(), describe(step)));
    draft.status.current_step_index = i32::try_from(next).ok();
    draft.status.canary.current_step_analysis_run_status = None;
    draft.status.canary.current_experiment.clear();
    pauses::leave(&mut draft.status, pauses::STEP);
    // A pause that follows begins with the same write; after another pause the Rollout is seen to progress in between.
    match steps.get(next).and_then(|step| step.pause.as_ref()) {
        Some(pause) if step.pause.is_none() && draft.status.pause_conditions.is_empty() => {
            pauses::begin_step(draft, pause);
        }
        _ => draft.wake_now(),
    }
}

/// A step as events show it.
pub(super) fn describe(step: &CanaryStep) -> String {
    if let Some(weight) = step.set_weight {
        return format!("setWeight: {weight}");
    }
    if let Some(pause) = &step.pause {
        return pause.duration.as_ref().map_or("pause".to_owned(), |duration| format!("pause: {duration}"));
    }
    if step.experiment.is_some() {
        return "experiment".to_owned();
    }
    if step.analysis.is_some() {
        return "analysis".to_owned();
    }
    match &step.set_canary_scale {
        Some(scale) if scale.weight.is_some() => {
            format!("setCanaryScale{{weight: {}}}", scale.weight.unwrap_or_default())
        }
        Some(scale) if scale.match_traffic_weight => "setCanaryScale{matchTrafficWeight: true}".to_owned(),
        Some(scale) if scale.replicas.is_some() => {
            format!("setCanaryScale{{replicas: {}}}", scale.replicas.unwrap_or_default())
        }
        _ => match (&step.set_header_route, &step.set_mirror_route) {
            (Some(route), _) => format!("setHeaderRoute{{name: {}}}", route.name),
            (_, Some(route)) => format!("setMirrorRoute{{name: {}}}", route.name),
            (None, None) => "invalid".to_owned(),
        },
    }
}
