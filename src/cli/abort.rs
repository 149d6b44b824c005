//! `tidegate abort`: back to the stable version.

use std::process::ExitCode;

use serde_json::json;

use super::connect::{Connection, confirm, rollout_name};

/// Abort a rollout: the stable version takes all traffic again
#[derive(Debug, clap::Args)]
pub struct Abort {
    #[command(flatten)]
    connection: Connection,
    /// The rollout: NAME, or rollout NAME
    #[arg(required = true, num_args = 1..=2)]
    rollout: Vec<String>,
}

impl Abort {
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        let name = rollout_name(&self.rollout)?;
        let connected = self.connection.connect().await?;
        let rollout = connected.rollout(name).await?;
        connected.patch_status(name, &json!({"status": {"abort": true}})).await?;
        confirm(&rollout, "aborted");
        Ok(ExitCode::SUCCESS)
    }
}
