//! The names of compute resources, and what may be asked for under each.

use super::names;

/// Names without a domain that Kubernetes knows, but that are no resource of a container.
const QUOTA_ONLY: [&str; 17] = [
    "requests.cpu",
    "requests.memory",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "storage",
    "requests.storage",
    "services.nodeports",
    "services.loadbalancers",
];

/// What is wrong with the name of a container's resource.
pub(super) fn name(name: &str) -> Vec<String> {
    let mut wrong = names::qualified_name(name);
    if !name.contains('/') {
        let standard = matches!(name, "cpu" | "memory" | "ephemeral-storage") || is_huge_page(name);
        let quota = QUOTA_ONLY.contains(&name) || name.starts_with("requests.hugepages-");
        if wrong.is_empty() && !standard && !quota {
            wrong.push("must be a standard resource type or fully qualified".to_owned());
        }
        if !standard {
            wrong.push("must be a standard resource for containers".to_owned());
        }
    } else if !is_native(name) && !is_extended(name) {
        wrong.push("doesn't follow extended resource name standard".to_owned());
    }
    wrong
}

/// Whether the resource comes in whole pieces, such as a device.
pub(super) fn is_counted(name: &str) -> bool {
    const OBJECTS: [&str; 9] = [
        "pods",
        "resourcequotas",
        "services",
        "replicationcontrollers",
        "secrets",
        "configmaps",
        "persistentvolumeclaims",
        "services.nodeports",
        "services.loadbalancers",
    ];
    OBJECTS.contains(&name) || is_extended(name)
}

/// Whether more of it may be promised than a node has, so that a request may be below its limit.
pub(super) fn may_overcommit(name: &str) -> bool {
    is_native(name) && !is_huge_page(name)
}

fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

fn is_extended(name: &str) -> bool {
    !is_native(name) && !name.starts_with("requests.") && names::qualified_name(&format!("requests.{name}")).is_empty()
}

fn is_huge_page(name: &str) -> bool {
    name.starts_with("hugepages-")
}
