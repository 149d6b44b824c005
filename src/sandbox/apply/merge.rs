//! The value that results when a configuration is applied to a live object.

use std::collections::BTreeMap;

use serde_json::Value;

use super::super::schema::{List, Schema};
use super::fields::item_name;

/// `live` with everything that `applied` says.
pub(super) fn merge(schema: &Schema, live: &Value, applied: &Value) -> Value {
    match (live, applied) {
        (Value::Object(live), Value::Object(applied)) if !schema.atomic => {
            let mut merged = live.clone();
            for (name, value) in applied {
                let of_field = schema.field(name).cloned().unwrap_or_else(Schema::anything);
                let value = match live.get(name) {
                    Some(live) => merge(&of_field, live, value),
                    None => value.clone(),
                };
                merged.insert(name.clone(), value);
            }
            merged.into()
        }
        (Value::Array(live), Value::Array(applied)) if schema.list != List::Atomic => {
            merge_items(schema, live, applied).into()
        }
        _ => applied.clone(),
    }
}

/// Both keep their order; live items that are not applied come before the applied ones that follow the same shared item.
fn merge_items(schema: &Schema, live: &[Value], applied: &[Value]) -> Vec<Value> {
    let of_item = schema.items.clone().unwrap_or_else(Schema::anything);
    let name = |item: &Value| item_name(schema, item).unwrap_or_default();
    let is_applied: Vec<String> = applied.iter().map(name).collect();
    let position: BTreeMap<String, usize> = live.iter().enumerate().map(|(at, item)| (name(item), at)).collect();
    let mut merged = Vec::with_capacity(live.len().max(applied.len()));
    let mut passed = 0;
    for item in applied {
        let found = position.get(&name(item)).copied();
        // Up to the shared item itself, or up to the next shared one.
        while passed < found.unwrap_or(live.len()) {
            if !is_applied.contains(&name(&live[passed])) {
                merged.push(live[passed].clone());
            } else if found.is_none() {
                break;
            }
            passed += 1;
        }
        match found {
            Some(at) => {
                passed = passed.max(at + 1);
                merged.push(merge(&of_item, &live[at], item));
            }
            None => merged.push(item.clone()),
        }
    }
    merged.extend(live[passed.min(live.len())..].iter().filter(|item| !is_applied.contains(&name(item))).cloned());
    merged
}
