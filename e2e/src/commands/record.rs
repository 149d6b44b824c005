//! `record`: what a peer makes of the recipes in `scenarios/recordings/`, as manifests for the scenarios of a takeover.
//!
//! ```text
//! curl -O https://proxy.golang.org/github.com/argoproj/argo-rollouts/@v/v1.9.3.zip; unzip v1.9.3.zip
//! cd github.com/argoproj/argo-rollouts@v1.9.3; CGO_ENABLED=0 go build -o /tmp/argo ./cmd/rollouts-controller
//! tidegate-e2e record --controller /tmp/argo --crds manifests/crds --variant argo-1.9
//! ```

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use futures::future::join_all;
use tokio::sync::Mutex;

use crate::apply;
use crate::cluster::{ADMIN, free_ports};
use crate::controller::Controller;
use crate::environment::{Environment, EnvironmentOptions};
use crate::scenario::{self, Scenario, real};

#[derive(Debug, clap::Args)]
pub struct Record {
    #[command(flatten)]
    peer: Peer,
    /// Which of the recipes' variants it is
    #[arg(long)]
    variant: String,
    /// Only recipes whose names contain one of these
    words: Vec<String>,
}

/// Another controller, that serves our kinds with its own CRDs.
#[derive(Debug, clap::Args)]
pub struct Peer {
    /// The program of the controller
    #[arg(long)]
    controller: PathBuf,
    /// The folder of its CRDs
    #[arg(long)]
    crds: PathBuf,
}

impl Peer {
    /// Starts everything, and the controller with the rights of an administrator.
    pub async fn start(self, folder: &Path) -> Result<(Environment, Controller)> {
        let environment = Environment::start(folder, EnvironmentOptions::full()).await?;
        apply::crds(&environment.client, &self.crds).await?;
        let [metrics, health] = free_ports()?;
        let arguments = [
            format!("--kubeconfig={}", environment.cluster.kubeconfig(ADMIN).display()),
            // Older than `--metricsPort`, and known to all.
            format!("--metricsport={metrics}"),
            format!("--healthzPort={health}"),
            "--leader-elect=false".to_owned(),
        ];
        let controller = Controller::start_program(self.controller, folder, arguments.to_vec())?;
        Ok((environment, controller))
    }
}

impl Record {
    pub async fn run(self, folder: &Path) -> Result<()> {
        let (environment, controller) = self.peer.start(folder).await?;
        let shared = Arc::new(Mutex::new(real::Shared { environment, controller, other: None }));
        let is_chosen =
            |name: &str| self.words.is_empty() || self.words.iter().any(|word| name.contains(word.as_str()));
        let mut recipes = scenario::recordings()?;
        recipes.retain(|recipe| recipe.variant.as_ref() == Some(&self.variant) && is_chosen(&recipe.name));
        let outcomes = join_all(recipes.iter().map(|recipe| record(shared.clone(), recipe))).await;
        // Every recipe has ended, and with it its handle.
        let shared = Arc::into_inner(shared).context("a recipe goes on after its end")?.into_inner();
        shared.controller.stop().await;
        shared.environment.stop().await;
        ensure!(outcomes.iter().all(|recorded| *recorded), "not everything was recorded");
        Ok(())
    }
}

async fn record(shared: Arc<Mutex<real::Shared>>, recipe: &Scenario) -> bool {
    match real::play(shared, recipe).await {
        Ok(_) => {
            println!("{}: recorded", recipe.name);
            true
        }
        Err(error) => {
            println!("{}: FAILED\n{error:#}\n", recipe.name);
            false
        }
    }
}
