//! What a cluster's own controllers and nodes do: Deployments make ReplicaSets, these make pods, pods become ready, endpoints
//! and disruption budgets follow, Jobs run.
//!
//! Everything is level-triggered: a change or a timer puts a key into the queue, and the work on a key looks at what is
//! there now. Keys are worked on in one order, so that the same changes give the same cluster.

mod behaviour;
mod budgets;
mod deployments;
pub(super) mod endpoints;
mod jobs;
mod pods;
mod replica_sets;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;
use tokio::time::Instant;

pub use behaviour::Behaviour;
pub(super) use pods::Serving;

use super::{ApiServer, Change, Op, Scoped};
use behaviour::Behaviours;

/// The resources that this model follows.
pub(super) const FOLLOWED: [&str; 6] =
    ["pods", "services", "replicasets.apps", "deployments.apps", "jobs.batch", budgets::RESOURCE];

/// Where an object of a namespaced kind is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name {
    /// The namespace.
    pub namespace: String,
    /// The name.
    pub name: String,
}

/// Delays and limits of the workload model.
#[derive(Clone, Debug)]
pub struct Settings {
    /// From a change of a pod until the endpoints of its Services follow.
    pub endpoints_delay: Duration,
    /// The nodes that pods are placed on, in turn.
    pub nodes: Vec<String>,
}

/// The workload model.
pub(super) struct Workloads {
    controllers: Scoped,
    scheduler: Scoped,
    kubelet: Scoped,
    settings: Settings,
    behaviours: Behaviours,
    quotas: BTreeMap<String, usize>,
    lost_nodes: BTreeSet<String>,
    /// How far the controller of ReplicaSets is behind.
    behind: Duration,
    pods: BTreeMap<Name, pods::Pod>,
    /// The pods that an owner controls, by the owner's uid.
    owned: BTreeMap<String, BTreeSet<Name>>,
    services: BTreeMap<Name, Arc<Value>>,
    budgets: BTreeMap<Name, Arc<Value>>,
    /// How often in a row a ReplicaSet could not get its pods.
    failures: BTreeMap<Name, u32>,
    /// After how many failed pods a Job waits, and until when.
    pauses: BTreeMap<Name, (u64, Instant)>,
    /// Services whose endpoints are due at some later time.
    awaited: BTreeSet<Name>,
    queue: BTreeSet<Key>,
    timers: BTreeSet<(Instant, Key)>,
    placed: u64,
}

/// What to look at. The order is the order of work: what changes pods comes before what counts them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Pod(Name),
    Job(Name),
    Deployment(Name),
    ReplicaSet(Name),
    Budget(Name),
    Endpoints(Name),
}

impl Default for Settings {
    fn default() -> Self {
        let nodes = ["node-1", "node-2", "node-3"].map(str::to_owned);
        Self { endpoints_delay: Duration::from_millis(100), nodes: nodes.into() }
    }
}

impl Workloads {
    pub(super) fn new(server: &ApiServer, settings: Settings) -> Self {
        Self {
            controllers: server.manager("kube-controller-manager"),
            scheduler: server.manager("kube-scheduler"),
            kubelet: server.manager("kubelet"),
            settings,
            behaviours: Behaviours::default(),
            quotas: BTreeMap::new(),
            lost_nodes: BTreeSet::new(),
            behind: Duration::ZERO,
            pods: BTreeMap::new(),
            owned: BTreeMap::new(),
            services: BTreeMap::new(),
            budgets: BTreeMap::new(),
            failures: BTreeMap::new(),
            pauses: BTreeMap::new(),
            awaited: BTreeSet::new(),
            queue: BTreeSet::new(),
            timers: BTreeSet::new(),
            placed: 0,
        }
    }

    /// Takes note of a change.
    pub(super) fn observe(&mut self, change: &Change, now: Instant) {
        let name = Name::of(&change.object);
        let gone = change.op == Op::Deleted;
        match &*change.resource {
            "pods" => self.observe_pod(name, change, now),
            "replicasets.apps" => {
                if gone {
                    self.failures.remove(&name);
                }
                if let Some(owner) = controller(&change.object).filter(|owner| owner["kind"] == "Deployment") {
                    let owner = Name::new(&name.namespace, owner["name"].as_str().unwrap_or_default());
                    self.queue.insert(Key::Deployment(owner));
                }
                let template = serde_json::json!({"metadata": change.object["spec"]["template"]["metadata"]});
                let budgets = self.budgets_of(&name.namespace, [Some(&template), None]);
                self.queue.extend(budgets.into_iter().map(Key::Budget));
                self.expect_replica_set(name, now);
            }
            "deployments.apps" => drop(self.queue.insert(Key::Deployment(name))),
            budgets::RESOURCE if gone => drop(self.budgets.remove(&name)),
            budgets::RESOURCE => {
                self.budgets.insert(name.clone(), change.object.clone());
                self.queue.insert(Key::Budget(name));
            }
            "jobs.batch" => {
                if gone {
                    self.pauses.remove(&name);
                }
                self.queue.insert(Key::Job(name));
            }
            "services" => {
                if gone {
                    self.services.remove(&name);
                } else {
                    self.services.insert(name.clone(), change.object.clone());
                }
                self.expect_endpoints(name, now);
            }
            _ => {}
        }
    }

    /// Does the next thing that is due; `false` when nothing is.
    pub(super) fn step(&mut self, now: Instant) -> bool {
        while let Some((at, _)) = self.timers.first()
            && *at <= now
            && let Some((_, key)) = self.timers.pop_first()
        {
            self.queue.insert(key);
        }
        let Some(key) = self.queue.pop_first() else { return false };
        match key {
            Key::Pod(name) => self.sync_pod(&name, now),
            Key::Job(name) => self.sync_job(&name, now),
            Key::Deployment(name) => self.sync_deployment(&name),
            Key::ReplicaSet(name) => self.sync_replica_set(&name, now),
            Key::Budget(name) => self.sync_budget(&name),
            Key::Endpoints(name) => self.sync_endpoints(&name),
        }
        true
    }

    /// When there is something to do again.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// How pods behave that say nothing else.
    pub(super) fn behaviours(&self) -> &Behaviours {
        &self.behaviours
    }

    /// Changes how pods behave, those that run included.
    pub(super) fn set_behaviours(&mut self, change: impl FnOnce(&mut Behaviours)) {
        change(&mut self.behaviours);
        self.queue.extend(self.pods.keys().cloned().map(Key::Pod));
    }

    /// Limits the pods of a namespace, or lifts the limit.
    pub(super) fn set_quota(&mut self, namespace: &str, pods: Option<usize>) {
        match pods {
            Some(pods) => drop(self.quotas.insert(namespace.to_owned(), pods)),
            None => drop(self.quotas.remove(namespace)),
        }
    }

    /// Takes a node away, or brings it back.
    pub(super) fn set_node(&mut self, node: &str, up: bool) {
        if up {
            self.lost_nodes.remove(node);
        } else {
            self.lost_nodes.insert(node.to_owned());
        }
        self.queue.extend(self.pods.keys().cloned().map(Key::Pod));
    }

    /// How long after a change the controller of ReplicaSets hears of it from now on.
    pub(super) fn set_behind(&mut self, behind: Duration) {
        self.behind = behind;
    }

    /// How long after a change of a pod the endpoints of its Services follow from now on.
    pub(super) fn set_endpoints_delay(&mut self, delay: Duration) {
        self.settings.endpoints_delay = delay;
    }

    fn expect_replica_set(&mut self, name: Name, now: Instant) {
        if self.behind.is_zero() {
            self.queue.insert(Key::ReplicaSet(name));
        } else {
            self.wake(now + self.behind, Key::ReplicaSet(name));
        }
    }

    fn wake(&mut self, at: Instant, key: Key) {
        self.timers.insert((at, key));
    }

    /// The present instant in API time.
    fn timestamp(&self) -> Timestamp {
        self.controllers.server().clock().now()
    }

    /// Makes a pod for an owner, or says why not.
    fn create_pod(&self, namespace: &str, pod: Value) -> Result<(), String> {
        if let Some(limit) = self.quotas.get(namespace) {
            let used = self.controllers.list("pods", namespace).len();
            if used >= *limit {
                let name = pod["metadata"]["generateName"].as_str().unwrap_or_default();
                return Err(format!(
                    "pods \"{name}\" is forbidden: exceeded quota: pods, requested: pods=1, used: pods={used}, limited: pods={limit}"
                ));
            }
        }
        self.controllers.create("pods", namespace, pod).map(drop).map_err(|refusal| refusal.message)
    }

    /// The pods that an owner controls.
    fn pods_of<'a>(&'a self, owner: &str) -> impl Iterator<Item = (&'a Name, &'a pods::Pod)> {
        let names = self.owned.get(owner).into_iter().flatten();
        names.filter_map(|name| self.pods.get_key_value(name))
    }
}

impl Name {
    /// A name.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }

    /// Where an object is.
    pub(super) fn of(object: &Value) -> Self {
        let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
        Self::new(text("namespace"), text("name"))
    }
}

/// `shop/web`.
impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// The reference to the object's controller.
fn controller(object: &Value) -> Option<&Value> {
    let owners = object["metadata"]["ownerReferences"].as_array()?;
    owners.iter().find(|owner| owner["controller"] == true)
}

/// The reference that makes `owner` the controller of what carries it.
fn owned_by(owner: &Value, api_version: &str, kind: &str) -> Value {
    serde_json::json!({
        "apiVersion": api_version,
        "kind": kind,
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "controller": true,
        "blockOwnerDeletion": true,
    })
}

fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    object["status"]["conditions"].as_array()?.iter().find(|condition| condition["type"] == kind)
}

fn uid(object: &Value) -> &str {
    object["metadata"]["uid"].as_str().unwrap_or_default()
}

/// An instant as Kubernetes writes it, in whole seconds.
fn seconds(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// How long to wait before the next attempt after so many failures in a row.
fn backoff(failures: u32, first: Duration, longest: Duration) -> Duration {
    first.saturating_mul(1 << failures.min(20)).min(longest)
}
