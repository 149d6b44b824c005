//! The way from the controller to the sandbox's Prometheus, without a network.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;

use crate::providers::http::{Request, Response};
use crate::sandbox::prometheus::Prometheus;

/// What the sandbox's Prometheus answers to a request of its HTTP API at an instant.
pub fn ask(prometheus: &Prometheus, request: &Request, now: Timestamp) -> Response {
    let mut url = request.url.clone();
    // Clients send long queries as forms.
    if let Ok(form) = std::str::from_utf8(&request.body)
        && !form.is_empty()
    {
        url.set_query(Some(form));
    }
    let parameter = |name: &str| url.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned());
    let query = parameter("query").unwrap_or_default();
    let seconds = |name: &str| parameter(name)?.parse::<f64>().ok();
    let answer = if url.path().ends_with("/query_range") {
        let instant = |name: &str| Timestamp::from_millisecond((seconds(name)? * 1000.0).round() as i64).ok();
        let step = seconds("step").and_then(|step| Duration::try_from_secs_f64(step).ok()).unwrap_or_default();
        prometheus.query_range(&query, instant("start").unwrap_or(now), instant("end").unwrap_or(now), step)
    } else {
        prometheus.query(&query, now)
    };
    let (status, body) = match answer {
        Ok(answer) => (200, answer),
        Err(error) => (400, json!({"status": "error", "errorType": error.kind, "error": error.message})),
    };
    Response { status, body: body.to_string().into() }
}
