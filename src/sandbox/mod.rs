//! A Kubernetes API in memory, with a workload model and a traffic model.
//!
//! [`ApiServer`] answers what kube-apiserver answers, to a `kube::Client` in the process ([`ApiServer::client`]), to
//! kubectl over HTTP ([`ApiServer::serve`]), and to models and tests that call its methods. It has no threads and no
//! clock of its own: the same requests in the same order give the same objects, uids and resourceVersions.

mod access;
mod apply;
mod builtin;
pub mod cluster;
mod crd;
mod delete;
mod discovery;
mod faults;
mod gc;
mod http;
mod names;
mod openapi;
mod patch;
mod path;
pub mod prometheus;
mod read;
mod resource;
mod schema;
mod selector;
mod serve;
mod state;
mod status;
mod strategy;
mod subresource;
mod table;
pub mod traffic;
mod watch;
pub mod workloads;
mod write;

#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use access::{Scoped, Subscription};
pub use cluster::Cluster;
pub use delete::{DeleteOptions, Propagation};
pub use faults::{Call, Fault, Faults, WatchFault};
pub use patch::Patch;
pub use resource::{Resource, Scale, Version};
pub use selector::LabelSelector;
pub use serve::{Serving, kubeconfig};
pub use state::{Change, Op};
pub use status::Refusal;

use crate::clock::Clock;

/// A Kubernetes API server in memory. Clones are handles on the same server.
#[derive(Clone)]
pub struct ApiServer {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<state::State>,
    faults: Mutex<Arc<dyn Faults>>,
    clock: Clock,
}

impl ApiServer {
    /// A server with the namespaces that every cluster has, and nothing else.
    pub fn new(clock: Clock, seed: u64) -> Self {
        let server = Self::with(state::State::new(seed), clock);
        for name in ["default", "kube-node-lease", "kube-public", "kube-system"] {
            let namespace = serde_json::json!({"metadata": {"name": name}});
            // A fresh server has no reason to refuse its first namespaces.
            server.manager("kube-apiserver").create("namespaces", "", namespace).expect("a namespace can be created");
        }
        server
    }

    /// A server of its own that begins with this one's objects and resources: cheap, since objects are shared until
    /// one side changes them. Watches, subscriptions, faults and history stay behind.
    pub fn fork(&self, clock: Clock, seed: u64) -> Self {
        Self::with(self.shared.lock().fork(seed), clock)
    }

    fn with(state: state::State, clock: Clock) -> Self {
        let shared = Shared { state: Mutex::new(state), faults: Mutex::new(Arc::new(faults::Flawless)), clock };
        Self { shared: Arc::new(shared) }
    }

    /// Lets `faults` decide from now on what goes wrong.
    pub fn set_faults(&self, faults: Arc<dyn Faults>) {
        *self.shared.faults.lock().unwrap_or_else(PoisonError::into_inner) = faults;
    }

    /// Whether objects that are made from now on say who owns which field. A new server's do; where nobody looks, their
    /// `managedFields` cost time in every write and every watch event. What is applied by the server is tracked in any case.
    pub fn track_fields(&self, tracks: bool) {
        self.shared.lock().tracks_fields = tracks;
    }

    /// The clock that the server stamps objects with.
    pub fn clock(&self) -> &Clock {
        &self.shared.clock
    }
}

impl Shared {
    /// The state. A panic under the lock can only come from a bug in this room; later requests go on with what is there.
    fn lock(&self) -> MutexGuard<'_, state::State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn faults(&self) -> Arc<dyn Faults> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
