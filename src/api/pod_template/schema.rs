//! The schema of a pod template inside a CRD.
//!
//! It is Kubernetes' own, taken from k8s-openapi, with three aims: a manifest that Argo Rollouts' CRDs accept is accepted;
//! nothing is defaulted, because the hash is over what the user wrote; and it is small, because a CRD must fit the
//! annotation of a client-side `kubectl apply` (262,144 bytes).

use k8s_openapi::api::batch::v1::JobSpec;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

/// The structural schema of a PodTemplateSpec for a CRD: without descriptions, references and defaults. Open (unknown
/// fields are kept) are metadata, volumes, and resource limits and requests.
pub fn pod_template_schema() -> Value {
    let mut schema = structural::<PodTemplateSpec>();
    open_pod_template(&mut schema);
    schema
}

/// The structural schema of a batch/v1 JobSpec for a CRD, with the same pod template inside.
pub fn job_spec_schema() -> Value {
    let mut schema = structural::<JobSpec>();
    if let Some(template) = property(&mut schema, "template") {
        open_pod_template(template);
    }
    schema
}

fn structural<T: JsonSchema>() -> Value {
    let settings = SchemaSettings::openapi3().with(|settings| settings.inline_subschemas = true);
    let mut schema = settings.into_generator().into_root_schema_for::<T>().to_value();
    strip(&mut schema);
    schema
}

/// Leaves of a schema what a CRD may have, and makes a label selector one value for server-side apply, as it is in core.
fn strip(schema: &mut Value) {
    let Some(schema) = schema.as_object_mut() else { return };
    schema.retain(|keyword, _| {
        matches!(keyword.as_str(), "type" | "format" | "properties" | "required" | "items" | "additionalProperties")
            || keyword.starts_with("x-kubernetes-")
    });
    for keyword in ["items", "additionalProperties"] {
        if let Some(inner) = schema.get_mut(keyword) {
            strip(inner);
        }
    }
    let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) else { return };
    properties.values_mut().for_each(strip);
    if properties.contains_key("matchLabels") && properties.contains_key("matchExpressions") {
        schema.insert("x-kubernetes-map-type".into(), "atomic".into());
    }
}

fn open_pod_template(template: &mut Value) {
    let open = || json!({"x-kubernetes-preserve-unknown-fields": true});
    set(template, "metadata", json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true}));
    let Some(spec) = property(template, "spec") else { return };
    // A pod template may have none, which validation says. Without the schema of a second container, half is saved.
    set(
        spec,
        "ephemeralContainers",
        json!({"type": "array", "items": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}),
    );
    set(
        spec,
        "volumes",
        json!({
            "type": "array",
            "nullable": true,
            "items": {
                "type": "object",
                "properties": {"name": {"type": "string"}},
                "required": ["name"],
                "x-kubernetes-preserve-unknown-fields": true,
            },
        }),
    );
    set(spec, "overhead", json!({"type": "object", "additionalProperties": {"x-kubernetes-int-or-string": true}}));
    // Lists that server-side apply merges by key. Not more: a key must be unique, and core allows several environment
    // variables of one name and several names of one port; and a port's key would need a default for the protocol.
    for list in ["containers", "initContainers", "volumes"] {
        merge_by(spec, list, "name");
    }
    for list in ["containers", "initContainers"] {
        let Some(container) = property(spec, list).and_then(|list| list.get_mut("items")) else { continue };
        merge_by(container, "volumeMounts", "mountPath");
        open_resources(container, &open);
        let variable = property(container, "env").and_then(|list| list.get_mut("items"));
        let source = variable.and_then(|variable| property(variable, "valueFrom"));
        if let Some(selector) = source.and_then(|source| property(source, "resourceFieldRef")) {
            set(selector, "divisor", json!({"x-kubernetes-int-or-string": true}));
        }
    }
    open_resources(spec, &open);
}

fn open_resources(parent: &mut Value, open: &impl Fn() -> Value) {
    if let Some(resources) = property(parent, "resources") {
        set(resources, "limits", open());
        set(resources, "requests", open());
    }
}

fn merge_by(parent: &mut Value, list: &str, key: &str) {
    if let Some(Value::Object(schema)) = property(parent, list) {
        schema.insert("x-kubernetes-list-type".into(), "map".into());
        schema.insert("x-kubernetes-list-map-keys".into(), json!([key]));
    }
}

fn property<'a>(schema: &'a mut Value, name: &str) -> Option<&'a mut Value> {
    schema.get_mut("properties")?.get_mut(name)
}

fn set(schema: &mut Value, name: &str, value: Value) {
    if let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) {
        let properties: &mut Map<String, Value> = properties;
        properties.insert(name.to_owned(), value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Calls `visit` with every schema inside `schema` and where it is.
    fn walk(schema: &Value, path: &str, visit: &mut impl FnMut(&str, &Map<String, Value>)) {
        let schema = schema.as_object().unwrap_or_else(|| panic!("{path} is no schema object"));
        visit(path, schema);
        for (name, property) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
            walk(property, &format!("{path}.{name}"), visit);
        }
        for keyword in ["items", "additionalProperties"] {
            if let Some(inner) = schema.get(keyword) {
                walk(inner, &format!("{path}[]"), visit);
            }
        }
    }

    #[test]
    fn schemas_are_structural() {
        for schema in [pod_template_schema(), job_spec_schema()] {
            walk(&schema, "", &mut |path, schema| {
                let is = |keyword: &str| schema.get(keyword) == Some(&Value::Bool(true));
                let any = is("x-kubernetes-int-or-string") || is("x-kubernetes-preserve-unknown-fields");
                assert!(any || schema.contains_key("type"), "{path} has no type");
                for forbidden in ["$ref", "default", "description", "allOf", "anyOf", "oneOf"] {
                    assert!(!schema.contains_key(forbidden), "{path} has {forbidden}");
                }
                for key in schema.get("x-kubernetes-list-map-keys").and_then(Value::as_array).into_iter().flatten() {
                    let required = schema["items"]["required"].as_array().unwrap();
                    assert!(required.contains(key), "{path}: key {key} may be missing");
                }
                if schema.get("type") == Some(&json!("array")) {
                    assert!(schema.contains_key("items"), "{path} has no items");
                }
            });
        }
    }

    #[test]
    fn every_field_that_is_hashed_is_in_the_schema() {
        use crate::api::pod_template::go_json::{Kind, TYPES};

        fn check(kind: &Kind, schema: &Value, path: &str) {
            let open = schema.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(true));
            match kind {
                _ if open => {}
                Kind::Pointer(inner) => check(inner, schema, path),
                Kind::List(inner) => check(inner, &schema["items"], path),
                Kind::Map(inner) => check(inner, &schema["additionalProperties"], path),
                Kind::IntOrString | Kind::Quantity => {
                    assert_eq!(schema["x-kubernetes-int-or-string"], true, "{path}");
                }
                Kind::String | Kind::Time => assert_eq!(schema["type"], "string", "{path}"),
                Kind::Bool => assert_eq!(schema["type"], "boolean", "{path}"),
                Kind::Int => assert_eq!(schema["type"], "integer", "{path}"),
                Kind::Raw => {}
                Kind::Struct(index) => {
                    for field in &TYPES.get(*index).fields {
                        let path = format!("{path}.{}", field.name);
                        let schema = schema["properties"].get(field.name);
                        check(&field.kind, schema.unwrap_or_else(|| panic!("{path} is missing")), &path);
                    }
                }
            }
        }
        check(TYPES.pod_template(), &pod_template_schema(), "");
    }

    #[test]
    fn schemas_are_small() {
        let compact = |value: &Value| value.to_string().len();
        let (template, job) = (compact(&pod_template_schema()), compact(&job_spec_schema()));
        // As YAML, 17 levels deep in an AnalysisTemplate's CRD, that is five times as much: still half of the limit.
        assert!(template < 34_000 && job < 36_000, "{template} {job}");
    }
}
