//! A plan in the making.

use jiff::{SignedDuration, Timestamp};

use crate::api::Experiment;
use crate::api::experiment::ExperimentStatus;
use crate::api::resource::{ObjectRef, Resource};
use crate::plan::{Action, Event, Failure, Plan};

use super::ExperimentWorld;

/// Seconds after which a refusal counts as final. Before that it may pass: a webhook restarts, a right is granted a moment
/// later.
const REFUSAL_SECONDS: i64 = 30;

/// What has been decided so far.
pub(super) struct Draft<'a> {
    pub world: &'a ExperimentWorld,
    pub experiment: &'a Experiment,
    /// The status as it was read.
    pub observed: ExperimentStatus,
    /// As it will be written.
    pub status: ExperimentStatus,
    /// Whether the experiment ends: nothing is started any more, and what runs is let go.
    pub ending: bool,
    pub events: Vec<Event>,
    actions: Vec<Action>,
    wake: Option<Timestamp>,
    why: Vec<String>,
}

impl<'a> Draft<'a> {
    pub fn new(world: &'a ExperimentWorld) -> Self {
        let observed = world.experiment.status.clone().unwrap_or_default();
        Self {
            world,
            experiment: &world.experiment,
            status: observed.clone(),
            observed,
            ending: false,
            events: Vec::new(),
            actions: Vec::new(),
            wake: None,
            why: Vec::new(),
        }
    }

    pub fn name(&self) -> &'a str {
        self.experiment.metadata.name.as_deref().unwrap_or_default()
    }

    pub fn namespace(&self) -> &'a str {
        self.experiment.metadata.namespace.as_deref().unwrap_or_default()
    }

    /// An object in the Experiment's namespace.
    pub fn object(&self, resource: Resource, name: &str) -> ObjectRef {
        ObjectRef::new(resource, self.namespace(), name)
    }

    pub fn because(&mut self, why: impl Into<String>) {
        self.why.push(why.into());
    }

    pub fn wake_at(&mut self, at: Timestamp) {
        self.wake = Some(self.wake.map_or(at, |wake| wake.min(at)));
    }

    /// Plans a write with the event that tells of it once it is made, and answers its failure if it is known to fail.
    ///
    /// What failed is planned again: only then does the executor know that this decision has taken the failure into
    /// account, and writes the status that tells of it.
    pub fn act(&mut self, action: Action, event: Option<Event>) -> Option<&'a Failure> {
        self.because(action.to_string());
        let mut failures = self.world.failures.iter();
        let failure = failures.find(|failure| failure.object == *action.object() && failure.action == action.kind());
        self.events.extend(event.map(|event| event.of(&action)));
        self.actions.push(action);
        failure
    }

    /// The failure of creating an object in the previous plan.
    pub fn create_failure(&self, object: &ObjectRef) -> Option<&'a Failure> {
        let kind = crate::plan::FailedAction::Create;
        self.world.failures.iter().find(|failure| failure.object == *object && failure.action == kind)
    }

    /// Whether trying again is of no use: the server has refused it ever since it was tried first.
    pub fn is_final(&mut self, failure: &Failure, first: Option<Timestamp>) -> bool {
        let end = after(first.unwrap_or(self.world.now), REFUSAL_SECONDS);
        if failure.refused && self.world.now < end {
            self.wake_at(end);
        }
        failure.refused && self.world.now >= end
    }

    pub fn finish(self) -> Plan<ExperimentStatus> {
        let reason = match self.why.as_slice() {
            [] if self.observed == self.status => "nothing to do".to_owned(),
            [] => "take note of what was observed".to_owned(),
            why => why.join("; "),
        };
        Plan { actions: self.actions, status: self.status, events: self.events, wake: self.wake, reason }
    }
}

/// So many seconds after an instant; the end of time if that is later.
pub(super) fn after(from: Timestamp, seconds: i64) -> Timestamp {
    from.checked_add(SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MAX)
}
