mod properties;

use serde_json::{Value, json};

use super::*;
use AnalysisPhase::{Error, Failed, Inconclusive, Pending, Running, Successful};

/// A run that is measured second by second, as the shell does it.
struct Bench {
    world: RunWorld,
    events: Vec<String>,
    deleted: bool,
    wake: Option<Timestamp>,
}

const START: i64 = 1_700_000_000;

impl Bench {
    fn new(spec: Value) -> Self {
        let run = serde_json::from_value(json!({
            "apiVersion": "argoproj.io/v1alpha1", "kind": "AnalysisRun",
            "metadata": {"name": "r", "namespace": "ns", "uid": "u"},
            "spec": spec,
        }))
        .unwrap();
        let now = Timestamp::from_second(START).unwrap();
        let world = RunWorld { now, run: Arc::new(run), secrets: Secrets::default(), weight: None };
        Self { world, events: Vec::new(), deleted: false, wake: None }
    }

    /// One decision at `second`; `answer` gives the phase (and value) that each started measurement ends with. `None`
    /// leaves it in flight.
    fn at(&mut self, second: i64, answer: impl Fn(&Task) -> Option<(AnalysisPhase, &'static str)>) -> &mut Self {
        self.world.now = Timestamp::from_second(START + second).unwrap();
        let tasks = tasks(&self.world);
        let outcomes = tasks
            .iter()
            .filter(|task| !matches!(task.step, Step::Collect(_)))
            .map(|task| {
                let now = Some(Time(self.world.now));
                let mut measurement = match &task.step {
                    Step::Resume(measurement) | Step::Terminate(measurement) => measurement.clone(),
                    _ => Measurement { phase: Running, started_at: now.clone(), ..Measurement::default() },
                };
                if let Some((phase, message)) = answer(task) {
                    measurement.phase = phase;
                    measurement.message = message.to_owned();
                    measurement.finished_at = now;
                }
                Outcome::new(task, measurement, BTreeMap::new())
            })
            .collect();
        self.conclude(outcomes)
    }

    fn conclude(&mut self, outcomes: Vec<Outcome>) -> &mut Self {
        let plan = conclude(&self.world, outcomes);
        // The decision is a function of the world, and the status survives the API server.
        let stored = serde_json::to_value(&plan.status).unwrap();
        let mut run = (*self.world.run).clone();
        run.status = Some(serde_json::from_value(stored).unwrap());
        assert_eq!(run.status.as_ref(), Some(&plan.status), "the status is what the server gives back");
        self.world.run = Arc::new(run);
        self.events.extend(plan.events.iter().map(ToString::to_string));
        self.deleted = plan.actions.iter().any(|action| matches!(action, Action::Delete { .. }));
        self.wake = plan.wake;
        self
    }

    fn run(&mut self, second: i64, phase: AnalysisPhase) -> &mut Self {
        self.at(second, |_| Some((phase, "")))
    }

    fn status(&self) -> &AnalysisRunStatus {
        self.world.run.status.as_ref().unwrap()
    }

    fn result(&self, index: usize) -> &MetricResult {
        &self.status().metric_results[index]
    }

    fn wake(&self) -> Option<i64> {
        self.wake.map(|wake| wake.as_second() - START)
    }

    fn edit(&mut self, edit: impl FnOnce(&mut AnalysisRun)) -> &mut Self {
        let mut run = (*self.world.run).clone();
        edit(&mut run);
        self.world.run = Arc::new(run);
        self
    }

    fn terminate(&mut self) -> &mut Self {
        self.edit(|run| run.spec.terminate = true)
    }

    fn steps(&self) -> Vec<String> {
        let step = |task: &Task| match &task.step {
            Step::Compare(_) => format!("compare {}", task.metric.name),
            Step::Start { number } => format!("start {} {number}", task.metric.name),
            Step::Resume(_) => format!("resume {}", task.metric.name),
            Step::Terminate(_) => format!("terminate {}", task.metric.name),
            Step::Collect(forgotten) => format!("collect {} {}", task.metric.name, forgotten.len()),
        };
        tasks(&self.world).iter().map(step).collect()
    }

    fn steps_at(&mut self, second: i64) -> Vec<String> {
        self.world.now = Timestamp::from_second(START + second).unwrap();
        self.steps()
    }
}

fn metric(fields: Value) -> Value {
    let mut metric = json!({"name": "m", "provider": {"web": {"url": "http://x"}}});
    for (key, value) in fields.as_object().unwrap() {
        metric[key] = value.clone();
    }
    metric
}

fn bench(fields: Value) -> Bench {
    Bench::new(json!({"metrics": [metric(fields)]}))
}

#[test]
fn when_the_status_is_to_say_more() {
    let spec = json!({"metrics": [
        metric(json!({"name": "slow", "interval": "1m", "initialDelay": "30s"})),
        metric(json!({"name": "fast", "interval": "10s", "count": 2})),
    ]});
    let mut bench = Bench::new(spec);
    let due = |bench: &Bench| {
        let at = due(bench.world.now, &bench.world.run)?;
        Some(at.as_second() - START)
    };
    assert_eq!(due(&bench), None, "nobody has taken it up");
    bench.run(0, Successful);
    assert_eq!(due(&bench), Some(10));
    bench.run(10, Successful);
    assert_eq!(due(&bench), Some(30), "what has its count is looked at no more");
    bench.at(30, |_| None);
    assert_eq!(due(&bench), None, "nobody knows when a measurement in flight ends");
    bench.edit(|run| {
        let results = &mut run.status.as_mut().unwrap().metric_results;
        results.last_mut().unwrap().measurements[0].resume_at = Some(Time(Timestamp::from_second(START + 40).unwrap()));
    });
    bench.world.now = Timestamp::from_second(START + 90).unwrap();
    assert_eq!(due(&bench), Some(40), "also when that is long ago");
    bench.terminate();
    assert_eq!(due(&bench), None);
}

#[test]
fn one_measurement_decides_a_metric_without_interval() {
    for (measured, message, events) in [
        (
            Successful,
            "",
            [
                "Normal MetricSuccessful: Metric 'm' Completed. Result: Successful",
                "Normal AnalysisRunSuccessful: Analysis Completed. Result: Successful",
            ],
        ),
        (
            Failed,
            "Metric \"m\" assessed Failed due to failed (1) > failureLimit (0)",
            [
                "Warning MetricFailed: Metric 'm' Completed. Result: Failed",
                "Warning AnalysisRunFailed: Analysis Completed. Result: Failed",
            ],
        ),
        (
            Inconclusive,
            "Metric \"m\" assessed Inconclusive due to inconclusive (1) > inconclusiveLimit (0)",
            [
                "Normal MetricInconclusive: Metric 'm' Completed. Result: Inconclusive",
                "Normal AnalysisRunInconclusive: Analysis Completed. Result: Inconclusive",
            ],
        ),
    ] {
        let mut bench = bench(json!({}));
        bench.run(0, measured);
        assert_eq!(bench.status().phase, measured);
        assert_eq!(bench.status().message, message);
        assert_eq!(bench.events, events.map(|event| format!("event {event}")));
        assert_eq!(bench.status().started_at, bench.status().completed_at);
        assert_eq!(bench.wake(), None);
        assert_eq!(bench.status().run_summary.count, 1);
        assert_eq!(bench.status().dry_run_summary, Some(Default::default()));
        // A run that is over stays so.
        let before = bench.status().clone();
        assert!(bench.steps_at(100).is_empty());
        assert_eq!(*bench.conclude(Vec::new()).status(), before);
    }
}

#[test]
fn five_errors_in_a_row_are_one_too_many() {
    let mut bench = bench(json!({"interval": "1h", "count": 2}));
    for (second, error) in [(0, 1), (10, 2), (20, 3), (30, 4)] {
        bench.at(second, |_| Some((Error, "connection refused")));
        assert_eq!(bench.status().phase, Running);
        assert_eq!(bench.result(0).consecutive_error, error);
        assert_eq!(bench.wake(), Some(second + 10), "an error is tried again after 10 s");
        assert!(bench.steps_at(second + 9).is_empty());
    }
    bench.at(40, |_| Some((Error, "connection refused")));
    assert_eq!(
        bench.status().message,
        "Metric \"m\" assessed Error due to consecutiveErrors (5) > consecutiveErrorLimit (4): \
         \"Error Message: connection refused\""
    );
    assert_eq!(bench.status().phase, Error);
    assert_eq!(bench.status().run_summary.error, 1);
    assert_eq!((bench.result(0).error, bench.result(0).count), (5, 0));
}

#[test]
fn any_answer_ends_a_row_of_errors_and_anything_but_success_a_row_of_successes() {
    let mut bench = bench(json!({"interval": "10s", "failureLimit": 9, "inconclusiveLimit": 9}));
    let mut second = 0;
    for (measured, errors, successes) in [
        (Error, 1, 0),
        (Error, 2, 0),
        (Failed, 0, 0),
        (Error, 1, 0),
        (Inconclusive, 0, 0),
        (Successful, 0, 1),
        (Successful, 0, 2),
        (Error, 1, 0),
        (Successful, 0, 1),
        (Failed, 0, 0),
        (Successful, 0, 1),
        (Inconclusive, 0, 0),
    ] {
        bench.run(second, measured);
        let result = bench.result(0);
        assert_eq!((result.consecutive_error, result.consecutive_success), (errors, successes), "{second}");
        second += 10;
    }
    let result = bench.result(0);
    assert_eq!((result.count, result.successful, result.failed), (8, 4, 2));
    assert_eq!((result.inconclusive, result.error), (2, 4));
}

#[test]
fn intervals_count_from_the_end_of_a_measurement() {
    let mut bench = bench(json!({"interval": "30s", "count": 3}));
    bench.at(0, |_| None);
    assert_eq!(bench.status().phase, Running);
    bench.run(20, Successful);
    assert_eq!(bench.wake(), Some(50));
    assert!(bench.steps_at(49).is_empty());
    assert_eq!(bench.steps_at(50), ["start m 2"]);
    bench.run(50, Successful).run(80, Successful);
    assert_eq!(bench.status().phase, Successful);
}

#[test]
fn an_interval_below_a_second_is_one_second() {
    let mut bench = bench(json!({"interval": "1ms"}));
    bench.run(0, Successful);
    assert_eq!(bench.wake(), Some(1));
    assert!(bench.steps().is_empty());
}

#[test]
fn the_first_measurement_waits_for_the_initial_delay() {
    let mut bench = Bench::new(json!({"metrics": [
        metric(json!({"name": "later", "initialDelay": "1m"})),
        metric(json!({"name": "now"})),
    ]}));
    assert_eq!(bench.steps(), ["start now 1"]);
    bench.run(0, Successful);
    assert_eq!((bench.status().phase, bench.wake()), (Running, Some(60)));
    assert!(bench.steps_at(59).is_empty());
    assert_eq!(bench.steps_at(60), ["start later 1"]);
    bench.run(60, Successful);
    assert_eq!(bench.status().phase, Successful);
}

#[test]
fn limits_end_a_metric_as_the_table_says() {
    // (metric, measurements, phase after each)
    let every_second = |fields: Value| {
        let mut fields = fields;
        fields["interval"] = json!("10s");
        fields
    };
    for (fields, measured) in [
        (json!({"failureLimit": 1}), vec![(Failed, Running), (Successful, Running), (Failed, Failed)]),
        (
            json!({"failureLimit": 1, "count": 3}),
            vec![(Failed, Running), (Successful, Running), (Successful, Successful)],
        ),
        (json!({"count": "2"}), vec![(Successful, Running), (Successful, Successful)]),
        (
            json!({"count": 2}),
            vec![(Error, Running), (Successful, Running), (Error, Running), (Successful, Successful)],
        ),
        (json!({"inconclusiveLimit": 1}), vec![(Inconclusive, Running), (Inconclusive, Inconclusive)]),
        (json!({"consecutiveErrorLimit": 0}), vec![(Successful, Running), (Error, Error)]),
        (
            json!({"consecutiveErrorLimit": 1}),
            vec![(Error, Running), (Successful, Running), (Error, Running), (Error, Error)],
        ),
        // A streak ends it early; without a count it is waited for indefinitely.
        (
            json!({"consecutiveSuccessLimit": 2, "failureLimit": 9}),
            vec![(Successful, Running), (Failed, Running), (Successful, Running), (Successful, Successful)],
        ),
        (
            json!({"consecutiveSuccessLimit": 2, "failureLimit": -1}),
            vec![(Failed, Running), (Failed, Running), (Successful, Running), (Successful, Successful)],
        ),
        // Both limits kept, but no streak by the end of the count.
        (
            json!({"consecutiveSuccessLimit": 2, "failureLimit": 1, "count": 3}),
            vec![(Successful, Running), (Failed, Running), (Successful, Inconclusive)],
        ),
        // Failures do not matter, but the streak did not come.
        (
            json!({"consecutiveSuccessLimit": 2, "failureLimit": -1, "count": 3}),
            vec![(Successful, Running), (Failed, Running), (Successful, Failed)],
        ),
        // The streak counts before the count.
        (
            json!({"consecutiveSuccessLimit": 2, "failureLimit": 1, "count": 3}),
            vec![(Failed, Running), (Successful, Running), (Successful, Successful)],
        ),
        // A failure beyond its limit counts before the streak.
        (json!({"consecutiveSuccessLimit": 1, "failureLimit": 0}), vec![(Failed, Failed)]),
    ] {
        let mut bench = bench(every_second(fields.clone()));
        for (index, (measured, phase)) in measured.into_iter().enumerate() {
            bench.run(index as i64 * 10, measured);
            assert_eq!(bench.status().phase, phase, "{fields} after measurement {}", index + 1);
        }
    }
}

#[test]
fn a_streak_that_did_not_come_is_said() {
    let mut bench = bench(json!({"consecutiveSuccessLimit": 2, "failureLimit": 1, "count": 3, "interval": "10s"}));
    bench.run(0, Successful).run(10, Failed).run(20, Successful);
    assert_eq!(
        bench.status().message,
        "Metric \"m\" assessed Inconclusive due to count (3) reached with consecutiveSuccess (1) < consecutiveSuccessLimit (2)"
    );
}

#[test]
fn the_worst_metric_speaks_for_the_run() {
    // failed, error, inconclusive and successful in every order: the run is what the worst is.
    let names = ["a", "b", "c", "d"];
    for rotation in 0..4 {
        let phases = [Successful, Inconclusive, Error, Failed];
        let metrics: Vec<Value> =
            names.iter().map(|name| metric(json!({"name": name, "consecutiveErrorLimit": 0}))).collect();
        let mut bench = Bench::new(json!({"metrics": metrics}));
        bench.at(0, |task| {
            let index = names.iter().position(|name| *name == task.metric.name).unwrap();
            Some((phases[(index + rotation) % 4], "why"))
        });
        assert_eq!(bench.status().phase, Failed);
        let failed = names[(7 - rotation) % 4];
        assert_eq!(
            bench.status().message,
            format!("Metric \"{failed}\" assessed Failed due to failed (1) > failureLimit (0): \"Error Message: why\"")
        );
        let summary = &bench.status().run_summary;
        assert_eq!((summary.count, summary.successful, summary.failed), (4, 1, 1));
        assert_eq!((summary.inconclusive, summary.error), (1, 1));
    }
}

#[test]
fn a_failed_metric_ends_the_run_for_all() {
    let mut bench = Bench::new(json!({"metrics": [
        metric(json!({"name": "bad"})),
        metric(json!({"name": "endless", "interval": "1m"})),
        metric(json!({"name": "later", "initialDelay": "1h"})),
    ]}));
    bench.at(0, |task| Some((if task.metric.name == "bad" { Failed } else { Successful }, "")));
    assert_eq!(bench.status().phase, Failed);
    assert_eq!(bench.result(1).phase, Successful);
    assert_eq!(bench.status().metric_results.len(), 2);
    assert!(bench.status().completed_at.is_some());
}

#[test]
fn what_is_under_way_is_terminated_first() {
    let mut bench = Bench::new(json!({"metrics": [
        metric(json!({"name": "bad"})),
        metric(json!({"name": "slow"})),
    ]}));
    bench.at(0, |task| (task.metric.name == "bad").then_some((Failed, "")));
    assert_eq!((bench.status().phase, bench.wake()), (Running, Some(0)));
    assert_eq!(bench.steps(), ["terminate slow"]);
    // Nothing came of it: the run goes on asking.
    bench.conclude(Vec::new());
    assert_eq!((bench.status().phase, bench.steps()), (Running, vec!["terminate slow".to_owned()]));
    bench.at(1, |_| Some((Inconclusive, "Metric Terminated")));
    assert_eq!(bench.status().phase, Failed);
    assert_eq!(bench.result(1).phase, Inconclusive);
    assert_eq!(bench.result(1).message, "Metric Terminated");
    assert_eq!(bench.status().message, "Metric \"bad\" assessed Failed due to failed (1) > failureLimit (0)");
}

#[test]
fn a_run_can_be_terminated_at_any_time() {
    // Before anything was measured.
    let mut early = bench(json!({"initialDelay": "1m"}));
    early.terminate().run(0, Failed);
    assert_eq!((early.status().phase, early.status().message.as_str()), (Successful, "Run Terminated"));
    assert!(early.status().metric_results.is_empty());

    // Between two measurements.
    let mut between = bench(json!({"interval": "1m"}));
    between.run(0, Successful).terminate().run(90, Failed);
    assert_eq!((between.status().phase, between.status().message.as_str()), (Successful, "Run Terminated"));
    assert_eq!(between.result(0).count, 1);

    // A measurement under way that is cut off without an answer is no success.
    let mut during = bench(json!({}));
    during.at(0, |_| None).terminate();
    assert_eq!(during.steps(), ["terminate m"]);
    during.at(5, |_| Some((Inconclusive, "Metric Terminated")));
    assert_eq!(during.status().phase, Inconclusive);
    assert_eq!(
        during.status().message,
        "Metric \"m\" assessed Inconclusive due to inconclusive (1) > inconclusiveLimit (0): \"Error Message: Metric Terminated\""
    );
}

#[test]
fn a_dry_run_metric_is_measured_but_not_judged() {
    let mut bench = Bench::new(json!({
        "metrics": [
            metric(json!({"name": "dry"})),
            metric(json!({"name": "real", "interval": "10s", "count": 2})),
        ],
        "dryRun": [{"metricName": "^dry$"}],
    }));
    bench.at(0, |task| Some((if task.metric.name == "dry" { Failed } else { Successful }, "bad")));
    assert_eq!(bench.status().phase, Running, "the others go on");
    assert!(bench.result(0).dry_run && !bench.result(1).dry_run);
    assert_eq!(bench.result(0).message, "Metric assessed Failed due to failed (1) > failureLimit (0)");
    bench.run(10, Successful);
    assert_eq!(bench.status().phase, Successful);
    assert_eq!(bench.status().message, "");
    let summaries = (&bench.status().run_summary, bench.status().dry_run_summary.as_ref().unwrap());
    assert_eq!((summaries.0.count, summaries.0.successful), (1, 1));
    assert_eq!((summaries.1.count, summaries.1.failed), (1, 1));

    let mut only = Bench::new(json!({"metrics": [metric(json!({}))], "dryRun": [{"metricName": ".*"}]}));
    only.run(0, Failed);
    assert_eq!(only.status().phase, Successful);
}

#[test]
fn old_measurements_are_forgotten_and_what_they_left_is_collected() {
    let mut bench = Bench::new(json!({
        "metrics": [metric(json!({"interval": "10s"}))],
        "measurementRetention": [{"metricName": "m", "limit": 2}],
    }));
    bench.run(0, Successful).run(10, Successful);
    assert_eq!(bench.steps_at(20), ["collect m 1", "start m 3"]);
    bench.at(20, |_| Some((Successful, "third")));
    let result = bench.result(0);
    assert_eq!((result.measurements.len(), result.count), (2, 3));
    assert_eq!(result.measurements[1].message, "third");

    let mut default = super::tests::bench(json!({"interval": "10s"}));
    for measurement in 0..12 {
        default.run(measurement * 10, Successful);
    }
    assert_eq!((default.result(0).measurements.len(), default.result(0).count), (10, 12));
}

#[test]
fn a_measurement_in_flight_is_looked_at_when_it_says_or_ever_less_often() {
    let mut bench = bench(json!({}));
    bench.at(0, |_| None);
    assert_eq!(bench.wake(), Some(1));
    bench.at(50, |_| None);
    assert_eq!(bench.wake(), Some(60));
    bench.at(5000, |_| None);
    assert_eq!(bench.wake(), Some(5100));
    assert_eq!(bench.steps_at(5001), ["resume m"], "whenever the run is looked at");
    bench.run(5002, Successful);
    assert_eq!((bench.status().phase, bench.result(0).measurements.len()), (Successful, 1));

    let mut told = super::tests::bench(json!({}));
    let task = tasks(&told.world).remove(0);
    let resume_at = Some(Time(Timestamp::from_second(START + 15).unwrap()));
    let measurement = Measurement { phase: Running, resume_at, ..Measurement::default() };
    told.conclude(vec![Outcome::new(&task, measurement, BTreeMap::new())]);
    assert_eq!(told.wake(), Some(15));
    assert!(told.steps_at(14).is_empty());
    assert_eq!(told.steps_at(15), ["resume m"]);
}

#[test]
fn a_run_that_cannot_be_measured_is_an_error_that_says_why() {
    for (spec, message) in [
        (json!({"metrics": []}), "Analysis spec invalid: spec.metrics: Required value: no metrics specified"),
        (
            json!({"metrics": [metric(json!({"count": 2}))]}),
            "Analysis spec invalid: spec.metrics[0].interval: Required value: interval must be specified when count > 1",
        ),
        (
            json!({"metrics": [metric(json!({}))], "dryRun": [{"metricName": "x"}]}),
            "Analysis spec invalid: spec.dryRun[0].metricName: Invalid value: \"x\": Rule didn't match any metric name(s)",
        ),
        (
            json!({"metrics": [metric(json!({"successCondition": "{{args.x}}"}))]}),
            "Unable to resolve metric arguments: failed to resolve {{args.x}}",
        ),
        (
            json!({"metrics": [metric(json!({}))], "args": [{"name": "x"}]}),
            "Unable to resolve metric arguments: argument \"x\" was not supplied",
        ),
        (
            json!({"metrics": [metric(json!({}))], "args": [{"name": "x", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]}),
            "Unable to resolve metric arguments: secret 's' of argument \"x\": it was not read",
        ),
    ] {
        let mut bench = Bench::new(spec);
        bench.run(0, Successful);
        assert_eq!((bench.status().phase, bench.status().message.as_str()), (Error, message));
        assert_eq!(bench.events, ["event Warning AnalysisRunError: Analysis Completed. Result: Error"]);
        assert_eq!(bench.status().completed_at, None);
        // Neither measured nor told again.
        assert!(bench.run(10, Successful).events.len() == 1 && bench.status().metric_results.is_empty());
    }
}

#[test]
fn a_run_is_deleted_after_its_time_to_live() {
    for (ttl, measured, expires) in [
        (json!({"secondsAfterCompletion": 60}), Successful, Some(60)),
        (json!({"secondsAfterCompletion": 60}), Inconclusive, Some(60)),
        (json!({"secondsAfterCompletion": 60, "secondsAfterSuccess": 10}), Successful, Some(10)),
        (json!({"secondsAfterCompletion": 60, "secondsAfterSuccess": 10}), Failed, Some(60)),
        (json!({"secondsAfterFailure": 20}), Failed, Some(20)),
        (json!({"secondsAfterFailure": 20}), Inconclusive, None),
        (json!({"secondsAfterSuccess": 20}), Failed, None),
        (json!({"secondsAfterCompletion": 0}), Successful, Some(0)),
        (json!({}), Successful, None),
    ] {
        let mut bench = Bench::new(json!({"metrics": [metric(json!({}))], "ttlStrategy": ttl}));
        bench.run(0, measured);
        assert_eq!(bench.wake(), expires, "{ttl} {measured}");
        if let Some(expires) = expires {
            if expires > 0 {
                assert!(!bench.run(expires - 1, Successful).deleted);
                assert_eq!(bench.wake(), Some(expires));
            }
            assert!(bench.run(expires, Successful).deleted);
        }
    }
}

#[test]
fn secrets_are_asked_for_when_needed_and_leave_no_trace() {
    let mut bench = Bench::new(json!({
        "metrics": [metric(json!({
            "interval": "1m",
            "provider": {"web": {"url": "http://x", "headers": [{"key": "Authorization", "value": "{{args.token}}"}]}},
        }))],
        "args": [
            {"name": "token", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
            {"name": "again", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
        ],
    }));
    let reference = SecretKeyRef { name: "s".into(), key: "k".into() };
    assert_eq!(secret_refs(bench.world.now, &bench.world.run), std::slice::from_ref(&reference));
    bench.world.secrets.insert(&reference, Ok("t0ken".into()));

    let task = tasks(&bench.world).remove(0);
    assert_eq!(task.metric.provider.web.as_ref().unwrap().headers[0].value, "t0ken");
    assert!(!format!("{task:?}{:?}", bench.world).contains("t0ken"));
    let texts =
        BTreeMap::from([("note".to_owned(), "t0ken".to_owned()), ("job-name".to_owned(), "t0ken-1".to_owned())]);
    let measurement = Measurement {
        phase: Failed,
        message: "refused t0ken".into(),
        value: "[\"t0ken\"]".into(),
        finished_at: Some(Time(bench.world.now)),
        metadata: texts.clone(),
        ..Measurement::default()
    };
    bench.conclude(vec![Outcome::new(&task, measurement, texts)]);
    let result = bench.result(0);
    let expected =
        BTreeMap::from([("note".to_owned(), "*****".to_owned()), ("job-name".to_owned(), "t0ken-1".to_owned())]);
    assert_eq!(result.metadata, expected);
    assert_eq!(result.measurements[0].metadata, expected);
    assert_eq!(result.measurements[0].message, "refused *****");
    assert_eq!(result.measurements[0].value, "[\"*****\"]");
    assert_eq!(
        bench.status().message,
        "Metric \"m\" assessed Failed due to failed (1) > failureLimit (0): \"Error Message: refused *****\""
    );
}

#[test]
fn nothing_is_read_when_nothing_is_due() {
    let mut bench = Bench::new(json!({
        "metrics": [metric(json!({"interval": "1m", "successCondition": "{{args.token}}"}))],
        "args": [{"name": "token", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}],
    }));
    let reference = SecretKeyRef { name: "s".into(), key: "k".into() };
    bench.world.secrets.insert(&reference, Ok("true".into()));
    bench.run(0, Successful);
    bench.world.secrets = Secrets::default();
    bench.world.now = Timestamp::from_second(START + 30).unwrap();
    assert_eq!(secret_refs(bench.world.now, &bench.world.run), []);
    bench.conclude(Vec::new());
    assert_eq!(bench.status().phase, Running, "an unread secret is no error");
    // Nor can it keep a run from being terminated.
    bench.terminate().run(60, Failed);
    assert_eq!(bench.status().phase, Successful);
}

#[test]
fn texts_are_cut_so_that_the_run_can_be_stored() {
    let mut bench = bench(json!({}));
    let task = tasks(&bench.world).remove(0);
    let measurement = Measurement {
        phase: Successful,
        value: "é".repeat(1 << 20),
        message: "x".repeat(1 << 20),
        finished_at: Some(Time(bench.world.now)),
        ..Measurement::default()
    };
    bench.conclude(vec![Outcome::new(&task, measurement, BTreeMap::new())]);
    let measurement = &bench.result(0).measurements[0];
    assert_eq!(measurement.value, format!("{}… (2097152 bytes)", "é".repeat(VALUE_LIMIT / 2)));
    assert!(measurement.message.len() < TEXT_LIMIT + 32);
}

#[test]
fn an_outcome_that_was_not_asked_for_is_ignored() {
    let mut bench = Bench::new(json!({"metrics": [metric(json!({"interval": "1m"}))]}));
    let task = tasks(&bench.world).remove(0);
    bench.run(0, Successful);
    let late = Measurement { phase: Failed, finished_at: Some(Time(bench.world.now)), ..Measurement::default() };
    bench.conclude(vec![Outcome::new(&task, late, BTreeMap::new())]);
    assert_eq!((bench.status().phase, bench.result(0).failed), (Running, 0));
}

#[test]
fn a_run_that_is_being_deleted_is_left_alone() {
    let mut bench = bench(json!({}));
    bench.edit(|run| run.metadata.deletion_timestamp = Some(Time(Timestamp::from_second(START).unwrap())));
    assert!(bench.steps().is_empty());
    assert_eq!(bench.run(0, Failed).status().phase, AnalysisPhase::None);
}

#[test]
fn a_metric_result_without_measurements_is_pending() {
    let limits = Limits { count: Some(1), failure: Some(0), consecutive_error: 4, ..Limits::default() };
    let result = MetricResult::default();
    assert_eq!(assess::metric_phase(&limits, &result, false), Pending);
    assert_eq!(assess::metric_phase(&limits, &result, true), Successful);
}

#[test]
fn arguments_reach_count_and_interval() {
    let mut bench = Bench::new(json!({
        "metrics": [metric(json!({"count": "{{args.count}}", "interval": "{{args.interval}}"}))],
        "args": [{"name": "count", "value": "2"}, {"name": "interval", "value": "30s"}],
    }));
    bench.run(0, Successful);
    assert_eq!(bench.wake(), Some(30));
    assert_eq!(bench.run(30, Successful).status().phase, Successful);
}

#[test]
fn a_clock_that_is_set_back_does_not_stop_the_measurements() {
    let mut bench = bench(json!({"interval": "1m"}));
    bench.run(86_400, Successful);
    assert_eq!(bench.steps_at(0), ["start m 2"]);
}
