//! The rules of traffic routing.

use crate::api::canary::CanaryStrategy;
use crate::api::field_error::{FieldError, FieldPath};
use crate::api::traffic_routing::TrafficRouting;

pub(super) fn check(strategy: &CanaryStrategy, at: &FieldPath, errors: &mut Vec<FieldError>) {
    let Some(routing) = &strategy.traffic_routing else {
        if let Some(services) = &strategy.ping_pong {
            let detail = "needs trafficRouting: without it no weight moves between the two Services";
            errors.push(FieldError::invalid(at.child("pingPong"), serde_json::json!(services), detail));
        }
        return;
    };
    services(strategy, routing, at, errors);
    ping_pong(strategy, routing, at, errors);
    let at = at.child("trafficRouting");
    if let Some(weight) = routing.max_traffic_weight {
        let path = at.child("maxTrafficWeight");
        if weight <= 0 {
            errors.push(FieldError::invalid(&path, weight, "must be greater than 0"));
        }
        if routing.nginx.is_none() && routing.plugins.is_empty() && routing.gateway_api.is_none() {
            let detail = "needs a router that knows other totals than 100: nginx, gatewayAPI or a plugin";
            errors.push(FieldError::invalid(path, weight, detail));
        }
    }
    if let Some(nginx) = &routing.nginx {
        let at = at.child("nginx");
        if !nginx.stable_ingress.is_empty() && !nginx.stable_ingresses.is_empty() {
            let detail = "only one of stableIngress and stableIngresses may be set";
            errors.push(FieldError::invalid(at.child("stableIngress"), nginx.stable_ingress.as_str(), detail));
        }
    }
    if let Some(alb) = &routing.alb {
        let at = at.child("alb");
        if alb.ingress.is_empty() == alb.ingresses.is_empty() {
            let detail = "exactly one of ingress and ingresses must be set";
            errors.push(FieldError::invalid(at.child("ingress"), alb.ingress.as_str(), detail));
        }
        if let Some(stickiness) = alb.stickiness_config.as_ref().filter(|stickiness| stickiness.enabled)
            && !(1..=604_800).contains(&stickiness.duration_seconds)
        {
            let path = at.child("stickinessConfig").child("durationSeconds");
            errors.push(FieldError::invalid(path, stickiness.duration_seconds, "must be in the range 1-604800"));
        }
    }
    if let Some(istio) = &routing.istio
        && istio.virtual_service.is_some() != istio.virtual_services.is_empty()
    {
        let detail = "exactly one of virtualService and virtualServices must be set";
        errors.push(FieldError::invalid(at.child("istio"), serde_json::json!({}), detail));
    }
    if is_empty(routing) {
        errors.push(FieldError::required(at, "a router, such as gatewayAPI or nginx"));
    }
}

/// The two Services must be named wherever the router tells the versions apart by them.
fn services(strategy: &CanaryStrategy, routing: &TrafficRouting, at: &FieldPath, errors: &mut Vec<FieldError>) {
    let swapped = strategy.ping_pong.is_some();
    let by_subset = routing.istio.as_ref().is_some_and(|istio| istio.destination_rule.is_some());
    let needed = routing.nginx.is_some()
        || routing.smi.is_some()
        || routing.apisix.is_some()
        || routing.ambassador.is_some()
        || routing.app_mesh.is_some()
        || routing.traefik.is_some()
        || (!swapped && (routing.alb.is_some() || routing.uses_gateway_api()))
        || (!swapped && !by_subset && routing.istio.is_some());
    if !needed {
        return;
    }
    for (field, service) in [("stableService", strategy.stable_service()), ("canaryService", strategy.canary_service())]
    {
        if service.is_empty() {
            let detail = "the router needs the Service to direct traffic to";
            errors.push(FieldError::invalid(at.child(field), "", detail));
        }
    }
}

fn ping_pong(strategy: &CanaryStrategy, routing: &TrafficRouting, at: &FieldPath, errors: &mut Vec<FieldError>) {
    let Some(services) = &strategy.ping_pong else { return };
    let at_services = at.child("pingPong");
    let able = routing.alb.is_some()
        || routing.istio.is_some()
        || routing.gateway_api.is_some()
        || !routing.plugins.is_empty();
    if !able || routing.nginx.is_some() {
        let detail = "needs trafficRouting by alb, gatewayAPI, istio or a plugin";
        errors.push(FieldError::invalid(&at_services, serde_json::json!(services), detail));
    }
    for (field, service) in [("pingService", &services.ping_service), ("pongService", &services.pong_service)] {
        if service.is_empty() {
            errors.push(FieldError::required(at_services.child(field), "the name of a Service"));
        }
    }
    if services.ping_service == services.pong_service && !services.ping_service.is_empty() {
        let detail = "must differ from pongService";
        errors.push(FieldError::invalid(at_services.child("pingService"), services.ping_service.as_str(), detail));
    }
    if routing.alb.as_ref().is_some_and(|alb| alb.root_service.is_empty()) {
        let path = at.child("trafficRouting").child("alb").child("rootService");
        errors.push(FieldError::required(path, "the service of the Ingress that the two Services take turns behind"));
    }
}

fn is_empty(routing: &TrafficRouting) -> bool {
    *routing
        == TrafficRouting {
            managed_routes: routing.managed_routes.clone(),
            max_traffic_weight: routing.max_traffic_weight,
            ..TrafficRouting::default()
        }
}
