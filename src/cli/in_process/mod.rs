//! The controller within this process, on a cluster in memory: in real time for whoever watches, in virtual time for whoever
//! wants the end of the story.

mod rolling;
mod transport;

use std::sync::{Arc, OnceLock};

use crate::clock::Clock;
use crate::controller::{self, Ended, settings::Settings};
use crate::providers::http::{Network, Transport};
use crate::providers::{JobTarget, Providers};
use crate::sandbox::{ApiServer, Cluster};

pub use rolling::{Rolling, RollingError};
pub use transport::{Question, When, ask, respond};

/// Who runs the gateways of clusters in memory.
pub const GATEWAY_NAMESPACE: &str = "gateway-system";

/// The Gateway that every such cluster has.
const GATEWAY: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: gateway-system}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: web, namespace: gateway-system}
spec: {gatewayClassName: sandbox, listeners: [{name: http, protocol: HTTP, port: 80}]}
";

/// Runs the very controller of `tidegate controller` until `shutdown` is done. Metrics that name no address are asked of
/// `prometheus`.
pub async fn controller(
    cluster: &Cluster,
    clock: Clock,
    prometheus: Option<String>,
    shutdown: impl Future<Output = ()>,
) -> Result<(), Ended> {
    controller_with(cluster, clock, Arc::new(Network::new()), prometheus, Settings::default(), shutdown).await
}

/// As [`controller`], with settings of its own and somebody else to carry its questions to metric providers.
pub async fn controller_with(
    cluster: &Cluster,
    clock: Clock,
    transport: Arc<dyn Transport>,
    prometheus: Option<String>,
    settings: Settings,
    shutdown: impl Future<Output = ()>,
) -> Result<(), Ended> {
    let client = cluster.client("default");
    let jobs = JobTarget { client: client.clone(), namespace: None, other_cluster: false };
    let providers = Providers::new(transport, jobs, clock.clone(), prometheus);
    controller::run(client, providers, clock, settings, shutdown).await
}

/// Lives a future on this thread, in virtual time: as soon as everybody waits, the time is that at which somebody goes on.
/// The same future lives the same life each time.
///
/// # Errors
/// The system has no resources for a runtime.
pub fn in_virtual_time<F: Future>(future: F) -> std::io::Result<F::Output> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()?;
    Ok(runtime.block_on(future))
}

/// A server with all definitions and a Gateway, made once in a process and forked for each life. Must be called within a
/// runtime.
pub fn server(clock: &Clock, seed: u64) -> ApiServer {
    static PREPARED: OnceLock<ApiServer> = OnceLock::new();
    let prepared = PREPARED.get_or_init(|| {
        let server = ApiServer::new(clock.clone(), 1);
        // Its models have nothing to do with the objects of later lives: they end here.
        let cluster = Cluster::builder().server(server.clone()).start();
        // Constants that are applied in every test of the sandbox.
        cluster.apply(GATEWAY).expect("the gateway can be made");
        server
    });
    prepared.fork(clock.clone(), seed)
}
