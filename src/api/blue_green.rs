//! The blue-green strategy.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_with::skip_serializing_none;

use super::canary::Placed;
use super::common::{Metadata, is_zero};
use super::field_error::FieldPath;
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

impl BlueGreenStrategy {
    /// Whether something stands between a complete preview and its promotion: a time, or a person.
    pub fn pauses(&self) -> bool {
        self.auto_promotion_enabled == Some(false) || self.auto_promotion_seconds > 0
    }

    /// Seconds after which a pause ends by itself; none if only a person ends it.
    pub fn pause_seconds(&self) -> Option<i32> {
        (self.auto_promotion_enabled != Some(false)).then_some(self.auto_promotion_seconds)
    }

    /// Every analysis of the strategy with its path.
    pub fn analyses(&self) -> impl Iterator<Item = (FieldPath, Placed<'_>)> {
        let at = FieldPath::new("spec.strategy.blueGreen");
        [
            ("prePromotionAnalysis", &self.pre_promotion_analysis),
            ("postPromotionAnalysis", &self.post_promotion_analysis),
        ]
        .into_iter()
        .filter_map(move |(field, analysis)| Some((at.child(field), Placed::Promotion(analysis.as_ref()?))))
    }
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
