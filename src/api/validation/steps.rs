//! The rules of the canary steps.

use std::collections::BTreeSet;

use super::super::canary::CanaryStrategy;
use super::super::field_error::{FieldError, FieldPath};
use super::super::steps::{
    CanaryStep, ExperimentStep, RolloutAnalysis, RolloutAnalysisArg, SetCanaryScale, SetHeaderRoute, SetMirrorRoute,
    StringMatch,
};
use super::super::traffic_routing::TrafficRouting;
use super::not_negative;

const KINDS: &str = "setWeight, pause, experiment, analysis, setCanaryScale, setHeaderRoute, setMirrorRoute, plugin";

pub(super) fn check(strategy: &CanaryStrategy, at: &FieldPath, errors: &mut Vec<FieldError>) {
    let mut canary = 0;
    for (index, step) in strategy.steps.iter().enumerate() {
        canary = step.set_weight.unwrap_or(canary);
        check_step(strategy, step, canary, &at.child("steps").index(index), errors);
    }
}

/// `canary` is the weight of the canary at that step.
fn check_step(strategy: &CanaryStrategy, step: &CanaryStep, canary: i32, at: &FieldPath, errors: &mut Vec<FieldError>) {
    let exclusive =
        [step.set_weight.is_some(), step.pause.is_some(), step.experiment.is_some(), step.analysis.is_some()];
    let others = [
        step.set_canary_scale.is_some(),
        step.set_header_route.is_some(),
        step.set_mirror_route.is_some(),
        step.plugin.is_some(),
    ];
    let count = |kinds: &[bool]| kinds.iter().filter(|set| **set).count();
    // The second group may ride along with one of the first: Argo Rollouts acts on both.
    match (count(&exclusive), count(&others)) {
        (0, 0) => errors.push(FieldError::invalid(at, json(step), format!("a step must have one of: {KINDS}"))),
        (0 | 1, _) => {}
        _ => {
            let detail = "a step must have only one of setWeight, pause, experiment and analysis; split it";
            errors.push(FieldError::invalid(at, json(step), detail));
        }
    }
    if let Some(weight) = step.set_weight {
        let max = strategy.max_weight();
        if !(0..=max).contains(&weight) {
            let detail = format!("must be in the range 0-{max}");
            errors.push(FieldError::invalid(at.child("setWeight"), weight, detail));
        }
    }
    if let Some(duration) = step.pause.as_ref().and_then(|pause| pause.duration.as_ref()) {
        let path = at.child("pause").child("duration");
        match duration.seconds() {
            Ok(seconds) if seconds < 0 => {
                errors.push(FieldError::invalid(path, duration.0.to_json(), "must be greater than or equal to 0"));
            }
            Ok(_) => {}
            Err(_) => {
                let detail = "must be a number of seconds, or a duration with units such as 30s, 5m or 1h30m";
                errors.push(FieldError::invalid(path, duration.0.to_json(), detail));
            }
        }
    }
    if let Some(scale) = &step.set_canary_scale {
        canary_scale(strategy, scale, &at.child("setCanaryScale"), errors);
    }
    if let Some(analysis) = &step.analysis {
        self::analysis(analysis, &at.child("analysis"), errors);
    }
    if let Some(experiment) = &step.experiment {
        self::experiment(strategy, experiment, canary, &at.child("experiment"), errors);
    }
    if let Some(route) = &step.set_header_route {
        header_route(strategy, route, &at.child("setHeaderRoute"), errors);
    }
    if let Some(route) = &step.set_mirror_route {
        mirror_route(strategy, route, &at.child("setMirrorRoute"), errors);
    }
}

fn json(value: impl serde::Serialize) -> serde_json::Value {
    serde_json::to_value(value).unwrap_or_default()
}

fn canary_scale(strategy: &CanaryStrategy, scale: &SetCanaryScale, at: &FieldPath, errors: &mut Vec<FieldError>) {
    if strategy.traffic_routing.is_none() {
        let detail = "needs trafficRouting: without it the number of canary pods is the weight";
        errors.push(FieldError::invalid(at, json(scale), detail));
    }
    not_negative(scale.replicas, &at.child("replicas"), errors);
    if let Some(weight) = scale.weight.filter(|weight| !(0..=100).contains(weight)) {
        errors.push(FieldError::invalid(at.child("weight"), weight, "must be in the range 0-100"));
    }
    let set = [scale.replicas.is_some(), scale.weight.is_some(), scale.match_traffic_weight];
    if set.iter().filter(|set| **set).count() != 1 {
        let detail = "must have exactly one of replicas, weight and matchTrafficWeight";
        errors.push(FieldError::invalid(at, json(scale), detail));
    }
}

/// An analysis must name at least one template, and its arguments one source each.
pub(super) fn analysis(analysis: &RolloutAnalysis, at: &FieldPath, errors: &mut Vec<FieldError>) {
    if analysis.templates.is_empty() {
        errors.push(FieldError::required(at.child("templates"), "at least one AnalysisTemplate"));
    }
    for (index, template) in analysis.templates.iter().enumerate() {
        if template.template_name.is_empty() {
            let path = at.child("templates").index(index).child("templateName");
            errors.push(FieldError::required(path, "the name of an AnalysisTemplate"));
        }
    }
    arguments(&analysis.args, at, errors);
}

fn arguments(args: &[RolloutAnalysisArg], at: &FieldPath, errors: &mut Vec<FieldError>) {
    for (index, arg) in args.iter().enumerate() {
        let at = at.child("args").index(index);
        if let Some(hash) = arg.value_from.as_ref().and_then(|from| from.pod_template_hash_value.as_deref())
            && !["Stable", "Latest"].contains(&hash)
        {
            let path = at.child("valueFrom").child("podTemplateHashValue");
            errors.push(FieldError::not_supported(path, hash, ["Stable", "Latest"]));
        }
    }
}

fn experiment(
    strategy: &CanaryStrategy,
    step: &ExperimentStep,
    canary: i32,
    at: &FieldPath,
    errors: &mut Vec<FieldError>,
) {
    if step.templates.is_empty() {
        errors.push(FieldError::required(at.child("templates"), "at least one template"));
    }
    let routing = strategy.traffic_routing.as_ref();
    let weighted = routing.is_some_and(|routing| {
        routing.smi.is_some()
            || routing.alb.is_some()
            || routing.istio.is_some()
            || routing.gateway_api.is_some()
            || !routing.plugins.is_empty()
    });
    let mut names = BTreeSet::new();
    for (index, template) in step.templates.iter().enumerate() {
        let at = at.child("templates").index(index);
        super::experiment::name(&template.name, &mut names, &at, errors);
        if !["stable", "canary"].contains(&template.spec_ref.as_str()) {
            let path = at.child("specRef");
            errors.push(FieldError::not_supported(path, template.spec_ref.as_str(), ["stable", "canary"]));
        }
        if let Some(weight) = template.weight
            && !weighted
        {
            let detail = "needs trafficRouting by smi, alb, istio, gatewayAPI or a plugin";
            errors.push(FieldError::invalid(at.child("weight"), weight, detail));
        }
        not_negative(template.weight, &at.child("weight"), errors);
        not_negative(template.replicas, &at.child("replicas"), errors);
    }
    let weights: i32 = step.templates.iter().filter_map(|template| template.weight).fold(0, i32::saturating_add);
    let max = strategy.max_weight();
    if weights > max.saturating_sub(canary) {
        let detail =
            format!("the weights of the templates ({weights}) and of the canary ({canary}) are more than {max}");
        errors.push(FieldError::invalid(at.child("templates"), weights, detail));
    }
    super::experiment::duration(step.duration.as_deref(), &at.child("duration"), errors);
    not_negative(step.scale_down_delay_seconds, &at.child("scaleDownDelaySeconds"), errors);
    let mut names = BTreeSet::new();
    for (index, analysis) in step.analyses.iter().enumerate() {
        let at = at.child("analyses").index(index);
        super::experiment::name(&analysis.name, &mut names, &at, errors);
        if analysis.template_name.is_empty() {
            errors.push(FieldError::required(at.child("templateName"), "the name of an AnalysisTemplate"));
        }
        arguments(&analysis.args, &at, errors);
    }
}

/// Every router of the Rollout must be able to carry the step out: none may ignore it.
fn can_manage(
    strategy: &CanaryStrategy,
    at: &FieldPath,
    value: serde_json::Value,
    able: &[&str],
    errors: &mut Vec<FieldError>,
) {
    let Some(routing) = &strategy.traffic_routing else { return };
    let used = [
        ("istio", routing.istio.is_some()),
        ("nginx", routing.nginx.is_some()),
        ("alb", routing.alb.is_some()),
        ("smi", routing.smi.is_some()),
        ("ambassador", routing.ambassador.is_some()),
        ("appMesh", routing.app_mesh.is_some()),
        ("traefik", routing.traefik.is_some()),
        ("apisix", routing.apisix.is_some()),
    ];
    if let Some((router, _)) = used.iter().find(|(router, used)| *used && !able.contains(router)) {
        let detail = format!("{router}, which is in trafficRouting as well, cannot make such a route");
        errors.push(FieldError::invalid(at, value, detail));
        return;
    }
    let Some(settings) = routing.gateway_api_settings() else { return };
    let takes = !settings.http_route.is_empty()
        || !settings.grpc_route.is_empty()
        || settings.http_routes.iter().chain(&settings.grpc_routes).any(|route| route.use_header_routes);
    if !takes {
        let detail = "no HTTPRoute or GRPCRoute takes it: name one in httpRoute or grpcRoute, or set useHeaderRoutes on one of \
                      httpRoutes or grpcRoutes";
        errors.push(FieldError::invalid(at, value, detail));
    }
}

/// A route that a step makes must be listed in `managedRoutes`.
fn managed(strategy: &CanaryStrategy, name: &str, at: &FieldPath, errors: &mut Vec<FieldError>) {
    let listed = strategy.traffic_routing.iter().flat_map(|routing| &routing.managed_routes);
    if !listed.into_iter().any(|route| route.name == name) {
        let detail = "must be listed in strategy.canary.trafficRouting.managedRoutes, whose order is the precedence";
        errors.push(FieldError::invalid(at.child("name"), name, detail));
    }
}

fn header_route(strategy: &CanaryStrategy, route: &SetHeaderRoute, at: &FieldPath, errors: &mut Vec<FieldError>) {
    let routing = strategy.traffic_routing.as_ref();
    let alb = routing.is_some_and(|routing| routing.alb.is_some());
    let able = routing.is_some_and(|routing| {
        alb || routing.istio.is_some()
            || routing.apisix.is_some()
            || routing.gateway_api.is_some()
            || !routing.plugins.is_empty()
    });
    if !able {
        let detail = "needs trafficRouting by istio, alb, apisix, gatewayAPI or a plugin";
        errors.push(FieldError::invalid(at, json(route), detail));
        return;
    }
    can_manage(strategy, at, json(route), &["istio", "alb", "apisix", "gatewayAPI"], errors);
    managed(strategy, &route.name, at, errors);
    for (index, matched) in route.match_.iter().enumerate() {
        let at = at.child("match").index(index).child("headerValue");
        match &matched.header_value {
            None => errors.push(FieldError::required(at, "exact, prefix or regex")),
            Some(value) if alb && (!value.prefix.is_empty() || !value.regex.is_empty()) => {
                errors.push(FieldError::invalid(at, json(value), "alb can match a header by exact only"));
            }
            Some(value) => one_matcher(value, &at, errors),
        }
    }
}

fn mirror_route(strategy: &CanaryStrategy, route: &SetMirrorRoute, at: &FieldPath, errors: &mut Vec<FieldError>) {
    let able = strategy
        .traffic_routing
        .as_ref()
        .is_some_and(|routing| routing.istio.is_some() || routing.gateway_api.is_some() || !routing.plugins.is_empty());
    if !able {
        errors.push(FieldError::invalid(at, json(route), "needs trafficRouting by istio, gatewayAPI or a plugin"));
        return;
    }
    can_manage(strategy, at, json(route), &["istio", "gatewayAPI"], errors);
    let gateway = strategy.traffic_routing.as_deref().and_then(TrafficRouting::gateway_api_settings);
    managed(strategy, &route.name, at, errors);
    if let Some(percentage) = route.percentage.filter(|percentage| !(0..=100).contains(percentage)) {
        errors.push(FieldError::invalid(at.child("percentage"), percentage, "must be in the range 0-100"));
    }
    for (index, matched) in route.match_.iter().enumerate() {
        let at = at.child("match").index(index);
        for (field, value) in [("method", &matched.method), ("path", &matched.path)] {
            if let Some(value) = value {
                one_matcher(value, &at.child(field), errors);
            }
        }
        for (name, value) in &matched.headers {
            one_matcher(value, &at.child("headers").key(name), errors);
        }
        let Some(gateway) = &gateway else { continue };
        if let Some(method) = matched.method.as_ref().filter(|method| method.exact.is_empty()) {
            let detail = "a route of the Gateway API can match a method by exact only";
            errors.push(FieldError::invalid(at.child("method"), json(method), detail));
        }
        let grpc = !gateway.grpc_route.is_empty() || gateway.grpc_routes.iter().any(|route| route.use_header_routes);
        if grpc && (matched.method.is_some() || matched.path.is_some()) {
            let detail = "a GRPCRoute can be matched by headers only";
            errors.push(FieldError::invalid(at, json(matched), detail));
        }
    }
}

fn one_matcher(value: &StringMatch, at: &FieldPath, errors: &mut Vec<FieldError>) {
    let set = [&value.exact, &value.prefix, &value.regex].into_iter().filter(|text| !text.is_empty()).count();
    if set != 1 {
        errors.push(FieldError::invalid(at, json(value), "must have exactly one of exact, prefix and regex"));
    }
}
