//! The sandbox as a whole: an API server with the kinds that a rollout needs, and the models that make it live.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use tidegate::sandbox::Cluster;
//!
//! let cluster = Cluster::builder().seed(7).start();
//! cluster.apply("{apiVersion: v1, kind: Service, metadata: {name: web}, spec: {selector: {app: web}}}")?;
//! let client = cluster.client("default");
//! # Ok(()) }
//! ```

mod apply;
mod drive;
pub mod route_crds;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::Instant;

pub use apply::ApplyError;

use super::prometheus::Prometheus;
use super::traffic::{self, Conduct, Destination, Load, Record, Target, Traffic};
use super::workloads::{self, Behaviour, Name};
use super::{ApiServer, DeleteOptions, Refusal, Scoped, Serving};
use crate::clock::Clock;
use drive::Models;

const CRDS: &str = "customresourcedefinitions.apiextensions.k8s.io";

/// A cluster in memory. Its models run until it is dropped.
pub struct Cluster {
    server: ApiServer,
    shared: Arc<Shared>,
    record: Arc<Mutex<Record>>,
    prometheus: Prometheus,
    task: JoinHandle<()>,
}

struct Shared {
    models: Mutex<Models>,
    /// Tells the models that they were changed from outside.
    changed: Notify,
}

/// How to make a [`Cluster`].
pub struct Builder {
    seed: u64,
    clock: Option<Clock>,
    server: Option<ApiServer>,
    workloads: workloads::Settings,
    traffic: traffic::Settings,
    scrape_interval: Duration,
    namespaces: Vec<String>,
}

impl Builder {
    /// The seed of all that is random. The same seed, the same run.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// The clock that stamps objects; the system's if none is given. In virtual time: [`Clock::starting_at`].
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = Some(clock);
        self
    }

    /// Takes this server, with the objects that it has and its clock, instead of a new one.
    pub fn server(mut self, server: ApiServer) -> Self {
        self.server = Some(server);
        self
    }

    /// Delays and limits of the workload model.
    pub fn workloads(mut self, settings: workloads::Settings) -> Self {
        self.workloads = settings;
        self
    }

    /// Delays and steps of the traffic model.
    pub fn traffic(mut self, settings: traffic::Settings) -> Self {
        self.traffic = settings;
        self
    }

    /// How often Prometheus scrapes; every second by default. Not shorter than a tick of the traffic model makes sense.
    pub fn scrape_interval(mut self, interval: Duration) -> Self {
        self.scrape_interval = interval;
        self
    }

    /// Makes a namespace, beside those that every cluster has.
    pub fn namespace(mut self, name: &str) -> Self {
        self.namespaces.push(name.to_owned());
        self
    }

    /// Makes the cluster and starts its models. Must be called within a tokio runtime; on a current-thread runtime with
    /// paused time the run is reproducible.
    pub fn start(self) -> Cluster {
        let (seed, clock) = (self.seed, self.clock.unwrap_or_else(Clock::system));
        let server = self.server.unwrap_or_else(|| ApiServer::new(clock, seed));
        let admin = server.manager("sandbox");
        for definition in definitions() {
            install(&admin, CRDS, definition["metadata"]["name"].as_str().unwrap_or_default(), || definition.clone());
        }
        for name in self.namespaces.iter() {
            install(&admin, "namespaces", name, || json!({"metadata": {"name": name}}));
        }
        for name in &self.workloads.nodes {
            let ready = || json!({"type": "Ready", "status": "True", "reason": "KubeletReady"});
            install(&admin, "nodes", name, || json!({"metadata": {"name": name}, "status": {"conditions": [ready()]}}));
        }
        let traffic = Traffic::new(&server, &self.traffic, seed);
        let record = traffic.record();
        let models = Models::new(&server, self.workloads, traffic);
        let shared = Arc::new(Shared { models: Mutex::new(models), changed: Notify::new() });
        let models = shared.clone();
        let catch_up = Box::new(move || models.lock().count(Instant::now()));
        let prometheus = Prometheus::new(record.clone(), server.clock().clone(), self.scrape_interval, catch_up);
        let task = tokio::spawn(drive::run(shared.clone(), server.subscribe()));
        Cluster { server, shared, record, prometheus, task }
    }
}

/// The CustomResourceDefinitions that every cluster gets: made once, since it takes longer than a simulated rollout.
fn definitions() -> &'static [Value] {
    static DEFINITIONS: OnceLock<Vec<Value>> = OnceLock::new();
    DEFINITIONS.get_or_init(|| {
        let ours = crate::api::crd::all().into_iter().map(|(_, definition)| definition);
        ours.chain(route_crds::all()).collect()
    })
}

/// Creates what is not there yet.
fn install(admin: &Scoped, resource: &str, name: &str, object: impl FnOnce() -> Value) {
    if admin.get(resource, "", name).is_err()
        && let Err(refusal) = admin.create(resource, "", object())
    {
        tracing::error!(%resource, %name, message = %refusal.message, "the sandbox cannot make an object of its own");
    }
}

impl Cluster {
    /// A new cluster's settings: seed 1, the system's clock, no namespaces but those that every cluster has.
    pub fn builder() -> Builder {
        Builder {
            seed: 1,
            clock: None,
            server: None,
            workloads: workloads::Settings::default(),
            traffic: traffic::Settings::default(),
            scrape_interval: Duration::from_secs(1),
            namespaces: Vec::new(),
        }
    }

    /// The API server: its faults, its changes, its forks.
    pub fn server(&self) -> &ApiServer {
        &self.server
    }

    /// A client of the API server.
    pub fn client(&self, namespace: &str) -> kube::Client {
        self.server.client(namespace)
    }

    /// Direct access to the API server in a user's name.
    pub fn user(&self) -> Scoped {
        self.server.manager("kubectl")
    }

    /// Creates the objects of a YAML text of one or more documents, or merges them into those that are there. Objects
    /// without a namespace go to `default`.
    ///
    /// # Errors
    /// The first object that is refused, or that cannot be read. Those before it stay.
    pub fn apply(&self, yaml: &str) -> Result<Vec<Arc<Value>>, ApplyError> {
        apply::apply(&self.user(), yaml)
    }

    /// Serves the API over HTTP; [`Serving::kubeconfig`] leads kubectl there. Port 0 takes a free one.
    ///
    /// # Errors
    /// When the address cannot be listened on.
    pub async fn serve(&self, address: SocketAddr) -> std::io::Result<Serving> {
        self.server.serve(address).await
    }

    /// How pods behave whose image is not in the table and whose annotations say nothing. Running pods change, too.
    pub fn set_default_behaviour(&self, behaviour: Behaviour) {
        self.change(|models| models.workloads.set_behaviours(|behaviours| behaviours.default = behaviour));
    }

    /// How pods behave that run an image: a whole image name (`registry/web:v2`) or a tag alone (`v2`). Running pods
    /// change, too.
    pub fn set_image(&self, image: &str, behaviour: Behaviour) {
        let image = image.to_owned();
        self.change(|models| {
            models.workloads.set_behaviours(|behaviours| {
                behaviours.images.insert(image, behaviour);
            });
        });
    }

    /// The behaviour of pods that say nothing else: what to start from for [`Cluster::set_image`].
    pub fn default_behaviour(&self) -> Behaviour {
        self.lock().workloads.behaviours().default.clone()
    }

    /// Limits the pods of a namespace as a ResourceQuota does, or lifts the limit.
    pub fn set_quota(&self, namespace: &str, pods: Option<usize>) {
        self.change(|models| models.workloads.set_quota(namespace, pods));
    }

    /// Takes a node away, with all its pods, or brings it back.
    pub fn set_node(&self, node: &str, up: bool) {
        self.change(|models| models.workloads.set_node(node, up));
    }

    /// Lets the controller of ReplicaSets hear of every change so much later, of sizes and of pods alike.
    pub fn set_replica_sets_behind(&self, behind: Duration) {
        self.change(|models| models.workloads.set_behind(behind));
    }

    /// Lets the endpoints of Services follow so long after their pods and selectors.
    pub fn set_endpoints_delay(&self, delay: Duration) {
        self.change(|models| models.workloads.set_endpoints_delay(delay));
    }

    /// Evicts a pod: it ends within its grace period, and its ReplicaSet makes another.
    ///
    /// # Errors
    /// As the server refuses.
    pub fn evict(&self, namespace: &str, pod: &str) -> Result<(), Refusal> {
        self.user().delete("pods", namespace, pod, &DeleteOptions::default()).map(drop)
    }

    /// Sends requests from now on, or at another rate or elsewhere if a load of this name exists.
    pub fn send(&self, name: &str, load: Load) {
        self.change(|models| models.traffic.set_load(name, Some(load)));
    }

    /// Sends the requests of a load no longer.
    pub fn stop_sending(&self, name: &str) {
        self.change(|models| models.traffic.set_load(name, None));
    }

    /// How the gateway controller treats a route, or all that it does not treat in a way of their own.
    pub fn set_gateway(&self, route: Option<Name>, conduct: Conduct) {
        self.change(|models| models.traffic.set_conduct(route, conduct, Instant::now()));
    }

    /// The share of a target's requests that each destination gets, as the data plane has it now: which may be older than what
    /// the routes say. Empty when no route leads anywhere.
    pub fn split(&self, target: &Target) -> BTreeMap<Destination, f64> {
        self.lock().traffic.split(target)
    }

    /// Looks at what became of the requests until now.
    pub fn requests<T>(&self, look: impl FnOnce(&Record) -> T) -> T {
        self.lock().count(Instant::now());
        look(&traffic::lock(&self.record))
    }

    /// The Prometheus that scrapes the gateways and pods.
    pub fn prometheus(&self) -> &Prometheus {
        &self.prometheus
    }

    /// Waits until something holds, looking after every change, and at least every 100 ms. `false` after the timeout.
    pub async fn wait_until(&self, timeout: Duration, mut holds: impl FnMut(&Self) -> bool) -> bool {
        let mut changes = self.server.subscribe();
        let waiting = async {
            while !holds(self) {
                // An elapsed pause is as good a reason to look again as a change.
                let _ = tokio::time::timeout(Duration::from_millis(100), changes.next()).await;
                while changes.try_next().is_some() {}
            }
        };
        tokio::time::timeout(timeout, waiting).await.is_ok()
    }

    /// Stops the models. The API server goes on with what is there.
    pub async fn stop(mut self) {
        self.task.abort();
        // It was told to stop: that it did is all there is to know.
        let _ = (&mut self.task).await;
    }

    fn lock(&self) -> MutexGuard<'_, Models> {
        self.shared.lock()
    }

    fn change<T>(&self, change: impl FnOnce(&mut Models) -> T) -> T {
        let changed = {
            let mut models = self.lock();
            models.count(Instant::now());
            change(&mut models)
        };
        self.shared.changed.notify_one();
        changed
    }
}

impl Shared {
    /// The models. A panic under the lock can only come from a bug in this room; the models go on with what is there.
    fn lock(&self) -> MutexGuard<'_, Models> {
        self.models.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.task.abort();
    }
}
