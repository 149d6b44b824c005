//! What holds whatever providers answer, and whatever is lost on the way.

use proptest::prelude::*;

use super::*;

fn metric_fields() -> impl Strategy<Value = Value> {
    let limit = || prop::option::of(0..3i32);
    (prop::option::of(1..5i32), -1..3i32, limit(), limit(), 0..3i32, any::<bool>()).prop_map(
        |(count, failure, inconclusive, error, streak, delayed)| {
            let mut fields = json!({"interval": "10s", "failureLimit": failure});
            for (name, value) in
                [("count", count), ("inconclusiveLimit", inconclusive), ("consecutiveErrorLimit", error)]
            {
                if let Some(value) = value {
                    fields[name] = value.into();
                }
            }
            if streak > 0 {
                fields["consecutiveSuccessLimit"] = streak.into();
            }
            if delayed {
                fields["initialDelay"] = "25s".into();
            }
            fields
        },
    )
}

/// What happens to the measurements of one round: by metric, a phase, nothing yet (`Running`), or lost (`None`).
fn round() -> impl Strategy<Value = Vec<AnalysisPhase>> {
    let phase =
        prop_oneof![Just(Successful), Just(Failed), Just(Inconclusive), Just(Error), Just(Running), Just(Pending)];
    prop::collection::vec(phase, 3)
}

proptest! {
    #[test]
    fn a_run_is_successful_only_by_success(
        fields in prop::collection::vec(metric_fields(), 1..4),
        dry in prop::option::of(0..3usize),
        rounds in prop::collection::vec(round(), 1..20),
        terminate_after in 0..40usize,
    ) {
        let metrics: Vec<Value> = fields
            .iter()
            .enumerate()
            .map(|(index, fields)| {
                let mut metric = metric(fields.clone());
                metric["name"] = format!("m{index}").into();
                metric
            })
            .collect();
        let dry = dry.filter(|dry| *dry < metrics.len());
        let rules: Vec<Value> = dry.iter().map(|dry| json!({"metricName": format!("m{dry}")})).collect();
        let mut bench = Bench::new(json!({"metrics": metrics, "dryRun": rules}));
        let mut ended: Option<AnalysisRunStatus> = None;
        for (number, round) in rounds.iter().enumerate() {
            if number == terminate_after {
                bench.terminate();
            }
            bench.world.now = Timestamp::from_second(START + number as i64 * 10).unwrap();
            let now = Some(Time(bench.world.now));
            let asked = tasks(&bench.world);
            let mut outcomes = Vec::new();
            for task in asked.iter().filter(|task| !matches!(task.step, Step::Collect(_))) {
                let index: usize = task.metric.name[1..].parse().unwrap();
                let phase = round[index];
                // Pending stands for an outcome that is lost.
                if phase == Pending {
                    continue;
                }
                let mut measurement = match &task.step {
                    Step::Resume(measurement) | Step::Terminate(measurement) => measurement.clone(),
                    _ => Measurement { started_at: now.clone(), ..Measurement::default() },
                };
                measurement.phase = phase;
                measurement.finished_at = now.clone().filter(|_| phase.completed());
                outcomes.push(Outcome::new(task, measurement, BTreeMap::new()));
            }
            let again = conclude(&bench.world, outcomes.clone());
            prop_assert_eq!(&again, &conclude(&bench.world, outcomes.clone()));
            bench.conclude(outcomes);

            let status = bench.status().clone();
            if let Some(ended) = &ended {
                prop_assert_eq!(&status, ended, "a run that is over stays as it is");
                prop_assert!(asked.is_empty());
                continue;
            }
            for result in &status.metric_results {
                prop_assert_eq!(result.successful + result.failed + result.inconclusive, result.count);
                prop_assert!(result.measurements.len() <= RETAINED);
            }
            if status.phase == AnalysisPhase::Error && status.metric_results.is_empty() {
                // The spec was refused, which other tests look at.
                return Ok(());
            }
            if status.phase.completed() {
                let judged = status.metric_results.iter().filter(|result| !result.dry_run);
                let worst = judged.clone().any(|result| {
                    matches!(result.phase, Failed | Inconclusive | Error)
                });
                prop_assert_eq!(status.phase == Successful, !worst);
                if status.phase == Successful && !bench.world.run.spec.terminate {
                    prop_assert_eq!(status.metric_results.len(), fields.len());
                    for result in judged {
                        prop_assert!(result.phase == Successful && result.count > 0);
                    }
                }
                ended = Some(status);
            } else {
                prop_assert!(bench.wake.is_some(), "somebody looks again");
            }
        }
    }
}

const RETAINED: usize = 10;
