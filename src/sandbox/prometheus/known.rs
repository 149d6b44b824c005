//! What a query asks for, before there is anything to answer: whether it can be answered at all, and how far it looks back.

use std::time::Duration;

use super::parse::{MatchKind, Selector, collect, parse};
use super::{Prometheus, QueryError};

/// What the exporters have: the counter of requests, the histogram of their durations, the labels of both.
const EXPORTED: [(&str, &str, &[&str]); 4] = [
    (
        "nginx_ingress_controller_requests",
        "nginx_ingress_controller_request_duration_seconds",
        &["canary", "exported_namespace", "exported_service", "ingress", "method", "namespace", "service", "status"],
    ),
    (
        "traefik_service_requests_total",
        "traefik_service_request_duration_seconds",
        &["code", "method", "protocol", "service"],
    ),
    (
        "istio_requests_total",
        "istio_request_duration_milliseconds",
        &[
            "destination_service",
            "destination_service_name",
            "destination_service_namespace",
            "destination_workload",
            "reporter",
            "response_code",
        ],
    ),
    (
        "http_requests_total",
        "http_request_duration_seconds",
        &["code", "method", "namespace", "pod", "rollouts_pod_template_hash", "service", "status"],
    ),
];

/// A query that can be answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Examined {
    /// The shortest range that it looks at; none if it looks at none.
    pub shortest_range: Option<Duration>,
    /// How far it looks back.
    pub reach: Duration,
}

impl Prometheus {
    /// Whether the exporters here have what a query asks for. An empty answer to such a query means that nothing has
    /// happened yet, and not that there is no such metric.
    ///
    /// # Errors
    /// The query cannot be read, has the wrong types, or asks for a function, a metric or a label that is not here.
    pub fn examine(&self, query: &str) -> Result<Examined, QueryError> {
        let expr = parse(query)?;
        let mut selectors = Vec::new();
        collect(&expr, &mut selectors);
        if selectors.is_empty() {
            return Err(QueryError::bad_data("it asks for no metric"));
        }
        for selector in &selectors {
            exported(selector)?;
        }
        // Functions and types are checked where they are used.
        self.query(query, self.shared.clock.now())?;
        let millis = |millis: i64| Duration::from_millis(u64::try_from(millis).unwrap_or(0));
        let ranges = selectors.iter().filter_map(|selector| selector.range).map(millis);
        let reach = selectors.iter().map(|selector| millis(selector.range.unwrap_or(0) + selector.offset));
        Ok(Examined { shortest_range: ranges.min(), reach: reach.max().unwrap_or_default() })
    }
}

fn exported(selector: &Selector) -> Result<(), QueryError> {
    let name = selector.matchers.iter().find(|it| it.label == "__name__" && it.kind == MatchKind::Equal);
    let Some(name) = name.map(|name| name.value.as_str()) else {
        return Err(QueryError::bad_data("it asks for metrics without naming one"));
    };
    let suffixed = |histogram: &str| {
        let suffix = name.strip_prefix(histogram)?;
        ["_bucket", "_count", "_sum"].contains(&suffix).then_some(suffix == "_bucket")
    };
    let found = EXPORTED.iter().find_map(|(counter, histogram, labels)| match suffixed(histogram) {
        _ if *counter == name => Some((labels, false)),
        Some(is_bucket) => Some((labels, is_bucket)),
        None => None,
    });
    let Some((labels, is_bucket)) = found else {
        return Err(QueryError::bad_data(format!("nothing here exports the metric {name}")));
    };
    // What asks for the absence of a label is content without it.
    let positive = selector.matchers.iter().filter(|matcher| match matcher.kind {
        MatchKind::Equal => !matcher.value.is_empty(),
        MatchKind::Matches => !matches!(matcher.value.as_str(), "" | ".*"),
        MatchKind::NotEqual | MatchKind::MatchesNot => false,
    });
    let known = |label: &str| label == "__name__" || labels.contains(&label) || is_bucket && label == "le";
    match positive.map(|matcher| matcher.label.as_str()).find(|label| !known(label)) {
        Some(label) => Err(QueryError::bad_data(format!("{name} has no label {label} here"))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::sandbox::Cluster;

    #[tokio::test(start_paused = true)]
    async fn queries_are_known_by_their_metrics_labels_and_functions() {
        let clock = Clock::starting_at("2026-01-05T08:00:00Z".parse().unwrap());
        let cluster = Cluster::builder().clock(clock).start();
        let prometheus = cluster.prometheus();
        let seconds = |seconds: u64| Duration::from_secs(seconds);
        let ratio = "sum(rate(http_requests_total{service='web',status=~'5..'}[1m])) \
                     / sum(rate(http_requests_total{service='web',job!='x'}[5m] offset 1m))";
        let expected = Examined { shortest_range: Some(seconds(60)), reach: seconds(360) };
        assert_eq!(prometheus.examine(ratio), Ok(expected));
        assert!(prometheus.examine("istio_request_duration_milliseconds_bucket{le='100'}").is_ok());
        for (query, problem) in [
            ("sum(rate(http_requests_total{job='web'}[1m]))", "http_requests_total has no label job here"),
            ("up", "nothing here exports the metric up"),
            ("sum({service='web'})", "without naming one"),
            ("1 + 1", "asks for no metric"),
            ("predict_linear(http_requests_total[5m], 60)", "predict_linear"),
            ("sum(rate(", "parse error"),
        ] {
            let error = prometheus.examine(query).unwrap_err();
            assert!(error.message.contains(problem), "{query}: {error}");
        }
    }
}
