//! The Deployment controller, as far as a Rollout can notice it: a ReplicaSet for each template, the newest with all pods
//! and the others with none once it has them.

use serde_json::{Value, json};

use super::{Name, Workloads, controller, owned_by, uid};
use crate::api::pod_template::fnv_hash;

const RESOURCE: &str = "deployments.apps";
const REPLICA_SETS: &str = "replicasets.apps";
const HASH: &str = "pod-template-hash";

impl Workloads {
    pub(super) fn sync_deployment(&self, name: &Name) {
        let Ok(deployment) = self.controllers.get(RESOURCE, &name.namespace, &name.name) else { return };
        if !deployment["metadata"]["deletionTimestamp"].is_null() {
            return;
        }
        let hash = fnv_hash(deployment["spec"]["template"].to_string().as_bytes(), None);
        let wanted = deployment["spec"]["replicas"].as_i64().unwrap_or(1);
        let owned = |set: &Value| controller(set).is_some_and(|owner| owner["uid"] == uid(&deployment));
        let sets = self.controllers.list(REPLICA_SETS, &name.namespace);
        let (newest, others): (Vec<_>, Vec<_>) =
            sets.into_iter().filter(|set| owned(set)).partition(|set| set["metadata"]["labels"][HASH] == hash.as_str());
        let number = |value: &Value| value.as_i64().unwrap_or(0);
        let scale = |set: &Value, replicas: i64| {
            if number(&set["spec"]["replicas"]) != replicas {
                let set = set["metadata"]["name"].as_str().unwrap_or_default();
                // It may have gone already.
                let _ = self
                    .controllers
                    .edit(REPLICA_SETS, &name.namespace, set, |set| set["spec"]["replicas"] = replicas.into());
            }
        };
        match newest.first() {
            Some(newest) => {
                scale(newest, wanted);
                if number(&newest["status"]["availableReplicas"]) >= wanted {
                    others.iter().for_each(|other| scale(other, 0));
                }
            }
            // A template that the server accepted in a Deployment it accepts in a ReplicaSet.
            None => {
                drop(self.controllers.create(REPLICA_SETS, &name.namespace, replica_set(&deployment, &hash, wanted)))
            }
        }
        let mut status = json!({"observedGeneration": deployment["metadata"]["generation"]});
        for (field, of, sets) in [
            ("replicas", "replicas", &[&newest[..], &others[..]][..]),
            ("updatedReplicas", "replicas", &[&newest[..]][..]),
            ("readyReplicas", "readyReplicas", &[&newest[..], &others[..]][..]),
            ("availableReplicas", "availableReplicas", &[&newest[..], &others[..]][..]),
        ] {
            let count: i64 = sets.iter().copied().flatten().map(|set| number(&set["status"][of])).sum();
            if count > 0 {
                status[field] = count.into();
            }
        }
        if status != deployment["status"] {
            // It may have gone already.
            let _ =
                self.controllers.edit_status(RESOURCE, &name.namespace, &name.name, |object| object["status"] = status);
        }
    }
}

fn replica_set(deployment: &Value, hash: &str, replicas: i64) -> Value {
    let name = deployment["metadata"]["name"].as_str().unwrap_or_default();
    let mut template = deployment["spec"]["template"].clone();
    template["metadata"]["labels"][HASH] = hash.into();
    let mut selector = deployment["spec"]["selector"].clone();
    selector["matchLabels"][HASH] = hash.into();
    json!({
        "metadata": {
            "name": format!("{name}-{hash}"),
            "labels": template["metadata"]["labels"],
            "ownerReferences": [owned_by(deployment, "apps/v1", "Deployment")],
        },
        "spec": {"replicas": replicas, "selector": selector, "template": template},
    })
}
