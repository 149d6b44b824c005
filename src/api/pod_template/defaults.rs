//! The defaults of core/v1 for a pod template inside a ReplicaSet: fewer than those of a pod, which also gets requests
//! from its limits and host ports from its host network.

use serde_json::{Map, Value, json};

use super::go_json::{self, Kind, Style, TYPES};
use super::image;
use super::quantity::Quantity;

/// Annotations of the time before init containers were a field. The API server drops them.
const INIT_CONTAINER_ANNOTATIONS: [&str; 4] = [
    "pod.beta.kubernetes.io/init-containers",
    "pod.alpha.kubernetes.io/init-containers",
    "pod.beta.kubernetes.io/init-container-statuses",
    "pod.alpha.kubernetes.io/init-container-statuses",
];

/// The template as the API server gives it back: decoded, so that what it does not know is gone, and completed.
pub(super) fn defaulted(template: &Value) -> Value {
    let encoded = go_json::encode(template, Style::default());
    // What the encoder wrote is JSON; its tests parse it.
    let mut template: Value = serde_json::from_slice(&encoded).expect("encoded JSON");
    complete(TYPES.pod_template(), &mut template);
    template
}

fn complete(kind: &Kind, value: &mut Value) {
    match (kind, value) {
        (Kind::Pointer(inner), value) => complete(inner, value),
        (Kind::List(inner), Value::Array(list)) => list.iter_mut().for_each(|element| complete(inner, element)),
        (Kind::Map(inner), Value::Object(resources)) if matches!(**inner, Kind::Quantity) => {
            resources.values_mut().for_each(round_to_milli);
        }
        (Kind::Struct(index), Value::Object(object)) => {
            let known = TYPES.get(*index);
            complete_struct(known.name, object);
            for field in &known.fields {
                if let Some(value) = object.get_mut(field.name) {
                    complete(&field.kind, value);
                }
            }
        }
        _ => {}
    }
}

fn round_to_milli(value: &mut Value) {
    if let Some(quantity) = value.as_str().and_then(|text| Quantity::parse(text).ok()) {
        *value = quantity.rounded_to_milli().text().into();
    }
}

fn complete_struct(name: &str, object: &mut Map<String, Value>) {
    match name {
        "ObjectMeta" => complete_metadata(object),
        "PodSpec" => complete_pod_spec(object),
        "Container" | "EphemeralContainer" => {
            let tag = image::is_latest(text(object, "image"));
            default(object, "imagePullPolicy", if tag { "Always" } else { "IfNotPresent" });
            default(object, "terminationMessagePath", "/dev/termination-log");
            default(object, "terminationMessagePolicy", "File");
        }
        "ContainerPort" => default(object, "protocol", "TCP"),
        "FileKeySelector" => default(object, "optional", false),
        "ObjectFieldSelector" => default(object, "apiVersion", "v1"),
        "Probe" => {
            default(object, "timeoutSeconds", 1);
            default(object, "periodSeconds", 10);
            default(object, "successThreshold", 1);
            default(object, "failureThreshold", 3);
        }
        "HTTPGetAction" => {
            default(object, "path", "/");
            default(object, "scheme", "HTTP");
        }
        "GRPCAction" => default(object, "service", ""),
        // A volume without a source: all that it has is its name.
        "Volume" if object.keys().all(|key| key == "name") => default(object, "emptyDir", json!({})),
        "HostPathVolumeSource" => default(object, "type", ""),
        "SecretVolumeSource" | "ConfigMapVolumeSource" | "DownwardAPIVolumeSource" | "ProjectedVolumeSource" => {
            default(object, "defaultMode", 0o644);
        }
        "ServiceAccountTokenProjection" => default(object, "expirationSeconds", 3600),
        "PersistentVolumeClaimSpec" => default(object, "volumeMode", "Filesystem"),
        "ISCSIVolumeSource" => default(object, "iscsiInterface", "default"),
        "RBDVolumeSource" => {
            default(object, "pool", "rbd");
            default(object, "user", "admin");
            default(object, "keyring", "/etc/ceph/keyring");
        }
        "AzureDiskVolumeSource" => {
            default(object, "cachingMode", "ReadWrite");
            default(object, "fsType", "ext4");
            default(object, "readOnly", false);
            default(object, "kind", "Shared");
        }
        "ScaleIOVolumeSource" => {
            default(object, "storageMode", "ThinProvisioned");
            default(object, "fsType", "xfs");
        }
        _ => {}
    }
}

fn complete_metadata(metadata: &mut Map<String, Value>) {
    let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) else { return };
    for annotation in INIT_CONTAINER_ANNOTATIONS {
        annotations.remove(annotation);
    }
    if annotations.is_empty() {
        metadata.remove("annotations");
    }
}

fn complete_pod_spec(spec: &mut Map<String, Value>) {
    default(spec, "restartPolicy", "Always");
    default(spec, "dnsPolicy", "ClusterFirst");
    default(spec, "schedulerName", "default-scheduler");
    default(spec, "terminationGracePeriodSeconds", 30);
    default(spec, "securityContext", json!({}));
    // The older name is an alias that is always written, and yields where both are given.
    let account = match text(spec, "serviceAccountName") {
        "" => text(spec, "serviceAccount"),
        name => name,
    };
    if !account.is_empty() {
        let account = Value::from(account);
        spec.insert("serviceAccount".into(), account.clone());
        spec.insert("serviceAccountName".into(), account);
    }
}

fn default(object: &mut Map<String, Value>, field: &str, value: impl Into<Value>) {
    // The encoder leaves out what Go takes for empty (or writes null), so what is here was meant.
    if object.get(field).is_none_or(Value::is_null) {
        object.insert(field.to_owned(), value.into());
    }
}

fn text<'a>(object: &'a Map<String, Value>, field: &str) -> &'a str {
    object.get(field).and_then(Value::as_str).unwrap_or_default()
}
