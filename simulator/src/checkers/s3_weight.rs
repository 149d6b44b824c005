//! S3: what goes to a version that is not stable never grows without a step that allows it, and after an abort it only
//! falls.
//!
//! The step counts by the status in the API when the objects change. A status is written after the objects of its decision,
//! so the step that follows the present one counts as well, when the present one is no pause that still lasts; and for the
//! newest revision, of which no status tells yet, its first weight.
//!
//! A Service that is switched takes along what gateways still send it, not only what its routes say.
//!
//! Excused: users' own changes, and 45 s after somebody else's edit of routes, Services, steps or strategy; a version that
//! has been stable before, when a `rollbackWindow` is set, since that skips the steps; for a second after an abort, what a
//! decision had sent on its way before it; what follows a full promotion or other steps, which end an abort; the last minute in which users
//! wanted no pods at all, since then shares are shares of nothing; and what a leader that stood still sends in the moment in
//! which it goes on, to an object that nobody had touched meanwhile.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::checkers::{Checker, Violation, violated};
use crate::observe::{REPLICA_SETS, ROLLOUTS, ROUTING, SERVICES, Seen, View};
use crate::script::User;

/// What was sent before an abort may arrive for so long after it.
const ON_ITS_WAY: u64 = 1_000;

#[derive(Default)]
pub struct Weight {
    /// The last shares by hash, by what routes and Services say.
    shares: BTreeMap<String, f64>,
    /// By what gateways follow.
    followed: BTreeMap<String, f64>,
    stable_before: BTreeSet<String>,
    aborted_since: Option<u64>,
    /// Whether users have given an aborted update other steps: it begins anew, before the status says so.
    other_steps: bool,
}

impl Checker for Weight {
    fn observe(&mut self, seen: &Seen, view: &View, found: &mut Vec<Violation>) {
        self.other_steps |= matches!(seen, Seen::User(User::Steps));
        if let Seen::Plane(plane) = seen {
            self.followed = shares(view, plane);
        }
        let Seen::Change { change, by_user } = seen else { return };
        let status = &view.rollout()["status"];
        if &*change.resource == ROLLOUTS {
            let stable = status["stableRS"].as_str().unwrap_or_default();
            if !self.stable_before.contains(stable) {
                self.stable_before.insert(stable.to_owned());
            }
            // A full promotion ends an abort, before the status says so.
            self.other_steps &= status["abort"] == true;
            let aborted = status["abort"] == true && status["promoteFull"] != true && !self.other_steps;
            self.aborted_since = aborted.then(|| self.aborted_since.unwrap_or(view.now));
            return;
        }
        // Pods that come or go behind Services change who gets what by nobody's doing.
        let of_pods = &*change.resource == REPLICA_SETS;
        if !of_pods && !ROUTING.contains(&&*change.resource) {
            return;
        }
        let said = shares(view, &view.stored());
        let followed = shares(view, &view.plane);
        let switched = &*change.resource == SERVICES && view.now >= view.lied_to;
        let not_the_controllers = *by_user || of_pods || view.now < view.foreign;
        let excused = not_the_controllers || view.is_belated(change) || view.smallest_size(60_000) == 0;
        if !excused && !self.grows(view, &self.shares, &said, found) && switched {
            self.grows(view, &self.followed, &followed, found);
        }
        (self.shares, self.followed) = (said, followed);
    }
}

/// The share of each version, by hash, when destinations get these.
fn shares(view: &View, destinations: &BTreeMap<String, f64>) -> BTreeMap<String, f64> {
    view.own_sets().map(|set| (set.hash.to_owned(), view.share_of(set.name, destinations))).collect()
}

impl Weight {
    /// Whether a version that is not stable has got more than it may.
    fn grows(
        &self,
        view: &View,
        before: &BTreeMap<String, f64>,
        now: &BTreeMap<String, f64>,
        found: &mut Vec<Violation>,
    ) -> bool {
        let status = &view.rollout()["status"];
        let count = found.len();
        for (hash, share) in now {
            let before = before.get(hash).copied().unwrap_or(0.0);
            let is_stable = status["stableRS"] == *hash || status["stableRS"].as_str().is_none_or(str::is_empty);
            if *share <= before + 0.005 || is_stable {
                continue;
            }
            // An abort is of the version that the status tells of; another one comes after it.
            let aborted_since =
                self.aborted_since.filter(|_| status["currentPodHash"] == *hash || newest(view) != Some(hash));
            let grows = format!("{hash} grows from {:.0}% to {:.0}%", before * 100.0, share * 100.0);
            if aborted_since.is_some_and(|since| view.now > since + ON_ITS_WAY) {
                found.push(violated("S3", view, format!("after an abort {grows}")));
            } else if aborted_since.is_none() {
                let allowed = self.allowed(view, hash);
                if *share > allowed + 0.005 {
                    let step = &status["currentStepIndex"];
                    let what = format!("{grows}, and step {step} allows {:.0}%", allowed * 100.0);
                    found.push(violated("S3", view, what));
                }
            }
        }
        found.len() > count
    }

    /// The share that a version may have by the step that it is at.
    fn allowed(&self, view: &View, hash: &str) -> f64 {
        let (spec, status) = (&view.rollout()["spec"], &view.rollout()["status"]);
        let canary = &spec["strategy"]["canary"];
        let window = !spec["rollbackWindow"].is_null() && self.stable_before.contains(hash);
        if canary.is_null() || status["promoteFull"] == true || window {
            return 1.0;
        }
        let none = Vec::new();
        let steps = canary["steps"].as_array().unwrap_or(&none);
        let sets_weight = |step: &Value| !step["setWeight"].is_null();
        let reached = if status["currentPodHash"] == *hash {
            let index = status["currentStepIndex"].as_u64().and_then(|index| usize::try_from(index).ok()).unwrap_or(0);
            let paused = !status["pauseConditions"].is_null();
            let lasts = paused && steps.get(index).is_some_and(pauses_for_ever);
            // The status of the decision that sets a weight comes after it, and may skip what is over: nothing that has
            // not begun yet and takes its time.
            let mut next = steps.iter().enumerate().skip(index + 1);
            let next = next.find(|(_, step)| sets_weight(step) || takes_time(step));
            match next {
                _ if lasts => index,
                Some((next, step)) if sets_weight(step) => next,
                Some(_) => index,
                None => steps.len(),
            }
        } else if newest(view) == Some(hash) {
            // No status tells of it yet: it is at its first step.
            steps.iter().position(sets_weight).unwrap_or(steps.len())
        } else {
            return 0.0;
        };
        if reached >= steps.len() {
            return 1.0;
        }
        let mut weights = steps.iter().take(reached + 1).filter_map(|step| step["setWeight"].as_f64());
        weights.next_back().unwrap_or(0.0) / 100.0
    }
}

/// The hash of the newest revision.
fn newest(view: &View) -> Option<&str> {
    let revision = |name: &str| {
        let annotations = &view.object(REPLICA_SETS, name)?["metadata"]["annotations"];
        annotations["rollout.argoproj.io/revision"].as_str()?.parse::<u64>().ok()
    };
    view.own_sets().max_by_key(|set| revision(set.name)).map(|set| set.hash)
}

fn takes_time(step: &Value) -> bool {
    ["pause", "analysis", "experiment"].iter().any(|kind| !step[kind].is_null())
}

fn pauses_for_ever(step: &Value) -> bool {
    !step["pause"].is_null() && step["pause"]["duration"].is_null()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::checkers::history::History;

    #[test]
    fn it_fires_when_a_weight_is_ahead_of_its_step() {
        let mut history = History::<Weight>::released();
        history.route(75, 25);
        assert!(history.promises().is_empty());
        history.route(50, 50);
        assert_eq!(history.promises(), ["S3"], "before its pause has begun");
        history.route(75, 25).rollout(json!({"status": {"currentStepIndex": 1, "pauseConditions": [{}]}}));
        history.route(50, 50);
        assert_eq!(history.promises(), ["S3"]);
    }

    #[test]
    fn a_leader_that_stood_still_does_not_know_of_a_newer_version() {
        let supersedes = json!({"status": {"currentPodHash": "c"}});
        let mut history = History::<Weight>::released();
        history.set("c", 0, 0).stands_still(9_000).rollout(supersedes.clone()).after(9_000).route(75, 25);
        assert!(history.promises().is_empty());
        let mut history = History::<Weight>::released();
        history.set("c", 0, 0).stands_still(9_000).rollout(supersedes).route(100, 0).after(9_000).route(75, 25);
        assert_eq!(history.promises(), ["S3"], "the route has changed meanwhile");
    }

    #[test]
    fn it_fires_when_a_weight_grows_after_an_abort() {
        let mut history = History::<Weight>::released();
        history.rollout(json!({"status": {"abort": true}})).after(2_000).route(75, 25);
        assert_eq!(history.promises(), ["S3"]);
        history.route(90, 10);
        assert!(history.promises().is_empty());
    }

    #[test]
    fn it_fires_when_a_superseded_version_gets_more() {
        let mut history = History::<Weight>::released();
        history.set("c", 0, 0).rollout(json!({"status": {"currentPodHash": "c"}})).route(75, 25);
        assert_eq!(history.promises(), ["S3"]);
    }

    #[test]
    fn it_fires_when_a_service_is_switched_that_gateways_still_send_something() {
        let late = || Seen::Plane([("web-canary".to_owned(), 1.0)].into());
        let mut history = History::<Weight>::released();
        history.set("c", 4, 4).see(late()).rollout(json!({"status": {"stableRS": "b", "currentPodHash": "c"}}));
        history.service("web-canary", "c");
        assert_eq!(history.promises(), ["S3"], "the route says 0");
    }

    #[test]
    fn a_full_promotion_ends_an_abort() {
        let mut history = History::<Weight>::released();
        history.rollout(json!({"status": {"abort": true}})).after(2_000);
        history.rollout(json!({"status": {"promoteFull": true}})).route(0, 100);
        assert!(history.promises().is_empty());
    }

    #[test]
    fn a_version_that_a_service_waits_for_grows_by_nobodys_doing() {
        let mut history = History::<Weight>::released();
        history.service("web-stable", "c").set("c", 4, 0).service("web-canary", "a");
        assert!(history.promises().is_empty(), "when it appears it has all of the traffic already");
        history.service("web-stable", "a").service("web-stable", "c");
        assert_eq!(history.promises(), ["S3"]);
    }
}
