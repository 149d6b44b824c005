//! The phase of a Rollout as a client has to read it: the status may be about an older spec.

use std::fmt;

use crate::api::Rollout;
use crate::api::names;

/// Phase and message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    pub phase: String,
    pub message: String,
}

impl Shown {
    fn progressing(message: &str) -> Self {
        Self { phase: "Progressing".to_owned(), message: message.to_owned() }
    }
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.phase)?;
        if self.message.is_empty() { Ok(()) } else { write!(f, " - {}", self.message) }
    }
}

/// What is to be told of a Rollout.
pub fn shown(rollout: &Rollout) -> Shown {
    let status = rollout.status.clone().unwrap_or_default();
    let generation = rollout.metadata.generation.unwrap_or(0);
    let observed = status.observed_generation.parse::<i64>();
    if status.observed_generation.is_empty() || observed.is_ok_and(|observed| observed < generation) {
        return Shown::progressing("waiting for rollout spec update to be observed");
    }
    if status.controller_pause && status.pause_conditions.is_empty() && !rollout.spec.paused {
        return Shown::progressing("waiting for rollout to unpause");
    }
    let annotations = rollout.metadata.annotations.as_ref();
    let workload = annotations.and_then(|annotations| annotations.get(names::WORKLOAD_GENERATION));
    if workload.is_some_and(|generation| *generation != status.workload_observed_generation) {
        return Shown::progressing("waiting for rollout spec update to be observed for the reference workload");
    }
    Shown { phase: status.phase, message: status.message }
}

/// The weight that the steps have asked for so far.
pub fn set_weight(rollout: &Rollout) -> i32 {
    let Some(canary) = &rollout.spec.strategy.canary else { return 0 };
    let (aborted, index) =
        rollout.status.as_ref().map_or((false, None), |status| (status.abort, status.current_step_index));
    let index = index.unwrap_or(0).max(0) as usize;
    if aborted {
        return 0;
    }
    if index >= canary.steps.len() {
        return canary.max_weight();
    }
    canary.steps[..=index].iter().rev().find_map(|step| step.set_weight).unwrap_or(0)
}

/// The mark of what is still under way.
pub const UNDER_WAY: &str = "◌";

/// The mark that stands for a phase of a Rollout, a ReplicaSet, a pod or a run.
pub fn mark(phase: &str) -> &'static str {
    match phase {
        "Healthy" | "Successful" | "Running" | "Completed" => "✔",
        "Degraded" | "Failed" | "OOMKilled" | "CrashLoopBackOff" => "✖",
        "Paused" => "॥",
        "Inconclusive" => "?",
        "ScaledDown" => "•",
        bad if bad.contains("Error") || bad.contains("BackOff") || bad.contains("Invalid") => "⚠",
        bad if bad.contains("ExitCode") || bad == "Evicted" => "✖",
        _ => UNDER_WAY,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_status_about_an_older_spec_is_not_taken_for_the_answer() {
        let told = |generation: i64, status: Value| {
            let object = json!({"metadata": {"generation": generation}, "spec": {}, "status": status});
            shown(&serde_json::from_value::<Rollout>(object).unwrap()).to_string()
        };
        let healthy = json!({"observedGeneration": "2", "phase": "Healthy"});
        assert_eq!(told(2, healthy.clone()), "Healthy");
        assert_eq!(told(3, healthy), "Progressing - waiting for rollout spec update to be observed");
        assert_eq!(told(1, json!({})), "Progressing - waiting for rollout spec update to be observed");
        let promoted = json!({"observedGeneration": "1", "phase": "Paused", "controllerPause": true});
        assert_eq!(told(1, promoted), "Progressing - waiting for rollout to unpause");
        let paused = json!({"observedGeneration": "1", "phase": "Paused", "message": "CanaryPauseStep"});
        assert_eq!(told(1, paused), "Paused - CanaryPauseStep");
    }
}
