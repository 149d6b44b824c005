//! The Services of a Rollout: which version each should select.

use std::collections::BTreeMap;

use serde_json::json;

use crate::api::names::{MANAGED_BY, POD_TEMPLATE_HASH};
use crate::api::resource::SERVICE;
use crate::api::rollout::RolloutStatus;
use crate::plan::{Action, Basis};

use super::draft::Draft;
use super::events;
use super::guard::Traffic;
use super::scene::Scene;
use super::world::{Observed, ReplicaSet, Service};

/// The hash that each Service of a canary should select, where it should select another one than it does.
pub(super) fn wanted(scene: &Scene<'_>, status: &RolloutStatus) -> BTreeMap<String, String> {
    let stable = scene.revisions.stable;
    let canary = if status.abort && stable.is_some() { stable } else { scene.revisions.new };
    // With a router an abort has taken the weight away already: whatever still comes is better served by stable.
    let retreat = status.abort && scene.routes_traffic();
    [(scene.canary.stable_service(), stable, false), (scene.canary.canary_service(), canary, retreat)]
        .into_iter()
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

/// A Service that we do not manage yet may carry all of the traffic today, so the pods that it gets must be complete.
fn can_serve(service: &Service, replica_set: &ReplicaSet) -> bool {
    let available = replica_set.status.available;
    if service.annotations.contains_key(MANAGED_BY) {
        available > 0
    } else {
        replica_set.replicas > 0 && available >= replica_set.replicas
    }
}

/// The hash that a Service selects; empty when it selects none.
pub(super) fn selected(service: &Service) -> &str {
    service.selector.get(POD_TEMPLATE_HASH).map_or("", String::as_str)
}

/// Whether the canary's weight goes to the new version; true where there is no weight.
pub(super) fn canary_is_selected(scene: &Scene<'_>) -> bool {
    let selects = |service: &Service| selected(service) == scene.revisions.hash;
    let service = scene.world.services.get(scene.canary.canary_service());
    !scene.routes_traffic() || service.is_none_or(|service| selects(&service.object))
}

/// Switches the Services that may be switched.
pub(super) fn switch(scene: &Scene<'_>, draft: &mut Draft<'_>, admitted: &BTreeMap<String, String>) {
    for (name, hash) in admitted {
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
        draft.act(Action::MergePatch { object, patch, what }, Some(events::switched(name, from, hash)));
    }
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
    let named = scene.rollout.spec.strategy.services();
    let left_behind = scene.world.services.values().filter(|service| !named.contains(service.object.name.as_str()));
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
