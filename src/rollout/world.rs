//! Everything that one decision about a Rollout may look at, as plain data.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;

pub use crate::analysis::templates::Templates;
use crate::api::analysis::AnalysisRun;
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
    /// ReplicaSets that the Rollout controls, and orphans that its selector matches; sorted by name.
    pub replica_sets: Vec<ReplicaSet>,
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
