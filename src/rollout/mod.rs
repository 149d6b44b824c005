//! Deciding for a Rollout. Pure.

mod analysis_runs;
mod blue_green;
mod canary;
mod conditions;
pub mod decide;
mod draft;
mod duration;
mod events;
pub mod evidence;
mod experiments;
mod former_routes;
pub mod guard;
mod managed_routes;
mod metadata;
mod pass;
mod pauses;
mod references;
pub mod replicas;
mod restart;
pub mod revision;
mod scale_down;
mod scene;
mod services;
mod status;
mod steps;
#[cfg(test)]
mod tests;
mod traffic;
pub mod workload;
pub mod world;

pub use decide::decide;
pub use world::World;

/// Whether a decision about this World has to know the pods: they are not watched, since few decisions do.
pub fn needs_pods(world: &World) -> bool {
    restart::is_due(&world.rollout, world.now) || world.replica_sets.iter().any(metadata::is_pending)
}
