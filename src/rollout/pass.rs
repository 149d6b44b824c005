//! What both strategies do alike in a pass: take in, make and scale ReplicaSets, ask the guard, promote.

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::json;

use crate::api::names::{DESIRED_REPLICAS, RELEASE_BEFORE};
use crate::api::rollout::RolloutStatus;
use crate::plan::{Action, Event, FailedAction};

use super::conditions::{self, Facts};
use super::draft::Draft;
use super::guard::{self, Admitted, Proposal};
use super::scale_down::Wishes;
use super::scene::Scene;
use super::traffic::Routing;
use super::world::ReplicaSet;
use super::{World, events, evidence, metadata, pauses, restart, revision, services, workload};

/// How far a decision may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// All the way.
    Forward,
    /// Something is wrong with the spec or with what it names: only back to stable.
    Back,
}

/// Takes in orphans, makes the new ReplicaSet, and keeps its annotations and the revision up to date.
pub(super) fn claim(scene: &Scene<'_>, draft: &mut Draft<'_>, reach: Reach, size: i32, facts: &mut Facts) {
    for action in revision::claim(scene.world, &scene.revisions) {
        draft.because(action.to_string());
        draft.act(action, None);
    }
    let number = scene.revisions.number();
    if reach == Reach::Back {
        draft.events.extend(facts.skip.map(events::skip_steps));
        return;
    }
    if let Some(action) = revision::annotate_rollout(scene.world, &scene.revisions) {
        draft.act(action, Some(events::updated(number)));
    }
    if let Some(mut action) = revision::update(scene.world, &scene.revisions) {
        draft.because(action.to_string());
        // Only where there is a write anyway.
        if let (Action::MergePatch { patch, .. }, Some(record)) =
            (&mut action, evidence::to_carry(&draft.status, facts))
        {
            patch["metadata"]["annotations"][RELEASE_BEFORE] = json!(record);
        }
        draft.act(action, None);
    }
    draft.events.extend(facts.skip.map(events::skip_steps));
    let scaled = scene.revisions.new.is_none().then(|| create(scene, draft, size, facts));
    if let Some(new) = scene.revisions.new
        && conditions::says_not_created(&draft.status, &new.name)
    {
        // What failed has succeeded when it was tried again, which no condition says yet.
        facts.created = Some(new.name.clone());
    }
    // A first blue-green version is promoted in this same pass, so nothing has begun that is not completed.
    let promotes = scene.blue_green.is_some() && draft.status.stable_rs.is_empty() || scene.is_promoted(&draft.status);
    if facts.started_over && !promotes && !conditions::says_not_completed(&draft.status) {
        draft.event(events::not_completed(number, &scene.revisions.hash));
    }
    draft.events.extend(scaled.flatten());
}

/// Deals with the pods that are there rather than with how many there are: those of a Deployment that goes, those that
/// need other metadata, those that are to be restarted.
pub(super) fn look_after_pods(scene: &Scene<'_>, draft: &mut Draft<'_>, routing: &Routing<'_>, admitted: &Admitted) {
    workload::take_over(scene, draft, &routing.traffic);
    metadata::sync(draft, &scene.rollout.spec.strategy, &scene.revisions);
    restart::follow(scene, draft, &routing.traffic, admitted);
}

/// Creates the new ReplicaSet, and answers the event of its being scaled. It has its size at once: nothing stands on its
/// being empty first, and that saves a write for every update.
fn create(scene: &Scene<'_>, draft: &mut Draft<'_>, size: i32, facts: &mut Facts) -> Option<Event> {
    let mut action = revision::create(scene.world, &scene.revisions, scene.desired);
    let name = action.object().name.clone();
    if let Action::Create { body, .. } = &mut action {
        body["spec"]["replicas"] = json!(size);
        body["metadata"]["annotations"][DESIRED_REPLICAS] = json!(scene.replicas.to_string());
        if let Some(record) = evidence::to_carry(&draft.status, facts) {
            body["metadata"]["annotations"][RELEASE_BEFORE] = json!(record);
        }
    }
    let number = scene.revisions.number();
    draft.because(format!("create ReplicaSet {name} (revision {number}) with {size} pods"));
    let scaled = (size > 0).then(|| events::scaled(&name, number, 0, size).of(&action));
    draft.act(action, Some(events::created(&name, number)));
    facts.created = Some(name);
    scaled
}

/// Tries again to create the new ReplicaSet; until that succeeds, the update does not begin.
pub(super) fn retry_create(scene: &Scene<'_>, draft: &mut Draft<'_>, facts: &mut Facts, error: &str) {
    let action = revision::create(scene.world, &scene.revisions, scene.desired);
    let message = format!("Failed to create new replica set \"{}\": {error}", action.object().name);
    draft.because(message.as_str());
    draft.event(events::create_failed(&message));
    let created = events::created(&action.object().name, scene.revisions.number());
    draft.act(action, Some(created));
    facts.create_error = Some(message);
}

/// Asks the guard for what is safe, and says what has to wait.
pub(super) fn admit(scene: &Scene<'_>, draft: &mut Draft<'_>, routing: &Routing<'_>, proposal: Proposal) -> Admitted {
    let decided = as_decided(scene, &draft.status);
    let admitted = guard::admit(&decided, &scene.revisions, &routing.traffic, proposal);
    for hold in &admitted.holds {
        draft.wait(hold.to_string());
    }
    if let Some(wake) = admitted.wake() {
        draft.wake_at(wake);
    }
    admitted
}

/// The World with what this decision has made of it so far: the guard is to know of an abort that has just been decided.
fn as_decided<'a>(scene: &Scene<'a>, status: &RolloutStatus) -> Cow<'a, World> {
    let of = |status: &RolloutStatus| (status.abort, status.promote_full, status.current_step_index);
    if of(status) == of(scene.observed) {
        return Cow::Borrowed(scene.world);
    }
    let mut world = scene.world.clone();
    Arc::make_mut(&mut world.rollout).status = Some(status.clone());
    Cow::Owned(world)
}

/// Scales what may be scaled: stable, new, the others.
pub(super) fn scale(scene: &Scene<'_>, draft: &mut Draft<'_>, admitted: &Admitted, wishes: &Wishes) {
    for set in scene.revisions.all() {
        let mut annotations = wishes.annotations.get(&set.name).cloned().unwrap_or_default();
        let Some(action) = admitted.scale(scene.world, set, annotations.clone()) else {
            let active = set.replicas > 0 && !scene.revisions.others.iter().any(|other| other.name == set.name);
            if active {
                annotations.insert(DESIRED_REPLICAS.to_owned(), Some(scene.replicas.to_string()));
            }
            draft.annotate(set, &annotations);
            continue;
        };
        let Action::Scale { from, to, .. } = action else { continue };
        if from == to {
            draft.act(action, None);
            continue;
        }
        draft.because(format!("scale {} from {from} to {to}", set.name));
        if let Some(failure) = draft.failure(action.object(), FailedAction::Scale) {
            draft.event(events::update_failed(&set.name, &failure.error));
            draft.wait(format!("{} cannot be scaled: {}", set.name, failure.error));
        }
        let confirm = admitted.confirm.get(&set.name).cloned().unwrap_or_default();
        draft.act(action.confirmed(confirm), Some(events::scaled(&set.name, number(scene, set), from, to)));
    }
}

/// The revision of a ReplicaSet; of the new one that which it gets in this pass.
fn number(scene: &Scene<'_>, set: &ReplicaSet) -> i64 {
    if scene.revisions.new.is_some_and(|new| new.name == set.name) { scene.revisions.number() } else { set.revision() }
}

pub(super) fn promote(scene: &Scene<'_>, draft: &mut Draft<'_>, reason: String) {
    let hash = scene.revisions.hash.clone();
    draft.event(events::completed(scene.revisions.number(), &hash, &reason));
    draft.because(format!("{hash} becomes stable ({reason})"));
    pauses::clear(&mut draft.status);
    draft.status.abort = false;
    draft.status.promote_full = false;
    draft.status.current_step_index = scene.end();
    draft.status.stable_rs = hash;
    draft.promoted = Some(reason);
    if scene.canary.ping_pong.is_some() {
        services::take_turns(&mut draft.status);
    }
    draft.wake_now();
}
