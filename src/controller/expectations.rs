//! Read your writes: what we have written and not yet seen in a watch.
//!
//! A decision on a cache that is older than our own last write would be made again: a second ReplicaSet, a second scaling.
//! So each write that a decision led to is remembered until the index shows it, and nothing is decided about that object
//! before. A watch that lags for too long is overtaken by a live read.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use crate::api::resource::ObjectRef;

use super::index::{Index, Knowledge, newer};

/// What the index has to show before the next decision, by the object that is decided about.
#[derive(Debug, Default)]
pub struct Expectations(Mutex<BTreeMap<ObjectRef, Vec<Expected>>>);

/// One write, or one doubt.
#[derive(Clone, Debug, PartialEq)]
pub struct Expected {
    pub object: ObjectRef,
    pub what: What,
    /// When the write was answered.
    pub since: Instant,
    /// Whether the decision that wrote it has nothing to go on with: to see it is no news.
    pub rests: bool,
}

/// An object of which a watch shows what we have written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Echo {
    /// There is more to do as soon as it is seen.
    Awaited,
    /// Nothing is to be done about it.
    AtRest,
}

#[derive(Clone, Debug, PartialEq)]
pub enum What {
    /// The object in this version or a newer one.
    Version(String),
    /// The object of this uid gone, or on its way.
    Gone { uid: String },
    /// Anything read after now: a write met a newer version than the index has, or its answer never came.
    Reread,
}

impl Expectations {
    pub fn note(&self, decider: &ObjectRef, object: &ObjectRef, what: What) {
        let mut map = self.map();
        let list = map.entry(decider.clone()).or_default();
        // The newest write of an object implies the older ones.
        list.retain(|expected| expected.object != *object);
        list.push(Expected { object: object.clone(), what, since: Instant::now(), rests: false });
    }

    /// What the index does not show yet of what decisions about `decider` have written; empty when it may be decided.
    pub fn outstanding(&self, decider: &ObjectRef, index: &Index) -> Vec<Expected> {
        let mut map = self.map();
        let Some(list) = map.get_mut(decider) else { return Vec::new() };
        list.retain(|expected| !met(expected, index));
        if list.is_empty() {
            map.remove(decider);
            return Vec::new();
        }
        list.clone()
    }

    /// Drops what was expected of an object: it has just been read.
    pub fn settle(&self, decider: &ObjectRef, object: &ObjectRef) {
        let mut map = self.map();
        if let Some(list) = map.get_mut(decider) {
            list.retain(|expected| expected.object != *object);
            if list.is_empty() {
                map.remove(decider);
            }
        }
    }

    /// The decision that has just written the status of `decider`, and nothing else, has nothing to go on with.
    pub fn rests(&self, decider: &ObjectRef) {
        let mut map = self.map();
        let own = map.get_mut(decider).into_iter().flatten().find(|expected| expected.object == *decider);
        if let Some(expected) = own {
            expected.rests = true;
        }
    }

    /// Whether this version of the object is a write of ours for `decider`.
    pub fn echo(&self, decider: &ObjectRef, object: &ObjectRef, resource_version: &str) -> Option<Echo> {
        let ours = |expected: &&Expected| {
            expected.object == *object
                && matches!(&expected.what, What::Version(version) if version == resource_version)
        };
        let map = self.map();
        let expected = map.get(decider)?.iter().find(ours)?;
        Some(if expected.rests { Echo::AtRest } else { Echo::Awaited })
    }

    pub fn forget(&self, decider: &ObjectRef) {
        self.map().remove(decider);
    }

    fn map(&self) -> MutexGuard<'_, BTreeMap<ObjectRef, Vec<Expected>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn met(expected: &Expected, index: &Index) -> bool {
    let knowledge = index.knowledge(expected.object.resource);
    // What takes our writes is there, whatever a list has answered.
    let is_there = knowledge == Knowledge::Absent && matches!(expected.what, What::Version(_));
    if knowledge != Knowledge::Synced && !is_there {
        // Nobody will ever see it, so nobody decides on an old version of it either.
        return !matches!(expected.what, What::Reread) || index.entry_of(&expected.object).is_none();
    }
    let entry = index.entry_of(&expected.object);
    match &expected.what {
        What::Version(version) => entry.is_some_and(|entry| !newer(version, &entry.resource_version)),
        What::Gone { uid } => entry.is_none_or(|entry| entry.uid != *uid || entry.deleting),
        What::Reread => false,
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use serde_json::json;

    use crate::api::resource::{REPLICA_SET, ROLLOUT};

    use super::*;

    fn see(index: &mut Index, name: &str, version: u32, deleting: bool) {
        let deleted = deleting.then_some("2026-01-01T00:00:00Z");
        let object = json!({"metadata": {
            "name": name, "namespace": "shop", "uid": name, "resourceVersion": version.to_string(), "deletionTimestamp": deleted,
        }, "spec": {}});
        index.apply(REPLICA_SET, serde_json::from_value(object).unwrap(), Timestamp::UNIX_EPOCH);
    }

    #[test]
    fn a_write_is_outstanding_until_the_index_shows_it() {
        let web = ObjectRef::new(ROLLOUT, "shop", "web");
        let [created, scaled, deleted] =
            ["created", "scaled", "deleted"].map(|n| ObjectRef::new(REPLICA_SET, "shop", n));
        let expectations = Expectations::default();
        let mut index = Index::default();
        index.list_begins(REPLICA_SET);
        see(&mut index, "scaled", 3, false);
        see(&mut index, "deleted", 4, false);
        index.list_ends(REPLICA_SET, Timestamp::UNIX_EPOCH);

        expectations.note(&web, &created, What::Version("5".into()));
        expectations.note(&web, &scaled, What::Version("6".into()));
        expectations.note(&web, &deleted, What::Gone { uid: "deleted".into() });
        let open = |index: &Index| {
            expectations.outstanding(&web, index).into_iter().map(|e| e.object.name).collect::<Vec<_>>()
        };
        assert_eq!(open(&index), ["created", "scaled", "deleted"]);
        assert_eq!(expectations.echo(&web, &scaled, "6"), Some(Echo::Awaited));
        assert_eq!(expectations.echo(&web, &scaled, "5"), None);
        see(&mut index, "created", 5, false);
        see(&mut index, "scaled", 5, false);
        assert_eq!(open(&index), ["scaled", "deleted"], "an older version than ours is not ours");
        see(&mut index, "scaled", 7, false);
        see(&mut index, "deleted", 8, true);
        assert_eq!(open(&index), [""; 0], "a newer one implies ours");
        assert!(expectations.outstanding(&ObjectRef::new(ROLLOUT, "shop", "other"), &index).is_empty());
    }

    #[test]
    fn what_was_written_is_awaited_also_of_a_kind_that_a_list_did_not_know() {
        let [web, created] = [ObjectRef::new(ROLLOUT, "shop", "web"), ObjectRef::new(REPLICA_SET, "shop", "created")];
        let expectations = Expectations::default();
        let mut index = Index::default();
        index.absent(REPLICA_SET, Timestamp::UNIX_EPOCH);
        expectations.note(&web, &created, What::Version("5".into()));
        assert_eq!(expectations.outstanding(&web, &index).len(), 1);
        see(&mut index, "created", 5, false);
        assert_eq!(expectations.outstanding(&web, &index), []);
    }
}
