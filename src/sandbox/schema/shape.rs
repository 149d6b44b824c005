//! Pruning and defaulting.

use serde_json::{Map, Value};

use super::{Kind, Path, Schema};

/// Removes what the schema does not know, and names it in `unknown`.
pub(in crate::sandbox) fn prune(schema: &Schema, value: &mut Value, path: &Path<'_>, unknown: &mut Vec<String>) {
    match value {
        Value::Object(fields) => prune_fields(schema, fields, path, unknown),
        Value::Array(items) => {
            if let Some(of_item) = &schema.items {
                for (index, item) in items.iter_mut().enumerate() {
                    prune(of_item, item, &Path::Item(path, index), unknown);
                }
            }
        }
        _ => {}
    }
}

fn prune_fields(schema: &Schema, fields: &mut Map<String, Value>, path: &Path<'_>, unknown: &mut Vec<String>) {
    let mut strange = Vec::new();
    for (name, value) in fields.iter_mut() {
        match schema.field(name) {
            Some(of_field) => prune(of_field, value, &Path::Field(path, name), unknown),
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

/// Fills in defaults. A null where none may be counts as absent.
pub(in crate::sandbox) fn set_defaults(schema: &Schema, value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|name, value| !value.is_null() || schema.field(name).is_none_or(|field| field.nullable));
            for (name, of_field) in &schema.properties {
                if let Some(default) = &of_field.default
                    && !fields.contains_key(name)
                {
                    fields.insert(name.clone(), default.clone());
                }
                if let Some(value) = fields.get_mut(name)
                    && !value.is_null()
                {
                    set_defaults(of_field, value);
                }
            }
            if let Some(of_value) = &schema.values {
                for (name, value) in fields.iter_mut() {
                    if !schema.properties.contains_key(name) {
                        set_defaults(of_value, value);
                    }
                }
            }
        }
        Value::Array(items) => {
            if let Some(of_item) = &schema.items
                && matches!(of_item.kind, Kind::Object | Kind::Array)
            {
                items.iter_mut().for_each(|item| set_defaults(of_item, item));
            }
        }
        _ => {}
    }
}
