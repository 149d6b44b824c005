//! The frame of a decision: what comes first and what stops what.

use crate::api::analysis::AnalysisPhase;
use crate::api::experiment::{ExperimentStatus, template_status};
use crate::api::validation;
use crate::plan::{Event, Plan};

use super::draft::Draft;
use super::{ExperimentWorld, analyses, conditions, status, templates};

/// What to do about an Experiment now, and its new status.
///
/// A spec that is invalid keeps an experiment from going on, never from ending.
pub fn decide(world: &ExperimentWorld) -> Plan<ExperimentStatus> {
    let mut draft = Draft::new(world);
    if draft.experiment.metadata.deletion_timestamp.is_some() {
        draft.because("the Experiment is being deleted");
        return draft.finish();
    }
    draft.ending = is_ending(&draft);
    let invalid = validation::experiment(draft.experiment).into_iter().next();
    let invalid = invalid.map(|error| format!("The Experiment \"{}\" is invalid: {error}", draft.name()));
    conditions::invalid_spec(&mut draft, invalid.as_deref());
    if let Some(message) = invalid {
        draft.because(message);
        if !draft.ending {
            return draft.finish();
        }
    }
    for template in &world.experiment.spec.templates {
        templates::reconcile(&mut draft, template);
    }
    for analysis in &world.experiment.spec.analyses {
        analyses::reconcile(&mut draft, analysis);
    }
    status::assess(&mut draft);
    conditions::progressing(&mut draft);
    tell_phase(&mut draft);
    draft.finish()
}

/// Whether nothing is started any more: a user has ended the experiment, or it has come to its end.
fn is_ending(draft: &Draft<'_>) -> bool {
    let status = &draft.observed;
    let broken = |status: &str| [template_status::FAILED, template_status::ERROR].contains(&status);
    let against = |phase: AnalysisPhase| phase.completed() && phase != AnalysisPhase::Successful;
    draft.experiment.spec.terminate
        || status.phase.completed()
        || status.template_statuses.iter().any(|template| broken(&template.status))
        || status.analysis_runs.iter().any(|run| against(run.phase))
        || status::required_are_successful(draft.experiment, status)
}

fn tell_phase(draft: &mut Draft<'_>) {
    let (from, to) = (draft.observed.phase, draft.status.phase);
    if from == to {
        return;
    }
    let warning = to.completed() && to != AnalysisPhase::Successful;
    let message = transition("Experiment", from.as_str(), to.as_str(), &draft.status.message);
    draft.because(message.as_str());
    draft.events.push(Event { warning, reason: format!("Experiment{to}"), message, of: None });
}

/// `Template 'web' transitioned from Progressing -> Running: message`.
pub(super) fn transition(what: &str, from: &str, to: &str, message: &str) -> String {
    let transition = format!("{what} transitioned from {from} -> {to}");
    if message.is_empty() { transition } else { format!("{transition}: {message}") }
}
