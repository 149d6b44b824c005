//! The canary strategy: what it would like the cluster to look like now, and what of it is done.

use std::collections::{BTreeMap, BTreeSet};

use crate::api::canary::CanaryStrategy;
use crate::api::rollout::RolloutStatus;

use super::conditions::Facts;
use super::draft::Draft;
use super::guard::Proposal;
use super::pass::{Reach, admit, claim, look_after_pods, promote, scale};
use super::replicas::{self, Basic, Counts, Limits};
use super::scale_down::{self, Wishes};
use super::scene::Scene;
use super::steps::{self, Ready};
use super::traffic::{self, Routing};
use super::world::ReplicaSet;
use super::{analysis_runs, experiments, former_routes, managed_routes, pauses, restart, revision, services};

/// Sizes that the strategy wants, before the guard.
struct Sizes {
    wishes: Wishes,
    /// Size of the new ReplicaSet if it is created now.
    new: i32,
    /// Whether the observed sizes are those that the step asks for, with enough pods available.
    reached: bool,
}

/// One pass: ReplicaSets, Services, routes, analysis, sizes, steps, promotion.
pub(super) fn pass(
    scene: &Scene<'_>,
    draft: &mut Draft<'_>,
    routing: &Routing<'_>,
    reach: Reach,
    aborting: bool,
    facts: &mut Facts,
) {
    let halted = halted(scene, &draft.status);
    let mut sizes = sizes(scene, draft);
    restart::make_room(scene, &routing.traffic, &mut sizes.wishes);
    let creates = scene.revisions.new.is_none() && reach == Reach::Forward && !halted;
    let created = if creates { sizes.new } else { 0 };
    claim(scene, draft, reach, created, facts);

    let enough = scene.revisions.new.is_some_and(|new| Counts::from(new).kept() >= sizes.new);
    let weight = traffic::wanted_weight(scene, &draft.status, sizes.reached, enough);
    let managed = managed_routes::wanted(scene, &draft.status, &routing.traffic);
    let mut proposal = propose(scene, draft, routing, weight, reach, (!halted).then_some(&sizes.wishes));
    proposal.managed = managed.iter().map(|route| route.name().to_owned()).collect();
    proposal.created = created;
    let admitted = admit(scene, draft, routing, proposal);
    former_routes::follow(scene, draft, routing, &admitted, weight > 0 || !managed.is_empty());
    services::switch(scene, draft, &routing.traffic, &admitted.services);
    let routed = traffic::route(scene, draft, routing, &admitted, &managed);

    let judged = draft.status.abort || draft.status.promote_full || reach == Reach::Back;
    let (experiment, analysis) = if judged {
        experiments::end_all(scene, draft);
        analysis_runs::end_all(scene, draft, aborting);
        (false, false)
    } else {
        (experiments::follow(scene, draft), analysis_runs::follow(scene, draft))
    };

    if !halted {
        scale(scene, draft, &admitted, &sizes.wishes);
    }
    if reach == Reach::Forward {
        look_after_pods(scene, draft, routing, &admitted);
    }
    for deletion in admitted.deletions(scene.world) {
        draft.because(deletion.to_string());
        draft.act(deletion, None);
    }
    if reach == Reach::Back || draft.status.abort {
        return;
    }
    let weight_made =
        services::canary_is_selected(scene) && routing.makes(replicas::current_set_weight(scene.canary, &draft.status));
    let ready = Ready {
        pods: sizes.reached,
        weight: weight_made,
        routes: routed,
        analysis,
        experiment,
        judged: !draft.unjudged,
    };
    if let Some(reason) = promotion(scene, &draft.status, ready) {
        // A version that nobody has looked at is not everybody's.
        if !draft.awaits_analysis() {
            promote(scene, draft, reason);
        }
    } else if !halted && !draft.status.promote_full {
        steps::advance(scene, draft, ready);
    }
}

/// Whether sizes and steps stay as they are. A way back to stable is never halted.
fn halted(scene: &Scene<'_>, status: &RolloutStatus) -> bool {
    if scene.rollout.spec.desired_replicas() < 0 {
        // Refused, and no size to compute with. Traffic moves all the same.
        return true;
    }
    let going_back = status.abort
        || scene.revisions.is_fully_promoted()
            && scene.revisions.others.iter().any(|other| other.replicas > 0 && scale_down::deadline(other).is_none());
    let inconclusive = pauses::find(status, pauses::INCONCLUSIVE).is_some();
    (scene.rollout.spec.paused || inconclusive) && !going_back
}

/// Whether something of an update is left although the new version is the stable one: its pods, or traffic to them.
pub(super) fn is_left(scene: &Scene<'_>, routing: &Routing<'_>) -> bool {
    let weighs = |observed: &Result<crate::traffic::ObservedSplit, _>| {
        observed.as_ref().is_ok_and(|observed| {
            observed.split.canary > 0 || !observed.split.additional.is_empty() || !observed.managed.is_empty()
        })
    };
    scene.starts_over()
        || scene.revisions.others.iter().any(|other| other.replicas > 0)
        || routing.traffic.routers.iter().any(weighs)
        || !routing.traffic.left.is_empty()
}

fn sizes(scene: &Scene<'_>, draft: &mut Draft<'_>) -> Sizes {
    // Limits that cannot be read are refused, but an abort goes on: with the defaults.
    let limits = replicas::limits(scene.canary, scene.replicas)
        .or_else(|_| replicas::limits(&CanaryStrategy::default(), scene.replicas))
        .unwrap_or(Limits { surge: 0, unavailable: 1 });
    if scene.routes_traffic() { routed_sizes(scene, draft, limits) } else { basic_sizes(scene, &draft.status, limits) }
}

fn basic_sizes(scene: &Scene<'_>, status: &RolloutStatus, limits: Limits) -> Sizes {
    let stable = scene.separate_stable();
    let others: Vec<Counts> = scene.revisions.others.iter().map(|other| Counts::from(*other)).collect();
    let total = replicas::max_weight(scene.canary);
    let weight = match replicas::canary_scale(scene.canary, status) {
        replicas::CanaryScale::Weight(weight) => weight,
        // Has no meaning without traffic routing.
        replicas::CanaryScale::Replicas(_) => replicas::current_set_weight(scene.canary, status),
    };
    let wanted = replicas::basic(&Basic {
        replicas: scene.replicas,
        weight,
        total,
        limits,
        // One that is created in this pass starts from nothing.
        new: Some(scene.revisions.new.map_or(Counts::default(), Counts::from)),
        stable: stable.map(Counts::from),
        others: &others,
    });
    let mut wishes = Wishes::default();
    for (set, size) in [(stable, wanted.stable), (scene.revisions.new, wanted.new)] {
        if let Some(set) = set {
            wishes.replicas.insert(set.name.clone(), size);
            scale_down::keep(set, &mut wishes);
        }
    }
    for (other, size) in scene.revisions.others.iter().zip(&wanted.others) {
        wishes.replicas.insert(other.name.clone(), *size);
    }
    let no_others = scene.revisions.others.iter().all(|other| other.status.available == 0);
    let reached = reached(scene, wanted.new, stable, wanted.stable) && no_others;
    Sizes { wishes, new: wanted.new, reached }
}

fn routed_sizes(scene: &Scene<'_>, draft: &mut Draft<'_>, limits: Limits) -> Sizes {
    let stable = scene.separate_stable();
    let mut wishes = Wishes::default();
    let (size, stable_size) = if scene.canary.dynamic_stable_scale {
        let (size, stable_size) = replicas::dynamic(scene.canary, &draft.status, scene.replicas);
        // What a superseded canary still gets is to come back to stable first.
        (size, if services::canary_is_selected(scene) { stable_size } else { scene.replicas })
    } else {
        let scale = replicas::canary_scale(scene.canary, &draft.status);
        let total = replicas::max_weight(scene.canary);
        let min_pods = scene.canary.min_pods_per_replica_set;
        (replicas::routed_canary(scene.replicas, scale, total, min_pods), scene.replicas)
    };
    if let Some(stable) = stable {
        wishes.replicas.insert(stable.name.clone(), stable_size);
        scale_down::keep(stable, &mut wishes);
    }
    if let Some(new) = scene.revisions.new {
        let aborted = draft.status.abort && stable.is_some();
        if !(aborted && scale_down::aborted(scene, draft, new, &mut wishes)) {
            wishes.replicas.insert(new.name.clone(), size);
            scale_down::keep(new, &mut wishes);
        }
    }
    scale_down::others(scene, draft, limits.unavailable, &mut wishes);
    // Stable follows the weight there, so no weight waits for it.
    let stable = stable.filter(|_| !scene.canary.dynamic_stable_scale);
    Sizes { wishes, new: size, reached: reached(scene, size, stable, stable_size) }
}

/// Enough new pods are available and all of stable exists.
fn reached(scene: &Scene<'_>, new: i32, stable: Option<&ReplicaSet>, stable_size: i32) -> bool {
    let threshold = scene.canary.replica_progress_threshold.as_ref();
    let new_reached =
        scene.revisions.new.is_some_and(|set| replicas::enough_available(new, Counts::from(set), threshold));
    let stable_reached =
        stable.is_none_or(|stable| stable.replicas == stable_size && stable.status.replicas == stable_size);
    new_reached && stable_reached
}

/// What the strategy wants now; without sizes while it is halted.
fn propose(
    scene: &Scene<'_>,
    draft: &mut Draft<'_>,
    routing: &Routing<'_>,
    weight: i32,
    reach: Reach,
    wishes: Option<&Wishes>,
) -> Proposal {
    let delete = match reach {
        Reach::Forward => revision::beyond_history(draft, &scene.revisions),
        Reach::Back => BTreeSet::new(),
    };
    Proposal {
        replicas: wishes.map_or(BTreeMap::new(), |wishes| wishes.replicas.clone()),
        created: 0,
        delete,
        split: routing.split(weight, experiments::weights(scene, &draft.status)),
        services: services::wanted(scene, &draft.status),
        managed: BTreeSet::new(),
    }
}

/// Why the new version becomes the stable one now, if it does.
fn promotion(scene: &Scene<'_>, status: &RolloutStatus, ready: Ready) -> Option<String> {
    if scene.is_promoted(status) {
        return None;
    }
    if status.stable_rs.is_empty() {
        return Some("Initial deploy".to_owned());
    }
    let new = scene.revisions.new?;
    let threshold = scene.canary.replica_progress_threshold.as_ref();
    let counts = Counts::from(new);
    let enough = counts.kept() >= scene.replicas || replicas::enough_available(scene.replicas, counts, threshold);
    if !enough || !new.is_reported() {
        return None;
    }
    if status.promote_full {
        return Some("Full promotion requested".to_owned());
    }
    if scene.is_rollback_within_window() {
        return Some("Rollback within window".to_owned());
    }
    let count = scene.canary.steps.len();
    // What was written is read back before the old pods lose their protection.
    let last_step_made = count == 0 || ready.weight;
    (scene.at_end(status) && last_step_made && ready.judged).then(|| format!("Completed all {count} canary steps"))
}
