//! The metric provider: it answers what the script says, and says so.

use std::sync::{Arc, Mutex, PoisonError};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use tidegate::providers::http::{HttpError, Request, Response, Transport};

use crate::observe::{Log, Seen};
use crate::script::Metrics;

/// Where the metrics of all base scenarios come from.
pub const ADDRESS: &str = "http://prometheus.simulated:9090";

/// A Prometheus that answers one number.
#[derive(Clone)]
pub struct Provider {
    log: Arc<Log>,
    mood: Arc<Mutex<Option<Metrics>>>,
}

impl Provider {
    pub fn new(log: Arc<Log>) -> Self {
        Self { log, mood: Arc::default() }
    }

    /// What it answers from now on; a good value when none.
    pub fn set(&self, mood: Option<Metrics>) {
        *self.mood.lock().unwrap_or_else(PoisonError::into_inner) = mood;
    }

    fn mood(&self) -> Option<Metrics> {
        *self.mood.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Transport for Provider {
    fn send(&self, request: Request) -> BoxFuture<'_, Result<Response, HttpError>> {
        async move {
            let value = match self.mood() {
                None => {
                    self.log.note(Seen::GoodMetric);
                    "1"
                }
                Some(Metrics::Bad) => "0.5",
                Some(Metrics::NaN) => "NaN",
                Some(Metrics::Inf) => "-Inf",
                Some(Metrics::Negative) => "-1",
                Some(Metrics::Empty) => "",
                Some(Metrics::Error) => return Ok(Response { status: 503, body: "overloaded".into() }),
                Some(Metrics::Hang) => {
                    tokio::time::sleep(request.timeout).await;
                    let seconds = request.timeout.as_secs();
                    return Err(HttpError::Timeout { origin: ADDRESS.to_owned(), seconds });
                }
            };
            let sample = if value.is_empty() {
                String::new()
            } else {
                format!("{{\"metric\":{{}},\"value\":[1767600000,\"{value}\"]}}")
            };
            let body =
                format!("{{\"status\":\"success\",\"data\":{{\"resultType\":\"vector\",\"result\":[{sample}]}}}}");
            Ok(Response { status: 200, body: body.into() })
        }
        .boxed()
    }
}
