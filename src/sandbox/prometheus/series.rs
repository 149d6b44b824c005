//! The metrics that gateways and pods would export about the recorded requests.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::{Arc, Mutex};

use regex::Regex;

use super::QueryError;
use super::eval::Labels;
use super::parse::{MatchKind, Matcher};
use crate::sandbox::traffic::{self, BUCKETS, Counts, Line, Outcome, Record, Via};

/// Where series come from.
pub(super) trait Source: Send + Sync {
    /// The series that match, with their samples after `from` until `to`, in the order of their labels.
    fn select(&self, matchers: &[Matcher], from: i64, to: i64) -> Result<Vec<Series>, QueryError>;

    /// Brings what there is up to now.
    fn catch_up(&self) {}
}

/// What was scraped from the gateways and pods of a cluster.
pub(super) struct Scraped {
    pub(super) record: Arc<Mutex<Record>>,
    /// In milliseconds.
    pub(super) scrape_interval: i64,
    pub(super) catch_up: Box<dyn Fn() + Send + Sync>,
}

impl Source for Scraped {
    fn select(&self, matchers: &[Matcher], from: i64, to: i64) -> Result<Vec<Series>, QueryError> {
        select(&traffic::lock(&self.record), self.scrape_interval, matchers, from, to)
    }

    fn catch_up(&self) {
        (self.catch_up)();
    }
}

/// A series and its samples, as `(milliseconds, value)`.
pub(super) struct Series {
    pub(super) labels: Labels,
    pub(super) samples: Vec<(i64, f64)>,
    /// From here on there is no present value.
    pub(super) ended: Option<i64>,
}

/// Labels that an exporter gives a path.
type Pairs = Vec<(&'static str, String)>;

/// The metrics of one exporter.
struct Family {
    /// The counter of requests.
    counter: &'static str,
    /// The histogram of their durations, without its suffixes.
    histogram: &'static str,
    /// The histogram's unit in seconds.
    unit: f64,
    /// The labels that carry the status code.
    codes: &'static [&'static str],
    /// The labels of a path, if the exporter sees it.
    labels: fn(&Line) -> Option<Pairs>,
    /// Whether each pod exports its own: then it sees what it answered only, and its series end with it.
    by_pods: bool,
}

/// What users' queries ask for. A new exporter is one more entry.
const FAMILIES: [Family; 4] = [
    Family {
        counter: "nginx_ingress_controller_requests",
        histogram: "nginx_ingress_controller_request_duration_seconds",
        unit: 1.0,
        codes: &["status"],
        labels: nginx,
        by_pods: false,
    },
    Family {
        counter: "traefik_service_requests_total",
        histogram: "traefik_service_request_duration_seconds",
        unit: 1.0,
        codes: &["code"],
        labels: traefik,
        by_pods: false,
    },
    Family {
        counter: "istio_requests_total",
        histogram: "istio_request_duration_milliseconds",
        unit: 0.001,
        codes: &["response_code"],
        labels: istio,
        by_pods: false,
    },
    Family {
        counter: "http_requests_total",
        histogram: "http_request_duration_seconds",
        unit: 1.0,
        codes: &["code", "status"],
        labels: pod,
        by_pods: true,
    },
];

/// As ingress-nginx counts: `service` is that of the main Ingress for canary requests, too; `canary` tells them apart.
fn nginx(line: &Line) -> Option<Pairs> {
    let Via::Nginx { ingress, main, canary } = &line.via else { return None };
    let (namespace, service) = (&line.service.namespace, &line.service.name);
    let canary = if *canary { format!("{namespace}-{service}-{}", line.port) } else { String::new() };
    Some(vec![
        ("canary", canary),
        ("exported_namespace", namespace.clone()),
        ("exported_service", main.clone()),
        ("ingress", ingress.clone()),
        ("method", "GET".to_owned()),
        ("namespace", namespace.clone()),
        ("service", main.clone()),
    ])
}

fn traefik(line: &Line) -> Option<Pairs> {
    let Via::Gateway { .. } = &line.via else { return None };
    let service = format!("{}-{}-http-{}@kubernetesgateway", line.service.namespace, line.service.name, line.port);
    Some(vec![("method", "GET".to_owned()), ("protocol", "http".to_owned()), ("service", service)])
}

fn istio(line: &Line) -> Option<Pairs> {
    let (namespace, service) = (&line.service.namespace, &line.service.name);
    (!service.is_empty()).then(|| {
        vec![
            ("destination_service", format!("{service}.{namespace}.svc.cluster.local")),
            ("destination_service_name", service.clone()),
            ("destination_service_namespace", namespace.clone()),
            ("destination_workload", line.replica_set.clone()),
            ("reporter", "source".to_owned()),
        ]
    })
}

fn pod(line: &Line) -> Option<Pairs> {
    (!line.pod.is_empty()).then(|| {
        vec![
            ("method", "GET".to_owned()),
            ("namespace", line.service.namespace.clone()),
            ("pod", line.pod.clone()),
            ("rollouts_pod_template_hash", line.hash.clone()),
            ("service", line.service.name.clone()),
        ]
    })
}

/// A number that a series takes from the counts of a path.
#[derive(Clone, Copy)]
enum Field {
    Code(u16),
    /// Answers up to a bound of the histogram.
    UpTo(usize),
    Answers,
    Seconds(f64),
}

impl Field {
    fn of(self, counts: &Counts) -> f64 {
        let up_to = |bound: usize| counts.histogram().iter().take(bound + 1).sum::<u64>() as f64;
        match self {
            Field::Code(code) => {
                let outcomes = Outcome::ALL.into_iter().filter(|outcome| outcome.code() == code);
                outcomes.map(|outcome| counts.of(outcome)).sum::<u64>() as f64
            }
            Field::UpTo(bound) => up_to(bound),
            Field::Answers => up_to(BUCKETS.len()),
            Field::Seconds(unit) => counts.seconds() / unit,
        }
    }
}

fn select(
    record: &Record,
    scrape_interval: i64,
    matchers: &[Matcher],
    from: i64,
    to: i64,
) -> Result<Vec<Series>, QueryError> {
    let tests: Vec<Test<'_>> = matchers.iter().map(Test::of).collect::<Result<_, _>>()?;
    let named = |name: &str| {
        let mut of_name = matchers.iter().zip(&tests).filter(|(matcher, _)| matcher.label == "__name__");
        of_name.all(|(_, test)| test.passes(&[("__name__".to_owned(), name.to_owned())].into()))
    };
    let mut found: BTreeMap<Labels, Vec<(&Line, Field)>> = BTreeMap::new();
    for family in &FAMILIES {
        let mut fields = fields(family);
        fields.retain(|(name, _, _)| named(name));
        for line in record.lines() {
            let Some(labels) = (family.labels)(line).filter(|_| !fields.is_empty()) else { continue };
            for (name, more, field) in &fields {
                let pairs = labels.iter().chain(more);
                let mut all: Labels = pairs.map(|(label, value)| ((*label).to_owned(), value.clone())).collect();
                all.insert("__name__".to_owned(), name.clone());
                all.retain(|_, value| !value.is_empty());
                if tests.iter().all(|test| test.passes(&all)) {
                    found.entry(all).or_default().push((line, *field));
                }
            }
        }
    }
    let by_pods = |labels: &Labels| labels.contains_key("pod");
    let series = found.into_iter().map(|(labels, parts)| {
        let ended = parts.iter().map(|(line, _)| line.gone()).max().flatten().filter(|_| by_pods(&labels));
        let samples = samples(&parts, scrape_interval, from, to, ended);
        Series { labels, samples, ended }
    });
    Ok(series.filter(|series| !series.samples.is_empty()).collect())
}

/// The series of one path: names, labels and what they count.
fn fields(family: &Family) -> Vec<(String, Pairs, Field)> {
    let mut fields = Vec::new();
    let codes: &[u16] = if family.by_pods { &[200, 500] } else { &[200, 404, 500, 502, 503] };
    for code in codes {
        let labels = family.codes.iter().map(|label| (*label, code.to_string())).collect();
        fields.push((family.counter.to_owned(), labels, Field::Code(*code)));
    }
    for index in 0..=BUCKETS.len() {
        let bound = BUCKETS.get(index).map_or("+Inf".to_owned(), |bound| (bound / family.unit).to_string());
        fields.push((format!("{}_bucket", family.histogram), vec![("le", bound)], Field::UpTo(index)));
    }
    fields.push((format!("{}_count", family.histogram), Vec::new(), Field::Answers));
    fields.push((format!("{}_sum", family.histogram), Vec::new(), Field::Seconds(family.unit)));
    fields
}

/// A sample at each scrape since the first time that there was something to count.
fn samples(parts: &[(&Line, Field)], interval: i64, from: i64, to: i64, ended: Option<i64>) -> Vec<(i64, f64)> {
    let born = parts.iter().map(|(line, _)| line.born()).min().unwrap_or(i64::MAX);
    let last = ended.map_or(to, |ended| ended.min(to));
    let mut at = ((from.max(born - 1)).div_euclid(interval) + 1).saturating_mul(interval);
    let mut samples: Vec<(i64, f64)> = Vec::new();
    while at <= last {
        let value: f64 = parts.iter().map(|(line, field)| field.of(&line.until(at))).sum();
        // A counter of a status code appears with its first request.
        let counts_codes = matches!(parts, [(_, Field::Code(_)), ..]);
        if value > 0.0 || !samples.is_empty() || !counts_codes {
            samples.push((at, value));
        }
        at += interval;
    }
    samples
}

/// More patterns than the queries of one analysis have.
const KEPT_PATTERNS: usize = 64;

thread_local! {
    /// The same queries are asked again and again, and a pattern takes longer to compile than they take to answer.
    static PATTERNS: RefCell<BTreeMap<String, Rc<Regex>>> = const { RefCell::new(BTreeMap::new()) };
}

/// It has to match all of a label's value.
fn pattern(text: &str) -> Result<Rc<Regex>, QueryError> {
    PATTERNS.with_borrow_mut(|patterns| {
        if let Some(pattern) = patterns.get(text) {
            return Ok(pattern.clone());
        }
        let pattern = Regex::new(&format!("^(?s:{text})$"));
        let pattern = Rc::new(pattern.map_err(|error| QueryError::syntax(format!("{text:?}: {error}")))?);
        if patterns.len() >= KEPT_PATTERNS {
            patterns.clear();
        }
        patterns.insert(text.to_owned(), pattern.clone());
        Ok(pattern)
    })
}

/// A matcher that is ready to use.
pub(super) enum Test<'a> {
    Text { label: &'a str, value: &'a str, wanted: bool },
    Pattern { label: &'a str, pattern: Rc<Regex>, wanted: bool },
}

impl<'a> Test<'a> {
    pub(super) fn of(matcher: &'a Matcher) -> Result<Self, QueryError> {
        let Matcher { label, kind, value } = matcher;
        let wanted = matches!(kind, MatchKind::Equal | MatchKind::Matches);
        if matches!(kind, MatchKind::Equal | MatchKind::NotEqual) {
            return Ok(Test::Text { label, value, wanted });
        }
        Ok(Test::Pattern { label, pattern: pattern(value)?, wanted })
    }

    /// An absent label is empty.
    pub(super) fn passes(&self, labels: &Labels) -> bool {
        let found = |label: &str| labels.get(label).map(String::as_str).unwrap_or_default();
        match self {
            Test::Text { label, value, wanted } => (found(label) == *value) == *wanted,
            Test::Pattern { label, pattern, wanted } => pattern.is_match(found(label)) == *wanted,
        }
    }
}
