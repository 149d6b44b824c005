//! `tidegate pause`: stay where it is until promoted.

use std::process::ExitCode;

use serde_json::json;

use super::connect::{Connection, confirm, rollout_name};

/// Pause a rollout where it is, until it is promoted
#[derive(Debug, clap::Args)]
pub struct Pause {
    #[command(flatten)]
    connection: Connection,
    /// The rollout: NAME, or rollout NAME
    #[arg(required = true, num_args = 1..=2)]
    rollout: Vec<String>,
}

impl Pause {
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        let name = rollout_name(&self.rollout)?;
        let connected = self.connection.connect().await?;
        let rollout = connected.rollout(name).await?;
        connected.patch_spec(name, &json!({"spec": {"paused": true}})).await?;
        confirm(&rollout, "paused");
        Ok(ExitCode::SUCCESS)
    }
}
