//! How many pods each ReplicaSet should have: plain arithmetic.

use crate::api::canary::{CanaryStrategy, ReplicaProgressThreshold};
use crate::api::int_or_percent::ScaleError;
use crate::api::rollout::RolloutSpec;
use crate::api::rollout_status::RolloutStatus;

use super::world::ReplicaSet;

/// `maxSurge` and `maxUnavailable` as pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    pub surge: i32,
    pub unavailable: i32,
}

/// How large the canary should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CanaryScale {
    /// As this weight needs it.
    Weight(i32),
    /// That many pods.
    Replicas(i32),
}

/// Pods of one ReplicaSet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// `spec.replicas`
    pub spec: i32,
    /// `status.availableReplicas`
    pub available: i32,
}

/// What the sizes of a canary without traffic routing follow from.
#[derive(Clone, Copy, Debug)]
pub struct Basic<'a> {
    /// `spec.replicas` of the Rollout.
    pub replicas: i32,
    /// Weight of the canary, 0..=`total`.
    pub weight: i32,
    pub total: i32,
    pub limits: Limits,
    pub new: Option<Counts>,
    /// None when there is no stable ReplicaSet, or when it is the new one.
    pub stable: Option<Counts>,
    /// Newest revision first.
    pub others: &'a [Counts],
}

/// Sizes to scale to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sizes {
    pub new: i32,
    pub stable: i32,
    /// In the order of [`Basic::others`].
    pub others: Vec<i32>,
}

/// `maxSurge` (rounded up) and `maxUnavailable` (rounded down) of `replicas` pods. 25% each when absent; unavailable is
/// at most `replicas`, and 1 when both are 0.
pub fn limits(_canary: &CanaryStrategy, _replicas: i32) -> Result<Limits, ScaleError> {
    todo!()
}

/// `maxTrafficWeight`, 100 when absent.
pub fn max_weight(_canary: &CanaryStrategy) -> i32 {
    todo!()
}

/// Index of the current step; none when all are done or there are none.
pub fn current_step(_canary: &CanaryStrategy, _status: &RolloutStatus) -> Option<usize> {
    todo!()
}

/// The weight that the steps up to the current one ask for.
pub fn current_set_weight(_canary: &CanaryStrategy, _status: &RolloutStatus) -> i32 {
    todo!()
}

/// The `setCanaryScale` that is in force, if any.
pub fn set_canary_scale(_canary: &CanaryStrategy, _status: &RolloutStatus) -> Option<CanaryScale> {
    todo!()
}

/// How large the canary should be now.
pub fn canary_scale(_canary: &CanaryStrategy, _status: &RolloutStatus) -> CanaryScale {
    todo!()
}

/// The sizes of a canary without traffic routing that lead safely one pass further.
pub fn basic(_basic: &Basic<'_>) -> Sizes {
    todo!()
}

/// Pods of the canary and of stable at the end of a pass without traffic routing.
pub fn ideal_split(_replicas: i32, _weight: i32, _total: i32, _surge: i32) -> (i32, i32) {
    todo!()
}

/// Pods of a canary with traffic routing; stable has `replicas`.
pub fn routed_canary(_replicas: i32, _scale: CanaryScale, _total: i32, _min_pods: Option<i32>) -> i32 {
    todo!()
}

/// New sizes of old ReplicaSets, newest first: those with unhealthy pods lose them, then as many pods go as
/// availability allows. `available` is over all ReplicaSets, `min_available` the floor.
pub fn drain_others(_others: &[Counts], _available: i32, _min_available: i32) -> Vec<i32> {
    todo!()
}

/// Whether enough of `desired` pods are available: all, or as many as the threshold says.
pub fn enough_available(_desired: i32, _counts: Counts, _threshold: Option<&ReplicaProgressThreshold>) -> bool {
    todo!()
}

impl From<&ReplicaSet> for Counts {
    fn from(replica_set: &ReplicaSet) -> Self {
        Self { spec: replica_set.replicas, available: replica_set.status.available }
    }
}

impl Limits {
    /// The fewest pods that may be available, and the most that may be specified.
    pub fn range(self, spec: &RolloutSpec) -> (i32, i32) {
        let replicas = spec.desired_replicas();
        (replicas - self.unavailable, replicas + self.surge)
    }
}
