//! The Job controller: one pod after another until enough have succeeded or too many have failed.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{Key, Name, Workloads, backoff, condition, owned_by, seconds, uid};
use crate::sandbox::DeleteOptions;

const RESOURCE: &str = "jobs.batch";
const DEFAULT_BACKOFF_LIMIT: u64 = 6;

impl Workloads {
    pub(super) fn sync_job(&mut self, name: &Name, now: Instant) {
        let Ok(job) = self.controllers.get(RESOURCE, &name.namespace, &name.name) else { return };
        let over = ["Complete", "Failed"].iter().any(|kind| condition(&job, kind).is_some());
        if over || !job["metadata"]["deletionTimestamp"].is_null() {
            return;
        }
        let timestamp = self.timestamp();
        if job["spec"]["suspend"] == true {
            self.suspend(name, &job, timestamp);
            return;
        }
        let mut pods = Pods::default();
        let mut active = Vec::new();
        for (pod_name, pod) in self.pods_of(uid(&job)) {
            match pod.phase() {
                "Succeeded" => pods.succeeded += 1,
                "Failed" => pods.failed += 1,
                _ if pod.is_active() => {
                    pods.active += 1;
                    pods.ready += u64::from(pod.is_ready());
                    active.push(pod_name.clone());
                }
                _ => {}
            }
        }
        let verdict = self.verdict(name, &job, &pods, timestamp, now);
        match &verdict {
            Verdict::Goes => self.start_pods(name, &job, &pods, now),
            Verdict::Failed { .. } => {
                for pod in active {
                    // It may have gone already.
                    let _ = self.controllers.delete("pods", &pod.namespace, &pod.name, &DeleteOptions::default());
                }
            }
            Verdict::Complete => {}
        }
        let status = status(&job, &pods, &verdict, timestamp);
        if status != job["status"] {
            // Someone may have deleted the Job; then there is no status to write.
            let _ =
                self.controllers.edit_status(RESOURCE, &name.namespace, &name.name, |object| object["status"] = status);
        }
    }

    fn suspend(&self, name: &Name, job: &Value, timestamp: Timestamp) {
        if condition(job, "Suspended").is_some() {
            return;
        }
        let at = seconds(timestamp);
        let suspended = json!({"type": "Suspended", "status": "True", "reason": "JobSuspended", "message": "Job suspended",
            "lastProbeTime": at, "lastTransitionTime": at});
        let status = json!({"conditions": [suspended], "ready": 0, "terminating": 0, "uncountedTerminatedPods": {}});
        // Someone may have deleted the Job; then there is no status to write.
        let _ = self.controllers.edit_status(RESOURCE, &name.namespace, &name.name, |object| object["status"] = status);
    }

    fn verdict(&mut self, name: &Name, job: &Value, pods: &Pods, timestamp: Timestamp, now: Instant) -> Verdict {
        let spec = &job["spec"];
        if pods.succeeded >= spec["completions"].as_u64().unwrap_or(1) {
            return Verdict::Complete;
        }
        if pods.failed > spec["backoffLimit"].as_u64().unwrap_or(DEFAULT_BACKOFF_LIMIT) {
            let message = "Job has reached the specified backoff limit";
            return Verdict::Failed { reason: "BackoffLimitExceeded", message };
        }
        if let Some(limit) = spec["activeDeadlineSeconds"].as_i64()
            && let Some(start) = job["status"]["startTime"].as_str().and_then(|start| start.parse::<Timestamp>().ok())
        {
            let left = jiff::SignedDuration::from_secs(limit) - timestamp.duration_since(start);
            match Duration::try_from(left).ok().filter(|left| !left.is_zero()) {
                Some(left) => self.wake(now + left, Key::Job(name.clone())),
                None => {
                    let message = "Job was active longer than specified deadline";
                    return Verdict::Failed { reason: "DeadlineExceeded", message };
                }
            }
        }
        Verdict::Goes
    }

    fn start_pods(&mut self, name: &Name, job: &Value, pods: &Pods, now: Instant) {
        let missing = job["spec"]["completions"].as_u64().unwrap_or(1) - pods.succeeded;
        let wanted = missing.min(job["spec"]["parallelism"].as_u64().unwrap_or(1));
        if wanted > pods.active && pods.failed > 0 {
            // After each failure the next pod waits 10 s, 20 s, 40 s, …
            let (counted, until) = self.pauses.get(name).copied().unwrap_or((0, now));
            if counted < pods.failed {
                let failures = u32::try_from(pods.failed - 1).unwrap_or(u32::MAX);
                let until = now + backoff(failures, Duration::from_secs(10), Duration::from_secs(600));
                self.pauses.insert(name.clone(), (pods.failed, until));
                self.wake(until, Key::Job(name.clone()));
                return;
            }
            if now < until {
                return;
            }
        }
        for _ in pods.active..wanted {
            if let Err(message) = self.create_pod(&name.namespace, pod(job)) {
                tracing::debug!(job = %name, %message, "cannot make a pod");
                self.wake(now + Duration::from_secs(10), Key::Job(name.clone()));
                return;
            }
        }
    }
}

#[derive(Default)]
struct Pods {
    active: u64,
    ready: u64,
    succeeded: u64,
    failed: u64,
}

enum Verdict {
    Goes,
    Complete,
    Failed { reason: &'static str, message: &'static str },
}

fn status(job: &Value, pods: &Pods, verdict: &Verdict, timestamp: Timestamp) -> Value {
    let mut status = json!({
        "startTime": job["status"].get("startTime").cloned().unwrap_or_else(|| seconds(timestamp).into()),
        "ready": pods.ready,
        "terminating": 0,
        "uncountedTerminatedPods": {},
    });
    let active = if matches!(verdict, Verdict::Goes) { pods.active } else { 0 };
    for (field, count) in [("active", active), ("succeeded", pods.succeeded), ("failed", pods.failed)] {
        if count > 0 {
            status[field] = count.into();
        }
    }
    let condition = |kind: &str, reason: &str, message: &str| {
        json!({
            "type": kind,
            "status": "True",
            "reason": reason,
            "message": message,
            "lastProbeTime": seconds(timestamp),
            "lastTransitionTime": seconds(timestamp),
        })
    };
    match verdict {
        Verdict::Goes => {}
        Verdict::Complete => {
            let (reason, message) = ("CompletionsReached", "Reached expected number of succeeded pods");
            let conditions = [condition("SuccessCriteriaMet", reason, message), condition("Complete", reason, message)];
            status["conditions"] = conditions.to_vec().into();
            status["completionTime"] = seconds(timestamp).into();
        }
        Verdict::Failed { reason, message } => {
            let conditions = [condition("FailureTarget", reason, message), condition("Failed", reason, message)];
            status["conditions"] = conditions.to_vec().into();
        }
    }
    status
}

/// A pod from the template of its Job.
fn pod(job: &Value) -> Value {
    let template = &job["spec"]["template"];
    let name = &job["metadata"]["name"];
    let mut metadata = json!({
        "generateName": format!("{}-", name.as_str().unwrap_or_default()),
        "ownerReferences": [owned_by(job, "batch/v1", "Job")],
    });
    for field in ["labels", "annotations"] {
        if template["metadata"][field].is_object() {
            metadata[field] = template["metadata"][field].clone();
        }
    }
    for (label, value) in [
        ("batch.kubernetes.io/job-name", name),
        ("job-name", name),
        ("batch.kubernetes.io/controller-uid", &job["metadata"]["uid"]),
        ("controller-uid", &job["metadata"]["uid"]),
    ] {
        metadata["labels"][label] = value.clone();
    }
    json!({"metadata": metadata, "spec": template["spec"]})
}
