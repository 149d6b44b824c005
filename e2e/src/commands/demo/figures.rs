//! What the two releases cost, by the load generator's records and the API server's clock.

use std::ops::Range;
use std::time::Duration;

use anyhow::{Context, Result};
use jiff::Timestamp;

use crate::audit::AuditEvent;
use crate::cluster::{ADMIN, CONTROLLER};
use crate::load::Record;
use crate::shop::{CANARY, Shop};

use super::{BAD, Demo};

/// From the abort's decision to the new weight in the route, in milliseconds.
const ABORT_LIMIT: f64 = 100.0;
/// How long requests count that decide whether the threshold is crossed, as in the analysis' own query.
const WINDOW: Duration = Duration::from_secs(4);
/// What a rollback may take beside two measurements, in seconds.
const SLACK: f64 = 5.0;

/// The same for Argo Rollouts with its Gateway API plugin, in the same set-up: 150 requests a second, 10% errors at 20%
/// weight, a check every 2 s after 4 s, failureLimit 1.
mod argo {
    pub const GOOD: &str = "0 of 4458";
    pub const FAILED: &str = "23";
    pub const TRAFFIC: &str = "5.6 s";
    pub const DEGRADED: &str = "8.4 s";
}

/// One release, as it was recorded.
pub struct Release {
    /// The requests that count for it, since the start of the load.
    pub requests: Range<Duration>,
    /// When its end was seen.
    pub ended: Duration,
    pub events: Vec<AuditEvent>,
}

/// What a good release cost.
pub struct Good {
    pub sent: usize,
    pub lost: usize,
    pub took: Duration,
}

/// What a bad release cost. Times are seconds after the change, unless said otherwise.
pub struct Bad {
    pub sent: usize,
    /// Requests that the bad version failed.
    pub failed: usize,
    /// Requests that anything else failed.
    pub lost: usize,
    pub first_failure: f64,
    /// When the error ratio of the canary was first over the threshold.
    pub crossed: f64,
    pub verdict: f64,
    pub weight_zero: f64,
    pub degraded: f64,
    pub last_request: f64,
    /// For how long the bad version got requests.
    pub traffic: f64,
    /// Requests that failed after the verdict: what the gateway takes to follow.
    pub failed_after: usize,
    /// From the verdict in the API server to the weight in the API server, in milliseconds.
    pub decision_to_route: f64,
}

impl Good {
    pub fn measure(release: &Release, records: &[Record]) -> Self {
        let during: Vec<_> = records.iter().filter(|record| release.requests.contains(&record.due)).collect();
        let lost = during.iter().filter(|record| !record.is_ok()).count();
        Self { sent: during.len(), lost, took: release.ended - release.requests.start }
    }
}

impl Bad {
    /// # Errors
    /// Something that belongs to a rollback was never seen.
    pub fn measure(release: &Release, shop: &Shop, records: &[Record], load_started: Timestamp) -> Result<Self> {
        let namespace = &shop.options.namespace;
        let find = |what: &str, is: &dyn Fn(&AuditEvent) -> bool| {
            let event = release.events.iter().find(|event| is(event));
            event.map(|event| event.stage_timestamp).with_context(|| format!("no {what} in the audit log"))
        };
        let change = find("change of the Rollout", &|event| event.is(ADMIN, "rollouts", namespace))?;
        let verdict = find("failed AnalysisRun", &|event| {
            event.is(CONTROLLER, "analysisruns", namespace) && matches!(event.phase(), Some("Failed" | "Error"))
        })?;
        let weight_zero = find("weight 0 in the route", &|event| {
            event.stage_timestamp >= verdict
                && event.is(CONTROLLER, "httproutes", namespace)
                && event.weight(CANARY) == Some(0)
        })?;
        let degraded = find("degraded Rollout", &|event| {
            event.is(CONTROLLER, "rollouts", namespace) && event.phase() == Some("Degraded")
        })?;
        let since = |at: Timestamp| at.duration_since(change).as_secs_f64();
        let of_record = |record: &Record| since(load_started) + record.due.as_secs_f64();

        let mut during: Vec<_> = records.iter().filter(|record| release.requests.contains(&record.due)).collect();
        during.sort_by_key(|record| record.due);
        let is_bad = |record: &&&Record| record.version.as_deref() == Some(BAD);
        let canary: Vec<&Record> = during.iter().filter(is_bad).copied().collect();
        let failures: Vec<f64> =
            canary.iter().filter(|record| !record.is_ok()).map(|record| of_record(record)).collect();
        let crossed =
            crossing(&canary, shop.options.threshold).context("the bad version never crossed the threshold")?;
        let (first, last) = (canary.first().map(|it| of_record(it)), canary.last().map(|it| of_record(it)));
        let (first, last) = first.zip(last).context("the bad version got no request")?;
        Ok(Self {
            sent: during.len(),
            failed: failures.len(),
            lost: during.iter().filter(|record| !record.is_ok()).count() - failures.len(),
            first_failure: failures.first().copied().unwrap_or_default(),
            crossed: of_record(crossed),
            verdict: since(verdict),
            weight_zero: since(weight_zero),
            degraded: since(degraded),
            last_request: last,
            traffic: last - first,
            failed_after: failures.iter().filter(|at| **at > since(verdict)).count(),
            decision_to_route: weight_zero.duration_since(verdict).as_secs_f64() * 1e3,
        })
    }
}

/// The request with which the share of failures in the last seconds reached the threshold.
fn crossing<'a>(canary: &[&'a Record], threshold: f64) -> Option<&'a Record> {
    let window = |end: usize| {
        let from = canary[end].due.saturating_sub(WINDOW);
        canary[..=end].iter().filter(move |record| record.due > from)
    };
    let over = |end: &usize| {
        let failed = window(*end).filter(|record| !record.is_ok()).count();
        failed > 0 && failed as f64 >= threshold * window(*end).count() as f64
    };
    (0..canary.len()).find(over).map(|end| canary[end])
}

/// Prints the figures and answers which promises are broken.
pub fn report(demo: &Demo, shop: &Shop, good: &Good, bad: &Bad) -> Vec<String> {
    let comparable = demo.rate == 150.0 && demo.error_rate == 0.1;
    let row = |what: &str, ours: String, argo: &str| {
        println!("  {what:<58} {ours:>14} {:>14}", if comparable { argo } else { "" });
    };
    row("", "Tidegate".to_owned(), "Argo Rollouts");
    println!("Good release ({:.1} s)", good.took.as_secs_f64());
    row("requests lost", format!("{} of {}", good.lost, good.sent), argo::GOOD);
    println!("Bad release ({}% errors)", demo.error_rate * 100.0);
    let seconds = |value: f64| format!("{value:.1} s");
    row("requests that it failed", format!("{} of {}", bad.failed, bad.sent), argo::FAILED);
    row("requests lost otherwise", bad.lost.to_string(), "");
    row("how long it got requests", seconds(bad.traffic), argo::TRAFFIC);
    row("Degraded, after the change", seconds(bad.degraded), argo::DEGRADED);
    println!("In detail, seconds after the change");
    row("the first request fails", seconds(bad.first_failure), "");
    row(
        &format!("the error ratio of {WINDOW:?} is over {}%", shop.options.threshold * 100.0),
        seconds(bad.crossed),
        "",
    );
    row("the analysis has failed", seconds(bad.verdict), "");
    row("the route has weight 0", seconds(bad.weight_zero), "");
    row("the last request reaches it (the gateway has followed)", seconds(bad.last_request), "");
    row("requests that failed after the verdict", bad.failed_after.to_string(), "");
    row("from the verdict to weight 0 in the route", format!("{:.0} ms", bad.decision_to_route), "");

    let limit = 2.0 * f64::from(shop.options.interval) + SLACK;
    let promises = [
        (good.lost == 0, format!("the good release lost {} requests", good.lost)),
        (
            bad.lost == 0,
            format!("in the bad release {} requests were lost that the bad version did not fail", bad.lost),
        ),
        (
            bad.weight_zero - bad.crossed <= limit,
            format!(
                "weight 0 came {:.1} s after the threshold was crossed, not within {limit} s",
                bad.weight_zero - bad.crossed
            ),
        ),
        (
            bad.decision_to_route < ABORT_LIMIT,
            format!("from verdict to weight 0 took {:.0} ms, not under {ABORT_LIMIT} ms", bad.decision_to_route),
        ),
    ];
    println!("Promises");
    row("back at weight 0 after the threshold was crossed, limit", format!("{limit} s"), "");
    row("  measured", seconds(bad.weight_zero - bad.crossed), "");
    row("verdict to weight 0, limit", format!("{ABORT_LIMIT} ms"), "");
    let broken: Vec<String> = promises.into_iter().filter(|(kept, _)| !kept).map(|(_, broken)| broken).collect();
    println!("{}", if broken.is_empty() { "All kept.".to_owned() } else { format!("BROKEN: {}", broken.join("; ")) });
    println!();
    broken
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_threshold_is_crossed_by_the_failures_of_a_window() {
        let record = |milliseconds, status| Record {
            due: Duration::from_millis(milliseconds),
            latency: Duration::ZERO,
            status: Some(status),
            version: None,
        };
        let mut records: Vec<Record> = (0..300).map(|n| record(n * 10, if n == 150 { 500 } else { 200 })).collect();
        records.push(record(3_000, 500));
        records.push(record(3_010, 500));
        let all: Vec<&Record> = records.iter().collect();
        assert_eq!(crossing(&all, 0.005).map(|record| record.due), Some(Duration::from_millis(1_500)));
        assert_eq!(crossing(&all, 0.009).map(|record| record.due), Some(Duration::from_millis(3_010)));
        assert!(crossing(&all, 0.5).is_none());
    }
}
