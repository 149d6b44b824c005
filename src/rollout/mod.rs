//! Deciding for a Rollout. Pure.

pub mod decide;
pub mod world;

pub use decide::decide;
pub use world::World;
