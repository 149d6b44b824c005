//! What the API server refuses beyond what a schema says.

use serde_json::{Map, Value};

use super::super::names::{finalizer_name_errors, label_errors, qualified_name_error};
use super::super::resource::Resource;
use super::super::selector::LabelSelector;
use super::super::status::FieldError;

/// What is wrong with an object, given what it was.
pub(in crate::sandbox) fn validate(resource: &Resource, object: &Value, existing: Option<&Value>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    labels(&object["metadata"]["labels"], "metadata.labels", &mut errors);
    annotations(&object["metadata"]["annotations"], &mut errors);
    if !resource.custom {
        errors.extend(finalizer_name_errors(object));
    }
    owners(&object["metadata"]["ownerReferences"], &mut errors);
    if resource.custom {
        return errors;
    }
    match &*resource.key {
        "pods" => {
            pod_spec(&object["spec"], "spec", &mut errors);
            if let Some(existing) = existing {
                unchanged_pod(object, existing, &mut errors);
            }
        }
        "deployments.apps" | "replicasets.apps" | "statefulsets.apps" | "daemonsets.apps" => {
            not_negative(object, "/spec/replicas", "spec.replicas", &mut errors);
            selector(object, &mut errors);
            pod_spec(&object["spec"]["template"]["spec"], "spec.template.spec", &mut errors);
            immutable_selector(object, existing, &mut errors);
        }
        "jobs.batch" => {
            pod_spec(&object["spec"]["template"]["spec"], "spec.template.spec", &mut errors);
            job(object, existing, &mut errors);
        }
        "services" => service(object, existing, &mut errors),
        "configmaps" | "secrets" => frozen_data(object, existing, &mut errors),
        "horizontalpodautoscalers.autoscaling" => autoscaler(object, &mut errors),
        "leases.coordination.k8s.io" => {
            let seconds = &object["spec"]["leaseDurationSeconds"];
            if seconds.as_i64().is_some_and(|seconds| seconds < 1) {
                errors.push(FieldError::invalid("spec.leaseDurationSeconds", seconds, "must be greater than 0"));
            }
        }
        "customresourcedefinitions.apiextensions.k8s.io" => definition(object, &mut errors),
        "events" => {
            let of = &object["involvedObject"]["namespace"];
            if of.is_string() && *of != object["metadata"]["namespace"] {
                errors.push(FieldError::invalid("involvedObject.namespace", of, "does not match event.namespace"));
            }
        }
        _ => {}
    }
    errors
}

fn labels(labels: &Value, field: &str, errors: &mut Vec<FieldError>) {
    for (key, value) in labels.as_object().into_iter().flatten() {
        errors.extend(qualified_name_error(field, key));
        let Some(value) = value.as_str() else { continue };
        let edge = |c: char| c.is_ascii_alphanumeric();
        if value.len() > 63 {
            errors.push(FieldError::invalid(field, &value.into(), "must be no more than 63 bytes"));
        }
        let inner = value.chars().all(|c| edge(c) || "-_.".contains(c));
        let good = inner && value.starts_with(edge) && value.ends_with(edge);
        if !value.is_empty() && !good {
            let detail = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
            errors.push(FieldError::invalid(field, &value.into(), detail));
        }
    }
}

/// All annotations together have a limit; client-side apply meets it with large objects.
fn annotations(annotations: &Value, errors: &mut Vec<FieldError>) {
    const LIMIT: usize = 256 * 1024;
    for key in annotations.as_object().into_iter().flat_map(Map::keys) {
        errors.extend(qualified_name_error("metadata.annotations", key));
    }
    let all = annotations.as_object().into_iter().flatten();
    let size: usize = all.map(|(key, value)| key.len() + value.as_str().map_or(0, str::len)).sum();
    if size > LIMIT {
        errors.push(FieldError::too_long("metadata.annotations", LIMIT));
    }
}

fn owners(references: &Value, errors: &mut Vec<FieldError>) {
    let references = references.as_array().map_or(&[][..], Vec::as_slice);
    for reference in references {
        for field in ["apiVersion", "kind", "name", "uid"] {
            if reference[field].as_str().is_none_or(str::is_empty) {
                let path = format!("metadata.ownerReferences.{field}");
                errors.push(FieldError::invalid(path, &"".into(), "must not be empty"));
            }
        }
    }
    let controllers: Vec<&Value> = references.iter().filter(|it| it["controller"] == true).collect();
    if let [first, second, ..] = controllers.as_slice() {
        let named = |it: &Value| format!("{}/{}", it["kind"].as_str().unwrap_or(""), it["name"].as_str().unwrap_or(""));
        let detail = format!(
            "Only one reference can have Controller set to true. Found \"true\" in references for {} and {}",
            named(first),
            named(second)
        );
        errors.push(FieldError::invalid("metadata.ownerReferences", &Value::Array(references.to_vec()), &detail));
    }
}

fn pod_spec(spec: &Value, field: &str, errors: &mut Vec<FieldError>) {
    let containers = spec["containers"].as_array().map_or(&[][..], Vec::as_slice);
    if containers.is_empty() {
        errors.push(FieldError::required(format!("{field}.containers"), ""));
    }
    for (index, container) in containers.iter().enumerate() {
        for (part, detail) in [("name", ""), ("image", "")] {
            if container[part].as_str().is_none_or(str::is_empty) {
                errors.push(FieldError::required(format!("{field}.containers[{index}].{part}"), detail));
            }
        }
        let name = &container["name"];
        if let Some(text) = name.as_str().filter(|text| !text.is_empty()) {
            errors.extend(label_errors(&format!("{field}.containers[{index}].name"), text));
        }
        if containers[..index].iter().any(|other| other["name"] == *name && name.is_string()) {
            errors.push(FieldError::duplicate(format!("{field}.containers[{index}].name"), name));
        }
    }
}

fn unchanged_pod(object: &Value, existing: &Value, errors: &mut Vec<FieldError>) {
    let neutral = |object: &Value| {
        let mut spec = object["spec"].clone();
        for list in ["containers", "initContainers"] {
            if let Some(Value::Array(containers)) = spec.get_mut(list) {
                containers.iter_mut().for_each(|container| container["image"] = Value::Null);
            }
        }
        for field in ["activeDeadlineSeconds", "tolerations", "schedulingGates"] {
            spec.as_object_mut().and_then(|fields| fields.remove(field));
        }
        spec
    };
    if neutral(object) != neutral(existing) {
        let detail = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";
        errors.push(FieldError::forbidden("spec", detail));
    }
}

fn not_negative(object: &Value, pointer: &str, field: &str, errors: &mut Vec<FieldError>) {
    if let Some(number) = object.pointer(pointer).and_then(Value::as_i64).filter(|number| *number < 0) {
        errors.push(FieldError::invalid(field, &number.into(), "must be greater than or equal to 0"));
    }
}

fn selector(object: &Value, errors: &mut Vec<FieldError>) {
    let given = &object["spec"]["selector"];
    if given.is_null() {
        errors.push(FieldError::required("spec.selector", ""));
    }
    let template = &object["spec"]["template"]["metadata"]["labels"];
    let empty = given.as_object().is_some_and(Map::is_empty);
    if empty {
        let detail = "empty selector is invalid for deployment";
        errors.push(FieldError::invalid("spec.selector", given, detail));
    } else if !LabelSelector::of(given).is_some_and(|selector| selector.matches_labels(template)) {
        let detail = "`selector` does not match template `labels`";
        errors.push(FieldError::invalid("spec.template.metadata.labels", template, detail));
    }
    labels(template, "spec.template.labels", errors);
}

fn immutable_selector(object: &Value, existing: Option<&Value>, errors: &mut Vec<FieldError>) {
    let selector = &object["spec"]["selector"];
    if existing.is_some_and(|existing| existing["spec"]["selector"] != *selector) {
        errors.push(FieldError::invalid("spec.selector", selector, "field is immutable"));
    }
}

fn job(object: &Value, existing: Option<&Value>, errors: &mut Vec<FieldError>) {
    let policy = &object["spec"]["template"]["spec"]["restartPolicy"];
    if policy == "Always" {
        // What a template without a policy defaults to.
        let detail = "valid values: \"OnFailure\", \"Never\"";
        errors.push(FieldError::required("spec.template.spec.restartPolicy", detail));
    } else if !matches!(policy.as_str(), Some("OnFailure" | "Never")) {
        let supported = ["OnFailure".to_owned(), "Never".to_owned()];
        errors.push(FieldError::not_supported("spec.template.spec.restartPolicy", policy, &supported));
    }
    let Some(existing) = existing else { return };
    for field in ["selector", "template", "completionMode"] {
        let value = &object["spec"][field];
        if existing["spec"][field] != *value {
            errors.push(FieldError::invalid(format!("spec.{field}"), value, "field is immutable"));
        }
    }
}

fn service(object: &Value, existing: Option<&Value>, errors: &mut Vec<FieldError>) {
    let spec = &object["spec"];
    let ports = spec["ports"].as_array().map_or(&[][..], Vec::as_slice);
    let headless = spec["clusterIP"] == "None" || spec["type"] == "ExternalName";
    if ports.is_empty() && !headless {
        errors.push(FieldError::required("spec.ports", ""));
    }
    for (index, port) in ports.iter().enumerate() {
        let number = port["port"].as_i64().unwrap_or(0);
        if !(1..=65535).contains(&number) {
            let detail = "must be between 1 and 65535, inclusive";
            errors.push(FieldError::invalid(format!("spec.ports[{index}].port"), &number.into(), detail));
        }
        if port["targetPort"].as_i64().is_some_and(|target| !(1..=65535).contains(&target)) {
            let detail = "must be between 1 and 65535, inclusive";
            errors.push(FieldError::invalid(format!("spec.ports[{index}].targetPort"), &port["targetPort"], detail));
        }
        if ports[..index].iter().any(|other| port["name"].is_string() && other["name"] == port["name"]) {
            errors.push(FieldError::duplicate(format!("spec.ports[{index}].name"), &port["name"]));
        }
        if ports.len() > 1 && port["name"].as_str().is_none_or(str::is_empty) {
            errors.push(FieldError::required(format!("spec.ports[{index}].name"), ""));
        }
    }
    if let Some(existing) = existing
        && existing["spec"]["clusterIP"].is_string()
        && spec["type"] != "ExternalName"
        && existing["spec"]["clusterIP"] != spec["clusterIP"]
    {
        let wanted = Value::Array(vec![spec["clusterIP"].clone()]);
        errors.push(FieldError::invalid("spec.clusterIPs[0]", &wanted, "may not change once set"));
    }
}

fn frozen_data(object: &Value, existing: Option<&Value>, errors: &mut Vec<FieldError>) {
    let Some(existing) = existing else { return };
    if object["type"] != existing["type"] {
        errors.push(FieldError::invalid("type", &object["type"], "field is immutable"));
    }
    if existing["immutable"] == true {
        let detail = "field is immutable when `immutable` is set";
        for field in ["immutable", "data", "binaryData"] {
            if object[field] != existing[field] {
                errors.push(FieldError::forbidden(field, detail));
            }
        }
    }
}

fn autoscaler(object: &Value, errors: &mut Vec<FieldError>) {
    let spec = &object["spec"];
    let (least, most) = (spec["minReplicas"].as_i64().unwrap_or(1), spec["maxReplicas"].as_i64().unwrap_or(0));
    if most < 1 {
        errors.push(FieldError::invalid("spec.maxReplicas", &most.into(), "must be greater than 0"));
    } else if most < least {
        let detail = "must be greater than or equal to `minReplicas`";
        errors.push(FieldError::invalid("spec.maxReplicas", &most.into(), detail));
    }
}

fn definition(object: &Value, errors: &mut Vec<FieldError>) {
    let (spec, name) = (&object["spec"], &object["metadata"]["name"]);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    if text(name) != format!("{}.{}", text(&spec["names"]["plural"]), text(&spec["group"])) {
        errors.push(FieldError::invalid("metadata.name", name, "must be spec.names.plural+\".\"+spec.group"));
    }
    for (index, version) in spec["versions"].as_array().into_iter().flatten().enumerate() {
        if !version["schema"]["openAPIV3Schema"].is_object() {
            errors.push(FieldError::required(format!("spec.versions[{index}].schema.openAPIV3Schema"), ""));
        }
    }
}
