//! The requests that users send, and where they end up.
//!
//! Loads send requests at a steady rate. The data plane leads them to Services by the routes that gateways have taken up,
//! and to the endpoints that they know of; pods answer, err or are gone, as the workload model says. Nobody sends
//! anything for real: requests are counted, a tick at a time.

mod count;
mod gateway;
mod ingress;
mod matching;
mod mesh;
mod plane;
mod record;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

pub use gateway::Conduct;
pub use plane::Destination;
pub(super) use plane::FOLLOWED;
pub use record::{Answered, BUCKETS, Counts, Line, Outcome, Record, Via};

use super::workloads::{Name, Workloads};
use super::{ApiServer, Change, Op};
use count::{Answers, divide};
use plane::{Plane, Share};
use record::Key;

/// Delays and steps of the traffic model.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The step in which requests are counted and recorded; at least a millisecond.
    pub tick: Duration,
    /// From a change of a route, an Ingress or endpoints until gateways follow.
    pub propagation: Duration,
    /// How long single ticks are remembered; totals stay for ever.
    pub retention: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            tick: Duration::from_secs(1),
            propagation: Duration::from_millis(100),
            retention: Duration::from_secs(6 * 3600),
        }
    }
}

/// A steady stream of requests. Open-loop: slow answers do not slow it down.
#[derive(Clone, Debug, PartialEq)]
pub struct Load {
    /// Where the requests go.
    pub target: Target,
    /// Requests in a second.
    pub rate: f64,
}

/// Where requests go.
#[derive(Clone, Debug, PartialEq)]
pub enum Target {
    /// To a gateway: by an HTTPRoute that matches, else by a VirtualService, else by an Ingress.
    Host {
        /// The `Host` header.
        host: String,
        /// The path, with its leading slash.
        path: String,
        /// Further headers.
        headers: BTreeMap<String, String>,
    },
    /// To a gateway, by the first rule of the HTTPRoute or GRPCRoute of this name.
    Route(Name),
    /// To the ClusterIP of a Service, past all gateways.
    Service(Name),
}

impl Target {
    /// A host's root path.
    pub fn host(host: &str) -> Self {
        Self::Host { host: host.to_owned(), path: "/".to_owned(), headers: BTreeMap::new() }
    }
}

/// The traffic model.
pub(super) struct Traffic {
    plane: Plane,
    tick: i64,
    loads: BTreeMap<String, Sending>,
    record: Arc<Mutex<Record>>,
    random: fastrand::Rng,
    clock: crate::clock::Clock,
    /// Up to here requests are counted, in milliseconds of API time.
    counted: i64,
}

/// A load, and what is owed to whom so that shares come out even in the long run.
struct Sending {
    load: Load,
    /// The part of a request that is still to be sent.
    rest: f64,
    shares: BTreeMap<String, f64>,
    pods: BTreeMap<(Name, Name), f64>,
    /// The part of a copy that is still to be sent.
    copies: BTreeMap<String, f64>,
}

impl Sending {
    fn new(load: Load) -> Self {
        Self { load, rest: 0.0, shares: BTreeMap::new(), pods: BTreeMap::new(), copies: BTreeMap::new() }
    }
}

impl Traffic {
    pub(super) fn new(server: &ApiServer, settings: &Settings, seed: u64) -> Self {
        let clock = server.clock().clone();
        let tick = millis(settings.tick);
        Self {
            plane: Plane::new(server, settings.propagation),
            tick,
            loads: BTreeMap::new(),
            record: Arc::new(Mutex::new(Record::new(tick, millis(settings.retention)))),
            // A stream of its own: traffic does not change with what else is random.
            random: fastrand::Rng::with_seed(seed ^ 0x7472_6166_6669_6321),
            counted: clock.now().as_millisecond(),
            clock,
        }
    }

    pub(super) fn record(&self) -> Arc<Mutex<Record>> {
        self.record.clone()
    }

    /// Starts or changes a load, or ends it.
    pub(super) fn set_load(&mut self, name: &str, load: Option<Load>) {
        let Some(load) = load else { return drop(self.loads.remove(name)) };
        match self.loads.get_mut(name) {
            Some(sending) => sending.load = load,
            None => {
                let sending = Sending::new(load);
                self.loads.insert(name.to_owned(), sending);
            }
        }
    }

    pub(super) fn set_conduct(&mut self, route: Option<Name>, conduct: Conduct, now: Instant) {
        self.plane.set_conduct(route, conduct, now);
    }

    /// The shares of a target's requests that go to each destination, as the data plane has it; empty when none go anywhere.
    pub(super) fn split(&self, target: &Target) -> BTreeMap<Destination, f64> {
        let mut split = BTreeMap::new();
        let (shares, _) = self.plane.resolve(target).unwrap_or_default();
        let total: f64 = shares.iter().map(|share| share.weight).sum();
        for share in shares {
            let Share { service, hash, weight, .. } = share;
            *split.entry(Destination { service, hash }).or_insert(0.0) += weight / total;
        }
        split
    }

    pub(super) fn observe(&mut self, change: &Change, now: Instant) {
        if &*change.resource == "pods" && change.op == Op::Deleted {
            lock(&self.record).pod_gone(&Name::of(&change.object), self.counted);
        }
        self.plane.observe(change, now);
    }

    /// Does the next thing that is due; `false` when nothing is.
    pub(super) fn step(&mut self, now: Instant) -> bool {
        self.plane.step(now)
    }

    /// When there is something to do again: a gateway follows, or a tick is over.
    pub(super) fn next_due(&self, now: Instant) -> Option<Instant> {
        let sends = self.loads.values().any(|sending| sending.load.rate > 0.0);
        let tick = sends.then(|| {
            let left = self.tick - self.clock.now().as_millisecond().rem_euclid(self.tick);
            now + Duration::from_millis(left.unsigned_abs())
        });
        [tick, self.plane.next_due()].into_iter().flatten().min()
    }

    /// Counts the requests that were sent until now, by the state that the cluster has had since the last call.
    pub(super) fn count(&mut self, workloads: &Workloads, now: Instant) {
        let present = self.clock.now().as_millisecond();
        while self.counted < present {
            let end = present.min((self.counted.div_euclid(self.tick) + 1) * self.tick);
            self.count_until(end, workloads, now);
            self.counted = end;
        }
    }

    fn count_until(&mut self, end: i64, workloads: &Workloads, now: Instant) {
        let mut record = lock(&self.record);
        let seconds = (end - self.counted) as f64 / 1000.0;
        let since = now.checked_sub(Duration::from_secs_f64(seconds)).unwrap_or(now);
        for (name, sending) in &mut self.loads {
            sending.rest += sending.load.rate * seconds;
            let requests = sending.rest.floor().max(0.0);
            sending.rest -= requests;
            let requests = requests as u64;
            if requests == 0 {
                continue;
            }
            let (shares, mirrors) = match self.plane.resolve(&sending.load.target) {
                Ok(found) => found,
                Err(outcome) => {
                    record.add(end, Key::nowhere(name), None, outcome, requests, &[]);
                    continue;
                }
            };
            let parts: Vec<(String, f64)> = shares.iter().map(|share| (share.key(), share.weight)).collect();
            let parts = divide(requests, &parts, &mut sending.shares);
            // What is copied is counted as a load of its own: nobody waits for its answers.
            let copies = format!("{name} (mirrored)");
            let copied = mirrors.iter().map(|mirror| {
                let owed = sending.copies.entry(mirror.share.key()).or_default();
                *owed += requests as f64 * mirror.part;
                let whole = owed.floor();
                *owed -= whole;
                (&copies, &mirror.share, whole as u64)
            });
            let copied: Vec<_> = copied.collect();
            let direct = shares.iter().zip(parts).map(|(share, requests)| (name, share, requests));
            for (load, share, requests) in direct.chain(copied) {
                let pods = self.plane.endpoints(share, workloads, since);
                let pods = pods.as_deref().map_err(|outcome| *outcome);
                let random = &mut self.random;
                let mut answers = Answers { record: &mut record, random, workloads, since, end, load, share };
                answers.of_service(pods, requests, &mut sending.pods);
            }
        }
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX).max(1)
}

/// The record. A panic under the lock can only come from a bug in this room; what is recorded stays.
pub(super) fn lock(record: &Mutex<Record>) -> MutexGuard<'_, Record> {
    record.lock().unwrap_or_else(PoisonError::into_inner)
}
