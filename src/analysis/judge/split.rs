//! Whether routing does what the weight says. A canary that gets other requests than it should is not judged by them.
//!
//! The same evidence as [`super::harm`], with the request itself as the event: given that a request came, it went to the canary with
//! at most (or at least) the odds of the weight.

use serde::{Deserialize, Serialize};

use super::counts::Interval;
use super::harm::Bets;

/// How many times the odds are still all right: routers round, and clients keep their connections for a while after a change.
const TOLERANCE: f64 = 1.5;
/// Requests that go one way together, as those of one connection or one session do.
const TOGETHER: f64 = 20.0;
/// The smallest share that is looked after, at either end.
const LEAST: f64 = 1e-6;
/// The chance of a false alarm, for both directions together.
pub const ALPHA: f64 = 0.0005;

/// Evidence for more and for fewer requests than the weight says.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Split {
    #[serde(rename = "m")]
    more: Bets,
    #[serde(rename = "f")]
    fewer: Bets,
    /// The requests of the canary, and all.
    #[serde(rename = "n")]
    requests: (u64, u64),
    /// How many of all the weights gave to the canary.
    #[serde(rename = "e")]
    expected: f64,
}

impl Split {
    /// Adds an interval during which the canary's share of the requests was set to `weight`. At the very ends there is nothing
    /// to be compared.
    pub fn add(&mut self, interval: &Interval, weight: f64) {
        if !(LEAST..=1.0 - LEAST).contains(&weight) {
            return;
        }
        let (canary, stable) = (interval.canary.requests() as f64, interval.stable.requests() as f64);
        let odds = weight / (1.0 - weight);
        self.more.add_events(canary, stable, TOLERANCE * odds, TOGETHER);
        self.fewer.add_events(stable, canary, TOLERANCE / odds, TOGETHER);
        let all = interval.canary.plus(interval.stable).requests();
        self.requests.0 = self.requests.0.saturating_add(interval.canary.requests());
        self.requests.1 = self.requests.1.saturating_add(all);
        self.expected += weight * all as f64;
    }

    /// The requests that were looked at: of the canary, and all.
    pub fn requests(&self) -> (u64, u64) {
        self.requests
    }

    /// How many of all the canary should have got.
    pub fn expected(&self) -> f64 {
        self.expected
    }

    /// Whether the requests are not split as they should be.
    pub fn mismatch(&self) -> bool {
        let bar = (2.0 / ALPHA).ln();
        self.more.ln_e() >= bar || self.fewer.ln_e() >= bar
    }

    pub(super) fn valid(&self) -> bool {
        self.more.valid() && self.fewer.valid() && self.expected.is_finite()
    }
}

#[cfg(test)]
mod tests {
    use super::super::counts::Arm;
    use super::*;

    fn mismatch(canary: u64, stable: u64, weight: f64, intervals: usize) -> bool {
        let arm = |requests| Arm::new(0, requests).unwrap();
        let interval = Interval::new(arm(canary), arm(stable));
        let mut split = Split::default();
        (0..intervals).for_each(|_| split.add(&interval, weight));
        split.mismatch()
    }

    #[test]
    fn a_canary_that_gets_other_traffic_than_set_is_noticed() {
        for (canary, stable, weight, expected) in [
            (300, 5700, 0.05, false),
            (360, 5640, 0.05, false),
            (1500, 4500, 0.05, true),
            (0, 6000, 0.05, true),
            (3000, 3000, 0.05, true),
            (5700, 300, 0.95, false),
            (300, 5700, 0.95, true),
            (6000, 0, 1.0, false),
            (10, 10, f64::NAN, false),
        ] {
            assert_eq!(mismatch(canary, stable, weight, 30), expected, "{canary}:{stable} at {weight}");
        }
        assert!(!mismatch(3, 1, 0.05, 1), "a handful of requests proves nothing");
    }
}
