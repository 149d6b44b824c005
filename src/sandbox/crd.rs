//! CustomResourceDefinitions: how one becomes a resource that the server serves.

use std::sync::Arc;

use serde_json::{Value, json};

use super::builtin::key;
use super::resource::{Column, Resource, Scale, Traits, Version};
use super::schema::Schema;
use super::state::State;
use super::write::WriteOptions;

const CRDS: &str = "customresourcedefinitions.apiextensions.k8s.io";

/// Accepts the names of a definition that is about to be stored, and says so in its status.
pub(super) fn prepare(resource: &Resource, object: &mut Value, existing: Option<&Value>, options: &WriteOptions) {
    if &*resource.key != CRDS {
        return;
    }
    let spec = &mut object["spec"];
    if spec["conversion"].is_null() {
        spec["conversion"] = json!({"strategy": "None"});
    }
    let kind = spec["names"]["kind"].as_str().unwrap_or_default().to_owned();
    if spec["names"]["singular"].is_null() {
        spec["names"]["singular"] = kind.to_lowercase().into();
    }
    if spec["names"]["listKind"].is_null() {
        spec["names"]["listKind"] = format!("{kind}List").into();
    }
    let stored: Vec<Value> = versions(spec).filter(|v| v["storage"] == true).map(|v| v["name"].clone()).collect();
    let since = existing
        .and_then(|crd| crd.pointer("/status/conditions/0/lastTransitionTime"))
        .cloned()
        .unwrap_or_else(|| options.timestamp().into());
    let condition = |kind: &str, reason: &str, message: &str| json!({"type": kind, "status": "True", "reason": reason, "message": message, "lastTransitionTime": since});
    let names = spec["names"].clone();
    object["status"] = json!({
        "acceptedNames": names,
        "conditions": [
            condition("NamesAccepted", "NoConflicts", "no conflicts found"),
            condition("Established", "InitialNamesAccepted", "the initial names have been accepted"),
        ],
        "storedVersions": stored,
    });
}

/// Serves what a stored definition defines.
pub(super) fn after_write(state: &mut State, resource: &Resource, object: &Arc<Value>) {
    if &*resource.key == CRDS
        && let Some(defined) = defined(object)
    {
        state.register(defined);
    }
}

/// Serves no longer what a removed definition defined.
pub(super) fn after_delete(state: &mut State, resource: &Resource, name: &str) {
    if &*resource.key == CRDS {
        state.unregister(name);
    }
}

fn defined(crd: &Value) -> Option<Resource> {
    let spec = &crd["spec"];
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let texts = |value: &Value| value.as_array().into_iter().flatten().filter_map(text).collect();
    let (group, plural) = (text(&spec["group"])?, text(&spec["names"]["plural"])?);
    let key: Arc<str> = key(&plural, &group).into();
    let mut served: Vec<Version> = Vec::new();
    let mut storage = None;
    for version in versions(spec) {
        if version["storage"] == true {
            storage = text(&version["name"]);
        }
        if version["served"] == true {
            let schema = Some(&version["schema"]["openAPIV3Schema"]).filter(|schema| schema.is_object());
            served.push(Version {
                name: text(&version["name"])?,
                status: version["subresources"]["status"].is_object(),
                scale: scale(&version["subresources"]["scale"]),
                schema: schema.map(|schema| Arc::new(Schema::custom(schema))),
                published: schema.map(|schema| Arc::new(schema.clone())),
                columns: columns(version),
            });
        }
    }
    Some(Resource {
        kind: text(&spec["names"]["kind"])?,
        list_kind: text(&spec["names"]["listKind"])?,
        singular: text(&spec["names"]["singular"])?,
        short_names: texts(&spec["names"]["shortNames"]),
        categories: texts(&spec["names"]["categories"]),
        namespaced: spec["scope"] == "Namespaced",
        custom: true,
        storage: storage.or_else(|| served.first().map(|version| version.name.clone()))?,
        versions: served,
        collection: key.clone(),
        traits: Traits { generation: true, ..Traits::default() },
        since: 0,
        group,
        plural,
        key,
    })
}

fn scale(paths: &Value) -> Option<Scale> {
    let pointer = |field: &str| paths[field].as_str().map(|path| path.replace('.', "/"));
    Some(Scale {
        spec_replicas: pointer("specReplicasPath")?,
        status_replicas: pointer("statusReplicasPath")?,
        selector: pointer("labelSelectorPath"),
    })
}

fn columns(version: &Value) -> Vec<Column> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let columns = version["additionalPrinterColumns"].as_array().into_iter().flatten();
    columns
        .map(|column| Column {
            name: text(&column["name"]),
            kind: text(&column["type"]),
            format: text(&column["format"]),
            description: text(&column["description"]),
            priority: column["priority"].as_i64().unwrap_or(0),
            path: text(&column["jsonPath"]),
        })
        .collect()
}

fn versions(spec: &Value) -> impl Iterator<Item = &Value> {
    spec["versions"].as_array().into_iter().flatten()
}
