//! Which ReplicaSet is which, and what makes a new one.
//!
//! A ReplicaSet's label is its hash, whoever wrote it. It is never computed anew, and template, labels and selector of
//! an existing ReplicaSet are never rewritten: so a controller that computes other hashes can be taken over from, or
//! returned to, without a new revision or a restarted pod.

use std::collections::{BTreeMap, BTreeSet};

use kube::ResourceExt;
use serde_json::{Value, json};

use crate::api::Rollout;
use crate::api::blue_green::AntiAffinity;
use crate::api::common::{LabelSelector, Metadata};
use crate::api::pod_template::{Ignoring, PodTemplate, semantically_equal};
use crate::api::resource::{ObjectRef, REPLICA_SET, ROLLOUT};
use crate::api::{names, selector};
use crate::plan::{Action, Basis, FailedAction};
use crate::traffic::former;

use super::draft::{Draft, after};
use super::metadata;
use super::world::{ReplicaSet, World};

/// Annotations that a ReplicaSet does not take over from its Rollout: they belong to the one or the other.
const NOT_COPIED: [&str; 9] = [
    names::LAST_APPLIED,
    names::NOTIFIED,
    names::ROUTES,
    names::REVISION,
    names::REVISION_HISTORY,
    names::DESIRED_REPLICAS,
    names::EPHEMERAL_METADATA,
    names::SCALE_DOWN_DEADLINE,
    names::TAKES_OVER,
];

/// What a Rollout wants to run: from its spec, or from the workload that `workloadRef` names.
#[derive(Clone, Copy, Debug)]
pub struct Desired<'a> {
    pub template: &'a PodTemplate,
    pub selector: &'a LabelSelector,
}

/// The ReplicaSets of a Rollout by their role.
#[derive(Clone, Debug)]
pub struct Revisions<'a> {
    /// The one of the desired template. It may be the stable one too.
    pub new: Option<&'a ReplicaSet>,
    /// The one whose hash is `status.stableRS`.
    pub stable: Option<&'a ReplicaSet>,
    /// Neither of both, newest revision first.
    pub others: Vec<&'a ReplicaSet>,
    /// The hash of the desired template: the label of `new`, or the computed hash when there is none yet.
    pub hash: String,
    /// Orphans that the selector matches. They count in the fields above already.
    pub adopt: Vec<&'a ReplicaSet>,
    /// Owned ones that the selector no longer matches. They count in no field above.
    pub release: Vec<&'a ReplicaSet>,
}

impl<'a> Revisions<'a> {
    pub fn find(world: &'a World, desired: Desired<'_>) -> Self {
        let status = world.rollout.status.as_ref();
        let collision_count = status.and_then(|status| status.collision_count);
        let computed = desired.template.hash(collision_count);

        let (mut claimed, adopt, release) = claims(world, desired.selector);
        claimed.sort_by(|a, b| (a.created, &a.name).cmp(&(b.created, &b.name)));
        let current = status.map_or("", |status| &status.current_pod_hash);
        let new = find_new(&claimed, &computed, current, desired.template);

        let stable_hash = status.map_or("", |status| &status.stable_rs);
        let stable = claimed.iter().copied().find(|one| !stable_hash.is_empty() && one.hash() == stable_hash);

        let is = |one: &ReplicaSet, role: Option<&ReplicaSet>| role.is_some_and(|role| role.name == one.name);
        let mut others: Vec<_> = claimed.into_iter().filter(|one| !is(one, new) && !is(one, stable)).collect();
        others.sort_by(|a, b| (b.revision(), b.created, &b.name).cmp(&(a.revision(), a.created, &a.name)));

        let hash = new.map_or(computed, |new| new.hash().to_owned());
        Self { new, stable, others, hash, adopt, release }
    }

    /// Every ReplicaSet, once: stable, new, others.
    pub fn all(&self) -> impl Iterator<Item = &'a ReplicaSet> + '_ {
        let new = self.new.filter(|_| !self.is_fully_promoted());
        self.stable.into_iter().chain(new).chain(self.others.iter().copied())
    }

    /// Whether `new` and `stable` are one ReplicaSet.
    pub fn is_fully_promoted(&self) -> bool {
        matches!((self.new, self.stable), (Some(new), Some(stable)) if new.name == stable.name)
    }

    /// The revision number that `new` has, or gets: one more than the highest among the rest, unless it has a higher one.
    pub fn number(&self) -> i64 {
        let is_new = |one: &ReplicaSet| self.new.is_some_and(|new| new.name == one.name);
        let highest = self.all().filter(|one| !is_new(one)).map(ReplicaSet::revision).max().unwrap_or(0);
        self.new.map_or(0, ReplicaSet::revision).max(highest.saturating_add(1))
    }
}

/// Splits the ReplicaSets of the World: those that belong to the Rollout; of these, orphans to adopt; owned ones to release.
///
/// One without a hash label is nobody's revision and stays untouched.
#[allow(clippy::type_complexity)]
fn claims<'a>(
    world: &'a World,
    wanted: &LabelSelector,
) -> (Vec<&'a ReplicaSet>, Vec<&'a ReplicaSet>, Vec<&'a ReplicaSet>) {
    let rollout = &world.rollout.metadata;
    let (mut claimed, mut adopt, mut release) = (Vec::new(), Vec::new(), Vec::new());
    for one in world.replica_sets.iter().filter(|one| !one.hash().is_empty()) {
        let matches = selector::matches(wanted, &one.labels);
        match &one.controller {
            Some(uid) if Some(uid) == rollout.uid.as_ref() => {
                if matches { &mut claimed } else { &mut release }.push(one);
            }
            Some(_) => {}
            None if matches && !one.deleting && rollout.deletion_timestamp.is_none() => {
                claimed.push(one);
                adopt.push(one);
            }
            None => {}
        }
    }
    (claimed, adopt, release)
}

/// The ReplicaSet of the desired template, among `claimed` (oldest first).
///
/// 1. The one that `status.currentPodHash` names, if its pods are those of the template. So whoever was current stays
///    current, also when an older controller hashed the template otherwise and a twin carries today's hash.
/// 2. The one labelled with the computed hash.
/// 3. One whose pods are those of the template. This finds what was labelled by an Argo Rollouts before 1.9 (another JSON),
///    and also by its very first versions (a hash over a deep print), which therefore need no rule of their own.
fn find_new<'a>(
    claimed: &[&'a ReplicaSet],
    computed: &str,
    current: &str,
    template: &PodTemplate,
) -> Option<&'a ReplicaSet> {
    let by_hash = |hash: &str| claimed.iter().copied().find(|one| !hash.is_empty() && one.hash() == hash);
    let kept = if current == computed { None } else { by_hash(current).filter(|one| has_pods_of(one, template)) };
    kept.or_else(|| by_hash(computed)).or_else(|| claimed.iter().copied().find(|one| has_pods_of(one, template)))
}

/// The template as it was before a ReplicaSet was made of it: without the hash and without ephemeral metadata.
pub(super) fn own_template(replica_set: &ReplicaSet) -> PodTemplate {
    let injected = injected(replica_set).unwrap_or_default();
    let labels = injected.labels.keys().map(String::as_str).chain([names::POD_TEMPLATE_HASH]);
    replica_set.template.without_metadata(labels, injected.annotations.keys().map(String::as_str))
}

/// The ephemeral metadata that was put into the template of a ReplicaSet, if there is any.
pub(super) fn injected(replica_set: &ReplicaSet) -> Option<Metadata> {
    replica_set.annotations.get(names::EPHEMERAL_METADATA).and_then(|text| serde_json::from_str(text).ok())
}

fn has_pods_of(replica_set: &ReplicaSet, template: &PodTemplate) -> bool {
    let injected = injected(replica_set);
    let ignoring = Ignoring {
        ephemeral_labels: injected.as_ref().map(|metadata| &metadata.labels),
        ephemeral_annotations: injected.as_ref().map(|metadata| &metadata.annotations),
    };
    semantically_equal(template, &replica_set.template, ignoring)
}

/// The writes that take orphans in and let strangers go.
pub fn claim(world: &World, revisions: &Revisions<'_>) -> Vec<Action> {
    let adopt = revisions.adopt.iter().map(|one| {
        let patch = json!({ "metadata": { "ownerReferences": [world.rollout.owner_reference()] } });
        (one, patch, "adopted")
    });
    let release = revisions.release.iter().map(|one| {
        let patch = json!({ "metadata": { "ownerReferences": null } });
        (one, patch, "released: the selector no longer matches")
    });
    // A list is replaced as a whole, so under the resourceVersion: nobody else's new reference is lost unseen.
    let write = |(one, patch, what): (&&ReplicaSet, Value, &str)| Action::MergePatch {
        object: basis(world, one, true),
        patch,
        what: what.to_owned(),
    };
    adopt.chain(release).map(write).collect()
}

/// The ReplicaSet for the desired template, with no pods yet. To be called when `new` is none and [`collision`] too.
pub fn create(world: &World, revisions: &Revisions<'_>, desired: Desired<'_>) -> Action {
    let rollout = &world.rollout;
    let hash = &revisions.hash;
    let name = new_name(rollout, hash);
    let mut labels = desired.template.labels().clone();
    labels.insert(names::POD_TEMPLATE_HASH.to_owned(), hash.clone());
    let mut selector = desired.selector.clone();
    selector.match_labels.get_or_insert_default().insert(names::POD_TEMPLATE_HASH.to_owned(), hash.clone());

    let mut annotations: BTreeMap<_, _> = copied_annotations(rollout).collect();
    let revision = revisions.number().to_string();
    annotations.insert(names::REVISION, &revision);

    let mut template = desired.template.with_label(names::POD_TEMPLATE_HASH, hash);
    if let Some(term) = anti_affinity_term(rollout, hash) {
        template = with_term(template, term);
    }
    let ephemeral = metadata::of_new(&rollout.spec.strategy, revisions);
    let injected = ephemeral.map(|metadata| json!(metadata).to_string());
    if let (Some(metadata), Some(injected)) = (ephemeral, &injected) {
        template = template.with_metadata(&metadata.labels, &metadata.annotations);
        annotations.insert(names::EPHEMERAL_METADATA, injected);
    }

    let body = json!({
        "apiVersion": REPLICA_SET.api_version(),
        "kind": REPLICA_SET.kind,
        "metadata": {
            "name": name,
            "namespace": rollout.namespace(),
            "labels": labels,
            "annotations": annotations,
            "ownerReferences": [rollout.owner_reference()],
        },
        "spec": {
            "replicas": 0,
            "minReadySeconds": rollout.spec.min_ready_seconds,
            "selector": selector,
            "template": template,
        },
    });
    Action::Create { object: reference(world, &name), body }
}

/// The `status.collisionCount` to write instead of creating, when the name of the new ReplicaSet is taken: by a stranger
/// (the server said so), or by one of the Rollout's that is not of this template.
pub fn collision(world: &World, revisions: &Revisions<'_>) -> Option<i32> {
    if revisions.new.is_some() {
        return None;
    }
    let name = new_name(&world.rollout, &revisions.hash);
    let refused = world.failures.iter().any(|failure| {
        failure.action == FailedAction::Create
            && failure.object == reference(world, &name)
            && failure.error.contains("already exists")
    });
    let seen = world.replica_sets.iter().any(|one| one.name == name && !one.deleting);
    let count = world.rollout.status.as_ref().and_then(|status| status.collision_count).unwrap_or(0);
    (refused || seen).then(|| count.saturating_add(1))
}

/// The write that brings annotations, `minReadySeconds` and an injected anti-affinity of an existing `new` up to date.
pub fn update(world: &World, revisions: &Revisions<'_>) -> Option<Action> {
    let new = revisions.new?;
    let rollout = &world.rollout;
    let mut patch = json!({});
    let mut what = Vec::new();

    let mut annotations: BTreeMap<_, _> = copied_annotations(rollout)
        .filter(|(key, value)| new.annotations.get(*key).map(String::as_str) != Some(*value))
        .map(|(key, value)| (key, value.to_owned()))
        .collect();
    let number = revisions.number();
    if number > new.revision() {
        annotations.insert(names::REVISION, number.to_string());
        // What it was before, for `undo --to-revision` and for people.
        if let Some(old) = new.annotations.get(names::REVISION) {
            let earlier = new.annotations.get(names::REVISION_HISTORY).filter(|list| !list.is_empty());
            let history = earlier.map_or_else(|| old.clone(), |list| format!("{list},{old}"));
            annotations.insert(names::REVISION_HISTORY, history);
        }
        what.push(format!("revision {number}"));
    }
    if !annotations.is_empty() {
        patch["metadata"]["annotations"] = json!(annotations);
        if what.is_empty() {
            what.push("annotations".to_owned());
        }
    }
    if new.min_ready_seconds != rollout.spec.min_ready_seconds {
        patch["spec"]["minReadySeconds"] = rollout.spec.min_ready_seconds.into();
        what.push(format!("minReadySeconds {}", rollout.spec.min_ready_seconds));
    }
    let affinity = refreshed_affinity(rollout, new);
    let lists_replaced = affinity.is_some();
    if let Some(affinity) = affinity {
        patch["spec"]["template"]["spec"]["affinity"] = affinity;
        what.push("anti-affinity".to_owned());
    }
    (!what.is_empty()).then(|| Action::MergePatch {
        object: basis(world, new, lists_replaced),
        patch,
        what: what.join(", "),
    })
}

/// The write of the revision annotation of the Rollout, if it is not right yet.
pub fn annotate_rollout(world: &World, revisions: &Revisions<'_>) -> Option<Action> {
    let rollout = &world.rollout;
    let number = revisions.number().to_string();
    if rollout.annotations().get(names::REVISION) == Some(&number) {
        return None;
    }
    let mut annotations = json!({ (names::REVISION): number });
    // The routes that the update may move, in the same write.
    if !former::is_recorded(rollout) {
        annotations[names::ROUTES] = former::text(&former::with_current(rollout)).into();
    }
    Some(Action::MergePatch {
        object: Basis {
            object: ObjectRef::new(ROLLOUT, rollout.namespace().unwrap_or_default(), rollout.name_any()),
            uid: rollout.uid().unwrap_or_default(),
            resource_version: None,
        },
        what: format!("revision {number}"),
        patch: json!({ "metadata": { "annotations": annotations } }),
    })
}

/// Seconds for which a request may be on its way: the API server's own limit. A ReplicaSet that is deleted within them could
/// be brought back, with all of its pods, by the request that made it: of a leader that stood still meanwhile.
const IN_FLIGHT_SECONDS: i64 = 60;

/// The names of the others that `revisionHistoryLimit` leaves no room for and that have no pods, for the guard's
/// proposal. The oldest are beyond the limit first; one that still has pods keeps its place until they are gone.
pub(super) fn beyond_history(draft: &mut Draft<'_>, revisions: &Revisions<'_>) -> BTreeSet<String> {
    let world = draft.world;
    let limit = usize::try_from(world.rollout.spec.revision_history_limit()).unwrap_or(0);
    let mut others = revisions.others.clone();
    others.sort_by(|a, b| (a.created, &a.name).cmp(&(b.created, &b.name)));
    others.truncate(others.len().saturating_sub(limit));
    let idle = |one: &&ReplicaSet| one.replicas == 0 && one.status.replicas == 0 && one.is_reported() && !one.deleting;
    let (old, young): (Vec<_>, Vec<_>) =
        others.into_iter().filter(idle).partition(|one| after(one.created, IN_FLIGHT_SECONDS) <= world.now);
    young.into_iter().for_each(|one| draft.wake_at(after(one.created, IN_FLIGHT_SECONDS)));
    old.into_iter().map(|one| one.name.clone()).collect()
}

fn copied_annotations(rollout: &Rollout) -> impl Iterator<Item = (&str, &str)> {
    let all = rollout.annotations().iter().map(|(key, value)| (key.as_str(), value.as_str()));
    all.filter(|(key, _)| !NOT_COPIED.contains(key))
}

/// The term that keeps pods of `hash` off the nodes of the stable version, and the field it belongs in.
fn anti_affinity_term(rollout: &Rollout, hash: &str) -> Option<(&'static str, Value)> {
    let stable = rollout.status.as_ref().map(|status| status.stable_rs.as_str()).unwrap_or_default();
    if stable.is_empty() || stable == hash {
        return None;
    }
    let strategy = &rollout.spec.strategy;
    let canary = strategy.canary.as_ref().and_then(|canary| canary.anti_affinity.as_ref());
    let blue_green = strategy.blue_green.as_ref().and_then(|blue_green| blue_green.anti_affinity.as_ref());
    let AntiAffinity {
        preferred_during_scheduling_ignored_during_execution: preferred,
        required_during_scheduling_ignored_during_execution: required,
    } = canary.or(blue_green)?;
    let term = json!({
        "labelSelector": {
            "matchExpressions": [{ "key": names::POD_TEMPLATE_HASH, "operator": "In", "values": [stable] }],
        },
        "namespaces": [rollout.namespace()],
        "topologyKey": "kubernetes.io/hostname",
    });
    match (preferred, required) {
        (Some(preferred), _) => Some((
            "preferredDuringSchedulingIgnoredDuringExecution",
            json!({ "weight": preferred.weight, "podAffinityTerm": term }),
        )),
        (None, Some(_)) => Some(("requiredDuringSchedulingIgnoredDuringExecution", term)),
        (None, None) => None,
    }
}

fn with_term(template: PodTemplate, (field, term): (&str, Value)) -> PodTemplate {
    let mut template = template.to_value();
    // Indexing makes objects of what is missing or null; anything else was refused as an invalid template.
    let mut place = Some(&mut template);
    for key in ["spec", "affinity", "podAntiAffinity", field] {
        place = place.and_then(|value| {
            if value.is_null() {
                *value = json!({});
            }
            value.as_object_mut().map(|object| object.entry(key).or_insert(Value::Null))
        });
    }
    if let Some(list) = place {
        if list.is_null() {
            *list = json!([]);
        }
        if let Some(list) = list.as_array_mut() {
            list.push(term);
        }
    }
    template.into()
}

/// The affinity of `new` with its injected term pointed at the present stable version, if it points at another.
fn refreshed_affinity(rollout: &Rollout, new: &ReplicaSet) -> Option<Value> {
    let stable = rollout.status.as_ref().map(|status| status.stable_rs.as_str()).unwrap_or_default();
    if stable.is_empty() || stable == new.hash() || !new.template.may_have_anti_affinity() {
        return None;
    }
    let mut affinity = new.template.to_value().pointer("/spec/affinity")?.clone();
    let mut changed = false;
    for (field, term) in [
        ("preferredDuringSchedulingIgnoredDuringExecution", "/podAffinityTerm"),
        ("requiredDuringSchedulingIgnoredDuringExecution", ""),
    ] {
        let terms = affinity.get_mut("podAntiAffinity").and_then(|anti| anti.get_mut(field));
        for entry in terms.and_then(Value::as_array_mut).into_iter().flatten() {
            let path = format!("{term}/labelSelector/matchExpressions/0");
            let Some(expression) = entry.pointer_mut(&path) else { continue };
            if expression["key"] == names::POD_TEMPLATE_HASH && expression["values"] != json!([stable]) {
                expression["values"] = json!([stable]);
                changed = true;
            }
        }
    }
    changed.then_some(affinity)
}

fn new_name(rollout: &Rollout, hash: &str) -> String {
    format!("{}-{hash}", rollout.name_any())
}

fn reference(world: &World, name: &str) -> ObjectRef {
    ObjectRef::new(REPLICA_SET, world.rollout.namespace().unwrap_or_default(), name)
}

/// The precondition for a write to a ReplicaSet; with `exact`, that nothing at all has changed about it.
pub(super) fn basis(world: &World, replica_set: &ReplicaSet, exact: bool) -> Basis {
    Basis {
        object: reference(world, &replica_set.name),
        uid: replica_set.uid.clone(),
        resource_version: exact.then(|| replica_set.resource_version.clone()),
    }
}

#[cfg(test)]
mod tests;
