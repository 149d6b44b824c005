//! The status of a Rollout: shared with users and tools, who promote, abort, retry and skip by patching it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_with::skip_serializing_none;

use super::analysis::AnalysisPhase;
use super::common::{Condition, Raw, Time, is_false, is_zero, open_value};

/// Where a Rollout stands.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RolloutStatus {
    /// Set by a user (or by us) to end the update and return to the stable version.
    #[serde(default, skip_serializing_if = "is_false")]
    pub abort: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pause_conditions: Vec<PauseCondition>,
    /// Whether we paused; with no pause conditions left it means that a user has promoted.
    #[serde(default, skip_serializing_if = "is_false")]
    pub controller_pause: bool,
    pub aborted_at: Option<Time>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub current_pod_hash: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub current_step_hash: String,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub replicas: i32,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub updated_replicas: i32,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub ready_replicas: i32,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub available_replicas: i32,
    pub current_step_index: Option<i32>,
    pub collision_count: Option<i32>,
    /// A decimal number as text, as Argo Rollouts writes it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub observed_generation: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    #[serde(default)]
    pub canary: CanaryStatus,
    #[serde(default)]
    pub blue_green: BlueGreenStatus,
    #[serde(rename = "HPAReplicas", default, skip_serializing_if = "is_zero")]
    pub hpa_replicas: i32,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub selector: String,
    /// Hash of the ReplicaSet that a full promotion made stable.
    #[serde(rename = "stableRS", default, skip_serializing_if = "String::is_empty")]
    pub stable_rs: String,
    pub restarted_at: Option<Time>,
    #[serde(default, skip_serializing_if = "is_false")]
    pub promote_full: bool,
    /// `Healthy`, `Degraded`, `Progressing` or `Paused`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub phase: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub workload_observed_generation: String,
    pub alb: Option<AlbStatus>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub albs: Vec<AlbStatus>,
    pub duration: Option<DurationStatus>,
    /// The record in JSON of the last release that has ended, which `tidegate report` prints.
    pub last_release: Option<String>,
}

/// Why, and since when, a Rollout is paused.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PauseCondition {
    /// `InconclusiveAnalysisRun`, `InconclusiveExperiment`, `CanaryPauseStep` or `BlueGreenPause`.
    pub reason: String,
    pub start_time: Time,
}

/// The part of the status that belongs to the canary strategy.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CanaryStatus {
    pub current_step_analysis_run_status: Option<RunStatusRef>,
    pub current_background_analysis_run_status: Option<RunStatusRef>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub current_experiment: String,
    pub weights: Option<TrafficWeights>,
    /// `ping` or `pong`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub stable_ping_pong: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub step_plugin_statuses: Vec<StepPluginStatus>,
}

/// The weights that were last written to the routers.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TrafficWeights {
    #[serde(default)]
    pub canary: WeightDestination,
    #[serde(default)]
    pub stable: WeightDestination,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub additional: Vec<WeightDestination>,
    /// Whether the router was seen to make the split; absent where it cannot tell.
    pub verified: Option<bool>,
}

/// A weight and where it goes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WeightDestination {
    #[serde(default)]
    pub weight: i32,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub service_name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub pod_template_hash: String,
}

/// An AnalysisRun of the current update, as last seen.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RunStatusRef {
    pub name: String,
    #[serde(default)]
    pub status: AnalysisPhase,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// One call, or series of calls, of a step plugin.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StepPluginStatus {
    pub index: i32,
    pub name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub phase: String,
    pub started_at: Option<Time>,
    pub updated_at: Option<Time>,
    pub finished_at: Option<Time>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub operation: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub backoff: String,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub executions: i32,
    #[serde(default, skip_serializing_if = "is_false")]
    pub disabled: bool,
    #[serde(default)]
    #[schemars(schema_with = "open_value")]
    pub status: Option<Raw>,
}

/// The part of the status that belongs to the blue-green strategy.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BlueGreenStatus {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub preview_selector: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub active_selector: String,
    #[serde(default, skip_serializing_if = "is_false")]
    pub scale_up_preview_check_point: bool,
    pub pre_promotion_analysis_run_status: Option<RunStatusRef>,
    pub post_promotion_analysis_run_status: Option<RunStatusRef>,
}

/// The load balancer of an Ingress, and its target groups.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AlbStatus {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub ingress: String,
    pub load_balancer: Option<AwsResource>,
    pub canary_target_group: Option<AwsResource>,
    pub stable_target_group: Option<AwsResource>,
}

/// An AWS resource.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AwsResource {
    #[serde(default)]
    pub name: String,
    #[serde(default)]
    pub arn: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub full_name: String,
}

/// How long an update took, and how it ended.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DurationStatus {
    pub rollout_started_at: Option<Time>,
    pub manual_pause_started_at: Option<Time>,
    pub total_manual_pause_duration_seconds: Option<i64>,
    pub finished_at: Option<Time>,
    /// `Promoted`, `FastPromoted`, `Aborted`, `Superseded`, `RolledBack` or `FastRolledBack`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub completion_status: String,
}
