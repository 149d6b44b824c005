//! The counters of a release, as a Prometheus scrapes and answers them.

use fastrand::Rng;
use tidegate::analysis::compare::{Question, Sampled};

use super::releases::{BEFORE, HORIZON, Release, Trouble, WARM_UP};
use super::traffic::{arm, factor};

/// When each analysis begins, in seconds since 1970.
pub const START: i64 = 1_700_000_000;
/// Seconds for which Prometheus takes a sample for the present.
const PRESENT: i64 = 300;

/// What one pod counts, by scrape: the second, all requests, those that failed.
struct Pod {
    name: String,
    is_canary: bool,
    scrapes: Vec<(i64, u64, u64)>,
}

pub struct Counters(Vec<Pod>);

impl Counters {
    pub fn of(release: &Release) -> Self {
        let mut rng = Rng::with_seed(release.seed ^ 0xc0de);
        let all = release.canary_pods + release.stable_pods;
        // Everything is not scraped for a while, or a single pod is not.
        let gap = release.has(Trouble::Gaps).then(|| {
            let from = rng.i64(0..HORIZON - 300);
            (from, from + rng.i64(90..240), rng.bool().then(|| rng.usize(0..all)))
        });
        let pods = (0..all).map(|number| {
            let gap = gap.filter(|(.., only)| only.is_none_or(|only| only == number)).map(|(from, to, _)| (from, to));
            pod(release, number, gap, &mut rng)
        });
        Self(pods.collect())
    }

    /// What Prometheus answers: with a beginning the present of each minute, otherwise all samples of the range.
    pub fn answer(&self, question: &Question) -> Vec<Sampled> {
        let is_canary = question.query.contains("canary");
        let failed = question.query.starts_with("errors");
        let end = question.end.as_second() - START;
        let series = |pod: &Pod| {
            let value = |(at, requests, failures): &(i64, u64, u64)| (*at, if failed { *failures } else { *requests });
            // What has never failed has no series of failures.
            let samples = pod.scrapes.iter().map(value).filter(|(_, value)| *value > 0);
            let sample = |at: i64, value: u64| ((START + at) as f64, value as f64);
            let samples: Vec<(f64, f64)> = match question.start {
                None => {
                    let window = question
                        .query
                        .rsplit('[')
                        .next()
                        .and_then(|text| text.trim_end_matches("s]").parse::<i64>().ok());
                    let begin = end - window.unwrap_or_default();
                    let within = samples.filter(|(at, _)| *at > begin && *at <= end);
                    within.map(|(at, value)| sample(at, value)).collect()
                }
                Some(start) => {
                    let known: Vec<(i64, u64)> = samples.collect();
                    let begin = start.as_second() - START;
                    let present = |at: i64| {
                        let before = known.partition_point(|(scraped, _)| *scraped <= at);
                        let last = known.get(before.checked_sub(1)?)?;
                        (at - last.0 < PRESENT).then_some(sample(at, last.1))
                    };
                    (begin..=end).step_by(60).filter_map(present).collect()
                }
            };
            (!samples.is_empty()).then(|| Sampled { pod: pod.name.clone(), samples })
        };
        self.0.iter().filter(|pod| pod.is_canary == is_canary).filter_map(series).collect()
    }

    /// Requests and failures of the canary from after one second up to another, as `increase` would have it without its
    /// extrapolation.
    pub fn canary(&self, from: i64, to: i64) -> (u64, u64) {
        let mut sum = (0, 0);
        for pod in self.0.iter().filter(|pod| pod.is_canary) {
            for pair in pod.scrapes.windows(2).filter(|pair| pair[1].0 > from && pair[1].0 <= to) {
                let grown = |before: u64, after: u64| if after < before { after } else { after - before };
                sum.0 += grown(pair[0].1, pair[1].1);
                sum.1 += grown(pair[0].2, pair[1].2);
            }
        }
        sum
    }
}

fn pod(release: &Release, number: usize, gap: Option<(i64, i64)>, rng: &mut Rng) -> Pod {
    let is_canary = number < release.canary_pods;
    let (weight, pods) = match is_canary {
        true => (release.weight, release.canary_pods),
        false => (1.0 - release.weight, release.stable_pods),
    };
    let own = if release.spread > 0.0 { factor(rng, release.spread) } else { 1.0 };
    // Within the warm-up there is no judging yet; a pod of stable has run for long.
    let (begin, mut requests, mut failures) = if is_canary { (0, 0, 0) } else { (-BEFORE, 50_000, 100) };
    let reset = release.has(Trouble::Resets) && rng.f64() < 0.6;
    let reset = if reset { rng.i64(-600..HORIZON) } else { i64::MAX };
    let phase = rng.i64(0..release.scrape);
    let mut scrapes = Vec::new();
    let mut was_reset = false;
    for at in (begin..HORIZON + WARM_UP + 60).step_by(release.scrape as usize).map(|at| at + phase) {
        let seconds = release.scrape as f64;
        let mean = release.traffic(at) * weight / pods as f64 * seconds;
        let count = around(rng, mean);
        let rate = if is_canary { release.canary(at) } else { release.base(at) };
        let seen = arm(rng, count, (rate * own).min(1.0), release.burst);
        if at >= reset && !was_reset {
            (requests, failures, was_reset) = (0, 0, true);
        }
        requests += seen.requests();
        failures += seen.failures();
        if !gap.is_some_and(|(from, to)| (from..to).contains(&at)) {
            scrapes.push((at, requests, failures));
        }
    }
    let version = if is_canary { "canary" } else { "stable" };
    Pod { name: format!("{version}-{number}"), is_canary, scrapes }
}

/// A number of requests: Poisson, by its normal neighbour where there are many.
fn around(rng: &mut Rng, mean: f64) -> u64 {
    if mean > 30.0 {
        let normal = factor(rng, 1.0).ln();
        return (mean + mean.sqrt() * normal).round().max(0.0) as u64;
    }
    let (limit, mut product, mut count) = ((-mean).exp(), 1.0, 0);
    loop {
        product *= rng.f64();
        if product <= limit {
            return count;
        }
        count += 1;
    }
}
