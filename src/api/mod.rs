//! What users write and read: the five kinds of `argoproj.io/v1alpha1`, their defaults and validation.
//!
//! The structs mirror Argo Rollouts' API field by field, in the order in which its Go structs declare them: the hash of
//! the canary steps is taken over their JSON text, so that order is part of the contract (see [`steps`]).

pub mod analysis;
pub mod blue_green;
pub mod canary;
pub mod common;
pub mod compare;
pub mod crd;
pub mod duration;
pub mod experiment;
pub mod field_error;
pub mod int_or_percent;
pub mod names;
pub mod pod_template;
pub mod providers;
pub mod release;
pub mod replica_set;
pub mod resource;
pub mod rollout;
pub mod rollout_status;
pub mod selector;
pub mod steps;
pub mod traffic_routing;
pub mod validation;

pub use analysis::{AnalysisRun, AnalysisTemplate, ClusterAnalysisTemplate};
pub use experiment::Experiment;
pub use rollout::Rollout;
