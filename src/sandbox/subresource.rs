//! Scale, eviction and binding.

use std::sync::Arc;

use jiff::Timestamp;
use kube::core::response::StatusCause;
use serde_json::{Value, json};

use super::delete::{DeleteOptions, delete};
use super::patch::Patch;
use super::resource::Scale;
use super::selector::LabelSelector;
use super::state::State;
use super::status::{self, FieldError, Refusal};
use super::strategy::is_gated;
use super::write::{self, Ownership, Sub, Target, WriteOptions, seconds};

/// The scale of an object.
pub(super) fn scale_of(target: &Target, object: &Value) -> Result<Value, Refusal> {
    let paths = scale_paths(target)?;
    let number = |pointer: &str| object.pointer(pointer).and_then(Value::as_i64).unwrap_or(0);
    let meta = &object["metadata"];
    let mut scale = json!({
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {
            "name": meta["name"],
            "namespace": meta["namespace"],
            "uid": meta["uid"],
            "resourceVersion": meta["resourceVersion"],
            "creationTimestamp": meta["creationTimestamp"],
        },
        // A typed server leaves out a number that is zero here, but not in the status.
        "spec": Some(number(&paths.spec_replicas)).filter(|n| *n != 0).map_or(json!({}), |n| json!({"replicas": n})),
        "status": {"replicas": number(&paths.status_replicas)},
    });
    let selector = paths.selector.as_deref().and_then(|pointer| object.pointer(pointer));
    let selector = match selector {
        Some(Value::String(text)) => Some(text.clone()),
        Some(other) => LabelSelector::of(other).map(|selector| selector.to_query()),
        None => None,
    };
    if let Some(selector) = selector {
        scale["status"]["selector"] = selector.into();
    }
    Ok(scale)
}

/// Replaces the scale of an object.
pub(super) fn update_scale(
    state: &mut State,
    target: &Target,
    scale: &Value,
    options: &WriteOptions,
) -> Result<Arc<Value>, Refusal> {
    let existing = target.existing(state)?;
    let wanted = scale["spec"]["replicas"].as_i64().unwrap_or(0);
    if wanted < 0 {
        if !target.resource.custom {
            return Err(status::negative_scale(&target.name, wanted));
        }
        let field = scale_paths(target)?.spec_replicas.replace('/', ".");
        let error = FieldError::invalid(field, &wanted.into(), "should be a non-negative integer");
        return Err(status::invalid(&target.resource, &target.name, &[error]));
    }
    let mut object = (*target.resource.present(&target.version, &existing)).clone();
    if let Some(version) = scale["metadata"]["resourceVersion"].as_str().filter(|version| !version.is_empty()) {
        object["metadata"]["resourceVersion"] = version.into();
    }
    put(&mut object, &scale_paths(target)?.spec_replicas, wanted.into());
    let target = Target { sub: Sub::Scale, ..target.clone() };
    let written = write::replace(state, &target, &existing, object, Ownership::ByUpdate, options)?;
    scale_of(&target, &written.object).map(Arc::new)
}

/// Patches the scale of an object.
pub(super) fn patch_scale(
    state: &mut State,
    target: &Target,
    patch: &Patch,
    options: &WriteOptions,
) -> Result<Arc<Value>, Refusal> {
    let scale = scale_of(target, &*target.existing(state)?)?;
    let patched = patch.apply_to_scale(&scale)?;
    update_scale(state, target, &patched, options)
}

fn scale_paths(target: &Target) -> Result<Scale, Refusal> {
    target.version().and_then(|version| version.scale.clone()).ok_or_else(status::no_such_path)
}

fn put(object: &mut Value, pointer: &str, value: Value) {
    let mut at = object;
    for field in pointer.split('/').skip(1) {
        at = &mut at[field];
    }
    *at = value;
}

/// Evicts a pod, if its disruption budget allows that.
pub(super) fn evict(state: &mut State, target: &Target, eviction: &Value, now: Timestamp) -> Result<Value, Refusal> {
    let pod = target.existing(state)?;
    let mut options = DeleteOptions::from_body(&eviction["deleteOptions"])?;
    let budgets: Vec<Arc<Value>> = state
        .collection("poddisruptionbudgets.policy")
        .into_iter()
        .flat_map(|budgets| budgets.iter(Some(&target.namespace)))
        .filter(|budget| {
            let selector = LabelSelector::of(&budget["spec"]["selector"]);
            selector.is_some_and(|selector| selector.matches(&pod))
        })
        .cloned()
        .collect();
    let through = matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed" | "Pending"));
    match budgets.as_slice() {
        _ if through => {}
        [] => {}
        [budget] => use_budget(state, target, budget, options.dry_run, now)?,
        _ => {
            let message =
                "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
            return Err(status::internal(message));
        }
    }
    options.uid = options.uid.or_else(|| pod["metadata"]["uid"].as_str().map(Into::into));
    delete(state, target, &options, now)?;
    Ok(json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}))
}

fn use_budget(
    state: &mut State,
    target: &Target,
    budget: &Value,
    dry_run: bool,
    now: Timestamp,
) -> Result<(), Refusal> {
    let number = |field: &str| budget["status"][field].as_i64().unwrap_or(0);
    let name = budget["metadata"]["name"].as_str().unwrap_or_default();
    if number("disruptionsAllowed") < 1 {
        let message = format!(
            "The disruption budget {name} needs {} healthy pods and has {} currently",
            number("desiredHealthy"),
            number("currentHealthy")
        );
        let cause = StatusCause { reason: "DisruptionBudget".into(), message, field: String::new() };
        let message = "Cannot evict pod as it would violate the pod's disruption budget.";
        return Err(status::too_many_requests(message, Some(cause)));
    }
    if dry_run {
        return Ok(());
    }
    let mut used = budget.clone();
    used["status"]["disruptionsAllowed"] = (number("disruptionsAllowed") - 1).into();
    used["status"]["disruptedPods"][target.name.as_str()] = seconds(now).into();
    let place = super::state::Place {
        collection: "poddisruptionbudgets.policy".into(),
        namespace: target.namespace.clone(),
        name: name.to_owned(),
    };
    state.put(&place, used);
    Ok(())
}

/// Binds a pod to a node.
pub(super) fn bind(state: &mut State, target: &Target, binding: &Value, now: Timestamp) -> Result<Value, Refusal> {
    let pod = target.existing(state)?;
    let node = binding["target"]["name"].as_str().unwrap_or_default();
    if is_gated(&pod) {
        let why = format!("pod {} has non-empty .spec.schedulingGates", target.name);
        return Err(status::unbindable(&target.name, &why));
    }
    if let Some(bound) = pod["spec"]["nodeName"].as_str().filter(|bound| !bound.is_empty()) {
        let why = format!("pod {} is already assigned to node \"{bound}\"", target.name);
        return Err(status::unbindable(&target.name, &why));
    }
    let mut bound = (*pod).clone();
    bound["spec"]["nodeName"] = node.into();
    let scheduled = json!({"type": "PodScheduled", "status": "True", "lastProbeTime": null,
        "lastTransitionTime": seconds(now)});
    match &mut bound["status"]["conditions"] {
        Value::Array(conditions) => {
            conditions.retain(|condition| condition["type"] != "PodScheduled");
            conditions.push(scheduled);
        }
        none => *none = json!([scheduled]),
    }
    state.put(&target.place(), bound);
    Ok(json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}))
}
