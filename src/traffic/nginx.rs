//! ingress-nginx: a companion Ingress with canary annotations beside each Ingress of the stable Service.
//!
//! The companion `<rollout>-<ingress>-canary` copies the rules of its Ingress that lead to the stable Service, with the
//! canary Service in its place; `<prefix>/canary-weight` is the share of traffic that it takes. It belongs to the Rollout
//! and goes with it. ingress-nginx reports nothing back, so a weight counts as applied once it stands in the object and the
//! propagation delay has passed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::{Context, Needs, ObservedSplit, Router, RouterError, Split, Wanted, basis};
use crate::api::Rollout;
use crate::api::common::LabelSelector;
use crate::api::resource::{INGRESS, ObjectRef};
use crate::api::traffic_routing::Nginx;
use crate::plan::Action;

const DEFAULT_PREFIX: &str = "nginx.ingress.kubernetes.io";
const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";
/// What ingress-nginx takes as all of the traffic when `canary-weight-total` is absent.
const DEFAULT_TOTAL: i64 = 100;
/// The longest name of an object.
const NAME_LIMIT: usize = 253;

/// The router for ingress-nginx.
pub struct NginxRouter;

impl Router for NginxRouter {
    fn name(&self) -> &'static str {
        "Nginx"
    }

    fn needs(&self, rollout: &Rollout) -> Needs {
        let Some(nginx) = settings(rollout) else { return Needs::default() };
        let namespace = namespace(rollout);
        let named = named(nginx);
        if named.is_empty() {
            let everything = LabelSelector::default();
            return Needs { objects: Vec::new(), selected: vec![(INGRESS, namespace.to_owned(), everything)] };
        }
        let objects = named.iter().flat_map(|name| {
            [ObjectRef::new(INGRESS, namespace, *name), ObjectRef::new(INGRESS, namespace, companion(rollout, name))]
        });
        Needs { objects: objects.collect(), selected: Vec::new() }
    }

    fn observe(&self, context: &Context<'_>, total: i32) -> Result<ObservedSplit, RouterError> {
        let prefix = prefix(settings(context.rollout));
        let mut observed = ObservedSplit::none(total);
        for pair in pairs(context)? {
            let canary = pair.companion.map_or(0, |companion| weight(companion, prefix, total));
            observed.add(canary, total - canary);
        }
        Ok(observed)
    }

    fn edit(&self, context: &Context<'_>, wanted: Wanted<'_>) -> Result<Vec<Action>, RouterError> {
        // Validation refuses header and mirror steps with this router.
        let Some(wanted) = wanted.split else { return Ok(Vec::new()) };
        pairs(context)?.into_iter().filter_map(|pair| edit(context, &pair, wanted).transpose()).collect()
    }
}

/// An Ingress of the stable Service and its companion, if there is one yet.
struct Pair<'a> {
    /// Missing when somebody has deleted it: the companion can still be set to 0.
    stable: Option<&'a Arc<Value>>,
    stable_reference: ObjectRef,
    companion: Option<&'a Arc<Value>>,
    companion_reference: ObjectRef,
}

fn settings(rollout: &Rollout) -> Option<&Nginx> {
    rollout.spec.strategy.traffic_routing()?.nginx.as_ref()
}

fn namespace(rollout: &Rollout) -> &str {
    rollout.metadata.namespace.as_deref().unwrap_or_default()
}

fn prefix(nginx: Option<&Nginx>) -> &str {
    nginx.map(|nginx| nginx.annotation_prefix.as_str()).filter(|prefix| !prefix.is_empty()).unwrap_or(DEFAULT_PREFIX)
}

/// The Ingresses that the settings name, each once.
fn named(nginx: &Nginx) -> BTreeSet<&str> {
    let single = Some(nginx.stable_ingress.as_str()).filter(|name| !name.is_empty());
    single.into_iter().chain(nginx.stable_ingresses.iter().map(String::as_str)).collect()
}

/// The name of the companion of an Ingress.
fn companion(rollout: &Rollout, ingress: &str) -> String {
    let rollout = rollout.metadata.name.as_deref().unwrap_or_default();
    let mut name = format!("{rollout}-{ingress}-canary");
    name.truncate(NAME_LIMIT);
    name
}

fn pairs<'a>(context: &'a Context<'_>) -> Result<Vec<Pair<'a>>, RouterError> {
    let Some(nginx) = settings(context.rollout) else { return Ok(Vec::new()) };
    let names = named(nginx);
    let names: Vec<&str> =
        if names.is_empty() { vec![only_ingress(context, nginx)?] } else { names.into_iter().collect() };
    let namespace = namespace(context.rollout);
    let pairs = names.into_iter().map(|name| {
        let stable_reference = ObjectRef::new(INGRESS, namespace, name);
        let companion_reference = ObjectRef::new(INGRESS, namespace, companion(context.rollout, name));
        let find = |reference| context.routes.get(reference).map(|route| &route.object);
        let (stable, companion) = (find(&stable_reference), find(&companion_reference));
        if stable.is_none() && companion.is_none() {
            return Err(RouterError::Missing(stable_reference));
        }
        Ok(Pair { stable, stable_reference, companion, companion_reference })
    });
    pairs.collect()
}

/// The one Ingress of the namespace that leads to the stable Service, for manifests that name none.
fn only_ingress<'a>(context: &'a Context<'_>, nginx: &Nginx) -> Result<&'a str, RouterError> {
    let canary = format!("{}/canary", prefix(Some(nginx)));
    let candidates: Vec<&str> = context
        .routes
        .iter()
        .filter(|(reference, _)| reference.resource == INGRESS && reference.namespace == namespace(context.rollout))
        .filter(|(_, ingress)| ingress.object["metadata"]["annotations"][&canary] != "true")
        .filter(|(_, ingress)| !canary_rules(&ingress.object, context).is_empty())
        .map(|(reference, _)| reference.name.as_str())
        .collect();
    if let [only] = candidates[..] {
        return Ok(only);
    }
    let path = "spec.strategy.canary.trafficRouting.nginx.stableIngress".to_owned();
    let service = context.stable_service;
    let problem = if candidates.is_empty() {
        format!(
            "is not set, and no Ingress of the namespace has a rule for the stable Service {service:?}; name the Ingress"
        )
    } else {
        let candidates = candidates.join(", ");
        format!(
            "is not set, and several Ingresses have rules for the stable Service {service:?}: {candidates}; name one"
        )
    };
    Err(RouterError::Settings { path, problem })
}

/// The weight of a companion, scaled to `total`; 0 when it is not marked as a canary.
fn weight(companion: &Value, prefix: &str, total: i32) -> i32 {
    let annotation = |name: &str| companion["metadata"]["annotations"][format!("{prefix}/{name}")].as_str();
    if annotation("canary") != Some("true") {
        return 0;
    }
    let number = |name, default| annotation(name).and_then(|text| text.parse::<i64>().ok()).unwrap_or(default);
    let own_total = number("canary-weight-total", DEFAULT_TOTAL).max(1);
    let weight = number("canary-weight", 0).clamp(0, own_total);
    // Rounded up: a share that does not come out even is no reason to think that nothing flows.
    ((weight * i64::from(total) + own_total - 1) / own_total) as i32
}

fn edit(context: &Context<'_>, pair: &Pair<'_>, wanted: &Split) -> Result<Option<Action>, RouterError> {
    let nginx = settings(context.rollout);
    let prefix = prefix(nginx);
    let owner = context.rollout.metadata.uid.as_deref().unwrap_or_default();
    if let Some(companion) = pair.companion
        && controller(companion) != Some(owner)
    {
        let problem =
            "belongs to somebody else: the Rollout needs this name for its canary Ingress; rename or delete it";
        return Err(RouterError::Unfit { object: pair.companion_reference.clone(), problem: problem.to_owned() });
    }
    let fit = pair.stable.ok_or_else(|| RouterError::Missing(pair.stable_reference.clone()));
    let (annotations, spec) = match fit.and_then(|stable| desired(context, nginx, pair, stable, wanted)) {
        Ok(desired) => desired,
        // Without an Ingress that it could follow, the companion can only be taken out of the traffic.
        Err(error) => {
            return match pair.companion.filter(|_| wanted.canary == 0) {
                Some(companion) => Ok(without_weight(pair, companion, prefix)),
                None => Err(error),
            };
        }
    };
    let Some(companion) = pair.companion else {
        let body = json!({
            "apiVersion": INGRESS.api_version(),
            "kind": INGRESS.kind,
            "metadata": {
                "name": pair.companion_reference.name,
                "namespace": pair.companion_reference.namespace,
                "annotations": annotations,
                "ownerReferences": [context.rollout.owner_reference()],
            },
            "spec": spec,
        });
        return Ok(Some(Action::Create { object: pair.companion_reference.clone(), body }));
    };
    let mut patch = Map::new();
    let present = &companion["metadata"]["annotations"];
    let changed: BTreeMap<&String, Value> = annotations
        .iter()
        .filter(|(key, value)| present[*key] != **value)
        .map(|(key, value)| (key, json!(value)))
        .collect();
    if !changed.is_empty() {
        patch.insert("metadata".to_owned(), json!({"annotations": changed}));
    }
    let differing: Map<String, Value> = ["ingressClassName", "tls", "rules"]
        .into_iter()
        .filter(|field| spec[*field] != companion["spec"][*field])
        .map(|field| (field.to_owned(), spec[field].clone()))
        .collect();
    if !differing.is_empty() {
        patch.insert("spec".to_owned(), Value::Object(differing));
    }
    if patch.is_empty() {
        return Ok(None);
    }
    Ok(Some(Action::MergePatch {
        object: basis(&pair.companion_reference, companion),
        patch: Value::Object(patch),
        what: format!("canary-weight {}", wanted.canary),
    }))
}

/// The write that takes a companion out of the traffic, if it is not.
fn without_weight(pair: &Pair<'_>, companion: &Value, prefix: &str) -> Option<Action> {
    let key = format!("{prefix}/canary-weight");
    if companion["metadata"]["annotations"][&key] == "0" {
        return None;
    }
    Some(Action::MergePatch {
        object: basis(&pair.companion_reference, companion),
        patch: json!({"metadata": {"annotations": {key: "0"}}}),
        what: "canary-weight 0".to_owned(),
    })
}

/// The annotations and the spec that the companion must have.
fn desired(
    context: &Context<'_>,
    nginx: Option<&Nginx>,
    pair: &Pair<'_>,
    stable: &Value,
    wanted: &Split,
) -> Result<(BTreeMap<String, String>, Value), RouterError> {
    let prefix = prefix(nginx);
    let rules = canary_rules(stable, context);
    if rules.is_empty() {
        let problem = format!(
            "spec.rules has no path to Service {:?}, the stable Service of the Rollout; add a rule for it",
            context.stable_service
        );
        return Err(RouterError::Unfit { object: pair.stable_reference.clone(), problem });
    }
    let mut annotations = BTreeMap::new();
    if let Some(class) = stable["metadata"]["annotations"][CLASS_ANNOTATION].as_str() {
        annotations.insert(CLASS_ANNOTATION.to_owned(), class.to_owned());
    }
    for (key, value) in nginx.iter().flat_map(|nginx| &nginx.additional_ingress_annotations) {
        let key = if key.starts_with(prefix) { key.clone() } else { format!("{prefix}/{key}") };
        annotations.insert(key, value.clone());
    }
    annotations.insert(format!("{prefix}/canary"), "true".to_owned());
    annotations.insert(format!("{prefix}/canary-weight"), wanted.canary.to_string());
    let routing = context.rollout.spec.strategy.traffic_routing();
    // Once said it has to stay right: without `maxTrafficWeight` it is what it would be if it were absent.
    let total = format!("{prefix}/canary-weight-total");
    let said = pair.companion.is_some_and(|companion| companion["metadata"]["annotations"][&total].is_string());
    if said || routing.is_some_and(|routing| routing.max_traffic_weight.is_some()) {
        annotations.insert(total, wanted.total.to_string());
    }
    annotations.extend(nginx.iter().flat_map(|nginx| nginx.canary_ingress_annotations.clone()));
    let mut spec = json!({ "rules": rules });
    for field in ["ingressClassName", "tls"] {
        if let Some(value) = stable["spec"].get(field) {
            spec[field] = value.clone();
        }
    }
    Ok((annotations, spec))
}

/// The rules with at least one path to the stable Service, these paths only, leading to the canary Service instead.
fn canary_rules(ingress: &Value, context: &Context<'_>) -> Vec<Value> {
    let rules = ingress["spec"]["rules"].as_array().map_or(&[][..], Vec::as_slice);
    let redirected = rules.iter().filter_map(|rule| {
        let paths = rule["http"]["paths"].as_array()?;
        let paths: Vec<Value> = paths
            .iter()
            .filter(|path| path["backend"]["service"]["name"] == context.stable_service)
            .map(|path| {
                let mut path = path.clone();
                path["backend"]["service"]["name"] = json!(context.canary_service);
                path
            })
            .collect();
        let mut rule = rule.clone();
        rule["http"]["paths"] = Value::Array(paths);
        (!rule["http"]["paths"].as_array()?.is_empty()).then_some(rule)
    });
    redirected.collect()
}

fn controller(object: &Value) -> Option<&str> {
    let owners = object["metadata"]["ownerReferences"].as_array()?;
    owners.iter().find(|owner| owner["controller"] == true)?["uid"].as_str()
}

#[cfg(test)]
mod tests;
