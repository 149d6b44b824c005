//! Every scenario on the sandbox, in virtual time, each compared with its committed trace.
//!
//! Words on the command line choose the scenarios whose names contain one of them. With `UPDATE_TRACES` in the
//! environment the traces are written anew: the difference in review is the change of behaviour.

use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use anyhow::{Context, Result};
use tidegate_e2e::scenario::{self, Scenario, sandbox};
use tidegate_e2e::tally::Tally;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    let mut scenarios = match scenario::all() {
        Ok(scenarios) => scenarios,
        Err(error) => {
            println!("{error:#}");
            return ExitCode::FAILURE;
        }
    };
    scenarios.retain(|scenario| words.is_empty() || words.iter().any(|word| scenario.name.contains(word.as_str())));
    if arguments.iter().any(|argument| argument == "--list") {
        scenarios.iter().for_each(|scenario| println!("{}: test", scenario.name));
        return ExitCode::SUCCESS;
    }
    let started = Instant::now();
    let ended = run_all(&scenarios).end();
    println!("{} scenarios on the sandbox ({:.1} s)", scenarios.len(), started.elapsed().as_secs_f64());
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the scenarios on all processors.
fn run_all(scenarios: &[Scenario]) -> Tally {
    let next = AtomicUsize::new(0);
    // It also keeps the lines of two scenarios apart.
    let tally = Mutex::new(Tally::default());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(scenario) = scenarios.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let started = Instant::now();
                    let outcome = run_one(scenario);
                    let mut tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
                    tally.add("scenario", &scenario.name, started.elapsed(), outcome);
                }
            });
        }
    });
    tally.into_inner().unwrap_or_else(PoisonError::into_inner)
}

fn run_one(scenario: &Scenario) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .context("starting tokio")?;
    let trace = runtime.block_on(sandbox::play(scenario))?;
    scenario::compare(scenario, "sandbox", &trace, true)
}
