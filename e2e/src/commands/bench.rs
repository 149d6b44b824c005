//! `bench`: what the controller costs and how fast it is, on a real control plane: memory, CPU, API writes and latencies.
//!
//! Writes are counted and latencies are taken from the API server's audit log, memory and CPU from the kernel. Each figure
//! has the machine's load beside it: times on a machine that does other things say little.

mod abort;
mod crowd;

use std::path::Path;

use anyhow::{Result, bail};

use crate::chart;
use crate::cluster::CONTROLLER;
use crate::controller::Controller;
use crate::environment::Environment;

#[derive(Debug, clap::Args)]
pub struct Bench {
    /// Fewer Rollouts and shorter measurements, for a CI
    #[arg(long)]
    quick: bool,
    /// Fail when a goal is missed. Those for times count only on a machine that was idle at the start
    #[arg(long)]
    gate: bool,
    /// How often all is measured, each time from nothing
    #[arg(long, default_value_t = 1)]
    runs: u32,
    /// Measure only this: `crowd` (created, idle, updated) or `abort`
    #[arg(long, value_parser = ["crowd", "abort"])]
    only: Option<String>,
}

/// How much is measured.
#[derive(Clone, Copy, Debug)]
struct Scale {
    rollouts: usize,
    updated: usize,
    idle_seconds: u64,
    abort_rounds: usize,
}

/// One measured figure.
#[derive(Clone, Debug)]
struct Figure {
    what: &'static str,
    value: f64,
    unit: &'static str,
    /// At most so much.
    goal: f64,
    /// The same for Argo Rollouts on this kind of machine under the same load, as far as it was measured.
    argo: &'static str,
    /// Whether it depends on what else the machine does.
    timing: bool,
    /// The load average when it had been measured.
    load: f64,
}

impl Bench {
    pub async fn run(self, folder: &Path) -> Result<()> {
        let scale = if self.quick {
            Scale { rollouts: 100, updated: 50, idle_seconds: 10, abort_rounds: 2 }
        } else {
            Scale { rollouts: 500, updated: 200, idle_seconds: 30, abort_rounds: 5 }
        };
        let measures = |part: &str| self.only.as_deref().is_none_or(|only| only == part);
        let idle = load_average() < cores();
        if !idle {
            println!(
                "The machine is busy (load average {:.1} on {} cores): times will be too long.",
                load_average(),
                cores()
            );
        }
        if self.quick {
            println!("Quick: the goals are for {} times as many Rollouts.", 500 / scale.rollouts);
        }
        let mut missed = Vec::new();
        for run in 1..=self.runs {
            let folder = folder.join(format!("run-{run}"));
            let mut figures = Vec::new();
            if measures("crowd") {
                figures.extend(crowd::measure(&folder.join("crowd"), scale).await?);
            }
            if measures("abort") {
                figures.extend(abort::measure(&folder.join("abort"), scale).await?);
            }
            println!("\nRun {run} of {}{}", self.runs, if cfg!(debug_assertions) { ", not optimized" } else { "" });
            print(&figures);
            let counts = |figure: &&Figure| !figure.is_met() && (idle || !figure.timing);
            missed.extend(figures.iter().filter(counts).map(|figure| figure.what));
        }
        if self.gate && !missed.is_empty() {
            bail!("missed: {}", missed.join("; "));
        }
        Ok(())
    }
}

impl Figure {
    fn is_met(&self) -> bool {
        self.value <= self.goal
    }
}

fn print(figures: &[Figure]) {
    println!("  {:<48} {:>12} {:>10} {:>8} {:>14} {:>6}", "", "Tidegate", "goal", "", "Argo Rollouts", "load");
    for figure in figures {
        let with_unit = |value: f64| {
            let digits = if value < 1.0 { 2 } else { 1 };
            format!("{value:.digits$} {}", figure.unit)
        };
        println!(
            "  {:<48} {:>12} {:>10} {:>8} {:>14} {:>6.1}",
            figure.what,
            with_unit(figure.value),
            with_unit(figure.goal),
            if figure.is_met() { "met" } else { "MISSED" },
            figure.argo,
            figure.load
        );
    }
    println!();
}

/// The controller of the chart, under the chart's permissions, with its default settings.
async fn start(environment: &Environment) -> Result<Controller> {
    chart::install(&environment.tools, &environment.client).await?;
    let arguments = ["--metricsPort=0", "--healthzPort=0", "--namespace=tidegate"];
    Controller::start(&environment.cluster, &environment.folder, CONTROLLER, &arguments)
}

/// How many tasks wanted a core in the last minute, on average.
fn load_average() -> f64 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or(0.0)
}

fn cores() -> f64 {
    std::thread::available_parallelism().map_or(1.0, |cores| cores.get() as f64)
}
