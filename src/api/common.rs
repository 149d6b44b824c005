//! Shapes that several kinds share.

use std::collections::BTreeMap;

use jiff::Timestamp;
pub use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, Time};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_with::skip_serializing_none;

use super::resource::{self, Resource};

/// Labels and annotations that are added to pods or AnalysisRuns.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Metadata {
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// One condition of a Rollout or an Experiment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    #[serde(rename = "type")]
    pub type_: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// When the condition was last bumped, by progress or by a change of its reason.
    pub last_update_time: Time,
    /// When the status last changed.
    pub last_transition_time: Time,
    pub reason: String,
    pub message: String,
}

impl Condition {
    /// Puts a condition last among `all`, in the place of the one of its type. When its status was the same, the time of
    /// its last transition stays.
    pub fn put(all: &mut Vec<Self>, now: Timestamp, type_: &str, status: &str, reason: &str, message: String) {
        let now = time(now);
        let old = all.iter().position(|condition| condition.type_ == type_).map(|index| all.remove(index));
        let kept = old.filter(|old| old.status == status).map(|old| old.last_transition_time);
        all.push(Self {
            type_: type_.to_owned(),
            status: status.to_owned(),
            last_update_time: now.clone(),
            last_transition_time: kept.unwrap_or(now),
            reason: reason.to_owned(),
            message,
        });
    }
}

/// The reference of a Rollout to the workload whose pod template it takes.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadRef {
    pub api_version: Option<String>,
    pub kind: Option<String>,
    pub name: Option<String>,
    /// `never` (default), `onsuccess` or `progressively`.
    pub scale_down: Option<String>,
}

/// When the Deployment that a `workloadRef` names gives its pods up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScaleDown {
    Never,
    /// Once the Rollout is healthy.
    OnSuccess,
    /// As pods of the Rollout become available.
    Progressively,
}

impl WorkloadRef {
    /// The kind that is named; none when a Rollout cannot take its template from it. Any version of its group will do.
    pub fn resource(&self) -> Option<Resource> {
        let version = self.api_version.as_deref().unwrap_or_default();
        let group = version.split_once('/').map_or("", |(group, _)| group);
        match (group, self.kind.as_deref().unwrap_or_default()) {
            ("apps", "Deployment") => Some(resource::DEPLOYMENT),
            ("apps", "ReplicaSet") => Some(resource::WORKLOAD_REPLICA_SET),
            ("", "PodTemplate") => Some(resource::POD_TEMPLATE),
            _ => None,
        }
    }

    /// `scaleDown`; none when it is no word that has a meaning.
    pub fn scale_down(&self) -> Option<ScaleDown> {
        match self.scale_down.as_deref().unwrap_or_default() {
            "" | "never" => Some(ScaleDown::Never),
            "onsuccess" => Some(ScaleDown::OnSuccess),
            "progressively" => Some(ScaleDown::Progressively),
            _ => None,
        }
    }
}

/// `now` with the precision that the API persists: whole seconds.
pub fn time(now: Timestamp) -> Time {
    // A whole number of seconds taken from a valid timestamp is a valid timestamp.
    Time(Timestamp::from_second(now.as_second()).unwrap_or(now))
}

/// The schema of a value of any shape below `object`.
pub fn open_object(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true })
}

/// The schema of a value of any shape at all.
pub fn open_value(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "x-kubernetes-preserve-unknown-fields": true })
}

/// The schema of a `batch/v1` JobSpec.
pub fn job_spec(_: &mut SchemaGenerator) -> Schema {
    Schema::try_from(super::pod_template::job_spec_schema()).unwrap_or_default()
}

/// Free-form JSON that only its consumer understands.
pub type Raw = Value;

pub(crate) fn is_false(value: &bool) -> bool {
    !value
}

pub(crate) fn is_zero(value: &i32) -> bool {
    *value == 0
}
