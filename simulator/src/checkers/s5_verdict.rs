//! S5: no promotion without a verdict. What the provider did not answer, or answered without sense, is no success.
//!
//! - The successful measurements of all runs are never more than the good values that the provider has answered.
//! - No analysis or experiment step is passed without its run or Experiment being successful.
//! - No version whose background analysis has failed becomes stable.
//! - With blue-green no version gets the active Service without its analysis before the promotion being successful, and none
//!   becomes stable without the one after it.
//!
//! Excused: a user who promotes past a step (the change is the user's, or `promoteFull` is set), and a version that a
//! `rollbackWindow` lets skip its steps, or that has had the active Service before; 45 s after a user has changed the steps; and a version that is released again by a
//! strategy that has no background analysis any more.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use tidegate::sandbox::Op;

use crate::checkers::{Checker, Violation, violated};
use crate::observe::{ANALYSIS_RUNS, HASH, ROLLOUTS, SERVICES, Seen, View};

const EXPERIMENTS: &str = "experiments.argoproj.io";

#[derive(Default)]
pub struct Verdict {
    good: i64,
    /// Successful measurements by the uid of the run.
    successes: BTreeMap<String, i64>,
    /// Steps that a run or an Experiment was successful for, by the version's hash.
    passed: BTreeSet<(String, String)>,
    /// Versions that a run of this type was successful for.
    approved: BTreeSet<(String, String)>,
    /// Versions that have been active, and stable.
    served: BTreeSet<String>,
    was_stable: BTreeSet<String>,
    /// Versions that a background analysis has condemned.
    condemned: BTreeSet<String>,
}

impl Checker for Verdict {
    fn observe(&mut self, seen: &Seen, view: &View, found: &mut Vec<Violation>) {
        match seen {
            Seen::GoodMetric => self.good += 1,
            Seen::Change { change, .. } if change.op != Op::Deleted && &*change.resource == ANALYSIS_RUNS => {
                self.run(&change.object, view, found);
            }
            Seen::Change { change, .. }
                if &*change.resource == EXPERIMENTS && change.object["status"]["phase"] == "Successful" =>
            {
                self.pass(&change.object);
            }
            Seen::Change { change, by_user } if &*change.resource == SERVICES => {
                let active = &view.rollout()["spec"]["strategy"]["blueGreen"]["activeService"];
                let hash = text(&change.object["spec"]["selector"][HASH]);
                if active.is_null() || change.object["metadata"]["name"] != *active || !self.served.insert(hash.clone())
                {
                    return;
                }
                if !by_user && view.now >= view.foreign {
                    self.switched(&hash, view, found);
                }
            }
            Seen::Change { change, by_user } if &*change.resource == ROLLOUTS => {
                let Some(previous) = change.previous.as_deref() else { return };
                if !by_user && view.now >= view.foreign {
                    self.promotion(previous, &change.object, view, found);
                }
                self.was_stable.insert(text(&change.object["status"]["stableRS"]));
            }
            _ => {}
        }
    }
}

impl Verdict {
    fn run(&mut self, run: &Value, view: &View, found: &mut Vec<Violation>) {
        let meta = &run["metadata"];
        let results = run["status"]["metricResults"].as_array();
        let successful = results.into_iter().flatten().filter_map(|result| result["successful"].as_i64()).sum();
        self.successes.insert(text(&meta["uid"]), successful);
        let total: i64 = self.successes.values().sum();
        if total > self.good {
            let what =
                format!("{total} measurements are successful, and the provider has given {} good values", self.good);
            found.push(violated("S5", view, what));
        }
        match run["status"]["phase"].as_str() {
            Some("Successful") => {
                self.approved.insert((text(&meta["labels"][HASH]), text(&meta["labels"]["rollout-type"])));
                self.pass(run);
            }
            // Another attempt has a verdict of its own.
            Some("Pending" | "Running") if meta["labels"]["rollout-type"] == "Background" => {
                self.condemned.remove(&text(&meta["labels"][HASH]));
            }
            Some("Failed" | "Error") if meta["labels"]["rollout-type"] == "Background" => {
                self.condemned.insert(text(&meta["labels"][HASH]));
            }
            _ => {}
        }
    }

    /// Its name ends in the index of the step, and it has the hash of the version as a label.
    fn pass(&mut self, object: &Value) {
        let meta = &object["metadata"];
        let hash = text(&meta["labels"][HASH]);
        let step = meta["labels"]["step-index"].as_str().map(str::to_owned);
        let name = text(&meta["name"]);
        let parts = name.rsplit('-').filter(|part| part.parse::<u32>().is_ok()).map(str::to_owned);
        for step in step.into_iter().chain(parts) {
            self.passed.insert((hash.clone(), step));
        }
    }

    /// A version has become the active one.
    fn switched(&self, hash: &str, view: &View, found: &mut Vec<Violation>) {
        let rollout = view.rollout();
        let (spec, status) = (&rollout["spec"], &rollout["status"]);
        let stable = text(&status["stableRS"]);
        let judged = !spec["strategy"]["blueGreen"]["prePromotionAnalysis"].is_null();
        let excused = stable.is_empty() || stable == hash || status["promoteFull"] == true;
        if judged && !excused && spec["rollbackWindow"].is_null() && !self.is_approved(hash, "PrePromotion") {
            found.push(violated("S5", view, format!("{hash} becomes active, and nothing has judged it before")));
        }
    }

    fn is_approved(&self, hash: &str, by: &str) -> bool {
        self.approved.contains(&(hash.to_owned(), by.to_owned()))
    }

    fn promotion(&self, before: &Value, after: &Value, view: &View, found: &mut Vec<Violation>) {
        let (old, new) = (&before["status"], &after["status"]);
        let window = !after["spec"]["rollbackWindow"].is_null();
        if old["promoteFull"] == true || new["promoteFull"] == true || window {
            return;
        }
        let analyses = !after["spec"]["strategy"]["canary"]["analysis"].is_null();
        // The first version of a Rollout that was deleted and made again is judged by nobody.
        let first = old["stableRS"].as_str().is_none_or(str::is_empty);
        if analyses && !first && old["stableRS"] != new["stableRS"] && self.condemned.contains(&text(&new["stableRS"]))
        {
            found.push(violated("S5", view, format!("{} becomes stable and its analysis has failed", new["stableRS"])));
        }
        let stable = text(&new["stableRS"]);
        let judged = !after["spec"]["strategy"]["blueGreen"]["postPromotionAnalysis"].is_null();
        let excused = first || old["stableRS"] == new["stableRS"] || self.was_stable.contains(&stable);
        if judged && !excused && !self.is_approved(&stable, "PostPromotion") {
            found.push(violated("S5", view, format!("{stable} becomes stable, and nothing has judged it when active")));
        }
        let index = |status: &Value| status["currentStepIndex"].as_u64().unwrap_or(0);
        let hash = text(&new["currentPodHash"]);
        let same = old["currentPodHash"] == new["currentPodHash"] && old["stableRS"] == new["stableRS"];
        if !same || hash == text(&old["stableRS"]) || old["stableRS"].as_str().is_none_or(str::is_empty) {
            return;
        }
        for step in index(old)..index(new) {
            let at = usize::try_from(step).unwrap_or(usize::MAX);
            let it = &after["spec"]["strategy"]["canary"]["steps"][at];
            let judged = !it["analysis"].is_null() || !it["experiment"].is_null();
            if judged && !self.passed.contains(&(hash.clone(), step.to_string())) {
                found.push(violated("S5", view, format!("{hash} passes step {step} and nothing has judged it")));
            }
        }
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::checkers::history::History;

    fn run(phase: &str, successful: i64) -> Value {
        json!({
            "metadata": {"uid": "1", "labels": {HASH: "b", "step-index": "0", "rollout-type": "Background"}},
            "status": {"phase": phase, "metricResults": [{"successful": successful}]},
        })
    }

    #[test]
    fn it_fires_when_a_success_was_never_measured() {
        let mut history = History::<Verdict>::released();
        history.see(Seen::GoodMetric).change(ANALYSIS_RUNS, "web-b-0", run("Running", 1), false);
        assert!(history.promises().is_empty());
        history.change(ANALYSIS_RUNS, "web-b-0", run("Running", 2), false);
        assert_eq!(history.promises(), ["S5"]);
    }

    #[test]
    fn it_fires_when_a_step_is_passed_unjudged() {
        let mut history = History::<Verdict>::released();
        history.rollout(json!({"spec": {"strategy": {"canary": {"steps": [{"analysis": {}}]}}}}));
        history.rollout(json!({"status": {"currentStepIndex": 1}}));
        assert_eq!(history.promises(), ["S5"]);
        history.rollout(json!({"status": {"currentStepIndex": 0}}));
        history.see(Seen::GoodMetric).change(ANALYSIS_RUNS, "web-b-0", run("Successful", 1), false);
        history.rollout(json!({"status": {"currentStepIndex": 1}}));
        assert!(history.promises().is_empty());
    }

    #[test]
    fn it_fires_when_blue_green_does_not_wait_for_its_analyses() {
        let analyses = json!({"activeService": "web-active", "prePromotionAnalysis": {}, "postPromotionAnalysis": {}});
        let strategy = json!({"spec": {"strategy": {"canary": null, "blueGreen": analyses}}});
        let mut history = History::<Verdict>::released();
        history.rollout(strategy.clone()).service("web-active", "a").service("web-active", "b");
        assert_eq!(history.promises(), ["S5"]);
        history.rollout(json!({"status": {"stableRS": "b"}}));
        assert_eq!(history.promises(), ["S5"]);

        let judged = |of: &str| {
            let mut run = run("Successful", 0);
            run["metadata"]["labels"]["rollout-type"] = of.into();
            run
        };
        history.rollout(json!({"status": {"stableRS": "a"}})).change(
            ANALYSIS_RUNS,
            "pre",
            judged("PrePromotion"),
            false,
        );
        history.service("web-active", "b").change(ANALYSIS_RUNS, "post", judged("PostPromotion"), false);
        history.rollout(json!({"status": {"stableRS": "b"}}));
        assert!(history.promises().is_empty());
    }

    #[test]
    fn it_fires_when_a_condemned_version_becomes_stable() {
        let mut history = History::<Verdict>::released();
        history.rollout(json!({"spec": {"strategy": {"canary": {"analysis": {}}}}}));
        history.change(ANALYSIS_RUNS, "web-b-0", run("Failed", 0), false);
        history.rollout(json!({"status": {"stableRS": "b"}}));
        assert_eq!(history.promises(), ["S5"]);
    }

    #[test]
    fn the_first_version_is_judged_by_nobody() {
        let mut history = History::<Verdict>::released();
        history.rollout(json!({"spec": {"strategy": {"canary": {"analysis": {}}}}, "status": {"stableRS": ""}}));
        history.change(ANALYSIS_RUNS, "web-b-0", run("Failed", 0), false);
        history.rollout(json!({"status": {"stableRS": "b"}}));
        assert!(history.promises().is_empty());
    }
}
