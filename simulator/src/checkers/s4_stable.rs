//! S4: `status.stableRS` changes only to the version that was being released, once it has gone through all of its steps and
//! its routes, if there are any, give it all of the traffic, and only to one that has had its pods.
//!
//! A way back to what was stable before or is within the `rollbackWindow`, and a release without steps, may be decided, made
//! and promoted before any status tells that it has begun (after several crashes, say): then the status that promotes it
//! must tell both.
//!
//! Excused: the first release has no steps. A `promoteFull`, a rollback to what was stable before or to any version within
//! the `rollbackWindow`, and a strategy without steps skip them by the user's wish; so may the last 45 s after a user has
//! changed steps or strategy. The size counts as the smallest that users wanted in the last minute. A size of 0 needs no
//! pods.

use std::collections::{BTreeMap, BTreeSet};

use crate::checkers::{Checker, Violation, violated};
use crate::observe::{REPLICA_SETS, ROLLOUTS, Seen, View, set};

#[derive(Default)]
pub struct Stable {
    /// The most pods that each version has ever had available.
    most: BTreeMap<String, i64>,
    stable_before: BTreeSet<String>,
}

impl Checker for Stable {
    fn observe(&mut self, seen: &Seen, view: &View, found: &mut Vec<Violation>) {
        let Seen::Change { change, .. } = seen else { return };
        if &*change.resource == REPLICA_SETS {
            let set = set("", &change.object);
            let most = self.most.entry(set.hash.to_owned()).or_default();
            *most = set.available.max(*most);
        }
        if &*change.resource != ROLLOUTS {
            return;
        }
        let Some(previous) = change.previous.as_deref() else { return };
        let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        let (old, new) = (text(&previous["status"]["stableRS"]), text(&change.object["status"]["stableRS"]));
        let was_stable = !self.stable_before.insert(new.clone());
        // The first version is stable from the beginning: there is nothing else.
        if old == new || new.is_empty() || old.is_empty() {
            return;
        }
        let before = &previous["status"];
        let size = view.smallest_size(60_000);
        let (need, most) = (view.need(1.0, size), self.most.get(&new).copied().unwrap_or(0));
        if size > 0 && most < need {
            found.push(violated("S4", view, format!("{new} becomes stable and has never had more than {most} pods")));
        }
        let steps = change.object["spec"]["strategy"]["canary"]["steps"].as_array().map_or(0, Vec::len);
        let index = before["currentStepIndex"].as_u64().and_then(|index| usize::try_from(index).ok());
        let index =
            index.max(change.object["status"]["currentStepIndex"].as_u64().and_then(|it| usize::try_from(it).ok()));
        let goes_back = was_stable || is_within_window(view, &old, &new);
        let skipped = before["promoteFull"] == true || goes_back || view.now < view.foreign;
        if !skipped && index.unwrap_or(0) < steps {
            found.push(violated("S4", view, format!("{new} becomes stable at step {index:?} of {steps}")));
        }
        let at_once = (goes_back || steps == 0) && change.object["status"]["currentPodHash"] == *new;
        let shares = view.stored();
        let share: f64 = view.sets().filter(|set| set.hash == new).map(|set| view.share_of(set.name, &shares)).sum();
        if !skipped && steps > 0 && !shares.is_empty() && share < 0.999 {
            found.push(violated("S4", view, format!("{new} becomes stable with {share:.2} of the traffic")));
        }
        if before["currentPodHash"] != *new && !at_once {
            let what = format!("{new} becomes stable, and {} was being released", before["currentPodHash"]);
            found.push(violated("S4", view, what));
        }
        if before["abort"] == true && change.object["status"]["abort"] == true {
            found.push(violated("S4", view, format!("{new} becomes stable though it was aborted")));
        }
    }
}

/// Whether a version was made before the stable one, with fewer others between them than the user lets a rollback skip.
fn is_within_window(view: &View, stable: &str, new: &str) -> bool {
    let window = view.rollout()["spec"]["rollbackWindow"]["revisions"].as_u64().unwrap_or(0);
    let made = |name: &str| view.object(REPLICA_SETS, name)?["metadata"]["creationTimestamp"].as_str();
    let made_of = |hash: &str| view.own_sets().find(|set| set.hash == hash).and_then(|set| made(set.name));
    let (Some(from), Some(to)) = (made_of(new), made_of(stable)) else { return false };
    let between = view.own_sets().filter_map(|set| made(set.name)).filter(|at| from < *at && *at < to);
    from <= to && (between.count() as u64) < window
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::checkers::history::History;

    #[test]
    fn it_fires_when_an_unproven_version_becomes_stable() {
        let mut history = History::<Stable>::released();
        history.route(0, 100).rollout(json!({"status": {"currentStepIndex": 4}}));
        history.rollout(json!({"status": {"stableRS": "b"}}));
        assert_eq!(history.promises(), ["S4"], "it never had pods");
        let mut history = History::<Stable>::released();
        history.set("b", 4, 4).route(0, 100).rollout(json!({"status": {"stableRS": "b"}}));
        assert_eq!(history.promises(), ["S4"], "it is at its first step");
        let mut history = History::<Stable>::released();
        history.set("b", 4, 4).route(50, 50).rollout(json!({"status": {"currentStepIndex": 4}}));
        history.rollout(json!({"status": {"stableRS": "b"}}));
        assert_eq!(history.promises(), ["S4"], "it has half of the traffic");
        let mut history = History::<Stable>::released();
        history.set("b", 4, 4).route(0, 100).rollout(json!({"status": {"currentStepIndex": 4}}));
        history.rollout(json!({"status": {"stableRS": "b"}}));
        assert!(history.promises().is_empty());
        history.service("web-canary", "c").set("c", 4, 4).rollout(json!({"status": {"stableRS": "c"}}));
        assert_eq!(history.promises(), ["S4"], "nobody releases it");
    }

    #[test]
    fn a_rollback_within_the_window_takes_its_traffic_at_the_end() {
        let becomes_stable = |window: u64, made: [&str; 3]| {
            let mut history = History::<Stable>::released();
            for (hash, made) in ["a", "b", "c"].into_iter().zip(made) {
                history.made(hash, made);
            }
            history
                .rollout(json!({"spec": {"rollbackWindow": {"revisions": window}}, "status": {"currentStepIndex": 4}}));
            history.rollout(json!({"status": {"stableRS": "b"}}));
            history.promises()
        };
        let (one, two, three) = ("2026-01-05T08:00:01Z", "2026-01-05T08:00:02Z", "2026-01-05T08:00:03Z");
        assert!(becomes_stable(1, [three, two, one]).is_empty());
        assert_eq!(becomes_stable(1, [three, one, two]), ["S4"], "another one is between them");
        assert_eq!(becomes_stable(1, [one, two, three]), ["S4"], "it is newer");
        assert_eq!(becomes_stable(0, [three, two, one]), ["S4"], "there is no window");
    }

    #[test]
    fn only_a_release_without_steps_may_be_told_at_once() {
        let both = json!({"status": {"stableRS": "c", "currentPodHash": "c"}});
        let mut history = History::<Stable>::released();
        history.service("web-stable", "c").set("c", 4, 4).rollout(both.clone());
        assert_eq!(history.promises(), ["S4", "S4"], "no step allows it, and nobody releases it");
        let mut history = History::<Stable>::released();
        history.rollout(json!({"spec": {"strategy": {"canary": null, "blueGreen": {}}}}));
        history.set("c", 4, 4).rollout(both);
        assert!(history.promises().is_empty());
    }
}
