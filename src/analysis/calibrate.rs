//! What the past of a service says about judging its releases: stable against stable, by the judge itself.

use std::collections::BTreeMap;

use serde::Serialize;

use super::compare::{Judged, Sampled};
use super::judge::counts::{Arm, Interval, Side};
use super::judge::dispersion::{self, Dispersion};
use super::judge::harm::Margin;
use super::judge::{Settings, State, Verdict, detectable};

/// Seconds.
const MINUTE: f64 = 60.0;
/// Seconds without samples after which it is not known when a counter grew.
const GAP: f64 = 150.0;
/// Minutes over which the judge measures the dispersion.
const HOUR: usize = 60;
/// Horizons that are proposed, in seconds.
pub const HORIZONS: [f64; 5] = [600.0, 900.0, 1800.0, 3600.0, 7200.0];
/// Parts of the traffic for which it is shown what could be seen.
pub const WEIGHTS: [f64; 3] = [0.05, 0.2, 0.5];
/// A change that a release check should find.
const WANTED: f64 = 2.0;
/// Margins that are tried where the spread of the pods asks for less than the replay does.
const MARGINS: [f64; 4] = [0.25, 0.5, 0.75, 1.0];
/// The margin where the pods cannot be told apart.
const MARGIN: f64 = 0.25;
/// Failures of a pod below which nothing can be said about it.
const FEWEST_FAILURES: u64 = 20;
/// One-sided 99% of a normal distribution.
const NINETY_NINE: f64 = 2.33;

/// Requests and failures of each pod in a minute; of all under one name where pods are not told apart.
pub type Minute = BTreeMap<String, Arm>;

/// What was found.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Calibration {
    /// Minutes that were looked at, and those with requests.
    pub minutes: usize,
    pub seen: usize,
    /// At once, in the middle of all minutes; none where they are not told apart.
    pub pods: Option<usize>,
    /// Of all pods together: of 5, 50 and 95% of the minutes at most.
    pub requests_per_minute: [u64; 3],
    /// Failures for each request, in all.
    pub failure_rate: f64,
    /// Of 10, 50 and 90% of the hours at most.
    pub hourly_failure_rates: [f64; 3],
    pub dispersion: Together,
    /// How much pods differ for good: the standard deviation of the logarithm of their failure rates.
    pub spread: Option<f64>,
    /// Smallest changes that could be seen at the proposed margin.
    pub detectable: Vec<Detectable>,
    pub proposed: Proposal,
    pub replay: Replay,
    /// The same without any margin.
    pub replay_without_margin: Replay,
}

/// How many failures come together.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Together {
    pub by: Split,
    /// Hours in which it could be measured.
    pub hours: usize,
    /// In the middle of these hours, and of 95% of them at most. What the judge assumes when there are none.
    pub median: f64,
    pub high: f64,
}

/// How stable is divided to be compared with itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Split {
    /// One pod against the others.
    Pods,
    /// Each minute against the next: what changes between them passes for a difference.
    Minutes,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Detectable {
    /// The canary's part of the requests.
    pub weight: f64,
    /// Seconds.
    pub horizon: f64,
    /// Times the failure rate of stable; none when nothing could be seen.
    pub ratio: Option<f64>,
}

/// What to set.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Proposal {
    pub margin: f64,
    /// Seconds.
    pub horizon: f64,
    /// Where the judge cannot measure it.
    pub dispersion: Option<f64>,
    /// What is seen with it.
    pub ratio: Option<f64>,
}

/// Verdicts over the past, in which nothing was released but stable.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Replay {
    pub by: Split,
    pub margin: f64,
    /// Analyses that had anything to compare.
    pub analyses: usize,
    /// Called worse: each is a false alarm.
    pub alarms: usize,
    pub safe: usize,
    pub undecided: usize,
}

/// The minutes from `from` (seconds since 1970) on. Samples should reach back some minutes before.
pub fn minutes(total: &[Sampled], judged: &[Sampled], kind: &Judged, from: f64, count: usize) -> Vec<Minute> {
    // A series that appears while others are there began at 0; one that appears with all of them has a past.
    let first = total.iter().filter_map(|one| one.samples.first()).map(|(at, _)| *at).fold(f64::INFINITY, f64::min);
    let grown = |series: &[Sampled]| grown(series, first, from, count);
    let (total, judged) = (grown(total), grown(judged));
    let none = vec![None; count];
    let of = |minute: usize| {
        let arm = |(pod, total): (&String, &Vec<Option<f64>>)| {
            let requests = total[minute]?;
            let of_pod = judged.get(pod).unwrap_or(&none)[minute];
            let arm = match kind {
                Judged::Errors(_) => Arm::parse(Side::Stable, of_pod.unwrap_or_default(), requests),
                Judged::Good(_) => Arm::parse_good(Side::Stable, of_pod?, requests),
            };
            arm.ok().filter(|arm| arm.requests() > 0).map(|arm| (pod.clone(), arm))
        };
        total.iter().filter_map(arm).collect()
    };
    (0..count).map(of).collect()
}

/// How much the counters of each pod grew in each minute; none where nobody knows.
fn grown(series: &[Sampled], first: f64, from: f64, count: usize) -> BTreeMap<String, Vec<Option<f64>>> {
    let mut pods: BTreeMap<String, Vec<Option<f64>>> = BTreeMap::new();
    for Sampled { pod, samples } in series {
        let grown = pods.entry(pod.clone()).or_insert_with(|| vec![None; count]);
        let mut before: Option<(f64, f64)> = None;
        for (at, value) in samples {
            let growth = match before {
                Some((earlier, _)) if at - earlier > GAP => None,
                Some((_, earlier)) if *value >= earlier => Some(value - earlier),
                Some(_) => Some(*value),
                None => (*at > first).then_some(*value),
            };
            before = Some((*at, *value));
            // The sample at the end of a minute is that of the minute.
            let minute = ((at - from) / MINUTE - 1e-6).floor();
            if let (Some(growth), true) = (growth, minute >= 0.0 && minute < count as f64) {
                *grown[minute as usize].get_or_insert(0.0) += growth;
            }
        }
    }
    pods
}

/// What these minutes say, for a canary that gets `weight` of the requests; none without any requests. `measures` tells that
/// the judge can tell pods apart by the same counters. `settings` are the judge's, of which margin and horizon are proposed.
pub fn calibrate(minutes: &[Minute], weight: f64, measures: bool, settings: &Settings) -> Option<Calibration> {
    let sums: Vec<Arm> = minutes.iter().map(sum).collect();
    let all = sums.iter().fold(Arm::default(), |all, one| all.plus(*one));
    let rate = all.rate()?;
    let mut requests: Vec<f64> =
        sums.iter().filter(|sum| sum.requests() > 0).map(|sum| sum.requests() as f64).collect();
    let seen = requests.len();
    let mut pods: Vec<f64> =
        minutes.iter().filter(|minute| !minute.is_empty()).map(|minute| minute.len() as f64).collect();
    let pods = Some(quantile(&mut pods, 0.5) as usize).filter(|pods| *pods >= 2);
    let by = if pods.is_some() { Split::Pods } else { Split::Minutes };
    let hours = sums.chunks(HOUR).map(|hour| hour.iter().fold(Arm::default(), |all, one| all.plus(*one)));
    let mut hourly: Vec<f64> = hours.filter_map(Arm::rate).collect();
    let together = together(minutes, by);
    let requests_per_minute = [0.05, 0.5, 0.95].map(|part| quantile(&mut requests, part) as u64);
    let spread = pods.and_then(|_| spread(minutes, together.median));

    let dispersion = together.median;
    let factor = Some(dispersion).filter(|_| together.hours > 0 && !(measures && by == Split::Pods));
    let see = |weight: f64, horizon: f64, margin: f64| {
        let seen = requests_per_minute[1] as f64 * horizon / MINUTE;
        let arm = |part: f64| Arm::parse(Side::Stable, (seen * part * rate).round(), seen * part);
        let margin = Margin::new(1.0 + margin, 0.0)?;
        detectable::ratio(arm(weight).ok()?, arm(1.0 - weight).ok()?, margin, dispersion, settings.bar())
    };
    let wanted = spread.zip(pods).map_or(MARGIN, |(spread, pods)| margin(spread, pods));
    let horizon = |margin: f64| {
        let found = HORIZONS.into_iter().find(|horizon| see(weight, *horizon, margin).is_some_and(|it| it <= WANTED));
        // Where even the longest one does not see it, the usual one says so by itself.
        found.unwrap_or(1800.0)
    };
    let replayed = |margin: f64| replay(minutes, by, factor, &with(settings, margin, horizon(margin)), margin);
    let tried = MARGINS.into_iter().filter(|margin| *margin > wanted);
    let mut candidates = [wanted].into_iter().chain(tried).map(replayed).peekable();
    let mut replay = candidates.next()?;
    while too_many(&replay) && candidates.peek().is_some() {
        replay = candidates.next()?;
    }
    let margin = replay.margin;
    let horizon = horizon(margin);
    let shown = WEIGHTS.into_iter().flat_map(|weight| HORIZONS.map(|horizon| (weight, horizon)));
    Some(Calibration {
        minutes: minutes.len(),
        seen,
        pods,
        requests_per_minute,
        failure_rate: rate,
        hourly_failure_rates: [0.1, 0.5, 0.9].map(|part| quantile(&mut hourly, part)),
        dispersion: together,
        spread,
        detectable: shown
            .map(|(weight, horizon)| Detectable { weight, horizon, ratio: see(weight, horizon, margin) })
            .collect(),
        proposed: Proposal { margin, horizon, dispersion: factor, ratio: see(weight, horizon, margin) },
        replay_without_margin: self::replay(minutes, by, factor, &with(settings, 0.0, horizon), 0.0),
        replay,
    })
}

fn sum(minute: &Minute) -> Arm {
    minute.values().fold(Arm::default(), |sum, pod| sum.plus(*pod))
}

fn too_many(replay: &Replay) -> bool {
    replay.alarms > (replay.analyses / 100).max(1)
}

/// The settings with another margin and horizon, and nothing to warm up.
fn with(settings: &Settings, margin: f64, horizon: f64) -> Settings {
    let settings = settings.clone();
    let margin = Margin::new(1.0 + margin, settings.margin.absolute()).unwrap_or(settings.margin);
    Settings { margin, horizon, warm_up: 0.0, weight: None, ..settings }
}

/// How many failures come together, hour by hour, as the judge measures it. Neighbouring minutes stand for pods where
/// those are not told apart.
fn together(minutes: &[Minute], by: Split) -> Together {
    let hour = |hour: &[Minute]| {
        let groups: Vec<Vec<Arm>> = match by {
            Split::Pods => hour.iter().map(|minute| minute.values().copied().collect()).collect(),
            Split::Minutes => hour.chunks(2).map(|pair| pair.iter().map(sum).collect()).collect(),
        };
        match Dispersion::between_pods(&groups) {
            Dispersion::Measured(factor) => Some(factor),
            _ => None,
        }
    };
    let mut measured: Vec<f64> = minutes.chunks(HOUR).filter_map(hour).collect();
    let assumed = Dispersion::Assumed.factor();
    let hours = measured.len();
    let of = |part: f64, measured: &mut Vec<f64>| if hours > 0 { quantile(measured, part) } else { assumed };
    Together { by, hours, median: of(0.5, &mut measured), high: of(0.95, &mut measured) }
}

/// How much pods differ beyond what chance makes of their failures. Each is compared with all pods in the same minutes, so
/// that a pod of a bad day is not taken for a bad pod.
fn spread(minutes: &[Minute], dispersion: f64) -> Option<f64> {
    let mut pods: BTreeMap<&str, (f64, f64)> = BTreeMap::new();
    for minute in minutes {
        let Some(rate) = sum(minute).rate() else { continue };
        for (pod, arm) in minute {
            let (failures, expected) = pods.entry(pod).or_default();
            *failures += arm.failures() as f64;
            *expected += arm.requests() as f64 * rate;
        }
    }
    let known: Vec<(f64, f64)> = pods
        .into_values()
        .filter(|(failures, _)| *failures >= FEWEST_FAILURES as f64)
        .map(|(failures, expected)| ((failures / expected).ln(), dispersion / failures))
        .collect();
    let count = known.len() as f64;
    if count < 3.0 {
        return None;
    }
    let mean = known.iter().map(|(log, _)| log).sum::<f64>() / count;
    let variance = known.iter().map(|(log, _)| (log - mean).powi(2)).sum::<f64>() / (count - 1.0);
    let chance = known.iter().map(|(_, chance)| chance).sum::<f64>() / count;
    Some((variance - chance).max(0.0).sqrt())
}

/// The margin that leaves one in a hundred healthy pods out, of a canary of one pod: in steps of 5%, from 10% to 100%.
fn margin(spread: f64, pods: usize) -> f64 {
    let ratio = (NINETY_NINE * spread * (1.0 + 1.0 / pods.max(1) as f64).sqrt()).exp();
    (((ratio - 1.0) * 20.0 - 1e-9).ceil() / 20.0).clamp(0.1, 1.0)
}

/// Judges stable against itself, one horizon after the other.
fn replay(minutes: &[Minute], by: Split, dispersion: Option<f64>, settings: &Settings, margin: f64) -> Replay {
    let length = ((settings.horizon / MINUTE) as usize).max(2);
    let mut replay = Replay { by, margin, analyses: 0, alarms: 0, safe: 0, undecided: 0 };
    for (number, window) in minutes.chunks_exact(length).enumerate() {
        let begins = number * length;
        let before = &minutes[begins.saturating_sub(HOUR)..begins];
        let dispersion = match dispersion {
            Some(factor) => Dispersion::Given(factor),
            None => Dispersion::between_pods(
                &before.iter().map(|minute| minute.values().copied().collect()).collect::<Vec<_>>(),
            ),
        };
        let mut state = State::new(dispersion);
        for (at, interval) in intervals(window, by, number) {
            let (from, to) = (at.0 as f64 * MINUTE, at.1 as f64 * MINUTE);
            state.observe(settings, from, to, Ok(interval));
        }
        state.conclude(settings);
        if !state.has_compared() {
            continue;
        }
        replay.analyses += 1;
        match state.decision().map(|decision| decision.verdict) {
            Some(Verdict::Harm) => replay.alarms += 1,
            Some(Verdict::Safe) => replay.safe += 1,
            _ => replay.undecided += 1,
        }
    }
    replay
}

/// What passes for canary and stable, with the minutes from and to which. Another pod is the canary each time.
fn intervals(window: &[Minute], by: Split, number: usize) -> Vec<((usize, usize), Interval)> {
    if by == Split::Minutes {
        let pairs = window.chunks_exact(2).enumerate();
        // The one that comes first and the one that comes second take turns, too.
        let pair = |(index, pair): (usize, &[Minute])| {
            let (canary, stable) = if index % 2 == 0 { (0, 1) } else { (1, 0) };
            ((2 * index, 2 * index + 2), Interval::new(sum(&pair[canary]), sum(&pair[stable])))
        };
        return pairs.map(pair).collect();
    }
    let pods = window.iter().find(|minute| !minute.is_empty()).map_or(Vec::new(), |minute| minute.keys().collect());
    let Some(chosen) = pods.get(number % pods.len().max(1)) else { return Vec::new() };
    let divided = |(index, minute): (usize, &Minute)| {
        let canary = minute.get(*chosen).copied().unwrap_or_default();
        let others: Vec<Arm> = minute.iter().filter(|(pod, _)| pod != chosen).map(|(_, arm)| *arm).collect();
        let stable = others.iter().fold(Arm::default(), |sum, pod| sum.plus(*pod));
        ((index, index + 1), Interval { clustering: dispersion::clustering(&others), ..Interval::new(canary, stable) })
    };
    window.iter().enumerate().map(divided).collect()
}

/// The value that a part of all does not exceed; 0 of none.
fn quantile(values: &mut [f64], part: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let last = values.len().saturating_sub(1);
    values.get((last as f64 * part).round() as usize).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        let margin = |ratio, absolute| Margin::new(ratio, absolute).unwrap();
        Settings {
            margin: margin(1.25, 0.0),
            safe: margin(1.5, 0.001),
            alpha: 0.01,
            beta: 0.05,
            metrics: 1,
            horizon: 1800.0,
            warm_up: 0.0,
            weight: None,
            early: false,
        }
    }

    /// A day of pods with 1,500 requests a minute, of which about 3 fail, those of the first pod `bad` times as often.
    fn day(pods: u64, bad: u64) -> Vec<Minute> {
        let mut state = 1u64;
        let mut chance = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as f64 / (1u64 << 31) as f64
        };
        let mut failures = |mean: f64| {
            let (mut product, mut count) = (1.0, 0);
            loop {
                product *= chance();
                if product <= (-mean).exp() {
                    return count;
                }
                count += 1;
            }
        };
        let pod = |name: u64, failures: u64| (format!("pod-{name}"), Arm::new(failures, 1500).unwrap());
        (0..1440)
            .map(|_| {
                (0..pods).map(|name| pod(name, failures(if name == 0 { 3.0 * bad as f64 } else { 3.0 }))).collect()
            })
            .collect()
    }

    #[test]
    fn equal_pods_need_the_smallest_margin() {
        let found = calibrate(&day(4, 1), 0.2, true, &settings()).unwrap();
        assert_eq!((found.minutes, found.seen, found.pods), (1440, 1440, Some(4)));
        assert_eq!(found.requests_per_minute, [6000; 3]);
        assert!((found.failure_rate - 0.002).abs() < 1e-4, "{}", found.failure_rate);
        assert!(found.dispersion.hours == 24 && found.dispersion.high < 1.6, "{:?}", found.dispersion);
        assert!(found.spread.unwrap() < 0.03, "{:?}", found.spread);
        assert_eq!((found.proposed.margin, found.proposed.dispersion), (0.1, None));
        assert_eq!((found.replay.by, found.replay.alarms), (Split::Pods, 0));
        assert!(found.replay.analyses >= 12);
        let ratio = |weight: f64, horizon: f64| {
            found.detectable.iter().find(|it| it.weight == weight && it.horizon == horizon).unwrap().ratio.unwrap()
        };
        assert!(ratio(0.05, 600.0) > ratio(0.2, 600.0) && ratio(0.2, 600.0) > ratio(0.2, 3600.0));
        assert!(found.proposed.ratio.unwrap() <= WANTED);
    }

    #[test]
    fn a_pod_that_fails_more_widens_the_margin() {
        let found = calibrate(&day(4, 2), 0.2, true, &settings()).unwrap();
        assert!(found.spread.unwrap() > 0.2 && found.proposed.margin >= 0.5, "{:?}", found.proposed);
        assert!(found.replay_without_margin.alarms > 0, "{:?}", found.replay_without_margin);
        assert!(!too_many(&found.replay), "{:?}", found.replay);
    }

    #[test]
    fn without_pods_minutes_are_compared() {
        let found = calibrate(&day(1, 1), 0.2, false, &settings()).unwrap();
        assert_eq!((found.pods, found.spread, found.replay.by), (None, None, Split::Minutes));
        assert_eq!(found.replay.alarms, 0);
        let given = found.proposed.dispersion.unwrap();
        assert!((1.0..2.0).contains(&given), "{given}");
        assert_eq!(found.proposed.margin, 0.25);
        assert_eq!(calibrate(&vec![Minute::new(); 100], 0.2, false, &settings()), None);
    }

    #[test]
    fn counters_become_minutes_whatever_happens_to_them() {
        let series = |pod: &str, samples: &[(f64, f64)]| Sampled { pod: pod.to_owned(), samples: samples.to_vec() };
        let total = [
            // The first minute is the past's; then it is reset, and lost for a while.
            series("a", &[(0.0, 1000.0), (60.0, 1060.0), (120.0, 40.0), (180.0, 90.0), (600.0, 500.0), (660.0, 530.0)]),
            series("b", &[(120.0, 30.0), (180.0, 50.0)]),
        ];
        let errors = [series("a", &[(180.0, 2.0)])];
        let found = minutes(&total, &errors, &Judged::Errors(String::new()), 0.0, 11);
        let arm = |failures, requests| Arm::new(failures, requests).unwrap();
        let of = |pod: &str| found.iter().map(|minute| minute.get(pod).copied()).collect::<Vec<_>>();
        let mut a = vec![None; 11];
        (a[0], a[1], a[2], a[10]) = (Some(arm(0, 60)), Some(arm(0, 40)), Some(arm(2, 50)), Some(arm(0, 30)));
        assert_eq!(of("a"), a);
        let mut b = vec![None; 11];
        (b[1], b[2]) = (Some(arm(0, 30)), Some(arm(0, 20)));
        assert_eq!(of("b"), b);
    }
}
