//! Routes that the strategy names no more: put back to stable, and forgotten. See [`crate::traffic::former`].

use serde_json::json;

use crate::api::canary::CanaryStrategy;
use crate::api::names::ROUTES;
use crate::api::resource::{DESTINATION_RULE, ROLLOUT};
use crate::plan::{Action, Basis};
use crate::traffic::istio::destination_rule;
use crate::traffic::{Applied, Context, Split, Wanted, former};

use super::draft::Draft;
use super::guard::{Admitted, Left};
use super::scene::Scene;
use super::traffic::{self, Routing, VERIFY_SECONDS};

/// Takes the weights of former routes back, as far as the guard allows, and keeps the record of what the Rollout moves.
/// `moves` tells whether the strategy wants to give a route more than nothing.
pub(super) fn follow(
    scene: &Scene<'_>,
    draft: &mut Draft<'_>,
    routing: &Routing<'_>,
    admitted: &Admitted,
    moves: bool,
) {
    let left = &routing.traffic.left;
    let over: Vec<&CanaryStrategy> = left
        .iter()
        .zip(&admitted.left)
        .filter(|(left, split)| put_back(scene, draft, routing, left, split.as_ref()))
        .map(|(left, _)| &left.former.piece)
        .collect();
    let weighs = routing.traffic.routers.iter().flatten().any(|it| it.split.canary > 0 || !it.managed.is_empty());
    record(scene, draft, &over, (moves || weighs) && !routing.traffic.recorded);
}

/// Whether there is nothing left to be done about a former route, and nothing that follows it as it was.
fn put_back(
    scene: &Scene<'_>,
    draft: &mut Draft<'_>,
    routing: &Routing<'_>,
    left: &Left,
    split: Option<&Split>,
) -> bool {
    let settles = routing.traffic.routes_settle;
    if let Some(settles) = settles {
        draft.wake_at(settles);
    }
    // It is gone, or its users have made something else of it.
    let (Ok(observed), Some(router)) = (&left.observed, left.former.router()) else { return settles.is_none() };
    let Some(split) = split else { return false };
    let context = Context {
        rollout: &left.former.rollout,
        stable_service: &left.stable_service,
        canary_service: &left.canary_service,
        services: &scene.world.services,
        experiment_services: &traffic::experiment_services(scene.world),
        routes: &former::unclaimed(scene.rollout, &scene.world.routes),
    };
    // One that cannot be edited is somebody else's.
    let Ok(mut edits) = router.edit(&context, Wanted::only(split)) else { return true };
    // What was deleted leads nobody anywhere.
    edits.retain(|edit| !matches!(edit, Action::Create { .. }));
    if !edits.is_empty() {
        for edit in edits {
            traffic::write(draft, edit, Some(split));
        }
        return false;
    }
    if let Applied::Pending { why } | Applied::Refused { why } = &observed.applied {
        draft.wait(why.clone());
        draft.wake_after(draft.world.now, VERIFY_SECONDS);
        return false;
    }
    left.is_back() && settles.is_none() && is_released(scene, draft, left)
}

/// Whether the DestinationRule of a former route tells no versions apart any more: its subsets would go on leading to a
/// version whose pods are to go. Users get no preview by that: either the Service behind the subsets is the strategy's own, or
/// they stay bound until the update is over, as a Service that is left behind does.
fn is_released(scene: &Scene<'_>, draft: &mut Draft<'_>, left: &Left) -> bool {
    let named = scene.canary.traffic_routing.as_ref().and_then(|routing| routing.istio.as_ref());
    let is_named =
        |name: &str| named.and_then(|istio| istio.destination_rule.as_ref()).is_some_and(|it| it.name == name);
    let needs = left.former.needs();
    let rules = needs.objects.iter().filter(|object| object.resource == DESTINATION_RULE && !is_named(&object.name));
    let releases: Vec<Action> =
        rules.filter_map(|rule| destination_rule::release(rule, &scene.world.routes.get(rule)?.object)).collect();
    let own = left.host.as_deref().is_some_and(|host| scene.services().any(|(_, name)| name == host));
    let previews = scene.blue_green.is_some() && !own && !scene.is_promoted(&draft.status) && !draft.status.abort;
    let released = releases.is_empty();
    for release in releases.into_iter().filter(|_| !previews) {
        draft.because(release.to_string());
        draft.act(release, None);
    }
    released
}

/// Writes down what the strategy moves before it is moved, if that `adds` something, and strikes out what is over.
fn record(scene: &Scene<'_>, draft: &mut Draft<'_>, over: &[&CanaryStrategy], adds: bool) {
    let rollout = scene.rollout;
    if over.is_empty() && !adds {
        return;
    }
    // The revision is written with what it moves: what else there is to say comes with the next decision.
    if draft.actions.iter().any(|action| action.object().resource == ROLLOUT) {
        return;
    }
    let before = former::recorded(rollout);
    let mut said = if adds { former::with_current(rollout) } else { before.clone() };
    said.retain(|piece| !over.contains(&piece));
    if said == before {
        return;
    }
    let text = (!said.is_empty()).then(|| former::text(&said));
    let object = Basis {
        object: draft.object(ROLLOUT, scene.name()),
        uid: rollout.metadata.uid.clone().unwrap_or_default(),
        resource_version: None,
    };
    let what = format!("moves {} routes", said.len());
    draft.because(what.as_str());
    draft.act(
        Action::MergePatch { object, patch: json!({ "metadata": { "annotations": { (ROUTES): text } } }), what },
        None,
    );
}
