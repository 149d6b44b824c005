//! `scenarios`: those that make sense on the real control plane, several at a time.

use std::path::Path;
use std::pin::pin;
use std::sync::Arc;

use anyhow::{Context, Result};
use futures::StreamExt;
use tokio::sync::Mutex;
use tokio::time::{Duration, Instant, timeout};

use crate::chart;
use crate::cluster::CONTROLLER;
use crate::controller::Controller;
use crate::environment::{Environment, EnvironmentOptions};
use crate::scenario::{self, Scenario, real};
use crate::tally::Tally;
use crate::tools::{Part, Tools};

/// No scenario takes longer; one that does has met a bug of this program.
const LONGEST: Duration = Duration::from_secs(300);
/// The same for those at full length.
const LONGEST_IN_FULL: Duration = Duration::from_secs(3600);
/// Flags of the controller under test: a short lease, so that one that is killed is soon replaced.
pub const FLAGS: &[&str] = &[
    "--namespace=tidegate",
    "--metricsPort=0",
    "--healthzPort=0",
    "--leader-election-lease-duration=4s",
    "--leader-election-renew-deadline=3s",
    "--leader-election-retry-period=500ms",
];

#[derive(Debug, clap::Args)]
pub struct Scenarios {
    /// Only scenarios whose names contain one of these
    words: Vec<String>,
    #[command(flatten)]
    how: How,
}

/// How scenarios are run.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct How {
    /// How many run at once
    #[arg(long, default_value_t = 10)]
    at_once: usize,
    /// As long as they are written: their `pace` does not count
    #[arg(long)]
    full_length: bool,
    /// Say what the analyses found and what became of the requests
    #[arg(long)]
    tell: bool,
}

impl Scenarios {
    pub async fn run(self, folder: &Path) -> Result<()> {
        Tools::find(&[Part::Helm])?;
        let environment = Environment::start(folder, EnvironmentOptions::full()).await?;
        chart::install(&environment.tools, &environment.client).await?;
        let mut tally = Tally::default();
        let played = play(environment, folder, &self.words, self.how, &mut tally).await;
        tally.end_after(played)
    }
}

/// Runs the scenarios. The environment is stopped at the end.
pub async fn play(
    environment: Environment,
    folder: &Path,
    words: &[String],
    how: How,
    tally: &mut Tally,
) -> Result<()> {
    let mut scenarios = scenario::all()?;
    let is_chosen = |name: &str| words.is_empty() || words.iter().any(|word| name.contains(word.as_str()));
    scenarios.retain(|scenario| scenario.real && is_chosen(&scenario.name));
    if how.full_length {
        scenarios.iter_mut().for_each(|scenario| scenario.pace = 1);
    }
    let controller = Controller::start(&environment.cluster, folder, CONTROLLER, FLAGS)?;
    let shared = Arc::new(Mutex::new(real::Shared { environment, controller, other: None }));
    let (alone, together): (Vec<Scenario>, Vec<Scenario>) = scenarios.into_iter().partition(|it| it.alone);
    for (scenarios, at_once) in [(together, how.at_once), (alone, 1)] {
        let played = futures::stream::iter(&scenarios).map(|scenario| play_one(shared.clone(), scenario, how));
        let mut played = pin!(played.buffer_unordered(at_once.max(1)));
        while let Some((scenario, took, outcome)) = played.next().await {
            tally.add("scenario", &scenario.name, took, outcome);
        }
    }
    // Every scenario has ended, and with it its handle.
    let shared = Arc::into_inner(shared).context("a scenario goes on after its end")?.into_inner();
    shared.controller.stop().await;
    shared.environment.stop().await;
    Ok(())
}

async fn play_one(
    shared: Arc<Mutex<real::Shared>>,
    scenario: &Scenario,
    how: How,
) -> (&Scenario, Duration, Result<()>) {
    let started = Instant::now();
    let longest = if how.full_length { LONGEST_IN_FULL } else { LONGEST };
    let played = async {
        if how.tell { real::play_and_tell(shared, scenario).await } else { real::play(shared, scenario).await }
    };
    let outcome = match timeout(longest, played).await {
        Ok(Ok(trace)) => scenario::compare(scenario, "real cluster", &trace, false),
        Ok(Err(error)) => Err(error),
        Err(_) => Err(anyhow::anyhow!("it has not ended after {longest:?}")),
    };
    (scenario, started.elapsed(), outcome)
}
