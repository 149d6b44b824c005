//! Sets of fields, in the form of `fieldsV1`.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::super::schema::{List, Schema};

/// A set of fields: whether this value itself belongs to it, and which of its parts do.
///
/// Parts are named as in `fieldsV1`: `f:name` a field, `k:{"name":"x"}` a list item by its keys, `v:"x"` by its value.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct FieldSet {
    whole: bool,
    parts: BTreeMap<String, FieldSet>,
}

impl FieldSet {
    pub(super) fn leaf() -> Self {
        Self { whole: true, parts: BTreeMap::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        !self.whole && self.parts.values().all(Self::is_empty)
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.whole |= other.whole;
        for (name, part) in &other.parts {
            self.parts.entry(name.clone()).or_default().add(part);
        }
    }

    pub(super) fn subtract(&mut self, other: &Self) {
        self.whole &= !other.whole;
        for (name, part) in &other.parts {
            if let Some(mine) = self.parts.get_mut(name) {
                mine.subtract(part);
                if mine.is_empty() {
                    self.parts.remove(name);
                }
            }
        }
    }

    pub(super) fn common(&self, other: &Self) -> Self {
        let parts = self.parts.iter().filter_map(|(name, part)| {
            let common = part.common(other.parts.get(name)?);
            (!common.is_empty()).then(|| (name.clone(), common))
        });
        Self { whole: self.whole && other.whole, parts: parts.collect() }
    }

    /// Takes out a part, by the names that lead to it.
    pub(super) fn cut(&mut self, names: &[&str]) {
        match names {
            [] => {}
            [name] => drop(self.parts.remove(*name)),
            [name, rest @ ..] => {
                if let Some(part) = self.parts.get_mut(*name) {
                    part.cut(rest);
                    if part.is_empty() {
                        self.parts.remove(*name);
                    }
                }
            }
        }
    }

    /// Takes out a value as a whole, but not its parts.
    pub(super) fn unmark(&mut self, names: &[&str]) {
        match names {
            [] => self.whole = false,
            [name, rest @ ..] => {
                if let Some(part) = self.parts.get_mut(*name) {
                    part.unmark(rest);
                    if part.is_empty() {
                        self.parts.remove(*name);
                    }
                }
            }
        }
    }

    /// Every value on the way to a member becomes a member.
    fn mark_all(&mut self) {
        self.whole = true;
        self.parts.values_mut().for_each(Self::mark_all);
    }

    pub(super) fn to_value(&self) -> Value {
        let mut fields = Map::new();
        if self.whole && !self.parts.is_empty() {
            fields.insert(".".into(), Value::Object(Map::new()));
        }
        fields.extend(self.parts.iter().map(|(name, part)| (name.clone(), part.to_value())));
        fields.into()
    }

    pub(super) fn from_value(value: &Value) -> Self {
        let Some(fields) = value.as_object() else { return Self::default() };
        let parts = fields.iter().filter(|(name, _)| *name != ".").map(|(name, part)| {
            (
                name.clone(),
                if part.as_object().is_none_or(Map::is_empty) { Self::leaf() } else { Self::from_value(part) },
            )
        });
        Self { whole: fields.contains_key("."), parts: parts.collect() }
    }

    /// Whether a set in the form of `fieldsV1` has a member of this one.
    pub(super) fn overlaps(&self, value: &Value) -> bool {
        let Some(fields) = value.as_object() else { return false };
        let shared = |(name, part): (&String, &FieldSet)| {
            fields.get(name).is_some_and(|value| match value.as_object() {
                Some(fields) if !fields.is_empty() => part.overlaps(value),
                _ => part.whole,
            })
        };
        self.whole && fields.contains_key(".") || self.parts.iter().any(shared)
    }

    /// Every member, as a path that conflict messages show.
    pub(super) fn paths(&self) -> Vec<String> {
        let mut paths = Vec::new();
        self.collect(&mut String::new(), &mut paths);
        paths
    }

    fn collect(&self, prefix: &mut String, paths: &mut Vec<String>) {
        let length = prefix.len();
        // The fields of a value come before theirs.
        for (name, _) in self.parts.iter().filter(|(_, part)| part.whole) {
            paths.push(format!("{prefix}{}", shown(name)));
        }
        for (name, part) in &self.parts {
            prefix.push_str(&shown(name));
            part.collect(prefix, paths);
            prefix.truncate(length);
        }
    }

    /// Removes the members from a value: those of `self` that are not in `keep`. What this leaves empty goes too.
    pub(super) fn remove_from(&self, keep: &Self, schema: &Schema, value: &mut Value) {
        match value {
            Value::Object(fields) => {
                for (part, set) in &self.parts {
                    let Some(name) = part.strip_prefix("f:") else { continue };
                    let kept = keep.parts.get(part).cloned().unwrap_or_default();
                    let of_field = schema.field(name).cloned().unwrap_or_else(Schema::anything);
                    if kept.is_empty() {
                        // With the defaults that the server put beside what was applied.
                        fields.remove(name);
                    } else if let Some(field) = fields.get_mut(name) {
                        let had_parts = !is_hollow(field);
                        set.remove_from(&kept, &of_field, field);
                        if had_parts && is_hollow(field) {
                            if kept.whole {
                                // Whoever owns the field keeps it, empty as it is; it shows as absent.
                                *field = Value::Null;
                            } else {
                                fields.remove(name);
                            }
                        }
                    }
                }
            }
            Value::Array(items) => {
                let of_item = schema.items.clone().unwrap_or_else(Schema::anything);
                items.retain_mut(|item| {
                    let Some(name) = item_name(schema, item) else { return true };
                    let Some(set) = self.parts.get(&name) else { return true };
                    let kept = keep.parts.get(&name).cloned().unwrap_or_default();
                    // An item goes unless somebody else owns the item itself, whatever they own in it.
                    if set.whole && !kept.whole {
                        return false;
                    }
                    set.remove_from(&kept, &of_item, item);
                    true
                });
            }
            _ => {}
        }
    }
}

fn is_hollow(value: &Value) -> bool {
    match value {
        Value::Object(fields) => fields.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    }
}

fn shown(name: &str) -> String {
    let (kind, rest) = name.split_at(name.find(':').map_or(0, |at| at + 1));
    match kind {
        "k:" => match serde_json::from_str::<Value>(rest) {
            Ok(Value::Object(keys)) => {
                let keys: Vec<String> = keys.iter().map(|(key, value)| format!("{key}={value}")).collect();
                format!("[{}]", keys.join(","))
            }
            _ => format!("[{rest}]"),
        },
        "v:" => format!("[={rest}]"),
        _ => format!(".{rest}"),
    }
}

/// The fields that an applier of `value` owns.
pub(super) fn owned(schema: &Schema, value: &Value) -> FieldSet {
    match value {
        Value::Object(fields) if !schema.atomic && !fields.is_empty() => {
            let parts = fields.iter().map(|(name, value)| {
                let of_field = schema.field(name).cloned().unwrap_or_else(Schema::anything);
                let mut part = owned(&of_field, value);
                // An entry of a map is a thing of its own; a field of a struct is there anyhow.
                part.whole |= !schema.properties.contains_key(name);
                (format!("f:{name}"), part)
            });
            FieldSet { whole: false, parts: parts.collect() }
        }
        Value::Array(items) if schema.list != List::Atomic && !items.is_empty() => {
            let of_item = schema.items.clone().unwrap_or_else(Schema::anything);
            let parts = items.iter().filter_map(|item| {
                let mut part = owned(&of_item, item);
                part.whole = true;
                Some((item_name(schema, item)?, part))
            });
            FieldSet { whole: false, parts: parts.collect() }
        }
        _ => FieldSet::leaf(),
    }
}

/// A value with all that it consists of.
fn everything(schema: &Schema, value: &Value) -> FieldSet {
    let mut set = owned(schema, value);
    set.mark_all();
    set
}

/// What differs between two values: fields that were added or changed, and fields that are gone.
#[derive(Debug, Default)]
pub(super) struct Difference {
    pub(super) changed: FieldSet,
    pub(super) removed: FieldSet,
}

pub(super) fn compare(schema: &Schema, old: Option<&Value>, new: Option<&Value>) -> Difference {
    let mut difference = Difference::default();
    match (old, new) {
        (old, new) if old == new => {}
        (None, Some(new)) => difference.changed = everything(schema, new),
        (Some(old), None) => difference.removed = everything(schema, old),
        // A list that was there as nothing: its items are new, it is not.
        (Some(Value::Null), Some(new)) => {
            difference.changed = everything(schema, new);
            difference.changed.whole = difference.changed.parts.is_empty();
        }
        // Its parts are gone, it is not.
        (Some(old @ Value::Object(_)), Some(Value::Null)) if !schema.atomic => {
            difference.removed = everything(schema, old);
            difference.removed.whole = false;
        }
        (Some(Value::Object(old)), Some(Value::Object(new))) if !schema.atomic => {
            let gone = old.keys().filter(|name| !new.contains_key(*name));
            for name in new.keys().chain(gone) {
                let (old, new) = (old.get(name), new.get(name));
                if old != new {
                    let of_field = schema.field(name).cloned().unwrap_or_else(Schema::anything);
                    difference.part(format!("f:{name}"), compare(&of_field, old, new));
                }
            }
        }
        (Some(Value::Array(old)), Some(Value::Array(new))) if schema.list != List::Atomic => {
            let of_item = schema.items.clone().unwrap_or_else(Schema::anything);
            let (old, new) = (named(schema, old), named(schema, new));
            let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
            for name in names {
                difference.part(name.clone(), compare(&of_item, old.get(name).copied(), new.get(name).copied()));
            }
        }
        _ => difference.changed = FieldSet::leaf(),
    }
    difference
}

fn named<'a>(schema: &Schema, items: &'a [Value]) -> BTreeMap<String, &'a Value> {
    items.iter().filter_map(|item| Some((item_name(schema, item)?, item))).collect()
}

impl Difference {
    pub(super) fn is_empty(&self) -> bool {
        self.changed.is_empty() && self.removed.is_empty()
    }

    fn part(&mut self, name: String, part: Difference) {
        if !part.changed.is_empty() {
            self.changed.parts.insert(name.clone(), part.changed);
        }
        if !part.removed.is_empty() {
            self.removed.parts.insert(name, part.removed);
        }
    }
}

/// How a set names an item of a list; `None` for items of atomic lists.
pub(super) fn item_name(schema: &Schema, item: &Value) -> Option<String> {
    match &schema.list {
        List::Atomic => None,
        List::Set => Some(format!("v:{item}")),
        List::Map(keys) => {
            let of_key =
                |key: &String| schema.items.as_ref().and_then(|items| items.properties.get(key)?.default.clone());
            // A sorted map, as serde_json's is: the keys are part of the name in one order.
            let keys: Map<String, Value> = keys
                .iter()
                .filter_map(|key| Some((key.clone(), item.get(key).cloned().or_else(|| of_key(key))?)))
                .collect();
            Some(format!("k:{}", Value::Object(keys)))
        }
    }
}
