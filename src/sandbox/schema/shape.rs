//! Pruning and defaulting.

use serde_json::{Map, Value};

use super::{Kind, Path, Schema};

/// Removes what the schema does not know, and names it in `unknown`. What is as in `old`, which has passed here before, is not
/// looked at.
pub(in crate::sandbox) fn prune(
    schema: &Schema,
    value: &mut Value,
    old: Option<&Value>,
    path: &Path<'_>,
    unknown: &mut Vec<String>,
) {
    if old == Some(value) {
        return;
    }
    match value {
        Value::Object(fields) => prune_fields(schema, fields, old, path, unknown),
        Value::Array(items) => {
            if let Some(of_item) = &schema.items {
                for (index, item) in items.iter_mut().enumerate() {
                    let old = old.and_then(|old| old.get(index));
                    prune(of_item, item, old, &Path::Item(path, index), unknown);
                }
            }
        }
        _ => {}
    }
}

fn prune_fields(
    schema: &Schema,
    fields: &mut Map<String, Value>,
    old: Option<&Value>,
    path: &Path<'_>,
    unknown: &mut Vec<String>,
) {
    let mut strange = Vec::new();
    for (name, value) in fields.iter_mut() {
        match schema.field(name) {
            Some(of_field) => {
                let old = old.and_then(|old| old.get(name));
                prune(of_field, value, old, &Path::Field(path, name), unknown);
            }
            None if schema.open => {}
            None => {
                unknown.push(Path::Field(path, name).to_string());
                strange.push(name.clone());
            }
        }
    }
    for name in strange {
        fields.remove(&name);
    }
}

/// Fills in defaults. A null where none may be counts as absent. What is as in `old`, which has all defaults, is not looked at.
pub(in crate::sandbox) fn set_defaults(schema: &Schema, value: &mut Value, old: Option<&Value>) {
    if old == Some(value) {
        return;
    }
    match value {
        Value::Object(fields) => {
            fields.retain(|name, value| !value.is_null() || schema.field(name).is_none_or(|field| field.nullable));
            for (name, of_field) in &schema.properties {
                if let Some(default) = &of_field.default
                    && !fields.contains_key(name)
                {
                    fields.insert(name.clone(), default.clone());
                }
            }
            for (name, value) in fields.iter_mut().filter(|(_, value)| !value.is_null()) {
                if let Some(of_field) = schema.field(name) {
                    set_defaults(of_field, value, old.and_then(|old| old.get(name)));
                }
            }
        }
        Value::Array(items) => {
            if let Some(of_item) = &schema.items
                && matches!(of_item.kind, Kind::Object | Kind::Array)
            {
                for (index, item) in items.iter_mut().enumerate() {
                    set_defaults(of_item, item, old.and_then(|old| old.get(index)));
                }
            }
        }
        _ => {}
    }
}
