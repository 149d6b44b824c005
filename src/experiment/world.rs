//! Everything that one decision about an Experiment may look at, as plain data.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;

use crate::analysis::templates::Templates;
use crate::api::Experiment;
use crate::api::analysis::AnalysisRun;
use crate::api::replica_set::ReplicaSet;
use crate::plan::Failure;

/// An Experiment and what surrounds it, as it was observed at one instant.
#[derive(Clone, Debug)]
pub struct ExperimentWorld {
    pub now: Timestamp,
    pub experiment: Arc<Experiment>,
    /// ReplicaSets that the Experiment controls; sorted by name.
    pub replica_sets: Vec<ReplicaSet>,
    /// uids of the Services that the Experiment controls, by name.
    pub services: BTreeMap<String, String>,
    /// AnalysisRuns that the Experiment controls; sorted by name.
    pub analysis_runs: Vec<Arc<AnalysisRun>>,
    /// Every template that the analyses name, directly or through another template.
    pub templates: Templates,
    /// Services that the Rollout which controls the Experiment still sees routes send traffic to.
    pub weighted: BTreeSet<String>,
    /// Seconds for which traffic may still follow an earlier route.
    pub propagation_delay_seconds: u32,
    /// What failed of the previous plan; empty once a plan went through.
    pub failures: Vec<Failure>,
}
