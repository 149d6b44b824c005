//! What a metric's `compare` block means: the settings of the judge, and the counters that it is fed from.

mod sources;

use super::judge::Settings;
use super::judge::harm::Margin;
use super::judge::words::Words;
use crate::api::analysis::{AnalysisPhase, Metric};
use crate::api::compare::{Compare, Counters};
use crate::api::duration::GoDuration;
use crate::api::field_error::{FieldError, FieldPath};
use crate::api::int_or_percent::IntOrString;

pub use self::sources::{Source, Version, Versions};

const MARGIN: f64 = 0.25;
const CONFIDENCE: f64 = 0.99;
/// Seconds.
const HORIZON: f64 = 1800.0;
/// Seconds without which caches are cold and connections still move.
const WARM_UP: f64 = 60.0;
/// What a canary must be better than to be called safe, unless its margin is wider.
const SAFE_RATIO: f64 = 1.5;
const SAFE_ABSOLUTE: f64 = 0.001;
/// The chance of calling a canary safe that is not.
const BETA: f64 = 0.05;

/// A `compare` block that makes sense.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    /// The weight is not known here.
    pub settings: Settings,
    /// The metric's phase when the horizon comes without a verdict.
    pub undecided: AnalysisPhase,
    /// How many failures come together, where the user says so.
    pub dispersion: Option<f64>,
    pub words: Words,
    counts: Counts,
}

#[derive(Clone, Debug, PartialEq)]
enum Counts {
    Source { source: Source, slower_than: Option<GoDuration> },
    Own { canary: Queries, stable: Queries },
}

/// Selectors of the counters of one version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Queries {
    pub total: String,
    pub judged: Judged,
}

/// Which requests are counted beside all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judged {
    Errors(String),
    Good(String),
}

impl Comparison {
    /// `metrics` is the number of compared metrics that share the errors of the analysis, this one included. `path` is the
    /// metric's.
    pub fn parse(metric: &Metric, compare: &Compare, metrics: usize, path: &FieldPath) -> Result<Self, FieldError> {
        decides_alone(metric, path)?;
        let initial_delay = seconds(metric.initial_delay.as_deref(), &path.child("initialDelay"))?;
        let path = path.child("compare");
        let (counts, words) = counts(compare, &path)?;
        let margin = share(compare.margin.as_deref(), &path.child("margin"), 0.0..=100.0)?.unwrap_or(MARGIN);
        let tolerance = share(compare.tolerance.as_deref(), &path.child("tolerance"), 0.0..=0.5)?.unwrap_or_default();
        let confidence =
            share(compare.confidence.as_deref(), &path.child("confidence"), 0.5..=0.999_999)?.unwrap_or(CONFIDENCE);
        let horizon = seconds(compare.horizon.as_deref(), &path.child("horizon"))?.unwrap_or(HORIZON);
        if horizon < 60.0 {
            let value = compare.horizon.as_deref().unwrap_or_default();
            return Err(FieldError::invalid(path.child("horizon"), value, "must be at least 1m"));
        }
        let invalid = || FieldError::invalid(path.child("margin"), compare.margin.clone(), "must be from 0% to 10000%");
        let ratio = 1.0 + margin;
        let settings = Settings {
            margin: Margin::new(ratio, tolerance).ok_or_else(invalid)?,
            safe: Margin::new(ratio.max(SAFE_RATIO), tolerance.max(SAFE_ABSOLUTE)).ok_or_else(invalid)?,
            alpha: 1.0 - confidence,
            beta: BETA,
            metrics: metrics.max(1),
            horizon,
            warm_up: initial_delay.unwrap_or(WARM_UP),
            weight: None,
            early: compare.promote_early,
        };
        let settings = Settings { horizon: settings.horizon + settings.warm_up, ..settings };
        let undecided = match compare.undecided.as_deref().unwrap_or_default() {
            "" | "Inconclusive" => AnalysisPhase::Inconclusive,
            "Successful" => AnalysisPhase::Successful,
            "Failed" => AnalysisPhase::Failed,
            other => {
                let allowed = ["Inconclusive", "Successful", "Failed"];
                return Err(FieldError::not_supported(path.child("undecided"), other, allowed));
            }
        };
        let dispersion = dispersion(compare.dispersion.as_ref(), &path.child("dispersion"))?;
        Ok(Self { settings, undecided, dispersion, words, counts })
    }

    /// The counters of the canary and of stable.
    pub fn queries(&self, versions: &Versions) -> (Queries, Queries) {
        match &self.counts {
            Counts::Own { canary, stable } => (canary.clone(), stable.clone()),
            Counts::Source { source, slower_than } => {
                let of = |version| source.queries(versions, version, *slower_than);
                (of(Version::Canary), of(Version::Stable))
            }
        }
    }
}

/// Refuses what would have a say beside the judge.
fn decides_alone(metric: &Metric, path: &FieldPath) -> Result<(), FieldError> {
    let fields = [
        ("count", metric.count.is_some()),
        ("successCondition", metric.success_condition.is_some()),
        ("failureCondition", metric.failure_condition.is_some()),
        ("failureLimit", metric.failure_limit.is_some()),
        ("inconclusiveLimit", metric.inconclusive_limit.is_some()),
        ("consecutiveSuccessLimit", metric.consecutive_success_limit.is_some()),
    ];
    if let Some((field, _)) = fields.into_iter().find(|(_, set)| *set) {
        return Err(FieldError::forbidden(
            path.child(field),
            "compare decides by itself when a metric ends and how; set compare.horizon, confidence and undecided",
        ));
    }
    let provider = path.child("provider");
    for kind in super::metric::ProviderKind::of(&metric.provider) {
        if kind != super::metric::ProviderKind::Prometheus {
            return Err(FieldError::forbidden(provider.child(kind.field()), "compare counts with prometheus only"));
        }
    }
    if let Some(prometheus) = &metric.provider.prometheus {
        let provider = provider.child("prometheus");
        for (field, set) in [("query", prometheus.query.is_some()), ("rangeQuery", prometheus.range_query.is_some())] {
            if set {
                let detail = "compare makes its own queries; name other counters in compare.canary and compare.stable";
                return Err(FieldError::forbidden(provider.child(field), detail));
            }
        }
    }
    Ok(())
}

fn counts(compare: &Compare, path: &FieldPath) -> Result<(Counts, Words), FieldError> {
    let Some(source) = compare.source.as_deref().filter(|source| !source.is_empty()) else {
        if let Some(text) = &compare.slower_than {
            let detail = "needs a source; with counters of your own, name those of a bucket in good";
            return Err(FieldError::invalid(path.child("slowerThan"), text.as_str(), detail));
        }
        let own = |counters: &Option<Counters>, field: &str| {
            let path = path.child(field);
            let Some(counters) = counters else {
                return Err(FieldError::required(path, "the version's counters; or name a source"));
            };
            queries(counters, &path)
        };
        if compare.canary.is_none() && compare.stable.is_none() {
            let detail = "one of traefik, nginx, istio, envoy, linkerd, red; or name counters in canary and stable";
            return Err(FieldError::required(path.child("source"), detail));
        }
        let (canary, stable) = (own(&compare.canary, "canary")?, own(&compare.stable, "stable")?);
        return Ok((Counts::Own { canary, stable }, Words::default()));
    };
    let Some(parsed) = Source::named(source) else {
        return Err(FieldError::not_supported(path.child("source"), source, Source::ALL.map(Source::name)));
    };
    for (field, set) in [("canary", compare.canary.is_some()), ("stable", compare.stable.is_some())] {
        if set {
            return Err(FieldError::forbidden(
                path.child(field),
                "the source has its own counters: name one or the other",
            ));
        }
    }
    let text = compare.slower_than.as_deref().filter(|text| !text.is_empty());
    let slower_than = duration(text, &path.child("slowerThan"))?;
    if let (Some(edge), Some(text)) = (slower_than, text)
        && edge <= GoDuration::ZERO
    {
        return Err(FieldError::invalid(path.child("slowerThan"), text, "must be longer than zero"));
    }
    let words = text.map(|text| Words { failed: format!("took longer than {text}") }).unwrap_or_default();
    Ok((Counts::Source { source: parsed, slower_than }, words))
}

fn queries(counters: &Counters, path: &FieldPath) -> Result<Queries, FieldError> {
    let selector = |text: &str, field: &str| {
        let path = path.child(field);
        if text.trim().is_empty() {
            return Err(FieldError::required(path, "a counter, such as http_requests_total{service=\"web\"}"));
        }
        // A label's value may hold anything; what comes before the labels is the counter's name.
        let name = text.split('{').next().unwrap_or_default();
        if name.contains(['(', '[']) || text.trim_end().ends_with([']', ')']) {
            let detail = "must be a counter without functions and ranges: how much it grew is counted for each series, so \
                          that neither resets nor new pods distort it";
            return Err(FieldError::invalid(path, text, detail));
        }
        Ok(text.trim().to_owned())
    };
    let total = selector(&counters.total, "total")?;
    let judged = match (&counters.errors, &counters.good) {
        (Some(errors), None) => Judged::Errors(selector(errors, "errors")?),
        (None, Some(good)) => Judged::Good(selector(good, "good")?),
        (None, None) => return Err(FieldError::required(path.child("errors"), "what counts as failed; or good")),
        (Some(_), Some(_)) => return Err(FieldError::forbidden(path.child("good"), "errors is set: name one of them")),
    };
    Ok(Queries { total, judged })
}

/// A share such as `0.5%`, as a part of one.
fn share(
    text: Option<&str>,
    path: &FieldPath,
    range: std::ops::RangeInclusive<f64>,
) -> Result<Option<f64>, FieldError> {
    let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(None) };
    let percent = text.strip_suffix('%').and_then(|number| number.trim().parse::<f64>().ok());
    match percent.map(|percent| percent / 100.0) {
        Some(share) if range.contains(&share) => Ok(Some(share)),
        _ => {
            let shown = |share: f64| format!("{}%", (share * 1e6).round() / 1e4);
            let detail = format!("must be a share from {} to {}", shown(*range.start()), shown(*range.end()));
            Err(FieldError::invalid(path, text, detail))
        }
    }
}

fn dispersion(value: Option<&IntOrString>, path: &FieldPath) -> Result<Option<f64>, FieldError> {
    let number = match value {
        None => return Ok(None),
        Some(IntOrString::String(text)) if text.is_empty() => return Ok(None),
        Some(IntOrString::Int(number)) => Some(f64::from(*number)),
        Some(IntOrString::String(text)) => text.parse().ok(),
    };
    match (number, value) {
        (Some(number), _) if (1.0..=50.0).contains(&number) => Ok(Some(number)),
        (_, Some(IntOrString::Int(number))) => Err(FieldError::invalid(path, *number, "must be from 1 to 50")),
        (_, Some(IntOrString::String(text))) => {
            Err(FieldError::invalid(path, text.as_str(), "must be a number from 1 to 50"))
        }
        (_, None) => Ok(None),
    }
}

fn duration(text: Option<&str>, path: &FieldPath) -> Result<Option<GoDuration>, FieldError> {
    let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(None) };
    text.parse().map(Some).map_err(|error| FieldError::invalid(path, text, format!("invalid duration: {error}")))
}

fn seconds(text: Option<&str>, path: &FieldPath) -> Result<Option<f64>, FieldError> {
    Ok(duration(text, path)?.map(|duration| duration.as_secs_f64().max(0.0)))
}

#[cfg(test)]
mod tests;
