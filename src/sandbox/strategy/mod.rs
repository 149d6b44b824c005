//! What a kind's own rules do to an object on its way into the store: initial status, generation, what may not change.

mod defaults;
mod rules;

use serde_json::{Map, Value, json};

use super::resource::{Resource, Version};
use super::state::State;
use super::write::{Target, WriteOptions};

pub(super) use rules::validate;

/// Fills in what the kind's rules set on creation.
pub(super) fn prepare_create(target: &Target, object: &mut Value, options: &WriteOptions) {
    let resource = &target.resource;
    let keeps_status = matches!(&*resource.key, "nodes" | "namespaces");
    if target.version().is_some_and(|version| version.status)
        && !keeps_status
        && let Value::Object(fields) = object
    {
        fields.remove("status");
    }
    if resource.custom {
        return;
    }
    defaults::set(&resource.key, object);
    match &*resource.key {
        "pods" => {
            set_absent(&mut object["spec"], "enableServiceLinks", true.into());
            object["status"] = json!({"phase": "Pending", "qosClass": quality(&object["spec"])});
            if is_gated(object) {
                let message = "Scheduling is blocked due to non-empty scheduling gates";
                let gated = json!({"type": "PodScheduled", "status": "False", "reason": "SchedulingGated", "message": message,
                    "lastProbeTime": null, "lastTransitionTime": options.timestamp()});
                object["status"]["conditions"] = json!([gated]);
            }
        }
        "namespaces" => {
            object["status"] = json!({"phase": "Active"});
            let name = object["metadata"]["name"].clone();
            object["metadata"]["labels"]["kubernetes.io/metadata.name"] = name;
        }
        "replicasets.apps" | "replicationcontrollers" => object["status"] = json!({"replicas": 0}),
        "statefulsets.apps" => object["status"] = json!({"replicas": 0, "availableReplicas": 0}),
        "services" | "ingresses.networking.k8s.io" => object["status"] = json!({"loadBalancer": {}}),
        "deployments.apps" | "jobs.batch" | "cronjobs.batch" => object["status"] = json!({}),
        "horizontalpodautoscalers.autoscaling" => {
            object["status"] = json!({"currentMetrics": null, "desiredReplicas": 0})
        }
        "daemonsets.apps" => {
            object["status"] = json!({"currentNumberScheduled": 0, "desiredNumberScheduled": 0, "numberMisscheduled": 0, "numberReady": 0});
        }
        "poddisruptionbudgets.policy" => {
            object["status"] =
                json!({"currentHealthy": 0, "desiredHealthy": 0, "disruptionsAllowed": 0, "expectedPods": 0});
        }
        _ => {}
    }
    match &*resource.key {
        "daemonsets.apps" => object["metadata"]["annotations"]["deprecated.daemonset.template.generation"] = "1".into(),
        "secrets" => encode_strings(object),
        _ => {}
    }
}

/// Sets what the server sets by itself, after what the client set has found its owner.
pub(super) fn allocate(state: &mut State, resource: &Resource, object: &mut Value) {
    match &*resource.key {
        "services" => allocate_addresses(state, object),
        "pods" => admit_pod(&mut object["spec"]),
        "namespaces" => object["spec"]["finalizers"] = json!(["kubernetes"]),
        "jobs.batch" => select_own_pods(object),
        _ => {}
    }
}

/// Whether something keeps a pod from being scheduled.
pub(super) fn is_gated(pod: &Value) -> bool {
    pod["spec"]["schedulingGates"].as_array().is_some_and(|gates| !gates.is_empty())
}

/// What the server's admission adds to every pod.
fn admit_pod(spec: &mut Value) {
    set_absent(spec, "preemptionPolicy", "PreemptLowerPriority".into());
    set_absent(spec, "priority", 0.into());
    if spec["tolerations"].is_null() {
        let tolerated =
            |key: &str| json!({"effect": "NoExecute", "key": key, "operator": "Exists", "tolerationSeconds": 300});
        let keys = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];
        spec["tolerations"] = keys.map(tolerated).into_iter().collect();
    }
}

/// Keeps what the kind's rules keep on an update.
pub(super) fn prepare_update(target: &Target, object: &mut Value, existing: &Value) {
    // What is there has all defaults.
    if target.resource.custom || !differs(object, existing, &["metadata", "status"]) {
        return;
    }
    defaults::set(&target.resource.key, object);
    match &*target.resource.key {
        "services" => {
            // An update that does not name the allocated values keeps them.
            for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
                if object["spec"][field].is_null() && !existing["spec"][field].is_null() {
                    object["spec"][field] = existing["spec"][field].clone();
                }
            }
        }
        "secrets" => encode_strings(object),
        _ => {}
    }
}

/// Whether an update counts as a new generation.
pub(super) fn bumps_generation(
    resource: &Resource,
    version: Option<&Version>,
    object: &Value,
    existing: &Value,
) -> bool {
    if !resource.traits.generation {
        return false;
    }
    let annotations = |object: &Value| object["metadata"]["annotations"].clone();
    if &*resource.key == "deployments.apps" && annotations(object) != annotations(existing) {
        return true;
    }
    let status_apart = version.is_some_and(|version| version.status);
    differs(object, existing, if status_apart { &["metadata", "status"] } else { &["metadata"] })
}

/// Whether two objects differ in anything but some of their fields.
fn differs(object: &Value, existing: &Value, but: &[&str]) -> bool {
    let (Value::Object(new), Value::Object(old)) = (object, existing) else { return false };
    let differs = |key: &String| !but.contains(&key.as_str()) && new.get(key) != old.get(key);
    new.keys().any(differs) || old.keys().any(differs)
}

fn set_absent(object: &mut Value, field: &str, value: Value) {
    if object[field].is_null() {
        object[field] = value;
    }
}

/// A pod's quality of service class.
fn quality(spec: &Value) -> &'static str {
    let resources = || spec["containers"].as_array().into_iter().flatten().map(|container| &container["resources"]);
    let none = |value: &Value| value.as_object().is_none_or(Map::is_empty);
    if resources().all(|it| none(&it["requests"]) && none(&it["limits"])) {
        return "BestEffort";
    }
    let same = |it: &Value| {
        ["cpu", "memory"].iter().all(|name| {
            !it["limits"][name].is_null()
                && (it["requests"][name].is_null() || it["requests"][name] == it["limits"][name])
        })
    };
    if resources().all(same) { "Guaranteed" } else { "Burstable" }
}

fn allocate_addresses(state: &mut State, object: &mut Value) {
    let spec = &mut object["spec"];
    let kind = spec["type"].as_str().unwrap_or_default().to_owned();
    if kind == "ExternalName" {
        return;
    }
    if spec["clusterIP"].is_null() {
        spec["clusterIP"] = state.next_address().into();
    }
    spec["clusterIPs"] = json!([spec["clusterIP"]]);
    set_absent(spec, "ipFamilies", json!(["IPv4"]));
    set_absent(spec, "ipFamilyPolicy", "SingleStack".into());
    if matches!(kind.as_str(), "NodePort" | "LoadBalancer") {
        for port in defaults::items(spec, "ports") {
            if port["nodePort"].is_null() {
                port["nodePort"] = state.next_node_port().into();
            }
        }
    }
}

/// A Job finds its pods by its own uid.
fn select_own_pods(object: &mut Value) {
    if object["spec"]["manualSelector"] == true {
        return;
    }
    let (uid, name) = (object["metadata"]["uid"].clone(), object["metadata"]["name"].clone());
    set_absent(&mut object["spec"], "selector", json!({"matchLabels": {"batch.kubernetes.io/controller-uid": uid}}));
    let labels = &mut object["spec"]["template"]["metadata"]["labels"];
    for (label, value) in [
        ("batch.kubernetes.io/controller-uid", &uid),
        ("batch.kubernetes.io/job-name", &name),
        ("controller-uid", &uid),
        ("job-name", &name),
    ] {
        labels[label] = value.clone();
    }
    let labels = labels.clone();
    set_absent(&mut object["metadata"], "labels", labels);
}

/// A Secret's `stringData` becomes `data`.
fn encode_strings(object: &mut Value) {
    let Some(Value::Object(strings)) = object.as_object_mut().and_then(|fields| fields.remove("stringData")) else {
        return;
    };
    for (key, value) in strings {
        let bytes = k8s_openapi::ByteString(value.as_str().unwrap_or_default().as_bytes().to_vec());
        // Bytes always serialize: they become a string in base64.
        object["data"][key.as_str()] = serde_json::to_value(bytes).unwrap_or_default();
    }
}
