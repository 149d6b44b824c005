//! What clients and models see of the server as a whole, against what a real one answers.

mod apply;
mod collection;
mod objects;
mod watches;

use serde_json::{Value, json};

use super::*;

fn server() -> ApiServer {
    ApiServer::new(Clock::starting_at("2026-01-01T00:00:00Z".parse().unwrap()), 1)
}

/// A server with a custom resource, `boats.example.com`, and the access of the manager `test`.
fn harbour() -> Scoped {
    let access = server().manager("test");
    let schema = json!({"type": "object", "properties": {
        "spec": {"type": "object", "properties": {
            "replicas": {"type": "integer", "default": 1},
            "hull": {"type": "string"},
            "crew": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                "items": {"type": "object", "required": ["name"], "properties": {
                    "name": {"type": "string"}, "rank": {"type": "string"}}}},
        }},
        "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
    }});
    let version = json!({"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema},
        "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"}}});
    let crd = json!({"metadata": {"name": "boats.example.com"}, "spec": {"group": "example.com", "scope": "Namespaced",
        "names": {"plural": "boats", "kind": "Boat"}, "versions": [version]}});
    access.create("customresourcedefinitions.apiextensions.k8s.io", "", crd).unwrap();
    access
}

const BOATS: &str = "boats.example.com";

fn boat(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"hull": "wood"}})
}

fn replica_set(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"replicas": 2, "selector": {"matchLabels": {"app": name}},
        "template": {"metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}})
}

fn owned_by(mut object: Value, kind: &str, owner: &Value, blocks: bool) -> Value {
    let (name, uid) = (&owner["metadata"]["name"], &owner["metadata"]["uid"]);
    object["metadata"]["ownerReferences"] = json!([{"apiVersion": "v1", "kind": kind, "name": name, "uid": uid,
        "controller": true, "blockOwnerDeletion": blocks}]);
    object
}

fn said(refusal: &Refusal) -> (u16, &str, &str) {
    (refusal.code, &refusal.reason, &refusal.message)
}
