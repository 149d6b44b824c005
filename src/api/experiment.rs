//! The Experiment.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use serde_with::skip_serializing_none;

use super::analysis::{AnalysisPhase, Argument, DryRun, MeasurementRetention};
use super::common::{Condition, LabelSelector, Metadata, Time, is_false, is_zero};
use super::names;
use super::pod_template::PodTemplate;
use super::resource::EXPERIMENT;
use super::steps::{TemplateRef, TemplateService};

/// ReplicaSets that run side by side for a while, and analyses of them.
#[skip_serializing_none]
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "argoproj.io",
    version = "v1alpha1",
    kind = "Experiment",
    plural = "experiments",
    shortname = "exp",
    namespaced,
    status = "ExperimentStatus",
    derive = "PartialEq",
    derive = "Default"
)]
#[serde(rename_all = "camelCase")]
pub struct ExperimentSpec {
    #[serde(default)]
    pub templates: Vec<ExperimentTemplate>,
    /// Go duration from the moment when all templates are available; until terminated when absent.
    pub duration: Option<String>,
    pub progress_deadline_seconds: Option<i32>,
    #[serde(default, skip_serializing_if = "is_false")]
    pub terminate: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub analyses: Vec<ExperimentAnalysis>,
    pub scale_down_delay_seconds: Option<i32>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dry_run: Vec<DryRun>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub measurement_retention: Vec<MeasurementRetention>,
    #[serde(default)]
    pub analysis_run_metadata: Metadata,
}

/// A ReplicaSet of an experiment.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExperimentTemplate {
    pub name: String,
    pub replicas: Option<i32>,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub min_ready_seconds: i32,
    pub selector: Option<LabelSelector>,
    pub template: Option<PodTemplate>,
    pub service: Option<TemplateService>,
}

/// What the status of a template may be.
pub mod template_status {
    pub const PROGRESSING: &str = "Progressing";
    pub const RUNNING: &str = "Running";
    pub const SUCCESSFUL: &str = "Successful";
    pub const FAILED: &str = "Failed";
    pub const ERROR: &str = "Error";
}

/// An analysis of an experiment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExperimentAnalysis {
    pub name: String,
    #[serde(default)]
    pub template_name: String,
    #[serde(default, skip_serializing_if = "is_false")]
    pub cluster_scope: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<Argument>,
    #[serde(default, skip_serializing_if = "is_false")]
    pub required_for_completion: bool,
}

/// Where an experiment stands.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExperimentStatus {
    #[serde(default)]
    pub phase: AnalysisPhase,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub template_statuses: Vec<ExperimentTemplateStatus>,
    pub available_at: Option<Time>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub analysis_runs: Vec<ExperimentRunStatus>,
}

/// Where a ReplicaSet of an experiment stands.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExperimentTemplateStatus {
    pub name: String,
    #[serde(default)]
    pub replicas: i32,
    #[serde(default)]
    pub updated_replicas: i32,
    #[serde(default)]
    pub ready_replicas: i32,
    #[serde(default)]
    pub available_replicas: i32,
    pub collision_count: Option<i32>,
    /// `Progressing`, `Running`, `Successful`, `Failed` or `Error`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub status: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    pub last_transition_time: Option<Time>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub service_name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub pod_template_hash: String,
}

/// An AnalysisRun of an experiment, as last seen.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExperimentRunStatus {
    pub name: String,
    pub analysis_run: String,
    #[serde(default)]
    pub phase: AnalysisPhase,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

impl ExperimentSpec {
    /// Seconds without progress after which a template has failed, with the default of 600.
    pub fn progress_deadline_seconds(&self) -> i32 {
        self.progress_deadline_seconds.unwrap_or(600)
    }

    /// Seconds for which pods are kept when the experiment is over, with the default of 30.
    pub fn scale_down_delay_seconds(&self) -> i32 {
        self.scale_down_delay_seconds.unwrap_or(30)
    }
}

impl ExperimentTemplate {
    /// Desired pods, with the default of 1.
    pub fn desired_replicas(&self) -> i32 {
        self.replicas.unwrap_or(1)
    }
}

impl ExperimentAnalysis {
    /// The template that it names.
    pub fn template(&self) -> TemplateRef {
        TemplateRef { template_name: self.template_name.clone(), cluster_scope: self.cluster_scope }
    }
}

impl ExperimentTemplateStatus {
    /// Whether the status is final.
    pub fn is_completed(&self) -> bool {
        use template_status::{ERROR, FAILED, SUCCESSFUL};
        [SUCCESSFUL, FAILED, ERROR].contains(&self.status.as_str())
    }
}

impl Experiment {
    /// The owner reference that makes the Experiment the controller of an object.
    pub fn owner_reference(&self) -> Value {
        json!({
            "apiVersion": names::API_VERSION,
            "kind": EXPERIMENT.kind,
            "name": self.metadata.name,
            "uid": self.metadata.uid,
            "controller": true,
            "blockOwnerDeletion": true,
        })
    }
}
