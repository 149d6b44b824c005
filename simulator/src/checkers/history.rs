//! Histories made by hand, to see that a checker fires.

use std::sync::Arc;

use serde_json::{Value, json};
use tidegate::sandbox::{Change, Op};

use super::{Checker, Violation};
use crate::observe::{Asked, HASH, HTTP_ROUTES, PODS, REPLICA_SETS, ROLLOUTS, SERVICES, Seen, View};
use crate::script::{Fault, Millis, What, When};

/// A history as it goes on, and what a checker says of it.
pub struct History<C> {
    checker: C,
    view: View,
    revision: u64,
    pub found: Vec<Violation>,
}

impl<C: Checker + Default> History<C> {
    /// A canary behind a route, with four pods of version `a`, all of the traffic, and an idle `b`.
    pub fn released() -> Self {
        let mut history = Self { checker: C::default(), view: View::default(), revision: 0, found: Vec::new() };
        let steps = json!([{"setWeight": 25}, {"pause": {}}, {"setWeight": 50}, {"pause": {}}]);
        history.rollout(json!({
            "spec": {"replicas": 4, "strategy": {"canary": {"trafficRouting": {}, "steps": steps}}},
            "status": {"stableRS": "a", "currentPodHash": "b", "currentStepIndex": 0, "phase": "Healthy"},
        }));
        history.rollout(json!({"status": {"phase": "Progressing"}}));
        history.service("web-stable", "a").service("web-canary", "b").set("a", 4, 4).set("b", 0, 0).route(100, 0);
        // Gateways have taken it up long ago.
        history.after(60_000);
        history
    }

    /// A leader stands still from now on.
    pub fn stands_still(&mut self, milliseconds: u64) -> &mut Self {
        self.see(Seen::Struck(Fault::new(When::Write(1), What::Pause(Millis(milliseconds)))))
    }

    pub fn after(&mut self, milliseconds: u64) -> &mut Self {
        self.view.now += milliseconds;
        self
    }

    pub fn see(&mut self, seen: Seen) -> &mut Self {
        self.view.apply(&seen);
        self.checker.observe(&seen, &self.view, &mut self.found);
        self
    }

    /// Merges into the Rollout.
    pub fn rollout(&mut self, patch: Value) -> &mut Self {
        let mut rollout = self.view.rollout().clone();
        merge(&mut rollout, patch);
        self.change(ROLLOUTS, "web", rollout, false)
    }

    /// A ReplicaSet, and as many ready pods as it reports.
    pub fn set(&mut self, hash: &str, wanted: i64, available: i64) -> &mut Self {
        self.pods(hash, available).reports(hash, wanted, available)
    }

    pub fn reports(&mut self, hash: &str, wanted: i64, available: i64) -> &mut Self {
        let name = format!("web-{hash}");
        let object = json!({
            "metadata": {"labels": {HASH: hash}, "ownerReferences": [{"kind": "Rollout", "controller": true}]},
            "spec": {"replicas": wanted, "template": {"metadata": {"labels": {"app": "web", HASH: hash}}}},
            "status": {"availableReplicas": available},
        });
        self.change(REPLICA_SETS, &name, object, false)
    }

    /// A ReplicaSet with four pods that was made at this time.
    pub fn made(&mut self, hash: &str, at: &str) -> &mut Self {
        self.set(hash, 4, 4);
        let name = format!("web-{hash}");
        let mut object = self.view.object(REPLICA_SETS, &name).cloned().unwrap_or_default();
        object["metadata"]["creationTimestamp"] = at.into();
        self.change(REPLICA_SETS, &name, object, false)
    }

    /// The ready pods of a version.
    pub fn pods(&mut self, hash: &str, ready: i64) -> &mut Self {
        for index in 0..8 {
            let pod = json!({
                "metadata": {"ownerReferences": [{"name": format!("web-{hash}"), "controller": true}]},
                "status": {"conditions": [{"type": "Ready", "status": if index < ready { "True" } else { "False" }}]},
            });
            self.change(PODS, &format!("web-{hash}-{index}"), pod, false);
        }
        self
    }

    pub fn service(&mut self, name: &str, hash: &str) -> &mut Self {
        self.change(SERVICES, name, json!({"spec": {"selector": {"app": "web", HASH: hash}}}), false)
    }

    /// The weights of the route, which the data plane follows at once.
    pub fn route(&mut self, stable: u32, canary: u32) -> &mut Self {
        let backends = json!([{"name": "web-stable", "weight": stable}, {"name": "web-canary", "weight": canary}]);
        self.change(HTTP_ROUTES, "web", json!({"spec": {"rules": [{"backendRefs": backends}]}}), false);
        let plane = [("web-stable", stable), ("web-canary", canary)].into_iter().filter(|(_, weight)| *weight > 0);
        self.see(Seen::Plane(plane.map(|(name, weight)| (name.to_owned(), f64::from(weight) / 100.0)).collect()))
    }

    pub fn asks(&mut self, verb: &'static str, resource: &str, name: &str, body: Value) -> &mut Self {
        self.see(Seen::Asked(Asked {
            agent: "controller-1".into(),
            verb,
            resource: resource.into(),
            subresource: String::new(),
            name: name.into(),
            body,
            code: None,
        }))
    }

    pub fn change(&mut self, resource: &str, name: &str, mut object: Value, by_user: bool) -> &mut Self {
        self.revision += 1;
        object["metadata"]["name"] = name.into();
        object["metadata"]["resourceVersion"] = self.revision.to_string().into();
        let previous = self.view.object(resource, name).cloned().map(Arc::new);
        let op = if previous.is_some() { Op::Modified } else { Op::Added };
        let change =
            Change { revision: self.revision, op, resource: resource.into(), object: Arc::new(object), previous };
        self.see(Seen::Change { change, by_user })
    }

    /// What was said, and starts anew.
    pub fn promises(&mut self) -> Vec<&'static str> {
        std::mem::take(&mut self.found).into_iter().map(|violation| violation.promise).collect()
    }
}

fn merge(object: &mut Value, patch: Value) {
    match patch {
        Value::Object(fields) => {
            if !object.is_object() {
                *object = json!({});
            }
            for (key, value) in fields {
                merge(&mut object[&key], value);
            }
        }
        value => *object = value,
    }
}
