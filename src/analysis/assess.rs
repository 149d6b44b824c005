//! From counters to phases: of a metric, and of the whole run.

use std::collections::BTreeMap;

use super::metric::{Limits, Rules};
use crate::api::analysis::{AnalysisPhase, AnalysisRunStatus, Metric, MetricResult, RunSummary};
use crate::plan::Event;

/// Adds one finished measurement to the counters. One in flight changes none.
pub(super) fn count(result: &mut MetricResult, measured: AnalysisPhase) {
    let counter = match measured {
        AnalysisPhase::Successful => &mut result.successful,
        AnalysisPhase::Failed => &mut result.failed,
        AnalysisPhase::Inconclusive => &mut result.inconclusive,
        AnalysisPhase::Error => &mut result.error,
        AnalysisPhase::None | AnalysisPhase::Pending | AnalysisPhase::Running => return,
    };
    *counter = counter.saturating_add(1);
    if measured == AnalysisPhase::Error {
        result.consecutive_error = result.consecutive_error.saturating_add(1);
    } else {
        result.count = result.count.saturating_add(1);
        result.consecutive_error = 0;
    }
    result.consecutive_success =
        if measured == AnalysisPhase::Successful { result.consecutive_success.saturating_add(1) } else { 0 };
}

/// Brings the phases of all measured metrics up to date; what changed for good is an event. `verdicts` are those of
/// comparisons, by metric.
pub(super) fn metrics(
    status: &mut AnalysisRunStatus,
    metrics: &[Metric],
    rules: &[Rules],
    verdicts: &BTreeMap<String, AnalysisPhase>,
    terminating: bool,
) -> Vec<Event> {
    let mut events = Vec::new();
    for (metric, rules) in metrics.iter().zip(rules) {
        let Some(result) = status.metric_results.iter_mut().find(|result| result.name == metric.name) else {
            continue;
        };
        let phase = match verdicts.get(&metric.name) {
            Some(verdict) if !result.phase.completed() => *verdict,
            _ => metric_phase(&rules.limits, result, terminating),
        };
        if phase == result.phase {
            continue;
        }
        result.phase = phase;
        result.message = result.measurements.last().map(|last| last.message.clone()).unwrap_or_default();
        if phase.completed() {
            events.push(completion("Metric", phase, format!("Metric '{}' Completed. Result: {phase}", metric.name)));
            if rules.dry_run
                && let Some(cause) = cause(&rules.limits, result)
            {
                result.message = format!("Metric assessed {phase} due to {cause}");
            }
        }
    }
    events
}

/// The phase of a run, its message and summaries.
pub(super) fn run(
    status: &mut AnalysisRunStatus,
    metrics: &[Metric],
    rules: &[Rules],
    terminated: bool,
    terminating: bool,
) -> Option<Event> {
    let mut worst = None;
    let mut message = if terminated { "Run Terminated".to_owned() } else { String::new() };
    let mut summary = RunSummary::default();
    let mut dry_run_summary = RunSummary::default();
    let mut all_completed = true;
    let mut in_flight = false;
    for (metric, rules) in metrics.iter().zip(rules) {
        let summary = if rules.dry_run { &mut dry_run_summary } else { &mut summary };
        summary.count += 1;
        let Some(result) = status.metric_results.iter().find(|result| result.name == metric.name) else {
            all_completed = false;
            continue;
        };
        match result.phase {
            AnalysisPhase::Successful => summary.successful += 1,
            AnalysisPhase::Failed => summary.failed += 1,
            AnalysisPhase::Inconclusive => summary.inconclusive += 1,
            AnalysisPhase::Error => summary.error += 1,
            AnalysisPhase::None | AnalysisPhase::Pending | AnalysisPhase::Running => {
                all_completed = false;
                in_flight |= result.measurements.last().is_some_and(|last| last.finished_at.is_none());
                continue;
            }
        }
        if rules.dry_run {
            worst.get_or_insert(AnalysisPhase::Successful);
        } else if worst.is_none_or(|worst| rank(result.phase) > rank(worst)) {
            worst = Some(result.phase);
            if rules.limits.comparison.is_some() && !result.message.is_empty() {
                message = format!("Metric \"{}\" assessed {}: {}", metric.name, result.phase, result.message);
            } else if let Some(cause) = cause(&rules.limits, result) {
                message = format!("Metric \"{}\" assessed {} due to {cause}", metric.name, result.phase);
                if !result.message.is_empty() {
                    message.push_str(&format!(": \"Error Message: {}\"", result.message));
                }
            }
        }
    }
    status.run_summary = summary;
    status.dry_run_summary = Some(dry_run_summary);

    let phase = if terminating && !in_flight {
        // Nothing measured and told to stop: there is nothing to hold against the release.
        worst.unwrap_or(AnalysisPhase::Successful)
    } else if all_completed {
        worst.unwrap_or(AnalysisPhase::Running)
    } else {
        AnalysisPhase::Running
    };
    if phase == status.phase {
        return None;
    }
    status.phase = phase;
    status.message = if phase.completed() { message } else { String::new() };
    phase.completed().then(|| run_completion(phase))
}

/// The event that a run is over.
pub(super) fn run_completion(phase: AnalysisPhase) -> Event {
    completion("AnalysisRun", phase, format!("Analysis Completed. Result: {phase}"))
}

fn completion(prefix: &str, phase: AnalysisPhase, message: String) -> Event {
    let reason = format!("{prefix}{phase}");
    if matches!(phase, AnalysisPhase::Failed | AnalysisPhase::Error) {
        Event::warning(reason, message)
    } else {
        Event::normal(reason, message)
    }
}

/// The phase that a metric's measurements and counters make. Once it is final it stays.
pub(super) fn metric_phase(limits: &Limits, result: &MetricResult, terminating: bool) -> AnalysisPhase {
    if result.phase.completed() {
        return result.phase;
    }
    let Some(last) = result.measurements.last() else {
        return if terminating { AnalysisPhase::Successful } else { AnalysisPhase::Pending };
    };
    if !last.phase.completed() {
        return AnalysisPhase::Running;
    }
    if let Some(exceeded) = exceeded(limits, result).last() {
        return exceeded.phase;
    }
    if limits.consecutive_success.is_some_and(|limit| result.consecutive_success >= limit) {
        return AnalysisPhase::Successful;
    }
    if limits.count.is_some_and(|count| result.count >= count) {
        return match (limits.failure, limits.consecutive_success) {
            (_, None) => AnalysisPhase::Successful,
            (Some(_), Some(_)) => AnalysisPhase::Inconclusive,
            (None, Some(_)) => AnalysisPhase::Failed,
        };
    }
    if terminating { AnalysisPhase::Successful } else { AnalysisPhase::Running }
}

/// Why a completed metric is not successful.
fn cause(limits: &Limits, result: &MetricResult) -> Option<String> {
    if let Some(exceeded) = exceeded(limits, result).last() {
        let Exceeded { counter, count, limit_name, limit, .. } = exceeded;
        return Some(format!("{counter} ({count}) > {limit_name} ({limit})"));
    }
    // Argo Rollouts leaves the message empty here.
    match (result.phase, limits.consecutive_success) {
        (AnalysisPhase::Inconclusive | AnalysisPhase::Failed, Some(limit)) => Some(format!(
            "count ({}) reached with consecutiveSuccess ({}) < consecutiveSuccessLimit ({limit})",
            result.count, result.consecutive_success
        )),
        _ => None,
    }
}

struct Exceeded {
    phase: AnalysisPhase,
    counter: &'static str,
    count: i32,
    limit_name: &'static str,
    limit: i32,
}

/// The limits that the counters exceed; the last one counts.
fn exceeded(limits: &Limits, result: &MetricResult) -> impl Iterator<Item = Exceeded> {
    let failure = limits.failure.unwrap_or(i32::MAX);
    [
        (AnalysisPhase::Failed, "failed", result.failed, "failureLimit", failure),
        (AnalysisPhase::Inconclusive, "inconclusive", result.inconclusive, "inconclusiveLimit", limits.inconclusive),
        (
            AnalysisPhase::Error,
            "consecutiveErrors",
            result.consecutive_error,
            "consecutiveErrorLimit",
            limits.consecutive_error,
        ),
    ]
    .into_iter()
    .filter(|(_, _, count, _, limit)| count > limit)
    .map(|(phase, counter, count, limit_name, limit)| Exceeded { phase, counter, count, limit_name, limit })
}

/// How bad a phase is.
fn rank(phase: AnalysisPhase) -> u8 {
    match phase {
        AnalysisPhase::None | AnalysisPhase::Successful => 0,
        AnalysisPhase::Running => 1,
        AnalysisPhase::Pending => 2,
        AnalysisPhase::Inconclusive => 3,
        AnalysisPhase::Error => 4,
        AnalysisPhase::Failed => 5,
    }
}
