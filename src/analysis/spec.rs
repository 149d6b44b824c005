//! From what a Rollout or an Experiment asks for to the spec of an AnalysisRun.

use crate::api::Rollout;
use crate::api::analysis::{AnalysisRunSpec, Argument, DryRun, MeasurementRetention};
use crate::api::field_error::{FieldError, FieldPath};
use crate::api::resource::ObjectRef;
use crate::api::steps::{RolloutAnalysis, TemplateRef};
use crate::rollout::world::Templates;

/// What a Rollout's analysis may refer to.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    pub rollout: &'a Rollout,
    /// The pod template hash of the stable ReplicaSet; empty when there is none.
    pub stable_hash: &'a str,
    /// The pod template hash of the newest ReplicaSet.
    pub latest_hash: &'a str,
    pub templates: &'a Templates,
}

/// Why no run can be made.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SpecError {
    /// A template that is referred to does not exist.
    #[error("{kind} '{name}' not found", kind = .0.resource.kind, name = .0.name)]
    TemplateNotFound(ObjectRef),
    /// A field is wrong; `object` is the one that holds it.
    #[error("{object}: {error}")]
    Field { object: String, error: FieldError },
    #[error("{0}")]
    Other(String),
}

/// The spec of the run for a Rollout's analysis (a step's, the background's, a pre- or post-promotion one).
pub fn for_rollout(_analysis: &RolloutAnalysis, _source: Source<'_>) -> Result<AnalysisRunSpec, SpecError> {
    todo!()
}

/// The spec of the run for these templates and arguments, as an Experiment makes it: its arguments have their values.
pub fn from_templates(
    _refs: &[TemplateRef],
    _args: &[Argument],
    _dry_run: &[DryRun],
    _retention: &[MeasurementRetention],
    _templates: &Templates,
) -> Result<AnalysisRunSpec, SpecError> {
    todo!()
}

/// What is wrong with a Rollout's analysis at `path` (such as `spec.strategy.canary.steps[1].analysis`), judged before
/// any run is made: templates that do not exist, arguments without values, metrics that could not run.
pub fn validate_reference(_analysis: &RolloutAnalysis, _path: &FieldPath, _source: Source<'_>) -> Vec<FieldError> {
    todo!()
}

/// The name of a run: `ROLLOUT-HASH-REVISION`, and `-SUFFIX` unless that is empty (a step's index, `pre`, `post`).
pub fn run_name(rollout: &str, hash: &str, revision: i64, suffix: &str) -> String {
    let name = format!("{rollout}-{hash}-{revision}");
    if suffix.is_empty() { name } else { format!("{name}-{suffix}") }
}

/// The name after `collisions` runs of that name already exist: `NAME`, `NAME.1`, `NAME.2`, ….
pub fn collision_name(name: &str, collisions: usize) -> String {
    if collisions == 0 { name.to_owned() } else { format!("{name}.{collisions}") }
}

/// Whether an unfinished run of the same owner and name is the wanted one: only what is measured and how counts, not
/// whether it is being terminated or when it is deleted.
pub fn semantically_equal(left: &AnalysisRunSpec, right: &AnalysisRunSpec) -> bool {
    left.metrics == right.metrics
        && left.args == right.args
        && left.dry_run == right.dry_run
        && left.measurement_retention == right.measurement_retention
}
