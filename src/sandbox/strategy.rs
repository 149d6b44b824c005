//! What built-in kinds do to an object on its way into the store: initial status, generation, what may not change.

use serde_json::{Value, json};

use super::resource::{Resource, Version};
use super::state::State;
use super::status::FieldError;
use super::write::{Target, WriteOptions};

/// Fills in what the kind's own strategy sets on creation.
pub(super) fn prepare_create(_state: &mut State, target: &Target, object: &mut Value, _options: &WriteOptions) {
    let keeps_status = matches!(&*target.resource.key, "nodes");
    if target.version().is_some_and(|version| version.status)
        && !keeps_status
        && let Value::Object(fields) = object
    {
        fields.remove("status");
    }
    match &*target.resource.key {
        "pods" => object["status"] = json!({"phase": "Pending", "qosClass": "BestEffort"}),
        "namespaces" => {
            object["spec"]["finalizers"] = json!(["kubernetes"]);
            object["status"] = json!({"phase": "Active"});
            let name = object["metadata"]["name"].clone();
            object["metadata"]["labels"]["kubernetes.io/metadata.name"] = name;
        }
        _ => {}
    }
}

/// Keeps what the kind's own strategy keeps on an update.
pub(super) fn prepare_update(_target: &Target, _object: &mut Value, _existing: &Value) {}

/// What is wrong with an object beyond its schema.
pub(super) fn validate(_resource: &Resource, _object: &Value, _existing: Option<&Value>) -> Vec<FieldError> {
    Vec::new()
}

/// Whether an update counts as a new generation.
pub(super) fn bumps_generation(
    resource: &Resource,
    version: Option<&Version>,
    object: &Value,
    existing: &Value,
) -> bool {
    if !resource.traits.generation {
        return false;
    }
    if !resource.custom {
        let annotations = |object: &Value| object["metadata"]["annotations"].clone();
        return object.get("spec") != existing.get("spec")
            || (&*resource.key == "deployments.apps" && annotations(object) != annotations(existing));
    }
    let status_apart = version.is_some_and(|version| version.status);
    let counted = |key: &str| key != "metadata" && !(status_apart && key == "status");
    let (Value::Object(new), Value::Object(old)) = (object, existing) else { return false };
    let differs = |key: &String| counted(key) && new.get(key) != old.get(key);
    new.keys().any(differs) || old.keys().any(differs)
}
