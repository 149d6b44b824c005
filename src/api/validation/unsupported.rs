//! Fields that Tidegate reads but does not act upon yet. They are refused, never ignored: a release must not run with a
//! safeguard that its author believes in and that is not there.

use crate::api::blue_green::BlueGreenStrategy;
use crate::api::canary::CanaryStrategy;
use crate::api::field_error::FieldError;
use crate::api::rollout::RolloutSpec;
use crate::api::traffic_routing::{GATEWAY_API_PLUGIN, TrafficRouting};

type Check<T> = (&'static str, fn(&T) -> bool);

const SPEC: &[Check<RolloutSpec>] =
    &[("workloadRef", |spec| spec.workload_ref.is_some()), ("restartAt", |spec| spec.restart_at.is_some())];

const BLUE_GREEN: &[Check<BlueGreenStrategy>] = &[
    ("antiAffinity", |blue_green| blue_green.anti_affinity.is_some()),
    ("previewMetadata", |blue_green| blue_green.preview_metadata.is_some()),
    ("activeMetadata", |blue_green| blue_green.active_metadata.is_some()),
];

const CANARY: &[Check<CanaryStrategy>] = &[
    ("antiAffinity", |canary| canary.anti_affinity.is_some()),
    ("canaryMetadata", |canary| canary.canary_metadata.is_some()),
    ("stableMetadata", |canary| canary.stable_metadata.is_some()),
];

const ROUTING: &[Check<TrafficRouting>] = &[
    ("istio", |routing| routing.istio.is_some()),
    ("alb", |routing| routing.alb.is_some()),
    ("smi", |routing| routing.smi.is_some()),
    ("ambassador", |routing| routing.ambassador.is_some()),
    ("appMesh", |routing| routing.app_mesh.is_some()),
    ("traefik", |routing| routing.traefik.is_some()),
    ("apisix", |routing| routing.apisix.is_some()),
];

pub(super) fn check(spec: &RolloutSpec, errors: &mut Vec<FieldError>) {
    collect("spec", SPEC, spec, errors);
    if let Some(blue_green) = &spec.strategy.blue_green {
        collect("spec.strategy.blueGreen", BLUE_GREEN, blue_green, errors);
    }
    let Some(canary) = &spec.strategy.canary else { return };
    collect("spec.strategy.canary", CANARY, canary, errors);
    if let Some(routing) = &canary.traffic_routing {
        collect("spec.strategy.canary.trafficRouting", ROUTING, routing, errors);
        for name in routing.plugins.keys().filter(|name| *name != GATEWAY_API_PLUGIN) {
            refuse(&format!("spec.strategy.canary.trafficRouting.plugins[{name}]"), errors);
        }
    }
    for (index, step) in canary.steps.iter().enumerate() {
        for (field, set) in [
            ("setHeaderRoute", step.set_header_route.is_some()),
            ("setMirrorRoute", step.set_mirror_route.is_some()),
            ("plugin", step.plugin.is_some()),
        ] {
            if set {
                refuse(&format!("spec.strategy.canary.steps[{index}].{field}"), errors);
            }
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
