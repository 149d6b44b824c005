//! What the analyses of a release ask, and whether anybody here can answer.
//!
//! The sandbox answers PromQL about its own requests. What it cannot answer is assumed to be answered well: the metric then
//! asks [`ASSUMED`] instead, has no conditions, and is marked wherever it is shown.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::Context;
use jiff::Timestamp;
use regex::Regex;
use serde_json::{Value, json};

use super::report::AssumedAnswer;
use super::setting::Cast;
use crate::api::Rollout;
use crate::api::canary::{CanaryStrategy, Placed};
use crate::api::field_error::FieldPath;
use crate::api::steps::RolloutAnalysis;
use crate::cli::in_process;
use crate::clock::Clock;
use crate::sandbox::Cluster;
use crate::sandbox::prometheus::{Examined, Prometheus};

/// Whom a metric asks whose answer is assumed; the number of the assumption follows.
pub const ASSUMED: &str = "http://assumed.invalid/";
const TEMPLATE: &str = "AnalysisTemplate";
const CLUSTER_TEMPLATE: &str = "ClusterAnalysisTemplate";
/// How often Prometheus scrapes when no query needs it to be more often.
const SCRAPES: u64 = 15;
/// A rate needs some samples in its range.
const SAMPLES_IN_RANGE: u64 = 4;

/// The questions of a release.
#[derive(Clone, Debug)]
pub struct Questions {
    pub assumed: Vec<Assumption>,
    /// How far the queries look back.
    pub reach: Duration,
    /// How often Prometheus has to scrape for the shortest range.
    pub scrape_interval: Duration,
}

/// An answer that is assumed, and the conditions that it meets.
#[derive(Clone, Debug)]
pub struct Assumption {
    pub answer: AssumedAnswer,
    pub success_condition: Option<String>,
    pub failure_condition: Option<String>,
}

/// The analyses of a Rollout and of its experiments, with where they stand.
pub(super) fn analyses(rollout: &Rollout) -> Vec<(FieldPath, RolloutAnalysis)> {
    let strategy = &rollout.spec.strategy;
    let own = strategy.analyses().map(|(path, placed)| match placed {
        Placed::Step(analysis) | Placed::Background(analysis) | Placed::Promotion(analysis) => (path, analysis.clone()),
    });
    own.chain(strategy.canary.iter().flat_map(CanaryStrategy::experiment_analyses)).collect()
}

/// Looks at all templates, and replaces the metrics that nobody here can answer.
pub(super) fn of(rollout: &Rollout, cast: &mut Cast) -> anyhow::Result<Questions> {
    let given = given(rollout);
    let used = used(rollout, cast);
    let examined = in_process::in_virtual_time(async {
        let clock = Clock::starting_at(Timestamp::UNIX_EPOCH);
        let cluster = Cluster::builder().server(in_process::server(&clock, 1)).start();
        let mut examiner = Examiner {
            prometheus: cluster.prometheus().clone(),
            given,
            found: Vec::new(),
            assumed: Vec::new(),
            secrets: Vec::new(),
        };
        let templates = cast
            .objects
            .iter_mut()
            .filter(|((kind, _, name), _)| used.contains(&(kind == CLUSTER_TEMPLATE, name.clone())))
            .filter(|((kind, _, _), _)| kind == TEMPLATE || kind == CLUSTER_TEMPLATE);
        for (_, template) in templates {
            examiner.examine(template);
        }
        examiner
    });
    let Examiner { found, assumed, secrets, .. } = examined.context("starting a runtime")?;
    for (name, key) in secrets {
        let namespace = cast.namespace.clone();
        let entry = cast.objects.entry(("Secret".to_owned(), namespace.clone(), name.clone()));
        let secret = entry.or_insert_with(|| {
            cast.notes.push(format!("Secret {name} is not among the files: made up"));
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": namespace}})
        });
        let data = [&secret["stringData"][&key], &secret["data"][&key]];
        if data.iter().all(|value| value.is_null()) {
            // base64 of "made-up"
            secret["data"][key] = "bWFkZS11cA==".into();
        }
    }
    let shortest = found.iter().filter_map(|examined| examined.shortest_range).min();
    let scrapes = shortest.map_or(SCRAPES, |range| (range.as_secs() / SAMPLES_IN_RANGE).clamp(1, SCRAPES));
    Ok(Questions {
        assumed,
        reach: found.iter().map(|examined| examined.reach).max().unwrap_or_default(),
        scrape_interval: Duration::from_secs(scrapes),
    })
}

/// The templates that the Rollout's analyses use, and those that these use: whether they are for all namespaces, and their
/// names.
fn used(rollout: &Rollout, cast: &Cast) -> BTreeSet<(bool, String)> {
    let of_rollout = analyses(rollout).into_iter().flat_map(|(_, analysis)| analysis.templates);
    let mut open: Vec<(bool, String)> = of_rollout.map(|it| (it.cluster_scope, it.template_name)).collect();
    let mut used = BTreeSet::new();
    while let Some(next) = open.pop() {
        if !used.insert(next.clone()) {
            continue;
        }
        let kind = if next.0 { CLUSTER_TEMPLATE } else { TEMPLATE };
        for template in cast.of_kind(kind).filter(|template| template["metadata"]["name"] == *next.1) {
            let nested = template["spec"]["templates"].as_array().into_iter().flatten();
            open.extend(
                nested
                    .map(|it| (it["clusterScope"] == true, it["templateName"].as_str().unwrap_or_default().to_owned())),
            );
        }
    }
    used
}

/// The values of arguments that the Rollout hands to its analyses, by name.
fn given(rollout: &Rollout) -> BTreeMap<String, String> {
    let args = analyses(rollout).into_iter().flat_map(|(_, analysis)| analysis.args);
    args.map(|arg| (arg.name, if arg.value_from.is_some() { "x".to_owned() } else { arg.value })).collect()
}

struct Examiner {
    prometheus: Prometheus,
    given: BTreeMap<String, String>,
    found: Vec<Examined>,
    assumed: Vec<Assumption>,
    /// Names and keys that arguments come from.
    secrets: Vec<(String, String)>,
}

impl Examiner {
    fn examine(&mut self, template: &mut Value) {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let name = text(&template["metadata"]["name"]);
        let mut values = BTreeMap::new();
        for arg in template["spec"]["args"].as_array().into_iter().flatten() {
            let secret = &arg["valueFrom"]["secretKeyRef"];
            if secret.is_object() {
                self.secrets.push((text(&secret["name"]), text(&secret["key"])));
            }
            values.insert(text(&arg["name"]), arg["value"].as_str().unwrap_or("x").to_owned());
        }
        values.extend(self.given.clone());
        for metric in template["spec"]["metrics"].as_array_mut().into_iter().flatten() {
            self.examine_metric(&name, metric, &values);
        }
    }

    fn examine_metric(&mut self, template: &str, metric: &mut Value, values: &BTreeMap<String, String>) {
        // A comparison makes its queries itself, of what gateways count.
        if !metric["compare"].is_null() {
            return;
        }
        let provider = &mut metric["provider"];
        let (kind, asks, why) = if provider["prometheus"].is_object() {
            let query = provider["prometheus"]["query"].as_str().unwrap_or_default().to_owned();
            match self.prometheus.examine(&filled_in(&query, values)) {
                Ok(examined) => {
                    self.found.push(examined);
                    // There is one Prometheus here, and it asks for no password.
                    if let Some(prometheus) = provider["prometheus"].as_object_mut() {
                        for field in ["address", "authentication", "headers"] {
                            prometheus.remove(field);
                        }
                    }
                    return;
                }
                Err(error) => ("prometheus", query, error.message),
            }
        } else if provider["web"].is_object() {
            let url = provider["web"]["url"].as_str().unwrap_or_default().to_owned();
            ("web", url, "nobody here answers for other services".to_owned())
        } else if provider["job"].is_object() {
            let why = "its container is not run: the Job succeeds after a second".to_owned();
            ("job", String::new(), why)
        } else {
            return;
        };
        let condition = |field: &str| metric[field].as_str().map(str::to_owned);
        let answer = AssumedAnswer {
            template: template.to_owned(),
            metric: metric["name"].as_str().unwrap_or_default().to_owned(),
            provider: kind.to_owned(),
            asks,
            why,
        };
        let assumption = Assumption {
            answer,
            success_condition: condition("successCondition"),
            failure_condition: condition("failureCondition"),
        };
        if kind != "job" {
            metric["provider"] = json!({"web": {"url": format!("{ASSUMED}{}", self.assumed.len())}});
            if let Some(metric) = metric.as_object_mut() {
                metric.remove("successCondition");
                metric.remove("failureCondition");
            }
        }
        self.assumed.push(assumption);
    }
}

/// The text with the arguments whose values are known.
fn filled_in(text: &str, values: &BTreeMap<String, String>) -> String {
    // A constant that is a pattern.
    let argument = Regex::new(r"\{\{\s*args\.([^}\s]+)\s*\}\}").expect("is a pattern");
    let value = |found: &regex::Captures<'_>| values.get(&found[1]).cloned().unwrap_or_else(|| "x".to_owned());
    argument.replace_all(text, value).into_owned()
}
