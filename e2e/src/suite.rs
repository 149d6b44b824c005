//! Runs a table of tests on one environment, as a test target with `harness = false`.
//!
//! Cargo's own test harness cannot be used: the process has to run itself again inside the namespaces, the environment is
//! started once for all tests, and tests that could not run must be seen, which the harness hides.

use std::path::Path;
use std::pin::Pin;
use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::environment::{Environment, EnvironmentOptions};
use crate::namespace;
use crate::tally::Tally;
use crate::tools::Tools;

const REQUIRED: &str = "TIDEGATE_E2E";

/// A test: its name and what it does. It fails with an error.
pub type Test = (&'static str, for<'a> fn(&'a mut Environment) -> Pin<Box<dyn Future<Output = Result<()>> + 'a>>);

/// The `main` of a test target. Words on the command line choose the tests whose names contain one of them.
///
/// Where the programs are not installed, it prints what was not run, and succeeds; with `TIDEGATE_E2E=required` in the
/// environment, as a CI has it that must run all, it fails.
pub fn main(options: EnvironmentOptions, tests: &[Test]) -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    let is_chosen = |name: &str| words.is_empty() || words.iter().any(|word| name.contains(word.as_str()));
    let tests: Vec<_> = tests.iter().filter(|(name, _)| is_chosen(name)).collect();
    if arguments.iter().any(|argument| argument == "--list") {
        tests.iter().for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    if tests.is_empty() {
        return ExitCode::SUCCESS;
    }
    if let Err(error) = Tools::find(&options.parts()) {
        println!("NOT RUN, because {error:#}");
        tests.iter().for_each(|(name, _)| println!("test {name} ... NOT RUN"));
        let required = std::env::var_os(REQUIRED).is_some_and(|value| value == "required");
        return if required { ExitCode::FAILURE } else { ExitCode::SUCCESS };
    }
    let inside = |folder: std::path::PathBuf| {
        tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .context("starting tokio")?
            .block_on(run(&folder, options, &tests))?
            .end()
    };
    match namespace::run_inside(inside) {
        Ok(code) => code,
        Err(error) => {
            println!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs tests on one environment, inside the namespaces.
///
/// # Errors
/// The environment does not start.
pub async fn run(folder: &Path, options: EnvironmentOptions, tests: &[&Test]) -> Result<Tally> {
    let mut environment = Environment::start(folder, options).await?;
    let mut tally = Tally::default();
    for (name, test) in tests {
        tally.test(name, test(&mut environment)).await;
    }
    environment.stop().await;
    Ok(tally)
}
