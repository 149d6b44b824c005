//! From manifests to objects.

use std::sync::Arc;

use serde_json::Value;

use crate::sandbox::{Patch, Refusal, Resource, Scoped};

/// Why manifests could not be applied.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The text is not YAML.
    #[error("not YAML: {0}")]
    NotYaml(String),
    /// An object's kind is not served.
    #[error("no kind {kind:?} of {api_version:?} is served")]
    UnknownKind {
        /// As the object says.
        api_version: String,
        /// As the object says.
        kind: String,
    },
    /// The server refused an object.
    #[error("{kind} {name}: {}", .refusal.message)]
    Refused {
        /// The object's kind.
        kind: String,
        /// The object's name.
        name: String,
        /// The server's answer.
        refusal: Refusal,
    },
}

pub(super) fn apply(user: &Scoped, yaml: &str) -> Result<Vec<Arc<Value>>, ApplyError> {
    let documents: Vec<Value> =
        serde_saphyr::from_multiple(yaml).map_err(|error| ApplyError::NotYaml(error.to_string()))?;
    documents.into_iter().filter(|document| !document.is_null()).map(|document| apply_one(user, document)).collect()
}

fn apply_one(user: &Scoped, object: Value) -> Result<Arc<Value>, ApplyError> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (api_version, kind) = (text(&object["apiVersion"]), text(&object["kind"]));
    let Some(resource) = resource(user, &api_version, &kind) else {
        return Err(ApplyError::UnknownKind { api_version, kind });
    };
    let name = text(&object["metadata"]["name"]);
    let namespace = match object["metadata"]["namespace"].as_str() {
        _ if !resource.namespaced => "",
        Some(namespace) => namespace,
        None => "default",
    };
    let namespace = namespace.to_owned();
    let applied = if user.get(&resource.key, &namespace, &name).is_ok() {
        user.patch(&resource.key, &namespace, &name, &Patch::Merge(object))
    } else {
        user.create(&resource.key, &namespace, object)
    };
    applied.map_err(|refusal| ApplyError::Refused { kind, name, refusal })
}

fn resource(user: &Scoped, api_version: &str, kind: &str) -> Option<Arc<Resource>> {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let state = user.server().shared.lock();
    let mut all = state.resources.values();
    let found = all.find(|resource| {
        resource.kind == kind && resource.group == group && resource.versions.iter().any(|it| it.name == version)
    });
    found.cloned()
}
