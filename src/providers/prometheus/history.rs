//! Counters of the past, minute by minute: one request after the other, each small enough for its answer.

use std::sync::Arc;

use http::Method;
use jiff::{SignedDuration, Timestamp};

use super::super::http::{HttpError, Request, Transport};
use super::{TIMEOUT, address, bounded, sampled, seconds};
use crate::analysis::compare::Sampled;
use crate::api::providers::Prometheus as Settings;

/// Minutes that are asked for at once, at first. With four pods of ten series each that is an answer of a megabyte.
const MINUTES: i64 = 360;
/// Minutes below which an answer that is too large is given up.
const FEWEST: i64 = 15;

/// A Prometheus that is asked for its past.
pub struct History {
    transport: Arc<dyn Transport>,
    settings: Settings,
    /// What the last answers were small enough for.
    minutes: i64,
}

/// The samples of each minute from `from` to `to`, and those of some time before.
#[derive(Clone, Debug, PartialEq)]
pub struct Stretch {
    pub from: Timestamp,
    pub to: Timestamp,
    /// One list for each query.
    pub found: Vec<Vec<Sampled>>,
}

impl History {
    pub fn new(transport: Arc<dyn Transport>, settings: Settings) -> Self {
        Self { transport, settings, minutes: MINUTES }
    }

    /// The next stretch of a time: as much of it as answers can hold. Its samples reach `before` back.
    ///
    /// # Errors
    /// What the server or the way to it says, in words that hold no secrets.
    pub async fn next(
        &mut self,
        queries: &[&str],
        (from, to): (Timestamp, Timestamp),
        before: SignedDuration,
    ) -> Result<Stretch, String> {
        let start = from.saturating_add(-before).unwrap_or(from);
        loop {
            let end = from.saturating_add(SignedDuration::from_mins(self.minutes)).map_or(to, |end| end.min(to));
            match self.all(queries, start, end).await {
                Ok(found) => return Ok(Stretch { from, to: end, found }),
                Err(HttpError::TooLarge { .. }) if self.minutes / 2 >= FEWEST => self.minutes /= 2,
                Err(problem) => return Err(problem.to_string()),
            }
        }
    }

    async fn all(&self, queries: &[&str], from: Timestamp, to: Timestamp) -> Result<Vec<Vec<Sampled>>, HttpError> {
        let mut found = Vec::new();
        for query in queries {
            found.push(self.ask(query, from, to).await?);
        }
        Ok(found)
    }

    async fn ask(&self, query: &str, from: Timestamp, to: Timestamp) -> Result<Vec<Sampled>, HttpError> {
        let settings = &self.settings;
        let failed = |problem: String| HttpError::Failed { origin: "prometheus".to_owned(), problem };
        let mut url = address(settings, None).map_err(failed)?;
        url.set_path(&format!("{}/api/v1/query_range", url.path().trim_end_matches('/')));
        let (start, end) = (seconds(from), seconds(to));
        let form = [("query", query), ("start", start.as_str()), ("end", end.as_str()), ("step", "60")];
        let request = |method: Method, url| {
            let mut request = Request::new(method, url);
            request.insecure = settings.insecure;
            request.timeout = bounded::timeout(settings.timeout, TIMEOUT);
            request.with_headers(&settings.headers).map_err(failed)
        };
        let mut response = self.transport.send(request(Method::POST, url.clone())?.form(&form)).await?;
        if matches!(response.status, 405 | 501) {
            // Some gateways in front of Prometheus allow reading by GET only.
            url.query_pairs_mut().extend_pairs(&form);
            response = self.transport.send(request(Method::GET, url)?).await?;
        }
        sampled(response.status, &response.body).map_err(failed)
    }
}
