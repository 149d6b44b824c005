//! The ReplicaSet of a template: which one it is, and what makes it.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::api::experiment::ExperimentTemplate;
use crate::api::names::{EXPERIMENT_NAME, EXPERIMENT_TEMPLATE_NAME, POD_TEMPLATE_HASH};
use crate::api::pod_template::PodTemplate;
use crate::api::replica_set::ReplicaSet;
use crate::api::resource::REPLICA_SET;
use crate::plan::Basis;

use super::ExperimentWorld;
use super::draft::Draft;

/// The ReplicaSet of a template: by its annotation, or by its name if somebody took that away. The oldest, if there are
/// several.
pub(super) fn find<'a>(world: &'a ExperimentWorld, template: &ExperimentTemplate) -> Option<&'a ReplicaSet> {
    let name = name(world, template);
    let alive = || world.replica_sets.iter().filter(|set| !set.deleting);
    let annotated = alive().filter(|set| set.annotations.get(EXPERIMENT_TEMPLATE_NAME) == Some(&template.name));
    annotated.min_by_key(|set| (set.created, &set.name)).or_else(|| alive().find(|set| set.name == name))
}

/// `EXPERIMENT-TEMPLATE`
pub(super) fn name(world: &ExperimentWorld, template: &ExperimentTemplate) -> String {
    format!("{}-{}", world.experiment.metadata.name.as_deref().unwrap_or_default(), template.name)
}

/// The ReplicaSet for a template, at its size.
pub(super) fn body(draft: &Draft<'_>, template: &ExperimentTemplate) -> Value {
    let hash = hash(draft, template);
    let pods = pods(template).with_label(POD_TEMPLATE_HASH, &hash);
    let mut selector = template.selector.clone().unwrap_or_default();
    selector.match_labels.get_or_insert_default().insert(POD_TEMPLATE_HASH.to_owned(), hash);
    json!({
        "apiVersion": REPLICA_SET.api_version(),
        "kind": REPLICA_SET.kind,
        "metadata": {
            "name": name(draft.world, template),
            "namespace": draft.namespace(),
            "labels": pods.labels(),
            "annotations": { (EXPERIMENT_NAME): draft.name(), (EXPERIMENT_TEMPLATE_NAME): template.name },
            "ownerReferences": [draft.experiment.owner_reference()],
        },
        "spec": {
            "replicas": template.desired_replicas(),
            "minReadySeconds": template.min_ready_seconds,
            "selector": selector,
            "template": pods,
        },
    })
}

/// The precondition for a write to a ReplicaSet; with `exact`, that nothing at all has changed about it.
pub(super) fn basis(draft: &Draft<'_>, replica_set: &ReplicaSet, exact: bool) -> Basis {
    Basis {
        object: draft.object(REPLICA_SET, &replica_set.name),
        uid: replica_set.uid.clone(),
        resource_version: exact.then(|| replica_set.resource_version.clone()),
    }
}

/// The pods of a template, without the hash that they had where they were copied from.
fn pods(template: &ExperimentTemplate) -> PodTemplate {
    template.template.clone().unwrap_or_default().without_label(POD_TEMPLATE_HASH)
}

/// The hash that sets the pods of a template apart: from those of the revision that it was copied from, whose Services
/// must not reach them, and from those of the other templates.
fn hash(draft: &Draft<'_>, template: &ExperimentTemplate) -> String {
    let mut taken: BTreeSet<String> = BTreeSet::new();
    taken.extend(draft.world.replica_sets.iter().map(|set| set.hash().to_owned()));
    for other in &draft.experiment.spec.templates {
        let hash = unlike(draft, other, &taken);
        if other.name == template.name {
            return hash;
        }
        if find(draft.world, other).is_none() {
            taken.insert(hash);
        }
    }
    unlike(draft, template, &taken)
}

/// The hash of a template's pods, hashed again as after a collision for as long as it is taken.
fn unlike(draft: &Draft<'_>, template: &ExperimentTemplate, taken: &BTreeSet<String>) -> String {
    let original = template.template.iter().find_map(|pods| pods.labels().get(POD_TEMPLATE_HASH).cloned());
    let pods = pods(template);
    let status = draft.status.template_statuses.iter().find(|status| status.name == template.name);
    let mut collisions = status.and_then(|status| status.collision_count);
    loop {
        let hash = pods.hash(collisions);
        if !taken.contains(&hash) && original.as_ref() != Some(&hash) {
            return hash;
        }
        collisions = Some(collisions.unwrap_or(0).saturating_add(1));
    }
}
