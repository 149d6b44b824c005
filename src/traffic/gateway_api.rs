//! Routes of the Kubernetes Gateway API: HTTPRoute, GRPCRoute, TCPRoute and TLSRoute.
//!
//! In every rule that holds them, the backend named as the canary Service gets the canary's weight and the one named as
//! the stable Service the rest. Other backends, filters, matches and rules are left alone. A weight counts as applied
//! when every gateway that reports on the route has accepted its newest generation and resolved its references.
//!
//! Header and mirror steps put rules of their own before the user's: one for each rule that is split, for a part of its
//! requests.
//!
//! The settings stand under the key of the plugin that Argo Rollouts needs for this, `plugins["argoproj-labs/gatewayAPI"]`,
//! or under `gatewayAPI`, in the same shape.

mod managed;
mod rules;

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;

use json_patch::jsonptr::PointerBuf;
use json_patch::{AddOperation, Patch, PatchOperation, RemoveOperation};
use serde_json::{Value, json};

use super::managed::Managed;
use super::{Applied, Context, Needs, ObservedSplit, Router, RouterError, Split, Wanted, basis};
use crate::api::Rollout;
use crate::api::resource::{GRPC_ROUTE, HTTP_ROUTE, ObjectRef, Resource, TCP_ROUTE, TLS_ROUTE};
use crate::api::selector;
use crate::api::traffic_routing::{GATEWAY_API_PLUGIN, GatewayApi, TrafficRouting};
use crate::plan::Action;

use self::rules::Rules;

const IN_PROGRESS_KEY: &str = "rollouts.argoproj.io/gatewayapi-canary";
const IN_PROGRESS_VALUE: &str = "in-progress";

/// Weights of backends that do not say theirs.
const DEFAULT_WEIGHT: i64 = 1;

/// The router for the Gateway API.
pub struct GatewayApiRouter;

/// The settings, wherever they stand, with the path to them.
pub fn settings(routing: &TrafficRouting) -> Result<Cow<'_, GatewayApi>, RouterError> {
    const AT: &str = "spec.strategy.canary.trafficRouting";
    match (&routing.gateway_api, routing.plugins.get(GATEWAY_API_PLUGIN)) {
        (Some(_), Some(_)) => Err(RouterError::Settings {
            path: format!("{AT}.gatewayAPI"),
            problem: format!("is given twice: remove it, or plugins[{GATEWAY_API_PLUGIN:?}]"),
        }),
        (Some(settings), None) => Ok(Cow::Borrowed(settings)),
        (None, Some(raw)) => serde_path_to_error::deserialize(raw).map(Cow::Owned).map_err(|error| {
            let path = format!("{AT}.plugins[{GATEWAY_API_PLUGIN:?}].{}", error.path());
            RouterError::Settings { path, problem: error.into_inner().to_string() }
        }),
        (None, None) => Ok(Cow::Owned(GatewayApi::default())),
    }
}

impl Router for GatewayApiRouter {
    fn name(&self) -> &'static str {
        "GatewayAPI"
    }

    fn needs(&self, rollout: &Rollout) -> Needs {
        let mut needs = Needs::default();
        let Ok(settings) = rollout_settings(rollout) else { return needs };
        let namespace = route_namespace(&settings, rollout);
        for (resource, names, selector) in kinds(&settings) {
            needs.objects.extend(names.into_iter().map(|name| ObjectRef::new(resource, namespace, name)));
            needs.selected.extend(selector.map(|selector| (resource, namespace.to_owned(), selector.clone())));
        }
        needs
    }

    fn observe(&self, context: &Context<'_>, total: i32) -> Result<ObservedSplit, RouterError> {
        let mut observed = ObservedSplit::none(total);
        for (reference, route) in routes(context)? {
            Rules::of(context, &reference, &route).observe(&mut observed)?;
            observed.applied = observed.applied.and(applied(&reference, &route));
        }
        Ok(observed)
    }

    fn edit(&self, context: &Context<'_>, wanted: Wanted<'_>) -> Result<Vec<Action>, RouterError> {
        let settings = rollout_settings(context.rollout)?;
        let mut actions = Vec::new();
        let mut first_error = None;
        for (reference, route) in routes(context)? {
            let managed = if takes_managed(&settings, &reference) { wanted.managed } else { &[] };
            let edit = Rules::of(context, &reference, &route).edit(wanted.split, managed);
            let mut operations = match edit {
                Ok(operations) => operations,
                Err(error) => {
                    // One that is unfit must not keep an abort from the others.
                    first_error = first_error.or(Some(error));
                    continue;
                }
            };
            if let Some(split) = wanted.split {
                operations.extend(in_progress_label(&settings, &route, split.canary > 0 || !managed.is_empty()));
            }
            if !operations.is_empty() {
                let what = describe(context, wanted.split, managed);
                actions.push(Action::JsonPatch { object: basis(&reference, &route), patch: Patch(operations), what });
            }
        }
        match first_error {
            Some(error) if actions.is_empty() => Err(error),
            _ => Ok(actions),
        }
    }
}

/// Whether header and mirror steps make rules in this route.
fn takes_managed(settings: &GatewayApi, route: &ObjectRef) -> bool {
    let (single, several) = match route.resource {
        HTTP_ROUTE => (&settings.http_route, &settings.http_routes),
        GRPC_ROUTE => (&settings.grpc_route, &settings.grpc_routes),
        _ => return false,
    };
    *single == route.name || several.iter().any(|one| one.name == route.name && one.use_header_routes)
}

fn describe(context: &Context<'_>, split: Option<&Split>, managed: &[Managed<'_>]) -> String {
    let mut parts = Vec::new();
    if let Some(split) = split {
        let (canary, stable) = (context.canary_service, context.stable_service);
        parts.push(format!("weight {} to Service {canary}, {} to Service {stable}", split.canary, split.stable));
        parts.extend(split.additional.iter().map(|(service, weight)| format!("{weight} to Service {service}")));
    }
    let names: Vec<&str> = managed.iter().map(Managed::name).collect();
    if !names.is_empty() {
        parts.push(format!("managed rules {}", names.join(", ")));
    }
    if parts.is_empty() { "no managed rules".to_owned() } else { parts.join(", ") }
}

fn rollout_settings(rollout: &Rollout) -> Result<Cow<'_, GatewayApi>, RouterError> {
    let canary = rollout.spec.strategy.canary.as_ref();
    canary.and_then(|canary| canary.traffic_routing.as_deref()).map_or(Ok(Cow::Owned(GatewayApi::default())), settings)
}

fn route_namespace<'a>(settings: &'a GatewayApi, rollout: &'a Rollout) -> &'a str {
    if settings.namespace.is_empty() {
        rollout.metadata.namespace.as_deref().unwrap_or_default()
    } else {
        &settings.namespace
    }
}

/// The kinds of routes with the names and the selector that the settings give for each.
fn kinds(settings: &GatewayApi) -> [(Resource, BTreeSet<String>, Option<&crate::api::common::LabelSelector>); 4] {
    let names = |single: &String, several: &[crate::api::traffic_routing::GatewayApiRoute]| {
        let single = Some(single.clone()).filter(|name| !name.is_empty());
        single.into_iter().chain(several.iter().map(|route| route.name.clone())).collect()
    };
    [
        (HTTP_ROUTE, names(&settings.http_route, &settings.http_routes), settings.http_route_selector.as_ref()),
        (GRPC_ROUTE, names(&settings.grpc_route, &settings.grpc_routes), settings.grpc_route_selector.as_ref()),
        (TCP_ROUTE, names(&settings.tcp_route, &settings.tcp_routes), settings.tcp_route_selector.as_ref()),
        (TLS_ROUTE, names(&settings.tls_route, &settings.tls_routes), settings.tls_route_selector.as_ref()),
    ]
}

/// The observed routes; an error when a named one is missing, or when there is none at all.
fn routes(context: &Context<'_>) -> Result<Vec<(ObjectRef, Arc<Value>)>, RouterError> {
    let settings = rollout_settings(context.rollout)?;
    let namespace = route_namespace(&settings, context.rollout);
    let mut found = std::collections::BTreeMap::new();
    for (resource, names, wanted) in kinds(&settings) {
        for name in names {
            let reference = ObjectRef::new(resource, namespace, name);
            let Some(route) = context.routes.get(&reference) else { return Err(RouterError::Missing(reference)) };
            found.insert(reference, route.object.clone());
        }
        let Some(wanted) = wanted else { continue };
        for (reference, route) in context.routes {
            if reference.resource == resource
                && reference.namespace == namespace
                && selector::matches_json(wanted, &route.object["metadata"]["labels"])
            {
                found.insert(reference.clone(), route.object.clone());
            }
        }
    }
    if found.is_empty() {
        return Err(RouterError::Settings {
            path: "spec.strategy.canary.trafficRouting.gatewayAPI".to_owned(),
            problem: "no route is named or selected: name one in httpRoute, httpRoutes or another of the route fields"
                .to_owned(),
        });
    }
    Ok(found.into_iter().collect())
}

fn is_service(backend: &Value, name: &str) -> bool {
    let absent_or = |field: &str, expected: &str| backend[field].as_str().is_none_or(|value| value == expected);
    backend["name"] == name && absent_or("kind", "Service") && absent_or("group", "")
}

/// The label by which GitOps tools are told to ignore the weights while a canary is on its way.
fn in_progress_label(settings: &GatewayApi, route: &Value, in_progress: bool) -> Vec<PatchOperation> {
    if settings.disable_in_progress_label {
        return Vec::new();
    }
    let or = |set: &'_ str, default: &'static str| if set.is_empty() { default.to_owned() } else { set.to_owned() };
    let key = or(&settings.in_progress_label_key, IN_PROGRESS_KEY);
    let value = or(&settings.in_progress_label_value, IN_PROGRESS_VALUE);
    let labels = &route["metadata"]["labels"];
    let path = PointerBuf::from_tokens(["metadata", "labels", &key]);
    match (in_progress, labels.get(&key)) {
        (true, Some(present)) if *present == value => Vec::new(),
        (true, _) if labels.is_object() => vec![PatchOperation::Add(AddOperation { path, value: json!(value) })],
        (true, _) => {
            let path = PointerBuf::from_tokens(["metadata", "labels"]);
            let labels = Value::Object([(key, json!(value))].into_iter().collect());
            vec![PatchOperation::Add(AddOperation { path, value: labels })]
        }
        (false, Some(_)) => vec![PatchOperation::Remove(RemoveOperation { path })],
        (false, None) => Vec::new(),
    }
}

/// What the gateways say of the route.
fn applied(reference: &ObjectRef, route: &Value) -> Applied {
    let parents = route["status"]["parents"].as_array().map_or(&[][..], Vec::as_slice);
    if parents.is_empty() {
        return Applied::Pending { why: format!("no gateway has accepted {reference} yet") };
    }
    let generation = route["metadata"]["generation"].as_i64().unwrap_or(0);
    parents.iter().fold(Applied::Yes, |applied, parent| applied.and(parent_applied(reference, generation, parent)))
}

fn parent_applied(reference: &ObjectRef, generation: i64, parent: &Value) -> Applied {
    let gateway = parent["parentRef"]["name"].as_str().unwrap_or("?");
    let conditions = parent["conditions"].as_array().map_or(&[][..], Vec::as_slice);
    for type_ in ["Accepted", "ResolvedRefs"] {
        let Some(condition) = conditions.iter().find(|condition| condition["type"] == type_) else {
            let why = format!("gateway {gateway} has not reported {type_} on {reference} yet");
            return Applied::Pending { why };
        };
        let observed = condition["observedGeneration"].as_i64().unwrap_or(0);
        if observed < generation {
            let why =
                format!("gateway {gateway} has taken up generation {observed} of {reference}, not yet {generation}");
            return Applied::Pending { why };
        }
        if condition["status"] != "True" {
            let text = |field: &str| condition[field].as_str().unwrap_or_default();
            let why = format!(
                "gateway {gateway} refuses {reference}: {type_} is {}: {}: {}",
                text("status"),
                text("reason"),
                text("message")
            );
            return Applied::Refused { why };
        }
    }
    Applied::Yes
}

#[cfg(test)]
mod tests;
