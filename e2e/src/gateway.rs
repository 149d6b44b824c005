//! Traefik as a Gateway API gateway, outside of the cluster, as a child process.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, bail};
use kube::api::{DynamicObject, TypeMeta};
use kube::{Api, Client};
use serde_json::json;
use tokio::process::Command;

use crate::apply;
use crate::cluster::{ADMIN, Cluster, GATEWAY, free_ports};
use crate::http::Http;
use crate::namespace::HOST;
use crate::process::{Process, Usage};
use crate::tools::{Part, Tools};
use crate::wait::until;

const API_VERSION: &str = "gateway.networking.k8s.io/v1";
/// The namespace of the Gateway object, which a route's `parentRefs` names.
pub const GATEWAY_NAMESPACE: &str = "gateway-system";
/// The name of the Gateway object.
pub const GATEWAY_NAME: &str = "web";

/// What may be chosen about the gateway.
#[derive(Clone, Debug)]
pub struct GatewayOptions {
    /// Traefik takes at most one new configuration in this time. Its own default of two seconds is what users have.
    pub throttle: Duration,
    /// Further arguments of Traefik.
    pub args: Vec<String>,
}

impl Default for GatewayOptions {
    fn default() -> Self {
        Self { throttle: Duration::from_secs(2), args: Vec::new() }
    }
}

/// A running gateway, with a Gateway object that takes HTTPRoutes of all namespaces.
#[derive(Debug)]
pub struct Gateway {
    program: PathBuf,
    folder: PathBuf,
    arguments: Vec<String>,
    port: u16,
    metrics: u16,
    process: Option<Process>,
}

impl Gateway {
    /// Installs the CRDs of Gateway API, makes the Gateway object and starts Traefik.
    ///
    /// # Errors
    /// Something is not installed or is refused, or Traefik does not program the Gateway within a minute.
    pub async fn start(tools: &Tools, folder: &Path, cluster: &Cluster, options: GatewayOptions) -> Result<Self> {
        let client = cluster.client(ADMIN).await?;
        let [port, metrics] = free_ports()?;
        apply::crds(&client, &tools.path(Part::GatewayApi, "standard")).await?;
        create_gateway(&client, port).await?;
        let provider = "--providers.kubernetesgateway";
        let arguments = vec![
            format!("--entrypoints.web.address={HOST}:{port}"),
            format!("--entrypoints.metrics.address=127.0.0.1:{metrics}"),
            format!("{provider}.endpoint={}", cluster.url()),
            format!("{provider}.token={}", cluster.token(GATEWAY)),
            format!("{provider}.certauthfilepath={}", cluster.certificate().display()),
            format!("{provider}.statusaddress.ip={HOST}"),
            format!("--providers.providersthrottleduration={}ms", options.throttle.as_millis()),
            "--metrics.prometheus.entrypoint=metrics".to_owned(),
            "--metrics.prometheus.addserviceslabels=true".to_owned(),
            "--metrics.prometheus.buckets=0.005,0.01,0.025,0.05,0.1,0.25,0.5,1,2.5".to_owned(),
            "--global.checknewversion=false".to_owned(),
            "--global.sendanonymoususage=false".to_owned(),
        ];
        let mut gateway = Self {
            program: tools.path(Part::Traefik, "traefik"),
            folder: folder.to_owned(),
            arguments: arguments.into_iter().chain(options.args).collect(),
            port,
            metrics,
            process: None,
        };
        gateway.restart().await?;
        wait_until_programmed(&client).await?;
        Ok(gateway)
    }

    /// The URL of the listener.
    pub fn url(&self) -> String {
        format!("http://{HOST}:{}", self.port)
    }

    /// The host and port that serve Traefik's metrics.
    pub fn metrics_target(&self) -> String {
        format!("127.0.0.1:{}", self.metrics)
    }

    /// The value of the label `service` in Traefik's metrics for a Service's port.
    pub fn service_label(namespace: &str, service: &str, port: u16) -> String {
        format!("{namespace}-{service}-http-{port}@kubernetesgateway")
    }

    /// Kills Traefik, as a crash would.
    pub async fn kill(&mut self) {
        if let Some(process) = self.process.take() {
            process.kill().await;
        }
    }

    /// Starts Traefik after it was killed, on its old address.
    ///
    /// # Errors
    /// It is running, or does not start within a minute.
    pub async fn restart(&mut self) -> Result<()> {
        if self.process.is_some() {
            bail!("traefik is running");
        }
        let mut process = Process::spawn("traefik", Command::new(&self.program).args(&self.arguments), &self.folder)?;
        let (http, metrics) = (Http::default(), format!("http://{}/metrics", self.metrics_target()));
        process.ready(Duration::from_secs(60), async || http.body(&metrics).await.is_ok()).await?;
        self.process = Some(process);
        Ok(())
    }

    /// What Traefik has used, if it runs.
    pub fn usage(&self) -> Option<Usage> {
        self.process.as_ref()?.usage().ok()
    }

    /// Stops Traefik. The objects stay.
    pub async fn stop(mut self) {
        if let Some(process) = self.process.take() {
            process.stop().await;
        }
    }
}

async fn create_gateway(client: &Client, port: u16) -> Result<()> {
    let objects = [
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": GATEWAY_NAMESPACE}}),
        json!({
            "apiVersion": API_VERSION, "kind": "GatewayClass", "metadata": {"name": "traefik"},
            "spec": {"controllerName": "traefik.io/gateway-controller"},
        }),
        json!({
            "apiVersion": API_VERSION, "kind": "Gateway", "metadata": {"name": GATEWAY_NAME},
            "spec": {
                "gatewayClassName": "traefik",
                "listeners": [{
                    "name": "http", "protocol": "HTTP", "port": port,
                    "allowedRoutes": {"namespaces": {"from": "All"}},
                }],
            },
        }),
    ];
    for object in objects {
        apply::object(client, GATEWAY_NAMESPACE, object).await?;
    }
    Ok(())
}

async fn wait_until_programmed(client: &Client) -> Result<()> {
    let types = TypeMeta { api_version: API_VERSION.to_owned(), kind: "Gateway".to_owned() };
    let (resource, _) = apply::kind(client, &types).await?;
    let gateways: Api<DynamicObject> = Api::namespaced_with(client.clone(), GATEWAY_NAMESPACE, &resource);
    until("the Gateway is programmed", Duration::from_secs(60), async || {
        let gateway = gateways.get(GATEWAY_NAME).await?;
        let conditions = gateway.data["status"]["conditions"].as_array().cloned().unwrap_or_default();
        Ok(conditions.iter().any(|condition| condition["type"] == "Programmed" && condition["status"] == "True"))
    })
    .await
}
