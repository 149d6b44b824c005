//! How many failures come together. Counts of bursts are not Poisson, and a test that takes them for it calls a third of all
//! healthy releases bad. The evidence is divided by the size of a burst.

use serde::{Deserialize, Serialize};

use super::counts::Arm;

/// What is assumed when it cannot be measured: bursts of a geometric size with mean 2.
const ASSUMED: f64 = 3.0;
/// More than this cannot be told from a service that fails as a whole.
const LARGEST: f64 = 50.0;
/// Failures below which an estimate is worth nothing.
const FEWEST_FAILURES: u64 = 20;
/// One-sided 95% of a normal distribution.
const UPPER: f64 = 1.645;

/// Variance over mean of failures, at least 1.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dispersion {
    /// From how the pods of stable differed within minutes before the analysis began.
    Measured(f64),
    /// As the user says.
    Given(f64),
    /// There was nothing to measure it by.
    Assumed,
}

impl Dispersion {
    /// From 1 to 50, whatever was measured or given.
    pub fn factor(self) -> f64 {
        match self {
            Self::Measured(factor) | Self::Given(factor) if factor >= 1.0 => factor.min(LARGEST),
            Self::Measured(_) | Self::Given(_) => 1.0,
            Self::Assumed => ASSUMED,
        }
    }

    /// The same with a factor that can be stored.
    #[must_use]
    pub fn bounded(self) -> Self {
        match self {
            Self::Measured(_) => Self::Measured(self.factor()),
            Self::Given(_) => Self::Given(self.factor()),
            Self::Assumed => Self::Assumed,
        }
    }

    /// The dispersion of failures between the pods of one version, each minute on its own: an outage of all pods at once says
    /// nothing about bursts. The upper end of what is plausible is taken, by leaving out one minute after the other.
    ///
    /// It must be measured before the analysis begins and not be touched afterwards.
    pub fn between_pods(minutes: &[Vec<Arm>]) -> Self {
        let parts: Vec<(f64, f64)> = minutes.iter().map(|pods| squares(pods)).filter(|(_, norm)| *norm > 0.0).collect();
        let failures = minutes.iter().flatten().fold(Arm::default(), |sum, pod| sum.plus(*pod)).failures();
        if parts.len() < 2 || failures < FEWEST_FAILURES {
            return Self::Assumed;
        }
        let (squares, norm) = parts.iter().fold((0.0, 0.0), |sum, part| (sum.0 + part.0, sum.1 + part.1));
        let left_out: Vec<f64> = parts
            .iter()
            .filter(|(_, own)| norm - own > 0.0)
            .map(|(own_squares, own)| (squares - own_squares) / (norm - own))
            .collect();
        let count = left_out.len() as f64;
        if count < 2.0 {
            return Self::Assumed;
        }
        let mean = left_out.iter().sum::<f64>() / count;
        let variance = left_out.iter().map(|value| (value - mean).powi(2)).sum::<f64>() * (count - 1.0) / count;
        let upper = squares / norm + UPPER * variance.sqrt();
        // In thousandths: nobody knows it better, and so few digits are stored exactly.
        let upper = (upper * 1e3).round() / 1e3;
        if upper.is_finite() { Self::Measured(upper.clamp(1.0, LARGEST)) } else { Self::Assumed }
    }
}

/// The squared deviations of a minute's pods from their share of its failures, and what they would be for single failures.
fn squares(pods: &[Arm]) -> (f64, f64) {
    let all = pods.iter().fold(Arm::default(), |sum, pod| sum.plus(*pod));
    if all.requests() == 0 {
        return (0.0, 0.0);
    }
    pods.iter().fold((0.0, 0.0), |(squares, norm), pod| {
        let share = pod.requests() as f64 / all.requests() as f64;
        let expected = all.failures() as f64 * share;
        (squares + (pod.failures() as f64 - expected).powi(2), norm + expected * (1.0 - share))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pods(failures: &[u64]) -> Vec<Arm> {
        failures.iter().map(|failures| Arm::new(*failures, 1000).unwrap()).collect()
    }

    #[test]
    fn a_shared_outage_is_no_burst() {
        let quiet: Vec<Vec<Arm>> = (0..60).map(|minute| pods(&[minute % 2, (minute + 1) % 2, 1, 0])).collect();
        let mut outage = quiet.clone();
        outage[30] = pods(&[100, 100, 100, 100]);
        let factor = |minutes: &[Vec<Arm>]| Dispersion::between_pods(minutes).factor();
        assert!(factor(&quiet) < 1.5, "{}", factor(&quiet));
        assert!(factor(&outage) < 1.5, "{}", factor(&outage));
    }

    #[test]
    fn bursts_of_single_pods_are_counted() {
        // Each minute one pod has five failures at once.
        let minutes: Vec<Vec<Arm>> =
            (0..60).map(|minute| pods(&[0, 1, 2, 3].map(|pod| if minute % 4 == pod { 5 } else { 0 }))).collect();
        let Dispersion::Measured(factor) = Dispersion::between_pods(&minutes) else { panic!("it was assumed") };
        assert!((factor - 5.0).abs() < 1e-9, "{factor}");
    }

    #[test]
    fn what_cannot_be_measured_is_assumed() {
        for minutes in [vec![], vec![pods(&[30, 30])], vec![pods(&[30]); 60], vec![pods(&[0, 0]); 60]] {
            assert_eq!(Dispersion::between_pods(&minutes), Dispersion::Assumed);
        }
        for factor in [0.0, -3.0, f64::NAN] {
            assert_eq!(Dispersion::Given(factor).factor(), 1.0);
        }
        assert_eq!(Dispersion::Given(f64::INFINITY).factor(), 50.0);
    }
}
