//! What a decision asks for: typed actions, a new status, events, and when to look again.
//!
//! The contract between those who decide and the one who executes:
//!
//! - Every action is idempotent and stands on what was *observed*, never on an earlier action of the same plan. So every
//!   subset of a plan is safe: whatever fails or is cut off by a crash, the next decision carries on from what is there.
//! - The executor runs all actions in order, also after one has failed. The status is written last, and only when the
//!   decision knew of every failure (see [`Failure`]): otherwise the shell decides again, with the failures in the World.
//! - An event is told once, when what it tells of has happened: when its action was carried out ([`Event::of`]), or when the
//!   status was written.
//! - A plan prints itself as text, and that text is what tests compare.

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use serde_json::Value;

use crate::api::resource::ObjectRef;

/// The outcome of one decision, with `S` the status of the decided kind.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan<S> {
    pub actions: Vec<Action>,
    /// The whole new status; the executor writes what differs from the observed one, if anything does.
    pub status: S,
    pub events: Vec<Event>,
    /// When the next decision is due even if nothing changes.
    pub wake: Option<Timestamp>,
    /// One line for the log: what was decided and why.
    pub reason: String,
}

/// One write to the cluster.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Creates an object. That it exists already is no failure if our controller owns it: the next decision sees it.
    Create { object: ObjectRef, body: Value },
    /// Changes `spec.replicas` of a ReplicaSet (or of the Deployment of a `workloadRef`) and some annotations (`None` removes one).
    Scale { replica_set: Basis, from: i32, to: i32, annotations: BTreeMap<String, Option<String>> },
    /// A JSON merge patch under the uid (and resourceVersion, if any) of the basis. `what` says it in words.
    MergePatch { object: Basis, patch: Value, what: String },
    /// A JSON patch (RFC 6902) that carries its own `test` operations. `what` says it in words.
    JsonPatch { object: Basis, patch: json_patch::Patch, what: String },
    /// Evicts a pod, with the uid as precondition. Disruption budgets may refuse it; a plan expects that.
    Evict { pod: Basis, what: String },
    /// Deletes an object, with the uid as precondition.
    Delete { object: Basis, what: String },
    /// An action that other objects make safe as they were observed. They are read live first; if one has changed, nothing
    /// is written and the decision is made again.
    Confirmed { by: Vec<Basis>, action: Box<Action> },
}

/// An object as it was observed: the precondition of a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Basis {
    pub object: ObjectRef,
    pub uid: String,
    /// When set, the write fails if the object has changed since.
    pub resource_version: Option<String>,
}

/// An Event of Kubernetes on the decided object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Whether the type is `Warning` rather than `Normal`.
    pub warning: bool,
    pub reason: String,
    pub message: String,
    /// The action that it tells of. None for what happens when the status is written.
    pub of: Option<(ObjectRef, FailedAction)>,
}

/// An action of the previous plan that the API server refused or did not answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub object: ObjectRef,
    pub action: FailedAction,
    /// The server's words.
    pub error: String,
    /// Whether the server has understood and said no. Otherwise trying again may help.
    pub refused: bool,
}

/// What was attempted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailedAction {
    Create,
    Scale,
    Patch,
    Evict,
    Delete,
}

impl Event {
    pub fn normal(reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self { warning: false, reason: reason.into(), message: message.into(), of: None }
    }

    pub fn warning(reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self { warning: true, reason: reason.into(), message: message.into(), of: None }
    }

    /// The event of an action.
    #[must_use]
    pub fn of(self, action: &Action) -> Self {
        Self { of: Some((action.object().clone(), action.kind())), ..self }
    }
}

impl Action {
    /// The same action, if these objects are still as they were observed.
    #[must_use]
    pub fn confirmed(self, by: Vec<Basis>) -> Self {
        if by.is_empty() { self } else { Self::Confirmed { by, action: Box::new(self) } }
    }

    /// The object that is written.
    pub fn object(&self) -> &ObjectRef {
        match self {
            Self::Confirmed { action, .. } => action.object(),
            Self::Create { object, .. } => object,
            Self::Scale { replica_set, .. } => &replica_set.object,
            Self::Evict { pod, .. } => &pod.object,
            Self::MergePatch { object, .. } | Self::JsonPatch { object, .. } | Self::Delete { object, .. } => {
                &object.object
            }
        }
    }

    /// Whether it is the action that an event or a failure names.
    pub fn is(&self, object: &ObjectRef, kind: FailedAction) -> bool {
        self.object() == object && self.kind() == kind
    }

    /// The kind of write.
    pub fn kind(&self) -> FailedAction {
        match self {
            Self::Create { .. } => FailedAction::Create,
            Self::Scale { .. } => FailedAction::Scale,
            Self::MergePatch { .. } | Self::JsonPatch { .. } => FailedAction::Patch,
            Self::Evict { .. } => FailedAction::Evict,
            Self::Delete { .. } => FailedAction::Delete,
            Self::Confirmed { action, .. } => action.kind(),
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Create { object, .. } => write!(f, "create {object}"),
            Self::Scale { replica_set, from, to, annotations, .. } => {
                write!(f, "scale {} from {from} to {to}", replica_set.object)?;
                for (key, value) in annotations {
                    match value {
                        Some(value) => write!(f, ", {key}={value}")?,
                        None => write!(f, ", {key} removed")?,
                    }
                }
                Ok(())
            }
            Self::MergePatch { object, what, .. } | Self::JsonPatch { object, what, .. } => {
                write!(f, "patch {}: {what}", object.object)
            }
            Self::Evict { pod, what } => write!(f, "evict {}: {what}", pod.object),
            Self::Delete { object, what } => write!(f, "delete {}: {what}", object.object),
            Self::Confirmed { action, .. } => action.fmt(f),
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let type_ = if self.warning { "Warning" } else { "Normal" };
        write!(f, "event {type_} {}: {}", self.reason, self.message)
    }
}

impl<S> fmt::Display for Plan<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.reason)?;
        for action in &self.actions {
            writeln!(f, "  {action}")?;
        }
        for event in &self.events {
            writeln!(f, "  {event}")?;
        }
        if let Some(wake) = self.wake {
            writeln!(f, "  wake at {wake}")?;
        }
        Ok(())
    }
}
