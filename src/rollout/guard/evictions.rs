//! Which pods may be evicted now.

use std::collections::BTreeMap;

use crate::api::int_or_percent::{IntOrString, Round};
use crate::rollout::revision::Revisions;
use crate::rollout::world::{Pod, ReplicaSet, World};

use jiff::{SignedDuration, Timestamp};

use super::{Admitted, Guard, Traffic, kept};

/// How many available pods may be evicted.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Allowance {
    /// By name of the ReplicaSet.
    each: BTreeMap<String, i32>,
    together: i32,
}

/// How many available pods may be evicted now, beside all that was admitted. None while anything shrinks: each of the two
/// would count on the pods that the other one takes.
///
/// A ReplicaSet keeps what traffic needs of it, less the share of `maxUnavailable` that falls to it, and all together keep
/// `spec.replicas` − `maxUnavailable`. Pods count as they were listed, not as ReplicaSets report them: a report may be
/// older than our last eviction.
pub fn evictions(world: &World, revisions: &Revisions<'_>, traffic: &Traffic<'_>, admitted: &Admitted) -> Allowance {
    let guard = Guard::new(world, revisions, traffic);
    let shrinks = |set: &ReplicaSet| admitted.replicas.get(&set.name).is_some_and(|size| *size < set.replicas);
    if revisions.all().any(shrinks) {
        return Allowance::default();
    }
    let available = |set: &ReplicaSet| kept(set).min(listed(world, set));
    let each = revisions.all().map(|set| (set.name.clone(), (available(set) - guard.least(set, admitted)).max(0)));
    let each = each.collect();
    let all: i32 = revisions.all().map(available).sum();
    Allowance { each, together: (all - (guard.replicas - guard.may_miss())).max(0) }
}

/// Whether a ReplicaSet reports as many available pods as were listed.
pub fn reports_its_pods(world: &World, set: &ReplicaSet) -> bool {
    set.status.available == listed(world, set)
}

/// Until when proxies may know none of the available pods of a ReplicaSet, since all have just become so. None when they know
/// one, when the pods were not listed, and when no router sends anything anywhere.
pub fn unknown_to_proxies_until(world: &World, traffic: &Traffic<'_>, set: &ReplicaSet) -> Option<Timestamp> {
    let pods = world.pods.iter().flatten().filter(|pod| traffic.is_routed() && pod.controller == set.uid);
    // By a clock that is behind that of the kubelets they may be ready in the future.
    let ready_since = pods.filter(|pod| !pod.over).filter_map(|pod| pod.ready_since);
    let known = ready_since.min()?.checked_add(traffic.propagation_delay).unwrap_or(Timestamp::MAX);
    (known > world.now).then_some(known)
}

/// Whether not one pod of a ReplicaSet could ever be evicted, even with all pods of these sizes available.
pub fn is_stuck(
    world: &World,
    revisions: &Revisions<'_>,
    traffic: &Traffic<'_>,
    replica_set: &ReplicaSet,
    sizes: &BTreeMap<String, i32>,
) -> bool {
    let guard = Guard::new(world, revisions, traffic);
    let size = |set: &ReplicaSet| sizes.get(&set.name).copied().unwrap_or(set.replicas);
    let all: i32 = revisions.all().map(size).sum();
    size(replica_set) <= guard.least(replica_set, &Admitted::default()) || all <= guard.replicas - guard.may_miss()
}

impl Allowance {
    /// Whether this pod may go, which is then counted. One that is not available serves nobody.
    pub fn take(&mut self, set: &ReplicaSet, pod: &Pod, now: Timestamp) -> bool {
        let Some(own) = self.each.get_mut(&set.name) else { return false };
        if !is_available(pod, set, now) {
            return true;
        }
        if *own <= 0 || self.together <= 0 {
            return false;
        }
        *own -= 1;
        self.together -= 1;
        true
    }
}

impl Guard<'_> {
    /// `maxUnavailable`; that of blue-green is for restarts only.
    fn may_miss(&self) -> i32 {
        let Some(strategy) = &self.world.rollout.spec.strategy.blue_green else { return self.limits.unavailable };
        let default = IntOrString::from("25");
        let wanted = strategy.max_unavailable.as_ref().unwrap_or(&default);
        wanted.scaled_leniently(self.replicas, Round::Down).unwrap_or(0).clamp(0, self.replicas.max(0))
    }

    /// The fewest pods with which a ReplicaSet carries its traffic, when as many are missing as the user has agreed to.
    fn least(&self, set: &ReplicaSet, admitted: &Admitted) -> i32 {
        let need = self.need(set, admitted, true).pods;
        let missing = i64::from(need) * i64::from(self.may_miss()) / i64::from(self.replicas.max(1));
        need - i32::try_from(missing).unwrap_or(0)
    }
}

/// The available pods of a ReplicaSet, as they were listed.
fn listed(world: &World, set: &ReplicaSet) -> i32 {
    let pods = world.pods.iter().flatten().filter(|pod| pod.controller == set.uid);
    i32::try_from(pods.filter(|pod| is_available(pod, set, world.now)).count()).unwrap_or(i32::MAX)
}

fn is_available(pod: &Pod, set: &ReplicaSet, now: Timestamp) -> bool {
    let since = pod.ready_since.filter(|_| !pod.over);
    since.is_some_and(|since| now.duration_since(since) >= SignedDuration::from_secs(set.min_ready_seconds.into()))
}
