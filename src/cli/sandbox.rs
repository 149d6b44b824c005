//! `tidegate sandbox`: a cluster in memory to try things on, with kubectl and everything else that speaks to a cluster.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;

use super::{in_process, manifest};
use crate::clock::Clock;
use crate::sandbox::Cluster;

/// Run a Kubernetes API, pods and traffic in memory, with the controller on it
#[derive(Debug, clap::Args)]
pub struct Sandbox {
    /// Where the API is served; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:6480")]
    listen: SocketAddr,
    /// Where the kubeconfig is written
    #[arg(long, default_value = "sandbox.kubeconfig")]
    kubeconfig: PathBuf,
    /// File or folder with manifests to apply at the start; may be repeated
    #[arg(long = "filename", short = 'f', num_args = 1..)]
    filename: Vec<PathBuf>,
    /// Serve the API and the pods only; run the controller yourself
    #[arg(long)]
    no_controller: bool,
}

impl Sandbox {
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        let cluster = Cluster::builder().start();
        for object in manifest::read(&self.filename)? {
            let applied = cluster.apply(&object.value.to_string());
            applied.with_context(|| format!("{}: {} {}", object.source, object.kind(), object.name()))?;
        }
        let serving = cluster.serve(self.listen).await.with_context(|| format!("cannot listen on {}", self.listen))?;
        let prometheus = cluster.prometheus().serve(([127, 0, 0, 1], 0).into()).await?;
        let kubeconfig = &self.kubeconfig;
        std::fs::write(kubeconfig, serving.kubeconfig("default"))
            .with_context(|| format!("cannot write {}", kubeconfig.display()))?;
        println!(
            "A cluster in memory listens on http://{}. It ends with Ctrl-C, and everything in it.",
            serving.address()
        );
        println!();
        println!("  export KUBECONFIG={}", kubeconfig.display());
        println!("  kubectl apply -f my-rollout.yaml");
        println!("  tidegate get my-rollout --watch");
        println!();
        println!("Its Prometheus, which metrics without an address are asked of, is {}.", prometheus.url());
        let stop = async {
            // A failure to listen for Ctrl-C leaves the signal's own effect, which is to stop.
            let _ = tokio::signal::ctrl_c().await;
        };
        if self.no_controller {
            stop.await;
        } else {
            in_process::controller(&cluster, Clock::system(), Some(prometheus.url()), stop).await?;
        }
        Ok(ExitCode::SUCCESS)
    }
}
