//! The ReplicaSet controller: as many pods as wanted, and a status that counts them.

use std::cmp::Reverse;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::pods::Pod;
use super::{Key, Name, Workloads, backoff, condition, owned_by, seconds, uid};
use crate::sandbox::DeleteOptions;

const RESOURCE: &str = "replicasets.apps";
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

impl Workloads {
    pub(super) fn sync_replica_set(&mut self, name: &Name, now: Instant) {
        let Ok(set) = self.controllers.get(RESOURCE, &name.namespace, &name.name) else { return };
        let counted = Counts::of(&set, self.pods_of(uid(&set)).map(|(_, pod)| pod), self.timestamp());
        let failure = if set["metadata"]["deletionTimestamp"].is_null() { self.manage(name, &set) } else { Ok(()) };
        if failure.is_err() {
            let failures = self.failures.entry(name.clone()).or_default();
            *failures += 1;
            let wait = backoff(*failures, Duration::from_millis(100), Duration::from_secs(60));
            self.wake(now + wait, Key::ReplicaSet(name.clone()));
        } else {
            self.failures.remove(name);
        }
        if let Some(wait) = counted.until_available {
            self.wake(now + wait, Key::ReplicaSet(name.clone()));
        }
        let status = counted.status(&set, failure.err().as_ref(), self.timestamp());
        if status != set["status"] {
            // Someone may have deleted the ReplicaSet; then there is no status to write.
            let _ =
                self.controllers.edit_status(RESOURCE, &name.namespace, &name.name, |object| object["status"] = status);
        }
    }

    /// Makes or deletes pods. The error is why the wanted number could not be reached.
    fn manage(&self, name: &Name, set: &Value) -> Result<(), Failure> {
        let wanted = usize::try_from(set["spec"]["replicas"].as_i64().unwrap_or(1)).unwrap_or(0);
        let mut active: Vec<(&Name, &Pod)> = self.pods_of(uid(set)).filter(|(_, pod)| pod.is_active()).collect();
        for _ in active.len()..wanted {
            let created = self.create_pod(&name.namespace, pod(set));
            created.map_err(|message| Failure { reason: "FailedCreate", message })?;
        }
        if active.len() > wanted {
            active.sort_by_cached_key(|(name, pod)| deletion_rank(name, pod));
            for (pod_name, pod) in &active[..active.len() - wanted] {
                let options = DeleteOptions { uid: Some(uid(&pod.object).to_owned()), ..DeleteOptions::default() };
                let deleted = self.controllers.delete("pods", &pod_name.namespace, &pod_name.name, &options);
                deleted.map_err(|refusal| Failure { reason: "FailedDelete", message: refusal.message })?;
            }
        }
        Ok(())
    }
}

/// Why the wanted number of pods could not be reached.
struct Failure {
    reason: &'static str,
    message: String,
}

/// A pod from the template of its ReplicaSet.
fn pod(set: &Value) -> Value {
    let template = &set["spec"]["template"];
    let name = set["metadata"]["name"].as_str().unwrap_or_default();
    let mut metadata = json!({
        "generateName": format!("{name}-"),
        "ownerReferences": [owned_by(set, "apps/v1", "ReplicaSet")],
    });
    for field in ["labels", "annotations", "finalizers"] {
        if let Some(value) = template["metadata"].get(field).filter(|value| !value.is_null()) {
            metadata[field] = value.clone();
        }
    }
    json!({"metadata": metadata, "spec": template["spec"]})
}

/// Lower goes first: what serves least, is cheapest to lose, and is youngest.
fn deletion_rank(name: &Name, pod: &Pod) -> impl Ord + use<> {
    let phase = match pod.object["status"]["phase"].as_str() {
        Some("Pending") => 0,
        Some("Running") => 2,
        _ => 1,
    };
    let cost = pod.object["metadata"]["annotations"][DELETION_COST].as_str();
    let cost = cost.and_then(|cost| cost.parse::<i32>().ok()).unwrap_or(0);
    let created = pod.object["metadata"]["creationTimestamp"].as_str().unwrap_or_default().to_owned();
    (pod.node().is_some(), phase, pod.is_ready(), cost, Reverse(pod.ready_since()), Reverse(created), name.clone())
}

/// What a status counts.
struct Counts {
    replicas: usize,
    labeled: usize,
    ready: usize,
    available: usize,
    /// When the next ready pod becomes available.
    until_available: Option<Duration>,
}

impl Counts {
    fn of<'a>(set: &Value, pods: impl Iterator<Item = &'a Pod>, now: Timestamp) -> Self {
        let mut counts = Counts { replicas: 0, labeled: 0, ready: 0, available: 0, until_available: None };
        let min_ready = set["spec"]["minReadySeconds"].as_i64().unwrap_or(0).max(0);
        let labels = set["spec"]["template"]["metadata"]["labels"].as_object();
        for pod in pods.filter(|pod| pod.is_active()) {
            counts.replicas += 1;
            let own = &pod.object["metadata"]["labels"];
            if labels.into_iter().flatten().all(|(key, value)| own[key] == *value) {
                counts.labeled += 1;
            }
            let Some(since) = pod.ready_since().filter(|_| pod.is_ready()) else { continue };
            counts.ready += 1;
            let ready_for = now.duration_since(since);
            let missing = Duration::try_from(jiff::SignedDuration::from_secs(min_ready) - ready_for);
            match missing.ok().filter(|missing| min_ready > 0 && !missing.is_zero()) {
                None => counts.available += 1,
                Some(missing) => {
                    let soonest = counts.until_available.map_or(missing, |soonest| soonest.min(missing));
                    counts.until_available = Some(soonest);
                }
            }
        }
        counts
    }

    /// The status with these counts; as in Go's JSON, a count of 0 is left out, all but `replicas`.
    fn status(&self, set: &Value, failure: Option<&Failure>, now: Timestamp) -> Value {
        let mut status = Map::new();
        status.insert("replicas".into(), self.replicas.into());
        for (field, count) in [
            ("fullyLabeledReplicas", self.labeled),
            ("readyReplicas", self.ready),
            ("availableReplicas", self.available),
        ] {
            if count > 0 {
                status.insert(field.into(), count.into());
            }
        }
        if let Some(generation) = set["metadata"]["generation"].as_i64() {
            status.insert("observedGeneration".into(), generation.into());
        }
        if let Some(failure) = failure {
            let before = condition(set, "ReplicaFailure").filter(|condition| condition["status"] == "True");
            let since = before.map_or_else(|| seconds(now).into(), |condition| condition["lastTransitionTime"].clone());
            // The numbers in a quota's message change with every attempt; the first is kept, as kube-controller-manager does.
            let same_reason = before.filter(|condition| condition["reason"] == failure.reason);
            let condition = same_reason.cloned().unwrap_or_else(|| {
                json!({
                    "type": "ReplicaFailure",
                    "status": "True",
                    "reason": failure.reason,
                    "message": failure.message,
                    "lastTransitionTime": since,
                })
            });
            status.insert("conditions".into(), json!([condition]));
        }
        Value::Object(status)
    }
}
