//! Validation, in the words of kube-apiserver.

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::super::status::FieldError;
use super::{Bounds, Forms, Kind, List, Path, Schema};

/// What is wrong with a value. What has not changed since `old` is not looked at again: an object that was stored under
/// an older schema can still be edited elsewhere.
pub(in crate::sandbox) fn check(
    schema: &Schema,
    value: &Value,
    old: Option<&Value>,
    path: &Path<'_>,
    errors: &mut Vec<FieldError>,
) {
    if old == Some(value) {
        return;
    }
    if value.is_null() && (schema.nullable || schema.kind == Kind::Any) {
        return;
    }
    if !has_type(schema.kind, value) {
        let (found, wanted) = (type_name(value), schema.kind.name());
        let detail = format!("{path} in body must be of type {wanted}: \"{found}\"");
        errors.push(FieldError::wrong_type(path.to_string(), &format!("\"{found}\""), &detail));
        if let Some(bounds) = &schema.bounds {
            check_allowed(bounds, value, path, errors);
            check_forms(&bounds.forms, value, path, errors);
        }
        return;
    }
    if let Some(bounds) = &schema.bounds {
        check_bounds(bounds, schema, value, old, path, errors);
    }
    match value {
        Value::Object(fields) => check_fields(schema, fields, old.and_then(Value::as_object), path, errors),
        Value::Array(items) => check_items(schema, items, old.and_then(Value::as_array), path, errors),
        _ => {}
    }
}

fn has_type(kind: Kind, value: &Value) -> bool {
    match kind {
        Kind::Any => true,
        Kind::Object => value.is_object(),
        Kind::Array => value.is_array(),
        Kind::String => value.is_string(),
        Kind::Integer => is_integer(value),
        Kind::Number => value.is_number(),
        Kind::Boolean => value.is_boolean(),
        Kind::IntOrString => is_integer(value) || value.is_string(),
    }
}

fn is_integer(value: &Value) -> bool {
    value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|number| number.fract() == 0.0)
}

pub(in crate::sandbox) fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) if is_integer(value) => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn check_fields(
    schema: &Schema,
    fields: &Map<String, Value>,
    old: Option<&Map<String, Value>>,
    path: &Path<'_>,
    errors: &mut Vec<FieldError>,
) {
    for name in &schema.required {
        if !fields.contains_key(name) {
            errors.push(FieldError::required(Path::Field(path, name).to_string(), ""));
        }
    }
    for (name, value) in fields {
        if let Some(of_field) = schema.field(name) {
            let old = old.and_then(|old| old.get(name));
            check(of_field, value, old, &Path::Field(path, name), errors);
        }
    }
}

fn check_items(
    schema: &Schema,
    items: &[Value],
    old: Option<&Vec<Value>>,
    path: &Path<'_>,
    errors: &mut Vec<FieldError>,
) {
    let Some(of_item) = &schema.items else { return };
    let key = |item: &Value| -> Value {
        match &schema.list {
            List::Map(keys) => keys
                .iter()
                .map(|key| {
                    let default = || of_item.properties.get(key).and_then(|schema| schema.default.clone());
                    (key.clone(), item.get(key).cloned().or_else(default).unwrap_or(Value::Null))
                })
                .collect::<Map<_, _>>()
                .into(),
            List::Set => item.clone(),
            List::Atomic => Value::Null,
        }
    };
    let mut seen: Vec<Value> = Vec::new();
    for (index, item) in items.iter().enumerate() {
        let at = Path::Item(path, index);
        let before = match &schema.list {
            List::Atomic => old.and_then(|old| old.get(index)),
            _ => old.and_then(|old| old.iter().find(|before| key(before) == key(item))),
        };
        check(of_item, item, before, &at, errors);
        if schema.list != List::Atomic {
            let key = key(item);
            if seen.contains(&key) {
                errors.push(FieldError::duplicate(at.to_string(), &key));
            }
            seen.push(key);
        }
    }
}

fn check_bounds(
    bounds: &Bounds,
    schema: &Schema,
    value: &Value,
    old: Option<&Value>,
    path: &Path<'_>,
    errors: &mut Vec<FieldError>,
) {
    let mut invalid = |value: &Value, what: String| {
        errors.push(FieldError::invalid(path.to_string(), value, &format!("{path} in body {what}")));
    };
    if let Some(number) = value.as_f64() {
        match bounds.minimum {
            Some((least, true)) if number <= least => invalid(value, format!("should be greater than {least}")),
            Some((least, false)) if number < least => {
                invalid(value, format!("should be greater than or equal to {least}"));
            }
            _ => {}
        }
        match bounds.maximum {
            Some((most, true)) if number >= most => invalid(value, format!("should be less than {most}")),
            Some((most, false)) if number > most => invalid(value, format!("should be less than or equal to {most}")),
            _ => {}
        }
    }
    if let (Some(number), Some(of)) = (value.as_f64(), bounds.multiple_of)
        && number % of != 0.0
    {
        invalid(value, format!("should be a multiple of {of}"));
    }
    if let Some(text) = value.as_str().filter(|text| bounds.date_time && text.parse::<Timestamp>().is_err()) {
        let shown = format!("\"{text}\"");
        let detail = format!("{path} in body must be of type date-time: {shown}");
        errors.push(FieldError::wrong_type(path.to_string(), &shown, &detail));
    }
    let mut invalid = |value: &Value, what: String| {
        errors.push(FieldError::invalid(path.to_string(), value, &format!("{path} in body {what}")));
    };
    if let Some(text) = value.as_str() {
        // The first of these that fails is the one that is reported.
        let length = text.chars().count();
        if let Some(most) = bounds.max_length.filter(|most| length > *most) {
            errors.push(FieldError::too_long(path.to_string(), most));
        } else if let Some(least) = bounds.min_length.filter(|least| length < *least) {
            invalid(value, format!("should be at least {least} chars long"));
        } else if let Some(pattern) = bounds.pattern.as_ref().filter(|pattern| !pattern.matches(text)) {
            invalid(value, format!("should match '{}'", pattern.text()));
        }
    }
    let mut sized = |size: usize, least: Option<usize>, what: &str| {
        if let Some(least) = least.filter(|least| size < *least) {
            let detail = format!("{path} in body should have at least {least} {what}");
            errors.push(FieldError::invalid(path.to_string(), &size.into(), &detail));
        }
    };
    match value {
        Value::Array(items) => {
            sized(items.len(), bounds.min_items, "items");
            if let Some(most) = bounds.max_items.filter(|most| items.len() > *most) {
                errors.push(FieldError::too_many(path.to_string(), items.len(), most));
            }
        }
        Value::Object(fields) => {
            sized(fields.len(), bounds.min_properties, "properties");
            if let Some(most) = bounds.max_properties.filter(|most| fields.len() > *most) {
                errors.push(FieldError::too_many(path.to_string(), fields.len(), most));
            }
        }
        _ => {}
    }
    check_allowed(bounds, value, path, errors);
    // A whole number or a text is what the forms of that type say, too.
    if schema.kind != Kind::IntOrString {
        check_forms(&bounds.forms, value, path, errors);
    }
    // Reached only when the value differs from the old one.
    if old.is_some() {
        for message in &bounds.immutable {
            let shown = format!("\"{}\"", schema.kind.name());
            errors.push(FieldError::invalid_shown(path.to_string(), &shown, message));
        }
    }
}

fn check_forms(forms: &Forms, value: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let wrong = |schema: &Schema| {
        let mut errors = Vec::new();
        check(schema, value, None, path, &mut errors);
        errors
    };
    let mut refuse = |what: &str, why: Vec<FieldError>| {
        errors.push(FieldError::invalid_shown("", "\"\"", &format!("\"{path}\" {what}")));
        errors.extend(why);
    };
    // The form that fits best tells what is missing.
    let closest = |all: Vec<Vec<FieldError>>| all.into_iter().min_by_key(Vec::len).unwrap_or_default();
    let all: Vec<FieldError> = forms.all.iter().flat_map(wrong).collect();
    if !all.is_empty() {
        refuse("must validate all the schemas (allOf)", all);
    }
    let any: Vec<_> = forms.any.iter().map(wrong).collect();
    if !any.is_empty() && any.iter().all(|errors| !errors.is_empty()) {
        refuse("must validate at least one schema (anyOf)", closest(any));
    }
    let one: Vec<_> = forms.one.iter().map(wrong).collect();
    match one.iter().filter(|errors| errors.is_empty()).count() {
        _ if one.is_empty() => {}
        1 => {}
        0 => refuse("must validate one and only one schema (oneOf). Found none valid", closest(one)),
        several => {
            let what = format!("must validate one and only one schema (oneOf). Found {several} valid alternatives");
            refuse(&what, Vec::new());
        }
    }
    if forms.not.as_ref().is_some_and(|not| wrong(not).is_empty()) {
        refuse("must not validate the schema (not)", Vec::new());
    }
}

fn check_allowed(bounds: &Bounds, value: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    if !bounds.allowed.is_empty() && !bounds.allowed.contains(value) {
        let allowed: Vec<String> =
            bounds.allowed.iter().map(|it| it.as_str().map_or_else(|| it.to_string(), str::to_owned)).collect();
        errors.push(FieldError::not_supported(path.to_string(), value, &allowed));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::{prune, set_defaults};
    use super::*;

    fn schema() -> Schema {
        Schema::custom(&json!({"type": "object", "required": ["spec"], "properties": {"spec": {
        "type": "object", "required": ["name"], "properties": {
            "name": {"type": "string", "minLength": 1, "maxLength": 5, "pattern": "^[a-z]*$"},
            "replicas": {"type": "integer", "minimum": 0, "maximum": 10, "default": 1},
            "mode": {"type": "string", "enum": ["A", "B"]},
            "port": {"x-kubernetes-int-or-string": true},
            "note": {"type": "string", "nullable": true},
            "fixed": {"type": "string", "x-kubernetes-validations": [{"rule": "self == oldSelf", "message": "fixed is fixed"}]},
            "map": {"type": "object", "additionalProperties": {"type": "integer"}},
            "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
            "list": {"type": "array", "minItems": 1, "maxItems": 2, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
                "items": {"type": "object", "properties": {"k": {"type": "string"}, "v": {"type": "integer", "default": 7}}}},
        }}}}))
    }

    fn messages(spec: Value, old: Option<Value>) -> Vec<String> {
        let mut errors = Vec::new();
        let whole = |spec: Value| json!({"spec": spec});
        let old = old.map(whole);
        check(&schema(), &whole(spec), old.as_ref(), &Path::Root, &mut errors);
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn errors_read_as_the_real_ones() {
        for (spec, message) in [
            (json!({"name": "a", "port": 1, "note": null, "map": {"x": 1}, "free": {"x": [1]}}), ""),
            (json!({}), "spec.name: Required value"),
            (
                json!({"name": "a", "replicas": "string"}),
                "spec.replicas: Invalid value: \"string\": spec.replicas in body must be of type integer: \"string\"",
            ),
            (
                json!({"name": "a", "replicas": -1}),
                "spec.replicas: Invalid value: -1: spec.replicas in body should be greater than or equal to 0",
            ),
            (
                json!({"name": "a", "replicas": 11}),
                "spec.replicas: Invalid value: 11: spec.replicas in body should be less than or equal to 10",
            ),
            (json!({"name": "a", "mode": "C"}), "spec.mode: Unsupported value: \"C\": supported values: \"A\", \"B\""),
            (json!({"name": ""}), "spec.name: Invalid value: \"\": spec.name in body should be at least 1 chars long"),
            (json!({"name": "A"}), "spec.name: Invalid value: \"A\": spec.name in body should match '^[a-z]*$'"),
            (json!({"name": "abcdef"}), "spec.name: Too long: may not be more than 5 bytes"),
            (
                json!({"name": "a", "port": true}),
                "spec.port: Invalid value: \"boolean\": spec.port in body must be of type integer,string: \"boolean\"",
            ),
            (
                json!({"name": "a", "map": {"x": "y"}}),
                "spec.map.x: Invalid value: \"string\": spec.map.x in body must be of type integer: \"string\"",
            ),
            (
                json!({"name": "a", "list": []}),
                "spec.list: Invalid value: 0: spec.list in body should have at least 1 items",
            ),
            (json!({"name": "a", "list": [{"k": "1"}, {"k": "1"}]}), "spec.list[1]: Duplicate value: {\"k\":\"1\"}"),
        ] {
            assert_eq!(messages(spec.clone(), None).join("; "), message, "{spec}");
        }
    }

    #[test]
    fn updates_keep_what_is_fixed_and_forgive_what_was_wrong() {
        let (old, new) = (json!({"name": "a", "fixed": "x"}), json!({"name": "a", "fixed": "y"}));
        assert_eq!(messages(new, Some(old.clone())), ["spec.fixed: Invalid value: \"string\": fixed is fixed"]);
        assert_eq!(messages(json!({"name": "a", "fixed": "x", "replicas": 2}), Some(old)), [""; 0]);
        let wrong = json!({"name": "a", "mode": "C"});
        assert_eq!(messages(json!({"name": "b", "mode": "C"}), Some(wrong)), [""; 0]);
    }

    #[test]
    fn unknown_fields_go_and_defaults_come() {
        let mut object = json!({"metadata": {"name": "x", "colour": 1}, "spec": {"name": "a", "extra": 1, "replicas": null,
            "free": {"kept": 1}, "list": [{"k": "1", "z": 2}]}});
        let mut unknown = Vec::new();
        prune(&schema(), &mut object, None, &Path::Root, &mut unknown);
        set_defaults(&schema(), &mut object, None);
        assert_eq!(unknown, ["metadata.colour", "spec.extra", "spec.list[0].z"]);
        let spec = json!({"name": "a", "replicas": 1, "free": {"kept": 1}, "list": [{"k": "1", "v": 7}]});
        assert_eq!(object["spec"], spec);
    }
}
