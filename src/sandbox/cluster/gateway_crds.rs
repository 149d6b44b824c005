//! The kinds of the Gateway API, as far as a rollout needs them: names, versions and a status, any fields.

use serde_json::{Value, json};

/// `Kind`, plural, versions (the stored one first), short name, cluster-scoped.
const KINDS: [(&str, &str, &[&str], &str, bool); 6] = [
    ("GatewayClass", "gatewayclasses", &["v1", "v1beta1"], "gc", true),
    ("Gateway", "gateways", &["v1", "v1beta1"], "gtw", false),
    ("HTTPRoute", "httproutes", &["v1", "v1beta1"], "", false),
    ("GRPCRoute", "grpcroutes", &["v1"], "", false),
    ("TCPRoute", "tcproutes", &["v1alpha2"], "", false),
    ("TLSRoute", "tlsroutes", &["v1alpha2"], "", false),
];

pub(super) fn all() -> Vec<Value> {
    KINDS
        .iter()
        .map(|(kind, plural, versions, short, cluster)| definition(kind, plural, versions, short, *cluster))
        .collect()
}

fn definition(kind: &str, plural: &str, versions: &[&str], short: &str, cluster: bool) -> Value {
    let open = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let schema = json!({
        "type": "object",
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": open,
            "status": open,
        },
    });
    let version = |(index, name): (usize, &&str)| {
        json!({
            "name": name,
            "served": true,
            "storage": index == 0,
            "schema": {"openAPIV3Schema": schema},
            "subresources": {"status": {}},
        })
    };
    let short: Vec<&str> = Some(short).filter(|short| !short.is_empty()).into_iter().collect();
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": format!("{plural}.gateway.networking.k8s.io"),
            // The API server protects this group: only what was approved may use it.
            "annotations": {"api-approved.kubernetes.io": "https://github.com/kubernetes-sigs/gateway-api/pull/2466"},
        },
        "spec": {
            "group": "gateway.networking.k8s.io",
            "names": {
                "kind": kind,
                "listKind": format!("{kind}List"),
                "plural": plural,
                "singular": kind.to_lowercase(),
                "shortNames": short,
                "categories": ["gateway-api"],
            },
            "scope": if cluster { "Cluster" } else { "Namespaced" },
            "versions": versions.iter().enumerate().map(version).collect::<Vec<_>>(),
        },
    })
}
