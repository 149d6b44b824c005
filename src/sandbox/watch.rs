//! Watches: a cursor in the history of a collection that waits for more.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;
use tokio::time::Instant;

use super::read::{Query, parse_version};
use super::state::{Change, Op};
use super::status::{self, Refusal};
use super::write::Target;
use super::{Call, Shared, WatchFault, http, table};

/// Time between bookmarks on a quiet watch. A real server sends one about every minute.
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);
/// How long a watch lasts whose client named no timeout. A real server picks 30 to 60 minutes.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(45 * 60);

/// What a watch asks for beyond what a list does.
#[derive(Clone, Debug, Default)]
pub(super) struct WatchQuery {
    pub(super) query: Query,
    pub(super) bookmarks: bool,
    pub(super) timeout: Option<Duration>,
    pub(super) initial_events: bool,
}

/// A running watch.
pub(super) struct Watch {
    shared: Arc<Shared>,
    target: Target,
    call: Arc<Call>,
    query: WatchQuery,
    view: table::View,
    /// The changes up to here have been sent.
    cursor: u64,
    /// The resourceVersion that the client knows of.
    told: u64,
    ready: VecDeque<Bytes>,
    changed: Arc<Notify>,
    deadline: Instant,
    bookmark_at: Instant,
    over: bool,
}

impl Watch {
    pub(super) fn start(
        shared: Arc<Shared>,
        target: Target,
        call: Arc<Call>,
        query: WatchQuery,
        view: table::View,
    ) -> Result<Self, Refusal> {
        let state = shared.lock();
        let Some(collection) = state.collection(&target.resource.collection) else {
            return Err(status::no_such_path());
        };
        let version = &query.query.resource_version;
        let asked = parse_version(version).map_err(|_| status::unreadable_version(version))?;
        let changed = collection.changed();
        let now = Instant::now();
        let deadline = now + query.timeout.unwrap_or(DEFAULT_TIMEOUT);
        let mut initial = Vec::new();
        let cursor = if asked == 0 || query.initial_events {
            let namespace = (!target.namespace.is_empty()).then_some(target.namespace.as_str());
            initial.extend(collection.iter(namespace).filter(|object| query.query.matches(object)).cloned());
            state.revision
        } else {
            asked
        };
        drop(state);
        let bookmark_at = now + BOOKMARK_EVERY;
        let ready = VecDeque::new();
        let mut watch = Self {
            shared,
            target,
            call,
            query,
            view,
            cursor,
            told: cursor,
            ready,
            changed,
            deadline,
            bookmark_at,
            over: false,
        };
        for object in initial {
            watch.queue("ADDED", &object);
        }
        if watch.query.initial_events {
            watch.queue_bookmark(true);
        }
        Ok(watch)
    }

    /// The next line of the answer, or the end.
    pub(super) async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(line) = self.ready.pop_front() {
                return Some(line);
            }
            if self.over {
                return None;
            }
            // From here on no change is missed.
            let changed = self.changed.clone().notified_owned();
            match self.advance() {
                Some(WatchFault::Delay(time)) => tokio::time::sleep(time).await,
                Some(WatchFault::NotYet(time)) => {
                    // Elapsed or changed: both are a reason to ask again.
                    let _ = tokio::time::timeout(time, changed).await;
                }
                Some(_) => {}
                None => self.wait(changed).await,
            }
        }
    }

    /// Queues what the next change gives. `None` when there is nothing to do but wait.
    fn advance(&mut self) -> Option<WatchFault> {
        let change = {
            let state = self.shared.lock();
            let collection = state.collection(&self.target.resource.collection);
            let Some(collection) = collection.filter(|it| it.is_told_by(&self.changed)) else {
                // The resource is no longer served, or anew.
                self.over = true;
                return Some(WatchFault::Pass);
            };
            match collection.change_after(self.cursor) {
                Ok(change) => Ok(change.cloned()),
                Err(oldest) => Err(oldest),
            }
        };
        let change = match change {
            Ok(Some(change)) => change,
            Ok(None) => return None,
            Err(oldest) => {
                self.expire(oldest);
                return Some(WatchFault::Pass);
            }
        };
        let before = std::mem::replace(&mut self.cursor, change.revision);
        let Some((kind, object)) = self.seen(&change) else { return Some(WatchFault::Pass) };
        let fault = self.shared.faults().on_event(&self.call, &change);
        match fault {
            WatchFault::Drop => {}
            WatchFault::Duplicate => {
                self.queue(kind, &object);
                self.queue(kind, &object);
            }
            WatchFault::End => self.over = true,
            WatchFault::Expire => self.expire(change.revision),
            WatchFault::NotYet(_) => self.cursor = before,
            WatchFault::Pass | WatchFault::Delay(_) => self.queue(kind, &object),
        }
        Some(fault)
    }

    /// Ends the watch as one that asks for what is forgotten.
    fn expire(&mut self, oldest: u64) {
        let message = format!("too old resource version: {} ({})", self.cursor, oldest + 1);
        let refusal = status::to_value(&status::expired(message));
        self.ready.push_back(line("ERROR", &http::text(&refusal)));
        self.over = true;
    }

    /// How a change looks through the selectors.
    fn seen(&self, change: &Change) -> Option<(&'static str, Arc<Value>)> {
        let meta = &change.object["metadata"];
        if !self.target.namespace.is_empty() && meta["namespace"] != self.target.namespace.as_str() {
            return None;
        }
        let matches = |object: &Value| self.query.query.matches(object);
        let before = change.previous.as_ref().is_some_and(|previous| matches(previous));
        let after = change.op != Op::Deleted && matches(&change.object);
        match (before, after) {
            (false, true) => Some(("ADDED", change.object.clone())),
            (true, true) => Some(("MODIFIED", change.object.clone())),
            (true, false) => {
                // To this watch the object is gone; it shows as it was, at the version of the change.
                let mut last = change.previous.as_deref().cloned().unwrap_or_default();
                last["metadata"]["resourceVersion"] = change.revision.to_string().into();
                Some(("DELETED", Arc::new(last)))
            }
            (false, false) => None,
        }
    }

    async fn wait(&mut self, changed: OwnedNotified) {
        let bookmark_at = if self.query.bookmarks { self.bookmark_at.min(self.deadline) } else { self.deadline };
        tokio::select! {
            biased;
            () = changed => {}
            () = tokio::time::sleep_until(bookmark_at) => {
                let now = Instant::now();
                if self.query.bookmarks {
                    self.bookmark_at = now + BOOKMARK_EVERY;
                    self.queue_bookmark(false);
                }
                self.over |= now >= self.deadline;
            }
        }
    }

    fn queue(&mut self, kind: &str, object: &Arc<Value>) {
        let presented = self.target.resource.present(&self.target.version, object);
        let shown = self.view.text(&self.target, &presented, self.shared.clock.now());
        self.ready.push_back(line(kind, &shown));
        self.told = self.cursor;
    }

    fn queue_bookmark(&mut self, initial_end: bool) {
        let revision = if initial_end { self.cursor } else { self.quiet_revision() };
        if !initial_end && revision == self.told {
            return;
        }
        self.told = revision;
        self.cursor = self.cursor.max(revision);
        let mut meta = json!({"resourceVersion": revision.to_string(), "creationTimestamp": null});
        if initial_end {
            meta["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let resource = &self.target.resource;
        let object = json!({
            "kind": resource.kind,
            "apiVersion": resource.api_version(&self.target.version),
            "metadata": meta,
        });
        let shown = self.view.bookmark(object);
        self.ready.push_back(line("BOOKMARK", &http::text(&shown)));
    }
}

impl Watch {
    /// The newest revision up to which this watch has seen everything.
    fn quiet_revision(&self) -> u64 {
        let state = self.shared.lock();
        let pending = state.collection(&self.target.resource.collection).map(|it| it.change_after(self.cursor));
        if matches!(pending, Some(Ok(None))) { state.revision.max(self.cursor) } else { self.cursor }
    }
}

fn line(kind: &str, object: &str) -> Bytes {
    format!("{{\"type\":\"{kind}\",\"object\":{object}}}\n").into()
}
