//! The record of a release that ends with this decision.
//!
//! It is part of the status that ends the release: it is there when that is, and needs no write of its own.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::api::analysis::{AnalysisRun, MetricResult};
use crate::api::common::time;
use crate::api::experiment::Experiment;
use crate::api::names::{POD_TEMPLATE_HASH, ROLLOUT_TYPE, STEP_INDEX};
use crate::api::pod_template::PodTemplate;
use crate::api::release::{Analysis, Attempt, Release, Verdict, Version};
use crate::api::rollout::RolloutStatus;
use crate::api::rollout_status::DurationStatus;

use super::conditions::Facts;
use super::draft::Draft;
use super::duration;
use super::scene::Scene;
use super::world::ReplicaSet;

/// Attempts at one version that are remembered.
const ATTEMPTS: usize = 3;

/// Leaves the record of the release if this decision ends it, by promotion or abort. To be called when all is decided.
pub(super) fn of_end(scene: &Scene<'_>, draft: &mut Draft<'_>, facts: &Facts) {
    let aborted = draft.status.aborted_at.is_some() && scene.observed.aborted_at != draft.status.aborted_at;
    let (outcome, why) = match &draft.promoted {
        Some(why) => (duration::promotion(scene), why.clone()),
        None if aborted => ("Aborted", facts.abort_cause.clone().unwrap_or_default()),
        None => return,
    };
    let (revision, hash) = (scene.revisions.number(), scene.revisions.hash.clone());
    let version = Version { revision, hash, images: images(scene.desired.template) };
    leave(scene, draft, version, outcome, why);
}

/// Leaves the record of a release that is given up for another version, which begins now.
pub(super) fn of_superseded(scene: &Scene<'_>, draft: &mut Draft<'_>) {
    let observed = scene.observed;
    let clock = observed.duration.as_ref();
    let running = clock.is_some_and(|clock| clock.rollout_started_at.is_some() && clock.finished_at.is_none());
    let (old, new) = (&observed.current_pod_hash, &scene.revisions.hash);
    if !running || observed.abort || old.is_empty() || old == new || *old == observed.stable_rs {
        return;
    }
    let set = scene.revisions.all().find(|set| set.hash() == old);
    let version = version_of(set, old, set.map_or(0, ReplicaSet::revision));
    let number = scene.revisions.number();
    let (outcome, why) = match *new == observed.stable_rs {
        true => ("RolledBack", format!("back to the stable version, as revision {number}")),
        false => ("Superseded", format!("by revision {number}")),
    };
    leave(scene, draft, version, outcome, why);
}

fn leave(scene: &Scene<'_>, draft: &mut Draft<'_>, version: Version, outcome: &str, why: String) {
    let now = draft.world.now;
    let previous = draft.status.last_release.as_deref().and_then(Release::parse);
    let clock = draft.status.duration.clone().unwrap_or_default();
    let ended_before = previous.as_ref().and_then(|previous| previous.ended.clone());
    // Where a version is given up for an older one, the clock goes on.
    let began = clock.rollout_started_at.clone().max(ended_before);
    let since = began.as_ref().map_or(Timestamp::MIN, |began| began.0);
    let stable = scene.revisions.stable.filter(|stable| stable.hash() != version.hash);
    let promoted = draft.promoted.is_some();
    let weights = scene.observed.canary.weights.as_ref().filter(|_| !promoted && scene.routes_traffic());
    let release = Release {
        v: 1,
        from: stable.map(|stable| version_of(Some(stable), stable.hash(), stable.revision())),
        outcome: outcome.to_owned(),
        why,
        waited: waited(&clock, now),
        done: scene.observed.current_step_index.filter(|_| !promoted && scene.end().is_some()),
        steps: scene.end().unwrap_or(0),
        weight: weights.map(|weights| weights.canary.weight),
        analyses: analyses(
            scene.world.analysis_runs.iter().map(|run| &**run),
            scene.world.experiments.iter().map(|experiment| &**experiment),
            &version.hash,
            since,
        ),
        earlier: earlier(previous, &version),
        version,
        began,
        ended: Some(time(now)),
        cut: false,
    };
    draft.status.last_release = Some(release.to_text());
}

/// What the versions of a release are: of one without a ReplicaSet only the name is known.
fn version_of(set: Option<&ReplicaSet>, hash: &str, revision: i64) -> Version {
    let images = set.map_or(Vec::new(), |set| images(&set.template));
    Version { revision, hash: hash.to_owned(), images }
}

/// The images of a template, as `container=image`.
pub fn images(template: &PodTemplate) -> Vec<String> {
    template.containers().map(|container| format!("{}={}", container.name(), container.image())).collect()
}

/// Seconds that a release has waited for people so far.
pub fn waited(clock: &DurationStatus, now: Timestamp) -> i64 {
    let going_on =
        clock.manual_pause_started_at.as_ref().map_or(0, |since| now.duration_since(since.0).as_secs().max(0));
    clock.total_manual_pause_duration_seconds.unwrap_or(0).saturating_add(going_on)
}

/// The attempts at a version before this one. One that was given up for another version and came back is another revision.
fn earlier(previous: Option<Release>, version: &Version) -> Vec<Attempt> {
    let Some(previous) = previous
        .filter(|previous| previous.version.hash == version.hash && previous.version.revision == version.revision)
    else {
        return Vec::new();
    };
    let Release { outcome, why, began, ended, mut earlier, .. } = previous;
    earlier.insert(0, Attempt { outcome, why, began, ended });
    earlier.truncate(ATTEMPTS);
    earlier
}

/// What the analyses of a version have found since a time, the first one first.
pub fn analyses<'a>(
    runs: impl Iterator<Item = &'a AnalysisRun>,
    experiments: impl Iterator<Item = &'a Experiment>,
    hash: &str,
    since: Timestamp,
) -> Vec<Analysis> {
    // Creation times are whole seconds.
    let since = since.as_second();
    let of_version = |metadata: &ObjectMeta| {
        let labels = metadata.labels.as_ref();
        let created = metadata.creation_timestamp.as_ref().map(|created| created.0).unwrap_or_default();
        let is = labels.and_then(|labels| labels.get(POD_TEMPLATE_HASH)).is_some_and(|label| label == hash);
        (is && created.as_second() >= since).then(|| (created, metadata.name.clone().unwrap_or_default()))
    };
    let runs = runs.filter_map(|run| {
        let (created, name) = of_version(&run.metadata)?;
        let status = run.status.clone().unwrap_or_default();
        let metrics: Vec<Verdict> = status.metric_results.iter().map(verdict).collect();
        // What a metric says already is not said twice.
        let said = |metric: &Verdict| !metric.found.is_empty() && status.message.contains(&metric.found);
        let message = if metrics.iter().any(said) { String::new() } else { status.message };
        Some((created, Analysis { name, of: role(run), phase: status.phase, message, metrics }))
    });
    let experiments = experiments.filter_map(|experiment| {
        let (created, name) = of_version(&experiment.metadata)?;
        let status = experiment.status.clone().unwrap_or_default();
        let of = "Experiment".to_owned();
        Some((created, Analysis { name, of, phase: status.phase, message: status.message, metrics: Vec::new() }))
    });
    let mut found: Vec<(Timestamp, Analysis)> = runs.chain(experiments).collect();
    found.sort_by(|(a, one), (b, other)| (a, &one.name).cmp(&(b, &other.name)));
    found.into_iter().map(|(_, analysis)| analysis).collect()
}

fn role(run: &AnalysisRun) -> String {
    let label = |key: &str| run.metadata.labels.as_ref().and_then(|labels| labels.get(key)).map(String::as_str);
    match (label(ROLLOUT_TYPE), label(STEP_INDEX).and_then(|index| index.parse::<i64>().ok())) {
        (Some("Step"), Some(index)) => format!("Step {}", index.saturating_add(1)),
        (role, _) => role.unwrap_or_default().to_owned(),
    }
}

fn verdict(result: &MetricResult) -> Verdict {
    let last = result.measurements.last();
    // The judge's sentence is a message once it has decided, and a value as long as it counts.
    let found = last.into_iter().flat_map(|last| match result.judge {
        Some(_) => [&last.message, &last.value],
        None => [&last.value, &last.message],
    });
    let found = found.chain([&result.message]).find(|text| !text.is_empty());
    Verdict {
        name: result.name.clone(),
        phase: result.phase,
        found: found.cloned().unwrap_or_default(),
        counts: [result.successful, result.failed, result.inconclusive, result.error],
        dry: result.dry_run,
    }
}

/// The record that the ReplicaSet of a version takes with it when the version begins: that of the release before.
pub(super) fn to_carry<'a>(status: &'a RolloutStatus, facts: &Facts) -> Option<&'a str> {
    status.last_release.as_deref().filter(|_| facts.started_over)
}
