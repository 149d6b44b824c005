//! What a run will ask of its providers, known before it begins.

use super::{ERROR_RETRY, seconds};
use crate::analysis::args::Values;
use crate::analysis::metric::{self, Limits};
use crate::analysis::secrets::Secrets;
use crate::api::analysis::{AnalysisRunSpec, Metric};
use crate::api::field_error::FieldPath;
use jiff::SignedDuration;

/// A metric of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Asked {
    /// With the values of its arguments, secrets included.
    pub metric: Metric,
    pub limits: Limits,
}

/// The metrics of a run with what ends them.
///
/// # Errors
/// An argument has no value, or a metric could not run: the words are those of the run's message.
pub fn asked(spec: &AnalysisRunSpec, secrets: &Secrets) -> Result<Vec<Asked>, String> {
    let values = Values::with_secrets(&spec.args, secrets);
    let metrics = values.and_then(|values| spec.metrics.iter().map(|metric| values.resolve(metric)).collect());
    let metrics: Vec<Metric> = metrics.map_err(|error| super::unresolvable(&error))?;
    let rules = metric::rules(&metrics, &spec.dry_run, &spec.measurement_retention, &FieldPath::new("spec"));
    let rules = rules.map_err(|error| format!("Analysis spec invalid: {error}"))?;
    Ok(metrics.into_iter().zip(rules).map(|(metric, rules)| Asked { metric, limits: rules.limits }).collect())
}

impl Asked {
    /// From the start of the run to the measurement that ends the metric, if no answer is missing and nothing ends it
    /// sooner; `None` if it goes on until it is told to stop.
    pub fn lasts(&self) -> Option<SignedDuration> {
        if let Some(comparison) = &self.limits.comparison {
            return Some(seconds(comparison.last_look()));
        }
        let intervals = self.limits.count?.saturating_sub(1).max(0);
        let interval = SignedDuration::from(self.limits.interval.unwrap_or_default());
        let delay = SignedDuration::from(self.limits.initial_delay);
        Some(interval.checked_mul(intervals).and_then(|all| delay.checked_add(all)).unwrap_or(SignedDuration::MAX))
    }

    /// Stretches of which every time from the start of the run to a measurement is made.
    pub fn stretches(&self) -> Vec<SignedDuration> {
        let interval = self.limits.interval.map(SignedDuration::from);
        [Some(self.limits.initial_delay.into()), interval, Some(ERROR_RETRY)].into_iter().flatten().collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_metric_says_how_long_it_lasts() {
        for (metric, seconds) in [
            (json!({}), Some(0)),
            (json!({"initialDelay": "1m"}), Some(60)),
            (json!({"count": 5, "interval": "{{args.interval}}"}), Some(80)),
            (json!({"interval": "20s"}), None),
            (json!({"compare": {"source": "traefik", "canaryService": "c", "stableService": "s"}}), Some(1870)),
        ] {
            let mut metric = metric;
            metric["name"] = json!("m");
            metric["provider"] = json!({"prometheus": {"query": "up"}});
            if metric.get("compare").is_some() {
                metric["provider"] = json!({});
            }
            let args = json!([{"name": "interval", "value": "20s"}]);
            let spec = serde_json::from_value(json!({"metrics": [metric], "args": args})).unwrap();
            let lasts = asked(&spec, &Secrets::default()).unwrap()[0].lasts();
            assert_eq!(lasts.map(|lasts| lasts.as_secs()), seconds, "{metric}");
        }
        let open = serde_json::from_value(json!({"metrics": [], "args": [{"name": "service"}]})).unwrap();
        let error = asked(&open, &Secrets::default()).unwrap_err();
        assert_eq!(error, "Unable to resolve metric arguments: argument \"service\" was not supplied");
    }
}
