//! The frame of a decision: what comes first, what stops what, and what is always done.

use crate::api::rollout::RolloutStatus;
use crate::plan::Plan;

use super::World;

/// What to do about a Rollout now, and its new status.
pub fn decide(world: &World) -> Plan<RolloutStatus> {
    Plan {
        actions: Vec::new(),
        status: world.rollout.status.clone().unwrap_or_default(),
        events: Vec::new(),
        wake: None,
        reason: "nothing to do".to_owned(),
    }
}
