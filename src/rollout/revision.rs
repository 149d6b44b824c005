//! Which ReplicaSet is which.

use crate::api::common::LabelSelector;
use crate::api::pod_template::PodTemplate;
use crate::plan::Action;

use super::world::{ReplicaSet, World};

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
    pub fn find(_world: &'a World, _desired: Desired<'_>) -> Self {
        todo!()
    }

    /// Every ReplicaSet, once: stable, new, others.
    pub fn all(&self) -> impl Iterator<Item = &'a ReplicaSet> + '_ {
        let new = self.new.filter(|new| self.stable.is_none_or(|stable| stable.name != new.name));
        self.stable.into_iter().chain(new).chain(self.others.iter().copied())
    }

    /// Whether `new` and `stable` are one ReplicaSet.
    pub fn is_fully_promoted(&self) -> bool {
        todo!()
    }

    /// The revision number that `new` has, or gets: one more than the highest among the rest.
    pub fn number(&self) -> i64 {
        todo!()
    }
}

/// The writes that take orphans in and let strangers go.
pub fn claim(_world: &World, _revisions: &Revisions<'_>) -> Vec<Action> {
    todo!()
}

/// The ReplicaSet for the desired template, with no pods yet. To be called when `new` is none and [`collision`] too.
pub fn create(_world: &World, _revisions: &Revisions<'_>, _desired: Desired<'_>) -> Action {
    todo!()
}

/// The `status.collisionCount` to write instead of creating, when the name of the new ReplicaSet is taken by a stranger.
pub fn collision(_world: &World, _revisions: &Revisions<'_>) -> Option<i32> {
    todo!()
}

/// The writes that bring annotations, `minReadySeconds` and the anti-affinity of an existing `new` up to date.
pub fn update(_world: &World, _revisions: &Revisions<'_>) -> Vec<Action> {
    todo!()
}

/// The write of the revision annotation of the Rollout, if it is not right yet.
pub fn annotate_rollout(_world: &World, _revisions: &Revisions<'_>) -> Option<Action> {
    todo!()
}

/// The names of the others that `revisionHistoryLimit` leaves no room for and that have no pods: for `Proposal::delete`.
pub fn beyond_history(_world: &World, _revisions: &Revisions<'_>) -> Vec<String> {
    todo!()
}
