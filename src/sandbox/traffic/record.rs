//! What became of the requests: counters for each path that requests take, a tick at a time.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write;
use std::iter::Sum;
use std::ops::{AddAssign, Sub};

use jiff::Timestamp;

use crate::sandbox::workloads::{Name, Serving};

/// The upper bounds of the latency histogram in seconds, as client libraries have them; one more counts all the rest.
pub const BUCKETS: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The pod answered it.
    Ok,
    /// The pod answered it with an error of its own.
    Error,
    /// Nobody listened at the address that the gateway had.
    Refused,
    /// The Service had no endpoints.
    NoEndpoints,
    /// The route led to a Service that does not exist, or to none.
    NoBackend,
    /// No route matched.
    NoRoute,
}

impl Outcome {
    /// All outcomes, in the order in which they are counted.
    pub const ALL: [Self; 6] =
        [Self::Ok, Self::Error, Self::Refused, Self::NoEndpoints, Self::NoBackend, Self::NoRoute];

    /// The status code that the client saw.
    pub fn code(self) -> u16 {
        match self {
            Self::Ok => 200,
            Self::Error | Self::NoBackend => 500,
            Self::Refused => 502,
            Self::NoEndpoints => 503,
            Self::NoRoute => 404,
        }
    }
}

/// How requests came to a Service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Via {
    /// Nowhere: no route matched.
    Nothing,
    /// Straight to its ClusterIP.
    ClusterIp,
    /// Through a Gateway API gateway.
    Gateway {
        /// The route's name.
        route: String,
    },
    /// By a VirtualService of Istio.
    Mesh {
        /// Its name.
        virtual_service: Name,
    },
    /// As a copy, whose answer nobody sees.
    Mirrored,
    /// Through ingress-nginx.
    Nginx {
        /// The name of the main Ingress.
        ingress: String,
        /// The Service of the main Ingress.
        main: String,
        /// Whether the canary Ingress sent them here.
        canary: bool,
    },
}

/// A path that requests take.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) load: String,
    pub(super) via: Via,
    pub(super) service: Name,
    pub(super) port: u16,
    /// Empty when no pod was reached.
    pub(super) pod: String,
}

impl Key {
    /// The path of requests for which there is no way.
    pub(super) fn nowhere(load: &str) -> Self {
        let service = Name::new("", "");
        Self { load: load.to_owned(), via: Via::Nothing, service, port: 0, pod: String::new() }
    }
}

/// Counts of requests.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Counts {
    outcomes: [u64; Outcome::ALL.len()],
    buckets: [u64; BUCKETS.len() + 1],
    seconds: f64,
}

/// A path that requests took, and what became of them.
#[derive(Clone, Debug)]
pub struct Line {
    /// The name of the load.
    pub load: String,
    /// How they came to the Service.
    pub via: Via,
    /// The Service, empty when no route matched.
    pub service: Name,
    /// The Service's port.
    pub port: u16,
    /// Empty when no pod was reached.
    pub pod: String,
    /// The pod's ReplicaSet, or other controller.
    pub replica_set: String,
    /// The pod's `rollouts-pod-template-hash`.
    pub hash: String,
    /// The image that the pod runs.
    pub image: String,
    /// When its pod went.
    gone: Option<i64>,
    /// The counts up to the end of each tick in which they grew.
    ticks: VecDeque<(i64, Counts)>,
}

/// Requests of one load to one ReplicaSet through one Service, in a span of time.
#[derive(Clone, Debug, PartialEq)]
pub struct Answered {
    /// The name of the load.
    pub load: String,
    /// The Service, empty when no route matched.
    pub service: Name,
    /// Empty when no pod was reached.
    pub replica_set: String,
    /// The pods' `rollouts-pod-template-hash`.
    pub hash: String,
    /// The image that the pods run.
    pub image: String,
    /// What became of them.
    pub counts: Counts,
}

/// All requests.
#[derive(Clone, Debug)]
pub struct Record {
    tick: i64,
    retention: i64,
    lines: BTreeMap<Key, Line>,
    lost: u64,
}

impl Record {
    pub(super) fn new(tick: i64, retention: i64) -> Self {
        Self { tick, retention, lines: BTreeMap::new(), lost: 0 }
    }

    /// Counts requests that were sent until `at`, in the tick that `at` belongs to.
    pub(super) fn add(
        &mut self,
        at: i64,
        key: Key,
        pod: Option<&Serving>,
        outcome: Outcome,
        requests: u64,
        latencies: &[(f64, u64)],
    ) {
        if requests == 0 && latencies.is_empty() {
            return;
        }
        if !matches!(outcome, Outcome::Ok | Outcome::Error) {
            self.lost += requests;
        }
        let end = (at + self.tick - 1).div_euclid(self.tick) * self.tick;
        let line = self.lines.entry(key).or_insert_with_key(|key| Line {
            load: key.load.clone(),
            via: key.via.clone(),
            service: key.service.clone(),
            port: key.port,
            pod: key.pod.clone(),
            replica_set: pod.map(|pod| pod.owner.clone()).unwrap_or_default(),
            hash: pod.map(|pod| pod.hash.clone()).unwrap_or_default(),
            image: pod.map(|pod| pod.image.clone()).unwrap_or_default(),
            gone: None,
            ticks: VecDeque::new(),
        });
        let last = line.ticks.back().copied();
        if last.is_none_or(|(at, _)| at < end) {
            line.ticks.push_back((end, last.map(|(_, counts)| counts).unwrap_or_default()));
            // One tick older than the limit stays, so that what came before it remains known.
            while line.ticks.get(1).is_some_and(|(at, _)| *at < end - self.retention) {
                line.ticks.pop_front();
            }
        }
        if let Some((_, counts)) = line.ticks.back_mut() {
            counts.add(outcome, requests, latencies);
        }
    }

    pub(super) fn pod_gone(&mut self, pod: &Name, at: i64) {
        for line in self.lines.values_mut() {
            if line.pod == pod.name && line.service.namespace == pod.namespace {
                line.gone.get_or_insert(at);
            }
        }
    }

    /// Every path that requests took.
    pub fn lines(&self) -> impl Iterator<Item = &Line> {
        self.lines.values()
    }

    /// What became of the requests after `from` until `to`, by load, Service and ReplicaSet. A request counts at the end
    /// of its tick.
    pub fn between(&self, from: Timestamp, to: Timestamp) -> Vec<Answered> {
        let mut found: BTreeMap<(&str, &Name, &str), Answered> = BTreeMap::new();
        for line in self.lines.values() {
            let counts = line.until(to.as_millisecond()) - line.until(from.as_millisecond());
            if counts.requests() == 0 {
                continue;
            }
            let entry = found.entry((&line.load, &line.service, &line.replica_set)).or_insert_with(|| Answered {
                load: line.load.clone(),
                service: line.service.clone(),
                replica_set: line.replica_set.clone(),
                hash: line.hash.clone(),
                image: line.image.clone(),
                counts: Counts::default(),
            });
            entry.counts += counts;
        }
        found.into_values().collect()
    }

    /// Requests that no pod answered, since the beginning.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// All requests since the beginning.
    pub fn total(&self) -> Counts {
        self.lines.values().map(|line| line.until(i64::MAX)).sum()
    }

    /// The whole record as text, a line for each tick of each path: equal for equal runs.
    pub fn trace(&self) -> String {
        let mut text = String::new();
        for line in self.lines.values() {
            let mut before = Counts::default();
            for (at, counts) in &line.ticks {
                let grown = *counts - before;
                before = *counts;
                let pod = if line.pod.is_empty() { "-" } else { &line.pod };
                let (outcomes, buckets) = (grown.outcomes, grown.buckets);
                // Writing to a String cannot fail.
                let _ =
                    writeln!(text, "{at} {} {:?} {} {pod} {outcomes:?} {buckets:?}", line.load, line.via, line.service);
            }
        }
        text
    }
}

impl Line {
    /// The counts at an instant, in milliseconds of API time.
    pub(in crate::sandbox) fn until(&self, at: i64) -> Counts {
        let after = self.ticks.partition_point(|(end, _)| *end <= at);
        after.checked_sub(1).map(|last| self.ticks[last].1).unwrap_or_default()
    }

    /// All of its requests.
    pub fn counts(&self) -> Counts {
        self.ticks.back().map(|(_, counts)| *counts).unwrap_or_default()
    }

    /// When the first requests were counted.
    pub(in crate::sandbox) fn born(&self) -> i64 {
        self.ticks.front().map_or(i64::MAX, |(at, _)| *at)
    }

    /// When the pod went that the requests reached.
    pub(in crate::sandbox) fn gone(&self) -> Option<i64> {
        self.gone
    }
}

impl Counts {
    fn add(&mut self, outcome: Outcome, requests: u64, latencies: &[(f64, u64)]) {
        self.outcomes[outcome as usize] += requests;
        for (seconds, answers) in latencies {
            let bucket = BUCKETS.iter().position(|bound| seconds <= bound).unwrap_or(BUCKETS.len());
            self.buckets[bucket] += answers;
            self.seconds += seconds * *answers as f64;
        }
    }

    /// Requests with this outcome.
    pub fn of(&self, outcome: Outcome) -> u64 {
        self.outcomes[outcome as usize]
    }

    /// All requests.
    pub fn requests(&self) -> u64 {
        self.outcomes.iter().sum()
    }

    /// Requests that were not answered well.
    pub fn failures(&self) -> u64 {
        self.requests() - self.of(Outcome::Ok)
    }

    /// Requests that no pod answered.
    pub fn lost(&self) -> u64 {
        self.failures() - self.of(Outcome::Error)
    }

    /// The share of failures, `None` without requests.
    pub fn error_rate(&self) -> Option<f64> {
        let requests = self.requests();
        (requests > 0).then(|| self.failures() as f64 / requests as f64)
    }

    /// The answers of pods by time: each count belongs to the bound of [`BUCKETS`] at its place, the last to all above.
    pub fn histogram(&self) -> &[u64; BUCKETS.len() + 1] {
        &self.buckets
    }

    /// The sum of the answers' times in seconds.
    pub fn seconds(&self) -> f64 {
        self.seconds
    }

    /// A quantile of the answers' times in seconds, interpolated within its bucket; `None` without answers.
    pub fn quantile(&self, q: f64) -> Option<f64> {
        let total: u64 = self.buckets.iter().sum();
        if total == 0 {
            return None;
        }
        let (rank, mut below) = (q.clamp(0.0, 1.0) * total as f64, 0.0);
        for (index, bound) in BUCKETS.iter().enumerate() {
            let inside = self.buckets[index] as f64;
            if below + inside >= rank && inside > 0.0 {
                let floor = if index == 0 { 0.0 } else { BUCKETS[index - 1] };
                return Some(floor + (bound - floor) * (rank - below) / inside);
            }
            below += inside;
        }
        BUCKETS.last().copied()
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.outcomes.iter_mut().zip(other.outcomes).for_each(|(own, other)| *own += other);
        self.buckets.iter_mut().zip(other.buckets).for_each(|(own, other)| *own += other);
        self.seconds += other.seconds;
    }
}

/// What was counted since an earlier time.
impl Sub for Counts {
    type Output = Self;

    fn sub(mut self, earlier: Self) -> Self {
        self.outcomes.iter_mut().zip(earlier.outcomes).for_each(|(own, other)| *own = own.saturating_sub(other));
        self.buckets.iter_mut().zip(earlier.buckets).for_each(|(own, other)| *own = own.saturating_sub(other));
        self.seconds -= earlier.seconds;
        self
    }
}

impl Sum for Counts {
    fn sum<I: Iterator<Item = Self>>(counts: I) -> Self {
        let mut total = Self::default();
        counts.for_each(|counts| total += counts);
        total
    }
}
