//! What can be seen from outside, in one order: changes of objects, what the controller asks of the API server, where the
//! requests of users go, and what happens to the world.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value;
use tidegate::sandbox::cluster::Cluster;
use tidegate::sandbox::traffic::{Destination, Record, Target};
use tidegate::sandbox::{Call, Change, Op, Subscription};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::checkers::{self, Checker, Violation};
use crate::coverage::Coverage;
use crate::script::{Edit, Fault, Router, User, What};

/// The namespace of everything that is released.
pub const NAMESPACE: &str = "default";
/// The host that users call.
pub const HOST: &str = "web.example";

pub const ROLLOUTS: &str = "rollouts.argoproj.io";
pub const REPLICA_SETS: &str = "replicasets.apps";
pub const PODS: &str = "pods";
pub const SERVICES: &str = "services";
pub const HTTP_ROUTES: &str = "httproutes.gateway.networking.k8s.io";
pub const INGRESSES: &str = "ingresses.networking.k8s.io";
pub const VIRTUAL_SERVICES: &str = "virtualservices.networking.istio.io";
pub const DESTINATION_RULES: &str = "destinationrules.networking.istio.io";
pub const SLICES: &str = "endpointslices.discovery.k8s.io";
/// The objects that lead users to pods, as somebody has written them.
pub const ROUTING: [&str; 5] = [SERVICES, HTTP_ROUTES, INGRESSES, VIRTUAL_SERVICES, DESTINATION_RULES];
pub const ANALYSIS_RUNS: &str = "analysisruns.argoproj.io";
pub const HASH: &str = "rollouts-pod-template-hash";
/// Milliseconds after which gateways have taken up the endpoints of a first release.
const HEARD: u64 = 1_000;

/// Something that was seen.
#[derive(Clone, Debug)]
pub enum Seen {
    Change {
        change: Change,
        by_user: bool,
    },
    /// A request of the controller that would change something, as an admission webhook sees it.
    Asked(Asked),
    /// The share of the users' requests that each destination gets.
    Plane(BTreeMap<String, f64>),
    /// Requests of users that no pod has answered, and how many more since the last time.
    Lost {
        requests: u64,
        how: String,
    },
    /// A fault has struck.
    Struck(Fault),
    /// The controller's clock was set.
    ClockSet,
    User(User),
    /// The metric provider has answered with a value that is good.
    GoodMetric,
    /// Nothing goes wrong any more, and the users want what they will want for ever.
    Over,
    /// It is as it was wanted: from here on nothing is to be written.
    Settled,
}

/// A request that would change something.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Which life of the controller.
    pub agent: String,
    pub verb: &'static str,
    pub resource: String,
    pub subresource: String,
    pub name: String,
    /// Nothing, when it is answered.
    pub body: Value,
    /// The answer, once the server has carried it out; none before.
    pub code: Option<u16>,
}

/// The objects of the namespace as they are, and what is known about the world.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// By resource and name.
    objects: BTreeMap<Arc<str>, BTreeMap<String, Arc<Value>>>,
    /// Milliseconds since the start.
    pub now: u64,
    /// The share of the users' requests that each destination gets: a Service, or `service#hash` for a subset of its pods.
    pub plane: BTreeMap<String, f64>,
    /// Until when what happens may be due to pods that were taken away or made unready, or could not be made.
    pub pods_disturbed: u64,
    /// Until when it may be due to those that were taken away or made unready.
    pub pods_lost: u64,
    /// Until when what happens may be due to other people's edits of routes, Services or the strategy.
    pub foreign: u64,
    /// Until when the API server answers badly, watches are late or the controller is down; in particular all writes may be
    /// so much later.
    pub trouble: u64,
    /// Until when two controllers lead.
    pub two_leaders: u64,
    /// Which change was the last one when a leader stood still last, and when that leader goes on.
    stands_still: Option<(u64, u64)>,
    /// The last change.
    revision: u64,
    /// Until when routers may not have followed.
    pub router: u64,
    /// Until when they may not do what they say.
    pub lied_to: u64,
    /// Every size that was wanted, and since when.
    sizes: Vec<(u64, i64)>,
    /// Since when the Rollout has been healthy at some time. One that is deleted takes its pods with it.
    healthy_since: Option<u64>,
}

/// A ReplicaSet as a user sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct Set<'a> {
    pub name: &'a str,
    pub hash: &'a str,
    /// The kind of its controller.
    pub owner: &'a str,
    pub wanted: i64,
    pub available: i64,
}

/// How long after a disturbance its consequences may be seen: pods start again, endpoints and statuses follow.
const AFTERMATH: u64 = 45_000;

impl View {
    /// Takes a change in.
    pub fn apply(&mut self, seen: &Seen) {
        match seen {
            Seen::Change { change, .. } => {
                if change.object["metadata"]["namespace"].as_str().is_some_and(|it| it != NAMESPACE) {
                    return;
                }
                self.revision = change.revision;
                let name = change.object["metadata"]["name"].as_str().unwrap_or_default();
                let objects = self.objects.entry(change.resource.clone()).or_default();
                match change.op {
                    Op::Deleted => drop(objects.remove(name)),
                    Op::Added | Op::Modified => drop(objects.insert(name.to_owned(), change.object.clone())),
                }
                if &*change.resource == ROLLOUTS {
                    if change.op == Op::Deleted {
                        self.healthy_since = None;
                    } else if change.object["status"]["phase"] == "Healthy" {
                        self.healthy_since.get_or_insert(self.now);
                    }
                    let size = self.size();
                    if self.sizes.last().is_none_or(|(_, last)| *last != size) {
                        self.sizes.push((self.now, size));
                    }
                }
            }
            Seen::Plane(plane) => self.plane.clone_from(plane),
            Seen::Struck(fault) => self.strike(fault),
            _ => {}
        }
    }

    fn strike(&mut self, fault: &Fault) {
        let over = self.now + fault.lasts().0;
        if let What::Pause(_) = fault.what {
            self.two_leaders = self.two_leaders.max(over + 5_000);
            self.stands_still = Some((self.revision, over));
        }
        match &fault.what {
            What::Evict(_) | What::Quota(_) | What::Unready(..) | What::Node(_) => {
                let until = over + AFTERMATH;
                self.pods_disturbed = self.pods_disturbed.max(until);
                if !matches!(fault.what, What::Quota(_)) {
                    self.pods_lost = self.pods_lost.max(until);
                }
            }
            What::Edit(Edit::Note) => {}
            What::Edit(_) | What::User(User::Delete | User::Swap | User::Steps) => {
                self.foreign = self.foreign.max(over + AFTERMATH);
            }
            What::Router(Router::Slow(delay) | Router::Late(delay), _) => {
                self.router = self.router.max(over + delay.0 + 10_000);
            }
            What::Router(how, _) => {
                self.router = self.router.max(over + AFTERMATH);
                if *how == Router::Lies {
                    self.lied_to = self.lied_to.max(over + AFTERMATH);
                }
            }
            What::User(_) | What::Metrics(..) | What::Clock(_) => {}
            _ => self.trouble = self.trouble.max(over + 5_000),
        }
    }

    pub fn object(&self, resource: &str, name: &str) -> Option<&Value> {
        self.objects.get(resource)?.get(name).map(|object| &**object)
    }

    pub fn all<'a>(&'a self, resource: &str) -> impl Iterator<Item = (&'a str, &'a Value)> + use<'a> {
        self.objects.get(resource).into_iter().flatten().map(|(name, object)| (name.as_str(), &**object))
    }

    /// Whether a leader that stood still may have sent this in the moment in which it went on, to an object that nobody had
    /// touched meanwhile: then no precondition holds it up, and the leader could not know what had happened to others.
    pub fn is_belated(&self, change: &Change) -> bool {
        let before = change.previous.as_ref().and_then(|it| it["metadata"]["resourceVersion"].as_str()?.parse().ok());
        let untouched = |since: u64| before.is_some_and(|version: u64| version <= since);
        self.stands_still.is_some_and(|(since, goes_on)| self.now == goes_on && untouched(since))
    }

    /// The Rollout, or nothing.
    pub fn rollout(&self) -> &Value {
        self.object(ROLLOUTS, "web").unwrap_or(&Value::Null)
    }

    /// How many pods of a ReplicaSet are ready and not about to go, which it may not have reported yet.
    pub fn ready_pods(&self, set: &str) -> i64 {
        let owned = self.all(PODS).map(|(_, pod)| pod).filter(|pod| {
            let owners = pod["metadata"]["ownerReferences"].as_array();
            owners.is_some_and(|owners| owners.iter().any(|owner| owner["name"] == set))
        });
        let ready = |pod: &&Value| {
            let conditions = pod["status"]["conditions"].as_array();
            pod["metadata"]["deletionTimestamp"].is_null()
                && conditions.is_some_and(|all| all.iter().any(|one| one["type"] == "Ready" && one["status"] == "True"))
        };
        owned.filter(ready).count() as i64
    }

    /// `spec.replicas` of the Rollout.
    pub fn size(&self) -> i64 {
        let rollout = self.rollout();
        if rollout.is_null() { 0 } else { rollout["spec"]["replicas"].as_i64().unwrap_or(1) }
    }

    /// The smallest size that was wanted at some time within the last `within` milliseconds.
    pub fn smallest_size(&self, within: u64) -> i64 {
        self.recent_sizes(within).min().unwrap_or(0)
    }

    /// The largest one.
    pub fn largest_size(&self, within: u64) -> i64 {
        self.recent_sizes(within).max().unwrap_or(0)
    }

    fn recent_sizes(&self, within: u64) -> impl Iterator<Item = i64> {
        let from = self.now.saturating_sub(within);
        let first = self.sizes.partition_point(|(at, _)| *at <= from).saturating_sub(1);
        self.sizes[first..].iter().map(|(_, size)| *size)
    }

    /// Pods of `size` that may be missing, as the strategy says it (Argo's and Kubernetes' rounding: down).
    pub fn may_be_missing(&self, size: i64) -> i64 {
        let canary = &self.rollout()["spec"]["strategy"]["canary"];
        if canary.is_null() {
            return 0;
        }
        let surge = amount(&canary["maxSurge"], "25%", size, true);
        let unavailable = amount(&canary["maxUnavailable"], "25%", size, false);
        if surge == 0 && unavailable == 0 { 1 } else { unavailable }
    }

    /// Pods that there may be beyond `size`.
    pub fn may_be_more(&self, size: i64) -> i64 {
        amount(&self.rollout()["spec"]["strategy"]["canary"]["maxSurge"], "25%", size, true)
    }

    /// Pods that a share of the requests needs.
    pub fn need(&self, share: f64, size: i64) -> i64 {
        if share <= 0.0 || size <= 0 {
            return 0;
        }
        let enough = (size - self.may_be_missing(size)) as f64;
        // Weights are whole hundredths; what is beyond comes from the arithmetic.
        ((share * enough - 1e-6).ceil() as i64).max(1)
    }

    /// The ReplicaSets.
    pub fn sets(&self) -> impl Iterator<Item = Set<'_>> {
        self.all(REPLICA_SETS).map(|(name, object)| set(name, object))
    }

    /// The ReplicaSets that belong to the Rollout.
    pub fn own_sets(&self) -> impl Iterator<Item = Set<'_>> {
        self.sets().filter(|set| set.owner == "Rollout")
    }

    /// Whether requests for a destination meet pods of the ReplicaSet, when it has any.
    fn leads(&self, destination: &str, set: &str) -> bool {
        let (service, hash) = destination.split_once('#').map_or((destination, None), |(it, hash)| (it, Some(hash)));
        let (Some(service), Some(set)) = (self.object(SERVICES, service), self.object(REPLICA_SETS, set)) else {
            return false;
        };
        let labels = &set["spec"]["template"]["metadata"]["labels"];
        selects(service, labels) && hash.is_none_or(|hash| labels[HASH] == hash)
    }

    /// The shares of the destinations as the route, VirtualService or Ingress in the API says.
    pub fn stored(&self) -> BTreeMap<String, f64> {
        if let Some(route) = self.object(HTTP_ROUTES, "web") {
            let backends = route["spec"]["rules"][0]["backendRefs"].as_array().into_iter().flatten();
            let name = |it: &Value| it["name"].as_str().unwrap_or_default().to_owned();
            return parts(backends.map(|it| (name(it), it["weight"].as_f64().unwrap_or(1.0))));
        }
        if let Some(service) = self.object(VIRTUAL_SERVICES, "web") {
            let routes = service["spec"]["http"][0]["route"].as_array().into_iter().flatten();
            return parts(routes.map(|it| (self.meant(&it["destination"]), it["weight"].as_f64().unwrap_or(0.0))));
        }
        let mut shares = BTreeMap::new();
        let backend = |ingress: &Value| {
            let path = &ingress["spec"]["rules"][0]["http"]["paths"][0];
            path["backend"]["service"]["name"].as_str().unwrap_or_default().to_owned()
        };
        let is_canary =
            |ingress: &Value| ingress["metadata"]["annotations"]["nginx.ingress.kubernetes.io/canary"] == "true";
        let mut canary_share = 0.0;
        for (_, ingress) in self.all(INGRESSES).filter(|(_, ingress)| is_canary(ingress)) {
            let weight = ingress["metadata"]["annotations"]["nginx.ingress.kubernetes.io/canary-weight"].as_str();
            let weight = weight.and_then(|text| text.parse::<f64>().ok()).unwrap_or(0.0) / 100.0;
            canary_share = weight;
            if weight > 0.0 {
                shares.insert(backend(ingress), weight);
            }
        }
        for (_, ingress) in self.all(INGRESSES).filter(|(_, ingress)| !is_canary(ingress)) {
            *shares.entry(backend(ingress)).or_insert(0.0) += 1.0 - canary_share;
        }
        shares.retain(|_, share| *share > 0.0);
        shares
    }

    /// What a destination of a VirtualService means: a Service, or a subset of its pods.
    fn meant(&self, destination: &Value) -> String {
        let host = destination["host"].as_str().unwrap_or_default().to_owned();
        let subsets = self.object(DESTINATION_RULES, "web").and_then(|rule| rule["spec"]["subsets"].as_array());
        let named = subsets.into_iter().flatten().find(|subset| subset["name"] == destination["subset"]);
        match named.and_then(|subset| subset["labels"][HASH].as_str()) {
            Some(hash) => format!("{host}#{hash}"),
            None => host,
        }
    }

    /// Whether a route, a VirtualService or an Ingress leads users anywhere.
    pub fn is_routed(&self) -> bool {
        [HTTP_ROUTES, VIRTUAL_SERVICES, INGRESSES].iter().any(|resource| self.all(resource).next().is_some())
    }

    /// Whether the first release still goes on, or gateways have not heard of its pods yet: there is nothing to keep.
    pub fn is_first(&self) -> bool {
        self.healthy_since.is_none_or(|since| self.now < since + HEARD)
    }

    /// The share that a ReplicaSet gets when destinations get these: of a Service with several, by their pods.
    pub fn share_of(&self, set: &str, shares: &BTreeMap<String, f64>) -> f64 {
        let mut sum = 0.0;
        for (destination, share) in shares.iter().filter(|(it, share)| **share > 0.0 && self.leads(it, set)) {
            let behind: Vec<Set<'_>> = self
                .sets()
                .filter(|other| other.name == set || other.available > 0)
                .filter(|other| self.leads(destination, other.name))
                .collect();
            let total: i64 = behind.iter().map(|it| it.available).sum();
            // Where there are no pods at all, whoever has none gets all of it.
            let part = |own: &Set<'_>| if total > 0 { own.available as f64 / total as f64 } else { 1.0 };
            sum += behind.iter().find(|it| it.name == set).map_or(0.0, |own| share * part(own));
        }
        sum
    }

    /// The other ReplicaSets with available pods that carry the shares of these destinations together with this one: which
    /// of them a request meets nobody decides, and they stand in for each other.
    pub fn bearers<'a>(&'a self, name: &'a str, shares: &'a BTreeMap<String, f64>) -> impl Iterator<Item = Set<'a>> {
        let others = self.own_sets().filter(move |other| other.name != name && other.available.min(other.wanted) > 0);
        others.filter(move |other| {
            let mut carried = shares.iter().filter(|(_, share)| **share > 0.0).map(|(destination, _)| destination);
            carried.any(|destination| self.leads(destination, other.name) && self.leads(destination, name))
        })
    }

    /// The state of the Rollout, as the coverage matrix names it.
    pub fn state(&self) -> &'static str {
        let rollout = self.rollout();
        let status = &rollout["status"];
        let text = |field: &str| status[field].as_str().unwrap_or_default();
        if rollout.is_null() {
            return "gone";
        }
        if self.is_first() {
            return "first";
        }
        if status["abort"] == true {
            return if text("phase") == "Degraded" { "aborted" } else { "aborting" };
        }
        if status["promoteFull"] == true {
            return "promoting";
        }
        if text("currentPodHash") == text("stableRS") {
            return if text("phase") == "Healthy" { "healthy" } else { "returning" };
        }
        if !status["pauseConditions"].is_null() {
            return "paused";
        }
        let step = status["currentStepIndex"].as_u64().and_then(|index| usize::try_from(index).ok());
        let steps = &rollout["spec"]["strategy"]["canary"]["steps"];
        match step.map(|step| &steps[step]) {
            Some(step) if !step["setWeight"].is_null() => "weight",
            Some(step) if !step["analysis"].is_null() => "analysis",
            Some(step) if !step["experiment"].is_null() => "experiment",
            Some(step) if !step["pause"].is_null() => "pause",
            _ => "finishing",
        }
    }

    /// All states.
    pub const STATES: [&str; 13] = [
        "gone",
        "first",
        "healthy",
        "weight",
        "pause",
        "paused",
        "analysis",
        "experiment",
        "finishing",
        "promoting",
        "aborting",
        "aborted",
        "returning",
    ];
}

/// What of a Service's selector the labels have; a Service without one selects none.
fn selects(service: &Value, labels: &Value) -> bool {
    let selector = service["spec"]["selector"].as_object();
    selector.is_some_and(|selector| !selector.is_empty() && selector.iter().all(|(key, value)| labels[key] == *value))
}

/// The part of each of these weights in all of them; none of what has none.
fn parts(weights: impl Iterator<Item = (String, f64)>) -> BTreeMap<String, f64> {
    let weights: Vec<(String, f64)> = weights.filter(|(_, weight)| *weight > 0.0).collect();
    let total: f64 = weights.iter().map(|(_, weight)| weight).sum();
    let mut parts = BTreeMap::new();
    for (name, weight) in weights {
        *parts.entry(name).or_insert(0.0) += weight / total;
    }
    parts
}

/// A ReplicaSet as a user sees it.
pub fn set<'a>(name: &'a str, object: &'a Value) -> Set<'a> {
    let owners = object["metadata"]["ownerReferences"].as_array();
    let owner = owners.and_then(|owners| owners.iter().find(|owner| owner["controller"] == true));
    Set {
        name,
        hash: object["metadata"]["labels"][HASH].as_str().unwrap_or_default(),
        owner: owner.and_then(|owner| owner["kind"].as_str()).unwrap_or_default(),
        wanted: object["spec"]["replicas"].as_i64().unwrap_or(1),
        available: object["status"]["availableReplicas"].as_i64().unwrap_or(0),
    }
}

/// A number or a percentage of `size`.
fn amount(value: &Value, default: &str, size: i64, up: bool) -> i64 {
    let text = match value {
        Value::Null => default,
        Value::String(text) => text,
        number => return number.as_i64().unwrap_or(0),
    };
    let Some(percent) = text.strip_suffix('%').and_then(|text| text.parse::<i64>().ok()) else {
        return text.parse().unwrap_or(0);
    };
    let whole = percent * size;
    if up { (whole + 99) / 100 } else { whole / 100 }
}

/// Takes everything down, and shows it to the checkers.
pub struct Log {
    inner: Mutex<Inner>,
    /// Told of everything new.
    pub news: Notify,
    start: Instant,
}

struct Inner {
    cluster: Arc<Cluster>,
    changes: Subscription,
    view: View,
    checkers: Vec<Box<dyn Checker>>,
    violations: Vec<Violation>,
    coverage: Coverage,
    trace: Option<String>,
    /// Users' requests that were lost so far.
    lost: u64,
    /// The states that the Rollout has been in, and since when each time.
    states: Vec<(u64, &'static str)>,
}

impl Log {
    pub fn new(cluster: Arc<Cluster>, with_trace: bool) -> Arc<Self> {
        let changes = cluster.server().subscribe();
        let inner = Inner {
            cluster,
            changes,
            view: View::default(),
            checkers: checkers::all(),
            violations: Vec::new(),
            coverage: Coverage::default(),
            trace: with_trace.then(String::new),
            lost: 0,
            states: Vec::new(),
        };
        Arc::new(Self { inner: Mutex::new(inner), news: Notify::new(), start: Instant::now() })
    }

    /// Takes down what has changed since the last look.
    pub fn look(&self) {
        if self.inner().look(self.now(), false) {
            self.news.notify_waiters();
        }
    }

    /// The same, of what a user has just done.
    pub fn look_at_user(&self) {
        if self.inner().look(self.now(), true) {
            self.news.notify_waiters();
        }
    }

    /// Takes something down, after all that has changed before.
    pub fn note(&self, seen: Seen) {
        let mut inner = self.inner();
        inner.look(self.now(), false);
        inner.take(seen);
        drop(inner);
        self.news.notify_waiters();
    }

    /// Takes a request down.
    pub fn asked(&self, call: &Call, code: Option<u16>) {
        // What was asked is told once: the answer follows it.
        let body = if code.is_none() { serde_json::from_slice(&call.body).ok() } else { None };
        let asked = Asked {
            agent: call.user_agent.clone(),
            verb: call.verb,
            resource: call.resource.clone(),
            subresource: call.subresource.clone(),
            name: call.name.clone(),
            body: body.unwrap_or_default(),
            code,
        };
        self.note(Seen::Asked(asked));
    }

    /// What the view has to say.
    pub fn ask<T>(&self, question: impl FnOnce(&View) -> T) -> T {
        question(&self.inner().view)
    }

    /// Milliseconds since the start.
    pub fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Says that something is not as it must be that no checker can see.
    pub fn accuse(&self, promise: &'static str, what: String) {
        let at = self.now();
        self.inner().accuse(Violation { promise, at, what });
    }

    pub fn violations(&self) -> Vec<Violation> {
        self.inner().violations.clone()
    }

    /// The states that the Rollout has been in, and since when each time.
    pub fn states(&self) -> Vec<(u64, &'static str)> {
        self.inner().states.clone()
    }

    /// What is left at the end: violations, coverage and the trace.
    pub fn end(&self) -> (Vec<Violation>, Coverage, Option<String>) {
        let mut inner = self.inner();
        inner.look(self.now(), false);
        (inner.violations.clone(), std::mem::take(&mut inner.coverage), inner.trace.take())
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Whether anything was new.
    fn look(&mut self, now: u64, by_user: bool) -> bool {
        self.view.now = now;
        let mut any = false;
        while let Some(change) = self.changes.try_next() {
            any = true;
            self.take(Seen::Change { change, by_user });
        }
        let split = self.cluster.split(&Target::host(HOST));
        let plane = split.into_iter().map(|(destination, share)| (named(destination), share)).collect();
        if plane != self.view.plane {
            any = true;
            self.take(Seen::Plane(plane));
        }
        let lost = self.cluster.requests(Record::lost);
        if lost > self.lost {
            any = true;
            let requests = lost - self.lost;
            self.lost = lost;
            let how = self.cluster.requests(|record| {
                let lines = record.lines().filter(|line| line.counts().lost() > 0);
                lines.map(|line| format!("{:?} {} {}", line.via, line.service, line.replica_set)).collect::<Vec<_>>()
            });
            self.take(Seen::Lost { requests, how: how.join(", ") });
        }
        any
    }

    fn take(&mut self, seen: Seen) {
        if let Seen::Struck(fault) = &seen {
            self.coverage.reached(self.view.state(), fault.family());
        }
        self.view.apply(&seen);
        if matches!(seen, Seen::Change { .. }) {
            let state = self.view.state();
            if self.states.last().is_none_or(|(_, last)| *last != state) {
                self.states.push((self.view.now, state));
            }
        }
        if let Some(trace) = &mut self.trace {
            // Writing to a String cannot fail.
            let _ = write!(trace, "{:>9} ", self.view.now);
            describe(trace, &seen);
        }
        let mut found = Vec::new();
        for checker in &mut self.checkers {
            checker.observe(&seen, &self.view, &mut found);
        }
        found.into_iter().for_each(|violation| self.accuse(violation));
    }

    fn accuse(&mut self, violation: Violation) {
        if let Some(trace) = &mut self.trace {
            let _ = writeln!(trace, "{:>9} !!! {}: {}", violation.at, violation.promise, violation.what);
        }
        self.violations.push(violation);
    }
}

/// A destination as the view names it.
fn named(Destination { service, hash }: Destination) -> String {
    hash.map_or(service.name.clone(), |hash| format!("{}#{hash}", service.name))
}

/// One line for people.
fn describe(trace: &mut String, seen: &Seen) {
    let _ = match seen {
        Seen::Change { change, by_user } => {
            let who = if *by_user { "user " } else { "" };
            let object = &change.object;
            let name = object["metadata"]["name"].as_str().unwrap_or_default();
            let more = match &*change.resource {
                ROLLOUTS => {
                    let status = &object["status"];
                    let short = |field: &str| status[field].to_string();
                    format!(
                        " generation={} replicas={} phase={} step={} hash={} stable={} abort={} promoteFull={} message={}",
                        object["metadata"]["generation"],
                        object["spec"]["replicas"],
                        short("phase"),
                        short("currentStepIndex"),
                        short("currentPodHash"),
                        short("stableRS"),
                        short("abort"),
                        short("promoteFull"),
                        short("message")
                    )
                }
                REPLICA_SETS => {
                    let set = set(name, object);
                    format!(" wants {} has {} available", set.wanted, set.available)
                }
                SERVICES => format!(" selects {}", object["spec"]["selector"]),
                HTTP_ROUTES => {
                    let backends = object["spec"]["rules"][0]["backendRefs"].as_array();
                    let weights = backends.into_iter().flatten().map(|it| format!("{}={}", it["name"], it["weight"]));
                    format!(" sends {}", weights.collect::<Vec<_>>().join(" "))
                }
                VIRTUAL_SERVICES => format!(" sends {}", object["spec"]["http"][0]["route"]),
                DESTINATION_RULES => format!(" has {}", object["spec"]["subsets"]),
                INGRESSES => format!(" {}", object["metadata"]["annotations"]),
                ANALYSIS_RUNS => format!(" phase={}", object["status"]["phase"]),
                "events" => format!(" {}: {}", object["reason"], object["message"]),
                _ => String::new(),
            };
            let version = &object["metadata"]["resourceVersion"];
            writeln!(trace, "{who}{:?} {} {name} @{version}{more}", change.op, change.resource)
        }
        Seen::Asked(asked) => {
            let Asked { agent, verb, resource, subresource, name, body, code } = asked;
            match code {
                Some(code) => writeln!(trace, "{agent} <- {code}"),
                None => writeln!(trace, "{agent} -> {verb} {resource} {name} {subresource} {body}"),
            }
        }
        Seen::Plane(shares) => writeln!(trace, "users are sent to {shares:?}"),
        Seen::Lost { requests, how } => writeln!(trace, "{requests} requests lost: {how}"),
        Seen::Struck(fault) => writeln!(trace, "*** {fault}"),
        Seen::ClockSet => writeln!(trace, "the clock was set"),
        Seen::User(user) => writeln!(trace, "user: {user}"),
        Seen::GoodMetric => writeln!(trace, "the metric is good"),
        Seen::Over => writeln!(trace, "nothing goes wrong any more"),
        Seen::Settled => writeln!(trace, "it is as it should be"),
    };
}
