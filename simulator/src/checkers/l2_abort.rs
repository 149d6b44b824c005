//! L2 and L3: after an abort the traffic is back on stable within 5 s (L2), and the abort is acknowledged whatever else is
//! wrong (L3): `status.phase` is `Degraded` within 5 s.
//!
//! With `dynamicStableScale` the pods of stable have to come back first: there the limit is two minutes.
//!
//! Excused: time while the API server answers badly, watches are late or the controller is down (the limit counts from the
//! end of that). For L2 only: pods that were taken away or made unready, since traffic goes to no pods that are not there;
//! somebody else's edits. What a user takes back (retry, a new template, promote-full), or an abort of what has been
//! promoted already, is not waited for.

use crate::checkers::{Checker, Violation, violated};
use crate::observe::{Seen, View};
use crate::script::User;

const LIMIT: u64 = 5_000;
const DYNAMIC_LIMIT: u64 = 120_000;

#[derive(Default)]
pub struct Abort {
    since: Option<u64>,
    /// The version that was aborted.
    hash: String,
    acknowledged: bool,
}

impl Checker for Abort {
    fn observe(&mut self, seen: &Seen, view: &View, found: &mut Vec<Violation>) {
        let status = &view.rollout()["status"];
        if let Seen::User(user) = seen {
            self.since = match user {
                User::Abort => Some(view.now),
                User::Scale(_) | User::Pause | User::Resume => self.since,
                _ => None,
            };
            self.hash = status["currentPodHash"].as_str().unwrap_or_default().to_owned();
            self.acknowledged = false;
            return;
        }
        let Some(since) = self.since else { return };
        let taken_back = status["currentPodHash"] != *self.hash || status["stableRS"] == *self.hash;
        if view.rollout().is_null()
            || taken_back
            || self.hash.is_empty()
            || status["stableRS"].as_str().is_none_or(str::is_empty)
        {
            self.since = None;
            return;
        }
        let begins = since.max(view.trouble);
        if !self.acknowledged && status["abort"] == true && status["phase"] == "Degraded" {
            self.acknowledged = true;
        }
        if !self.acknowledged && view.now > begins + LIMIT {
            found.push(violated("L3", view, format!("the abort of {} is not acknowledged: {status}", self.hash)));
            self.since = None;
            return;
        }
        let dynamic = view.rollout()["spec"]["strategy"]["canary"]["dynamicStableScale"] == true;
        let canary = !view.rollout()["spec"]["strategy"]["canary"].is_null();
        let limit = if dynamic { DYNAMIC_LIMIT } else { LIMIT };
        let disturbed = view.now < view.pods_disturbed || view.now < view.foreign;
        let Some(set) = view.own_sets().find(|set| set.hash == self.hash) else { return };
        // To a version without pods nothing goes, whatever selects it.
        let has_pods = set.wanted > 0 || set.available > 0;
        let share = if has_pods { view.share_of(set.name, &view.stored()) } else { 0.0 };
        if share <= 0.0 && self.acknowledged {
            self.since = None;
        } else if share > 0.0 && canary && view.now > begins + limit && !disturbed {
            found.push(violated(
                "L2",
                view,
                format!("{:.0}% still go to {} after its abort", share * 100.0, self.hash),
            ));
            self.since = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::checkers::history::History;

    #[test]
    fn it_fires_when_an_abort_does_not_bring_the_traffic_back() {
        let mut history = History::<Abort>::released();
        history.set("b", 1, 1).route(75, 25).see(Seen::User(User::Abort));
        history.rollout(json!({"status": {"abort": true, "phase": "Degraded"}}));
        history.after(5_100).set("b", 1, 1);
        assert_eq!(history.promises(), ["L2"]);
    }

    #[test]
    fn it_fires_when_an_abort_is_ignored() {
        let mut history = History::<Abort>::released();
        history.see(Seen::User(User::Abort)).rollout(json!({"status": {"abort": true}}));
        history.after(5_100).set("b", 1, 1);
        assert_eq!(history.promises(), ["L3"]);
    }
}
