//! `tidegate calibrate`: what the judge can see of a service, from what the service did so far.

#[cfg(test)]
mod tests;
mod text;

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{anyhow, bail};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::units::{duration, share};
use crate::analysis::calibrate::{self as calibration, Calibration, Minute};
use crate::analysis::compare::{Comparison, Judged, Queries, Sampled, Source};
use crate::analysis::judge::counts::Side;
use crate::api::analysis::Metric;
use crate::api::duration::GoDuration;
use crate::api::field_error::FieldPath;
use crate::api::providers::{Header, Prometheus};
use crate::clock::Clock;
use crate::providers::http::{Network, Transport};
use crate::providers::{JobTarget, Past, PastError, Providers, Whole};

/// Before a stretch: how far a counter that was not scraped for a while is followed.
const BEFORE: SignedDuration = SignedDuration::from_mins(5);
/// Days that are looked at, at most: ten thousand minutes of each series are ten requests.
const LONGEST: SignedDuration = SignedDuration::from_hours(24 * 92);
const MINUTE: i64 = 60;
/// Minutes that are asked for at once, at first. With four pods of ten series each that is an answer of a megabyte.
const AT_ONCE: i64 = 360;
/// Minutes below which an answer that is too large is given up.
const FEWEST: i64 = 15;

/// Find out from a service's past what the judge can see of its releases, and which `compare` block fits
#[derive(Debug, clap::Args)]
pub struct Calibrate {
    /// URL of the Prometheus that knows the service
    #[arg(long, env = "ARGO_ROLLOUTS_PROMETHEUS_ADDRESS", hide_env_values = true)]
    prometheus: String,
    /// Header of each request to it, as NAME:VALUE
    #[arg(long = "header", value_name = "NAME:VALUE", value_parser = header)]
    headers: Vec<Header>,
    /// Do not check its certificate
    #[arg(long)]
    insecure: bool,
    /// Seconds that it may take for an answer
    #[arg(long, default_value = "30")]
    timeout: i64,
    /// Whose counters: traefik, nginx, istio, envoy, linkerd or red
    #[arg(long, value_name = "SOURCE", requires = "stable", conflicts_with_all = ["total", "errors", "good"])]
    source: Option<String>,
    /// The Service of the stable version; with istio, linkerd and red the Rollout
    #[arg(long, value_name = "NAME", requires = "source")]
    stable: Option<String>,
    /// Its namespace
    #[arg(long, short, default_value = "default", requires = "source")]
    namespace: String,
    /// With a source: what takes longer counts as failed
    #[arg(long, value_name = "DURATION", requires = "source")]
    slower_than: Option<String>,
    /// Instead of a source: the counter of all requests, such as http_requests_total{app="web"}
    #[arg(long, value_name = "SELECTOR", required_unless_present = "source")]
    total: Option<String>,
    /// And the counter of those that failed
    #[arg(long, value_name = "SELECTOR", conflicts_with = "good")]
    errors: Option<String>,
    /// Or of those that did not, such as a bucket of a histogram
    #[arg(long, value_name = "SELECTOR")]
    good: Option<String>,
    /// How far back to look, such as 36h or 7d
    #[arg(long, default_value = "7d", value_parser = window)]
    window: SignedDuration,
    /// The part of the requests that a canary will get
    #[arg(long, default_value = "20%", value_parser = share)]
    weight: f64,
    /// What to print
    #[arg(long, short, value_enum, default_value = "text")]
    output: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    /// The findings, and the block to paste
    Text,
    /// All numbers
    Json,
    /// The AnalysisTemplate alone
    Yaml,
}

impl Calibrate {
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        let now = Clock::system().now();
        let told = std::io::stderr().is_terminal();
        let progress = |done: f64| {
            if told {
                // What cannot be shown is not missed.
                let _ = write!(std::io::stderr(), "\r{:3.0}% read\r", done * 100.0);
            }
        };
        let (text, code) = self.found(Arc::new(Network::new()), now, progress).await?;
        print!("{text}");
        Ok(code)
    }

    async fn found(
        &self,
        transport: Arc<dyn Transport>,
        now: Timestamp,
        progress: impl Fn(f64),
    ) -> anyhow::Result<(String, ExitCode)> {
        let subject = self.subject()?;
        let minutes = self.minutes(transport, &subject, now, progress).await?;
        let settings = comparison(&metric(&subject.block))?.settings;
        let found = calibration::calibrate(&minutes, self.weight, subject.by_pod, &settings);
        let Some(found) = found else {
            bail!(
                "no requests in {}: {} has counted none; check the selector in Prometheus",
                text::span(self.window.as_secs() as f64),
                subject.queries.total
            );
        };
        let template = template(&subject, &found)?;
        let printed = match self.output {
            Output::Text => text::draw(&subject.queries.total, &found, self.weight, &template),
            Output::Json => {
                let mut json = serde_json::to_value(&found)?;
                json["template"] = object_of(&template)?;
                format!("{}\n", serde_json::to_string_pretty(&json)?)
            }
            Output::Yaml => template,
        };
        Ok((printed, ExitCode::SUCCESS))
    }

    fn subject(&self) -> anyhow::Result<Subject> {
        let Some(word) = &self.source else {
            let total = self.total.clone().unwrap_or_default();
            let (field, judged, queried) = match (&self.errors, &self.good) {
                (Some(errors), _) => ("errors", errors, Judged::Errors(errors.clone())),
                (None, Some(good)) => ("good", good, Judged::Good(good.clone())),
                (None, None) => bail!("--errors is needed beside --total: the counter of what failed; or --good"),
            };
            let counters = json!({"total": total, (field): judged});
            let block = json!({"canary": counters, "stable": counters});
            let subject = Subject { queries: Queries { total, judged: queried }, by_pod: true, block };
            // Refused here rather than by Prometheus: it must be what a template may have.
            comparison(&metric(&subject.block))?;
            return Ok(subject);
        };
        let known = Source::ALL.map(Source::name).join(", ");
        let source = Source::named(word).ok_or_else(|| anyhow!("--source {word:?} is not known; known: {known}"))?;
        let name = self.stable.as_deref().unwrap_or_default();
        if name.is_empty()
            || !name.bytes().all(|it| it.is_ascii_lowercase() || it.is_ascii_digit() || b".-".contains(&it))
        {
            bail!("--stable {name:?} is not the name of a Service or a Rollout");
        }
        let edge = self.slower_than.as_deref().map(str::parse::<GoDuration>).transpose();
        let edge = edge.map_err(|error| anyhow!("--slower-than: {error}"))?;
        // Of a Rollout, the pods of all its ReplicaSets that were stable once.
        let versions = if source.by_pod() { format!("{name}-[a-z0-9]+") } else { name.to_owned() };
        let mut block = json!({"source": word});
        if let Some(edge) = &self.slower_than {
            block["slowerThan"] = edge.as_str().into();
        }
        let queries = source.queries(&self.namespace, Side::Stable, &versions, edge);
        Ok(Subject { queries, by_pod: source.by_pod(), block })
    }

    async fn minutes(
        &self,
        transport: Arc<dyn Transport>,
        subject: &Subject,
        now: Timestamp,
        progress: impl Fn(f64),
    ) -> anyhow::Result<Vec<Minute>> {
        let Subject { queries, by_pod, .. } = subject;
        let settings = Prometheus {
            address: Some(self.prometheus.clone()),
            timeout: Some(self.timeout),
            insecure: self.insecure,
            headers: self.headers.clone(),
            ..Prometheus::default()
        };
        let providers = Providers::new(transport, JobTarget::nowhere(), Clock::system(), None);
        let past = Past::new(providers, settings);
        let mut at_once = AT_ONCE;
        let count = self.window.as_secs() / MINUTE;
        let end = now.as_second() / MINUTE * MINUTE;
        let to = Timestamp::from_second(end)?;
        let mut from = Timestamp::from_second(end - count * MINUTE)?;
        let (begin, selectors) = (from, [queries.total.as_str(), queries.judged.selector()]);
        let mut minutes = Vec::new();
        while from < to {
            let (end, mut found) = stretch(&past, selectors, (from, to), &mut at_once).await?;
            if !*by_pod {
                // The pods of a gateway are not those of the service.
                found.iter_mut().flatten().for_each(|series| series.pod.clear());
            }
            let count = ((end.as_second() - from.as_second()) / MINUTE) as usize;
            let [total, judged] = &found;
            minutes.extend(calibration::minutes(total, judged, &queries.judged, from.as_second() as f64, count));
            from = end;
            let part = from.duration_since(begin).as_secs_f64() / to.duration_since(begin).as_secs_f64();
            progress(part);
        }
        Ok(minutes)
    }
}

/// The samples of each minute of two counters, from a time on and of a while before: until when, as long as answers can hold
/// it, and what was found.
async fn stretch(
    past: &Past,
    [total, judged]: [&str; 2],
    (from, to): (Timestamp, Timestamp),
    minutes: &mut i64,
) -> anyhow::Result<(Timestamp, [Vec<Sampled>; 2])> {
    loop {
        let end = from.saturating_add(SignedDuration::from_mins(*minutes)).map_or(to, |end| end.min(to));
        let found = async { Ok([samples(past, total, from, end).await?, samples(past, judged, from, end).await?]) };
        match found.await {
            Ok(found) => return Ok((end, found)),
            Err(PastError::TooMuch(_)) if *minutes / 2 >= FEWEST => *minutes /= 2,
            Err(problem) => return Err(problem.into()),
        }
    }
}

async fn samples(past: &Past, query: &str, from: Timestamp, to: Timestamp) -> Result<Vec<Sampled>, PastError> {
    let start = from.saturating_add(-BEFORE).unwrap_or(from);
    let (series, warning) = past.values(query, start, to, MINUTE * 1000).await?;
    if let Some(warning) = warning {
        // What is missing may be one pod's.
        return Err(PastError::Refused(format!("the answer may not be whole: {warning}")));
    }
    let sampled = |Whole { mut labels, samples }: Whole| Sampled {
        pod: labels.remove("pod").unwrap_or_default(),
        samples: samples.into_iter().map(|(millis, value)| (millis as f64 / 1000.0, value)).collect(),
    };
    Ok(series.into_iter().map(sampled).collect())
}

/// What is looked at, and how a template says it.
struct Subject {
    queries: Queries,
    /// Whether the judge itself measures by pods.
    by_pod: bool,
    block: Value,
}

fn metric(block: &Value) -> Metric {
    // In a template the Rollout says the names; a comparison of its own needs some.
    let mut block = block.clone();
    if block["source"].is_string() {
        for name in ["canaryService", "stableService", "canaryReplicaSet", "stableReplicaSet"] {
            block[name] = name.to_lowercase().into();
        }
    }
    // Made above of fields that exist.
    serde_json::from_value(json!({"name": "errors", "compare": block})).unwrap_or_default()
}

fn comparison(metric: &Metric) -> anyhow::Result<Comparison> {
    let compare = metric.compare.clone().unwrap_or_default();
    Comparison::parse(metric, &compare, 1, &FieldPath::new("metric")).map_err(|error| anyhow!("{error}"))
}

/// The AnalysisTemplate to paste.
fn template(subject: &Subject, found: &Calibration) -> anyhow::Result<String> {
    let proposed = &found.proposed;
    let mut block = subject.block.clone();
    block["margin"] = format!("{:.0}%", proposed.margin * 100.0).into();
    block["horizon"] = format!("{:.0}m", proposed.horizon / 60.0).into();
    if let Some(factor) = proposed.dispersion {
        block["dispersion"] = format!("{factor:.1}").into();
    }
    comparison(&metric(&block))?;
    let mut text =
        "apiVersion: argoproj.io/v1alpha1\nkind: AnalysisTemplate\nmetadata:\n  name: no-worse-than-stable\n\
                    spec:\n  metrics:\n  - name: errors\n    compare:\n"
            .to_owned();
    for field in ["source", "slowerThan", "margin", "horizon", "dispersion"] {
        if let Some(value) = block[field].as_str() {
            // A number would be one of the many things that a bare word may mean.
            let quoted = if field == "dispersion" { format!("\"{value}\"") } else { value.to_owned() };
            text.push_str(&format!("      {field}: {quoted}\n"));
        }
    }
    for version in ["canary", "stable"] {
        let Some(counters) = block[version].as_object() else { continue };
        let note = if version == "canary" { "  # with what tells the canary's requests from stable's" } else { "" };
        text.push_str(&format!("      {version}:{note}\n"));
        for (name, selector) in counters {
            // JSON is YAML, and what is quoted in the one is in the other.
            text.push_str(&format!("        {name}: {selector}\n"));
        }
    }
    Ok(text)
}

fn object_of(template: &str) -> anyhow::Result<Value> {
    let mut parsed = super::manifest::parse("template", template)?;
    Ok(parsed.pop().map(|object| object.value).unwrap_or_default())
}

fn header(text: &str) -> Result<Header, String> {
    let (key, value) = text.split_once(':').ok_or_else(|| "a header is NAME:VALUE".to_owned())?;
    Ok(Header { key: key.trim().to_owned(), value: value.trim().to_owned() })
}

/// A duration that may be days.
fn window(text: &str) -> Result<SignedDuration, String> {
    let days = text.strip_suffix('d').and_then(|days| days.parse::<u32>().ok());
    let window = match days {
        Some(days) => SignedDuration::from_hours(24 * i64::from(days)),
        None => SignedDuration::try_from(duration(text)?).map_err(|error| error.to_string())?,
    };
    if !(SignedDuration::from_hours(1)..=LONGEST).contains(&window) {
        return Err("must be from 1h to 92d".to_owned());
    }
    Ok(window)
}
