//! Judges a record: one checker a promise, each from the objects alone. Nothing here is shared with the controller.

mod abort;
mod capacity;
mod scale_down;
mod stable;
mod totals;

pub mod end;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::faults::Outage;
use super::fleet::Kind;
use super::history::{Change, State};

/// A promise that was broken.
#[derive(Clone, Debug, PartialEq)]
pub struct Violation {
    pub promise: &'static str,
    pub rollout: String,
    pub at: Duration,
    pub what: String,
}

/// What the checkers must know beside the record.
#[derive(Clone, Copy, Debug)]
pub struct Circumstances<'a> {
    /// For how long the controller takes traffic to go where it went before.
    pub delay: Duration,
    pub outages: &'a [Outage],
}

/// One write to an object of a Rollout.
struct Moment<'a> {
    rollout: &'a str,
    kind: Kind,
    at: Duration,
    before: &'a State,
    after: &'a State,
    circumstances: Circumstances<'a>,
    /// Whether it was ever healthy. The first version has no traffic to lose until then.
    established: bool,
}

/// Watches one Rollout for one promise.
trait Checker {
    fn promise(&self) -> &'static str;

    /// What is wrong with this moment, if something is.
    fn see(&mut self, moment: &Moment<'_>) -> Option<String>;
}

/// Goes through a record. What stays wrong is reported once.
pub fn judge(changes: &[Change], circumstances: Circumstances<'_>) -> Vec<Violation> {
    let mut rollouts: BTreeMap<String, Vec<&Change>> = BTreeMap::new();
    for change in changes {
        if let Some(rollout) = change.rollout() {
            rollouts.entry(rollout).or_default().push(change);
        }
    }
    let judged = rollouts.iter().flat_map(|(rollout, changes)| judge_one(rollout, changes, circumstances));
    judged.collect()
}

fn judge_one(rollout: &str, changes: &[&Change], circumstances: Circumstances<'_>) -> Vec<Violation> {
    let Some(kind) = Kind::of(rollout) else { return Vec::new() };
    let mut checkers: [(Box<dyn Checker>, bool); 7] = [
        (Box::new(capacity::Pods), false),
        (Box::new(capacity::Switch), false),
        (Box::new(capacity::Endpoints::default()), false),
        (Box::new(scale_down::ScaleDown::default()), false),
        (Box::new(abort::Abort::default()), false),
        (Box::new(stable::Stable), false),
        (Box::new(totals::Totals), false),
    ];
    let mut violations = Vec::new();
    let (mut before, mut established) = (State::default(), false);
    for change in changes {
        let mut after = before.clone();
        after.apply(change);
        established |= after.rollout.as_ref().is_some_and(|rollout| rollout.phase == "Healthy");
        let at = change.at;
        let moment = Moment { rollout, kind, at, before: &before, after: &after, circumstances, established };
        for (checker, is_wrong) in &mut checkers {
            let found = checker.see(&moment);
            if let Some(what) = found.as_ref().filter(|_| !*is_wrong) {
                let (rollout, what) = (rollout.to_owned(), what.clone());
                violations.push(Violation { promise: checker.promise(), rollout, at, what });
            }
            *is_wrong = found.is_some();
        }
        before = after;
    }
    violations
}

impl Moment<'_> {
    /// Percent of the traffic of each hash, before and after.
    fn weights(&self) -> [BTreeMap<String, i64>; 2] {
        [self.before.weights(self.rollout), self.after.weights(self.rollout)]
    }

    /// The time from `from` until now in which the control plane answered.
    fn calm_since(&self, from: Duration) -> Duration {
        let lost = self.circumstances.outages.iter().map(|outage| {
            let end = outage.to.min(self.at);
            end.saturating_sub(outage.from.max(from))
        });
        self.at.saturating_sub(from).saturating_sub(lost.sum())
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} at {:.3}: {}", self.promise, self.rollout, self.at.as_secs_f64(), self.what)
    }
}

#[cfg(test)]
mod tests;
