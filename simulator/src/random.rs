//! A seed makes a script: a part of a Rollout's life, an hour as a rule, in which something goes wrong every 30 s.

use fastrand::Rng;

use crate::base::ALL;
use crate::script::{Answer, Edit, Fault, Metrics, Millis, Router, Script, User, Version, WatchHow, What, When};

/// Seconds of a life as a rule. It is not time that costs but what happens: an hour in which nothing goes wrong is as fast as
/// a minute, and the first and the last release cost as much as twenty faults. So long lives meet more for the same work.
pub const HOUR: u64 = 3600;
/// Milliseconds from one fault to the next, on average.
const GAP: f64 = 30_000.0;
/// Milliseconds after which the first one comes: before there is nothing yet.
const FIRST: f64 = 2_000.0;

/// The script of a seed, with faults for so many seconds. A shorter one begins as the longer one does.
pub fn script(seed: u64, seconds: u64) -> Script {
    let mut random = Rng::with_seed(seed);
    // The generator's first numbers of neighbouring seeds are alike.
    for _ in 0..8 {
        random.u64(..);
    }
    let base = &ALL[random.usize(..ALL.len())];
    let mut faults = Vec::new();
    let mut at = FIRST;
    loop {
        at += -GAP * (1.0 - random.f64()).ln();
        if at > (seconds * 1000) as f64 {
            break;
        }
        faults.push(Fault::new(When::At(Millis(at as u64)), what(&mut random)));
    }
    Script { base: base.name.to_owned(), seed, horizon: seconds, faults }
}

fn what(random: &mut Rng) -> What {
    let seconds = |random: &mut Rng, from: u64, to: u64| Millis(random.u64(from..=to) * 1000);
    match random.u32(0..100) {
        0..=5 => What::CrashBefore,
        6..=11 => What::CrashAfter,
        12..=13 => {
            let answers = [Answer::Forbidden, Answer::TooMany, Answer::Unavailable, Answer::Denied];
            What::Outage(answers[random.usize(..answers.len())], seconds(random, 1, 20))
        }
        14..=35 => What::Answer(Answer::ALL[random.usize(..Answer::ALL.len())]),
        36..=49 => watch(random),
        50..=52 => What::Pause(seconds(random, 1, 14)),
        53..=54 => What::Clock(random.i64(-5_000..5_000)),
        55..=57 => {
            let moods = [
                Metrics::Empty,
                Metrics::NaN,
                Metrics::Inf,
                Metrics::Negative,
                Metrics::Error,
                Metrics::Hang,
                Metrics::Bad,
            ];
            What::Metrics(moods[random.usize(..moods.len())], seconds(random, 1, 40))
        }
        58..=81 => What::User(user(random)),
        82..=84 => What::Router(router(random), seconds(random, 5, 60)),
        85 => What::Behind(Millis(random.u64(20..2_000)), seconds(random, 1, 40)),
        86..=89 => What::Evict(version(random)),
        90..=91 => What::Quota(seconds(random, 5, 60)),
        92..=94 => What::Unready(version(random), seconds(random, 2, 40)),
        95 => What::Node(seconds(random, 5, 60)),
        96..=97 => What::Edit(Edit::Route),
        98 => What::Edit(Edit::Service),
        _ => What::Edit(Edit::Note),
    }
}

fn watch(random: &mut Rng) -> What {
    let kinds = ["rollouts", "replicasets", "replicasets", "services", "httproutes", "analysisruns", "experiments"];
    let how = match random.u32(0..5) {
        0 => WatchHow::Twice,
        1 => WatchHow::Expire,
        2 => WatchHow::End,
        3 => WatchHow::Lag(random.u32(1..=8)),
        _ => WatchHow::Late(Millis(random.u64(100..30_000))),
    };
    What::Watch { kind: kinds[random.usize(..kinds.len())].to_owned(), how }
}

fn user(random: &mut Rng) -> User {
    let tags = ["blue", "green", "red", "gold", "grey"];
    match random.u32(0..24) {
        0..=7 => User::Release(tags[random.usize(..tags.len())].to_owned()),
        8..=9 => User::Undo,
        10..=12 => User::Abort,
        13..=14 => User::Retry,
        15..=18 => User::Promote,
        19 => User::PromoteFull,
        20 => {
            if random.bool() {
                User::Pause
            } else {
                User::Resume
            }
        }
        21 => User::Scale(random.u32(0..=9)),
        22 => {
            if random.bool() {
                User::Restart
            } else {
                User::Steps
            }
        }
        _ => {
            if random.bool() {
                User::Delete
            } else {
                User::Swap
            }
        }
    }
}

fn router(random: &mut Rng) -> Router {
    match random.u32(0..5) {
        0 => Router::Slow(Millis(random.u64(500..15_000))),
        1 => Router::Late(Millis(random.u64(500..4_500))),
        2 => Router::Lies,
        3 => Router::Silent,
        _ => Router::Refuses,
    }
}

fn version(random: &mut Rng) -> Version {
    if random.bool() { Version::Stable } else { Version::Canary }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_always_makes_the_same_script_and_another_one_another() {
        assert_eq!(script(5, HOUR), script(5, HOUR));
        assert_ne!(script(5, HOUR), script(6, HOUR));
        assert!(script(5, HOUR).faults.starts_with(&script(5, HOUR / 10).faults));
        let faults: usize = (0..20).map(|seed| script(seed, HOUR).faults.len()).sum();
        assert!((1800..3000).contains(&faults), "{faults}: one every 30 s");
    }
}
