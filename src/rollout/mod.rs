//! Deciding for a Rollout. Pure.

pub mod guard;
pub mod replicas;
pub mod revision;
pub mod world;

pub use world::World;
