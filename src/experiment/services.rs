//! The Service of a template, by which a Rollout gives it traffic.

use serde_json::{Value, json};

use crate::api::experiment::{ExperimentTemplate, ExperimentTemplateStatus};
use crate::api::names::{EXPERIMENT_NAME, EXPERIMENT_TEMPLATE_NAME};
use crate::api::replica_set::ReplicaSet;
use crate::api::resource::SERVICE;
use crate::plan::{Action, Basis};

use super::draft::Draft;
use super::templates::Trouble;

/// Makes the Service of a template that has one, once its ReplicaSet is there. Pods without ports need none.
pub(super) fn ensure(
    draft: &mut Draft<'_>,
    template: &ExperimentTemplate,
    replica_set: &ReplicaSet,
    status: &mut ExperimentTemplateStatus,
) -> Option<Trouble> {
    let service = template.service.as_ref()?;
    let ports = ports(replica_set);
    if ports.is_empty() {
        return None;
    }
    let name = service.name.as_deref().filter(|name| !name.is_empty()).unwrap_or(&replica_set.name);
    if !draft.world.services.contains_key(name) {
        let body = json!({
            "apiVersion": SERVICE.api_version(),
            "kind": SERVICE.kind,
            "metadata": {
                "name": name,
                "namespace": draft.namespace(),
                "annotations": { (EXPERIMENT_NAME): draft.name(), (EXPERIMENT_TEMPLATE_NAME): template.name },
                "ownerReferences": [draft.experiment.owner_reference()],
            },
            "spec": { "selector": replica_set.labels, "ports": ports },
        });
        let object = draft.object(SERVICE, name);
        if let Some(failure) = draft.act(Action::Create { object, body }, None) {
            let what = format!("Failed to create Service {name} for template '{}'", template.name);
            return Some(Trouble::new(draft, &what, failure, status));
        }
    }
    name.clone_into(&mut status.service_name);
    replica_set.hash().clone_into(&mut status.pod_template_hash);
    None
}

/// Takes the Service away, once no pod is left behind it.
pub(super) fn remove(draft: &mut Draft<'_>, status: &mut ExperimentTemplateStatus) -> Option<Trouble> {
    let uid = draft.world.services.get(&status.service_name);
    if let Some(uid) = uid.filter(|_| !status.service_name.is_empty()) {
        let object = draft.object(SERVICE, &status.service_name);
        let object = Basis { object, uid: uid.clone(), resource_version: None };
        let what = "its template has no pods any more".to_owned();
        if let Some(failure) = draft.act(Action::Delete { object, what }, None) {
            let what = format!("Failed to delete Service for template '{}'", status.name);
            return Some(Trouble::new(draft, &what, failure, status));
        }
    }
    status.service_name.clear();
    status.pod_template_hash.clear();
    None
}

/// The ports of all containers, each once. Where there are several, each needs a name.
fn ports(replica_set: &ReplicaSet) -> Vec<Value> {
    let mut ports: Vec<(i64, String, Option<String>)> = Vec::new();
    for container in replica_set.template.containers() {
        for port in container.ports() {
            let protocol = port.protocol.to_owned();
            if !ports.iter().any(|(number, known, _)| *number == port.container_port && *known == protocol) {
                ports.push((port.container_port, protocol, port.name.map(str::to_owned)));
            }
        }
    }
    let several = ports.len() > 1;
    let port = |(number, protocol, name): (i64, String, Option<String>)| {
        let mut port = json!({ "port": number, "targetPort": number, "protocol": protocol });
        match name {
            Some(name) => port["name"] = name.into(),
            None if several => port["name"] = format!("{}-{number}", protocol.to_lowercase()).into(),
            None => {}
        }
        port
    };
    ports.into_iter().map(port).collect()
}
