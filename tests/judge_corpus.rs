//! The corpus of releases that are known to be good or bad, in short; `make bench-judge` has the whole.

#[path = "../examples/judge_corpus/counters.rs"]
mod counters;
#[path = "../examples/judge_corpus/releases.rs"]
mod releases;
#[path = "../examples/judge_corpus/score.rs"]
#[allow(dead_code)]
mod score;
#[path = "../examples/judge_table/traffic.rs"]
#[allow(dead_code)]
mod traffic;
#[path = "../examples/judge_corpus/trial.rs"]
#[allow(dead_code)]
mod trial;

use releases::TROUBLES;
use score::{JUDGE, Score, THRESHOLD};

#[test]
fn bad_releases_are_stopped_and_good_ones_are_not() {
    let trials: Vec<trial::Trial> = releases::corpus(7, 360).into_iter().map(trial::run).collect();
    let judge = Score::of(trials.iter(), JUDGE);
    println!("{}", score::tables(&trials));
    assert!(judge.good >= 200 && judge.bad + judge.hard >= 100 && judge.bad >= 50, "{judge:?}");
    for trouble in TROUBLES {
        assert!(trials.iter().filter(|trial| trial.release.has(trouble)).count() >= 20, "{trouble:?}");
    }
    // Of so few a single one is more than a hundredth: the bar of 99% is held by the whole.
    assert!(judge.good_failed == 0 && judge.bad - judge.bad_failed <= 2, "{judge:?}");
    assert_eq!(judge.let_through(), 0, "{judge:?}");
    let threshold = Score::of(trials.iter(), THRESHOLD);
    assert!(threshold.recall() < judge.recall(), "{threshold:?}");
}

#[test]
fn an_outage_of_both_that_begins_in_the_midst_is_not_blamed_on_the_canary() {
    let trials: Vec<trial::Trial> = releases::outages(7, 100, 9, 15).into_iter().map(trial::run).collect();
    let judge = Score::of(trials.iter(), JUDGE);
    assert!(judge.good == 100 && judge.good_failed <= 1, "{judge:?}");
}
