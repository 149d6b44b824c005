//! The objects as a tree.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;

use super::pods::{Told, told};
use super::table::Node;
use super::wait::end_of;
use super::{Objects, Style, annotation, duration, evidence, hash, owned, revision, roles};
use crate::api::analysis::{AnalysisPhase, AnalysisRun};
use crate::api::experiment::Experiment;
use crate::api::{Rollout, names};
use crate::cli::phase::shown;

/// Pods of one ReplicaSet that are shown one by one.
const PODS: usize = 10;

pub(super) fn rollout(rollout: &Rollout, objects: &Objects, style: Style) -> Node {
    let mut revisions: BTreeMap<i64, Vec<Node>> = BTreeMap::new();
    let mut add = |metadata: &ObjectMeta, node| revisions.entry(revision(metadata)).or_default().push(node);
    for found in owned(&objects.replica_sets, &rollout.metadata) {
        add(&found.metadata, replica_set(found, role_info(rollout, found), objects, style));
    }
    for found in owned(&objects.experiments, &rollout.metadata) {
        add(&found.metadata, experiment(found, Some(rollout), objects, style));
    }
    let newest = revision(&rollout.metadata);
    for found in owned(&objects.analysis_runs, &rollout.metadata) {
        add(&found.metadata, run(found, revision(&found.metadata) >= newest, objects, style));
    }
    Node {
        name: format!("⟳ {}", rollout.name_any()),
        kind: "Rollout",
        status: shown(rollout).phase,
        pending: false,
        age: style.age(&rollout.metadata),
        info: String::new(),
        children: revisions.into_iter().rev().map(|(number, nodes)| revision_node(number, nodes)).collect(),
    }
}

/// A revision that has nothing but a ReplicaSet without pods is one line.
fn revision_node(number: i64, mut nodes: Vec<Node>) -> Node {
    let name = format!("# revision:{number}");
    match nodes.as_mut_slice() {
        [only] if only.status == "ScaledDown" && only.children.is_empty() => {
            Node { name: format!("{name} {}", only.name), ..std::mem::take(only) }
        }
        _ => Node { name, children: nodes, ..Node::default() },
    }
}

pub(super) fn experiment(experiment: &Experiment, of: Option<&Rollout>, objects: &Objects, style: Style) -> Node {
    let status = experiment.status.clone().unwrap_or_default();
    let mut children = Vec::new();
    for found in owned(&objects.replica_sets, &experiment.metadata) {
        let template = annotation(&found.metadata, names::EXPERIMENT_TEMPLATE_NAME).unwrap_or_default();
        let told = status.template_statuses.iter().find(|status| status.name == template);
        let mut info: Vec<String> = Some(template.to_owned()).filter(|name| !name.is_empty()).into_iter().collect();
        info.extend(of.and_then(|rollout| weight(rollout, hash(&found.metadata))));
        info.extend(told.map(|told| told.message.clone()).filter(|message| !message.is_empty()));
        children.push(replica_set(found, info, objects, style));
    }
    let running = !status.phase.completed();
    children.extend(
        owned(&objects.analysis_runs, &experiment.metadata)
            .into_iter()
            .map(|found| run(found, running, objects, style)),
    );
    let end = end_of(experiment).map(|at| format!("ends {}", style.countdown(at)));
    let message = Some(status.message).filter(|message| !message.is_empty() && of.is_some());
    Node {
        name: format!("Σ {}", experiment.name_any()),
        kind: "Experiment",
        status: evidence::phase_name(status.phase),
        pending: status.phase == AnalysisPhase::Running,
        age: style.age(&experiment.metadata),
        info: end.into_iter().chain(message).collect::<Vec<_>>().join(", "),
        children,
    }
}

fn role_info(rollout: &Rollout, replica_set: &ReplicaSet) -> Vec<String> {
    let roles = roles(rollout, replica_set);
    let weight = Some(()).filter(|()| !roles.is_empty()).and_then(|()| weight(rollout, hash(&replica_set.metadata)));
    roles.into_iter().map(str::to_owned).chain(weight).collect()
}

/// The traffic that goes to the pods of a hash, where a router tells.
fn weight(rollout: &Rollout, hash: &str) -> Option<String> {
    let weights = rollout.status.as_ref()?.canary.weights.as_ref()?;
    let all = [&weights.canary, &weights.stable].into_iter().chain(&weights.additional);
    // After a promotion both Services lead to the same pods.
    let found: Vec<i32> = all
        .into_iter()
        .filter(|weight| weight.pod_template_hash == hash && !hash.is_empty())
        .map(|weight| weight.weight)
        .collect();
    (!found.is_empty()).then(|| format!("weight:{}", found.iter().sum::<i32>()))
}

fn replica_set(replica_set: &ReplicaSet, mut info: Vec<String>, objects: &Objects, style: Style) -> Node {
    let specified = replica_set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(0);
    let status = replica_set.status.clone().unwrap_or_default();
    let available = status.available_replicas.unwrap_or(0);
    let phase = match (specified, available) {
        (0, _) if status.replicas == 0 => "ScaledDown",
        (specified, available) if available >= specified => "Healthy",
        _ => "Progressing",
    };
    if phase == "Progressing" {
        info.push(format!("available:{available}/{specified}"));
    }
    let deadline = annotation(&replica_set.metadata, names::SCALE_DOWN_DEADLINE);
    if let Some(deadline) = deadline.and_then(|text| text.parse::<Timestamp>().ok()).filter(|_| specified > 0) {
        let left = -style.since(deadline);
        info.push(if left > 0 { format!("delay:{}", duration(left)) } else { "delay:passed".to_owned() });
    }
    let failure = status
        .conditions
        .iter()
        .flatten()
        .find(|condition| condition.type_ == "ReplicaFailure" && condition.status == "True");
    info.extend(failure.and_then(|failure| failure.message.clone()));
    Node {
        name: format!("⧉ {}", replica_set.name_any()),
        kind: "ReplicaSet",
        status: phase.to_owned(),
        pending: false,
        age: style.age(&replica_set.metadata),
        info: info.join(","),
        children: pods(owned(&objects.pods, &replica_set.metadata), style),
    }
}

/// The pods; of many only those that are not as they should be, and how many others there are.
fn pods(pods: Vec<&Pod>, style: Style) -> Vec<Node> {
    let mut told: Vec<(&Pod, Told)> = pods.into_iter().map(|pod| (pod, told(pod, style))).collect();
    let many = told.len() > PODS;
    let total = told.len();
    if many {
        // Stable: the bad ones first, each group by name as before.
        told.sort_by_key(|(_, told)| told.is_good());
        let bad = told.iter().filter(|(_, told)| !told.is_good()).count();
        told.truncate(bad.clamp(1, PODS - 1));
    }
    let rest = total - told.len();
    let mut nodes: Vec<Node> = told.into_iter().map(|(pod, told)| pod_node(pod, told, style)).collect();
    if rest > 0 {
        nodes.push(Node { name: format!("□ and {rest} more"), kind: "Pod", ..Node::default() });
    }
    nodes
}

fn pod_node(pod: &Pod, told: Told, style: Style) -> Node {
    let restarts = if told.restarts == 0 { String::new() } else { format!(",restarts:{}", told.restarts) };
    let why = told.why.map(|why| format!(", {}", why.split_whitespace().collect::<Vec<_>>().join(" ")));
    Node {
        name: format!("□ {}", pod.name_any()),
        kind: "Pod",
        pending: told.ready < told.total && told.status == "Running",
        status: told.status,
        age: style.age(&pod.metadata),
        info: format!("ready:{}/{}{restarts}{}", told.ready, told.total, why.unwrap_or_default()),
        children: Vec::new(),
    }
}

/// A run, with its metrics when it is of the version on trial, or did not end well.
fn run(run: &AnalysisRun, current: bool, objects: &Objects, style: Style) -> Node {
    let status = run.status.clone().unwrap_or_default();
    let in_detail = current || status.phase != AnalysisPhase::Successful;
    let purpose = run.labels().get(names::ROLLOUT_TYPE).map(|purpose| match run.labels().get(names::STEP_INDEX) {
        Some(index) => format!("{purpose} {index}"),
        None => purpose.clone(),
    });
    let counts = Some(evidence::counts(&status.metric_results)).filter(|counts| !counts.is_empty() && !in_detail);
    let message = Some(status.message.clone()).filter(|message| !message.is_empty());
    let jobs = owned(&objects.jobs, &run.metadata);
    Node {
        name: format!("α {}", run.name_any()),
        kind: "AnalysisRun",
        status: evidence::phase_name(status.phase),
        pending: status.phase == AnalysisPhase::Running,
        age: style.age(&run.metadata),
        info: purpose.into_iter().chain(counts).chain(message).collect::<Vec<_>>().join(", "),
        children: if in_detail { evidence::metrics(run, &jobs, style) } else { Vec::new() },
    }
}
