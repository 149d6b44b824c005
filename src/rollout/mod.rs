//! Deciding for a Rollout. Pure.

pub mod world;

pub use world::World;
