//! `up`: the whole environment, for a person or a script.
//!
//! The command runs inside the namespaces and finds in its environment: `KUBECONFIG` (of a user that may do everything),
//! `CONTROLLER_KUBECONFIG`, `GATEWAY_URL`, `PROMETHEUS_URL` and `AUDIT_LOG`.

use std::path::Path;

use anyhow::{Result, bail};
use tokio::process::Command;

use crate::cluster::{ADMIN, CONTROLLER};
use crate::environment::{Environment, EnvironmentOptions};

#[derive(Debug, clap::Args)]
pub struct Up {
    /// The command, by default a shell
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

impl Up {
    pub async fn run(self, folder: &Path) -> Result<()> {
        let environment = Environment::start(folder, EnvironmentOptions::full()).await?;
        let shell = std::env::var("SHELL").unwrap_or_else(|_| "/bin/sh".to_owned());
        let words = if self.command.is_empty() { vec![shell] } else { self.command };
        let mut command = Command::new(&words[0]);
        command
            .args(&words[1..])
            .env("KUBECONFIG", environment.cluster.kubeconfig(ADMIN))
            .env("CONTROLLER_KUBECONFIG", environment.cluster.kubeconfig(CONTROLLER))
            .env("AUDIT_LOG", environment.cluster.audit().file())
            .kill_on_drop(true);
        if let Some(gateway) = &environment.gateway {
            command.env("GATEWAY_URL", gateway.url());
        }
        if let Some(prometheus) = &environment.prometheus {
            command.env("PROMETHEUS_URL", prometheus.url());
        }
        let status = command.status().await?;
        environment.stop().await;
        if !status.success() {
            bail!("{} ended with {status}", words[0]);
        }
        Ok(())
    }
}
