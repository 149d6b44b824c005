//! The blue-green strategy: a whole new version beside the old one, and then all of the traffic at once.

use std::collections::{BTreeMap, BTreeSet};

use crate::api::analysis::AnalysisPhase;
use crate::api::blue_green::BlueGreenStrategy;
use crate::api::rollout::RolloutStatus;
use crate::api::rollout_status::RunStatusRef;

use super::conditions::Facts;
use super::draft::{Draft, after};
use super::guard::Proposal;
use super::pass::{Reach, admit, claim, look_after_pods, promote, scale};
use super::replicas::Counts;
use super::scale_down::{self, Wishes};
use super::scene::Scene;
use super::traffic::Routing;
use super::world::ReplicaSet;
use super::{analysis_runs, former_routes, pauses, restart, revision, services};

/// One pass: ReplicaSets, analysis, pause, Services, promotion.
pub(super) fn pass(
    scene: &Scene<'_>,
    strategy: &BlueGreenStrategy,
    draft: &mut Draft<'_>,
    routing: &Routing<'_>,
    reach: Reach,
    aborting: bool,
    facts: &mut Facts,
) {
    claim(scene, draft, reach, size(scene, strategy, &draft.status), facts);

    if draft.status.abort || draft.status.promote_full || reach == Reach::Back {
        analysis_runs::end_all(scene, draft, aborting);
    } else {
        analysis_runs::follow(scene, draft);
    }
    let forward = reach == Reach::Forward && !draft.status.abort && !halted(scene, &draft.status);
    let may_switch = forward && may_switch(scene, strategy, draft);
    if may_switch {
        check_point(scene, strategy, draft);
    }

    let mut wishes = wishes(scene, strategy, draft, reach);
    restart::make_room(scene, &routing.traffic, &mut wishes);
    let proposal = Proposal {
        replicas: wishes.replicas.clone(),
        delete: match reach {
            Reach::Forward => revision::beyond_history(draft, &scene.revisions),
            Reach::Back => BTreeSet::new(),
        },
        split: None,
        services: wanted_services(scene, strategy, draft, forward, may_switch),
        ..Proposal::default()
    };
    let admitted = admit(scene, draft, routing, proposal);
    former_routes::follow(scene, draft, routing, &admitted, false);
    services::switch(scene, draft, &routing.traffic, &admitted.services);
    scale(scene, draft, &admitted, &wishes);
    for deletion in admitted.deletions(scene.world) {
        draft.because(deletion.to_string());
        draft.act(deletion, None);
    }
    if reach == Reach::Forward {
        look_after_pods(scene, draft, routing, &admitted);
    }

    if forward && let Some(reason) = promotion(scene, strategy, &draft.status) {
        promote(scene, draft, reason);
        draft.status.blue_green.scale_up_preview_check_point = false;
    }
    // A promotion that a user has given, or that time has, holds until it is seen to have been made.
    let promised = may_switch && strategy.pauses() && !is_active(scene) && !past_check_point(&draft.status);
    if !promised {
        pauses::settle(draft);
    }
}

/// The hash that the active Service selects; as last seen if the Service is missing. Empty when it selects none.
pub(super) fn active_hash<'a>(scene: &Scene<'a>, status: &'a RolloutStatus) -> &'a str {
    let name = scene.blue_green.map_or("", |strategy| &strategy.active_service);
    let service = scene.world.services.get(name);
    service.map_or(&status.blue_green.active_selector, |service| services::selected(&service.object))
}

/// Whether users get the new version already.
pub(super) fn is_active(scene: &Scene<'_>) -> bool {
    scene.revisions.new.is_some() && active_hash(scene, scene.observed) == scene.revisions.hash
}

/// Whether the new version has every pod that it is to have as the active one.
pub(super) fn is_saturated(scene: &Scene<'_>) -> bool {
    scene.revisions.new.is_some_and(|new| is_complete(new, scene.replicas))
}

/// Whether the new version has every pod that it is to have for now.
pub(super) fn is_ready(scene: &Scene<'_>, strategy: &BlueGreenStrategy, status: &RolloutStatus) -> bool {
    scene.revisions.new.is_some_and(|new| is_complete(new, size(scene, strategy, status)))
}

fn is_complete(replica_set: &ReplicaSet, size: i32) -> bool {
    replica_set.replicas == size && Counts::from(replica_set).kept() >= size && replica_set.is_reported()
}

/// Why an earlier version needs no pause and no analysis to come back, if so: it has served before, and either it is recent
/// by `rollbackWindow` or its pods are still there.
pub(super) fn fast_rollback(scene: &Scene<'_>) -> Option<String> {
    if scene.is_rollback_within_window() {
        return Some("Rollback within window".to_owned());
    }
    let (new, stable) = (scene.revisions.new?, scene.separate_stable()?);
    let kept = scale_down::deadline(new).is_some_and(|deadline| scene.world.now < deadline);
    (kept && new.age() < stable.age()).then(|| format!("Rollback to '{}' within scaleDownDelay", new.name))
}

/// Whether an analysis was successful, by what the status says of its run.
pub(super) fn succeeded(run: Option<&RunStatusRef>) -> bool {
    run.is_some_and(|run| run.status == AnalysisPhase::Successful)
}

/// Whether an analysis of this update has begun and not ended: then waiting is the purpose.
pub(super) fn is_analysing(status: &RolloutStatus) -> bool {
    let runs =
        [&status.blue_green.pre_promotion_analysis_run_status, &status.blue_green.post_promotion_analysis_run_status];
    runs.into_iter().flatten().any(|run| !run.status.completed())
}

/// Whether Services and promotion stay as they are. A way back to stable is never halted.
fn halted(scene: &Scene<'_>, status: &RolloutStatus) -> bool {
    scene.rollout.spec.paused || pauses::find(status, pauses::INCONCLUSIVE).is_some()
}

fn past_check_point(status: &RolloutStatus) -> bool {
    status.blue_green.scale_up_preview_check_point
}

/// Pods of the new version: all, unless it is a preview of fewer.
fn size(scene: &Scene<'_>, strategy: &BlueGreenStrategy, status: &RolloutStatus) -> i32 {
    let Some(preview) = strategy.preview_replica_count else { return scene.replicas };
    let active = active_hash(scene, scene.observed);
    let nothing_else = !scene.revisions.all().any(|set| set.hash() == active) || active == scene.revisions.hash;
    let paused = scene.rollout.spec.paused || !status.pause_conditions.is_empty();
    let skips = status.promote_full || scene.is_promoted(status) || fast_rollback(scene).is_some();
    if nothing_else || skips || past_check_point(status) && !paused { scene.replicas } else { preview }
}

/// Whether neither pause nor analysis keeps the new version from the active Service. Begins the pause, and ends it.
fn may_switch(scene: &Scene<'_>, strategy: &BlueGreenStrategy, draft: &mut Draft<'_>) -> bool {
    let skips = draft.status.promote_full || fast_rollback(scene).is_some() || is_active(scene);
    if skips || scene.is_promoted(&draft.status) {
        pauses::leave(&mut draft.status, pauses::BLUE_GREEN);
        return true;
    }
    let analysed = strategy.pre_promotion_analysis.is_none()
        || succeeded(draft.status.blue_green.pre_promotion_analysis_run_status.as_ref());
    if !analysed {
        return false;
    }
    if past_check_point(&draft.status) || !strategy.pauses() {
        pauses::leave(&mut draft.status, pauses::BLUE_GREEN);
        return true;
    }
    let Some(condition) = pauses::find(&draft.status, pauses::BLUE_GREEN) else {
        // That we paused and the condition is gone means that a user has taken it away: a promotion.
        if draft.status.controller_pause && draft.status.pause_conditions.is_empty() {
            return true;
        }
        if is_ready(scene, strategy, &draft.status) {
            pauses::enter(draft, pauses::BLUE_GREEN);
            let seconds = strategy.pause_seconds();
            seconds.map(|seconds| draft.wake_after(scene.world.now, seconds.into()));
        }
        return false;
    };
    let Some(seconds) = strategy.pause_seconds() else { return false };
    let end = after(condition.start_time.0, seconds.into());
    if scene.world.now < end {
        draft.wake_at(end);
        return false;
    }
    pauses::leave(&mut draft.status, pauses::BLUE_GREEN);
    true
}

/// Lets a preview that may be promoted grow to its full size. Having once been complete is enough: it stays so until the
/// promotion.
fn check_point(scene: &Scene<'_>, strategy: &BlueGreenStrategy, draft: &mut Draft<'_>) {
    let is_preview = strategy.preview_replica_count.is_some() && size(scene, strategy, &draft.status) != scene.replicas;
    if is_preview && !past_check_point(&draft.status) && is_ready(scene, strategy, &draft.status) {
        draft.because("the preview may grow to its full size");
        draft.status.blue_green.scale_up_preview_check_point = true;
        draft.wake_now();
    }
}

/// Sizes and deadlines: stable and new, and then the others.
fn wishes(scene: &Scene<'_>, strategy: &BlueGreenStrategy, draft: &mut Draft<'_>, reach: Reach) -> Wishes {
    let mut wishes = Wishes::default();
    if scene.replicas < 0 {
        // Refused, and no size to compute with. Traffic moves all the same.
        return wishes;
    }
    if let Some(stable) = scene.revisions.stable {
        wishes.replicas.insert(stable.name.clone(), scene.replicas);
        scale_down::keep(stable, &mut wishes);
    }
    if let Some(new) = scene.revisions.new.filter(|_| !scene.revisions.is_fully_promoted()) {
        // Pods that still get traffic are no business of the abort's delay.
        let leaves = draft.status.abort && scene.revisions.stable.is_some() && !is_active(scene);
        if !(leaves && scale_down::aborted(scene, draft, new, &mut wishes)) {
            let size = size(scene, strategy, &draft.status);
            let size = if reach == Reach::Back { size.min(new.replicas) } else { size };
            wishes.replicas.insert(new.name.clone(), size);
            // Its deadline says that it may come back without a pause, until it has.
            if draft.status.abort || fast_rollback(scene).is_none() {
                scale_down::keep(new, &mut wishes);
            }
        }
    }
    if !keeps_others(scene, strategy, &draft.status) {
        others(scene, strategy, draft, &mut wishes);
    }
    wishes
}

/// Whether nothing may go, because it is not known yet whether the new version is good.
fn keeps_others(scene: &Scene<'_>, strategy: &BlueGreenStrategy, status: &RolloutStatus) -> bool {
    let judged = strategy.post_promotion_analysis.is_some()
        && !scene.is_promoted(status)
        && !status.promote_full
        && fast_rollback(scene).is_none()
        && !succeeded(status.blue_green.post_promotion_analysis_run_status.as_ref());
    pauses::find(status, pauses::INCONCLUSIVE).is_some() || judged && strategy.scale_down_delay_seconds.is_none()
}

/// How the versions go that are neither new nor stable: each after a delay, in which it could come back at its full size.
fn others(scene: &Scene<'_>, strategy: &BlueGreenStrategy, draft: &mut Draft<'_>, wishes: &mut Wishes) {
    let delay = i64::from(strategy.scale_down_delay_seconds.unwrap_or(scale_down::DEFAULT_DELAY_SECONDS));
    let limit = strategy.scale_down_delay_revision_limit.map_or(usize::MAX, |limit| limit.max(0) as usize);
    let mut delayed = 0;
    for other in scene.revisions.others.iter().filter(|other| other.replicas > 0) {
        if scale_down::is_referenced(scene, &draft.status, other) {
            continue;
        }
        let deadline = scale_down::deadline(other);
        let waits = deadline.map_or(delay > 0, |deadline| scene.world.now < deadline);
        if !waits || delayed >= limit {
            wishes.replicas.insert(other.name.clone(), 0);
            continue;
        }
        delayed += 1;
        match deadline {
            Some(deadline) => {
                draft.wake_at(deadline);
                wishes.replicas.insert(other.name.clone(), scene.replicas);
            }
            None => {
                let deadline = draft.wake_after(scene.world.now, delay);
                wishes.until(other, deadline);
            }
        }
    }
}

/// The hash that each Service should select, where it should select another one than it does.
fn wanted_services(
    scene: &Scene<'_>,
    strategy: &BlueGreenStrategy,
    draft: &mut Draft<'_>,
    forward: bool,
    may_switch: bool,
) -> BTreeMap<String, String> {
    let preview = scene.revisions.new.filter(|_| forward);
    let active = active_target(scene, draft, forward, may_switch);
    [(&strategy.preview_service, preview), (&strategy.active_service, active)]
        .into_iter()
        .filter_map(|(name, target)| {
            let service = &scene.world.services.get(name)?.object;
            let hash = target?.hash();
            (services::selected(service) != hash).then(|| (name.clone(), hash.to_owned()))
        })
        .collect()
}

/// The version that users should get now, if that is to change.
fn active_target<'a>(
    scene: &Scene<'a>,
    draft: &mut Draft<'_>,
    forward: bool,
    may_switch: bool,
) -> Option<&'a ReplicaSet> {
    let stable = scene.revisions.stable;
    if !forward || scene.revisions.is_fully_promoted() {
        // The way back. When it is safe is for the guard to say, which asks for less than completeness.
        let back = draft.status.abort || scene.revisions.is_fully_promoted();
        return stable.filter(|_| back);
    }
    if active_hash(scene, scene.observed).is_empty() && scene.separate_stable().is_some() {
        // Whoever comes to blue-green in the middle of an update has no active version yet: that is the stable one.
        return stable;
    }
    let new = scene.revisions.new?;
    if is_saturated(scene) {
        return may_switch.then_some(new);
    }
    if may_switch && !is_active(scene) {
        let (available, wanted) = (Counts::from(new).kept(), scene.replicas);
        draft.wait(format!("ReplicaSet {} has {available} of {wanted} available pods", new.name));
    }
    None
}

/// Why the new version becomes the stable one now, if it does.
fn promotion(scene: &Scene<'_>, strategy: &BlueGreenStrategy, status: &RolloutStatus) -> Option<String> {
    if scene.is_promoted(status) {
        return None;
    }
    if status.stable_rs.is_empty() {
        return Some("Initial deploy".to_owned());
    }
    if !is_active(scene) {
        return None;
    }
    if status.promote_full {
        return Some("Full promotion requested".to_owned());
    }
    let good = strategy.post_promotion_analysis.is_none()
        || succeeded(status.blue_green.post_promotion_analysis_run_status.as_ref());
    fast_rollback(scene).or_else(|| good.then(|| "Completed blue-green update".to_owned()))
}
