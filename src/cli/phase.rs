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

/// The mark that stands for a phase of a Rollout, a ReplicaSet, a pod or a run.
pub fn icon(phase: &str) -> &'static str {
    match phase {
        "Healthy" | "Successful" | "Running" => "✔",
        "Degraded" | "Failed" | "CrashLoopBackOff" => "✖",
        "Error" | "ErrImagePull" | "ImagePullBackOff" => "⚠",
        "Paused" => "॥",
        "Inconclusive" => "?",
        "ScaledDown" => "•",
        _ => "◌",
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
