//! Subsets of a DestinationRule, told apart by the pod template hash among their labels.

use std::collections::BTreeMap;

use json_patch::jsonptr::PointerBuf;
use json_patch::{AddOperation, Patch, PatchOperation, RemoveOperation, TestOperation};
use serde_json::{Value, json};

use super::{is_host, namespace, rule};
use crate::api::Rollout;
use crate::api::names::{MANAGED_BY, POD_TEMPLATE_HASH};
use crate::api::resource::{DESTINATION_RULE, ObjectRef};
use crate::plan::Action;
use crate::traffic::observed::{Observed, Routes, Service};
use crate::traffic::{Context, RouterError, Split, basis};

/// The names under which the stable and the canary subset pass as Services; none without a DestinationRule.
pub fn roles(rollout: &Rollout) -> Option<(String, String)> {
    let rule = rule(rollout)?;
    Some((title(&rule.name, &rule.stable_subset_name), title(&rule.name, &rule.canary_subset_name)))
}

/// The Service whose endpoints the subsets narrow: nobody is reached who is not behind both.
pub fn host<'a>(rollout: &Rollout, routes: &'a Routes) -> Option<&'a str> {
    let host = routes.get(&reference(rollout)?)?.object["spec"]["host"].as_str()?;
    host.split('.').next().filter(|service| is_host(host, service, namespace(rollout)))
}

/// Whether this is a subset that passes as a Service. No Service of Kubernetes has a space in its name.
pub fn is_subset(service: &str) -> bool {
    service.contains(' ')
}

/// The two subsets as Services: whoever has the labels of a subset, and those of the Rollout's own selector, gets its
/// traffic. The Service behind the DestinationRule's host is the user's; it may select more, never less.
pub fn as_services(rollout: &Rollout, routes: &Routes) -> Vec<Observed<Service>> {
    let (Some(rule), Some(reference)) = (rule(rollout), reference(rollout)) else { return Vec::new() };
    let Some(observed) = routes.get(&reference) else { return Vec::new() };
    let object = &observed.object;
    let names = [&rule.stable_subset_name, &rule.canary_subset_name];
    let services = names.into_iter().filter_map(|name| {
        let (_, subset) = subset(object, name)?;
        let own = rollout.spec.selector.as_ref().and_then(|selector| selector.match_labels.clone());
        let mut selector = own.unwrap_or_default();
        selector.extend(texts(&subset["labels"]));
        let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
        let service = Service {
            name: title(&rule.name, name),
            uid: text("uid"),
            resource_version: text("resourceVersion"),
            annotations: texts(&object["metadata"]["annotations"]),
            selector,
            ports: Vec::new(),
            selected: None,
        };
        Some(Observed { object: service, since: observed.since })
    });
    services.collect()
}

/// The write that gives each of these subsets (named as in [`roles`]) a hash, and what the event about it says.
pub fn select(rollout: &Rollout, routes: &Routes, hashes: &BTreeMap<String, String>) -> Option<(Action, String)> {
    let (rule, reference) = (rule(rollout)?, reference(rollout)?);
    let object = &routes.get(&reference)?.object;
    let mut operations = Vec::new();
    let mut said = Vec::new();
    for name in [&rule.canary_subset_name, &rule.stable_subset_name] {
        let Some((index, subset)) = subset(object, name) else { continue };
        let present = subset["labels"][POD_TEMPLATE_HASH].as_str().unwrap_or_default();
        let wanted = hashes.get(&title(&rule.name, name)).map_or(present, String::as_str);
        said.push(format!("{name}: {wanted}"));
        if wanted == present {
            continue;
        }
        let index = index.to_string();
        operations.push(test(&["spec", "subsets", &index, "name"], json!(name)));
        operations.push(if subset["labels"].is_object() {
            add(&["spec", "subsets", &index, "labels", POD_TEMPLATE_HASH], json!(wanted))
        } else {
            add(&["spec", "subsets", &index, "labels"], json!({ POD_TEMPLATE_HASH: wanted }))
        });
    }
    if operations.is_empty() {
        return None;
    }
    let owner = rollout.metadata.name.as_deref().unwrap_or_default();
    let annotations = &object["metadata"]["annotations"];
    if annotations[MANAGED_BY] != owner {
        operations.push(if annotations.is_object() {
            add(&["metadata", "annotations", MANAGED_BY], json!(owner))
        } else {
            add(&["metadata", "annotations"], json!({ MANAGED_BY: owner }))
        });
    }
    let said = format!("DestinationRule {} subset updated ({})", rule.name, said.join(", "));
    let what = said.split_once(" (").map_or("", |(_, rest)| rest.trim_end_matches(')')).to_owned();
    Some((Action::JsonPatch { object: basis(&reference, object), patch: Patch(operations), what }, said))
}

/// The write that gives every experiment with a weight a subset named as its Service, and takes those of others away. The
/// VirtualService leads to the Service: the subsets are for routes and policies of users.
pub(super) fn experiments(context: &Context<'_>, split: &Split) -> Option<Action> {
    let reference = reference(context.rollout)?;
    let object = &context.routes.get(&reference)?.object;
    let subsets = object["spec"]["subsets"].as_array().map_or(&[][..], Vec::as_slice);
    let wanted: Vec<Value> = context
        .experiment_services
        .iter()
        .filter(|(service, hash)| split.additional.get(*service).is_some_and(|weight| *weight > 0) && !hash.is_empty())
        .map(|(service, hash)| json!({ "name": service, "labels": { POD_TEMPLATE_HASH: hash } }))
        .collect();
    let is_ours =
        |subset: &Value| subset["name"].as_str().is_some_and(|name| context.experiment_services.contains_key(name));
    let stale = subsets.iter().enumerate().filter(|(_, subset)| is_ours(subset) && !wanted.contains(subset));
    // From the end, so that what is before stays where it is.
    let mut operations: Vec<PatchOperation> = stale
        .rev()
        .flat_map(|(index, subset)| {
            let index = index.to_string();
            let path = PointerBuf::from_tokens(["spec", "subsets", &index]);
            let named = test(&["spec", "subsets", &index, "name"], subset["name"].clone());
            [named, PatchOperation::Remove(RemoveOperation { path })]
        })
        .collect();
    let missing = wanted.iter().filter(|subset| !subsets.contains(subset));
    operations.extend(missing.map(|subset| add(&["spec", "subsets", "-"], subset.clone())));
    if operations.is_empty() {
        return None;
    }
    let names: Vec<&str> = wanted.iter().filter_map(|subset| subset["name"].as_str()).collect();
    let what = if names.is_empty() { "no experiments".to_owned() } else { format!("experiments {}", names.join(", ")) };
    Some(Action::JsonPatch { object: basis(&reference, object), patch: Patch(operations), what })
}

/// The Rollout that has taken this DestinationRule as its own.
pub fn manager(object: &Value) -> Option<&str> {
    object["metadata"]["annotations"][MANAGED_BY].as_str().filter(|name| !name.is_empty())
}

/// The write that takes our labels and our annotation off a DestinationRule that no Rollout refers to any more: its
/// subsets then reach whatever their own labels say.
pub fn release(reference: &ObjectRef, object: &Value) -> Option<Action> {
    manager(object)?;
    let subsets = object["spec"]["subsets"].as_array().map_or(&[][..], Vec::as_slice);
    let labelled = subsets.iter().enumerate().filter(|(_, subset)| subset["labels"][POD_TEMPLATE_HASH].is_string());
    let remove = |tokens: &[&str]| {
        PatchOperation::Remove(RemoveOperation { path: PointerBuf::from_tokens(tokens.iter().copied()) })
    };
    let mut operations: Vec<PatchOperation> = labelled
        .map(|(index, _)| remove(&["spec", "subsets", &index.to_string(), "labels", POD_TEMPLATE_HASH]))
        .collect();
    operations.push(remove(&["metadata", "annotations", MANAGED_BY]));
    let what = "no Rollout refers to it any more".to_owned();
    Some(Action::JsonPatch { object: basis(reference, object), patch: Patch(operations), what })
}

/// The DestinationRule that the settings name. It is always in the Rollout's namespace.
pub(super) fn reference(rollout: &Rollout) -> Option<ObjectRef> {
    Some(ObjectRef::new(DESTINATION_RULE, namespace(rollout), rule(rollout)?.name.clone()))
}

/// That the DestinationRule, if there is to be one, has both subsets and is nobody else's.
pub(super) fn check(context: &Context<'_>) -> Result<(), RouterError> {
    let (Some(rule), Some(reference)) = (rule(context.rollout), reference(context.rollout)) else { return Ok(()) };
    let Some(observed) = context.routes.get(&reference) else { return Err(RouterError::Missing(reference)) };
    let own = context.rollout.metadata.name.as_deref().unwrap_or_default();
    if let Some(other) = manager(&observed.object).filter(|name| *name != own) {
        let problem =
            format!("is managed by another Rollout, {other:?}; give each Rollout a DestinationRule of its own");
        return Err(RouterError::Unfit { object: reference, problem });
    }
    for name in [&rule.stable_subset_name, &rule.canary_subset_name] {
        if subset(&observed.object, name).is_none() {
            let problem = format!("spec.subsets has no subset named {name:?}; add it");
            return Err(RouterError::Unfit { object: reference, problem });
        }
    }
    Ok(())
}

fn title(rule: &str, subset: &str) -> String {
    format!("{rule} (subset {subset})")
}

fn subset<'a>(object: &'a Value, name: &str) -> Option<(usize, &'a Value)> {
    object["spec"]["subsets"].as_array()?.iter().enumerate().find(|(_, subset)| subset["name"] == name)
}

fn texts(object: &Value) -> BTreeMap<String, String> {
    let pairs = object.as_object().into_iter().flatten();
    pairs.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
}

fn test(tokens: &[&str], value: Value) -> PatchOperation {
    PatchOperation::Test(TestOperation { path: PointerBuf::from_tokens(tokens.iter().copied()), value })
}

fn add(tokens: &[&str], value: Value) -> PatchOperation {
    PatchOperation::Add(AddOperation { path: PointerBuf::from_tokens(tokens.iter().copied()), value })
}
