//! Runs of the AnalysisRun machine over counters that are scraped every 15 s.

use std::sync::Arc;

use super::*;
use crate::analysis::machine::{self, Outcome, RunWorld, Step, Task};
use crate::analysis::secrets::Secrets;
use crate::api::AnalysisRun;
use crate::api::analysis::{AnalysisRunStatus, Measurement};
use crate::api::common::Time;

const START: i64 = 1_700_000_000;
const SCRAPE: i64 = 15;

/// Requests and failures of a version between two scrapes, by the second at which the second is done.
type Traffic = fn(Side, i64) -> (u64, u64);

struct Bench {
    world: RunWorld,
    traffic: Traffic,
    /// Whether a version was scraped at a second.
    scraped: fn(Side, i64) -> bool,
    questions: Vec<usize>,
}

/// 20 requests a second to the canary and 80 to stable.
fn steady(side: Side) -> u64 {
    match side {
        Side::Canary => 300,
        Side::Stable => 1200,
    }
}

fn healthy(side: Side, at: i64) -> (u64, u64) {
    // One failure in 300.
    let failures = match side {
        Side::Canary => u64::from(at % 30 == 0) * 2,
        Side::Stable => 4,
    };
    (steady(side), failures)
}

fn bad(side: Side, at: i64) -> (u64, u64) {
    match side {
        Side::Canary => (300, 3),
        Side::Stable => healthy(side, at),
    }
}

impl Bench {
    fn new(compare: Value, traffic: Traffic) -> Self {
        let own = |version: &str| json!({"total": format!("total{{v=\"{version}\"}}"), "errors": format!("errors{{v=\"{version}\"}}")});
        let mut block = json!({"canary": own("canary"), "stable": own("stable"), "dispersion": 1, "horizon": "10m"});
        block.as_object_mut().unwrap().extend(compare.as_object().unwrap().clone());
        Self::with_spec(json!({"metrics": [{"name": "errors", "compare": block}]}), traffic)
    }

    fn with_spec(spec: Value, traffic: Traffic) -> Self {
        let run: AnalysisRun = serde_json::from_value(json!({
            "apiVersion": "argoproj.io/v1alpha1", "kind": "AnalysisRun",
            "metadata": {"name": "r", "namespace": "shop", "uid": "u"},
            "spec": spec,
        }))
        .unwrap();
        let now = Timestamp::from_second(START).unwrap();
        let world = RunWorld { now, run: Arc::new(run), secrets: Secrets::default(), weight: None };
        let mut bench = Self { world, traffic, scraped: |_, _| true, questions: Vec::new() };
        bench.look(0, |_, task| panic!("{task:?} at the beginning"));
        bench
    }

    /// Looks whenever it is time, except while `away` (from, to), until the run is over or it is `until`.
    fn run(&mut self, until: i64, away: (i64, i64)) -> &AnalysisRunStatus {
        let mut second = 0;
        while second <= until {
            if !(away.0..away.1).contains(&second) {
                self.look(second, |bench, task| Some(bench.answered(task)));
                if self.status().phase.completed() {
                    break;
                }
            }
            let now = self.world.now;
            let due = machine::due(now, &self.world.run).map_or(second + 1, |due| due.as_second() - START);
            second = due.max(second + 1);
        }
        self.status()
    }

    /// One decision; a task without an answer is an error.
    fn look(&mut self, second: i64, answer: impl Fn(&mut Self, &Task) -> Option<Outcome>) {
        self.world.now = Timestamp::from_second(START + second).unwrap();
        let mut outcomes = Vec::new();
        for task in machine::tasks(&self.world) {
            if matches!(task.step, Step::Collect(_)) {
                continue;
            }
            let outcome = answer(self, &task).unwrap_or_else(|| {
                let mut measurement = self.measurement();
                (measurement.phase, measurement.message) = (AnalysisPhase::Error, "connection refused".to_owned());
                Outcome::new(&task, measurement, BTreeMap::new())
            });
            outcomes.push(outcome);
        }
        let plan = machine::conclude(&self.world, outcomes);
        // As the API server keeps it.
        let stored = serde_json::to_string(&plan.status).unwrap();
        let mut run = (*self.world.run).clone();
        run.status = Some(serde_json::from_str(&stored).unwrap());
        self.world.run = Arc::new(run);
    }

    fn measurement(&self) -> Measurement {
        let now = Some(Time(self.world.now));
        Measurement { started_at: now.clone(), finished_at: now, ..Measurement::default() }
    }

    fn answered(&mut self, task: &Task) -> Outcome {
        let Step::Compare(look) = &task.step else { panic!("{:?} is no look", task.step) };
        let questions = look.questions();
        self.questions.push(questions.len());
        let mut answers = Answers::default();
        for question in questions {
            look.note(&mut answers, question.asked, self.series(&question));
        }
        Outcome::of_judge(task, self.measurement(), look.metadata(), look.judge(&answers))
    }

    /// The samples that Prometheus would have.
    fn series(&self, question: &Question) -> Vec<Sampled> {
        let side = if question.query.contains("canary") { Side::Canary } else { Side::Stable };
        let end = question.end.as_second() - START;
        let begin = match question.start {
            Some(start) => start.as_second() - START - 1,
            None => {
                let window = question.query.rsplit('[').next().unwrap().trim_end_matches("s]").parse::<i64>().unwrap();
                end - window
            }
        };
        let mut value = 0;
        let mut samples = Series::new();
        let first = if side == Side::Canary { 0 } else { -7200 };
        for at in (first..=end).step_by(SCRAPE as usize) {
            let (requests, failures) = (self.traffic)(side, at);
            value += if question.query.contains("errors") { failures } else { requests };
            if at > begin && (self.scraped)(side, at) && value > 0 {
                samples.push(((START + at) as f64, value as f64));
            }
        }
        if samples.is_empty() { Vec::new() } else { vec![Sampled { pod: "one".into(), samples }] }
    }

    fn status(&self) -> &AnalysisRunStatus {
        self.world.run.status.as_ref().unwrap()
    }

    fn result(&self) -> &MetricResult {
        &self.status().metric_results[0]
    }
}

const NEVER: (i64, i64) = (0, 0);

#[test]
fn a_bad_canary_fails_with_a_sentence() {
    let mut bench = Bench::new(json!({}), bad);
    let status = bench.run(3600, NEVER);
    let sentence = "canary 36 of 3,600 requests failed, stable 48 of 14,400: 3 times the rate, more than 1.25 times stable's \
                    rate with 99% confidence; seen after 3 min";
    assert_eq!(status.phase, AnalysisPhase::Failed);
    assert_eq!(status.message, format!("Metric \"errors\" assessed Failed: {sentence}"));
    let result = bench.result();
    assert_eq!((result.message.as_str(), result.measurements.len()), (sentence, 3));
    let last = result.measurements.last().unwrap();
    assert_eq!(last.value, "canary 36 of 3,600 requests failed, stable 48 of 14,400");
    assert_eq!(last.metadata["canaryFailures"], "36");
    assert_eq!(result.metadata["stableErrors"], "errors{v=\"stable\"}");
    // Four counters a look, and no more: the dispersion was given.
    assert_eq!(bench.questions, [4, 4, 4]);
    let first = &result.measurements[0];
    assert_eq!((first.phase, first.message.as_str()), (AnalysisPhase::Successful, ""));
}

#[test]
fn a_controller_that_was_away_comes_to_the_same_verdict() {
    for traffic in [bad as Traffic, healthy, |side, at| if at < 300 { healthy(side, at) } else { bad(side, at) }] {
        let verdict = |away: (i64, i64)| {
            let mut bench = Bench::new(json!({}), traffic);
            let status = bench.run(3600, away).clone();
            (status.phase, status.message, bench.result().judge.clone())
        };
        let expected = verdict(NEVER);
        assert!(expected.0.completed());
        for away in [(100, 260), (131, 132), (190, 700), (250, 2000)] {
            assert_eq!(verdict(away), expected, "away {away:?}");
        }
    }
}

#[test]
fn a_healthy_canary_runs_to_the_horizon_unless_it_may_end_early() {
    let mut bench = Bench::new(json!({}), healthy);
    assert_eq!(bench.run(3600, NEVER).phase, AnalysisPhase::Successful);
    assert_eq!(bench.world.now.as_second() - START, 670);
    let message = &bench.result().message;
    assert!(message.contains("no worse than 1.5 times stable's rate plus 0.1% of requests"), "{message}");
    let mut early = Bench::new(json!({"promoteEarly": true}), healthy);
    assert_eq!(early.run(3600, NEVER).phase, AnalysisPhase::Successful);
    assert!(early.world.now.as_second() - START < 600, "{}", early.world.now);
}

#[test]
fn an_outage_of_both_is_not_blamed_on_the_canary() {
    fn outage(side: Side, at: i64) -> (u64, u64) {
        if (200..400).contains(&at) { (steady(side), steady(side) / 2) } else { healthy(side, at) }
    }
    let mut bench = Bench::new(json!({"undecided": "Successful"}), outage);
    bench.run(3600, NEVER);
    assert_eq!(bench.status().phase, AnalysisPhase::Successful, "{}", bench.result().message);
}

#[test]
fn whose_pods_are_scraped_last_is_not_blamed_for_an_outage_that_all_of_them_had() {
    // Each pod gets 20 requests a second, and from the 260th second on half of them fail. It is scraped once a minute.
    let series = |question: &Question, pod: &str, scraped_at: i64| {
        let (first, last) = (START - 600, question.end.as_second());
        let counted = |at: i64| {
            if question.query.contains("errors") { 10 * (at - START - 260).max(0) } else { 20 * (at - first) }
        };
        let scrapes = (first..=last).filter(|at| (at - START).rem_euclid(60) == scraped_at);
        Sampled { pod: pod.to_owned(), samples: scrapes.map(|at| (at as f64, counted(at) as f64)).collect() }
    };
    let evidence = |stable: [(&str, i64); 3]| {
        let mut bench = Bench::new(json!({}), healthy);
        for second in [130, 190, 250, 310] {
            bench.look(second, |bench, task| {
                let Step::Compare(look) = &task.step else { panic!() };
                let mut answers = Answers::default();
                for question in look.questions() {
                    let of = |pods: &[(&str, i64)]| pods.iter().map(|(pod, at)| series(&question, pod, *at)).collect();
                    let pods = if question.query.contains("canary") { of(&[("canary", 55)]) } else { of(&stable) };
                    look.note(&mut answers, question.asked, pods);
                }
                Some(Outcome::of_judge(task, bench.measurement(), look.metadata(), look.judge(&answers)))
            });
        }
        let last = bench.result().measurements.last().unwrap();
        assert_eq!((&*last.metadata["canaryFailures"], &*last.metadata["stableFailures"]), ("350", "300"));
        bench.status().phase
    };
    // Stable's pods differ as much among each other as the canary differs from them.
    assert_eq!(evidence([("a", 5), ("b", 25), ("c", 45)]), AnalysisPhase::Running);
    // Where they do not, it is the canary.
    assert_eq!(evidence([("a", 30), ("b", 30), ("c", 30)]), AnalysisPhase::Failed);
}

#[test]
fn little_traffic_is_undecided_and_none_is_no_data_whatever_doubts_may_do() {
    fn little(side: Side, at: i64) -> (u64, u64) {
        (steady(side) / 100, u64::from(side == Side::Stable && at % 600 == 0))
    }
    fn none(side: Side, at: i64) -> (u64, u64) {
        if side == Side::Canary { (0, 0) } else { healthy(side, at) }
    }
    for (undecided, phase) in [("", AnalysisPhase::Inconclusive), ("Successful", AnalysisPhase::Successful)] {
        let mut bench = Bench::new(json!({"undecided": undecided}), little);
        assert_eq!(bench.run(3600, NEVER).phase, phase);
        let message = &bench.result().message;
        assert!(message.starts_with("not enough traffic: "), "{message}");

        let mut bench = Bench::new(json!({"undecided": undecided}), none);
        assert_eq!(bench.run(3600, NEVER).phase, AnalysisPhase::Inconclusive);
        assert_eq!(bench.result().message, "no data from canary");
        assert_eq!(bench.result().successful, 0);
    }
}

#[test]
fn an_unreachable_prometheus_neither_fails_nor_passes_until_the_last_look() {
    let mut bench = Bench::new(json!({}), bad);
    let mut second = 130;
    while second < 660 {
        bench.look(second, |_, _| None);
        second += 10;
    }
    let result = bench.result();
    assert_eq!((result.phase, result.consecutive_error), (AnalysisPhase::Running, 0));
    assert!(result.error > 40, "{}", result.error);
    // It is back: what happened meanwhile is judged after all.
    let mut back = Bench { world: bench.world.clone(), questions: Vec::new(), ..bench };
    back.look(660, |bench, task| Some(bench.answered(task)));
    assert_eq!(back.status().phase, AnalysisPhase::Failed);
    // It is not.
    for _ in 0..20 {
        second += 10;
        bench.look(second, |_, _| None);
    }
    assert_eq!(bench.status().phase, AnalysisPhase::Error);
    assert!(bench.status().message.contains("connection refused"), "{}", bench.status().message);
}

#[test]
fn what_cannot_be_remembered_is_no_promotion() {
    type Spoil = fn(&mut MetricResult);
    let cases: [(Spoil, &str); 3] = [
        (
            |result| result.judge = result.judge.take().map(|text| text.replace("\"version\":1", "\"version\":9")),
            "undecided: the judge's state is of version 9, and this is version 1",
        ),
        (|result| result.judge = Some("{".to_owned()), "undecided: the judge's state cannot be read: "),
        (|result| result.judge = None, "undecided: what has been counted is not in the status any more; "),
    ];
    for (spoil, message) in cases {
        let mut bench = Bench::new(json!({"undecided": "Successful", "promoteEarly": true}), healthy);
        bench.look(130, |bench, task| Some(bench.answered(task)));
        let mut run = (*bench.world.run).clone();
        spoil(&mut run.status.as_mut().unwrap().metric_results[0]);
        bench.world.run = Arc::new(run);
        bench.look(190, |bench, task| Some(bench.answered(task)));
        assert_eq!(bench.status().phase, AnalysisPhase::Inconclusive);
        assert!(bench.result().message.starts_with(message), "{}", bench.result().message);
    }
}

#[test]
fn traffic_that_does_not_follow_the_weight_is_inconclusive() {
    let judged = |weight: fn(i64) -> f64| {
        let mut bench = Bench::new(json!({"undecided": "Successful"}), healthy);
        let mut second = 130;
        while !bench.world.run.status.as_ref().is_some_and(|status| status.phase.completed()) {
            bench.world.weight = Some(weight(second));
            bench.look(second, |bench, task| Some(bench.answered(task)));
            second += 60;
        }
        (bench.status().phase, bench.result().message.clone())
    };
    let (phase, message) = judged(|_| 0.05);
    assert_eq!(phase, AnalysisPhase::Inconclusive);
    assert!(message.starts_with("routing does not do what the weight says: "), "{message}");
    assert!(message.ends_with("(20%), its weight is 5%"), "{message}");
    assert_eq!(judged(|_| 0.2).0, AnalysisPhase::Successful);
    // While it is moved from minute to minute, nobody knows what the requests should have been.
    assert_eq!(judged(|second| 0.05 + second as f64 / 1e4).0, AnalysisPhase::Successful);
}

#[test]
fn a_pod_that_was_not_scraped_for_a_while_is_no_wrong_split() {
    let mut bench = Bench::new(json!({"undecided": "Successful", "horizon": "30m"}), healthy);
    bench.scraped = |side, at| side == Side::Stable || !(300..1200).contains(&at);
    bench.world.weight = Some(0.2);
    let status = bench.run(3600, NEVER);
    assert_eq!(status.phase, AnalysisPhase::Successful, "{}", status.message);
}

#[test]
fn a_gap_of_the_scrapes_does_not_bring_the_past_along() {
    // Prometheus was away for a quarter of an hour, and stable's counters hold two good hours.
    fn worse_together(side: Side, at: i64) -> (u64, u64) {
        let failures = if at < 0 { 0 } else { steady(side) / 20 };
        (steady(side), failures)
    }
    let mut bench = Bench::new(json!({"horizon": "30m"}), worse_together);
    bench.scraped = |_, at| !(300..1200).contains(&at);
    bench.run(3600, NEVER);
    let last = bench.result().measurements.last().unwrap();
    let rate = |failures: &str, requests: &str| {
        last.metadata[failures].parse::<f64>().unwrap() / last.metadata[requests].parse::<f64>().unwrap()
    };
    assert!((rate("stableFailures", "stableRequests") - 0.05).abs() < 0.002, "{last:?}");
    assert!((rate("canaryFailures", "canaryRequests") - 0.05).abs() < 0.002, "{last:?}");
}

#[test]
fn a_bucket_that_is_missing_is_no_failure() {
    let good = |version: &str| json!({"total": format!("total{{v=\"{version}\"}}"), "good": format!("nothing{{v=\"{version}\"}}")});
    let spec = json!({"metrics": [{"name": "latency", "compare": {
        "canary": good("canary"), "stable": {"total": "total", "good": "total"}, "horizon": "2m",
    }}]});
    let mut bench = Bench::with_spec(spec, healthy);
    let answered = |bench: &mut Bench, task: &Task| {
        let Step::Compare(look) = &task.step else { panic!() };
        let mut answers = Answers::default();
        for question in look.questions() {
            let series = if question.query.contains("nothing") { Vec::new() } else { bench.series(&question) };
            look.note(&mut answers, question.asked, series);
        }
        Some(Outcome::of_judge(task, bench.measurement(), look.metadata(), look.judge(&answers)))
    };
    for second in [130, 190] {
        bench.look(second, answered);
    }
    assert_eq!(bench.status().phase, AnalysisPhase::Inconclusive);
    assert_eq!(bench.result().message, "no data from canary");
}

#[test]
fn several_comparisons_share_the_errors() {
    let compare = json!({"canary": {"total": "total{v=\"canary\"}", "errors": "errors{v=\"canary\"}"},
        "stable": {"total": "total", "errors": "errors"}, "dispersion": 1});
    let spec = json!({"metrics": [{"name": "a", "compare": compare}, {"name": "b", "compare": compare}]});
    let mut bench = Bench::with_spec(spec, healthy);
    bench.look(130, |bench, task| Some(bench.answered(task)));
    for result in &bench.status().metric_results {
        let evidence = &result.measurements[0].metadata["evidenceOfHarm"];
        assert!(evidence.ends_with("of 5.30"), "twice as much as ln 100: {evidence}");
    }
}

#[test]
fn bursts_are_measured_on_stables_pods_before_the_run() {
    let own = |version: &str| json!({"total": format!("total{{v=\"{version}\"}}"), "errors": format!("errors{{v=\"{version}\"}}")});
    let spec = json!({"metrics": [{"name": "errors", "compare": {"canary": own("canary"), "stable": own("stable")}}]});
    let dispersion = |pods: usize, answered: bool| {
        let mut bench = Bench::with_spec(spec.clone(), healthy);
        bench.look(130, |bench, task| {
            let Step::Compare(look) = &task.step else { panic!() };
            let questions = look.questions();
            assert_eq!(
                questions.iter().map(Question::optional).collect::<Vec<_>>(),
                [false, false, false, false, true, true]
            );
            let mut answers = Answers::default();
            for question in questions.iter().filter(|question| answered || !question.optional()) {
                let mut series = bench.series(question);
                if let Some(start) = question.start {
                    assert_eq!((start.as_second(), question.end.as_second()), (START - 3600, START));
                    // Each minute another pod has four failures at once.
                    let errors = question.query.contains("errors");
                    series = (0..pods)
                        .map(|pod| {
                            let value = |minute: usize| {
                                if errors { 4 * ((minute + pods - 1 - pod) / pods) as u64 } else { 100 * minute as u64 }
                            };
                            let at = |minute: usize| start.as_second() as f64 + 60.0 * minute as f64;
                            Sampled {
                                pod: format!("web-{pod}"),
                                samples: (0..=60).map(|minute| (at(minute), value(minute) as f64)).collect(),
                            }
                        })
                        .collect();
                }
                look.note(&mut answers, question.asked, series);
            }
            Some(Outcome::of_judge(task, bench.measurement(), look.metadata(), look.judge(&answers)))
        });
        bench.result().measurements[0].metadata["dispersion"].clone()
    };
    assert_eq!(dispersion(4, true), "4.00, measured");
    assert_eq!(dispersion(1, true), "3, assumed");
    assert_eq!(dispersion(4, false), "3, assumed");
}
