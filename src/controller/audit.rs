//! Looking past the watches: whether what they have shown is what there is.
//!
//! A watch may lose an event: a bug of ours, of a proxy, of a server that was restored from a backup. Nobody would ever
//! look again: a release would wait for what has long happened, a user's abort would not be heard. So beside each watch
//! the versions of all its objects are listed from time to time, and what is not as the watch has shown it is read. That
//! costs some requests for a whole cluster, however many Rollouts there are and whatever they wait for.
//!
//! Two things are not left to this. What an object refers to and no watch has shown is looked for in every pass, since it
//! makes a Rollout invalid; and what we have written ourselves is followed by [`super::expectations`].

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use tokio::time::{Instant, sleep};
use tracing::{debug, info};

use crate::api::resource::{self, ObjectRef, Resource};

use super::Shell;
use super::api::{CallError, Part};
use super::envelope::Envelope;
use super::index::{Effects, Entry, Index, Knowledge};
use super::reconcile::Pass;
use super::references::is_workload;
use super::watch;

/// How often it is looked, where there was something new since the last time: with all that follows well within the minute
/// in which everything is to go on once nothing is wrong any more. Longer than most releases wait for anything at a time.
const EVERY: Duration = Duration::from_secs(40);
/// Where nothing is new, each pause is twice as long as the one before, up to this. Not so for what people change to say
/// what they want.
const LONGEST: Duration = Duration::from_secs(900);
/// What a list shows and the watch has not yet is only late, for so long.
const LATE: Duration = Duration::from_secs(3);
/// Objects listed in a second, over time, in clusters with so many that the pauses would be too short for them.
const RATE: f64 = 100.0;

/// The uid and the version of an object.
type Version = (String, String);
type Versions = BTreeMap<ObjectRef, Version>;

/// Looks for ever what the watch of a kind may have missed.
pub async fn audit(shell: Arc<Shell>, resource: Resource) {
    let mut last = Instant::now();
    let mut seen = 0;
    let (mut pause, mut shortest) = (EVERY, EVERY);
    loop {
        sleep(EVERY).await;
        if shell.index().knowledge(resource) != Knowledge::Synced {
            continue;
        }
        let now = hash(&shell.index(), resource);
        if now != seen {
            pause = EVERY;
        }
        // Also a little before its time: the next occasion is as far away.
        if last.elapsed() + EVERY / 2 < pause.max(shortest) {
            continue;
        }
        let known = known(&shell.index(), resource);
        match compare(&shell, resource, known).await {
            Ok(objects) => {
                let longest = if tells_wishes(resource) && objects > 0 { EVERY } else { LONGEST };
                shortest = Duration::from_secs_f64(objects as f64 / RATE);
                pause = (pause * 2).min(longest);
                (last, seen) = (Instant::now(), now);
            }
            Err(error) => debug!(kind = resource.kind, %error, "cannot look past the watch"),
        }
    }
}

/// Lists the versions of all objects of a kind and reads what the index does not know as it is; how many there are.
async fn compare(shell: &Shell, resource: Resource, mut known: Versions) -> Result<usize, CallError> {
    let (mut differ, mut objects) = (BTreeMap::new(), 0);
    let listed = watch::pages(shell, resource, Part::Metadata, |items: Vec<Item>| {
        objects += items.len();
        for Item { metadata } in items {
            let object = ObjectRef::new(resource, metadata.namespace, metadata.name);
            let version = known.remove(&object);
            let as_known = version.as_ref() == Some(&(metadata.uid, metadata.resource_version));
            // Of workloads only those are kept that somebody refers to.
            if !as_known && (version.is_some() || !is_workload(resource)) {
                differ.insert(object, version);
            }
        }
    });
    listed.await?;
    differ.extend(known.into_iter().map(|(object, version)| (object, Some(version))));
    if differ.is_empty() {
        return Ok(objects);
    }
    sleep(LATE).await;
    for (object, version) in differ {
        if shell.index().entry_of(&object).map(self::version) != version {
            continue;
        }
        let effects = shell.reread(&object).await?;
        if effects != Effects::default() {
            info!(%object, "no watch had shown how it is");
        }
        shell.take_in(effects);
    }
    Ok(objects)
}

impl Shell {
    /// Reads an object past the watch, into the index.
    pub async fn reread(&self, object: &ObjectRef) -> Result<Effects, CallError> {
        self.telemetry.live_reads.inc();
        let read = self.api.read::<Envelope>(object).await;
        let known = self.index().knowledge(object.resource) == Knowledge::Synced;
        match read {
            Ok(envelope) if known => Ok(self.index().apply(object.resource, envelope, self.clock.now())),
            Err(CallError::NotFound(_)) if known => Ok(self.index().remove(object, "", self.clock.now())),
            Ok(_) | Err(CallError::NotFound(_)) => Ok(Effects::default()),
            Err(error) => Err(error),
        }
    }
}

impl Pass<'_> {
    /// Looks, once in a pass, for what the object refers to and no watch has shown. A watch may lag behind the one that
    /// showed the object.
    pub async fn look_for_absent(&mut self) {
        if std::mem::replace(&mut self.looked, true) {
            return;
        }
        let absent = absent(&self.shell.index(), self.object());
        for object in absent {
            if let Err(error) = self.reread(&object).await {
                debug!(object = %self.object(), absent = %object, %error, "cannot confirm that it is not there");
            }
        }
    }
}

fn absent(index: &Index, object: &ObjectRef) -> Vec<ObjectRef> {
    let referred = index.references(object).into_iter().flat_map(|references| &references.objects);
    let is_absent =
        |object: &&ObjectRef| index.knowledge(object.resource) == Knowledge::Synced && index.entry_of(object).is_none();
    referred.filter(is_absent).cloned().collect()
}

/// The objects of a kind as the index knows them.
fn known(index: &Index, resource: Resource) -> Versions {
    index.of_kind(resource).map(|(object, entry)| (object.clone(), version(entry))).collect()
}

fn version(entry: &Entry) -> Version {
    (entry.uid.clone(), entry.resource_version.clone())
}

/// The same in short.
fn hash(index: &Index, resource: Resource) -> u64 {
    let mut hasher = DefaultHasher::new();
    for (object, entry) in index.of_kind(resource) {
        (object, &entry.uid, &entry.resource_version).hash(&mut hasher);
    }
    hasher.finish()
}

/// Whether people change objects of a kind to say what they want.
fn tells_wishes(resource: Resource) -> bool {
    matches!(resource, resource::ROLLOUT | resource::EXPERIMENT | resource::ANALYSIS_RUN) || is_workload(resource)
}

#[derive(Deserialize)]
struct Item {
    metadata: Metadata,
}

/// What of the metadata tells one version of an object from another.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Metadata {
    name: String,
    namespace: String,
    uid: String,
    resource_version: String,
}
