//! What a backtest says: plain data, which text and JSON show.

use jiff::Timestamp;
use serde::Serialize;

use super::times::Window;

/// A template, or two of them, over one stretch of the past.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Of this form: 1.
    pub version: u32,
    pub from: Timestamp,
    pub to: Timestamp,
    /// Seconds between two starts.
    pub every_seconds: f64,
    /// Seconds between two values of a query.
    pub step_seconds: f64,
    /// Whether every measurement has the value that it would have had, and none an older one.
    pub exact: bool,
    pub incidents: Vec<Window>,
    pub requests: usize,
    pub notes: Vec<String>,
    /// The template of `--filename`, then that of `--against`.
    pub tested: Vec<Tested>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Tested {
    pub name: String,
    /// The longest that a run may take.
    pub duration_seconds: f64,
    pub metrics: Vec<String>,
    pub verdicts: Verdicts,
    pub quiet: Quiet,
    pub incidents: Vec<Incident>,
    /// Runs in quiet time that would have stopped a release, those that began one after the other together.
    pub alarms: Vec<Alarm>,
    pub runs: Vec<Run>,
}

/// Runs by how they ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Verdicts {
    pub successful: usize,
    pub failed: usize,
    pub error: usize,
    pub inconclusive: usize,
}

/// Runs that no incident touches.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Quiet {
    pub runs: usize,
    /// Failed or Error: the release would have been rolled back for nothing.
    pub stopped: usize,
    pub inconclusive: usize,
    /// Of the runs, 0 when there are none.
    pub share: f64,
    /// With 95% confidence, counting only as many runs as fit into the time one after the other.
    pub between: [f64; 2],
    pub independent_runs: f64,
}

/// What the runs made of a known incident.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Incident {
    #[serde(flatten)]
    pub window: Window,
    pub detected: bool,
    /// Runs of which some part lies in it.
    pub runs: usize,
    pub stopped: usize,
    pub inconclusive: usize,
    /// From its beginning until the first run stopped.
    pub first_seconds: Option<f64>,
    /// From its beginning, or that of the run if it is later, until half of those that stopped had.
    pub median_seconds: Option<f64>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Alarm {
    /// Starts of the first and the last of the runs.
    pub from: Timestamp,
    pub to: Timestamp,
    pub runs: usize,
    /// The message of the first.
    pub why: String,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Run {
    pub at: Timestamp,
    pub phase: &'static str,
    pub seconds: f64,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
}

impl Report {
    /// Whether an incident was missed by the template that is tried.
    pub fn missed(&self) -> bool {
        self.tested.first().is_some_and(|tested| tested.incidents.iter().any(|incident| !incident.detected))
    }

    /// The share of false alarms of the template that is tried.
    pub fn false_alarms(&self) -> f64 {
        self.tested.first().map_or(0.0, |tested| tested.quiet.share)
    }
}
