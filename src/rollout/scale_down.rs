//! When pods that no longer serve are let go.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::api::names::SCALE_DOWN_DEADLINE;
use crate::api::rollout::RolloutStatus;

use super::draft::{Draft, after};
use super::scene::Scene;
use super::world::ReplicaSet;
use super::{replicas, services};

/// Delay before old pods go when the user has not said.
pub(super) const DEFAULT_DELAY_SECONDS: i32 = 30;

/// The instant after which a ReplicaSet goes to zero, if it has one that can be read.
pub(super) fn deadline(replica_set: &ReplicaSet) -> Option<Timestamp> {
    replica_set.annotations.get(SCALE_DOWN_DEADLINE)?.parse().ok()
}

/// Sizes and annotations of ReplicaSets.
#[derive(Debug, Default)]
pub(super) struct Wishes {
    pub replicas: BTreeMap<String, i32>,
    pub annotations: BTreeMap<String, BTreeMap<String, Option<String>>>,
}

impl Wishes {
    pub(super) fn until(&mut self, replica_set: &ReplicaSet, at: Timestamp) {
        // Whole seconds, as Argo Rollouts writes and reads them.
        let at = Timestamp::from_second(at.as_second()).unwrap_or(at).to_string();
        self.annotate(replica_set, Some(at));
    }

    fn annotate(&mut self, replica_set: &ReplicaSet, deadline: Option<String>) {
        let annotations = self.annotations.entry(replica_set.name.clone()).or_default();
        annotations.insert(SCALE_DOWN_DEADLINE.to_owned(), deadline);
    }
}

/// Takes the deadline off a ReplicaSet that is needed again.
pub(super) fn keep(replica_set: &ReplicaSet, wishes: &mut Wishes) {
    if replica_set.annotations.contains_key(SCALE_DOWN_DEADLINE) {
        wishes.annotate(replica_set, None);
    }
}

/// How the pods of an aborted update go, with a router or behind a preview Service: they stay until stable is complete,
/// then for the delay.
///
/// Returns whether there is a delay; without one the strategy says how many stay.
pub(super) fn aborted(scene: &Scene<'_>, draft: &mut Draft<'_>, trial: &ReplicaSet, wishes: &mut Wishes) -> bool {
    let seconds = match scene.blue_green {
        Some(blue_green) => blue_green.abort_scale_down_delay_seconds,
        None => scene.canary.abort_scale_down_delay_seconds,
    };
    // Where stable is as large as its traffic needs, the canary is too, unless the user wants to look at it.
    let default = if scene.canary.dynamic_stable_scale { 0 } else { DEFAULT_DELAY_SECONDS };
    let seconds = seconds.unwrap_or(default);
    let Some(stable) = scene.revisions.stable else { return false };
    if seconds == 0 {
        return false;
    }
    let weightless = !scene.canary.dynamic_stable_scale || replicas::recorded_weight(&draft.status) == 0;
    match deadline(trial) {
        Some(at) if scene.world.now >= at => {
            wishes.replicas.insert(trial.name.clone(), 0);
        }
        Some(at) => draft.wake_at(at),
        None if trial.replicas > 0 && stable.status.available >= scene.replicas && weightless => {
            let at = draft.wake_after(scene.world.now, seconds.into());
            wishes.until(trial, at);
        }
        None => {}
    }
    true
}

/// How the ReplicaSets go that are neither new nor stable, with a router: after a delay once the update is complete, at
/// once while another one is on its way.
pub(super) fn others(scene: &Scene<'_>, draft: &mut Draft<'_>, unavailable: i32, wishes: &mut Wishes) {
    let promoted = scene.is_promoted(&draft.status);
    let delay = i64::from(scene.canary.scale_down_delay_seconds.unwrap_or(DEFAULT_DELAY_SECONDS));
    let limit = scene.canary.scale_down_delay_revision_limit.map_or(usize::MAX, |limit| limit.max(0) as usize);
    let available: i32 = scene.revisions.all().map(|set| set.status.available).sum();
    let mut budget = available - (scene.replicas - unavailable);
    let mut delayed = 0;
    // With dynamicStableScale no version has pods beyond its traffic.
    let waits = !scene.canary.dynamic_stable_scale;
    for other in scene.revisions.others.iter().filter(|other| other.replicas > 0) {
        if is_referenced(scene, &draft.status, other) {
            continue;
        }
        let has_deadline = other.annotations.contains_key(SCALE_DOWN_DEADLINE);
        if waits && (has_deadline || promoted && delay > 0) && delayed < limit {
            delayed += 1;
            match deadline(other) {
                Some(at) if scene.world.now >= at => {}
                Some(at) => {
                    draft.wake_at(at);
                    continue;
                }
                None => {
                    let at = after(scene.world.now, delay);
                    draft.wake_at(at);
                    wishes.until(other, at);
                    continue;
                }
            }
        }
        // Pods that are not available serve nobody: they may always go.
        let unhealthy = (other.replicas - other.status.available).max(0);
        let cut = (unhealthy + budget.max(0)).min(other.replicas);
        budget -= cut - unhealthy.min(cut);
        if cut > 0 {
            wishes.replicas.insert(other.name.clone(), other.replicas - cut);
        }
    }
}

/// Whether something still names the ReplicaSet.
pub(super) fn is_referenced(scene: &Scene<'_>, status: &RolloutStatus, replica_set: &ReplicaSet) -> bool {
    let hash = replica_set.hash();
    // Between updates with pingPong the Service of the next canary goes on selecting the version before, and leads nobody
    // there.
    let idle = scene.canary.ping_pong.is_some() && scene.is_promoted(status);
    let selects =
        |name: &str| scene.world.services.get(name).is_some_and(|service| services::selected(&service.object) == hash);
    let mut names = scene.services().filter(|(_, name)| !idle || *name != scene.canary_service);
    hash == status.stable_rs || hash == status.current_pod_hash || names.any(|(_, name)| selects(name))
}
