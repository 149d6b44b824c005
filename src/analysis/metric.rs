//! What a metric means once its arguments are in: its provider, its limits, and what is wrong with them.

use crate::api::analysis::{DryRun, MeasurementRetention, Metric};
use crate::api::duration::GoDuration;
use crate::api::field_error::{FieldError, FieldPath};
use crate::api::int_or_percent::IntOrString;
use crate::api::providers::MetricProvider;

/// Measurements that are kept of a metric unless `measurementRetention` says otherwise.
const RETENTION: usize = 10;
/// Errors in a row that are tolerated by default.
const CONSECUTIVE_ERROR_LIMIT: i32 = 4;

/// Who a metric is asked from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ProviderKind {
    Prometheus,
    Kayenta,
    Web,
    Datadog,
    Wavefront,
    NewRelic,
    Job,
    CloudWatch,
    Graphite,
    Influxdb,
    SkyWalking,
    Plugin,
}

/// How often a metric is measured and what it tolerates.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Measurements without an error that end the metric; `None` goes on for ever.
    pub count: Option<i32>,
    pub interval: Option<GoDuration>,
    pub initial_delay: GoDuration,
    /// Failed measurements that are tolerated; `None` for any number.
    pub failure: Option<i32>,
    pub inconclusive: i32,
    pub consecutive_error: i32,
    /// Successes in a row that end the metric as successful; `None` if nothing is asked of the order.
    pub consecutive_success: Option<i32>,
}

/// The rules of a run for one metric.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rules {
    pub limits: Limits,
    pub dry_run: bool,
    /// Measurements that are kept; at least one.
    pub keep: usize,
}

impl ProviderKind {
    /// The providers that are set.
    pub fn of(provider: &MetricProvider) -> Vec<Self> {
        let MetricProvider {
            prometheus,
            kayenta,
            web,
            datadog,
            wavefront,
            new_relic,
            job,
            cloud_watch,
            graphite,
            influxdb,
            skywalking,
            plugin,
        } = provider;
        let set = [
            (Self::Prometheus, prometheus.is_some()),
            (Self::Kayenta, kayenta.is_some()),
            (Self::Web, web.is_some()),
            (Self::Datadog, datadog.is_some()),
            (Self::Wavefront, wavefront.is_some()),
            (Self::NewRelic, new_relic.is_some()),
            (Self::Job, job.is_some()),
            (Self::CloudWatch, cloud_watch.is_some()),
            (Self::Graphite, graphite.is_some()),
            (Self::Influxdb, influxdb.is_some()),
            (Self::SkyWalking, skywalking.is_some()),
        ];
        let plugins = plugin.keys().map(|_| Self::Plugin);
        set.into_iter().filter(|(_, set)| *set).map(|(kind, _)| kind).chain(plugins).collect()
    }

    /// The name as the `type` label of telemetry has it.
    pub fn type_name(self) -> &'static str {
        match self {
            Self::Prometheus => "Prometheus",
            Self::Kayenta => "Kayenta",
            Self::Web => "Web",
            Self::Datadog => "Datadog",
            Self::Wavefront => "Wavefront",
            Self::NewRelic => "NewRelic",
            Self::Job => "Job",
            Self::CloudWatch => "CloudWatch",
            Self::Graphite => "Graphite",
            Self::Influxdb => "Influxdb",
            Self::SkyWalking => "SkyWalking",
            Self::Plugin => "Plugin",
        }
    }

    /// The field of the metric's provider.
    pub fn field(self) -> &'static str {
        match self {
            Self::Prometheus => "prometheus",
            Self::Kayenta => "kayenta",
            Self::Web => "web",
            Self::Datadog => "datadog",
            Self::Wavefront => "wavefront",
            Self::NewRelic => "newRelic",
            Self::Job => "job",
            Self::CloudWatch => "cloudWatch",
            Self::Graphite => "graphite",
            Self::Influxdb => "influxdb",
            Self::SkyWalking => "skywalking",
            Self::Plugin => "plugin",
        }
    }

    /// Whether Tidegate can ask it.
    pub fn supported(self) -> bool {
        matches!(self, Self::Prometheus | Self::Web | Self::Job)
    }
}

/// What is wrong with the metrics of a run or a template whose arguments are in: the first problem.
pub(super) fn validate(metrics: &[Metric], path: &FieldPath) -> Result<Vec<Limits>, FieldError> {
    let path = path.child("metrics");
    if metrics.is_empty() {
        return Err(FieldError::required(path, "no metrics specified"));
    }
    let mut limits = Vec::with_capacity(metrics.len());
    for (index, metric) in metrics.iter().enumerate() {
        let path = path.index(index);
        if metrics[..index].iter().any(|earlier| earlier.name == metric.name) {
            return Err(FieldError::duplicate(path.child("name"), metric.name.as_str()));
        }
        limits.push(Limits::of(metric, &path)?);
        if metric.compare.is_some() {
            return Err(FieldError::forbidden(path.child("compare"), "metrics are not judged by comparison yet"));
        }
        validate_provider(metric, &path.child("provider"))?;
    }
    Ok(limits)
}

/// The metrics' limits together with the run's rules for dry runs and retention.
pub(super) fn rules(
    metrics: &[Metric],
    dry_run: &[DryRun],
    retention: &[MeasurementRetention],
    path: &FieldPath,
) -> Result<Vec<Rules>, FieldError> {
    let mut rules: Vec<Rules> =
        validate(metrics, path)?.into_iter().map(|limits| Rules { limits, dry_run: false, keep: RETENTION }).collect();
    for (index, rule) in dry_run.iter().enumerate() {
        for matched in matching(metrics, &rule.metric_name, &path.child("dryRun").index(index))? {
            rules[matched].dry_run = true;
        }
    }
    for (index, rule) in retention.iter().enumerate() {
        for matched in matching(metrics, &rule.metric_name, &path.child("measurementRetention").index(index))? {
            rules[matched].keep = usize::try_from(rule.limit).ok().filter(|limit| *limit > 0).unwrap_or(RETENTION);
        }
    }
    Ok(rules)
}

/// The metrics whose name has a match of the regular expression, of which there must be one.
fn matching(metrics: &[Metric], pattern: &str, path: &FieldPath) -> Result<Vec<usize>, FieldError> {
    let path = path.child("metricName");
    let regex = regex::Regex::new(pattern)
        .map_err(|_| FieldError::invalid(&path, pattern, "must be a valid regular expression"))?;
    let matched: Vec<usize> =
        metrics.iter().enumerate().filter(|(_, metric)| regex.is_match(&metric.name)).map(|(index, _)| index).collect();
    if matched.is_empty() {
        return Err(FieldError::invalid(path, pattern, "Rule didn't match any metric name(s)"));
    }
    Ok(matched)
}

impl Limits {
    fn of(metric: &Metric, path: &FieldPath) -> Result<Self, FieldError> {
        let field = |name: &str, value: &Option<IntOrString>| number(value.as_ref(), &path.child(name));
        let count = field("count", &metric.count)?.unwrap_or(0);
        let failure = field("failureLimit", &metric.failure_limit)?.unwrap_or(0);
        let inconclusive = field("inconclusiveLimit", &metric.inconclusive_limit)?.unwrap_or(0);
        let consecutive_error =
            field("consecutiveErrorLimit", &metric.consecutive_error_limit)?.unwrap_or(CONSECUTIVE_ERROR_LIMIT);
        let consecutive_success = field("consecutiveSuccessLimit", &metric.consecutive_success_limit)?.unwrap_or(0);
        let interval = duration(metric.interval.as_deref(), &path.child("interval"))?;
        let initial_delay = duration(metric.initial_delay.as_deref(), &path.child("initialDelay"))?;

        let wrong = |name: &str, value: i32, detail: &str| Err(FieldError::invalid(path.child(name), value, detail));
        if consecutive_success < 0 {
            return wrong("consecutiveSuccessLimit", consecutive_success, "consecutiveSuccessLimit must be >= 0");
        }
        if failure < -1 {
            return wrong("failureLimit", failure, "failureLimit must be >= -1");
        }
        if failure == -1 && consecutive_success == 0 {
            let detail = "failureLimit -1 needs a consecutiveSuccessLimit > 0: nothing could end the metric otherwise";
            return wrong("failureLimit", failure, detail);
        }
        if inconclusive < 0 {
            return wrong("inconclusiveLimit", inconclusive, "inconclusiveLimit must be >= 0");
        }
        if consecutive_error < 0 {
            return wrong("consecutiveErrorLimit", consecutive_error, "consecutiveErrorLimit must be >= 0");
        }
        if count < 0 {
            // In Argo Rollouts a first error would then count as success.
            return wrong("count", count, "count must be >= 0");
        }
        if count > 0 {
            if count < failure.max(0).saturating_add(consecutive_success) {
                let detail = match (failure > 0, consecutive_success > 0) {
                    (true, true) => "count must be >= failureLimit + consecutiveSuccessLimit",
                    (false, true) => "count must be >= consecutiveSuccessLimit",
                    _ => "count must be >= failureLimit",
                };
                return wrong("count", count, detail);
            }
            if count < inconclusive {
                return wrong("count", count, "count must be >= inconclusiveLimit");
            }
        }
        if count > 1 && interval.is_none() {
            return Err(FieldError::required(path.child("interval"), "interval must be specified when count > 1"));
        }
        Ok(Self {
            count: if count > 0 {
                Some(count)
            } else if interval.is_none() {
                Some(1)
            } else {
                None
            },
            interval,
            initial_delay: initial_delay.unwrap_or(GoDuration::ZERO),
            failure: (failure >= 0).then_some(failure),
            inconclusive,
            consecutive_error,
            consecutive_success: (consecutive_success > 0).then_some(consecutive_success),
        })
    }
}

/// The number that was written as such or as a text. An empty text is what is left of an argument without a value.
fn number(value: Option<&IntOrString>, path: &FieldPath) -> Result<Option<i32>, FieldError> {
    match value {
        None => Ok(None),
        Some(IntOrString::Int(number)) => Ok(Some(*number)),
        Some(IntOrString::String(text)) if text.is_empty() => Ok(None),
        Some(IntOrString::String(text)) => {
            text.parse().map(Some).map_err(|_| FieldError::invalid(path, text.as_str(), "must be an integer"))
        }
    }
}

fn duration(text: Option<&str>, path: &FieldPath) -> Result<Option<GoDuration>, FieldError> {
    let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(None) };
    let duration: GoDuration =
        text.parse().map_err(|error| FieldError::invalid(path, text, format!("invalid duration: {error}")))?;
    Ok(Some(duration))
}

fn validate_provider(metric: &Metric, path: &FieldPath) -> Result<(), FieldError> {
    let kinds = ProviderKind::of(&metric.provider);
    let kind = match kinds.as_slice() {
        [] => return Err(FieldError::required(path, "no provider specified")),
        [kind] => *kind,
        _ => {
            let fields: Vec<&str> = kinds.iter().map(|kind| kind.field()).collect();
            return Err(FieldError::invalid(path, fields.join(", "), "multiple providers specified"));
        }
    };
    if !kind.supported() {
        return Err(FieldError::forbidden(
            path.child(kind.field()),
            "this provider is not supported yet; prometheus, web and job are",
        ));
    }
    if let Some(address) = metric.provider.prometheus.as_ref().and_then(|prometheus| prometheus.address.as_deref())
        && address.contains("aps-workspaces")
    {
        return Err(FieldError::forbidden(
            path.child("prometheus").child("address"),
            "Amazon Managed Prometheus needs AWS Signature Version 4, which is not supported yet",
        ));
    }
    let authentication = match (&metric.provider.prometheus, &metric.provider.web) {
        (Some(prometheus), _) => Some((ProviderKind::Prometheus, &prometheus.authentication)),
        (None, Some(web)) => Some((ProviderKind::Web, &web.authentication)),
        (None, None) => None,
    };
    if let Some((kind, authentication)) = authentication {
        let path = path.child(kind.field()).child("authentication");
        if authentication.sigv4.as_ref().is_some_and(|sigv4| *sigv4 != Default::default()) {
            return Err(FieldError::forbidden(path.child("sigv4"), "AWS Signature Version 4 is not supported yet"));
        }
        if kind == ProviderKind::Web && authentication.basic_auth.is_some() {
            return Err(FieldError::forbidden(
                path.child("basicAuth"),
                "the web provider supports oauth2 and headers only",
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn metric(mut json: Value) -> Metric {
        let fields = json.as_object_mut().unwrap();
        fields.entry("name").or_insert("m".into());
        fields.entry("provider").or_insert(json!({"web": {"url": "http://x"}}));
        serde_json::from_value(json).unwrap()
    }

    fn limits(json: Value) -> Limits {
        Limits::of(&metric(json), &FieldPath::default()).unwrap()
    }

    #[test]
    fn the_effective_count_follows_count_and_interval() {
        for (json, count) in [
            (json!({}), Some(1)),
            (json!({"count": 0}), Some(1)),
            (json!({"count": 1}), Some(1)),
            (json!({"interval": "1m"}), None),
            (json!({"interval": "1m", "count": 0}), None),
            (json!({"interval": "1m", "count": 3}), Some(3)),
            (json!({"interval": "1m", "count": "3"}), Some(3)),
        ] {
            assert_eq!(limits(json.clone()).count, count, "{json}");
        }
    }

    #[test]
    fn defaults_are_argos() {
        let expected = Limits {
            count: Some(1),
            interval: None,
            initial_delay: GoDuration::ZERO,
            failure: Some(0),
            inconclusive: 0,
            consecutive_error: 4,
            consecutive_success: None,
        };
        assert_eq!(limits(json!({})), expected);
        let limits = limits(json!({"failureLimit": -1, "consecutiveSuccessLimit": 2, "interval": "1s"}));
        assert_eq!((limits.failure, limits.consecutive_success), (None, Some(2)));
    }

    #[test]
    fn a_bad_metric_is_refused_with_field_and_reason() {
        for (json, message) in [
            (
                json!({"consecutiveSuccessLimit": -1}),
                "consecutiveSuccessLimit: Invalid value: -1: consecutiveSuccessLimit must be >= 0",
            ),
            (json!({"failureLimit": -2}), "failureLimit: Invalid value: -2: failureLimit must be >= -1"),
            (
                json!({"failureLimit": -1}),
                "failureLimit: Invalid value: -1: failureLimit -1 needs a consecutiveSuccessLimit > 0: nothing could end the metric otherwise",
            ),
            (json!({"inconclusiveLimit": -1}), "inconclusiveLimit: Invalid value: -1: inconclusiveLimit must be >= 0"),
            (
                json!({"consecutiveErrorLimit": -1}),
                "consecutiveErrorLimit: Invalid value: -1: consecutiveErrorLimit must be >= 0",
            ),
            (json!({"count": 1, "failureLimit": 2}), "count: Invalid value: 1: count must be >= failureLimit"),
            (
                json!({"count": 2, "failureLimit": 1, "consecutiveSuccessLimit": 2, "interval": "1s"}),
                "count: Invalid value: 2: count must be >= failureLimit + consecutiveSuccessLimit",
            ),
            (
                json!({"count": 2, "failureLimit": -1, "consecutiveSuccessLimit": 3, "interval": "1s"}),
                "count: Invalid value: 2: count must be >= consecutiveSuccessLimit",
            ),
            (
                json!({"count": 1, "inconclusiveLimit": 2}),
                "count: Invalid value: 1: count must be >= inconclusiveLimit",
            ),
            (json!({"count": -1}), "count: Invalid value: -1: count must be >= 0"),
            (json!({"count": 2}), "interval: Required value: interval must be specified when count > 1"),
            (
                json!({"interval": "60"}),
                "interval: Invalid value: \"60\": invalid duration: time: missing unit in duration \"60\"",
            ),
            (
                json!({"initialDelay": "soon"}),
                "initialDelay: Invalid value: \"soon\": invalid duration: time: invalid duration \"soon\"",
            ),
            (json!({"count": "many"}), "count: Invalid value: \"many\": must be an integer"),
            (json!({"provider": {}}), "provider: Required value: no provider specified"),
            (
                json!({"provider": {"web": {}, "job": {}}}),
                "provider: Invalid value: \"web, job\": multiple providers specified",
            ),
            (
                json!({"provider": {"plugin": {"a": {}, "b": {}}}}),
                "provider: Invalid value: \"plugin, plugin\": multiple providers specified",
            ),
            (
                json!({"provider": {"kayenta": {}}}),
                "provider.kayenta: Forbidden: this provider is not supported yet; prometheus, web and job are",
            ),
            (
                json!({"provider": {"prometheus": {"authentication": {"sigv4": {"region": "eu-west-1"}}}}}),
                "provider.prometheus.authentication.sigv4: Forbidden: AWS Signature Version 4 is not supported yet",
            ),
            (
                json!({"provider": {"prometheus": {"address": "https://aps-workspaces.eu-west-1.amazonaws.com/x"}}}),
                "provider.prometheus.address: Forbidden: Amazon Managed Prometheus needs AWS Signature Version 4, which is not supported yet",
            ),
            (
                json!({"provider": {"web": {"authentication": {"basicAuth": {"username": "u"}}}}}),
                "provider.web.authentication.basicAuth: Forbidden: the web provider supports oauth2 and headers only",
            ),
        ] {
            let error = validate(&[metric(json.clone())], &FieldPath::new("spec")).unwrap_err();
            assert_eq!(error.to_string(), format!("spec.metrics[0].{message}"), "{json}");
        }
        assert_eq!(
            validate(&[], &FieldPath::new("spec")).unwrap_err().to_string(),
            "spec.metrics: Required value: no metrics specified"
        );
        assert_eq!(
            validate(&[metric(json!({})), metric(json!({}))], &FieldPath::new("spec")).unwrap_err().to_string(),
            "spec.metrics[1].name: Duplicate value: \"m\""
        );
    }

    #[test]
    fn an_empty_sigv4_as_the_server_writes_it_back_is_no_sigv4() {
        let metric = metric(json!({"provider": {"prometheus": {"authentication": {"sigv4": {}}}}}));
        assert!(validate(&[metric], &FieldPath::default()).is_ok());
    }

    #[test]
    fn rules_select_metrics_by_regular_expression() {
        let metrics: Vec<Metric> =
            ["errors-5xx", "errors-4xx", "latency"].iter().map(|name| metric(json!({"name": name}))).collect();
        let dry_run = |pattern: &str| [DryRun { metric_name: pattern.into() }];
        let keep = |pattern: &str, limit| [MeasurementRetention { metric_name: pattern.into(), limit }];
        let path = FieldPath::new("spec");

        let selected = rules(&metrics, &dry_run("^errors-.xx$"), &keep("4", 3), &path).unwrap();
        let shown: Vec<(bool, usize)> = selected.iter().map(|rule| (rule.dry_run, rule.keep)).collect();
        assert_eq!(shown, [(true, 10), (true, 3), (false, 10)]);
        // Later rules win, and a limit of zero is no limit of its own.
        let retention = [keep(".*", 5), keep("latency", 0)].concat();
        let kept: Vec<usize> = rules(&metrics, &[], &retention, &path).unwrap().iter().map(|rule| rule.keep).collect();
        assert_eq!(kept, [5, 5, 10]);

        for (dry_run, retention, message) in [
            (
                &dry_run("nothing")[..],
                &[][..],
                "spec.dryRun[0].metricName: Invalid value: \"nothing\": Rule didn't match any metric name(s)",
            ),
            (
                &dry_run("(")[..],
                &[][..],
                "spec.dryRun[0].metricName: Invalid value: \"(\": must be a valid regular expression",
            ),
            (
                &[][..],
                &keep("nothing", 1)[..],
                "spec.measurementRetention[0].metricName: Invalid value: \"nothing\": Rule didn't match any metric name(s)",
            ),
        ] {
            assert_eq!(rules(&metrics, dry_run, retention, &path).unwrap_err().to_string(), message);
        }
    }
}
