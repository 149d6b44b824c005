//! Where the records are: of the last release in the status of the Rollout, of those before on the ReplicaSets that came
//! after them; and what is known of the one that is under way.

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::ReplicaSet;
use serde_json::Value;

use crate::api::names::{FIELD_MANAGER, RELEASE_BEFORE};
use crate::api::pod_template::PodTemplate;
use crate::api::release::{Release, Version};
use crate::api::{AnalysisRun, Experiment, Rollout};
use crate::cli::phase::shown;
use crate::cli::tree::{annotation, hash, owned, revision};
use crate::rollout::evidence;

/// What there is in the namespace.
pub struct Known {
    pub rollout: Rollout,
    pub replica_sets: Vec<ReplicaSet>,
    pub analysis_runs: Vec<AnalysisRun>,
    pub experiments: Vec<Experiment>,
}

/// What is under way, if anything is, and all releases that have left a record, the newest first.
pub fn all(known: &Known, now: Timestamp) -> Vec<Release> {
    let mut ended = finished(known);
    let under_way = under_way(known, ended.first(), now);
    ended.splice(0..0, under_way);
    ended
}

fn finished(known: &Known) -> Vec<Release> {
    let status = known.rollout.status.as_ref();
    let last = status.and_then(|status| status.last_release.as_deref());
    let sets = owned(&known.replica_sets, &known.rollout.metadata);
    let before = sets.into_iter().filter_map(|set| annotation(&set.metadata, RELEASE_BEFORE));
    let mut found: Vec<Release> = last.into_iter().chain(before).filter_map(Release::parse).collect();
    found.sort_by(|a, b| (&b.ended, b.version.revision).cmp(&(&a.ended, a.version.revision)));
    // More than one ReplicaSet may have begun after the same release.
    found.dedup_by(|a, b| a.version.revision == b.version.revision && a.ended == b.ended);
    found
}

fn under_way(known: &Known, last: Option<&Release>, now: Timestamp) -> Option<Release> {
    let rollout = &known.rollout;
    let status = rollout.status.as_ref()?;
    if status.abort || status.current_pod_hash.is_empty() || status.current_pod_hash == status.stable_rs {
        return None;
    }
    let sets = owned(&known.replica_sets, &rollout.metadata);
    let version = |wanted: &str| {
        let set = sets.iter().find(|set| hash(&set.metadata) == wanted)?;
        let template = set.spec.as_ref()?.template.as_ref()?;
        let template = PodTemplate::from(serde_json::to_value(template).ok()?);
        let (revision, hash) = (revision(&set.metadata), wanted.to_owned());
        Some(Version { revision, hash, images: evidence::images(&template) })
    };
    let clock = status.duration.clone().unwrap_or_default();
    let began = clock.rollout_started_at.clone().max(last.and_then(|last| last.ended.clone()));
    let since = began.as_ref().map_or(Timestamp::MIN, |began| began.0);
    let canary = rollout.spec.strategy.canary.as_ref();
    let routed = canary.is_some_and(|canary| canary.traffic_routing.is_some());
    let steps = canary.map_or(0, |canary| i32::try_from(canary.steps.len()).unwrap_or(i32::MAX));
    let current = &status.current_pod_hash;
    Some(Release {
        v: 1,
        version: version(current).unwrap_or_else(|| Version { hash: current.clone(), ..Version::default() }),
        from: version(&status.stable_rs),
        why: shown(rollout).to_string(),
        began,
        waited: evidence::waited(&clock, now),
        done: status.current_step_index.filter(|_| steps > 0),
        steps,
        weight: status.canary.weights.as_ref().filter(|_| routed).map(|weights| weights.canary.weight),
        analyses: evidence::analyses(
            owned(&known.analysis_runs, &rollout.metadata).into_iter(),
            owned(&known.experiments, &rollout.metadata).into_iter(),
            current,
            since,
        ),
        ..Release::default()
    })
}

/// With which client the present abort was written, if the API server tells: `kubectl-argo-rollouts`, `argocd-server`.
pub fn who_aborted(rollout: &Rollout) -> Option<&str> {
    let aborted = rollout.status.as_ref().is_some_and(|status| status.abort);
    let writers = rollout.metadata.managed_fields.iter().flatten().filter(|_| aborted);
    let mut wrote = writers.filter(|writer| {
        let fields = writer.fields_v1.as_ref().map_or(&Value::Null, |fields| &fields.0);
        !fields["f:status"]["f:abort"].is_null()
    });
    // Ours is that of the controller and of every command, which tells nothing.
    wrote.find_map(|writer| writer.manager.as_deref()).filter(|manager| *manager != FIELD_MANAGER)
}
