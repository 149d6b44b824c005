//! How often each was right.

use std::fmt::Write;

use tidegate::api::analysis::AnalysisPhase;

use super::releases::{TROUBLES, Trouble};
use super::trial::{Outcome, Trial};

/// One of those that judge.
pub type Of = fn(&Trial) -> Outcome;

/// Counts over some releases.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Score {
    pub good: usize,
    pub good_failed: usize,
    pub good_undecided: usize,
    /// Bad ones with enough traffic.
    pub bad: usize,
    pub bad_failed: usize,
    pub bad_undecided: usize,
    /// Bad ones with too little.
    pub hard: usize,
    pub hard_failed: usize,
    pub hard_undecided: usize,
}

impl Score {
    pub fn of<'a>(trials: impl Iterator<Item = &'a Trial>, of: Of) -> Self {
        let mut score = Self::default();
        for trial in trials {
            let phase = of(trial).phase;
            let (all, failed, undecided) = match (trial.release.is_bad(), trial.enough) {
                (false, _) => (&mut score.good, &mut score.good_failed, &mut score.good_undecided),
                (true, true) => (&mut score.bad, &mut score.bad_failed, &mut score.bad_undecided),
                (true, false) => (&mut score.hard, &mut score.hard_failed, &mut score.hard_undecided),
            };
            *all += 1;
            *failed += usize::from(phase == AnalysisPhase::Failed);
            *undecided += usize::from(phase == AnalysisPhase::Inconclusive);
        }
        score
    }

    /// Of those that were stopped, how many were bad.
    pub fn precision(&self) -> f64 {
        let right = (self.bad_failed + self.hard_failed) as f64;
        right / (right + self.good_failed as f64).max(1.0)
    }

    /// Bad ones with enough traffic that were neither stopped nor held for somebody to decide.
    pub fn let_through(&self) -> usize {
        self.bad - self.bad_failed - self.bad_undecided
    }

    /// Of the bad ones with enough traffic, how many were stopped.
    pub fn recall(&self) -> f64 {
        self.bad_failed as f64 / (self.bad as f64).max(1.0)
    }
}

pub const JUDGE: Of = |trial| trial.judge;
pub const THRESHOLD: Of = |trial| trial.threshold;

/// The tables of the manual.
pub fn tables(trials: &[Trial]) -> String {
    let mut text = String::from(
        "| | good: stopped | good: undecided | bad: stopped | bad: undecided | bad, too little traffic: stopped | undecided | \
         precision | recall | minutes to stop (half, nine tenths) |\n|---|---|---|---|---|---|---|---|---|---|\n",
    );
    for (name, of) in [("judge", JUDGE), ("success ≥ 95%", THRESHOLD)] {
        let score = Score::of(trials.iter(), of);
        let mut after: Vec<f64> = trials
            .iter()
            .filter(|trial| trial.enough && of(trial).phase == AnalysisPhase::Failed)
            .map(|trial| (of(trial).after - trial.release.onset as f64).max(0.0) / 60.0)
            .collect();
        after.sort_by(f64::total_cmp);
        let at =
            |part: f64| after.get((after.len() as f64 * part) as usize).map_or("-".to_owned(), |it| format!("{it:.0}"));
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "| {name} | {} of {} | {} | {} of {} | {} | {} of {} | {} | {:.1}% | {:.1}% | {}, {} |",
            score.good_failed,
            score.good,
            score.good_undecided,
            score.bad_failed,
            score.bad,
            score.bad_undecided,
            score.hard_failed,
            score.hard,
            score.hard_undecided,
            100.0 * score.precision(),
            100.0 * score.recall(),
            at(0.5),
            at(0.9),
        );
    }
    text.push_str(
        "\n| trouble | good: stopped by the judge | by success ≥ 95% | bad, enough traffic: stopped by the judge | by success ≥ 95% |\n\
         |---|---|---|---|---|\n",
    );
    for trouble in TROUBLES.into_iter().map(Some).chain([None]) {
        let fits = |trial: &&Trial| match trouble {
            Some(trouble) => trial.release.has(trouble),
            None => trial.release.troubles.is_empty(),
        };
        let [judge, threshold] = [JUDGE, THRESHOLD].map(|of| Score::of(trials.iter().filter(fits), of));
        let of = |part: usize, all: usize| if all == 0 { "-".to_owned() } else { format!("{part} of {all}") };
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} |",
            name(trouble),
            of(judge.good_failed, judge.good),
            of(threshold.good_failed, threshold.good),
            of(judge.bad_failed, judge.bad),
            of(threshold.bad_failed, threshold.bad),
        );
    }
    text
}

fn name(trouble: Option<Trouble>) -> &'static str {
    match trouble {
        Some(Trouble::Bursts) => "failures in bursts",
        Some(Trouble::Pods) => "pods that differ",
        Some(Trouble::Diurnal) => "traffic that doubles or halves",
        Some(Trouble::Outage) => "an outage of both",
        Some(Trouble::Late) => "bad after 5 to 15 minutes",
        Some(Trouble::Resets) => "restarted pods",
        Some(Trouble::Gaps) => "missing scrapes",
        None => "none of these",
    }
}
