//! The picture of a Rollout or an Experiment: a head with its numbers and what it waits for, and a tree of what it owns.
//!
//! Pure: the objects and the time in, text out.

mod evidence;
mod head;
mod pods;
mod rows;
mod table;
#[cfg(test)]
mod tests;
mod wait;

pub use table::wrapped;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::ResourceExt;

use crate::api::names;
use crate::api::{AnalysisRun, Experiment, Rollout};
use crate::cli::screen::{GREEN, RED, YELLOW, painted};

/// What is looked at.
// There is one of these in a picture.
#[allow(clippy::large_enum_variant)]
#[derive(Clone, Debug)]
pub enum Root {
    Rollout(Rollout),
    Experiment(Experiment),
}

/// What may belong to it: everything of the namespace. What does not is left out of the picture.
#[derive(Clone, Debug, Default)]
pub struct Objects {
    pub replica_sets: Vec<ReplicaSet>,
    pub pods: Vec<Pod>,
    pub analysis_runs: Vec<AnalysisRun>,
    pub experiments: Vec<Experiment>,
    pub jobs: Vec<Job>,
}

/// How the picture is drawn.
#[derive(Clone, Copy, Debug)]
pub struct Style {
    pub color: bool,
    pub now: Timestamp,
    /// Columns of the terminal; lines are as long as they need to be where there is none.
    pub width: Option<usize>,
}

/// Draws the picture.
pub fn draw(root: &Root, objects: &Objects, style: Style) -> String {
    let (head, tree) = match root {
        Root::Rollout(rollout) => (head::rollout(rollout, objects, style), rows::rollout(rollout, objects, style)),
        Root::Experiment(experiment) => {
            (head::experiment(experiment, objects, style), rows::experiment(experiment, None, objects, style))
        }
    };
    format!("{head}\n{}", table::tree(&tree, style))
}

impl Style {
    /// Colours a text by its mark, sparingly: good, bad, waiting for somebody.
    pub fn paint(self, mark: &str, text: &str) -> String {
        let code = match mark {
            "✔" => GREEN,
            "✖" | "⚠" => RED,
            "॥" | "?" => YELLOW,
            _ => return text.to_owned(),
        };
        painted(self.color, code, text)
    }

    /// The text, cut off where the terminal ends.
    pub fn fit(self, text: &str) -> String {
        match self.width {
            Some(width) if text.chars().count() > width => {
                let kept: String = text.chars().take(width.saturating_sub(1)).collect();
                format!("{}…", kept.trim_end())
            }
            _ => text.to_owned(),
        }
    }

    /// Seconds from `at` until now; negative when it is still to come.
    fn since(self, at: Timestamp) -> i64 {
        self.now.as_second() - at.as_second()
    }

    /// `in 12s`, or `now` once it is past.
    fn countdown(self, at: Timestamp) -> String {
        match -self.since(at) {
            left if left > 0 => format!("in {}", duration(left)),
            _ => "now".to_owned(),
        }
    }

    fn age(self, metadata: &ObjectMeta) -> String {
        duration(metadata.creation_timestamp.as_ref().map_or(0, |created| self.since(created.0)))
    }
}

/// `7s`, `12m`, `3h5m`, `2d`: as precise as it is useful.
pub fn duration(seconds: i64) -> String {
    let seconds = seconds.max(0);
    match (seconds / 86_400, seconds / 3_600, seconds / 60) {
        (0, 0, 0..=1) => format!("{seconds}s"),
        (0, 0, minutes @ 2..=9) if seconds % 60 > 0 => format!("{minutes}m{}s", seconds % 60),
        (0, 0, minutes) => format!("{minutes}m"),
        (0, hours @ 1..=7, minutes) if minutes % 60 > 0 => format!("{hours}h{}m", minutes % 60),
        (0, hours, _) => format!("{hours}h"),
        (days, _, _) => format!("{days}d"),
    }
}

/// Those of the objects that `owner` owns.
pub fn owned<'a, K: ResourceExt>(objects: &'a [K], owner: &ObjectMeta) -> Vec<&'a K> {
    let Some(uid) = &owner.uid else { return Vec::new() };
    let is_owned = |owners: &[OwnerReference]| owners.iter().any(|owner| owner.uid == *uid);
    objects.iter().filter(|object| is_owned(object.owner_references())).collect()
}

pub fn hash(metadata: &ObjectMeta) -> &str {
    metadata.labels.as_ref().and_then(|labels| labels.get(names::POD_TEMPLATE_HASH)).map_or("", String::as_str)
}

pub fn annotation<'a>(metadata: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    metadata.annotations.as_ref()?.get(key).map(String::as_str)
}

pub fn revision(metadata: &ObjectMeta) -> i64 {
    annotation(metadata, names::REVISION).and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// The part that a ReplicaSet plays in the Rollout: `stable`, `canary`, `active`, `preview`, `ping`, `pong`.
fn roles(rollout: &Rollout, replica_set: &ReplicaSet) -> Vec<&'static str> {
    let (hash, default) = (hash(&replica_set.metadata), Default::default());
    let status = rollout.status.as_ref().unwrap_or(&default);
    if hash.is_empty() {
        return Vec::new();
    }
    let is_stable = hash == status.stable_rs;
    let mut roles = Vec::new();
    if let Some(canary) = &rollout.spec.strategy.canary {
        if is_stable {
            roles.push("stable");
        } else if hash == status.current_pod_hash {
            roles.push("canary");
        }
        let stable_is_ping = status.canary.stable_ping_pong == "ping";
        if canary.ping_pong.is_some() && !roles.is_empty() && !status.canary.stable_ping_pong.is_empty() {
            roles.push(if is_stable == stable_is_ping { "ping" } else { "pong" });
        }
    } else if rollout.spec.strategy.blue_green.is_some() {
        let is_active = hash == status.blue_green.active_selector;
        roles.extend(
            [(is_stable, "stable"), (is_active, "active")].into_iter().filter(|(is, _)| *is).map(|(_, role)| role),
        );
        if hash == status.blue_green.preview_selector && !is_active {
            roles.push("preview");
        }
    }
    roles
}
