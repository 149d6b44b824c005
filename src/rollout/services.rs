//! The Services of a Rollout, and the subsets of its DestinationRule: which version each should select.

use std::collections::BTreeMap;

use serde_json::json;

use crate::api::canary::{CanaryStrategy, PingPong};
use crate::api::names::{MANAGED_BY, POD_TEMPLATE_HASH};
use crate::api::resource::SERVICE;
use crate::api::rollout::RolloutStatus;
use crate::plan::{Action, Basis};
use crate::traffic::istio::destination_rule;

use super::draft::Draft;
use super::guard::Traffic;
use super::replicas::Counts;
use super::scene::Scene;
use super::world::{Observed, ReplicaSet, Service};
use super::{World, events, replicas, traffic};

const PING: &str = "ping";
const PONG: &str = "pong";

/// The Services of the stable version and of the one on trial.
///
/// With `pingPong` they swap with each promotion, so that a promotion moves neither a weight nor a selector. Where nothing
/// was ever promoted, ping becomes the stable one; where a Rollout has begun to use `pingPong` later, pong is.
pub(super) fn roles<'a>(canary: &'a CanaryStrategy, status: &RolloutStatus) -> (&'a str, &'a str) {
    let Some(PingPong { ping_service: ping, pong_service: pong }) = &canary.ping_pong else {
        return (canary.stable_service(), canary.canary_service());
    };
    match status.canary.stable_ping_pong.as_str() {
        PING => (ping, pong),
        PONG => (pong, ping),
        _ if status.stable_rs.is_empty() => (ping, pong),
        _ => (pong, ping),
    }
}

/// Swaps the roles: the version on trial has become stable, and its Service with it.
pub(super) fn take_turns(status: &mut RolloutStatus) {
    let next = if status.canary.stable_ping_pong == PING { PONG } else { PING };
    next.clone_into(&mut status.canary.stable_ping_pong);
}

/// The hash that each Service of a canary should select, where it should select another one than it does.
pub(super) fn wanted(scene: &Scene<'_>, status: &RolloutStatus) -> BTreeMap<String, String> {
    let stable = scene.revisions.stable;
    let (trial, unconditionally) = trial(scene, status);
    // Beside subsets there may be Services, which nothing but their own callers needs.
    let beside = (scene.canary.stable_service(), scene.canary.canary_service());
    let beside = Some(beside).filter(|_| destination_rule::is_subset(scene.canary_service));
    [(scene.stable_service, scene.canary_service)]
        .into_iter()
        .chain(beside)
        .flat_map(|(of_stable, of_canary)| [(of_stable, stable, false), (of_canary, trial, unconditionally)])
        .filter_map(|(name, replica_set, unconditionally)| {
            let service = &scene.world.services.get(name)?.object;
            let replica_set = replica_set?;
            let differs = selected(service) != replica_set.hash();
            // Where nothing is to run, nothing is to be served, and old pods must not be kept for the Service's sake.
            let allowed = unconditionally || scene.replicas == 0 || can_serve(service, replica_set);
            (differs && allowed).then(|| (name.to_owned(), replica_set.hash().to_owned()))
        })
        .collect()
}

/// What the Service of the canary should lead to, and whether also if that has no pods yet.
fn trial<'a>(scene: &Scene<'a>, status: &RolloutStatus) -> (Option<&'a ReplicaSet>, bool) {
    let (stable, new) = (scene.revisions.stable, scene.revisions.new);
    if scene.canary.ping_pong.is_some() {
        // Pods that become ready only behind a load balancer need their Service first; and between updates the Service
        // of the next canary has nothing to lead to.
        return (new.filter(|_| !scene.is_promoted(status)), true);
    }
    if !status.abort || stable.is_none() {
        return (new, false);
    }
    // With a router an abort has taken the weight away already, or does so as stable grows: whatever still comes is
    // better served by stable.
    let weightless = !scene.canary.dynamic_stable_scale || replicas::recorded_weight(status) == 0;
    (stable.filter(|_| weightless), scene.routes_traffic())
}

/// A Service that we do not manage yet may carry all of the traffic today, so the pods that it gets must be complete.
fn can_serve(service: &Service, replica_set: &ReplicaSet) -> bool {
    let kept = Counts::from(replica_set).kept();
    if service.annotations.contains_key(MANAGED_BY) { kept > 0 } else { kept > 0 && kept >= replica_set.replicas }
}

/// The hash that a Service selects; empty when it selects none.
pub(super) fn selected(service: &Service) -> &str {
    service.selector.get(POD_TEMPLATE_HASH).map_or("", String::as_str)
}

/// Whether the canary's weight goes to the new version; true where there is no weight.
pub(super) fn canary_is_selected(scene: &Scene<'_>) -> bool {
    !scene.routes_traffic() || leads_to_new(scene, scene.canary_service)
}

/// Whether the stable version's weight goes to the new version, as it does once that is promoted.
pub(super) fn stable_is_selected(scene: &Scene<'_>) -> bool {
    leads_to_new(scene, scene.stable_service)
}

/// Whether a Service selects the new version; true where there is no Service to select anything.
fn leads_to_new(scene: &Scene<'_>, service: &str) -> bool {
    let service = scene.world.services.get(service);
    service.is_none_or(|service| selected(&service.object) == scene.revisions.hash)
}

/// Switches the Services that may be switched.
///
/// Somebody may have given one of them all of the traffic, and a slow watch not have shown it: such a Service must not be
/// switched to a version on trial.
pub(super) fn switch(
    scene: &Scene<'_>,
    draft: &mut Draft<'_>,
    traffic: &Traffic<'_>,
    admitted: &BTreeMap<String, String>,
) {
    for (name, hash) in admitted.iter().filter(|(name, _)| !destination_rule::is_subset(name)) {
        let Some(service) = scene.world.services.get(name).map(|observed| &observed.object) else { continue };
        let from = selected(service);
        if from == hash {
            continue;
        }
        let mut patch = json!({ "spec": { "selector": { POD_TEMPLATE_HASH: hash } } });
        if !service.annotations.contains_key(MANAGED_BY) {
            patch["metadata"] = json!({ "annotations": { MANAGED_BY: scene.name() } });
        }
        let object = Basis {
            object: draft.object(SERVICE, name),
            uid: service.uid.clone(),
            resource_version: Some(service.resource_version.clone()),
        };
        let what = format!("select {hash}");
        draft.because(format!("service {name} goes from '{from}' to '{hash}'"));
        let action = Action::MergePatch { object, patch, what };
        let action = action.confirmed(traffic.behind(scene.world, name));
        draft.act(action, Some(events::switched(name, from, hash)));
    }
    // Both subsets stand in one object: one write.
    if let Some((action, said)) = destination_rule::select(scene.rollout, &scene.world.routes, admitted) {
        draft.because(said.as_str());
        let mut routes = traffic.behind(scene.world, scene.canary_service);
        routes.retain(|route| route.object != *action.object());
        draft.act(action.confirmed(routes), Some(events::updated_destination_rule(&said)));
    }
}

/// Whether a Service of the World was the Rollout's, and the strategy names it no more. Subsets and the Services of
/// experiments are nothing that a strategy could name.
pub(super) fn is_left_behind(world: &World, service: &str) -> bool {
    let named = world.rollout.spec.strategy.services().contains(service);
    // One that only a former route leads to was never ours.
    let marked = world.services.get(service).is_none_or(|it| it.object.annotations.contains_key(MANAGED_BY));
    marked
        && !named
        && !destination_rule::is_subset(service)
        && !traffic::experiment_services(world).contains_key(service)
}

/// Lets go of Services that the strategy names no more: first their selector, and once nothing follows that any more, the
/// mark that they are ours.
///
/// Until then the guard keeps the pods that they select. Without a hash a Service selects every pod of the Rollout. So in the
/// middle of a blue-green update it keeps its version, or its users would get a preview; a canary may have to scale that
/// version down, and lets go at once.
pub(super) fn release(scene: &Scene<'_>, draft: &mut Draft<'_>, traffic: &Traffic<'_>) {
    if scene.blue_green.is_some() && !scene.is_promoted(&draft.status) && !draft.status.abort {
        return;
    }
    let left_behind = scene.world.services.values().filter(|service| is_left_behind(scene.world, &service.object.name));
    for Observed { object: service, .. } in left_behind {
        let selects = service.selector.contains_key(POD_TEMPLATE_HASH);
        let (patch, what) = if selects {
            (json!({ "spec": { "selector": { POD_TEMPLATE_HASH: null } } }), "select no revision any more")
        } else {
            if let Some(settles) = traffic.services_settle.get(&service.name) {
                draft.wake_at(*settles);
                continue;
            }
            (json!({ "metadata": { "annotations": { MANAGED_BY: null } } }), "released")
        };
        let object = Basis {
            object: draft.object(SERVICE, &service.name),
            uid: service.uid.clone(),
            resource_version: Some(service.resource_version.clone()),
        };
        draft.because(format!("service {} is named no more: {what}", service.name));
        draft.act(Action::MergePatch { object, patch, what: what.to_owned() }, None);
    }
}
