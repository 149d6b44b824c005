//! The analyses of an Experiment: each makes one AnalysisRun, once all templates are available.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use crate::analysis::spec;
use crate::api::analysis::{AnalysisPhase, AnalysisRun, AnalysisRunSpec};
use crate::api::experiment::{ExperimentAnalysis, ExperimentRunStatus};
use crate::api::names::{API_VERSION, INSTANCE_ID};
use crate::api::resource::{ANALYSIS_RUN, ANALYSIS_TEMPLATE, CLUSTER_ANALYSIS_TEMPLATE};
use crate::plan::{Action, Basis, Event};

use super::decide::transition;
use super::draft::Draft;
use super::placeholders;

/// Starts, follows and ends the run of an analysis.
pub(super) fn reconcile(draft: &mut Draft<'_>, analysis: &ExperimentAnalysis) {
    let before = draft.observed.analysis_runs.iter().find(|run| run.name == analysis.name).cloned();
    let before =
        before.unwrap_or_else(|| ExperimentRunStatus { name: analysis.name.clone(), ..ExperimentRunStatus::default() });
    let mut status = before.clone();
    if !before.analysis_run.is_empty() {
        follow(draft, &mut status);
    } else if !draft.ending && !before.phase.completed() {
        let begun = if draft.observed.available_at.is_some() {
            start(draft, analysis, &mut status)
        } else {
            verify(draft, analysis)
        };
        if let Err(message) = begun {
            status.phase = AnalysisPhase::Error;
            status.message = message;
        }
    }
    if before.phase != status.phase && status.phase != AnalysisPhase::None {
        let what = format!("AnalysisRun '{}'", analysis.name);
        let message = transition(&what, before.phase.as_str(), status.phase.as_str(), &status.message);
        let warning = status.phase.completed() && status.phase != AnalysisPhase::Successful;
        draft.events.push(Event { warning, reason: format!("AnalysisRun{}", status.phase), message, of: None });
    }
    if status.phase == AnalysisPhase::None && status.message.is_empty() {
        return;
    }
    match draft.status.analysis_runs.iter_mut().find(|known| known.name == analysis.name) {
        Some(known) => *known = status,
        None => draft.status.analysis_runs.push(status),
    }
}

/// Takes over the phase of a run, and ends one that is of no use any more.
fn follow(draft: &mut Draft<'_>, status: &mut ExperimentRunStatus) {
    let Some(run) = find(draft, &status.analysis_run) else {
        if !status.phase.completed() {
            status.phase = AnalysisPhase::Error;
            status.message = format!("AnalysisRun '{}' is gone", status.analysis_run);
        }
        return;
    };
    let now = run.status.clone().unwrap_or_default();
    if draft.ending && !now.phase.completed() && !run.spec.terminate {
        let message = format!("Terminating {} ({})", status.name, status.analysis_run);
        let object = Basis {
            object: draft.object(ANALYSIS_RUN, &status.analysis_run),
            uid: run.metadata.uid.clone().unwrap_or_default(),
            // No resourceVersion: the status of a run lives in the same object and changes all the time.
            resource_version: None,
        };
        let patch = json!({ "spec": { "terminate": true } });
        let action = Action::MergePatch { object, patch, what: "terminate".to_owned() };
        draft.act(action, Some(Event::normal("AnalysisRunTerminating", message)));
    }
    if !status.phase.completed() && now.phase != AnalysisPhase::None {
        status.phase = now.phase;
        status.message = now.message;
    }
}

/// Before there is anything to measure, the template must be there at least.
fn verify(draft: &Draft<'_>, analysis: &ExperimentAnalysis) -> Result<(), String> {
    let (map, resource) = if analysis.cluster_scope {
        (&draft.world.templates.cluster, CLUSTER_ANALYSIS_TEMPLATE)
    } else {
        (&draft.world.templates.namespaced, ANALYSIS_TEMPLATE)
    };
    if map.contains_key(&analysis.template_name) {
        return Ok(());
    }
    let (kind, name) = (resource.kind, &analysis.template_name);
    Err(format!("{kind} verification failed for analysis '{}': {kind} '{name}' not found", analysis.name))
}

/// Starts the run, or takes up one of that name and spec that is still going.
fn start(draft: &mut Draft<'_>, analysis: &ExperimentAnalysis, status: &mut ExperimentRunStatus) -> Result<(), String> {
    let failed = |error: String| format!("Failed to create AnalysisRun for analysis '{}': {error}", analysis.name);
    let spec = make(draft, analysis).map_err(failed)?;
    let base = format!("{}-{}", draft.name(), analysis.name);
    // Analyses begin when the pods are available.
    let first = draft.observed.available_at.as_ref().map(|Time(at)| *at);
    status.phase = AnalysisPhase::Pending;
    for collisions in 0.. {
        let name = spec::collision_name(&base, collisions);
        if let Some(existing) = find(draft, &name) {
            let over = existing.status.as_ref().is_some_and(|status| status.phase.completed());
            if over || existing.spec.terminate || !spec::semantically_equal(&existing.spec, &spec) {
                continue;
            }
            draft.because(format!("take up AnalysisRun {name}"));
            status.analysis_run = name;
            return Ok(());
        }
        let object = draft.object(ANALYSIS_RUN, &name);
        let failure = draft.create_failure(&object);
        if failure.is_some_and(|failure| failure.error.to_lowercase().contains("already exists")) {
            continue;
        }
        let body = body(draft, &name, &spec);
        draft.act(Action::Create { object, body }, None);
        match failure {
            Some(failure) if draft.is_final(failure, first) => return Err(failed(failure.error.clone())),
            Some(failure) => status.message = failed(failure.error.clone()),
            None => {
                status.analysis_run = name;
                status.message.clear();
            }
        }
        return Ok(());
    }
    Ok(())
}

fn make(draft: &Draft<'_>, analysis: &ExperimentAnalysis) -> Result<AnalysisRunSpec, String> {
    let args = placeholders::resolve(draft, &analysis.args)?;
    let spec = &draft.experiment.spec;
    let templates = [analysis.template()];
    let made =
        spec::from_templates(&templates, &args, &spec.dry_run, &spec.measurement_retention, &draft.world.templates);
    made.map_err(|error| error.to_string())
}

fn body(draft: &Draft<'_>, name: &str, spec: &AnalysisRunSpec) -> Value {
    let metadata = &draft.experiment.spec.analysis_run_metadata;
    let mut labels = metadata.labels.clone();
    if let Some(id) = draft.experiment.metadata.labels.as_ref().and_then(|labels| labels.get(INSTANCE_ID)) {
        labels.insert(INSTANCE_ID.to_owned(), id.clone());
    }
    json!({
        "apiVersion": API_VERSION,
        "kind": ANALYSIS_RUN.kind,
        "metadata": {
            "name": name,
            "namespace": draft.namespace(),
            "labels": labels,
            "annotations": metadata.annotations,
            "ownerReferences": [draft.experiment.owner_reference()],
        },
        "spec": spec,
    })
}

fn find<'a>(draft: &Draft<'a>, name: &str) -> Option<&'a Arc<AnalysisRun>> {
    draft.world.analysis_runs.iter().find(|run| run.metadata.name.as_deref() == Some(name))
}
