//! Ephemeral metadata: labels and annotations that tell the pods of the versions apart while a release is under way.
//!
//! They go into the template of the ReplicaSet first, so that new pods have them, and then onto the pods that are there;
//! no pod is restarted. Both are never one write, so a ReplicaSet whose pods have not been seen to follow says so in an
//! annotation, with the keys that may still have to go: a crash in between forgets nothing.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::api::common::Metadata;
use crate::api::names::{EPHEMERAL_METADATA, PODS_METADATA};
use crate::api::resource::POD;
use crate::api::rollout::Strategy;
use crate::plan::{Action, Basis};

use super::draft::Draft;
use super::revision::{self, Revisions};
use super::world::ReplicaSet;

/// Whether pods may have to be told of new metadata, so that a decision needs to see them.
pub(super) fn is_pending(replica_set: &ReplicaSet) -> bool {
    replica_set.annotations.contains_key(PODS_METADATA)
        // The controller of ReplicaSets may still make pods of the template as it was.
        && replica_set.is_reported()
}

/// Brings the metadata of all ReplicaSets and of their pods to what the strategy says.
pub(super) fn sync(draft: &mut Draft<'_>, strategy: &Strategy, revisions: &Revisions<'_>) {
    for set in revisions.all().filter(|set| !set.deleting) {
        let wanted = wanted(strategy, revisions, set);
        let injected = revision::injected(set);
        if injected.as_ref() != wanted || !has(set.template.labels(), set.template.annotations(), wanted) {
            change_template(draft, set, injected.unwrap_or_default(), wanted);
        } else if is_pending(set) {
            follow(draft, set, wanted);
        }
    }
}

/// The metadata of a new ReplicaSet: that of a canary or preview, unless there is nothing else to be stable.
pub(super) fn of_new<'a>(strategy: &'a Strategy, revisions: &Revisions<'_>) -> Option<&'a Metadata> {
    let (trial, stable) = sets(strategy);
    if revisions.stable.is_some() { trial } else { stable }
}

/// The metadata that the pods of a ReplicaSet should have.
fn wanted<'a>(strategy: &'a Strategy, revisions: &Revisions<'_>, set: &ReplicaSet) -> Option<&'a Metadata> {
    let is = |role: Option<&ReplicaSet>| role.is_some_and(|role| role.name == set.name);
    let (_, stable) = sets(strategy);
    let metadata = if is(revisions.new) && !revisions.is_fully_promoted() {
        of_new(strategy, revisions)
    } else if is(revisions.stable) {
        stable
    } else {
        None
    };
    metadata.filter(|metadata| **metadata != Metadata::default())
}

/// What a strategy says: of the version on trial, and of the stable one.
fn sets(strategy: &Strategy) -> (Option<&Metadata>, Option<&Metadata>) {
    match (&strategy.canary, &strategy.blue_green) {
        (Some(canary), _) => (canary.canary_metadata.as_ref(), canary.stable_metadata.as_ref()),
        (None, Some(blue_green)) => (blue_green.preview_metadata.as_ref(), blue_green.active_metadata.as_ref()),
        (None, None) => (None, None),
    }
}

fn change_template(draft: &mut Draft<'_>, set: &ReplicaSet, injected: Metadata, wanted: Option<&Metadata>) {
    let mut stale = pending(set);
    stale.labels.extend(injected.labels);
    stale.annotations.extend(injected.annotations);
    let template = changes(set.template.labels(), set.template.annotations(), &stale, wanted);
    let recorded = wanted.map_or(Value::Null, |metadata| json!(metadata).to_string().into());
    let mut annotations = json!({ (EPHEMERAL_METADATA): recorded });
    if set.replicas > 0 || set.status.replicas > 0 {
        annotations[PODS_METADATA] = json!(stale).to_string().into();
    }
    let mut patch = json!({ "metadata": { "annotations": annotations } });
    if let Some(template) = template {
        patch["spec"]["template"]["metadata"] = template;
    }
    let what =
        format!("metadata of its pods {}", wanted.map_or("none".to_owned(), |metadata| json!(metadata).to_string()));
    draft.because(format!("{}: {what}", set.name));
    // Only our own keys are written, so whatever else has changed meanwhile does not matter.
    let object = revision::basis(draft.world, set, false);
    draft.act(Action::MergePatch { object, patch, what }, None);
}

/// Tells the pods that were made before the template was changed.
fn follow(draft: &mut Draft<'_>, set: &ReplicaSet, wanted: Option<&Metadata>) {
    let world = draft.world;
    // Without a list the shell could not read them; it will try again.
    let Some(pods) = &world.pods else { return draft.wake_after_failure() };
    let stale = pending(set);
    let mut complete = true;
    for pod in pods.iter().filter(|pod| pod.controller == set.uid && !pod.over) {
        let Some(metadata) = changes(&pod.labels, &pod.annotations, &stale, wanted) else { continue };
        complete = false;
        let object = Basis { object: draft.object(POD, &pod.name), uid: pod.uid.clone(), resource_version: None };
        let action = Action::MergePatch { object, patch: json!({ "metadata": metadata }), what: "metadata".to_owned() };
        draft.act(action, None);
    }
    if complete {
        draft.annotate(set, &BTreeMap::from([(PODS_METADATA.to_owned(), None)]));
    } else {
        draft.because(format!("{}: tell its pods of their metadata", set.name));
        draft.wake_now();
    }
}

/// The metadata that pods of a ReplicaSet may still have from before.
fn pending(set: &ReplicaSet) -> Metadata {
    set.annotations.get(PODS_METADATA).and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
}

fn has(labels: &BTreeMap<String, String>, annotations: &BTreeMap<String, String>, wanted: Option<&Metadata>) -> bool {
    wanted.is_none_or(|wanted| {
        wanted.labels.iter().all(|(key, value)| labels.get(key) == Some(value))
            && wanted.annotations.iter().all(|(key, value)| annotations.get(key) == Some(value))
    })
}

/// A merge patch of metadata that adds what is wanted and takes away what is stale; none when nothing has to change. Keys
/// that were never put there by us are left alone.
fn changes(
    labels: &BTreeMap<String, String>,
    annotations: &BTreeMap<String, String>,
    stale: &Metadata,
    wanted: Option<&Metadata>,
) -> Option<Value> {
    let none = BTreeMap::new();
    let wanted_of = |field: fn(&Metadata) -> &BTreeMap<String, String>| wanted.map_or(&none, field);
    let mut patch = Map::new();
    for (field, present, stale, wanted) in [
        ("labels", labels, &stale.labels, wanted_of(|metadata| &metadata.labels)),
        ("annotations", annotations, &stale.annotations, wanted_of(|metadata| &metadata.annotations)),
    ] {
        let added = wanted.iter().filter(|(key, value)| present.get(*key) != Some(*value));
        let mut keys: Map<String, Value> = added.map(|(key, value)| (key.clone(), value.as_str().into())).collect();
        let gone = stale.keys().filter(|key| present.contains_key(*key) && !wanted.contains_key(*key));
        keys.extend(gone.map(|key| (key.clone(), Value::Null)));
        if !keys.is_empty() {
            patch.insert(field.to_owned(), keys.into());
        }
    }
    (!patch.is_empty()).then_some(Value::Object(patch))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata(value: Value) -> Metadata {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn only_keys_of_our_own_are_taken_away() {
        let labels = BTreeMap::from([("role", "canary"), ("app", "web"), ("mine", "1")]);
        let labels = labels.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        let stale = metadata(json!({"labels": {"role": "canary", "gone": "x"}, "annotations": {"note": "y"}}));
        let wanted = metadata(json!({"labels": {"tier": "gold"}}));
        assert_eq!(
            changes(&labels, &BTreeMap::new(), &stale, Some(&wanted)),
            Some(json!({"labels": {"role": null, "tier": "gold"}}))
        );
        assert_eq!(changes(&labels, &BTreeMap::new(), &Metadata::default(), None), None);
        let kept = metadata(json!({"labels": {"role": "stable"}}));
        assert_eq!(
            changes(&labels, &BTreeMap::new(), &stale, Some(&kept)),
            Some(json!({"labels": {"role": "stable"}}))
        );
    }

    #[test]
    fn a_pod_that_has_lost_nothing_is_left_alone() {
        let pod = BTreeMap::from([("role".to_owned(), "stable".to_owned())]);
        let stale = metadata(json!({"labels": {"role": "canary"}}));
        let wanted = metadata(json!({"labels": {"role": "stable"}}));
        assert_eq!(changes(&pod, &BTreeMap::new(), &stale, Some(&wanted)), None);
    }
}
