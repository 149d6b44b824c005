//! Evidence that the canary is worse than its margin allows, which may be looked at whenever one likes.
//!
//! Null hypothesis: in every interval the canary's failure rate is at most `ratio × stable's + absolute`, whatever stable's rate
//! is and however it moves. Against it stands a bet that the canary fails `g` times as often as the margin allows, for
//! each `g` of [`GRID`]. Given the interval's traffic let
//!
//! ```text
//! odds = ratio · n_c / n_s      b = 1 / (1 + (g − 1) · odds / (1 + odds))      a = g · b
//! ln W += x_c · ln a + x_s · ln b − n_c · (a − 1) · absolute
//! ```
//!
//! Since `n_s (1 − b) = ratio · n_c (a − 1)`, the expected factor is at most `exp(n_c (a − 1)(p_c − ratio · p_s − absolute)) ≤ 1`
//! under the null. So `W`, and the mean of all `W`, is a supermartingale that starts at 1, and by Ville's inequality the
//! chance that it ever reaches 1/α is at most α: at any number of looks, with any weights chosen beforehand.

use serde::{Deserialize, Serialize};

use super::counts::Interval;

/// How many times the allowed rate the bets are on. All count the same.
pub const GRID: [f64; 8] = [1.25, 1.6, 2.0, 3.0, 5.0, 10.0, 30.0, 100.0];

/// Seconds between the times from which the evidence is collected anew, so that a canary that turns bad late is not
/// outweighed by its good past.
const RESTART: f64 = 600.0;
/// Restarts at most, whatever the horizon: the state stays below a few kilobytes.
const RESTARTS: usize = 24;

/// How much worse than stable is still all right: a failure rate of `ratio × stable's + absolute`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Margin {
    ratio: f64,
    absolute: f64,
}

/// The logarithm of each bet's stake.
type Stakes = [f64; GRID.len()];

/// The evidence from the beginning on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Bets(#[serde(with = "super::stored::whole")] Stakes);

/// When the evidence is collected anew: fixed before anything is seen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Restarts {
    count: usize,
    /// Seconds.
    spacing: f64,
}

/// Half of the stake on the evidence from the beginning, half spread over later beginnings.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Harm {
    #[serde(rename = "w")]
    whole: Bets,
    /// Those that have begun.
    #[serde(rename = "r", default)]
    restarted: Vec<Bets>,
}

impl Margin {
    /// `ratio` from 1 to 1000, `absolute` (a share of requests) from 0 to below 1.
    pub fn new(ratio: f64, absolute: f64) -> Option<Self> {
        ((1.0..=1000.0).contains(&ratio) && (0.0..1.0).contains(&absolute)).then_some(Self { ratio, absolute })
    }

    pub fn ratio(self) -> f64 {
        self.ratio
    }

    pub fn absolute(self) -> f64 {
        self.absolute
    }
}

impl Bets {
    /// Adds an interval. `dispersion` (at least 1) is how many failures come together: as many count as one.
    pub fn add(&mut self, interval: &Interval, margin: Margin, dispersion: f64) {
        let (n_c, n_s) = (interval.canary.requests() as f64, interval.stable.requests() as f64);
        if n_c == 0.0 || n_s == 0.0 {
            // One version alone says nothing about their ratio.
            return;
        }
        let (x_c, x_s) = (interval.canary.failures() as f64, interval.stable.failures() as f64);
        let odds = margin.ratio * n_c / n_s;
        for (stake, g) in self.0.iter_mut().zip(GRID) {
            let (ln_a, ln_b) = ln_factors(g, odds);
            *stake += (x_c * ln_a + x_s * ln_b - n_c * ln_a.exp_m1() * margin.absolute) / dispersion;
        }
    }

    /// The logarithm of the mean stake: nats of evidence.
    pub fn ln_e(&self) -> f64 {
        ln_mean_exp(&self.0)
    }

    /// For events of two kinds at given odds, when the counts themselves are the events.
    pub(super) fn add_events(&mut self, own: f64, others: f64, odds: f64, dispersion: f64) {
        for (stake, g) in self.0.iter_mut().zip(GRID) {
            let (ln_a, ln_b) = ln_factors(g, odds);
            *stake += (own * ln_a + others * ln_b) / dispersion;
        }
    }

    #[cfg(test)]
    pub(super) fn stakes(&self) -> &Stakes {
        &self.0
    }
}

impl Restarts {
    pub const NONE: Self = Self { count: 0, spacing: RESTART };

    /// Every ten minutes within the horizon (in seconds), or less often so that there are at most 24.
    pub fn within(horizon: f64) -> Self {
        let spacing = (horizon / (RESTARTS + 1) as f64).max(RESTART);
        let count = ((horizon / spacing).ceil() - 1.0).clamp(0.0, RESTARTS as f64);
        // NaN becomes 0.
        Self { count: count as usize, spacing }
    }
}

impl Harm {
    /// Adds an interval that began `from` seconds after the judging did.
    pub fn add(&mut self, from: f64, interval: &Interval, margin: Margin, dispersion: f64, restarts: Restarts) {
        self.whole.add(interval, margin, dispersion);
        let begun = (from / restarts.spacing).floor().clamp(0.0, restarts.count as f64) as usize;
        // A restart that comes while nothing is measured begins with the next interval.
        self.restarted.resize(begun.max(self.restarted.len()), Bets::default());
        for bets in &mut self.restarted {
            bets.add(interval, margin, dispersion);
        }
    }

    /// Nats of evidence: `ln(½ E₀ + ½ mean E_j)`, where what has not begun yet is 1.
    pub fn ln_e(&self, restarts: Restarts) -> f64 {
        let whole = self.whole.ln_e();
        if restarts.count == 0 {
            return whole;
        }
        let mut later: Vec<f64> = self.restarted.iter().take(restarts.count).map(Bets::ln_e).collect();
        later.resize(restarts.count, 0.0);
        ln_mean_exp(&[whole, ln_mean_exp(&later)])
    }

    pub(super) fn valid(&self) -> bool {
        self.restarted.len() <= RESTARTS && self.restarted.iter().chain([&self.whole]).all(Bets::valid)
    }
}

impl Bets {
    pub(super) fn valid(&self) -> bool {
        self.0.iter().all(|stake| stake.is_finite())
    }
}

/// `ln a` and `ln b` of a bet on `g` times the odds.
fn ln_factors(g: f64, odds: f64) -> (f64, f64) {
    // As n_c / (n_c + n_s) it would lose digits where one is much larger than the other.
    let ln_b = -((g - 1.0) * (odds / (1.0 + odds))).ln_1p();
    (g.ln() + ln_b, ln_b)
}

/// `ln(mean(exp(values)))`, without leaving the range of floats; −∞ for none.
pub(super) fn ln_mean_exp(values: &[f64]) -> f64 {
    let largest = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if !largest.is_finite() {
        return largest;
    }
    let sum: f64 = values.iter().map(|value| (value - largest).exp()).sum();
    largest + (sum / values.len() as f64).ln()
}
