//! What a Rollout waits for, and until when.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::ReplicaSet;
use kube::ResourceExt;

use super::{Objects, Style, duration, evidence, owned};
use crate::api::Rollout;
use crate::api::experiment::Experiment;
use crate::api::rollout_status::{PauseCondition, RolloutStatus};
use crate::api::steps::CanaryStep;

/// One sentence for each thing that is waited for; none when the Rollout is where it should be.
pub(super) fn waits(rollout: &Rollout, objects: &Objects, style: Style) -> Vec<String> {
    let default = RolloutStatus::default();
    let status = rollout.status.as_ref().unwrap_or(&default);
    let name = rollout.name_any();
    if status.conditions.iter().any(|condition| condition.type_ == "InvalidSpec") {
        return vec!["a spec without errors".to_owned()];
    }
    if status.abort {
        return vec![format!("a new version, `tidegate retry {name}` or `tidegate undo {name}`")];
    }
    let mut waits = Vec::new();
    if rollout.spec.paused {
        waits.push(format!("`tidegate promote {name}`: spec.paused is set"));
    }
    waits.extend(status.pause_conditions.iter().map(|pause| paused(rollout, pause, style)));
    if waits.is_empty() && status.phase != "Healthy" {
        waits.extend(step(rollout, status, objects, style));
        waits.extend(weight(status));
        waits.extend(pods(rollout, status, objects, style));
    }
    if let Some(at) = rollout.spec.restart_at.as_ref().filter(|at| style.since(at.0) < 0) {
        waits.push(format!("the restart {}", style.countdown(at.0)));
    }
    waits
}

fn paused(rollout: &Rollout, pause: &PauseCondition, style: Style) -> String {
    let promote = format!("`tidegate promote {}`", rollout.name_any());
    let since = duration(style.since(pause.start_time.0));
    let seconds = match pause.reason.as_str() {
        "InconclusiveAnalysisRun" | "InconclusiveExperiment" => {
            return format!("your verdict, as the analysis has none: {promote}, or abort (for {since} now)");
        }
        "BlueGreenPause" => {
            let blue_green = rollout.spec.strategy.blue_green.as_ref();
            blue_green.map(|blue_green| blue_green.auto_promotion_seconds).filter(|seconds| *seconds > 0)
        }
        _ => current_step(rollout).and_then(|step| step.pause.as_ref()?.duration.as_ref()?.seconds().ok()),
    };
    match seconds.and_then(|seconds| pause.start_time.0.checked_add(SignedDuration::from_secs(seconds.into())).ok()) {
        Some(end) => format!("the end of the pause {}, or {promote}", style.countdown(end)),
        None => format!("{promote} (for {since} now)"),
    }
}

/// The step that the canary is at.
pub(super) fn current_step(rollout: &Rollout) -> Option<&CanaryStep> {
    let index = rollout.status.as_ref()?.current_step_index?;
    rollout.spec.strategy.canary.as_ref()?.steps.get(usize::try_from(index).ok()?)
}

/// The analysis or the experiment of the current step.
fn step(rollout: &Rollout, status: &RolloutStatus, objects: &Objects, style: Style) -> Option<String> {
    let step = current_step(rollout)?;
    if step.analysis.is_some() {
        let run = status.canary.current_step_analysis_run_status.as_ref()?;
        let found = owned(&objects.analysis_runs, &rollout.metadata);
        let found = found.into_iter().find(|candidate| candidate.name_any() == run.name);
        let next = found.and_then(evidence::next);
        let next = next.filter(|at| style.since(*at) < 0);
        let next = next.map(|at| format!(", which measures {}", style.countdown(at))).unwrap_or_default();
        return Some(format!("analysis run {}{next}", run.name));
    }
    step.experiment.as_ref()?;
    let name = Some(&status.canary.current_experiment).filter(|name| !name.is_empty())?;
    let found = owned(&objects.experiments, &rollout.metadata);
    let end = found.into_iter().find(|candidate| candidate.name_any() == *name).and_then(end_of);
    let end = end.map(|at| format!(", which ends {}", style.countdown(at))).unwrap_or_default();
    Some(format!("experiment {name}{end}"))
}

/// When an experiment that runs will have run for long enough.
pub(super) fn end_of(experiment: &Experiment) -> Option<Timestamp> {
    let status = experiment.status.as_ref()?;
    if status.phase.completed() {
        return None;
    }
    let duration: crate::api::duration::GoDuration = experiment.spec.duration.as_ref()?.parse().ok()?;
    status.available_at.as_ref()?.0.checked_add(SignedDuration::from(duration)).ok()
}

fn weight(status: &RolloutStatus) -> Option<String> {
    let weights = status.canary.weights.as_ref().filter(|weights| weights.verified == Some(false))?;
    Some(format!("the gateway to confirm weight {}", weights.canary.weight))
}

/// New pods that are not there yet, and when the Rollout gives up on them.
fn pods(rollout: &Rollout, status: &RolloutStatus, objects: &Objects, style: Style) -> Option<String> {
    let progressing = status.conditions.iter().find(|condition| condition.type_ == "Progressing")?;
    if progressing.reason == "ProgressDeadlineExceeded" {
        return None;
    }
    let missing_of = |replica_set: &ReplicaSet| {
        let specified = replica_set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(0);
        let available = replica_set.status.as_ref().and_then(|status| status.available_replicas).unwrap_or(0);
        (specified - available).max(0)
    };
    let missing: i32 = owned(&objects.replica_sets, &rollout.metadata).into_iter().map(missing_of).sum();
    if missing == 0 {
        return None;
    }
    let limit = SignedDuration::from_secs(rollout.spec.progress_deadline_seconds().into());
    let deadline = progressing.last_update_time.0.checked_add(limit).ok()?;
    let plural = if missing == 1 { "pod" } else { "pods" };
    Some(format!("{missing} {plural} to become available; the deadline is {}", style.countdown(deadline)))
}
