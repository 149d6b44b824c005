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

/// Fills in defaults. A null where none may be counts as absent if there is a default.
pub(in crate::sandbox) fn set_defaults(schema: &Schema, value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, of_field) in &schema.properties {
                if let Some(default) = &of_field.default
                    && fields.get(name).is_none_or(|value| value.is_null() && !of_field.nullable)
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
