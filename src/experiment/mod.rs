//! Deciding for an Experiment. Pure.
