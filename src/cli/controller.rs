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
    #[arg(long, num_args = 0..=1, default_value_t = false, default_missing_value = "true", require_equals = true,
          action = clap::ArgAction::Set)]
    namespaced: bool,
    /// Only serve objects with this instance id; without it, those that have none
    #[arg(long, default_value = "")]
    instance_id: String,
    /// Part of the controller to run: `analysis` leaves Rollouts alone
    #[arg(long, value_delimiter = ',', value_parser = ["analysis"])]
    controllers: Vec<String>,

    /// trace, debug, info, warn or error
    #[arg(long, default_value = "info", value_parser = level)]
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
    /// Version of Istio's API to read and write VirtualServices and DestinationRules in
    #[arg(long, default_value = "v1alpha3", value_parser = istio_version)]
    istio_api_version: &'static str,

    /// Let one of several controllers lead
    #[arg(long, default_value_t = true, num_args = 0..=1, default_missing_value = "true", require_equals = true,
          action = clap::ArgAction::Set)]
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
const IGNORED: &[&str] = &[
    "kloglevel",
    "service-threads",
    "ingress-threads",
    "ephemeral-metadata-threads",
    "ephemeral-metadata-update-pod-retries",
    "aws-target-group-binding-api-version",
    "alb-tag-key-resource-id",
    "ambassador-api-version",
    "traffic-split-api-version",
    "traefik-api-group",
    "traefik-api-version",
    "ingress-api-version",
    "appmesh-crd-version",
    "alb-ingress-classes",
    "nginx-ingress-classes",
    "aws-verify-target-group",
    "alb-verify-weight",
    "self-service-notification-enabled",
    "enable-pprof-address",
];

/// Those of [`IGNORED`] that were given.
#[derive(Debug)]
struct Ignored(Vec<&'static str>);

impl clap::Args for Ignored {
    fn augment_args(command: clap::Command) -> clap::Command {
        let mut after = "Taken from the manifests of Argo Rollouts with a warning, without effect:".to_owned();
        let mut length = after.len();
        let mut command = command;
        for name in IGNORED {
            // Some take a value, some may have one, as in `--aws-verify-target-group=false`.
            let argument = clap::Arg::new(*name).long(*name).num_args(0..=1).hide(true).action(clap::ArgAction::Append);
            command = command.arg(argument);
            if length + name.len() > 104 {
                after.push_str("\n ");
                length = 0;
            }
            after.push_str(&format!(" --{name}"));
            length += name.len() + 3;
        }
        command.after_help(after)
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

impl clap::FromArgMatches for Ignored {
    fn from_arg_matches(matches: &clap::ArgMatches) -> Result<Self, clap::Error> {
        Ok(Self(IGNORED.iter().copied().filter(|name| matches.contains_id(name)).collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &clap::ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Controller {
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        self.log()?;
        for flag in &self.ignored.0 {
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
            istio_api_version: self.istio_api_version,
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

/// A level by its name here or in Argo Rollouts.
fn level(text: &str) -> Result<String, String> {
    let level = match text.to_ascii_lowercase().as_str() {
        level @ ("trace" | "debug" | "info" | "warn" | "error") => level.to_owned(),
        "warning" => "warn".to_owned(),
        // There is nothing above an error.
        "fatal" | "panic" => "error".to_owned(),
        _ => return Err("must be trace, debug, info, warn or error".to_owned()),
    };
    Ok(level)
}

fn istio_version(text: &str) -> Result<&'static str, String> {
    let known = ["v1alpha3", "v1beta1", "v1"];
    known.into_iter().find(|version| *version == text).ok_or_else(|| format!("must be one of {}", known.join(", ")))
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

    /// As Argo Rollouts documents them, with their defaults.
    const FLAGS: &str = "--rollout-resync=900 --namespaced=false --loglevel=info --logformat=text --kloglevel=0
        --metricsPort=8090 --healthzPort=8080 --instance-id= --qps=40 --burst=80 --rollout-threads=10
        --experiment-threads=10 --analysis-threads=30 --service-threads=10 --ingress-threads=10
        --ephemeral-metadata-threads=10 --ephemeral-metadata-update-pod-retries=3
        --aws-target-group-binding-api-version=elbv2.k8s.aws/v1beta1
        --alb-tag-key-resource-id=ingress.k8s.aws/resource --istio-api-version=v1alpha3
        --ambassador-api-version=getambassador.io/v2 --traffic-split-api-version=v1alpha1
        --traefik-api-group=traefik.io --traefik-api-version=traefik.io/v1alpha1
        --ingress-api-version=networking/v1 --appmesh-crd-version=v1beta2 --alb-ingress-classes=alb
        --nginx-ingress-classes=nginx --aws-verify-target-group=false --alb-verify-weight=false --leader-elect=true
        --leader-election-lease-duration=15s --leader-election-renew-deadline=10s
        --leader-election-retry-period=2s --self-service-notification-enabled=false --controllers=analysis
        --enable-pprof-address= --kubeconfig=x --context=x --namespace=x --cluster=x --user=x --token=x
        --server=https://x --as=x --insecure-skip-tls-verify";

    #[test]
    fn every_flag_of_argo_rollouts_is_taken_and_named_in_the_help() {
        for flag in FLAGS.split_whitespace() {
            parse(&[flag]);
        }
        let help = crate::cli::command().find_subcommand_mut("controller").unwrap().render_help().to_string();
        for flag in FLAGS.split_whitespace() {
            let name = flag.split('=').next().unwrap();
            assert!(help.contains(name), "{name} is not in the help");
        }
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
            "--loglevel=warning",
            "--traefik-api-group=traefik.io",
            "--aws-verify-target-group",
            "--alb-ingress-classes=alb",
            "--alb-ingress-classes=other",
        ]);
        assert_eq!(controller.ignored.0, ["traefik-api-group", "alb-ingress-classes", "aws-verify-target-group"]);
        let settings = controller.settings("default").unwrap();
        assert_eq!(settings.namespace.as_deref(), Some("shop"));
        assert!(settings.election.is_none() && settings.health_address.is_none());
        assert_eq!(settings.metrics_address.map(|address| address.port()), Some(9090));
        assert_eq!((settings.instance_id.as_str(), settings.rollout_workers), ("blue", 3));
        assert_eq!(controller.loglevel, "warn");
        assert!(parse(&["--namespaced=false"]).settings("default").unwrap().namespace.is_none());
        let election =
            parse(&["--leader-election-lease-duration=1m30s"]).settings("default").unwrap().election.unwrap();
        assert_eq!(election.lease_duration, Duration::from_secs(90));
        assert_eq!(election.retry_period, Duration::from_secs(2));
    }
}
