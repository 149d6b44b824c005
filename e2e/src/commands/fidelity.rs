//! `fidelity`: the scripts of `fidelity/` and random ones, on a real API server and on the sandbox.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::StreamExt;
use kube::Client;
use tokio::time::Instant;

use crate::apply;
use crate::chart;
use crate::cluster::{ADMIN, Cluster, ClusterOptions, KUBELET};
use crate::fidelity::{self, Script, Suite, random};
use crate::kubelet::{Kubelet, KubeletOptions};
use crate::scenario::trace::difference;
use crate::tools::{Part, Tools};

#[derive(Debug, clap::Args)]
pub struct Fidelity {
    /// Only scripts whose subject or title contains one of these
    words: Vec<String>,
    /// Write down what the real server answers, instead of comparing
    #[arg(long)]
    record: bool,
    /// The seed of the first random script
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many random scripts, of consecutive seeds
    #[arg(long, default_value_t = 100)]
    count: u64,
    /// How many scripts run at once
    #[arg(long, default_value_t = 32)]
    at_once: usize,
    /// Begin no further random script after this many seconds
    #[arg(long, default_value_t = 3600)]
    seconds: u64,
}

impl Fidelity {
    /// Runs everything and prints what differs.
    pub async fn run(self, folder: &Path) -> Result<()> {
        let tools = Tools::find(&[Part::Controlplane])?;
        let cluster = Cluster::start(&tools, folder, ClusterOptions::default()).await?;
        let client = cluster.client(ADMIN).await?;
        let kubelet = Kubelet::start(cluster.client(KUBELET).await?, folder, KubeletOptions::default()).await?;
        apply::crds(&client, &chart::workspace().join("crds")).await?;
        let random = async { if self.record { 0 } else { self.random(&client).await } };
        let (scripts, random) = tokio::join!(self.scripts(&client), random);
        let failed = scripts? + random;
        drop(kubelet);
        cluster.stop().await;
        ensure!(failed == 0, "{failed} scripts were answered otherwise");
        Ok(())
    }

    /// How many scripts failed.
    async fn scripts(&self, client: &Client) -> Result<usize> {
        let mut suites = fidelity::all()?;
        let chosen = |suite: &Suite, script: &Script| {
            self.words.is_empty()
                || self
                    .words
                    .iter()
                    .any(|word| suite.name.contains(word.as_str()) || script.title.contains(word.as_str()))
        };
        let scripts: Vec<(usize, Script)> = suites
            .iter()
            .enumerate()
            .flat_map(|(at, suite)| suite.scripts.iter().filter(|it| chosen(suite, it)).map(move |it| (at, it.clone())))
            .collect();
        let started = Instant::now();
        let run = |(number, (suite, script)): (usize, (usize, Script))| async move {
            (suite, fidelity::on(client, &format!("fidelity-{number:03}"), &script).await, script)
        };
        let ran = futures::stream::iter(scripts.into_iter().enumerate()).map(run);
        let ran: Vec<_> = ran.buffered(self.at_once.max(1)).collect().await;
        let (count, mut failed) = (ran.len(), 0);
        for (suite, found, script) in ran {
            let suite = &mut suites[suite];
            let outcome = found.and_then(|found| {
                if self.record {
                    suite.recorded.insert(script.title.clone(), found);
                    return Ok(());
                }
                let recorded = suite.recorded.get(&script.title).map_or("", String::as_str);
                ensure!(
                    recorded == found,
                    "the real server answers otherwise (- recorded, + found; --record accepts it):\n{}",
                    difference(recorded, &found)
                );
                Ok(())
            });
            if let Err(error) = outcome {
                failed += 1;
                println!("{}: {} ... FAILED\n{error:#}\n", suite.name, script.title);
            }
        }
        if self.record {
            suites.iter().try_for_each(Suite::write)?;
        }
        println!("{count} scripts on the real server ({:.1} s), {failed} failed", started.elapsed().as_secs_f64());
        Ok(failed)
    }

    /// How many random scripts failed.
    async fn random(&self, client: &Client) -> usize {
        let started = Instant::now();
        let names = AtomicUsize::new(0);
        let names = &names;
        let compared = |seed: u64| async move {
            if started.elapsed() > Duration::from_secs(self.seconds) {
                return None;
            }
            let script = random::script(seed);
            Some((differs(client, names, &script).await, script))
        };
        let outcomes = futures::stream::iter(self.seed..self.seed + self.count).map(compared);
        let outcomes: Vec<_> = outcomes.buffered(self.at_once.max(1)).collect().await;
        let (mut scripts, mut requests, mut failed) = (0, 0, 0);
        for (outcome, script) in outcomes.into_iter().flatten() {
            scripts += 1;
            requests += script.requests.len();
            if let Some(why) = outcome {
                failed += 1;
                let least =
                    random::minimised(&script, async |fewer| differs(client, names, fewer).await.is_some()).await;
                let why = differs(client, names, &least).await.unwrap_or(why);
                println!("{} ... FAILED (- real server, + sandbox)\n{why}\n{least}", script.title);
            }
        }
        let seconds = started.elapsed().as_secs_f64();
        println!("{scripts} random scripts, {requests} requests compared ({seconds:.1} s), {failed} failed");
        failed
    }
}

/// How the real server and the sandbox differ in their answers, if they do.
async fn differs(client: &Client, names: &AtomicUsize, script: &Script) -> Option<String> {
    let namespace = format!("random-{:05}", names.fetch_add(1, Ordering::Relaxed));
    let (real, copy) = (fidelity::on(client, &namespace, script).await, script.clone());
    let sandbox =
        tokio::task::spawn_blocking(move || fidelity::on_sandbox(&copy)).await.context("the sandbox panicked");
    let text = |answers: Result<String>| answers.unwrap_or_else(|error| format!("{error:#}\n"));
    let (real, sandbox) = (text(real), text(sandbox.and_then(|answers| answers)));
    (real != sandbox).then(|| difference(&real, &sandbox))
}
