//! The picture of a rollout: a head with its numbers, and a tree of its revisions, ReplicaSets, pods and runs.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::ResourceExt;

use super::phase::{icon, shown};
use crate::api::names;
use crate::api::{AnalysisRun, Rollout};

/// A rollout and what belongs to it.
#[derive(Clone, Debug, Default)]
pub struct Picture {
    pub rollout: Rollout,
    pub replica_sets: Vec<ReplicaSet>,
    pub pods: Vec<Pod>,
    pub analysis_runs: Vec<AnalysisRun>,
}

/// How the picture is drawn.
#[derive(Clone, Copy, Debug)]
pub struct Style {
    pub color: bool,
    pub now: Timestamp,
}

/// One line of the tree.
struct Row {
    name: String,
    kind: &'static str,
    status: String,
    age: String,
    info: String,
}

/// Draws the picture.
pub fn draw(picture: &Picture, style: Style) -> String {
    let mut text = head(picture, style);
    text.push('\n');
    text.push_str(&table(&rows(picture, style), style));
    text
}

fn head(picture: &Picture, style: Style) -> String {
    let rollout = &picture.rollout;
    let status = rollout.status.clone().unwrap_or_default();
    let shown = shown(rollout);
    let mut text = String::new();
    let mut line = |label: &str, value: &str| {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{label:<17}{value}");
    };
    line("Name:", &rollout.name_any());
    line("Namespace:", &rollout.namespace().unwrap_or_default());
    line("Status:", &paint(&shown.phase, &format!("{} {}", icon(&shown.phase), shown.phase), style));
    if !shown.message.is_empty() {
        line("Message:", &shown.message);
    }
    let canary = rollout.spec.strategy.canary.as_ref();
    line("Strategy:", if canary.is_some() { "Canary" } else { "BlueGreen" });
    if let Some(canary) = canary {
        let steps = canary.steps.len() as i32;
        if steps > 0 {
            line("  Step:", &format!("{}/{steps}", status.current_step_index.unwrap_or(0)));
        }
        let weights = status.canary.weights.as_ref();
        let set = set_weight(rollout);
        line("  SetWeight:", &set.to_string());
        match weights {
            Some(weights) => {
                let verified =
                    if weights.verified == Some(false) { " (the gateway has not confirmed it yet)" } else { "" };
                line("  ActualWeight:", &format!("{}{verified}", weights.canary.weight));
            }
            None if status.available_replicas > 0 && canary.traffic_routing.is_none() => {
                let updated = available(picture, &status.current_pod_hash);
                line("  ActualWeight:", &(updated * 100 / status.available_replicas).to_string());
            }
            None => {}
        }
    }
    for (index, (image, tags)) in images(picture).into_iter().enumerate() {
        let tags = tags.into_iter().collect::<Vec<_>>().join(", ");
        let tags = if tags.is_empty() { String::new() } else { format!(" ({tags})") };
        line(if index == 0 { "Images:" } else { "" }, &format!("{image}{tags}"));
    }
    line("Replicas:", "");
    for (label, value) in [
        ("  Desired:", rollout.spec.desired_replicas()),
        ("  Current:", status.replicas),
        ("  Updated:", status.updated_replicas),
        ("  Ready:", status.ready_replicas),
        ("  Available:", status.available_replicas),
    ] {
        line(label, &value.to_string());
    }
    text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n") + "\n"
}

/// The weight that the steps set so far.
fn set_weight(rollout: &Rollout) -> i32 {
    let status = rollout.status.clone().unwrap_or_default();
    let Some(canary) = &rollout.spec.strategy.canary else { return 0 };
    let index = status.current_step_index.unwrap_or(0).max(0) as usize;
    if status.abort {
        return 0;
    }
    if index >= canary.steps.len() {
        return canary.max_weight();
    }
    canary.steps[..=index].iter().rev().find_map(|step| step.set_weight).unwrap_or(0)
}

fn hash(metadata: &ObjectMeta) -> &str {
    metadata.labels.as_ref().and_then(|labels| labels.get(names::POD_TEMPLATE_HASH)).map_or("", String::as_str)
}

fn available(picture: &Picture, wanted: &str) -> i32 {
    let of_hash = picture.replica_sets.iter().filter(|replica_set| hash(&replica_set.metadata) == wanted);
    of_hash.filter_map(|replica_set| replica_set.status.as_ref()?.available_replicas).sum()
}

/// Images of running ReplicaSets, newest revision first, with the roles that they play.
fn images(picture: &Picture) -> Vec<(String, BTreeSet<&'static str>)> {
    let mut images: Vec<(String, BTreeSet<&'static str>)> = Vec::new();
    for replica_set in by_revision(picture).into_iter().flat_map(|(_, replica_sets)| replica_sets) {
        let spec = replica_set.spec.as_ref();
        if spec.and_then(|spec| spec.replicas).unwrap_or(0) == 0 {
            continue;
        }
        let containers = spec.and_then(|spec| spec.template.as_ref()?.spec.as_ref()).map(|spec| &spec.containers);
        for image in containers.into_iter().flatten().filter_map(|container| container.image.clone()) {
            let roles = roles(&picture.rollout, replica_set);
            match images.iter_mut().find(|(known, _)| *known == image) {
                Some((_, known)) => known.extend(roles),
                None => images.push((image, roles.into_iter().collect())),
            }
        }
    }
    images
}

fn roles(rollout: &Rollout, replica_set: &ReplicaSet) -> Vec<&'static str> {
    let status = rollout.status.clone().unwrap_or_default();
    let hash = hash(&replica_set.metadata);
    if hash.is_empty() {
        return Vec::new();
    }
    if hash == status.stable_rs {
        return vec!["stable"];
    }
    let canary = hash == status.current_pod_hash && rollout.spec.strategy.canary.is_some();
    if canary { vec!["canary"] } else { Vec::new() }
}

/// ReplicaSets by revision, the newest first.
fn by_revision(picture: &Picture) -> Vec<(i64, Vec<&ReplicaSet>)> {
    let mut revisions: BTreeMap<i64, Vec<&ReplicaSet>> = BTreeMap::new();
    for replica_set in &picture.replica_sets {
        revisions.entry(revision(&replica_set.metadata)).or_default().push(replica_set);
    }
    revisions.into_iter().rev().collect()
}

fn revision(metadata: &ObjectMeta) -> i64 {
    let annotation = metadata.annotations.as_ref().and_then(|annotations| annotations.get(names::REVISION));
    annotation.and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn rows(picture: &Picture, style: Style) -> Vec<Row> {
    let rollout = &picture.rollout;
    let shown = shown(rollout);
    let mut rows = vec![Row {
        name: format!("⟳ {}", rollout.name_any()),
        kind: "Rollout",
        age: age(&rollout.metadata, style),
        info: String::new(),
        status: shown.phase,
    }];
    let revisions = by_revision(picture);
    let last = revisions.len().saturating_sub(1);
    for (index, (number, replica_sets)) in revisions.into_iter().enumerate() {
        let (branch, stem) = if index == last { ("└──", "   ") } else { ("├──", "│  ") };
        rows.push(Row {
            name: format!("{branch}# revision:{number}"),
            kind: "",
            status: String::new(),
            age: String::new(),
            info: String::new(),
        });
        let runs: Vec<&AnalysisRun> =
            picture.analysis_runs.iter().filter(|run| revision(&run.metadata) == number).collect();
        let children = replica_sets.len() + runs.len();
        for (position, replica_set) in replica_sets.into_iter().enumerate() {
            replica_set_rows(picture, replica_set, stem, position + 1 == children, style, &mut rows);
        }
        for (position, run) in runs.iter().enumerate() {
            let branch = if position + 1 == runs.len() { "└──" } else { "├──" };
            rows.push(run_row(run, &format!("{stem}{branch}"), style));
        }
    }
    rows
}

fn replica_set_rows(
    picture: &Picture,
    replica_set: &ReplicaSet,
    stem: &str,
    is_last: bool,
    style: Style,
    rows: &mut Vec<Row>,
) {
    let (branch, inner) = if is_last { ("└──", "   ") } else { ("├──", "│  ") };
    let specified = replica_set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(0);
    let status = replica_set.status.clone().unwrap_or_default();
    let phase = match (specified, status.available_replicas.unwrap_or(0)) {
        (0, _) if status.replicas == 0 => "ScaledDown",
        (specified, available) if available >= specified => "Healthy",
        _ => "Progressing",
    };
    let mut info: Vec<String> = roles(&picture.rollout, replica_set).into_iter().map(str::to_owned).collect();
    let deadline = replica_set.metadata.annotations.as_ref().and_then(|all| all.get(names::SCALE_DOWN_DEADLINE));
    if let Some(deadline) = deadline.and_then(|text| text.parse::<Timestamp>().ok()).filter(|_| specified > 0) {
        let left = deadline.as_second() - style.now.as_second();
        info.push(if left > 0 { format!("delay:{}", duration(left)) } else { "delay:passed".to_owned() });
    }
    rows.push(Row {
        name: format!("{stem}{branch}⧉ {}", replica_set.name_any()),
        kind: "ReplicaSet",
        status: phase.to_owned(),
        age: age(&replica_set.metadata, style),
        info: info.join(","),
    });
    let owned =
        |owners: &[OwnerReference]| owners.iter().any(|owner| Some(&owner.uid) == replica_set.metadata.uid.as_ref());
    let pods: Vec<&Pod> = picture.pods.iter().filter(|pod| owned(pod.owner_references())).collect();
    for (position, pod) in pods.iter().enumerate() {
        let branch = if position + 1 == pods.len() { "└──" } else { "├──" };
        rows.push(pod_row(pod, &format!("{stem}{inner}{branch}"), style));
    }
}

fn pod_row(pod: &Pod, branch: &str, style: Style) -> Row {
    let status = pod.status.clone().unwrap_or_default();
    let containers = status.container_statuses.unwrap_or_default();
    let ready = containers.iter().filter(|container| container.ready).count();
    let total = pod.spec.as_ref().map_or(containers.len(), |spec| spec.containers.len());
    let waiting = containers.iter().find_map(|container| container.state.as_ref()?.waiting.as_ref()?.reason.clone());
    let phase = match waiting {
        _ if pod.metadata.deletion_timestamp.is_some() => "Terminating".to_owned(),
        Some(reason) => reason,
        None => status.phase.unwrap_or_else(|| "Pending".to_owned()),
    };
    let restarts: i32 = containers.iter().map(|container| container.restart_count).sum();
    let restarts = if restarts == 0 { String::new() } else { format!(",restarts:{restarts}") };
    Row {
        name: format!("{branch}□ {}", pod.name_any()),
        kind: "Pod",
        status: phase,
        age: age(&pod.metadata, style),
        info: format!("ready:{ready}/{total}{restarts}"),
    }
}

fn run_row(run: &AnalysisRun, branch: &str, style: Style) -> Row {
    let status = run.status.clone().unwrap_or_default();
    let sum =
        |count: fn(&crate::api::analysis::MetricResult) -> i32| status.metric_results.iter().map(count).sum::<i32>();
    let counts = [
        ("✔", sum(|result| result.successful)),
        ("✖", sum(|result| result.failed)),
        ("?", sum(|result| result.inconclusive)),
        ("⚠", sum(|result| result.error)),
    ];
    let mut info: Vec<String> =
        counts.into_iter().filter(|(_, count)| *count > 0).map(|(mark, count)| format!("{mark} {count}")).collect();
    // The evidence: the newest value of each metric.
    info.extend(status.metric_results.iter().filter_map(|result| {
        let newest = result.measurements.last().filter(|measurement| !measurement.value.is_empty())?;
        Some(format!("{} {}", result.name, newest.value))
    }));
    Row {
        name: format!("{branch}α {}", run.name_any()),
        kind: "AnalysisRun",
        status: if status.phase.as_str().is_empty() { "Pending".to_owned() } else { status.phase.to_string() },
        age: age(&run.metadata, style),
        info: info.join(","),
    }
}

fn age(metadata: &ObjectMeta, style: Style) -> String {
    let created = metadata.creation_timestamp.as_ref().map_or(style.now, |created| created.0);
    duration(style.now.as_second() - created.as_second())
}

/// `7s`, `12m`, `3h5m`, `2d`: as precise as it is useful.
pub fn duration(seconds: i64) -> String {
    let seconds = seconds.max(0);
    match (seconds / 86_400, seconds / 3_600, seconds / 60) {
        (0, 0, 0..=1) => format!("{seconds}s"),
        (0, 0, minutes @ 2..=9) if seconds % 60 > 0 => format!("{minutes}m{}s", seconds % 60),
        (0, 0, minutes) => format!("{minutes}m"),
        (0, hours @ 1..=7, minutes) if minutes % 60 > 0 => format!("{hours}h{}m", minutes % 60),
        (0, hours, _) => format!("{hours}h"),
        (days, _, _) => format!("{days}d"),
    }
}

fn table(rows: &[Row], style: Style) -> String {
    const HEAD: [&str; 5] = ["NAME", "KIND", "STATUS", "AGE", "INFO"];
    let status = |row: &Row| {
        if row.status.is_empty() { String::new() } else { format!("{} {}", icon(&row.status), row.status) }
    };
    let width = |head: &str, cell: &dyn Fn(&Row) -> usize| rows.iter().map(cell).max().unwrap_or(0).max(head.len());
    let widths = [
        width(HEAD[0], &|row| row.name.chars().count()),
        width(HEAD[1], &|row| row.kind.len()),
        width(HEAD[2], &|row| status(row).chars().count()),
        width(HEAD[3], &|row| row.age.len()),
    ];
    let pad = |text: &str, width: usize| format!("{text}{}", " ".repeat(width.saturating_sub(text.chars().count())));
    let mut text = String::new();
    let head: Vec<String> = HEAD.iter().zip(widths).map(|(head, width)| pad(head, width)).collect();
    let _ = writeln!(text, "{}  {}", head.join("  "), HEAD[4]);
    for row in rows {
        // Padded before it is painted: the codes have no width.
        let painted = paint(&row.status, &pad(&status(row), widths[2]), style);
        let cells = [pad(&row.name, widths[0]), pad(row.kind, widths[1]), painted, pad(&row.age, widths[3])];
        let line = format!("{}  {}", cells.join("  "), row.info);
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

/// Colours a text by the phase that it shows, sparingly: good, bad, waiting.
fn paint(phase: &str, text: &str, style: Style) -> String {
    let code = match icon(phase) {
        "✔" => 32,
        "✖" | "⚠" => 31,
        "॥" | "?" => 33,
        _ => return text.to_owned(),
    };
    if style.color { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn meta(name: &str, uid: &str, owner: &str, extra: Value) -> Value {
        let mut meta = json!({
            "name": name, "namespace": "shop", "uid": uid, "creationTimestamp": "2026-01-01T00:00:00Z",
            "ownerReferences": [{"apiVersion": "x", "kind": "x", "name": "x", "uid": owner, "controller": true}],
        });
        json_patch::merge(&mut meta, &extra);
        meta
    }

    fn replica_set(name: &str, hash: &str, revision: &str, replicas: i32, image: &str) -> ReplicaSet {
        let extra = json!({"labels": {names::POD_TEMPLATE_HASH: hash}, "annotations": {names::REVISION: revision}});
        serde_json::from_value(json!({
            "metadata": meta(name, name, "rollout", extra),
            "spec": {
                "replicas": replicas, "selector": {},
                "template": {"spec": {"containers": [{"name": "web", "image": image}]}},
            },
            "status": {"replicas": replicas, "availableReplicas": replicas},
        }))
        .unwrap()
    }

    fn pod(name: &str, owner: &str) -> Pod {
        serde_json::from_value(json!({
            "metadata": meta(name, name, owner, json!({})),
            "spec": {"containers": [{"name": "web"}]},
            "status": {"phase": "Running", "containerStatuses": [
                {"name": "web", "image": "", "imageID": "", "ready": true, "restartCount": 0}
            ]},
        }))
        .unwrap()
    }

    #[test]
    fn the_picture_of_a_canary_on_its_way() {
        let rollout = serde_json::from_value(json!({
            "metadata": meta("web", "rollout", "none", json!({"generation": 2})),
            "spec": {"replicas": 2, "strategy": {"canary": {
                "steps": [{"setWeight": 20}, {"pause": {}}], "trafficRouting": {},
            }}},
            "status": {
                "observedGeneration": "2", "phase": "Paused", "message": "CanaryPauseStep", "currentStepIndex": 1,
                "stableRS": "aaa", "currentPodHash": "bbb", "replicas": 3, "updatedReplicas": 1, "readyReplicas": 3,
                "availableReplicas": 3, "canary": {"weights": {"canary": {"weight": 20}}},
            },
        }))
        .unwrap();
        let run = json!({
            "metadata": meta("web-bbb-2", "run", "rollout", json!({"annotations": {names::REVISION: "2"}})),
            "spec": {"metrics": []},
            "status": {"phase": "Running", "metricResults": [
                {"name": "error-rate", "successful": 3, "measurements": [{"value": "[0.01]"}]}
            ]},
        });
        let mut old = replica_set("web-000", "000", "0", 0, "web:0");
        old.metadata.annotations = None;
        let picture = Picture {
            rollout,
            replica_sets: vec![
                replica_set("web-aaa", "aaa", "1", 2, "web:1"),
                replica_set("web-bbb", "bbb", "2", 1, "web:2"),
                old,
            ],
            pods: vec![pod("web-aaa-1", "web-aaa"), pod("web-aaa-2", "web-aaa"), pod("web-bbb-1", "web-bbb")],
            analysis_runs: vec![serde_json::from_value(run).unwrap()],
        };
        let style = Style { color: false, now: "2026-01-01T00:03:05Z".parse().unwrap() };
        let expected = "\
Name:            web
Namespace:       shop
Status:          ॥ Paused
Message:         CanaryPauseStep
Strategy:        Canary
  Step:          1/2
  SetWeight:     20
  ActualWeight:  20
Images:          web:2 (canary)
                 web:1 (stable)
Replicas:
  Desired:       2
  Current:       3
  Updated:       1
  Ready:         3
  Available:     3

NAME                     KIND         STATUS        AGE   INFO
⟳ web                    Rollout      ॥ Paused      3m5s
├──# revision:2
│  ├──⧉ web-bbb          ReplicaSet   ✔ Healthy     3m5s  canary
│  │  └──□ web-bbb-1     Pod          ✔ Running     3m5s  ready:1/1
│  └──α web-bbb-2        AnalysisRun  ✔ Running     3m5s  ✔ 3,error-rate [0.01]
├──# revision:1
│  └──⧉ web-aaa          ReplicaSet   ✔ Healthy     3m5s  stable
│     ├──□ web-aaa-1     Pod          ✔ Running     3m5s  ready:1/1
│     └──□ web-aaa-2     Pod          ✔ Running     3m5s  ready:1/1
└──# revision:0
   └──⧉ web-000          ReplicaSet   • ScaledDown  3m5s
";
        let drawn = draw(&picture, style);
        // The columns are as wide as their widest cell; the expectation above is not about that.
        let squeeze = |text: &str| {
            text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect::<Vec<_>>()
        };
        assert_eq!(squeeze(&drawn), squeeze(expected), "{drawn}");
        let columns: Vec<usize> = drawn.lines().skip(17).filter_map(|line| line.find("3m5s")).collect();
        assert!(!columns.is_empty());
        assert!(draw(&picture, Style { color: true, ..style }).contains("\x1b[33m॥ Paused\x1b[0m"));
    }

    #[test]
    fn ages_are_as_precise_as_is_useful() {
        for (seconds, text) in [
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (125, "2m5s"),
            (600, "10m"),
            (3_600, "1h"),
            (3_900, "1h5m"),
            (30_000, "8h"),
            (90_000, "1d"),
        ] {
            assert_eq!(duration(seconds), text);
        }
    }
}
