//! `tidegate lint`: everything that is wrong with manifests, before the cluster sees them.

use std::path::PathBuf;
use std::process::ExitCode;

use super::manifest::{self, Object};
use crate::api::names::GROUP;
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
struct Report {
    checked: usize,
    errors: Vec<String>,
    warnings: Vec<String>,
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

fn check(objects: &[Object]) -> Report {
    let mut report = Report::default();
    for object in objects {
        let checks: [(&str, fn(&Object, &mut Report)); 5] = [
            ("Rollout", check_rollout),
            ("AnalysisTemplate", check_shape::<AnalysisTemplate>),
            ("ClusterAnalysisTemplate", check_shape::<ClusterAnalysisTemplate>),
            ("AnalysisRun", check_shape::<AnalysisRun>),
            ("Experiment", check_shape::<Experiment>),
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
    for warning in validation::warnings(&rollout) {
        report.warnings.push(format!("{}: {warning}", place(object)));
    }
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
        Err(error) => {
            report.errors.push(format!("{}: {error}", place(object)));
            None
        }
    }
}

fn place(object: &Object) -> String {
    format!("{}: {} {}", object.source, object.kind(), object.name())
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
spec: {replicas: many}
"#;

    #[test]
    fn all_errors_of_all_documents_come_at_once() {
        let report = check(&manifest::parse("web.yaml", MANIFEST).unwrap());
        assert_eq!(report.checked, 2);
        let expected = [
            "web.yaml (document 2): Rollout web: spec.minReadySecond: unknown field",
            "web.yaml (document 2): Rollout web: spec.strategy.canary.steps[0].setWeigth: unknown field",
            "web.yaml (document 2): Rollout web: spec.replicas: Invalid value: -1: must be greater than or equal to 0",
            "web.yaml (document 2): Rollout web: spec.strategy.canary.steps[0]: Invalid value: {}: a step must have one of",
            "web.yaml (document 2): Rollout web: spec.strategy.canary.steps[1].pause.duration: Invalid value: \"soon\"",
            "web.yaml (document 3): Rollout other: spec.replicas: invalid type: string \"many\", expected i32",
        ];
        for (found, expected) in report.errors.iter().zip(expected) {
            assert!(found.starts_with(expected), "{:#?}", report.errors);
        }
        assert_eq!(report.errors.len(), expected.len(), "{:#?}", report.errors);
        assert_eq!(report.warnings.len(), 1);
    }

    #[test]
    fn lists_are_taken_apart() {
        let list = r#"{"kind": "List", "items": [{"kind": "A"}, {"kind": "BList", "items": [{"kind": "B"}]}]}"#;
        let objects = manifest::parse("list.json", list).unwrap();
        assert_eq!(objects.iter().map(Object::kind).collect::<Vec<_>>(), ["A", "B"]);
    }
}
