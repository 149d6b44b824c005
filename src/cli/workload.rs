//! Where the pod template of a Rollout stands: in itself, or in the workload that `spec.workloadRef` names.

use anyhow::{Context, bail};
use kube::api::{Api, ApiResource, DynamicObject, Patch, PatchParams};
use kube::core::GroupVersionKind;
use serde_json::{Value, json};

use super::connect::Connected;
use crate::api::common::WorkloadRef;
use crate::api::{Rollout, names};

/// Attempts to change an object that others change at the same time.
const ATTEMPTS: usize = 5;

/// An object with a pod template. It is read and written as plain JSON, so that no field gets lost.
pub struct Holder {
    api: Api<DynamicObject>,
    /// As messages name it: `rollout`, `deployment`, …
    pub kind: &'static str,
    pub name: String,
    /// JSON pointer to the pod template.
    pub template: &'static str,
}

/// What stands at the end of a change.
pub enum Outcome {
    Changed,
    /// The object is so already.
    Unchanged,
}

impl Holder {
    pub fn of(connected: &Connected, rollout: &Rollout, name: &str) -> anyhow::Result<Self> {
        let (gvk, plural, kind, template, name) = match &rollout.spec.workload_ref {
            None => {
                let gvk = GroupVersionKind::gvk(names::GROUP, names::VERSION, "Rollout");
                (gvk, "rollouts", "rollout", "/spec/template", name.to_owned())
            }
            Some(reference) => {
                let (gvk, plural, kind, template) = workload(reference)?;
                let name = reference.name.clone().context("spec.workloadRef.name is not set")?;
                (gvk, plural, kind, template, name)
            }
        };
        let resource = ApiResource::from_gvk_with_plural(&gvk, plural);
        let api = Api::namespaced_with(connected.client.clone(), &connected.namespace, &resource);
        Ok(Self { api, kind, name, template })
    }

    /// Applies the operations that `edit` makes of the pod template. They are made anew when the object changes meanwhile.
    pub async fn change(&self, edit: impl Fn(&Value) -> anyhow::Result<Vec<Value>>) -> anyhow::Result<Outcome> {
        let mut attempt = 1;
        loop {
            let object = self.api.get(&self.name).await.with_context(|| self.to_string())?;
            let object_json = serde_json::to_value(&object).context("an object is JSON")?;
            let operations = edit(object_json.pointer(self.template).unwrap_or(&Value::Null))?;
            if operations.is_empty() {
                return Ok(Outcome::Unchanged);
            }
            let version = json!({
                "op": "test", "path": "/metadata/resourceVersion", "value": object.metadata.resource_version,
            });
            let operations: Vec<Value> = std::iter::once(version).chain(operations).collect();
            let patch: json_patch::Patch =
                serde_json::from_value(Value::Array(operations)).context("the operations are a JSON patch")?;
            match self.api.patch(&self.name, &PatchParams::default(), &Patch::Json::<()>(patch)).await {
                Ok(_) => return Ok(Outcome::Changed),
                // A failed test is "invalid": somebody was faster.
                Err(kube::Error::Api(status)) if [409, 422].contains(&status.code) && attempt < ATTEMPTS => {
                    attempt += 1;
                }
                Err(kube::Error::Api(status)) => bail!("{self}: {}", status.message),
                Err(error) => return Err(error).with_context(|| self.to_string()),
            }
        }
    }
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {:?}", self.kind, self.name)
    }
}

/// How the API server serves the kind of the reference, and where its pod template is.
fn workload(reference: &WorkloadRef) -> anyhow::Result<(GroupVersionKind, &'static str, &'static str, &'static str)> {
    match reference.kind.as_deref().unwrap_or_default() {
        "Deployment" => {
            Ok((GroupVersionKind::gvk("apps", "v1", "Deployment"), "deployments", "deployment", "/spec/template"))
        }
        "ReplicaSet" => {
            Ok((GroupVersionKind::gvk("apps", "v1", "ReplicaSet"), "replicasets", "replicaset", "/spec/template"))
        }
        "PodTemplate" => {
            Ok((GroupVersionKind::gvk("", "v1", "PodTemplate"), "podtemplates", "podtemplate", "/template"))
        }
        other => bail!("spec.workloadRef.kind is {other:?}; known: Deployment, ReplicaSet, PodTemplate"),
    }
}
