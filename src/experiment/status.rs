//! The phase of an Experiment: what follows from its templates and its analyses together.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::api::Experiment;
use crate::api::analysis::AnalysisPhase;
use crate::api::common::time;
use crate::api::experiment::{ExperimentStatus, ExperimentTemplateStatus, template_status};

use super::draft::Draft;
use super::placeholders;

/// The message of an experiment that ended because every analysis which it needs was successful.
const REQUIRED_COMPLETED: &str = "Required AnalysisRuns completed";

/// When the experiment is over, if it is to last for a certain time and that has begun.
pub(super) fn end(draft: &Draft<'_>) -> Option<Timestamp> {
    let Time(available) = draft.observed.available_at.as_ref()?;
    let duration = placeholders::duration(draft.experiment.spec.duration.as_deref())?;
    Some(available.checked_add(SignedDuration::from(duration)).unwrap_or(Timestamp::MAX))
}

pub(super) fn duration_has_passed(draft: &Draft<'_>) -> bool {
    end(draft).is_some_and(|end| draft.world.now >= end)
}

/// Whether every analysis that the experiment needs was successful, and it needs one.
pub(super) fn required_are_successful(experiment: &Experiment, status: &ExperimentStatus) -> bool {
    let mut required = experiment.spec.analyses.iter().filter(|analysis| analysis.required_for_completion).peekable();
    let successful = |name: &str| phase_of(status, name) == AnalysisPhase::Successful;
    required.peek().is_some() && required.all(|analysis| successful(&analysis.name))
}

/// Takes the phase from templates and analyses. A final phase stays.
pub(super) fn assess(draft: &mut Draft<'_>) {
    match draft.observed.phase {
        AnalysisPhase::None => {
            draft.status.phase = AnalysisPhase::Pending;
            return;
        }
        phase if phase.completed() => return,
        _ => {}
    }
    let (templates, template_message) = templates(draft);
    let (analyses, analysis_message) = analyses(draft);
    if templates == AnalysisPhase::Running && draft.status.available_at.is_none() {
        draft.status.available_at = Some(time(draft.world.now));
    }
    let is_needed = draft.experiment.spec.analyses.iter().any(|analysis| analysis.required_for_completion);
    let by_analyses = if templates.completed() {
        templates == AnalysisPhase::Successful && (analyses.completed() || is_needed)
    } else {
        let against = analyses.completed() && analyses != AnalysisPhase::Successful;
        against || required_are_successful(draft.experiment, &draft.status)
    };
    (draft.status.phase, draft.status.message) =
        if by_analyses { (analyses, analysis_message) } else { (templates, template_message) };
    if let Some(end) = end(draft).filter(|end| !draft.status.phase.completed() && *end > draft.world.now) {
        draft.wake_at(end);
    }
}

/// The worst of the templates, as a phase.
fn templates(draft: &Draft<'_>) -> (AnalysisPhase, String) {
    let rank = |status: &str| match status {
        template_status::SUCCESSFUL => (0, AnalysisPhase::Successful),
        template_status::RUNNING => (1, AnalysisPhase::Running),
        template_status::ERROR => (3, AnalysisPhase::Error),
        template_status::FAILED => (4, AnalysisPhase::Failed),
        _ => (2, AnalysisPhase::Pending),
    };
    let none = ExperimentTemplateStatus::default();
    let worst = draft.experiment.spec.templates.iter().map(|template| {
        let status = draft.status.template_statuses.iter().find(|status| status.name == template.name);
        let status = status.unwrap_or(&none);
        (rank(&status.status), &status.message)
    });
    // The first of those that are equally bad.
    let worst = worst.reduce(|worst, other| if other.0.0 > worst.0.0 { other } else { worst });
    worst.map_or((AnalysisPhase::Successful, String::new()), |((_, phase), message)| (phase, message.clone()))
}

/// The worst of the analyses. An experiment without any needs none.
fn analyses(draft: &Draft<'_>) -> (AnalysisPhase, String) {
    let rank = |phase: AnalysisPhase| match phase {
        AnalysisPhase::Successful => 0,
        AnalysisPhase::Inconclusive => 2,
        AnalysisPhase::Error => 3,
        AnalysisPhase::Failed => 4,
        // One that will never begin, because the experiment ends before, judges nothing.
        AnalysisPhase::None if draft.ending => 0,
        AnalysisPhase::None | AnalysisPhase::Pending | AnalysisPhase::Running => 1,
    };
    let mut worst = (AnalysisPhase::Successful, String::new());
    for analysis in &draft.experiment.spec.analyses {
        let run = draft.status.analysis_runs.iter().find(|run| run.name == analysis.name);
        let (phase, message) = run.map_or((AnalysisPhase::None, ""), |run| (run.phase, run.message.as_str()));
        if rank(phase) > rank(worst.0) {
            worst = (phase, message.to_owned());
        }
    }
    if rank(worst.0) == 1 {
        worst = (AnalysisPhase::Running, worst.1);
    }
    if rank(worst.0) < 2 && required_are_successful(draft.experiment, &draft.status) {
        worst = (AnalysisPhase::Successful, REQUIRED_COMPLETED.to_owned());
    }
    worst
}

fn phase_of(status: &ExperimentStatus, analysis: &str) -> AnalysisPhase {
    status.analysis_runs.iter().find(|run| run.name == analysis).map_or(AnalysisPhase::None, |run| run.phase)
}
