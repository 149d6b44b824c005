//! Every scenario on the sandbox, in virtual time, each compared with its committed trace.
//!
//! Words on the command line choose the scenarios whose names contain one of them. With `UPDATE_TRACES` in the
//! environment the traces are written anew: the difference in review is the change of behaviour.

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::{Context, Result};
use tidegate_e2e::scenario::{self, Scenario, sandbox};

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
    let failed = run_all(&scenarios);
    println!(
        "{} scenarios on the sandbox: {} passed, {failed} failed ({:.1} s)",
        scenarios.len(),
        scenarios.len() - failed,
        started.elapsed().as_secs_f64()
    );
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs the scenarios on all processors, and answers how many failed.
fn run_all(scenarios: &[Scenario]) -> usize {
    let (next, failed) = (AtomicUsize::new(0), AtomicUsize::new(0));
    // Keeps the lines of two scenarios apart.
    let output = Mutex::new(());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(scenario) = scenarios.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let started = Instant::now();
                    let outcome = run_one(scenario);
                    let seconds = started.elapsed().as_secs_f64();
                    let _kept = output.lock();
                    match outcome {
                        Ok(()) => println!("scenario {} ... ok ({seconds:.2} s)", scenario.name),
                        Err(error) => {
                            println!("scenario {} ... FAILED ({seconds:.2} s)\n{error:#}\n", scenario.name);
                            failed.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                }
            });
        }
    });
    failed.into_inner()
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
