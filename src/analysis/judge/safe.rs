//! Evidence that the canary is no worse than a margin: the mirror of [`super::harm`].
//!
//! Null hypothesis: in every interval the canary's failure rate is at least `ratio × stable's + absolute`. The bets are that it
//! is `a` times that, for each `a` of [`GRID`]; `b = 1 + ratio (1 − a) n_c / n_s`, and
//!
//! ```text
//! ln W += x_c · ln a + x_s · ln b + n_c · (1 − a) · absolute
//! ```
//!
//! Silence proves something only where failures were to be expected: without an absolute margin and without failures of stable
//! no number of good requests is evidence.

use serde::{Deserialize, Serialize};

use super::counts::Interval;
use super::harm::{Margin, ln_mean_exp};

/// What share of the rate that would be too high the bets are on. All count the same.
pub const GRID: [f64; 6] = [0.0, 0.2, 0.4, 0.6, 0.75, 0.9];

/// The logarithm of each stake. The bet on no failures at all is lost for good by the first one: `None`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Safe(#[serde(with = "super::stored")] [Option<f64>; GRID.len()]);

impl Default for Safe {
    fn default() -> Self {
        Self([Some(0.0); GRID.len()])
    }
}

impl Safe {
    /// Adds an interval. `dispersion` (at least 1) is how many failures come together: as many count as one.
    pub fn add(&mut self, interval: &Interval, margin: Margin, dispersion: f64) {
        let (n_c, n_s) = (interval.canary.requests() as f64, interval.stable.requests() as f64);
        if n_c == 0.0 || n_s == 0.0 {
            // A lost bet stays lost, though.
            if interval.canary.failures() > 0 {
                self.0[0] = None;
            }
            return;
        }
        let (x_c, x_s) = (interval.canary.failures() as f64, interval.stable.failures() as f64);
        for (stake, a) in self.0.iter_mut().zip(GRID) {
            let canary = match x_c {
                0.0 => 0.0,
                _ if a == 0.0 => {
                    *stake = None;
                    continue;
                }
                _ => x_c * a.ln(),
            };
            let stable = x_s * (margin.ratio() * (1.0 - a) * n_c / n_s).ln_1p();
            if let Some(stake) = stake {
                *stake += (canary + stable + n_c * (1.0 - a) * margin.absolute()) / dispersion;
            }
        }
    }

    /// Nats of evidence.
    pub fn ln_e(&self) -> f64 {
        ln_mean_exp(&self.0.map(|stake| stake.unwrap_or(f64::NEG_INFINITY)))
    }

    pub(super) fn valid(&self) -> bool {
        self.0.iter().flatten().all(|stake| stake.is_finite())
    }
}
