//! The AnalysisRuns of an update: which to start, which to end, which to forget, and what their outcome means.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::json;

use crate::analysis::machine::{self, Silence};
use crate::analysis::spec;
use crate::api::analysis::{AnalysisPhase, AnalysisRun, AnalysisRunSpec};
use crate::api::blue_green::BlueGreenStrategy;
use crate::api::names::{self, INSTANCE_ID, POD_TEMPLATE_HASH, REVISION, ROLLOUT_TYPE, STEP_INDEX};
use crate::api::resource::ANALYSIS_RUN;
use crate::api::rollout::RolloutStatus;
use crate::api::rollout_status::RunStatusRef;
use crate::api::steps::RolloutAnalysis;
use crate::plan::{Action, Basis, FailedAction};

use super::draft::{Draft, after};
use super::scene::Scene;
use super::{blue_green, events, pauses, replicas};

/// What a run is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Step(usize),
    Background,
    PrePromotion,
    PostPromotion,
}

/// One of each kind.
const ROLES: [Role; 4] = [Role::Step(0), Role::Background, Role::PrePromotion, Role::PostPromotion];

impl Role {
    /// As the label `rollout-type` and events have it.
    fn label(self) -> &'static str {
        match self {
            Self::Step(_) => "Step",
            Self::Background => "Background",
            Self::PrePromotion => "PrePromotion",
            Self::PostPromotion => "PostPromotion",
        }
    }

    fn reference(self, status: &RolloutStatus) -> Option<&RunStatusRef> {
        match self {
            Self::Step(_) => status.canary.current_step_analysis_run_status.as_ref(),
            Self::Background => status.canary.current_background_analysis_run_status.as_ref(),
            Self::PrePromotion => status.blue_green.pre_promotion_analysis_run_status.as_ref(),
            Self::PostPromotion => status.blue_green.post_promotion_analysis_run_status.as_ref(),
        }
    }

    fn set_reference(self, status: &mut RolloutStatus, reference: Option<RunStatusRef>) {
        match self {
            Self::Step(_) => status.canary.current_step_analysis_run_status = reference,
            Self::Background => status.canary.current_background_analysis_run_status = reference,
            Self::PrePromotion => status.blue_green.pre_promotion_analysis_run_status = reference,
            Self::PostPromotion => status.blue_green.post_promotion_analysis_run_status = reference,
        }
    }

    fn suffix(self) -> String {
        match self {
            Self::Step(index) => index.to_string(),
            Self::Background => String::new(),
            Self::PrePromotion => "pre".to_owned(),
            Self::PostPromotion => "post".to_owned(),
        }
    }
}

/// The roles that the status asks for now, with their analyses.
fn roles<'a>(scene: &Scene<'a>, status: &RolloutStatus) -> Vec<(Role, &'a RolloutAnalysis)> {
    let updating = !status.stable_rs.is_empty() && !scene.is_promoted(status);
    if !updating || status.promote_full || scene.is_rollback_within_window() {
        return Vec::new();
    }
    if let Some(strategy) = scene.blue_green {
        return promotion_role(scene, strategy, status).into_iter().collect();
    }
    let index = replicas::current_step(scene.canary, status);
    let step = index.and_then(|index| Some((Role::Step(index), scene.canary.steps[index].analysis.as_deref()?)));
    let background = scene.canary.analysis.as_ref().filter(|background| {
        let starting = background.starting_step.unwrap_or(0);
        !background.analysis.templates.is_empty() && status.current_step_index.is_none_or(|index| index >= starting)
    });
    step.into_iter().chain(background.map(|background| (Role::Background, &background.analysis))).collect()
}

/// What is analysed of a blue-green update: before users get the new version, and after. A run begins once that version is
/// complete, and goes on whatever becomes of its pods.
fn promotion_role<'a>(
    scene: &Scene<'a>,
    strategy: &'a BlueGreenStrategy,
    status: &RolloutStatus,
) -> Option<(Role, &'a RolloutAnalysis)> {
    if blue_green::fast_rollback(scene).is_some() {
        return None;
    }
    let (role, analysis, ready) = match blue_green::is_active(scene) {
        true => (Role::PostPromotion, &strategy.post_promotion_analysis, blue_green::is_saturated(scene)),
        false => (Role::PrePromotion, &strategy.pre_promotion_analysis, blue_green::is_ready(scene, strategy, status)),
    };
    let begun = role.reference(status).is_some();
    Some((role, analysis.as_ref().filter(|_| begun || ready)?))
}

/// The run that the status names for a role. A step's run counts for that step only: a user may have skipped it.
fn current<'a>(scene: &Scene<'a>, status: &RolloutStatus, role: Role) -> Option<&'a AnalysisRun> {
    let name = &role.reference(status)?.name;
    let run = scene.world.analysis_runs.iter().find(|run| run.metadata.name.as_ref() == Some(name))?;
    let fits = match role {
        Role::Step(index) => label(run, STEP_INDEX).is_none_or(|label| label == index.to_string()),
        Role::Background | Role::PrePromotion | Role::PostPromotion => true,
    };
    fits.then_some(run.as_ref())
}

/// Why the update must be aborted, if a current run has failed.
pub(super) fn verdict(scene: &Scene<'_>, status: &RolloutStatus) -> Option<String> {
    roles(scene, status).into_iter().find_map(|(role, _)| {
        let run = current(scene, status, role)?.status.as_ref()?;
        let kind = match role {
            Role::Step(_) => "Step-based",
            Role::Background => "Background",
            Role::PrePromotion => "Blue/green pre-promotion",
            Role::PostPromotion => "Blue/green post-promotion",
        };
        matches!(run.phase, AnalysisPhase::Failed | AnalysisPhase::Error)
            .then(|| format!("{kind} analysis phase error/failed: {}", run.message))
    })
}

/// Seconds for which nothing is made of a run that is not taken up, or of a measurement that is due: both are a matter of
/// milliseconds, as long as the provider answers. One that takes longer holds the update until it has answered or its timeout
/// is over, and that is a measurement, too.
const SIGN_SECONDS: i64 = 5;

/// Follows the runs of the update that is under way, starts what is missing and ends what is of no use any more.
/// Returns whether the analysis of the current step was successful.
pub(super) fn follow(scene: &Scene<'_>, draft: &mut Draft<'_>) -> bool {
    let mut successful = false;
    let mut kept = BTreeSet::new();
    let wanted = roles(scene, &draft.status);
    // What was found of a blue-green update is told until the next one begins.
    for unwanted in [Role::Step(0), Role::Background] {
        if !wanted.iter().any(|(role, _)| role.label() == unwanted.label()) {
            unwanted.set_reference(&mut draft.status, None);
        }
    }
    for (role, analysis) in wanted {
        let run = current(scene, &draft.status, role);
        if let Some(run) = run {
            note(draft, role, run);
            kept.insert(name(run).to_owned());
        }
        let paused = match role {
            Role::Step(_) => !draft.status.pause_conditions.is_empty(),
            _ => pauses::find(&draft.status, pauses::INCONCLUSIVE).is_some(),
        };
        let inconclusive = run.is_some_and(|run| phase(run) == AnalysisPhase::Inconclusive);
        let resumed = inconclusive && draft.status.controller_pause && draft.status.pause_conditions.is_empty();
        if !paused && (run.is_none() || resumed) {
            kept.extend(start(scene, draft, role, analysis));
        } else if inconclusive {
            pauses::enter(draft, pauses::INCONCLUSIVE);
        } else if matches!(role, Role::Step(_)) {
            successful = run.is_some_and(|run| phase(run) == AnalysisPhase::Successful);
        }
        expect_a_sign(draft, role, run);
        if let (Role::Background, Some(run)) = (role, run) {
            hear(draft, run);
        }
    }
    end_others(scene, draft, &kept);
    kept.extend(ROLES.into_iter().filter_map(|role| Some(role.reference(&draft.status)?.name.clone())));
    forget(scene, draft, &kept);
    successful
}

/// Holds the update while nobody judges it: its run in the background has not been taken up, or what it was to measure is
/// not there. A run to whose status nothing can be written would let every version pass. The runs of steps and promotions
/// hold it by themselves.
fn expect_a_sign(draft: &mut Draft<'_>, role: Role, run: Option<&AnalysisRun>) {
    let begun = run.filter(|run| phase(run) != AnalysisPhase::None);
    draft.unjudged |= role == Role::Background && begun.is_none();
    let due = begun.map_or_else(|| run.and_then(created), |run| machine::due(draft.world.now, run));
    let (Some(run), Some(due)) = (run, due) else { return };
    let late = after(due, SIGN_SECONDS);
    if draft.world.now < late {
        draft.wake_at(late);
        return;
    }
    draft.unjudged |= role == Role::Background;
    let name = name(run);
    draft.doubt = Some(match begun {
        None => format!(
            "AnalysisRun {name} judges nothing yet: its status is empty since it was created; may the controller write it?"
        ),
        Some(_) => format!(
            "AnalysisRun {name} judges nothing any more: what it was to measure at {due} is not in its status; \
             does its provider answer, and may the controller write it?"
        ),
    });
}

/// Takes note of how much a run in the background can have seen of the update.
fn hear(draft: &mut Draft<'_>, run: &AnalysisRun) {
    draft.analysed_since = run.status.as_ref().and_then(|status| status.started_at.as_ref()).map(|started| started.0);
    draft.unheard = machine::silence(draft.world.now, run).map(|silence| {
        let Silence { metric, until, errors, in_flight } = silence;
        let (run, so_far) = (name(run), if errors { " but errors" } else { "" });
        let what = format!("AnalysisRun {run} has found nothing{so_far} of metric \"{metric}\" yet");
        let end = match in_flight {
            true => format!("which is being measured: waiting for it until {until}"),
            false if until > draft.world.now => format!("which is measured at {until}"),
            // What is measured for too long already is told anyway.
            false => "which is being measured".to_owned(),
        };
        (format!("{what}, {end}"), until)
    });
}

/// Whether an update with all its pods is at its end, and the run in the background has found nothing yet.
pub(super) fn is_awaited(scene: &Scene<'_>, status: &RolloutStatus) -> bool {
    let last = replicas::current_step(scene.canary, status).is_none_or(|index| index + 1 == scene.canary.steps.len());
    let complete = || scene.revisions.new.is_some_and(|new| new.status.available >= new.replicas);
    let run = || current(scene, status, Role::Background);
    last && complete() && run().is_some_and(|run| machine::silence(scene.world.now, run).is_some())
}

/// Ends every run: nothing is being judged any more. `aborting` tells that this decision is the one that aborts.
pub(super) fn end_all(scene: &Scene<'_>, draft: &mut Draft<'_>, aborting: bool) {
    let mut kept = BTreeSet::new();
    for role in ROLES {
        let Some(named) = role.reference(&draft.status).map(|reference| reference.name.clone()) else { continue };
        let run = scene.world.analysis_runs.iter().find(|run| run.metadata.name.as_ref() == Some(&named));
        if let Some(run) = run {
            kept.insert(named);
            let told = draft.events.len();
            note(draft, role, run);
            if !aborting {
                draft.events.truncate(told);
            }
        }
    }
    end_others(scene, draft, &BTreeSet::new());
    forget(scene, draft, &kept);
}

/// Takes over the phase of a current run.
fn note(draft: &mut Draft<'_>, role: Role, run: &AnalysisRun) {
    let status = run.status.clone().unwrap_or_default();
    let previous = role.reference(&draft.status).filter(|reference| reference.name == name(run));
    let previous = previous.map(|reference| reference.status);
    if status.phase != AnalysisPhase::None && previous != Some(status.phase) {
        draft.event(events::analysis(role.label(), name(run), status.phase, previous));
    }
    let reference = RunStatusRef { name: name(run).to_owned(), status: status.phase, message: status.message };
    role.set_reference(&mut draft.status, Some(reference));
}

/// Starts a run, or takes up one of that name and spec that is still going. Returns its name.
fn start(scene: &Scene<'_>, draft: &mut Draft<'_>, role: Role, analysis: &RolloutAnalysis) -> Option<String> {
    // Nothing is judged before the new ReplicaSet exists.
    scene.revisions.new?;
    let spec = match spec::for_rollout(analysis, scene.source()) {
        Ok(spec) => spec,
        Err(error) => {
            draft.event(events::reconcile_failed(&error.to_string()));
            draft.wait(format!("no {} analysis can be made: {error}", role.label()));
            return None;
        }
    };
    let base = spec::run_name(scene.name(), &scene.revisions.hash, scene.revisions.number(), &role.suffix());
    for collisions in 0.. {
        let name = spec::collision_name(&base, collisions);
        let object = draft.object(ANALYSIS_RUN, &name);
        let existing = scene.world.analysis_runs.iter().find(|run| run.metadata.name.as_ref() == Some(&name));
        if let Some(existing) = existing {
            if phase(existing).completed() || !spec::semantically_equal(&existing.spec, &spec) {
                continue;
            }
            draft.because(format!("take up {object}"));
            note(draft, role, existing);
            return Some(name);
        }
        match draft.failure(&object, FailedAction::Create) {
            Some(failure) if failure.error.to_lowercase().contains("already exists") => continue,
            Some(failure) => {
                let message = format!("{object} cannot be created: {}", failure.error);
                draft.event(events::reconcile_failed(&message));
                match role {
                    // No pause ends before it, so it is told also while the Rollout pauses.
                    Role::Background => draft.doubt = Some(message),
                    _ => draft.wait(message),
                }
            }
            None => {
                let reference = RunStatusRef { name: name.clone(), ..RunStatusRef::default() };
                role.set_reference(&mut draft.status, Some(reference));
            }
        }
        draft.because(format!("start {object}"));
        let body = body(scene, role, analysis, &name, &spec);
        draft.act(Action::Create { object, body }, None);
        return Some(name);
    }
    None
}

fn body(
    scene: &Scene<'_>,
    role: Role,
    analysis: &RolloutAnalysis,
    name: &str,
    spec: &AnalysisRunSpec,
) -> serde_json::Value {
    let metadata = &analysis.analysis_run_metadata;
    let mut labels = metadata.labels.clone();
    labels.extend(scene.desired.selector.match_labels.clone().unwrap_or_default());
    labels.insert(POD_TEMPLATE_HASH.to_owned(), scene.revisions.hash.clone());
    labels.insert(ROLLOUT_TYPE.to_owned(), role.label().to_owned());
    if let Role::Step(index) = role {
        labels.insert(STEP_INDEX.to_owned(), index.to_string());
    }
    if let Some(id) = scene.rollout.metadata.labels.as_ref().and_then(|labels| labels.get(INSTANCE_ID)) {
        labels.insert(INSTANCE_ID.to_owned(), id.clone());
    }
    let mut annotations: BTreeMap<String, String> = metadata.annotations.clone();
    annotations.insert(REVISION.to_owned(), scene.revisions.number().to_string());
    json!({
        "apiVersion": names::API_VERSION,
        "kind": "AnalysisRun",
        "metadata": {
            "name": name,
            "namespace": scene.namespace(),
            "labels": labels,
            "annotations": annotations,
            "ownerReferences": [scene.world.rollout.owner_reference()],
        },
        "spec": spec,
    })
}

fn end_others(scene: &Scene<'_>, draft: &mut Draft<'_>, kept: &BTreeSet<String>) {
    for run in &scene.world.analysis_runs {
        if kept.contains(name(run)) || phase(run).completed() || run.spec.terminate || is_going(run) {
            continue;
        }
        draft.because(format!("end AnalysisRun {}", name(run)));
        let patch = json!({ "spec": { "terminate": true } });
        let object = basis(draft, run);
        draft.act(Action::MergePatch { object, patch, what: "terminate".to_owned() }, None);
    }
}

/// Deletes what no history keeps: runs of ReplicaSets that are gone, and finished ones beyond the limits, oldest first.
fn forget(scene: &Scene<'_>, draft: &mut Draft<'_>, kept: &BTreeSet<String>) {
    let limits = scene.rollout.spec.analysis.as_ref();
    let limit = |limit: Option<i32>| limit.unwrap_or(5).max(0);
    let mut room_successful = limit(limits.and_then(|limits| limits.successful_run_history_limit));
    let mut room_unsuccessful = limit(limits.and_then(|limits| limits.unsuccessful_run_history_limit));
    let alive: BTreeSet<&str> =
        scene.revisions.all().filter(|set| !set.deleting).map(super::world::ReplicaSet::hash).collect();
    let mut runs: Vec<&Arc<AnalysisRun>> =
        scene.world.analysis_runs.iter().filter(|run| !kept.contains(name(run)) && !is_going(run)).collect();
    runs.sort_by(|a, b| created(b).cmp(&created(a)).then_with(|| name(a).cmp(name(b))));
    for run in runs {
        let orphaned = label(run, POD_TEMPLATE_HASH).is_none_or(|hash| !alive.contains(hash));
        let room = match phase(run) {
            AnalysisPhase::Successful => Some(&mut room_successful),
            phase if phase.completed() => Some(&mut room_unsuccessful),
            _ => None,
        };
        let what = match room {
            _ if orphaned => "its ReplicaSet is gone",
            Some(room) if *room <= 0 => "beyond the history limit",
            Some(room) => {
                *room -= 1;
                continue;
            }
            None => continue,
        };
        draft.because(format!("delete AnalysisRun {}", name(run)));
        let object = basis(draft, run);
        draft.act(Action::Delete { object, what: what.to_owned() }, None);
    }
}

fn basis(draft: &Draft<'_>, run: &AnalysisRun) -> Basis {
    // No resourceVersion: the status of a run lives in the same object and changes all the time.
    let uid = run.metadata.uid.clone().unwrap_or_default();
    Basis { object: draft.object(ANALYSIS_RUN, name(run)), uid, resource_version: None }
}

fn name(run: &AnalysisRun) -> &str {
    run.metadata.name.as_deref().unwrap_or_default()
}

fn label<'a>(run: &'a AnalysisRun, key: &str) -> Option<&'a str> {
    run.metadata.labels.as_ref()?.get(key).map(String::as_str)
}

fn phase(run: &AnalysisRun) -> AnalysisPhase {
    run.status.as_ref().map_or(AnalysisPhase::None, |status| status.phase)
}

fn created(run: &AnalysisRun) -> Option<Timestamp> {
    run.metadata.creation_timestamp.as_ref().map(|created| created.0)
}

fn is_going(run: &AnalysisRun) -> bool {
    run.metadata.deletion_timestamp.is_some()
}
