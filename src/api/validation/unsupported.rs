//! Fields that Tidegate reads but does not act upon yet. They are refused, never ignored: a release must not run with a
//! safeguard that its author believes in and that is not there.

use crate::api::field_error::FieldError;
use crate::api::rollout::RolloutSpec;
use crate::api::traffic_routing::{GATEWAY_API_PLUGIN, TrafficRouting};

type Check<T> = (&'static str, fn(&T) -> bool);

const ROUTING: &[Check<TrafficRouting>] = &[
    ("alb", |routing| routing.alb.is_some()),
    ("smi", |routing| routing.smi.is_some()),
    ("ambassador", |routing| routing.ambassador.is_some()),
    ("appMesh", |routing| routing.app_mesh.is_some()),
    ("traefik", |routing| routing.traefik.is_some()),
    ("apisix", |routing| routing.apisix.is_some()),
];

pub(super) fn check(spec: &RolloutSpec, errors: &mut Vec<FieldError>) {
    let Some(canary) = &spec.strategy.canary else { return };
    if let Some(routing) = &canary.traffic_routing {
        collect("spec.strategy.canary.trafficRouting", ROUTING, routing, errors);
        for name in routing.plugins.keys().filter(|name| *name != GATEWAY_API_PLUGIN) {
            refuse(&format!("spec.strategy.canary.trafficRouting.plugins[{name}]"), errors);
        }
    }
    for (index, step) in canary.steps.iter().enumerate() {
        if step.plugin.is_some() {
            refuse(&format!("spec.strategy.canary.steps[{index}].plugin"), errors);
        }
    }
}

fn collect<T>(at: &str, checks: &[Check<T>], value: &T, errors: &mut Vec<FieldError>) {
    for (field, _) in checks.iter().filter(|(_, is_set)| is_set(value)) {
        refuse(&format!("{at}.{field}"), errors);
    }
}

fn refuse(path: &str, errors: &mut Vec<FieldError>) {
    errors.push(FieldError::forbidden(path, "this version of Tidegate does not act upon this field yet; remove it"));
}
