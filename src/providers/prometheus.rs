//! Prometheus, and what speaks its HTTP API.
//!
//! The crate `prometheus-http-query` is not used: its answers have neither warnings nor the text of a value, times are
//! whole seconds, it reads answers of any size, and it can only go to the real network, which a simulation does not have.
//! What is left of it would be the names of a few parameters.

mod past;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::Method;
use jiff::Timestamp;
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};

use super::http::{HttpError, Request, Response, Url};
use super::{Answer, Call, Found, Provider, Reading, Services, http as bounded, oauth};
use crate::analysis::compare::{Answers, Look, Question, Sampled};
use crate::analysis::expr::{self, Value};
use crate::analysis::metric::ProviderKind;
use crate::api::analysis::Metric;
use crate::api::duration::GoDuration;
use crate::api::providers::{Prometheus as Settings, RangeQuery};

pub use past::{Past, PastError, Shape, Whole};

const TIMEOUT: Duration = Duration::from_secs(30);

pub(super) struct Prometheus;

impl Provider for Prometheus {
    fn kind(&self) -> ProviderKind {
        ProviderKind::Prometheus
    }

    fn metadata(&self, metric: &Metric) -> BTreeMap<String, String> {
        let query = metric.provider.prometheus.as_ref().and_then(|settings| settings.query.clone());
        query
            .filter(|query| !query.is_empty())
            .map(|query| BTreeMap::from([("ResolvedPrometheusQuery".to_owned(), query)]))
            .unwrap_or_default()
    }

    fn compare<'a>(&'a self, call: Call<'a>, look: &'a Look) -> BoxFuture<'a, Answer> {
        compare(call, look).boxed()
    }

    fn run<'a>(&'a self, call: Call<'a>, _number: i32) -> BoxFuture<'a, Answer> {
        query(call).boxed()
    }
}

async fn query(call: Call<'_>) -> Answer {
    let settings = call.task.metric.provider.prometheus.as_ref().ok_or("provider.prometheus is not set")?;
    let question = parameters(settings, call.services.clock.now())?;
    let response = ask(settings, question, call.services).await.map_err(|error| error.to_string())?;
    Ok(Reading::Judge(Box::new(move || parse(response.status, &response.body))))
}

/// One request after the other, each answer brought down to its numbers before the next: no more of them is in memory
/// than of any other measurement.
async fn compare(call: Call<'_>, look: &Look) -> Answer {
    let none = Settings::default();
    let settings = call.task.metric.provider.prometheus.as_ref().unwrap_or(&none);
    let mut answers = Answers::default();
    for question in look.questions() {
        let optional = question.optional();
        let (asked, look) = (question.asked, look.clone());
        let noted = match ask(settings, samples(settings, question)?, call.services).await {
            Err(problem) => Err(problem.to_string()),
            Ok(Response { status, body, .. }) => {
                let before = answers.clone();
                call.services
                    .aside(move || {
                        let mut answers = before;
                        look.note(&mut answers, asked, sampled(status, &body)?);
                        Ok(answers)
                    })
                    .await?
            }
        };
        match noted {
            Ok(noted) => answers = noted,
            Err(_) if optional => break,
            Err(problem) => return Err(problem),
        }
    }
    Ok(Reading::Compared(Box::new(look.judge(&answers))))
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
enum Unanswered {
    /// It cannot be asked for as the user would have it.
    #[error("{0}")]
    Wrong(String),
    #[error(transparent)]
    Http(#[from] HttpError),
}

impl From<String> for Unanswered {
    fn from(problem: String) -> Self {
        Self::Wrong(problem)
    }
}

async fn ask(settings: &Settings, (path, form): (&str, Form), services: &Services) -> Result<Response, Unanswered> {
    let form: Vec<(&str, &str)> = form.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let mut url = address(settings, services.prometheus_address.as_deref())?;
    url.set_path(&format!("{}/api/v1/{path}", url.path().trim_end_matches('/')));

    let request = request(Method::POST, url.clone(), settings, services).await?.form(&form);
    let mut response = send(request, settings, services).await?;
    if matches!(response.status, 405 | 501) {
        // Some gateways in front of Prometheus allow reading by GET only.
        url.query_pairs_mut().extend_pairs(&form);
        let request = self::request(Method::GET, url, settings, services).await?;
        response = send(request, settings, services).await?;
    }
    Ok(response)
}

async fn request(method: Method, url: Url, settings: &Settings, services: &Services) -> Result<Request, String> {
    let mut request = Request::new(method, url);
    request.insecure = settings.insecure;
    request.timeout = bounded::timeout(settings.timeout, TIMEOUT);
    if let Some(basic) = &settings.authentication.basic_auth {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        request.basic_auth = Some((text(&basic.username), text(&basic.password)));
    }
    oauth::authorize(&mut request, settings.authentication.oauth2.as_ref(), services).await?;
    request.with_headers(&settings.headers)
}

async fn send(request: Request, settings: &Settings, services: &Services) -> Result<Response, HttpError> {
    let insecure = request.insecure;
    let response = services.transport.send(request).await?;
    if response.status == 401 {
        oauth::refused(settings.authentication.oauth2.as_ref(), insecure, services);
    }
    Ok(response)
}

/// The server's URL.
fn address(settings: &Settings, default: Option<&str>) -> Result<Url, String> {
    let text =
        settings.address.as_deref().filter(|address| !address.is_empty()).or(default).ok_or(
            "prometheus address is not configured: neither in the metric nor by ARGO_ROLLOUTS_PROMETHEUS_ADDRESS",
        )?;
    let url = Url::parse(text).map_err(|error| format!("prometheus address is not a URL: {error}"))?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err("prometheus address is not an http or https URL".to_owned());
    }
    if text.contains("aps-workspaces") {
        return Err("Amazon Managed Prometheus needs AWS Signature Version 4, which is not supported yet".to_owned());
    }
    Ok(url)
}

/// The fields of a form.
type Form = Vec<(&'static str, String)>;

/// The endpoint, and what it is asked.
fn parameters(settings: &Settings, now: Timestamp) -> Result<(&'static str, Form), String> {
    if settings.timeout.is_some_and(|seconds| seconds < 0) {
        return Err("prometheus timeout should not be negative".to_owned());
    }
    let query = ("query", settings.query.clone().unwrap_or_default());
    let Some(RangeQuery { start, end, step }) = &settings.range_query else {
        return Ok(("query", vec![query, ("time", seconds(now))]));
    };
    let instant = |name: &str, source: &Option<String>| {
        let source = source.as_deref().unwrap_or_default();
        expr::evaluate_time(source, now).map_err(|error| {
            format!("failed to parse rangeQuery.{name} `{source}` as a time expression: {}", error.message)
        })
    };
    let (start, end) = (instant("start", start)?, instant("end", end)?);
    let text = step.as_deref().unwrap_or_default();
    let step: GoDuration =
        text.parse().map_err(|error| format!("failed to parse rangeQuery.step as a duration: {error}"))?;
    if step <= GoDuration::ZERO {
        return Err(format!("rangeQuery.step must be longer than zero, not {text}"));
    }
    let range = [("start", seconds(start)), ("end", seconds(end)), ("step", step.as_secs_f64().to_string())];
    Ok(("query_range", [query].into_iter().chain(range).collect()))
}

/// The same for what a comparison asks.
fn samples(settings: &Settings, question: Question) -> Result<(&'static str, Form), String> {
    if settings.timeout.is_some_and(|seconds| seconds < 0) {
        return Err("prometheus timeout should not be negative".to_owned());
    }
    let query = ("query", question.query);
    Ok(match question.start {
        None => ("query", vec![query, ("time", seconds(question.end))]),
        Some(start) => {
            let range = [("start", seconds(start)), ("end", seconds(question.end)), ("step", "60".to_owned())];
            ("query_range", [query].into_iter().chain(range).collect())
        }
    })
}

/// Seconds since 1970, to the millisecond: what Prometheus keeps.
fn seconds(instant: Timestamp) -> String {
    (instant.as_millisecond() as f64 / 1000.0).to_string()
}

/// What every answer has, around data of some kind.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope<D> {
    status: String,
    data: Option<D>,
    #[serde(default)]
    error_type: String,
    #[serde(default)]
    error: String,
    #[serde(default)]
    warnings: Vec<String>,
}

#[derive(Deserialize)]
#[serde(tag = "resultType", content = "result", rename_all = "lowercase")]
enum Data {
    Scalar(Point),
    Vector(Vec<Sample>),
    Matrix(Vec<Series>),
    String(IgnoredAny),
}

/// A time and a value, which is a text so that it can be NaN.
#[derive(Deserialize)]
struct Point(f64, String);

#[derive(Deserialize)]
struct Sample {
    value: Option<Point>,
}

#[derive(Deserialize)]
struct Series {
    #[serde(default)]
    metric: Labels,
    #[serde(default)]
    values: Vec<Point>,
    histograms: Option<IgnoredAny>,
}

/// Of a series' labels, the one that comparisons tell series apart by.
#[derive(Default, Deserialize)]
struct Labels {
    #[serde(default)]
    pod: String,
}

/// The series of a range.
fn sampled(status: u16, body: &Bytes) -> Result<Vec<Sampled>, String> {
    let Envelope { data, warnings, .. } = envelope::<Data>(status, body)?;
    if let Some(warning) = warnings.first() {
        // What is missing may be one version's.
        return Err(format!("the answer may not be whole: {warning}"));
    }
    let Some(Data::Matrix(series)) = data else {
        return Err("bad_response: the answer to a range has no series".to_owned());
    };
    let sampled = series.into_iter().map(|Series { metric, values, histograms }| {
        if histograms.is_some() {
            return Err("counters that are native histograms cannot be compared".to_owned());
        }
        let samples = values.iter().map(|point| Ok((point.0, point.number()?))).collect::<Result<_, String>>()?;
        Ok(Sampled { pod: metric.pod, samples })
    });
    sampled.collect()
}

fn parse(status: u16, body: &Bytes) -> Result<Found, String> {
    let Envelope { data, warnings, .. } = envelope::<Data>(status, body)?;
    let metadata = if warnings.is_empty() {
        BTreeMap::new()
    } else {
        let warnings: Vec<String> = warnings.iter().map(|warning| format!("\"{warning}\"")).collect();
        BTreeMap::from([("warnings".to_owned(), warnings.join(", "))])
    };
    let histogram = || "Prometheus metric type not supported: the query yields native histograms".to_owned();
    let values: Vec<f64> = match data {
        Some(Data::Scalar(point)) => {
            let value = point.number()?;
            return Ok(Found { value: value.into(), text: print(value), no_data: false, metadata });
        }
        Some(Data::Vector(samples)) => samples
            .iter()
            .map(|sample| sample.value.as_ref().ok_or_else(histogram)?.number())
            .collect::<Result<_, _>>()?,
        Some(Data::Matrix(series)) => {
            if series.iter().any(|series| series.histograms.is_some()) {
                return Err(histogram());
            }
            series.iter().flat_map(|series| &series.values).map(Point::number).collect::<Result<_, _>>()?
        }
        Some(Data::String(_)) => return Err("Prometheus metric type not supported: the query yields a text".to_owned()),
        None => return Err("bad_response: the answer has no data".to_owned()),
    };
    let mut text = String::from("[");
    for (index, value) in values.iter().enumerate() {
        // Writing to a String cannot fail.
        let _ = write!(text, "{}{}", if index > 0 { "," } else { "" }, print(*value));
    }
    text.push(']');
    Ok(Found { no_data: values.is_empty(), value: Value::floats(values), text, metadata })
}

fn envelope<D: DeserializeOwned>(status: u16, body: &Bytes) -> Result<Envelope<D>, String> {
    let envelope: Result<Envelope<D>, _> = serde_json::from_slice(body);
    // Only these codes come from Prometheus itself and not from something on the way to it.
    let api_error = matches!(status, 400 | 422 | 503);
    let envelope = match envelope {
        Ok(Envelope { status, error_type, error, .. }) if api_error && status == "error" => {
            return Err(format!("{error_type}: {error}"));
        }
        _ if (400..500).contains(&status) => return Err(format!("client_error: client error: {status}")),
        _ if status >= 500 => return Err(format!("server_error: server error: {status}")),
        _ if !(200..300).contains(&status) => return Err(format!("bad_response: bad response code {status}")),
        Ok(envelope) => envelope,
        Err(error) => return Err(format!("bad_response: the answer is not one of Prometheus: {error}")),
    };
    if envelope.status != "success" {
        return Err(format!("{}: {}", envelope.error_type, envelope.error));
    }
    Ok(envelope)
}

impl Point {
    fn number(&self) -> Result<f64, String> {
        self.1.parse().map_err(|_| "bad_response: a value is not a number".to_owned())
    }
}

/// A sample as Prometheus' Go library prints it: all digits and no exponent.
fn print(value: f64) -> String {
    if value.is_infinite() {
        return if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    value.to_string()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parsed(data: serde_json::Value) -> Result<(String, bool), String> {
        let body = json!({"status": "success", "data": data}).to_string();
        parse(200, &body.into()).map(|found| (found.text, found.no_data))
    }

    #[test]
    fn values_are_printed_as_go_does() {
        for (value, text) in [
            ("1", "1"),
            ("0.05", "0.05"),
            ("1e+21", "1000000000000000000000"),
            ("1e-9", "0.000000001"),
            ("-0", "-0"),
            ("NaN", "NaN"),
            ("+Inf", "+Inf"),
            ("-Inf", "-Inf"),
            ("0.1000000000000000055", "0.1"),
        ] {
            let scalar = json!({"resultType": "scalar", "result": [1700000000.123, value]});
            assert_eq!(parsed(scalar), Ok((text.to_owned(), false)));
            let vector = json!({"resultType": "vector", "result": [
                {"metric": {"a": "b"}, "value": [1, value]}, {"metric": {}, "value": [1, "2"]},
            ]});
            assert_eq!(parsed(vector), Ok((format!("[{text},2]"), false)));
        }
        assert_eq!(parsed(json!({"resultType": "vector", "result": []})), Ok(("[]".to_owned(), true)));
        let matrix = json!({"resultType": "matrix", "result": [
            {"metric": {}, "values": [[1, "1"], [2, "NaN"]]}, {"metric": {}, "values": [[1, "3"]]},
        ]});
        assert_eq!(parsed(matrix), Ok(("[1,NaN,3]".to_owned(), false)));
    }

    #[test]
    fn what_is_no_number_is_refused() {
        for (data, problem) in [
            (json!({"resultType": "string", "result": [1, "x"]}), "the query yields a text"),
            (json!({"resultType": "vector", "result": [{"metric": {}, "histogram": [1, {}]}]}), "native histograms"),
            (json!({"resultType": "matrix", "result": [{"metric": {}, "histograms": [[1, {}]]}]}), "native histograms"),
            (json!({"resultType": "scalar", "result": [1, "many"]}), "a value is not a number"),
            (json!(null), "the answer has no data"),
            (json!({"resultType": "graph", "result": []}), "bad_response"),
        ] {
            let error = parsed(data.clone()).unwrap_err();
            assert!(error.contains(problem), "{data}: {error}");
        }
    }

    #[test]
    fn counters_are_read_sample_by_sample() {
        let read = |data: serde_json::Value, warnings: &[&str]| {
            let body = json!({"status": "success", "data": data, "warnings": warnings}).to_string();
            sampled(200, &body.into())
        };
        let matrix = json!({"resultType": "matrix", "result": [
            {"metric": {"pod": "web-1", "code": "200"}, "values": [[1700000000.123, "7"], [1700000015, "1e3"]]},
            {"metric": {}, "values": [[1, "NaN"]]},
        ]});
        let series = read(matrix.clone(), &[]).unwrap();
        assert_eq!((series[0].pod.as_str(), series[1].pod.as_str()), ("web-1", ""));
        assert_eq!(series[0].samples, [(1_700_000_000.123, 7.0), (1_700_000_015.0, 1000.0)]);
        assert!(series[1].samples[0].1.is_nan());
        for (data, warnings, problem) in [
            (matrix, &["a store is away"][..], "the answer may not be whole: a store is away"),
            (json!({"resultType": "vector", "result": []}), &[], "has no series"),
            (
                json!({"resultType": "matrix", "result": [{"metric": {}, "histograms": [[1, {}]]}]}),
                &[],
                "native histograms",
            ),
        ] {
            let error = read(data, warnings).unwrap_err();
            assert!(error.contains(problem), "{error}");
        }
    }

    #[test]
    fn a_range_is_computed_from_now() {
        let now = Timestamp::from_millisecond(1_700_000_000_250).unwrap();
        let range = RangeQuery {
            start: Some("now() - duration(\"1h\")".into()),
            end: Some("now()".into()),
            step: Some("1m30s".into()),
        };
        let settings = |range| Settings { query: Some("up".into()), range_query: range, ..Settings::default() };
        let (path, form) = parameters(&settings(Some(range.clone())), now).unwrap();
        assert_eq!(path, "query_range");
        let expected = [("query", "up"), ("start", "1699996400.25"), ("end", "1700000000.25"), ("step", "90")];
        assert_eq!(form, expected.map(|(name, value)| (name, value.to_owned())));
        let (path, form) = parameters(&settings(None), now).unwrap();
        assert_eq!((path, form[1].1.as_str()), ("query", "1700000000.25"));

        for (range, problem) in [
            (RangeQuery { start: None, ..range.clone() }, "rangeQuery.start"),
            (RangeQuery { end: Some("1".into()), ..range.clone() }, "rangeQuery.end `1`"),
            (RangeQuery { step: None, ..range.clone() }, "rangeQuery.step as a duration"),
            (RangeQuery { step: Some("0s".into()), ..range }, "rangeQuery.step must be longer than zero"),
        ] {
            let error = parameters(&settings(Some(range)), now).unwrap_err();
            assert!(error.contains(problem), "{error}");
        }
    }

    #[test]
    fn an_address_is_the_metrics_or_the_default() {
        let with = |address: &str| Settings { address: Some(address.into()), ..Settings::default() };
        let url = |settings: &Settings, default| address(settings, default).map(|url| url.to_string());
        assert_eq!(url(&with("http://p:9090/x"), Some("http://d")), Ok("http://p:9090/x".into()));
        assert_eq!(url(&with(""), Some("http://d")), Ok("http://d/".into()));
        for (settings, default, problem) in [
            (Settings::default(), None, "is not configured"),
            (with("prometheus:9090"), None, "is not an http or https URL"),
            (with("/x"), None, "is not a URL"),
            (with("https://aps-workspaces.eu-west-1.amazonaws.com/workspaces/x"), None, "not supported yet"),
        ] {
            let error = url(&settings, default).unwrap_err();
            assert!(error.contains(problem), "{error}");
        }
    }
}
