//! Metric providers, one file each: the only code that queries them.
//!
//! Whoever may write an AnalysisTemplate decides what is asked, of whom and how it is judged. So that nobody can hold the
//! controller up or exhaust it, every call has a time limit, an answer has a largest size, and calls share a fixed number
//! of places, of which one namespace gets only some. Answers are parsed and judged outside of the threads that serve
//! everything else, a few at a time.
//!
//! A new provider is a file here, a line in [`PROVIDERS`] and its kind in [`ProviderKind::supported`].

pub mod http;
mod job;
pub mod jsonpath;
mod oauth;
mod prometheus;
mod web;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::{BoxFuture, join_all};
use jiff::Timestamp;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use self::http::{LONGEST_TIMEOUT, Transport};
use crate::analysis::compare::{Judgement, Look};
use crate::analysis::conditions;
use crate::analysis::expr::Value;
use crate::analysis::machine::{Outcome, Step, Task};
use crate::analysis::metric::ProviderKind;
use crate::api::analysis::{AnalysisPhase, Measurement, Metric};
use crate::api::common::Time;
use crate::clock::Clock;

pub use self::job::JobTarget;
pub use self::prometheus::{Past, PastError, Shape, Whole};

static PROVIDERS: &[&dyn Provider] = &[&prometheus::Prometheus, &web::Web, &job::Job];

/// Calls under way at once: with [`http::BODY_LIMIT`] each, what their answers may take together is 128 MiB.
const CALLS: usize = 32;
/// Calls under way at once for the runs of one namespace.
const CALLS_OF_A_NAMESPACE: usize = 8;
/// How long a measurement waits for a place before it is an error.
const PATIENCE: Duration = Duration::from_secs(60);
/// Answers that are parsed and judged at once. Each may use a whole thread for a while.
const JUDGEMENTS: usize = 2;
/// For everything that one task does: the longest request, and what comes before and after it.
const LONGEST_CALL: Duration = Duration::from_secs(LONGEST_TIMEOUT.as_secs() + 60);
/// Namespaces whose places are remembered before idle ones are dropped.
const NAMESPACES: usize = 256;

/// One kind of provider.
trait Provider: Send + Sync {
    fn kind(&self) -> ProviderKind;

    /// Facts about the metric that are shown beside its measurements.
    fn metadata(&self, _metric: &Metric) -> BTreeMap<String, String> {
        BTreeMap::new()
    }

    /// Counts canary and stable.
    fn compare<'a>(&'a self, _call: Call<'a>, _look: &'a Look) -> BoxFuture<'a, Answer> {
        let kind = self.kind().type_name();
        async move { Err(format!("{kind} has no counters to compare")) }.boxed()
    }

    /// Takes the `number`-th measurement.
    fn run<'a>(&'a self, call: Call<'a>, number: i32) -> BoxFuture<'a, Answer>;

    /// Looks again at a measurement in flight.
    fn resume<'a>(&'a self, _call: Call<'a>, _measurement: &'a Measurement) -> BoxFuture<'a, Answer> {
        let kind = self.kind().type_name();
        async move { Err(format!("{kind} measurements are never in flight")) }.boxed()
    }

    /// Gives a measurement in flight up.
    fn terminate<'a>(&'a self, _call: Call<'a>, _measurement: &'a Measurement) -> BoxFuture<'a, Answer> {
        async { Ok(Reading::verdict(AnalysisPhase::Inconclusive)) }.boxed()
    }

    /// Removes what measurements left behind that are about to be forgotten.
    fn garbage_collect<'a>(
        &'a self,
        _call: Call<'a>,
        _forgotten: &'a [Measurement],
    ) -> BoxFuture<'a, Result<(), String>> {
        async { Ok(()) }.boxed()
    }
}

/// What a provider says, or why it says nothing.
type Answer = Result<Reading, String>;

enum Reading {
    /// A value to be judged by the metric's conditions, once the answer is parsed.
    Judge(Parse),
    /// The provider judges by itself.
    Verdict { phase: AnalysisPhase, message: String },
    /// The judge has counted.
    Compared(Box<Judgement>),
    /// It takes longer; the metadata says how to find it again.
    InFlight { metadata: BTreeMap<String, String> },
}

type Parse = Box<dyn FnOnce() -> Result<Found, String> + Send>;

/// A value as conditions see it and as the status shows it.
struct Found {
    value: Value,
    text: String,
    /// The provider had none.
    no_data: bool,
    metadata: BTreeMap<String, String>,
}

/// What a provider is called with.
#[derive(Clone, Copy)]
struct Call<'a> {
    task: &'a Task,
    services: &'a Services,
}

/// What providers work with.
struct Services {
    transport: Arc<dyn Transport>,
    clock: Clock,
    tokens: oauth::Tokens,
    /// The default of the metrics that name no address.
    prometheus_address: Option<String>,
    jobs: JobTarget,
    judgements: Semaphore,
    judging: Judging,
}

/// All providers, and the places for calls to them. Cheap to clone.
#[derive(Clone)]
pub struct Providers(Arc<Shared>);

struct Shared {
    services: Services,
    calls: Arc<Semaphore>,
    namespaces: Mutex<BTreeMap<String, Arc<Semaphore>>>,
}

/// Where answers are judged.
#[derive(Clone, Copy, PartialEq)]
enum Judging {
    /// On a thread that may take its time.
    Aside,
    /// On the thread that asked.
    InPlace,
}

impl Services {
    /// Does what may take its time where it may, as one of a few.
    async fn aside<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, String> {
        let _place = self.judgements.acquire().await.map_err(|error| error.to_string())?;
        match self.judging {
            Judging::Aside => {
                let work = tokio::task::spawn_blocking(work).await;
                work.map_err(|_| "the answer could not be judged".to_owned())
            }
            Judging::InPlace => Ok(work()),
        }
    }
}

impl Reading {
    fn verdict(phase: AnalysisPhase) -> Self {
        Self::Verdict { phase, message: String::new() }
    }
}

impl Providers {
    /// `prometheus_address` is the value of `ARGO_ROLLOUTS_PROMETHEUS_ADDRESS`.
    pub fn new(
        transport: Arc<dyn Transport>,
        jobs: JobTarget,
        clock: Clock,
        prometheus_address: Option<String>,
    ) -> Self {
        Self::judging(Judging::Aside, transport, jobs, clock, prometheus_address)
    }

    /// The same for virtual time, where other threads would answer in an order of their own: a run is reproduced by its seed.
    pub fn in_virtual_time(
        transport: Arc<dyn Transport>,
        jobs: JobTarget,
        clock: Clock,
        prometheus_address: Option<String>,
    ) -> Self {
        Self::judging(Judging::InPlace, transport, jobs, clock, prometheus_address)
    }

    fn judging(
        judging: Judging,
        transport: Arc<dyn Transport>,
        jobs: JobTarget,
        clock: Clock,
        prometheus_address: Option<String>,
    ) -> Self {
        let tokens = oauth::Tokens::default();
        let prometheus_address = prometheus_address.filter(|address| !address.is_empty());
        Self(Arc::new(Shared {
            services: Services {
                transport,
                clock,
                tokens,
                prometheus_address,
                jobs,
                judgements: Semaphore::new(JUDGEMENTS),
                judging,
            },
            calls: Arc::new(Semaphore::new(CALLS)),
            namespaces: Mutex::new(BTreeMap::new()),
        }))
    }

    /// Does the tasks side by side. It never fails: what goes wrong is a measurement with phase Error. It may take as
    /// long as the slowest provider, minutes in the worst case, so no worker of a queue should wait for it.
    pub async fn carry_out(&self, tasks: Vec<Task>) -> Vec<Outcome> {
        let outcomes = join_all(tasks.iter().map(|task| self.0.carry_out(task))).await;
        outcomes.into_iter().flatten().collect()
    }
}

impl Shared {
    async fn carry_out(&self, task: &Task) -> Option<Outcome> {
        let started = self.services.clock.now();
        let kinds = ProviderKind::of_metric(&task.metric);
        let provider = PROVIDERS.iter().copied().find(|provider| kinds.as_slice() == [provider.kind()]);
        if let Step::Collect(forgotten) = &task.step {
            self.collect(provider?, task, forgotten).await;
            return None;
        }
        let mut measurement = match &task.step {
            Step::Resume(measurement) | Step::Terminate(measurement) => measurement.clone(),
            Step::Start { .. } | Step::Compare(_) | Step::Collect(_) => {
                Measurement { started_at: Some(Time(started)), phase: AnalysisPhase::Running, ..Measurement::default() }
            }
        };
        let judgement = self.measure(provider, task, &mut measurement).await.unwrap_or_else(|problem| {
            measurement.phase = AnalysisPhase::Error;
            measurement.message = problem;
            None
        });
        if measurement.phase.completed() || judgement.is_some() {
            let finished = self.services.clock.now();
            measurement.started_at.get_or_insert(Time(started));
            measurement.finished_at = Some(Time(finished));
            measurement.resume_at = None;
        }
        let metadata = match &task.step {
            Step::Compare(look) => look.metadata(),
            _ => provider.map(|provider| provider.metadata(&task.metric)).unwrap_or_default(),
        };
        Some(match judgement {
            Some(judgement) => Outcome::of_judge(task, measurement, metadata, judgement),
            None => Outcome::new(task, measurement, metadata),
        })
    }

    async fn measure(
        &self,
        provider: Option<&dyn Provider>,
        task: &Task,
        measurement: &mut Measurement,
    ) -> Result<Option<Judgement>, String> {
        let provider = provider.ok_or("the metric has no provider that is supported")?;
        let call = Call { task, services: &self.services };
        // Held until the answer is judged: it is in memory until then. Giving up is never kept waiting.
        let _places = match task.step {
            Step::Terminate(_) => None,
            _ => Some(self.places(task).await?),
        };
        let answer = match &task.step {
            Step::Start { number } => provider.run(call, *number),
            Step::Compare(look) => provider.compare(call, look),
            Step::Resume(measurement) => provider.resume(call, measurement),
            Step::Terminate(measurement) => provider.terminate(call, measurement),
            Step::Collect(_) => return Ok(None),
        };
        let late = |_| format!("{} took longer than {} s", provider.kind().type_name(), LONGEST_CALL.as_secs());
        match tokio::time::timeout(LONGEST_CALL, answer).await.map_err(late)?? {
            Reading::Judge(parse) => self.judge(task, parse, measurement).await?,
            Reading::Verdict { phase, message } => {
                measurement.phase = phase;
                measurement.message = message;
            }
            Reading::Compared(judgement) => return Ok(Some(*judgement)),
            Reading::InFlight { metadata } => {
                measurement.phase = AnalysisPhase::Running;
                measurement.metadata.extend(metadata);
            }
        }
        let cut_off = matches!(measurement.phase, AnalysisPhase::Successful | AnalysisPhase::Inconclusive);
        if matches!(task.step, Step::Terminate(_)) && cut_off {
            measurement.message = "Metric Terminated".to_owned();
        }
        Ok(None)
    }

    /// Parses an answer and judges it.
    async fn judge(&self, task: &Task, parse: Parse, measurement: &mut Measurement) -> Result<(), String> {
        let metric = task.metric.clone();
        let now: Timestamp = self.services.clock.now();
        let judged = self.services.aside(move || {
            let found = parse()?;
            let phase = conditions::judge(&metric, &found.value, found.no_data, now);
            Ok::<_, String>((found.text, found.metadata, phase))
        });
        let (text, metadata, phase) = judged.await??;
        measurement.value = text;
        measurement.metadata.extend(metadata);
        measurement.phase = phase?;
        Ok(())
    }

    async fn collect(&self, provider: &dyn Provider, task: &Task, forgotten: &[Measurement]) {
        let call = Call { task, services: &self.services };
        let collected = tokio::time::timeout(LONGEST_CALL, provider.garbage_collect(call, forgotten)).await;
        let problem = match collected {
            Ok(Ok(())) => return,
            Ok(Err(problem)) => problem,
            Err(_) => "it took too long".to_owned(),
        };
        // What stays goes with the run.
        let run = &task.run.metadata;
        tracing::warn!(
            namespace = run.namespace.as_deref(),
            analysis_run = run.name.as_deref(),
            metric = task.metric.name,
            problem,
            "what old measurements left behind could not be removed"
        );
    }

    /// One of the namespace's places, and one of all.
    async fn places(&self, task: &Task) -> Result<[OwnedSemaphorePermit; 2], String> {
        let namespace = task.run.metadata.namespace.clone().unwrap_or_default();
        let of_namespace = self.namespace(&namespace);
        let places = async {
            // In this order, so that a namespace waits for itself before it takes a place from others.
            let first = of_namespace.acquire_owned().await?;
            let second = self.calls.clone().acquire_owned().await?;
            Ok::<_, tokio::sync::AcquireError>([first, second])
        };
        match tokio::time::timeout(PATIENCE, places).await {
            Ok(places) => places.map_err(|error| error.to_string()),
            Err(_) => Err(format!(
                "too many measurements are under way: waited {} s for one of {CALLS_OF_A_NAMESPACE} places of namespace \
                 {namespace}, {CALLS} in all",
                PATIENCE.as_secs()
            )),
        }
    }

    fn namespace(&self, namespace: &str) -> Arc<Semaphore> {
        // A map of semaphores is whole whatever panicked while it was locked.
        let mut namespaces = self.namespaces.lock().unwrap_or_else(PoisonError::into_inner);
        if namespaces.len() >= NAMESPACES {
            namespaces.retain(|_, places| Arc::strong_count(places) > 1);
        }
        let new = || Arc::new(Semaphore::new(CALLS_OF_A_NAMESPACE));
        namespaces.entry(namespace.to_owned()).or_insert_with(new).clone()
    }
}

#[cfg(test)]
mod tests;
