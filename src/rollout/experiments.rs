//! The Experiments of an update: which to start for a step, which to end, which to forget, and what their outcome means.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::analysis::spec::{self, SpecError};
use crate::api::analysis::AnalysisPhase;
use crate::api::experiment::{
    Experiment, ExperimentAnalysis, ExperimentSpec, ExperimentTemplate, ExperimentTemplateStatus, template_status,
};
use crate::api::names::{API_VERSION, POD_TEMPLATE_HASH, REVISION};
use crate::api::resource::EXPERIMENT;
use crate::api::rollout::RolloutStatus;
use crate::api::rollout_status::WeightDestination;
use crate::api::steps::{ExperimentStep, ExperimentStepTemplate, TemplateService};
use crate::plan::{Action, Basis, FailedAction};

use super::draft::Draft;
use super::guard::Traffic;
use super::scene::Scene;
use super::world::{ReplicaSet, World};
use super::{events, pauses, replicas};

/// The step of an experiment, if the update is at one.
fn step<'a>(scene: &Scene<'a>, status: &RolloutStatus) -> Option<(usize, &'a ExperimentStep)> {
    let updating = !status.stable_rs.is_empty() && !scene.is_promoted(status);
    if !updating || status.promote_full || scene.is_rollback_within_window() {
        return None;
    }
    let index = replicas::current_step(scene.canary, status)?;
    Some((index, scene.canary.steps[index].experiment.as_ref()?))
}

/// The experiment that the status names, if it is one of the current step: a user may have skipped another one.
fn current<'a>(scene: &Scene<'a>, status: &RolloutStatus) -> Option<&'a Arc<Experiment>> {
    let (index, _) = step(scene, status)?;
    let named = status.canary.current_experiment.as_str();
    let suffix = named.strip_prefix(&base_name(scene, index))?;
    let fits = suffix.is_empty() || suffix.strip_prefix('-').is_some_and(|count| count.parse::<u32>().is_ok());
    scene.world.experiments.iter().find(|experiment| fits && name(experiment) == named)
}

/// Why the update must be aborted, if the current experiment has failed.
pub(super) fn verdict(scene: &Scene<'_>, status: &RolloutStatus) -> Option<String> {
    let experiment = current(scene, status)?;
    let message = experiment.status.as_ref().map_or("", |status| &status.message);
    matches!(phase(experiment), AnalysisPhase::Failed | AnalysisPhase::Error)
        .then(|| format!("experiment analysis phase is error/failed: {message}"))
}

/// Weights that a step asks for, of the templates whose pods are all there: by name of the Service.
pub(super) fn weights(scene: &Scene<'_>, status: &RolloutStatus) -> BTreeMap<String, i32> {
    let Some(((_, step), experiment)) = step(scene, status).zip(current(scene, status)) else { return BTreeMap::new() };
    if status.abort || phase(experiment) != AnalysisPhase::Running || is_ending(experiment) {
        return BTreeMap::new();
    }
    let weighted = step.templates.iter().filter_map(|template| Some((&template.name, template.weight?)));
    weighted
        .filter_map(|(name, weight)| {
            let running = running(experiment).find(|status| status.name == *name)?;
            Some((running.service_name.clone(), weight))
        })
        .collect()
}

/// The weights that routes were seen to give the Services of experiments, the largest of each.
pub(super) fn observed_weights(world: &World, traffic: &Traffic<'_>) -> Vec<WeightDestination> {
    let mut weights: BTreeMap<&str, i32> = BTreeMap::new();
    let left = traffic.left.iter().filter_map(|left| left.observed.as_ref().ok());
    let observed = traffic.routers.iter().flatten().chain(left);
    for (service, weight) in observed.flat_map(|observed| &observed.split.additional) {
        let known = weights.entry(service).or_default();
        *known = (*known).max(*weight);
    }
    let templates =
        || world.experiments.iter().filter_map(|it| it.status.as_ref()).flat_map(|it| &it.template_statuses);
    let hash = |service: &str| templates().find(|template| template.service_name == service);
    let destinations = weights.into_iter().filter(|(_, weight)| *weight > 0);
    destinations
        .map(|(service, weight)| WeightDestination {
            weight,
            service_name: service.to_owned(),
            pod_template_hash: hash(service).map_or_else(String::new, |template| template.pod_template_hash.clone()),
        })
        .collect()
}

/// Follows the experiment of the step, starts it if there is none, and ends those that are of no use any more. Returns
/// whether the experiment of the current step was successful.
pub(super) fn follow(scene: &Scene<'_>, draft: &mut Draft<'_>) -> bool {
    let mut successful = false;
    let mut kept = None;
    if let Some((index, step)) = step(scene, &draft.status) {
        let paused = !draft.status.pause_conditions.is_empty();
        let experiment = current(scene, &draft.status);
        kept = experiment.map(|experiment| name(experiment).to_owned());
        match experiment {
            None if paused => {}
            None => kept = start(scene, draft, index, step),
            Some(experiment) => match phase(experiment) {
                AnalysisPhase::Successful => successful = true,
                // A person has looked at what could not be told and said: go on.
                AnalysisPhase::Inconclusive if draft.status.controller_pause && !paused => successful = true,
                AnalysisPhase::Inconclusive => pauses::enter(draft, pauses::INCONCLUSIVE_EXPERIMENT),
                _ => wait(draft, experiment),
            },
        }
    }
    draft.status.canary.current_experiment = kept.clone().unwrap_or_default();
    end_others(scene, draft, kept.as_deref());
    forget(scene, draft, kept.as_deref());
    successful
}

/// Ends every experiment: the update is over, or nothing is to be tried any more.
pub(super) fn end_all(scene: &Scene<'_>, draft: &mut Draft<'_>) {
    draft.status.canary.current_experiment.clear();
    end_others(scene, draft, None);
    forget(scene, draft, None);
}

/// Says what the step waits for, and until when.
fn wait(draft: &mut Draft<'_>, experiment: &Experiment) {
    let status = experiment.status.clone().unwrap_or_default();
    let mut what = format!("Experiment {} is {}", name(experiment), pending(status.phase));
    let duration =
        experiment.spec.duration.as_deref().and_then(|text| text.parse::<crate::api::duration::GoDuration>().ok());
    if let (Some(available), Some(duration)) = (&status.available_at, duration)
        && let Ok(end) = available.0.checked_add(SignedDuration::from(duration))
    {
        what.push_str(&format!(" until {end}"));
    }
    let invalid = status.conditions.iter().find(|condition| condition.type_ == "InvalidSpec");
    let why = invalid.map_or(status.message.as_str(), |condition| &condition.message);
    if !why.is_empty() {
        what.push_str(&format!(": {why}"));
    }
    draft.wait(what);
}

/// Starts the experiment of a step, or takes up one of that name and spec that is still going. Returns its name.
fn start(scene: &Scene<'_>, draft: &mut Draft<'_>, index: usize, step: &ExperimentStep) -> Option<String> {
    let (stable, new) = scene.revisions.stable.zip(scene.revisions.new)?;
    let spec = match experiment(scene, step, stable, new) {
        Ok(spec) => spec,
        Err(error) => {
            draft.event(events::reconcile_failed(&error.to_string()));
            draft.wait(format!("no Experiment can be made: {error}"));
            return None;
        }
    };
    let base = base_name(scene, index);
    for collisions in 0.. {
        let name = if collisions == 0 { base.clone() } else { format!("{base}-{collisions}") };
        let object = draft.object(EXPERIMENT, &name);
        if let Some(existing) = scene.world.experiments.iter().find(|it| self::name(it) == name) {
            // One that is on its way out ends as a success without having tried anything.
            if phase(existing).completed() || is_ending(existing) || !is_equal(&existing.spec, &spec) {
                continue;
            }
            draft.because(format!("take up {object}"));
            return Some(name);
        }
        let body = body(scene, &name, &spec);
        let failure = draft.failure(&object, FailedAction::Create);
        if failure.is_some_and(|failure| failure.error.to_lowercase().contains("already exists")) {
            continue;
        }
        draft.because(format!("start {object}"));
        draft.act(Action::Create { object: object.clone(), body }, Some(events::experiment_created(&name)));
        let Some(failure) = failure else { return Some(name) };
        let message = format!("{object} cannot be created: {}", failure.error);
        draft.event(events::reconcile_failed(&message));
        draft.wait(message);
        return None;
    }
    None
}

/// What a step asks for, as an Experiment: pods copied from the stable or the new ReplicaSet.
fn experiment(
    scene: &Scene<'_>,
    step: &ExperimentStep,
    stable: &ReplicaSet,
    new: &ReplicaSet,
) -> Result<ExperimentSpec, SpecError> {
    let analyses = step.analyses.iter().map(|analysis| {
        Ok(ExperimentAnalysis {
            name: analysis.name.clone(),
            template_name: analysis.template_name.clone(),
            cluster_scope: analysis.cluster_scope,
            args: spec::arguments_of_rollout(&analysis.args, scene.source())?,
            required_for_completion: analysis.required_for_completion,
        })
    });
    let copied =
        |template: &ExperimentStepTemplate| copy(template, if template.spec_ref == "stable" { stable } else { new });
    Ok(ExperimentSpec {
        templates: step.templates.iter().map(copied).collect(),
        duration: step.duration.clone(),
        progress_deadline_seconds: scene.rollout.spec.progress_deadline_seconds,
        analyses: analyses.collect::<Result<_, SpecError>>()?,
        scale_down_delay_seconds: step.scale_down_delay_seconds,
        dry_run: step.dry_run.clone(),
        analysis_run_metadata: step.analysis_run_metadata.clone(),
        ..ExperimentSpec::default()
    })
}

/// The pods of a ReplicaSet as a template of an experiment. The hash label goes along: the experiment takes it off.
fn copy(template: &ExperimentStepTemplate, replica_set: &ReplicaSet) -> ExperimentTemplate {
    let metadata = &template.metadata;
    let mut selector = template.selector.clone().unwrap_or_else(|| replica_set.selector.clone());
    if !metadata.labels.is_empty() {
        selector.match_labels.get_or_insert_default().extend(metadata.labels.clone());
    }
    let named = template.service.as_ref().and_then(|service| service.name.clone());
    let has_service = template.weight.is_some() || template.service.is_some();
    ExperimentTemplate {
        name: template.name.clone(),
        replicas: template.replicas,
        min_ready_seconds: replica_set.min_ready_seconds,
        selector: Some(selector),
        template: Some(replica_set.template.with_metadata(&metadata.labels, &metadata.annotations)),
        service: has_service.then_some(TemplateService { name: named }),
    }
}

fn body(scene: &Scene<'_>, name: &str, spec: &ExperimentSpec) -> Value {
    // The instance id is one of the Rollout's labels.
    let mut labels = scene.rollout.metadata.labels.clone().unwrap_or_default();
    labels.insert(POD_TEMPLATE_HASH.to_owned(), scene.revisions.hash.clone());
    json!({
        "apiVersion": API_VERSION,
        "kind": EXPERIMENT.kind,
        "metadata": {
            "name": name,
            "namespace": scene.namespace(),
            "labels": labels,
            "annotations": { (REVISION): scene.revisions.number().to_string() },
            "ownerReferences": [scene.rollout.owner_reference()],
        },
        "spec": spec,
    })
}

fn end_others(scene: &Scene<'_>, draft: &mut Draft<'_>, kept: Option<&str>) {
    for experiment in &scene.world.experiments {
        let is_kept = kept == Some(name(experiment));
        if is_kept || phase(experiment).completed() || is_ending(experiment) {
            continue;
        }
        draft.because(format!("end Experiment {}", name(experiment)));
        let patch = json!({ "spec": { "terminate": true } });
        let object = basis(draft, experiment);
        draft.act(Action::MergePatch { object, patch, what: "terminate".to_owned() }, None);
    }
}

/// Deletes what no history keeps: of those that have ended, the ones of ReplicaSets that are gone, and those beyond the
/// limits, oldest first.
fn forget(scene: &Scene<'_>, draft: &mut Draft<'_>, kept: Option<&str>) {
    let limits = scene.rollout.spec.analysis.as_ref();
    let limit = |limit: Option<i32>| limit.unwrap_or(5).max(0);
    let mut room_successful = limit(limits.and_then(|limits| limits.successful_run_history_limit));
    let mut room_unsuccessful = limit(limits.and_then(|limits| limits.unsuccessful_run_history_limit));
    let alive: BTreeSet<&str> = scene.revisions.all().filter(|set| !set.deleting).map(ReplicaSet::hash).collect();
    let ended = |experiment: &&Arc<Experiment>| {
        let is_kept = kept == Some(name(experiment));
        !is_kept && phase(experiment).completed() && experiment.metadata.deletion_timestamp.is_none()
    };
    let mut experiments: Vec<&Arc<Experiment>> = scene.world.experiments.iter().filter(ended).collect();
    experiments.sort_by(|a, b| created(b).cmp(&created(a)).then_with(|| name(a).cmp(name(b))));
    for experiment in experiments {
        let hash = experiment.metadata.labels.as_ref().and_then(|labels| labels.get(POD_TEMPLATE_HASH));
        let room = match phase(experiment) {
            AnalysisPhase::Successful => &mut room_successful,
            _ => &mut room_unsuccessful,
        };
        let what = if hash.is_none_or(|hash| !alive.contains(hash.as_str())) {
            "its ReplicaSet is gone"
        } else if *room > 0 {
            *room -= 1;
            continue;
        } else {
            "beyond the history limit"
        };
        draft.because(format!("delete Experiment {}", name(experiment)));
        let object = basis(draft, experiment);
        draft.act(Action::Delete { object, what: what.to_owned() }, None);
    }
}

/// Whether an unfinished experiment is the wanted one: what is tried and how counts.
fn is_equal(left: &ExperimentSpec, right: &ExperimentSpec) -> bool {
    left.templates == right.templates
        && left.duration == right.duration
        && left.progress_deadline_seconds == right.progress_deadline_seconds
        && left.analyses == right.analyses
}

/// The templates of an experiment whose pods are all available.
pub(super) fn running(experiment: &Experiment) -> impl Iterator<Item = &ExperimentTemplateStatus> {
    let statuses = experiment.status.iter().flat_map(|status| &status.template_statuses);
    let there = |status: &&ExperimentTemplateStatus| {
        status.status == template_status::RUNNING && status.available_replicas > 0 && !status.service_name.is_empty()
    };
    statuses.filter(there)
}

/// `ROLLOUT-HASH-REVISION-STEP`
fn base_name(scene: &Scene<'_>, index: usize) -> String {
    spec::run_name(scene.name(), &scene.revisions.hash, scene.revisions.number(), &index.to_string())
}

fn basis(draft: &Draft<'_>, experiment: &Experiment) -> Basis {
    // No resourceVersion: the status lives in the same object and changes all the time.
    let uid = experiment.metadata.uid.clone().unwrap_or_default();
    Basis { object: draft.object(EXPERIMENT, name(experiment)), uid, resource_version: None }
}

fn name(experiment: &Experiment) -> &str {
    experiment.metadata.name.as_deref().unwrap_or_default()
}

fn phase(experiment: &Experiment) -> AnalysisPhase {
    experiment.status.as_ref().map_or(AnalysisPhase::None, |status| status.phase)
}

fn pending(phase: AnalysisPhase) -> AnalysisPhase {
    if phase == AnalysisPhase::None { AnalysisPhase::Pending } else { phase }
}

/// Whether somebody has told it to end, or it is being deleted.
fn is_ending(experiment: &Experiment) -> bool {
    experiment.spec.terminate || experiment.metadata.deletion_timestamp.is_some()
}

fn created(experiment: &Experiment) -> Option<Timestamp> {
    experiment.metadata.creation_timestamp.as_ref().map(|created| created.0)
}
