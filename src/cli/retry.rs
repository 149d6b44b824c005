//! `tidegate retry`: an aborted update once more, from its first step.

use std::process::ExitCode;

use anyhow::bail;
use serde_json::json;

use super::connect::{Connection, confirm, rollout_name};

/// Retry an aborted rollout from its first step
#[derive(Debug, clap::Args)]
pub struct Retry {
    #[command(flatten)]
    connection: Connection,
    /// The rollout: NAME, or rollout NAME
    #[arg(required = true, num_args = 1..=2)]
    rollout: Vec<String>,
}

impl Retry {
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        let name = rollout_name(&self.rollout)?;
        let connected = self.connection.connect().await?;
        let rollout = connected.rollout(name).await?;
        if !rollout.status.as_ref().is_some_and(|status| status.abort) {
            bail!("rollout '{name}' is not aborted: there is nothing to retry");
        }
        connected.patch_status(name, &json!({"status": {"abort": false}})).await?;
        confirm(&rollout, "retried");
        Ok(ExitCode::SUCCESS)
    }
}
