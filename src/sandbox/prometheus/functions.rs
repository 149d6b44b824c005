//! The functions of PromQL.

use std::collections::BTreeMap;

use super::QueryError;
use super::eval::{Context, Labels, Sample, Worth};
use super::parse::{Expr, MatchKind};
use super::series::Series;

pub(super) fn call(context: &Context<'_>, name: &str, args: &[Expr]) -> Result<Worth, QueryError> {
    let args = Args { context, name, args };
    let seconds = |from: i64, to: i64| (to - from) as f64 / 1000.0;
    match name {
        "time" => args.count(0).map(|()| Worth::Scalar(context.at as f64 / 1000.0)),
        "vector" => {
            let value = args.scalar(0, 1)?;
            Ok(Worth::Vector(vec![Sample { labels: Labels::new(), value }]))
        }
        "scalar" => {
            let samples = args.vector(0, 1)?;
            Ok(Worth::Scalar(if let [one] = samples.as_slice() { one.value } else { f64::NAN }))
        }
        "absent" => {
            let labels = args.args.first().map(absent_labels).unwrap_or_default();
            let samples = args.vector(0, 1)?;
            let absent = samples.is_empty().then_some(Sample { labels, value: 1.0 });
            Ok(Worth::Vector(absent.into_iter().collect()))
        }
        "rate" => args.over_time(|series, from, to| Some(extrapolated(series, from, to, true)? / seconds(from, to))),
        "increase" => args.over_time(|series, from, to| extrapolated(series, from, to, true)),
        "delta" => args.over_time(|series, from, to| extrapolated(series, from, to, false)),
        "irate" => args.over_time(|series, _, _| {
            let [.., (before, first), (at, last)] = series.samples.as_slice() else { return None };
            // A counter that went down began anew.
            let grown = if last < first { *last } else { last - first };
            Some(grown / seconds(*before, *at))
        }),
        "sum_over_time" => args.over_time(|series, _, _| Some(values(series).sum())),
        "avg_over_time" => {
            args.over_time(|series, _, _| Some(values(series).sum::<f64>() / series.samples.len() as f64))
        }
        "max_over_time" => args.over_time(|series, _, _| values(series).reduce(f64::max)),
        "min_over_time" => args.over_time(|series, _, _| values(series).reduce(f64::min)),
        "count_over_time" => args.over_time(|series, _, _| Some(series.samples.len() as f64)),
        "last_over_time" => args.over_time(|series, _, _| values(series).last()),
        "clamp_max" => {
            let max = args.scalar(1, 2)?;
            Ok(Worth::Vector(each(args.vector(0, 2)?, |value| clamp(value, f64::NEG_INFINITY, max))))
        }
        "clamp_min" => {
            let min = args.scalar(1, 2)?;
            Ok(Worth::Vector(each(args.vector(0, 2)?, |value| clamp(value, min, f64::INFINITY))))
        }
        "clamp" => {
            let (min, max) = (args.scalar(1, 3)?, args.scalar(2, 3)?);
            Ok(Worth::Vector(each(args.vector(0, 3)?, |value| clamp(value, min, max))))
        }
        "abs" => args.map(f64::abs),
        "ceil" => args.map(f64::ceil),
        "floor" => args.map(f64::floor),
        "round" => args.map(|value| (value + 0.5).floor()),
        "sqrt" => args.map(f64::sqrt),
        "exp" => args.map(f64::exp),
        "ln" => args.map(f64::ln),
        "log2" => args.map(f64::log2),
        "log10" => args.map(f64::log10),
        "histogram_quantile" => {
            let q = args.scalar(0, 2)?;
            Ok(Worth::Vector(histogram_quantile(q, args.vector(1, 2)?)))
        }
        other => Err(QueryError::syntax(format!(
            "unknown function with name {other:?}, or one that the sandbox does not have"
        ))),
    }
}

/// Applies a function to each value. The result is no longer the metric that it was.
pub(super) fn each(samples: Vec<Sample>, function: impl Fn(f64) -> f64) -> Vec<Sample> {
    let apply = |mut sample: Sample| {
        sample.labels.remove("__name__");
        Sample { value: function(sample.value), ..sample }
    };
    samples.into_iter().map(apply).collect()
}

struct Args<'a> {
    context: &'a Context<'a>,
    name: &'a str,
    args: &'a [Expr],
}

impl Args<'_> {
    fn count(&self, wanted: usize) -> Result<(), QueryError> {
        if self.args.len() == wanted {
            return Ok(());
        }
        let message = format!("expected {wanted} argument(s) in call to {:?}, got {}", self.name, self.args.len());
        Err(QueryError::syntax(message))
    }

    fn scalar(&self, index: usize, of: usize) -> Result<f64, QueryError> {
        self.count(of)?;
        match self.context.eval(&self.args[index])? {
            Worth::Scalar(number) => Ok(number),
            other => Err(self.mistyped("scalar", &other)),
        }
    }

    fn vector(&self, index: usize, of: usize) -> Result<Vec<Sample>, QueryError> {
        self.count(of)?;
        match self.context.eval(&self.args[index])? {
            Worth::Vector(samples) => Ok(samples),
            other => Err(self.mistyped("instant vector", &other)),
        }
    }

    fn map(&self, function: impl Fn(f64) -> f64) -> Result<Worth, QueryError> {
        Ok(Worth::Vector(each(self.vector(0, 1)?, function)))
    }

    fn over_time(&self, function: impl Fn(&Series, i64, i64) -> Option<f64>) -> Result<Worth, QueryError> {
        self.count(1)?;
        let (series, from, to) = match self.context.eval(&self.args[0])? {
            Worth::Matrix(series, from, to) => (series, from, to),
            other => return Err(self.mistyped("range vector", &other)),
        };
        let samples = series.into_iter().filter_map(|series| {
            let value = function(&series, from, to)?;
            let mut labels = series.labels;
            labels.remove("__name__");
            Some(Sample { labels, value })
        });
        Ok(Worth::Vector(samples.collect()))
    }

    fn mistyped(&self, wanted: &str, found: &Worth) -> QueryError {
        QueryError::mistyped(&format!("call to function {:?}", self.name), wanted, found.kind())
    }
}

fn values(series: &Series) -> impl Iterator<Item = f64> {
    series.samples.iter().map(|(_, value)| *value)
}

fn clamp(value: f64, min: f64, max: f64) -> f64 {
    if value.is_nan() { value } else { value.min(max).max(min) }
}

/// The growth over the whole range, from the samples in it: where these begin and end near the range's ends, they are
/// taken to go on at the same pace up to them, else half a sample's distance further; a counter not below zero.
fn extrapolated(series: &Series, from: i64, to: i64, counter: bool) -> Option<f64> {
    let samples = &series.samples;
    let ((first_at, first), (last_at, last)) = (*samples.first()?, *samples.last()?);
    if samples.len() < 2 {
        return None;
    }
    let mut growth = last - first;
    if counter {
        let resets = samples.windows(2).filter(|pair| pair[1].1 < pair[0].1);
        growth += resets.map(|pair| pair[0].1).sum::<f64>();
    }
    let sampled = (last_at - first_at) as f64;
    let distance = sampled / (samples.len() - 1) as f64;
    let reach = |gap: i64| if gap as f64 >= distance * 1.1 { distance / 2.0 } else { gap as f64 };
    let mut before = reach(first_at - from);
    if counter && growth > 0.0 && first >= 0.0 {
        before = before.min(sampled * first / growth);
    }
    Some(growth * (sampled + before + reach(to - last_at)) / sampled)
}

/// The labels that an absent series would have: those that its selector asks for exactly.
fn absent_labels(expr: &Expr) -> Labels {
    let Expr::Selector(selector) = expr else { return Labels::new() };
    let exact = selector.matchers.iter().filter(|it| it.kind == MatchKind::Equal && it.label != "__name__");
    exact.map(|matcher| (matcher.label.clone(), matcher.value.clone())).collect()
}

fn histogram_quantile(q: f64, samples: Vec<Sample>) -> Vec<Sample> {
    let mut histograms: BTreeMap<Labels, Vec<(f64, f64)>> = BTreeMap::new();
    for Sample { mut labels, value } in samples {
        let bound = labels.remove("le").and_then(|bound| bound.trim_start_matches('+').parse::<f64>().ok());
        let Some(bound) = bound else { continue };
        labels.remove("__name__");
        histograms.entry(labels).or_default().push((bound, value));
    }
    histograms.into_iter().map(|(labels, buckets)| Sample { labels, value: quantile(q, buckets) }).collect()
}

/// A quantile of a histogram of cumulative counts, interpolated within its bucket.
fn quantile(q: f64, mut buckets: Vec<(f64, f64)>) -> f64 {
    buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
    let total = match buckets.last() {
        Some((bound, total)) if *bound == f64::INFINITY && buckets.len() >= 2 => *total,
        _ => return f64::NAN,
    };
    match q {
        q if q.is_nan() || total == 0.0 || total.is_nan() => return f64::NAN,
        q if q < 0.0 => return f64::NEG_INFINITY,
        q if q > 1.0 => return f64::INFINITY,
        _ => {}
    }
    let rank = q * total;
    let index = buckets.iter().position(|(_, count)| *count >= rank).unwrap_or(buckets.len() - 1);
    if index == buckets.len() - 1 {
        return buckets[index - 1].0;
    }
    let (floor, below) = index.checked_sub(1).map_or((0.0, 0.0), |before| buckets[before]);
    let (bound, count) = buckets[index];
    if count <= below { bound } else { floor + (bound - floor) * (rank - below) / (count - below) }
}
