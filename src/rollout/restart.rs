//! `restartAt`: every pod that was made before that instant is evicted, as many at a time as the guard allows.

use jiff::Timestamp;

use crate::api::Rollout;
use crate::api::resource::POD;
use crate::api::rollout::RolloutStatus;
use crate::plan::{Action, Basis, FailedAction};

use super::draft::Draft;
use super::guard::{self, Admitted, Traffic};
use super::scale_down::Wishes;
use super::scene::Scene;
use super::world::{Pod, ReplicaSet};

/// Seconds after which an eviction that was refused is tried again. Disruption budgets refuse for as long as pods are
/// missing, which no watch of ours tells.
const RETRY_SECONDS: i64 = 30;
/// Seconds after which a ReplicaSet should have counted the pods that were listed. It usually wakes us itself.
const REPORT_SECONDS: i64 = 2;

/// The instant before which no pod may have been made, as long as a restart is asked for and not over.
fn asked(rollout: &Rollout) -> Option<Timestamp> {
    let at = rollout.spec.restart_at.as_ref()?;
    let done = rollout.status.as_ref().and_then(|status| status.restarted_at.as_ref());
    (done != Some(at)).then_some(at.0)
}

/// Whether a restart is under way, or will be: what `status.message` says.
pub(super) fn is_asked(scene: &Scene<'_>, restarted_at: Option<&crate::api::common::Time>) -> bool {
    scene.rollout.spec.restart_at.is_some() && scene.rollout.spec.restart_at.as_ref() != restarted_at
}

/// Whether pods are being replaced: the instant has come, and not all of them are newer yet.
pub(super) fn is_under_way(scene: &Scene<'_>, status: &RolloutStatus) -> bool {
    is_asked(scene, status.restarted_at.as_ref()) && is_due(scene.rollout, scene.world.now)
}

/// Whether pods have to be evicted now, so that a decision needs to see them.
pub(super) fn is_due(rollout: &Rollout, now: Timestamp) -> bool {
    asked(rollout).is_some_and(|at| now > at)
}

/// Gives a ReplicaSet one pod more where the limits of the strategy leave none that may be missing: a restart must not be
/// an outage.
pub(super) fn make_room(scene: &Scene<'_>, traffic: &Traffic<'_>, wishes: &mut Wishes) {
    let Some(at) = due(scene) else { return };
    // Those that only wait to go have served their time, an aborted version as well.
    let goes_on = !scene.observed.abort || scene.is_promoted(scene.observed);
    let lasting = scene.revisions.stable.into_iter().chain(scene.revisions.new.filter(|_| goes_on));
    let size = |set: &ReplicaSet| wishes.replicas.get(&set.name).copied().unwrap_or(set.replicas);
    let mut restarting = lasting.filter(|set| size(set) > 0 && candidates(scene, set, at).next().is_some());
    let Some(first) = restarting.next() else { return };
    if guard::is_stuck(scene.world, &scene.revisions, traffic, first, &wishes.replicas) {
        // Where the strategy keeps the size that there is, room has been made once there is a pod that need not go.
        let is_made = !wishes.replicas.contains_key(&first.name)
            && i32::try_from(candidates(scene, first, at).count()).is_ok_and(|old| old < first.replicas);
        if !is_made {
            let size = size(first);
            wishes.replicas.insert(first.name.clone(), size + 1);
        }
    }
}

/// Evicts what may be evicted now, and takes note of the end.
pub(super) fn follow(scene: &Scene<'_>, draft: &mut Draft<'_>, traffic: &Traffic<'_>, admitted: &Admitted) {
    if let Some(at) = asked(scene.rollout).filter(|at| scene.world.now <= *at) {
        draft.wake_after(at, 1);
    }
    let Some(at) = due(scene) else { return };
    if scene.world.pods.is_none() {
        draft.wait("the pods cannot be listed");
        return draft.wake_after_failure();
    }
    let sets = || scene.revisions.all();
    if sets().all(|set| candidates(scene, set, at).next().is_none()) {
        // Until the last evictions are counted the Rollout is not healthy again; nor while the pod that made room still has to
        // go, or another one is about to come in its place.
        let counted = |set: &ReplicaSet| guard::reports_its_pods(scene.world, set);
        let resized = |set: &ReplicaSet| admitted.replicas.get(&set.name).is_some_and(|size| *size != set.replicas);
        if !sets().all(counted) || sets().any(resized) {
            draft.wake_after(scene.world.now, REPORT_SECONDS);
            return;
        }
        // As long as proxies do not know them they get no weight, which is seen only while a restart goes on.
        if let Some(known) = sets().filter_map(|set| guard::unknown_to_proxies_until(scene.world, traffic, set)).max() {
            draft.wake_at(known);
            return;
        }
        draft.because("all pods are newer than restartAt");
        draft.status.restarted_at.clone_from(&scene.rollout.spec.restart_at);
        return;
    }
    draft.wake_after(scene.world.now, RETRY_SECONDS);
    let mut allowance = guard::evictions(scene.world, &scene.revisions, traffic, admitted);
    for set in sets() {
        let mut pods: Vec<&Pod> = candidates(scene, set, at).collect();
        pods.sort_by_key(|pod| (pod.created, &pod.name));
        for pod in pods {
            if !allowance.take(set, pod, scene.world.now) {
                continue;
            }
            let object = draft.object(POD, &pod.name);
            if let Some(failure) = draft.failure(&object, FailedAction::Evict) {
                draft.wait(format!("pod {} is not evicted: {}", pod.name, failure.error));
            }
            draft.because(format!("restart {}", pod.name));
            let pod = Basis { object, uid: pod.uid.clone(), resource_version: None };
            draft.act(Action::Evict { pod, what: "made before restartAt".to_owned() }, None);
        }
    }
}

fn due(scene: &Scene<'_>) -> Option<Timestamp> {
    asked(scene.rollout).filter(|_| is_due(scene.rollout, scene.world.now))
}

/// The pods of a ReplicaSet that are to be replaced.
fn candidates<'a>(scene: &Scene<'a>, set: &'a ReplicaSet, at: Timestamp) -> impl Iterator<Item = &'a Pod> {
    let pods = scene.world.pods.iter().flatten();
    pods.filter(move |pod| pod.controller == set.uid && !pod.over && pod.created < at)
}
