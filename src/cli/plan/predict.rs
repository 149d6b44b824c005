//! From what happened in virtual time to what a plan says; and many times, with other seeds.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;

use super::play::{Circumstances, Course, list, play};
use super::questions::ASSUMED;
use super::release::Release;
use super::report::{
    Analysis, Measurement, Metric, Outcome, Prediction, Quantiles, Repeated, Requests, RollingUpdate, Sample,
};
use super::rows::rows;
use super::setting::Setting;
use crate::api::names;
use crate::cli::in_process::Rolling;
use crate::cli::units::wilson;

/// Plays a release once in detail, and `repeat` times for the statistics if that is more than once.
///
/// # Errors
/// As [`play`].
pub fn predict(
    setting: &Setting,
    release: &Release,
    circumstances: &Circumstances,
    repeat: u64,
    progress: &(dyn Fn(u64) + Sync),
) -> anyhow::Result<Prediction> {
    let in_detail = Circumstances { in_detail: true, ..circumstances.clone() };
    let course = play(setting, release, &in_detail)?;
    let rate = if release.no_traffic { 0.0 } else { circumstances.rate };
    let bad = release.behaviour(&circumstances.pods);
    let rolling = Rolling {
        replicas: setting.subject.replicas,
        rate,
        old: circumstances.pods.clone(),
        new: bad.clone(),
        onset: release.late_onset.unwrap_or_default(),
        took: Duration::from_millis(course.ended),
        seed: circumstances.seed,
    };
    // Pods that never get ready stop a rolling update before it harms anybody.
    let answers = if bad.crash_after.is_some() { circumstances.pods.error_rate } else { bad.error_rate };
    let rolling_update = RollingUpdate {
        failed: if rate > 0.0 { rolling.failures()? } else { 0 },
        failed_per_minute: (rate * 60.0 * answers).round() as u64,
    };
    let repeated = if repeat > 1 { Some(repeated(setting, release, circumstances, repeat, progress)?) } else { None };
    let tally = course.requests;
    Ok(Prediction {
        release: release.to_string(),
        outcome: course.outcome,
        seconds: seconds(course.ended),
        aborted_seconds: course.aborted.map(seconds),
        why: course.why.clone(),
        promotions: course.promotions.iter().copied().map(seconds).collect(),
        steps: rows(setting, &course),
        analyses: analyses(setting, &course),
        requests: Requests {
            total: tally.total(),
            failed: tally.failed(),
            failed_anyway: (tally.total() as f64 * circumstances.pods.error_rate).round() as u64,
            old: tally.old,
            new: tally.new,
            unanswered: tally.unanswered,
        },
        rolling_update,
        most_pods: course.samples.iter().map(Sample::pods).max().unwrap_or(0),
        timeline: course.samples.clone(),
        series: course.series.clone(),
        repeated,
    })
}

fn seconds(millis: u64) -> f64 {
    millis as f64 / 1000.0
}

/// The AnalysisRuns in the order in which they began.
fn analyses(setting: &Setting, course: &Course) -> Vec<Analysis> {
    let since = |time: &Value| {
        let time: Timestamp = time.as_str()?.parse().ok()?;
        // Statuses have whole seconds.
        Some((time.duration_since(course.began).as_secs_f64().round()).max(0.0))
    };
    let mut analyses: Vec<Analysis> = course
        .runs
        .iter()
        .map(|(name, run)| {
            let status = &run["status"];
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let metrics = list(&run["spec"]["metrics"]).map(|spec| metric(setting, course, name, run, spec, &since));
            Analysis {
                place: place(run),
                from: since(&status["startedAt"])
                    .or_else(|| since(&run["metadata"]["creationTimestamp"]))
                    .unwrap_or(0.0),
                to: since(&status["completedAt"]),
                phase: text(&status["phase"]),
                message: text(&status["message"]),
                metrics: metrics.collect(),
            }
        })
        .collect();
    analyses.sort_by(|a, b| a.from.total_cmp(&b.from).then_with(|| a.place.cmp(&b.place)));
    analyses
}

/// Which analysis of the Rollout a run is.
fn place(run: &Value) -> String {
    let labels = &run["metadata"]["labels"];
    match labels[names::ROLLOUT_TYPE].as_str() {
        Some("Step") => {
            let step = labels[names::STEP_INDEX].as_str().and_then(|step| step.parse::<usize>().ok()).unwrap_or(0);
            format!("step {}", step + 1)
        }
        Some("Background") => "background".to_owned(),
        Some("PrePromotion") => "before promotion".to_owned(),
        Some("PostPromotion") => "after promotion".to_owned(),
        _ => {
            let owner = list(&run["metadata"]["ownerReferences"]).next();
            let name = owner.and_then(|owner| owner["name"].as_str()).unwrap_or_default();
            format!("experiment {name}")
        }
    }
}

fn metric(
    setting: &Setting,
    course: &Course,
    run_name: &str,
    run: &Value,
    spec: &Value,
    since: &dyn Fn(&Value) -> Option<f64>,
) -> Metric {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let plain = |field: &str| match &spec[field] {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    };
    let name = text(&spec["name"]);
    let result = list(&run["status"]["metricResults"]).find(|result| result["name"] == *name).unwrap_or(&Value::Null);
    let provider = &spec["provider"];
    let mut metric = Metric {
        provider: provider.as_object().and_then(|provider| provider.keys().next().cloned()).unwrap_or_default(),
        asks: text(&provider["prometheus"]["query"]),
        initial_delay: plain("initialDelay"),
        interval: plain("interval"),
        count: plain("count"),
        success_condition: plain("successCondition"),
        failure_condition: plain("failureCondition"),
        phase: text(&result["phase"]),
        message: text(&result["message"]),
        assumed: provider["job"].is_object(),
        measurements: Vec::new(),
        name,
    };
    if let Some(resolved) = result["metadata"]["ResolvedPrometheusQuery"].as_str() {
        metric.asks = resolved.to_owned();
    }
    let number = provider["web"]["url"].as_str().and_then(|url| url.strip_prefix(ASSUMED)?.parse::<usize>().ok());
    if let Some(assumption) = number.and_then(|number| setting.questions.assumed.get(number)) {
        metric.assumed = true;
        metric.provider = assumption.answer.provider.clone();
        metric.asks = assumption.answer.asks.clone();
        metric.success_condition = assumption.success_condition.clone();
        metric.failure_condition = assumption.failure_condition.clone();
    }
    let measured = course.measurements.get(&(run_name.to_owned(), metric.name.clone()));
    metric.measurements = measured
        .into_iter()
        .flat_map(|measured| measured.values())
        .filter_map(|measurement| {
            Some(Measurement {
                at: since(&measurement["startedAt"])?,
                phase: text(&measurement["phase"]),
                value: text(&measurement["value"]),
                message: text(&measurement["message"]),
            })
        })
        .collect();
    metric
}

/// Plays a release many times on all cores.
fn repeated(
    setting: &Setting,
    release: &Release,
    circumstances: &Circumstances,
    repeat: u64,
    progress: &(dyn Fn(u64) + Sync),
) -> anyhow::Result<Repeated> {
    let next = AtomicUsize::new(0);
    let runs = usize::try_from(repeat).unwrap_or(usize::MAX);
    let played: Mutex<Vec<anyhow::Result<Course>>> = Mutex::new(Vec::new());
    let lock = || played.lock().unwrap_or_else(PoisonError::into_inner);
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(runs);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= runs {
                        return;
                    }
                    let seed = circumstances.seed.wrapping_add(number as u64);
                    let once = Circumstances { seed, in_detail: false, ..circumstances.clone() };
                    let course = play(setting, release, &once);
                    let mut played = lock();
                    played.push(course);
                    progress(played.len() as u64);
                }
            });
        }
    });
    let courses = played.into_inner().unwrap_or_else(PoisonError::into_inner);
    let courses: Vec<Course> = courses.into_iter().collect::<anyhow::Result<_>>()?;
    let of = |outcome: Outcome| courses.iter().filter(move |course| course.outcome == outcome);
    let times = |outcome: Outcome| quantiles(of(outcome).map(|course| seconds(course.ended)).collect());
    let (completed, rolled_back) = (of(Outcome::Completed).count() as u64, of(Outcome::RolledBack).count() as u64);
    Ok(Repeated {
        runs: repeat,
        completed,
        rolled_back,
        other: repeat - completed - rolled_back,
        rolled_back_between: wilson(rolled_back as f64, repeat as f64),
        completed_seconds: times(Outcome::Completed),
        rolled_back_seconds: times(Outcome::RolledBack),
        failed_requests: quantiles(courses.iter().map(|course| course.requests.failed() as f64).collect()),
    })
}

/// The smallest values that are not exceeded by 10%, 50%, 90% and all.
fn quantiles(mut values: Vec<f64>) -> Option<Quantiles> {
    values.sort_by(f64::total_cmp);
    let at = |share: f64| {
        let rank = (share * values.len() as f64).ceil() as usize;
        values.get(rank.max(1) - 1).copied()
    };
    Some(Quantiles { p10: at(0.1)?, p50: at(0.5)?, p90: at(0.9)?, max: at(1.0)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values_that_were_seen() {
        let found = quantiles((1..=100).rev().map(f64::from).collect()).unwrap();
        assert_eq!(found, Quantiles { p10: 10.0, p50: 50.0, p90: 90.0, max: 100.0 });
        let one = quantiles(vec![7.0]).unwrap();
        assert_eq!((one.p10, one.max), (7.0, 7.0));
        assert_eq!(quantiles(Vec::new()), None);
    }
}
