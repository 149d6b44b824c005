//! What Prometheus knew, in memory: the answers that it gave to the queries of a template, and the samples of series.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::subject::Subject;
use crate::cli::in_process::{Question, When, respond};
use crate::providers::Shape;
use crate::providers::http::{HttpError, Request, Response, Transport};
use crate::sandbox::prometheus::{Prometheus, QueryError, RecordedSeries, Selected, covers, selected};

/// Of a series in one answer, as in Prometheus.
const MOST_POINTS: i64 = 11_000;

/// What is known of a stretch of time.
pub struct History {
    /// By the text of the query.
    answers: BTreeMap<String, Answers>,
    /// The series of all selectors.
    recorded: Prometheus,
    coverage: Coverage,
    /// Queries with answers that can be computed from series as well.
    computed: BTreeSet<String>,
}

/// What Prometheus answered to a query at even times.
#[derive(Clone, Debug, PartialEq)]
pub struct Answers {
    pub shape: Shape,
    /// Milliseconds since 1970.
    pub start: i64,
    pub end: i64,
    /// Milliseconds.
    pub step: i64,
    /// Its samples are at the even times only; where there is none, the answer had no such series.
    pub series: Vec<RecordedSeries>,
}

/// The series of an answer at one instant.
type Present<'a> = Vec<(&'a BTreeMap<String, String>, f64)>;

/// Which series there are, and of what time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Coverage {
    pub selectors: Vec<String>,
    /// Milliseconds since 1970.
    pub from: i64,
    pub to: i64,
}

impl History {
    pub fn new(answers: BTreeMap<String, Answers>, series: Vec<RecordedSeries>, coverage: Coverage) -> Self {
        let computed = answers.keys().filter(|query| coverage.lacks(query, None).is_none()).cloned().collect();
        Self { answers, recorded: Prometheus::recorded(series), coverage, computed }
    }

    /// Why a query of a metric cannot be answered from `first` on; nothing if it can.
    pub fn lacks(&self, query: &str, first: Timestamp) -> Option<String> {
        let known = self.answers.get(query).is_some_and(|answers| answers.start <= first.as_millisecond());
        if known { None } else { self.coverage.lacks(query, Some(first.as_millisecond())) }
    }

    fn answer(&self, question: &Question) -> Result<Value, QueryError> {
        let missing = || bad("a time is missing".to_owned());
        match question.when {
            When::At(at) => self.at(&question.query, at.ok_or_else(missing)?),
            When::Between { start, end, step } => {
                self.between(&question.query, start.ok_or_else(missing)?, end.ok_or_else(missing)?, step)
            }
        }
    }

    fn at(&self, query: &str, at: Timestamp) -> Result<Value, QueryError> {
        let millis = at.as_millisecond();
        let Some(answers) = self.answers(query, &[millis]) else { return self.recorded.query(query, at) };
        let present = answers.at(millis)?;
        let time = millis as f64 / 1000.0;
        let data = match answers.shape {
            Shape::Scalar => {
                let value = present.first().map_or(f64::NAN, |(_, value)| *value);
                json!({"resultType": "scalar", "result": [time, text(value)]})
            }
            _ => {
                let result =
                    present.iter().map(|(labels, value)| json!({"metric": labels, "value": [time, text(*value)]}));
                json!({"resultType": "vector", "result": result.collect::<Value>()})
            }
        };
        Ok(json!({"status": "success", "data": data}))
    }

    fn between(&self, query: &str, start: Timestamp, end: Timestamp, step: Duration) -> Result<Value, QueryError> {
        let (from, to) = (start.as_millisecond(), end.as_millisecond());
        let millis = i64::try_from(step.as_millis()).unwrap_or(i64::MAX).max(1);
        let Some(answers) = self.answers(query, &[from, from.saturating_add(millis)]) else {
            return self.recorded.query_range(query, start, end, step);
        };
        if to.saturating_sub(from) / millis > MOST_POINTS {
            return Err(bad("exceeded maximum resolution of 11,000 points per timeseries".to_owned()));
        }
        let mut series: BTreeMap<&BTreeMap<String, String>, Vec<Value>> = BTreeMap::new();
        let mut at = from;
        while at <= to {
            for (labels, value) in answers.at(at)? {
                series.entry(labels).or_default().push(json!([at as f64 / 1000.0, text(value)]));
            }
            at = at.saturating_add(millis);
        }
        let result = series.into_iter().map(|(labels, values)| json!({"metric": labels, "values": values}));
        Ok(json!({"status": "success", "data": {"resultType": "matrix", "result": result.collect::<Value>()}}))
    }

    /// The answers to a query that Prometheus gave itself, unless what it did not answer at these times can be computed.
    fn answers(&self, query: &str, times: &[i64]) -> Option<&Answers> {
        let answers = self.answers.get(query)?;
        let even = times.iter().all(|at| (at - answers.start) % answers.step == 0);
        (even || !self.computed.contains(query)).then_some(answers)
    }
}

impl Answers {
    /// The values at the last even time.
    fn at(&self, at: i64) -> Result<Present<'_>, QueryError> {
        if at < self.start || at > self.end {
            return Err(bad(format!("the history goes from {} to {}: there is nothing at {at}", self.start, self.end)));
        }
        let even = at - (at - self.start) % self.step;
        let values = self.series.iter().filter_map(|series| {
            let index = series.samples.binary_search_by_key(&even, |(at, _)| *at).ok()?;
            Some((&series.labels, series.samples[index].1))
        });
        Ok(values.collect())
    }
}

impl Coverage {
    /// Why a query cannot be computed from the series, asked from `first` on (milliseconds).
    fn lacks(&self, query: &str, first: Option<i64>) -> Option<String> {
        let looked_at = match selected(query) {
            Ok(looked_at) => looked_at,
            Err(error) => return Some(format!("it cannot be computed from series: {error}")),
        };
        for Selected { selector, reach } in looked_at {
            if !self.selectors.iter().any(|wide| covers(wide, &selector).unwrap_or(false)) {
                return Some(format!("the series {selector} are not among those that were recorded"));
            }
            if let Some(first) = first.filter(|first| first - reach < self.from) {
                let (reach, past) = (reach / 1000, ((first - self.from) / 1000).max(0));
                return Some(format!("it looks back {reach} s, and only {past} s were recorded before it is asked"));
            }
        }
        None
    }
}

/// Leaves out selectors whose series another one finds.
pub fn widest(mut selectors: Vec<String>) -> Vec<String> {
    selectors.sort();
    selectors.dedup();
    let covered = |index: usize, selector: &str| {
        selectors.iter().enumerate().any(|(other, wide)| {
            // Of two that cover each other the first stays.
            let wider = other != index && covers(wide, selector).unwrap_or(false);
            wider && (other < index || !covers(selector, wide).unwrap_or(false))
        })
    };
    let kept = selectors.iter().enumerate().filter(|(index, selector)| !covered(*index, selector));
    kept.map(|(_, selector)| selector.clone()).collect()
}

impl Subject {
    /// Why a history cannot answer what the template asks, for a run that starts at an instant.
    ///
    /// # Errors
    /// The words name the metric and its query.
    pub fn answerable(&self, history: &History, start: Timestamp) -> anyhow::Result<()> {
        for query in self.queries()? {
            let first = start.checked_sub(query.reach).unwrap_or(start);
            if let Some(why) = history.lacks(&query.text, first) {
                let text = query.text.split_whitespace().collect::<Vec<_>>().join(" ");
                anyhow::bail!("metric {} asks {text}: {why}. Record it anew with this template", query.metric);
            }
        }
        for selector in self.counters() {
            if !history.coverage.selectors.iter().any(|wide| covers(wide, &selector).unwrap_or(false)) {
                anyhow::bail!(
                    "the series {selector} are not among those that were recorded. Record it anew with this template"
                );
            }
        }
        Ok(())
    }
}

/// The way to a history.
pub struct Remembered(pub Arc<History>);

impl Transport for Remembered {
    fn send(&self, request: Request) -> BoxFuture<'_, Result<Response, HttpError>> {
        let answer = self.0.answer(&Question::of(&request));
        async move { Ok(respond(answer)) }.boxed()
    }
}

/// A number as Prometheus prints it.
fn text(number: f64) -> String {
    match number {
        f64::INFINITY => "+Inf".to_owned(),
        f64::NEG_INFINITY => "-Inf".to_owned(),
        number => number.to_string(),
    }
}

fn bad(message: String) -> QueryError {
    QueryError { kind: "execution", message }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(name: &str, samples: &[(i64, f64)]) -> RecordedSeries {
        let labels = [("__name__".to_owned(), name.to_owned())].into();
        RecordedSeries { labels, samples: samples.iter().map(|(at, value)| (at * 1000, *value)).collect() }
    }

    fn history() -> History {
        let answers = |shape, samples: &[(i64, f64)]| Answers {
            shape,
            start: 0,
            end: 100_000,
            step: 10_000,
            series: vec![series("it", samples)],
        };
        let known = [
            ("sum(hits)", answers(Shape::Vector, &[(0, 5.0), (10, 6.0), (30, f64::NAN)])),
            ("scalar(topk(1, hits))", answers(Shape::Scalar, &[(0, 1.0), (10, f64::INFINITY)])),
        ];
        let known = known.into_iter().map(|(query, answers)| (query.to_owned(), answers)).collect();
        let coverage = Coverage { selectors: vec!["hits".to_owned()], from: -60_000, to: 100_000 };
        History::new(known, vec![series("hits", &[(0, 1.0), (5, 2.0), (10, 3.0)])], coverage)
    }

    fn at(history: &History, query: &str, at: i64) -> String {
        let answer = history.at(query, Timestamp::from_millisecond(at).unwrap());
        answer.map_or_else(|error| error.message, |answer| answer["data"]["result"].to_string())
    }

    #[tokio::test]
    async fn what_prometheus_answered_counts_before_what_is_computed() {
        let history = history();
        let one =
            |value: &str, at: &str| format!("[{{\"metric\":{{\"__name__\":\"it\"}},\"value\":[{at},\"{value}\"]}}]");
        assert_eq!(at(&history, "sum(hits)", 10_000), one("6", "10.0"));
        // Nothing was there, or what was there is no number.
        assert_eq!(at(&history, "sum(hits)", 20_000), "[]");
        assert_eq!(at(&history, "sum(hits)", 30_000), one("NaN", "30.0"));
        // At odd times it is computed, if it can be; otherwise the last answer counts.
        assert_eq!(at(&history, "sum(hits)", 7_000), "[{\"metric\":{},\"value\":[7.0,\"2\"]}]");
        assert_eq!(at(&history, "scalar(topk(1, hits))", 17_000), "[17.0,\"+Inf\"]");
        assert_eq!(at(&history, "count(hits)", 7_000), "[{\"metric\":{},\"value\":[7.0,\"1\"]}]");
        assert!(at(&history, "scalar(topk(1, hits))", 101_000).contains("there is nothing at 101000"));
        assert!(at(&history, "topk(2, hits)", 10_000).contains("topk is not supported"));
        let range = |start: i64, end: i64| {
            let instant = |millis| Timestamp::from_millisecond(millis).unwrap();
            let step = Duration::from_secs(10);
            history.between("sum(hits)", instant(start), instant(end), step).unwrap()["data"]["result"].to_string()
        };
        assert_eq!(range(0, 20_000), "[{\"metric\":{\"__name__\":\"it\"},\"values\":[[0.0,\"5\"],[10.0,\"6\"]]}]");
        assert_eq!(range(5_000, 16_000), "[{\"metric\":{},\"values\":[[5.0,\"2\"],[15.0,\"3\"]]}]");
    }

    #[tokio::test]
    async fn what_cannot_be_answered_says_why() {
        let history = history();
        let lacks = |query: &str, first: i64| history.lacks(query, Timestamp::from_second(first).unwrap());
        assert_eq!(lacks("scalar(topk(1, hits))", 0), None);
        assert_eq!(lacks("rate(hits{code='5'}[1m])", 0), None);
        assert!(lacks("rate(misses[1m])", 0).unwrap().contains("the series misses are not among"));
        let why = lacks("rate(hits[5m])", 60).unwrap();
        assert_eq!(why, "it looks back 300 s, and only 120 s were recorded before it is asked");
        assert!(lacks("topk(2, hits)", 0).unwrap().contains("topk is not supported"));
    }

    #[test]
    fn of_selectors_the_widest_are_asked_for() {
        let of = |selectors: &[&str]| widest(selectors.iter().map(|it| (*it).to_owned()).collect());
        assert_eq!(of(&["hits{a='1'}", "hits", "misses{a='1'}"]), ["hits", "misses{a='1'}"]);
        assert_eq!(of(&["hits{a='1',b='2'}", "hits{b='2',a='1'}"]).len(), 1);
        assert_eq!(of(&["no selector(", "hits"]), ["hits", "no selector("]);
    }
}
