//! Whether two templates ask for the same pods.

use serde_json::{Map, Value};

use super::go_json::{self, Style};
use super::{Ignoring, PodTemplate};
use crate::api::names::POD_TEMPLATE_HASH;

const AFFINITY_RULES: [&str; 2] =
    ["requiredDuringSchedulingIgnoredDuringExecution", "preferredDuringSchedulingIgnoredDuringExecution"];

/// Whether the pods of an existing ReplicaSet are those that `desired` asks for, so that it is the same revision
/// whatever hash it is labelled with.
///
/// Ignored are: the hash label, ephemeral metadata, the anti-affinity term that a rollout injects, the API server's
/// defaults, and how a value is written (quantities, empty or absent).
pub fn semantically_equal(desired: &PodTemplate, existing: &PodTemplate, ignoring: Ignoring<'_>) -> bool {
    let labels = ignoring.ephemeral_labels.into_iter().flat_map(|labels| labels.keys());
    let annotations = ignoring.ephemeral_annotations.into_iter().flat_map(|annotations| annotations.keys());
    let existing = existing.without_metadata(labels.map(String::as_str), annotations.map(String::as_str));
    comparable(desired) == comparable(&existing)
}

fn comparable(template: &PodTemplate) -> Vec<u8> {
    // The existing template has the defaults of the server that stored it, which may be older or newer than ours: to
    // both sides the same ones are added.
    let mut template = template.without_label(POD_TEMPLATE_HASH).defaulted();
    if let Some(spec) = template.get_mut("spec").and_then(Value::as_object_mut) {
        // An alias that the API server fills in.
        spec.remove("serviceAccount");
        remove_injected_affinity(spec);
        if spec.get("hostNetwork") == Some(&Value::Bool(true)) {
            remove_default_host_ports(spec);
        }
    }
    go_json::encode(&template, Style { by_value: true, ..Style::default() })
}

/// Removes the terms that keep a revision's pods away from the stable ones, and what is empty then.
fn remove_injected_affinity(spec: &mut Map<String, Value>) {
    let Some(affinity) = spec.get_mut("affinity").and_then(Value::as_object_mut) else { return };
    if let Some(rules) = affinity.get_mut("podAntiAffinity").and_then(Value::as_object_mut) {
        for rule in AFFINITY_RULES {
            let Some(terms) = rules.get_mut(rule).and_then(Value::as_array_mut) else { continue };
            terms.retain(|term| !is_injected(term.get("podAffinityTerm").unwrap_or(term)));
            if terms.is_empty() {
                rules.remove(rule);
            }
        }
        if rules.is_empty() {
            affinity.remove("podAntiAffinity");
        }
    }
    if affinity.is_empty() {
        spec.remove("affinity");
    }
}

fn is_injected(term: &Value) -> bool {
    let expressions = term.pointer("/labelSelector/matchExpressions").and_then(Value::as_array);
    expressions.into_iter().flatten().any(|expression| expression["key"] == POD_TEMPLATE_HASH)
}

/// API servers before 1.28 wrote the host ports of a host network into templates, later ones only into pods.
fn remove_default_host_ports(spec: &mut Map<String, Value>) {
    for field in ["containers", "initContainers"] {
        let containers = spec.get_mut(field).and_then(Value::as_array_mut).into_iter().flatten();
        let ports = containers.filter_map(|container| container.get_mut("ports")?.as_array_mut()).flatten();
        for port in ports.filter_map(Value::as_object_mut) {
            if port.get("hostPort") == port.get("containerPort") {
                port.remove("hostPort");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::*;

    fn template(value: Value) -> PodTemplate {
        value.into()
    }

    fn desired() -> PodTemplate {
        template(json!({
            "metadata": {"labels": {"app": "shop"}},
            "spec": {"serviceAccountName": "shop", "containers": [{
                "name": "shop", "image": "shop:1", "ports": [{"containerPort": 80}], "env": [],
                "resources": {"requests": {"cpu": "0.5", "memory": "1024Mi"}},
                "readinessProbe": {"httpGet": {"port": 80}},
            }]},
        }))
    }

    fn equal(desired: &PodTemplate, existing: &PodTemplate) -> bool {
        semantically_equal(desired, existing, Ignoring::default())
    }

    #[test]
    fn what_the_api_server_stored_is_the_same_revision() {
        let stored: PodTemplate = desired().with_label(POD_TEMPLATE_HASH, "abc").defaulted().into();
        assert_ne!(stored, desired());
        assert!(equal(&desired(), &stored));
    }

    #[test]
    fn another_spelling_is_the_same_revision() {
        let mut other = desired().to_value();
        other["spec"]["containers"][0]["resources"]["requests"] = json!({"cpu": "500m", "memory": 1073741824});
        other["spec"]["volumes"] = json!([]);
        other["spec"]["affinity"] = json!({});
        assert!(equal(&desired(), &template(other)));
    }

    #[test]
    fn a_real_change_is_another_revision() {
        for (pointer, value) in [
            ("/spec/containers/0/image", json!("shop:2")),
            ("/spec/containers/0/resources/requests/cpu", json!("501m")),
            ("/spec/containers/0/readinessProbe/periodSeconds", json!(11)),
            ("/spec/serviceAccountName", json!("other")),
            ("/metadata/labels/app", json!("other")),
            ("/spec/hostNetwork", json!(true)),
        ] {
            let mut other = desired().to_value();
            let (parent, field) = pointer.rsplit_once('/').unwrap();
            other.pointer_mut(parent).unwrap()[field] = value;
            assert!(!equal(&desired(), &template(other)), "{pointer}");
        }
    }

    #[test]
    fn ephemeral_metadata_is_not_part_of_a_revision() {
        let labels = BTreeMap::from([("role".to_owned(), "canary".to_owned())]);
        let annotations = BTreeMap::from([("note".to_owned(), "x".to_owned())]);
        let existing = desired().with_metadata(&labels, &annotations);
        assert!(!equal(&desired(), &existing));
        let ignoring = Ignoring { ephemeral_labels: Some(&labels), ephemeral_annotations: Some(&annotations) };
        assert!(semantically_equal(&desired(), &existing, ignoring));
    }

    #[test]
    fn the_injected_anti_affinity_is_not_part_of_a_revision() {
        let term = json!({
            "labelSelector": {"matchExpressions": [
                {"key": POD_TEMPLATE_HASH, "operator": "In", "values": ["abc"]},
            ]},
            "topologyKey": "kubernetes.io/hostname",
        });
        let own = json!({"labelSelector": {"matchLabels": {"app": "shop"}}, "topologyKey": "zone"});
        let with = |required: Value, preferred: Value| {
            let mut value = desired().to_value();
            value["spec"]["affinity"] = json!({"podAntiAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": required,
                "preferredDuringSchedulingIgnoredDuringExecution": preferred,
            }});
            template(value)
        };
        assert!(equal(&desired(), &with(json!([term]), json!([]))));
        assert!(equal(&desired(), &with(json!([]), json!([{"weight": 1, "podAffinityTerm": term}]))));
        assert!(equal(&with(json!([own]), json!([])), &with(json!([own, term]), json!([]))));
        assert!(!equal(&desired(), &with(json!([own, term]), json!([]))));
    }

    #[test]
    fn host_ports_that_an_older_api_server_filled_in_are_no_change() {
        let mut desired = desired().to_value();
        desired["spec"]["hostNetwork"] = json!(true);
        let mut existing = desired.clone();
        existing["spec"]["containers"][0]["ports"][0]["hostPort"] = json!(80);
        assert!(equal(&template(desired), &template(existing)));
    }
}
