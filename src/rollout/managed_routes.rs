//! Which routes the steps up to now have made: they follow from the steps and the index, nothing is remembered.

use crate::api::rollout::RolloutStatus;
use crate::traffic::managed::{self, Managed};

use super::guard::Traffic;
use super::scene::Scene;
use super::{replicas, services};

/// The managed routes that there should be, in the order of `managedRoutes`. There are none unless an update is on its way
/// whose new version can answer: not after an abort, not while everything is promoted, not for a version without pods.
pub(super) fn wanted<'a>(scene: &Scene<'a>, status: &RolloutStatus, traffic: &Traffic<'_>) -> Vec<Managed<'a>> {
    let has_pods = scene.revisions.new.is_some_and(|new| new.status.available > 0);
    let promoted = scene.is_promoted(status);
    // At the end they go with the weight, in one write: when the new version is behind the Service of the stable one.
    let settled = status.stable_rs.is_empty() || promoted && services::stable_is_selected(scene);
    let skips = status.abort || status.promote_full || scene.is_rollback_within_window();
    if !has_pods || settled || skips {
        return Vec::new();
    }
    let steps = &scene.canary.steps;
    let done = replicas::current_step(scene.canary, status).map_or(steps.len(), |index| index + 1);
    let mut made: Vec<Managed<'a>> = Vec::new();
    for step in &steps[..done] {
        let header = step.set_header_route.as_ref().map(|route| (Managed::Header(route), route.match_.is_empty()));
        let mirror = step.set_mirror_route.as_ref().map(|route| (Managed::Mirror(route), route.match_.is_empty()));
        for (route, removes) in header.into_iter().chain(mirror) {
            made.retain(|other| other.name() != route.name());
            made.extend((!removes).then_some(route));
        }
    }
    if promoted {
        let there = |name: &str| traffic.routers.iter().flatten().any(|observed| observed.managed.contains(name));
        made.retain(|route| there(route.name()));
    }
    let order = managed::names(scene.rollout);
    made.sort_by_key(|route| order.iter().position(|name| *name == route.name()));
    made
}
