//! A corpus of releases that are known to be good or bad, before the judge and before the usual threshold.
//!
//! ```sh
//! make bench-judge
//! ```
//!
//! The releases are made from a seed of their own, by rules that nothing of the judge was tuned on, and pass through the product's own
//! looks: range vectors with resets, gaps and late series. Prints the tables of `docs/judging.md`; fails below 99% precision or
//! recall, and when more than 1% of the bad ones with enough traffic are neither stopped nor held. `--releases N` (12,000: with
//! fewer, chance moves the recall by more than the bar allows) and `--seed N` (20261122) are for whoever is curious.

mod counters;
mod releases;
mod score;
#[path = "../judge_table/traffic.rs"]
#[allow(dead_code)]
mod traffic;
mod trial;

use std::process::ExitCode;

use tidegate::api::analysis::AnalysisPhase;

use self::releases::Release;
use self::trial::Trial;

/// Good releases with an outage of both, in each cell of the first table.
const OUTAGES: usize = 1000;

fn main() -> ExitCode {
    let flag = |name: &str| {
        let flag = std::env::args().position(|word| word == name)?;
        std::env::args().nth(flag + 1)?.parse::<u64>().ok()
    };
    let (seed, count) = (flag("--seed").unwrap_or(20_261_122), flag("--releases").unwrap_or(12_000));
    println!("| stable pods | scraped every 15 s | 30 s | 60 s |\n|---|---|---|---|");
    for pods in [1, 2, 3, 9] {
        let blamed = [15, 30, 60].map(|scrape| {
            let trials = run(releases::outages(seed, OUTAGES, pods, scrape));
            let blamed = trials.iter().filter(|trial| trial.judge.phase == AnalysisPhase::Failed).count();
            format!("{:.1}%", 100.0 * blamed as f64 / OUTAGES as f64)
        });
        println!("| {pods} | {} |", blamed.join(" | "));
    }
    let trials = run(releases::corpus(seed, count as usize));
    println!("{}", score::tables(&trials));
    for trial in trials.iter().filter(|trial| trial.enough && trial.judge.phase != AnalysisPhase::Failed) {
        println!("not stopped: {:?}: {}\n", trial.release, trial.said);
    }
    for trial in trials.iter().filter(|trial| !trial.release.is_bad() && trial.judge.phase == AnalysisPhase::Failed) {
        println!("stopped wrongly: {:?}: {}\n", trial.release, trial.said);
    }
    let judge = score::Score::of(trials.iter(), score::JUDGE);
    let most = judge.bad / 100;
    if judge.precision() < 0.99 || judge.recall() < 0.99 || judge.let_through() > most {
        eprintln!("the judge has a precision of {:.3} and a recall of {:.3}", judge.precision(), judge.recall());
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// On two threads.
fn run(mut releases: Vec<Release>) -> Vec<Trial> {
    let half = releases.split_off(releases.len() / 2);
    let each = |releases: Vec<Release>| releases.into_iter().map(trial::run).collect::<Vec<_>>();
    std::thread::scope(|scope| {
        let other = scope.spawn(move || each(half));
        let mut trials = each(releases);
        trials.extend(other.join().expect("a release can be judged"));
        trials
    })
}
