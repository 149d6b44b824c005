//! Tidegate: a progressive-delivery controller for Kubernetes.
//!
//! ```text
//! watches ──► index ──► World ──► decide(&World) ──► Plan ──► execute ──► Kubernetes API
//!                       plain data     pure            typed actions,
//!                                                      new status, events,
//!                                                      when to look again
//! ```
//!
//! The rooms, in the order of their dependencies: each may use those above it only.
//!
//! | room | what lives there |
//! |---|---|
//! | [`api`] | what users write and read |
//! | [`traffic`] | routers: the split an object makes, and how to edit it (pure) |
//! | [`analysis`] | the AnalysisRun machine and the condition language (pure) |
//! | [`rollout`] | decide for a Rollout, and the guard (pure) |
//! | [`experiment`] | decide for an Experiment (pure) |
//! | [`providers`] | the metric providers, the only code that queries them |
//! | [`controller`] | the shell: watches, index, queue, execution, telemetry |
//! | [`sandbox`] | a Kubernetes API, workloads and traffic in memory |
//! | [`cli`] | the commands |

pub mod analysis;
pub mod api;
pub mod cli;
pub mod clock;
pub mod controller;
pub mod experiment;
pub mod plan;
pub mod providers;
pub mod rollout;
pub mod sandbox;
pub mod traffic;
