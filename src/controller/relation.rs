//! Which objects lead to which. As pairs in one set: most objects lead to one other, and a set of its own for each of them
//! takes more than a kilobyte.

use std::collections::BTreeSet;

use crate::api::resource::{ObjectRef, Resource};

/// From keys to objects, many to many.
#[derive(Debug)]
pub struct Relation<K>(BTreeSet<(K, ObjectRef)>);

impl<K> Default for Relation<K> {
    fn default() -> Self {
        Self(BTreeSet::new())
    }
}

impl<K: Ord + Clone> Relation<K> {
    pub fn insert(&mut self, from: K, to: ObjectRef) {
        self.0.insert((from, to));
    }

    pub fn remove(&mut self, from: K, to: &ObjectRef) {
        self.0.remove(&(from, to.clone()));
    }

    /// The objects that a key leads to, in order.
    pub fn of<'a>(&'a self, from: K) -> impl Iterator<Item = &'a ObjectRef> + use<'a, K> {
        self.since(from.clone()).take_while(move |(key, _)| *key == from).map(|(_, to)| to)
    }

    /// Whether a key leads to anything.
    pub fn has(&self, from: K) -> bool {
        self.of(from).next().is_some()
    }

    /// All pairs from a key on.
    pub fn since<'a>(&'a self, from: K) -> impl Iterator<Item = &'a (K, ObjectRef)> + use<'a, K> {
        let first = Resource { group: "", version: "", kind: "", plural: "" };
        self.0.range((from, ObjectRef::new(first, "", ""))..)
    }
}
