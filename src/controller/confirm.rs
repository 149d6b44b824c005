//! Looking past the watches: what a decision stands on is read live when nothing new has been seen of it for a while.
//!
//! A watch may lose an event: a bug of ours, of a proxy, of a server that was restored from a backup. Nobody would ever
//! look again, and a release would wait for what has long happened. So whoever waits reads what it waits for, the less
//! often the longer it has waited: after 20 s, 40 s, 80 s and so on; at rest, where it waits for its user, the first time
//! after 45 s. What was lost is then made up for within that time, or within as long as nothing had happened before,
//! whichever is longer.
//!
//! Two things are looked for in every pass: what the object refers to and no watch has shown, since that makes a Rollout
//! invalid; and, by [`super::expectations`], what we have written ourselves. The AnalysisRuns of a Rollout change by our
//! writes only, so they need no more than that.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use tokio::time::Instant;
use tracing::{debug, info};

use crate::api::resource::{self, ObjectRef, Resource};
use crate::api::rollout::RolloutStatus;

use super::Shell;
use super::envelope::Object;
use super::index::{Entry, Index, Knowledge};
use super::reconcile::Pass;

/// After so long without anything new it is looked for the first time. A third of the minute in which everything is to go
/// on once nothing is wrong any more, and longer than most releases wait for anything at a time: they cost no read more.
const FIRST: Duration = Duration::from_secs(20);
/// The longest time between two looks while anything is under way: then a release that waits for days costs a hundred
/// reads of each object a day.
const LONGEST: Duration = Duration::from_secs(900);
/// The same at rest: whatever makes many Rollouts at once is not to be followed by as many reads right away.
const FIRST_AT_REST: Duration = Duration::from_secs(45);
/// And the longest, when only the object itself is read: 2,000 Rollouts then make about one request in two seconds.
const LONGEST_AT_REST: Duration = Duration::from_secs(3600);
/// Nobody comes back sooner for this alone: whatever keeps a look from being taken makes no hot loop.
const SOONEST: Duration = Duration::from_secs(1);
/// For how long one read may hold a decision up: somebody may be about to abort.
const PATIENCE: Duration = Duration::from_secs(3);

/// Since when nothing new has been seen of what an object's decisions stand on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quiet {
    /// What was seen, in short.
    seen: u64,
    since: Instant,
    /// When it was last looked whether that is all.
    looked: Instant,
    first: Duration,
    longest: Duration,
}

impl Quiet {
    fn begins(basis: &Basis) -> Self {
        let now = Instant::now();
        let (first, longest) = if basis.rests { (FIRST_AT_REST, LONGEST_AT_REST) } else { (FIRST, LONGEST) };
        Self { seen: basis.seen, since: now, looked: now, first, longest }
    }

    /// When to look the next time; at different times for different objects.
    pub fn ends(&self, object: &ObjectRef) -> Instant {
        self.looked + (self.looked - self.since).clamp(self.first, self.longest).mul_f64(spread(object))
    }
}

/// Between 0.9 and 1.1, for each object its own number: what began together does not go on together.
pub fn spread(object: &ObjectRef) -> f64 {
    let hash = object.name.bytes().fold(7_u32, |hash, byte| hash.wrapping_mul(31).wrapping_add(byte.into()));
    0.9 + f64::from(hash % 200) / 1000.0
}

/// What the decisions about an object stand on, as far as others than us may change it.
struct Basis {
    objects: Vec<ObjectRef>,
    /// Their versions, in short.
    seen: u64,
    /// Whether nothing is under way.
    rests: bool,
}

impl Pass<'_> {
    /// Looks, once in a pass, past the watches, where there is reason to.
    pub async fn confirm(&mut self) {
        if std::mem::replace(&mut self.confirmed, true) {
            return;
        }
        let absent = absent(&self.shell.index(), self.object());
        for object in absent {
            if let Err(error) = self.reread(&object, &self.shell.api).await {
                debug!(object = %self.object(), absent = %object, %error, "cannot confirm that it is not there");
            }
        }
        self.look_again().await;
    }

    /// Nothing is to be done about a Rollout once it has the status that was just written, which says whether it is healthy.
    pub fn rests(&mut self, healthy: bool) {
        self.shell.expectations.rests(self.object());
        self.memory.quiet = Some(Quiet::begins(&basis(&self.shell.index(), self.object(), Some(healthy))));
    }

    async fn look_again(&mut self) {
        let basis = basis(&self.shell.index(), self.object(), None);
        let Some(quiet) = self.memory.quiet.filter(|quiet| quiet.seen == basis.seen) else {
            self.memory.quiet = Some(Quiet::begins(&basis));
            return;
        };
        if Instant::now() < quiet.ends(self.object()) {
            return;
        }
        let api = self.shell.api.within(PATIENCE);
        for object in &basis.objects {
            if let Err(error) = self.reread(object, &api).await {
                debug!(object = %self.object(), read = %object, %error, "cannot look past the watches");
                self.memory.quiet = Some(Quiet::begins(&basis));
                return;
            }
        }
        let now = self::basis(&self.shell.index(), self.object(), None);
        self.memory.quiet = Some(if now.seen == basis.seen {
            Quiet { looked: Instant::now(), ..quiet }
        } else {
            info!(object = %self.object(), "no watch had shown what has changed since the last decision");
            Quiet::begins(&now)
        });
    }
}

/// A watch shows the status that was written last: that is no news.
pub fn echoed(shell: &Shell, object: &ObjectRef) {
    if let Some(quiet) = shell.memories().get_mut(object).and_then(|memory| memory.quiet.as_mut()) {
        quiet.seen = basis(&shell.index(), object, None).seen;
    }
}

/// When somebody should look again what has become of the object, though nothing has been seen to happen.
pub fn due(shell: &Shell, object: &ObjectRef, quiet: Option<&Quiet>) -> Option<Instant> {
    let unseen = shell.expectations.outstanding(object, &shell.index());
    let unseen = unseen
        .iter()
        .filter(|expected| !expected.rests)
        .map(|expected| expected.since + shell.settings.stale_limit)
        .min();
    let due = unseen.into_iter().chain(quiet.map(|quiet| quiet.ends(object))).min();
    due.map(|due| due.max(Instant::now() + SOONEST))
}

/// What the object refers to and no watch has shown. A watch may lag behind the one that showed the object.
fn absent(index: &Index, object: &ObjectRef) -> Vec<ObjectRef> {
    let referred = index.references(object).into_iter().flat_map(|references| &references.objects);
    let is_absent =
        |object: &&ObjectRef| index.knowledge(object.resource) == Knowledge::Synced && index.entry_of(object).is_none();
    referred.filter(is_absent).cloned().collect()
}

/// What is waited for may be any of this: the object itself (a user's wish), its pods, where its traffic goes. At rest only
/// the object itself can have anything to say. `healthy` is what a status says that is newer than what the index shows.
fn basis(index: &Index, object: &ObjectRef, healthy: Option<bool>) -> Basis {
    let mut objects = vec![object.clone()];
    let uid = index.entry_of(object).map_or("", |entry| entry.uid.as_str());
    let sets = index.children(uid, resource::REPLICA_SET).filter(|(_, entry)| has_pods(entry));
    let sets: Vec<_> = sets.map(|(set, _)| set.clone()).collect();
    let rests = index.entry_of(object).is_none_or(|entry| rests(entry, healthy, &sets));
    if !rests {
        objects.extend(sets);
        if let Some(references) = index.references(object) {
            let named = references.objects.iter().filter(|named| directs(named.resource));
            objects.extend(named.filter(|named| index.entry_of(named).is_some()).cloned());
            for (resource, namespace, selector) in &references.selected {
                objects.extend(index.selected_routes(*resource, namespace, selector).map(|(route, _)| route.clone()));
            }
        }
    }
    let mut hasher = DefaultHasher::new();
    for object in &objects {
        object.hash(&mut hasher);
        index.entry_of(object).map(|entry| &entry.resource_version).hash(&mut hasher);
    }
    Basis { objects, seen: hasher.finish(), rests }
}

/// Whether nothing is to be done about a deciding object, with these ReplicaSets that have pods, before somebody asks for it.
fn rests(entry: &Entry, healthy: Option<bool>, with_pods: &[ObjectRef]) -> bool {
    match &entry.object {
        // Old pods may be on their way out.
        Object::Rollout(rollout) => {
            with_pods.len() <= 1
                && healthy.unwrap_or_else(|| {
                    rollout.status.as_ref().is_some_and(|status| is_healthy(&rollout.metadata, status))
                })
        }
        Object::Experiment(experiment) => {
            with_pods.is_empty() && experiment.status.as_ref().is_some_and(|status| status.phase.completed())
        }
        _ => true,
    }
}

/// Whether a status says that the Rollout is healthy as it is asked for now.
pub fn is_healthy(metadata: &ObjectMeta, status: &RolloutStatus) -> bool {
    status.phase == "Healthy" && status.observed_generation == metadata.generation.unwrap_or_default().to_string()
}

fn has_pods(entry: &Entry) -> bool {
    matches!(&entry.object, Object::ReplicaSet(set) if set.replicas > 0 || set.status.replicas > 0)
}

/// Whether objects of a kind say where traffic goes, or what the pods are made from.
fn directs(resource: Resource) -> bool {
    !matches!(resource, resource::ANALYSIS_TEMPLATE | resource::CLUSTER_ANALYSIS_TEMPLATE | resource::ROLLOUT)
}
