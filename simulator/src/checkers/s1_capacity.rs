//! S1: traffic never goes to a ReplicaSet with fewer pods than its share needs, nor to none.
//!
//! A share needs `ceil(share × (replicas − maxUnavailable))` pods, one at least. Seen by the data plane, late as it may be:
//!
//! - a ReplicaSet does not shrink below what the requests that reach it now need;
//! - when the share of a ReplicaSet grows, it has the available pods;
//! - no request is lost.
//!
//! ReplicaSets behind one Service (that of users of a canary without traffic routing, say) carry its share together.
//!
//! Excused: the size that users want counts as the smallest of the last minute (pods need time to follow a user's growth).
//! Available pods count as the most of the last 5 s before a share grew: no watch shows sooner that pods were lost. While
//! pods are taken away or made unready, or somebody else edits routes and Services, and for 45 s after, the second and third
//! rule are not looked at, nor the third where users wanted no pods at all; while routers lie about what they follow, and as
//! long after, none is: nobody could know. Nor does a leader that stood still know what became of others: the switch of a
//! Service that it sends in the moment in which it goes on is not looked at, if nobody had touched that Service meanwhile.

use std::collections::BTreeMap;

use crate::checkers::{Checker, Violation, violated};
use crate::observe::{REPLICA_SETS, SERVICES, Seen, View, set};

/// How far back users' sizes and available pods are looked for.
const SIZES: u64 = 60_000;
const WATCHES: u64 = 5_000;

#[derive(Default)]
pub struct Capacity {
    /// The last shares by ReplicaSet.
    shares: BTreeMap<String, f64>,
    /// The available pods of each ReplicaSet, and since when.
    available: BTreeMap<String, Vec<(u64, i64)>>,
}

impl Checker for Capacity {
    fn observe(&mut self, seen: &Seen, view: &View, found: &mut Vec<Violation>) {
        // Before the first version is stable there is no traffic to lose.
        let lied_to = view.now < view.lied_to;
        let disturbed = view.now < view.pods_lost || view.now < view.foreign || view.is_first() || lied_to;
        match seen {
            Seen::Change { change, .. } if &*change.resource == REPLICA_SETS => {
                let name = change.object["metadata"]["name"].as_str().unwrap_or_default();
                let now = set(name, &change.object);
                self.available.entry(name.to_owned()).or_default().push((view.now, now.available));
                let before = change.previous.as_deref().map_or(0, |previous| set(name, previous).wanted);
                if now.wanted < before && now.owner == "Rollout" && !lied_to && view.now >= view.foreign {
                    let (share, others) = carried(name, view, &view.plane);
                    let need = view.need(share, view.smallest_size(SIZES));
                    if now.wanted + others < need {
                        let what = format!(
                            "{name} shrinks from {before} to {} while {:.0}% of the requests reach it, which need {need}",
                            now.wanted,
                            share * 100.0
                        );
                        found.push(violated("S1", view, what));
                    }
                }
            }
            Seen::Change { change, .. } if &*change.resource == SERVICES => {
                self.compare(view, disturbed || view.is_belated(change), found);
            }
            Seen::Plane(_) => self.compare(view, disturbed, found),
            Seen::Lost { requests, how } if !disturbed && view.smallest_size(SIZES) > 0 => {
                found.push(violated("S1", view, format!("{requests} requests were lost: {how}")));
            }
            _ => {}
        }
    }
}

/// The share that a ReplicaSet carries with others, and the available pods of these.
pub fn carried(name: &str, view: &View, shares: &BTreeMap<String, f64>) -> (f64, i64) {
    let others: Vec<_> = view.bearers(name, shares).collect();
    let share = others.iter().map(|set| view.share_of(set.name, shares)).sum::<f64>() + view.share_of(name, shares);
    (share, others.iter().map(|set| set.available.min(set.wanted)).sum())
}

impl Capacity {
    fn compare(&mut self, view: &View, disturbed: bool, found: &mut Vec<Violation>) {
        let shares: BTreeMap<String, f64> =
            view.own_sets().map(|set| (set.name.to_owned(), view.share_of(set.name, &view.plane))).collect();
        for name in shares.keys() {
            let others: Vec<String> = view.bearers(name, &view.plane).map(|set| set.name.to_owned()).collect();
            let together = || std::iter::once(name).chain(&others);
            let share: f64 = together().filter_map(|one| shares.get(one)).sum();
            let before: f64 = together().filter_map(|one| self.shares.get(one)).sum();
            let need = view.need(share, view.smallest_size(SIZES));
            let available: i64 = together().map(|one| self.most_available(one, view.now)).sum();
            if share > before + 0.005 && available < need && !disturbed {
                let what = format!(
                    "the share of {name} grows from {:.0}% to {:.0}%, which needs {need} pods, and it has {available}",
                    before * 100.0,
                    share * 100.0
                );
                found.push(violated("S1", view, what));
            }
        }
        self.shares = shares;
    }

    fn most_available(&mut self, name: &str, now: u64) -> i64 {
        let Some(history) = self.available.get_mut(name) else { return 0 };
        let from = now.saturating_sub(WATCHES);
        let first = history.partition_point(|(at, _)| *at <= from).saturating_sub(1);
        history.drain(..first);
        history.iter().map(|(_, available)| *available).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkers::history::History;

    #[test]
    fn it_fires_when_pods_go_before_their_traffic() {
        let mut history = History::<Capacity>::released();
        history.set("b", 1, 1).route(75, 25);
        assert!(history.promises().is_empty());
        history.set("a", 2, 2);
        assert_eq!(history.promises(), ["S1"], "75% of three need three");
        history.set("b", 0, 0);
        assert_eq!(history.promises(), ["S1"]);
    }

    #[test]
    fn it_fires_when_traffic_comes_before_its_pods() {
        let mut history = History::<Capacity>::released();
        history.set("b", 2, 0).route(50, 50);
        assert_eq!(history.promises(), ["S1"]);
        history.set("b", 2, 2).after(6_000).route(0, 100);
        assert_eq!(history.promises(), ["S1"]);
        history.set("b", 4, 4).route(0, 90).route(0, 100);
        assert!(history.promises().is_empty());
        history.service("web-canary", "c").set("c", 4, 0).service("web-canary", "c");
        assert_eq!(history.promises(), ["S1"]);
    }

    #[test]
    fn what_a_leader_sends_that_stood_still_is_not_looked_at_where_no_precondition_could_hold() {
        let mut history = History::<Capacity>::released();
        history.set("b", 1, 1).set("c", 0, 0).stands_still(9_000);
        history.after(2_000).route(75, 25).after(7_000).service("web-canary", "c");
        assert!(history.promises().is_empty());
        let mut history = History::<Capacity>::released();
        history.set("b", 1, 1).set("c", 0, 0).stands_still(9_000);
        history.service("web-canary", "b").route(75, 25).after(9_000).service("web-canary", "c");
        assert_eq!(history.promises(), ["S1"], "the Service has changed meanwhile");
        let mut history = History::<Capacity>::released();
        history.set("b", 1, 1).set("c", 0, 0).stands_still(9_000).route(75, 25).after(9_001).service("web-canary", "c");
        assert_eq!(history.promises(), ["S1"], "it has heard of everything");
    }

    #[test]
    fn several_behind_one_service_carry_its_share_together() {
        let mut history = History::<Capacity>::released();
        history.set("b", 2, 2).route(100, 0).change(
            SERVICES,
            "web-stable",
            serde_json::json!({"spec": {"selector": {"app": "web"}}}),
            false,
        );
        history.set("a", 1, 4);
        assert!(history.promises().is_empty(), "three of four are enough, and there are three");
        history.set("a", 0, 1);
        assert_eq!(history.promises(), ["S1"], "two are not");
    }

    #[test]
    fn it_fires_when_a_request_is_lost() {
        let mut history = History::<Capacity>::released();
        history.see(Seen::Lost { requests: 3, how: "nowhere".into() });
        assert_eq!(history.promises(), ["S1"]);
    }
}
