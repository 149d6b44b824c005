//! What the Deployment that a Rollout takes over from must keep.

use jiff::Timestamp;

use crate::plan::Basis;
use crate::rollout::revision::{self, Revisions};
use crate::rollout::world::World;

use super::{Traffic, kept, surely_kept};

/// The pods that a Deployment must keep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keeps {
    pub pods: i32,
    /// When it may keep fewer even if nothing else happens.
    pub until: Option<Timestamp>,
    /// What must still be as it was observed for that to hold.
    pub confirm: Vec<Basis>,
}

/// How many pods a Deployment must keep whose work this Rollout takes over, having `replicas` now.
///
/// Its pods usually carry the labels that the Rollout's Services select, so they are capacity behind traffic, and only
/// available pods of the Rollout make up for them: `spec.replicas` in all. A Deployment larger than that stays whole until
/// the Rollout is. When the last of its pods are to go, what Services and routes sent them before must have settled. A
/// Rollout that wants no pods makes up for none.
pub fn workload_keeps(world: &World, revisions: &Revisions<'_>, traffic: &Traffic<'_>, replicas: i32) -> Keeps {
    let wanted = world.rollout.spec.desired_replicas();
    let available: i32 = revisions.all().map(surely_kept).sum();
    let settles = traffic.services_settle.values().copied().chain(traffic.routes_settle).max();
    let (pods, until) = if wanted <= 0 {
        (replicas, None)
    } else if available >= wanted {
        if settles.is_some() { (replicas, settles) } else { (0, None) }
    } else if replicas > wanted {
        (replicas, None)
    } else {
        (wanted - available, None)
    };
    let counted = revisions.all().filter(|one| kept(one) > 0);
    let mut confirm = traffic.bases(world);
    confirm.extend(counted.map(|one| revision::basis(world, one, true)));
    Keeps { pods, until, confirm }
}
