//! What the watches have seen, found by what decisions ask for: by name, by owner, and by who refers to it.
//!
//! One map holds all objects; the others lead into it. An event costs a few look-ups and names exactly the Rollouts,
//! AnalysisRuns and Experiments that it concerns; building a World touches only what belongs to its Rollout.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use kube::core::{Selector, SelectorExt};
use serde_json::Value;

use crate::api::names;
use crate::api::resource::{self, ObjectRef, Resource};
use crate::api::{AnalysisRun, Rollout};
use crate::rollout::world::{Observed, ReplicaSet, Service, Workload};
use crate::traffic::istio::destination_rule;

use super::envelope::{Envelope, Object};
use super::references::{References, is_on_demand, is_route, is_workload};
use super::relation::Relation;

/// The objects of the cluster that concern us.
#[derive(Debug, Default)]
pub struct Index {
    objects: BTreeMap<ObjectRef, Entry>,
    /// By uid of the controlling owner.
    children: Relation<String>,
    /// ReplicaSets without a controlling owner.
    orphans: BTreeSet<ObjectRef>,
    /// From a Rollout to the Services and DestinationRules that are marked as managed by it.
    managed: Relation<ObjectRef>,
    /// From an object to those that refer to it.
    referrers: Relation<ObjectRef>,
    /// From a kind of routes to the Rollouts that select some of it by labels.
    selecting: Relation<Resource>,
    kinds: BTreeMap<Resource, Kind>,
    /// Services and routes that somebody refers to and that were deleted within [`REMEMBERED`].
    gone: BTreeMap<ObjectRef, Gone>,
}

/// For how long it is remembered that an object was deleted: longer than any propagation delay that makes sense.
const REMEMBERED: SignedDuration = SignedDuration::from_hours(1);

/// How far the clock of the API server may be behind ours when its dates are trusted: its whole seconds, and what clocks
/// differ by that nobody has looked after. A controller that is restarted again and again then loses ten seconds once, not
/// the propagation delay each time.
const SKEW: SignedDuration = SignedDuration::from_secs(10);

/// An object that is not there any more.
#[derive(Debug)]
struct Gone {
    at: Timestamp,
    object: Object,
}

/// How well a kind is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Knowledge {
    /// Nobody watches it.
    Unwatched,
    /// The first list has not ended.
    Syncing,
    Synced,
    /// The cluster does not serve it, or does not let us read it.
    Absent,
}

/// An object, and what the index knows about it beside.
#[derive(Debug)]
pub struct Entry {
    pub uid: String,
    pub resource_version: String,
    pub deleting: bool,
    pub object: Object,
    /// When the part that directs traffic was first seen as it is.
    since: Timestamp,
    /// The deciding object that controls this one.
    controller: Option<(ObjectRef, String)>,
    references: Option<Box<References>>,
}

/// What an event leads to.
#[derive(Debug, Default, PartialEq)]
pub struct Effects {
    /// Rollouts, AnalysisRuns and Experiments to decide about again.
    pub concerned: BTreeSet<ObjectRef>,
    /// Kinds that are needed now and that nobody watches yet.
    pub wanted: BTreeSet<Resource>,
    /// Objects that were not there before.
    pub added: BTreeSet<ObjectRef>,
    /// Objects that are gone, with their uid.
    pub removed: BTreeMap<ObjectRef, String>,
}

#[derive(Debug)]
struct Kind {
    knowledge: Knowledge,
    /// While a list runs: what was there before it and has not come up in it yet.
    unseen: Option<BTreeSet<ObjectRef>>,
}

impl Index {
    /// Takes in an object as it was seen by a watch, a list or a live read. What is older than what is known is ignored.
    pub fn apply(&mut self, resource: Resource, envelope: Envelope, now: Timestamp) -> Effects {
        let reference = envelope.metadata.reference(resource);
        if let Some(unseen) = self.kinds.get_mut(&resource).and_then(|kind| kind.unseen.as_mut()) {
            unseen.remove(&reference);
        }
        if is_workload(resource) && !self.referrers.has(reference.clone()) {
            self.objects.remove(&reference);
            return Effects::default();
        }
        let known = self.objects.get(&reference);
        if known.is_some_and(|known| {
            known.uid == envelope.metadata.uid && !newer(&envelope.metadata.resource_version, &known.resource_version)
        }) {
            return Effects::default();
        }
        let replaces = known.is_some();
        let mut effects = Effects::default();
        let old = self.take(&reference, &mut effects);
        let before = old.as_ref().and_then(Entry::workload).cloned();
        let entry = self.entry(resource, &reference, envelope, old, now);
        self.link(&reference, &entry, &mut effects);
        let news = entry.workload().is_none_or(|now| before.is_none_or(|before| !now.asks_the_same(&before)));
        self.gone.remove(&reference);
        self.objects.insert(reference.clone(), entry);
        if news {
            self.concern(&reference, &mut effects);
        }
        if !replaces {
            effects.added.insert(reference);
        }
        effects
    }

    /// Takes out an object that a watch saw deleted, or that a live read did not find. `uid` names which one it was; any
    /// when empty.
    pub fn remove(&mut self, reference: &ObjectRef, uid: &str, now: Timestamp) -> Effects {
        let mut effects = Effects::default();
        if self.objects.get(reference).is_none_or(|known| !uid.is_empty() && known.uid != uid) {
            return effects;
        }
        self.concern(reference, &mut effects);
        if let Some(entry) = self.take(reference, &mut effects) {
            effects.removed.insert(reference.clone(), entry.uid);
            self.miss(reference, entry.object, now);
        }
        effects
    }

    /// Remembers an object that has directed traffic for somebody.
    fn miss(&mut self, reference: &ObjectRef, object: Object, now: Timestamp) {
        self.gone.retain(|_, gone| now.duration_since(gone.at) < REMEMBERED);
        let directs = matches!(object, Object::Service(_) | Object::Route(_));
        let concerns = self.referrers.has(reference.clone()) || self.selecting.has(reference.resource);
        if directs && concerns {
            self.gone.insert(reference.clone(), Gone { at: now, object });
        }
    }

    /// A kind is being watched from now on.
    pub fn watched(&mut self, resource: Resource) {
        self.kinds.entry(resource).or_insert(Kind { knowledge: Knowledge::Syncing, unseen: None });
    }

    /// A kind is needed, although nothing that is known refers to some of it.
    pub fn need(&mut self, resource: Resource) -> Effects {
        let mut effects = Effects::default();
        self.want(resource, &mut effects);
        effects
    }

    /// A list of the kind begins: what does not come up in it is gone.
    pub fn list_begins(&mut self, resource: Resource) {
        let there = self.of_kind(resource).map(|(reference, _)| reference.clone()).collect();
        self.watched(resource);
        if let Some(kind) = self.kinds.get_mut(&resource) {
            kind.unseen = Some(there);
        }
    }

    /// The list is complete.
    pub fn list_ends(&mut self, resource: Resource, now: Timestamp) -> Effects {
        let unseen = self.kinds.get_mut(&resource).and_then(|kind| kind.unseen.take()).unwrap_or_default();
        let mut effects = self.learn(resource, Knowledge::Synced);
        for reference in unseen {
            effects.merge(self.remove(&reference, "", now));
        }
        effects
    }

    /// The cluster does not have the kind.
    pub fn absent(&mut self, resource: Resource, now: Timestamp) -> Effects {
        let mut effects = self.learn(resource, Knowledge::Absent);
        let gone: Vec<ObjectRef> = self.of_kind(resource).map(|(reference, _)| reference.clone()).collect();
        for reference in gone {
            effects.merge(self.remove(&reference, "", now));
        }
        effects
    }

    pub fn knowledge(&self, resource: Resource) -> Knowledge {
        self.kinds.get(&resource).map_or(Knowledge::Unwatched, |kind| kind.knowledge)
    }

    pub fn entry_of(&self, reference: &ObjectRef) -> Option<&Entry> {
        self.objects.get(reference)
    }

    /// All objects of a kind, by namespace and name.
    pub fn of_kind(&self, resource: Resource) -> impl Iterator<Item = (&ObjectRef, &Entry)> {
        let first = ObjectRef::new(resource, "", "");
        self.objects.range(first..).take_while(move |(reference, _)| reference.resource == resource)
    }

    pub fn rollout(&self, reference: &ObjectRef) -> Option<&Arc<Rollout>> {
        match &self.objects.get(reference)?.object {
            Object::Rollout(rollout) => Some(rollout),
            _ => None,
        }
    }

    pub fn references(&self, reference: &ObjectRef) -> Option<&References> {
        self.objects.get(reference)?.references.as_deref()
    }

    /// The objects of a kind that the owner with this uid controls, by name.
    pub fn controlled<'a>(&'a self, uid: &str, resource: Resource) -> impl Iterator<Item = &'a Entry> {
        self.children(uid, resource).map(|(_, child)| child)
    }

    /// The same with their references.
    pub fn children<'a>(&'a self, uid: &str, resource: Resource) -> impl Iterator<Item = (&'a ObjectRef, &'a Entry)> {
        let children = self.children.of(uid.to_owned());
        children.filter(move |child| child.resource == resource).filter_map(|child| self.objects.get_key_value(child))
    }

    /// ReplicaSets of the namespace that nobody controls and the selector matches.
    pub fn orphans<'a>(&'a self, namespace: &str, selector: &Selector) -> impl Iterator<Item = &'a Arc<ReplicaSet>> {
        let first = ObjectRef::new(resource::REPLICA_SET, namespace, "");
        self.orphans
            .range(first..)
            .take_while(move |reference| reference.namespace == namespace)
            .filter_map(|reference| match &self.objects.get(reference)?.object {
                Object::ReplicaSet(replica_set) => Some(replica_set),
                _ => None,
            })
            .filter(|replica_set| !selector.selects_all() && selector.matches(&replica_set.labels))
    }

    /// The Services and DestinationRules that are marked as managed by a Rollout, whether it names them or not.
    pub fn managed(&self, rollout: &ObjectRef) -> impl Iterator<Item = (&ObjectRef, &Entry)> {
        self.managed.of(rollout.clone()).filter_map(|managed| self.objects.get_key_value(managed))
    }

    pub fn service(&self, reference: &ObjectRef) -> Option<Observed<Service>> {
        let entry = self.objects.get(reference)?;
        match &entry.object {
            Object::Service(service) => Some(Observed { object: service.clone(), since: entry.since }),
            _ => None,
        }
    }

    pub fn workload(&self, reference: &ObjectRef) -> Option<Arc<Workload>> {
        self.objects.get(reference)?.workload().cloned()
    }

    pub fn route(&self, reference: &ObjectRef) -> Option<Observed<Arc<Value>>> {
        let entry = self.objects.get(reference)?;
        match &entry.object {
            Object::Route(route) => Some(Observed { object: route.clone(), since: entry.since }),
            _ => None,
        }
    }

    /// When an object was deleted, if that is not long ago.
    pub fn gone(&self, reference: &ObjectRef) -> Option<Timestamp> {
        self.gone.get(reference).map(|gone| gone.at)
    }

    /// The routes of a kind and namespace whose labels matched, and that were deleted not long ago.
    pub fn gone_routes<'a>(
        &'a self,
        resource: Resource,
        namespace: &'a str,
        selector: &'a Selector,
    ) -> impl Iterator<Item = (&'a ObjectRef, Timestamp)> {
        let first = ObjectRef::new(resource, namespace, "");
        self.gone
            .range(first..)
            .take_while(move |(reference, _)| reference.resource == resource && reference.namespace == namespace)
            .filter(|(_, gone)| matches!(&gone.object, Object::Route(route) if matches(selector, route)))
            .map(|(reference, gone)| (reference, gone.at))
    }

    /// The routes of a kind and namespace whose labels match.
    pub fn selected_routes<'a>(
        &'a self,
        resource: Resource,
        namespace: &'a str,
        selector: &'a Selector,
    ) -> impl Iterator<Item = (&'a ObjectRef, Observed<Arc<Value>>)> {
        let first = ObjectRef::new(resource, namespace, "");
        self.objects
            .range(first..)
            .take_while(move |(reference, _)| reference.resource == resource && reference.namespace == namespace)
            .filter_map(move |(reference, entry)| match &entry.object {
                Object::Route(route) if matches(selector, route) => {
                    Some((reference, Observed { object: route.clone(), since: entry.since }))
                }
                _ => None,
            })
    }

    fn entry(
        &self,
        resource: Resource,
        reference: &ObjectRef,
        envelope: Envelope,
        old: Option<Entry>,
        now: Timestamp,
    ) -> Entry {
        let uid = envelope.metadata.uid.clone();
        let resource_version = envelope.metadata.resource_version.clone();
        let deleting = envelope.metadata.deletion_timestamp.is_some();
        let controller = envelope.metadata.controller().and_then(|owner| {
            let resource = [resource::ROLLOUT, resource::EXPERIMENT, resource::ANALYSIS_RUN]
                .into_iter()
                .find(|resource| resource.kind == owner.kind && owner.api_version.starts_with(names::GROUP))?;
            Some((ObjectRef::new(resource, &reference.namespace, &owner.name), owner.uid.clone()))
        });
        let last_changed = envelope.metadata.last_changed();
        let mut object = envelope.open(resource);
        let last_changed = last_changed.filter(|_| is_every_change_dated(resource, &object, controller.is_some()));
        if let Some(old) = old.as_ref().filter(|old| old.uid == uid) {
            object.remember(&old.object);
        }
        let references = match &object {
            Object::Rollout(rollout) => Some(Box::new(References::of_rollout(rollout))),
            Object::Experiment(experiment) => Some(Box::new(References::of_experiment(experiment))),
            Object::Template(spec) if !spec.templates.is_empty() => {
                Some(Box::new(References::of_template(&reference.namespace, spec)))
            }
            _ => None,
        };
        let since = match old {
            Some(old) if old.uid == uid && directs_alike(&old.object, &object) => old.since,
            Some(_) => now,
            None => last_changed.map_or(now, |at| at.saturating_add(SKEW).unwrap_or(now).min(now)),
        };
        Entry { uid, resource_version, deleting, object, since, controller, references }
    }

    fn link(&mut self, reference: &ObjectRef, entry: &Entry, effects: &mut Effects) {
        match &entry.controller {
            Some((_, uid)) => {
                self.children.insert(uid.clone(), reference.clone());
            }
            None => {
                if matches!(&entry.object, Object::ReplicaSet(replica_set) if replica_set.controller.is_none()) {
                    self.orphans.insert(reference.clone());
                }
            }
        }
        if let Some(rollout) = manager(reference, &entry.object) {
            self.managed.insert(rollout, reference.clone());
        }
        if matches!(&entry.object, Object::AnalysisRun(run) if measures_by_job(run)) {
            self.want(resource::JOB, effects);
        }
        let Some(references) = &entry.references else { return };
        for object in &references.objects {
            self.referrers.insert(object.clone(), reference.clone());
        }
        for (resource, ..) in &references.selected {
            self.selecting.insert(*resource, reference.clone());
        }
        for resource in references.kinds_on_demand() {
            self.want(resource, effects);
        }
    }

    /// Sees to it that a kind is watched that is needed only now.
    fn want(&mut self, resource: Resource, effects: &mut Effects) {
        if !self.kinds.contains_key(&resource) {
            self.watched(resource);
            effects.wanted.insert(resource);
        }
    }

    /// Takes an entry out with all that leads to it, and notes whom its absence concerns.
    fn take(&mut self, reference: &ObjectRef, effects: &mut Effects) -> Option<Entry> {
        let entry = self.objects.remove(reference)?;
        if let Some((owner, uid)) = &entry.controller {
            self.children.remove(uid.clone(), reference);
            effects.concerned.insert(owner.clone());
        }
        self.orphans.remove(reference);
        if let Some(rollout) = manager(reference, &entry.object) {
            self.managed.remove(rollout.clone(), reference);
            effects.concerned.insert(rollout);
        }
        if let Some(references) = &entry.references {
            for object in &references.objects {
                self.referrers.remove(object.clone(), reference);
            }
            for (resource, ..) in &references.selected {
                self.selecting.remove(*resource, reference);
            }
        }
        Some(entry)
    }

    /// Notes everybody whom a change of the object concerns.
    fn concern(&self, reference: &ObjectRef, effects: &mut Effects) {
        let Some(entry) = self.objects.get(reference) else { return };
        if let Some((owner, _)) = &entry.controller {
            effects.concerned.insert(owner.clone());
        }
        if let (Object::ReplicaSet(replica_set), None) = (&entry.object, &entry.controller)
            && replica_set.controller.is_none()
        {
            self.concern_adopters(reference, replica_set, effects);
        }
        effects.concerned.extend(manager(reference, &entry.object));
        if is_route(reference.resource) {
            effects.concerned.extend(self.selecting.of(reference.resource).cloned());
        }
        let mut open = vec![reference.clone()];
        let mut seen = BTreeSet::new();
        while let Some(object) = open.pop() {
            if matches!(object.resource, resource::ROLLOUT | resource::ANALYSIS_RUN | resource::EXPERIMENT) {
                effects.concerned.insert(object.clone());
            }
            if !seen.insert(object.clone()) {
                continue;
            }
            open.extend(self.referrers.of(object.clone()).cloned());
            if object.resource == resource::ANALYSIS_TEMPLATE {
                // Named by a ClusterAnalysisTemplate it is without a namespace.
                let anywhere = ObjectRef { namespace: String::new(), ..object };
                open.extend(self.referrers.of(anywhere).cloned());
            }
        }
    }

    /// The Rollouts of the namespace that would adopt a ReplicaSet without an owner. Such are rare, so this may look at
    /// all Rollouts of one namespace.
    fn concern_adopters(&self, reference: &ObjectRef, replica_set: &ReplicaSet, effects: &mut Effects) {
        let first = ObjectRef::new(resource::ROLLOUT, &reference.namespace, "");
        let rollouts = self.objects.range(first..).take_while(|(rollout, _)| {
            rollout.resource == resource::ROLLOUT && rollout.namespace == reference.namespace
        });
        for (rollout, entry) in rollouts {
            if let Object::Rollout(object) = &entry.object
                && selector_of(object).is_some_and(|selector| selector.matches(&replica_set.labels))
            {
                effects.concerned.insert(rollout.clone());
            }
        }
    }

    fn learn(&mut self, resource: Resource, knowledge: Knowledge) -> Effects {
        let mut effects = Effects::default();
        let kind = self.kinds.entry(resource).or_insert(Kind { knowledge, unseen: None });
        if std::mem::replace(&mut kind.knowledge, knowledge) != knowledge && is_on_demand(resource) {
            // Those who waited for the kind can be decided now.
            effects.concerned.extend(self.selecting.of(resource).cloned());
            let first = ObjectRef::new(resource, "", "");
            let named = self.referrers.since(first).take_while(|(object, _)| object.resource == resource);
            effects.concerned.extend(named.map(|(_, referrer)| referrer.clone()));
        }
        effects
    }
}

impl Entry {
    fn workload(&self) -> Option<&Arc<Workload>> {
        match &self.object {
            Object::Workload(workload) => Some(workload),
            _ => None,
        }
    }
}

impl Effects {
    pub fn merge(&mut self, other: Self) {
        self.concerned.extend(other.concerned);
        self.wanted.extend(other.wanted);
        self.added.extend(other.added);
        self.removed.extend(other.removed);
    }
}

/// Whether the resourceVersion `one` is newer than `other`. Since Kubernetes 1.35 they are comparable numbers by
/// definition, before that in practice; where they are not numbers, any other one counts as newer.
pub fn newer(one: &str, other: &str) -> bool {
    match (one.parse::<u64>(), other.parse::<u64>()) {
        (Ok(one), Ok(other)) => one > other,
        _ => one != other,
    }
}

/// The Rollout that a Service or a DestinationRule is marked as managed by.
fn manager(managed: &ObjectRef, object: &Object) -> Option<ObjectRef> {
    let name = match object {
        Object::Service(service) => service.annotations.get(names::MANAGED_BY).filter(|name| !name.is_empty())?,
        Object::Route(rule) if managed.resource == resource::DESTINATION_RULE => destination_rule::manager(rule)?,
        _ => return None,
    };
    Some(ObjectRef::new(resource::ROLLOUT, &managed.namespace, name))
}

/// The selector of a Rollout; none when it has none or it cannot be understood.
pub fn selector_of(rollout: &Rollout) -> Option<Selector> {
    let selector = Selector::try_from(rollout.spec.selector.clone()?).ok()?;
    (!selector.selects_all()).then_some(selector)
}

/// Whether the API server has dated every change of the part of an object that directs traffic. It dates new values and not
/// the removal of a field: so it has where that part is there and can only be replaced as a whole (a Service's selector,
/// the rules of a route). In objects of Istio it stands in several fields, any of which may have been removed.
///
/// A companion Ingress has its weight in annotations. While it has them they are dated; without them nobody knows since when.
/// Any other Ingress directs by its rules only. The `canary-weight-total` is the one annotation whose removal we would
/// miss, and it is nobody's but ours, who never remove it.
fn is_every_change_dated(resource: Resource, object: &Object, is_ours: bool) -> bool {
    let route = match object {
        Object::Service(service) => return !service.selector.is_empty(),
        Object::Route(route) => route,
        _ => return false,
    };
    let has_any = |field: &str| route["spec"][field].as_array().is_some_and(|list| !list.is_empty());
    let annotated = |end: &str| {
        let annotations = route["metadata"]["annotations"].as_object().into_iter().flatten();
        annotations.into_iter().any(|(key, _)| key.ends_with(end))
    };
    match resource {
        resource::HTTP_ROUTE | resource::GRPC_ROUTE | resource::TCP_ROUTE | resource::TLS_ROUTE => has_any("rules"),
        resource::INGRESS if is_ours || annotated("/canary") => {
            has_any("rules") && annotated("/canary") && annotated("/canary-weight")
        }
        resource::INGRESS => has_any("rules"),
        _ => false,
    }
}

/// Whether two versions of an object send traffic to the same places. What might matter counts: a route's whole spec and
/// its annotations (nginx has its weights there).
fn directs_alike(old: &Object, new: &Object) -> bool {
    match (old, new) {
        (Object::Service(old), Object::Service(new)) => old.selector == new.selector,
        (Object::Route(old), Object::Route(new)) => {
            old["spec"] == new["spec"] && old["metadata"]["annotations"] == new["metadata"]["annotations"]
        }
        _ => false,
    }
}

/// Whether the end of a Job is news for the run.
fn measures_by_job(run: &AnalysisRun) -> bool {
    run.spec.metrics.iter().any(|metric| metric.provider.job.is_some())
}

fn matches(selector: &Selector, route: &Value) -> bool {
    let labels = route["metadata"]["labels"].as_object().into_iter().flatten();
    let labels = labels.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())));
    selector.matches(&labels.collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + second).unwrap()
    }

    fn see(index: &mut Index, resource: Resource, version: u64, object: Value) -> Effects {
        let mut envelope: Envelope = serde_json::from_value(object).unwrap();
        envelope.metadata.namespace = "shop".into();
        if envelope.metadata.uid.is_empty() {
            envelope.metadata.uid = format!("uid-{}", envelope.metadata.name);
        }
        envelope.metadata.resource_version = version.to_string();
        index.apply(resource, envelope, at(version as i64))
    }

    fn rollout(name: &str) -> Value {
        json!({"metadata": {"name": name}, "spec": {
            "selector": {"matchLabels": {"app": name}},
            "strategy": {"canary": {
                "stableService": format!("{name}-stable"),
                "analysis": {"templates": [{"templateName": "errors"}]},
            }},
        }})
    }

    fn rollouts(effects: &Effects) -> Vec<&str> {
        effects.concerned.iter().map(|object| object.name.as_str()).collect()
    }

    #[test]
    fn an_event_concerns_those_who_refer_to_the_object() {
        let mut index = Index::default();
        assert_eq!(rollouts(&see(&mut index, resource::ROLLOUT, 1, rollout("web"))), ["web"]);
        see(&mut index, resource::ROLLOUT, 2, rollout("shop"));
        let service = json!({"metadata": {"name": "web-stable"}, "spec": {"selector": {"app": "web"}}});
        assert_eq!(rollouts(&see(&mut index, resource::SERVICE, 3, service)), ["web"]);
        let other = json!({"metadata": {"name": "other"}, "spec": {}});
        assert_eq!(rollouts(&see(&mut index, resource::SERVICE, 4, other)), [""; 0]);
        let template = json!({"metadata": {"name": "errors"}, "spec": {"templates": [{"templateName": "inner"}]}});
        assert_eq!(rollouts(&see(&mut index, resource::ANALYSIS_TEMPLATE, 5, template)), ["shop", "web"]);
        let inner = json!({"metadata": {"name": "inner"}, "spec": {}});
        assert_eq!(rollouts(&see(&mut index, resource::ANALYSIS_TEMPLATE, 6, inner)), ["shop", "web"]);
    }

    #[test]
    fn a_replica_set_concerns_its_owner_or_its_adopters() {
        let mut index = Index::default();
        see(&mut index, resource::ROLLOUT, 1, rollout("web"));
        see(&mut index, resource::ROLLOUT, 2, rollout("shop"));
        let orphan = json!({"metadata": {"name": "web-1", "labels": {"app": "web"}}, "spec": {}});
        assert_eq!(rollouts(&see(&mut index, resource::REPLICA_SET, 3, orphan)), ["web"]);
        let selector = selector_of(index.rollout(&ObjectRef::new(resource::ROLLOUT, "shop", "web")).unwrap()).unwrap();
        assert_eq!(index.orphans("shop", &selector).count(), 1);

        let owner = json!({"apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout", "name": "shop", "uid": "uid-shop", "controller": true});
        let owned = json!({"metadata": {"name": "web-1", "ownerReferences": [owner]}, "spec": {}});
        assert_eq!(rollouts(&see(&mut index, resource::REPLICA_SET, 4, owned)), ["shop"]);
        assert_eq!(index.orphans("shop", &selector).count(), 0);
        assert_eq!(index.controlled("uid-shop", resource::REPLICA_SET).count(), 1);

        let gone = index.remove(&ObjectRef::new(resource::REPLICA_SET, "shop", "web-1"), "", at(9));
        assert_eq!(rollouts(&gone), ["shop"]);
        assert_eq!(index.controlled("uid-shop", resource::REPLICA_SET).count(), 0);
    }

    #[test]
    fn what_is_older_than_what_is_known_is_ignored() {
        let mut index = Index::default();
        see(&mut index, resource::ROLLOUT, 9, rollout("web"));
        assert_eq!(see(&mut index, resource::ROLLOUT, 9, rollout("web")), Effects::default());
        assert_eq!(see(&mut index, resource::ROLLOUT, 8, rollout("web")), Effects::default());
        // Another object of the same name starts anew, whatever its version.
        let mut reborn = rollout("web");
        reborn["metadata"]["uid"] = "another".into();
        assert_eq!(rollouts(&see(&mut index, resource::ROLLOUT, 8, reborn)), ["web"]);
        // A late deletion of the first one does not take the second one away.
        let reference = ObjectRef::new(resource::ROLLOUT, "shop", "web");
        index.remove(&reference, "uid-web", at(9));
        assert!(index.rollout(&reference).is_some());
    }

    #[test]
    fn since_is_when_the_traffic_was_first_directed_so() {
        let mut index = Index::default();
        let service = |hash: &str, note: &str| json!({"metadata": {"name": "web", "annotations": {"note": note}}, "spec": {"selector": {"hash": hash}}});
        let since = |index: &Index| index.service(&ObjectRef::new(resource::SERVICE, "shop", "web")).unwrap().since;
        see(&mut index, resource::SERVICE, 1, service("a", ""));
        see(&mut index, resource::SERVICE, 2, service("a", "x"));
        assert_eq!(since(&index), at(1));
        see(&mut index, resource::SERVICE, 3, service("b", "x"));
        assert_eq!(since(&index), at(3));

        let route = |weight: i32, status: i32| json!({"metadata": {"name": "web"}, "spec": {"weight": weight}, "status": {"seen": status}});
        let since = |index: &Index| index.route(&ObjectRef::new(resource::HTTP_ROUTE, "shop", "web")).unwrap().since;
        see(&mut index, resource::HTTP_ROUTE, 4, route(10, 1));
        see(&mut index, resource::HTTP_ROUTE, 5, route(10, 2));
        assert_eq!(since(&index), at(4));
        see(&mut index, resource::HTTP_ROUTE, 6, route(20, 2));
        assert_eq!(since(&index), at(6));
    }

    #[test]
    fn what_is_seen_first_has_been_so_since_the_server_noted_its_last_change() {
        let first = |resource: Resource, mut object: Value, managed: Value| {
            let mut index = Index::default();
            object["metadata"]["name"] = "web".into();
            object["metadata"]["managedFields"] = managed;
            see(&mut index, resource, 100, object);
            let reference = ObjectRef::new(resource, "shop", "web");
            let service = index.service(&reference).map(|service| service.since);
            service.or_else(|| index.route(&reference).map(|route| route.since)).unwrap()
        };
        let directing = |resource: Resource| match resource {
            resource::SERVICE => json!({"spec": {"selector": {"app": "web"}}}),
            _ => json!({"spec": {"rules": [{}]}}),
        };
        let since = |resource: Resource, managed: Value| first(resource, directing(resource), managed);
        let by = |second: i64| json!({"manager": "a", "operation": "Update", "time": at(second), "fieldsV1": {"f:spec": {}}});
        let status = json!({"manager": "gateway", "subresource": "status", "time": at(99)});
        let service = resource::SERVICE;
        assert_eq!(since(service, json!([by(20), by(50)])), at(60), "its last change, and what clocks may differ by");
        assert_eq!(since(resource::HTTP_ROUTE, json!([by(50), status])), at(60), "a status directs nothing");
        assert_eq!(since(service, json!([by(95)])), at(100), "never later than now");
        assert_eq!(since(service, json!([by(5000)])), at(100));
        for unknown in [json!(null), json!([]), json!([by(20), {"manager": "b"}])] {
            assert_eq!(since(service, unknown), at(100), "what nobody tells counts as just now");
        }
        assert_eq!(since(resource::INGRESS, json!([by(20)])), at(30));
        assert_eq!(
            since(resource::VIRTUAL_SERVICE, json!([by(20)])),
            at(100),
            "a kind of routes may have been removed"
        );
        for resource in [service, resource::HTTP_ROUTE, resource::INGRESS] {
            let since = first(resource, json!({"spec": {}}), json!([by(20)]));
            assert_eq!(since, at(100), "{}: a removal has no date", resource.kind);
        }
        let owner = json!([{"apiVersion": names::API_VERSION, "kind": "Rollout", "name": "web", "uid": "1", "controller": true}]);
        for (annotations, expected) in [
            (json!({"n/canary": "true", "n/canary-weight": "5"}), at(30)),
            (json!({"n/canary": "true"}), at(100)),
            (json!({"n/canary-weight": "5"}), at(100)),
        ] {
            let metadata = json!({"annotations": annotations, "ownerReferences": owner});
            let companion = json!({"metadata": metadata, "spec": {"rules": [{}]}});
            assert_eq!(first(resource::INGRESS, companion, json!([by(20)])), expected, "{annotations}");
        }
    }

    #[test]
    fn what_has_directed_traffic_is_remembered_for_a_while() {
        let mut index = Index::default();
        see(&mut index, resource::ROLLOUT, 1, rollout("web"));
        for (version, name) in [(2, "web-stable"), (3, "nobody's")] {
            let service = json!({"metadata": {"name": name}, "spec": {"selector": {"app": "web"}}});
            see(&mut index, resource::SERVICE, version, service);
        }
        let [used, unused] = ["web-stable", "nobody's"].map(|name| ObjectRef::new(resource::SERVICE, "shop", name));
        index.remove(&used, "", at(4));
        index.remove(&unused, "", at(5));
        assert_eq!((index.gone(&used), index.gone(&unused)), (Some(at(4)), None));
        let service = json!({"metadata": {"name": "web-stable", "uid": "another"}, "spec": {}});
        see(&mut index, resource::SERVICE, 6, service);
        assert_eq!(index.gone(&used), None, "it is back, and new");
        index.remove(&used, "", at(7));
        see(&mut index, resource::SERVICE, 8, json!({"metadata": {"name": "late"}, "spec": {}}));
        index.remove(&ObjectRef::new(resource::SERVICE, "shop", "late"), "", at(7 + 3600));
        assert_eq!(index.gone(&used), None, "nothing is remembered for ever");
    }

    #[test]
    fn a_list_takes_away_what_it_does_not_hold() {
        let mut index = Index::default();
        see(&mut index, resource::ROLLOUT, 1, rollout("web"));
        see(&mut index, resource::ROLLOUT, 2, rollout("shop"));
        index.list_begins(resource::ROLLOUT);
        // A list that breaks off and begins again forgets nothing.
        see(&mut index, resource::ROLLOUT, 2, rollout("shop"));
        index.list_begins(resource::ROLLOUT);
        see(&mut index, resource::ROLLOUT, 1, rollout("web"));
        let effects = index.list_ends(resource::ROLLOUT, at(9));
        assert_eq!(effects.removed.keys().map(|object| object.name.as_str()).collect::<Vec<_>>(), ["shop"]);
        assert_eq!(index.of_kind(resource::ROLLOUT).count(), 1);
        assert_eq!(index.knowledge(resource::ROLLOUT), Knowledge::Synced);
    }
}
