//! Several templates, and those that they name, as one.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::spec::SpecError;
use crate::api::analysis::{AnalysisTemplateSpec, Argument, DryRun, MeasurementRetention, Metric};
use crate::api::resource::{ANALYSIS_TEMPLATE, CLUSTER_ANALYSIS_TEMPLATE};
use crate::api::steps::TemplateRef;

/// The analysis templates that a Rollout can reach, by name.
#[derive(Clone, Debug, Default)]
pub struct Templates {
    pub namespaced: BTreeMap<String, Arc<AnalysisTemplateSpec>>,
    pub cluster: BTreeMap<String, Arc<AnalysisTemplateSpec>>,
}

/// A template that is part of an analysis.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part<'a> {
    pub kind: &'static str,
    pub name: &'a str,
    pub spec: &'a AnalysisTemplateSpec,
}

/// Every template that is reached, each once: first the namespaced ones, then the cluster-scoped ones, a template before
/// those that it names.
pub(super) fn collect<'a>(refs: &'a [TemplateRef], templates: &'a Templates) -> Result<Vec<Part<'a>>, SpecError> {
    let mut parts = Vec::new();
    // References that are still to be followed, the next one last.
    let mut pending: Vec<&TemplateRef> = refs.iter().rev().collect();
    while let Some(reference) = pending.pop() {
        let (resource, map) = if reference.cluster_scope {
            (CLUSTER_ANALYSIS_TEMPLATE, &templates.cluster)
        } else {
            (ANALYSIS_TEMPLATE, &templates.namespaced)
        };
        let name = reference.template_name.as_str();
        if parts.iter().any(|part: &Part<'_>| part.kind == resource.kind && part.name == name) {
            continue;
        }
        let spec =
            map.get(name).ok_or_else(|| SpecError::TemplateNotFound { kind: resource.kind, name: name.to_owned() })?;
        parts.push(Part { kind: resource.kind, name, spec });
        pending.extend(spec.templates.iter().rev());
    }
    // Stable: within a kind the order of the references stays.
    parts.sort_by_key(|part| part.kind == CLUSTER_ANALYSIS_TEMPLATE.kind);
    Ok(parts)
}

/// The metrics of all, whose names must differ.
pub(super) fn metrics(parts: &[Part<'_>]) -> Result<Vec<Metric>, SpecError> {
    let metrics: Vec<Metric> = parts.iter().flat_map(|part| part.spec.metrics.iter().cloned()).collect();
    match repeated(metrics.iter().map(|metric| metric.name.as_str())) {
        Some(name) => Err(SpecError::DuplicateMetric { name: name.to_owned() }),
        None => Ok(metrics),
    }
}

/// The arguments of all, by name: a value wins over none, and two values must be equal.
pub(super) fn arguments(parts: &[Part<'_>]) -> Result<Vec<Argument>, SpecError> {
    let mut arguments: Vec<Argument> = Vec::new();
    for argument in parts.iter().flat_map(|part| &part.spec.args) {
        let Some(known) = arguments.iter_mut().find(|known| known.name == argument.name) else {
            arguments.push(argument.clone());
            continue;
        };
        match (&known.value, &argument.value) {
            (Some(left), Some(right)) if left != right => {
                return Err(SpecError::ConflictingArgument {
                    name: argument.name.clone(),
                    left: left.clone(),
                    right: right.clone(),
                });
            }
            (Some(_), _) => {}
            (None, Some(_)) => *known = argument.clone(),
            (None, None) => {
                known.value_from = argument.value_from.clone().or_else(|| known.value_from.take());
            }
        }
    }
    Ok(arguments)
}

/// The rules for dry runs, those of the caller first.
pub(super) fn dry_run(own: &[DryRun], parts: &[Part<'_>]) -> Result<Vec<DryRun>, SpecError> {
    let rules: Vec<DryRun> = own.iter().chain(parts.iter().flat_map(|part| &part.spec.dry_run)).cloned().collect();
    match repeated(rules.iter().map(|rule| rule.metric_name.as_str())) {
        Some(name) => Err(SpecError::DuplicateRule { what: "Dry-Run", name: name.to_owned() }),
        None => Ok(rules),
    }
}

/// The rules for retention, those of the caller first.
pub(super) fn retention(
    own: &[MeasurementRetention],
    parts: &[Part<'_>],
) -> Result<Vec<MeasurementRetention>, SpecError> {
    let rules: Vec<MeasurementRetention> =
        own.iter().chain(parts.iter().flat_map(|part| &part.spec.measurement_retention)).cloned().collect();
    match repeated(rules.iter().map(|rule| rule.metric_name.as_str())) {
        Some(name) => Err(SpecError::DuplicateRule { what: "Measurement Retention", name: name.to_owned() }),
        None => Ok(rules),
    }
}

/// The first name that comes a second time.
fn repeated<'a>(names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let mut seen = BTreeMap::new();
    names.into_iter().find(|name| seen.insert(*name, ()).is_some())
}
