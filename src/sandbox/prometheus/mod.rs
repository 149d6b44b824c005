//! A Prometheus that has scraped the sandbox's gateways and pods: PromQL about the recorded requests.
//!
//! [`Prometheus::query`] evaluates a query; [`Prometheus::serve`] offers the same under Prometheus' HTTP API. The metrics
//! are those that ingress-nginx, Traefik, Istio and usual client libraries export. Of PromQL there are selectors with
//! ranges and offsets, all operators but many-to-one matching, the aggregations `sum`, `avg`, `max`, `min` and `count`, and
//! the functions that judge requests; what is not there is refused by name.
//!
//! [`Prometheus::recorded`] answers queries about series that a real Prometheus had.

mod eval;
mod functions;
mod known;
mod parse;
mod recorded;
mod series;
mod serve;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

pub use known::Examined;
pub use parse::{Selected, selected};
pub use recorded::{RecordedSeries, covers};
pub use serve::PrometheusServing;

use super::traffic::Record;
use crate::clock::Clock;
use eval::{Context, Worth};
use recorded::Recorded;
use series::{Scraped, Source};

/// The most points of one series that a range query may ask for, as in Prometheus.
const MOST_POINTS: i64 = 11_000;

/// A Prometheus. Clones are handles on the same one.
#[derive(Clone)]
pub struct Prometheus {
    shared: Arc<Shared>,
}

struct Shared {
    source: Box<dyn Source>,
    clock: Clock,
    fault: Mutex<PrometheusFault>,
}

/// What is wrong with a Prometheus.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum PrometheusFault {
    /// Nothing.
    #[default]
    None,
    /// It breaks every connection.
    Down,
    /// It takes this long for an answer.
    Slow(Duration),
    /// It answers with this status code.
    Code(u16),
    /// It has no series.
    Empty,
    /// Every value is NaN.
    NotANumber,
    /// Its newest sample is this old.
    Late(Duration),
}

/// Why a query has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct QueryError {
    /// `bad_data` or `execution`.
    pub kind: &'static str,
    /// What is wrong, in Prometheus' words where it has any.
    pub message: String,
}

impl Prometheus {
    pub(super) fn new(
        record: Arc<Mutex<Record>>,
        clock: Clock,
        scrape_interval: Duration,
        catch_up: Box<dyn Fn() + Send + Sync>,
    ) -> Self {
        let scrape_interval = i64::try_from(scrape_interval.as_millis()).unwrap_or(i64::MAX).max(1);
        Self::over(Box::new(Scraped { record, scrape_interval, catch_up }), clock)
    }

    /// A Prometheus that has these series and gets no more.
    pub fn recorded(series: Vec<RecordedSeries>) -> Self {
        // All that there is to come has come.
        Self::over(Box::new(Recorded::new(series)), Clock::starting_at(Timestamp::MAX))
    }

    fn over(source: Box<dyn Source>, clock: Clock) -> Self {
        Self { shared: Arc::new(Shared { source, clock, fault: Mutex::default() }) }
    }

    /// Lets something go wrong from now on. All faults are seen over HTTP; [`Prometheus::query`] sees those of the data.
    pub fn set_fault(&self, fault: PrometheusFault) {
        *self.shared.fault.lock().unwrap_or_else(PoisonError::into_inner) = fault;
    }

    fn fault(&self) -> PrometheusFault {
        self.shared.fault.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The answer of `/api/v1/query` at an instant.
    ///
    /// # Errors
    /// The query cannot be read, has the wrong types, or asks for what the sandbox does not have.
    pub fn query(&self, query: &str, at: Timestamp) -> Result<Value, QueryError> {
        let expr = parse::parse(query)?;
        let at = at.as_millisecond();
        let time = at as f64 / 1000.0;
        let (kind, result) = match self.eval(&expr, at)? {
            Worth::Scalar(number) => ("scalar", json!([time, text(number)])),
            Worth::Text(text) => ("string", json!([time, text])),
            Worth::Vector(samples) => {
                let samples = samples.iter().map(|it| json!({"metric": it.labels, "value": [time, text(it.value)]}));
                ("vector", samples.collect())
            }
            Worth::Matrix(series, ..) => {
                let series = series.iter().map(|series| {
                    let values = series.samples.iter().map(|(at, value)| json!([*at as f64 / 1000.0, text(*value)]));
                    json!({"metric": series.labels, "values": values.collect::<Value>()})
                });
                ("matrix", series.collect())
            }
        };
        Ok(json!({"status": "success", "data": {"resultType": kind, "result": result}}))
    }

    /// The answer of `/api/v1/query_range`: the query at each step from `start` to `end`.
    ///
    /// # Errors
    /// As [`Prometheus::query`], and when the range is backwards, has no step or more than 11,000.
    pub fn query_range(
        &self,
        query: &str,
        start: Timestamp,
        end: Timestamp,
        step: Duration,
    ) -> Result<Value, QueryError> {
        let expr = parse::parse(query)?;
        let (start, end) = (start.as_millisecond(), end.as_millisecond());
        let step = i64::try_from(step.as_millis()).unwrap_or(i64::MAX);
        if end < start {
            return Err(QueryError::bad_data("invalid parameter \"end\": end timestamp must not be before start time"));
        }
        if step == 0 {
            let message = "invalid parameter \"step\": zero or negative query resolution step widths are not accepted. Try a positive integer";
            return Err(QueryError::bad_data(message));
        }
        if (end - start) / step > MOST_POINTS {
            let message = "exceeded maximum resolution of 11,000 points per timeseries. Try decreasing the query resolution (?step=XX)";
            return Err(QueryError::bad_data(message));
        }
        let mut series: BTreeMap<eval::Labels, Vec<Value>> = BTreeMap::new();
        for index in 0..=(end - start) / step {
            let at = start + index * step;
            let samples = match self.eval(&expr, at)? {
                Worth::Scalar(value) => vec![eval::Sample { labels: eval::Labels::new(), value }],
                Worth::Vector(samples) => samples,
                other => return Err(QueryError::mistyped("a range query", "scalar or instant vector", other.kind())),
            };
            for sample in samples {
                let point = json!([at as f64 / 1000.0, text(sample.value)]);
                series.entry(sample.labels).or_default().push(point);
            }
        }
        let result = series.into_iter().map(|(labels, values)| json!({"metric": labels, "values": values}));
        let result: Value = result.collect();
        Ok(json!({"status": "success", "data": {"resultType": "matrix", "result": result}}))
    }

    fn eval(&self, expr: &parse::Expr, at: i64) -> Result<Worth, QueryError> {
        let fault = self.fault();
        let newest = match &fault {
            PrometheusFault::Late(by) => {
                let by = SignedDuration::try_from(*by).unwrap_or(SignedDuration::MAX);
                self.shared.clock.now().checked_sub(by).unwrap_or(Timestamp::MIN).as_millisecond()
            }
            PrometheusFault::Empty => i64::MIN,
            _ => self.shared.clock.now().as_millisecond(),
        };
        self.shared.source.catch_up();
        let context = Context { source: self.shared.source.as_ref(), at, newest };
        let worth = context.eval(expr)?;
        Ok(match worth {
            Worth::Vector(samples) if fault == PrometheusFault::NotANumber => {
                let spoil = |sample| eval::Sample { value: f64::NAN, ..sample };
                Worth::Vector(samples.into_iter().map(spoil).collect())
            }
            worth => worth,
        })
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

impl QueryError {
    fn bad_data(message: impl Into<String>) -> Self {
        Self { kind: "bad_data", message: message.into() }
    }

    fn syntax(message: String) -> Self {
        Self::bad_data(format!("invalid parameter \"query\": parse error: {message}"))
    }

    fn unsupported(what: &str) -> Self {
        Self::syntax(format!("{what} is not supported by the sandbox"))
    }

    fn mistyped(place: &str, wanted: &str, found: &str) -> Self {
        Self::syntax(format!("expected type {wanted} in {place}, got {found}"))
    }

    fn execution(message: String) -> Self {
        Self { kind: "execution", message }
    }
}
