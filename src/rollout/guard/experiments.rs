//! The weights of an experiment's Services: only as long as there are pods behind them.
//!
//! An experiment's ReplicaSets are not the Rollout's: it never scales them, and the Services of its own roles do not reach
//! them. How many pods carry a weight is the user's choice, as with a `setCanaryScale`; all of them must be available.

use std::collections::BTreeMap;

use super::{Admitted, Guard, Hold};
use crate::rollout::experiments::running;
use crate::traffic::Split;

impl Guard<'_> {
    /// The wanted split with those weights of experiments that can be carried now; stable has the rest.
    pub(super) fn with_carried(&self, wanted: &Split, admitted: &mut Admitted) -> Split {
        let aborted = self.aborted && !self.revisions.is_fully_promoted();
        let mut room = wanted.total - wanted.canary;
        let mut additional = BTreeMap::new();
        for (service, weight) in &wanted.additional {
            let carried =
                || self.world.experiments.iter().flat_map(|it| running(it)).any(|it| it.service_name == *service);
            let why = if aborted {
                "the update was aborted".to_owned()
            } else if !(0..=room).contains(weight) {
                format!("only {room} of {} of the traffic is left", wanted.total)
            } else if !carried() {
                format!("no experiment has all pods of Service {service} available")
            } else {
                room -= weight;
                additional.insert(service.clone(), *weight);
                continue;
            };
            let hold = Hold { what: format!("Service {service} gets no weight"), why, until: None };
            if !admitted.holds.contains(&hold) {
                admitted.holds.push(hold);
            }
        }
        let stable = wanted.total - wanted.canary - additional.values().sum::<i32>();
        Split { stable, additional, ..wanted.clone() }
    }
}
