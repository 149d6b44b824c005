//! The blue-green strategy.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_with::skip_serializing_none;

use super::common::{Metadata, is_zero};
use super::int_or_percent::IntOrString;
use super::steps::RolloutAnalysis;

/// Switches all traffic at once, to a full-size new version.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BlueGreenStrategy {
    #[serde(default)]
    pub active_service: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub preview_service: String,
    pub preview_replica_count: Option<i32>,
    pub auto_promotion_enabled: Option<bool>,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub auto_promotion_seconds: i32,
    pub max_unavailable: Option<IntOrString>,
    pub scale_down_delay_seconds: Option<i32>,
    pub scale_down_delay_revision_limit: Option<i32>,
    pub pre_promotion_analysis: Option<RolloutAnalysis>,
    pub anti_affinity: Option<AntiAffinity>,
    pub post_promotion_analysis: Option<RolloutAnalysis>,
    pub preview_metadata: Option<Metadata>,
    pub active_metadata: Option<Metadata>,
    pub abort_scale_down_delay_seconds: Option<i32>,
}

/// Keeps pods of the new version off the nodes of the stable one: one of the fields.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AntiAffinity {
    pub preferred_during_scheduling_ignored_during_execution: Option<PreferredAntiAffinity>,
    pub required_during_scheduling_ignored_during_execution: Option<RequiredAntiAffinity>,
}

/// A preference with a weight of 1..=100.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PreferredAntiAffinity {
    #[serde(default)]
    pub weight: i32,
}

/// A requirement; it has no settings.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RequiredAntiAffinity {}
