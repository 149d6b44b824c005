//! S1: traffic never goes to a ReplicaSet with fewer ready pods than its weight needs, nor to none.

use std::time::Duration;

use super::super::fleet::{Kind, REPLICAS, UNAVAILABLE};
use super::{Checker, Moment};

/// For canaries, at every moment: a weight has its share of the pods that may not be missing.
pub struct Pods;

/// For blue-green: the active Service is switched to a complete version, or to one no smaller than the one before.
pub struct Switch;

/// No Service that has a weight is without endpoints.
#[derive(Default)]
pub struct Endpoints {
    /// Since when one is.
    since: Option<Duration>,
}

/// kube-controller-manager follows a Service some time after it has changed, and gateways later still.
const FOLLOWED: Duration = Duration::from_secs(2);

impl Checker for Pods {
    fn promise(&self) -> &'static str {
        "S1"
    }

    fn see(&mut self, moment: &Moment<'_>) -> Option<String> {
        if !moment.established || moment.kind == Kind::BlueGreen {
            return None;
        }
        let [_, weights] = moment.weights();
        weights.iter().filter(|(_, weight)| **weight > 0).find_map(|(hash, weight)| {
            let needed = (weight * (REPLICAS - UNAVAILABLE) + 99) / 100;
            let ready = moment.after.ready(hash);
            (ready < needed).then(|| format!("{weight}% go to {hash}, which has {ready} ready pods and needs {needed}"))
        })
    }
}

impl Checker for Switch {
    fn promise(&self) -> &'static str {
        "S1"
    }

    fn see(&mut self, moment: &Moment<'_>) -> Option<String> {
        if !moment.established || moment.kind != Kind::BlueGreen {
            return None;
        }
        let [before, after] = moment.weights().map(|weights| weights.into_keys().next());
        let (before, after) = (before?, after?);
        let needed = REPLICAS.min(moment.after.ready(&before));
        let ready = moment.after.ready(&after);
        (before != after && ready < needed)
            .then(|| format!("switched from {before} to {after}, which has {ready} ready pods and needs {needed}"))
    }
}

impl Checker for Endpoints {
    fn promise(&self) -> &'static str {
        "S1"
    }

    fn see(&mut self, moment: &Moment<'_>) -> Option<String> {
        let lasted = self.since.map(|since| moment.calm_since(since));
        let weights = moment.after.by_service(moment.rollout);
        let without = |(service, weight): &(&String, &i64)| **weight > 0 && moment.after.endpoints(service) == 0;
        let without = weights.iter().find(without).map(|(service, _)| service.clone());
        self.since = without.filter(|_| moment.established).map(|_| self.since.unwrap_or(moment.at));
        let lasted = lasted.filter(|lasted| *lasted > FOLLOWED)?;
        Some(format!("a Service with a weight had no endpoint for {:.1} s", lasted.as_secs_f64()))
    }
}
