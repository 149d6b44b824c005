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
            Value::Array(items) => {
                let order = patch.get(&format!("$setElementOrder/{name}")).and_then(Value::as_array);
                merge_list(&of_field, fields.entry(name.clone()).or_insert(Value::Null), items, order);
            }
            value => {
                merge(&of_field, fields.entry(name.clone()).or_insert(Value::Null), value);
                if fields[name].is_null() {
                    fields.remove(name);
                }
            }
        }
    }
    for (name, order) in directives(patch, "$setElementOrder/").filter(|(name, _)| !patch.contains_key(*name)) {
        if let (Some(list), Some(order), Some(of_field)) = (fields.get_mut(name), order.as_array(), schema.field(name))
        {
            merge_list(of_field, list, &[], Some(order));
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

fn merge_list(schema: &Schema, original: &mut Value, patch: &[Value], order: Option<&Vec<Value>>) {
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
    let before = items.clone();
    let key = merge_key(Some(&schema.list)).map(str::to_owned);
    let same = |one: &Value, other: &Value| key.as_ref().map_or(one == other, |key| one.get(key) == other.get(key));
    let of_item = schema.items.clone().unwrap_or_else(Schema::anything);
    for item in patch {
        let found = items.iter_mut().find(|other| same(other, item));
        match found {
            _ if item["$patch"] == "delete" => items.retain(|other| !same(other, item)),
            Some(_) if key.is_none() => {}
            Some(found) => merge(&of_item, found, item),
            None if key.is_none() => items.push(item.clone()),
            None => {
                let mut added = Value::Null;
                merge(&of_item, &mut added, item);
                items.push(added);
            }
        }
    }
    *items = ordered(std::mem::take(items), &before, order.map_or(patch, Vec::as_slice), same);
}

/// What a patch names comes in the patch's order, and before the rest of the list unless the list had it the other way.
fn ordered(items: Vec<Value>, before: &[Value], order: &[Value], same: impl Fn(&Value, &Value) -> bool) -> Vec<Value> {
    let place = |list: &[Value], item: &Value| list.iter().position(|other| same(other, item));
    let (mut named, rest): (Vec<Value>, Vec<Value>) = items.into_iter().partition(|item| place(order, item).is_some());
    named.sort_by_key(|item| place(order, item));
    let (mut named, mut rest) = (named.into_iter().peekable(), rest.into_iter().peekable());
    let mut merged = Vec::new();
    while let (Some(one), Some(other)) = (named.peek(), rest.peek()) {
        let earlier = place(before, other) < place(before, one) && place(before, one).is_some();
        merged.extend(if earlier { rest.next() } else { named.next() });
    }
    merged.extend(named.chain(rest));
    merged
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
                json!({"name": "one", "image": "c", "args": ["3"], "env": [{"name": "F", "value": "2"}, {"name": "E", "value": "1"}]}),
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
