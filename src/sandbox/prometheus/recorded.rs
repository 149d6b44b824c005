//! Series that a real Prometheus had.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::QueryError;
use super::eval::{LOOKBACK, Labels};
use super::parse::{Expr, MatchKind, Matcher, Selector, parse};
use super::series::{Series, Source, Test};

/// Selections that are remembered: queries ask for the same series again and again.
const REMEMBERED: usize = 256;

/// A series and its samples.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RecordedSeries {
    /// `__name__` among them.
    pub labels: BTreeMap<String, String>,
    /// Milliseconds since 1970, and values.
    pub samples: Vec<(i64, f64)>,
}

/// All series of a recording, in the order of their labels.
pub(super) struct Recorded {
    series: Vec<Kept>,
    /// Which of them a selector finds.
    found: Mutex<BTreeMap<String, Arc<[usize]>>>,
}

struct Kept {
    labels: Labels,
    samples: Vec<(i64, f64)>,
    /// So long after a sample there is no value if none follows. Prometheus marks the end of a series in a way that cannot be
    /// asked for, when a scrape misses it: two of its intervals are taken for that.
    hold: i64,
}

impl Recorded {
    /// Parts of one series are put together; of two samples of one instant the first stays.
    pub(super) fn new(series: Vec<RecordedSeries>) -> Self {
        let mut by_labels: BTreeMap<Labels, Vec<(i64, f64)>> = BTreeMap::new();
        for RecordedSeries { labels, samples } in series {
            by_labels.entry(labels).or_default().extend(samples);
        }
        let kept = by_labels.into_iter().map(|(labels, mut samples)| {
            if !samples.is_sorted_by(|a, b| a.0 < b.0) {
                samples.sort_by_key(|(at, _)| *at);
                samples.dedup_by_key(|(at, _)| *at);
            }
            Kept { labels, hold: hold(&samples), samples }
        });
        Self { series: kept.collect(), found: Mutex::default() }
    }

    fn found(&self, matchers: &[Matcher]) -> Result<Arc<[usize]>, QueryError> {
        let key = Selector { matchers: matchers.to_vec(), range: None, offset: 0 }.to_string();
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(indexes) = found.get(&key) {
            return Ok(indexes.clone());
        }
        let tests: Vec<Test<'_>> = matchers.iter().map(Test::of).collect::<Result<_, _>>()?;
        let fits = |kept: &Kept| tests.iter().all(|test| test.passes(&kept.labels));
        let indexes = self.series.iter().enumerate().filter(|(_, kept)| fits(kept)).map(|(index, _)| index);
        let indexes: Arc<[usize]> = indexes.collect();
        if found.len() >= REMEMBERED {
            found.clear();
        }
        found.insert(key, indexes.clone());
        Ok(indexes)
    }
}

impl Source for Recorded {
    fn select(&self, matchers: &[Matcher], from: i64, to: i64) -> Result<Vec<Series>, QueryError> {
        let found = self.found(matchers)?;
        let series = found.iter().filter_map(|index| {
            let kept = &self.series[*index];
            let first = kept.samples.partition_point(|(at, _)| *at <= from);
            let next = kept.samples.partition_point(|(at, _)| *at <= to);
            let samples = kept.samples.get(first..next).filter(|samples| !samples.is_empty())?;
            let (last, _) = *samples.last()?;
            let goes_on = kept.samples.get(next).is_some_and(|(at, _)| *at - last <= kept.hold);
            let ended = (!goes_on).then_some(last.saturating_add(kept.hold));
            Some(Series { labels: kept.labels.clone(), samples: samples.to_vec(), ended })
        });
        Ok(series.collect())
    }
}

/// Twice the usual distance of two samples.
fn hold(samples: &[(i64, f64)]) -> i64 {
    let mut distances: Vec<i64> = samples.windows(2).map(|pair| pair[1].0.saturating_sub(pair[0].0)).collect();
    let middle = distances.len() / 2;
    if distances.is_empty() {
        return LOOKBACK;
    }
    let (_, usual, _) = distances.select_nth_unstable_by(middle, Ord::cmp);
    usual.saturating_mul(2).min(LOOKBACK)
}

/// Whether every series that the second selector finds is one that the first finds, as far as their words tell.
///
/// # Errors
/// One of them is no selector.
pub fn covers(wide: &str, narrow: &str) -> Result<bool, QueryError> {
    let (wide, narrow) = (matchers(wide)?, matchers(narrow)?);
    for matcher in &wide {
        if narrow.contains(matcher) {
            continue;
        }
        let test = Test::of(matcher)?;
        let exact = |it: &&Matcher| it.kind == MatchKind::Equal && it.label == matcher.label;
        let implied =
            narrow.iter().find(exact).is_some_and(|it| test.passes(&[(it.label.clone(), it.value.clone())].into()));
        if !implied {
            return Ok(false);
        }
    }
    Ok(true)
}

fn matchers(selector: &str) -> Result<Vec<Matcher>, QueryError> {
    match parse(selector)? {
        Expr::Selector(Selector { matchers, range: None, offset: 0 }) => Ok(matchers),
        _ => Err(QueryError::bad_data(format!("{selector} is no selector of series"))),
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use serde_json::{Value, json};

    use super::*;
    use crate::sandbox::prometheus::{Prometheus, Selected, selected};

    fn series(labels: &[(&str, &str)], samples: &[(i64, f64)]) -> RecordedSeries {
        let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        RecordedSeries { labels, samples: samples.iter().map(|(at, value)| (at * 1000, *value)).collect() }
    }

    fn asked(prometheus: &Prometheus, query: &str, at: i64) -> Value {
        let answer = prometheus.query(query, Timestamp::from_second(at).unwrap()).unwrap();
        let result = answer["data"]["result"].as_array().unwrap().clone();
        result.iter().map(|sample| sample["value"][1].clone()).collect()
    }

    #[tokio::test]
    async fn what_was_recorded_is_answered() {
        let counter = |pod: &str, samples: &[(i64, f64)]| series(&[("__name__", "hits"), ("pod", pod)], samples);
        // Given in two parts, and out of order.
        let prometheus = Prometheus::recorded(vec![
            counter("a", &[(60, 40.0), (75, 50.0), (90, 60.0), (900, 5.0), (915, 5.0)]),
            counter("a", &[(0, 0.0), (15, 10.0), (30, 20.0), (45, 30.0), (60, 41.0)]),
            counter("b", &[(0, 0.0), (15, 0.0)]),
        ]);
        for (query, at, expected) in [
            ("hits", 0, json!(["0", "0"])),
            ("hits{pod='a'}", 60, json!(["40"])),
            ("hits", 44, json!(["20", "0"])),
            // The second series ended with two missing scrapes, and the first paused.
            ("hits", 46, json!(["30"])),
            ("hits", 130, json!([])),
            ("hits", 1000, json!([])),
            ("sum(rate(hits[1m]))", 60, json!(["0.6666666666666666"])),
            ("count_over_time(hits{pod=~'a|c'}[15m])", 900, json!(["7"])),
            ("hits{pod!='a'}", 20, json!(["0"])),
            ("misses", 20, json!([])),
        ] {
            assert_eq!(asked(&prometheus, query, at), expected, "{query} at {at}");
        }
    }

    #[test]
    fn a_query_says_what_it_looks_at() {
        let of = |query: &str| -> Vec<(String, i64)> {
            let found = selected(query).unwrap().into_iter();
            found.map(|Selected { selector, reach }| (selector, reach / 1000)).collect()
        };
        assert_eq!(
            of("sum(rate(hits{code=~'5..'}[2m] offset 1m)) / sum(rate(hits[2m])) > bool up"),
            [("hits{code=~\"5..\"}".to_owned(), 180), ("hits".to_owned(), 120), ("up".to_owned(), 300)]
        );
        assert_eq!(of("{job='a\\\\b\"',__name__=~'x.+'}")[0].0, "{job=\"a\\\\b\\\"\",__name__=~\"x.+\"}");
        assert!(selected("max_over_time(rate(hits[1m])[5m:])").unwrap_err().message.contains("a subquery"));
        assert!(selected("rate(").is_err());
    }

    #[test]
    fn a_wider_selector_covers_a_narrower_one() {
        for (wide, narrow, covered) in [
            ("hits", "hits{code='500'}", true),
            ("hits{code='500'}", "hits", false),
            ("hits{a='1'}", "hits{b='2',a='1'}", true),
            ("hits{code=~'5..'}", "hits{code='503'}", true),
            ("hits{code=~'5..'}", "hits{code='403'}", false),
            ("hits{code=~'5..'}", "hits{code=~'50.'}", false),
            ("{__name__=~'hits|misses'}", "misses", true),
            ("misses", "hits", false),
        ] {
            assert_eq!(covers(wide, narrow), Ok(covered), "{wide} {narrow}");
        }
        assert!(covers("rate(hits[1m])", "hits").is_err());
    }
}
