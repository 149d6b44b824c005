//! What is wrong with a Rollout's spec, with exact field paths.
//!
//! These are the rules that need nothing but the Rollout. What needs other objects (Services, templates, routes that must
//! exist) is judged in [`crate::rollout`]. The controller reports the first error in the `InvalidSpec` condition,
//! `tidegate lint` all of them.

mod blue_green;
mod canary;
mod experiment;
mod steps;
mod traffic_routing;
mod unsupported;

pub use self::experiment::experiment;

use super::blue_green::AntiAffinity;
use super::common::{LabelSelector, WorkloadRef};
use super::field_error::{FieldError, FieldPath};
use super::resource::POD_TEMPLATE;
use super::rollout::{Rollout, RolloutSpec};
use super::selector;

/// All that is wrong with a Rollout as it was written, in the order of the fields.
pub fn rollout(rollout: &Rollout) -> Vec<FieldError> {
    check(rollout, Workload::AsWritten)
}

/// The same for a Rollout that has been given the template of the workload that it names.
pub fn resolved(rollout: &Rollout) -> Vec<FieldError> {
    check(rollout, Workload::Resolved)
}

/// Whether the template of a named workload has been filled in.
#[derive(Clone, Copy, PartialEq)]
enum Workload {
    AsWritten,
    Resolved,
}

fn check(rollout: &Rollout, with: Workload) -> Vec<FieldError> {
    let at = FieldPath::new("spec");
    let mut errors = Vec::new();
    spec(&rollout.spec, &at, with, &mut errors);
    unsupported::check(&rollout.spec, &mut errors);
    errors
}

/// What works but stands in the wrong place, in words for the user.
pub fn warnings(rollout: &Rollout) -> Vec<String> {
    let mut warnings = Vec::new();
    let canary = rollout.spec.strategy.canary.as_ref();
    let nginx = canary.and_then(|canary| canary.traffic_routing.as_ref()?.nginx.as_ref());
    if let Some(nginx) = nginx {
        for (field, value) in [("stableService", &nginx.stable_service), ("canaryService", &nginx.canary_service)] {
            if !value.is_empty() {
                warnings.push(format!(
                    "spec.strategy.canary.trafficRouting.nginx.{field}: understood as spec.strategy.canary.{field}, where it \
                     belongs; move it there"
                ));
            }
        }
    }
    warnings
}

/// The message of the `InvalidSpec` condition for an error.
pub fn message(rollout: &Rollout, error: &FieldError) -> String {
    format!("The Rollout \"{}\" is invalid: {error}", rollout.metadata.name.as_deref().unwrap_or_default())
}

fn spec(spec: &RolloutSpec, at: &FieldPath, with: Workload, errors: &mut Vec<FieldError>) {
    for (field, value) in [
        ("replicas", spec.replicas),
        ("minReadySeconds", Some(spec.min_ready_seconds)),
        ("revisionHistoryLimit", spec.revision_history_limit),
        ("progressDeadlineSeconds", spec.progress_deadline_seconds),
    ] {
        not_negative(value, &at.child(field), errors);
    }
    if spec.progress_deadline_seconds() <= spec.min_ready_seconds {
        let detail = format!("must be greater than minReadySeconds ({})", spec.min_ready_seconds);
        let path = at.child("progressDeadlineSeconds");
        errors.push(FieldError::invalid(path, spec.progress_deadline_seconds(), detail));
    }
    workload(spec, at, with, errors);
    let path = at.child("strategy");
    let (blue_green, canary) = (&spec.strategy.blue_green, &spec.strategy.canary);
    if blue_green.is_none() && canary.is_none() {
        errors.push(FieldError::required(path.clone(), "one of blueGreen or canary must be set"));
    }
    if blue_green.is_some() && canary.is_some() {
        let strategy = serde_json::json!({"blueGreen": {}, "canary": {}});
        errors.push(FieldError::invalid(path.clone(), strategy, "only one of blueGreen and canary may be set"));
    }
    if let Some(strategy) = blue_green {
        blue_green::check(spec, strategy, &path.child("blueGreen"), errors);
    }
    if let Some(strategy) = canary {
        canary::check(strategy, &path.child("canary"), errors);
    }
}

fn workload(spec: &RolloutSpec, at: &FieldPath, with: Workload, errors: &mut Vec<FieldError>) {
    let template = spec.template.as_ref().filter(|template| !template.is_absent());
    if let (Some(reference), Workload::AsWritten) = (&spec.workload_ref, with) {
        if let Some(template) = template {
            let detail = "template must be empty for workload reference rollout";
            errors.push(FieldError::invalid(at.child("template"), template.to_value(), detail));
        }
        workload_ref(spec, reference, at, errors);
        return;
    }
    let path = at.child("selector");
    match &spec.selector {
        None => errors.push(FieldError::required(path, "the labels by which the Rollout finds its pods")),
        Some(wanted) => selector_syntax(wanted, &path, errors),
    }
    let path = at.child("template");
    let Some(template) = template else {
        errors.push(FieldError::required(path, "the pods to run; or name a workload in workloadRef"));
        return;
    };
    errors.extend(template.validate().iter().map(|error| error.clone().under(&path)));
    if let Some(wanted) = &spec.selector
        && !is_empty(wanted)
        && !selector::matches(wanted, template.labels())
    {
        let labels = serde_json::json!(template.labels());
        let detail = "`selector` does not match template `labels`";
        errors.push(FieldError::invalid(path.child("metadata").child("labels"), labels, detail));
    }
}

fn workload_ref(spec: &RolloutSpec, reference: &WorkloadRef, at: &FieldPath, errors: &mut Vec<FieldError>) {
    let path = at.child("workloadRef");
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    if text(&reference.name).is_empty() {
        errors.push(FieldError::required(path.child("name"), "the workload to take the pod template from"));
    }
    match reference.resource() {
        None => {
            let detail = format!(
                "workload of type {}/{} is not supported; a Deployment or ReplicaSet of apps/v1, or a PodTemplate of v1, is",
                text(&reference.api_version),
                text(&reference.kind)
            );
            errors.push(FieldError::invalid(path.child("kind"), text(&reference.kind), detail));
        }
        Some(POD_TEMPLATE) if spec.selector.is_none() => {
            errors.push(FieldError::required(at.child("selector"), "a PodTemplate has none to take it from"));
        }
        Some(_) => {}
    }
    if reference.scale_down().is_none() {
        let modes = ["never", "onsuccess", "progressively"];
        errors.push(FieldError::not_supported(path.child("scaleDown"), text(&reference.scale_down), modes));
    }
    if let Some(wanted) = &spec.selector {
        selector_syntax(wanted, &at.child("selector"), errors);
    }
}

fn is_empty(selector: &LabelSelector) -> bool {
    selector.match_labels.as_ref().is_none_or(|labels| labels.is_empty())
        && selector.match_expressions.as_ref().is_none_or(|expressions| expressions.is_empty())
}

fn selector_syntax(selector: &LabelSelector, at: &FieldPath, errors: &mut Vec<FieldError>) {
    if is_empty(selector) {
        errors.push(FieldError::invalid(
            at,
            serde_json::json!({}),
            "empty selector is invalid: it would match every pod",
        ));
    }
    for (index, expression) in selector.match_expressions.iter().flatten().enumerate() {
        let at = at.child("matchExpressions").index(index);
        let has_values = expression.values.as_ref().is_some_and(|values| !values.is_empty());
        match expression.operator.as_str() {
            "In" | "NotIn" if !has_values => errors
                .push(FieldError::required(at.child("values"), "must be specified when `operator` is 'In' or 'NotIn'")),
            "Exists" | "DoesNotExist" if has_values => {
                let detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                errors.push(FieldError::forbidden(at.child("values"), detail));
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => errors.push(FieldError::not_supported(
                at.child("operator"),
                other,
                ["In", "NotIn", "Exists", "DoesNotExist"],
            )),
        }
    }
}

fn not_negative(value: Option<i32>, path: &FieldPath, errors: &mut Vec<FieldError>) {
    if let Some(value) = value.filter(|value| *value < 0) {
        errors.push(FieldError::invalid(path, value, "must be greater than or equal to 0"));
    }
}

/// The anti-affinity of either strategy.
fn anti_affinity(affinity: Option<&AntiAffinity>, at: &FieldPath, errors: &mut Vec<FieldError>) {
    let Some(affinity) = affinity else { return };
    let preferred = &affinity.preferred_during_scheduling_ignored_during_execution;
    let required = &affinity.required_during_scheduling_ignored_during_execution;
    if preferred.is_some() == required.is_some() {
        let detail = "must have exactly one of preferredDuringSchedulingIgnoredDuringExecution and \
                      requiredDuringSchedulingIgnoredDuringExecution";
        errors.push(FieldError::invalid(at, serde_json::to_value(affinity).unwrap_or_default(), detail));
    }
    if let Some(preferred) = preferred.as_ref().filter(|preferred| !(1..=100).contains(&preferred.weight)) {
        let path = at.child("preferredDuringSchedulingIgnoredDuringExecution").child("weight");
        errors.push(FieldError::invalid(path, preferred.weight, "must be in the range 1-100"));
    }
}

#[cfg(test)]
mod tests;
