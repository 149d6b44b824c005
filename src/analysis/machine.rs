//! Deciding for an AnalysisRun, in two pure halves around the measurements.
//!
//! ```text
//! secret_refs ──► (shell reads Secrets) ──► RunWorld ──► tasks ──► (providers measure) ──► conclude ──► Plan
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;

use super::secrets::{Redactor, Secrets};
use crate::api::AnalysisRun;
use crate::api::analysis::{AnalysisRunStatus, Measurement, Metric, SecretKeyRef};
use crate::plan::Plan;

/// Everything that a decision about an AnalysisRun may look at.
#[derive(Clone, Debug)]
pub struct RunWorld {
    pub now: Timestamp,
    pub run: Arc<AnalysisRun>,
    /// An answer for each of [`secret_refs`].
    pub secrets: Secrets,
}

/// Something that a provider is to do now. Tasks of one world are independent: they may run side by side.
#[derive(Clone, Debug)]
pub struct Task {
    pub run: Arc<AnalysisRun>,
    /// The metric with the values of its arguments, secrets included: never to be stored or printed.
    pub metric: Metric,
    pub step: Step,
    pub redactor: Redactor,
}

/// What to do with a metric.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Take a new measurement, the `number`-th (from 1) of the metric, errors included.
    Start { number: i32 },
    /// Look again at a measurement in flight.
    Resume(Measurement),
    /// Give a measurement in flight up.
    Terminate(Measurement),
    /// Remove what older measurements left behind, but for the newest `keep`. Yields no outcome.
    Collect { keep: usize },
}

/// What came of a task.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// The metric's name.
    pub metric: String,
    /// The measurement: finished (with `finished_at`), or in flight (with `resume_at`).
    pub measurement: Measurement,
    /// Facts about the metric as a whole, such as the query with its arguments.
    pub metadata: BTreeMap<String, String>,
}

/// The Secret keys that the run needs now; none when nothing is due to be measured.
pub fn secret_refs(_now: Timestamp, _run: &AnalysisRun) -> Vec<SecretKeyRef> {
    todo!()
}

/// What the providers are to do now.
pub fn tasks(_world: &RunWorld) -> Vec<Task> {
    todo!()
}

/// What follows from the outcomes of [`tasks`] of the same world. An outcome that is missing is no measurement: it is
/// taken again.
pub fn conclude(_world: &RunWorld, _outcomes: Vec<Outcome>) -> Plan<AnalysisRunStatus> {
    todo!()
}
