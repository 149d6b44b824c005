//! Deciding for a Rollout. Pure.
