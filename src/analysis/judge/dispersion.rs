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
/// What came together in one interval replaces what is usual when it is more than so many times as much: less is chance.
const FAR: f64 = 3.0;
/// One-sided 95% of a normal distribution.
const UPPER: f64 = 1.645;

/// In an outage a pod fails more than so many times as often as usual. Pods that fail more than others for good are never taken
/// for one: the usual is that of all pods, and half of them cannot be above twice the average of all.
const OUTAGE_TIMES: f64 = 2.0;
/// And it has so many failures more in a minute: fewer may be a burst or two, and an outage of so few hardly moves the estimate.
const OUTAGE_FAILURES: f64 = 10.0;

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

    /// That of one interval, in which so many failures came together ([`clustering`]).
    pub fn of_interval(self, clustering: Option<f64>) -> f64 {
        let usual = self.factor();
        clustering.filter(|clustering| *clustering > FAR * usual).unwrap_or(usual)
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

    /// The dispersion of failures between the pods of one version, each minute on its own: what all pods fail together says
    /// nothing about bursts. Outages are left out. The upper end of what is plausible is taken, by leaving out one minute after the
    /// other.
    ///
    /// It must be measured before the analysis begins and not be touched afterwards.
    pub fn between_pods(minutes: &[Vec<Arm>]) -> Self {
        let quiet = quiet(minutes);
        let parts: Vec<(f64, f64)> = quiet.iter().map(|pods| squares(pods)).filter(|(_, norm)| *norm > 0.0).collect();
        let failures = quiet.iter().map(|pods| sum(pods).failures()).sum::<u64>();
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

/// How many failures of one interval came together on a version's pods, by Pearson's statistic. `None` without failures, or of a single
/// pod.
///
/// Pods are scraped at different seconds: of the interval in which an outage begins one has more than another, and so has the canary.
/// The evidence of an interval may be divided by it without spoiling the error bounds: given what failed in all, how it is divided among
/// stable's pods says nothing about how it was divided between stable and canary, and `E[W^(1/c)] ≤ E[W]^(1/c) ≤ 1` for any `c ≥ 1`.
pub fn clustering(pods: &[Arm]) -> Option<f64> {
    let (squares, norm) = squares(pods);
    (norm > 0.0).then(|| squares / norm)
}

/// The minutes without outages: without those in which most pods failed far more than usual, and without their neighbours.
///
/// Each minute is compared with itself only, so an outage of all pods would do no harm if their minutes were the same. But pods
/// are scraped at different seconds: of the minutes in which an outage begins and ends one pod has more than another, which looks
/// like a burst of hundreds. Such a minute may have too few of the pods in it to be known for what it is; the others then have it
/// in the minute beside it, since no two pods are a minute apart. And in the midst of an outage failures need not come together
/// as they usually do, yet there would be more of them than in all the rest of the hour.
///
/// Bursts of single pods stay, however large: it takes half of the pods, and at least two, in the same minute.
fn quiet(minutes: &[Vec<Arm>]) -> Vec<&[Arm]> {
    let usual = usual(minutes);
    let outages: Vec<bool> = minutes.iter().map(|pods| is_outage(pods, usual)).collect();
    let near = |minute: usize| outages[minute.saturating_sub(1)..(minute + 2).min(outages.len())].contains(&true);
    minutes.iter().enumerate().filter(|(minute, _)| !near(*minute)).map(|(_, pods)| pods.as_slice()).collect()
}

/// The failures for each request that half of the minutes do not exceed.
fn usual(minutes: &[Vec<Arm>]) -> f64 {
    let mut rates: Vec<f64> = minutes.iter().filter_map(|pods| sum(pods).rate()).collect();
    rates.sort_by(f64::total_cmp);
    rates.get(rates.len().saturating_sub(1) / 2).copied().unwrap_or_default()
}

fn is_outage(pods: &[Arm], usual: f64) -> bool {
    let fails = |pod: &&Arm| pod.failures() as f64 > OUTAGE_TIMES * usual * pod.requests() as f64 + OUTAGE_FAILURES;
    pods.iter().filter(fails).count() >= pods.len().div_ceil(2).max(2)
}

fn sum(pods: &[Arm]) -> Arm {
    pods.iter().fold(Arm::default(), |sum, pod| sum.plus(*pod))
}

/// The squared deviations of a minute's pods from their share of its failures, and what they would be for single failures.
fn squares(pods: &[Arm]) -> (f64, f64) {
    let all = sum(pods);
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
    fn of_a_single_interval_it_is_what_its_pods_show() {
        assert_eq!(clustering(&pods(&[1, 0, 0])), Some(1.0));
        assert_eq!(clustering(&pods(&[30, 30, 30])), Some(0.0));
        // (200² + 100² + 100²) / (300 · 2/3)
        assert_eq!(clustering(&pods(&[300, 0, 0])), Some(300.0));
        for nothing in [&[][..], &[7], &[0, 0]] {
            assert_eq!(clustering(&pods(nothing)), None);
        }
        let usual = Dispersion::Given(2.0);
        assert_eq!([None, Some(0.0), Some(6.0), Some(300.0)].map(|it| usual.of_interval(it)), [2.0, 2.0, 2.0, 300.0]);
    }

    /// An hour in which half of four pods have a failure each minute, with other counts in some minutes.
    fn hour(other: &[(usize, [u64; 4])]) -> Vec<Vec<Arm>> {
        let quiet = |minute: u64| pods(&[minute % 2, (minute + 1) % 2, 1, 0]);
        let mut minutes: Vec<Vec<Arm>> = (0..60).map(quiet).collect();
        other.iter().for_each(|(minute, failures)| minutes[*minute] = pods(failures));
        minutes
    }

    #[test]
    fn the_edges_of_a_shared_outage_are_no_bursts() {
        let measured = |other: &[(usize, [u64; 4])]| Dispersion::between_pods(&hour(other));
        let Dispersion::Measured(quiet) = measured(&[]) else { panic!("it was assumed") };
        for (what, outage) in [
            (
                "pods are scraped at different seconds",
                vec![(30, [5, 50, 150, 200]), (31, [200; 4]), (32, [195, 150, 50, 1])],
            ),
            (
                "only one pod has its beginning",
                vec![(29, [0, 80, 0, 1]), (30, [200; 4]), (31, [200; 4]), (32, [0, 1, 0, 90])],
            ),
            ("one of seconds is divided between two minutes", vec![(30, [30, 28, 0, 1]), (31, [1, 0, 31, 33])]),
            ("one pod has none of it", vec![(30, [60, 0, 90, 120]), (31, [140, 1, 130, 100])]),
            ("it is there when the hour begins", vec![(0, [200; 4]), (1, [10, 50, 100, 150])]),
            ("it is still there when the hour ends", vec![(58, [100, 50, 10, 0]), (59, [200; 4])]),
        ] {
            let Dispersion::Measured(factor) = measured(&outage) else { panic!("{what}: it was assumed") };
            assert!((factor - quiet).abs() < 0.1, "{what}: {factor} instead of {quiet}");
        }
    }

    #[test]
    fn bursts_count_however_large_unless_most_pods_share_them() {
        for (what, bursts, least) in [
            ("of one pod", vec![(30, [200, 0, 1, 0])], 20.0),
            ("of one pod after another", vec![(20, [60, 0, 1, 0]), (21, [0, 60, 1, 0]), (22, [0, 1, 60, 0])], 20.0),
            ("of one pod for long", (20..40).map(|minute| (minute, [60, 1, 0, 1])).collect(), 20.0),
            ("small, of two pods at once", (0..60).step_by(4).map(|minute| (minute, [9, 0, 1, 8])).collect(), 4.0),
        ] {
            let Dispersion::Measured(factor) = Dispersion::between_pods(&hour(&bursts)) else { panic!("{what}") };
            assert!(factor > least, "{what}: {factor}");
        }
        // Of two pods, both must be in it.
        let pairs = |burst: [u64; 2]| -> Vec<Vec<Arm>> {
            (0..60).map(|minute| if minute == 30 { pods(&burst) } else { pods(&[minute % 2, 1]) }).collect()
        };
        assert!(Dispersion::between_pods(&pairs([100, 1])).factor() > 20.0);
        assert!(Dispersion::between_pods(&pairs([100, 60])).factor() < 1.5);
    }

    #[test]
    fn pods_that_are_bad_for_good_are_no_outage() {
        let minutes = vec![pods(&[100, 100, 1, 1]); 60];
        let Dispersion::Measured(factor) = Dispersion::between_pods(&minutes) else { panic!("it was assumed") };
        assert!(factor > 20.0, "{factor}");
    }

    #[test]
    fn what_is_left_beside_an_outage_may_be_too_little() {
        let mut minutes = vec![pods(&[0, 0, 0]); 60];
        minutes[10] = pods(&[1, 2, 1]);
        minutes[30] = pods(&[200, 150, 100]);
        assert_eq!(Dispersion::between_pods(&minutes), Dispersion::Assumed);
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
