//! Deciding for an AnalysisRun, in two pure halves around the measurements.
//!
//! ```text
//! secret_refs ──► (shell reads Secrets) ──► RunWorld ──► tasks ──► (providers measure) ──► conclude ──► Plan
//! ```
//!
//! Both halves look at the same [`RunWorld`]. When the shell crashes between them, or the status cannot be written, the
//! measurement is lost and taken again.

mod asked;
mod silence;

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::args::{ArgsError, Values};
use super::assess;
use super::compare::{Comparison, Judgement, Look};
use super::metric::{self, Limits, Rules};
use super::secrets::{Redactor, Secrets};
use crate::api::AnalysisRun;
use crate::api::analysis::{
    AnalysisPhase, AnalysisRunStatus, Measurement, Metric, MetricResult, SecretKeyRef, TtlStrategy,
};
use crate::api::common::{Time, time};
use crate::api::duration::GoDuration;
use crate::api::field_error::FieldPath;
use crate::api::resource::{ANALYSIS_RUN, ObjectRef};
use crate::plan::{Action, Basis, Plan};

pub use asked::{Asked, asked};
pub use silence::{Silence, silence};

/// Between an error and the next try, whatever the interval.
const ERROR_RETRY: SignedDuration = SignedDuration::from_secs(10);
/// Status keeps whole seconds, so a shorter interval would mean: without pause until the next second begins.
const SHORTEST_INTERVAL: SignedDuration = SignedDuration::from_secs(1);
/// Bytes of a value that are kept in the status. An AnalysisRun is limited to about 1.5 MB, and whoever makes the
/// provider answer more must not be able to stop its run.
const VALUE_LIMIT: usize = 8 << 10;
/// Bytes of a message, and of a text of metadata, that are kept.
const TEXT_LIMIT: usize = 4 << 10;
/// Keys of metadata that refer to objects of ours: they are read again, so they must stay as they are.
const REFERENCES: [&str; 2] = ["job-name", "job-namespace"];

/// Everything that a decision about an AnalysisRun may look at.
#[derive(Clone, Debug)]
pub struct RunWorld {
    pub now: Timestamp,
    pub run: Arc<AnalysisRun>,
    /// An answer for each of [`secret_refs`].
    pub secrets: Secrets,
    /// The canary's part of the requests that the router of the run's Rollout is set to ([`super::compare::names::weight`]).
    pub weight: Option<f64>,
}

/// Something that a provider is to do now. Tasks of one world are independent: they may run side by side.
#[derive(Clone)]
pub struct Task {
    pub run: Arc<AnalysisRun>,
    /// The metric with the values of its arguments, secrets included: never to be stored or printed.
    pub metric: Metric,
    pub step: Step,
    redactor: Redactor,
}

/// What to do with a metric.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Take a new measurement, the `number`-th (from 1) of the metric, errors included.
    Start { number: i32 },
    /// Count what canary and stable have done since the last look.
    Compare(Box<Look>),
    /// Look again at a measurement in flight.
    Resume(Measurement),
    /// Give a measurement in flight up.
    Terminate(Measurement),
    /// Remove what these measurements left behind: they are about to be forgotten. Yields no outcome.
    Collect(Vec<Measurement>),
}

/// What came of a task. It holds no secret: that is seen to when it is made.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    metric: String,
    measurement: Measurement,
    metadata: BTreeMap<String, String>,
    judge: Option<Judged>,
}

/// What a comparison adds to its measurement.
#[derive(Clone, Debug, PartialEq)]
struct Judged {
    memory: Option<String>,
    ends: bool,
}

impl Outcome {
    /// What a look of the judge came to.
    pub fn of_judge(
        task: &Task,
        mut measurement: Measurement,
        metadata: BTreeMap<String, String>,
        judgement: Judgement,
    ) -> Self {
        let Judgement { phase, value, message, metadata: numbers, memory, ends } = judgement;
        (measurement.phase, measurement.value, measurement.message) = (phase, value, message);
        measurement.metadata.extend(numbers);
        Self { judge: Some(Judged { memory, ends }), ..Self::new(task, measurement, metadata) }
    }

    /// The measurement is finished (`finished_at` is set) or in flight. `metadata` are facts about the metric as a whole,
    /// such as the query with its arguments. Secret values in them are hidden, and overlong texts are cut.
    pub fn new(task: &Task, mut measurement: Measurement, metadata: BTreeMap<String, String>) -> Self {
        let clean = |text: &str, limit| clip(task.redactor.redact(text), limit);
        let clean_map = |map: BTreeMap<String, String>| {
            map.into_iter()
                .map(|(key, text)| {
                    let text = if REFERENCES.contains(&key.as_str()) { text } else { clean(&text, TEXT_LIMIT) };
                    (key, text)
                })
                .collect()
        };
        measurement.value = clean(&measurement.value, VALUE_LIMIT);
        measurement.message = clean(&measurement.message, TEXT_LIMIT);
        measurement.metadata = clean_map(measurement.metadata);
        for instant in [&mut measurement.started_at, &mut measurement.finished_at, &mut measurement.resume_at] {
            *instant = instant.take().map(|Time(instant)| time(instant));
        }
        Self { metric: task.metric.name.clone(), measurement, metadata: clean_map(metadata), judge: None }
    }

    pub fn measurement(&self) -> &Measurement {
        &self.measurement
    }
}

impl std::fmt::Debug for Task {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Task")
            .field("run", &self.run.metadata.name)
            .field("metric", &self.metric.name)
            .field("step", &self.step)
            .finish_non_exhaustive()
    }
}

/// The Secret keys that the run needs now; none when nothing is due to be measured.
pub fn secret_refs(now: Timestamp, run: &AnalysisRun) -> Vec<SecretKeyRef> {
    let Some(Ok(prepared)) = Prepared::of(run, now) else { return Vec::new() };
    if !prepared.needs_secrets() {
        return Vec::new();
    }
    let mut refs: Vec<SecretKeyRef> = Vec::new();
    for reference in run.spec.args.iter().filter_map(|arg| arg.value_from.as_ref()?.secret_key_ref.as_ref()) {
        if !refs.contains(reference) {
            refs.push(reference.clone());
        }
    }
    refs
}

/// When the status of the run is to say more than it does: a measurement is due then, or another look at one in flight.
/// In the past, if that is late. None when nobody knows: the run is over, or told to end, or a provider does not say.
pub fn due(now: Timestamp, run: &AnalysisRun) -> Option<Timestamp> {
    let status = run.status.as_ref()?;
    let Time(started) = *status.started_at.as_ref()?;
    let Ok(prepared) = Prepared::of(run, now)? else { return Some(started) };
    let looks = prepared.metrics.iter().zip(&prepared.rules).filter_map(|(metric, rules)| {
        match next(&rules.limits, result_of(status, &metric.name), started, now, prepared.terminating) {
            Next::Start(at) | Next::Resume(at) => Some(at),
            Next::Never | Next::Poll | Next::Terminate => None,
        }
    });
    looks.min()
}

/// What the providers are to do now.
pub fn tasks(world: &RunWorld) -> Vec<Task> {
    let Some(Ok(prepared)) = Prepared::of(&world.run, world.now) else { return Vec::new() };
    // What cannot get its arguments is not measured; `conclude` says so.
    prepared.tasks(world).unwrap_or_default()
}

/// What follows from the outcomes of [`tasks`] of the same world. An outcome that is missing is no measurement: it is
/// taken again.
pub fn conclude(world: &RunWorld, outcomes: Vec<Outcome>) -> Plan<AnalysisRunStatus> {
    let run = &world.run;
    let mut status = run.status.clone().unwrap_or_default();
    let prepared = match Prepared::of(run, world.now) {
        None => return rest(world, status),
        Some(prepared) => prepared,
    };
    let prepared = prepared.and_then(|prepared| match prepared.tasks(world) {
        Ok(_) => Ok(prepared),
        Err(error) => Err(unresolvable(&error)),
    });
    match prepared {
        Ok(prepared) => prepared.conclude(world, status, outcomes),
        Err(message) => {
            status.phase = AnalysisPhase::Error;
            status.message = message;
            let event = assess::run_completion(status.phase);
            let reason = format!("{}: {}", status.phase, status.message);
            // Without completedAt, as in Argo Rollouts: such a run is not deleted after its time to live.
            Plan { actions: Vec::new(), status, events: vec![event], wake: None, reason }
        }
    }
}

/// A run that is to be worked on, its arguments in place but for the secrets.
struct Prepared<'a> {
    run: &'a AnalysisRun,
    metrics: Vec<Metric>,
    rules: Vec<Rules>,
    terminating: bool,
    /// The metric's index and what is due.
    due: Vec<(usize, Step)>,
}

/// When a metric is to be looked at again, and for what.
#[derive(Debug, PartialEq)]
enum Next {
    Never,
    Start(Timestamp),
    Resume(Timestamp),
    /// A measurement in flight that does not say when: whenever the run is looked at.
    Poll,
    Terminate,
}

impl<'a> Prepared<'a> {
    /// `None` when there is nothing to be measured any more; an error is the run's message.
    fn of(run: &'a AnalysisRun, now: Timestamp) -> Option<Result<Self, String>> {
        let none = AnalysisRunStatus::default();
        let status = run.status.as_ref().unwrap_or(&none);
        if status.phase.completed() || run.metadata.deletion_timestamp.is_some() {
            return None;
        }
        let metrics = Values::without_secrets(&run.spec.args).and_then(|values| {
            run.spec.metrics.iter().map(|metric| values.resolve(metric)).collect::<Result<Vec<_>, _>>()
        });
        let metrics = match metrics {
            Ok(metrics) => metrics,
            Err(error) => return Some(Err(unresolvable(&error))),
        };
        let path = FieldPath::new("spec");
        let rules = match metric::rules(&metrics, &run.spec.dry_run, &run.spec.measurement_retention, &path) {
            Ok(rules) => rules,
            Err(error) => return Some(Err(format!("Analysis spec invalid: {error}"))),
        };
        let terminating = run.spec.terminate || ended_early(status, &metrics, &rules);
        let started = started_at(status, now);
        let mut due = Vec::new();
        for (index, (metric, rules)) in metrics.iter().zip(&rules).enumerate() {
            let result = result_of(status, &metric.name);
            let last = result.and_then(|result| result.measurements.last());
            let step = match (next(&rules.limits, result, started, now, terminating), last) {
                (Next::Start(at), _) if at <= now => {
                    let taken = result.map_or(0, |result| result.count.saturating_add(result.error));
                    Step::Start { number: taken.saturating_add(1) }
                }
                (Next::Resume(at), Some(last)) if at <= now => Step::Resume(last.clone()),
                (Next::Poll, Some(last)) => Step::Resume(last.clone()),
                (Next::Terminate, Some(last)) => Step::Terminate(last.clone()),
                _ => continue,
            };
            if let (Step::Start { .. }, Some(result)) = (&step, result) {
                let forgotten = (result.measurements.len() + 1).saturating_sub(rules.keep);
                if forgotten > 0 {
                    due.push((index, Step::Collect(result.measurements[..forgotten].to_vec())));
                }
            }
            due.push((index, step));
        }
        Some(Ok(Self { run, metrics, rules, terminating, due }))
    }

    fn needs_secrets(&self) -> bool {
        self.due.iter().any(|(_, step)| matches!(step, Step::Start { .. } | Step::Resume(_)))
    }

    fn tasks(&self, world: &RunWorld) -> Result<Vec<Task>, ArgsError> {
        let values =
            if self.needs_secrets() { Some(Values::with_secrets(&self.run.spec.args, &world.secrets)?) } else { None };
        let redactor = world.secrets.redactor();
        self.due
            .iter()
            .map(|(index, step)| {
                let metric = match (step, &values) {
                    (Step::Start { .. } | Step::Resume(_), Some(values)) => {
                        let mut metric = values.resolve(&self.run.spec.metrics[*index])?;
                        // A name is written down, so it never holds a secret.
                        metric.name.clone_from(&self.metrics[*index].name);
                        metric
                    }
                    _ => self.metrics[*index].clone(),
                };
                let step = match (step, &self.rules[*index].limits.comparison) {
                    (Step::Start { .. }, Some(comparison)) => {
                        Step::Compare(Box::new(self.look(world, comparison, &metric.name)))
                    }
                    (step, _) => step.clone(),
                };
                let (run, redactor) = (world.run.clone(), redactor.clone());
                Ok(Task { run, metric, step, redactor })
            })
            .collect()
    }

    /// What is to be counted now. No secret gets into what is counted, so that it may be shown.
    fn look(&self, world: &RunWorld, comparison: &Comparison, metric: &str) -> Look {
        let none = AnalysisRunStatus::default();
        let status = self.run.status.as_ref().unwrap_or(&none);
        let namespace = self.run.metadata.namespace.as_deref().unwrap_or_default();
        let times = (started_at(status, world.now), world.now);
        Look::new(comparison, namespace, times, result_of(status, metric), world.weight)
    }

    fn conclude(
        self,
        world: &RunWorld,
        mut status: AnalysisRunStatus,
        outcomes: Vec<Outcome>,
    ) -> Plan<AnalysisRunStatus> {
        // The instant at which the last measurement was there.
        let now = outcomes
            .iter()
            .filter_map(|outcome| outcome.measurement.finished_at.as_ref().map(|Time(finished)| *finished))
            .fold(world.now, Timestamp::max);
        let started = started_at(&status, world.now);
        status.started_at.get_or_insert_with(|| time(started));

        let mut measured = Vec::new();
        let mut verdicts = BTreeMap::new();
        for outcome in outcomes {
            if outcome.judge.as_ref().is_some_and(|judge| judge.ends) {
                verdicts.insert(outcome.metric.clone(), outcome.measurement.phase);
            }
            if let Some(text) = self.record(&mut status, outcome, world.now) {
                measured.push(text);
            }
        }
        let mut events = assess::metrics(&mut status, &self.metrics, &self.rules, &verdicts, self.terminating);
        let mut terminating = self.terminating;
        if !terminating && ended_early(&status, &self.metrics, &self.rules) && !in_flight(&status) {
            // One metric has ended the run and no other has anything under way: there is nothing to wait for.
            terminating = true;
            events.extend(assess::metrics(&mut status, &self.metrics, &self.rules, &verdicts, terminating));
        }
        events.extend(assess::run(&mut status, &self.metrics, &self.rules, self.run.spec.terminate, terminating));
        for (metric, rules) in self.metrics.iter().zip(&self.rules) {
            if let Some(result) = status.metric_results.iter_mut().find(|result| result.name == metric.name) {
                let forgotten = result.measurements.len().saturating_sub(rules.keep);
                result.measurements.drain(..forgotten);
            }
        }
        let wake = if status.phase.completed() {
            status.completed_at.get_or_insert_with(|| time(now));
            expiry(self.run.spec.ttl_strategy.as_ref(), &status)
        } else {
            self.wake(&status, started, now)
        };
        let reason = reason(&status, &measured);
        Plan { actions: Vec::new(), status, events, wake, reason }
    }

    /// Adds an outcome to the results; one that was not asked for is ignored.
    fn record(&self, status: &mut AnalysisRunStatus, outcome: Outcome, now: Timestamp) -> Option<String> {
        let Outcome { metric: name, measurement, metadata, judge } = outcome;
        let started = started_at(status, now);
        let (index, step) = self
            .due
            .iter()
            .find(|(index, step)| self.metrics[*index].name == name && !matches!(step, Step::Collect(_)))?;
        let results = &mut status.metric_results;
        let position = results.iter().position(|result| result.name == name).unwrap_or_else(|| {
            results.push(MetricResult {
                name: name.clone(),
                phase: AnalysisPhase::Running,
                dry_run: self.rules[*index].dry_run,
                metadata,
                ..MetricResult::default()
            });
            results.len() - 1
        });
        let result = &mut results[position];
        let text = if measurement.value.is_empty() {
            format!("{name} {}", measurement.phase)
        } else {
            format!("{name} {} with {}", measurement.phase, measurement.value)
        };
        assess::count(result, measurement.phase);
        if let Some(comparison) = &self.rules[*index].limits.comparison
            && now < after(started, seconds(comparison.last_look()))
        {
            // What could not be asked is asked next time: nothing is lost before the last look.
            result.consecutive_error = 0;
        }
        if let Some(memory) = judge.and_then(|judge| judge.memory) {
            result.judge = Some(memory);
        }
        match (step, result.measurements.last_mut()) {
            (Step::Resume(_) | Step::Terminate(_), Some(last)) => *last = measurement,
            _ => result.measurements.push(measurement),
        }
        Some(text)
    }

    fn wake(&self, status: &AnalysisRunStatus, started: Timestamp, now: Timestamp) -> Option<Timestamp> {
        let terminating = self.run.spec.terminate || ended_early(status, &self.metrics, &self.rules);
        self.metrics
            .iter()
            .zip(&self.rules)
            .filter_map(|(metric, rules)| {
                let result = result_of(status, &metric.name);
                match next(&rules.limits, result, started, now, terminating) {
                    Next::Never => None,
                    Next::Start(at) | Next::Resume(at) => Some(at),
                    Next::Poll => Some(poll_at(result, now)),
                    Next::Terminate => Some(now),
                }
            })
            .min()
    }
}

/// A run that is over, or on its way out.
fn rest(world: &RunWorld, status: AnalysisRunStatus) -> Plan<AnalysisRunStatus> {
    let metadata = &world.run.metadata;
    let mut plan = Plan { actions: Vec::new(), status, events: Vec::new(), wake: None, reason: String::new() };
    if metadata.deletion_timestamp.is_some() {
        plan.reason = "is being deleted".to_owned();
        return plan;
    }
    plan.reason = format!("is over: {}", plan.status.phase);
    match expiry(world.run.spec.ttl_strategy.as_ref(), &plan.status) {
        Some(expiry) if expiry <= world.now => {
            let (namespace, name) = (metadata.namespace.clone(), metadata.name.clone());
            let object = Basis {
                object: ObjectRef::new(ANALYSIS_RUN, namespace.unwrap_or_default(), name.unwrap_or_default()),
                uid: metadata.uid.clone().unwrap_or_default(),
                resource_version: None,
            };
            plan.actions.push(Action::Delete { object, what: format!("its time to live ended at {expiry}") });
        }
        expiry => plan.wake = expiry,
    }
    plan
}

/// When a metric is to be looked at again.
fn next(limits: &Limits, result: Option<&MetricResult>, started: Timestamp, now: Timestamp, terminating: bool) -> Next {
    if result.is_some_and(|result| result.phase.completed()) {
        return Next::Never;
    }
    let last = result.and_then(|result| result.measurements.last());
    if let Some(Measurement { finished_at: None, resume_at, .. }) = last {
        return match resume_at {
            _ if terminating => Next::Terminate,
            Some(Time(at)) => Next::Resume(*at),
            None => Next::Poll,
        };
    }
    if terminating {
        return Next::Never;
    }
    let (Some(result), Some(last)) = (result, last) else {
        let delay = match &limits.comparison {
            Some(comparison) => seconds(comparison.first_look()),
            None => limits.initial_delay.into(),
        };
        return Next::Start(after(started, delay));
    };
    if limits.count.is_some_and(|count| result.count >= count) {
        return Next::Never;
    }
    let pause = match (last.phase, limits.interval) {
        (AnalysisPhase::Error, _) | (_, None) => ERROR_RETRY,
        (_, Some(interval)) => SHORTEST_INTERVAL.max(interval.into()),
    };
    let finished = last.finished_at.as_ref().map_or(started, |Time(finished)| *finished);
    if let (Some(comparison), false) = (&limits.comparison, last.phase == AnalysisPhase::Error) {
        // From the beginning of the measurement: what was over by then has been counted.
        let looked = last.started_at.as_ref().map_or(finished, |Time(started)| *started);
        let at = after(started, seconds(comparison.next_look(looked.duration_since(started).as_secs_f64())));
        return Next::Start(if finished > now { now } else { at.max(after(finished, SHORTEST_INTERVAL)) });
    }
    // A clock that was set back must not stop the measurements until it has caught up.
    Next::Start(if finished > now { now } else { after(finished, pause) })
}

/// When to look again at a measurement in flight whose provider has not said: soon at first, then ever less often
/// (after t seconds for √(2t) seconds). Whoever watches what is measured makes it sooner.
fn poll_at(result: Option<&MetricResult>, now: Timestamp) -> Timestamp {
    let started = result.and_then(|result| result.measurements.last()?.started_at.as_ref());
    let elapsed = started.map_or(0.0, |Time(started)| now.duration_since(*started).as_secs_f64());
    let pause = (2.0 * elapsed.max(0.0)).sqrt().max(1.0);
    after(now, GoDuration::from_secs(pause as i64).into())
}

/// Whether a metric that counts has already decided against the release.
fn ended_early(status: &AnalysisRunStatus, metrics: &[Metric], rules: &[Rules]) -> bool {
    metrics.iter().zip(rules).filter(|(_, rules)| !rules.dry_run).any(|(metric, _)| {
        result_of(status, &metric.name).is_some_and(|result| {
            matches!(result.phase, AnalysisPhase::Failed | AnalysisPhase::Error | AnalysisPhase::Inconclusive)
        })
    })
}

fn in_flight(status: &AnalysisRunStatus) -> bool {
    let results = status.metric_results.iter().filter(|result| !result.phase.completed());
    results.filter_map(|result| result.measurements.last()).any(|last| last.finished_at.is_none())
}

fn result_of<'a>(status: &'a AnalysisRunStatus, metric: &str) -> Option<&'a MetricResult> {
    status.metric_results.iter().find(|result| result.name == metric)
}

fn started_at(status: &AnalysisRunStatus, now: Timestamp) -> Timestamp {
    status.started_at.as_ref().map_or(now, |Time(started)| *started)
}

/// When the run is to be deleted, if ever.
fn expiry(ttl: Option<&TtlStrategy>, status: &AnalysisRunStatus) -> Option<Timestamp> {
    let ttl = ttl?;
    let Time(completed) = status.completed_at.as_ref()?;
    let seconds = match status.phase {
        AnalysisPhase::Successful => ttl.seconds_after_success,
        AnalysisPhase::Failed => ttl.seconds_after_failure,
        _ => None,
    };
    let seconds = seconds.or(ttl.seconds_after_completion)?;
    Some(after(*completed, SignedDuration::from_secs(seconds.into())))
}

/// `instant` + `duration`, or the end of time.
fn after(instant: Timestamp, duration: SignedDuration) -> Timestamp {
    instant.checked_add(duration).unwrap_or(if duration.is_negative() { Timestamp::MIN } else { Timestamp::MAX })
}

/// Seconds of a comparison, which are finite and not negative.
fn seconds(seconds: f64) -> SignedDuration {
    SignedDuration::try_from_secs_f64(seconds).unwrap_or(SignedDuration::MAX)
}

fn unresolvable(error: &ArgsError) -> String {
    format!("Unable to resolve metric arguments: {error}")
}

fn reason(status: &AnalysisRunStatus, measured: &[String]) -> String {
    let mut reason = status.phase.to_string();
    if !status.message.is_empty() {
        reason.push_str(": ");
        reason.push_str(&status.message);
    }
    if !measured.is_empty() {
        reason.push_str("; measured ");
        reason.push_str(&measured.join(", "));
    }
    reason
}

/// The text, cut to about `limit` bytes.
fn clip(mut text: String, limit: usize) -> String {
    if text.len() <= limit {
        return text;
    }
    let whole = text.len();
    text.truncate(text.floor_char_boundary(limit));
    text.push_str(&format!("… ({whole} bytes)"));
    text
}

#[cfg(test)]
mod tests;
