//! What a judge may count on: requests and failures of both arms in one interval, parsed from numbers of any origin.

use serde::{Deserialize, Serialize};

/// The largest count that a float tells from its neighbours: 2⁵³.
const LARGEST: f64 = 9_007_199_254_740_992.0;

/// Which of the two versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    Canary,
    Stable,
}

/// Requests of one version, and how many of them failed (or were too slow). Never more failures than requests, and neither
/// above 2⁵³.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(u64, u64)", into = "(u64, u64)")]
pub struct Arm {
    requests: u64,
    failures: u64,
}

/// What both versions did in the same stretch of time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Interval {
    pub canary: Arm,
    pub stable: Arm,
    /// How many failures came together in it on stable's pods, where each has counters of its own.
    pub clustering: Option<f64>,
}

/// Why an interval tells nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "camelCase")]
pub enum Unusable {
    #[error("no data from {0}")]
    NoData(Side),
    #[error("a count of {0} is not a number")]
    NotANumber(Side),
    #[error("a count of {0} is infinite")]
    Infinite(Side),
    #[error("a count of {0} is negative, as after a counter reset")]
    Negative(Side),
    #[error("a count of {0} is above 2^53")]
    TooLarge(Side),
    #[error("{0} has more failures than requests")]
    MoreFailuresThanRequests(Side),
    #[error("the intervals overlap")]
    Overlap,
}

impl Arm {
    /// From whole counts. More failures than requests are an error of whoever counted.
    pub fn new(failures: u64, requests: u64) -> Option<Self> {
        (failures <= requests && requests as f64 <= LARGEST).then_some(Self { requests, failures })
    }

    /// From what a monitoring system answers. Fractions come from its extrapolation: failures are rounded down and
    /// requests up, so that no rounding makes a version look worse than it was.
    pub fn parse(side: Side, failures: f64, requests: f64) -> Result<Self, Unusable> {
        for count in [failures, requests] {
            if count.is_nan() {
                return Err(Unusable::NotANumber(side));
            }
            if count.is_infinite() {
                return Err(Unusable::Infinite(side));
            }
            if count < 0.0 {
                return Err(Unusable::Negative(side));
            }
            if count > LARGEST {
                return Err(Unusable::TooLarge(side));
            }
        }
        Self::new(failures.floor() as u64, requests.ceil() as u64).ok_or(Unusable::MoreFailuresThanRequests(side))
    }

    /// The same from a count of good requests, such as those of a histogram's bucket `le`: the rest failed.
    pub fn parse_good(side: Side, good: f64, requests: f64) -> Result<Self, Unusable> {
        if good > requests {
            return Err(Unusable::MoreFailuresThanRequests(side));
        }
        // The two may be infinite or no numbers; their difference is refused for what they are.
        Self::parse(side, good, requests)?;
        Self::parse(side, requests - good, requests)
    }

    pub fn requests(self) -> u64 {
        self.requests
    }

    pub fn failures(self) -> u64 {
        self.failures
    }

    /// Failures for each request, `None` without requests.
    pub fn rate(self) -> Option<f64> {
        (self.requests > 0).then(|| self.failures as f64 / self.requests as f64)
    }

    /// Both together; a sum that a count cannot hold stays at the largest.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        let requests = self.requests.saturating_add(other.requests).min(LARGEST as u64);
        let failures = self.failures.saturating_add(other.failures).min(requests);
        Self { requests, failures }
    }
}

impl Interval {
    /// Of versions whose pods are not told apart.
    pub fn new(canary: Arm, stable: Arm) -> Self {
        Self { canary, stable, clustering: None }
    }
}

/// What is read back may have been edited: it is made valid.
impl From<(u64, u64)> for Arm {
    fn from((failures, requests): (u64, u64)) -> Self {
        let requests = requests.min(LARGEST as u64);
        Self { requests, failures: failures.min(requests) }
    }
}

impl From<Arm> for (u64, u64) {
    fn from(arm: Arm) -> Self {
        (arm.failures, arm.requests)
    }
}

impl std::fmt::Display for Side {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Canary => "canary",
            Self::Stable => "stable",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_are_no_counts_are_refused_by_name() {
        let side = Side::Canary;
        for (failures, requests, problem) in [
            (f64::NAN, 1.0, Unusable::NotANumber(side)),
            (1.0, f64::NAN, Unusable::NotANumber(side)),
            (0.0, f64::INFINITY, Unusable::Infinite(side)),
            (f64::NEG_INFINITY, 1.0, Unusable::Infinite(side)),
            (-1.0, 5.0, Unusable::Negative(side)),
            (0.0, -0.5, Unusable::Negative(side)),
            (0.0, 1e16, Unusable::TooLarge(side)),
            (2.0, 1.0, Unusable::MoreFailuresThanRequests(side)),
        ] {
            assert_eq!(Arm::parse(side, failures, requests), Err(problem), "{failures} of {requests}");
        }
        assert_eq!(Arm::parse_good(side, 2.0, 1.0), Err(Unusable::MoreFailuresThanRequests(side)));
        assert_eq!(Arm::parse_good(side, f64::NAN, 1.0), Err(Unusable::NotANumber(side)));
        assert_eq!(Arm::parse_good(side, f64::INFINITY, f64::INFINITY), Err(Unusable::Infinite(side)));
    }

    #[test]
    fn rounding_never_makes_a_version_look_worse() {
        assert_eq!(Arm::parse(Side::Canary, 1.9, 10.1), Ok(Arm { failures: 1, requests: 11 }));
        assert_eq!(Arm::parse_good(Side::Canary, 9.5, 10.4), Ok(Arm { failures: 0, requests: 11 }));
        assert_eq!(Arm::parse(Side::Stable, -0.0, 0.0), Ok(Arm::default()));
    }
}
