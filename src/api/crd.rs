//! The CustomResourceDefinitions, made from the types.
//!
//! kube derives the schema; here it gets what the derive cannot say: which kinds have a status subresource, the columns of
//! `kubectl get`, and the rule that a selector never changes.

use kube::CustomResourceExt;
use serde_json::{Value, json};

use super::analysis::{AnalysisRun, AnalysisTemplate, ClusterAnalysisTemplate};
use super::experiment::Experiment;
use super::rollout::Rollout;

/// The largest object that a client-side `kubectl apply` can handle: it keeps a copy of it in an annotation, and all
/// annotations together must not exceed this many bytes.
pub const CLIENT_SIDE_APPLY_LIMIT: usize = 262_144;

/// One definition for each kind, as `(file name, object)`.
pub fn all() -> Vec<(&'static str, Value)> {
    let definition = |file, definition| (file, complete(definition));
    vec![
        definition("analysisrun", AnalysisRun::crd()),
        definition("analysistemplate", AnalysisTemplate::crd()),
        definition("clusteranalysistemplate", ClusterAnalysisTemplate::crd()),
        definition("experiment", Experiment::crd()),
        definition("rollout", Rollout::crd()),
    ]
}

/// The files of `crds/`, as `(name, YAML)`.
pub fn files() -> Vec<(String, String)> {
    const HEAD: &str = "# Made by `make crds` from the types in src/api. Do not edit.\n";
    let file = |(name, crd): (&str, Value)| {
        // A JSON value always has a YAML form.
        let yaml = serde_saphyr::to_string(&crd).unwrap_or_default();
        (format!("argoproj.io_{name}s.yaml"), format!("{HEAD}{yaml}"))
    };
    all().into_iter().map(file).collect()
}

fn complete(definition: impl serde::Serialize) -> Value {
    // The definition is made of maps with text keys: it always has a JSON form.
    let mut crd = serde_json::to_value(definition).unwrap_or_default();
    let kind = crd["spec"]["names"]["kind"].as_str().unwrap_or_default().to_owned();
    let version = &mut crd["spec"]["versions"][0];
    if kind != "Rollout" {
        // As in Argo Rollouts, whose clients write the status of these kinds on the object itself.
        version["subresources"] = json!({});
    }
    version["additionalPrinterColumns"] = printer_columns(&kind);
    version["schema"]["openAPIV3Schema"]["description"] = json!(description(&kind));
    if kind == "Rollout" {
        version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["selector"]["x-kubernetes-validations"] =
            json!([{ "rule": "self == oldSelf", "message": "selector is immutable" }]);
    }
    crd
}

/// What `kubectl explain` says of the kind.
fn description(kind: &str) -> &'static str {
    match kind {
        "Rollout" => "A workload, and how a new version of it reaches production.",
        "AnalysisRun" => "One analysis: its metrics, arguments and results.",
        "Experiment" => "ReplicaSets that run side by side for a while, and analyses of them.",
        "ClusterAnalysisTemplate" => "Metrics and how to judge them, for all namespaces.",
        _ => "Metrics and how to judge them.",
    }
}

fn printer_columns(kind: &str) -> Value {
    let column = |name: &str, type_: &str, path: &str, description: &str| json!({"name": name, "type": type_, "jsonPath": path, "description": description});
    let age = column("Age", "date", ".metadata.creationTimestamp", "Time since the object was created");
    match kind {
        "Rollout" => json!([
            column("Desired", "integer", ".spec.replicas", "Number of desired pods"),
            column("Current", "integer", ".status.replicas", "Number of pods"),
            column("Up-to-date", "integer", ".status.updatedReplicas", "Number of pods of the newest version"),
            column("Available", "integer", ".status.availableReplicas", "Number of available pods"),
            age,
        ]),
        "AnalysisRun" => json!([column("Status", "string", ".status.phase", "Phase of the run"), age]),
        "Experiment" => json!([column("Status", "string", ".status.phase", "Phase of the experiment"), age]),
        _ => json!([age]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every schema node below `value`, with its path.
    fn nodes<'a>(path: String, schema: &'a Value, visit: &mut impl FnMut(&str, &'a Value)) {
        visit(&path, schema);
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            nodes(format!("{path}.{name}"), property, visit);
        }
        for field in ["items", "additionalProperties"] {
            if schema[field].is_object() {
                nodes(format!("{path}[]"), &schema[field], visit);
            }
        }
    }

    #[test]
    fn the_schemas_are_structural() {
        for (file, crd) in all() {
            let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
            nodes(file.to_owned(), schema, &mut |path, node| {
                let open =
                    node["x-kubernetes-preserve-unknown-fields"] == true || node["x-kubernetes-int-or-string"] == true;
                assert!(node["type"].is_string() || open, "{path} has no type: {node}");
                assert!(node.get("$ref").is_none(), "{path} has a reference");
                for combined in ["allOf", "anyOf", "oneOf"] {
                    assert!(node.get(combined).is_none() || open, "{path} has {combined}: {node}");
                }
            });
        }
    }

    #[test]
    fn the_definitions_are_small_enough_for_a_client_side_apply() {
        for (file, crd) in all() {
            let compact = serde_json::to_string(&crd).unwrap();
            assert!(compact.len() < CLIENT_SIDE_APPLY_LIMIT, "{file} has {} bytes", compact.len());
        }
    }

    /// `make crds` writes the files; this fails when somebody changed a type and forgot to.
    #[test]
    fn the_files_are_those_of_the_types() {
        for (name, expected) in files() {
            let path = format!("{}/crds/{name}", env!("CARGO_MANIFEST_DIR"));
            let found = std::fs::read_to_string(&path).unwrap_or_default();
            assert!(found == expected, "{path} is out of date: run `make crds`");
            let parsed: Value = serde_saphyr::from_str(&found).unwrap();
            assert!(all().iter().any(|(_, crd)| *crd == parsed), "{path} does not read as it was written");
            assert!(found.len() < CLIENT_SIDE_APPLY_LIMIT, "{path} has {} bytes", found.len());
        }
    }

    #[test]
    fn only_the_rollout_has_status_and_scale() {
        for (file, crd) in all() {
            let subresources = &crd["spec"]["versions"][0]["subresources"];
            if file == "rollout" {
                assert_eq!(
                    *subresources,
                    json!({
                        "status": {},
                        "scale": {
                            "specReplicasPath": ".spec.replicas",
                            "statusReplicasPath": ".status.HPAReplicas",
                            "labelSelectorPath": ".status.selector",
                        },
                    })
                );
            } else {
                assert_eq!(*subresources, json!({}), "{file}");
            }
        }
    }
}
