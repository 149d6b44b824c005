//! The disruption controller: how many pods of a PodDisruptionBudget may be evicted.

use serde_json::{Value, json};

use super::{Name, Workloads};
use crate::api::int_or_percent::{IntOrString, Round};
use crate::sandbox::LabelSelector;

pub(super) const RESOURCE: &str = "poddisruptionbudgets.policy";

impl Workloads {
    pub(super) fn sync_budget(&self, name: &Name) {
        let Ok(budget) = self.controllers.get(RESOURCE, &name.namespace, &name.name) else { return };
        let Some(selector) = LabelSelector::of(&budget["spec"]["selector"]) else { return };
        let pods = self.pods.iter().filter(|(pod, _)| pod.namespace == name.namespace);
        let pods: Vec<_> = pods.map(|(_, pod)| pod).filter(|pod| selector.matches(&pod.object)).collect();
        let healthy = pods.iter().filter(|pod| pod.is_active() && pod.is_ready()).count();
        let healthy = i32::try_from(healthy).unwrap_or(i32::MAX);
        // As many as their controllers want.
        let sets = self.controllers.list("replicasets.apps", &name.namespace);
        let owning =
            sets.iter().filter(|set| selector.matches(&json!({"metadata": set["spec"]["template"]["metadata"]})));
        let expected: i64 = owning.filter_map(|set| set["spec"]["replicas"].as_i64()).sum();
        let expected = i32::try_from(expected).unwrap_or(i32::MAX);
        let of = |field: &str| {
            let value: IntOrString = serde_json::from_value(budget["spec"].get(field)?.clone()).ok()?;
            value.scaled_leniently(expected, Round::Up).ok()
        };
        let desired = match (of("minAvailable"), of("maxUnavailable")) {
            (Some(least), _) => least,
            (None, Some(missing)) => (expected - missing).max(0),
            (None, None) => 0,
        };
        let status = json!({
            "currentHealthy": healthy,
            "desiredHealthy": desired,
            "disruptionsAllowed": if expected > 0 { (healthy - desired).max(0) } else { 0 },
            "expectedPods": expected,
            "observedGeneration": budget["metadata"]["generation"],
        });
        if status != budget["status"] {
            // It may have gone already.
            let _ =
                self.controllers.edit_status(RESOURCE, &name.namespace, &name.name, |object| object["status"] = status);
        }
    }

    /// The budgets of a namespace that one of these versions of a pod belongs to.
    pub(super) fn budgets_of(&self, namespace: &str, pods: [Option<&Value>; 2]) -> Vec<Name> {
        let budgets = self.budgets.iter().filter(|(name, budget)| {
            let selector = LabelSelector::of(&budget["spec"]["selector"]);
            name.namespace == namespace
                && selector.is_some_and(|selector| pods.into_iter().flatten().any(|pod| selector.matches(pod)))
        });
        budgets.map(|(name, _)| name.clone()).collect()
    }
}
