//! What the server says about itself: groups, resources, version, health.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::request::Parts;
use http::{HeaderValue, Response, header};
use serde_json::{Value, json};

use super::http::{Body, json_answer, respond, whole};
use super::openapi;
use super::resource::{Resource, Version};
use super::state::State;

/// Answers a path that is not a resource's; `None` when nothing is served there.
pub(super) fn answer(state: &State, parts: &Parts, segments: &[String]) -> Option<Response<Body>> {
    let accept = parts.headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    let value = match segments.as_slice() {
        ["healthz" | "readyz" | "livez", ..] => {
            let mut answer = respond(200, whole("ok".into()));
            answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
            return Some(answer);
        }
        ["version"] => version(),
        ["api"] => {
            return Some(aggregated(
                accept,
                || core_groups(state),
                || {
                    json!({
                        "kind": "APIVersions", "apiVersion": "v1", "versions": ["v1"],
                        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": "127.0.0.1"}],
                    })
                },
            ));
        }
        ["apis"] => {
            return Some(aggregated(
                accept,
                || named_groups(state),
                || {
                    json!({
                        "kind": "APIGroupList", "apiVersion": "v1",
                        "groups": groups(state).iter().map(|(name, versions)| group(name, versions)).collect::<Vec<_>>(),
                    })
                },
            ));
        }
        ["apis", name] => {
            let groups = groups(state);
            let mut group = group(name, groups.get(*name)?);
            group["kind"] = "APIGroup".into();
            group["apiVersion"] = "v1".into();
            group
        }
        ["api", version] => resource_list(state, "", version)?,
        ["apis", group, version] => resource_list(state, group, version)?,
        ["openapi", "v2"] => return Some(openapi_v2(accept)),
        ["openapi", "v3"] => openapi::index(state),
        ["openapi", "v3", rest @ ..] => openapi::document(state, rest)?,
        [] => {
            json!({"paths": ["/api", "/apis", "/healthz", "/livez", "/openapi/v2", "/openapi/v3", "/readyz", "/version"]})
        }
        _ => return None,
    };
    Some(json_answer(200, &value, &[]))
}

fn version() -> Value {
    json!({
        "major": "1", "minor": "34", "gitVersion": "v1.34.3", "gitCommit": "", "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z", "goVersion": "", "compiler": "", "platform": "linux/amd64",
    })
}

/// Version 2 has no use beyond clients that cannot read version 3: the document is empty.
fn openapi_v2(accept: &str) -> Response<Body> {
    if accept.contains("protobuf") {
        let mut answer = respond(200, whole(bytes::Bytes::new()));
        let kind = HeaderValue::from_static("application/com.github.proto-openapi.spec.v2.v1.0+protobuf");
        answer.headers_mut().insert(header::CONTENT_TYPE, kind);
        return answer;
    }
    let info = json!({"title": "Kubernetes", "version": "v1.34.3"});
    json_answer(200, &json!({"swagger": "2.0", "info": info, "paths": {}, "definitions": {}}), &[])
}

/// Aggregated discovery where the client prefers it, the old form otherwise.
fn aggregated(accept: &str, groups: impl FnOnce() -> Vec<Value>, plain: impl FnOnce() -> Value) -> Response<Body> {
    for range in accept.split(',').map(str::trim) {
        if !range.contains("apidiscovery.k8s.io") {
            continue;
        }
        let version = if range.contains("v=v2beta1") { "v2beta1" } else { "v2" };
        let list = json!({
            "kind": "APIGroupDiscoveryList",
            "apiVersion": format!("apidiscovery.k8s.io/{version}"),
            "metadata": {},
            "items": groups(),
        });
        let mut answer = json_answer(200, &list, &[]);
        let kind = format!("application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList");
        if let Ok(kind) = HeaderValue::from_str(&kind) {
            answer.headers_mut().insert(header::CONTENT_TYPE, kind);
        }
        return answer;
    }
    json_answer(200, &plain(), &[])
}

/// The versions of each named group, the preferred one first.
fn groups(state: &State) -> BTreeMap<&str, Vec<&str>> {
    let mut groups: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for resource in state.resources.values().filter(|resource| !resource.group.is_empty()) {
        let versions = groups.entry(&resource.group).or_default();
        for version in &resource.versions {
            if !versions.contains(&version.name.as_str()) {
                versions.push(&version.name);
            }
        }
    }
    groups
}

fn group(name: &str, versions: &[&str]) -> Value {
    let versions: Vec<Value> = versions
        .iter()
        .map(|version| json!({"groupVersion": format!("{name}/{version}"), "version": version}))
        .collect();
    json!({"name": name, "versions": versions, "preferredVersion": versions.first()})
}

fn resource_list(state: &State, group: &str, version: &str) -> Option<Value> {
    let mut resources = Vec::new();
    for (resource, served) in served(state, group, version) {
        let name = &resource.plural;
        let mut entry = json!({
            "name": name,
            "singularName": resource.singular,
            "namespaced": resource.namespaced,
            "kind": resource.kind,
            "verbs": VERBS,
        });
        if !resource.short_names.is_empty() {
            entry["shortNames"] = json!(resource.short_names);
        }
        if !resource.categories.is_empty() {
            entry["categories"] = json!(resource.categories);
        }
        resources.push(entry);
        for part in parts(resource, served) {
            let mut entry = json!({
                "name": format!("{name}/{}", part.name), "singularName": "", "namespaced": resource.namespaced,
                "kind": part.kind, "verbs": part.verbs,
            });
            if let Some((group, version)) = part.shape {
                entry["group"] = group.into();
                entry["version"] = version.into();
            }
            resources.push(entry);
        }
    }
    if resources.is_empty() {
        return None;
    }
    let group_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    Some(json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": resources}))
}

fn core_groups(state: &State) -> Vec<Value> {
    vec![group_discovery(state, "", &["v1"])]
}

fn named_groups(state: &State) -> Vec<Value> {
    groups(state).iter().map(|(name, versions)| group_discovery(state, name, versions)).collect()
}

fn group_discovery(state: &State, group: &str, versions: &[&str]) -> Value {
    let versions: Vec<Value> = versions
        .iter()
        .map(|version| {
            let resources: Vec<Value> =
                served(state, group, version).map(|(resource, served)| resource_discovery(resource, served)).collect();
            json!({"version": version, "resources": resources, "freshness": "Current"})
        })
        .collect();
    json!({"metadata": {"name": group, "creationTimestamp": null}, "versions": versions})
}

fn resource_discovery(resource: &Resource, served: &Version) -> Value {
    let kind = |kind: &str, shape: Option<(&str, &str)>| {
        let (group, version) = shape.unwrap_or((&resource.group, &served.name));
        json!({"group": group, "version": version, "kind": kind})
    };
    let mut entry = json!({
        "resource": resource.plural,
        "responseKind": kind(&resource.kind, None),
        "scope": if resource.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": resource.singular,
        "verbs": VERBS,
    });
    if !resource.short_names.is_empty() {
        entry["shortNames"] = json!(resource.short_names);
    }
    if !resource.categories.is_empty() {
        entry["categories"] = json!(resource.categories);
    }
    let parts: Vec<Value> = parts(resource, served)
        .iter()
        .map(|part| json!({"subresource": part.name, "responseKind": kind(part.kind, part.shape), "verbs": part.verbs}))
        .collect();
    if !parts.is_empty() {
        entry["subresources"] = parts.into();
    }
    entry
}

const VERBS: [&str; 8] = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

struct Part<'a> {
    name: &'static str,
    kind: &'a str,
    shape: Option<(&'static str, &'static str)>,
    verbs: &'static [&'static str],
}

fn parts<'a>(resource: &'a Resource, served: &Version) -> Vec<Part<'a>> {
    const EDIT: &[&str] = &["get", "patch", "update"];
    let mut parts = Vec::new();
    if &*resource.key == "pods" {
        parts.push(Part { name: "binding", kind: "Binding", shape: None, verbs: &["create"] });
        parts.push(Part { name: "eviction", kind: "Eviction", shape: Some(("policy", "v1")), verbs: &["create"] });
    }
    if served.scale.is_some() {
        parts.push(Part { name: "scale", kind: "Scale", shape: Some(("autoscaling", "v1")), verbs: EDIT });
    }
    if served.status {
        parts.push(Part { name: "status", kind: &resource.kind, shape: None, verbs: EDIT });
    }
    parts
}

/// The resources of a group that are served in a version.
pub(super) fn served<'a>(
    state: &'a State,
    group: &'a str,
    version: &'a str,
) -> impl Iterator<Item = (&'a Arc<Resource>, &'a Version)> {
    let of_group = state.resources.values().filter(move |resource| resource.group == group);
    of_group.filter_map(move |resource| Some((resource, resource.version(version)?)))
}
