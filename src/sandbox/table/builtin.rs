//! The columns of the common built-in kinds.

use jiff::Timestamp;
use serde_json::Value;

use super::super::resource::Column;
use super::super::selector::LabelSelector;
use super::{age, column, duration};

/// The columns after the name; none for kinds that show their age only.
pub(super) fn columns(key: &str) -> Vec<Column> {
    let rows = ROWS.iter().find(|(of, _)| *of == key).map_or(&[][..], |(_, rows)| *rows);
    rows.iter().map(|(name, kind, path, priority)| column(name, kind, "", path, *priority)).collect()
}

type Row = (&'static str, &'static str, &'static str, i64);

const AGE: Row = ("Age", "date", ".metadata.creationTimestamp", 0);
const CONTAINERS: Row = ("Containers", "string", ".spec.template.spec.containers[*].name", 1);
const IMAGES: Row = ("Images", "string", ".spec.template.spec.containers[*].image", 1);
const SELECTOR: Row = ("Selector", "string", "=selector", 1);

/// Paths, or the names of [`cell`]s after an equals sign.
const ROWS: &[(&str, &[Row])] = &[
    (
        "pods",
        &[
            ("Ready", "string", "=pod-ready", 0),
            ("Status", "string", "=pod-status", 0),
            ("Restarts", "string", "=pod-restarts", 0),
            AGE,
            ("IP", "string", ".status.podIP", 1),
            ("Node", "string", ".spec.nodeName", 1),
        ],
    ),
    (
        "deployments.apps",
        &[
            ("Ready", "string", "=ready-of-wanted", 0),
            ("Up-to-date", "integer", "=updated", 0),
            ("Available", "integer", "=available", 0),
            AGE,
            CONTAINERS,
            IMAGES,
            SELECTOR,
        ],
    ),
    (
        "replicasets.apps",
        &[
            ("Desired", "integer", ".spec.replicas", 0),
            ("Current", "integer", ".status.replicas", 0),
            ("Ready", "integer", "=ready", 0),
            AGE,
            CONTAINERS,
            IMAGES,
            SELECTOR,
        ],
    ),
    ("statefulsets.apps", &[("Ready", "string", "=ready-of-wanted", 0), AGE, CONTAINERS, IMAGES]),
    (
        "jobs.batch",
        &[
            ("Status", "string", "=job-status", 0),
            ("Completions", "string", "=job-completions", 0),
            ("Duration", "string", "=job-duration", 0),
            AGE,
        ],
    ),
    (
        "services",
        &[
            ("Type", "string", ".spec.type", 0),
            ("Cluster-IP", "string", "=cluster-ip", 0),
            ("External-IP", "string", "=external-ip", 0),
            ("Port(s)", "string", "=ports", 0),
            AGE,
            SELECTOR,
        ],
    ),
    ("configmaps", &[("Data", "integer", "=data", 0), AGE]),
    ("secrets", &[("Type", "string", ".type", 0), ("Data", "integer", "=data", 0), AGE]),
    ("namespaces", &[("Status", "string", ".status.phase", 0), AGE]),
    (
        "events",
        &[
            ("Last Seen", "string", "=last-seen", 0),
            ("Type", "string", ".type", 0),
            ("Reason", "string", ".reason", 0),
            ("Object", "string", "=event-object", 0),
            ("Message", "string", ".message", 0),
        ],
    ),
    (
        "ingresses.networking.k8s.io",
        &[
            ("Class", "string", "=ingress-class", 0),
            ("Hosts", "string", "=hosts", 0),
            ("Address", "string", ".status.loadBalancer.ingress[*].ip", 0),
            ("Ports", "string", "=ingress-ports", 0),
            AGE,
        ],
    ),
    ("endpoints", &[("Endpoints", "string", "=endpoints", 0), AGE]),
    (
        "endpointslices.discovery.k8s.io",
        &[
            ("AddressType", "string", ".addressType", 0),
            ("Ports", "string", ".ports[*].port", 0),
            ("Endpoints", "string", ".endpoints[*].addresses[*]", 0),
            AGE,
        ],
    ),
    ("leases.coordination.k8s.io", &[("Holder", "string", ".spec.holderIdentity", 0), AGE]),
    (
        "poddisruptionbudgets.policy",
        &[
            ("Min Available", "string", "=min-available", 0),
            ("Max Unavailable", "string", "=max-unavailable", 0),
            ("Allowed Disruptions", "integer", ".status.disruptionsAllowed", 0),
            AGE,
        ],
    ),
    (
        "horizontalpodautoscalers.autoscaling",
        &[
            ("Reference", "string", "=scale-target", 0),
            ("MinPods", "string", ".spec.minReplicas", 0),
            ("MaxPods", "integer", ".spec.maxReplicas", 0),
            ("Replicas", "integer", ".status.currentReplicas", 0),
            AGE,
        ],
    ),
    ("customresourcedefinitions.apiextensions.k8s.io", &[("Created At", "string", ".metadata.creationTimestamp", 0)]),
    (
        "nodes",
        &[
            ("Status", "string", "=node-status", 0),
            ("Roles", "string", "=none", 0),
            AGE,
            ("Version", "string", ".status.nodeInfo.kubeletVersion", 0),
        ],
    ),
];

/// A cell that no path gives.
pub(super) fn cell(name: &str, object: &Value, now: Timestamp) -> Value {
    let number = |pointer: &str| object.pointer(pointer).and_then(Value::as_i64).unwrap_or(0);
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    let or_none = |text: String| if text.is_empty() { "<none>".to_owned() } else { text };
    let list = |pointer: &str| object.pointer(pointer).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let shown = |pointer: &str, absent: &str| match object.pointer(pointer) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Null) | None => absent.to_owned(),
        Some(other) => other.to_string(),
    };
    match name {
        "pod-ready" => {
            let ready = list("/status/containerStatuses").iter().filter(|it| it["ready"] == true).count();
            format!("{ready}/{}", list("/spec/containers").len()).into()
        }
        "pod-status" => pod_status(object).into(),
        "pod-restarts" => {
            let restarts = list("/status/containerStatuses").iter().filter_map(|it| it["restartCount"].as_i64());
            restarts.sum::<i64>().to_string().into()
        }
        "ready-of-wanted" => format!("{}/{}", number("/status/readyReplicas"), number("/spec/replicas")).into(),
        "ready" => number("/status/readyReplicas").into(),
        "updated" => number("/status/updatedReplicas").into(),
        "available" => number("/status/availableReplicas").into(),
        "selector" => {
            let selector = &object["spec"]["selector"];
            or_none(LabelSelector::of(selector).map(|it| it.to_query()).unwrap_or_default()).into()
        }
        "job-status" => job_status(object).into(),
        "job-completions" => {
            let wanted = object.pointer("/spec/completions").and_then(Value::as_i64).unwrap_or(1);
            format!("{}/{wanted}", number("/status/succeeded")).into()
        }
        "job-duration" => {
            let Ok(start) = text("/status/startTime").parse::<Timestamp>() else { return "".into() };
            let end = text("/status/completionTime").parse::<Timestamp>().unwrap_or(now);
            duration(end.as_second() - start.as_second()).into()
        }
        "cluster-ip" => or_none(text("/spec/clusterIP")).into(),
        "external-ip" => or_none(text("/spec/externalName")).into(),
        "ports" => {
            let port = |port: &Value| {
                let (number, protocol) = (&port["port"], port["protocol"].as_str().unwrap_or("TCP"));
                match port["nodePort"].as_i64() {
                    Some(node) => format!("{number}:{node}/{protocol}"),
                    None => format!("{number}/{protocol}"),
                }
            };
            or_none(list("/spec/ports").iter().map(port).collect::<Vec<_>>().join(",")).into()
        }
        "data" => {
            let size = |field: &str| object[field].as_object().map_or(0, serde_json::Map::len);
            (size("data") + size("binaryData")).into()
        }
        "last-seen" => {
            let times = ["/series/lastObservedTime", "/lastTimestamp", "/eventTime", "/metadata/creationTimestamp"];
            times
                .iter()
                .map(|at| text(at))
                .find(|time| !time.is_empty())
                .map_or("<unknown>".into(), |at| age(&at, now))
                .into()
        }
        "event-object" => {
            format!("{}/{}", text("/involvedObject/kind").to_lowercase(), text("/involvedObject/name")).into()
        }
        "ingress-class" => or_none(text("/spec/ingressClassName")).into(),
        "hosts" => {
            let hosts: Vec<&str> = list("/spec/rules").iter().filter_map(|rule| rule["host"].as_str()).collect();
            if hosts.is_empty() { "*".into() } else { hosts.join(",").into() }
        }
        "ingress-ports" => if list("/spec/tls").is_empty() { "80" } else { "80, 443" }.into(),
        "endpoints" => or_none(endpoints(object)).into(),
        "min-available" => shown("/spec/minAvailable", "N/A").into(),
        "max-unavailable" => shown("/spec/maxUnavailable", "N/A").into(),
        "scale-target" => format!("{}/{}", text("/spec/scaleTargetRef/kind"), text("/spec/scaleTargetRef/name")).into(),
        "node-status" => {
            let ready = list("/status/conditions").iter().any(|it| it["type"] == "Ready" && it["status"] == "True");
            if ready { "Ready" } else { "NotReady" }.into()
        }
        _ => "<none>".into(),
    }
}

fn pod_status(pod: &Value) -> String {
    if !pod["metadata"]["deletionTimestamp"].is_null() {
        return "Terminating".into();
    }
    let statuses = pod["status"]["containerStatuses"].as_array().into_iter().flatten();
    let reason = |status: &Value| {
        let state = &status["state"];
        let reason = state["waiting"]["reason"].as_str().or_else(|| state["terminated"]["reason"].as_str());
        reason.map(str::to_owned)
    };
    let mut reasons = statuses.filter_map(reason);
    let phase = pod["status"]["reason"].as_str().or_else(|| pod["status"]["phase"].as_str()).unwrap_or_default();
    reasons.next().unwrap_or_else(|| phase.to_owned())
}

fn job_status(job: &Value) -> &'static str {
    let holds = |kind: &str| {
        let conditions = job["status"]["conditions"].as_array();
        conditions.into_iter().flatten().any(|it| it["type"] == kind && it["status"] == "True")
    };
    if holds("Complete") {
        "Complete"
    } else if holds("Failed") {
        "Failed"
    } else if !job["metadata"]["deletionTimestamp"].is_null() {
        "Terminating"
    } else if holds("Suspended") {
        "Suspended"
    } else {
        "Running"
    }
}

fn endpoints(object: &Value) -> String {
    let mut shown = Vec::new();
    for subset in object["subsets"].as_array().into_iter().flatten() {
        for address in subset["addresses"].as_array().into_iter().flatten() {
            for port in subset["ports"].as_array().into_iter().flatten() {
                shown.push(format!("{}:{}", address["ip"].as_str().unwrap_or_default(), port["port"]));
            }
        }
    }
    shown.join(",")
}
