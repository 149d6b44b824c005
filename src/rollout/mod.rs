//! Deciding for a Rollout. Pure.

pub mod decide;
pub mod guard;
pub mod replicas;
pub mod revision;
pub mod world;

pub use decide::decide;
pub use world::World;
