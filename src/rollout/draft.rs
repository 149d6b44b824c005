//! A plan in the making.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::json;

use crate::api::resource::{ObjectRef, REPLICA_SET};
use crate::api::rollout::RolloutStatus;
use crate::plan::{Action, Basis, Event, FailedAction, Failure, Plan};

use super::World;
use super::world::ReplicaSet;

/// What has been decided so far.
pub(super) struct Draft<'a> {
    pub world: &'a World,
    /// As it will be written: every part of a decision sees what the parts before it have decided.
    pub status: RolloutStatus,
    pub actions: Vec<Action>,
    pub events: Vec<Event>,
    pub wake: Option<Timestamp>,
    /// Why the plan is what it is, for the log.
    why: Vec<String>,
    /// What the Rollout waits for, for `status.message`.
    pub waits: Vec<String>,
    /// Why the new version has become the stable one with this decision, if it has.
    pub promoted: Option<String>,
    /// Whether nobody has taken up the analysis that is to judge the update: steps and promotions wait for that.
    pub unjudged: bool,
    /// What to tell of it, once it has lasted too long to be usual.
    pub doubt: Option<String>,
    /// Since when the update has been analysed in the background.
    pub analysed_since: Option<Timestamp>,
    /// What that analysis has had no chance to say yet, and until when the end of the update waits for it.
    pub unheard: Option<(String, Timestamp)>,
}

impl<'a> Draft<'a> {
    pub fn new(world: &'a World) -> Self {
        Self {
            world,
            status: world.rollout.status.clone().unwrap_or_default(),
            actions: Vec::new(),
            events: Vec::new(),
            wake: None,
            why: Vec::new(),
            waits: Vec::new(),
            promoted: None,
            unjudged: false,
            doubt: None,
            analysed_since: None,
            unheard: None,
        }
    }

    pub fn because(&mut self, why: impl Into<String>) {
        self.why.push(why.into());
    }

    pub fn wait(&mut self, what: impl Into<String>) {
        self.waits.push(what.into());
    }

    pub fn wake_at(&mut self, at: Timestamp) {
        self.wake = Some(self.wake.map_or(at, |wake| wake.min(at)));
    }

    pub fn wake_now(&mut self) {
        self.wake_at(self.world.now);
    }

    /// Wakes so many seconds after `from`, and returns when that is.
    pub fn wake_after(&mut self, from: Timestamp, seconds: i64) -> Timestamp {
        let at = after(from, seconds);
        self.wake_at(at);
        at
    }

    /// Wakes when something that could not be read may be readable again.
    pub fn wake_after_failure(&mut self) {
        self.wake_after(self.world.now, 10);
    }

    pub fn event(&mut self, event: Event) {
        self.events.push(event);
    }

    /// Plans a write, and the event that tells of it once it is made.
    pub fn act(&mut self, action: Action, event: Option<Event>) {
        self.events.extend(event.map(|event| event.of(&action)));
        self.actions.push(action);
    }

    /// Whether nobody has had a chance to judge the update yet. Says what is waited for then, and until when.
    pub fn awaits_analysis(&mut self) -> bool {
        let Some((unheard, until)) = self.unheard.take() else { return false };
        self.unjudged = true;
        self.doubt.get_or_insert(unheard);
        if until > self.world.now {
            self.wake_at(until);
        }
        true
    }

    /// The failure of such a write in the previous plan.
    pub fn failure(&self, object: &ObjectRef, kind: FailedAction) -> Option<&'a Failure> {
        self.world.failures.iter().find(|failure| failure.object == *object && failure.action == kind)
    }

    /// Changes annotations of a ReplicaSet that keeps its size.
    pub fn annotate(&mut self, replica_set: &ReplicaSet, annotations: &BTreeMap<String, Option<String>>) {
        let changed: BTreeMap<_, _> =
            annotations.iter().filter(|(key, value)| replica_set.annotations.get(*key) != value.as_ref()).collect();
        if changed.is_empty() {
            return;
        }
        let what: Vec<String> = changed
            .iter()
            .map(|(key, value)| value.as_ref().map_or(format!("{key} removed"), |value| format!("{key}={value}")))
            .collect();
        let patch = json!({ "metadata": { "annotations": changed } });
        // Nothing stands on these but our own later decisions, so no resourceVersion: the status changes all the time.
        let reference = self.object(REPLICA_SET, &replica_set.name);
        let object = Basis { object: reference, uid: replica_set.uid.clone(), resource_version: None };
        self.act(Action::MergePatch { object, patch, what: what.join(", ") }, None);
    }

    /// An object in the Rollout's namespace.
    pub fn object(&self, resource: crate::api::resource::Resource, name: &str) -> ObjectRef {
        ObjectRef::new(resource, self.world.rollout.metadata.namespace.clone().unwrap_or_default(), name)
    }

    pub fn finish(self) -> Plan<RolloutStatus> {
        let reason = match self.why.as_slice() {
            [] if self.world.rollout.status.as_ref() == Some(&self.status) => "nothing to do".to_owned(),
            [] => "take note of what was observed".to_owned(),
            why => why.join("; "),
        };
        Plan { actions: self.actions, status: self.status, events: self.events, wake: self.wake, reason }
    }
}

/// So many seconds after an instant; the end of time if that is later.
pub(super) fn after(from: Timestamp, seconds: i64) -> Timestamp {
    from.checked_add(jiff::SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MAX)
}
