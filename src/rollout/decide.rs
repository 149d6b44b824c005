//! The frame of a decision: what comes first, what stops what, and what is always done.

use std::borrow::Cow;

use crate::api::common::time;
use crate::api::resource::REPLICA_SET;
use crate::api::rollout::RolloutStatus;
use crate::api::rollout_status::{BlueGreenStatus, CanaryStatus};
use crate::api::validation;
use crate::plan::{FailedAction, Plan};
use crate::traffic::former;
use crate::traffic::istio::destination_rule;

use super::conditions::{self, Facts};
use super::draft::Draft;
use super::pass::{self, Reach};
use super::scene::Scene;
use super::traffic::Routing;
use super::{
    World, analysis_runs, blue_green, canary, duration, events, evidence, experiments, pauses, references, revision,
    services, status, workload,
};

/// Seconds after which an invalid Rollout is looked at again: what it misses may have been made in the meantime.
const INVALID_RETRY_SECONDS: i64 = 20;

/// What to do about a Rollout now, and its new status.
///
/// Abort, undo and deadlines come first, whatever else is wrong: an invalid spec, a missing Service or a broken route
/// keeps an update from going on, never from going back.
pub fn decide(world: &World) -> Plan<RolloutStatus> {
    let (world, unresolved) = workload::resolve(world);
    let world = &*with_subsets(&world);
    let unresolved = unresolved.map(|error| validation::message(&world.rollout, &error));
    let mut draft = Draft::new(world);
    if world.rollout.metadata.deletion_timestamp.is_some() {
        draft.because("the Rollout is being deleted");
        return draft.finish();
    }
    let observed = draft.status.clone();
    let Some(scene) = Scene::set(world, &observed) else { return unreadable(draft, unresolved) };
    if observed == RolloutStatus::default() {
        draft.event(events::added(scene.namespace(), scene.name()));
    }
    if let Some(collisions) = revision::collision(world, &scene.revisions) {
        draft.because("another object has the name of the new ReplicaSet: hash again");
        draft.status.collision_count = Some(collisions);
        draft.wake_now();
        return draft.finish();
    }

    let routing = Routing::observe(&scene);
    let invalid = unresolved.or_else(|| references::first_error(&scene, &routing));
    if let Some(name) = routing.missing_virtual_service()
        && conditions::find(&observed, conditions::INVALID_SPEC).is_none()
    {
        draft.event(events::virtual_service_not_found(name));
    }
    conditions::invalid_spec(&mut draft, invalid.as_deref());
    workload::record(&mut draft);
    status::count(&scene, &mut draft.status);

    let mut facts = Facts::default();
    let undoes = scene.revisions.is_fully_promoted();
    let aborted_before = observed.abort && observed.aborted_at.is_some();
    let create_error = create_error(&scene, &draft);
    if scene.starts_over() && create_error.is_none() && (invalid.is_none() || undoes) {
        start_over(&scene, &mut draft, &mut facts);
    } else {
        if !scene.starts_over() {
            // The same steps, that another controller may have hashed in another way.
            draft.status.current_step_hash.clone_from(&scene.step_hash);
        }
        take_requests(&scene, &mut draft, &mut facts);
    }
    if let Some(message) = &invalid {
        draft.because(message);
        draft.wake_after(world.now, INVALID_RETRY_SECONDS);
    }
    let reach = if invalid.is_none() && create_error.is_none() { Reach::Forward } else { Reach::Back };
    if let Some(error) = create_error.filter(|_| invalid.is_none()) {
        pass::retry_create(&scene, &mut draft, &mut facts, error);
    }
    let runs = reach == Reach::Forward || draft.status.abort || undoes && canary::is_left(&scene, &routing);
    if runs {
        let aborting = draft.status.abort && !aborted_before;
        match scene.blue_green {
            Some(strategy) => {
                blue_green::pass(&scene, strategy, &mut draft, &routing, reach, aborting, &mut facts);
                // Those of a canary that has become a blue-green.
                experiments::end_all(&scene, &mut draft);
            }
            None => {
                canary::pass(&scene, &mut draft, &routing, reach, aborting, &mut facts);
                pauses::settle(&mut draft);
            }
        }
    }
    if reach == Reach::Forward {
        services::release(&scene, &mut draft, &routing.traffic);
        duration::track(&scene, &mut draft);
    }
    if runs || facts.create_error.is_some() {
        conditions::update(&scene, &mut draft, &facts);
        tell_pauses(&observed, &mut draft);
    }
    evidence::of_end(&scene, &mut draft, &facts);
    status::conclude(&scene, &mut draft);
    if draft.status.observed_generation != observed.observed_generation {
        // Health is judged by a generation that had been observed before.
        draft.wake_now();
    }
    draft.finish()
}

/// The World in which subsets of a DestinationRule stand among the Services: they lead to pods in the same way, and the
/// same rules keep it safe.
fn with_subsets(world: &World) -> Cow<'_, World> {
    let mut subsets = destination_rule::as_services(&world.rollout, &world.routes);
    for left in former::left(&world.rollout) {
        subsets.extend(destination_rule::as_services(&left.rollout, &world.routes));
    }
    if subsets.is_empty() {
        return Cow::Borrowed(world);
    }
    let mut world = world.clone();
    world.services.extend(subsets.into_iter().map(|subset| (subset.object.name.clone(), subset)));
    Cow::Owned(world)
}

/// Without a template, a selector or a strategy there is nothing to judge, and validation says what is missing.
fn unreadable(mut draft: Draft<'_>, unresolved: Option<String>) -> Plan<RolloutStatus> {
    let rollout = &*draft.world.rollout;
    let first = || validation::resolved(rollout).first().map(|error| validation::message(rollout, error));
    let message = unresolved.or_else(first).unwrap_or_else(|| {
        format!("The Rollout {:?} is invalid", rollout.metadata.name.as_deref().unwrap_or_default())
    });
    conditions::invalid_spec(&mut draft, Some(&message));
    draft.because(message);
    draft.wake_after(draft.world.now, INVALID_RETRY_SECONDS);
    draft.status.observed_generation = rollout.metadata.generation.unwrap_or_default().to_string();
    if let Some((phase, message)) = status::degraded(&draft.status) {
        phase.clone_into(&mut draft.status.phase);
        draft.status.message = message;
    }
    draft.finish()
}

/// Why the new ReplicaSet could not be created, if that was tried and failed.
fn create_error<'a>(scene: &Scene<'a>, draft: &Draft<'a>) -> Option<&'a str> {
    if scene.revisions.new.is_some() {
        return None;
    }
    let object = draft.object(REPLICA_SET, &format!("{}-{}", scene.name(), scene.revisions.hash));
    draft.failure(&object, FailedAction::Create).map(|failure| failure.error.as_str())
}

/// Begins the update to another template, or with other steps.
fn start_over(scene: &Scene<'_>, draft: &mut Draft<'_>, facts: &mut Facts) {
    facts.started_over = true;
    let another = draft.status.current_pod_hash != scene.revisions.hash;
    draft.because(if another { format!("update to {}", scene.revisions.hash) } else { "the steps changed".to_owned() });
    evidence::of_superseded(scene, draft);
    draft.status.current_pod_hash.clone_from(&scene.revisions.hash);
    draft.status.current_step_hash.clone_from(&scene.step_hash);
    pauses::clear(&mut draft.status);
    draft.status.abort = false;
    draft.status.aborted_at = None;
    draft.status.promote_full = false;
    draft.status.restarted_at.clone_from(&scene.rollout.spec.restart_at);
    forget_runs(&mut draft.status);
    draft.status.canary.step_plugin_statuses.clear();
    draft.status.canary.current_experiment.clear();
    draft.status.blue_green.scale_up_preview_check_point = false;
    match scene.blue_green {
        Some(_) => {
            // Which of two Services that take turns is stable has to be known as long as a route leads to them.
            let stable_ping_pong = std::mem::take(&mut draft.status.canary.stable_ping_pong);
            draft.status.canary = CanaryStatus { stable_ping_pong, ..CanaryStatus::default() };
        }
        None => draft.status.blue_green = BlueGreenStatus::default(),
    }
    draft.status.current_step_index = scene.end().map(|_| 0);
    let skip = if scene.is_promoted(&draft.status) {
        Some("Rollback to stable")
    } else if scene.is_rollback_within_window() && scene.revisions.new.is_some_and(|new| new.replicas > 0) {
        Some("Rollback within window")
    } else {
        None
    };
    if skip.is_some() {
        draft.status.current_step_index = scene.end();
        facts.skip = skip.filter(|_| another && scene.end().is_some());
    }
}

/// What users, analysis and deadlines ask of the update that is under way.
fn take_requests(scene: &Scene<'_>, draft: &mut Draft<'_>, facts: &mut Facts) {
    if draft.status.current_step_index > scene.end() {
        draft.status.current_step_index = scene.end();
    }
    if scene.is_promoted(&draft.status) {
        // There is nothing to go back from.
        draft.status.abort = false;
        draft.status.promote_full = false;
        draft.status.aborted_at = None;
        return;
    }
    // A full promotion after an abort ends the abort; an abort after a request for full promotion ends that.
    if draft.status.promote_full && draft.status.aborted_at.is_some() {
        draft.status.abort = false;
    }
    if !draft.status.abort && draft.status.aborted_at.is_some() {
        retry(draft);
    }
    if !draft.status.abort {
        facts.abort_cause = cause_to_abort(scene, draft);
        draft.status.abort = facts.abort_cause.is_some();
    }
    if draft.status.abort {
        abort(scene, draft, facts);
    } else if draft.status.promote_full || scene.is_rollback_within_window() {
        pauses::clear(&mut draft.status);
        draft.status.current_step_index = scene.end();
    }
}

fn retry(draft: &mut Draft<'_>) {
    draft.because("retry after the abort");
    draft.status.aborted_at = None;
    forget_runs(&mut draft.status);
}

/// What earlier runs found counts no more.
fn forget_runs(status: &mut RolloutStatus) {
    status.canary.current_step_analysis_run_status = None;
    status.canary.current_background_analysis_run_status = None;
    status.blue_green.pre_promotion_analysis_run_status = None;
    status.blue_green.post_promotion_analysis_run_status = None;
}

/// Why the update must end although no user has said so.
fn cause_to_abort(scene: &Scene<'_>, draft: &Draft<'_>) -> Option<String> {
    let failed = analysis_runs::verdict(scene, &draft.status).or_else(|| experiments::verdict(scene, &draft.status));
    failed.or_else(|| {
        let late = scene.rollout.spec.progress_deadline_abort
            && !conditions::made_progress(scene.observed, &draft.status)
            && conditions::timed_out(scene, &draft.status);
        late.then(|| conditions::timeout_message(scene))
    })
}

fn abort(scene: &Scene<'_>, draft: &mut Draft<'_>, facts: &Facts) {
    if draft.status.aborted_at.is_none() {
        let cause = facts.abort_cause.as_deref().unwrap_or("a user asked for it");
        draft.because(format!("abort: {cause}"));
        draft.status.aborted_at = Some(time(draft.world.now));
    }
    pauses::clear(&mut draft.status);
    draft.status.promote_full = false;
    draft.status.current_step_index = scene.end().map(|_| 0);
}

/// Tells that a pause has begun or ended. An abort ends pauses too, but resumes nothing.
fn tell_pauses(observed: &RolloutStatus, draft: &mut Draft<'_>) {
    // A user promotes by taking the conditions away: then only the mark that we had paused is left to go. Blue-green keeps
    // that until the promotion is made, but it is told once.
    let promoted = observed.controller_pause && conditions::says_paused(observed);
    let was_paused = !observed.pause_conditions.is_empty() || promoted;
    let is_paused = conditions::says_paused(&draft.status);
    match draft.status.pause_conditions.first() {
        Some(condition) if observed.pause_conditions.is_empty() => {
            let reason = condition.reason.clone();
            draft.event(events::paused(&reason));
        }
        None if was_paused && !is_paused && draft.status.aborted_at.is_none() => {
            draft.event(events::resumed());
        }
        _ => {}
    }
}
