//! Watches a namespace from outside and keeps every version of what a user would look at.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use kube::api::{ApiResource, DynamicObject};
use kube::core::GroupVersionKind;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client};
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};

use super::trace::{Change, Kind, State};

/// A running recorder. Dropping it stops it.
pub struct Recorder {
    shared: Arc<Mutex<Recorded>>,
    /// Counts the changes.
    version: watch::Receiver<u64>,
    looked: Looked,
    _tasks: JoinSet<()>,
}

/// How far it was looked for something to happen. States are looked at one by one: one that lasts for a moment is found
/// also when a busy machine shows it together with what came next.
struct Looked {
    state: State,
    changes: usize,
    events: usize,
}

struct Recorded {
    changes: Vec<Change>,
    /// What is there now.
    state: State,
    /// The reasons of the Rollout's events, in the order in which they were seen.
    events: Vec<String>,
    /// When something last changed that a trace would show.
    changed: Instant,
    /// The newest resourceVersion of each object.
    newest: BTreeMap<(Kind, String), u64>,
    version: watch::Sender<u64>,
}

impl Recorder {
    /// Starts to watch, and answers once everything is watched: what a list shows later may have changed before.
    pub async fn start(client: &Client, namespace: &str, rollout: &str) -> Self {
        let (version, receiver) = watch::channel(0);
        let (listed, mut all_listed) = watch::channel(0);
        let shared = Arc::new(Mutex::new(Recorded {
            changes: Vec::new(),
            state: State::new(namespace, rollout),
            events: Vec::new(),
            changed: Instant::now(),
            newest: BTreeMap::new(),
            version,
        }));
        let mut tasks = JoinSet::new();
        for kind in Kind::ALL {
            tasks.spawn(watch_kind(client.clone(), namespace.to_owned(), kind, shared.clone(), listed.clone()));
        }
        // It fails only when all watches have ended, which they never do.
        let _ = all_listed.wait_for(|listed| *listed >= Kind::ALL.len()).await;
        let looked = Looked { state: State::new(namespace, rollout), changes: 0, events: 0 };
        let mut recorder = Self { shared, version: receiver, looked, _tasks: tasks };
        recorder.look_at_all();
        recorder
    }

    /// Everything that was seen so far, in the order of resourceVersions.
    pub fn changes(&self) -> Vec<Change> {
        let mut changes = lock(&self.shared).changes.clone();
        changes.sort_by_key(|change| change.revision);
        changes
    }

    /// How many events were seen so far.
    pub fn event_count(&self) -> usize {
        lock(&self.shared).events.len()
    }

    /// Asks about what is there now, and the reasons of the events after the first so many.
    pub fn ask<T>(&self, events_from: usize, question: impl FnOnce(&State, &[String]) -> T) -> T {
        let recorded = lock(&self.shared);
        question(&recorded.state, recorded.events.get(events_from..).unwrap_or_default())
    }

    /// Waits for the next change after `seen`, until `deadline` at the latest. Answers whether there was one.
    pub async fn next(&mut self, deadline: Instant) -> bool {
        matches!(timeout_at(deadline, self.version.changed()).await, Ok(Ok(())))
    }

    /// Waits until something holds, beginning with the state that was looked at last. It is asked about each state, and the
    /// reasons of the events after the first so many.
    pub async fn until(
        &mut self,
        deadline: Instant,
        events_from: usize,
        holds: impl Fn(&State, &[String]) -> bool,
    ) -> bool {
        loop {
            if self.look(events_from, &holds) {
                return true;
            }
            if !self.next(deadline).await {
                return false;
            }
        }
    }

    /// Looks at what has changed since, up to a state in which something holds.
    fn look(&mut self, events_from: usize, holds: &impl Fn(&State, &[String]) -> bool) -> bool {
        let recorded = lock(&self.shared);
        loop {
            let events = recorded.events.get(events_from..self.looked.events).unwrap_or_default();
            if holds(&self.looked.state, events) {
                return true;
            }
            let Some(change) = recorded.changes.get(self.looked.changes) else { return false };
            self.looked.take(change);
        }
    }

    /// What is waited for from now on is not what has been.
    pub fn look_at_all(&mut self) {
        let recorded = lock(&self.shared);
        recorded.changes.iter().skip(self.looked.changes).for_each(|change| self.looked.take(change));
    }

    /// Waits until a write of our own was seen: what is waited for from then on comes after it. A write that changes
    /// nothing, or of a kind that is not watched, is not waited for.
    pub async fn catch_up(&mut self, kind: Kind, name: &str, revision: u64, deadline: Instant) -> bool {
        let key = (kind, name.to_owned());
        while lock(&self.shared).newest.get(&key).is_none_or(|newest| *newest < revision) {
            if !self.next(deadline).await {
                return false;
            }
        }
        let recorded = lock(&self.shared);
        let rest = recorded.changes.get(self.looked.changes..).unwrap_or_default();
        let is_it = |change: &Change| {
            change.kind == kind && change.revision >= revision && change.object["metadata"]["name"] == name
        };
        let behind = rest.iter().position(is_it).map_or(rest.len(), |at| at + 1);
        rest[..behind].iter().for_each(|change| self.looked.take(change));
        true
    }

    /// Waits until nothing has changed for `quiet`, but not longer than `most`.
    pub async fn settle(&self, quiet: Duration, most: Duration) {
        let deadline = Instant::now() + most;
        loop {
            let due = lock(&self.shared).changed + quiet;
            if Instant::now() >= due.min(deadline) {
                return;
            }
            tokio::time::sleep_until(due.min(deadline)).await;
        }
    }
}

impl Looked {
    fn take(&mut self, change: &Change) {
        self.state.apply(change);
        self.changes += 1;
        self.events += usize::from(is_of_rollout(change.kind, &change.object));
    }
}

impl Recorded {
    fn take(&mut self, kind: Kind, object: &DynamicObject, deleted: bool) {
        let revision = object.metadata.resource_version.as_deref().and_then(|version| version.parse().ok());
        let revision: u64 = revision.unwrap_or(0);
        let name = object.metadata.name.clone().unwrap_or_default();
        let known = self.newest.entry((kind, name)).or_default();
        if revision <= *known {
            // A list after a broken watch.
            return;
        }
        *known = revision;
        // What was decoded from JSON can be encoded again.
        let object = serde_json::to_value(object).unwrap_or(Value::Null);
        if is_of_rollout(kind, &object) {
            self.events.push(object["reason"].as_str().unwrap_or_default().to_owned());
        }
        let change = Change { revision, kind, deleted, object };
        if !self.state.apply(&change).is_empty() {
            self.changed = Instant::now();
        }
        self.changes.push(change);
        self.version.send_modify(|version| *version += 1);
    }
}

/// Whether it is an event of a Rollout.
fn is_of_rollout(kind: Kind, object: &Value) -> bool {
    kind == Kind::Event && object["involvedObject"]["kind"] == "Rollout"
}

async fn watch_kind(
    client: Client,
    namespace: String,
    kind: Kind,
    shared: Arc<Mutex<Recorded>>,
    listed: watch::Sender<usize>,
) {
    let mut first = true;
    let (group, version, name, plural) = kind.resource();
    let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, name), plural);
    let api: Api<DynamicObject> = Api::namespaced_with(client, &namespace, &resource);
    let mut events = watcher(api, watcher::Config::default()).boxed();
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Apply(object)) => lock(&shared).take(kind, &object, false),
            Ok(Event::InitApply(object)) => lock(&shared).take(kind, &object, false),
            Ok(Event::Delete(object)) => lock(&shared).take(kind, &object, true),
            Ok(Event::Init) => {}
            Ok(Event::InitDone) => {
                if std::mem::take(&mut first) {
                    listed.send_modify(|listed| *listed += 1);
                }
            }
            Err(_) => sleep(Duration::from_millis(200)).await,
        }
    }
}

fn lock(recorded: &Mutex<Recorded>) -> MutexGuard<'_, Recorded> {
    recorded.lock().unwrap_or_else(PoisonError::into_inner)
}
