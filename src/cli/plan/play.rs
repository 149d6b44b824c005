//! One release, from the change of the image to its end, by the real controller in virtual time.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::questions::ASSUMED;
use super::release::Release;
use super::report::{Bucket, Outcome, Pods, Sample, Share};
use super::setting::Setting;
use crate::api::names;
use crate::cli::in_process;
use crate::clock::Clock;
use crate::controller::settings::Settings;
use crate::providers::http::{HttpError, Request, Response, Transport};
use crate::sandbox::prometheus::Prometheus;
use crate::sandbox::traffic::{self, Destination, Load, Record};
use crate::sandbox::workloads::Behaviour;
use crate::sandbox::{Change, Cluster, Patch, Subscription};

/// When every release begins: any instant will do, if only it is the same.
const EPOCH: &str = "2026-01-05T08:00:00Z";
/// Asked by metrics that name no address.
const PROMETHEUS: &str = "http://prometheus.sandbox:9090";
const ROLLOUTS: &str = "rollouts.argoproj.io";
const RUNS: &str = "analysisruns.argoproj.io";
/// The name of the only load.
const USERS: &str = "users";
/// How long the older version may take to get ready, beyond what a pod takes.
const PATIENCE: Duration = Duration::from_secs(1800);
/// What happens at one instant is looked at together.
const INSTANT: Duration = Duration::from_millis(1);
/// From a change of the objects until gateways have followed.
const FOLLOWED: Duration = Duration::from_millis(110);
/// Requests are counted at least so often.
const LONGEST_TICK: Duration = Duration::from_secs(5);
/// After the end: until the pods that have to go are gone, beyond the delay that the user asked for.
const TAIL: Duration = Duration::from_secs(120);
/// The most bars of a plot of requests.
const BUCKETS: u32 = 160;

/// How to play a release.
#[derive(Clone, Debug)]
pub struct Circumstances {
    /// Requests in a second.
    pub rate: f64,
    /// Of the older version, and of the newer as long as it behaves well.
    pub pods: Behaviour,
    /// From a pause that only a person ends to the promotion.
    pub promote_after: Duration,
    pub scrape_interval: Duration,
    pub give_up_after: Duration,
    pub seed: u64,
    /// Whether more than the outcome is wanted.
    pub in_detail: bool,
}

/// What came of it. Times are milliseconds since the change of the image.
#[derive(Clone, Debug)]
pub struct Course {
    pub outcome: Outcome,
    pub ended: u64,
    pub aborted: Option<u64>,
    pub why: Option<String>,
    pub promotions: Vec<u64>,
    /// Until the outcome.
    pub requests: Tally,
    pub new_hash: String,
    pub began: Timestamp,
    /// Every status that the Rollout had, when in detail.
    pub statuses: Vec<(u64, Arc<Value>)>,
    pub samples: Vec<Sample>,
    /// The AnalysisRuns by name, as they were last seen, with all measurements that were seen.
    pub runs: BTreeMap<String, Arc<Value>>,
    pub measurements: BTreeMap<(String, String), BTreeMap<String, Value>>,
    pub series: Vec<Bucket>,
}

/// Requests by where they went.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    pub old: Share,
    pub new: Share,
    pub unanswered: u64,
}

impl Tally {
    pub fn total(&self) -> u64 {
        self.old.requests + self.new.requests + self.unanswered
    }

    pub fn failed(&self) -> u64 {
        self.old.failed + self.new.failed + self.unanswered
    }

    fn since(self, earlier: Self) -> Self {
        let less = |now: Share, then: Share| Share {
            requests: now.requests.saturating_sub(then.requests),
            failed: now.failed.saturating_sub(then.failed),
        };
        Self {
            old: less(self.old, earlier.old),
            new: less(self.new, earlier.new),
            unanswered: self.unanswered.saturating_sub(earlier.unanswered),
        }
    }
}

/// Plays a release. The same arguments have the same result.
///
/// # Errors
/// An object is refused, or the older version does not get ready.
pub fn play(setting: &Setting, release: &Release, circumstances: &Circumstances) -> anyhow::Result<Course> {
    let played = in_process::in_virtual_time(async {
        // A constant that is a time.
        let clock = Clock::starting_at(EPOCH.parse().context("a constant")?);
        let play = Play::start(setting, release, circumstances, &clock)?;
        let answers = Answers { prometheus: play.cluster.prometheus().clone(), clock: clock.clone() };
        let settings = Settings { seed: circumstances.seed, ..Settings::default() };
        let (transport, address) = (Arc::new(answers), Some(PROMETHEUS.to_owned()));
        let forever = std::future::pending();
        let controller = in_process::controller_with(&play.cluster, clock, transport, address, settings, forever);
        tokio::select! {
            ended = controller => bail!("the controller ended: {ended:?}"),
            course = play.whole() => course,
        }
    });
    played.context("starting a runtime")?
}

/// Who answers the questions of analyses.
struct Answers {
    prometheus: Prometheus,
    clock: Clock,
}

impl Transport for Answers {
    fn send(&self, request: Request) -> BoxFuture<'_, Result<Response, HttpError>> {
        async move {
            tokio::time::sleep(latency(&request)).await;
            if request.url.as_str().starts_with(ASSUMED) {
                return Ok(Response { status: 200, body: "assumed: the condition is met".into() });
            }
            Ok(in_process::ask(&self.prometheus, &request, self.clock.now()))
        }
        .boxed()
    }
}

/// How long an answer takes. No two questions are answered at the same time, and none when a step ends: they are judged on
/// another thread, and which of two things that happen at one instant comes first would be for the system to decide.
fn latency(request: &Request) -> Duration {
    let asked = request.url.as_str().bytes().chain(request.body.iter().copied());
    // FNV-1a
    let hash =
        asked.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    Duration::from_millis(13 + hash % 67)
}

struct Play<'a> {
    setting: &'a Setting,
    release: &'a Release,
    circumstances: &'a Circumstances,
    cluster: Cluster,
    clock: Clock,
    seen: Mutex<Seen>,
}

/// What was seen so far.
#[derive(Default)]
struct Seen {
    statuses: Vec<(u64, Arc<Value>)>,
    samples: Vec<Sample>,
    runs: BTreeMap<String, Arc<Value>>,
    measurements: BTreeMap<(String, String), BTreeMap<String, Value>>,
}

impl<'a> Play<'a> {
    fn start(
        setting: &'a Setting,
        release: &'a Release,
        circumstances: &'a Circumstances,
        clock: &Clock,
    ) -> anyhow::Result<Self> {
        let scrapes = circumstances.scrape_interval.max(Duration::from_millis(100));
        // Scrapes fall together with ends of ticks.
        let parts = scrapes.as_secs_f64() / LONGEST_TICK.as_secs_f64();
        let mut traffic = traffic::Settings { tick: scrapes / parts.ceil().max(1.0) as u32, ..Default::default() };
        if circumstances.in_detail {
            traffic.retention = circumstances.give_up_after + setting.questions.reach + PATIENCE;
        } else {
            traffic.retention = setting.questions.reach + scrapes * 4;
        }
        let mut builder = Cluster::builder().seed(circumstances.seed);
        for namespace in &setting.namespaces {
            builder = builder.namespace(namespace);
        }
        let server = in_process::server(clock, circumstances.seed);
        let cluster = builder.server(server).traffic(traffic).scrape_interval(scrapes).start();
        cluster.set_default_behaviour(circumstances.pods.clone());
        for object in &setting.objects {
            cluster.apply(&object.to_string())?;
        }
        Ok(Self { setting, release, circumstances, cluster, clock: clock.clone(), seen: Mutex::default() })
    }

    async fn whole(&self) -> anyhow::Result<Course> {
        let is_out = |cluster: &Cluster| {
            let rollout = self.rollout(cluster);
            rollout["status"]["phase"] == "Healthy" && rollout["status"]["stableRS"].is_string()
        };
        let patience = PATIENCE + self.circumstances.pods.ready_after;
        if !self.cluster.wait_until(patience, is_out).await {
            let status = &self.rollout(&self.cluster)["status"];
            let text = |field: &str| status[field].as_str().unwrap_or_default();
            bail!(
                "the version before the release does not get ready: {} {}; it is the manifest's own with another image",
                text("phase"),
                text("message")
            );
        }
        // Gateways follow the endpoints a moment after the pods are ready.
        sleep(Duration::from_secs(2)).await;
        self.send(self.circumstances.rate);
        // Queries look back: let there be something to look at.
        sleep(self.setting.questions.reach + self.circumstances.scrape_interval * 2 + Duration::from_secs(2)).await;
        self.watch().await
    }

    fn rollout(&self, cluster: &Cluster) -> Arc<Value> {
        let subject = &self.setting.subject;
        cluster.user().get(ROLLOUTS, &subject.namespace, &subject.name).unwrap_or_default()
    }

    fn send(&self, rate: f64) {
        self.cluster.send(USERS, Load { target: self.setting.target.clone(), rate });
    }

    fn misbehave(&self) {
        let behaviour = self.release.behaviour(&self.circumstances.pods);
        self.cluster.set_image(&self.setting.new_image, behaviour);
    }

    /// Begins the release and looks at everything that happens.
    async fn watch(&self) -> anyhow::Result<Course> {
        let mut changes = self.cluster.server().subscribe();
        let (start, began) = (Instant::now(), self.clock.now());
        let before = self.tally();
        let rollout = self.rollout(&self.cluster);
        let old_hash = rollout["status"]["stableRS"].as_str().unwrap_or_default().to_owned();
        let mut onset = self.release.late_onset.map(|onset| start + onset);
        if onset.is_none() {
            self.misbehave();
        }
        if self.release.no_traffic {
            self.cluster.stop_sending(USERS);
        }
        let template = &self.setting.template;
        let user = self.cluster.user();
        let patch = Patch::Merge(template.release.clone());
        let patched = user.patch(template.resource, &self.setting.subject.namespace, &template.name, &patch);
        patched.map_err(|refusal| anyhow::anyhow!("the new image is refused: {}", refusal.message))?;

        let limit = start + self.circumstances.give_up_after;
        let mut course = Course {
            outcome: Outcome::Unfinished,
            ended: 0,
            aborted: None,
            why: None,
            promotions: Vec::new(),
            requests: Tally::default(),
            new_hash: String::new(),
            began,
            statuses: Vec::new(),
            samples: Vec::new(),
            runs: BTreeMap::new(),
            measurements: BTreeMap::new(),
            series: Vec::new(),
        };
        let mut promotion: Option<Instant> = None;
        let mut settled = false;
        loop {
            let now = Instant::now();
            let rollout = self.rollout(&self.cluster);
            let status = &rollout["status"];
            let at = millis(now - start);
            if let Some(hash) = status["currentPodHash"].as_str().filter(|hash| *hash != old_hash) {
                course.new_hash = hash.to_owned();
            }
            self.look(at, &old_hash, &course.new_hash);
            if status["abort"] == true && course.aborted.is_none() {
                course.aborted = Some(at);
                course.why = why(status);
            }
            if let Some(outcome) = self.outcome(&rollout, &old_hash, &course) {
                course.outcome = outcome;
                if outcome == Outcome::Stuck || outcome == Outcome::Waiting {
                    course.why = why(status);
                }
                break;
            }
            if now >= limit {
                course.why = why(status);
                break;
            }
            if onset.is_some_and(|onset| onset <= now) {
                self.misbehave();
                onset = None;
            }
            let waits = self.waits_for_a_person(status);
            match promotion {
                None if waits => promotion = Some(now + self.circumstances.promote_after),
                Some(_) if !waits => promotion = None,
                Some(due) if due <= now => {
                    let promoted = Patch::Merge(json!({"status": {"pauseConditions": null}}));
                    let subject = &self.setting.subject;
                    let done = user.patch_status(ROLLOUTS, &subject.namespace, &subject.name, &promoted);
                    done.map_err(|refusal| anyhow::anyhow!("the promotion is refused: {}", refusal.message))?;
                    course.promotions.push(at);
                    promotion = None;
                }
                _ => {}
            }
            let due = [onset, promotion].into_iter().flatten().fold(limit, Instant::min);
            self.wait(&mut changes, start, due, &mut settled).await;
        }
        course.ended = millis(Instant::now() - start);
        course.requests = self.tally().since(before);
        if self.circumstances.in_detail {
            self.tail(&mut changes, start, &old_hash, &mut course).await;
            let seen = std::mem::take(&mut *self.seen());
            course.statuses = seen.statuses;
            course.samples = seen.samples;
            course.runs = seen.runs;
            course.measurements = seen.measurements;
            course.series = self.series(began, millis(Instant::now() - start));
        }
        Ok(course)
    }

    /// Looks on until the pods that have to go are gone.
    async fn tail(&self, changes: &mut Subscription, start: Instant, old_hash: &str, course: &mut Course) {
        if !matches!(course.outcome, Outcome::Completed | Outcome::RolledBack) {
            return;
        }
        let limit = Instant::now() + self.setting.longest_delay + TAIL;
        let mut settled = false;
        while Instant::now() < limit {
            self.look(millis(Instant::now() - start), old_hash, &course.new_hash);
            let going = self.seen().samples.last().map_or(0, |sample| {
                let going = if course.outcome == Outcome::Completed { sample.old_pods } else { sample.new_pods };
                going.wanted + going.there + sample.other_pods.there
            });
            if going == 0 {
                return;
            }
            self.wait(changes, start, limit, &mut settled).await;
        }
    }

    /// Waits for a change, and for what else happens at the same instant; or until gateways have followed the last one; or
    /// until `due`. Afterwards `settled` tells whether gateways have followed.
    async fn wait(&self, changes: &mut Subscription, start: Instant, due: Instant, settled: &mut bool) {
        let until = if *settled { due } else { due.min(Instant::now() + FOLLOWED) };
        let change = tokio::time::timeout_at(until, changes.next()).await;
        *settled = change.is_err();
        let Ok(Some(change)) = change else { return };
        self.note(change, start);
        sleep(INSTANT).await;
        while let Some(change) = changes.try_next() {
            self.note(change, start);
        }
    }

    /// Remembers what a change tells.
    fn note(&self, change: Change, start: Instant) {
        if !self.circumstances.in_detail {
            return;
        }
        let subject = &self.setting.subject;
        let metadata = &change.object["metadata"];
        if metadata["namespace"] != *subject.namespace {
            return;
        }
        let mut seen = self.seen();
        if &*change.resource == ROLLOUTS && metadata["name"] == *subject.name {
            let at = millis(Instant::now() - start);
            seen.statuses.push((at, change.object));
        } else if &*change.resource == RUNS {
            let name = metadata["name"].as_str().unwrap_or_default().to_owned();
            for result in list(&change.object["status"]["metricResults"]) {
                let metric = result["name"].as_str().unwrap_or_default().to_owned();
                let known = seen.measurements.entry((name.clone(), metric)).or_default();
                for measurement in list(&result["measurements"]) {
                    let started = measurement["startedAt"].as_str().unwrap_or_default();
                    known.insert(started.to_owned(), measurement.clone());
                }
            }
            seen.runs.insert(name, change.object);
        }
    }

    fn look(&self, at: u64, old_hash: &str, new_hash: &str) {
        if !self.circumstances.in_detail {
            return;
        }
        let (mut old_pods, mut new_pods, mut other_pods) = <(Pods, Pods, Pods)>::default();
        for set in self.cluster.user().list("replicasets.apps", &self.setting.subject.namespace) {
            let owner = list(&set["metadata"]["ownerReferences"]).find(|owner| owner["controller"] == true);
            if !owner.is_some_and(|owner| owner["kind"] == "Rollout" || owner["kind"] == "Experiment") {
                continue;
            }
            let number = |value: &Value| value.as_i64().unwrap_or(0);
            let pods = match set["metadata"]["labels"][names::POD_TEMPLATE_HASH].as_str().unwrap_or_default() {
                hash if hash == old_hash => &mut old_pods,
                hash if hash == new_hash => &mut new_pods,
                _ => &mut other_pods,
            };
            pods.wanted += number(&set["spec"]["replicas"]);
            pods.there += number(&set["status"]["replicas"]);
            pods.ready += number(&set["status"]["readyReplicas"]);
        }
        let weight = self.weight(new_hash, [old_pods, new_pods]);
        let sample = Sample { at: at as f64 / 1000.0, weight, old_pods, new_pods, other_pods };
        let mut seen = self.seen();
        let same = |last: &Sample| Sample { at: sample.at, ..last.clone() } == sample;
        if !seen.samples.last().is_some_and(same) {
            seen.samples.push(sample);
        }
    }

    /// The share of the requests that the new version gets, as the gateways have it now.
    fn weight(&self, new_hash: &str, [old, new]: [Pods; 2]) -> f64 {
        if new_hash.is_empty() {
            return 0.0;
        }
        let all = (old.ready + new.ready).max(1) as f64;
        let part = |(Destination { service, hash }, share): (Destination, f64)| {
            let service = self.cluster.user().get("services", &service.namespace, &service.name).unwrap_or_default();
            let selected = service["spec"]["selector"][names::POD_TEMPLATE_HASH].as_str();
            match hash.as_deref().or(selected) {
                Some(hash) if hash == new_hash => share,
                Some(_) => 0.0,
                None => share * new.ready as f64 / all,
            }
        };
        self.cluster.split(&self.setting.target).into_iter().map(part).fold(0.0, |sum, part| sum + part)
    }

    /// How the release has ended, if it has.
    fn outcome(&self, rollout: &Arc<Value>, old_hash: &str, course: &Course) -> Option<Outcome> {
        let status = &rollout["status"];
        if course.new_hash.is_empty() || status["currentPodHash"] != *course.new_hash {
            return None;
        }
        let phase = status["phase"].as_str().unwrap_or_default();
        if status["abort"] == true {
            let [old, new] = [old_hash, &course.new_hash].map(|hash| self.pods_of(hash));
            let back = self.weight(&course.new_hash, [old, new]) == 0.0;
            return (back && phase == "Degraded").then_some(Outcome::RolledBack);
        }
        if phase == "Healthy" && status["stableRS"] == *course.new_hash {
            return Some(Outcome::Completed);
        }
        let inconclusive = list(&status["pauseConditions"]).any(|pause| pause["reason"] == "InconclusiveAnalysisRun");
        if inconclusive {
            return Some(Outcome::Waiting);
        }
        (phase == "Degraded").then_some(Outcome::Stuck)
    }

    fn pods_of(&self, hash: &str) -> Pods {
        let sets = self.cluster.user().list("replicasets.apps", &self.setting.subject.namespace);
        let own = sets.iter().filter(|set| set["metadata"]["labels"][names::POD_TEMPLATE_HASH] == *hash);
        let ready = own.map(|set| set["status"]["readyReplicas"].as_i64().unwrap_or(0)).sum();
        Pods { ready, ..Pods::default() }
    }

    fn waits_for_a_person(&self, status: &Value) -> bool {
        let step = status["currentStepIndex"].as_u64().and_then(|step| usize::try_from(step).ok()).unwrap_or(0);
        list(&status["pauseConditions"]).any(|pause| match pause["reason"].as_str() {
            Some("CanaryPauseStep") => self.setting.waits.get(step).copied().unwrap_or(false),
            Some("BlueGreenPause") => self.setting.promoted_by_hand,
            _ => false,
        })
    }

    /// All requests until now.
    fn tally(&self) -> Tally {
        let new_image = &self.setting.new_image;
        self.cluster.requests(|record: &Record| {
            let mut tally = Tally::default();
            for line in record.lines().filter(|line| line.load == USERS) {
                let counts = line.counts();
                tally.add(&line.image, new_image, counts.requests(), counts.failures());
            }
            tally
        })
    }

    /// The requests of each stretch of time until `end`, in milliseconds.
    fn series(&self, began: Timestamp, end: u64) -> Vec<Bucket> {
        let tick = self.circumstances.scrape_interval.min(LONGEST_TICK);
        let width = (Duration::from_millis(end) / BUCKETS).max(tick).as_millis().max(1) as u64;
        let instant = |at: u64| began + jiff::SignedDuration::from_millis(at as i64);
        let new_image = &self.setting.new_image;
        self.cluster.requests(|record: &Record| {
            let stretch = |from: u64| {
                let to = (from + width).min(end);
                let mut tally = Tally::default();
                for answered in record.between(instant(from), instant(to)) {
                    if answered.load == USERS {
                        let counts = answered.counts;
                        tally.add(&answered.image, new_image, counts.requests(), counts.failures());
                    }
                }
                let Tally { old, new, unanswered } = tally;
                Bucket { from: from as f64 / 1000.0, to: to as f64 / 1000.0, old, new, unanswered }
            };
            (0..end).step_by(width as usize).map(stretch).collect()
        })
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tally {
    fn add(&mut self, image: &str, new_image: &str, requests: u64, failed: u64) {
        let share = match image {
            "" => return self.unanswered += requests,
            image if image == new_image => &mut self.new,
            _ => &mut self.old,
        };
        share.requests += requests;
        share.failed += failed;
    }
}

/// The status in the words of the controller.
fn why(status: &Value) -> Option<String> {
    let text = |field: &str| status[field].as_str().unwrap_or_default();
    let message = text("message");
    let message = message.strip_prefix("RolloutAborted: ").unwrap_or(message);
    match text("phase") {
        "Degraded" | "" if message.is_empty() => None,
        "Degraded" | "" => Some(message.to_owned()),
        phase if message.is_empty() => Some(phase.to_owned()),
        phase => Some(format!("{phase}: {message}")),
    }
}

pub(super) fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
