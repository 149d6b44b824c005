//! Which weights and selectors may be moved now.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use crate::api::names;
use crate::traffic::Split;
use crate::traffic::istio::destination_rule;

use super::evictions::unknown_to_proxies_until;
use super::traffic::{Role, has_pods};
use super::{Admitted, Guard, Hold, kept, surely_kept};

impl Guard<'_> {
    pub(super) fn splits(&self, wanted: Option<&Split>, admitted: &mut Admitted) {
        let wanted = wanted.map(|wanted| self.with_carried(wanted, admitted));
        let wanted = wanted.as_ref();
        for router in 0..self.traffic.routers.len() {
            let split = wanted.and_then(|wanted| match self.split(router, wanted) {
                Ok(split) => Some(split),
                Err((split, hold)) => {
                    if !admitted.holds.contains(&hold) {
                        admitted.holds.push(hold);
                    }
                    split
                }
            });
            admitted.splits.push(split);
        }
    }

    /// How far former routes may be put back to stable now: nobody wants them elsewhere any more.
    pub(super) fn put_back(&self, admitted: &mut Admitted) {
        let total = self.traffic.total();
        for left in &self.traffic.left {
            let split = left.observed.as_ref().ok().and_then(|observed| {
                let highest = observed.split.canary;
                let lowest = (total - observed.split.stable).clamp(0, highest.max(0));
                let least = self.least_canary((&left.stable_service, &left.canary_service), total, highest);
                if least > 0 {
                    let service = &left.stable_service;
                    admitted.holds.push(Hold {
                        what: format!(
                            "a former route still gives Service {} a weight of {highest}",
                            left.canary_service
                        ),
                        why: format!("Service {service} has too few available pods for the rest of the traffic"),
                        until: None,
                    });
                }
                (least == 0 || least < highest && least <= lowest).then(|| Split::new(least, total))
            });
            admitted.left.push(split);
        }
    }

    /// Which managed routes a router may have now. Those that are there may stay, and any may go.
    pub(super) fn managed(&self, wanted: &BTreeSet<String>, admitted: &mut Admitted) {
        for (router, observed) in self.traffic.routers.iter().enumerate() {
            let there = |name: &String| observed.as_ref().is_ok_and(|observed| observed.managed.contains(name));
            let (mut allowed, new): (BTreeSet<String>, BTreeSet<String>) = wanted.iter().cloned().partition(there);
            let obstacle = match self.aborted && !self.revisions.is_fully_promoted() {
                true => Some(("the update was aborted".to_owned(), None)),
                false => self.cannot_raise(router, 0),
            };
            match obstacle {
                None => allowed.extend(new),
                Some((why, until)) => admitted.holds.extend(new.into_iter().map(|name| {
                    let what = format!("route {name} is not made");
                    Hold { what, why: why.clone(), until }
                })),
            }
            admitted.managed.push(allowed);
        }
    }

    /// The split that a router may make now; an error when that is not the wanted one: another, or none.
    fn split(&self, router: usize, wanted: &Split) -> Result<Split, (Option<Split>, Hold)> {
        let total = self.traffic.total();
        let additional: i32 = wanted.additional.values().sum();
        let most = (total - additional).max(0);
        let with_canary =
            |canary: i32| Split { canary, stable: most - canary, additional: wanted.additional.clone(), total };
        let wanted = with_canary(wanted.canary.clamp(0, most));

        let (lowest, highest) = match &self.traffic.routers[router] {
            // What cannot be read can neither be trusted to be low nor be a reason not to go down.
            Err(_) => (0, 0),
            Ok(observed) if observed.makes(&wanted) => return Ok(wanted),
            Ok(observed) => {
                // Where routes differ, the largest weight of stable tells the smallest one of the canary.
                let others: i32 = observed.split.additional.values().sum();
                let highest = observed.split.canary;
                ((total - others - observed.split.stable).clamp(0, highest.max(0)), highest)
            }
        };
        let hold = |weight: i32, why: String, until: Option<Timestamp>| Hold {
            what: format!("the weight of the canary stays at {weight}"),
            why,
            until,
        };
        let least = self.least_canary((self.traffic.stable_service, self.traffic.canary_service), most, highest);
        // As far down as stable can bear; but where routes differ, never up on one for the sake of another.
        let down_to = |weight: i32| Some(least.max(weight)).filter(|down| *down < highest && *down <= lowest);

        if wanted.canary > lowest {
            let obstacle = match self.aborted && !self.revisions.is_fully_promoted() {
                true => Some(("the update was aborted".to_owned(), None)),
                false => self.cannot_raise(router, wanted.canary),
            };
            if let Some((why, until)) = obstacle {
                return Err((down_to(lowest).map(with_canary), hold(highest, why, until)));
            }
        }
        if wanted.canary < highest
            && let Some(why) = self.would_go_back()
        {
            return Err((None, hold(highest, why, None)));
        }
        if wanted.canary < highest && wanted.canary < least {
            let service = self.traffic.stable_service;
            let why = format!("Service {service} has too few available pods for the rest of the traffic");
            return Err((down_to(wanted.canary).map(with_canary), hold(least, why, None)));
        }
        Ok(wanted)
    }

    /// Why traffic that leaves the canary's Service at the end of an update would reach the version before it: the Service of
    /// the stable version was not switched, or that was refused.
    fn would_go_back(&self) -> Option<String> {
        let stable = self.revisions.new.filter(|_| self.revisions.is_fully_promoted())?;
        let service = self.traffic.stable_service;
        let selected = self.selected(service);
        let elsewhere = !selected.is_empty() && selected.iter().all(|one| one.name != stable.name);
        elsewhere.then(|| format!("Service {service} does not select ReplicaSet {} yet", stable.name))
    }

    /// Why the canary's weight cannot be raised, and until when.
    fn cannot_raise(&self, router: usize, weight: i32) -> Option<(String, Option<Timestamp>)> {
        if !self.traffic.recorded {
            return Some((format!("annotation {} of the Rollout does not name its routes yet", names::ROUTES), None));
        }
        let service = self.traffic.canary_service;
        let selected = self.selected(service);
        if let Some(new) = self.revisions.new
            && !selected.iter().any(|one| one.name == new.name)
        {
            // A step allows its weight to the new revision, not to whatever the Service selected before.
            return Some((format!("Service {service} does not select ReplicaSet {} yet", new.name), None));
        }
        if selected.iter().all(|one| kept(one) == 0) {
            return Some((format!("Service {service} has no available pods"), None));
        }
        if let Some(one) = selected.iter().find(|one| surely_kept(one) < kept(one)) {
            return Some((format!("ReplicaSet {} has not reported its pods yet", one.name), None));
        }
        if let [_, _, ..] = selected[..] {
            // Several ReplicaSets behind one Service carry its weight together.
            if self.capacity(service) < weight {
                return Some((format!("Service {service} has too few available pods for a weight of {weight}"), None));
            }
        }
        if self.traffic.highest(router, Role::Canary, false) == 0
            && let Some(until) =
                selected.iter().map(|one| unknown_to_proxies_until(self.world, self.traffic, one)).min().flatten()
        {
            return Some((format!("the pods of Service {service} have all been restarted just now"), Some(until)));
        }
        let until = self.traffic.services_settle.get(service).copied();
        if until.is_some() && self.led_nowhere(service) {
            return Some((format!("Service {service} had no pods until just now"), until));
        }
        if until.is_some() && destination_rule::is_subset(service) {
            return Some((format!("proxies may not know the pods of Service {service} yet"), until));
        }
        let behind: Vec<_> = match (&selected[..], until) {
            // What the Service selected until just now may still get the weight.
            (_, Some(_)) => self.revisions.all().filter(|one| has_pods(one)).collect(),
            ([one], None) => vec![*one],
            (_, None) => vec![],
        };
        behind.into_iter().find_map(|one| {
            let together =
                weight.saturating_add(self.weight(router, Role::Stable, one, true)).min(self.traffic.total());
            if self.carries(one, together) {
                return None;
            }
            let why = format!(
                "ReplicaSet {} has {} available pods and needs {} for a weight of {together}",
                one.name,
                kept(one),
                self.ready_for(one, together)
            );
            // What only an earlier selector adds is over with the propagation delay.
            let selected = selected.iter().any(|selected| selected.name == one.name);
            let passes = !selected || self.carries(one, weight);
            Some((why, self.settles().filter(|_| passes)))
        })
    }

    /// The least weight that the canary must keep because stable cannot carry it.
    ///
    /// The canary keeps no more than it can carry itself: traffic to no pods at all helps nobody, whatever state stable is
    /// in. So an abort is never stuck, and takes as much off the canary at once as stable can bear.
    fn least_canary(&self, (stable, canary): (&str, &str), most: i32, highest: i32) -> i32 {
        let same =
            self.selected(stable).iter().map(|one| &one.name).eq(self.selected(canary).iter().map(|one| &one.name));
        // One ReplicaSet in both roles: nothing moves.
        let mut capacity = if same { self.traffic.total() } else { self.capacity(stable) };
        if !self.aborted && self.traffic.services_settle.contains_key(stable) {
            // What the Service selected until just now may get the weight too. An abort does not wait for that.
            let behind = self.revisions.all().filter(|one| has_pods(one));
            let at_most = if self.led_nowhere(stable) { 0 } else { capacity };
            capacity = behind.map(|one| self.pods_carry(kept(one).into())).fold(at_most, i32::min);
        }
        // Where both lack pods, neither gets more than falls to each of its pods. An abort takes what the canary cannot carry.
        let [of_stable, of_canary] = [stable, canary].map(|service| self.pods(service));
        let even = if self.aborted { 0 } else { i64::from(most) * of_canary / (of_stable + of_canary).max(1) };
        let bearable = self.capacity(canary).max(i32::try_from(even).unwrap_or(most));
        (most - capacity).min(bearable).min(highest).max(0)
    }

    pub(super) fn services(&self, wanted: &BTreeMap<String, String>, admitted: &mut Admitted) {
        for (service, hash) in wanted {
            match self.cannot_switch(service, hash, wanted, &admitted.splits) {
                None => {
                    admitted.services.insert(service.clone(), hash.clone());
                }
                Some((why, until)) => {
                    admitted.holds.push(Hold { what: format!("Service {service} keeps its selector"), why, until });
                }
            }
        }
    }

    /// Why a Service cannot be switched to a hash, and until when.
    fn cannot_switch(
        &self,
        service: &str,
        hash: &str,
        wanted: &BTreeMap<String, String>,
        splits: &[Option<Split>],
    ) -> Option<(String, Option<Timestamp>)> {
        let Some(observed) = self.world.services.get(service) else {
            return Some((format!("Service {service} does not exist"), None));
        };
        let current = observed.object.selector.get(names::POD_TEMPLATE_HASH);
        if current.map(String::as_str) == Some(hash) {
            return None;
        }
        let Some(target) = self.revisions.all().find(|one| one.hash() == hash) else {
            return Some((format!("no ReplicaSet has the hash {hash}"), None));
        };
        let weight = |unsettled: bool| {
            let role = |router: usize, role: Role| {
                let name = self.service_of(role);
                let behind = name == service
                    || wanted.get(name).is_some_and(|other| other == hash)
                    || self.traffic.reaches(self.world, name, target, unsettled);
                if behind { self.highest(router, role, splits, unsettled) } else { 0 }
            };
            let together = |router| role(router, Role::Stable).saturating_add(role(router, Role::Canary));
            // What the switch itself adds is nothing as long as the Service has no weight.
            let own =
                |router| self.traffic.role(service).map_or(0, |role| self.highest(router, role, splits, unsettled));
            (0..self.traffic.routers.len())
                .map(|router| if own(router) == 0 { 0 } else { together(router).min(self.traffic.total()) })
                .max()
        };
        if let Some(narrowed) = self.is_narrowed(service, hash) {
            return Some(narrowed);
        }
        // What routes that the strategy names no more still send to it.
        let left = |unsettled: bool| {
            let is_meant = |name: &str| {
                name == service
                    || wanted.get(name).is_some_and(|other| other == hash)
                    || self.traffic.reaches(self.world, name, target, unsettled)
            };
            let weighs = self.traffic.left.iter().filter(|left| {
                left.role(service).is_some_and(|role| self.traffic.highest_left(left, role, unsettled) > 0)
            });
            weighs.map(|left| self.left_weight(is_meant, left, unsettled)).max().unwrap_or(0)
        };
        let leads_users = weight(true).map_or(self.is_active(service), |weight| weight > 0) || left(true) > 0;
        if leads_users && self.aborted && self.is_trial(target) {
            return Some(("the update was aborted".to_owned(), None));
        }
        // A weight was allowed to the version that the Service leads to now, be it what is left of an update that has just ended.
        let is_canary = self.traffic.role(service) == Some(Role::Canary);
        if weight(true) > Some(0) && is_canary && self.is_trial(target) && self.can_take_back() {
            let why = format!("it may still lead traffic to another version than {}", target.name);
            let until = self.settles().filter(|_| weight(false) == Some(0));
            return Some((why, until));
        }
        let needs = |unsettled: bool| match weight(unsettled) {
            Some(weight) => self.ready_for(target, weight.max(left(unsettled))),
            None if self.is_active(service) => {
                // Not to fewer pods than now is never worse, so that the way back is open from a version in ruins.
                let now = self.pods(service);
                let now = if current.is_some() { i32::try_from(now).unwrap_or(i32::MAX) } else { i32::MAX };
                self.ready_for(target, self.traffic.total()).min(now.max(1))
            }
            None if self.is_preview(service) => self.ready_for(target, left(unsettled)),
            None => self.ready_for(target, left(unsettled)).max(1),
        };
        let needed = needs(true);
        // Away from a hash without a single pod is never worse. Without a hash the Service may have pods that are not ours.
        let nothing_lost = current.is_some()
            && !self.traffic.services_settle.contains_key(service)
            && self.selected(service).iter().all(|one| kept(one) == 0);
        if nothing_lost {
            return None;
        }
        if kept(target) >= needed {
            // One that leads to every version is narrowed at once, before there is another one.
            return self.is_new_to_proxies(service, hash).filter(|_| leads_users && current.is_some());
        }
        let settled = kept(target) >= needs(false);
        let pods = kept(target);
        let why = format!("ReplicaSet {} has {pods} available pods and needs {needed}", target.name);
        Some(match self.traffic.doubt().filter(|_| settled) {
            Some(doubt) => (format!("{why} for the traffic that may still reach it: {doubt}"), None),
            None => (why, self.settles().filter(|_| settled)),
        })
    }

    /// Why the subset of stable cannot be switched to a version that has just become stable, and until when. The pods of a
    /// Service are told together with what it selects, but proxies take a subset's pods from those of its Service that they
    /// know of, and pods that have just become ready they may not know yet. Once the subset of the canary, which has no
    /// weight then, has led to the version for the propagation delay, they do.
    fn is_new_to_proxies(&self, service: &str, hash: &str) -> Option<(String, Option<Timestamp>)> {
        let is_stable = self.traffic.role(service) == Some(Role::Stable) && destination_rule::is_subset(service);
        if !is_stable || !self.revisions.is_fully_promoted() {
            return None;
        }
        let canary = self.traffic.canary_service;
        let leads = self.world.services.get(canary)?.object.selector.get(names::POD_TEMPLATE_HASH);
        let until = self.traffic.services_settle.get(canary).copied();
        let is_known = leads.is_some_and(|leads| leads == hash) && until.is_none();
        (!is_known).then(|| (format!("proxies may not know the pods of {hash} yet"), until))
    }

    /// Whether the weight of the canary can go to stable before another version comes. Stable in ruins cannot take it, and
    /// the new version may be the cure; one that is small on purpose (`dynamicStableScale`) grows first.
    fn can_take_back(&self) -> bool {
        let canary = self.world.rollout.spec.strategy.canary.as_ref();
        let is_small = canary.is_some_and(|canary| canary.dynamic_stable_scale);
        self.revisions.stable.is_some_and(|stable| is_small || kept(stable) > 0)
    }

    /// Why a Service cannot be switched to a hash while a former route leads to subsets of it with another one, and until
    /// when: those who follow the route would find nobody who is behind both.
    fn is_narrowed(&self, service: &str, hash: &str) -> Option<(String, Option<Timestamp>)> {
        let narrowing = self.traffic.left.iter().filter(|left| left.host.as_deref() == Some(service));
        let mut roles = narrowing.flat_map(|left| [Role::Stable, Role::Canary].map(|role| (left, role)));
        roles.find_map(|(left, role)| {
            let subset = left.service_of(role);
            let bound = self.world.services.get(subset)?.object.selector.get(names::POD_TEMPLATE_HASH);
            let settles = self.traffic.services_settle.get(subset).copied();
            let elsewhere = bound.is_some_and(|bound| bound != hash) || settles.is_some();
            let leads = elsewhere && self.traffic.highest_left(left, role, true) > 0;
            leads.then(|| {
                (format!("{subset} still leads users to another version"), settles.or(self.traffic.routes_settle))
            })
        })
    }

    /// The largest weight that the pods which a Service selects now can carry.
    fn capacity(&self, service: &str) -> i32 {
        let selected = self.selected(service);
        let total = self.traffic.total();
        let pods = self.pods(service);
        match selected[..] {
            [one] if pods > 0 && self.carries(one, total) => total,
            _ => self.pods_carry(pods),
        }
    }

    /// The available pods that a Service selects now, and that stay.
    fn pods(&self, service: &str) -> i64 {
        self.selected(service).into_iter().map(|one| i64::from(kept(one))).sum()
    }

    /// The largest weight that so many available pods can carry.
    fn pods_carry(&self, pods: i64) -> i32 {
        let total = self.traffic.total();
        match pods {
            0 => 0,
            _ if self.enough <= 0 => total,
            _ => (pods * i64::from(total) / i64::from(self.enough)).min(total.into()) as i32,
        }
    }
}
