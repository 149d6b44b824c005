//! Pods, which no watch holds: a decision that needs them gets them by a live list.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Deserialize;

use crate::api::names::POD_TEMPLATE_HASH;
use crate::api::resource::POD;
use crate::rollout::World;
use crate::rollout::world::Pod;

use super::Shell;
use super::api::{CallError, Part};
use super::envelope::Meta;
use super::watch::query;

/// Pods in one answer: some 10 kB each, of which a decision needs a few hundred bytes.
const PAGE: u32 = 200;

#[derive(Deserialize)]
struct Page {
    #[serde(default)]
    metadata: PageMeta,
    items: Option<Vec<Item>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct PageMeta {
    #[serde(rename = "continue")]
    more: String,
}

#[derive(Deserialize)]
struct Item {
    metadata: Meta,
    #[serde(default)]
    status: Status,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Status {
    phase: String,
    conditions: Vec<PodCondition>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PodCondition {
    #[serde(rename = "type")]
    type_: String,
    status: String,
    last_transition_time: Option<k8s_openapi::apimachinery::pkg::apis::meta::v1::Time>,
}

/// The pods of the Rollout's ReplicaSets that have any, as they are now.
///
/// # Errors
/// A page of the list could not be read; then none is known.
pub async fn list(shell: &Shell, world: &World) -> Result<Vec<Pod>, CallError> {
    let sets = world.replica_sets.iter().filter(|set| set.replicas > 0 || set.status.replicas > 0);
    let hashes: Vec<&str> = sets.map(|set| set.hash()).filter(|hash| !hash.is_empty()).collect();
    let mut pods = Vec::new();
    if hashes.is_empty() {
        return Ok(pods);
    }
    let namespace = world.rollout.metadata.namespace.as_deref().unwrap_or_default();
    let selector = format!("{POD_TEMPLATE_HASH} in ({})", hashes.join(","));
    let mut more = String::new();
    loop {
        let query = query(&[("limit", &PAGE.to_string()), ("labelSelector", &selector), ("continue", &more)]);
        shell.telemetry.live_reads.inc();
        let page: Page = shell.api.list(POD, namespace, &query, Part::Whole).await?;
        pods.extend(page.items.into_iter().flatten().filter_map(Item::pod));
        more = page.metadata.more;
        if more.is_empty() {
            return Ok(pods);
        }
    }
}

impl Item {
    /// None for one that nobody controls.
    fn pod(self) -> Option<Pod> {
        let Self { metadata: meta, status } = self;
        let controller = meta.controller()?.uid.clone();
        let ready = status.conditions.iter().find(|it| it.type_ == "Ready" && it.status == "True");
        Some(Pod {
            controller,
            created: meta.creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0),
            over: meta.deletion_timestamp.is_some() || matches!(status.phase.as_str(), "Succeeded" | "Failed"),
            ready_since: ready
                .map(|ready| ready.last_transition_time.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0)),
            name: meta.name,
            uid: meta.uid,
            labels: meta.labels.unwrap_or_else(BTreeMap::new),
            annotations: meta.annotations.unwrap_or_else(BTreeMap::new),
        })
    }
}
