//! What a Prometheus remembers: the values of queries over days, and the samples that were scraped.

use std::collections::BTreeMap;

use bytes::Bytes;
use jiff::Timestamp;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::{Envelope, Form, Point, Unanswered, ask, envelope, seconds};
use crate::api::providers::Prometheus as Settings;
use crate::providers::Providers;
use crate::providers::http::HttpError;

/// One server, asked about its past. Cheap to clone.
#[derive(Clone)]
pub struct Past {
    providers: Providers,
    settings: Settings,
}

/// A series of an answer with all of its labels.
#[derive(Clone, Debug, PartialEq)]
pub struct Whole {
    pub labels: BTreeMap<String, String>,
    /// Milliseconds since 1970, and values.
    pub samples: Vec<(i64, f64)>,
}

/// What an instant query answers with: `query_range` does not tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    Scalar,
    Vector,
    Matrix,
    Text,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PastError {
    /// It was too much at once, or took too long: less may do.
    #[error("{0}")]
    TooMuch(String),
    /// It is not there, or busy: later may do.
    #[error("{0}")]
    Later(String),
    /// It will not do.
    #[error("{0}")]
    Refused(String),
}

/// Series, and what the server warns of.
type Answer = Result<(Vec<Whole>, Option<String>), PastError>;

impl Past {
    /// `settings` say how to authenticate, how long an answer may take, and where it comes from unless `providers` do.
    pub fn new(providers: Providers, settings: Settings) -> Self {
        Self { providers, settings }
    }

    /// What a query yields, asked at one instant.
    ///
    /// # Errors
    /// As [`PastError`] says.
    pub async fn shape(&self, query: &str, at: Timestamp) -> Result<Shape, PastError> {
        let form = vec![("query", query.to_owned()), ("time", seconds(at))];
        Ok(self.ask(("query", form)).await?.0.shape())
    }

    /// The value of a query at each step from `start` to `end`. `step` is in milliseconds.
    ///
    /// # Errors
    /// As [`PastError`] says.
    pub async fn values(&self, query: &str, start: Timestamp, end: Timestamp, step: i64) -> Answer {
        let form = vec![
            ("query", query.to_owned()),
            ("start", seconds(start)),
            ("end", seconds(end)),
            ("step", (step as f64 / 1000.0).to_string()),
        ];
        self.matrix(("query_range", form)).await
    }

    /// The samples of series in the `window` milliseconds until `end`.
    ///
    /// # Errors
    /// As [`PastError`] says.
    pub async fn samples(&self, selector: &str, window: i64, end: Timestamp) -> Answer {
        let form = vec![("query", format!("{selector}[{window}ms]")), ("time", seconds(end))];
        self.matrix(("query", form)).await
    }

    async fn matrix(&self, question: (&str, Form)) -> Answer {
        match self.ask(question).await? {
            (Data::Matrix(series), warning) => {
                let series: Result<_, _> = series.into_iter().map(Series::whole).collect();
                Ok((series.map_err(PastError::Refused)?, warning))
            }
            (other, _) => {
                Err(PastError::Refused(format!("bad_response: the answer is a {:?} and no range", other.shape())))
            }
        }
    }

    async fn ask(&self, question: (&str, Form)) -> Result<(Data, Option<String>), PastError> {
        let services = &self.providers.0.services;
        let answer = ask(&self.settings, question, services).await.map_err(PastError::of)?;
        let (status, body) = (answer.status, answer.body);
        let read = services.aside(move || read(status, &body)).await.map_err(PastError::Refused)?;
        read.map_err(|problem| PastError::of_answer(status, problem))
    }
}

impl PastError {
    fn of(error: Unanswered) -> Self {
        let problem = error.to_string();
        match error {
            Unanswered::Http(HttpError::TooLarge { .. } | HttpError::Timeout { .. }) => Self::TooMuch(problem),
            Unanswered::Http(HttpError::Failed { .. }) => Self::Later(problem),
            Unanswered::Wrong(_) => Self::Refused(problem),
        }
    }

    fn of_answer(status: u16, problem: String) -> Self {
        let much = ["too many samples", "maximum resolution", "timed out", "too many points"];
        match status {
            _ if much.iter().any(|words| problem.contains(words)) => Self::TooMuch(problem),
            504 | 413 => Self::TooMuch(problem),
            408 | 429 | 500.. => Self::Later(problem),
            _ => Self::Refused(problem),
        }
    }
}

#[derive(Deserialize)]
#[serde(tag = "resultType", content = "result", rename_all = "lowercase")]
enum Data {
    Scalar(IgnoredAny),
    Vector(IgnoredAny),
    Matrix(Vec<Series>),
    String(IgnoredAny),
}

impl Data {
    fn shape(&self) -> Shape {
        match self {
            Self::Scalar(_) => Shape::Scalar,
            Self::Vector(_) => Shape::Vector,
            Self::Matrix(_) => Shape::Matrix,
            Self::String(_) => Shape::Text,
        }
    }
}

#[derive(Deserialize)]
struct Series {
    #[serde(default)]
    metric: BTreeMap<String, String>,
    #[serde(default)]
    values: Vec<Point>,
    histograms: Option<IgnoredAny>,
}

impl Series {
    fn whole(self) -> Result<Whole, String> {
        if self.histograms.is_some() {
            return Err("Prometheus metric type not supported: the query yields native histograms".to_owned());
        }
        let sample = |point: &Point| {
            let millis = (point.0 * 1000.0).round();
            // Beyond that lies no time that anybody can write down.
            let there = millis.abs() < 1e14;
            Ok((there.then_some(millis as i64).ok_or("bad_response: a time is none")?, point.number()?))
        };
        let samples = self.values.iter().map(sample).collect::<Result<_, String>>()?;
        Ok(Whole { labels: self.metric, samples })
    }
}

fn read(status: u16, body: &Bytes) -> Result<(Data, Option<String>), String> {
    let Envelope { data, mut warnings, .. } = envelope::<Data>(status, body)?;
    let data = data.ok_or("bad_response: the answer has no data")?;
    Ok((data, (!warnings.is_empty()).then(|| warnings.swap_remove(0))))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn answered(status: u16, body: Value) -> Result<Vec<Whole>, PastError> {
        let read = read(status, &body.to_string().into());
        let (data, _) = read.map_err(|problem| PastError::of_answer(status, problem))?;
        let Data::Matrix(series) = data else { panic!("a matrix") };
        series.into_iter().map(Series::whole).collect::<Result<_, _>>().map_err(PastError::Refused)
    }

    fn matrix(series: Value) -> Value {
        json!({"status": "success", "data": {"resultType": "matrix", "result": [series]}})
    }

    #[test]
    fn a_series_keeps_its_labels_and_odd_values() {
        let values = json!([[1_700_000_000.123, "7"], [1_700_000_015, "NaN"], [1_700_000_030, "+Inf"]]);
        let series = answered(200, matrix(json!({"metric": {"pod": "a", "code": "500"}, "values": values}))).unwrap();
        assert_eq!(series[0].labels.len(), 2);
        let times: Vec<i64> = series[0].samples.iter().map(|(at, _)| *at).collect();
        assert_eq!(times, [1_700_000_000_123, 1_700_000_015_000, 1_700_000_030_000]);
        assert!(series[0].samples[1].1.is_nan() && series[0].samples[2].1.is_infinite());
    }

    #[test]
    fn what_is_no_answer_says_whether_to_ask_again() {
        let error = |kind: &str, words: &str| json!({"status": "error", "errorType": kind, "error": words});
        for (status, body, expected) in [
            (422, error("execution", "query processing would load too many samples into memory"), "TooMuch"),
            (400, error("bad_data", "exceeded maximum resolution of 11,000 points per timeseries."), "TooMuch"),
            (503, error("timeout", "query timed out in expression evaluation"), "TooMuch"),
            (503, error("unavailable", "starting up"), "Later"),
            (429, json!("slow down"), "Later"),
            (502, json!("bad gateway"), "Later"),
            (400, error("bad_data", "parse error"), "Refused"),
            (200, json!({"anything": "else"}), "Refused"),
            (200, json!({"status": "success"}), "Refused"),
            (200, matrix(json!({"metric": {}, "values": [[1, "many"]]})), "Refused"),
            (200, matrix(json!({"metric": {}, "values": [[1e30, "1"]]})), "Refused"),
            (200, matrix(json!({"metric": {}, "histograms": [[1, {}]]})), "Refused"),
            (200, matrix(json!({"metric": {"pod": 3}, "values": []})), "Refused"),
        ] {
            let error = answered(status, body.clone()).unwrap_err();
            assert!(format!("{error:?}").starts_with(expected), "{status} {body}: {error:?}");
        }
    }
}
