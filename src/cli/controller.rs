//! `tidegate controller`: the controller itself, with the flags of Argo Rollouts' controller.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tracing::{info, warn};
use tracing_subscriber::EnvFilter;

use crate::api::duration::GoDuration;
use crate::clock::Clock;
use crate::controller::{self, settings};
use crate::providers::http::Network;
use crate::providers::{JobTarget, Providers};

use super::connect::Connection;

/// Run the controller
#[derive(Debug, clap::Args)]
pub struct Controller {
    #[command(flatten)]
    connection: Connection,
    /// Watch one namespace only: that of --namespace
    #[arg(long)]
    namespaced: bool,
    /// Only serve objects with this instance id; without it, those that have none
    #[arg(long, default_value = "")]
    instance_id: String,
    /// Part of the controller to run: `analysis` leaves Rollouts alone
    #[arg(long, value_delimiter = ',', value_parser = ["analysis"])]
    controllers: Vec<String>,

    /// trace, debug, info, warn or error
    #[arg(long, default_value = "info")]
    loglevel: String,
    /// text or json
    #[arg(long, default_value = "text", value_parser = ["text", "json"])]
    logformat: String,
    /// Port of /metrics; 0 for none
    #[arg(long = "metricsPort", alias = "metricsport", alias = "metrics-port", default_value_t = 8090)]
    metrics_port: u16,
    /// Port of /healthz and /readyz; 0 for none
    #[arg(long = "healthzPort", alias = "healthz-port", default_value_t = 8080)]
    healthz_port: u16,

    /// Requests a second to the API server
    #[arg(long, default_value_t = settings::Settings::default().qps)]
    qps: f64,
    /// Requests that may go at once after a quiet time
    #[arg(long, default_value_t = settings::Settings::default().burst)]
    burst: u32,
    /// Seconds after which an object is looked at again though nothing has happened to it
    #[arg(long, default_value_t = 900)]
    rollout_resync: u64,
    /// Rollouts that are decided at the same time
    #[arg(long, default_value_t = 10)]
    rollout_threads: usize,
    /// AnalysisRuns that are worked on at the same time
    #[arg(long, default_value_t = 30)]
    analysis_threads: usize,
    /// Experiments that are decided at the same time
    #[arg(long, default_value_t = 10)]
    experiment_threads: usize,
    /// Seconds that gateways and load balancers take to follow a change; the default of each router when absent
    #[arg(long)]
    propagation_delay_seconds: Option<u32>,

    /// Let one of several controllers lead
    #[arg(long, default_value_t = true, num_args = 0..=1, default_missing_value = "true", action = clap::ArgAction::Set)]
    leader_elect: bool,
    /// How long a leader may be silent before another one takes over
    #[arg(long, default_value = "15s", value_parser = duration)]
    leader_election_lease_duration: Duration,
    /// How long a leader tries to renew before it gives up
    #[arg(long, default_value = "10s", value_parser = duration)]
    leader_election_renew_deadline: Duration,
    /// Between two attempts
    #[arg(long, default_value = "2s", value_parser = duration)]
    leader_election_retry_period: Duration,

    #[command(flatten)]
    ignored: Ignored,
}

/// Flags of Argo Rollouts' controller that have no meaning here. They are taken, with a warning, so that its manifests
/// need no change.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Taken for compatibility, without effect")]
struct Ignored {
    #[arg(long, hide = true)]
    kloglevel: Option<String>,
    #[arg(long, hide = true)]
    service_threads: Option<String>,
    #[arg(long, hide = true)]
    ingress_threads: Option<String>,
    #[arg(long, hide = true)]
    ephemeral_metadata_threads: Option<String>,
    #[arg(long, hide = true)]
    ephemeral_metadata_update_pod_retries: Option<String>,
    #[arg(long, hide = true)]
    aws_target_group_binding_api_version: Option<String>,
    #[arg(long, hide = true)]
    alb_tag_key_resource_id: Option<String>,
    #[arg(long, hide = true)]
    istio_api_version: Option<String>,
    #[arg(long, hide = true)]
    ambassador_api_version: Option<String>,
    #[arg(long, hide = true)]
    traffic_split_api_version: Option<String>,
    #[arg(long, hide = true)]
    traefik_api_group: Option<String>,
    #[arg(long, hide = true)]
    traefik_api_version: Option<String>,
    #[arg(long, hide = true)]
    ingress_api_version: Option<String>,
    #[arg(long, hide = true)]
    appmesh_crd_version: Option<String>,
    #[arg(long, hide = true)]
    alb_ingress_classes: Vec<String>,
    #[arg(long, hide = true)]
    nginx_ingress_classes: Vec<String>,
    #[arg(long, hide = true, num_args = 0..=1, default_missing_value = "true")]
    aws_verify_target_group: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, default_missing_value = "true")]
    alb_verify_weight: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, default_missing_value = "true")]
    self_service_notification_enabled: Option<String>,
    #[arg(long, hide = true)]
    enable_pprof_address: Option<String>,
}

impl Controller {
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        self.log()?;
        for flag in self.ignored.given() {
            warn!("--{flag} is taken for compatibility and has no effect");
        }
        let config = self.connection.config().await?;
        let settings = self.settings(&config.default_namespace)?;
        info!(version = env!("CARGO_PKG_VERSION"), server = %config.cluster_url, "starting");
        let client = controller::client(config).context("the cluster cannot be reached")?;
        let clock = Clock::system();
        let providers = providers(&client, &clock).await?;
        controller::run(client, providers, clock, settings, asked_to_stop()).await?;
        Ok(ExitCode::SUCCESS)
    }

    fn settings(&self, context_namespace: &str) -> anyhow::Result<settings::Settings> {
        let random = u64::from_be_bytes(random()?);
        let namespace = self.connection.namespace.clone();
        Ok(settings::Settings {
            instance_id: self.instance_id.clone(),
            namespace: self.namespaced.then(|| namespace.clone().unwrap_or_else(|| own_namespace(context_namespace))),
            rollout_workers: self.rollout_threads.max(1),
            analysis_workers: self.analysis_threads.max(1),
            experiment_workers: self.experiment_threads.max(1),
            analysis_only: !self.controllers.is_empty(),
            resync: Duration::from_secs(self.rollout_resync),
            qps: self.qps,
            burst: self.burst,
            propagation_delay_seconds: self.propagation_delay_seconds,
            election: self.leader_elect.then(|| settings::Election {
                namespace: own_namespace(namespace.as_deref().unwrap_or(context_namespace)),
                identity: identity(random),
                lease_duration: self.leader_election_lease_duration,
                renew_deadline: self.leader_election_renew_deadline,
                retry_period: self.leader_election_retry_period,
            }),
            metrics_address: listen(self.metrics_port),
            health_address: listen(self.healthz_port),
            seed: random,
            ..settings::Settings::default()
        })
    }

    fn log(&self) -> anyhow::Result<()> {
        // kube's client logs refused requests as errors that we deal with ourselves.
        let filter = format!("{},kube_client=off,tower=warn,hyper=warn", self.loglevel);
        let filter = EnvFilter::try_new(&filter).with_context(|| format!("--loglevel {}", self.loglevel))?;
        let builder = tracing_subscriber::fmt().with_env_filter(filter).with_target(false).with_writer(std::io::stderr);
        let set = if self.logformat == "json" {
            builder.json().flatten_event(true).try_init()
        } else {
            builder.with_ansi(false).try_init()
        };
        set.map_err(|error| anyhow::anyhow!("logging cannot be set up: {error}"))
    }
}

impl Ignored {
    /// The names of those that were given.
    fn given(&self) -> Vec<&'static str> {
        let Self {
            kloglevel,
            service_threads,
            ingress_threads,
            ephemeral_metadata_threads,
            ephemeral_metadata_update_pod_retries,
            aws_target_group_binding_api_version,
            alb_tag_key_resource_id,
            istio_api_version,
            ambassador_api_version,
            traffic_split_api_version,
            traefik_api_group,
            traefik_api_version,
            ingress_api_version,
            appmesh_crd_version,
            alb_ingress_classes,
            nginx_ingress_classes,
            aws_verify_target_group,
            alb_verify_weight,
            self_service_notification_enabled,
            enable_pprof_address,
        } = self;
        let flags = [
            (kloglevel.is_some(), "kloglevel"),
            (service_threads.is_some(), "service-threads"),
            (ingress_threads.is_some(), "ingress-threads"),
            (ephemeral_metadata_threads.is_some(), "ephemeral-metadata-threads"),
            (ephemeral_metadata_update_pod_retries.is_some(), "ephemeral-metadata-update-pod-retries"),
            (aws_target_group_binding_api_version.is_some(), "aws-target-group-binding-api-version"),
            (alb_tag_key_resource_id.is_some(), "alb-tag-key-resource-id"),
            (istio_api_version.is_some(), "istio-api-version"),
            (ambassador_api_version.is_some(), "ambassador-api-version"),
            (traffic_split_api_version.is_some(), "traffic-split-api-version"),
            (traefik_api_group.is_some(), "traefik-api-group"),
            (traefik_api_version.is_some(), "traefik-api-version"),
            (ingress_api_version.is_some(), "ingress-api-version"),
            (appmesh_crd_version.is_some(), "appmesh-crd-version"),
            (!alb_ingress_classes.is_empty(), "alb-ingress-classes"),
            (!nginx_ingress_classes.is_empty(), "nginx-ingress-classes"),
            (aws_verify_target_group.is_some(), "aws-verify-target-group"),
            (alb_verify_weight.is_some(), "alb-verify-weight"),
            (self_service_notification_enabled.is_some(), "self-service-notification-enabled"),
            (enable_pprof_address.is_some(), "enable-pprof-address"),
        ];
        flags.into_iter().filter(|(given, _)| *given).map(|(_, name)| name).collect()
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    let parsed: GoDuration = text.parse().map_err(|error| format!("{error}"))?;
    Duration::try_from(jiff::SignedDuration::from(parsed)).map_err(|_| "must not be negative".to_owned())
}

fn listen(port: u16) -> Option<SocketAddr> {
    (port != 0).then(|| SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)))
}

/// What metrics are measured with, as the environment says.
async fn providers(client: &kube::Client, clock: &Clock) -> anyhow::Result<Providers> {
    let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let kubeconfig = set("ARGO_ROLLOUTS_ANALYSIS_JOB_KUBECONFIG").filter(|value| value != "in-cluster");
    let (job_client, other_cluster) = match kubeconfig {
        Some(path) => {
            let connection = Connection { kubeconfig: Some(path.into()), ..Connection::default() };
            let config = connection.config().await.context("ARGO_ROLLOUTS_ANALYSIS_JOB_KUBECONFIG")?;
            (controller::client(config).context("the cluster for Jobs cannot be reached")?, true)
        }
        None => (client.clone(), false),
    };
    let namespace = set("ARGO_ROLLOUTS_ANALYSIS_JOB_NAMESPACE");
    let jobs = JobTarget { client: job_client, namespace, other_cluster };
    let address = set("ARGO_ROLLOUTS_PROMETHEUS_ADDRESS");
    Ok(Providers::new(Arc::new(Network::new()), jobs, clock.clone(), address))
}

/// The namespace that the controller itself is in.
fn own_namespace(otherwise: &str) -> String {
    std::env::var("POD_NAMESPACE")
        .ok()
        .filter(|name| !name.is_empty())
        .or_else(|| std::fs::read_to_string("/var/run/secrets/kubernetes.io/serviceaccount/namespace").ok())
        .map(|name| name.trim().to_owned())
        .unwrap_or_else(|| if otherwise.is_empty() { "argo-rollouts".to_owned() } else { otherwise.to_owned() })
}

/// A name for this process that no other has.
fn identity(random: u64) -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = if host.trim().is_empty() { "tidegate" } else { host.trim() };
    format!("{host}_{random:016x}{:08x}", std::process::id())
}

/// Randomness of the system's.
fn random() -> anyhow::Result<[u8; 8]> {
    let mut bytes = [0; 8];
    let provider = rustls::crypto::ring::default_provider();
    provider.secure_random.fill(&mut bytes).map_err(|_| anyhow::anyhow!("the system has no randomness"))?;
    Ok(bytes)
}

/// Done when the process is asked to end.
async fn asked_to_stop() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut terminate) = signal(SignalKind::terminate()) {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = tokio::signal::ctrl_c() => {}
            }
            return;
        }
    }
    // Without signals the process ends when it is killed.
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        controller: Controller,
    }

    fn parse(flags: &[&str]) -> Controller {
        Cli::try_parse_from(["controller"].iter().chain(flags)).unwrap_or_else(|error| panic!("{error}")).controller
    }

    #[test]
    fn the_flags_of_argo_rollouts_are_taken() {
        let controller = parse(&[
            "--namespaced",
            "--namespace=shop",
            "--leader-elect=false",
            "--metricsport=9090",
            "--healthzPort=0",
            "--instance-id=blue",
            "--rollout-threads=3",
            "--traefik-api-group=traefik.io",
            "--aws-verify-target-group",
        ]);
        assert_eq!(controller.ignored.given(), ["traefik-api-group", "aws-verify-target-group"]);
        let settings = controller.settings("default").unwrap();
        assert_eq!(settings.namespace.as_deref(), Some("shop"));
        assert!(settings.election.is_none() && settings.health_address.is_none());
        assert_eq!(settings.metrics_address.map(|address| address.port()), Some(9090));
        assert_eq!((settings.instance_id.as_str(), settings.rollout_workers), ("blue", 3));
        let election =
            parse(&["--leader-election-lease-duration=1m30s"]).settings("default").unwrap().election.unwrap();
        assert_eq!(election.lease_duration, Duration::from_secs(90));
        assert_eq!(election.retry_period, Duration::from_secs(2));
    }
}
