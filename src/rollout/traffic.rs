//! The weight of the canary: what it should be, and what the routers were seen to make.

use std::collections::BTreeMap;

use crate::api::resource::VIRTUAL_SERVICE;
use crate::api::rollout::RolloutStatus;
use crate::api::rollout_status::{TrafficWeights, WeightDestination};
use crate::plan::Action;
use crate::traffic::managed::Managed;
use crate::traffic::{Applied, Context, ObservedSplit, Router, RouterError, Split, Wanted};

use super::draft::Draft;
use super::guard::{Admitted, Traffic};
use super::replicas::Counts;
use super::scene::Scene;
use super::{World, events, experiments, replicas, services};

/// Seconds after which a route that was not taken up yet is looked at again.
pub(super) const VERIFY_SECONDS: i64 = 10;

/// The routers of a Rollout and what they make now.
pub(super) struct Routing<'a> {
    pub routers: Vec<&'static dyn Router>,
    pub traffic: Traffic<'a>,
    total: i32,
}

impl<'a> Routing<'a> {
    pub fn observe(scene: &Scene<'a>) -> Self {
        let routers = scene.canary.traffic_routing.as_deref().map_or(Vec::new(), crate::traffic::routers);
        let traffic = Traffic::observe(scene.world, scene.stable_service, scene.canary_service, &routers);
        Self { routers, traffic, total: replicas::max_weight(scene.canary) }
    }

    /// The VirtualService that a router misses.
    pub fn missing_virtual_service(&self) -> Option<&str> {
        self.traffic.routers.iter().find_map(|observed| match observed {
            Err(RouterError::Missing(object)) if object.resource == VIRTUAL_SERVICE => Some(object.name.as_str()),
            _ => None,
        })
    }

    /// Whether every router was seen to make this weight, and the data plane to have taken it up.
    pub fn makes(&self, weight: i32) -> bool {
        let split = Split::new(weight, self.total);
        self.traffic.routers.iter().all(
            |observed| matches!(observed, Ok(observed) if observed.makes(&split) && observed.applied == Applied::Yes),
        )
    }

    /// The split of this weight for the canary, and of others for the Services of an experiment.
    pub fn split(&self, weight: i32, additional: BTreeMap<String, i32>) -> Option<Split> {
        (!self.routers.is_empty()).then(|| Split { additional, ..Split::new(weight, self.total) })
    }
}

/// The weight that the canary should have. `ready` tells whether all sizes are as the step asks, `enough` whether the
/// canary has at least the pods that it asks for.
pub(super) fn wanted_weight(scene: &Scene<'_>, status: &RolloutStatus, ready: bool, enough: bool) -> i32 {
    let has_pods = scene.revisions.new.is_some_and(|new| new.status.available > 0);
    // A Service that still leads to another version than the new one is switched when it has no weight.
    if scene.is_promoted(status) || status.abort || !has_pods || !services::canary_is_selected(scene) {
        return 0;
    }
    if status.promote_full {
        return if scene.canary.dynamic_stable_scale { carried(scene) } else { replicas::recorded_weight(status) };
    }
    if scene.canary.steps.is_empty() {
        return 0;
    }
    // Also at the end, where this is all of the traffic.
    let weight = replicas::current_set_weight(scene.canary, status);
    // The pods that are too many for less weight go only after it.
    let less = enough && weight <= replicas::recorded_weight(status);
    if ready || less {
        return weight;
    }
    let index = replicas::current_step(scene.canary, status).unwrap_or(scene.canary.steps.len());
    scene.canary.steps[..index].iter().rev().find_map(|step| step.set_weight).unwrap_or(0)
}

/// The weight that the available pods of the new version are the share for.
fn carried(scene: &Scene<'_>) -> i32 {
    let available = scene.revisions.new.map_or(0, |new| Counts::from(new).kept()).min(scene.replicas);
    replicas::share_down(available, replicas::max_weight(scene.canary), scene.replicas)
}

/// Writes the splits and the managed routes that may be made now, and records the splits. Whether all that is wanted was
/// there already and the data plane has taken it up.
pub(super) fn route(
    scene: &Scene<'_>,
    draft: &mut Draft<'_>,
    routing: &Routing<'_>,
    admitted: &Admitted,
    managed: &[Managed<'_>],
) -> bool {
    if routing.routers.is_empty() {
        draft.status.canary.weights = None;
        return true;
    }
    let splits = &admitted.splits;
    let experiment_services = experiment_services(scene.world);
    let context = Context {
        rollout: scene.rollout,
        stable_service: scene.stable_service,
        canary_service: scene.canary_service,
        services: &scene.world.services,
        experiment_services: &experiment_services,
        routes: &scene.world.routes,
    };
    let mut edited = false;
    let mut broken = false;
    for (index, router) in routing.routers.iter().enumerate() {
        let split = splits.get(index).and_then(Option::as_ref);
        let allowed = admitted.managed.get(index);
        let managed: Vec<_> =
            managed.iter().copied().filter(|one| allowed.is_some_and(|names| names.contains(one.name()))).collect();
        match router.edit(&context, Wanted { split, managed: &managed }) {
            Ok(edits) => {
                for edit in edits {
                    edited = true;
                    broken |= !write(draft, edit, split);
                }
            }
            Err(error) => {
                // The `InvalidSpec` condition names the cause already.
                broken = true;
                draft.wait(error.to_string());
            }
        }
    }
    let weight = splits.iter().flatten().map(|split| split.canary).max();
    if let Some(weight) = weight.filter(|_| !broken) {
        record(scene, draft, routing, weight);
    }
    let follows = verify(scene, draft, routing, edited);
    let all = admitted.managed.iter().all(|names| managed.iter().all(|one| names.contains(one.name())));
    follows && all && !edited && !broken
}

/// Plans the edit of a route. Whether it did not fail when it was tried before.
pub(super) fn write(draft: &mut Draft<'_>, edit: Action, split: Option<&Split>) -> bool {
    let told = split.and_then(|split| events::routed(&edit, split.canary));
    let failure = draft.failure(edit.object(), edit.kind());
    if let Some(failure) = failure {
        draft.event(events::routing_failed(&format!("{}: {}", failure.object, failure.error)));
        draft.wait(format!("{} refuses the weight: {}", failure.object, failure.error));
    }
    draft.because(edit.to_string());
    draft.act(edit, told);
    failure.is_none()
}

/// The Services of the Rollout's experiments, running or not, with the hash of their pods: what a split names of them is
/// made, the rest removed.
pub(super) fn experiment_services(world: &World) -> BTreeMap<String, String> {
    let recorded = world.rollout.status.iter().flat_map(|status| &status.canary.weights);
    let recorded = recorded.flat_map(|weights| &weights.additional).map(|to| (&to.service_name, &to.pod_template_hash));
    let statuses = world.experiments.iter().filter_map(|experiment| experiment.status.as_ref());
    let known = statuses.flat_map(|status| &status.template_statuses);
    let known = known.map(|template| (&template.service_name, &template.pod_template_hash));
    let named = recorded.chain(known).filter(|(service, _)| !service.is_empty());
    named.map(|(service, hash)| (service.clone(), hash.clone())).collect()
}

fn record(scene: &Scene<'_>, draft: &mut Draft<'_>, routing: &Routing<'_>, weight: i32) {
    let total = routing.total;
    let hash = |set: Option<&super::world::ReplicaSet>| set.map_or(String::new(), |set| set.hash().to_owned());
    let destination = |weight, service: &str, pod_template_hash| WeightDestination {
        weight,
        service_name: service.to_owned(),
        pod_template_hash,
    };
    let previous = draft.status.canary.weights.take();
    // Until the Service is switched, the weight goes to the version before.
    let behind = scene.world.services.get(scene.canary_service).filter(|_| weight > 0);
    let behind = behind.map(|service| services::selected(&service.object)).filter(|hash| !hash.is_empty());
    let canary_hash = behind.unwrap_or(&scene.revisions.hash).to_owned();
    let canary = destination(weight, scene.canary.canary_service(), canary_hash);
    // Of an experiment's Services what is observed, so that its pods stay until routes have let go of them.
    let additional = experiments::observed_weights(scene.world, &routing.traffic);
    let others: i32 = additional.iter().map(|to| to.weight).sum();
    let stable =
        destination((total - weight - others).max(0), scene.canary.stable_service(), hash(scene.revisions.stable));
    let from = previous.as_ref().map(|weights| weights.canary.weight);
    if from != Some(weight) {
        draft.event(events::weight_updated(from, weight));
        draft.because(format!("weight {weight}/{total}"));
    }
    // What was seen of another weight says nothing of this one.
    let verified = previous.and_then(|weights| weights.verified).filter(|_| from == Some(weight));
    draft.status.canary.weights = Some(TrafficWeights { canary, stable, additional, verified });
}

/// Records whether the data plane follows. What was just written is read back by the next decision.
///
/// `verified` is false once a router has refused the weight, so that this is told once; absent while nothing is known.
fn verify(scene: &Scene<'_>, draft: &mut Draft<'_>, routing: &Routing<'_>, edited: bool) -> bool {
    if edited {
        return false;
    }
    let told = draft.status.canary.weights.as_ref().is_some_and(|weights| weights.verified == Some(false));
    // Gateways refuse the route of a first deployment until its Services have endpoints: that is no news.
    let updating = !draft.status.stable_rs.is_empty() && !scene.is_promoted(&draft.status);
    let (mut lagging, mut refused) = (false, false);
    for (router, observed) in routing.routers.iter().zip(&routing.traffic.routers) {
        let why = match observed {
            Ok(ObservedSplit { applied: Applied::Yes, .. }) => continue,
            Ok(ObservedSplit { applied: Applied::Pending { why }, .. }) => why.clone(),
            Ok(ObservedSplit { applied: Applied::Refused { why }, .. }) => {
                refused |= told || updating;
                if !told && updating {
                    draft.event(events::routing_failed(why));
                }
                why.clone()
            }
            Err(error) => error.to_string(),
        };
        lagging = true;
        // The guard may wait for the same, and has said so.
        if !draft.waits.iter().any(|wait| wait.contains(&why)) {
            draft.wait(format!("{}: {why}", router.name()));
        }
        draft.wake_after(draft.world.now, VERIFY_SECONDS);
    }
    if let Some(weights) = &mut draft.status.canary.weights {
        weights.verified = match (refused, lagging) {
            (true, _) => Some(false),
            (false, true) => None,
            // Routers that cannot tell leave it absent; a refusal also has an end.
            (false, false) => weights.verified.map(|_| true),
        };
    }
    !lagging
}
