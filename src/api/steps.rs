//! The steps of a canary.
//!
//! The order of the fields in this file is the order in which Argo Rollouts writes them: `status.currentStepHash` is a
//! hash of the JSON of the steps, and a value that differs restarts every canary in flight.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_with::skip_serializing_none;

use super::analysis::{DryRun, FieldRef, MeasurementRetention};
use super::common::{LabelSelector, Metadata, Raw, is_false, open_value};
use super::duration::PauseDuration;

/// One step: exactly one of the fields is set.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CanaryStep {
    /// Percentage (0..=maxTrafficWeight) of the traffic, or of the pods without traffic routing, for the canary.
    pub set_weight: Option<i32>,
    pub pause: Option<Pause>,
    pub experiment: Option<Box<ExperimentStep>>,
    pub analysis: Option<Box<RolloutAnalysis>>,
    pub set_canary_scale: Option<SetCanaryScale>,
    pub set_header_route: Option<Box<SetHeaderRoute>>,
    pub set_mirror_route: Option<Box<SetMirrorRoute>>,
    pub plugin: Option<Box<PluginStep>>,
}

/// A pause for a while, or until promoted when no duration is given.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Pause {
    pub duration: Option<PauseDuration>,
}

/// An experiment that runs while the step lasts.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExperimentStep {
    #[serde(default)]
    pub templates: Vec<ExperimentStepTemplate>,
    pub duration: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub analyses: Vec<ExperimentStepAnalysis>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dry_run: Vec<DryRun>,
    #[serde(default)]
    pub analysis_run_metadata: Metadata,
    pub scale_down_delay_seconds: Option<i32>,
}

/// A ReplicaSet of an experiment step.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExperimentStepTemplate {
    pub name: String,
    /// `stable` or `canary`.
    #[serde(default)]
    pub spec_ref: String,
    pub replicas: Option<i32>,
    #[serde(default)]
    pub metadata: Metadata,
    pub selector: Option<LabelSelector>,
    /// Percentage of the traffic.
    pub weight: Option<i32>,
    pub service: Option<TemplateService>,
}

/// The Service that an experiment makes for a template.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TemplateService {
    pub name: Option<String>,
}

/// An analysis of an experiment step.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExperimentStepAnalysis {
    pub name: String,
    #[serde(default)]
    pub template_name: String,
    #[serde(default, skip_serializing_if = "is_false")]
    pub cluster_scope: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<RolloutAnalysisArg>,
    #[serde(default, skip_serializing_if = "is_false")]
    pub required_for_completion: bool,
}

impl ExperimentStepAnalysis {
    /// The template that it names.
    pub fn template(&self) -> TemplateRef {
        TemplateRef { template_name: self.template_name.clone(), cluster_scope: self.cluster_scope }
    }
}

/// The analysis of a step, or the background analysis of a release.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RolloutAnalysis {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub templates: Vec<TemplateRef>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<RolloutAnalysisArg>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dry_run: Vec<DryRun>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub measurement_retention: Vec<MeasurementRetention>,
    #[serde(default)]
    pub analysis_run_metadata: Metadata,
}

/// A reference to an AnalysisTemplate, or to a ClusterAnalysisTemplate.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TemplateRef {
    #[serde(default)]
    pub template_name: String,
    #[serde(default, skip_serializing_if = "is_false")]
    pub cluster_scope: bool,
}

/// An argument that a Rollout hands to an analysis.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RolloutAnalysisArg {
    pub name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub value: String,
    pub value_from: Option<RolloutArgSource>,
}

/// Where a Rollout's argument comes from: one of the fields.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RolloutArgSource {
    /// `Stable` or `Latest`.
    pub pod_template_hash_value: Option<String>,
    pub field_ref: Option<FieldRef>,
}

/// How many canary pods there are, apart from the weight: one of the fields.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SetCanaryScale {
    /// Percentage of `spec.replicas`.
    pub weight: Option<i32>,
    pub replicas: Option<i32>,
    /// Follow `setWeight` again.
    #[serde(default, skip_serializing_if = "is_false")]
    pub match_traffic_weight: bool,
}

/// Sends requests with certain headers to the canary; no match removes the route.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SetHeaderRoute {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[serde(rename = "match", default, skip_serializing_if = "Vec::is_empty")]
    pub match_: Vec<HeaderMatch>,
}

/// A header and the value that it must have.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HeaderMatch {
    pub header_name: String,
    #[serde(default)]
    pub header_value: Option<StringMatch>,
}

/// Copies requests to the canary; no match removes the route.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SetMirrorRoute {
    pub name: String,
    #[serde(rename = "match", default, skip_serializing_if = "Vec::is_empty")]
    pub match_: Vec<RouteMatch>,
    /// 0..=100; absent means all.
    pub percentage: Option<i32>,
}

/// Which requests a mirror route copies.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RouteMatch {
    pub method: Option<StringMatch>,
    pub path: Option<StringMatch>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, StringMatch>,
}

/// A text to match: one of the fields.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StringMatch {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub exact: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub prefix: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub regex: String,
}

/// A step that a plugin carries out.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PluginStep {
    pub name: String,
    #[serde(default)]
    #[schemars(schema_with = "open_value")]
    pub config: Option<Raw>,
}
