//! What the operator of the controller can set.

use std::net::SocketAddr;
use std::time::Duration;

use crate::api::resource;
use crate::rollout::world;

/// Everything that [`super::run`] needs to know beside the client and the clock.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Only objects with this instance id are ours; those without any when empty.
    pub instance_id: String,
    /// The one namespace that is watched; all when absent.
    pub namespace: Option<String>,
    /// Rollouts that are decided at the same time, at most.
    pub rollout_workers: usize,
    /// AnalysisRuns that are decided (and measured) at the same time, at most.
    pub analysis_workers: usize,
    /// Experiments that are decided at the same time, at most.
    pub experiment_workers: usize,
    /// Only AnalysisRuns are decided, Rollouts and Experiments are left alone.
    pub analysis_only: bool,
    /// How often an object is looked at though nothing has happened to it; never when zero.
    pub resync: Duration,
    /// Requests a second to the API server, and how many may go at once after a quiet time. See [`Settings::default`].
    pub qps: f64,
    pub burst: u32,
    /// How long an answer of the API server is waited for.
    pub call_timeout: Duration,
    /// How long a write of ours may stay unseen in a watch before the object is read again.
    pub stale_limit: Duration,
    /// How long running decisions may take to end when the controller is told to stop.
    pub grace: Duration,
    /// Seconds that routers take to follow their objects; the default of each router when absent.
    pub propagation_delay_seconds: Option<u32>,
    /// The version of Istio's API that VirtualServices and DestinationRules are read and written in.
    pub istio_api_version: &'static str,
    /// Where a lease is kept; no election when absent.
    pub election: Option<Election>,
    /// Where `/metrics` is served; nowhere when absent.
    pub metrics_address: Option<SocketAddr>,
    /// Where `/healthz` and `/readyz` are served; nowhere when absent.
    pub health_address: Option<SocketAddr>,
    /// Seed of all jitter: two runs with the same seed and the same cluster do the same.
    pub seed: u64,
}

/// How a leader is elected.
#[derive(Clone, Debug)]
pub struct Election {
    pub namespace: String,
    /// Who we are; must differ between any two processes.
    pub identity: String,
    pub lease_duration: Duration,
    pub renew_deadline: Duration,
    pub retry_period: Duration,
}

impl Default for Settings {
    /// What the flags default to, without an election and without listening anywhere.
    ///
    /// `qps` and `burst` are ten times those of Argo Rollouts. There, 500 Rollouts that are created at once wait for a
    /// minute, and nearly all of it for the client's own limit (40 a second); to have them created in 15 s with up to 8
    /// writes each takes about 270 a second. The API server protects itself by priority and fairness; this limit is only
    /// there so that a mistake of ours cannot flood it.
    fn default() -> Self {
        Self {
            instance_id: String::new(),
            namespace: None,
            rollout_workers: 10,
            analysis_workers: 30,
            experiment_workers: 10,
            analysis_only: false,
            resync: Duration::from_secs(900),
            qps: 400.0,
            burst: 800,
            call_timeout: Duration::from_secs(15),
            stale_limit: Duration::from_secs(10),
            grace: Duration::from_secs(10),
            propagation_delay_seconds: None,
            istio_api_version: resource::VIRTUAL_SERVICE.version,
            election: None,
            metrics_address: None,
            health_address: None,
            seed: 1,
        }
    }
}

impl Settings {
    /// What decisions may know of the settings.
    pub fn for_decisions(&self) -> world::Settings {
        world::Settings {
            instance_id: self.instance_id.clone(),
            propagation_delay_seconds: self.propagation_delay_seconds,
        }
    }
}
