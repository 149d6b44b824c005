//! The endpoints controllers: which pods a Service leads to, as Endpoints and as an EndpointSlice.

use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::pods::Pod;
use super::{Key, Name, Workloads, owned_by};
use crate::sandbox::{DeleteOptions, LabelSelector};

pub(in crate::sandbox) const SLICES: &str = "endpointslices.discovery.k8s.io";
pub(in crate::sandbox) const SERVICE_NAME: &str = "kubernetes.io/service-name";

impl Workloads {
    /// Looks at the endpoints of a Service a little later, as the real controllers do.
    pub(super) fn expect_endpoints(&mut self, service: Name, now: Instant) {
        if self.awaited.insert(service.clone()) {
            self.wake(now + self.settings.endpoints_delay, Key::Endpoints(service));
        }
    }

    pub(super) fn sync_endpoints(&mut self, name: &Name) {
        self.awaited.remove(name);
        let selector = |service: &Value| LabelSelector::of(&service["spec"]["selector"]);
        let Some((service, selector)) =
            self.services.get(name).and_then(|service| Some((service.clone(), selector(service)?)))
        else {
            // Without its Service the objects go; without a selector they are the user's.
            if !self.services.contains_key(name) {
                let _ = self.controllers.delete("endpoints", &name.namespace, &name.name, &DeleteOptions::default());
            }
            return;
        };
        let pods: Vec<(&Name, &Pod)> = self
            .pods
            .iter()
            .filter(|(pod, _)| pod.namespace == name.namespace)
            .filter(|(_, pod)| !pod.object["status"]["podIP"].is_null() && selector.matches(&pod.object))
            .filter(|(_, pod)| !matches!(pod.phase(), "Succeeded" | "Failed"))
            .collect();
        let publish_all = service["spec"]["publishNotReadyAddresses"] == true;
        self.write_endpoints(name, &service, &pods, publish_all);
        self.write_slice(name, &service, &pods, publish_all);
    }

    fn write_endpoints(&self, name: &Name, service: &Value, pods: &[(&Name, &Pod)], publish_all: bool) {
        let mut subset = Map::new();
        for (name, pod) in pods.iter().filter(|(_, pod)| !is_terminating(pod)) {
            let field = if publish_all || pod.is_ready() { "addresses" } else { "notReadyAddresses" };
            let list = subset.entry(field).or_insert_with(|| json!([]));
            if let Value::Array(list) = list {
                list.push(json!({
                    "ip": pod.object["status"]["podIP"],
                    "nodeName": pod.node(),
                    "targetRef": target(name, pod),
                }));
            }
        }
        if !subset.is_empty() {
            // Unlike a slice, a subset leaves out a name that is empty.
            let mut ports: Vec<Value> = ports(service, pods).collect();
            for port in ports.iter_mut().filter_map(Value::as_object_mut) {
                port.retain(|_, value| *value != "");
            }
            subset.insert("ports".into(), ports.into());
        }
        let subsets = if subset.is_empty() { Value::Null } else { json!([subset]) };
        match self.controllers.get("endpoints", &name.namespace, &name.name) {
            Ok(existing) if existing["subsets"] == subsets => {}
            Ok(_) => {
                let edit = |object: &mut Value| object["subsets"] = subsets;
                // It may have gone already: then the Service has, too.
                let _ = self.controllers.edit("endpoints", &name.namespace, &name.name, edit);
            }
            Err(_) => {
                let mut labels = labels_of(service);
                labels["endpoints.kubernetes.io/managed-by"] = "endpoint-controller".into();
                let object = json!({"metadata": {"name": name.name, "labels": labels}, "subsets": subsets});
                self.log(name, self.controllers.create("endpoints", &name.namespace, object));
            }
        }
    }

    fn write_slice(&self, name: &Name, service: &Value, pods: &[(&Name, &Pod)], publish_all: bool) {
        let endpoint = |(name, pod): &(&Name, &Pod)| {
            let (ready, terminating) = (pod.is_ready(), is_terminating(pod));
            json!({
                "addresses": [pod.object["status"]["podIP"]],
                "conditions": {
                    "ready": publish_all || ready && !terminating,
                    "serving": ready,
                    "terminating": terminating,
                },
                "nodeName": pod.node(),
                "targetRef": target(name, pod),
            })
        };
        // What is empty is null, as a typed server writes it.
        let listed = |all: Vec<Value>| if all.is_empty() { Value::Null } else { all.into() };
        let endpoints = listed(pods.iter().map(endpoint).collect());
        let ports = listed(if pods.is_empty() { Vec::new() } else { ports(service, pods).collect() });
        let owned = LabelSelector::of(&json!({SERVICE_NAME: name.name}));
        let existing = owned.map(|owned| self.controllers.select(SLICES, &name.namespace, &owned)).unwrap_or_default();
        match existing.first() {
            Some(slice) if slice["endpoints"] == endpoints && slice["ports"] == ports => {}
            Some(slice) => {
                let slice = Name::of(slice);
                let edit = |object: &mut Value| {
                    object["endpoints"] = endpoints;
                    object["ports"] = ports;
                };
                // It may have gone already: then the Service has, too.
                let _ = self.controllers.edit(SLICES, &slice.namespace, &slice.name, edit);
            }
            None => {
                let mut labels = labels_of(service);
                labels[SERVICE_NAME] = name.name.as_str().into();
                labels["endpointslice.kubernetes.io/managed-by"] = "endpointslice-controller.k8s.io".into();
                let object = json!({
                    "metadata": {
                        "generateName": format!("{}-", name.name),
                        "labels": labels,
                        "ownerReferences": [owned_by(service, "v1", "Service")],
                    },
                    "addressType": "IPv4",
                    "endpoints": endpoints,
                    "ports": ports,
                });
                self.log(name, self.controllers.create(SLICES, &name.namespace, object));
            }
        }
    }

    fn log<T>(&self, service: &Name, outcome: Result<T, crate::sandbox::Refusal>) {
        if let Err(refusal) = outcome {
            tracing::debug!(%service, message = %refusal.message, "cannot write endpoints");
        }
    }
}

fn is_terminating(pod: &Pod) -> bool {
    !pod.object["metadata"]["deletionTimestamp"].is_null()
}

fn target(name: &Name, pod: &Pod) -> Value {
    json!({"kind": "Pod", "namespace": name.namespace, "name": name.name, "uid": pod.object["metadata"]["uid"]})
}

/// The ports of the Service as the pods have them.
fn ports<'a>(service: &'a Value, pods: &'a [(&Name, &Pod)]) -> impl Iterator<Item = Value> + 'a {
    let of_service = service["spec"]["ports"].as_array();
    of_service.into_iter().flatten().map(|port| {
        let number = match &port["targetPort"] {
            Value::Null => port["port"].clone(),
            Value::String(name) => pods.iter().find_map(|(_, pod)| named_port(pod, name)).unwrap_or(Value::Null),
            number => number.clone(),
        };
        let protocol = port["protocol"].as_str().unwrap_or("TCP");
        json!({"name": port["name"].as_str().unwrap_or_default(), "port": number, "protocol": protocol})
    })
}

/// The labels that the objects of a Service have from it.
fn labels_of(service: &Value) -> Value {
    let mut labels = service["metadata"]["labels"].clone();
    if labels.is_null() {
        labels = json!({});
    }
    if service["spec"]["clusterIP"] == "None" {
        labels["service.kubernetes.io/headless"] = "".into();
    }
    labels
}

fn named_port(pod: &Pod, name: &str) -> Option<Value> {
    let containers = pod.object["spec"]["containers"].as_array()?;
    let mut ports = containers.iter().flat_map(|container| container["ports"].as_array().into_iter().flatten());
    ports.find(|port| port["name"] == name).map(|port| port["containerPort"].clone())
}
