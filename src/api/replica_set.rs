//! ReplicaSets, as Rollouts and Experiments make them.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;

use super::common::{Condition, LabelSelector};
use super::names;
use super::pod_template::PodTemplate;

/// A ReplicaSet, reduced to what decisions need.
#[derive(Clone, Debug, PartialEq)]
pub struct ReplicaSet {
    pub name: String,
    pub uid: String,
    pub resource_version: String,
    pub created: Timestamp,
    /// Whether deletion has begun.
    pub deleting: bool,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    /// uid of the controlling owner.
    pub controller: Option<String>,
    pub generation: i64,
    pub selector: LabelSelector,
    pub min_ready_seconds: i32,
    pub template: Arc<PodTemplate>,
    /// `spec.replicas`
    pub replicas: i32,
    pub status: ReplicaSetStatus,
}

/// What the ReplicaSet controller of Kubernetes reports.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ReplicaSetStatus {
    pub replicas: i32,
    pub ready: i32,
    pub available: i32,
    pub observed_generation: i64,
    /// While this is about an earlier spec: the fewest pods that were specified since, as far as that was seen. What it counts
    /// beyond them may be gone.
    pub least: i32,
    /// The condition `ReplicaFailure`, if it is there.
    pub failure: Option<Condition>,
}

impl ReplicaSet {
    /// The pod template hash: the ReplicaSet's label, which is authoritative. Empty when it has none.
    pub fn hash(&self) -> &str {
        self.labels.get(names::POD_TEMPLATE_HASH).map_or("", String::as_str)
    }

    /// Whether the status is about the present spec.
    pub fn is_reported(&self) -> bool {
        self.status.observed_generation >= self.generation
    }

    /// Takes from what was seen of it before what the object itself does not tell.
    pub fn remember(&mut self, earlier: &Self) {
        if self.template == earlier.template {
            self.template.clone_from(&earlier.template);
        }
        // A size in between may have been missed.
        if !self.is_reported() && self.generation <= earlier.generation + 1 {
            let before = if earlier.is_reported() { earlier.replicas } else { earlier.status.least };
            self.status.least = before.min(self.replicas);
        }
    }

    /// The revision in the annotation; 0 when there is none or it is not a number.
    pub fn revision(&self) -> i64 {
        self.annotations.get(names::REVISION).and_then(|text| text.parse().ok()).unwrap_or(0)
    }
    /// How old the version is, for comparison: creation times are whole seconds, so of two of one second the revision
    /// that they were made as tells. (One that comes back gets a new number and keeps the first in its history.)
    pub fn age(&self) -> (Timestamp, i64) {
        let history = self.annotations.get(names::REVISION_HISTORY);
        let first = history.and_then(|list| list.split(',').next()?.trim().parse().ok());
        (self.created, first.unwrap_or_else(|| self.revision()))
    }
}
