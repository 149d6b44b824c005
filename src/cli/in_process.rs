//! The controller within this process, on a cluster in memory.

use std::sync::Arc;

use crate::clock::Clock;
use crate::controller::{self, Ended, settings::Settings};
use crate::providers::http::Network;
use crate::providers::{JobTarget, Providers};
use crate::sandbox::Cluster;

/// Runs the very controller of `tidegate controller` until `shutdown` is done. Metrics that name no address are asked of
/// `prometheus`.
pub async fn controller(
    cluster: &Cluster,
    clock: Clock,
    prometheus: Option<String>,
    shutdown: impl Future<Output = ()>,
) -> Result<(), Ended> {
    let client = cluster.client("default");
    let jobs = JobTarget { client: client.clone(), namespace: None, other_cluster: false };
    let providers = Providers::new(Arc::new(Network::new()), jobs, clock.clone(), prometheus);
    controller::run(client, providers, clock, Settings::default(), shutdown).await
}
