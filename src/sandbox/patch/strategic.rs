//! Strategic merge patch: a merge patch that knows the keys of lists, and the directives `$patch`, `$retainKeys`,
//! `$setElementOrder` and `$deleteFromPrimitiveList`.

use serde_json::{Map, Value};

use super::super::schema::{List, Schema};

pub(super) fn merge(schema: &Schema, original: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *original = patch.clone();
        return;
    };
    match patch.get("$patch").and_then(Value::as_str) {
        Some("replace") => {
            let mut replaced = patch.clone();
            replaced.remove("$patch");
            *original = replaced.into();
            return;
        }
        Some("delete") => {
            *original = Value::Null;
            return;
        }
        _ => {}
    }
    if !original.is_object() {
        *original = Value::Object(Map::new());
    }
    let Value::Object(fields) = original else { return };
    if let Some(retained) = patch.get("$retainKeys").and_then(Value::as_array) {
        fields.retain(|name, _| retained.iter().any(|it| it == name.as_str()));
    }
    for (name, removed) in directives(patch, "$deleteFromPrimitiveList/") {
        if let (Some(Value::Array(items)), Some(removed)) = (fields.get_mut(name), removed.as_array()) {
            items.retain(|item| !removed.contains(item));
        }
    }
    for (name, value) in patch.iter().filter(|(name, _)| !name.starts_with('$')) {
        let of_field = schema.field(name).cloned().unwrap_or_else(Schema::anything);
        match value {
            Value::Null => drop(fields.remove(name)),
            Value::Array(items) => merge_list(&of_field, fields.entry(name.clone()).or_insert(Value::Null), items),
            value => {
                merge(&of_field, fields.entry(name.clone()).or_insert(Value::Null), value);
                if fields[name].is_null() {
                    fields.remove(name);
                }
            }
        }
    }
    for (name, order) in directives(patch, "$setElementOrder/") {
        if let (Some(Value::Array(items)), Some(order)) = (fields.get_mut(name), order.as_array()) {
            let key = merge_key(schema.field(name).map(|of_field| &of_field.list));
            let place = |item: &Value| {
                let same = |other: &&Value| key.map_or(*other == item, |key| other.get(key) == item.get(key));
                order.iter().position(|other| same(&other)).unwrap_or(order.len())
            };
            items.sort_by_key(place);
        }
    }
}

fn directives<'a>(patch: &'a Map<String, Value>, prefix: &'a str) -> impl Iterator<Item = (&'a str, &'a Value)> {
    patch.iter().filter_map(move |(name, value)| Some((name.strip_prefix(prefix)?, value)))
}

fn merge_key(list: Option<&List>) -> Option<&str> {
    match list {
        Some(List::Map(keys)) => keys.first().map(String::as_str),
        _ => None,
    }
}

fn merge_list(schema: &Schema, original: &mut Value, patch: &[Value]) {
    let replaces = patch.iter().any(|item| item["$patch"] == "replace");
    if schema.list == List::Atomic || replaces {
        let kept = patch.iter().filter(|item| item["$patch"] != "replace");
        *original = kept.cloned().collect();
        return;
    }
    if !original.is_array() {
        *original = Value::Array(Vec::new());
    }
    let Value::Array(items) = original else { return };
    let Some(key) = merge_key(Some(&schema.list)) else {
        for item in patch {
            if !items.contains(item) {
                items.push(item.clone());
            }
        }
        return;
    };
    let of_item = schema.items.clone().unwrap_or_else(Schema::anything);
    for item in patch {
        let same = |other: &Value| other.get(key) == item.get(key);
        if item["$patch"] == "delete" {
            items.retain(|other| !same(other));
        } else if let Some(found) = items.iter_mut().find(|other| same(other)) {
            merge(&of_item, found, item);
        } else {
            let mut added = Value::Null;
            merge(&of_item, &mut added, item);
            items.push(added);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn strategic_patches_merge_as_kubernetes_does() {
        let (_, schema) = crate::sandbox::schema::of_kind("apps", "v1", "Deployment").unwrap();
        let original = json!({"metadata": {"labels": {"a": "1"}, "finalizers": ["x", "y"]}, "spec": {
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}},
            "template": {"spec": {"containers": [
                {"name": "one", "image": "a", "args": ["1", "2"], "env": [{"name": "E", "value": "1"}]},
                {"name": "two", "image": "b"}]}}}});
        let containers = |original: &Value| original["spec"]["template"]["spec"]["containers"].clone();
        let patch_containers = |list: Value| json!({"spec": {"template": {"spec": list}}});
        for (what, patch, pointer, wanted) in [
            (
                "a map merges",
                json!({"metadata": {"labels": {"b": "2"}}}),
                "/metadata/labels",
                json!({"a": "1", "b": "2"}),
            ),
            ("null removes", json!({"metadata": {"labels": {"a": null}}}), "/metadata/labels", json!({})),
            (
                "a set is a union",
                json!({"metadata": {"finalizers": ["y", "z"]}}),
                "/metadata/finalizers",
                json!(["x", "y", "z"]),
            ),
            (
                "values leave a set",
                json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["x"]}}),
                "/metadata/finalizers",
                json!(["y"]),
            ),
            (
                "items merge by name, atomic lists are replaced",
                patch_containers(
                    json!({"containers": [{"name": "one", "image": "c", "args": ["3"], "env": [{"name": "F", "value": "2"}]}]}),
                ),
                "/spec/template/spec/containers/0",
                json!({"name": "one", "image": "c", "args": ["3"], "env": [{"name": "E", "value": "1"}, {"name": "F", "value": "2"}]}),
            ),
            (
                "an item is deleted",
                patch_containers(json!({"containers": [{"$patch": "delete", "name": "one"}]})),
                "/spec/template/spec/containers",
                json!([{"name": "two", "image": "b"}]),
            ),
            (
                "the order is set",
                patch_containers(json!({"$setElementOrder/containers": [{"name": "two"}, {"name": "one"}]})),
                "/spec/template/spec/containers/0/name",
                json!("two"),
            ),
            (
                "keys that are not retained go",
                json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}}),
                "/spec/strategy",
                json!({"type": "Recreate"}),
            ),
            (
                "an object is replaced",
                json!({"spec": {"strategy": {"$patch": "replace", "type": "Recreate"}}}),
                "/spec/strategy",
                json!({"type": "Recreate"}),
            ),
        ] {
            let mut patched = original.clone();
            merge(&schema, &mut patched, &patch);
            assert_eq!(patched.pointer(pointer), Some(&wanted), "{what}");
        }
        assert_eq!(containers(&original).as_array().map(Vec::len), Some(2));
    }
}
