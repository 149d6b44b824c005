//! Scenarios: stories about rollouts that run on the sandbox and on a real cluster and leave the same trace.
//!
//! ```text
//! NAME.scenario ──parse──► Scenario ──run──► World   (the sandbox in virtual time, or the real control plane)
//!                                             │
//!                       Recorder ◄──watches───┘      (from outside: public objects only)
//!                          │
//! NAME.trace    ◄──────  trace                       (what a user would notice, without what legitimately differs)
//! ```
//!
//! A scenario is a text that reads as documentation. Its first line is the title. Lines that begin with `- ` are steps,
//! what is indented below a step belongs to it, and everything else is prose:
//!
//! ```text
//! # A canary waits until it is promoted
//!
//! Why a user cares.
//!
//! worlds: sandbox, real
//!
//! - apply
//!     apiVersion: argoproj.io/v1alpha1
//!     kind: Rollout
//!     …
//! - wait until phase is Healthy within 30s
//! - set image web=example/web:green
//! - wait until phase is Paused within 30s
//! - promote
//! - wait until phase is Healthy within 30s
//! ```
//!
//! | header | means |
//! |---|---|
//! | `worlds: sandbox, real` | where it runs; `sandbox` alone when there is no such line |
//! | `rollout: NAME` | the Rollout that the steps are about; `web` when there is no such line |
//! | `pace: 60` | on the real cluster, every duration in manifests and steps is 60 times shorter; see [`pace`] |
//! | `alone: yes` | on the real cluster, no other scenario runs at the same time (it breaks what they share) |
//! | `variants: A, B` | it runs once with A and once with B in the place of `${VARIANT}`, and leaves the same trace, unless there is a file NAME.B.trace |
//!
//! The steps are listed in [`step`], the conditions of `wait until`, `expect` and `hold … while` in [`condition`]. What a
//! trace has and what is left out of it is said in [`trace`]. [`gitops`] judges every status that was seen, as Argo CD and
//! Flux would.

pub mod condition;
pub mod gitops;
pub mod pace;
pub mod parse;
pub mod real;
pub mod record;
pub mod run;
pub mod sandbox;
pub mod snapshot;
pub mod step;
pub mod trace;
pub mod words;
pub mod world;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

pub use parse::Scenario;
pub use world::World;

/// Set to anything, a run writes the traces that it finds wrong.
const UPDATE: &str = "UPDATE_TRACES";

/// The folder of the scenarios.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios")
}

/// Every scenario, by name.
///
/// # Errors
/// A file cannot be read, or is not a scenario; the file and the line are named.
pub fn all() -> Result<Vec<Scenario>> {
    read(&folder())
}

/// The recipes of recordings, by name: scenarios that save what is there at their moments, and whose trace nobody keeps.
///
/// # Errors
/// As [`all`].
pub fn recordings() -> Result<Vec<Scenario>> {
    read(&folder().join("recordings"))
}

fn read(folder: &Path) -> Result<Vec<Scenario>> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))?;
    let mut files = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    files.retain(|file| file.extension().is_some_and(|extension| extension == "scenario"));
    files.sort();
    let scenarios = files.iter().map(|file| Scenario::read(file)).collect::<Result<Vec<_>>>()?;
    Ok(scenarios.into_iter().flatten().collect())
}

/// Compares a trace with the committed one, or replaces that.
///
/// # Errors
/// They differ: the message shows where.
pub fn compare(scenario: &Scenario, world: &str, found: &str, may_update: bool) -> Result<()> {
    let (file, expected) = (trace_file(scenario), expected(scenario));
    if expected == found {
        return Ok(());
    }
    if may_update {
        if std::env::var_os(UPDATE).is_some() {
            return std::fs::write(&file, found).with_context(|| format!("writing {}", file.display()));
        }
    } else if trace::is_same(&expected, found) {
        return Ok(());
    }
    let difference = trace::difference(&expected, found);
    bail!(
        "the trace on the {world} is not that of {} (- expected, + found; {UPDATE}=1 accepts it):\n{difference}",
        file.display()
    )
}

/// The committed trace; empty when there is none.
pub fn expected(scenario: &Scenario) -> String {
    std::fs::read_to_string(trace_file(scenario)).unwrap_or_default()
}

/// Where the committed trace is.
fn trace_file(scenario: &Scenario) -> PathBuf {
    let own = scenario.variant.as_ref().map(|variant| scenario.file.with_extension(format!("{variant}.trace")));
    own.filter(|own| own.exists()).unwrap_or_else(|| scenario.file.with_extension("trace"))
}
