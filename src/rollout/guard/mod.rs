//! The safety rules, in one place: what of a proposal is safe now.
//!
//! Strategies only propose, on every path alike: a normal step, a rollback, an abort, a superseded canary, a first
//! deployment, a deletion. What is admitted is safe in every subset of its writes, because each part is judged against
//! what was observed and against every other part being made or not.
//!
//! 1. **Capacity behind traffic.** No ReplicaSet shrinks below what any observed weight and Service may still send it:
//!    ceil(weight / total × `spec.replicas`) pods, or the size of a `setCanaryScale`, which is the user's own choice, or
//!    what it has now if that is less. What was changed less than the propagation delay ago may still act as before.
//!    The same holds for routes that the strategy has ceased to name, until they have been put back: see [`Traffic::left`].
//! 2. **Traffic behind capacity.** A weight or a selector is moved only to pods that can carry it: see
//!    [`Guard::ready_for`]. A header or mirror route, of which nobody knows how much it carries, needs a pod at least.
//!    The active Service of blue-green sends all of the traffic, and so may a Service that the strategy has ceased to name.
//!    A preview Service sends none. A Service that has a weight is not switched to a version on trial: steps allow it a weight, and
//!    nothing else does.
//! 3. **Floor and ceiling.** Available pods stay above `spec.replicas` − `maxUnavailable`. Specified pods stay below
//!    `spec.replicas` + `maxSurge` without traffic routing. With it, stable keeps its full size beside the canary, so a
//!    ceiling would leave the canary no pods: `maxSurge` plays no role there, as in Argo Rollouts. With blue-green the need
//!    of the one version behind the active Service is the floor.
//! 4. After an abort the weight of the canary only falls, on every route, and no Service of users is switched to it.
//! 5. Weights sum to their total: the weight of stable is what is left.
//!    An experiment's Services get their weights only while all of their pods are available, and none after an abort.
//! 6. Whatever is not admitted is in [`Admitted::holds`].

mod evictions;
mod experiments;
mod shift;
mod sizes;
mod traffic;
mod workload;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use jiff::Timestamp;
use kube::ResourceExt;

use crate::api::canary::CanaryStrategy;
use crate::api::names;
use crate::api::resource::{ObjectRef, SERVICE};
use crate::plan::{Action, Basis};
use crate::traffic::Split;

use self::traffic::{Role, has_pods, selects};
use super::replicas::{self, Counts, Limits, share_up};
use super::revision::{self, Revisions};
use super::services;
use super::world::{ReplicaSet, Service, World};

pub use self::evictions::{evictions, is_stuck, reports_its_pods, unknown_to_proxies_until};
pub use self::traffic::{Left, Traffic};
pub use self::workload::workload_keeps;

/// What a strategy wants. What it does not name stays as it is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Proposal {
    /// `spec.replicas` by name of the ReplicaSet.
    pub replicas: BTreeMap<String, i32>,
    /// Pods of the ReplicaSet that is made in the same pass: beside them there is less room.
    pub created: i32,
    /// Names of ReplicaSets to delete.
    pub delete: BTreeSet<String>,
    /// The split for every router; none leaves the routes alone.
    pub split: Option<Split>,
    /// The pod template hash that a Service should select, by name of the Service.
    pub services: BTreeMap<String, String>,
    /// Names of the managed routes that should lead requests to the canary beside its weight.
    pub managed: BTreeSet<String>,
}

/// What of a proposal is safe now. Every subset of the writes that make it is safe.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Admitted {
    /// For every ReplicaSet that was proposed; what is held has its present size or something in between.
    pub replicas: BTreeMap<String, i32>,
    pub delete: BTreeSet<String>,
    /// One for each router, in the order of [`Traffic::observe`]; none leaves its routes alone.
    pub splits: Vec<Option<Split>>,
    /// The same for each of [`Traffic::left`]: as far back to stable as that can bear.
    pub left: Vec<Option<Split>>,
    /// Those that may be switched now (or select that hash already).
    pub services: BTreeMap<String, String>,
    /// The managed routes that may be there, for each router.
    pub managed: Vec<BTreeSet<String>>,
    /// Everything that was proposed and not admitted.
    pub holds: Vec<Hold>,
    /// By name of each ReplicaSet that shrinks: what must still be as it was observed.
    pub confirm: BTreeMap<String, Vec<Basis>>,
    /// When the next Service is followed as it is: what is held for it may be free then, also where a route is in doubt.
    settles: Option<Timestamp>,
}

/// Something that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// What waits (`ReplicaSet web-abc stays at 3`).
    pub what: String,
    /// What it waits for, as `status.message` says it.
    pub why: String,
    /// When it ends even if nothing else happens.
    pub until: Option<Timestamp>,
}

/// What of the proposal is safe now.
pub fn admit(world: &World, revisions: &Revisions<'_>, traffic: &Traffic<'_>, proposal: Proposal) -> Admitted {
    let guard = Guard::new(world, revisions, traffic);
    let mut admitted = Admitted::default();
    // Weights first, judged by the Services as they are; then Services, by the weights as they are and as they may
    // become; then sizes, by everything that traffic may become.
    guard.splits(proposal.split.as_ref(), &mut admitted);
    guard.put_back(&mut admitted);
    guard.managed(&proposal.managed, &mut admitted);
    guard.services(&proposal.services, &mut admitted);
    guard.sizes(&proposal.replicas, proposal.created, &mut admitted);
    guard.deletions(&proposal.delete, &mut admitted);
    admitted.settles = traffic.services_settle.values().min().copied();
    admitted
}

struct Guard<'a> {
    world: &'a World,
    revisions: &'a Revisions<'a>,
    traffic: &'a Traffic<'a>,
    /// `spec.replicas`
    replicas: i32,
    limits: Limits,
    /// Fewest pods that carry all of the traffic.
    enough: i32,
    /// Whether the Services of stable and canary swap (`pingPong`).
    takes_turns: bool,
    /// The size that a `setCanaryScale` gives the canary.
    canary_size: Option<i32>,
    aborted: bool,
}

impl<'a> Guard<'a> {
    fn new(world: &'a World, revisions: &'a Revisions<'a>, traffic: &'a Traffic<'a>) -> Self {
        let spec = &world.rollout.spec;
        let replicas = spec.desired_replicas();
        let canary = spec.strategy.canary.as_ref();
        let limits = match canary {
            // Validation refuses limits that are no numbers; until it has, an abort must not fail for them.
            Some(canary) => replicas::limits(canary, replicas)
                .or_else(|_| replicas::limits(&CanaryStrategy::default(), replicas))
                .unwrap_or(Limits { surge: 0, unavailable: 0 }),
            None => Limits { surge: 0, unavailable: 0 },
        };
        let threshold = canary.and_then(|canary| canary.replica_progress_threshold.as_ref());
        let enough = replicas - limits.unavailable;
        let enough = threshold.map_or(enough, |_| replicas::required_pods(replicas, threshold).min(enough));
        let status = world.rollout.status.clone().unwrap_or_default();
        let canary_size =
            canary.filter(|_| !status.promote_full && !revisions.is_fully_promoted()).and_then(|canary| {
                let scale = replicas::set_canary_scale(canary, &status)?;
                Some(replicas::routed_canary(replicas, scale, traffic.total(), canary.min_pods_per_replica_set))
            });
        let takes_turns = canary.is_some_and(|canary| canary.ping_pong.is_some());
        Self { world, revisions, traffic, replicas, limits, enough, takes_turns, canary_size, aborted: status.abort }
    }

    /// Pods that a ReplicaSet needs for a weight at its full strength.
    fn full_strength(&self, replica_set: &ReplicaSet, weight: i32) -> i32 {
        if weight <= 0 { 0 } else { self.chosen(replica_set, share_up(weight, self.replicas, self.traffic.total())) }
    }

    /// Available pods that a ReplicaSet must have before a weight is moved to it: one at least, and the weight's share of
    /// `spec.replicas` − `maxUnavailable`, which is the loss of capacity that the user has agreed to (25% unless set).
    ///
    /// A `replicaProgressThreshold` that asks for less lowers that: the user has called it enough. So does a
    /// `setCanaryScale` with fewer pods than the weight: then its size is what is needed. With both, manifests that make
    /// progress under Argo Rollouts make progress here: its steps wait for more than this.
    fn ready_for(&self, replica_set: &ReplicaSet, weight: i32) -> i32 {
        if weight <= 0 {
            return 0;
        }
        self.chosen(replica_set, share_up(weight, self.enough, self.traffic.total())).max(1)
    }

    /// `pods`, or the user's own size of the canary if that is smaller. No traffic goes to none at all.
    fn chosen(&self, replica_set: &ReplicaSet, pods: i32) -> i32 {
        match self.canary_size {
            Some(size) if self.is_new(replica_set) => pods.min(size.max(1)),
            _ => pods,
        }
    }

    fn carries(&self, replica_set: &ReplicaSet, weight: i32) -> bool {
        kept(replica_set) >= self.ready_for(replica_set, weight)
    }

    /// The most pods that may be specified together; none with traffic routing, and for blue-green.
    fn ceiling(&self) -> Option<i64> {
        let basic = self.world.rollout.spec.strategy.canary.is_some() && !self.traffic.is_routed();
        basic.then(|| i64::from(self.replicas) + i64::from(self.limits.surge))
    }

    fn is_new(&self, replica_set: &ReplicaSet) -> bool {
        self.revisions.new.is_some_and(|new| new.name == replica_set.name)
    }

    /// Whether this is the new revision and not (yet) stable.
    fn is_trial(&self, replica_set: &ReplicaSet) -> bool {
        self.is_new(replica_set) && !self.revisions.is_fully_promoted()
    }

    /// Whether this Service carries all of the traffic: the active one of blue-green.
    fn is_active(&self, service: &str) -> bool {
        let blue_green = self.world.rollout.spec.strategy.blue_green.as_ref();
        blue_green.is_some_and(|blue_green| blue_green.active_service == service)
    }

    /// Whether this Service is for trying a version out. Users do not call it, so no pods are owed to it.
    fn is_preview(&self, service: &str) -> bool {
        let blue_green = self.world.rollout.spec.strategy.blue_green.as_ref();
        blue_green.is_some_and(|blue_green| blue_green.preview_service == service)
    }

    /// Whether this Service was the Rollout's and its strategy does not name it any more: nobody knows who calls it.
    fn is_left_behind(&self, service: &str) -> bool {
        services::is_left_behind(self.world, service)
    }

    /// Whether one revision has all of the traffic, behind the active Service of blue-green and for sure.
    fn is_concentrated(&self) -> bool {
        let elsewhere = |left: &Left| self.traffic.highest_left(left, Role::Canary, true) > 0;
        if self.traffic.left.iter().any(elsewhere)
            || self.world.services.keys().any(|service| self.is_left_behind(service))
        {
            return false;
        }
        let active =
            self.world.rollout.spec.strategy.blue_green.as_ref().map_or("", |strategy| &strategy.active_service);
        let settled = !self.traffic.services_settle.contains_key(active);
        let hash = |service: &Service| service.selector.get(names::POD_TEMPLATE_HASH).cloned();
        let hash = self.world.services.get(active).and_then(|observed| hash(&observed.object));
        settled && hash.is_some_and(|hash| self.revisions.all().any(|one| one.hash() == hash))
    }

    fn service_of(&self, role: Role) -> &'a str {
        match role {
            Role::Stable => self.traffic.stable_service,
            Role::Canary => self.traffic.canary_service,
        }
    }

    /// The ReplicaSets that a Service selects as observed.
    fn selected(&self, service: &str) -> Vec<&'a ReplicaSet> {
        let Some(observed) = self.world.services.get(service) else { return Vec::new() };
        let all = self.revisions.all().filter(|one| has_pods(one));
        all.filter(|one| selects(&observed.object.selector, one)).collect()
    }

    /// Whether a Service selected no available pods before it changed, as far as that was seen: whoever follows it may not
    /// know of any yet.
    fn led_nowhere(&self, service: &str) -> bool {
        let before = self.world.services.get(service).and_then(|observed| observed.object.selected.as_ref());
        before.is_some_and(|before| !self.revisions.all().any(|one| kept(one) > 0 && selects(before, one)))
    }

    /// The largest weight of a role, by its routes as they were, are, or become.
    fn highest(&self, router: usize, role: Role, splits: &[Option<Split>], unsettled: bool) -> i32 {
        let admitted = splits.get(router).and_then(Option::as_ref).map_or(0, |split| split.of(role));
        self.traffic.highest(router, role, unsettled).max(admitted)
    }

    /// The weight of a role if it may reach a ReplicaSet.
    fn weight(&self, router: usize, role: Role, replica_set: &ReplicaSet, unsettled: bool) -> i32 {
        let reaches = self.traffic.reaches(self.world, self.service_of(role), replica_set, unsettled);
        if reaches { self.traffic.highest(router, role, unsettled) } else { 0 }
    }

    /// What former routes may send to the Services that this holds for, together.
    fn left_weight(&self, is_meant: impl Fn(&str) -> bool, left: &Left, unsettled: bool) -> i32 {
        let of = |role: Role| match is_meant(left.service_of(role)) {
            true => self.traffic.highest_left(left, role, unsettled),
            false => 0,
        };
        of(Role::Stable).saturating_add(of(Role::Canary)).min(self.traffic.total())
    }

    /// When nothing follows earlier routes and selectors any more; none if a router is in doubt, or if that is so already.
    fn settles(&self) -> Option<Timestamp> {
        match self.traffic.doubt() {
            Some(_) => None,
            None => self.traffic.services_settle.values().copied().chain(self.traffic.routes_settle).max(),
        }
    }
}

impl Admitted {
    /// The scaling of a ReplicaSet to its admitted size; none when it has that size. `desired-replicas` is set, and
    /// `scale-down-deadline` removed at 0, beside the given annotations.
    pub fn scale(
        &self,
        world: &World,
        replica_set: &ReplicaSet,
        mut annotations: BTreeMap<String, Option<String>>,
    ) -> Option<Action> {
        let to = *self.replicas.get(&replica_set.name)?;
        let desired = world.rollout.spec.desired_replicas().to_string();
        annotations.insert(names::DESIRED_REPLICAS.to_owned(), Some(desired));
        if to == 0 {
            annotations.insert(names::SCALE_DOWN_DEADLINE.to_owned(), None);
        }
        annotations.retain(|key, value| replica_set.annotations.get(key) != value.as_ref());
        if to == replica_set.replicas && (to == 0 || annotations.is_empty()) {
            return None;
        }
        Some(Action::Scale {
            // Growing is safe whatever else has changed; shrinking stands on this very state.
            replica_set: revision::basis(world, replica_set, to < replica_set.replicas),
            from: replica_set.replicas,
            to,
            annotations,
        })
    }

    /// The deletions.
    pub fn deletions(&self, world: &World) -> Vec<Action> {
        let deleted = world.replica_sets.iter().filter(|one| self.delete.contains(&one.name));
        deleted
            .map(|one| Action::Delete {
                object: revision::basis(world, one, true),
                what: "beyond revisionHistoryLimit".to_owned(),
            })
            .collect()
    }

    /// When the first hold ends by time, or may end.
    pub fn wake(&self) -> Option<Timestamp> {
        let held = self.settles.filter(|_| !self.holds.is_empty());
        self.holds.iter().filter_map(|hold| hold.until).chain(held).min()
    }
}

impl fmt::Display for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.why)?;
        match self.until {
            Some(until) => write!(f, " (until {until})"),
            None => Ok(()),
        }
    }
}

fn service_basis(world: &World, service: &Service) -> Basis {
    Basis {
        object: ObjectRef::new(SERVICE, world.rollout.namespace().unwrap_or_default(), service.name.clone()),
        uid: service.uid.clone(),
        resource_version: Some(service.resource_version.clone()),
    }
}

/// Available pods that a ReplicaSet keeps; one that is being deleted keeps none.
fn kept(replica_set: &ReplicaSet) -> i32 {
    if replica_set.deleting { 0 } else { Counts::from(replica_set).kept() }
}

/// Those of them that are there for sure: not those that may have gone with a size which has not been reported.
fn surely_kept(replica_set: &ReplicaSet) -> i32 {
    let kept = kept(replica_set);
    if replica_set.is_reported() { kept } else { kept.min(replica_set.status.least) }
}

#[cfg(test)]
mod tests;
