//! The objects, their history, and who hears of changes. Everything here happens under one lock, in one order.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use serde_json::Value;
use tokio::sync::{Notify, mpsc};

use super::builtin;
use super::resource::Resource;
use super::status::{Refusal, expired, too_large_version};

/// Changes that a collection remembers for watches and exact lists. A real server keeps five minutes' worth.
const HISTORY: usize = 4096;

/// What happened to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// It was created.
    Added,
    /// It was changed.
    Modified,
    /// It is gone.
    Deleted,
}

/// One change of one object, as the server made it.
#[derive(Clone, Debug)]
pub struct Change {
    /// The resourceVersion that the change has. Changes come in this order.
    pub revision: u64,
    /// What happened.
    pub op: Op,
    /// The resource's key, such as `replicasets.apps`.
    pub resource: Arc<str>,
    /// The object after the change; of a deletion, the object as it was last.
    pub object: Arc<Value>,
    /// The object before the change.
    pub previous: Option<Arc<Value>>,
}

/// Where an object is: collection, namespace (empty when cluster-scoped), name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) collection: Arc<str>,
    pub(super) namespace: String,
    pub(super) name: String,
}

pub(super) type Objects = BTreeMap<String, BTreeMap<String, Arc<Value>>>;

/// All objects of one resource, by namespace and name.
pub(super) struct Collection {
    pub(super) objects: Objects,
    history: VecDeque<Change>,
    /// The revision of the newest forgotten change.
    forgotten: u64,
    /// Tells watches of changes, in the order in which they wait: a channel of tokio's would pick an order of its own.
    wake: Arc<Notify>,
}

/// The server's memory.
pub(super) struct State {
    pub(super) revision: u64,
    pub(super) resources: BTreeMap<Arc<str>, Arc<Resource>>,
    collections: BTreeMap<Arc<str>, Collection>,
    /// Where the object with a uid is.
    pub(super) places: BTreeMap<String, Place>,
    /// The objects whose ownerReferences name a uid.
    pub(super) dependents: BTreeMap<String, BTreeSet<Place>>,
    /// What the garbage collector has yet to look at.
    pub(super) garbage: VecDeque<Place>,
    subscribers: Vec<mpsc::UnboundedSender<Change>>,
    seed: u64,
    uids: u64,
    addresses: u64,
    history_limit: usize,
    /// Whether new objects get managedFields.
    pub(super) tracks_fields: bool,
}

impl State {
    pub(super) fn new(seed: u64) -> Self {
        let mut state = Self {
            revision: 1,
            resources: BTreeMap::new(),
            collections: BTreeMap::new(),
            places: BTreeMap::new(),
            dependents: BTreeMap::new(),
            garbage: VecDeque::new(),
            subscribers: Vec::new(),
            seed,
            uids: 0,
            addresses: 0,
            history_limit: HISTORY,
            tracks_fields: true,
        };
        for resource in builtin::resources() {
            state.register(resource);
        }
        state
    }

    /// The same objects in a server of their own; nobody listens to it yet, and it has no history.
    pub(super) fn fork(&self, seed: u64) -> Self {
        let collections = self.collections.iter().map(|(key, collection)| {
            let mut copy = Collection::new(self.revision);
            copy.objects = collection.objects.clone();
            (key.clone(), copy)
        });
        Self {
            revision: self.revision,
            resources: self.resources.clone(),
            collections: collections.collect(),
            places: self.places.clone(),
            dependents: self.dependents.clone(),
            garbage: self.garbage.clone(),
            subscribers: Vec::new(),
            seed,
            uids: self.uids,
            addresses: self.addresses,
            history_limit: self.history_limit,
            tracks_fields: self.tracks_fields,
        }
    }

    /// Serves a resource from now on, or serves it in a new shape.
    pub(super) fn register(&mut self, mut resource: Resource) {
        let revision = self.revision;
        resource.since = revision;
        self.collections.entry(resource.collection.clone()).or_insert_with(|| Collection::new(revision));
        self.resources.insert(resource.key.clone(), Arc::new(resource));
    }

    /// Serves a resource no longer. Watches of it end.
    pub(super) fn unregister(&mut self, key: &str) {
        let Some(resource) = self.resources.remove(key) else { return };
        let objects = self.collection(&resource.collection).map(|collection| collection.objects.clone());
        for (namespace, names) in objects.unwrap_or_default() {
            for name in names.into_keys() {
                let (collection, namespace) = (resource.collection.clone(), namespace.clone());
                self.remove(&Place { collection, namespace, name });
            }
        }
        if let Some(collection) = self.collections.remove(key) {
            collection.wake.notify_waiters();
        }
    }

    pub(super) fn resource(&self, key: &str) -> Option<&Arc<Resource>> {
        self.resources.get(key)
    }

    pub(super) fn collection(&self, key: &str) -> Option<&Collection> {
        self.collections.get(key)
    }

    pub(super) fn object(&self, collection: &str, namespace: &str, name: &str) -> Option<&Arc<Value>> {
        self.collections.get(collection)?.objects.get(namespace)?.get(name)
    }

    pub(super) fn at(&self, place: &Place) -> Option<&Arc<Value>> {
        self.object(&place.collection, &place.namespace, &place.name)
    }

    /// Stores an object under its next resourceVersion and tells everybody.
    pub(super) fn put(&mut self, place: &Place, mut object: Value) -> Arc<Value> {
        self.revision += 1;
        object["metadata"]["resourceVersion"] = self.revision.to_string().into();
        let object = Arc::new(object);
        let previous = self.objects_of(place).entry(place.namespace.clone()).or_default();
        let previous = previous.insert(place.name.clone(), object.clone());
        let op = if previous.is_some() { Op::Modified } else { Op::Added };
        self.reindex(place, previous.as_deref(), Some(&object));
        self.tell(place, op, object.clone(), previous);
        object
    }

    /// Forgets an object and tells everybody.
    pub(super) fn remove(&mut self, place: &Place) -> Option<Arc<Value>> {
        let objects = self.objects_of(place);
        let in_namespace = objects.get_mut(&place.namespace)?;
        let previous = in_namespace.remove(&place.name)?;
        if in_namespace.is_empty() {
            objects.remove(&place.namespace);
        }
        self.revision += 1;
        let mut last = (*previous).clone();
        last["metadata"]["resourceVersion"] = self.revision.to_string().into();
        let last = Arc::new(last);
        self.reindex(place, Some(&previous), None);
        self.tell(place, Op::Deleted, last.clone(), Some(previous));
        Some(last)
    }

    fn objects_of(&mut self, place: &Place) -> &mut Objects {
        let revision = self.revision;
        &mut self.collections.entry(place.collection.clone()).or_insert_with(|| Collection::new(revision)).objects
    }

    fn reindex(&mut self, place: &Place, before: Option<&Value>, after: Option<&Value>) {
        if let (Some(before), Some(after)) = (before, after)
            && before["metadata"]["ownerReferences"] == after["metadata"]["ownerReferences"]
            && uid_of(before) == uid_of(after)
        {
            return;
        }
        let (old, new) = (owners(before), owners(after));
        for uid in old.difference(&new) {
            if let Some(dependents) = self.dependents.get_mut(*uid) {
                dependents.remove(place);
                if dependents.is_empty() {
                    self.dependents.remove(*uid);
                }
            }
        }
        for uid in new.difference(&old) {
            self.dependents.entry((*uid).to_owned()).or_default().insert(place.clone());
        }
        match (before.and_then(uid_of), after.and_then(uid_of)) {
            (None, Some(uid)) => drop(self.places.insert(uid.to_owned(), place.clone())),
            (Some(uid), None) => drop(self.places.remove(uid)),
            _ => {}
        }
    }

    fn tell(&mut self, place: &Place, op: Op, object: Arc<Value>, previous: Option<Arc<Value>>) {
        let change = Change { revision: self.revision, op, resource: place.collection.clone(), object, previous };
        self.subscribers.retain(|subscriber| subscriber.send(change.clone()).is_ok());
        let limit = self.history_limit;
        if let Some(collection) = self.collections.get_mut(&place.collection) {
            collection.remember(change, limit);
        }
    }

    /// Everything that is in a namespace.
    pub(super) fn inside(&self, namespace: &str) -> Vec<Place> {
        let in_collection = |(key, collection): (&Arc<str>, &Collection)| -> Vec<Place> {
            let names = collection.objects.get(namespace).into_iter().flat_map(BTreeMap::keys);
            names
                .map(|name| Place { collection: key.clone(), namespace: namespace.to_owned(), name: name.clone() })
                .collect()
        };
        self.collections.iter().flat_map(in_collection).collect()
    }

    /// The resource whose objects a collection holds.
    pub(super) fn owner_of_collection(&self, collection: &str) -> Option<Arc<Resource>> {
        self.resources.get(collection).cloned()
    }

    /// All changes from now on, in order.
    pub(super) fn subscribe(&mut self) -> mpsc::UnboundedReceiver<Change> {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.subscribers.push(sender);
        receiver
    }

    /// Forgets all history, so that every watch of an older version is told to start anew.
    pub(super) fn forget_history(&mut self) {
        for collection in self.collections.values_mut() {
            collection.history.clear();
            collection.forgotten = self.revision;
        }
    }

    pub(super) fn limit_history(&mut self, changes: usize) {
        self.history_limit = changes;
    }

    /// The next uid: unique in this server, the same in every run with this seed.
    pub(super) fn next_uid(&mut self) -> String {
        let (high, low) = (self.next_random(), self.next_random());
        format!(
            "{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}",
            high >> 32,
            (high >> 16) & 0xffff,
            high & 0xfff,
            0x8000 | ((low >> 48) & 0x3fff),
            low & 0xffff_ffff_ffff
        )
    }

    /// The suffix that generateName adds, from the alphabet that cannot spell words.
    pub(super) fn next_suffix(&mut self) -> String {
        const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
        let mut random = self.next_random();
        let mut suffix = String::with_capacity(5);
        for _ in 0..5 {
            suffix.push(char::from(ALPHABET[(random % ALPHABET.len() as u64) as usize]));
            random /= ALPHABET.len() as u64;
        }
        suffix
    }

    /// A service address in 10.96.0.0/16, never given out before (after 65,000 they repeat).
    pub(super) fn next_address(&mut self) -> String {
        self.addresses += 1;
        format!("10.96.{}.{}", (self.addresses / 250) % 256, 1 + self.addresses % 250)
    }

    /// A node port, from 30000 on.
    pub(super) fn next_node_port(&mut self) -> u64 {
        self.addresses += 1;
        30000 + self.addresses % 2768
    }

    fn next_random(&mut self) -> u64 {
        self.uids += 1;
        fastrand::Rng::with_seed(self.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(self.uids)).u64(..)
    }
}

impl Collection {
    fn new(revision: u64) -> Self {
        Self { objects: Objects::new(), history: VecDeque::new(), forgotten: revision, wake: Arc::default() }
    }

    fn remember(&mut self, change: Change, limit: usize) {
        self.history.push_back(change);
        while self.history.len() > limit {
            self.forgotten = self.history.pop_front().map_or(self.forgotten, |change| change.revision);
        }
        self.wake.notify_waiters();
    }

    /// What is told of every change.
    pub(super) fn changed(&self) -> Arc<Notify> {
        self.wake.clone()
    }

    pub(super) fn is_told_by(&self, changed: &Arc<Notify>) -> bool {
        Arc::ptr_eq(&self.wake, changed)
    }

    /// The first remembered change after a revision, or the revision of the newest forgotten change when one of those
    /// that were asked for is among the forgotten.
    pub(super) fn change_after(&self, revision: u64) -> Result<Option<&Change>, u64> {
        if revision < self.forgotten {
            return Err(self.forgotten);
        }
        let at = self.history.partition_point(|change| change.revision <= revision);
        Ok(self.history.get(at))
    }

    /// The objects of one namespace (of all for `None`) in order.
    pub(super) fn iter<'a>(&'a self, namespace: Option<&str>) -> Box<dyn Iterator<Item = &'a Arc<Value>> + 'a> {
        match namespace {
            Some(namespace) => Box::new(self.objects.get(namespace).into_iter().flat_map(BTreeMap::values)),
            None => Box::new(self.objects.values().flat_map(BTreeMap::values)),
        }
    }

    /// The objects as they were at a revision.
    ///
    /// # Errors
    /// `Expired` when the history does not reach so far back, `Timeout` when that revision is yet to come.
    pub(super) fn objects_at(&self, revision: u64, current: u64, gone: &str) -> Result<Objects, Refusal> {
        if revision > current {
            return Err(too_large_version(revision, current));
        }
        if revision < self.forgotten {
            return Err(expired(gone.to_owned()));
        }
        let mut objects = self.objects.clone();
        for change in self.history.iter().rev().take_while(|change| change.revision > revision) {
            let meta = &change.object["metadata"];
            let namespace = objects.entry(meta["namespace"].as_str().unwrap_or_default().to_owned()).or_default();
            let name = meta["name"].as_str().unwrap_or_default();
            match &change.previous {
                Some(previous) => drop(namespace.insert(name.to_owned(), previous.clone())),
                None => drop(namespace.remove(name)),
            }
        }
        Ok(objects)
    }
}

pub(super) fn uid_of(object: &Value) -> Option<&str> {
    object["metadata"]["uid"].as_str()
}

fn owners(object: Option<&Value>) -> BTreeSet<&str> {
    let references = object.and_then(|object| object["metadata"]["ownerReferences"].as_array());
    references.into_iter().flatten().filter_map(|reference| reference["uid"].as_str()).collect()
}
