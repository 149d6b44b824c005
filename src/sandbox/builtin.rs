//! The resources that every server has, as a table.

use std::sync::Arc;

use super::resource::{Resource, Scale, Traits, Version};
use super::schema::of_kind;

/// All built-in resources, in the order in which discovery lists them.
pub(super) fn resources() -> Vec<Resource> {
    ROWS.iter().map(Row::resource).collect()
}

/// `plural`, `Kind`, short names (comma-separated), flags.
///
/// Flags: `c` cluster-scoped, `s` status subresource, `x` scale subresource, `g` counts generations, `a` category all,
/// `u` refuses an update without resourceVersion, `d` a deletion answers with the object, `o` a deletion orphans.
struct Row {
    group: &'static str,
    version: &'static str,
    plural: &'static str,
    kind: &'static str,
    short: &'static str,
    flags: &'static str,
}

const fn row(
    group: &'static str,
    version: &'static str,
    plural: &'static str,
    kind: &'static str,
    short: &'static str,
    flags: &'static str,
) -> Row {
    Row { group, version, plural, kind, short, flags }
}

const ROWS: &[Row] = &[
    row("", "v1", "configmaps", "ConfigMap", "cm", ""),
    row("", "v1", "endpoints", "Endpoints", "ep", ""),
    row("", "v1", "events", "Event", "ev", ""),
    row("", "v1", "namespaces", "Namespace", "ns", "csd"),
    row("", "v1", "nodes", "Node", "no", "cs"),
    row("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim", "pvc", "s"),
    row("", "v1", "persistentvolumes", "PersistentVolume", "pv", "cs"),
    row("", "v1", "pods", "Pod", "po", "sagd"),
    row("", "v1", "podtemplates", "PodTemplate", "", "g"),
    row("", "v1", "replicationcontrollers", "ReplicationController", "rc", "sxago"),
    row("", "v1", "secrets", "Secret", "", ""),
    row("", "v1", "serviceaccounts", "ServiceAccount", "sa", "d"),
    row("", "v1", "services", "Service", "svc", "sad"),
    row("apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition", "crd,crds", "csgu"),
    row("apps", "v1", "controllerrevisions", "ControllerRevision", "", ""),
    row("apps", "v1", "daemonsets", "DaemonSet", "ds", "sag"),
    row("apps", "v1", "deployments", "Deployment", "deploy", "sxag"),
    row("apps", "v1", "replicasets", "ReplicaSet", "rs", "sxag"),
    row("apps", "v1", "statefulsets", "StatefulSet", "sts", "sxag"),
    row("autoscaling", "v2", "horizontalpodautoscalers", "HorizontalPodAutoscaler", "hpa", "sa"),
    row("batch", "v1", "cronjobs", "CronJob", "cj", "sag"),
    row("batch", "v1", "jobs", "Job", "", "sago"),
    row("coordination.k8s.io", "v1", "leases", "Lease", "", "u"),
    row("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice", "", "g"),
    row("events.k8s.io", "v1", "events", "Event", "ev", ""),
    row("networking.k8s.io", "v1", "ingressclasses", "IngressClass", "", "cg"),
    row("networking.k8s.io", "v1", "ingresses", "Ingress", "ing", "sg"),
    row("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy", "netpol", "g"),
    row("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget", "pdb", "sg"),
    row("rbac.authorization.k8s.io", "v1", "clusterrolebindings", "ClusterRoleBinding", "", "c"),
    row("rbac.authorization.k8s.io", "v1", "clusterroles", "ClusterRole", "", "c"),
    row("rbac.authorization.k8s.io", "v1", "rolebindings", "RoleBinding", "", ""),
    row("rbac.authorization.k8s.io", "v1", "roles", "Role", "", ""),
    row("scheduling.k8s.io", "v1", "priorityclasses", "PriorityClass", "pc", "cg"),
];

impl Row {
    fn resource(&self) -> Resource {
        let has = |flag| self.flags.contains(flag);
        let key: Arc<str> = key(self.plural, self.group).into();
        let events_view = self.group == "events.k8s.io";
        let version = Version {
            name: self.version.into(),
            status: has('s'),
            scale: has('x').then(|| Scale {
                spec_replicas: "/spec/replicas".into(),
                status_replicas: "/status/replicas".into(),
                selector: Some("/spec/selector".into()),
            }),
            schema: of_kind(self.group, self.version, self.kind).map(|(_, schema)| schema),
            published: None,
            columns: Vec::new(),
        };
        Resource {
            group: self.group.into(),
            kind: self.kind.into(),
            list_kind: format!("{}List", self.kind),
            plural: self.plural.into(),
            singular: self.kind.to_lowercase(),
            short_names: self.short.split(',').filter(|s| !s.is_empty()).map(Into::into).collect(),
            categories: if has('a') { vec!["all".into()] } else { Vec::new() },
            namespaced: !has('c'),
            custom: false,
            versions: vec![version],
            storage: self.version.into(),
            collection: if events_view { "events".into() } else { key.clone() },
            traits: Traits {
                generation: has('g'),
                unconditional_update: !has('u'),
                returns_deleted: has('d'),
                orphans: has('o'),
                events_view,
            },
            since: 0,
            key,
        }
    }
}

/// The key of a resource: `plural.group`, or the plural alone for the core group.
pub(super) fn key(plural: &str, group: &str) -> String {
    if group.is_empty() { plural.to_owned() } else { format!("{plural}.{group}") }
}
