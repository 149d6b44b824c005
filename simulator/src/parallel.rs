//! Many lives, on all cores.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::checkers::Violation;
use crate::coverage::Coverage;
use crate::life::{Outcome, live};
use crate::script::Script;

/// What came of many lives.
#[derive(Debug, Default)]
pub struct Summary {
    pub lives: u64,
    /// Scripts that broke a promise, with the first that they broke.
    pub failures: Vec<(Script, Violation)>,
    pub coverage: Coverage,
    /// Milliseconds of simulated time.
    pub simulated: u64,
    pub took: Duration,
    /// Scripts that were left when the time was over.
    pub left: u64,
}

/// How to live many lives.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    pub threads: usize,
    /// No life is begun after so long.
    pub budget: Option<Duration>,
    /// Whether it tells how far it is, and of each failure at once.
    pub progress: bool,
    /// After so many failures nothing more is begun.
    pub most_failures: usize,
}

impl Default for Settings {
    fn default() -> Self {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        Self { threads, budget: None, progress: false, most_failures: 20 }
    }
}

/// Lives the scripts.
#[allow(clippy::disallowed_methods)] // how long it takes is measured, and part of no life
pub fn run(scripts: impl ExactSizeIterator<Item = Script> + Send, settings: Settings) -> Summary {
    let began = Instant::now();
    let total = scripts.len();
    let scripts = Mutex::new(scripts);
    let summary = Mutex::new(Summary::default());
    let over = AtomicBool::new(false);
    let lock = |summary: &Mutex<Summary>| -> (u64, usize, u64) {
        let summary = summary.lock().unwrap_or_else(PoisonError::into_inner);
        (summary.lives, summary.failures.len(), summary.simulated)
    };
    std::thread::scope(|scope| {
        for _ in 0..settings.threads.max(1) {
            scope.spawn(|| {
                while settings.budget.is_none_or(|budget| began.elapsed() < budget) && !over.load(Ordering::Relaxed) {
                    let Some(script) = scripts.lock().unwrap_or_else(PoisonError::into_inner).next() else { return };
                    let outcome = lived(&script);
                    if let (true, Some(violation)) = (settings.progress, outcome.violations.first()) {
                        eprintln!("{}", told(&script, violation));
                    }
                    let mut summary = summary.lock().unwrap_or_else(PoisonError::into_inner);
                    summary.add(script, outcome);
                    if summary.failures.len() >= settings.most_failures {
                        over.store(true, Ordering::Relaxed);
                    }
                }
            });
        }
        if settings.progress {
            let mut told = Instant::now();
            loop {
                let (lives, failures, simulated) = lock(&summary);
                let ended = lives as usize >= total
                    || over.load(Ordering::Relaxed)
                    || settings.budget.is_some_and(|budget| began.elapsed() >= budget);
                if ended || told.elapsed() >= Duration::from_secs(5) {
                    told = Instant::now();
                    let rate = lives as f64 / began.elapsed().as_secs_f64().max(0.001);
                    eprintln!(
                        "{lives} of {total} lives, {rate:.0} a second, {} days simulated, {failures} failures",
                        simulated / 86_400_000
                    );
                }
                if ended {
                    break;
                }
                std::thread::sleep(Duration::from_millis(100));
            }
        }
    });
    let mut summary = summary.into_inner().unwrap_or_else(PoisonError::into_inner);
    summary.left = total as u64 - summary.lives;
    summary.took = began.elapsed();
    summary
}

/// What broke, and what repeats it.
pub fn told(script: &Script, violation: &Violation) -> String {
    format!("{violation}\n  simulate run --script '{script}'")
}

/// A panic of the controller or of the simulator is a failure like any other.
fn lived(script: &Script) -> Outcome {
    let accused = |what: String| {
        let violations = vec![Violation { promise: "L1", at: 0, what }];
        Outcome { violations, ..Outcome::default() }
    };
    match std::panic::catch_unwind(|| live(script, false)) {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(error)) => accused(format!("{error:#}")),
        Err(_) => accused("something panicked".to_owned()),
    }
}

impl Summary {
    fn add(&mut self, script: Script, outcome: Outcome) {
        self.lives += 1;
        self.simulated += outcome.lasted;
        self.coverage.merge(&outcome.coverage);
        if let Some(first) = outcome.violations.into_iter().next() {
            self.failures.push((script, first));
        }
    }

    /// Adds what came of others.
    pub fn merge(&mut self, other: Self) {
        self.lives += other.lives;
        self.failures.extend(other.failures);
        self.coverage.merge(&other.coverage);
        self.simulated += other.simulated;
        self.took += other.took;
        self.left += other.left;
    }
}
