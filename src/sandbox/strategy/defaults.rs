//! The defaults that users of the API notice.

use serde_json::{Value, json};

use super::set_absent;

/// Sets the defaults of a built-in kind.
pub(super) fn set(key: &str, object: &mut Value) {
    match key {
        "pods" => pod_spec(&mut object["spec"]),
        "podtemplates" => pod_spec(&mut object["template"]["spec"]),
        "deployments.apps" => {
            let spec = &mut object["spec"];
            set_all(spec, json!({"replicas": 1, "revisionHistoryLimit": 10, "progressDeadlineSeconds": 600}));
            set_absent(&mut spec["strategy"], "type", "RollingUpdate".into());
            if spec["strategy"]["type"] == "RollingUpdate" {
                set_all(&mut spec["strategy"]["rollingUpdate"], json!({"maxSurge": "25%", "maxUnavailable": "25%"}));
            }
            pod_spec(&mut spec["template"]["spec"]);
        }
        "replicasets.apps" | "replicationcontrollers" => {
            set_absent(&mut object["spec"], "replicas", 1.into());
            if !object["spec"]["template"].is_null() {
                pod_spec(&mut object["spec"]["template"]["spec"]);
            }
        }
        "statefulsets.apps" => {
            let spec = &mut object["spec"];
            let retain = json!({"whenDeleted": "Retain", "whenScaled": "Retain"});
            set_all(spec, json!({"replicas": 1, "revisionHistoryLimit": 10, "podManagementPolicy": "OrderedReady"}));
            set_absent(spec, "persistentVolumeClaimRetentionPolicy", retain);
            set_absent(&mut spec["updateStrategy"], "type", "RollingUpdate".into());
            if spec["updateStrategy"]["type"] == "RollingUpdate" {
                set_absent(&mut spec["updateStrategy"]["rollingUpdate"], "partition", 0.into());
            }
            pod_spec(&mut spec["template"]["spec"]);
        }
        "daemonsets.apps" => {
            let spec = &mut object["spec"];
            set_absent(spec, "revisionHistoryLimit", 10.into());
            set_absent(&mut spec["updateStrategy"], "type", "RollingUpdate".into());
            if spec["updateStrategy"]["type"] == "RollingUpdate" {
                set_all(&mut spec["updateStrategy"]["rollingUpdate"], json!({"maxSurge": 0, "maxUnavailable": 1}));
            }
            pod_spec(&mut spec["template"]["spec"]);
        }
        "jobs.batch" => job_spec(&mut object["spec"]),
        "cronjobs.batch" => {
            let spec = &mut object["spec"];
            set_all(
                spec,
                json!({"concurrencyPolicy": "Allow", "suspend": false, "successfulJobsHistoryLimit": 3, "failedJobsHistoryLimit": 1}),
            );
            // The Job gets a Job's defaults when it is made.
            set_absent(&mut spec["jobTemplate"], "metadata", json!({}));
            set_absent(&mut spec["jobTemplate"]["spec"]["template"], "metadata", json!({}));
            pod_spec(&mut spec["jobTemplate"]["spec"]["template"]["spec"]);
        }
        "services" => service_spec(&mut object["spec"]),
        "secrets" => set_absent(object, "type", "Opaque".into()),
        "horizontalpodautoscalers.autoscaling" => {
            let spec = &mut object["spec"];
            set_absent(spec, "minReplicas", 1.into());
            let cpu = json!({"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}});
            set_absent(spec, "metrics", json!([{"type": "Resource", "resource": cpu}]));
        }
        "events" => {
            set_all(object, json!({"reportingComponent": "", "reportingInstance": "", "eventTime": null}));
        }
        "endpointslices.discovery.k8s.io" => {
            // A typed server writes what is empty as null.
            set_all(object, json!({"endpoints": null, "ports": null}));
            for endpoint in items(object, "endpoints") {
                set_absent(endpoint, "conditions", json!({}));
            }
            for port in items(object, "ports") {
                set_all(port, json!({"name": "", "protocol": "TCP"}));
            }
        }
        "endpoints" => {
            for subset in items(object, "subsets") {
                for port in items(subset, "ports") {
                    set_absent(port, "protocol", "TCP".into());
                }
            }
        }
        _ => {}
    }
}

/// The items of a list, none if there is no such list.
pub(super) fn items<'a>(object: &'a mut Value, field: &str) -> impl Iterator<Item = &'a mut Value> {
    object.get_mut(field).and_then(Value::as_array_mut).into_iter().flatten()
}

fn set_all(object: &mut Value, defaults: Value) {
    if let Value::Object(defaults) = defaults {
        for (field, value) in defaults {
            set_absent(object, &field, value);
        }
    }
}

fn job_spec(spec: &mut Value) {
    if spec["completions"].is_null() && spec["parallelism"].is_null() {
        spec["completions"] = 1.into();
    }
    set_all(
        spec,
        json!({"parallelism": 1, "backoffLimit": 6, "completionMode": "NonIndexed", "suspend": false, "manualSelector": false}),
    );
    let replacement = if spec["podFailurePolicy"].is_null() { "TerminatingOrFailed" } else { "Failed" };
    set_absent(spec, "podReplacementPolicy", replacement.into());
    pod_spec(&mut spec["template"]["spec"]);
}

fn service_spec(spec: &mut Value) {
    set_all(spec, json!({"type": "ClusterIP", "sessionAffinity": "None"}));
    if matches!(spec["type"].as_str(), Some("NodePort" | "LoadBalancer")) {
        set_absent(spec, "externalTrafficPolicy", "Cluster".into());
    }
    if spec["type"] != "ExternalName" {
        set_absent(spec, "internalTrafficPolicy", "Cluster".into());
    }
    for port in items(spec, "ports") {
        set_absent(port, "protocol", "TCP".into());
        let same = port["port"].clone();
        set_absent(port, "targetPort", same);
    }
}

fn pod_spec(spec: &mut Value) {
    if !spec.is_object() {
        return;
    }
    set_all(
        spec,
        json!({"restartPolicy": "Always", "terminationGracePeriodSeconds": 30, "dnsPolicy": "ClusterFirst",
            "securityContext": {}, "schedulerName": "default-scheduler"}),
    );
    for list in ["containers", "initContainers"] {
        items(spec, list).for_each(container);
    }
    for volume in items(spec, "volumes") {
        for source in ["configMap", "secret", "projected", "downwardAPI"] {
            if let Some(source) = volume.get_mut(source) {
                set_absent(source, "defaultMode", 0o644.into());
            }
        }
        if volume.as_object().is_some_and(|fields| fields.len() == 1) {
            volume["emptyDir"] = json!({});
        }
    }
}

fn container(container: &mut Value) {
    set_all(
        container,
        json!({"terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File", "resources": {}}),
    );
    let image = container["image"].as_str().unwrap_or_default();
    let tag = image.rsplit('/').next().and_then(|last| last.split_once(':')).map_or("latest", |(_, tag)| tag);
    let pull = if tag == "latest" && !image.contains('@') { "Always" } else { "IfNotPresent" };
    set_absent(container, "imagePullPolicy", pull.into());
    for port in items(container, "ports") {
        set_absent(port, "protocol", "TCP".into());
    }
    for variable in items(container, "env") {
        if let Some(reference) = variable.pointer_mut("/valueFrom/fieldRef") {
            set_absent(reference, "apiVersion", "v1".into());
        }
    }
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = container.get_mut(probe) {
            set_all(
                probe,
                json!({"timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3}),
            );
            if let Some(get) = probe.get_mut("httpGet") {
                set_all(get, json!({"path": "/", "scheme": "HTTP"}));
            }
        }
    }
}
