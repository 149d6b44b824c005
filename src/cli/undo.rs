//! `tidegate undo`: the pod template of an earlier revision again.

use std::collections::BTreeMap;
use std::process::ExitCode;

use anyhow::{Context, bail};
use k8s_openapi::api::apps::v1::ReplicaSet;
use kube::api::ListParams;
use serde_json::{Value, json};

use super::connect::Connection;
use super::kind;
use super::workload::{Holder, Outcome};
use crate::api::Rollout;
use crate::api::common::Metadata;
use crate::api::names;
use crate::api::pod_template::PodTemplate;

/// Go back to an earlier revision: the previous one, or that of --to-revision
#[derive(Debug, clap::Args)]
pub struct Undo {
    #[command(flatten)]
    connection: Connection,
    /// The rollout: NAME, or rollout NAME
    #[arg(required = true, num_args = 1..=2)]
    rollout: Vec<String>,
    /// Revision to go back to; 0 is the previous one
    #[arg(long, default_value_t = 0)]
    to_revision: i64,
}

impl Undo {
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        let name = kind::rollout(&self.rollout)?;
        let connected = self.connection.connect().await?;
        let rollout = connected.rollout(name).await?;
        let listed = connected.api().list(&ListParams::default()).await;
        let listed = listed.map_err(|error| connected.explain::<ReplicaSet>(error, name))?;
        let revisions = revisions(&rollout, listed.items);
        let revision = target(&revisions, self.to_revision)?;
        let template = user_template(&revisions[&revision])?;
        let holder = Holder::of(&connected, &rollout, name)?;
        let replacement = |present: &Value| {
            let present: Option<PodTemplate> = serde_json::from_value(present.clone()).ok();
            let operation = json!({"op": "replace", "path": holder.template, "value": template});
            Ok(if present.as_ref() == Some(&template) { Vec::new() } else { vec![operation] })
        };
        match holder.change(replacement).await? {
            Outcome::Changed => println!("rollout '{name}' undone to revision {revision}"),
            Outcome::Unchanged => {
                println!("skipped: the pods of rollout '{name}' are those of revision {revision} already");
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// The rollout's ReplicaSets by revision.
fn revisions(rollout: &Rollout, replica_sets: Vec<ReplicaSet>) -> BTreeMap<i64, ReplicaSet> {
    let mine = |replica_set: &ReplicaSet| {
        let owners = replica_set.metadata.owner_references.iter().flatten();
        owners
            .into_iter()
            .any(|owner| owner.controller == Some(true) && Some(&owner.uid) == rollout.metadata.uid.as_ref())
    };
    let with_revision = |replica_set: ReplicaSet| {
        let annotations = replica_set.metadata.annotations.as_ref()?;
        Some((annotations.get(names::REVISION)?.parse().ok()?, replica_set))
    };
    replica_sets.into_iter().filter(mine).filter_map(with_revision).collect()
}

fn target(revisions: &BTreeMap<i64, ReplicaSet>, wanted: i64) -> anyhow::Result<i64> {
    let known = || revisions.keys().map(i64::to_string).collect::<Vec<_>>().join(", ");
    if wanted != 0 {
        if revisions.contains_key(&wanted) {
            return Ok(wanted);
        }
        bail!("unable to find specified revision {wanted} in history; known: {}", known());
    }
    let previous = revisions.keys().rev().nth(1).copied();
    previous.with_context(|| format!("no revision to go back to; known: {}", known()))
}

/// The template as the user wrote it: without what the controller has added.
fn user_template(replica_set: &ReplicaSet) -> anyhow::Result<PodTemplate> {
    let template: Value = serde_json::to_value(replica_set.spec.as_ref().and_then(|spec| spec.template.as_ref()))?;
    let template: PodTemplate = serde_json::from_value(template)?;
    let annotations = replica_set.metadata.annotations.as_ref();
    let injected = annotations.and_then(|annotations| annotations.get(names::EPHEMERAL_METADATA));
    let injected: Metadata = injected.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    let template = template.without_label(names::POD_TEMPLATE_HASH);
    Ok(template
        .without_metadata(injected.labels.keys().map(String::as_str), injected.annotations.keys().map(String::as_str)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replica_set(name: &str, owner: &str, revision: &str) -> ReplicaSet {
        serde_json::from_value(json!({
            "metadata": {
                "name": name,
                "annotations": {
                    names::REVISION: revision,
                    names::EPHEMERAL_METADATA: r#"{"labels":{"role":"canary"}}"#,
                },
                "ownerReferences": [
                    {"apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout", "name": "web", "uid": owner, "controller": true}
                ],
            },
            "spec": {
                "selector": {},
                "template": {
                    "metadata": {"labels": {"app": "web", "role": "canary", names::POD_TEMPLATE_HASH: "abc"}},
                    "spec": {"containers": [{"name": "web", "image": "web:1"}]},
                },
            },
        }))
        .unwrap()
    }

    #[test]
    fn the_previous_revision_comes_back_as_the_user_wrote_it() {
        let rollout: Rollout =
            serde_json::from_value(json!({"metadata": {"name": "web", "uid": "mine"}, "spec": {}})).unwrap();
        let all = vec![
            replica_set("a", "mine", "1"),
            replica_set("b", "mine", "2"),
            replica_set("c", "theirs", "3"),
            replica_set("d", "mine", "4"),
        ];
        let revisions = revisions(&rollout, all);
        assert_eq!(target(&revisions, 0).unwrap(), 2);
        assert_eq!(target(&revisions, 1).unwrap(), 1);
        let error = target(&revisions, 3).unwrap_err().to_string();
        assert_eq!(error, "unable to find specified revision 3 in history; known: 1, 2, 4");
        let template = user_template(&revisions[&2]).unwrap();
        assert_eq!(*template.labels(), BTreeMap::from([("app".to_owned(), "web".to_owned())]));
        assert_eq!(template.containers().next().unwrap().image(), "web:1");
    }
}
