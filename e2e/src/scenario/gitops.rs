//! What Argo CD and Flux make of a Rollout.
//!
//! Argo CD shows the phase of the status, once the spec is observed. Its releases before 2.0, and much else that people have
//! written, look at conditions and counts instead. Flux uses kstatus, the rules that fit most kinds. Every version of the Rollout
//! that a scenario sees is judged by all of them: the first two must agree, and the third must say what the manual says.

use anyhow::{Result, ensure};
use serde_json::Value;

/// What Argo CD shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    Healthy,
    Progressing,
    Suspended,
    Degraded,
    Unknown,
}

/// What kstatus answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kstatus {
    Current,
    InProgress,
    Failed,
    /// It cannot read the object.
    Unknown,
}

/// Judges a Rollout by all rules.
///
/// # Errors
/// They disagree, or one answers what it should not.
pub fn check(rollout: &Value) -> Result<()> {
    let status = &rollout["status"];
    let (shown, counted) = (by_phase(rollout), by_conditions(rollout));
    ensure!(shown != Health::Unknown, "Argo CD does not know the phase {}: {status}", status["phase"]);
    ensure!(shown == counted, "Argo CD shows {shown:?}, conditions and counts say {counted:?}: {status}");
    let says_why = status["message"].as_str().is_some_and(|message| !message.is_empty());
    let needs_why = matches!(shown, Health::Suspended | Health::Degraded);
    ensure!(says_why || !needs_why, "{shown:?} without a message: {status}");
    let kstatus = kstatus(rollout);
    let wanted = if status["observedGeneration"].is_null() { Kstatus::Current } else { Kstatus::Unknown };
    ensure!(kstatus == wanted, "kstatus says {kstatus:?}, and docs/flux.md {wanted:?}: {status}");
    Ok(())
}

/// Argo CD 2.1 and newer.
pub fn by_phase(rollout: &Value) -> Health {
    if !is_observed(rollout) {
        return Health::Progressing;
    }
    match rollout["status"]["phase"].as_str() {
        Some("Healthy") => Health::Healthy,
        Some("Progressing") => Health::Progressing,
        Some("Paused") => Health::Suspended,
        Some("Degraded") => Health::Degraded,
        _ => Health::Unknown,
    }
}

/// What conditions, pauses and counts mean together.
pub fn by_conditions(rollout: &Value) -> Health {
    let (spec, status) = (&rollout["spec"], &rollout["status"]);
    if !is_observed(rollout) {
        return Health::Progressing;
    }
    let mut conditions = status["conditions"].as_array().into_iter().flatten();
    let is_bad = |condition: &Value| {
        let reason = condition["reason"].as_str().unwrap_or_default();
        condition["type"] == "InvalidSpec" || ["RolloutAborted", "ProgressDeadlineExceeded"].contains(&reason)
    };
    if conditions.any(is_bad) {
        return Health::Degraded;
    }
    if spec["paused"] == true || status["pauseConditions"].as_array().is_some_and(|pauses| !pauses.is_empty()) {
        return Health::Suspended;
    }
    let count = |field: &str| status[field].as_i64().unwrap_or(0);
    let wanted = spec["replicas"].as_i64().unwrap_or(1);
    let restarting = !spec["restartAt"].is_null() && spec["restartAt"] != status["restartedAt"];
    let incomplete = count("updatedReplicas") < wanted || count("availableReplicas") < count("updatedReplicas");
    let blue_green = !spec["strategy"]["blueGreen"].is_null();
    let elsewhere = blue_green && status["blueGreen"]["activeSelector"] != status["currentPodHash"];
    // Routers keep old pods for a while after their last request; without one they are a part of the update.
    let routed = !spec["strategy"]["canary"]["trafficRouting"].is_null();
    let left_over = !blue_green && !routed && count("replicas") > count("updatedReplicas");
    let promoted = status["stableRS"] == status["currentPodHash"];
    if restarting || incomplete || elsewhere || left_over || !promoted { Health::Progressing } else { Health::Healthy }
}

/// The rules of kstatus for kinds that it does not know.
pub fn kstatus(object: &Value) -> Kstatus {
    let observed = &object["status"]["observedGeneration"];
    match observed.as_i64() {
        // It insists on a number: a text is an error.
        None if !observed.is_null() => return Kstatus::Unknown,
        Some(observed)
            if object["metadata"]["generation"].as_i64().is_some_and(|generation| observed != generation) =>
        {
            return Kstatus::InProgress;
        }
        _ => {}
    }
    let condition = |name: &str| {
        let mut conditions = object["status"]["conditions"].as_array().into_iter().flatten();
        conditions.find(|condition| condition["type"] == name).and_then(|condition| condition["status"].as_str())
    };
    match (condition("Reconciling"), condition("Stalled"), condition("Ready")) {
        (Some("True"), ..) => Kstatus::InProgress,
        (_, Some("True"), _) => Kstatus::Failed,
        (.., Some("False" | "Unknown")) => Kstatus::InProgress,
        _ => Kstatus::Current,
    }
}

/// Whether the status is about this spec. What is no number was written by a controller of long ago.
fn is_observed(rollout: &Value) -> bool {
    let generation = rollout["metadata"]["generation"].as_i64().unwrap_or(0);
    let observed = rollout["status"]["observedGeneration"].as_str();
    let workload = &rollout["metadata"]["annotations"]["rollout.argoproj.io/workload-generation"];
    let observed_workload = &rollout["status"]["workloadObservedGeneration"];
    let workload_is_observed = rollout["spec"]["workloadRef"].is_null() || workload == observed_workload;
    workload_is_observed
        && observed.is_some_and(|observed| observed.parse().is_ok_and(|observed: i64| observed == generation))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn each_phase_is_shown_as_argo_cd_does() {
        let status =
            |phase: &str| json!({"metadata": {"generation": 2}, "status": {"observedGeneration": "2", "phase": phase}});
        let shown = ["Healthy", "Progressing", "Paused", "Degraded", ""].map(|phase| by_phase(&status(phase)));
        let wanted = [Health::Healthy, Health::Progressing, Health::Suspended, Health::Degraded, Health::Unknown];
        assert_eq!(shown, wanted);
        let mut stale = status("Healthy");
        stale["metadata"]["generation"] = 3.into();
        assert_eq!(by_phase(&stale), Health::Progressing);
    }

    #[test]
    fn a_disagreement_is_told() {
        let mut rollout = json!({
            "metadata": {"generation": 1},
            "spec": {"replicas": 2, "strategy": {"canary": {}}},
            "status": {
                "observedGeneration": "1", "phase": "Healthy", "currentPodHash": "a", "stableRS": "a",
                "replicas": 2, "updatedReplicas": 2, "availableReplicas": 2,
            },
        });
        check(&rollout).unwrap();
        rollout["status"]["pauseConditions"] = json!([{"reason": "CanaryPauseStep"}]);
        let error = check(&rollout).unwrap_err().to_string();
        assert!(error.starts_with("Argo CD shows Healthy, conditions and counts say Suspended"), "{error}");
        rollout["status"]["phase"] = "Paused".into();
        assert!(check(&rollout).unwrap_err().to_string().starts_with("Suspended without a message"));
    }

    #[test]
    fn kstatus_reads_numbers_only() {
        let object =
            |observed: Value| json!({"metadata": {"generation": 2}, "status": {"observedGeneration": observed}});
        assert_eq!(kstatus(&object(json!(2))), Kstatus::Current);
        assert_eq!(kstatus(&object(json!(1))), Kstatus::InProgress);
        assert_eq!(kstatus(&object(json!("2"))), Kstatus::Unknown);
        assert_eq!(kstatus(&json!({"kind": "AnalysisTemplate"})), Kstatus::Current);
        let failed = json!({"status": {"conditions": [{"type": "Stalled", "status": "True"}]}});
        assert_eq!(kstatus(&failed), Kstatus::Failed);
    }
}
