//! `tidegate lint`: everything that is wrong with manifests, before the cluster sees them.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use super::manifest::{self, Object};
use crate::analysis::spec::{self, Purpose, Source};
use crate::analysis::templates::Templates;
use crate::api::analysis::AnalysisTemplateSpec;
use crate::api::canary::CanaryStrategy;
use crate::api::field_error::FieldPath;
use crate::api::names::GROUP;
use crate::api::steps::{RolloutAnalysis, TemplateRef};
use crate::api::{AnalysisRun, AnalysisTemplate, ClusterAnalysisTemplate, Experiment, Rollout, validation};

/// Check Rollouts and AnalysisTemplates in manifests, all errors at once
#[derive(Debug, clap::Args)]
pub struct Lint {
    /// File or folder with manifests, or - for standard input; may be repeated
    #[arg(long = "filename", short = 'f', required = true, num_args = 1..)]
    filename: Vec<PathBuf>,
}

/// What was found.
#[derive(Debug, Default)]
pub struct Report {
    /// Objects of our kinds.
    pub checked: usize,
    pub errors: Vec<String>,
    pub warnings: Vec<String>,
    /// The templates among the objects.
    templates: Templates,
}

impl Lint {
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        let report = check(&manifest::read(&self.filename)?);
        for warning in &report.warnings {
            println!("warning: {warning}");
        }
        for error in &report.errors {
            println!("error: {error}");
        }
        let plural = |count: usize, noun: &str| format!("{count} {noun}{}", if count == 1 { "" } else { "s" });
        println!(
            "{} checked: {}, {}",
            plural(report.checked, "object"),
            plural(report.errors.len(), "error"),
            plural(report.warnings.len(), "warning"),
        );
        Ok(if report.errors.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

type Check = fn(&Object, &mut Report);

/// What an object of our kinds has that nobody reads, or that has the wrong type.
pub fn shape(object: &Object) -> Vec<String> {
    let mut report = Report::default();
    match object.kind() {
        "Rollout" => check_shape::<Rollout>(object, &mut report),
        "Experiment" => check_shape::<Experiment>(object, &mut report),
        "AnalysisTemplate" => check_shape::<AnalysisTemplate>(object, &mut report),
        "ClusterAnalysisTemplate" => check_shape::<ClusterAnalysisTemplate>(object, &mut report),
        _ => check_shape::<AnalysisRun>(object, &mut report),
    }
    report.errors
}

/// Checks the objects that are of our kinds, and leaves the others alone.
pub fn check(objects: &[Object]) -> Report {
    let mut report = Report { templates: templates(objects), ..Report::default() };
    for object in objects {
        let checks: [(&str, Check); 5] = [
            ("Rollout", check_rollout),
            ("AnalysisTemplate", check_template),
            ("ClusterAnalysisTemplate", check_cluster_template),
            ("AnalysisRun", check_shape::<AnalysisRun>),
            ("Experiment", check_experiment),
        ];
        if let Some((_, check)) = checks.iter().find(|(kind, _)| object.is(GROUP, kind)) {
            report.checked += 1;
            check(object, &mut report);
        }
    }
    report
}

fn check_rollout(object: &Object, report: &mut Report) {
    let Some(rollout) = decode::<Rollout>(object, report) else { return };
    for path in rollout.spec.template.iter().flat_map(|template| template.unknown_fields()) {
        report.errors.push(format!("{}: spec.template.{path}: unknown field", place(object)));
    }
    for error in validation::rollout(&rollout) {
        report.errors.push(format!("{}: {error}", place(object)));
    }
    check_analyses(object, &rollout, report);
    for warning in validation::warnings(&rollout) {
        report.warnings.push(format!("{}: {warning}", place(object)));
    }
}

/// The analyses of a Rollout whose templates are among the objects.
fn check_analyses(object: &Object, rollout: &Rollout, report: &mut Report) {
    let strategy = &rollout.spec.strategy;
    let trials: Vec<_> = strategy.canary.iter().flat_map(CanaryStrategy::experiment_analyses).collect();
    let trials = trials.iter().map(|(path, analysis)| (path.clone(), analysis, Purpose::Experiment));
    let placed = strategy.analyses().map(|(path, placed)| {
        let (analysis, purpose) = spec::purpose(placed);
        (path, analysis, purpose)
    });
    for (path, analysis, purpose) in placed.chain(trials) {
        if report.lacks(object, &path, &analysis.templates) {
            continue;
        }
        let source = Source { rollout, stable_hash: "", latest_hash: "", templates: &report.templates };
        let errors = spec::validate_reference(analysis, purpose, &path, source);
        report.errors.extend(errors.iter().map(|error| format!("{}: {error}", place(object))));
    }
}

fn check_experiment(object: &Object, report: &mut Report) {
    let Some(experiment) = decode::<Experiment>(object, report) else { return };
    for error in validation::experiment(&experiment) {
        report.errors.push(format!("{}: {error}", place(object)));
    }
    let spec = &experiment.spec;
    for (index, analysis) in spec.analyses.iter().enumerate() {
        let path = FieldPath::new("spec.analyses").index(index);
        let templates = [analysis.template()];
        if report.lacks(object, &path, &templates) {
            continue;
        }
        let (dry_run, retention) = (&spec.dry_run, &spec.measurement_retention);
        let made = spec::from_templates(&templates, &analysis.args, dry_run, retention, &report.templates);
        report.errors.extend(made.err().map(|error| format!("{}: {path}: {error}", place(object))));
    }
}

fn check_template(object: &Object, report: &mut Report) {
    if let Some(template) = decode::<AnalysisTemplate>(object, report) {
        check_metrics(object, &template.spec, false, report);
    }
}

fn check_cluster_template(object: &Object, report: &mut Report) {
    if let Some(template) = decode::<ClusterAnalysisTemplate>(object, report) {
        check_metrics(object, &template.spec.0, true, report);
    }
}

/// The metrics of a template that needs no arguments from outside. Those of the others are checked with the Rollouts that
/// use them.
fn check_metrics(object: &Object, template: &AnalysisTemplateSpec, cluster_scope: bool, report: &mut Report) {
    let open = template.args.iter().any(|arg| arg.value.is_none() && arg.value_from.is_none());
    let analysis = RolloutAnalysis {
        templates: vec![TemplateRef { template_name: object.name().to_owned(), cluster_scope }],
        ..RolloutAnalysis::default()
    };
    if open || !template.templates.iter().all(|reference| report.has(reference)) {
        return;
    }
    // What a Rollout tells by itself is none of the template's mistakes.
    let mut rollout = Rollout::default();
    rollout.spec.strategy.canary = Some(CanaryStrategy {
        canary_service: "canary".to_owned(),
        stable_service: "stable".to_owned(),
        ..CanaryStrategy::default()
    });
    let source = Source { rollout: &rollout, stable_hash: "", latest_hash: "", templates: &report.templates };
    let errors = spec::validate_reference(&analysis, Purpose::Background, &FieldPath::new("spec"), source);
    // The path leads to the analysis that stands in for a Rollout's: only what is wrong counts here.
    report.errors.extend(errors.iter().map(|error| format!("{}: {}", place(object), error.detail)));
}

impl Report {
    fn has(&self, reference: &TemplateRef) -> bool {
        let templates = if reference.cluster_scope { &self.templates.cluster } else { &self.templates.namespaced };
        templates.contains_key(&reference.template_name)
    }

    /// Whether a template of an analysis is not among the objects, which is told.
    fn lacks(&mut self, object: &Object, path: &FieldPath, templates: &[TemplateRef]) -> bool {
        let Some(absent) = templates.iter().find(|reference| !self.has(reference)) else { return false };
        self.warnings.push(format!(
            "{}: {path}: template {:?} is not among the files, so what uses it is not checked",
            place(object),
            absent.template_name
        ));
        true
    }
}

/// The templates that can be read; those that cannot are told of when their turn comes.
pub fn templates(objects: &[Object]) -> Templates {
    let mut templates = Templates::default();
    for object in objects {
        let name = object.name().to_owned();
        if object.is(GROUP, "AnalysisTemplate")
            && let Ok((template, _)) = object.decode::<AnalysisTemplate>()
        {
            templates.namespaced.insert(name, Arc::new(template.spec));
        } else if object.is(GROUP, "ClusterAnalysisTemplate")
            && let Ok((template, _)) = object.decode::<ClusterAnalysisTemplate>()
        {
            templates.cluster.insert(name, Arc::new(template.spec.0));
        }
    }
    templates
}

/// Whether the fields exist and have the right types.
fn check_shape<T: serde::de::DeserializeOwned>(object: &Object, report: &mut Report) {
    decode::<T>(object, report);
}

fn decode<T: serde::de::DeserializeOwned>(object: &Object, report: &mut Report) -> Option<T> {
    match object.decode::<T>() {
        Ok((typed, unknown)) => {
            for path in unknown {
                report.errors.push(format!("{}: {path}: unknown field", place(object)));
            }
            Some(typed)
        }
        Err(errors) => {
            report.errors.extend(errors.iter().map(|error| format!("{}: {error}", place(object))));
            None
        }
    }
}

fn place(object: &Object) -> String {
    let name = if object.name().is_empty() { "without a name" } else { object.name() };
    format!("{}: {} {name}", object.source, object.kind())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANIFEST: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: web}
---
apiVersion: argoproj.io/v1alpha1
kind: Rollout
metadata: {name: web}
spec:
  replicas: -1
  minReadySecond: 5
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}, annotations: {anything: goes}}
    spec: {containers: [{name: web, image: "web:1"}]}
  strategy:
    canary:
      stableService: web-stable
      trafficRouting: {nginx: {stableIngress: web, canaryService: web-canary}}
      steps: [{setWeigth: 5}, {pause: {duration: soon}}]
---
apiVersion: argoproj.io/v1alpha1
kind: Rollout
metadata: {name: other}
spec:
  replicas: many
  paused: [no]
  template: {metadata: {labels: {app: web}}}
  strategy:
    blueGreen: {activeService: 7}
    canary: {steps: [{setWeight: half}, {setWeigth: 5}, later]}
---
apiVersion: argoproj.io/v1alpha1
kind: Rollout
metadata: {name: both}
spec:
  selector: {matchLabels: {app: web}}
  template: {metadata: {labels: {app: web}}, spec: {containers: [{name: web, image: "web:1"}]}}
  strategy:
    blueGreen: {}
    canary: {steps: [{}]}
"#;

    #[test]
    fn all_errors_of_all_documents_come_at_once() {
        let report = check(&manifest::parse("web.yaml", MANIFEST).unwrap());
        assert_eq!(report.checked, 3);
        let expected = [
            "web.yaml (document 2): Rollout web: spec.minReadySecond: unknown field",
            "web.yaml (document 2): Rollout web: spec.strategy.canary.steps[0].setWeigth: unknown field",
            "web.yaml (document 2): Rollout web: spec.replicas: Invalid value: -1: must be greater than or equal to 0",
            "web.yaml (document 2): Rollout web: spec.strategy.canary.steps[0]: Invalid value: {}: a step must have one of",
            "web.yaml (document 2): Rollout web: spec.strategy.canary.steps[1].pause.duration: Invalid value: \"soon\"",
            "web.yaml (document 3): Rollout other: spec.paused: invalid type: sequence, expected a boolean",
            "web.yaml (document 3): Rollout other: spec.replicas: invalid type: string \"many\", expected i32",
            "web.yaml (document 3): Rollout other: spec.strategy.blueGreen.activeService: invalid type: integer `7`",
            "web.yaml (document 3): Rollout other: spec.strategy.canary.steps[0].setWeight: invalid type: string \"half\"",
            "web.yaml (document 3): Rollout other: spec.strategy.canary.steps[2]: invalid type: string \"later\"",
            "web.yaml (document 3): Rollout other: spec.strategy.canary.steps[1].setWeigth: unknown field",
            "web.yaml (document 4): Rollout both: spec.strategy: Invalid value: {\"blueGreen\":{},\"canary\":{}}: only one of",
            "web.yaml (document 4): Rollout both: spec.strategy.blueGreen.activeService: Invalid value: \"\"",
            "web.yaml (document 4): Rollout both: spec.strategy.canary.steps[0]: Invalid value: {}: a step must have one of",
        ];
        for (found, expected) in report.errors.iter().zip(expected) {
            assert!(found.starts_with(expected), "{:#?}", report.errors);
        }
        assert_eq!(report.errors.len(), expected.len(), "{:#?}", report.errors);
        assert_eq!(report.warnings.len(), 1);
    }

    const ANALYSED: &str = r#"
apiVersion: argoproj.io/v1alpha1
kind: AnalysisTemplate
metadata: {name: success-rate}
spec:
  args: [{name: service}]
  metrics:
  - {name: rate, interval: 5 seconds, provider: {prometheus: {query: "up{service=\"{{args.service}}\"}"}}}
---
apiVersion: argoproj.io/v1alpha1
kind: AnalysisTemplate
metadata: {name: alone}
spec: {metrics: [{name: rate, count: 5, provider: {web: {url: "http://web"}}}]}
---
apiVersion: argoproj.io/v1alpha1
kind: Rollout
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template: {metadata: {labels: {app: web}}, spec: {containers: [{name: web, image: "web:1"}]}}
  strategy:
    canary:
      analysis: {templates: [{templateName: success-rate}], args: [{name: service, value: web}]}
      steps: [{analysis: {templates: [{templateName: elsewhere}]}}]
"#;

    #[test]
    fn templates_are_checked_with_what_uses_them() {
        let report = check(&manifest::parse("web.yaml", ANALYSED).unwrap());
        let found = format!("{:#?}", report.errors);
        assert_eq!(report.errors.len(), 2, "{found}");
        assert!(report.errors[0].starts_with("web.yaml (document 2): AnalysisTemplate alone: "), "{found}");
        assert!(report.errors[0].contains("interval"), "{found}");
        let at = "web.yaml (document 3): Rollout web: spec.strategy.canary.analysis.templates: ";
        assert!(report.errors[1].starts_with(at) && report.errors[1].contains("interval"), "{found}");
        assert_eq!(report.warnings.len(), 1);
        assert!(report.warnings[0].contains("template \"elsewhere\" is not among the files"), "{:?}", report.warnings);
    }

    const TRIED: &str = r#"
apiVersion: argoproj.io/v1alpha1
kind: AnalysisTemplate
metadata: {name: errors}
spec:
  args: [{name: service}]
  metrics: [{name: errors, interval: 5s, provider: {prometheus: {query: "up{service=\"{{args.service}}\"}"}}}]
---
apiVersion: argoproj.io/v1alpha1
kind: Rollout
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template: {metadata: {labels: {app: web}}, spec: {containers: [{name: web, image: "web:1"}]}}
  strategy:
    canary:
      steps:
      - experiment:
          templates: [{name: trial, specRef: canary}]
          analyses:
          - {name: whole, templateName: errors, args: [{name: service, value: web}]}
          - {name: open, templateName: errors}
          - {name: away, templateName: elsewhere}
---
apiVersion: argoproj.io/v1alpha1
kind: Experiment
metadata: {name: trial}
spec:
  templates:
  - {name: trial, selector: {matchLabels: {app: web}}, template: {metadata: {labels: {app: web}}, spec: {containers: [{name: web, image: "web:1"}]}}}
  analyses:
  - {name: whole, templateName: errors, args: [{name: service, value: web}]}
  - {name: open, templateName: errors}
  - {name: away, templateName: elsewhere}
"#;

    #[test]
    fn the_analyses_of_experiments_are_checked_like_those_of_steps() {
        let report = check(&manifest::parse("web.yaml", TRIED).unwrap());
        let expected = [
            "web.yaml (document 2): Rollout web: spec.strategy.canary.steps[0].experiment.analyses[1].templates: \
             Invalid value: \"templateNames: [errors]\": args.service was not resolved",
            "web.yaml (document 3): Experiment trial: spec.analyses[1]: args.service was not resolved",
        ];
        assert_eq!(report.errors, expected);
        let absent = "template \"elsewhere\" is not among the files, so what uses it is not checked";
        let expected = [
            format!(
                "web.yaml (document 2): Rollout web: spec.strategy.canary.steps[0].experiment.analyses[2]: {absent}"
            ),
            format!("web.yaml (document 3): Experiment trial: spec.analyses[2]: {absent}"),
        ];
        assert_eq!(report.warnings, expected);
    }

    #[test]
    fn lists_are_taken_apart() {
        let list = r#"{"kind": "List", "items": [{"kind": "A"}, {"kind": "BList", "items": [{"kind": "B"}]}]}"#;
        let objects = manifest::parse("list.json", list).unwrap();
        assert_eq!(objects.iter().map(Object::kind).collect::<Vec<_>>(), ["A", "B"]);
    }
}
