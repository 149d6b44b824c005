//! The schemas of the built-in kinds, from the types of k8s-openapi, and how their lists are merged.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use k8s_openapi::api;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use schemars::generate::SchemaSettings;
use serde_json::{Value, json};

use super::Schema;

const DEFINITION: &str = "#/$defs/";

/// The schema of a built-in kind, such as `io.k8s.api.apps.v1.Deployment`.
pub(in crate::sandbox) fn of_kind(group: &str, version: &str, kind: &str) -> Option<(String, Arc<Schema>)> {
    let name = definition_name(group, version, kind);
    Some((name.clone(), compiled().get(&name)?.clone()))
}

pub(super) fn object_meta() -> Arc<Schema> {
    static META: OnceLock<Arc<Schema>> = OnceLock::new();
    let meta = || {
        let mut open = Vec::new();
        compile("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta", &mut BTreeMap::new(), &mut open)
    };
    META.get_or_init(|| meta().unwrap_or_else(Schema::anything)).clone()
}

fn definition_name(group: &str, version: &str, kind: &str) -> String {
    match group {
        "" => format!("io.k8s.api.core.{version}.{kind}"),
        "apiextensions.k8s.io" => format!("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.{version}.{kind}"),
        group => format!("io.k8s.api.{}.{version}.{kind}", group.split('.').next().unwrap_or_default()),
    }
}

fn compiled() -> &'static BTreeMap<String, Arc<Schema>> {
    static COMPILED: OnceLock<BTreeMap<String, Arc<Schema>>> = OnceLock::new();
    COMPILED.get_or_init(|| {
        let (mut done, mut open) = (BTreeMap::new(), Vec::new());
        for name in definitions().keys() {
            compile(name, &mut done, &mut open);
        }
        done
    })
}

/// Reads a definition and those that it refers to. One that contains itself is cut where it does.
fn compile(name: &str, done: &mut BTreeMap<String, Arc<Schema>>, open: &mut Vec<String>) -> Option<Arc<Schema>> {
    if let Some(schema) = done.get(name) {
        return Some(schema.clone());
    }
    if open.iter().any(|it| it == name) {
        return None;
    }
    let json = definitions().get(name)?;
    open.push(name.to_owned());
    let refer = &mut |reference: &str| compile(reference.strip_prefix(DEFINITION)?, done, open);
    let schema = Arc::new(Schema::read(json, refer));
    open.pop();
    done.insert(name.to_owned(), schema.clone());
    Some(schema)
}

/// All definitions as JSON schema, with the extensions that say how lists and maps are merged.
pub(in crate::sandbox) fn definitions() -> &'static BTreeMap<String, Value> {
    static DEFINITIONS: OnceLock<BTreeMap<String, Value>> = OnceLock::new();
    DEFINITIONS.get_or_init(|| {
        let mut generator = SchemaSettings::draft2020_12().into_generator();
        macro_rules! add {
            ($($kind:path),+ $(,)?) => { $( generator.subschema_for::<$kind>(); )+ };
        }
        add!(
            ObjectMeta,
            api::core::v1::ConfigMap,
            api::core::v1::Endpoints,
            api::core::v1::Event,
            api::core::v1::Namespace,
            api::core::v1::Node,
            api::core::v1::PersistentVolume,
            api::core::v1::PersistentVolumeClaim,
            api::core::v1::Pod,
            api::core::v1::PodTemplate,
            api::core::v1::ReplicationController,
            api::core::v1::Secret,
            api::core::v1::Service,
            api::core::v1::ServiceAccount,
            api::apps::v1::ControllerRevision,
            api::apps::v1::DaemonSet,
            api::apps::v1::Deployment,
            api::apps::v1::ReplicaSet,
            api::apps::v1::StatefulSet,
            api::autoscaling::v1::Scale,
            api::autoscaling::v2::HorizontalPodAutoscaler,
            api::batch::v1::CronJob,
            api::batch::v1::Job,
            api::coordination::v1::Lease,
            api::discovery::v1::EndpointSlice,
            api::events::v1::Event,
            api::networking::v1::Ingress,
            api::networking::v1::IngressClass,
            api::networking::v1::NetworkPolicy,
            api::policy::v1::PodDisruptionBudget,
            api::rbac::v1::ClusterRole,
            api::rbac::v1::ClusterRoleBinding,
            api::rbac::v1::Role,
            api::rbac::v1::RoleBinding,
            api::scheduling::v1::PriorityClass,
            k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
        );
        let mut definitions: BTreeMap<String, Value> = generator.take_definitions(true).into_iter().collect();
        for (name, definition) in &mut definitions {
            extend(name, definition);
        }
        definitions
    })
}

fn extend(name: &str, definition: &mut Value) {
    let short = name.rsplit('.').next().unwrap_or_default();
    if ATOMIC_TYPES.contains(&short) {
        definition["x-kubernetes-map-type"] = "atomic".into();
    }
    if OPEN_TYPES.contains(&short) {
        definition["x-kubernetes-preserve-unknown-fields"] = true.into();
    }
    let Some(properties) = definition["properties"].as_object_mut() else { return };
    for (field, property) in properties {
        if field == "protocol" && matches!(short, "ContainerPort" | "ServicePort") {
            // It is part of the key of its list.
            property["default"] = "TCP".into();
        }
        if ATOMIC_MAPS.contains(&(short, field)) {
            property["x-kubernetes-map-type"] = "atomic".into();
        }
        let is_list = property["type"] == "array";
        let keys = KEYED_LISTS.iter().find(|(of, list, _)| (*of == short || *of == "*") && list == field && is_list);
        match keys {
            Some((_, _, [])) => {
                property["x-kubernetes-list-type"] = "set".into();
                property["x-kubernetes-patch-strategy"] = "merge".into();
            }
            Some((_, _, keys)) => {
                property["x-kubernetes-list-type"] = "map".into();
                property["x-kubernetes-list-map-keys"] = json!(keys);
                property["x-kubernetes-patch-merge-key"] = keys[0].into();
                property["x-kubernetes-patch-strategy"] = "merge".into();
            }
            None if is_list => property["x-kubernetes-list-type"] = "atomic".into(),
            None => {}
        }
    }
}

/// Objects of any shape.
const OPEN_TYPES: &[&str] = &["FieldsV1", "RawExtension"];

/// Objects that have one owner as a whole.
const ATOMIC_TYPES: &[&str] = &[
    "ConfigMapKeySelector",
    "EndpointAddress",
    "EndpointPort",
    "LabelSelector",
    "LocalObjectReference",
    "NodeSelector",
    "NodeSelectorTerm",
    "ObjectFieldSelector",
    "ObjectReference",
    "OwnerReference",
    "ResourceFieldSelector",
    "RoleRef",
    "SecretKeySelector",
    "SecretReference",
    "ServiceBackendPort",
    "Subject",
    "TypedLocalObjectReference",
];

/// Maps that have one owner as a whole.
const ATOMIC_MAPS: &[(&str, &str)] = &[
    ("PodSpec", "nodeSelector"),
    ("ReplicationControllerSpec", "selector"),
    ("ServiceSpec", "selector"),
    ("LabelSelector", "matchLabels"),
];

/// Lists whose items have owners of their own: type (`*` for any), field, the keys that tell items apart (none: the
/// value itself). All other lists are atomic. A strategic merge patch uses the first key.
const KEYED_LISTS: &[(&str, &str, &[&str])] = &[
    ("ObjectMeta", "finalizers", &[]),
    ("ObjectMeta", "ownerReferences", &["uid"]),
    ("DaemonSetStatus", "conditions", &["type"]),
    ("DeploymentStatus", "conditions", &["type"]),
    ("ReplicaSetStatus", "conditions", &["type"]),
    ("StatefulSetStatus", "conditions", &["type"]),
    ("ReplicationControllerStatus", "conditions", &["type"]),
    ("HorizontalPodAutoscalerStatus", "conditions", &["type"]),
    ("PodDisruptionBudgetStatus", "conditions", &["type"]),
    ("NamespaceStatus", "conditions", &["type"]),
    ("NodeStatus", "conditions", &["type"]),
    ("NodeStatus", "addresses", &["type"]),
    ("PodStatus", "conditions", &["type"]),
    ("PodStatus", "podIPs", &["ip"]),
    ("PodStatus", "resourceClaimStatuses", &["name"]),
    ("PersistentVolumeClaimStatus", "conditions", &["type"]),
    ("ServiceStatus", "conditions", &["type"]),
    ("CustomResourceDefinitionStatus", "conditions", &["type"]),
    ("UncountedTerminatedPods", "failed", &[]),
    ("UncountedTerminatedPods", "succeeded", &[]),
    ("Endpoint", "addresses", &[]),
    ("NodeSpec", "podCIDRs", &[]),
    ("*", "env", &["name"]),
    ("Container", "ports", &["containerPort", "protocol"]),
    ("EphemeralContainer", "ports", &["containerPort", "protocol"]),
    ("ServiceSpec", "ports", &["port", "protocol"]),
    ("*", "volumeDevices", &["devicePath"]),
    ("*", "volumeMounts", &["mountPath"]),
    ("PodSpec", "containers", &["name"]),
    ("PodSpec", "ephemeralContainers", &["name"]),
    ("PodSpec", "initContainers", &["name"]),
    ("PodSpec", "hostAliases", &["ip"]),
    ("PodSpec", "imagePullSecrets", &["name"]),
    ("PodSpec", "resourceClaims", &["name"]),
    ("PodSpec", "schedulingGates", &["name"]),
    ("PodSpec", "topologySpreadConstraints", &["topologyKey", "whenUnsatisfiable"]),
    ("PodSpec", "volumes", &["name"]),
    ("ResourceRequirements", "claims", &["name"]),
    ("ServiceAccount", "secrets", &["name"]),
];

#[cfg(test)]
mod tests {
    use super::super::{Kind, List};
    use super::*;

    #[test]
    fn every_built_in_kind_has_a_schema() {
        for resource in crate::sandbox::builtin::resources() {
            let found = of_kind(&resource.group, &resource.storage, &resource.kind);
            let (_, schema) = found.unwrap_or_else(|| panic!("{} has none", resource.key));
            assert_eq!(schema.kind, Kind::Object, "{}", resource.key);
        }
    }

    #[test]
    fn lists_know_their_keys() {
        let (_, pod) = of_kind("", "v1", "Pod").unwrap();
        let containers = &pod.properties["spec"].properties["containers"];
        assert_eq!(containers.list, List::Map(vec!["name".into()]));
        let ports = &containers.items.as_ref().unwrap().properties["ports"];
        assert_eq!(ports.list, List::Map(vec!["containerPort".into(), "protocol".into()]));
        assert!(pod.properties["spec"].properties["nodeSelector"].atomic);
    }
}
