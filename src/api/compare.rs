//! The judge's block of a metric: the canary compared with stable. It is Tidegate's own.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_with::skip_serializing_none;

use super::common::is_false;
use super::int_or_percent::IntOrString;

/// Judges the canary by its requests and those of stable in the same minutes.
// Short lines: this is the description in the CRD.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Compare {
    /// One of traefik, nginx, istio, envoy, linkerd and red.
    pub source: Option<String>,
    /// Go duration; with a source, what takes longer counts as failed.
    pub slower_than: Option<String>,
    pub canary: Option<Counters>,
    pub stable: Option<Counters>,
    /// How much more the canary may fail than stable; `25%` when absent.
    pub margin: Option<String>,
    /// Share of all requests that is added to the margin; `0%` when absent.
    pub tolerance: Option<String>,
    /// Of all comparisons of the analysis together; `99%` when absent.
    pub confidence: Option<String>,
    /// Go duration that is judged after the initial delay; `30m` when absent.
    pub horizon: Option<String>,
    /// Phase without a verdict at the horizon; `Inconclusive` when absent.
    pub undecided: Option<String>,
    /// End as soon as the canary is known to be safe.
    #[serde(default, skip_serializing_if = "is_false")]
    pub promote_early: bool,
    /// Failures that come together, 1 to 50; measured when absent.
    pub dispersion: Option<IntOrString>,
}

/// Counters of Prometheus in the place of a source; their growth is counted.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Counters {
    /// All requests.
    #[serde(default)]
    pub total: String,
    /// Those that failed.
    pub errors: Option<String>,
    /// Or those that did not, such as a bucket of a histogram.
    pub good: Option<String>,
}
