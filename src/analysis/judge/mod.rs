//! The judge: whether a canary is worse than stable, from counts of requests and failures of both in the same intervals.
//!
//! ```text
//! counts ──► harm: worse than the margin allows?      ──► Harm      (a false alarm in 1 of 100 analyses, say)
//!        ├─► safe: surely no worse than a wider one?  ──► Safe
//!        ├─► split: does it get the traffic it should? ─► Mismatch
//!        └─► detectable: what could have been seen        (for the sentence when nothing was decided)
//! ```
//!
//! Both versions are compared within each interval, so that an outage or a peak that they share cannot be blamed on one, and
//! weights may change as they like. The evidence may be looked at after every interval: its error bounds hold for all looks
//! together. `docs/judging.md` tells users what that means and shows how it was measured.
//!
//! All of it is plain arithmetic on a [`State`] that fits into a status and survives a restart of the controller.

pub mod budget;
pub mod counts;
pub mod detectable;
pub mod dispersion;
pub mod growth;
pub mod harm;
pub mod safe;
pub mod split;
mod stored;
pub mod words;

use serde::{Deserialize, Serialize};

use self::counts::{Arm, Interval, Side, Unusable};
use self::dispersion::Dispersion;
use self::harm::{Bets, Harm, Margin, Restarts};
use self::safe::Safe;
use self::split::Split;

/// Of the state's form. One that is not known is not guessed at.
const VERSION: u8 = 1;
/// Ratios that are tested beside the margin, so that a verdict can say how much worse at least.
const LADDER: [f64; 10] = [1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 20.0, 30.0, 50.0];

/// What is judged by. It must not change while an analysis is under way.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// How much worse than stable is still all right.
    pub margin: Margin,
    /// What the canary must be better than to be called safe.
    pub safe: Margin,
    /// The chance of a false alarm in a whole analysis, for all of its metrics together.
    pub alpha: f64,
    /// The chance of calling a canary safe that is not.
    pub beta: f64,
    /// Metrics that share `alpha`.
    pub metrics: usize,
    /// Seconds after which nothing more is judged.
    pub horizon: f64,
    /// Seconds at the beginning that are not judged: caches are cold.
    pub warm_up: f64,
    /// The share of the requests that the canary should get, where it is known. Unlike the rest it may differ from
    /// interval to interval.
    pub weight: Option<f64>,
    /// Be done as soon as the canary is safe, and not only at the horizon.
    pub early: bool,
}

/// What has been seen so far: a few kilobytes at most, whatever was seen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    version: u8,
    dispersion: Dispersion,
    /// Seconds up to which intervals have been looked at.
    until: f64,
    harm: Harm,
    ladder: Vec<Bets>,
    safe: Safe,
    split: Split,
    canary: Arm,
    stable: Arm,
    /// Intervals that were judged, and that told nothing.
    judged: u32,
    unusable: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    problem: Option<Unusable>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    decision: Option<Decision>,
}

/// The first verdict that was reached, and after how many seconds. Later evidence does not take it back.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    pub verdict: Verdict,
    pub after: f64,
}

/// What the evidence says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Verdict {
    /// The canary is worse than the margin allows.
    Harm,
    /// The canary is better than the limit of safety.
    Safe,
    /// The canary does not get the requests that its weight says.
    Mismatch,
}

/// Why a stored state cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    #[error("the judge's state is of version {found}, and this is version {VERSION}")]
    Version { found: u64 },
    #[error("the judge's state cannot be read: {0}")]
    Unreadable(String),
}

impl State {
    /// Nothing seen yet. The dispersion was measured before, and is not touched any more.
    pub fn new(dispersion: Dispersion) -> Self {
        Self {
            version: VERSION,
            dispersion: dispersion.bounded(),
            until: 0.0,
            harm: Harm::default(),
            ladder: vec![Bets::default(); LADDER.len()],
            safe: Safe::default(),
            split: Split::default(),
            canary: Arm::default(),
            stable: Arm::default(),
            judged: 0,
            unusable: 0,
            problem: None,
            decision: None,
        }
    }

    /// Reads back what was stored. Whatever it is, what comes out can be judged with.
    pub fn read(json: &serde_json::Value) -> Result<Self, StateError> {
        let found = json.get("version").and_then(serde_json::Value::as_u64).unwrap_or_default();
        if found != u64::from(VERSION) {
            return Err(StateError::Version { found });
        }
        let state = Self::deserialize(json).map_err(|error| StateError::Unreadable(error.to_string()))?;
        let sound = state.until.is_finite()
            && state.ladder.len() == LADDER.len()
            && state.ladder.iter().all(Bets::valid)
            && state.harm.valid()
            && state.safe.valid()
            && state.split.valid();
        if sound {
            Ok(state)
        } else {
            Err(StateError::Unreadable("it holds values that no judging leads to".to_owned()))
        }
    }

    /// Adds what happened from `from` to `to`, in seconds since the analysis began. What began during the warm-up is left
    /// out, and so is what begins after the horizon or after a verdict.
    pub fn observe(&mut self, settings: &Settings, from: f64, to: f64, seen: Result<Interval, Unusable>) {
        if self.decision.is_some() {
            return;
        }
        // Of a time that is no number, neither comparison holds.
        if !(from >= self.until && to > from && to.is_finite()) {
            self.unusable(Unusable::Overlap);
            return;
        }
        self.until = to;
        if from < settings.warm_up || from >= settings.horizon {
            return;
        }
        let interval = match seen {
            Ok(interval) => interval,
            Err(problem) => return self.unusable(problem),
        };
        self.judged = self.judged.saturating_add(1);
        self.canary = self.canary.plus(interval.canary);
        self.stable = self.stable.plus(interval.stable);

        let dispersion = self.dispersion.of_interval(interval.clustering);
        self.harm.add(from, &interval, settings.margin, dispersion, settings.restarts());
        for (bets, ratio) in self.ladder.iter_mut().zip(LADDER) {
            if let Some(margin) = Margin::new(ratio, 0.0) {
                bets.add(&interval, margin, dispersion);
            }
        }
        self.safe.add(&interval, settings.safe, dispersion);
        if let Some(weight) = settings.weight {
            self.split.add(&interval, weight);
        }
        self.decision = self.reached(settings).map(|verdict| Decision { verdict, after: to });
    }

    /// Whether the canary is safe as things stand at the horizon: no more intervals come.
    pub fn conclude(&mut self, settings: &Settings) {
        if self.decision.is_none() && self.is_safe(settings) {
            self.decision = Some(Decision { verdict: Verdict::Safe, after: self.until });
        }
    }

    /// Whether and when the evidence sufficed.
    pub fn decision(&self) -> Option<Decision> {
        self.decision
    }

    /// Nats of evidence for harm, and for safety.
    pub fn evidence(&self, settings: &Settings) -> (f64, f64) {
        (self.harm.ln_e(settings.restarts()), self.safe.ln_e())
    }

    /// All that was judged: of the canary, and of stable.
    pub fn totals(&self) -> (Arm, Arm) {
        (self.canary, self.stable)
    }

    /// Whether both versions had requests: without, there is nothing to be undecided about.
    pub fn has_compared(&self) -> bool {
        self.canary.requests() > 0 && self.stable.requests() > 0
    }

    /// Seconds up to which intervals have been looked at.
    pub fn until(&self) -> f64 {
        self.until
    }

    pub fn dispersion(&self) -> Dispersion {
        self.dispersion
    }

    /// How many times stable's failure rate the canary's is at least, beyond what the margin allows, with the confidence of
    /// the alarm. `None` when the evidence from the beginning on does not say.
    pub fn at_least(&self, settings: &Settings) -> Option<f64> {
        // Only up to the first that is not certain: then the chance that one is wrong is that of a single test.
        let certain = self.ladder.iter().take_while(|bets| bets.ln_e() >= settings.bar()).count();
        let ratio = *LADDER.get(certain.checked_sub(1)?)?;
        (ratio > settings.margin.ratio()).then_some(ratio)
    }

    /// The smallest change that would have been seen, were the traffic until the horizon as it was so far.
    pub fn detectable(&self, settings: &Settings) -> Option<f64> {
        let so_far = (self.until.min(settings.horizon) - settings.warm_up).max(1.0);
        let times = ((settings.horizon - settings.warm_up) / so_far).max(1.0);
        let scaled = |arm: Arm| {
            let (failures, requests) = (arm.failures() as f64 * times, arm.requests() as f64 * times);
            Arm::parse(Side::Stable, failures, requests).unwrap_or(arm)
        };
        let (canary, stable) = (scaled(self.canary), scaled(self.stable));
        detectable::ratio(canary, stable, settings.margin, self.dispersion.factor(), settings.bar())
    }

    fn reached(&self, settings: &Settings) -> Option<Verdict> {
        if self.harm.ln_e(settings.restarts()) >= settings.bar() {
            return Some(Verdict::Harm);
        }
        if settings.weight.is_some() && self.split.mismatch() {
            return Some(Verdict::Mismatch);
        }
        (settings.early && self.is_safe(settings)).then_some(Verdict::Safe)
    }

    fn is_safe(&self, settings: &Settings) -> bool {
        self.safe.ln_e() >= settings.safe_bar()
    }

    fn unusable(&mut self, problem: Unusable) {
        self.unusable = self.unusable.saturating_add(1);
        self.problem = Some(problem);
    }
}

impl Settings {
    /// Nats of evidence for an alarm.
    pub fn bar(&self) -> f64 {
        budget::bar(self.alpha, self.metrics)
    }

    /// Nats of evidence for safety.
    pub fn safe_bar(&self) -> f64 {
        (1.0 / self.beta).ln()
    }

    fn restarts(&self) -> Restarts {
        Restarts::within(self.horizon)
    }
}

#[cfg(test)]
mod oracle;
#[cfg(test)]
mod tests;
