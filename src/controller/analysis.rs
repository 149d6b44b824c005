//! AnalysisRuns: the measurements between the two halves of a decision.
//!
//! A measurement may take minutes, so no worker waits for it. The first look at a run that has something to measure hands
//! the tasks to a task of their own; when they are done the run is due again, and the second look draws the conclusion.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::future::join_all;
use serde::Deserialize;
use tokio::task::AbortHandle;
use tracing::debug;

use crate::analysis::compare::names;
use crate::analysis::machine::{self, Outcome, RunWorld};
use crate::analysis::secrets::Secrets;
use crate::api::AnalysisRun;
use crate::api::analysis::SecretKeyRef;
use crate::api::resource::{ObjectRef, ROLLOUT, SECRET};

use super::Shell;
use super::api::CallError;
use super::envelope::{Object, Unreadable, failed_run};
use super::execute::Subject;
use super::queue::Next;
use super::reconcile::{Pass, Settled};

/// The measurements under way, by run.
#[derive(Default)]
pub struct Measurements(Mutex<BTreeMap<ObjectRef, Measurement>>);

enum Measurement {
    UnderWay(AbortHandle),
    Done(Box<Measured>),
}

/// The world that the tasks were made from, and what came of them.
struct Measured {
    world: RunWorld,
    outcomes: Vec<Outcome>,
}

impl Measurements {
    /// Gives everything up.
    pub fn abort(&self) {
        for measurement in std::mem::take(&mut *self.map()).into_values() {
            if let Measurement::UnderWay(handle) = measurement {
                handle.abort();
            }
        }
    }

    fn forget(&self, run: &ObjectRef) {
        if let Some(Measurement::UnderWay(handle)) = self.map().remove(run) {
            handle.abort();
        }
    }

    /// What has been measured for the run, if measuring it has ended.
    fn take_done(&self, run: &ObjectRef) -> Option<Box<Measured>> {
        let mut map = self.map();
        match map.remove(run)? {
            Measurement::Done(measured) => Some(measured),
            under_way => {
                map.insert(run.clone(), under_way);
                None
            }
        }
    }

    /// Puts back what has been measured.
    fn keep(&self, run: &ObjectRef, measured: Measured) {
        self.map().insert(run.clone(), Measurement::Done(Box::new(measured)));
    }

    fn under_way(&self, run: &ObjectRef) -> bool {
        matches!(self.map().get(run), Some(Measurement::UnderWay(_)))
    }

    fn map(&self) -> MutexGuard<'_, BTreeMap<ObjectRef, Measurement>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Decides about an AnalysisRun and does what is decided.
pub async fn run(shell: &Arc<Shell>, object: &ObjectRef) -> Next {
    if shell.measurements.under_way(object) {
        // The end of the measurement makes the run due again.
        return Next::Idle;
    }
    let mut pass = Pass::begin(shell, object);
    let next = loop {
        if let Err(next) = pass.freshen().await {
            break next;
        }
        let Some(run) = find(shell, object) else {
            shell.measurements.forget(object);
            shell.forget(object);
            return Next::Idle;
        };
        let run = match run {
            Ok(run) => run,
            Err(unreadable) => break refuse(&mut pass, &unreadable).await,
        };
        let (world, outcomes) = match shell.measurements.take_done(object) {
            // Only we write the status. While it is as it was, what was measured counts, whatever else has changed.
            Some(measured) if measured.world.run.status == run.status && uid(&measured.world.run) == uid(&run) => {
                (measured.world, measured.outcomes)
            }
            _ => {
                let now = shell.clock.now();
                let world = RunWorld {
                    now,
                    secrets: secrets(shell, object, &machine::secret_refs(now, &run)).await,
                    weight: weight(shell, &run),
                    run: run.clone(),
                };
                let tasks = machine::tasks(&world);
                if !tasks.is_empty() {
                    debug!(%object, tasks = tasks.len(), "measuring");
                    let (shell, object) = (shell.clone(), object.clone());
                    measure(shell, object, world, tasks);
                    return pass.end(Next::Idle);
                }
                (world, Vec::new())
            }
        };
        let plan = machine::conclude(&world, outcomes.clone());
        let subject = subject(object, &run);
        let settled = pass.settle(subject, &run.status.clone().unwrap_or_default(), plan).await;
        if !outcomes.is_empty() && !matches!(settled, Settled::Finished(Next::Idle | Next::At(_) | Next::Wait(_))) {
            // What was measured is not measured again because it could not be written.
            shell.measurements.keep(object, Measured { world, outcomes });
        }
        match settled {
            Settled::Again => {}
            Settled::Finished(next) => break next,
        }
    };
    pass.end(next)
}

/// Lets the providers do the tasks; then the run is due again.
fn measure(shell: Arc<Shell>, object: ObjectRef, world: RunWorld, tasks: Vec<machine::Task>) {
    // Under the lock, so that the end of the task cannot come before its beginning has been noted.
    let measurements = shell.clone();
    let mut map = measurements.measurements.map();
    let key = object.clone();
    let task = tokio::spawn(async move {
        let outcomes = shell.providers.carry_out(tasks).await;
        let done = Measurement::Done(Box::new(Measured { world, outcomes }));
        shell.measurements.map().insert(object.clone(), done);
        shell.runs.add(&object);
    });
    map.insert(key, Measurement::UnderWay(task.abort_handle()));
}

/// The run, or what is wrong with it.
fn find(shell: &Shell, object: &ObjectRef) -> Option<Result<Arc<AnalysisRun>, Arc<Unreadable>>> {
    match &shell.index().entry_of(object)?.object {
        Object::AnalysisRun(run) => Some(Ok(run.clone())),
        Object::Unreadable(unreadable) => Some(Err(unreadable.clone())),
        _ => None,
    }
}

/// The canary's weight, as the Rollout that made the run has set it.
fn weight(shell: &Shell, run: &AnalysisRun) -> Option<f64> {
    run.spec.metrics.iter().any(|metric| metric.compare.is_some()).then_some(())?;
    let owner = run.metadata.owner_references.iter().flatten().find(|owner| owner.kind == ROLLOUT.kind)?;
    let namespace = run.metadata.namespace.as_deref().unwrap_or_default();
    let index = shell.index();
    names::weight(index.rollout(&ObjectRef::new(ROLLOUT, namespace, owner.name.as_str()))?)
}

/// Says on a run that does not decode what is wrong with it.
async fn refuse(pass: &mut Pass<'_>, unreadable: &Unreadable) -> Next {
    let said = unreadable.status["phase"] == "Error" && unreadable.status["message"] == unreadable.error.to_string();
    if said {
        return Next::Idle;
    }
    let failed = failed_run(unreadable);
    pass.overwrite_status(subject(pass.object(), &failed), &failed.status).await
}

fn subject(object: &ObjectRef, run: &AnalysisRun) -> Subject {
    Subject {
        reference: object.clone(),
        uid: uid(run).to_owned(),
        resource_version: run.metadata.resource_version.clone().unwrap_or_default(),
    }
}

fn uid(run: &AnalysisRun) -> &str {
    run.metadata.uid.as_deref().unwrap_or_default()
}

/// Reads Secrets, each once, and only to hand them on: they are not kept.
async fn secrets(shell: &Shell, run: &ObjectRef, references: &[SecretKeyRef]) -> Secrets {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Secret {
        data: Option<BTreeMap<String, k8s_openapi::ByteString>>,
    }

    let mut names: Vec<&str> = references.iter().map(|reference| reference.name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    let read = join_all(names.iter().map(|name| async move {
        let secret = ObjectRef::new(SECRET, &run.namespace, *name);
        shell.api.read::<Secret>(&secret).await.map_err(|error| match error {
            // The server's words name the Secret and hold nothing of its contents.
            CallError::NotFound(message) | CallError::Refused { message, .. } => message,
            // These might: they may quote an answer that could not be understood.
            _ => format!("secret '{name}' cannot be read"),
        })
    }))
    .await;
    let read: BTreeMap<&str, Result<Secret, String>> = names.into_iter().zip(read).collect();
    let mut secrets = Secrets::default();
    for reference in references {
        let value = match read.get(reference.name.as_str()) {
            Some(Ok(secret)) => match secret.data.as_ref().and_then(|data| data.get(&reference.key)) {
                Some(bytes) => String::from_utf8(bytes.0.clone())
                    .map_err(|_| format!("key '{}' of secret '{}' is not text", reference.key, reference.name)),
                None => Err(format!("key '{}' does not exist in secret '{}'", reference.key, reference.name)),
            },
            Some(Err(error)) => Err(error.clone()),
            None => Err(format!("secret '{}' was not read", reference.name)),
        };
        secrets.insert(reference, value);
    }
    secrets
}
