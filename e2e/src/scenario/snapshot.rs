//! The objects of a namespace as a manifest that makes them anew, in another cluster and at another time.
//!
//! What a live installation of Argo Rollouts leaves behind is written down this way (see `scenarios/recordings/`) and handed to
//! Tidegate by `apply`. What a server fills in is left out; instants are kept as their distance to the moment of the
//! recording, `${NOW-12s}`, so that a deadline is as near as it was.

use std::path::Path;

use anyhow::{Context, Result};
use jiff::{SignedDuration, Timestamp};
use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, ListParams};
use serde_json::{Map, Value};

/// What is recorded, in an order in which it can be made again: owners before what they own, ReplicaSets before what names
/// their hashes.
const RESOURCES: &[(&str, &str, &str, &str)] = &[
    ("argoproj.io", "v1alpha1", "AnalysisTemplate", "analysistemplates"),
    ("argoproj.io", "v1alpha1", "Rollout", "rollouts"),
    ("apps", "v1", "ReplicaSet", "replicasets"),
    ("", "v1", "Service", "services"),
    ("networking.k8s.io", "v1", "Ingress", "ingresses"),
    ("argoproj.io", "v1alpha1", "AnalysisRun", "analysisruns"),
];

const METADATA: &[&str] = &["name", "labels", "annotations", "ownerReferences"];
/// Fields of a Service's spec that are not the server's.
const OF_SERVICES: &[&str] = &["ports", "selector"];

/// Writes the objects of a namespace to a file. Each text in `hidden` is replaced by what stands for it.
///
/// # Errors
/// A list is refused, or the file cannot be written.
pub async fn save(
    client: &Client,
    namespace: &str,
    file: &Path,
    now: Timestamp,
    hidden: &[(String, String)],
) -> Result<()> {
    let mut documents = Vec::new();
    for (group, version, kind, plural) in RESOURCES {
        let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural);
        let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &resource);
        let mut objects = api.list(&ListParams::default()).await.with_context(|| format!("listing {plural}"))?.items;
        objects.sort_by_key(|object| {
            (object.metadata.creation_timestamp.clone().map(|it| it.0), object.metadata.name.clone())
        });
        for object in objects {
            let mut object = serde_json::to_value(&object)?;
            object["apiVersion"] = resource.api_version.clone().into();
            object["kind"] = (*kind).into();
            documents.push(plain(object, now));
        }
    }
    let mut text = String::new();
    for document in documents {
        text += "---\n";
        text += &serde_saphyr::to_string(&document).context("writing YAML")?;
    }
    text = text.replace(namespace, "${NAMESPACE}");
    for (there, written) in hidden {
        text = text.replace(there, written);
    }
    std::fs::create_dir_all(file.parent().context("a file in a folder")?)?;
    std::fs::write(file, text).with_context(|| format!("writing {}", file.display()))
}

/// Puts instants in the place of their distances to now.
pub fn with_times(text: &str, now: Timestamp) -> String {
    let mut parts = text.split("${NOW");
    let mut filled = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let distance = part.split_once("s}").and_then(|(number, rest)| Some((number.parse::<i64>().ok()?, rest)));
        match distance {
            Some((seconds, rest)) => {
                filled += &in_seconds(now + SignedDuration::from_secs(seconds)).to_string();
                filled += rest;
            }
            None => {
                filled += "${NOW";
                filled += part;
            }
        }
    }
    filled
}

fn plain(mut object: Value, now: Timestamp) -> Value {
    let generation = object["metadata"]["generation"].to_string();
    keep(&mut object["metadata"], METADATA);
    if let Some(Value::Array(owners)) = object["metadata"].get_mut("ownerReferences") {
        owners.iter_mut().for_each(|owner| owner["uid"] = "${UID}".into());
    }
    match object["kind"].as_str().unwrap_or_default() {
        "Service" => {
            keep(&mut object["spec"], OF_SERVICES);
            keep(&mut object, &["apiVersion", "kind", "metadata", "spec"]);
        }
        "ReplicaSet" | "Ingress" => keep(&mut object, &["apiVersion", "kind", "metadata", "spec"]),
        // An object that is made anew begins with the first generation.
        "Rollout" if object["status"]["observedGeneration"] == generation.as_str() => {
            object["status"]["observedGeneration"] = "1".into();
        }
        _ => {}
    }
    distances(&mut object, now);
    object
}

fn keep(value: &mut Value, fields: &[&str]) {
    if let Some(map) = value.as_object_mut() {
        let kept = fields.iter().filter_map(|field| map.remove_entry(*field)).filter(|(_, value)| !value.is_null());
        let kept: Map<_, _> = kept.collect();
        *map = kept;
    }
}

fn distances(value: &mut Value, now: Timestamp) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| distances(item, now)),
        Value::Object(fields) => fields.values_mut().for_each(|field| distances(field, now)),
        Value::String(text) if text.len() >= 20 => {
            if let Ok(instant) = text.parse::<Timestamp>() {
                *text = format!("${{NOW{:+}s}}", instant.as_second() - now.as_second());
            }
        }
        _ => {}
    }
}

fn in_seconds(instant: Timestamp) -> Timestamp {
    Timestamp::from_second(instant.as_second()).unwrap_or(instant)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_recorded_object_can_be_made_at_another_time() {
        let recorded = json!({
            "apiVersion": "apps/v1",
            "kind": "ReplicaSet",
            "metadata": {
                "name": "web-abc", "uid": "1", "resourceVersion": "7", "generation": 3,
                "annotations": {"scale-down-deadline": "2026-01-01T00:00:25Z"},
                "ownerReferences": [{"kind": "Rollout", "name": "web", "uid": "2"}],
            },
            "spec": {"replicas": 4},
            "status": {"replicas": 4},
        });
        let plain = plain(recorded, "2026-01-01T00:00:00.9Z".parse().unwrap());
        assert_eq!(plain["metadata"]["annotations"]["scale-down-deadline"], "${NOW+25s}");
        assert_eq!(plain["metadata"]["ownerReferences"][0]["uid"], "${UID}");
        assert_eq!((&plain["metadata"]["resourceVersion"], &plain["status"]), (&Value::Null, &Value::Null));
        let text = with_times(&plain.to_string(), "2030-01-01T00:00:00.5Z".parse().unwrap());
        assert!(text.contains("\"2030-01-01T00:00:25Z\""), "{text}");
        assert_eq!(
            with_times("${NOW} ${NOW-1s}", "2030-01-01T00:00:01Z".parse().unwrap()),
            "${NOW} 2030-01-01T00:00:00Z"
        );
    }
}
