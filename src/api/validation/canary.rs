//! The rules of the canary strategy.

use super::{anti_affinity, not_negative, steps, traffic_routing};
use crate::api::canary::CanaryStrategy;
use crate::api::field_error::{FieldError, FieldPath};
use crate::api::int_or_percent::IntOrString;

pub(super) fn check(strategy: &CanaryStrategy, at: &FieldPath, errors: &mut Vec<FieldError>) {
    surge_and_unavailable(strategy, at, errors);
    let (stable, canary) = (strategy.stable_service(), strategy.canary_service());
    if !stable.is_empty() && stable == canary {
        let detail = "must differ from canaryService";
        errors.push(FieldError::invalid(at.child("stableService"), stable, detail));
    }
    nested_services(strategy, at, errors);
    for (field, value) in [
        ("scaleDownDelaySeconds", strategy.scale_down_delay_seconds),
        ("scaleDownDelayRevisionLimit", strategy.scale_down_delay_revision_limit),
        ("abortScaleDownDelaySeconds", strategy.abort_scale_down_delay_seconds),
        ("minPodsPerReplicaSet", strategy.min_pods_per_replica_set),
    ] {
        not_negative(value, &at.child(field), errors);
    }
    if strategy.traffic_routing.is_none() {
        let detail = "needs trafficRouting: without it old pods go as new ones come";
        if let Some(seconds) = strategy.scale_down_delay_seconds {
            errors.push(FieldError::invalid(at.child("scaleDownDelaySeconds"), seconds, detail));
        }
        if strategy.dynamic_stable_scale {
            errors.push(FieldError::invalid(at.child("dynamicStableScale"), true, detail));
        }
    } else if let Some(seconds) = strategy.scale_down_delay_seconds
        && strategy.dynamic_stable_scale
    {
        let detail =
            "cannot be set together with dynamicStableScale, which scales the old pods down as the weight moves";
        errors.push(FieldError::invalid(at.child("scaleDownDelaySeconds"), seconds, detail));
    }
    if let Some(threshold) = &strategy.replica_progress_threshold {
        progress_threshold(&threshold.type_, threshold.value, &at.child("replicaProgressThreshold"), errors);
    }
    traffic_routing::check(strategy, at, errors);
    steps::check(strategy, at, errors);
    background(strategy, at, errors);
    anti_affinity(strategy.anti_affinity.as_ref(), &at.child("antiAffinity"), errors);
}

/// Whether at least one pod may be missing or in excess: judged by the values as they stand, before rounding.
fn surge_and_unavailable(strategy: &CanaryStrategy, at: &FieldPath, errors: &mut Vec<FieldError>) {
    let zero = |value: &Option<IntOrString>| match value {
        Some(IntOrString::Int(number)) => *number == 0,
        Some(IntOrString::String(text)) => text.trim_end_matches('%') == "0",
        None => false,
    };
    if zero(&strategy.max_surge) && zero(&strategy.max_unavailable) {
        let detail = "may not be 0 when maxUnavailable is 0 too: no pod could ever be replaced";
        errors.push(FieldError::invalid(at.child("maxSurge"), 0, detail));
    }
    for (field, value) in [("maxSurge", &strategy.max_surge), ("maxUnavailable", &strategy.max_unavailable)] {
        let Some(value) = value else { continue };
        let path = at.child(field);
        match value.scaled_leniently(100, crate::api::int_or_percent::Round::Up) {
            Ok(number) if number < 0 => {
                errors.push(FieldError::invalid(path, value.to_json(), "must be greater than or equal to 0"));
            }
            Ok(_) => {}
            Err(_) => {
                let detail = "must be a number of pods (such as 1) or a percentage (such as 25%)";
                errors.push(FieldError::invalid(path, value.to_json(), detail));
            }
        }
    }
}

/// Services that are named both at the strategy and below nginx must be the same.
fn nested_services(strategy: &CanaryStrategy, at: &FieldPath, errors: &mut Vec<FieldError>) {
    let nginx = strategy.traffic_routing.as_ref().and_then(|routing| routing.nginx.as_ref());
    let Some(nginx) = nginx else { return };
    let nested = at.child("trafficRouting").child("nginx");
    for (field, outer, inner) in [
        ("stableService", &strategy.stable_service, &nginx.stable_service),
        ("canaryService", &strategy.canary_service, &nginx.canary_service),
    ] {
        if !inner.is_empty() && !outer.is_empty() && inner != outer {
            let detail = format!("differs from {} ({outer:?}), which is where it belongs; remove it", at.child(field));
            errors.push(FieldError::invalid(nested.child(field), inner.as_str(), detail));
        }
    }
}

fn progress_threshold(type_: &str, value: i32, at: &FieldPath, errors: &mut Vec<FieldError>) {
    match type_ {
        "Percent" if !(0..=100).contains(&value) => {
            errors.push(FieldError::invalid(at.child("value"), value, "must be in the range 0-100"));
        }
        "Pods" => not_negative(Some(value), &at.child("value"), errors),
        "Percent" => {}
        other => errors.push(FieldError::not_supported(at.child("type"), other, ["Percent", "Pods"])),
    }
}

fn background(strategy: &CanaryStrategy, at: &FieldPath, errors: &mut Vec<FieldError>) {
    let Some(analysis) = &strategy.analysis else { return };
    let path = at.child("analysis");
    if let Some(step) = analysis.starting_step
        && !(0..strategy.steps.len().max(1) as i64).contains(&i64::from(step))
    {
        let detail = format!("must be the index of a step: the strategy has {}", strategy.steps.len());
        errors.push(FieldError::invalid(path.child("startingStep"), step, detail));
    }
    steps::analysis(&analysis.analysis, &path, errors);
}
