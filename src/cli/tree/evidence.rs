//! An analysis run in words: what was measured last, against which condition, and when the next measurement is due.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::Job;

use super::table::Node;
use super::{Style, duration};
use crate::analysis::compare::Comparison;
use crate::api::analysis::{AnalysisPhase, AnalysisRun, Measurement, Metric, MetricResult};
use crate::api::duration::GoDuration;
use crate::api::field_error::FieldPath;
use crate::api::int_or_percent::IntOrString;

/// Characters of a measured value that are shown.
const VALUE: usize = 48;
/// How long after an error the next attempt is made.
const ERROR_RETRY: SignedDuration = SignedDuration::from_secs(10);
/// The key of a measurement's metadata under which a Job that measures stands.
const JOB_NAME: &str = "job-name";

/// Measurements by their outcome: `✔ 3 ✖ 1`.
pub(super) fn counts(results: &[MetricResult]) -> String {
    let sum = |count: fn(&MetricResult) -> i32| results.iter().map(count).sum::<i32>();
    let counts = [
        ("✔", sum(|result| result.successful)),
        ("✖", sum(|result| result.failed)),
        ("?", sum(|result| result.inconclusive)),
        ("⚠", sum(|result| result.error)),
    ];
    let shown: Vec<String> =
        counts.iter().filter(|(_, count)| *count > 0).map(|(mark, count)| format!("{mark} {count}")).collect();
    shown.join(" ")
}

/// One line a metric, with the Jobs that measure it.
pub(super) fn metrics(run: &AnalysisRun, jobs: &[&Job], style: Style) -> Vec<Node> {
    run.spec.metrics.iter().map(|metric| line(run, metric, jobs, style)).collect()
}

/// When the run measures next, if it is known.
pub(super) fn next(run: &AnalysisRun) -> Option<Timestamp> {
    run.spec.metrics.iter().filter_map(|metric| next_of(run, metric, result(run, metric))).min()
}

fn result<'a>(run: &'a AnalysisRun, metric: &Metric) -> Option<&'a MetricResult> {
    run.status.as_ref()?.metric_results.iter().find(|result| result.name == metric.name)
}

fn line(run: &AnalysisRun, metric: &Metric, jobs: &[&Job], style: Style) -> Node {
    let found = result(run, metric);
    let last = found.and_then(|result| result.measurements.last());
    let mut info: Vec<String> = Vec::new();
    if let Some(result) = found {
        info.push(tally(metric, result));
    }
    info.extend(last.and_then(|last| evidence(metric, last)));
    if found.is_some_and(|result| result.dry_run) {
        info.push("dry run".to_owned());
    }
    info.extend(next_of(run, metric, found).filter(|at| style.since(*at) < 0).map(|at| match found {
        Some(result) if !result.measurements.is_empty() => format!("next {}", style.countdown(at)),
        _ => format!("first {}", style.countdown(at)),
    }));
    info.retain(|part| !part.is_empty());
    let phase = found.map_or(AnalysisPhase::Pending, |result| result.phase);
    let at = last.and_then(|last| last.finished_at.as_ref().or(last.started_at.as_ref()));
    let measured = found.iter().flat_map(|result| &result.measurements);
    let names = measured.filter_map(|measurement| measurement.metadata.get(JOB_NAME));
    Node {
        name: format!("◇ {}", metric.name),
        kind: "Metric",
        status: phase_name(phase),
        pending: phase == AnalysisPhase::Running,
        age: at.map(|at| duration(style.since(at.0))).unwrap_or_default(),
        info: info.join(", "),
        children: names.map(|name| job(name, jobs, style)).collect(),
    }
}

fn job(name: &str, jobs: &[&Job], style: Style) -> Node {
    let found = jobs.iter().find(|job| job.metadata.name.as_deref() == Some(name));
    let status = found.and_then(|job| job.status.as_ref());
    let is = |type_: &str| {
        let conditions = status.and_then(|status| status.conditions.as_ref()).into_iter().flatten();
        conditions.into_iter().any(|condition| condition.type_ == type_ && condition.status == "True")
    };
    let phase = match found {
        None => "",
        Some(_) if is("Complete") => "Successful",
        Some(_) if is("Failed") => "Failed",
        Some(_) => "Running",
    };
    Node {
        name: format!("⊞ {name}"),
        kind: "Job",
        status: phase.to_owned(),
        pending: phase == "Running",
        age: found.map(|job| style.age(&job.metadata)).unwrap_or_default(),
        ..Node::default()
    }
}

/// `✔ 3 ✖ 1 (2 allowed) of 5`
fn tally(metric: &Metric, result: &MetricResult) -> String {
    let mut text = counts(std::slice::from_ref(result));
    let allowed = number(metric.failure_limit.as_ref()).unwrap_or(0);
    if result.failed > 0 && allowed >= 0 && metric.compare.is_none() {
        text.push_str(&format!(" ({allowed} allowed)"));
    }
    if let Some(count) = number(metric.count.as_ref()).filter(|count| *count > 1) {
        text.push_str(&format!(" of {count}"));
    }
    text.trim_start().to_owned()
}

/// `last [0.91], not result[0] >= 0.95`: the newest value and what it was judged by.
fn evidence(metric: &Metric, last: &Measurement) -> Option<String> {
    if metric.compare.is_some() {
        // Sentences with their numbers, such as `canary 3 of 1,204 requests failed, stable 11 of 22,871`.
        let said = [&last.message, &last.value].into_iter().find(|text| !text.is_empty());
        return said.cloned();
    }
    let condition = |condition: &Option<String>| condition.clone().filter(|text| !text.trim().is_empty());
    let (success, failure) = (condition(&metric.success_condition), condition(&metric.failure_condition));
    let judged = match (last.phase, success, failure) {
        (AnalysisPhase::Successful, Some(success), _) => format!(" is {success}"),
        (AnalysisPhase::Successful, None, Some(failure)) => format!(" is not {failure}"),
        (AnalysisPhase::Failed, _, Some(failure)) => format!(" is {failure}"),
        (AnalysisPhase::Failed, Some(success), None) => format!(" is not {success}"),
        (AnalysisPhase::Inconclusive, Some(success), Some(failure)) => format!(" is neither {success} nor {failure}"),
        _ => String::new(),
    };
    let value = (!last.value.is_empty()).then(|| format!("{}{judged}", value(&last.value)));
    let message = (!last.message.is_empty()).then(|| last.message.clone());
    match (value, message) {
        (None, None) => None,
        (value, message) => Some(format!("last {}", value.into_iter().chain(message).collect::<Vec<_>>().join(": "))),
    }
}

/// A measured value, its numbers with four digits: nobody reads the others.
fn value(text: &str) -> String {
    let digits = |number: f64| {
        let precision = (3 - number.abs().log10().floor().clamp(-8.0, 3.0) as i32).max(0) as usize;
        let text = format!("{number:.precision$}");
        if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
    };
    let short = if let Ok(number) = text.parse::<f64>() {
        digits(number)
    } else if let Ok(numbers) = serde_json::from_str::<Vec<f64>>(text) {
        format!("[{}]", numbers.into_iter().map(digits).collect::<Vec<_>>().join(","))
    } else {
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    if short.chars().count() <= VALUE {
        return short;
    }
    format!("{}…", short.chars().take(VALUE).collect::<String>())
}

/// When the metric is measured next; nothing when it is not known or there is no next time.
fn next_of(run: &AnalysisRun, metric: &Metric, result: Option<&MetricResult>) -> Option<Timestamp> {
    let status = run.status.as_ref()?;
    if status.phase.completed() || result.is_some_and(|result| result.phase.completed()) || run.spec.terminate {
        return None;
    }
    let after = |at: Timestamp, text: &Option<String>| {
        let duration: GoDuration = text.as_ref()?.parse().ok()?;
        at.checked_add(SignedDuration::from(duration)).ok()
    };
    if let Some(compare) = &metric.compare {
        let comparison = Comparison::parse(metric, compare, 1, &FieldPath::default()).ok()?;
        let started = status.started_at.as_ref()?.0;
        let last = result.and_then(|result| result.measurements.last());
        let seconds = match last.and_then(|last| last.finished_at.as_ref()) {
            Some(finished) if last.is_some_and(|last| last.phase == AnalysisPhase::Error) => {
                return finished.0.checked_add(ERROR_RETRY).ok();
            }
            Some(finished) => comparison.next_look(finished.0.duration_since(started).as_secs_f64()),
            None => comparison.first_look(),
        };
        return started.checked_add(SignedDuration::try_from_secs_f64(seconds).ok()?).ok();
    }
    let Some(last) = result.and_then(|result| result.measurements.last()) else {
        return after(status.started_at.as_ref()?.0, &metric.initial_delay);
    };
    match &last.finished_at {
        Some(finished) if last.phase == AnalysisPhase::Error => finished.0.checked_add(ERROR_RETRY).ok(),
        Some(finished) => after(finished.0, &metric.interval),
        None => None,
    }
}

fn number(value: Option<&IntOrString>) -> Option<i64> {
    match value? {
        IntOrString::Int(number) => Some((*number).into()),
        IntOrString::String(text) => text.parse().ok(),
    }
}

pub(super) fn phase_name(phase: AnalysisPhase) -> String {
    if phase.as_str().is_empty() { "Pending".to_owned() } else { phase.to_string() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    #[test]
    fn a_comparison_shows_its_counts_and_its_verdict() {
        let run = |measurement: serde_json::Value| -> super::AnalysisRun {
            let names = json!({"source": "traefik", "canaryService": "new", "stableService": "old"});
            serde_json::from_value(json!({
                "apiVersion": "argoproj.io/v1alpha1", "kind": "AnalysisRun", "metadata": {},
                "spec": {"metrics": [{"name": "errors", "compare": names}]},
                "status": {"phase": "Running", "startedAt": "2026-01-01T00:00:00Z", "metricResults": [
                    {"name": "errors", "phase": "Running", "measurements": [measurement]},
                ]},
            }))
            .unwrap()
        };
        let value = "canary 3 of 1,204 requests failed, stable 11 of 22,871";
        let counted = json!({"phase": "Successful", "value": value, "finishedAt": "2026-01-01T00:02:11Z"});
        let found = run(counted);
        let (metric, result) = (&found.spec.metrics[0], super::result(&found, &found.spec.metrics[0]).unwrap());
        assert_eq!(super::evidence(metric, &result.measurements[0]).as_deref(), Some(value));
        assert_eq!(super::next(&found).unwrap().to_string(), "2026-01-01T00:03:10Z");
        let silent = run(json!({"phase": "Inconclusive", "value": value, "message": "no data from canary"}));
        let result = super::result(&silent, metric).unwrap();
        assert_eq!(super::evidence(metric, &result.measurements[0]).as_deref(), Some("no data from canary"));
    }

    #[test]
    fn values_have_as_many_digits_as_are_read() {
        for (text, short) in [
            ("[0.9912345]", "[0.9912]"),
            ("0.000123456", "0.0001235"),
            ("1234567.89", "1234568"),
            ("[100,0.5]", "[100,0.5]"),
            ("[0]", "[0]"),
            ("", ""),
            ("{\"ok\":\n  true}", "{\"ok\": true}"),
        ] {
            assert_eq!(super::value(text), short);
        }
    }
}
