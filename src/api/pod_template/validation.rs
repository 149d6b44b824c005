//! What the API server would refuse in a pod template of a ReplicaSet, as far as users get it wrong.
//!
//! The rules and texts are those of Kubernetes (checked against its own code, `e2e/oracle/podtemplate`). Not checked are
//! the rarer parts: affinity, tolerations, security contexts, DNS settings, and most volume sources.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use serde_json::Value;

use super::defaults::defaulted;
use super::go_json::{Kind, TYPES};
use super::names;
use super::quantity::Quantity;
use super::resources;
use crate::api::field_error::{FieldError, FieldPath};

const NOT_NEGATIVE: &str = "must be greater than or equal to 0";
const ANNOTATION_BYTES: usize = 256 * 1024;
/// Every handler that a probe or a lifecycle event may have, in the order in which a second one is noticed.
const HANDLERS: [&str; 5] = ["exec", "httpGet", "tcpSocket", "grpc", "sleep"];
/// What a volume source cannot do without.
const VOLUME_SOURCES: [(&str, &str); 4] =
    [("hostPath", "path"), ("secret", "secretName"), ("persistentVolumeClaim", "claimName"), ("configMap", "name")];
const PROBES: [&str; 3] = ["livenessProbe", "readinessProbe", "startupProbe"];
const EVENTS: [&str; 2] = ["postStart", "preStop"];

pub(super) fn validate(template: &Value) -> Vec<FieldError> {
    let mut checker = Checker::default();
    checker.types(TYPES.pod_template(), template, &FieldPath::default());
    let undecodable: BTreeSet<String> = checker.errors.iter().map(|error| error.path.clone()).collect();
    let mut errors = std::mem::take(&mut checker.errors);
    checker.template(&defaulted(template));
    // What cannot be decoded now looks as if it were missing: once is enough.
    errors.extend(checker.errors.into_iter().filter(|error| !undecodable.contains(&error.path)));
    errors
}

/// The fields that Kubernetes 1.34 does not know, which the API server drops in silence.
pub(super) fn unknown_fields(template: &Value) -> Vec<String> {
    let mut unknown = Vec::new();
    find_unknown(TYPES.pod_template(), template, &FieldPath::default(), &mut unknown);
    unknown
}

fn find_unknown(kind: &Kind, value: &Value, path: &FieldPath, unknown: &mut Vec<String>) {
    match (kind, value) {
        (Kind::Pointer(inner), value) => find_unknown(inner, value, path, unknown),
        (Kind::List(inner), Value::Array(list)) => {
            for (index, element) in list.iter().enumerate() {
                find_unknown(inner, element, &path.index(index), unknown);
            }
        }
        (Kind::Struct(index), Value::Object(object)) => {
            for (name, value) in object {
                match TYPES.get(*index).fields.iter().find(|field| field.name == name) {
                    Some(field) => find_unknown(&field.kind, value, &path.child(name), unknown),
                    None => unknown.push(path.child(name).to_string()),
                }
            }
        }
        _ => {}
    }
}

#[derive(Default)]
struct Checker {
    errors: Vec<FieldError>,
}

impl Checker {
    /// What cannot be decoded: a number for an image, `500MB` for a quantity.
    fn types(&mut self, kind: &Kind, value: &Value, path: &FieldPath) {
        match (kind, value) {
            (_, Value::Null) => {}
            (Kind::Pointer(inner), value) => self.types(inner, value, path),
            (Kind::List(inner), Value::Array(list)) => {
                for (index, element) in list.iter().enumerate() {
                    self.types(inner, element, &path.index(index));
                }
            }
            (Kind::Map(inner), Value::Object(map)) => {
                for (key, element) in map {
                    self.types(inner, element, &path.key(key));
                }
            }
            (Kind::Struct(index), Value::Object(object)) => {
                for field in &TYPES.get(*index).fields {
                    if let Some(value) = object.get(field.name) {
                        self.types(&field.kind, value, &path.child(field.name));
                    }
                }
            }
            (kind, value) => {
                if let Some(wrong) = kind.refusal(value) {
                    self.invalid(path, value.clone(), [wrong]);
                }
            }
        }
    }

    fn template(&mut self, template: &Value) {
        // Kubernetes says `labels`, not `metadata.labels`.
        let metadata = &template["metadata"];
        self.labels(&metadata["labels"], &FieldPath::new("labels"));
        let mut bytes = 0;
        for (key, value) in entries(&metadata["annotations"]) {
            bytes += key.len() + text(value).len();
            self.invalid(&FieldPath::new("annotations"), key.as_str(), names::qualified_name(&key.to_lowercase()));
        }
        if bytes > ANNOTATION_BYTES {
            self.errors.push(FieldError::too_long("annotations", ANNOTATION_BYTES));
        }
        self.pod_spec(&template["spec"], &FieldPath::new("spec"));
    }

    fn pod_spec(&mut self, spec: &Value, path: &FieldPath) {
        let volumes = self.volumes(list(&spec["volumes"]), &path.child("volumes"));
        self.containers(spec, &volumes, &path.child("containers"));
        self.init_containers(spec, &volumes, &path.child("initContainers"));
        self.supported(
            &spec["dnsPolicy"],
            &path.child("dnsPolicy"),
            &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"],
        );
        self.labels(&spec["nodeSelector"], &path.child("nodeSelector"));
        let account = text(&spec["serviceAccountName"]);
        if !account.is_empty() {
            self.invalid(&path.child("serviceAccountName"), account, names::dns_subdomain(account));
        }
        let restart = path.child("restartPolicy");
        self.supported(&spec["restartPolicy"], &restart, &["Always", "OnFailure", "Never"]);
        self.supported(&spec["restartPolicy"], &restart, &["Always"]);
        if !spec["activeDeadlineSeconds"].is_null() {
            let detail = "activeDeadlineSeconds in ReplicaSet is not Supported";
            self.errors.push(FieldError::forbidden(path.child("activeDeadlineSeconds"), detail));
        }
        if !list(&spec["ephemeralContainers"]).is_empty() {
            let detail = "ephemeral containers not allowed in pod template";
            self.errors.push(FieldError::forbidden(path.child("ephemeralContainers"), detail));
        }
    }

    fn labels(&mut self, labels: &Value, path: &FieldPath) {
        for (key, value) in entries(labels) {
            self.invalid(path, key.as_str(), names::qualified_name(key));
            self.invalid(path, value.clone(), names::label_value(text(value)));
        }
    }

    /// Returns the names of the volumes without an error, which are those that can be mounted.
    fn volumes<'a>(&mut self, volumes: &'a [Value], path: &FieldPath) -> BTreeSet<&'a str> {
        let mut usable = BTreeSet::new();
        for (index, volume) in volumes.iter().enumerate() {
            let (path, before) = (path.index(index), self.errors.len());
            self.volume_source(volume, &path);
            let name = text(&volume["name"]);
            self.name(name, &path.child("name"));
            if usable.contains(name) {
                self.errors.push(FieldError::duplicate(path.child("name"), name));
            }
            if self.errors.len() == before {
                usable.insert(name);
            }
        }
        usable
    }

    fn volume_source(&mut self, volume: &Value, path: &FieldPath) {
        // The source that counts is the first by Kubernetes' order, which names these before others.
        let order = ["emptyDir", "hostPath", "secret", "persistentVolumeClaim", "downwardAPI", "configMap"];
        let mut sources: Vec<&str> =
            entries(volume).map(|(name, _)| name.as_str()).filter(|name| *name != "name").collect();
        sources.sort_by_key(|name| (order.iter().position(|known| known == name).unwrap_or(order.len()), *name));
        for source in sources.iter().skip(1) {
            self.errors.push(FieldError::forbidden(path.child(source), "may not specify more than 1 volume type"));
        }
        let Some(source) = sources.first() else { return };
        if let Some((_, field)) = VOLUME_SOURCES.iter().find(|(name, _)| name == source) {
            self.required(&volume[source], field, &path.child(source));
        }
    }

    fn containers(&mut self, spec: &Value, volumes: &BTreeSet<&str>, path: &FieldPath) {
        let containers = list(&spec["containers"]);
        if containers.is_empty() {
            return self.errors.push(FieldError::required(path, ""));
        }
        let mut names = BTreeSet::new();
        for (index, container) in containers.iter().enumerate() {
            let path = path.index(index);
            self.container(container, volumes, &path);
            let name = text(&container["name"]);
            if !names.insert(name) {
                self.errors.push(FieldError::duplicate(path.child("name"), name));
            }
            self.lifecycle_and_probes(container, &path);
        }
        self.host_ports(containers, path);
    }

    fn init_containers(&mut self, spec: &Value, volumes: &BTreeSet<&str>, path: &FieldPath) {
        let mut names: BTreeSet<&str> =
            list(&spec["containers"]).iter().map(|container| text(&container["name"])).collect();
        for (index, container) in list(&spec["initContainers"]).iter().enumerate() {
            let item = path.index(index);
            self.container(container, volumes, &item);
            let name = text(&container["name"]);
            if !names.insert(name) && !name.is_empty() {
                self.errors.push(FieldError::duplicate(item.child("name"), name));
            }
            if container["restartPolicy"] == "Always" {
                self.lifecycle_and_probes(container, &item);
                continue;
            }
            for field in PROBES.iter().chain(&["lifecycle"]).filter(|field| !container[**field].is_null()) {
                let detail = "may not be set for init containers without restartPolicy=Always";
                self.errors.push(FieldError::forbidden(item.child(field), detail));
            }
        }
    }

    fn container(&mut self, container: &Value, volumes: &BTreeSet<&str>, path: &FieldPath) {
        self.name(text(&container["name"]), &path.child("name"));
        self.required(container, "image", path);
        self.supported(
            &container["terminationMessagePolicy"],
            &path.child("terminationMessagePolicy"),
            &["File", "FallbackToLogsOnError"],
        );
        self.ports(list(&container["ports"]), &path.child("ports"));
        for (index, variable) in list(&container["env"]).iter().enumerate() {
            self.variable(variable, &path.child("env").index(index));
        }
        self.variables_from(list(&container["envFrom"]), &path.child("envFrom"));
        self.mounts(list(&container["volumeMounts"]), volumes, &path.child("volumeMounts"));
        self.supported(
            &container["imagePullPolicy"],
            &path.child("imagePullPolicy"),
            &["Always", "IfNotPresent", "Never"],
        );
        self.resources(&container["resources"], &path.child("resources"));
    }

    fn ports(&mut self, ports: &[Value], path: &FieldPath) {
        let mut names = BTreeSet::new();
        for (index, port) in ports.iter().enumerate() {
            let path = path.index(index);
            let name = text(&port["name"]);
            if !name.is_empty() {
                let wrong = names::port_name(name);
                if wrong.is_empty() && !names.insert(name) {
                    self.errors.push(FieldError::duplicate(path.child("name"), name));
                }
                self.invalid(&path.child("name"), name, wrong);
            }
            let number = number(&port["containerPort"]);
            if number == 0 {
                self.errors.push(FieldError::required(path.child("containerPort"), ""));
            } else {
                self.invalid(&path.child("containerPort"), number, names::port_number(number));
            }
            if let Some(number) = port["hostPort"].as_i64().filter(|number| *number != 0) {
                self.invalid(&path.child("hostPort"), number, names::port_number(number));
            }
            self.supported(&port["protocol"], &path.child("protocol"), &["SCTP", "TCP", "UDP"]);
        }
    }

    fn host_ports(&mut self, containers: &[Value], path: &FieldPath) {
        let mut taken = BTreeSet::new();
        for (index, container) in containers.iter().enumerate() {
            for (port_index, port) in list(&container["ports"]).iter().enumerate() {
                let Some(number) = port["hostPort"].as_i64().filter(|number| *number != 0) else { continue };
                let key = format!("{}/{}/{number}", text(&port["protocol"]), text(&port["hostIP"]));
                if !taken.insert(key.clone()) {
                    let path = path.index(index).child("ports").index(port_index).child("hostPort");
                    self.errors.push(FieldError::duplicate(path, key));
                }
            }
        }
    }

    fn variable(&mut self, variable: &Value, path: &FieldPath) {
        let name = text(&variable["name"]);
        self.required(variable, "name", path);
        self.invalid(&path.child("name"), name, names::environment_variable(name));
        let Some(source) = variable.get("valueFrom").and_then(Value::as_object) else { return };
        let path = path.child("valueFrom");
        for field in ["configMapKeyRef", "secretKeyRef"] {
            if let Some(selector) = source.get(field) {
                self.required(selector, "key", &path.child(field));
            }
        }
        let wrong = match source.len() {
            0 => "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef` or `secretKeyRef`",
            _ if !text(&variable["value"]).is_empty() => "may not be specified when `value` is not empty",
            1 => return,
            _ => "may not have more than one field specified at a time",
        };
        self.invalid(&path, "", [wrong.to_owned()]);
    }

    fn variables_from(&mut self, sources: &[Value], path: &FieldPath) {
        for (index, source) in sources.iter().enumerate() {
            let references: Vec<&str> =
                ["configMapRef", "secretRef"].into_iter().filter(|field| !source[*field].is_null()).collect();
            for field in &references {
                self.required(&source[*field], "name", &path.index(index).child(field));
            }
            match references.len() {
                0 => self.invalid(path, "", ["must specify one of: `configMapRef` or `secretRef`".to_owned()]),
                1 => {}
                _ => self.invalid(path, "", ["may not have more than one field specified at a time".to_owned()]),
            }
        }
    }

    fn mounts(&mut self, mounts: &[Value], volumes: &BTreeSet<&str>, path: &FieldPath) {
        let mut taken = BTreeSet::new();
        for (index, mount) in mounts.iter().enumerate() {
            let path = path.index(index);
            let (name, target) = (text(&mount["name"]), text(&mount["mountPath"]));
            self.required(mount, "name", &path);
            if !volumes.contains(name) {
                self.errors.push(FieldError::not_found(path.child("name"), name));
            }
            self.required(mount, "mountPath", &path);
            if !taken.insert(target) {
                self.invalid(&path.child("mountPath"), target, ["must be unique".to_owned()]);
            }
        }
    }

    fn resources(&mut self, resources: &Value, path: &FieldPath) {
        let (limits, requests) = (&resources["limits"], &resources["requests"]);
        for (list, field) in [(limits, "limits"), (requests, "requests")] {
            for (name, amount) in entries(list) {
                let path = path.child(field).key(name);
                self.invalid(&path, name.as_str(), resources::name(name));
                let amount = quantity(amount);
                if amount.is_negative() {
                    self.invalid(&path, amount.text(), [NOT_NEGATIVE.to_owned()]);
                }
                if resources::is_counted(name) && !amount.is_integer() {
                    self.invalid(&path, amount.text(), ["must be an integer".to_owned()]);
                }
            }
        }
        for (name, request) in entries(requests) {
            let (path, request) = (path.child("requests"), quantity(request));
            let Some(limit) = limits.get(name).map(quantity) else {
                if !resources::may_overcommit(name) {
                    let detail = "Limit must be set for non overcommitable resources";
                    // Kubernetes points to where the limit belongs.
                    self.errors.push(FieldError::required(path.to_string().replace("requests", "limits"), detail));
                }
                continue;
            };
            let order = request.compare(&limit);
            let relation = match resources::may_overcommit(name) {
                false if order != Ordering::Equal => "equal to",
                true if order == Ordering::Greater => "less than or equal to",
                _ => continue,
            };
            let wrong = format!("must be {relation} {name} limit of {}", limit.text());
            self.invalid(&path, request.text(), [wrong]);
        }
    }

    fn lifecycle_and_probes(&mut self, container: &Value, path: &FieldPath) {
        let lifecycle = path.child("lifecycle");
        for event in EVENTS {
            if let Some(handler) = container["lifecycle"].get(event) {
                self.handler(handler, &lifecycle.child(event));
            }
        }
        for field in PROBES {
            if let Some(probe) = container.get(field) {
                self.probe(probe, field == "readinessProbe", &path.child(field));
            }
        }
    }

    fn probe(&mut self, probe: &Value, readiness: bool, path: &FieldPath) {
        self.handler(probe, path);
        for field in ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"]
        {
            let seconds = number(&probe[field]);
            if seconds < 0 {
                self.invalid(&path.child(field), seconds, [NOT_NEGATIVE.to_owned()]);
            }
        }
        if let Some(seconds) = probe["terminationGracePeriodSeconds"].as_i64() {
            let path = path.child("terminationGracePeriodSeconds");
            if seconds <= 0 {
                self.invalid(&path, seconds, ["must be greater than 0".to_owned()]);
            }
            if readiness {
                self.invalid(&path, seconds, ["must not be set for readinessProbes".to_owned()]);
            }
        }
        let threshold = number(&probe["successThreshold"]);
        if !readiness && threshold != 1 {
            self.invalid(&path.child("successThreshold"), threshold, ["must be 1".to_owned()]);
        }
    }

    fn handler(&mut self, parent: &Value, path: &FieldPath) {
        let mut handlers = HANDLERS.into_iter().filter(|name| !parent[*name].is_null());
        let Some(first) = handlers.next() else {
            return self.errors.push(FieldError::required(path, "must specify a handler type"));
        };
        let (handler, handler_path) = (&parent[first], path.child(first));
        match first {
            "exec" if list(&handler["command"]).is_empty() => {
                self.errors.push(FieldError::required(handler_path.child("command"), ""));
            }
            "httpGet" => {
                self.port(&handler["port"], &handler_path.child("port"));
                self.supported(&handler["scheme"], &handler_path.child("scheme"), &["HTTP", "HTTPS"]);
            }
            "tcpSocket" | "grpc" => self.port(&handler["port"], &handler_path.child("port")),
            _ => {}
        }
        for further in handlers {
            let detail = "may not specify more than 1 handler type";
            self.errors.push(FieldError::forbidden(path.child(further), detail));
        }
    }

    /// A number or the name of one.
    fn port(&mut self, port: &Value, path: &FieldPath) {
        let wrong = match port.as_str() {
            Some(name) => names::port_name(name),
            None => names::port_number(number(port)),
        };
        self.invalid(path, port.clone(), wrong);
    }

    fn name(&mut self, name: &str, path: &FieldPath) {
        if name.is_empty() {
            self.errors.push(FieldError::required(path, ""));
        } else {
            self.invalid(path, name, names::dns_label(name));
        }
    }

    fn required(&mut self, parent: &Value, field: &str, path: &FieldPath) {
        if text(&parent[field]).is_empty() {
            self.errors.push(FieldError::required(path.child(field), ""));
        }
    }

    fn supported(&mut self, value: &Value, path: &FieldPath, allowed: &[&str]) {
        if !allowed.contains(&text(value)) {
            self.errors.push(FieldError::not_supported(path, value.clone(), allowed.iter().copied()));
        }
    }

    fn invalid(&mut self, path: &FieldPath, value: impl Into<Value>, wrong: impl IntoIterator<Item = String>) {
        let value = value.into();
        let errors = wrong.into_iter().map(|detail| FieldError::invalid(path, value.clone(), detail));
        self.errors.extend(errors);
    }
}

// The template was decoded and completed before it is looked at, so another type than the expected one is an absent field.

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn number(value: &Value) -> i64 {
    value.as_i64().unwrap_or_default()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn entries(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

fn quantity(value: &Value) -> Quantity {
    Quantity::parse(text(value)).unwrap_or(Quantity::ZERO)
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde_json::json;

    use super::*;

    #[derive(Deserialize)]
    struct Input {
        name: String,
        template: Value,
    }

    #[derive(Deserialize)]
    struct Refusal {
        name: String,
        errors: Vec<String>,
    }

    fn errors(template: &Value) -> Vec<String> {
        validate(template).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn refuses_what_kubernetes_refuses_in_the_same_words() {
        let inputs: Vec<Input> =
            serde_json::from_str(include_str!("../../../e2e/oracle/podtemplate/invalid.json")).unwrap();
        let refusals: Vec<Refusal> = serde_json::from_str(include_str!("testdata/refusals.json")).unwrap();
        assert_eq!(inputs.len(), refusals.len());
        for (input, refusal) in inputs.iter().zip(refusals) {
            assert_eq!(input.name, refusal.name);
            let mut errors = errors(&input.template);
            errors.sort();
            assert_eq!(errors, refusal.errors, "{}", input.name);
        }
    }

    #[test]
    fn refuses_what_cannot_be_decoded() {
        let template = json!({"metadata": {"labels": {"a": 1}}, "spec": {
            "hostNetwork": "yes",
            "containers": [{
                "name": "a", "image": "i", "ports": [{"containerPort": "80"}],
                "resources": {"limits": {"memory": "500MB", "cpu": "1K"}},
                "args": [1], "livenessProbe": {"tcpSocket": {"port": true}},
            }],
        }});
        let errors = errors(&template);
        for expected in [
            r#"metadata.labels[a]: Invalid value: 1: must be a string"#,
            r#"spec.hostNetwork: Invalid value: "yes": must be true or false"#,
            r#"spec.containers[0].args[0]: Invalid value: 1: must be a string"#,
            r#"spec.containers[0].ports[0].containerPort: Invalid value: "80": must be an integer"#,
            r#"spec.containers[0].livenessProbe.tcpSocket.port: Invalid value: true: must be an integer or a string"#,
            r#"spec.containers[0].resources.limits[cpu]: Invalid value: "1K": unable to parse quantity's suffix"#,
            r#"spec.containers[0].resources.limits[memory]: Invalid value: "500MB": quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"#,
        ] {
            assert!(errors.iter().any(|error| error == expected), "{expected} is not in {errors:#?}");
        }
        assert_eq!(errors.len(), 7, "{errors:#?}");
    }

    #[test]
    fn names_what_it_does_not_know() {
        let template = json!({"spec": {"containers": [{"name": "a", "imagePullPolcy": "Always"}], "volume": []}});
        assert_eq!(unknown_fields(&template), ["spec.containers[0].imagePullPolcy", "spec.volume"]);
    }
}
