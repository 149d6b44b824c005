//! Twenty Rollouts in a storm: their users change, abort, retry and promote all the time, the controller is killed every few
//! seconds, the API server is paused and restarted, etcd is restarted.
//!
//! ```text
//! fleet      the Rollouts, and what they need
//! users      what is done to them           faults    what is broken around them
//! recording  every write, from etcd  ──►  history  the objects at each moment  ──►  judge  what was promised
//! requests   what the gateway's users see
//! ```
//!
//! The choices are seeded. The order in which programs run is not, so that a seed is no reproduction; the record is kept
//! when something was wrong.

mod faults;
mod fleet;
mod history;
mod judge;
mod recording;
mod requests;
mod users;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::future::{join_all, try_join_all};
use tokio::time::{Instant, sleep};

use self::faults::Outage;
use self::history::{Change, Object, State};
use self::judge::{Circumstances, Violation};
use self::recording::Recording;
use self::requests::{Lost, Requests};
use self::users::{Deeds, End, User};
use crate::chart;
use crate::cluster::{CONTROLLER, ClusterOptions};
use crate::controller::Controller;
use crate::environment::{Environment, EnvironmentOptions};
use crate::gateway::GatewayOptions;
use crate::kubelet::KubeletOptions;

/// Longer than Traefik waits before it takes up a change.
const DELAY: Duration = Duration::from_secs(3);
/// From the last deed and the last fault until all is as wanted: the steps of a release, the delays after it, and what a
/// busy machine takes for twenty of them.
const BOUND: Duration = Duration::from_secs(150);
/// How long nothing may be written then.
const QUIET: Duration = Duration::from_secs(15);
/// Changes of a Rollout that are printed with what went wrong there.
const CONTEXT: usize = 25;

/// How hard it blows.
#[derive(Clone, Copy, Debug)]
pub struct StormOptions {
    pub length: Duration,
    pub seed: u64,
}

/// What happened.
struct Outcome {
    kills: u32,
    outages: Vec<Outage>,
    deeds: Deeds,
    changes: Vec<Change>,
    writes: BTreeMap<String, usize>,
    sent: usize,
    lost: Vec<Lost>,
    violations: Vec<Violation>,
    /// What was not as wanted when there was no more time.
    stuck: Vec<String>,
    /// What the controller wrote when there was nothing more to do.
    restless: Option<String>,
    /// From the end of the storm until all was as wanted.
    settled: Duration,
}

/// Runs a storm in an environment of its own, and prints what happened.
///
/// # Errors
/// A promise was broken, a request was lost, or a Rollout does not end as it should; what led to it is printed.
pub async fn run(folder: &Path, options: StormOptions) -> Result<()> {
    std::fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
    let cluster = ClusterOptions {
        audited: vec![CONTROLLER],
        api_server_args: recording::api_server_args(),
        ..ClusterOptions::default()
    };
    // As long a preStop sleep as production has, because a gateway cannot follow while the API server is down.
    let kubelet = KubeletOptions { drain: Duration::from_secs(8), ..KubeletOptions::default() };
    let gateway = Some(GatewayOptions::default());
    let mut environment =
        Environment::start(folder, EnvironmentOptions { cluster, kubelet, gateway, prometheus: false }).await?;
    let recording = Recording::start(&environment.cluster.etcd_url());
    let outcome = blow(&mut environment, &recording, options).await;
    write_record(folder, &recording.changes())?;
    environment.stop().await;
    let outcome = outcome?;
    println!("{}", outcome.summary(options));
    outcome.verdict()
}

async fn blow(environment: &mut Environment, recording: &Recording, options: StormOptions) -> Result<Outcome> {
    chart::install(&environment.tools, &environment.client).await?;
    let delay = format!("--propagation-delay-seconds={}", DELAY.as_secs());
    let arguments = ["--metricsPort=0", "--healthzPort=0", "--leader-elect=false", &delay];
    let mut controller = Controller::start(&environment.cluster, &environment.folder, CONTROLLER, &arguments)?;
    fleet::deploy(&environment.client).await?;
    let ends: BTreeMap<String, End> = fleet::names().into_iter().map(|name| (name, End::Healthy)).collect();
    let unready = settle(recording, &ends).await;
    ensure!(unready.is_empty(), "before the storm:\n{}", unready.join("\n"));
    let url = environment.gateway.as_ref().context("there is a gateway")?.url();
    let requests = Requests::start(&url, recording.started()).await?;
    let mark = environment.cluster.audit().mark();

    let end = Instant::now() + options.length;
    let numbered = fleet::names().into_iter().zip(options.seed.wrapping_mul(1_000)..);
    let mut users: Vec<_> = numbered.map(|(name, seed)| User::new(&environment.client, &name, seed)).collect();
    let (kills, outages, _) = tokio::try_join!(
        faults::kill_controller(&mut controller, options.seed, end),
        faults::break_control_plane(&mut environment.cluster, options.seed, recording.started(), end),
        try_join_all(users.iter_mut().map(|user| user.work(end))),
    )?;

    let over = Instant::now();
    let ends: Vec<Result<End>> = join_all(users.iter_mut().map(User::finish)).await;
    let ends = fleet::names().into_iter().zip(ends.into_iter().collect::<Result<Vec<_>>>()?).collect();
    let stuck = settle(recording, &ends).await;
    let settled = over.elapsed();
    let restless = if stuck.is_empty() { quiet(environment, recording).await? } else { None };
    ensure!(controller.is_running(), "the controller has ended by itself:\n{}", controller.log()?);
    controller.stop().await;

    let (sent, lost) = requests.stop().await?;
    let changes = recording.changes();
    let violations = judge::judge(&changes, Circumstances { delay: DELAY, outages: &outages });
    let writes = environment.cluster.audit().writes(CONTROLLER, mark)?;
    let mut deeds = Deeds::new();
    for (deed, count) in users.into_iter().flat_map(|user| user.deeds) {
        *deeds.entry(deed).or_default() += count;
    }
    Ok(Outcome { kills, outages, deeds, changes, writes, sent, lost, violations, stuck, restless, settled })
}

/// Waits until every Rollout is as it is to end. Says what is not, in time.
async fn settle(recording: &Recording, ends: &BTreeMap<String, End>) -> Vec<String> {
    let deadline = Instant::now() + BOUND;
    loop {
        let changes = recording.changes();
        let states = states(&changes);
        let missing = ends.iter().filter_map(|(rollout, end)| {
            let what = judge::end::missing(rollout, states.get(rollout).unwrap_or(&State::default()), *end)?;
            Some(format!("L1 {rollout}: not within {BOUND:?}: {what}\n{}", story(&changes, rollout, Duration::MAX)))
        });
        let missing: Vec<String> = missing.collect();
        if missing.is_empty() || Instant::now() > deadline {
            return missing;
        }
        sleep(Duration::from_millis(500)).await;
    }
}

/// What the controller writes though there is nothing more to do.
async fn quiet(environment: &Environment, recording: &Recording) -> Result<Option<String>> {
    // What has just been reached is told by an event yet.
    sleep(Duration::from_secs(3)).await;
    let mark = environment.cluster.audit().mark();
    let before = recording.changes().len();
    sleep(QUIET).await;
    let writes = environment.cluster.audit().writes(CONTROLLER, mark)?;
    let changes = recording.changes().split_off(before);
    let changes: Vec<String> = changes.iter().map(Change::to_string).collect();
    Ok((!writes.is_empty()).then(|| format!("L1: the controller still writes: {writes:?}\n{}", changes.join("\n"))))
}

fn states(changes: &[Change]) -> BTreeMap<String, State> {
    let mut states: BTreeMap<String, State> = BTreeMap::new();
    for change in changes {
        if let Some(rollout) = change.rollout() {
            states.entry(rollout).or_default().apply(change);
        }
    }
    states
}

/// The last changes of a Rollout's objects before a moment, and a few after it.
fn story(changes: &[Change], rollout: &str, at: Duration) -> String {
    let own: Vec<_> = changes.iter().filter(|change| change.rollout().as_deref() == Some(rollout)).collect();
    let middle = own.partition_point(|change| change.at <= at);
    let around = &own[middle.saturating_sub(CONTEXT)..own.len().min(middle + CONTEXT / 3)];
    around.iter().map(|change| format!("  {change}")).collect::<Vec<_>>().join("\n")
}

fn write_record(folder: &Path, changes: &[Change]) -> Result<()> {
    let text: String = changes.iter().map(|change| format!("{change}\n")).collect();
    let file = folder.join("record.txt");
    std::fs::write(&file, text).with_context(|| format!("writing {}", file.display()))
}

impl Outcome {
    fn summary(&self, options: StormOptions) -> String {
        let mut text = String::new();
        let mut line = |what: &str, value: String| {
            // Writing to a String does not fail.
            let _ = writeln!(text, "  {what:<28} {value}");
        };
        line("storm", format!("{:?}, seed {}, {} Rollouts", options.length, options.seed, fleet::names().len()));
        line("controller killed", self.kills.to_string());
        for (fault, count) in faults::count(&self.outages) {
            let total: Duration = self.outages.iter().filter(|it| it.what == fault).map(|it| it.to - it.from).sum();
            line(&format!("{fault:?}"), format!("{count} ({:.1} s together)", total.as_secs_f64()));
        }
        line("deeds of users", format!("{:?}", self.deeds));
        line("releases done", self.count(|was, is| !was.stable.is_empty() && was.stable != is.stable).to_string());
        line("updates aborted", self.count(|was, is| !was.aborted && is.aborted).to_string());
        line("writes to recorded objects", self.changes.len().to_string());
        line("writes of the controller", format!("{} {:?}", self.writes.values().sum::<usize>(), self.writes));
        line("requests", format!("{} sent, {} lost", self.sent, self.lost.len()));
        line("violations", self.violations.len().to_string());
        line("stuck at the end", self.stuck.len().to_string());
        line("settled after", format!("{:.1} s", self.settled.as_secs_f64()));
        text
    }

    /// How often a Rollout changed like this.
    fn count(&self, is_it: impl Fn(&history::Rollout, &history::Rollout) -> bool) -> usize {
        let mut last: BTreeMap<&str, &history::Rollout> = BTreeMap::new();
        let mut count = 0;
        for change in &self.changes {
            if let Some(Object::Rollout(rollout)) = &change.object {
                let was = last.insert(&change.name, rollout);
                count += usize::from(was.is_some_and(|was| is_it(was, rollout)));
            }
        }
        count
    }

    fn verdict(&self) -> Result<()> {
        let broken = self.violations.iter().map(|it| format!("{it}\n{}", story(&self.changes, &it.rollout, it.at)));
        let lost = self.lost.iter().map(|it| {
            let outage = self.outages.iter().rfind(|outage| outage.from <= it.to);
            let outage = outage.map(|it| format!(" (last outage: {:?} until {:.1})", it.what, it.to.as_secs_f64()));
            let (from, to) = (it.from.as_secs_f64(), it.to.as_secs_f64());
            let answer = format!("status {:?} of version {:?}{}", it.status, it.version, outage.unwrap_or_default());
            format!(
                "lost: {} from {from:.3} to {to:.3}: {answer}\n{}",
                it.rollout,
                story(&self.changes, &it.rollout, it.to)
            )
        });
        // Many requests are lost for one reason.
        let unfinished = self.stuck.iter().chain(&self.restless).cloned();
        let wrong: Vec<String> = broken.chain(lost.take(5)).chain(unfinished).collect();
        ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
        Ok(())
    }
}
