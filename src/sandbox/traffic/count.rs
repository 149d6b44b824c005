//! From a number of requests to what became of them.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::Outcome;
use super::plane::Share;
use super::record::{Key, Record};
use crate::sandbox::workloads::{Name, Workloads};

/// What becomes of the requests for one Service in one step.
pub(super) struct Answers<'a> {
    pub(super) record: &'a mut Record,
    pub(super) random: &'a mut fastrand::Rng,
    pub(super) workloads: &'a Workloads,
    /// The beginning of the step.
    pub(super) since: Instant,
    /// The end of the step, in milliseconds of API time.
    pub(super) end: i64,
    pub(super) load: &'a str,
    pub(super) share: &'a Share,
}

impl Answers<'_> {
    pub(super) fn of_service(
        &mut self,
        pods: Result<&[Name], Outcome>,
        requests: u64,
        owed: &mut BTreeMap<(Name, Name), f64>,
    ) {
        if requests == 0 {
            return;
        }
        match pods {
            Err(outcome) => self.record.add(self.end, self.key(None), None, outcome, requests, &[]),
            Ok(pods) => {
                let part = |pod: &Name| ((self.share.service.clone(), pod.clone()), 1.0);
                let parts: Vec<((Name, Name), f64)> = pods.iter().map(part).collect();
                for (pod, requests) in pods.iter().zip(divide(requests, &parts, owed)) {
                    if requests > 0 {
                        self.of_pod(pod, requests);
                    }
                }
            }
        }
    }

    fn of_pod(&mut self, pod: &Name, requests: u64) {
        let serving = self.workloads.serving(pod, self.since);
        let key = self.key(Some(pod));
        let Some(behaviour) = serving.as_ref().and_then(|serving| serving.behaviour.as_ref()) else {
            // Nobody listens at the address that the gateway still has.
            self.record.add(self.end, key, serving.as_ref(), Outcome::Refused, requests, &[]);
            return;
        };
        let errors = binomial(self.random, requests, behaviour.error_rate);
        // Errors take as long as answers.
        let latencies = latencies(self.random, requests, behaviour.latency);
        self.record.add(self.end, key.clone(), serving.as_ref(), Outcome::Ok, requests - errors, &latencies);
        self.record.add(self.end, key, serving.as_ref(), Outcome::Error, errors, &[]);
    }

    fn key(&self, pod: Option<&Name>) -> Key {
        Key {
            load: self.load.to_owned(),
            via: self.share.via.clone(),
            service: self.share.service.clone(),
            port: self.share.port,
            pod: pod.map(|pod| pod.name.clone()).unwrap_or_default(),
        }
    }
}

/// Divides `total` in proportion to the weights, to whole numbers. What rounding takes from a part is owed to it, so that
/// in the long run the proportions are exact. At least one weight is positive; what has none gets nothing.
pub(super) fn divide<K: Ord + Clone>(total: u64, parts: &[(K, f64)], owed: &mut BTreeMap<K, f64>) -> Vec<u64> {
    let sum: f64 = parts.iter().map(|(_, weight)| weight).sum();
    let due = |(key, weight): &(K, f64)| owed.get(key).copied().unwrap_or(0.0) + total as f64 * weight / sum;
    let due: Vec<f64> = parts.iter().map(due).collect();
    let mut given: Vec<u64> = due.iter().map(|due| due.max(0.0).floor() as u64).collect();
    let mut left = total as i64 - given.iter().sum::<u64>() as i64;
    while left != 0 {
        let rest = |part: usize| due[part] - given[part] as f64;
        let step = left.signum();
        let candidates = (0..parts.len()).filter(|part| parts[*part].1 > 0.0 && (step > 0 || given[*part] > 0));
        let Some(next) = candidates.reduce(|best, next| {
            let better = if step > 0 { rest(next) > rest(best) } else { rest(next) < rest(best) };
            if better { next } else { best }
        }) else {
            break;
        };
        given[next] = given[next].saturating_add_signed(step);
        left -= step;
    }
    // Nobody is owed more than a request, so that a change of weights is felt at once.
    owed.retain(|key, _| parts.iter().any(|(part, weight)| part == key && *weight > 0.0));
    for ((key, _), (due, given)) in parts.iter().zip(due.iter().zip(&given)) {
        owed.insert(key.clone(), (due - *given as f64).clamp(-1.0, 1.0));
    }
    given
}

/// How many of `n` happen that each happen with probability `p`: by jumping from one to the next.
fn binomial(random: &mut fastrand::Rng, n: u64, p: f64) -> u64 {
    if p <= 0.0 {
        return 0;
    }
    if p > 0.5 {
        return n - binomial(random, n, 1.0 - p);
    }
    let (mut at, mut count) = (0.0, 0);
    loop {
        at += (above_zero(random).ln() / (1.0 - p).ln()).floor() + 1.0;
        if at > n as f64 {
            return count;
        }
        count += 1;
    }
}

/// Times of answers in seconds, each with how many answers it stands for: half the mean, and an exponential rest.
fn latencies(random: &mut fastrand::Rng, n: u64, mean: Duration) -> Vec<(f64, u64)> {
    const DRAWS: u64 = 16;
    let draws = n.min(DRAWS);
    let draw = |index| {
        let stands_for = n / draws + u64::from(index < n % draws);
        (mean.as_secs_f64() * (0.5 - 0.5 * above_zero(random).ln()), stands_for)
    };
    (0..draws).map(draw).collect()
}

/// Uniform in 0..=1, without 0.
fn above_zero(random: &mut fastrand::Rng) -> f64 {
    1.0 - random.f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proportions_are_exact_in_the_long_run() {
        for (weights, totals) in [
            (vec![95.0, 5.0], vec![10_u64; 100]),
            (vec![1.0, 1.0, 1.0], vec![1; 300]),
            (vec![0.0, 3.0, 1.0], vec![7; 40]),
        ] {
            let parts: Vec<(usize, f64)> = weights.iter().copied().enumerate().collect();
            let (mut owed, mut sums) = (BTreeMap::new(), vec![0; parts.len()]);
            for total in &totals {
                let given = divide(*total, &parts, &mut owed);
                assert_eq!(given.iter().sum::<u64>(), *total);
                sums.iter_mut().zip(given).for_each(|(sum, given)| *sum += given);
            }
            let (all, weight): (u64, f64) = (totals.iter().sum(), weights.iter().sum());
            for (sum, own) in sums.iter().zip(&weights) {
                assert!((*sum as f64 - all as f64 * own / weight).abs() < 1.0, "{weights:?}: {sums:?}");
            }
        }
    }

    #[test]
    fn binomial_counts_have_the_right_mean_and_spread() {
        let mut random = fastrand::Rng::with_seed(1);
        for (n, p) in [(100, 0.05), (1000, 0.5), (50, 0.95), (10, 1.0), (10, 0.0)] {
            let draws: Vec<f64> = (0..4000).map(|_| binomial(&mut random, n, p) as f64).collect();
            let mean = draws.iter().sum::<f64>() / 4000.0;
            let variance = draws.iter().map(|draw| (draw - mean).powi(2)).sum::<f64>() / 4000.0;
            let (right_mean, right_variance) = (n as f64 * p, n as f64 * p * (1.0 - p));
            assert!((mean - right_mean).abs() <= 0.08 * right_variance.sqrt(), "{n} {p}: mean {mean}");
            assert!((variance - right_variance).abs() <= 0.1 * right_variance, "{n} {p}: variance {variance}");
        }
    }

    #[test]
    fn latencies_have_the_mean_that_was_asked_for() {
        let mut random = fastrand::Rng::with_seed(1);
        let drawn: Vec<(f64, u64)> =
            (0..1000).flat_map(|_| latencies(&mut random, 20, Duration::from_millis(100))).collect();
        let total: f64 = drawn.iter().map(|(seconds, answers)| seconds * *answers as f64).sum();
        assert_eq!(drawn.iter().map(|(_, answers)| answers).sum::<u64>(), 20_000);
        assert!((total / 20_000.0 - 0.1).abs() < 0.002, "{}", total / 20_000.0);
    }
}
