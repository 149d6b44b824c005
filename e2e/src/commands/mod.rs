//! The commands, one file each.

mod backtest;
mod bench;
mod demo;
mod fidelity;
mod hand_over;
mod kill;
mod record;
mod scenarios;
mod smoke;
mod storm;
mod test;
mod up;

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Subcommand;
use tokio::signal::unix::{SignalKind, signal};

use crate::environment::EnvironmentOptions;
use crate::{aborts, clients, disruption, foretold, slow_gateway, suite};

/// What the binary can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Runs the scenarios, and compares their traces with those of the sandbox
    Scenarios(scenarios::Scenarios),
    /// Compares the sandbox with a real API server, request by request
    Fidelity(fidelity::Fidelity),
    /// Runs everything that is tested on the real control plane
    Test(test::Test),
    /// Watches a good release go out and a bad one roll itself back, under real requests
    Demo(demo::Demo),
    /// Measures memory, CPU, API writes and latencies of the controller
    Bench(bench::Bench),
    /// Tries analyses on a month of history in a real Prometheus
    Backtest(backtest::Backtest),
    /// Kills the controller in the middle of releases, and takes away what they need
    Kill(kill::Kill),
    /// Releases of twenty Rollouts while everything around them is killed, paused and restarted
    Storm(storm::Storm),
    /// Starts everything, moves real traffic between two versions, runs a Job, prints figures
    Smoke(smoke::Smoke),
    /// Hands a release over from Argo Rollouts to Tidegate, and back, while it goes on
    HandOver(hand_over::HandOver),
    /// Records what another controller, such as Argo Rollouts, leaves behind at each moment of a release
    Record(record::Record),
    /// Starts everything and runs a command in it, with KUBECONFIG set
    Up(up::Up),
}

impl Command {
    /// Runs the command inside the namespaces, with its files in `folder`, until it ends or a signal comes.
    ///
    /// # Errors
    /// What the command answers; or it was interrupted.
    pub fn run(self, folder: PathBuf) -> Result<()> {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("starting tokio")?;
        let ended = runtime.block_on(async {
            let mut interrupt = signal(SignalKind::interrupt()).context("watching for SIGINT")?;
            let mut terminate = signal(SignalKind::terminate()).context("watching for SIGTERM")?;
            // What the command has started is killed when its future is dropped.
            tokio::select! {
                ended = self.dispatch(folder) => ended,
                _ = interrupt.recv() => bail!("interrupted"),
                _ = terminate.recv() => bail!("terminated"),
            }
        });
        // Not to wait for a blocking call, such as a name look-up, that nobody needs any more.
        runtime.shutdown_background();
        ended
    }

    async fn dispatch(self, folder: PathBuf) -> Result<()> {
        match self {
            Self::Scenarios(command) => command.run(&folder).await,
            Self::Fidelity(command) => command.run(&folder).await,
            Self::Test(command) => command.run(&folder).await,
            Self::Demo(command) => command.run(&folder).await,
            Self::Bench(command) => command.run(&folder).await,
            Self::Backtest(command) => command.run(&folder).await,
            Self::Kill(command) => command.run(&folder).await,
            Self::Storm(command) => command.run(&folder).await,
            Self::Smoke(command) => command.run(&folder).await,
            Self::HandOver(command) => command.run(&folder).await,
            Self::Record(command) => command.run(&folder).await,
            Self::Up(command) => command.run(&folder).await,
        }
    }
}

/// What is tested in the middle of releases: on which environment, in the folder of that name, and the tests.
fn suites() -> [(&'static str, EnvironmentOptions, Vec<&'static suite::Test>); 2] {
    let disrupted = disruption::suite().iter().chain(aborts::suite()).chain(clients::suite()).chain(foretold::suite());
    [
        ("disrupted", EnvironmentOptions::full(), disrupted.collect()),
        ("slow-gateway", slow_gateway::options(), slow_gateway::suite().iter().collect()),
    ]
}
