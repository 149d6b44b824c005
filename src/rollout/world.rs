//! Everything that one decision about a Rollout may look at, as plain data.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;

pub use crate::analysis::templates::Templates;
use crate::api::analysis::AnalysisRun;
use crate::api::common::LabelSelector;
use crate::api::pod_template::PodTemplate;
pub use crate::api::replica_set::{ReplicaSet, ReplicaSetStatus};
use crate::api::resource::ObjectRef;
use crate::api::{Experiment, Rollout};
use crate::plan::Failure;
pub use crate::traffic::observed::{Observed, Routes, Service};

/// A Rollout and what surrounds it, as it was observed at one instant.
#[derive(Clone, Debug)]
pub struct World {
    pub now: Timestamp,
    /// The Rollout as read; `template` and `selector` are still empty with `workloadRef`.
    pub rollout: Arc<Rollout>,
    /// The object that `workloadRef` names, if it exists.
    pub workload: Option<Arc<Workload>>,
    /// ReplicaSets that the Rollout controls, and orphans that its selector matches; sorted by name.
    pub replica_sets: Vec<ReplicaSet>,
    /// The pods of the ReplicaSets, read live and only for decisions that need them: see [`super::needs_pods`].
    pub pods: Option<Vec<Pod>>,
    /// Services that the strategy names, and those that it has named and that are still marked as the Rollout's; by name.
    /// One that does not exist is not in the map.
    pub services: BTreeMap<String, Observed<Service>>,
    /// Objects that the routers asked for; one that does not exist is not in the map.
    pub routes: Routes,
    /// Services and routes that do not exist any more, and when they were seen to be gone, if that is not long ago.
    pub gone: BTreeMap<ObjectRef, Timestamp>,
    /// AnalysisRuns that the Rollout controls; sorted by name.
    pub analysis_runs: Vec<Arc<AnalysisRun>>,
    /// Experiments that the Rollout controls; sorted by name.
    pub experiments: Vec<Arc<Experiment>>,
    /// Every template that the strategy names, directly or through another template.
    pub templates: Templates,
    /// What failed of the previous plan; empty once a plan went through.
    pub failures: Vec<Failure>,
    pub settings: Settings,
}

/// What the operator of the controller has set.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settings {
    /// Empty when the controller has none.
    pub instance_id: String,
    /// Seconds that routers take to follow their objects; `None` leaves it to the default of each router.
    pub propagation_delay_seconds: Option<u32>,
}

/// What a `workloadRef` names: a Deployment, ReplicaSet or PodTemplate, reduced to what decisions need.
#[derive(Clone, Debug, PartialEq)]
pub struct Workload {
    pub uid: String,
    pub resource_version: String,
    pub generation: i64,
    /// With the defaults that the API server has filled in.
    pub template: PodTemplate,
    /// None for a PodTemplate.
    pub selector: Option<LabelSelector>,
    /// `spec.replicas`; 0 for a PodTemplate.
    pub replicas: i32,
}

/// A pod, reduced to what decisions need.
#[derive(Clone, Debug, PartialEq)]
pub struct Pod {
    pub name: String,
    pub uid: String,
    /// uid of the controlling owner.
    pub controller: String,
    pub created: Timestamp,
    /// Whether it has ended, or is being deleted.
    pub over: bool,
    /// Since when it has been ready; none while it is not.
    pub ready_since: Option<Timestamp>,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
}

impl Workload {
    /// Whether nothing but the version (that is, the status) differs.
    pub fn asks_the_same(&self, other: &Self) -> bool {
        self.uid == other.uid && self.generation == other.generation && self.replicas == other.replicas
    }
}
