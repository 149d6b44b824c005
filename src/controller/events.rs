//! Events of Kubernetes on the objects that we decide about.
//!
//! They are for people, and never on the path of a decision: a bounded queue leads to a task of its own with a rate limit
//! of its own. That one task writes them one after another, so their order is kept. Repeats count up on one Event.

use std::collections::{BTreeMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::json;
use tokio::sync::mpsc;
use tracing::{debug, warn};

use crate::api::names::EVENT_SOURCE;
use crate::api::resource::{ObjectRef, Resource};
use crate::clock::Clock;
use crate::plan::Event;

use super::api::{Api, CallError, PatchKind};
use super::telemetry::Telemetry;

pub(super) const EVENT: Resource = Resource { group: "", version: "v1", kind: "Event", plural: "events" };

/// Events that may wait to be written: twenty for each of 500 Rollouts that change at once.
const QUEUE: usize = 10_000;
/// Different events that are remembered to be counted up when they repeat. Each takes some 100 bytes.
const REMEMBERED: usize = 2_000;
/// How long a repeat counts up the earlier Event, rather than making a new one; client-go has the same.
const REPEAT: jiff::SignedDuration = jiff::SignedDuration::from_mins(10);

/// Where events are handed in.
#[derive(Clone)]
pub struct Events {
    queue: mpsc::Sender<Emitted>,
    clock: Clock,
    telemetry: Arc<Telemetry>,
}

struct Emitted {
    object: ObjectRef,
    uid: String,
    event: Event,
    at: Timestamp,
}

impl Events {
    /// The way in, and the task that writes until every clone of it is gone.
    pub fn new(api: Api, clock: Clock, telemetry: Arc<Telemetry>) -> (Self, impl Future<Output = ()> + Send) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        (Self { queue: sender, clock, telemetry }, write_all(api, receiver))
    }

    /// Hands an event in. It is dropped, and counted as such, when too many wait already.
    pub fn emit(&self, object: &ObjectRef, uid: &str, event: Event) {
        self.telemetry.emitted(object, event.warning, &event.reason);
        let emitted = Emitted { object: object.clone(), uid: uid.to_owned(), event, at: self.clock.now() };
        if self.queue.try_send(emitted).is_err() {
            self.telemetry.events_dropped.inc();
        }
    }
}

async fn write_all(api: Api, mut queue: mpsc::Receiver<Emitted>) {
    let mut memory = Memory::default();
    while let Some(emitted) = queue.recv().await {
        let mut result = write(&api, &mut memory, &emitted).await;
        if matches!(result, Err(CallError::Unanswered(_))) {
            tokio::time::sleep(Duration::from_secs(1)).await;
            result = write(&api, &mut memory, &emitted).await;
        }
        if let Err(error) = result {
            // A namespace that is being deleted takes no new Events: that is no news.
            let gone = matches!(error, CallError::NotFound(_) | CallError::Refused { code: 403, .. });
            let (object, event) = (&emitted.object, &emitted.event);
            if gone {
                debug!(%object, %event, %error, "an event was not taken");
            } else {
                warn!(%object, %event, %error, "an event was lost");
            }
            api.telemetry().events_dropped.inc();
        }
    }
}

async fn write(api: &Api, memory: &mut Memory, emitted: &Emitted) -> Result<(), CallError> {
    let Emitted { object, uid, event, at } = emitted;
    let time = at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let key = key(emitted);
    if let Some(earlier) = memory.earlier(key, *at) {
        let reference = ObjectRef::new(EVENT, &object.namespace, name(&object.name, earlier.name));
        let patch = json!({"count": earlier.count + 1, "lastTimestamp": time});
        match api.patch(&reference, "", PatchKind::Merge, &patch).await {
            Ok(_) => {
                memory.repeated(key, *at);
                return Ok(());
            }
            // The server forgets Events after a while.
            Err(CallError::NotFound(_)) => {}
            Err(error) => return Err(error),
        }
    }
    let suffix = memory.suffix(*at);
    let reference = ObjectRef::new(EVENT, &object.namespace, name(&object.name, suffix));
    let body = Body {
        api_version: "v1",
        kind: "Event",
        metadata: Metadata { name: &reference.name, namespace: &object.namespace },
        involved_object: Involved {
            api_version: object.resource.api_version(),
            kind: object.resource.kind,
            namespace: &object.namespace,
            name: &object.name,
            uid,
        },
        type_: if event.warning { "Warning" } else { "Normal" },
        reason: &event.reason,
        message: &event.message,
        count: 1,
        first_timestamp: &time,
        last_timestamp: &time,
        source: Source { component: EVENT_SOURCE },
        reporting_component: EVENT_SOURCE,
        reporting_instance: "",
    };
    match api.create(&reference, &body).await {
        // The first attempt had come through after all.
        Ok(_) | Err(CallError::AlreadyExists(_)) => {
            memory.written(key, suffix, *at);
            Ok(())
        }
        Err(error) => Err(error),
    }
}

/// An Event as it is sent. More than half of our writes are such: they are written from where their texts are.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    api_version: &'a str,
    kind: &'a str,
    metadata: Metadata<'a>,
    involved_object: Involved<'a>,
    #[serde(rename = "type")]
    type_: &'a str,
    reason: &'a str,
    message: &'a str,
    count: u32,
    first_timestamp: &'a str,
    last_timestamp: &'a str,
    source: Source<'a>,
    reporting_component: &'a str,
    reporting_instance: &'a str,
}

#[derive(Serialize)]
struct Metadata<'a> {
    name: &'a str,
    namespace: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Involved<'a> {
    api_version: String,
    kind: &'a str,
    namespace: &'a str,
    name: &'a str,
    uid: &'a str,
}

#[derive(Serialize)]
struct Source<'a> {
    component: &'a str,
}

fn key(emitted: &Emitted) -> u64 {
    // This hasher has fixed keys: the same in every run.
    let mut hasher = DefaultHasher::new();
    let Event { warning, reason, message, of: _ } = &emitted.event;
    (&emitted.object, &emitted.uid, warning, reason, message).hash(&mut hasher);
    hasher.finish()
}

/// An object's name and a number in hexadecimal, within the 253 characters that a name may have.
fn name(object: &str, suffix: i64) -> String {
    let cut = object.char_indices().nth(230).map_or(object, |(end, _)| &object[..end]);
    format!("{cut}.{suffix:x}")
}

/// The newest events, to recognise repeats.
#[derive(Default)]
struct Memory {
    known: BTreeMap<u64, Known>,
    order: VecDeque<u64>,
    last_suffix: i64,
}

#[derive(Clone, Copy)]
struct Known {
    name: i64,
    count: u32,
    last: Timestamp,
}

impl Memory {
    fn earlier(&self, key: u64, now: Timestamp) -> Option<Known> {
        self.known.get(&key).copied().filter(|known| now.duration_since(known.last) < REPEAT)
    }

    fn repeated(&mut self, key: u64, now: Timestamp) {
        if let Some(known) = self.known.get_mut(&key) {
            known.count += 1;
            known.last = now;
        }
    }

    fn written(&mut self, key: u64, name: i64, now: Timestamp) {
        if self.known.insert(key, Known { name, count: 1, last: now }).is_none() {
            self.order.push_back(key);
        }
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
    }

    /// A number that no other event of this process has.
    fn suffix(&mut self, now: Timestamp) -> i64 {
        let nanoseconds = i64::try_from(now.as_nanosecond()).unwrap_or(i64::MAX / 2);
        self.last_suffix = nanoseconds.max(self.last_suffix + 1);
        self.last_suffix
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_differ_and_fit() {
        let mut memory = Memory::default();
        let now = Timestamp::from_second(1_700_000_000).unwrap();
        let (one, other) = (memory.suffix(now), memory.suffix(now));
        assert_ne!(name("web", one), name("web", other));
        assert!(name(&"x".repeat(253), one).len() <= 253);
    }

    #[test]
    fn memory_is_bounded() {
        let mut memory = Memory::default();
        let now = Timestamp::UNIX_EPOCH;
        for key in 0..10_000 {
            memory.written(key, 1, now);
        }
        assert_eq!((memory.known.len(), memory.order.len()), (REMEMBERED, REMEMBERED));
        assert!(memory.earlier(0, now).is_none() && memory.earlier(9_999, now).is_some());
        let later = now + REPEAT;
        assert!(memory.earlier(9_999, later).is_none());
    }
}
