//! The releases of the corpus: what each version did, and what went on around it. All of it follows from a seed.

use fastrand::Rng;

/// Seconds before the analysis in which stable runs already.
pub const BEFORE: i64 = 4500;
/// Seconds that are judged, and those before it that are not.
pub const HORIZON: i64 = 1800;
pub const WARM_UP: i64 = 60;

/// What may make a release hard to judge. A release may have several.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trouble {
    /// Failures come together.
    Bursts,
    /// Pods fail more or less often than others, for good.
    Pods,
    /// The traffic rises or falls by half within the hour.
    Diurnal,
    /// Everything fails for some minutes, or did so in the hour before.
    Outage,
    /// A bad canary turns bad minutes after it began.
    Late,
    /// Pods are restarted: their counters begin anew.
    Resets,
    /// Scrapes are missing.
    Gaps,
}

pub const TROUBLES: [Trouble; 7] =
    [Trouble::Bursts, Trouble::Pods, Trouble::Diurnal, Trouble::Outage, Trouble::Late, Trouble::Resets, Trouble::Gaps];

/// One release.
#[derive(Clone, Debug)]
pub struct Release {
    pub seed: u64,
    /// Times stable's failure rate that the canary's is: 1 or 1.1 for good ones, which the margin allows.
    pub times: f64,
    /// Of stable.
    pub failure_rate: f64,
    /// Requests in a second, of both versions.
    pub rate: f64,
    /// The canary's part of them.
    pub weight: f64,
    pub canary_pods: usize,
    pub stable_pods: usize,
    pub troubles: Vec<Trouble>,
    /// Mean size of a burst of failures.
    pub burst: f64,
    /// Standard deviation of the logarithm of the pods' failure rates.
    pub spread: f64,
    /// What the traffic becomes, times what it is, from one end to the other.
    pub swing: f64,
    /// Share of requests that fail in the outage, and when that begins and ends.
    pub outage: Option<(f64, i64, i64)>,
    /// Second from which the canary is bad.
    pub onset: i64,
    /// Seconds from one scrape of a pod to the next.
    pub scrape: i64,
}

impl Release {
    pub fn is_bad(&self) -> bool {
        self.times > 1.25
    }

    pub fn has(&self, trouble: Trouble) -> bool {
        self.troubles.contains(&trouble)
    }

    /// The failure rate of stable in the scrape period that ends at a second.
    pub fn base(&self, at: i64) -> f64 {
        let outage = self.outage.map_or(0.0, |(share, from, to)| share * self.part(at, from, to));
        self.failure_rate + outage
    }

    /// That of the canary.
    pub fn canary(&self, at: i64) -> f64 {
        let more = (self.times - 1.0) * self.part(at, self.onset, i64::MAX);
        // An outage hits both alike: what fails by it does not fail more often for a bad version.
        (self.base(at) + self.failure_rate * more).min(1.0)
    }

    /// How much of the scrape period that ends at a second lies between two others.
    fn part(&self, at: i64, from: i64, to: i64) -> f64 {
        (at.min(to) - (at - self.scrape).max(from)).max(0) as f64 / self.scrape as f64
    }

    /// Requests in a second, at a second.
    pub fn traffic(&self, at: i64) -> f64 {
        let part = (at + BEFORE) as f64 / (BEFORE + HORIZON) as f64;
        self.rate * (1.0 + (self.swing - 1.0) * part.clamp(0.0, 1.0))
    }

    /// Variance over mean of the failures, of bursts of a geometric size.
    pub fn dispersion(&self) -> f64 {
        2.0 * self.burst - 1.0
    }
}

/// The corpus: of three releases one is bad.
pub fn corpus(seed: u64, count: usize) -> Vec<Release> {
    (0..count as u64)
        .map(|number| release(seed.wrapping_mul(1_000_003).wrapping_add(number), number % 3 == 0))
        .collect()
}

/// Good releases of one canary pod, in the midst of which a fifth of all requests begins to fail.
pub fn outages(seed: u64, count: usize, stable_pods: usize, scrape: i64) -> Vec<Release> {
    let good = |number: u64| {
        let mut rng = Rng::with_seed(seed.wrapping_mul(1_000_003).wrapping_add(number));
        let from = rng.i64(120..HORIZON - 400);
        Release {
            seed: rng.u64(..),
            times: 1.0,
            failure_rate: 0.001,
            rate: 100.0,
            weight: 1.0 / (1 + stable_pods) as f64,
            canary_pods: 1,
            stable_pods,
            troubles: vec![Trouble::Outage],
            burst: 1.0,
            spread: 0.0,
            swing: 1.0,
            outage: Some((0.2, from, from + rng.i64(120..360))),
            onset: 0,
            scrape,
        }
    };
    (0..count as u64).map(good).collect()
}

fn release(seed: u64, bad: bool) -> Release {
    let mut rng = Rng::with_seed(seed);
    let rng = &mut rng;
    let mut troubles: Vec<Trouble> = TROUBLES.into_iter().filter(|_| rng.f64() < 0.3).collect();
    troubles.retain(|trouble| bad || *trouble != Trouble::Late);
    let has = |trouble: Trouble| troubles.contains(&trouble);
    let of = |rng: &mut Rng, values: &[f64]| values[rng.usize(0..values.len())];
    let times = if bad { of(rng, &[2.0, 3.0, 5.0, 10.0, 30.0]) } else { of(rng, &[1.0, 1.0, 1.0, 1.1]) };
    let outage = has(Trouble::Outage).then(|| {
        // In the hour before, or while it is judged.
        let from = if rng.bool() { rng.i64(-3000..-600) } else { rng.i64(120..HORIZON - 400) };
        (0.05 + 0.25 * rng.f64(), from, from + rng.i64(120..360))
    });
    Release {
        seed,
        times,
        failure_rate: of(rng, &[0.0005, 0.001, 0.002, 0.005, 0.01, 0.02]),
        rate: of(rng, &[10.0, 30.0, 100.0, 300.0]),
        weight: of(rng, &[0.05, 0.1, 0.2, 0.5]),
        canary_pods: rng.usize(1..4),
        stable_pods: rng.usize(3..10),
        burst: if has(Trouble::Bursts) { of(rng, &[1.5, 2.0, 3.0]) } else { 1.0 },
        spread: if has(Trouble::Pods) { of(rng, &[0.05, 0.1]) } else { 0.0 },
        swing: if has(Trouble::Diurnal) { of(rng, &[0.5, 2.0]) } else { 1.0 },
        outage,
        onset: if has(Trouble::Late) { rng.i64(300..900) } else { 0 },
        scrape: 15,
        troubles,
    }
}
