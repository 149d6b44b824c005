//! `tidegate status`: how a rollout is, and how it ends.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::bail;
use futures::StreamExt;
use kube::runtime::{WatchStreamExt, watcher};

use super::connect::{Connected, Connection};
use super::kind;
use super::phase::{Shown, shown};
use crate::api::Rollout;
use crate::api::duration::GoDuration;

/// Show the status of a rollout, and watch it until it is Healthy or Degraded
#[derive(Debug, clap::Args)]
pub struct Status {
    #[command(flatten)]
    connection: Connection,
    /// The rollout: NAME, or rollout NAME
    #[arg(required = true, num_args = 1..=2)]
    rollout: Vec<String>,
    /// Wait until the rollout is Healthy or Degraded
    #[arg(long, short, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1,
          default_missing_value = "true", require_equals = true)]
    watch: bool,
    /// How long to wait, such as 90s or 5m; 0 is for ever
    #[arg(long, short, default_value = "0")]
    timeout: GoDuration,
}

impl Status {
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        let name = kind::rollout(&self.rollout)?;
        let connected = self.connection.connect().await?;
        let rollout = connected.rollout(name).await?;
        if !self.watch {
            let shown = shown(&rollout);
            println!("{shown}");
            return end(name, &shown).map(|ended| ended.unwrap_or(ExitCode::SUCCESS));
        }
        let watched = watch(&connected, name);
        let seconds = self.timeout.as_secs_f64();
        if seconds <= 0.0 {
            return watched.await;
        }
        match tokio::time::timeout(Duration::from_secs_f64(seconds), watched).await {
            Ok(ended) => ended,
            Err(_) => bail!("rollout '{name}' is neither Healthy nor Degraded after {}", self.timeout),
        }
    }
}

/// Prints every change of the status until one is final.
async fn watch(connected: &Connected, name: &str) -> anyhow::Result<ExitCode> {
    let watched = watcher::watch_object(connected.rollouts(), name).default_backoff();
    let mut rollouts = std::pin::pin!(watched);
    let mut last = None;
    loop {
        let rollout: Option<Rollout> = match rollouts.next().await {
            // The watch goes on by itself after a failure, with a growing pause.
            Some(Err(_)) => continue,
            Some(Ok(rollout)) => rollout,
            None => bail!("the watch ended"),
        };
        let Some(rollout) = rollout else { bail!("rollout '{name}' has been deleted") };
        let shown = shown(&rollout);
        if last.as_ref() != Some(&shown) {
            println!("{shown}");
            if let Some(code) = end(name, &shown)? {
                return Ok(code);
            }
            last = Some(shown);
        }
    }
}

/// The exit code when the status is final.
fn end(name: &str, shown: &Shown) -> anyhow::Result<Option<ExitCode>> {
    match shown.phase.as_str() {
        "Healthy" => Ok(Some(ExitCode::SUCCESS)),
        "Degraded" => bail!("rollout '{name}' is in a degraded state: {}", shown.message),
        _ => Ok(None),
    }
}
