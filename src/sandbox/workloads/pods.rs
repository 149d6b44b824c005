//! The scheduler's and the kubelet's part: pods are placed, started, become ready, crash, end.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::behaviour::Behaviour;
use super::{Key, Name, Workloads, backoff, condition, controller, seconds, uid};
use crate::api::names;
use crate::sandbox::strategy::is_gated;
use crate::sandbox::{Change, DeleteOptions, LabelSelector, Op};

/// A pod as the model knows it.
pub(super) struct Pod {
    pub(super) object: Arc<Value>,
    behaviour: Behaviour,
    stage: Stage,
    restarts: u32,
    deleted: Option<Instant>,
    ip: String,
}

/// What the container does.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Stage {
    /// It starts at this time, or again after a crash.
    Waiting {
        until: Instant,
    },
    Running {
        since: Instant,
    },
    /// It has run to its end.
    Ended,
}

/// What a request meets at a pod.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::sandbox) struct Serving {
    /// The pod's controller, empty without one.
    pub(in crate::sandbox) owner: String,
    /// The version: the rollouts-pod-template-hash.
    pub(in crate::sandbox) hash: String,
    pub(in crate::sandbox) image: String,
    /// `None` when nothing listens.
    pub(in crate::sandbox) behaviour: Option<Behaviour>,
}

impl Workloads {
    pub(super) fn observe_pod(&mut self, name: Name, change: &Change, now: Instant) {
        let object = &change.object;
        for owner in [change.previous.as_deref(), Some(&**object)].into_iter().flatten().filter_map(controller) {
            let owner_name = Name::new(&name.namespace, owner["name"].as_str().unwrap_or_default());
            match owner["kind"].as_str() {
                Some("ReplicaSet") => self.expect_replica_set(owner_name, now),
                Some("Job") => drop(self.queue.insert(Key::Job(owner_name))),
                _ => {}
            }
        }
        if endpoint_of(change.previous.as_deref())
            != endpoint_of(Some(object).filter(|_| change.op != Op::Deleted).map(|object| &**object))
        {
            self.expect_endpoints_of_pod(&name.namespace, [change.previous.as_deref(), Some(&**object)], now);
        }
        let budgets = self.budgets_of(&name.namespace, [change.previous.as_deref(), Some(&**object)]);
        self.queue.extend(budgets.into_iter().map(Key::Budget));
        if let Some(owner) =
            self.pods.get(&name).and_then(|pod| controller(&pod.object)).and_then(|it| it["uid"].as_str())
            && let Some(pods) = self.owned.get_mut(owner)
        {
            pods.remove(&name);
            if pods.is_empty() {
                self.owned.remove(owner);
            }
        }
        if change.op == Op::Deleted {
            self.pods.remove(&name);
            return;
        }
        if let Some(owner) = controller(object).and_then(|owner| owner["uid"].as_str()) {
            self.owned.entry(owner.to_owned()).or_default().insert(name.clone());
        }
        match self.pods.get_mut(&name).filter(|pod| uid(&pod.object) == uid(object)) {
            Some(pod) => pod.object = object.clone(),
            None => {
                let behaviour = self.behaviours.of(object);
                let runs = condition(object, "Ready").is_some_and(|ready| ready["status"] == "True");
                let stage = if runs {
                    // It ran before this model came to be.
                    Stage::Running { since: now.checked_sub(behaviour.warm_up()).unwrap_or(now) }
                } else {
                    Stage::Waiting { until: now + behaviour.start_after }
                };
                let ip = object["status"]["podIP"].as_str().unwrap_or_default().to_owned();
                let pod = Pod { object: object.clone(), behaviour, stage, restarts: 0, deleted: None, ip };
                self.pods.insert(name.clone(), pod);
            }
        }
        self.queue.insert(Key::Pod(name));
    }

    pub(super) fn sync_pod(&mut self, name: &Name, now: Instant) {
        let timestamp = self.timestamp();
        let Some(pod) = self.pods.get_mut(name) else { return };
        pod.behaviour = self.behaviours.of(&pod.object);
        if !pod.object["metadata"]["deletionTimestamp"].is_null() {
            let end = *pod.deleted.get_or_insert(now) + pod.drain();
            if now < end {
                self.wake(end, Key::Pod(name.clone()));
            } else {
                let options = DeleteOptions {
                    uid: Some(uid(&pod.object).to_owned()),
                    grace_period_seconds: Some(0),
                    ..DeleteOptions::default()
                };
                // It may have gone already.
                let _ = self.kubelet.delete("pods", &name.namespace, &name.name, &options);
            }
            return;
        }
        if pod.node().is_none() {
            if !is_gated(&pod.object) {
                self.place(name);
            }
            return;
        }
        if pod.ip.is_empty() {
            self.placed += 1;
            pod.ip = format!("10.{}.{}.{}", 64 + (self.placed >> 16), (self.placed >> 8) & 255, self.placed & 255);
        }
        let lost = pod.node().is_some_and(|node| self.lost_nodes.contains(node));
        let wake = if lost { None } else { pod.advance(now) };
        let status = if lost { pod.lost_status(timestamp) } else { pod.status(now, timestamp) };
        if status != pod.object["status"] {
            // It may have gone already.
            let _ = self.kubelet.edit_status("pods", &name.namespace, &name.name, |object| object["status"] = status);
        }
        if let Some(at) = wake {
            self.wake(at, Key::Pod(name.clone()));
        }
    }

    /// Binds a pod to the next node that is there.
    fn place(&mut self, name: &Name) {
        let up: Vec<&String> = self.settings.nodes.iter().filter(|node| !self.lost_nodes.contains(*node)).collect();
        if up.is_empty() {
            return;
        }
        let node = up[self.placed as usize % up.len()].clone();
        // It may have gone already.
        let _ = self.scheduler.bind(&name.namespace, &name.name, &node);
    }

    /// What a request meets at a pod; `None` when there is no such pod.
    pub(in crate::sandbox) fn serving(&self, name: &Name, now: Instant) -> Option<Serving> {
        let pod = self.pods.get(name)?;
        let object = &pod.object;
        let owner = controller(object).and_then(|owner| owner["name"].as_str()).unwrap_or_default();
        let lost = pod.node().is_none_or(|node| self.lost_nodes.contains(node));
        Some(Serving {
            owner: owner.to_owned(),
            hash: object["metadata"]["labels"][names::POD_TEMPLATE_HASH].as_str().unwrap_or_default().to_owned(),
            image: object["spec"]["containers"][0]["image"].as_str().unwrap_or_default().to_owned(),
            behaviour: (pod.answers(now) && !lost).then(|| pod.behaviour.clone()),
        })
    }

    fn expect_endpoints_of_pod(&mut self, namespace: &str, pods: [Option<&Value>; 2], now: Instant) {
        let services = self.services.iter().filter(|(name, service)| {
            let selector = LabelSelector::of(&service["spec"]["selector"]);
            name.namespace == namespace
                && selector.is_some_and(|selector| pods.into_iter().flatten().any(|pod| selector.matches(pod)))
        });
        let services: Vec<Name> = services.map(|(name, _)| name.clone()).collect();
        for service in services {
            self.expect_endpoints(service, now);
        }
    }
}

/// What of a pod the endpoints of a Service depend on.
fn endpoint_of(pod: Option<&Value>) -> Option<(&Value, &Value, bool, bool)> {
    let pod = pod?;
    let ready = condition(pod, "Ready").is_some_and(|ready| ready["status"] == "True");
    let deleted = !pod["metadata"]["deletionTimestamp"].is_null();
    Some((&pod["metadata"]["labels"], &pod["status"]["podIP"], ready, deleted))
}

impl Pod {
    /// Neither ended nor about to end.
    pub(super) fn is_active(&self) -> bool {
        !matches!(self.phase(), "Succeeded" | "Failed") && self.object["metadata"]["deletionTimestamp"].is_null()
    }

    pub(super) fn phase(&self) -> &str {
        self.object["status"]["phase"].as_str().unwrap_or_default()
    }

    pub(super) fn is_ready(&self) -> bool {
        condition(&self.object, "Ready").is_some_and(|ready| ready["status"] == "True")
    }

    pub(super) fn ready_since(&self) -> Option<Timestamp> {
        let ready = condition(&self.object, "Ready").filter(|ready| ready["status"] == "True")?;
        ready["lastTransitionTime"].as_str()?.parse().ok()
    }

    pub(super) fn node(&self) -> Option<&str> {
        self.object["spec"]["nodeName"].as_str().filter(|node| !node.is_empty())
    }

    fn drain(&self) -> Duration {
        let grace = self.object["metadata"]["deletionGracePeriodSeconds"].as_u64().unwrap_or(0);
        self.behaviour.drain.min(Duration::from_secs(grace))
    }

    fn is_of_job(&self) -> bool {
        controller(&self.object).is_some_and(|owner| owner["kind"] == "Job")
    }

    /// Brings the stage up to `now`. The answer is when it changes next by itself.
    fn advance(&mut self, now: Instant) -> Option<Instant> {
        let behaviour = &self.behaviour;
        loop {
            match self.stage {
                Stage::Waiting { .. } if behaviour.image_pull_error => return None,
                Stage::Waiting { until } if now < until => return Some(until),
                Stage::Waiting { until } => self.stage = Stage::Running { since: until },
                Stage::Running { since } if self.is_of_job() => {
                    let end = since + behaviour.run_for;
                    if now < end {
                        return Some(end);
                    }
                    self.stage = Stage::Ended;
                }
                Stage::Running { .. } if behaviour.never_ready => return None,
                Stage::Running { since } => {
                    let ready = since + behaviour.warm_up();
                    if now < ready {
                        return Some(ready);
                    }
                    let crash = ready + behaviour.crash_after?;
                    if now < crash {
                        return Some(crash);
                    }
                    let pause = backoff(self.restarts, Duration::from_secs(10), Duration::from_secs(300));
                    self.restarts += 1;
                    self.stage = Stage::Waiting { until: crash + pause };
                }
                Stage::Ended => return None,
            }
        }
    }

    /// Whether the container listens and answers.
    fn answers(&self, now: Instant) -> bool {
        match self.stage {
            Stage::Running { since } => !self.behaviour.never_ready && now >= since + self.behaviour.warm_up(),
            Stage::Waiting { .. } | Stage::Ended => false,
        }
    }

    /// The status that the kubelet reports.
    fn status(&self, now: Instant, timestamp: Timestamp) -> Value {
        let before = &self.object["status"];
        let failed = self.behaviour.exit_code != 0;
        let answers = self.answers(now) && !self.is_of_job();
        let phase = match self.stage {
            Stage::Waiting { .. } if self.restarts == 0 => "Pending",
            Stage::Waiting { .. } | Stage::Running { .. } => "Running",
            Stage::Ended if failed => "Failed",
            Stage::Ended => "Succeeded",
        };
        let gates = self.object["spec"]["readinessGates"].as_array();
        let gates_open = gates.into_iter().flatten().all(|gate| {
            let gate = gate["conditionType"].as_str().unwrap_or_default();
            condition(&self.object, gate).is_some_and(|condition| condition["status"] == "True")
        });
        let unready = if self.stage == Stage::Ended && !failed { "PodCompleted" } else { "ContainersNotReady" };
        let own = [
            ("PodScheduled", true, ""),
            ("Initialized", true, ""),
            ("ContainersReady", answers, unready),
            ("Ready", answers && gates_open, if answers { "ReadinessGatesNotReady" } else { unready }),
        ];
        let mut status = before.clone();
        status["phase"] = phase.into();
        status["conditions"] = self.conditions(&own, timestamp);
        status["hostIP"] = "10.0.0.1".into();
        if phase != "Pending" {
            status["podIP"] = self.ip.as_str().into();
            status["podIPs"] = json!([{"ip": self.ip}]);
        }
        if status["startTime"].is_null() {
            status["startTime"] = seconds(timestamp).into();
        }
        let containers = self.object["spec"]["containers"].as_array();
        let containers =
            containers.into_iter().flatten().map(|container| self.container(container, answers, timestamp));
        status["containerStatuses"] = containers.collect();
        status
    }

    /// The conditions, those that others have set included.
    fn conditions(&self, own: &[(&str, bool, &str)], timestamp: Timestamp) -> Value {
        let before = self.object["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let mut conditions: Vec<Value> = Vec::new();
        for (kind, holds, reason) in own {
            let status = if *holds { "True" } else { "False" };
            let same = before.iter().find(|condition| condition["type"] == *kind && condition["status"] == status);
            let since = same.map_or_else(|| seconds(timestamp).into(), |same| same["lastTransitionTime"].clone());
            let mut condition = json!({"type": kind, "status": status, "lastTransitionTime": since});
            if !holds {
                condition["reason"] = (*reason).into();
            }
            conditions.push(condition);
        }
        let of_others = |condition: &Value| own.iter().all(|(kind, _, _)| condition["type"] != *kind);
        conditions.extend(before.into_iter().filter(of_others));
        conditions.into()
    }

    fn container(&self, container: &Value, answers: bool, timestamp: Timestamp) -> Value {
        let name = &container["name"];
        let before = self.object["status"]["containerStatuses"].as_array();
        let before = before.and_then(|all| all.iter().find(|status| status["name"] == *name));
        let since = |state: &str, field: &str| -> Value {
            let kept = before.map(|status| status["state"][state][field].clone()).filter(|kept| !kept.is_null());
            kept.unwrap_or_else(|| seconds(timestamp).into())
        };
        let image = container["image"].as_str().unwrap_or_default();
        let state = match self.stage {
            Stage::Waiting { .. } if self.behaviour.image_pull_error => json!({"waiting": {
                "reason": "ImagePullBackOff",
                "message": format!("Back-off pulling image \"{image}\""),
            }}),
            Stage::Waiting { .. } if self.restarts > 0 => json!({"waiting": {
                "reason": "CrashLoopBackOff",
                "message": format!("back-off restarting failed container={}", name.as_str().unwrap_or_default()),
            }}),
            Stage::Waiting { .. } => json!({"waiting": {"reason": "ContainerCreating"}}),
            Stage::Running { .. } => json!({"running": {"startedAt": since("running", "startedAt")}}),
            Stage::Ended => {
                let code = self.behaviour.exit_code;
                let reason = if code == 0 { "Completed" } else { "Error" };
                json!({"terminated": {"exitCode": code, "reason": reason, "finishedAt": since("terminated", "finishedAt")}})
            }
        };
        json!({
            "name": name,
            "image": image,
            "imageID": "",
            "ready": answers,
            "started": matches!(self.stage, Stage::Running { .. }),
            "restartCount": self.restarts,
            "state": state,
        })
    }

    /// The status of a pod whose node no longer answers, as the node's controller writes it.
    fn lost_status(&self, timestamp: Timestamp) -> Value {
        let mut status = self.object["status"].clone();
        let before = |kind: &str| condition(&self.object, kind).is_some_and(|condition| condition["status"] == "True");
        status["conditions"] = self.conditions(
            &[
                ("PodScheduled", true, ""),
                ("Initialized", before("Initialized"), ""),
                ("ContainersReady", before("ContainersReady"), "ContainersNotReady"),
                ("Ready", false, "NodeStatusUnknown"),
            ],
            timestamp,
        );
        status
    }
}
