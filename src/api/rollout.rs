//! The Rollout.

use std::collections::BTreeSet;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use serde_with::skip_serializing_none;

use super::blue_green::BlueGreenStrategy;
use super::canary::{CanaryStrategy, Placed};
use super::common::{LabelSelector, Time, WorkloadRef, is_false, is_zero};
use super::field_error::FieldPath;
use super::names;
use super::pod_template::PodTemplate;
use super::resource::ROLLOUT;
pub use super::rollout_status::RolloutStatus;
use super::traffic_routing::TrafficRouting;

/// What a user wants of a workload, and how a new version reaches production.
#[skip_serializing_none]
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "argoproj.io",
    version = "v1alpha1",
    kind = "Rollout",
    plural = "rollouts",
    shortname = "ro",
    namespaced,
    status = "RolloutStatus",
    derive = "PartialEq",
    derive = "Default",
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.HPAReplicas",
        label_selector_path = ".status.selector"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct RolloutSpec {
    /// Number of pods; 1 when absent.
    pub replicas: Option<i32>,
    pub selector: Option<LabelSelector>,
    /// The pods, kept exactly as the user wrote them; absent with `workloadRef`.
    pub template: Option<PodTemplate>,
    /// Seconds for which a pod must have been ready to count as available.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub min_ready_seconds: i32,
    #[serde(default)]
    pub strategy: Strategy,
    /// Number of old ReplicaSets to keep; 10 when absent.
    pub revision_history_limit: Option<i32>,
    #[serde(default, skip_serializing_if = "is_false")]
    pub paused: bool,
    /// Seconds without progress after which the Rollout is Degraded; 600 when absent.
    pub progress_deadline_seconds: Option<i32>,
    /// Pods created before this instant are evicted and replaced once it has passed.
    pub restart_at: Option<Time>,
    pub workload_ref: Option<WorkloadRef>,
    pub analysis: Option<AnalysisHistory>,
    /// Whether an exceeded progress deadline also aborts the update.
    #[serde(default, skip_serializing_if = "is_false")]
    pub progress_deadline_abort: bool,
    pub rollback_window: Option<RollbackWindow>,
}

/// How a new version reaches production: one of the fields.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Strategy {
    pub blue_green: Option<Box<BlueGreenStrategy>>,
    pub canary: Option<CanaryStrategy>,
}

/// How many finished AnalysisRuns and Experiments are kept; 5 and 5 when absent.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AnalysisHistory {
    pub successful_run_history_limit: Option<i32>,
    pub unsuccessful_run_history_limit: Option<i32>,
}

/// How far back a rollback may go and skip the steps.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RollbackWindow {
    pub revisions: Option<i32>,
}

impl Strategy {
    /// The routers of a canary.
    pub fn traffic_routing(&self) -> Option<&TrafficRouting> {
        self.canary.as_ref()?.traffic_routing.as_deref()
    }

    /// Every analysis with its path, but those of experiments.
    pub fn analyses(&self) -> impl Iterator<Item = (FieldPath, Placed<'_>)> {
        let canary = self.canary.iter().flat_map(CanaryStrategy::analyses);
        canary.chain(self.blue_green.iter().flat_map(|blue_green| blue_green.analyses()))
    }

    /// The names of all Services that it mentions.
    pub fn services(&self) -> BTreeSet<&str> {
        let mut names = BTreeSet::new();
        if let Some(blue_green) = &self.blue_green {
            names.extend([blue_green.active_service.as_str(), &blue_green.preview_service]);
        }
        if let Some(canary) = &self.canary {
            names.extend([canary.stable_service.as_str(), &canary.canary_service]);
            if let Some(ping_pong) = &canary.ping_pong {
                names.extend([ping_pong.ping_service.as_str(), &ping_pong.pong_service]);
            }
            if let Some(routing) = &canary.traffic_routing {
                if let Some(nginx) = &routing.nginx {
                    names.extend([nginx.stable_service.as_str(), &nginx.canary_service]);
                }
                names.extend(routing.alb.iter().map(|alb| alb.root_service.as_str()));
                names.extend(routing.smi.iter().map(|smi| smi.root_service.as_str()));
            }
        }
        names.remove("");
        names
    }
}

impl RolloutSpec {
    /// Desired pods, with the default of 1.
    pub fn desired_replicas(&self) -> i32 {
        self.replicas.unwrap_or(1)
    }

    /// Seconds without progress that count as a failure, with the default of 600.
    pub fn progress_deadline_seconds(&self) -> i32 {
        self.progress_deadline_seconds.unwrap_or(600)
    }

    /// Old ReplicaSets to keep, with the default of 10.
    pub fn revision_history_limit(&self) -> i32 {
        self.revision_history_limit.unwrap_or(10)
    }
}

impl Rollout {
    /// The owner reference that makes the Rollout the controller of an object.
    pub fn owner_reference(&self) -> Value {
        json!({
            "apiVersion": names::API_VERSION,
            "kind": ROLLOUT.kind,
            "name": self.metadata.name,
            "uid": self.metadata.uid,
            "controller": true,
            "blockOwnerDeletion": true,
        })
    }
}
