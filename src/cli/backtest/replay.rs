//! Runs of an analysis that begin in the past: the machine and the providers of the controller, in virtual time.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::{SignedDuration, Timestamp};

use super::history::{History, Remembered};
use super::subject::Subject;
use crate::analysis::machine::{self, RunWorld};
use crate::api::AnalysisRun;
use crate::api::analysis::{AnalysisPhase, AnalysisRunStatus};
use crate::cli::in_process::in_virtual_time;
use crate::clock::Clock;
use crate::providers::{JobTarget, Providers};

/// Runs that a thread takes at once.
const BATCH: usize = 16;
/// Time goes on, whatever the machine asks for.
const MOMENT: SignedDuration = SignedDuration::from_millis(1);
/// A history's address, which nobody looks up.
const ADDRESS: &str = "http://history";

/// How a run ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    pub started: Timestamp,
    pub ended: Timestamp,
    pub phase: AnalysisPhase,
    pub message: String,
    /// The first metric that ended as the run did, unless that was well.
    pub metric: Option<String>,
    /// It was told to stop.
    pub cut_off: bool,
}

impl Run {
    /// Whether the release would have been rolled back.
    pub fn stopped(&self) -> bool {
        matches!(self.phase, AnalysisPhase::Failed | AnalysisPhase::Error)
    }

    pub fn seconds(&self) -> f64 {
        self.ended.duration_since(self.started).as_secs_f64()
    }
}

/// Runs the analysis from each start for `lasts` at most, on all processors, and answers in the order of the starts.
///
/// # Errors
/// The system has no resources for a runtime.
pub fn replay(
    subject: &Subject,
    history: &Arc<History>,
    starts: &[Timestamp],
    lasts: SignedDuration,
    progress: &(dyn Fn(usize) + Sync),
) -> std::io::Result<Vec<Run>> {
    let next = AtomicUsize::new(0);
    let done: Mutex<Vec<(usize, std::io::Result<Vec<Run>>)>> = Mutex::new(Vec::new());
    let batches: Vec<&[Timestamp]> = starts.chunks(BATCH).collect();
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(batches.len());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let Some(starts) = batches.get(number) else { return };
                    let runs = in_virtual_time(batch(subject, history, starts, lasts));
                    done.lock().unwrap_or_else(PoisonError::into_inner).push((number, runs));
                    progress(starts.len());
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_by_key(|(number, _)| *number);
    let runs: Vec<Vec<Run>> = done.into_iter().map(|(_, runs)| runs).collect::<std::io::Result<_>>()?;
    Ok(runs.into_iter().flatten().collect())
}

async fn batch(subject: &Subject, history: &Arc<History>, starts: &[Timestamp], lasts: SignedDuration) -> Vec<Run> {
    let clock = Clock::starting_at(starts.first().copied().unwrap_or_default());
    let transport = Arc::new(Remembered(history.clone()));
    let providers =
        Providers::in_virtual_time(transport, JobTarget::nowhere(), clock.clone(), Some(ADDRESS.to_owned()));
    let mut runs = Vec::with_capacity(starts.len());
    for start in starts {
        set(&clock, *start);
        runs.push(run(subject, &providers, &clock, lasts).await);
    }
    runs
}

/// As the controller does it: measure what is due, conclude, wait until something is due again.
async fn run(subject: &Subject, providers: &Providers, clock: &Clock, lasts: SignedDuration) -> Run {
    let started = clock.now();
    let deadline = started.checked_add(lasts).unwrap_or(Timestamp::MAX);
    let mut run = AnalysisRun::new("backtest", subject.spec.clone());
    run.metadata.namespace = Some(subject.namespace.clone());
    let mut run = Arc::new(run);
    loop {
        let now = clock.now();
        // What was set at the router in the past is not known, so that the split of the requests is not judged.
        let world = RunWorld { now, run: run.clone(), secrets: subject.secrets.clone(), weight: None };
        let outcomes = providers.carry_out(machine::tasks(&world)).await;
        let plan = machine::conclude(&world, outcomes);
        drop(world);
        if plan.status.phase.completed() {
            return ended(started, now, plan.status, run.spec.terminate);
        }
        let own = Arc::make_mut(&mut run);
        own.status = Some(plan.status);
        if now >= deadline {
            if own.spec.terminate {
                // It was told to stop and has not: nothing else will come of it.
                return ended(started, now, own.status.take().unwrap_or_default(), true);
            }
            own.spec.terminate = true;
            continue;
        }
        let wake = plan.wake.filter(|wake| *wake < deadline).unwrap_or(deadline);
        set(clock, wake.max(now.checked_add(MOMENT).unwrap_or(now)));
    }
}

fn ended(started: Timestamp, now: Timestamp, status: AnalysisRunStatus, cut_off: bool) -> Run {
    let well = status.phase == AnalysisPhase::Successful;
    let metric = status.metric_results.iter().find(|result| result.phase == status.phase && !result.dry_run && !well);
    Run {
        started,
        ended: now,
        phase: status.phase,
        metric: metric.map(|result| result.name.clone()),
        message: status.message,
        cut_off,
    }
}

fn set(clock: &Clock, to: Timestamp) {
    clock.jump(to.duration_since(clock.now()));
}
