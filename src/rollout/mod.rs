//! Deciding for a Rollout. Pure.

mod analysis_runs;
mod blue_green;
mod canary;
mod conditions;
pub mod decide;
mod draft;
mod duration;
mod events;
mod experiments;
pub mod guard;
mod pass;
mod pauses;
mod references;
pub mod replicas;
pub mod revision;
mod scale_down;
mod scene;
mod services;
mod status;
mod steps;
#[cfg(test)]
mod tests;
mod traffic;
pub mod world;

pub use decide::decide;
pub use world::World;
