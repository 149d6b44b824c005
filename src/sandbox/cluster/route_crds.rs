//! The kinds of the Gateway API and of Istio, as far as a rollout needs them: names, versions and a status, any fields.

use serde_json::{Value, json};

const GATEWAY: &str = "gateway.networking.k8s.io";
const ISTIO: &str = "networking.istio.io";

/// Group, `Kind`, plural, versions (the stored one first), short name, cluster-scoped.
type Definition = (&'static str, &'static str, &'static str, &'static [&'static str], &'static str, bool);

const KINDS: [Definition; 6] = [
    (GATEWAY, "GatewayClass", "gatewayclasses", &["v1", "v1beta1"], "gc", true),
    (GATEWAY, "Gateway", "gateways", &["v1", "v1beta1"], "gtw", false),
    (GATEWAY, "HTTPRoute", "httproutes", &["v1", "v1beta1"], "", false),
    (GATEWAY, "GRPCRoute", "grpcroutes", &["v1"], "", false),
    (GATEWAY, "TCPRoute", "tcproutes", &["v1alpha2"], "", false),
    (GATEWAY, "TLSRoute", "tlsroutes", &["v1alpha2"], "", false),
];

const ISTIO_KINDS: [Definition; 2] = [
    (ISTIO, "VirtualService", "virtualservices", &["v1alpha3", "v1beta1", "v1"], "vs", false),
    (ISTIO, "DestinationRule", "destinationrules", &["v1alpha3", "v1beta1", "v1"], "dr", false),
];

pub(super) fn all() -> Vec<Value> {
    KINDS.iter().map(definition).chain(istio()).collect()
}

/// The kinds of Istio that a Rollout can name.
pub fn istio() -> Vec<Value> {
    ISTIO_KINDS.iter().map(definition).collect()
}

fn definition((group, kind, plural, versions, short, cluster): &Definition) -> Value {
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
    let short: Vec<&str> = Some(*short).filter(|short| !short.is_empty()).into_iter().collect();
    // The API server protects the groups of Kubernetes: only what was approved may use them.
    let approved = (*group == GATEWAY)
        .then(|| json!({"api-approved.kubernetes.io": "https://github.com/kubernetes-sigs/gateway-api/pull/2466"}))
        .unwrap_or(json!({}));
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.{group}"), "annotations": approved},
        "spec": {
            "group": group,
            "names": {
                "kind": kind,
                "listKind": format!("{kind}List"),
                "plural": plural,
                "singular": kind.to_lowercase(),
                "shortNames": short,
                "categories": [if *group == GATEWAY { "gateway-api" } else { "istio-io" }],
            },
            "scope": if *cluster { "Cluster" } else { "Namespaced" },
            "versions": versions.iter().enumerate().map(version).collect::<Vec<_>>(),
        },
    })
}
