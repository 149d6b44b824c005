//! The way from the controller to a Prometheus in memory, without a network.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::providers::http::{Request, Response};
use crate::sandbox::prometheus::{Prometheus, QueryError};

/// What a request of Prometheus' HTTP API asks for. What is missing or none of its kind is `None`.
pub struct Question {
    pub query: String,
    pub when: When,
}

pub enum When {
    At(Option<Timestamp>),
    Between { start: Option<Timestamp>, end: Option<Timestamp>, step: Duration },
}

impl Question {
    pub fn of(request: &Request) -> Self {
        let mut url = request.url.clone();
        // Clients send long queries as forms.
        if let Ok(form) = std::str::from_utf8(&request.body)
            && !form.is_empty()
        {
            url.set_query(Some(form));
        }
        let parameter =
            |name: &str| url.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned());
        let seconds = |name: &str| parameter(name)?.parse::<f64>().ok();
        let instant = |name: &str| Timestamp::from_millisecond((seconds(name)? * 1000.0).round() as i64).ok();
        let when = if url.path().ends_with("/query_range") {
            let step = seconds("step").and_then(|step| Duration::try_from_secs_f64(step).ok()).unwrap_or_default();
            When::Between { start: instant("start"), end: instant("end"), step }
        } else {
            When::At(instant("time"))
        };
        Self { query: parameter("query").unwrap_or_default(), when }
    }
}

/// An answer as it goes over the wire.
pub fn respond(answer: Result<Value, QueryError>) -> Response {
    let (status, body) = match answer {
        Ok(answer) => (200, answer),
        Err(error) => (400, json!({"status": "error", "errorType": error.kind, "error": error.message})),
    };
    Response { status, body: body.to_string().into() }
}

/// What the sandbox's Prometheus answers to a request of its HTTP API at an instant.
pub fn ask(prometheus: &Prometheus, request: &Request, now: Timestamp) -> Response {
    let Question { query, when } = Question::of(request);
    respond(match when {
        When::At(_) => prometheus.query(&query, now),
        When::Between { start, end, step } => {
            prometheus.query_range(&query, start.unwrap_or(now), end.unwrap_or(now), step)
        }
    })
}
