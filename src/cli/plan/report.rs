//! What a plan says, as data: the JSON of `--output json`, and what text and page are drawn from.
//!
//! Times are seconds since the change of the image, shares are 0..=1. Fields may be added; those that are here keep their
//! names and meaning while `version` is 1.

use std::fmt;

use serde::Serialize;

/// A plan for one Rollout.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Of this format.
    pub version: u32,
    pub rollout: Subject,
    pub assumptions: Assumptions,
    /// What was made up, left out or is worth a look.
    pub notes: Vec<String>,
    pub releases: Vec<Prediction>,
}

/// What is released.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Subject {
    pub namespace: String,
    pub name: String,
    /// `canary` or `blueGreen`.
    pub strategy: &'static str,
    /// `nginx`, `gatewayAPI`, `istio`, or null when pods divide the traffic.
    pub router: Option<&'static str>,
    pub replicas: i32,
    /// The steps of a canary in words.
    pub steps: Vec<String>,
}

/// What was taken for granted.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Assumptions {
    pub requests_per_second: f64,
    /// Where they go.
    pub target: String,
    pub error_rate: f64,
    pub latency_seconds: f64,
    pub ready_after_seconds: f64,
    pub promote_after_seconds: f64,
    pub scrape_interval_seconds: f64,
    pub seed: u64,
    /// The answers that nobody here could give.
    pub answers: Vec<AssumedAnswer>,
}

/// A metric whose answer is assumed: its condition is met.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AssumedAnswer {
    /// The name of the AnalysisTemplate.
    pub template: String,
    pub metric: String,
    /// `prometheus`, `web` or `job`.
    pub provider: String,
    /// The query, the URL, or nothing.
    pub asks: String,
    pub why: String,
}

/// What one release would come to.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Prediction {
    /// As `--release` had it.
    pub release: String,
    pub outcome: Outcome,
    /// Until the outcome: the new version is out, or gets no more traffic.
    pub seconds: f64,
    /// When it was aborted.
    pub aborted_seconds: Option<f64>,
    /// Why it did not come to its end.
    pub why: Option<String>,
    /// When somebody promoted it.
    pub promotions: Vec<f64>,
    pub steps: Vec<Row>,
    pub analyses: Vec<Analysis>,
    pub requests: Requests,
    /// The same pods, requests and version, replaced by a plain rolling update.
    pub rolling_update: RollingUpdate,
    /// The largest number of pods at once.
    pub most_pods: i64,
    /// Everything that changed, until the old or the rejected pods were gone.
    pub timeline: Vec<Sample>,
    /// The requests, for a plot.
    pub series: Vec<Bucket>,
    /// With `--repeat`.
    pub repeated: Option<Repeated>,
}

/// How a release ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// The new version is out.
    Completed,
    /// It was aborted, and the old version has all traffic again.
    RolledBack,
    /// It makes no progress and is not aborted.
    Stuck,
    /// It waits for a person to decide.
    Waiting,
    /// It was still under way when the plan gave up.
    Unfinished,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Completed => "completed",
            Self::RolledBack => "rolled back",
            Self::Stuck => "stuck",
            Self::Waiting => "waiting for a decision",
            Self::Unfinished => "unfinished",
        })
    }
}

/// A step, or a stretch of a release that is none.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    /// The index in `steps` of the manifest, from 0.
    pub step: Option<usize>,
    pub what: String,
    pub from: f64,
    pub to: f64,
    /// The share of the requests that the new version gets at its end.
    pub weight: f64,
    /// At its end.
    pub old_pods: Pods,
    pub new_pods: Pods,
    /// Of experiments.
    pub other_pods: Pods,
    /// The most that there were at once, beyond `replicas`.
    pub surge: i64,
}

/// Pods of one version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Pods {
    pub wanted: i64,
    pub there: i64,
    pub ready: i64,
}

/// One instant.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Sample {
    pub at: f64,
    pub weight: f64,
    pub old_pods: Pods,
    pub new_pods: Pods,
    pub other_pods: Pods,
}

impl Sample {
    pub fn pods(&self) -> i64 {
        self.old_pods.there + self.new_pods.there + self.other_pods.there
    }
}

/// An AnalysisRun.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Analysis {
    /// `background`, `step 2`, `before promotion`, `after promotion`, or the Experiment's name.
    pub place: String,
    pub from: f64,
    pub to: Option<f64>,
    pub phase: String,
    pub message: String,
    pub metrics: Vec<Metric>,
}

/// One metric of a run, what it asks and what came of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Metric {
    pub name: String,
    pub provider: String,
    /// The query with its arguments, the URL, or nothing.
    pub asks: String,
    pub initial_delay: Option<String>,
    pub interval: Option<String>,
    pub count: Option<String>,
    pub success_condition: Option<String>,
    pub failure_condition: Option<String>,
    pub phase: String,
    pub message: String,
    /// Whether the answers are assumed.
    pub assumed: bool,
    pub measurements: Vec<Measurement>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Measurement {
    pub at: f64,
    pub phase: String,
    pub value: String,
    pub message: String,
}

/// What became of the requests from the change of the image until the outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Requests {
    pub total: u64,
    pub failed: u64,
    /// Failures that the error rate makes without any release.
    pub failed_anyway: u64,
    pub old: Share,
    pub new: Share,
    /// Requests that reached no pod. All of them failed.
    pub unanswered: u64,
}

/// Requests to one version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Share {
    pub requests: u64,
    pub failed: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RollingUpdate {
    /// In the same time.
    pub failed: u64,
    /// From then on, until somebody notices.
    pub failed_per_minute: u64,
}

/// Requests in a stretch of time.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Bucket {
    pub from: f64,
    pub to: f64,
    pub old: Share,
    pub new: Share,
    pub unanswered: u64,
}

/// What many repetitions with different seeds came to.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Repeated {
    pub runs: u64,
    pub completed: u64,
    pub rolled_back: u64,
    /// Stuck, waiting or unfinished.
    pub other: u64,
    /// The share that is rolled back lies between these with 95% confidence.
    pub rolled_back_between: [f64; 2],
    /// Seconds until the outcome, of those that were completed and of those that were rolled back.
    pub completed_seconds: Option<Quantiles>,
    pub rolled_back_seconds: Option<Quantiles>,
    pub failed_requests: Option<Quantiles>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Quantiles {
    pub p10: f64,
    pub p50: f64,
    pub p90: f64,
    pub max: f64,
}
