//! S3, the time: a pause of a step, or before the promotion of a blue-green preview, ends by the controller's doing only when
//! its time is over; one without a time never does.
//!
//! Each is noted in whole seconds, so one second less is none. Excused: pauses that an abort, a full promotion or another
//! version ends; those of a strategy with a `rollbackWindow`, which skips them; 45 s after a user has changed steps or
//! strategy; those during which the controller's clock was set, or that were written while the API server answered badly: they
//! count from the decision, which may have been long before, or in the same moment by the clock as it was.

use serde_json::Value;
use tidegate::sandbox::Op;

use crate::checkers::{Checker, Violation, violated};
use crate::observe::{ROLLOUTS, Seen, View};

/// Milliseconds by which a pause may seem too short because its beginning is noted in whole seconds.
const ROUNDING: u64 = 1_100;
const TIMED: [&str; 2] = ["CanaryPauseStep", "BlueGreenPause"];

#[derive(Default)]
pub struct Pause {
    /// Since when it pauses.
    since: Option<u64>,
    /// When the controller's clock was set.
    clock_set: Option<u64>,
}

impl Checker for Pause {
    fn observe(&mut self, seen: &Seen, view: &View, found: &mut Vec<Violation>) {
        match seen {
            Seen::ClockSet => {
                self.since = None;
                self.clock_set = Some(view.now);
            }
            Seen::Change { change, by_user } if &*change.resource == ROLLOUTS => {
                let none = Value::Null;
                let before = change.previous.as_deref().unwrap_or(&none);
                if change.op == Op::Deleted || *by_user {
                    self.since = self.since.filter(|_| pauses(&change.object) && pauses(before));
                    return;
                }
                if pauses(&change.object) {
                    if !pauses(before) {
                        self.since = Some(view.now).filter(|now| self.clock_set != Some(*now));
                    }
                } else if let Some(since) = self.since.take().filter(|_| pauses(before)) {
                    ended(before, &change.object, since, view, found);
                }
            }
            _ => {}
        }
    }
}

fn ended(before: &Value, after: &Value, since: u64, view: &View, found: &mut Vec<Violation>) {
    let (old, new) = (&before["status"], &after["status"]);
    let otherwise = new["abort"] == true
        || old["promoteFull"] == true
        || new["promoteFull"] == true
        || old["currentPodHash"] != new["currentPodHash"]
        || !after["spec"]["rollbackWindow"].is_null()
        || view.now < view.foreign
        || view.trouble >= since;
    let lasted = view.now - since;
    let due = duration(before);
    if !otherwise && due.is_none_or(|due| lasted + ROUNDING < due) {
        let due = due.map_or("until somebody promotes".to_owned(), |due| format!("{due} ms"));
        found.push(violated("S3", view, format!("a pause ends after {lasted} ms, and should last {due}")));
    }
}

fn pauses(rollout: &Value) -> bool {
    let conditions = rollout["status"]["pauseConditions"].as_array();
    conditions.into_iter().flatten().any(|it| it["reason"].as_str().is_some_and(|reason| TIMED.contains(&reason)))
}

/// Milliseconds of the present pause, if it has a time.
fn duration(rollout: &Value) -> Option<u64> {
    let strategy = &rollout["spec"]["strategy"];
    if strategy["canary"].is_null() {
        return strategy["blueGreen"]["autoPromotionSeconds"].as_u64().map(|seconds| seconds * 1000);
    }
    let index = usize::try_from(rollout["status"]["currentStepIndex"].as_u64()?).ok()?;
    let seconds = strategy["canary"]["steps"][index]["pause"]["duration"].as_str()?.strip_suffix('s')?;
    seconds.parse::<u64>().ok().map(|seconds| seconds * 1000)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::checkers::history::History;

    #[test]
    fn it_fires_when_a_pause_is_too_short() {
        let mut history = History::<Pause>::released();
        let begins = json!({"status": {"currentStepIndex": 1, "pauseConditions": [{"reason": "CanaryPauseStep"}]}});
        let over = json!({"status": {"currentStepIndex": 2, "pauseConditions": null}});
        history.rollout(begins.clone()).after(60_000).rollout(over.clone());
        assert_eq!(history.promises(), ["S3"], "nobody has promoted it");
        let steps = json!([{"setWeight": 25}, {"pause": {"duration": "5s"}}]);
        history.rollout(json!({"spec": {"strategy": {"canary": {"steps": steps}}}}));
        history.rollout(begins.clone()).after(3_000).rollout(over.clone());
        assert_eq!(history.promises(), ["S3"]);
        history.rollout(begins.clone()).after(5_000).rollout(over.clone());
        assert!(history.promises().is_empty());
        history.see(Seen::ClockSet).rollout(begins.clone()).after(600).rollout(over.clone());
        assert!(history.promises().is_empty(), "it was noted by the clock as it was");
        history.see(Seen::ClockSet).after(1).rollout(begins.clone()).after(600).rollout(over);
        assert_eq!(history.promises(), ["S3"]);
        history.rollout(begins).rollout(json!({"status": {"abort": true, "pauseConditions": null}}));
        assert!(history.promises().is_empty());
    }
}
