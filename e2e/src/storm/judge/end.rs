//! L1: every Rollout ends as its user wants it.

use super::super::fleet::{self, Kind, REPLICAS};
use super::super::history::State;
use super::super::users::End;

/// What is not yet as it should be, if anything.
pub fn missing(rollout: &str, state: &State, end: End) -> Option<String> {
    let Some(is) = &state.rollout else { return Some("the Rollout is gone".to_owned()) };
    if is.observed != is.generation {
        return Some(format!("generation {} is not observed", is.generation));
    }
    let phase = if end == End::Either && is.aborted && is.stable != is.current { "Degraded" } else { "Healthy" };
    if is.phase != phase {
        return Some(format!("it is {} and not {phase}: {}", is.phase, is.message));
    }
    if phase == "Healthy" && is.stable != is.current {
        return Some(format!("stable is {} and not {}", is.stable, is.current));
    }
    let wanted = |hash: &str| if hash == is.stable { REPLICAS } else { 0 };
    if let Some((name, set)) = state.replica_sets.iter().find(|(_, set)| set.replicas != wanted(&set.hash)) {
        return Some(format!("{name} wants {} pods", set.replicas));
    }
    if state.pods.len() != usize::try_from(REPLICAS).unwrap_or(0) || state.ready(&is.stable) != REPLICAS {
        return Some(format!("{} of {} pods are ready and stable", state.ready(&is.stable), state.pods.len()));
    }
    let weights = state.weights(rollout);
    let elsewhere = weights.iter().find(|(hash, weight)| **hash != is.stable && **weight > 0);
    if let Some((hash, weight)) = elsewhere {
        return Some(format!("{weight}% go to {hash}"));
    }
    let routed = Kind::of(rollout) != Some(Kind::Basic);
    if routed && weights.get(&is.stable) != Some(&100) {
        return Some(format!("the traffic goes to {weights:?}"));
    }
    if routed && state.endpoints(&fleet::stable(rollout)) != usize::try_from(REPLICAS).unwrap_or(0) {
        return Some(format!("Service {} has no endpoint for some pods", fleet::stable(rollout)));
    }
    None
}
