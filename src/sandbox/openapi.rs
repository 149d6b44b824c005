//! OpenAPI v3: the schemas that kubectl explains, and the parameters that tell it what the server can do.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::discovery::served;
use super::resource::{Resource, Version};
use super::schema::{definitions, of_kind};
use super::state::State;

const DEFINITION: &str = "#/$defs/";
const SCHEMA: &str = "#/components/schemas/";
const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

/// The documents that there are: one a group and version.
pub(super) fn index(state: &State) -> Value {
    let mut paths = Map::new();
    for resource in state.resources.values() {
        for version in &resource.versions {
            let path = path_of(&resource.group, &version.name);
            // A client keeps a document until its hash changes.
            let url = format!("/openapi/v3/{path}?hash={}", hash(state, &resource.group, &version.name));
            paths.insert(path, json!({"serverRelativeURL": url}));
        }
    }
    json!({"paths": paths})
}

fn path_of(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

fn hash(state: &State, group: &str, version: &str) -> String {
    // FNV-1a over what the document is made of.
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for (resource, version) in served(state, group, version) {
        let published = version.published.as_ref().map(ToString::to_string).unwrap_or_default();
        for byte in resource.key.bytes().chain(published.bytes()) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    format!("{hash:016X}")
}

/// The document of a group and version.
pub(super) fn document(state: &State, segments: &[&str]) -> Option<Value> {
    let (group, version) = match segments {
        ["api", version] => ("", *version),
        ["apis", group, version] => (*group, *version),
        _ => return None,
    };
    let (mut paths, mut schemas, mut wanted) = (Map::new(), BTreeMap::new(), BTreeSet::new());
    for (resource, served) in served(state, group, version) {
        let (name, mut schema) = schema_of(resource, served, &mut wanted)?;
        let kind = json!({"group": group, "version": version, "kind": resource.kind});
        schema["x-kubernetes-group-version-kind"] = json!([kind]);
        wanted.remove(&name);
        schemas.insert(name.clone(), schema);
        add_paths(&mut paths, resource, version, &kind, &name);
    }
    while let Some(name) = wanted.pop_first() {
        if !schemas.contains_key(&name)
            && let Some(definition) = definitions().get(&name)
        {
            let definition = referring(definition, &mut wanted);
            schemas.insert(name, definition);
        }
    }
    (!paths.is_empty()).then(|| {
        json!({
            "openapi": "3.0.0",
            "info": {"title": "Kubernetes", "version": "v1.34.3"},
            "paths": paths,
            "components": {"schemas": schemas},
        })
    })
}

fn schema_of(resource: &Resource, version: &Version, wanted: &mut BTreeSet<String>) -> Option<(String, Value)> {
    if !resource.custom {
        let (name, _) = of_kind(&resource.group, &version.name, &resource.kind)?;
        let schema = referring(definitions().get(&name)?, wanted);
        return Some((name, schema));
    }
    let reversed: Vec<&str> = resource.group.split('.').rev().collect();
    let name = format!("{}.{}.{}", reversed.join("."), version.name, resource.kind);
    let mut schema = version.published.as_deref().cloned().unwrap_or_else(|| json!({"type": "object"}));
    wanted.insert(META.to_owned());
    let string = json!({"type": "string"});
    schema["properties"]["apiVersion"] = string.clone();
    schema["properties"]["kind"] = string;
    schema["properties"]["metadata"] = json!({"allOf": [{"$ref": format!("{SCHEMA}{META}")}], "default": {}});
    Some((name, schema))
}

/// A definition whose references lead to where OpenAPI has them; what it refers to is wanted too.
fn referring(definition: &Value, wanted: &mut BTreeSet<String>) -> Value {
    match definition {
        Value::Object(fields) => {
            let mut copy: Map<String, Value> = fields
                .iter()
                .filter(|(name, _)| *name != "$ref")
                .map(|(name, value)| (name.clone(), referring(value, wanted)))
                .collect();
            // A property may itself be called $ref; a reference is a string.
            match fields.get("$ref") {
                Some(Value::String(reference)) => {
                    let name = reference.strip_prefix(DEFINITION).unwrap_or(reference);
                    wanted.insert(name.to_owned());
                    copy.insert("allOf".into(), json!([{"$ref": format!("{SCHEMA}{name}")}]));
                }
                Some(other) => drop(copy.insert("$ref".into(), referring(other, wanted))),
                None => {}
            }
            copy.into()
        }
        Value::Array(items) => items.iter().map(|item| referring(item, wanted)).collect(),
        other => other.clone(),
    }
}

fn add_paths(paths: &mut Map<String, Value>, resource: &Resource, version: &str, kind: &Value, schema: &str) {
    let root = format!("/{}", path_of(&resource.group, version));
    let inside = if resource.namespaced { "/namespaces/{namespace}" } else { "" };
    let collection = format!("{root}{inside}/{}", resource.plural);
    let parameter =
        |name: &str| json!({"name": name, "in": "query", "schema": {"type": "string", "uniqueItems": true}});
    let parameters: Vec<Value> =
        ["dryRun", "fieldManager", "fieldValidation"].iter().map(|name| parameter(name)).collect();
    let content = json!({"application/json": {"schema": {"$ref": format!("{SCHEMA}{schema}")}}});
    let operation = |action: &str| {
        json!({
            "operationId": format!("{action}{}{}", version, resource.kind),
            "parameters": parameters,
            "responses": {"200": {"description": "OK", "content": content}},
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": kind,
        })
    };
    paths.insert(collection.clone(), json!({"get": operation("list"), "post": operation("post")}));
    let one = json!({
        "get": operation("get"), "put": operation("put"), "patch": operation("patch"), "delete": operation("delete"),
    });
    paths.insert(format!("{collection}/{{name}}"), one);
}
