//! Rules that header and mirror steps put before the user's.

use serde_json::{Value, json};

use super::is_service;
use crate::api::steps::{SetHeaderRoute, SetMirrorRoute, StringMatch};
use crate::traffic::Context;
use crate::traffic::managed::{self, Managed};

/// A managed rule beside one of the user's rules: with its filters and timeouts, for a part of its requests. Everything
/// that the API server would fill in is written out, so that what is read back is what was written.
pub(super) fn copy(context: &Context<'_>, managed: Managed<'_>, base: &Value, index: usize) -> Value {
    let mut rule = base.clone();
    rule["name"] = json!(managed::numbered(managed.name(), index));
    let backends = base["backendRefs"].as_array().into_iter().flatten();
    let canary = backends.clone().find(|it| is_service(it, context.canary_service)).cloned().unwrap_or_default();
    let matches = match managed {
        Managed::Header(header) => {
            let mut only = canary;
            only["weight"] = json!(1);
            rule["backendRefs"] = json!([only]);
            vec![by_headers(header)]
        }
        Managed::Mirror(mirror) => {
            let mut filters = base["filters"].as_array().cloned().unwrap_or_default();
            filters.push(filter(mirror, &canary));
            rule["filters"] = Value::Array(filters);
            mirror.match_.iter().map(by_request).collect()
        }
    };
    rule["matches"] = Value::Array(managed::narrowed(&base["matches"], &matches, narrow));
    rule
}

/// What remains of a rule without a name and weights: by this a rule is known whose name an API server has dropped that
/// does not know the field yet.
pub(super) fn essence(rule: &Value) -> Value {
    let mut rule = rule.clone();
    rule.as_object_mut().and_then(|fields| fields.remove("name"));
    for backend in rule["backendRefs"].as_array_mut().into_iter().flatten() {
        backend.as_object_mut().and_then(|fields| fields.remove("weight"));
    }
    rule
}

/// Whether a rule copies requests to the canary.
pub(super) fn mirrors(context: &Context<'_>, rule: &Value) -> bool {
    let mut filters = rule["filters"].as_array().into_iter().flatten();
    filters.any(|filter| is_service(&filter["requestMirror"]["backendRef"], context.canary_service))
}

/// All headers of a step in one match, as the plugin of Argo Rollouts has it.
fn by_headers(header: &SetHeaderRoute) -> Value {
    let one = |it: &crate::api::steps::HeaderMatch| {
        header_match(&it.header_name, it.header_value.as_ref().unwrap_or(&StringMatch::default()))
    };
    json!({"headers": header.match_.iter().map(one).collect::<Vec<_>>()})
}

fn by_request(wanted: &crate::api::steps::RouteMatch) -> Value {
    let mut one = json!({});
    if let Some(method) = &wanted.method {
        one["method"] = json!(method.exact);
    }
    if let Some(path) = &wanted.path {
        let (kind, text) = managed::matcher(path);
        let kind = match kind {
            "exact" => "Exact",
            "prefix" => "PathPrefix",
            _ => "RegularExpression",
        };
        one["path"] = json!({"type": kind, "value": text});
    }
    if !wanted.headers.is_empty() {
        one["headers"] = wanted.headers.iter().map(|(name, value)| header_match(name, value)).collect();
    }
    one
}

/// The Gateway API knows no prefix of a header's value: that is written as a regular expression.
fn header_match(name: &str, value: &StringMatch) -> Value {
    let (kind, text) = managed::matcher(value);
    match kind {
        "exact" => json!({"name": name, "type": "Exact", "value": text}),
        "prefix" => json!({"name": name, "type": "RegularExpression", "value": format!("{}.*", literally(text))}),
        _ => json!({"name": name, "type": "RegularExpression", "value": text}),
    }
}

/// A regular expression that matches just this text.
fn literally(text: &str) -> String {
    let escaped = text.chars().flat_map(|c| {
        let special = r"\.+*?()|[]{}^$".contains(c);
        special.then_some('\\').into_iter().chain([c])
    });
    escaped.collect()
}

fn filter(mirror: &SetMirrorRoute, canary: &Value) -> Value {
    let mut backend = json!({"group": "", "kind": "Service", "name": canary["name"], "port": canary["port"]});
    if let Some(namespace) = canary.get("namespace") {
        backend["namespace"] = namespace.clone();
    }
    let mut request_mirror = json!({"backendRef": backend});
    if let Some(percent) = mirror.percentage.filter(|percent| *percent != 100) {
        request_mirror["percent"] = json!(percent);
    }
    json!({"type": "RequestMirror", "requestMirror": request_mirror})
}

/// A match of the user's rule that also asks for what a step asks for.
fn narrow(base: &Value, by: &Value) -> Value {
    let mut narrowed = base.clone();
    for (field, value) in by.as_object().into_iter().flatten() {
        if field != "headers" {
            narrowed[field] = value.clone();
            continue;
        }
        let wanted = value.as_array().cloned().unwrap_or_default();
        let name = |header: &Value| header["name"].as_str().unwrap_or_default().to_ascii_lowercase();
        let mut headers = base["headers"].as_array().cloned().unwrap_or_default();
        headers.retain(|present| !wanted.iter().any(|header| name(header) == name(present)));
        headers.extend(wanted);
        narrowed["headers"] = Value::Array(headers);
    }
    narrowed
}
