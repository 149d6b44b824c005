//! Which sizes ReplicaSets may take now, and which may go.

use std::collections::{BTreeMap, BTreeSet};

use crate::plan::Basis;
use crate::rollout::revision;
use crate::rollout::world::ReplicaSet;

use super::traffic::{Role, has_pods};
use super::{Admitted, Guard, Hold, kept, surely_kept};

/// Pods that a ReplicaSet must keep for traffic.
pub(super) struct Need {
    pub pods: i32,
    why: String,
}

impl Guard<'_> {
    pub(super) fn sizes(&self, wanted: &BTreeMap<String, i32>, created: i32, admitted: &mut Admitted) {
        // Old revisions go before the new one, and stable last: the order in which the floor gives way.
        let new = self.revisions.new.filter(|_| !self.revisions.is_fully_promoted());
        let order: Vec<_> = self.revisions.others.iter().copied().chain(new).chain(self.revisions.stable).collect();
        let mut sizes: BTreeMap<&str, i32> = order.iter().map(|one| (one.name.as_str(), one.replicas)).collect();
        let wanted_of = |one: &ReplicaSet| wanted.get(&one.name).copied().unwrap_or(one.replicas).max(0);

        self.grow(&order, created, &wanted_of, &mut sizes, admitted);
        self.shrink_to_need(&order, &wanted_of, &mut sizes, admitted);
        self.shrink_to_floor(&order, &mut sizes, admitted);

        for one in &order {
            let size = sizes[one.name.as_str()];
            if wanted.contains_key(&one.name) {
                admitted.replicas.insert(one.name.clone(), size);
            }
            if size < one.replicas {
                admitted.confirm.insert(one.name.clone(), self.bases(one, size));
            }
        }
        // Those that are not the Rollout's (released, or unknown) are not scaled at all.
        for name in wanted.keys().filter(|name| !sizes.contains_key(name.as_str())) {
            let what = format!("ReplicaSet {name} keeps its size");
            admitted.holds.push(Hold { what, why: "it does not belong to this Rollout".to_owned(), until: None });
        }
    }

    /// Lets sizes grow up to the ceiling, without counting on anything that is to shrink. Stable comes first.
    fn grow<'s>(
        &self,
        order: &[&'s ReplicaSet],
        created: i32,
        wanted: &dyn Fn(&ReplicaSet) -> i32,
        sizes: &mut BTreeMap<&'s str, i32>,
        admitted: &mut Admitted,
    ) {
        let ceiling = self.ceiling();
        let specified: i64 = order.iter().map(|one| i64::from(one.replicas)).sum::<i64>() + i64::from(created);
        let mut room = ceiling.map_or(i64::MAX, |ceiling| (ceiling - specified).max(0));
        for one in order.iter().rev() {
            let more = i64::from(wanted(one)) - i64::from(one.replicas);
            if more <= 0 {
                continue;
            }
            let added = more.min(room);
            room -= added;
            let size = one.replicas + added as i32;
            sizes.insert(&one.name, size);
            if added < more {
                let why = format!("maxSurge allows {} pods together", ceiling.unwrap_or_default());
                admitted.holds.push(Hold {
                    what: format!("ReplicaSet {} stays at {size}", one.name),
                    why,
                    until: None,
                });
            }
        }
    }

    fn shrink_to_need<'s>(
        &self,
        order: &[&'s ReplicaSet],
        wanted: &dyn Fn(&ReplicaSet) -> i32,
        sizes: &mut BTreeMap<&'s str, i32>,
        admitted: &mut Admitted,
    ) {
        for one in order.iter().filter(|one| wanted(one) < one.replicas) {
            let need = self.need(one, admitted, true);
            let size = wanted(one).max(need.pods.min(one.replicas));
            sizes.insert(&one.name, size);
        }
        for one in order.iter().filter(|one| wanted(one) < one.replicas) {
            let size = sizes[one.name.as_str()];
            if size == wanted(one) {
                continue;
            }
            if self.must_make_room(one, order, sizes) && !self.is_behind_left(one) {
                sizes.insert(&one.name, wanted(one));
                continue;
            }
            let need = self.need(one, admitted, true);
            let settled = self.need(one, admitted, false).pods.min(one.replicas) < size;
            let until = if settled { self.settles() } else { None };
            let what = format!("ReplicaSet {} stays at {size}", one.name);
            admitted.holds.push(Hold { what, why: need.why, until });
        }
    }

    /// Whether a pod that only a plain Service holds must go all the same, because nothing could move otherwise: the one
    /// that the Service is to select next has no pod, and the ceiling leaves no room for one. By `maxSurge: 0` the user
    /// has agreed to that gap.
    fn must_make_room(&self, one: &ReplicaSet, order: &[&ReplicaSet], sizes: &BTreeMap<&str, i32>) -> bool {
        let Some(ceiling) = self.ceiling() else { return false };
        let together: i64 = order.iter().map(|one| i64::from(sizes[one.name.as_str()])).sum();
        let waiting = |role: Option<&ReplicaSet>| {
            role.is_some_and(|role| role.name != one.name && role.replicas == 0 && sizes[role.name.as_str()] == 0)
        };
        together >= ceiling && (waiting(self.revisions.new) || waiting(self.revisions.stable))
    }

    /// Whether a Service that the strategy names no more may lead to a revision: no choice of the strategy covers that.
    fn is_behind_left(&self, one: &ReplicaSet) -> bool {
        let mut left = self.world.services.keys().filter(|service| self.is_left_behind(service));
        left.any(|service| self.traffic.reaches(self.world, service, one, true))
    }

    /// Raises sizes again until as many pods stay available as must. What shrinks loses all that it may have, and what is
    /// there for sure makes up for it.
    fn shrink_to_floor<'s>(
        &self,
        order: &[&'s ReplicaSet],
        sizes: &mut BTreeMap<&'s str, i32>,
        admitted: &mut Admitted,
    ) {
        let fewest = match self.is_concentrated() {
            // Pods beside the active version serve nobody, however few it has.
            true => 0,
            false => i64::from(self.replicas) - i64::from(self.limits.unavailable),
        };
        let available: i64 = order.iter().map(|one| i64::from(surely_kept(one))).sum();
        let mut spare = (available - fewest).max(0);
        for one in order {
            let size = sizes[one.name.as_str()];
            let lost = i64::from((kept(one) - size).max(0));
            let granted = lost.min(spare);
            spare -= granted;
            if granted < lost {
                let size = size + (lost - granted) as i32;
                sizes.insert(&one.name, size);
                let what = format!("ReplicaSet {} stays at {size}", one.name);
                let why = format!("{fewest} pods must stay available");
                admitted.holds.push(Hold { what, why, until: None });
            }
        }
    }

    /// What traffic needs of a ReplicaSet, by everything that was observed and everything that was admitted.
    pub(super) fn need(&self, replica_set: &ReplicaSet, admitted: &Admitted, unsettled: bool) -> Need {
        let mut need = Need { pods: 0, why: String::new() };
        if self.replicas == 0 {
            // Nothing is wanted to run, so nothing is to be served.
            return need;
        }
        let mut at_least = |pods: i32, why: &dyn Fn() -> String| {
            if pods > need.pods {
                need = Need { pods, why: why() };
            }
        };
        let behind = |service: &str| {
            admitted.services.get(service).is_some_and(|hash| hash == replica_set.hash())
                || self.traffic.reaches(self.world, service, replica_set, unsettled)
        };
        for router in 0..self.traffic.routers.len() {
            let weight = |role: Role| {
                let highest = || self.highest(router, role, &admitted.splits, unsettled);
                if behind(self.service_of(role)) { highest() } else { 0 }
            };
            let together = weight(Role::Stable).saturating_add(weight(Role::Canary)).min(self.traffic.total());
            let managed =
                self.traffic.is_managed(router) || admitted.managed.get(router).is_some_and(|names| !names.is_empty());
            if managed && behind(self.service_of(Role::Canary)) {
                at_least(1, &|| "header or mirror routes lead to it".to_owned());
            }
            at_least(self.full_strength(replica_set, together), &|| match self.traffic.doubt() {
                Some(doubt) => format!("traffic may still reach it: {doubt}"),
                None => format!("{together} of {} of the traffic may still reach it", self.traffic.total()),
            });
        }
        for left in &self.traffic.left {
            let together = self.left_weight(behind, left, unsettled);
            let managed = left.observed.as_ref().is_ok_and(|observed| !observed.managed.is_empty());
            if managed && behind(&left.canary_service) {
                at_least(1, &|| "header or mirror routes lead to it".to_owned());
            }
            at_least(self.full_strength(replica_set, together), &|| {
                "a route that the strategy names no more may still lead to it".to_owned()
            });
        }
        let services: BTreeSet<&String> =
            self.world.services.keys().chain(self.traffic.services_settle.keys()).collect();
        for service in services.into_iter().filter(|service| behind(service)) {
            at_least(self.plain_need(service, replica_set), &|| {
                format!("Service {service} may still send traffic to it")
            });
        }
        need
    }

    /// Pods that a Service needs of a ReplicaSet beyond any weight, because who calls the Service itself must find pods.
    ///
    /// With traffic routing an old revision (and that of an aborted update) keeps all its pods while a Service selects it.
    /// Without it, pods are the weights, and holding more than one would keep the next revision from starting under the
    /// ceiling. Stable keeps its last one until it is old, if a surge lets the new revision become complete beside it.
    fn plain_need(&self, service: &str, replica_set: &ReplicaSet) -> i32 {
        if self.is_active(service) || self.is_left_behind(service) {
            return self.full_strength(replica_set, self.traffic.total());
        }
        if self.is_preview(service) {
            return 0;
        }
        if self.takes_turns && self.traffic.role(service) == Some(Role::Canary) {
            // It selects the version before until the next update, and only routes lead to it: their weight counts.
            return 0;
        }
        let is_stable = self.revisions.stable.is_some_and(|stable| stable.name == replica_set.name);
        let old = match self.is_new(replica_set) {
            true => self.aborted && self.is_trial(replica_set),
            false => !is_stable,
        };
        match (old, self.traffic.is_routed()) {
            (true, true) => replica_set.replicas,
            (true, false) => 1,
            (false, false) if is_stable && self.limits.surge > 0 => 1,
            (false, _) => 0,
        }
    }

    /// Everything that makes it safe for a ReplicaSet to shrink: Services, routes, and the ReplicaSets whose pods take over.
    fn bases(&self, replica_set: &ReplicaSet, size: i32) -> Vec<Basis> {
        let mut bases = self.traffic.bases(self.world);
        if size < kept(replica_set) {
            let others = self.revisions.all().filter(|one| one.name != replica_set.name && kept(one) > 0);
            bases.extend(others.map(|one| revision::basis(self.world, one, true)));
        }
        bases
    }

    pub(super) fn deletions(&self, wanted: &BTreeSet<String>, admitted: &mut Admitted) {
        for name in wanted {
            let why = match self.revisions.others.iter().find(|one| one.name == *name) {
                None => "it is no old revision of this Rollout".to_owned(),
                Some(one) if has_pods(one) => {
                    format!("it still has {} pods", one.replicas.max(one.status.replicas))
                }
                Some(_) if admitted.replicas.get(name).is_some_and(|size| *size > 0) => "it is to get pods".to_owned(),
                Some(_) => {
                    admitted.delete.insert(name.clone());
                    continue;
                }
            };
            admitted.holds.push(Hold { what: format!("ReplicaSet {name} is not deleted"), why, until: None });
        }
    }
}
