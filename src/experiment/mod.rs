//! Deciding for an Experiment. Pure.
//!
//! An Experiment runs ReplicaSets side by side for a while and lets analyses judge them. It moves no traffic of its own: a
//! Rollout that makes one for a step gives weights to its Services, and takes them away before the pods go.

mod analyses;
mod conditions;
mod decide;
mod draft;
mod placeholders;
mod replica_sets;
mod services;
mod status;
mod templates;
#[cfg(test)]
mod tests;
mod world;

pub use self::decide::decide;
pub use self::world::ExperimentWorld;
