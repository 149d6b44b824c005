//! What stands above the tree.

use std::collections::BTreeSet;

use k8s_openapi::api::apps::v1::ReplicaSet;
use kube::ResourceExt;

use super::table::wrapped;
use super::wait::{current_step, end_of, waits};
use super::{Objects, Root, Style, duration, hash, owned, revision, roles};
use crate::api::analysis::AnalysisPhase;
use crate::api::experiment::Experiment;
use crate::api::steps::CanaryStep;
use crate::api::{Rollout, names};
use crate::cli::phase::{UNDER_WAY, mark, set_weight, shown};

/// Columns of the labels.
const LABEL: usize = 14;

/// Lines of labels and values.
struct Lines {
    style: Style,
    text: String,
}

impl Lines {
    fn add(&mut self, label: &str, value: &str) {
        let mut label = if label.is_empty() { String::new() } else { format!("{label}:") };
        let room = self.style.width.map_or(usize::MAX, |width| width.saturating_sub(LABEL).max(LABEL));
        for part in wrapped(value, room) {
            let line = self.style.fit(&format!("{label:<LABEL$}{part}"));
            self.text.push_str(&line);
            self.text.push('\n');
            label.clear();
        }
    }

    fn phase(&mut self, mark: &str, phase: &str, message: &str) {
        let message = if message.is_empty() { String::new() } else { format!(" - {message}") };
        let marked = format!("{mark} {phase}");
        self.add("Status", &format!("{marked}{message}"));
        // Painted once the line has its length: the codes have no width.
        self.text = self.text.replace(&marked, &self.style.paint(mark, &marked));
    }

    /// Several values under one label.
    fn all(&mut self, label: &str, values: impl IntoIterator<Item = String>) {
        for (index, value) in values.into_iter().enumerate() {
            self.add(if index == 0 { label } else { "" }, &value);
        }
    }
}

pub(super) fn rollout(rollout: &Rollout, objects: &Objects, style: Style) -> String {
    let status = rollout.status.clone().unwrap_or_default();
    let shown = shown(rollout);
    let mut lines = Lines { style, text: String::new() };
    lines.add("Name", &rollout.name_any());
    lines.add("Namespace", &rollout.namespace().unwrap_or_default());
    lines.phase(mark(&shown.phase), &shown.phase, &shown.message);
    lines.all("Waiting for", waits(rollout, objects, style));
    let strategy = &rollout.spec.strategy;
    match (&strategy.canary, &strategy.blue_green) {
        (Some(canary), _) => {
            lines.add("Strategy", "Canary");
            if !canary.steps.is_empty() {
                lines.add("Step", &steps(rollout, &canary.steps));
            }
            lines.add("Weight", &weights(rollout, objects));
        }
        (None, Some(_)) => lines.add("Strategy", "BlueGreen"),
        (None, None) => {}
    }
    if let Some(workload) = &rollout.spec.workload_ref {
        let part = |part: &Option<String>| part.clone().unwrap_or_default();
        lines.add("Workload", &format!("{} {}", part(&workload.kind), part(&workload.name)));
    }
    lines.all("Images", images(&Root::Rollout(rollout.clone()), objects));
    let counts = [
        (rollout.spec.desired_replicas(), "desired"),
        (status.replicas, "current"),
        (status.updated_replicas, "updated"),
        (status.ready_replicas, "ready"),
        (status.available_replicas, "available"),
    ];
    lines.add("Replicas", &counts.map(|(count, what)| format!("{count} {what}")).join(", "));
    lines.text
}

pub(super) fn experiment(experiment: &Experiment, objects: &Objects, style: Style) -> String {
    let status = experiment.status.clone().unwrap_or_default();
    let mut lines = Lines { style, text: String::new() };
    lines.add("Name", &experiment.name_any());
    lines.add("Namespace", &experiment.namespace().unwrap_or_default());
    let phase = super::evidence::phase_name(status.phase);
    let mark = if status.phase == AnalysisPhase::Running { UNDER_WAY } else { mark(&phase) };
    lines.phase(mark, &phase, &status.message);
    if let Some(end) = end_of(experiment) {
        lines.add("Waiting for", &format!("its end {}", style.countdown(end)));
    }
    let lasts = experiment.spec.duration.clone().unwrap_or_else(|| "until it is terminated".to_owned());
    let since = status.available_at.as_ref().map(|at| format!(", complete for {}", duration(style.since(at.0))));
    lines.add("Duration", &format!("{lasts}{}", since.unwrap_or_default()));
    lines.all("Images", images(&Root::Experiment(experiment.clone()), objects));
    lines.text
}

/// `1/4 done, now pause 5m, then setWeight 60`
fn steps(rollout: &Rollout, steps: &[CanaryStep]) -> String {
    let index = rollout.status.as_ref().and_then(|status| status.current_step_index).unwrap_or(0).max(0) as usize;
    let done = format!("{}/{} done", index.min(steps.len()), steps.len());
    let aborted = rollout.status.as_ref().is_some_and(|status| status.abort);
    let Some(now) = current_step(rollout).filter(|_| !aborted) else { return done };
    let next = steps.get(index + 1).map(|next| format!(", then {}", describe(next))).unwrap_or_default();
    format!("{done}, now {}{next}", describe(now))
}

/// A step in the words of its field.
pub(super) fn describe(step: &CanaryStep) -> String {
    if let Some(weight) = step.set_weight {
        return format!("setWeight {weight}");
    }
    if let Some(pause) = &step.pause {
        let seconds = pause.duration.as_ref().and_then(|duration| duration.seconds().ok());
        return seconds
            .map_or("pause until promoted".to_owned(), |seconds| format!("pause {}", duration(seconds.into())));
    }
    if let Some(scale) = &step.set_canary_scale {
        return match (scale.replicas, scale.weight) {
            (Some(replicas), _) => format!("setCanaryScale {replicas} pods"),
            (None, Some(weight)) => format!("setCanaryScale {weight}%"),
            (None, None) => "setCanaryScale as the weight".to_owned(),
        };
    }
    if let Some(analysis) = &step.analysis {
        let names: Vec<&str> = analysis.templates.iter().map(|template| template.template_name.as_str()).collect();
        return format!("analysis {}", names.join(" "));
    }
    if let Some(experiment) = &step.experiment {
        let names: Vec<&str> = experiment.templates.iter().map(|template| template.name.as_str()).collect();
        return format!("experiment {}", names.join(" "));
    }
    if let Some(route) = &step.set_header_route {
        return format!("setHeaderRoute {}", route.name);
    }
    if let Some(route) = &step.set_mirror_route {
        return format!("setMirrorRoute {}", route.name);
    }
    step.plugin.as_ref().map_or("nothing".to_owned(), |plugin| format!("plugin {}", plugin.name))
}

/// `20 wanted, 10 observed`, with those of experiments.
fn weights(rollout: &Rollout, objects: &Objects) -> String {
    let status = rollout.status.clone().unwrap_or_default();
    let canary = rollout.spec.strategy.canary.as_ref();
    let routed = canary.is_some_and(|canary| canary.traffic_routing.is_some());
    if status.current_pod_hash == status.stable_rs && !status.stable_rs.is_empty() {
        return "all to stable".to_owned();
    }
    let of = canary.map(|canary| canary.max_weight()).filter(|max| *max != 100);
    let of = of.map(|max| format!(" (of {max})")).unwrap_or_default();
    let wanted = format!("{}{of} wanted", set_weight(rollout));
    let Some(weights) = status.canary.weights.as_ref().filter(|_| routed) else {
        if routed || status.available_replicas == 0 {
            return wanted;
        }
        let updated = available(rollout, objects);
        return format!("{wanted}, {} by available pods", updated * 100 / status.available_replicas);
    };
    let additional = weights.additional.iter().map(|other| format!(", {} to {}", other.weight, other.service_name));
    let unconfirmed = if weights.verified == Some(false) { ", not confirmed by the gateway yet" } else { "" };
    format!("{wanted}, {} observed{}{unconfirmed}", weights.canary.weight, additional.collect::<String>())
}

/// Available pods of the newest version.
fn available(rollout: &Rollout, objects: &Objects) -> i32 {
    let current = rollout.status.as_ref().map_or("", |status| status.current_pod_hash.as_str());
    let mine = owned(&objects.replica_sets, &rollout.metadata);
    let newest = mine.into_iter().filter(|replica_set| hash(&replica_set.metadata) == current);
    newest.filter_map(|replica_set| replica_set.status.as_ref()?.available_replicas).sum()
}

/// Images of ReplicaSets that have pods, the newest revision first, with the roles that they play.
fn images(root: &Root, objects: &Objects) -> Vec<String> {
    let mut tagged: Vec<(&ReplicaSet, Vec<String>)> = Vec::new();
    let of_experiment = |experiment: &Experiment| {
        let mine = owned(&objects.replica_sets, &experiment.metadata);
        let template = |replica_set: &ReplicaSet| {
            super::annotation(&replica_set.metadata, names::EXPERIMENT_TEMPLATE_NAME).map(str::to_owned)
        };
        mine.into_iter()
            .map(|replica_set| (replica_set, template(replica_set).into_iter().collect()))
            .collect::<Vec<_>>()
    };
    match root {
        Root::Rollout(rollout) => {
            let mut mine = owned(&objects.replica_sets, &rollout.metadata);
            mine.sort_by_key(|replica_set| std::cmp::Reverse(revision(&replica_set.metadata)));
            let roles = |replica_set| roles(rollout, replica_set).into_iter().map(str::to_owned).collect();
            tagged.extend(mine.into_iter().map(|replica_set| (replica_set, roles(replica_set))));
            for experiment in owned(&objects.experiments, &rollout.metadata) {
                tagged.extend(of_experiment(experiment));
            }
        }
        Root::Experiment(experiment) => tagged.extend(of_experiment(experiment)),
    }
    let mut images: Vec<(String, BTreeSet<String>)> = Vec::new();
    for (replica_set, tags) in tagged {
        let spec = replica_set.spec.as_ref().filter(|spec| spec.replicas.unwrap_or(0) > 0);
        let containers = spec.and_then(|spec| spec.template.as_ref()?.spec.as_ref()).map(|spec| &spec.containers);
        for image in containers.into_iter().flatten().filter_map(|container| container.image.clone()) {
            match images.iter_mut().find(|(known, _)| *known == image) {
                Some((_, known)) => known.extend(tags.clone()),
                None => images.push((image, tags.iter().cloned().collect())),
            }
        }
    }
    let with_tags = |(image, tags): (String, BTreeSet<String>)| {
        let tags = tags.into_iter().collect::<Vec<_>>().join(", ");
        if tags.is_empty() { image } else { format!("{image} ({tags})") }
    };
    images.into_iter().map(with_tags).collect()
}
