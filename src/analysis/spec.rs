//! From what a Rollout or an Experiment asks for to the spec of an AnalysisRun.

use serde_json::Value;

use super::args::Values;
use super::compare::names;
use super::metric;
use super::templates::Templates;
use super::templates::{self, Part};
use crate::api::Rollout;
use crate::api::analysis::{AnalysisRunSpec, Argument, DryRun, MeasurementRetention, Metric};
use crate::api::canary::Placed;
use crate::api::field_error::{FieldError, FieldPath};
use crate::api::steps::{RolloutAnalysis, RolloutAnalysisArg, TemplateRef};

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

/// What waits for the end of a Rollout's analysis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Nothing: it runs beside the steps and may go on for ever.
    Background,
    /// A step or a promotion: it must end.
    Gate,
    /// As the background's; but an Experiment makes the run, which knows of no Rollout.
    Experiment,
}

/// Why no run can be made.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SpecError {
    #[error("{kind} '{name}' not found")]
    TemplateNotFound { kind: &'static str, name: String },
    #[error("two metrics have the same name '{name}'")]
    DuplicateMetric { name: String },
    #[error("Argument `{name}` specified multiple times with different values: '{left}', '{right}'")]
    ConflictingArgument { name: String, left: String, right: String },
    #[error("two {what} metric rules have the same name '{name}'")]
    DuplicateRule { what: &'static str, name: String },
    /// Neither a template nor the caller gives the argument a value.
    #[error("args.{name} was not resolved")]
    Unresolved { name: String },
    /// The place an argument's value comes from does not hold one; the path is relative to the analysis or the template.
    #[error("{0}")]
    Argument(FieldError),
    /// A metric of a template cannot run with the arguments it gets.
    #[error("{kind} {name}: {error}")]
    Metric { kind: &'static str, name: String, error: String },
}

/// The spec of the run for a Rollout's analysis (a step's, the background's, a pre- or post-promotion one).
pub fn for_rollout(analysis: &RolloutAnalysis, source: Source<'_>) -> Result<AnalysisRunSpec, SpecError> {
    let parts = templates::collect(&analysis.templates, source.templates)?;
    let lookup = Lookup { source, missing: Missing::Refused };
    let args = rollout_arguments(&analysis.args, &lookup)?;
    assemble(&parts, &args, &analysis.dry_run, &analysis.measurement_retention, Some(&lookup))
}

/// The spec of the run for these templates and arguments, as an Experiment makes it: its arguments have their values.
pub fn from_templates(
    refs: &[TemplateRef],
    args: &[Argument],
    dry_run: &[DryRun],
    retention: &[MeasurementRetention],
    templates: &Templates,
) -> Result<AnalysisRunSpec, SpecError> {
    assemble(&templates::collect(refs, templates)?, args, dry_run, retention, None)
}

/// What a Rollout hands to an analysis, with every value resolved: what an Experiment that it makes is given.
pub fn arguments_of_rollout(args: &[RolloutAnalysisArg], source: Source<'_>) -> Result<Vec<Argument>, SpecError> {
    rollout_arguments(args, &Lookup { source, missing: Missing::Refused })
}

/// [`validate_reference`] for an analysis of a strategy.
pub fn validate_placed(placed: Placed<'_>, path: &FieldPath, source: Source<'_>) -> Vec<FieldError> {
    let (analysis, purpose) = purpose(placed);
    validate_reference(analysis, purpose, path, source)
}

/// An analysis of a strategy, and what waits for it.
pub fn purpose(placed: Placed<'_>) -> (&RolloutAnalysis, Purpose) {
    match placed {
        Placed::Step(analysis) | Placed::Promotion(analysis) => (analysis, Purpose::Gate),
        Placed::Background(analysis) => (analysis, Purpose::Background),
    }
}

/// What is wrong with a Rollout's analysis at `path` (such as `spec.strategy.canary.steps[1].analysis`), judged before
/// any run is made: templates that do not exist, arguments without values, metrics that could not run.
///
/// A `fieldRef` outside of `metadata` may point to what is not there yet, such as `status.stableRS`.
pub fn validate_reference(
    analysis: &RolloutAnalysis,
    purpose: Purpose,
    path: &FieldPath,
    source: Source<'_>,
) -> Vec<FieldError> {
    let refs_path = path.child("templates");
    let names = || {
        let names: Vec<&str> = analysis.templates.iter().map(|reference| reference.template_name.as_str()).collect();
        format!("templateNames: [{}]", names.join(" "))
    };
    let refused = |error: SpecError| match error {
        SpecError::Argument(error) => error.under(path),
        SpecError::TemplateNotFound { ref name, .. } => {
            FieldError::invalid(&refs_path, name.as_str(), error.to_string())
        }
        error => FieldError::invalid(&refs_path, names(), error.to_string()),
    };
    let parts = match templates::collect(&analysis.templates, source.templates) {
        Ok(parts) => parts,
        Err(error) => return vec![refused(error)],
    };
    let lookup = Lookup { source, missing: Missing::Tolerated };
    let spec = rollout_arguments(&analysis.args, &lookup)
        .and_then(|args| assemble(&parts, &args, &analysis.dry_run, &analysis.measurement_retention, Some(&lookup)));
    let spec = match spec {
        Ok(spec) => spec,
        Err(error) => return vec![refused(error)],
    };
    if spec.metrics.is_empty() && parts.iter().all(|part| !part.spec.templates.is_empty()) {
        return vec![FieldError::required(&refs_path, "no metrics specified")];
    }
    let mut errors: Vec<FieldError> = parts
        .iter()
        .filter_map(|part| {
            let problem = validate_part(part, purpose, &spec.args, &lookup).err()?;
            Some(FieldError::invalid(&refs_path, part.name, problem))
        })
        .collect();
    if errors.is_empty() {
        errors.extend(validate_rules(&spec, analysis).err().map(|error| match error {
            RuleError::Own(error) => error.under(path),
            RuleError::Templates(error) => FieldError::invalid(&refs_path, names(), error.to_string()),
        }));
    }
    errors
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

fn assemble(
    parts: &[Part<'_>],
    args: &[Argument],
    dry_run: &[DryRun],
    retention: &[MeasurementRetention],
    lookup: Option<&Lookup<'_>>,
) -> Result<AnalysisRunSpec, SpecError> {
    let mut metrics = templates::metrics(parts)?;
    if let Some(lookup) = lookup {
        metrics.iter_mut().for_each(|metric| lookup.name_versions(metric));
    }
    let dry_run = templates::dry_run(dry_run, parts)?;
    let measurement_retention = templates::retention(retention, parts)?;
    let mut merged = templates::arguments(parts)?;
    for (index, argument) in merged.iter_mut().enumerate() {
        if let Some(own) = args.iter().find(|own| own.name == argument.name) {
            if own.value.is_some() {
                argument.value = own.value.clone();
                argument.value_from = None;
            } else if own.value_from.is_some() {
                argument.value = None;
                argument.value_from = own.value_from.clone();
            }
        }
        let field_ref = argument.value_from.as_ref().and_then(|from| from.field_ref.as_ref());
        if let (None, Some(field_ref)) = (&argument.value, field_ref) {
            let path = FieldPath::new("args").index(index).child("valueFrom").child("fieldRef").child("fieldPath");
            let value = match lookup {
                Some(lookup) => lookup.field(&field_ref.field_path),
                None => Err("only a run that a Rollout makes can refer to its fields".to_owned()),
            };
            let value = value
                .map_err(|problem| FieldError::invalid(path, field_ref.field_path.as_str(), problem))
                .map_err(SpecError::Argument)?;
            argument.value = Some(value);
            argument.value_from = None;
        }
        if argument.value.is_none() && argument.value_from.is_none() {
            return Err(SpecError::Unresolved { name: argument.name.clone() });
        }
    }
    Ok(AnalysisRunSpec { metrics, args: merged, dry_run, measurement_retention, ..AnalysisRunSpec::default() })
}

fn rollout_arguments(args: &[RolloutAnalysisArg], lookup: &Lookup<'_>) -> Result<Vec<Argument>, SpecError> {
    args.iter()
        .enumerate()
        .map(|(index, arg)| {
            let path = FieldPath::new("args").index(index).child("valueFrom");
            let value = match &arg.value_from {
                None => Ok(arg.value.clone()),
                Some(from) => match (&from.pod_template_hash_value, &from.field_ref) {
                    (Some(hash), _) => lookup.hash(hash, &path.child("podTemplateHashValue")),
                    (None, Some(field)) => lookup.field(&field.field_path).map_err(|problem| {
                        let path = path.child("fieldRef").child("fieldPath");
                        FieldError::invalid(path, field.field_path.as_str(), problem)
                    }),
                    (None, None) => Ok(arg.value.clone()),
                },
            };
            let value = value.map_err(SpecError::Argument)?;
            Ok(Argument { name: arg.name.clone(), value: Some(value), value_from: None })
        })
        .collect()
}

/// What is wrong with one template, its arguments being those of the whole run.
fn validate_part(part: &Part<'_>, purpose: Purpose, args: &[Argument], lookup: &Lookup<'_>) -> Result<(), String> {
    let Part { kind, name, spec } = *part;
    // A template may do nothing but name others.
    if spec.metrics.is_empty() && !spec.templates.is_empty() {
        return Ok(());
    }
    let resolved: Result<Vec<_>, _> =
        Values::without_secrets(args).and_then(|values| spec.metrics.iter().map(|m| values.resolve(m)).collect());
    let problem = |error: String| SpecError::Metric { kind, name: name.to_owned(), error }.to_string();
    let mut metrics = resolved.map_err(|error| problem(error.to_string()))?;
    if purpose != Purpose::Experiment {
        metrics.iter_mut().for_each(|metric| lookup.name_versions(metric));
    }
    let limits = metric::validate(&metrics, &FieldPath::new("spec")).map_err(|error| problem(error.to_string()))?;
    let endless = metrics.iter().zip(&limits).find(|(_, limits)| limits.count.is_none() && limits.comparison.is_none());
    match endless {
        Some((metric, _)) if purpose == Purpose::Gate => {
            let count = metric.count.as_ref().map_or_else(|| "<nil>".to_owned(), ToString::to_string);
            Err(format!(
                "{kind} {name} has metric {} which runs indefinitely. Invalid value for count: {count}",
                metric.name
            ))
        }
        _ => Ok(()),
    }
}

/// A rule, of the Rollout or of one of the templates, that matches nothing.
enum RuleError {
    Own(FieldError),
    Templates(FieldError),
}

/// What is wrong with the rules for dry runs and retention, which are matched against all metrics together.
fn validate_rules(spec: &AnalysisRunSpec, analysis: &RolloutAnalysis) -> Result<(), RuleError> {
    let metrics: Result<Vec<_>, _> =
        Values::without_secrets(&spec.args).and_then(|values| spec.metrics.iter().map(|m| values.resolve(m)).collect());
    // Every template was found to be resolvable.
    let Ok(metrics) = metrics else { return Ok(()) };
    let path = FieldPath::default();
    metric::rules(&metrics, &[], &[], &path).map_err(RuleError::Templates)?;
    metric::rules(&metrics, &analysis.dry_run, &analysis.measurement_retention, &path).map_err(RuleError::Own)?;
    metric::rules(&metrics, &spec.dry_run, &spec.measurement_retention, &path).map_err(RuleError::Templates)?;
    Ok(())
}

/// Where a Rollout's arguments get their values.
struct Lookup<'a> {
    source: Source<'a>,
    missing: Missing,
}

/// What to do about a field that is not there.
#[derive(Clone, Copy, PartialEq)]
enum Missing {
    Refused,
    /// It may come with time: its value is the empty text.
    Tolerated,
}

impl Lookup<'_> {
    fn name_versions(&self, metric: &mut Metric) {
        names::fill(metric, self.source.rollout, self.source.stable_hash, self.source.latest_hash);
    }

    fn hash(&self, which: &str, path: &FieldPath) -> Result<String, FieldError> {
        match which {
            "Stable" => Ok(self.source.stable_hash.to_owned()),
            "Latest" => Ok(self.source.latest_hash.to_owned()),
            _ => Err(FieldError::not_supported(path, which, ["Stable", "Latest"])),
        }
    }

    fn field(&self, path: &str) -> Result<String, String> {
        if path.starts_with("metadata") {
            return downward(self.source.rollout, path);
        }
        match walk(self.source.rollout, path) {
            Err(_) if self.missing == Missing::Tolerated => Ok(String::new()),
            value => value,
        }
    }
}

/// A path in the syntax of the downward API: `metadata.name`, `metadata.labels['region']`, `metadata.annotations`.
fn downward(rollout: &Rollout, path: &str) -> Result<String, String> {
    let metadata = &rollout.metadata;
    let unsupported = || {
        format!(
            "unsupported fieldPath: {path}; supported are metadata.name, metadata.namespace, metadata.uid, \
             metadata.labels, metadata.annotations, metadata.labels['KEY'] and metadata.annotations['KEY']"
        )
    };
    let empty = Default::default();
    let map = |name: &str| match name {
        "metadata.labels" => Some(metadata.labels.as_ref().unwrap_or(&empty)),
        "metadata.annotations" => Some(metadata.annotations.as_ref().unwrap_or(&empty)),
        _ => None,
    };
    if let Some((name, subscript)) = path.strip_suffix("']").and_then(|path| path.split_once("['")) {
        return map(name).map(|map| map.get(subscript).cloned().unwrap_or_default()).ok_or_else(unsupported);
    }
    match path {
        "metadata.name" => Ok(metadata.name.clone().unwrap_or_default()),
        "metadata.namespace" => Ok(metadata.namespace.clone().unwrap_or_default()),
        "metadata.uid" => Ok(metadata.uid.clone().unwrap_or_default()),
        _ => {
            let map = map(path).ok_or_else(unsupported)?;
            let lines: Vec<String> = map.iter().map(|(key, value)| format!("{key}={value:?}")).collect();
            Ok(lines.join("\n"))
        }
    }
}

/// A path through the Rollout as JSON: `status.stableRS`, `spec.template.spec.containers[0].image`.
fn walk(rollout: &Rollout, path: &str) -> Result<String, String> {
    let invalid = || format!("invalid path {path} in rollout");
    let json = serde_json::to_value(rollout).map_err(|error| error.to_string())?;
    let mut value = &json;
    for section in path.split(['.', '[', ']']).filter(|section| !section.is_empty()) {
        value = match value {
            Value::Array(items) => {
                let index: usize = section.parse().map_err(|_| format!("invalid index '{section}'"))?;
                items.get(index).ok_or_else(|| format!("index {index} out of range"))?
            }
            Value::Object(fields) => fields.get(section).ok_or_else(invalid)?,
            _ => return Err(invalid()),
        };
    }
    match value {
        Value::Null => Err(invalid()),
        Value::Array(_) | Value::Object(_) => {
            Err(format!("path {path} in rollout must terminate in a primitive value"))
        }
        Value::String(text) => Ok(text.clone()),
        Value::Bool(_) | Value::Number(_) => Ok(value.to_string()),
    }
}

#[cfg(test)]
mod tests;
