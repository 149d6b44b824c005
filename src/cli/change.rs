//! The commands that are one patch: abort, pause, retry, restart, terminate.

use std::process::ExitCode;

use anyhow::Context;
use jiff::SignedDuration;
use serde_json::{Value, json};

use super::connect::{Connected, Connection};
use super::kind::{self, Kind};
use crate::api::common::time;
use crate::api::duration::GoDuration;
use crate::api::{AnalysisRun, Experiment, Rollout};
use crate::clock::Clock;

/// Abort a rollout: the stable version takes all traffic again
#[derive(Debug, clap::Args)]
pub struct Abort {
    #[command(flatten)]
    connection: Connection,
    /// Rollouts: NAME…, or rollout NAME…
    #[arg(required = true, value_name = "ROLLOUT")]
    rollouts: Vec<String>,
}

impl Abort {
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        let (connected, names) = rollouts(&self.connection, &self.rollouts).await?;
        for name in names {
            connected.patch_status(name, &json!({"status": {"abort": true}})).await?;
            println!("rollout '{name}' aborted");
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Pause a rollout where it is, until it is promoted
#[derive(Debug, clap::Args)]
pub struct Pause {
    #[command(flatten)]
    connection: Connection,
    /// Rollouts: NAME…, or rollout NAME…
    #[arg(required = true, value_name = "ROLLOUT")]
    rollouts: Vec<String>,
}

impl Pause {
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        let (connected, names) = rollouts(&self.connection, &self.rollouts).await?;
        for name in names {
            connected.patch::<Rollout>(name, &json!({"spec": {"paused": true}})).await?;
            println!("rollout '{name}' paused");
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Retry an aborted rollout from its first step, or a finished experiment
#[derive(Debug, clap::Args)]
pub struct Retry {
    #[command(flatten)]
    connection: Connection,
    /// NAME… of rollouts, rollout NAME…, or experiment NAME…
    #[arg(required = true, value_name = "NAME")]
    objects: Vec<String>,
}

impl Retry {
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        let known = [Kind::Rollout, Kind::Experiment];
        let (kind, names) = kind::named(&self.objects, &known, Some(Kind::Rollout))?;
        let connected = self.connection.connect().await?;
        for name in names {
            if kind == Kind::Experiment {
                // The definition of Experiments has no status subresource, here as in Argo Rollouts.
                connected.patch::<Experiment>(name, &json!({"status": null})).await?;
                println!("experiment '{name}' retried");
            } else if connected.rollout(name).await?.status.is_some_and(|status| status.abort) {
                connected.patch_status(name, &json!({"status": {"abort": false}})).await?;
                println!("rollout '{name}' retried");
            } else {
                println!("rollout '{name}' is not aborted: there is nothing to retry");
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Replace the pods of a rollout by new ones of the same version
#[derive(Debug, clap::Args)]
pub struct Restart {
    #[command(flatten)]
    connection: Connection,
    /// Rollouts: NAME…, or rollout NAME…
    #[arg(required = true, value_name = "ROLLOUT")]
    rollouts: Vec<String>,
    /// How long to wait before, such as 30s, 5m or 1h
    #[arg(long = "in", short = 'i', value_name = "DURATION", default_value = "0s")]
    delay: GoDuration,
}

impl Restart {
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        let at = Clock::system().now().checked_add(SignedDuration::from(self.delay)).context("--in")?;
        let (connected, names) = rollouts(&self.connection, &self.rollouts).await?;
        for name in names {
            connected.patch::<Rollout>(name, &json!({"spec": {"restartAt": time(at)}})).await?;
            println!("rollout '{name}' restarts in {}", self.delay);
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// End an analysis run or an experiment early
#[derive(Debug, clap::Args)]
pub struct Terminate {
    #[command(flatten)]
    connection: Connection,
    /// analysisrun NAME…, or experiment NAME…
    #[arg(required = true, value_name = "KIND NAME")]
    objects: Vec<String>,
}

impl Terminate {
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        let (kind, names) = kind::named(&self.objects, &[Kind::AnalysisRun, Kind::Experiment], None)?;
        let connected = self.connection.connect().await?;
        let patch: Value = json!({"spec": {"terminate": true}});
        for name in names {
            match kind {
                Kind::Experiment => connected.patch::<Experiment>(name, &patch).await?,
                _ => connected.patch::<AnalysisRun>(name, &patch).await?,
            }
            println!("{} '{name}' terminated", kind.words()[0]);
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// The Rollouts that the words name, each of which is there: of several, none is changed when one is not.
async fn rollouts<'a>(connection: &Connection, words: &'a [String]) -> anyhow::Result<(Connected, Vec<&'a str>)> {
    let (_, names) = kind::named(words, &[Kind::Rollout], Some(Kind::Rollout))?;
    let connected = connection.connect().await?;
    for name in &names {
        connected.rollout(name).await?;
    }
    Ok((connected, names))
}
