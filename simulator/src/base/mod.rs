//! The scenarios that things go wrong in: manifests, what a user does one after the other, and what must come of it.

mod manifests;
mod paths;
mod table;

use std::collections::BTreeMap;
use std::time::Duration;

use crate::observe::{ANALYSIS_RUNS, View};
use crate::script::{Metrics, User, Version, What};
use crate::world::{tag_of, tag_of_set};

pub use paths::PATHS;
pub use table::ALL;

/// A base scenario. It begins with the objects of the manifest and the first release of `blue`.
#[derive(Debug)]
pub struct Base {
    pub name: &'static str,
    pub manifest: &'static str,
    /// Where the pod template is: the resource of the object `web`.
    pub template_in: &'static str,
    pub steps: fn() -> Vec<Step>,
    /// What must be reached at the end, by itself.
    pub ends: Goal,
}

/// Something that a user does or waits for.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    Do(User),
    Until(Goal),
    Metrics(Option<Metrics>),
    /// Something goes wrong that belongs to the scenario.
    Befall(What),
    Wait(Duration),
}

/// Something that a user can see.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Goal {
    /// The version of this tag is released: healthy, with all pods and all traffic.
    Released(&'static str),
    /// The same, and no other version has pods.
    Alone(&'static str),
    /// The version of this tag is being released, and pauses at this step.
    PausedAt(u64, &'static str),
    /// A release was aborted: this version has all pods and all traffic, and no other one has pods.
    Aborted(&'static str),
    /// The stable version has so many pods, all of them available.
    Sized(i64),
    /// The version of this tag is being released.
    Updating(&'static str),
    /// So many measurements were successful.
    Measured(i64),
}

impl Base {
    /// The one of this name.
    pub fn named(name: &str) -> Option<&'static Self> {
        ALL.iter().chain(PATHS).find(|base| base.name == name)
    }
}

impl Goal {
    pub fn is_reached(&self, view: &View) -> bool {
        let rollout = view.rollout();
        let status = &rollout["status"];
        let observed = status["observedGeneration"].as_str().and_then(|text| text.parse::<i64>().ok());
        if rollout.is_null() || observed != rollout["metadata"]["generation"].as_i64() {
            return false;
        }
        match self {
            Self::Released(tag) => status["phase"] == "Healthy" && carries_all(view, tag),
            Self::Alone(tag) => status["phase"] == "Healthy" && carries_all(view, tag) && is_alone(view),
            Self::Aborted(tag) => {
                status["phase"] == "Degraded" && status["abort"] == true && carries_all(view, tag) && is_alone(view)
            }
            Self::PausedAt(step, tag) => {
                status["currentStepIndex"] == *step
                    && !status["pauseConditions"].is_null()
                    && tag_of(view, Version::Canary).as_deref() == Some(tag)
            }
            Self::Updating(tag) => tag_of(view, Version::Canary).as_deref() == Some(tag),
            Self::Measured(least) => {
                let results = view.all(ANALYSIS_RUNS).filter_map(|(_, run)| run["status"]["metricResults"].as_array());
                let successful = results.flatten().filter_map(|result| result["successful"].as_i64());
                successful.sum::<i64>() >= *least
            }
            Self::Sized(pods) => {
                let stable = view.own_sets().find(|set| status["stableRS"] == set.hash);
                view.size() == *pods && stable.is_some_and(|set| set.wanted == *pods && set.available == *pods)
            }
        }
    }
}

/// Whether the version of this tag is stable, whole, and gets all of the traffic, by the objects and by the data plane.
fn carries_all(view: &View, tag: &str) -> bool {
    let status = &view.rollout()["status"];
    let Some(stable) = view.own_sets().find(|set| status["stableRS"] == set.hash) else { return false };
    let all = |shares: &BTreeMap<String, f64>| !view.is_routed() || view.share_of(stable.name, shares) > 0.999;
    tag_of_set(view, stable.name).as_deref() == Some(tag)
        && stable.wanted == view.size()
        && stable.available == view.size()
        && all(&view.stored())
        && all(&view.plane)
}

/// Whether no version but stable has pods, those of experiments included, and no more are left than the history keeps.
fn is_alone(view: &View) -> bool {
    let stable = &view.rollout()["status"]["stableRS"];
    let kept = view.rollout()["spec"]["revisionHistoryLimit"].as_u64().unwrap_or(10);
    let current = &view.rollout()["status"]["currentPodHash"];
    let others = view.own_sets().filter(|set| *stable != set.hash && *current != set.hash).count();
    others as u64 <= kept
        && view
            .sets()
            .all(|set| (set.owner == "Rollout" && *stable == set.hash) || (set.wanted == 0 && set.available == 0))
}
