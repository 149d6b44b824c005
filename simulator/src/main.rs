//! `simulate`: lives of Rollouts in which everything goes wrong.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::{Parser, Subcommand};
use tidegate_simulator::base::Base;
use tidegate_simulator::exhaustive::{self, Tier};
use tidegate_simulator::life::live;
use tidegate_simulator::minimise::minimise;
use tidegate_simulator::mutants;
use tidegate_simulator::parallel::{self, Settings, Summary};
use tidegate_simulator::random;
use tidegate_simulator::script::Script;

/// Prove by simulation that no fault makes a Rollout lose traffic, hang or forget
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Every single fault at every point of every base scenario
    Exhaustive {
        /// Only these tiers
        #[arg(long, value_enum)]
        tier: Vec<Tier>,
        /// Only these base scenarios
        #[arg(long)]
        base: Vec<String>,
        /// Only every N-th script
        #[arg(long, default_value_t = 1)]
        every: usize,
        /// Begin nothing new after so many seconds
        #[arg(long)]
        budget: Option<u64>,
        /// All tiers and bases in one order, as if by chance: what fails anywhere shows soon
        #[arg(long)]
        mixed: bool,
        #[command(flatten)]
        how: How,
    },
    /// Random lives in which something goes wrong every 30 seconds
    Random {
        /// How many
        #[arg(long, default_value_t = 1000)]
        lives: u64,
        /// The seed of the first one; the others follow
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// How long things go wrong in each
        #[arg(long, default_value_t = random::HOUR / 60)]
        minutes: u64,
        #[command(flatten)]
        how: How,
    },
    /// One life by its script
    Run {
        #[arg(long)]
        script: Script,
        /// Print all that happens
        #[arg(long)]
        trace: bool,
    },
    /// Whether every kind of fault meets every state of a Rollout
    Coverage {
        /// Of the single faults that are not there to meet all states every N-th
        #[arg(long, default_value_t = 20)]
        every: usize,
        /// Random lives
        #[arg(long, default_value_t = 300)]
        lives: u64,
        #[command(flatten)]
        how: How,
    },
    /// Break the controller in many ways, one after the other: whether the simulator sees each
    Mutants {
        /// Only those whose name has one of these in it
        words: Vec<String>,
        /// Lives at a time
        #[arg(long, default_value_t = 1)]
        threads: usize,
    },
    /// The smallest script that breaks the same promise
    Minimise {
        #[arg(long)]
        script: Script,
    },
}

#[derive(clap::Args)]
struct How {
    /// Lives at a time; as many as there are cores if not given
    #[arg(long)]
    threads: Option<usize>,
    /// Stop after so many failures
    #[arg(long, default_value_t = 20)]
    failures: usize,
    /// Do not tell how far it is
    #[arg(long)]
    quiet: bool,
}

fn main() -> Result<ExitCode> {
    match Cli::parse().command {
        Command::Exhaustive { tier, base, every, budget, mixed, how } => {
            let mut lists = Vec::new();
            for tier in Tier::ALL.into_iter().filter(|it| tier.is_empty() || tier.contains(it)) {
                let wanted = exhaustive::bases(tier)
                    .into_iter()
                    .filter(|it| base.is_empty() || base.iter().any(|name| name == it.name));
                let mut scripts = Vec::new();
                for base in wanted {
                    scripts.extend(exhaustive::scripts(base, tier)?.into_iter().step_by(every.max(1)));
                }
                lists.push((format!("{tier:?}"), scripts));
            }
            if mixed {
                let mut all: Vec<Script> = lists.into_iter().flat_map(|(_, scripts)| scripts).collect();
                fastrand::Rng::with_seed(1).shuffle(&mut all);
                lists = vec![("All".to_owned(), all)];
            }
            let mut all = Summary::default();
            for (name, scripts) in lists {
                let left = budget.map(|budget| Duration::from_secs(budget).saturating_sub(all.took));
                let summary = parallel::run(scripts.into_iter(), Settings { budget: left, ..how.settings() });
                println!("{name}: {}", line(&summary));
                all.merge(summary);
            }
            Ok(report(&all))
        }
        Command::Random { lives, seed, minutes, how } => {
            let seeds: Vec<u64> = (seed..seed.saturating_add(lives)).collect();
            let summary =
                parallel::run(seeds.into_iter().map(|seed| random::script(seed, minutes * 60)), how.settings());
            Ok(report(&summary))
        }
        Command::Run { script, trace } => {
            let outcome = live(&script, trace)?;
            if let Some(trace) = &outcome.trace {
                print!("{trace}");
            }
            for violation in &outcome.violations {
                println!("{violation}");
            }
            println!("{:?}, {} s simulated", outcome.counts, outcome.lasted / 1000);
            Ok(if outcome.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Command::Coverage { every, lives, how } => {
            let mut scripts = Vec::new();
            for tier in Tier::ALL.into_iter().filter(|tier| *tier != Tier::Pairs) {
                for (number, base) in exhaustive::bases(tier).into_iter().enumerate() {
                    let mut chance = fastrand::Rng::with_seed(number as u64);
                    let of_tier = exhaustive::scripts(base, tier)?.into_iter();
                    let whole = tier == Tier::States;
                    scripts.extend(of_tier.filter(|_| whole || chance.usize(..every.max(1)) == 0));
                }
            }
            scripts.extend((1..=lives).map(|seed| random::script(seed, random::HOUR)));
            let summary = parallel::run(scripts.into_iter(), how.settings());
            let missing = summary.coverage.missing();
            for (state, fault) in &missing {
                println!("nothing of {fault} has met the state {state}");
            }
            let code = report(&summary);
            Ok(if missing.is_empty() { code } else { ExitCode::FAILURE })
        }
        Command::Mutants { words, threads } => {
            Ok(if mutants::check(&words, threads)? { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Command::Minimise { script } => {
            let outcome = live(&script, false)?;
            let Some(first) = outcome.violations.first() else {
                println!("it breaks no promise");
                return Ok(ExitCode::SUCCESS);
            };
            println!("simulate run --script '{}'", minimise(&script, first.promise));
            println!("{first}");
            Ok(ExitCode::FAILURE)
        }
    }
}

impl How {
    fn settings(&self) -> Settings {
        let usual = Settings::default();
        let threads = self.threads.unwrap_or(usual.threads);
        Settings { threads, progress: !self.quiet, most_failures: self.failures, ..usual }
    }
}

fn line(summary: &Summary) -> String {
    let seconds = summary.took.as_secs_f64();
    format!(
        "{} lives in {seconds:.1} s ({:.0} a second), {:.1} days simulated, {} failures, {} left out",
        summary.lives,
        summary.lives as f64 / seconds.max(0.001),
        summary.simulated as f64 / 86_400_000.0,
        summary.failures.len(),
        summary.left
    )
}

fn report(summary: &Summary) -> ExitCode {
    print!("{}", summary.coverage);
    for (script, violation) in &summary.failures {
        println!("\n{}", parallel::told(script, violation));
    }
    if let Some((script, violation)) = summary.failures.first()
        && Base::named(&script.base).is_some()
        && script.faults.len() > 2
    {
        println!("\nminimised: simulate run --script '{}'", minimise(script, violation.promise));
    }
    println!("\n{}", line(summary));
    if summary.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
