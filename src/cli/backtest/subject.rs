//! What is tried: the templates of the user's files as one analysis, with its arguments.

use std::collections::BTreeSet;
use std::path::PathBuf;

use anyhow::{Context, bail};
use jiff::{SignedDuration, Timestamp};
use regex::Regex;

use crate::analysis::expr;
use crate::analysis::machine::{self, Asked};
use crate::analysis::metric::ProviderKind;
use crate::analysis::secrets::Secrets;
use crate::analysis::spec::{self, Source};
use crate::api::Rollout;
use crate::api::analysis::{AnalysisRunSpec, Argument};
use crate::api::duration::GoDuration;
use crate::api::names::GROUP;
use crate::api::providers::{Authentication, Prometheus as Settings};
use crate::api::resource::{ANALYSIS_TEMPLATE, CLUSTER_ANALYSIS_TEMPLATE};
use crate::api::steps::{RolloutAnalysis, RolloutAnalysisArg, TemplateRef};
use crate::cli::lint;
use crate::cli::manifest::{self, Object};

/// How long a run lasts whose metrics go on until they are told to stop.
const ENDLESS: SignedDuration = SignedDuration::from_mins(30);
/// How much longer than its metrics ask for a run may last: an answer that is an error is asked for again.
const RETRIES: SignedDuration = SignedDuration::from_mins(2);

/// Stands for the hash of a ReplicaSet, which manifests do not tell.
const NO_HASH: &str = "hash-that-nobody-knows";

/// What to take of the files.
#[derive(Clone, Debug)]
pub struct Choice {
    pub files: Vec<PathBuf>,
    /// The templates; all when empty.
    pub templates: Vec<String>,
    pub arguments: Vec<(String, String)>,
    pub namespace: Option<String>,
    /// Whether Prometheus is to be asked, for which secrets are needed.
    pub asks: bool,
    /// Whether there are others, so that the name says the file.
    pub told_apart: bool,
}

/// An analysis that can be run over the past.
#[derive(Clone, Debug)]
pub struct Subject {
    /// The names of its templates.
    pub name: String,
    pub namespace: String,
    /// Without what only a server would look at.
    pub spec: AnalysisRunSpec,
    pub secrets: Secrets,
    /// Arguments whose values are never to be written down.
    pub secret_arguments: BTreeSet<String>,
    pub asked: Vec<Asked>,
    /// How Prometheus is asked.
    pub settings: Settings,
    pub notes: Vec<String>,
}

/// A query of a metric.
#[derive(Clone, Debug, PartialEq)]
pub struct Query {
    pub metric: String,
    pub text: String,
    /// How long before the measurement its values begin: more than nothing for a range of them.
    pub reach: SignedDuration,
}

/// `NAME=VALUE`.
pub fn argument(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or_else(|| format!("{text:?} is not NAME=VALUE"))?;
    Ok((name.to_owned(), value.to_owned()))
}

impl Subject {
    /// # Errors
    /// The manifests are wrong, there is no such template, an argument has no value, or nothing in it asks Prometheus.
    pub fn read(choice: &Choice) -> anyhow::Result<Self> {
        let objects = manifest::read(&choice.files)?;
        let checked = lint::check(&objects);
        if !checked.errors.is_empty() {
            bail!("{}", checked.errors.join("\n"));
        }
        let mut subject = Self::of(&objects, choice)?;
        if choice.told_apart {
            let files = choice.files.iter().map(|file| file.file_name().unwrap_or(file.as_os_str()).to_string_lossy());
            subject.name = format!("{} ({})", subject.name, files.collect::<Vec<_>>().join(", "));
        }
        Ok(subject)
    }

    fn of(objects: &[Object], choice: &Choice) -> anyhow::Result<Self> {
        let chosen = templates(objects, &choice.templates)?;
        let references: Vec<TemplateRef> = chosen.iter().map(|(_, reference)| reference.clone()).collect();
        let mut notes = Vec::new();
        let mut spec = spec(objects, &references, choice, &mut notes)?;
        let secrets = secrets(&spec, choice.asks)?;
        keep_prometheus(&mut spec, &mut notes)?;
        let settings = settings(&spec, &secrets, &mut notes)?;
        for metric in &mut spec.metrics {
            if let Some(prometheus) = &mut metric.provider.prometheus {
                // Whoever answers from memory needs to know nothing of this.
                prometheus.authentication = Authentication::default();
                (prometheus.address, prometheus.timeout) = (None, None);
                prometheus.headers.clear();
            }
        }
        let asked = machine::asked(&spec, &secrets).map_err(anyhow::Error::msg)?;
        let own = chosen.iter().find_map(|(object, _)| object.value["metadata"]["namespace"].as_str());
        let namespace = choice.namespace.as_deref().or(own).unwrap_or("default").to_owned();
        let name = references.iter().map(|it| it.template_name.as_str()).collect::<Vec<_>>().join(", ");
        let secret_arguments = secret_arguments(objects);
        let subject = Self { name, namespace, spec, secrets, secret_arguments, asked, settings, notes };
        subject.queries()?;
        if subject.counters().iter().any(|selector| selector.contains(NO_HASH)) {
            bail!(
                "versions are told apart by their ReplicaSets, which manifests do not name: say canaryReplicaSet and \
                 stableReplicaSet in compare"
            );
        }
        Ok(subject)
    }

    /// How long a run may last.
    pub fn lasts(&self) -> SignedDuration {
        let endless = self.asked.iter().any(|asked| asked.lasts().is_none()).then_some(ENDLESS);
        let ends = self.asked.iter().filter_map(Asked::lasts).max().map(|lasts| lasts.saturating_add(RETRIES));
        let lasts = endless.max(ends).unwrap_or(ENDLESS);
        // No run is longer than Prometheus remembers.
        SignedDuration::from_secs(lasts.as_secs().clamp(1, 365 * 86_400))
    }

    /// The selectors of the counters that comparisons are fed from.
    pub fn counters(&self) -> Vec<String> {
        let comparisons = self.asked.iter().filter_map(|asked| asked.limits.comparison.as_ref());
        let selectors = comparisons.flat_map(|comparison| {
            let (canary, stable) = comparison.queries(&self.namespace);
            [canary, stable].into_iter().flat_map(|queries| [queries.judged.selector().to_owned(), queries.total])
        });
        let mut selectors: Vec<String> = selectors.collect();
        selectors.sort();
        selectors.dedup();
        selectors
    }

    /// The queries of all other metrics, each once.
    ///
    /// # Errors
    /// A range has times that cannot be read.
    pub fn queries(&self) -> anyhow::Result<Vec<Query>> {
        let mut queries: Vec<Query> = Vec::new();
        for Asked { metric, .. } in &self.asked {
            let Some(prometheus) = metric.provider.prometheus.as_ref().filter(|_| metric.compare.is_none()) else {
                continue;
            };
            let query = Query {
                metric: metric.name.clone(),
                text: prometheus.query.clone().unwrap_or_default(),
                reach: stretches(prometheus)
                    .with_context(|| format!("metric {}", metric.name))?
                    .first()
                    .copied()
                    .unwrap_or_default(),
            };
            match queries.iter_mut().find(|known| known.text == query.text) {
                Some(known) => known.reach = known.reach.max(query.reach),
                None => queries.push(query),
            }
        }
        Ok(queries)
    }

    /// The longest time of which all times from the start of a run to a measurement are a multiple, in milliseconds.
    pub fn beat(&self) -> i64 {
        let of_range = |asked: &Asked| {
            asked.metric.provider.prometheus.as_ref().and_then(|it| stretches(it).ok()).unwrap_or_default()
        };
        let queried = self.asked.iter().filter(|asked| asked.metric.compare.is_none());
        let stretches = queried.flat_map(|asked| [asked.stretches(), of_range(asked)].concat());
        stretches.fold(0, |beat, stretch| common(beat, i64::try_from(stretch.as_millis()).unwrap_or(0)))
    }
}

/// The greatest common divisor.
pub fn common(a: i64, b: i64) -> i64 {
    if b == 0 { a.abs() } else { common(b, a % b) }
}

/// Of a metric that asks for a range: how long before the measurement it begins and ends, and its steps.
fn stretches(prometheus: &Settings) -> anyhow::Result<Vec<SignedDuration>> {
    let Some(range) = &prometheus.range_query else { return Ok(Vec::new()) };
    // Any instant: what counts is the distance.
    let now = Timestamp::UNIX_EPOCH + SignedDuration::from_hours(365 * 24);
    let before = |name: &str, source: &Option<String>| {
        let instant = expr::evaluate_time(source.as_deref().unwrap_or_default(), now);
        let instant = instant.map_err(|error| anyhow::anyhow!("rangeQuery.{name}: {}", error.message))?;
        Ok::<_, anyhow::Error>(now.duration_since(instant))
    };
    let step: GoDuration = range.step.as_deref().unwrap_or_default().parse().context("rangeQuery.step")?;
    Ok(vec![before("start", &range.start)?, before("end", &range.end)?, step.into()])
}

/// The templates that are to be run as one analysis.
fn templates<'a>(objects: &'a [Object], names: &[String]) -> anyhow::Result<Vec<(&'a Object, TemplateRef)>> {
    let found = objects.iter().filter_map(|object| {
        let is = |kind: &str| object.is(GROUP, kind);
        let cluster_scope = is(CLUSTER_ANALYSIS_TEMPLATE.kind);
        let reference = TemplateRef { template_name: object.name().to_owned(), cluster_scope };
        (is(ANALYSIS_TEMPLATE.kind) || cluster_scope).then_some((object, reference))
    });
    let all: Vec<_> = found.collect();
    if all.is_empty() {
        bail!("there is no AnalysisTemplate and no ClusterAnalysisTemplate in the files");
    }
    if let Some(missing) = names.iter().find(|name| all.iter().all(|(object, _)| object.name() != *name)) {
        bail!("there is no template {missing:?} in the files");
    }
    Ok(all.into_iter().filter(|(object, _)| names.is_empty() || names.iter().any(|it| it == object.name())).collect())
}

/// The run that a Rollout would make, or a person if there is none.
fn spec(
    objects: &[Object],
    references: &[TemplateRef],
    choice: &Choice,
    notes: &mut Vec<String>,
) -> anyhow::Result<AnalysisRunSpec> {
    let templates = lint::templates(objects);
    let given = |name: &str| choice.arguments.iter().rev().find(|(own, _)| own == name).map(|(_, value)| value.clone());
    let rollouts: Vec<&Object> = objects.iter().filter(|object| object.is(GROUP, "Rollout")).collect();
    let [object] = rollouts.as_slice() else {
        if rollouts.len() > 1 {
            notes.push("there are several Rollouts in the files: none of them gives names and arguments".to_owned());
        }
        let arguments = choice.arguments.iter().map(|(name, value)| Argument {
            name: name.clone(),
            value: Some(value.clone()),
            value_from: None,
        });
        let arguments: Vec<Argument> = arguments.collect();
        return spec::from_templates(references, &arguments, &[], &[], &templates).map_err(unresolved);
    };
    let (rollout, _) = object.decode::<Rollout>().map_err(|errors| anyhow::Error::msg(errors.join("; ")))?;
    let mut args: Vec<RolloutAnalysisArg> = Vec::new();
    for analysis in rollout.spec.strategy.analyses().map(|(_, placed)| spec::purpose(placed).0) {
        if analysis.templates.iter().any(|it| references.contains(it)) {
            let new = analysis.args.iter().filter(|arg| args.iter().all(|known| known.name != arg.name));
            let new: Vec<_> = new.cloned().collect();
            args.extend(new);
        }
    }
    for (name, _) in &choice.arguments {
        args.retain(|arg| arg.name != *name);
        args.push(RolloutAnalysisArg { name: name.clone(), value: given(name).unwrap_or_default(), value_from: None });
    }
    let hash =
        |arg: &&RolloutAnalysisArg| arg.value_from.as_ref().is_some_and(|it| it.pod_template_hash_value.is_some());
    if let Some(arg) = args.iter().find(hash) {
        bail!("argument {0} is the hash of a ReplicaSet: say which, by --arg {0}=HASH", arg.name);
    }
    let analysis = RolloutAnalysis { templates: references.to_vec(), args, ..RolloutAnalysis::default() };
    let source = Source { rollout: &rollout, stable_hash: NO_HASH, latest_hash: NO_HASH, templates: &templates };
    spec::for_rollout(&analysis, source).map_err(unresolved)
}

fn unresolved(error: spec::SpecError) -> anyhow::Error {
    match error {
        spec::SpecError::Unresolved { name } => {
            anyhow::anyhow!("argument {name} has no value: give it one by --arg {name}=VALUE")
        }
        error => error.into(),
    }
}

fn secrets(spec: &AnalysisRunSpec, asks: bool) -> anyhow::Result<Secrets> {
    let mut secrets = Secrets::default();
    for arg in &spec.args {
        let Some(reference) = arg.value_from.as_ref().and_then(|from| from.secret_key_ref.as_ref()) else { continue };
        if asks {
            bail!(
                "argument {0} is key {1} of Secret {2}, which cannot be read from here: give it by --arg {0}=VALUE",
                arg.name,
                reference.key,
                reference.name
            );
        }
        secrets.insert(reference, Ok(String::new()));
    }
    Ok(secrets)
}

fn secret_arguments(objects: &[Object]) -> BTreeSet<String> {
    let templates = lint::templates(objects);
    let args = templates.namespaced.values().chain(templates.cluster.values()).flat_map(|template| &template.args);
    let secret = args.filter(|arg| arg.value_from.as_ref().is_some_and(|from| from.secret_key_ref.is_some()));
    secret.map(|arg| arg.name.clone()).collect()
}

/// Leaves out what has no history.
fn keep_prometheus(spec: &mut AnalysisRunSpec, notes: &mut Vec<String>) -> anyhow::Result<()> {
    spec.metrics.retain(|metric| {
        let kinds = ProviderKind::of_metric(metric);
        let kept = kinds == [ProviderKind::Prometheus];
        if !kept {
            let kind = kinds.first().map_or("none", |kind| kind.field());
            notes.push(format!(
                "metric {} is left out: its provider ({kind}) has no history. The verdicts are those of the others",
                metric.name
            ));
        }
        kept
    });
    if spec.metrics.is_empty() {
        bail!("none of the metrics asks Prometheus: there is nothing to try");
    }
    // A rule must not fail for want of a metric that was left out.
    let fits = |pattern: &str| {
        Regex::new(pattern).map_or(true, |regex| spec.metrics.iter().any(|metric| regex.is_match(&metric.name)))
    };
    spec.dry_run.retain(|rule| fits(&rule.metric_name));
    spec.measurement_retention.retain(|rule| fits(&rule.metric_name));
    Ok(())
}

/// How the metrics ask their server: all of them are asked of one.
fn settings(spec: &AnalysisRunSpec, secrets: &Secrets, notes: &mut Vec<String>) -> anyhow::Result<Settings> {
    let asked = machine::asked(spec, secrets).map_err(anyhow::Error::msg)?;
    let mut all: Vec<Settings> = Vec::new();
    for settings in asked.iter().filter_map(|asked| asked.metric.provider.prometheus.as_ref()) {
        let settings = Settings { query: None, range_query: None, ..settings.clone() };
        if !all.contains(&settings) {
            all.push(settings);
        }
    }
    if all.len() > 1 {
        notes.push("the metrics ask several servers, or one in several ways: all are asked as the first is".to_owned());
    }
    Ok(all.into_iter().next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEMPLATE: &str = "
apiVersion: argoproj.io/v1alpha1
kind: AnalysisTemplate
metadata: {name: rate, namespace: shop}
spec:
  args: [{name: service}]
  dryRun: [{metricName: smoke}]
  metrics:
  - name: rate
    initialDelay: 1m
    interval: 45s
    count: 4
    provider: {prometheus: {address: 'http://p', query: 'sum(hits{service=\"{{args.service}}\"})'}}
  - {name: smoke, provider: {web: {url: 'http://x'}}}
---
apiVersion: argoproj.io/v1alpha1
kind: AnalysisTemplate
metadata: {name: judged, namespace: shop}
spec:
  metrics: [{name: errors, compare: {source: traefik}}]
";
    const ROLLOUT: &str = "
---
apiVersion: argoproj.io/v1alpha1
kind: Rollout
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template: {metadata: {labels: {app: web}}, spec: {containers: [{name: web, image: 'web:1'}]}}
  strategy:
    canary:
      canaryService: web-canary
      stableService: web-stable
      analysis: {templates: [{templateName: rate}], args: [{name: service, value: web-canary}]}
";

    fn subject(text: &str, templates: &[&str], arguments: &[(&str, &str)]) -> anyhow::Result<Subject> {
        let choice = Choice {
            files: Vec::new(),
            templates: templates.iter().map(|name| (*name).to_owned()).collect(),
            arguments: arguments.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            namespace: None,
            asks: true,
            told_apart: false,
        };
        Subject::of(&manifest::parse("x.yaml", text).unwrap(), &choice)
    }

    #[test]
    fn templates_become_an_analysis_that_asks_prometheus_only() {
        let rate = subject(TEMPLATE, &["rate"], &[("service", "web")]).unwrap();
        assert_eq!(rate.queries().unwrap()[0].text, "sum(hits{service=\"web\"})");
        assert_eq!((rate.name.as_str(), rate.namespace.as_str()), ("rate", "shop"));
        assert_eq!((rate.beat(), rate.lasts().as_secs()), (5000, 60 + 3 * 45 + 120));
        assert_eq!(rate.settings.address.as_deref(), Some("http://p"));
        assert!(rate.notes[0].contains("metric smoke is left out: its provider (web)"), "{:?}", rate.notes);

        for (templates, arguments, problem) in [
            (&["rate"][..], &[][..], "argument service has no value: give it one by --arg service=VALUE"),
            (&["other"], &[], "there is no template \"other\" in the files"),
            (&["judged"], &[], "canaryService"),
        ] {
            let error = subject(TEMPLATE, templates, arguments).unwrap_err().to_string();
            assert!(error.contains(problem), "{error}");
        }
    }

    #[test]
    fn a_rollout_gives_names_and_arguments() {
        let text = format!("{TEMPLATE}{ROLLOUT}");
        let both = subject(&text, &[], &[]).unwrap();
        assert_eq!(both.queries().unwrap()[0].text, "sum(hits{service=\"web-canary\"})");
        let counters = both.counters();
        assert!(counters.len() == 4 && counters.iter().any(|it| it.contains("shop-web-canary-")), "{counters:?}");
        assert_eq!(both.lasts().as_secs(), 1870 + 120);
        let by_pods = text.replace("traefik", "red");
        let error = subject(&by_pods, &[], &[]).unwrap_err().to_string();
        assert!(error.contains("say canaryReplicaSet and stableReplicaSet"), "{error}");
        let other = subject(&text, &["rate"], &[("service", "mine")]).unwrap();
        assert_eq!(other.queries().unwrap()[0].text, "sum(hits{service=\"mine\"})");
    }

    #[test]
    fn a_range_reaches_back() {
        let range = TEMPLATE.replace(
            "address: 'http://p',",
            "rangeQuery: {start: 'now() - duration(\"10m\")', end: 'now()', step: 7s},",
        );
        let rate = subject(&range, &["rate"], &[("service", "web")]).unwrap();
        assert_eq!(rate.queries().unwrap()[0].reach, SignedDuration::from_mins(10));
        assert_eq!(rate.beat(), 1000);
        assert_eq!((common(12, 18), common(0, 5), common(5, 0)), (6, 5, 5));
    }

    #[test]
    fn secrets_are_asked_of_the_user() {
        let secret =
            TEMPLATE.replace("[{name: service}]", "[{name: service, valueFrom: {secretKeyRef: {name: s, key: k}}}]");
        let error = subject(&secret, &["rate"], &[]).unwrap_err().to_string();
        assert!(error.contains("--arg service=VALUE"), "{error}");
        let given = subject(&secret, &["rate"], &[("service", "x")]).unwrap();
        assert!(given.secret_arguments.contains("service"));
    }
}
