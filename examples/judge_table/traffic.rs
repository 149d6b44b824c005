//! Simulated traffic: counts of failures, of single ones and of bursts.

use fastrand::Rng;
use tidegate::analysis::judge::counts::{Arm, Interval};

/// Requests in a minute, of both versions together.
pub const REQUESTS: u64 = 6000;

/// One minute of both versions.
#[derive(Clone, Copy)]
pub struct Minute {
    /// The canary's share of the requests.
    pub weight: f64,
    pub canary_rate: f64,
    pub stable_rate: f64,
}

impl Minute {
    pub fn new(weight: f64, base: f64, times: f64) -> Self {
        Self { weight, canary_rate: base * times, stable_rate: base }
    }

    /// Failures come one by one (`burst` 1), or in bursts of a geometric size with that mean.
    pub fn draw(self, rng: &mut Rng, burst: f64) -> Interval {
        let canary = (REQUESTS as f64 * self.weight).round() as u64;
        let mut arm = |requests, rate| arm(rng, requests, rate, burst);
        Interval::new(arm(canary, self.canary_rate), arm(REQUESTS - canary, self.stable_rate))
    }
}

pub fn arm(rng: &mut Rng, requests: u64, rate: f64, burst: f64) -> Arm {
    let failures = if burst > 1.0 {
        let bursts = poisson(rng, requests as f64 * rate / burst);
        (0..bursts).map(|_| geometric(rng, burst)).sum::<u64>().min(requests)
    } else {
        binomial(rng, requests, rate)
    };
    Arm::new(failures, requests).unwrap_or_default()
}

/// How many times the average a pod fails: log-normal, with that deviation of the logarithm.
pub fn factor(rng: &mut Rng, spread: f64) -> f64 {
    let normal = (-2.0 * (1.0 - rng.f64()).ln()).sqrt() * (std::f64::consts::TAU * rng.f64()).cos();
    (spread * normal).exp()
}

/// By inversion, in parts whose chance of no failure a float can hold.
fn binomial(rng: &mut Rng, mut n: u64, p: f64) -> u64 {
    if p <= 0.0 {
        return 0;
    }
    let largest = (100.0 / p).ceil() as u64;
    let mut failures = 0;
    while n > 0 {
        let part = n.min(largest);
        n -= part;
        let odds = p / (1.0 - p);
        let mut chance = (part as f64 * (-p).ln_1p()).exp();
        let mut left = rng.f64();
        let mut k = 0;
        while left >= chance && k < part {
            left -= chance;
            chance *= odds * (part - k) as f64 / (k + 1) as f64;
            k += 1;
        }
        failures += k;
    }
    failures
}

fn poisson(rng: &mut Rng, mean: f64) -> u64 {
    let mut chance = (-mean).exp();
    let mut left = rng.f64();
    let mut k = 0u64;
    while left >= chance && k < 10_000 {
        left -= chance;
        k += 1;
        chance *= mean / k as f64;
    }
    k
}

/// At least one.
fn geometric(rng: &mut Rng, mean: f64) -> u64 {
    let stop = 1.0 / mean;
    1 + ((1.0 - rng.f64()).ln() / (1.0 - stop).ln()) as u64
}
