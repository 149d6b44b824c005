//! S7: by the controller's doing there are never fewer available pods than `replicas − maxUnavailable`, nor, without
//! traffic routing, more specified ones than `replicas + maxSurge`.
//!
//! Pods are counted as they are. What is lost by other hands may be unknown as long as ReplicaSets still report it; what the
//! controller itself made go it must not count.
//!
//! A ReplicaSet that shrinks loses its unavailable pods first. Pods of a `workloadRef`'s Deployment count for the floor.
//!
//! With blue-green only pods that some traffic points at count: the others serve nobody, and their delay is what the user has
//! given them for a way back. If they stayed for an active version in need, they would also keep the place that its pods need.
//!
//! Excused: what a change does not make worse. Pods that are lost in the very millisecond of a change count as they were
//! before: no decision can know of them; and while two lead, those that were lost since one of them stood still, for the
//! write that it sends then. Sizes that users wanted within the last minute count as they favour the
//! controller. Before the first version is stable there is no floor.

use std::collections::BTreeMap;

use crate::checkers::{Checker, Violation, violated};
use crate::observe::{REPLICA_SETS, Seen, Set, View, set};
use crate::script::{Fault, What};

#[derive(Default)]
pub struct Totals {
    /// When a ReplicaSet lost available pods last, and how many it had until then.
    lost: BTreeMap<String, (u64, i64)>,
    /// When a leader stood still last.
    stood_still: u64,
}

impl Checker for Totals {
    fn observe(&mut self, seen: &Seen, view: &View, found: &mut Vec<Violation>) {
        if let Seen::Struck(Fault { what: What::Pause(_), .. }) = seen {
            self.stood_still = view.now;
        }
        let Seen::Change { change, .. } = seen else { return };
        if &*change.resource != REPLICA_SETS || view.now < view.foreign || view.rollout().is_null() {
            return;
        }
        let name = change.object["metadata"]["name"].as_str().unwrap_or_default();
        let now = set(name, &change.object);
        let before = change.previous.as_deref().map_or(0, |previous| set(name, previous).wanted);
        let had = change.previous.as_deref().map_or(0, |previous| set(name, previous).available);
        let unknown_since = if view.now < view.two_leaders { self.stood_still } else { view.now };
        if now.available < had {
            let (at, most) = self.lost.get(name).copied().unwrap_or_default();
            let most = if at >= unknown_since { most.max(had) } else { had };
            self.lost.insert(name.to_owned(), (view.now, most));
        }
        let reported = |set: &Set<'_>| match self.lost.get(set.name) {
            Some((at, had)) if *at >= unknown_since => set.available.max(*had),
            _ => set.available,
        };
        let there = |set: &Set<'_>| if view.now < view.pods_lost { i64::MAX } else { view.ready_pods(set.name) };
        let available = |set: &Set<'_>| reported(set).min(there(set)).min(set.wanted);
        let counted = |set: &Set<'_>| matches!(set.owner, "Rollout" | "Deployment");
        if !counted(&now) {
            return;
        }
        let routed = !view.rollout()["spec"]["strategy"]["canary"]["trafficRouting"].is_null();
        let blue_green = !view.rollout()["spec"]["strategy"]["blueGreen"].is_null();
        if now.wanted < before && !view.is_first() {
            let others: i64 =
                view.sets().filter(|set| counted(set) && set.name != name).map(|set| available(&set)).sum();
            let has = now.available.min(there(&now));
            let (left, had) = (others + has.min(now.wanted), others + has.min(before));
            let size = view.smallest_size(60_000);
            let floor = size - view.may_be_missing(size);
            let serves =
                !blue_green || view.share_of(name, &view.stored()) > 0.0 || view.share_of(name, &view.plane) > 0.0;
            if left < floor && left < had && serves {
                let what =
                    format!("{name} shrinks from {before} to {}: {left} of {size} pods stay available", now.wanted);
                found.push(violated("S7", view, what));
            }
        }
        if now.wanted > before && !routed && !blue_green && now.owner == "Rollout" {
            let total: i64 = view.own_sets().map(|set| set.wanted).sum();
            let size = view.largest_size(60_000);
            let ceiling = size + view.may_be_more(size);
            if total > ceiling {
                let what =
                    format!("{name} grows from {before} to {}: {total} pods are wanted, {ceiling} may be", now.wanted);
                found.push(violated("S7", view, what));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::checkers::history::History;
    use crate::script::{Version, When};

    fn eviction() -> Seen {
        Seen::Struck(Fault::new(When::Write(1), What::Evict(Version::Canary)))
    }

    #[test]
    fn it_fires_when_pods_go_before_others_came() {
        let mut history = History::<Totals>::released();
        history.set("b", 4, 2).set("a", 1, 4);
        assert!(history.promises().is_empty(), "three of four may be");
        history.set("a", 0, 1);
        assert_eq!(history.promises(), ["S7"]);
    }

    #[test]
    fn it_fires_when_pods_are_counted_that_are_about_to_go() {
        let mut history = History::<Totals>::released();
        history.set("b", 2, 2).set("a", 1, 4).pods("a", 1).reports("a", 3, 4);
        assert!(history.promises().is_empty());
        history.reports("b", 1, 2);
        assert_eq!(history.promises(), ["S7"], "one and one are there");
    }

    #[test]
    fn nobody_can_know_of_pods_that_are_lost_in_the_same_moment() {
        let mut history = History::<Totals>::released();
        history.set("b", 4, 4).see(eviction()).set("b", 4, 0).set("a", 0, 4);
        assert!(history.promises().is_empty());
        history.set("a", 4, 4).after(1).set("a", 0, 4);
        assert_eq!(history.promises(), ["S7"]);
    }

    #[test]
    fn a_leader_that_stood_still_does_not_know_of_pods_that_were_lost_meanwhile() {
        let mut history = History::<Totals>::released();
        history.set("b", 4, 4).stands_still(4_000).see(eviction());
        history.after(2_000).set("b", 4, 0).after(2_000).set("a", 0, 4);
        assert!(history.promises().is_empty());
        let mut history = History::<Totals>::released();
        history.set("b", 4, 3).stands_still(4_000).set("b", 4, 2).set("b", 4, 3).set("a", 0, 4);
        assert!(history.promises().is_empty(), "what was lost has come back");
        let mut history = History::<Totals>::released();
        history.set("b", 4, 4).see(eviction()).set("b", 4, 0).after(1).stands_still(4_000);
        history.after(2_000).set("a", 0, 4);
        assert_eq!(history.promises(), ["S7"], "it was known before");
    }

    #[test]
    fn with_blue_green_it_fires_for_pods_that_serve() {
        let mut history = History::<Totals>::released();
        let strategy = json!({"canary": null, "blueGreen": {"activeService": "web-stable"}});
        history.rollout(json!({"spec": {"strategy": strategy}}));
        history.set("b", 4, 0).service("web-stable", "b").set("a", 0, 4);
        assert!(history.promises().is_empty(), "nothing leads to them");
        history.set("a", 4, 4).service("web-stable", "a").set("a", 1, 4);
        assert_eq!(history.promises(), ["S7"]);
    }

    #[test]
    fn it_fires_when_there_are_too_many() {
        let mut history = History::<Totals>::released();
        history.set("b", 4, 0);
        assert!(history.promises().is_empty(), "a router sends only what is ready");
        let canary = json!({"strategy": {"canary": {"trafficRouting": null}}});
        let mut history = History::<Totals>::released();
        history.rollout(json!({"spec": canary})).set("b", 1, 0);
        assert!(history.promises().is_empty());
        history.set("b", 2, 0);
        assert_eq!(history.promises(), ["S7"]);
    }
}
