//! One object, from being due to having been dealt with: observe, decide, act, and again where something was not as seen.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};
use tokio::time::Instant;
use tracing::{debug, info, warn};

use crate::api::Rollout;
use crate::api::common::time;
use crate::api::resource::{self, ObjectRef};
use crate::api::rollout::RolloutStatus;
use crate::plan::{Event, FailedAction, Failure, Plan};
use crate::rollout::{World, needs_pods, replicas};

use super::Shell;
use super::analysis;
use super::api::CallError;
use super::envelope::Unreadable;
use super::execute::{self, Change, Subject};
use super::expectations::{Expected, What};
use super::experiment;
use super::index::Knowledge;
use super::pods;
use super::queue::Next;
use super::release;
use super::world::{self, View};

/// How many times in a row something may turn out to have changed before the object is delayed like after a failure.
const ATTEMPTS: u32 = 3;

/// How long a message stays that another controller has written over ours: longer than two lead at a time.
const RIVALRY: Duration = Duration::from_secs(10);

/// How long news that only counts and explains waits behind the last status: pods that get ready one after the other are
/// told of together.
const GATHERED: Duration = Duration::from_millis(500);

/// The fields of a Rollout's status that count and explain, as long as the same conditions hold; what is decided stands in
/// the others.
const NOTES: [&str; 7] =
    ["HPAReplicas", "availableReplicas", "conditions", "message", "readyReplicas", "replicas", "updatedReplicas"];

/// Nobody comes back sooner for a write that no watch shows: whatever keeps it from being read makes no hot loop.
const SOONEST: Duration = Duration::from_secs(1);

/// What is remembered of an object between its decisions.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Memory {
    /// What failed of the last plan.
    pub failures: Vec<Failure>,
    /// Events of actions that may have been carried out.
    in_doubt: Vec<Event>,
    /// A status that may have been written, and what is to be told then.
    status_in_doubt: Option<(Value, Vec<Event>)>,
    /// The message of the status that we wrote last.
    said: Option<Value>,
    /// When that was.
    told: Option<Instant>,
    /// Until when another controller has the last word on it.
    yields: Option<Instant>,
}

/// One pass over one object.
pub struct Pass<'a> {
    pub shell: &'a Shell,
    object: &'a ObjectRef,
    pub memory: Memory,
    /// Actions that failed in this pass.
    blocked: Vec<Failure>,
    attempts: u32,
    /// Whether it has been looked for what it refers to and no watch has shown.
    pub looked: bool,
    /// Whom the events on AnalysisRuns are told too, with the uid.
    pub also_told: Option<(ObjectRef, String)>,
}

/// What follows from having carried a plan out.
pub enum Settled {
    /// Decide again, at once.
    Again,
    Finished(Next),
}

/// Decides about a Rollout and does what is decided.
pub async fn rollout(shell: &Shell, object: &ObjectRef) -> Next {
    let mut pass = Pass::begin(shell, object);
    let next = loop {
        if let Err(next) = pass.freshen().await {
            break next;
        }
        pass.look_for_absent().await;
        let failures = pass.memory.failures.clone();
        let view = world::view(&shell.index(), object, shell.clock.now(), failures, &shell.decision_settings);
        let world = match view {
            View::Ready(world) => {
                release::release(shell, object).await;
                pass.with_pods(world).await
            }
            View::Gone => {
                release::release(shell, object).await;
                shell.forget(object);
                return Next::Idle;
            }
            View::Waiting(why) => {
                debug!(%object, why, "not decided yet");
                break Next::Wait(Instant::now() + shell.settings.stale_limit);
            }
            View::Unreadable(unreadable) => break pass.refuse(&unreadable).await,
        };
        let plan = (shell.decide)(&world);
        let metadata = &world.rollout.metadata;
        let subject = Subject {
            reference: object.clone(),
            uid: metadata.uid.clone().unwrap_or_default(),
            resource_version: metadata.resource_version.clone().unwrap_or_default(),
        };
        let old = world.rollout.status.clone().unwrap_or_default();
        let only_notes = plan.actions.is_empty() && plan.events.is_empty() && plan.status != old;
        if only_notes && let Some(until) = pass.gathers(&old, &plan.status) {
            let wake = plan.wake.map(|wake| shell.instant(wake));
            break Next::At(wake.into_iter().fold(until, Instant::min));
        }
        let rests = only_notes && plan.wake.is_none_or(|wake| wake > world.now);
        let ended = ended(&old, &plan.status).then(|| plan.status.duration.clone()).flatten();
        match pass.settle(subject, &old, plan).await {
            Settled::Again => {}
            Settled::Finished(next) => {
                if let Next::Idle | Next::At(_) = next {
                    if rests {
                        shell.expectations.rests(object);
                    }
                    if let Some(duration) = ended {
                        shell.telemetry.update_ended(&duration);
                    }
                }
                break next;
            }
        }
    };
    let aborts = |rollout: &Arc<Rollout>| rollout.status.as_ref().is_some_and(is_aborting);
    let next = match next {
        Next::Retry if shell.index().rollout(object).is_some_and(aborts) => Next::RetrySoon,
        next => next,
    };
    pass.end(next)
}

/// Whether an abort has not been taken up, or has not taken all traffic off the canary.
fn is_aborting(status: &RolloutStatus) -> bool {
    status.abort && (status.aborted_at.is_none() || replicas::recorded_weight(status) > 0)
}

/// Whether an update ends with this status.
fn ended(old: &RolloutStatus, new: &RolloutStatus) -> bool {
    let finished = |status: &RolloutStatus| status.duration.as_ref().and_then(|duration| duration.finished_at.clone());
    finished(new).is_some() && finished(new) != finished(old)
}

impl<'a> Pass<'a> {
    pub fn begin(shell: &'a Shell, object: &'a ObjectRef) -> Self {
        let memory = shell.memories().remove(object).unwrap_or_default();
        Self { shell, object, memory, blocked: Vec::new(), attempts: 0, looked: false, also_told: None }
    }

    pub fn end(self, next: Next) -> Next {
        let unseen = self.shell.expectations.outstanding(self.object, &self.shell.index());
        let unseen = unseen.iter().filter(|expected| !expected.rests).map(|expected| expected.since).min();
        let due = unseen.map(|since| (since + self.shell.settings.stale_limit).max(Instant::now() + SOONEST));
        let rivalry = self.memory.yields.filter(|until| *until > Instant::now());
        let next = match (next, due.into_iter().chain(rivalry).min()) {
            (Next::Idle, Some(due)) => Next::At(due),
            (Next::At(at), Some(due)) => Next::At(at.min(due)),
            (Next::Wait(at), Some(due)) => Next::Wait(at.min(due)),
            (next, _) => next,
        };
        if self.memory != Memory::default() {
            self.shell.memories().insert(self.object.clone(), self.memory);
        }
        next
    }

    pub fn object(&self) -> &'a ObjectRef {
        self.object
    }

    /// Makes sure that the index shows at least what we have written; or says when to look again.
    pub async fn freshen(&mut self) -> Result<(), Next> {
        let outstanding = self.shell.expectations.outstanding(self.object, &self.shell.index());
        let limit = self.shell.settings.stale_limit;
        let (due, early): (Vec<Expected>, Vec<Expected>) = outstanding.into_iter().partition(|expected| {
            // Of a kind that the server seems not to have, what we have written is seen when that is put right.
            let can_be_seen = self.shell.index().knowledge(expected.object.resource) == Knowledge::Synced;
            expected.what == What::Reread || can_be_seen && expected.since.elapsed() >= limit
        });
        for expected in due {
            self.reread(&expected.object).await.map_err(|error| {
                warn!(object = %self.object, read = %expected.object, %error, "cannot read what has to be known");
                Next::Retry
            })?;
        }
        let Some(first) = early.iter().map(|expected| expected.since).min() else { return Ok(()) };
        self.shell.telemetry.stale_waits.inc();
        debug!(object = %self.object, unseen = early.len(), "a write of ours has not been seen yet");
        Err(Next::Wait((first + limit).max(Instant::now() + SOONEST)))
    }

    /// Adds the pods to a World whose decision needs them. Without them it does what needs none.
    async fn with_pods(&self, mut world: Box<World>) -> Box<World> {
        if needs_pods(&world) {
            match pods::list(self.shell, &world).await {
                Ok(pods) => world.pods = Some(pods),
                Err(error) => warn!(object = %self.object, %error, "cannot list the pods"),
            }
        }
        world
    }

    /// Reads an object past the watch.
    pub async fn reread(&self, object: &ObjectRef) -> Result<(), CallError> {
        let mut effects = self.shell.reread(object).await?;
        self.shell.expectations.settle(self.object, object);
        // Whoever reads is about to decide anyway.
        effects.concerned.remove(self.object);
        self.shell.take_in(effects);
        Ok(())
    }

    /// Carries a plan out and writes the status.
    pub async fn settle<S>(&mut self, mut subject: Subject, old: &S, plan: Plan<S>) -> Settled
    where
        S: Serialize + PartialEq,
    {
        let shell = self.shell;
        self.log(&plan, *old != plan.status);
        self.resolve_doubts(&subject.uid, old, &plan);
        let outcome = execute::actions(shell, &mut subject, &plan.actions, &self.blocked).await;
        let known = alike(&outcome.failures, &self.memory.failures);
        self.memory.failures = outcome.failures.clone();
        let is_in =
            |list: &[(ObjectRef, FailedAction)], event: &Event| event.of.as_ref().is_some_and(|of| list.contains(of));
        let in_doubt = plan.events.iter().filter(|event| is_in(&outcome.in_doubt, event));
        self.memory.in_doubt.extend(in_doubt.cloned());
        let mut events = plan.events;
        events.retain(|event| event.of.is_none() || is_in(&outcome.done, event));

        // The status of a plan that did not go as it was decided would say what is not so.
        let written = match outcome.outdated || !known {
            true => Ok(false),
            false => self.write(&mut subject, Change::between(old, &plan.status)).await.map(|()| true),
        };
        if !matches!(written, Ok(true)) {
            // What was done has happened nevertheless.
            let (done, with_status): (Vec<_>, Vec<_>) = events.into_iter().partition(|event| event.of.is_some());
            events = done;
            if matches!(written, Err(CallError::Unanswered(_))) && !with_status.is_empty() {
                self.memory.status_in_doubt = Some((execute::value(&plan.status), with_status));
            }
        }
        self.tell(&subject.uid, events);
        match written {
            Ok(true) => {}
            Ok(false) => {
                let succeeded = outcome.failures.is_empty();
                self.blocked.extend(outcome.failures);
                // What failed before and has succeeded now is no reason for a delay.
                return self.again(!succeeded || outcome.outdated);
            }
            Err(CallError::Conflict(why)) => {
                debug!(object = %self.object, why, "the status has changed meanwhile");
                return self.again(true);
            }
            Err(CallError::NotFound(_) | CallError::Busy(_)) => return self.again(true),
            Err(error) => {
                warn!(object = %self.object, %error, "cannot write the status");
                return Settled::Finished(Next::Retry);
            }
        }
        Settled::Finished(match plan.wake {
            // That a pod may not be evicted yet is no failure of ours: the plan says when to ask again.
            _ if self.memory.failures.iter().any(|failure| failure.action != FailedAction::Evict) => Next::Retry,
            Some(at) => Next::At(shell.instant(at)),
            None => shell.resync(self.object),
        })
    }

    async fn write(&mut self, subject: &mut Subject, change: Option<Change>) -> Result<(), CallError> {
        let Some(mut change) = change.filter(|change| !self.yields(change)) else { return Ok(()) };
        self.memory.said = None;
        execute::status(self.shell, subject, &change.patch).await?;
        let message = change.patch.get_mut("message").unwrap_or(&mut change.old["message"]);
        self.memory.said = Some(message.take());
        self.memory.told = Some(Instant::now());
        Ok(())
    }

    /// Until when a status waits that says little more than the one before, which was written a moment ago.
    fn gathers(&self, old: &RolloutStatus, new: &RolloutStatus) -> Option<Instant> {
        let Memory { failures, in_doubt, status_in_doubt, told, .. } = &self.memory;
        let until = (*told)? + GATHERED;
        let is_settled = failures.is_empty() && in_doubt.is_empty() && status_in_doubt.is_none();
        if !is_settled || until <= Instant::now() {
            return None;
        }
        let holds = |status: &RolloutStatus| -> Vec<_> {
            let conditions = status.conditions.iter();
            let mut holds: Vec<_> =
                conditions.map(|it| (it.type_.clone(), it.status.clone(), it.reason.clone())).collect();
            holds.sort();
            holds
        };
        let change = Change::between(old, new).filter(|_| holds(old) == holds(new))?;
        change.patch.as_object()?.keys().all(|key| NOTES.contains(&key.as_str())).then_some(until)
    }

    /// Whether nothing but the message would change, and somebody else has replaced ours a short while ago. What we wait
    /// for, and until when, may be different for another controller that leads at the same time (since when it has seen
    /// a Service as it is, say): two that answer each other would write all the time.
    fn yields(&mut self, change: &Change) -> bool {
        if self.memory.said.as_ref().is_some_and(|said| *said != change.old["message"]) {
            self.memory.said = None;
            self.memory.yields = Some(Instant::now() + RIVALRY);
        }
        let rival = self.memory.yields.is_some_and(|until| Instant::now() < until);
        rival && change.patch.as_object().is_some_and(|changes| changes.keys().all(|key| key == "message"))
    }

    /// Tells what the API server has left open, now that the object has been read again.
    fn resolve_doubts<S: Serialize>(&mut self, uid: &str, old: &S, plan: &Plan<S>) {
        let Memory { in_doubt, status_in_doubt, .. } = &mut self.memory;
        let mut happened = std::mem::take(in_doubt);
        // What is asked for again has not been done, and brings its own event.
        let again =
            |(object, kind): &(ObjectRef, FailedAction)| plan.actions.iter().any(|action| action.is(object, *kind));
        happened.retain(|event| !event.of.as_ref().is_some_and(again));
        if let Some((status, events)) = status_in_doubt.take()
            && status == execute::value(old)
        {
            happened.extend(events);
        }
        self.tell(uid, happened);
    }

    fn tell(&self, uid: &str, events: Vec<Event>) {
        let emitter = &self.shell.events;
        for event in events {
            if let Some((object, uid)) = &self.also_told
                && experiment::tells_of_a_run(&event)
            {
                emitter.emit(object, uid, Event { warning: true, ..event.clone() });
            }
            emitter.emit(self.object, uid, event);
        }
    }

    /// Writes a status over whatever is there, of an object that cannot be decided about.
    pub async fn overwrite_status<S: Serialize>(&self, mut subject: Subject, status: &S) -> Next {
        match execute::status(self.shell, &mut subject, &execute::value(status)).await {
            Ok(()) => Next::Idle,
            Err(CallError::Conflict(_) | CallError::NotFound(_)) => {
                Next::Wait(Instant::now() + Duration::from_millis(100))
            }
            Err(error) => {
                warn!(object = %self.object, %error, "cannot write the status");
                Next::Retry
            }
        }
    }

    fn again(&mut self, counts: bool) -> Settled {
        self.attempts += u32::from(counts);
        if self.attempts >= ATTEMPTS { Settled::Finished(Next::Retry) } else { Settled::Again }
    }

    /// One line for each decision that does something, and why.
    fn log<S>(&self, plan: &Plan<S>, status_changes: bool) {
        let object = self.object;
        if plan.actions.is_empty() && plan.events.is_empty() && !status_changes {
            debug!(%object, reason = plan.reason, "decided: nothing to do");
            return;
        }
        let actions: Vec<String> = plan.actions.iter().map(ToString::to_string).collect();
        let wake = plan.wake.map(|wake| wake.to_string()).unwrap_or_default();
        info!(%object, reason = plan.reason, actions = actions.join("; "), status = status_changes, wake, "decided");
    }

    /// Says on a Rollout that does not decode what is wrong with it.
    async fn refuse(&mut self, unreadable: &Arc<Unreadable>) -> Next {
        let Unreadable { error, meta, status } = unreadable.as_ref();
        let now = self.shell.clock.now();
        let text = format!("The Rollout \"{}\" is invalid: {error}", meta.name);
        let old = json!({
            "phase": status["phase"], "message": status["message"],
            "observedGeneration": status["observedGeneration"], "conditions": status["conditions"],
        });
        let mut conditions = status["conditions"].as_array().cloned().unwrap_or_default();
        let said = conditions.iter().any(|condition| {
            condition["type"] == "InvalidSpec" && condition["status"] == "True" && condition["message"] == *text
        });
        if !said {
            conditions.retain(|condition| condition["type"] != "InvalidSpec");
            let time = serde_json::to_value(time(now)).unwrap_or(Value::Null);
            conditions.push(json!({
                "type": "InvalidSpec", "status": "True", "reason": "InvalidSpec", "message": text,
                "lastUpdateTime": time, "lastTransitionTime": time,
            }));
        }
        let new = json!({
            "phase": "Degraded", "message": format!("InvalidSpec: {text}"),
            "observedGeneration": meta.generation.to_string(), "conditions": conditions,
        });
        let Some(changes) = execute::difference(&old, new) else { return self.shell.resync(self.object) };
        warn!(object = %self.object, %error, "the spec cannot be decoded");
        let subject = Subject {
            reference: self.object.clone(),
            uid: meta.uid.clone(),
            resource_version: meta.resource_version.clone(),
        };
        match self.overwrite_status(subject, &changes).await {
            Next::Idle => self.shell.resync(self.object),
            next => next,
        }
    }
}

/// Whether two lists name the same failed actions; the server's words may differ.
fn alike(one: &[Failure], other: &[Failure]) -> bool {
    let names = |failures: &[Failure]| {
        let mut names: Vec<_> = failures.iter().map(|failure| (failure.object.clone(), failure.action as u8)).collect();
        names.sort();
        names
    };
    names(one) == names(other)
}

/// Works off one object that is due.
pub async fn work(shell: &Arc<Shell>, object: &ObjectRef) -> Next {
    let began = Instant::now();
    let next = match object.resource {
        resource::ROLLOUT => rollout(shell, object).await,
        resource::ANALYSIS_RUN => analysis::run(shell, object).await,
        resource::EXPERIMENT => experiment::run(shell, object).await,
        _ => Next::Idle,
    };
    shell.telemetry.decided(object, began.elapsed(), next.is_failure());
    next
}
