//! `tidegate demo`: a good release goes out, a bad one rolls itself back, on a cluster in memory.

mod stage;
mod view;

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use jiff::{SignedDuration, Timestamp};

use super::in_process::{self, Rolling};
use crate::clock::Clock;
use crate::sandbox::workloads::Behaviour;
use stage::Stage;
use view::View;

/// As in the manifest.
const REPLICAS: i32 = 10;
/// Requests that users send in a second.
const RATE: f64 = 200.0;
/// The share of requests that fails in the bad release.
const BAD: f64 = 0.1;
/// What each release runs.
const VERSIONS: [&str; 3] = ["shop/web-app:v1", "shop/web-app:v2", "shop/web-app:v3"];
/// How long a release may take before the demo gives up: several times what it takes.
const LIMIT: Duration = Duration::from_secs(60);
/// How long the demo goes on after the end of a release, so that the calm after it can be seen.
const CALM: Duration = Duration::from_secs(2);
/// Between two pictures.
const FRAME: Duration = Duration::from_millis(250);

/// Watch a good release go out and a bad one roll itself back; needs nothing but this binary
#[derive(Debug, clap::Args)]
pub struct Demo {
    /// Print lines instead of a live view, as when the output is not a terminal
    #[arg(long)]
    plain: bool,
}

/// What users noticed of a release.
struct Outcome {
    requests: u64,
    failures: u64,
    /// From the change of the image to the end of the release.
    took: SignedDuration,
}

impl Demo {
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        let live = !self.plain && std::io::stdout().is_terminal();
        let color = live && std::env::var_os("NO_COLOR").is_none();
        let clock = Clock::system();
        let stage = Stage::set(clock.clone()).await?;
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let stopped = async move { drop(stopped.await) };
        let controller = in_process::controller(&stage.cluster, clock.clone(), None, stopped);
        let story = tell(&stage, View::new(live, color, clock.now()));
        let (controller, story) = tokio::join!(controller, async {
            let told = story.await;
            let _ = stop.send(());
            told
        });
        controller?;
        let Story { good, bad, verdict } = story?;
        let usual = stage.cluster.default_behaviour();
        let rolling = Rolling {
            replicas: REPLICAS,
            rate: RATE,
            new: Behaviour { error_rate: BAD, ..usual.clone() },
            old: usual,
            onset: Duration::ZERO,
            took: bad.took.unsigned_abs(),
            seed: 1,
        };
        let rolling = tokio::task::spawn_blocking(move || rolling.failures()).await??;
        println!("{}", summary(&good, &bad, &verdict, rolling));
        Ok(if good.failures == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// What happened.
struct Story {
    good: Outcome,
    bad: Outcome,
    /// Why the bad release was rolled back.
    verdict: String,
}

async fn tell(stage: &Stage, mut view: View) -> anyhow::Result<Story> {
    view.say("A cluster in memory: 10 pods of v1 behind ingress-nginx, 200 requests a second, Prometheus watching.");
    play(stage, &mut view, Stage::is_healthy).await.context("the first version did not get ready")?;
    // The gateway follows the endpoints a moment after the pods are ready.
    calm(stage, &mut view).await;
    stage.send(RATE);
    calm(stage, &mut view).await;

    view.say("Release v2. It is a good one.");
    let good = release(stage, &mut view, VERSIONS[1], Stage::is_healthy).await?;
    view.say(&format!("v2 is out after {}.", seconds(good.took)));

    stage.misbehave(VERSIONS[2], BAD);
    view.say("Release v3. It fails one request in ten, and nobody knows yet.");
    let bad = release(stage, &mut view, VERSIONS[2], Stage::is_rolled_back).await?;
    view.close();
    view.say(&format!("v3 is rolled back after {}. Nobody had to do anything.", seconds(bad.took)));
    let verdict = stage.verdict().unwrap_or_default();
    Ok(Story { good, bad, verdict })
}

/// Changes the image and watches until the release has ended.
async fn release(stage: &Stage, view: &mut View, image: &str, ended: fn(&Stage) -> bool) -> anyhow::Result<Outcome> {
    let began = stage.clock.now();
    stage.set_image(image)?;
    // The controller has not seen the new image yet: what holds now is about the old one.
    play(stage, view, |stage| !Stage::is_healthy(stage)).await?;
    play(stage, view, ended).await.with_context(|| format!("the release of {image} did not end"))?;
    let took = stage.clock.now().duration_since(began);
    calm(stage, view).await;
    let counts = stage.counts(began, stage.clock.now());
    Ok(Outcome { requests: counts.requests(), failures: counts.failures(), took })
}

/// Draws until the condition holds.
async fn play(stage: &Stage, view: &mut View, holds: impl Fn(&Stage) -> bool) -> anyhow::Result<()> {
    let deadline = tokio::time::Instant::now() + LIMIT;
    while !holds(stage) {
        if tokio::time::Instant::now() > deadline {
            bail!("nothing happened for {} s: {}", LIMIT.as_secs(), stage.phase());
        }
        view.draw(&stage.picture());
        tokio::time::sleep(FRAME).await;
    }
    view.draw(&stage.picture());
    Ok(())
}

async fn calm(stage: &Stage, view: &mut View) {
    let until = tokio::time::Instant::now() + CALM;
    while tokio::time::Instant::now() < until {
        view.draw(&stage.picture());
        tokio::time::sleep(FRAME).await;
    }
}

fn seconds(duration: SignedDuration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}

fn summary(good: &Outcome, bad: &Outcome, verdict: &str, rolling: u64) -> String {
    let per_minute = (RATE * 60.0 * BAD).round();
    format!(
        "\n\
         Good release (v2)  {good_requests:>5} requests, {good_failures} failed, out after {good_took}\n\
         Bad release (v3)   {bad_requests:>5} requests, {bad_failures} failed, rolled back after {bad_took}\n\
         Why                {verdict}\n\
         A rolling update   would have failed {rolling} requests in these {bad_took}, and {per_minute} more every\n\
         {empty:19}minute until somebody had noticed (simulated: same pods, same load, no steps)\n\
         \n\
         Try it yourself    tidegate sandbox        a cluster in memory for kubectl, with the controller on it\n\
         {empty:19}tidegate lint -f FILE   what is wrong with your own manifests\n\
         {empty:19}make demo-cluster       the same on a real API server, gateway and Prometheus\n\
         {empty:19}docs/README.md          the manual",
        good_requests = good.requests,
        good_failures = good.failures,
        good_took = seconds(good.took),
        bad_requests = bad.requests,
        bad_failures = bad.failures,
        bad_took = seconds(bad.took),
        empty = "",
    )
}

/// A second before an instant.
fn before(now: Timestamp) -> Timestamp {
    now - SignedDuration::from_secs(2)
}
