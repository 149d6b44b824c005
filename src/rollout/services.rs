//! The stable and the canary Service, or the subsets of a DestinationRule: which version each should select.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;

use crate::api::names::{MANAGED_BY, POD_TEMPLATE_HASH};
use crate::api::resource::SERVICE;
use crate::api::rollout::RolloutStatus;
use crate::plan::{Action, Basis};
use crate::traffic::istio::destination_rule;

use super::draft::Draft;
use super::events;
use super::scene::Scene;
use super::world::{ReplicaSet, Service};

/// The hash that each Service should select, where it should select another one than it does.
pub(super) fn wanted(scene: &Scene<'_>, status: &RolloutStatus) -> BTreeMap<String, String> {
    let stable = scene.revisions.stable;
    let canary = if status.abort && stable.is_some() { stable } else { scene.revisions.new };
    // With a router an abort has taken the weight away already: whatever still comes is better served by stable.
    let retreat = status.abort && scene.routes_traffic();
    // With subsets there may be Services as well, or none.
    BTreeSet::from(scene.every_target())
        .into_iter()
        .flat_map(|(of_stable, of_canary)| [(of_stable, stable, false), (of_canary, canary, retreat)])
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
    let service = scene.world.services.get(scene.canary_target());
    !scene.routes_traffic() || service.is_none_or(|service| selects(&service.object))
}

/// Switches the Services that may be switched.
pub(super) fn switch(scene: &Scene<'_>, draft: &mut Draft<'_>, admitted: &BTreeMap<String, String>) {
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
        draft.act(Action::MergePatch { object, patch, what }, Some(events::switched(name, from, hash)));
    }
    // Both subsets stand in one object: one write.
    if let Some((action, said)) = destination_rule::select(scene.rollout, &scene.world.routes, admitted) {
        draft.because(said.as_str());
        draft.act(action, Some(events::updated_destination_rule(&said)));
    }
}
