//! What many runs amount to: verdicts, false alarms, and what became of known incidents.

use jiff::SignedDuration;

use super::replay::Run;
use super::report::{self, Alarm, Incident, Quiet, Tested, Verdicts};
use super::subject::Subject;
use super::times::Window;
use crate::api::analysis::AnalysisPhase;
use crate::cli::units::wilson;

/// `runs` are in the order of their starts, which are `every` apart.
pub fn score(
    subject: &Subject,
    runs: &[Run],
    incidents: &[Window],
    every: SignedDuration,
    lasts: SignedDuration,
) -> Tested {
    let quiet: Vec<&Run> = runs.iter().filter(|run| incidents.iter().all(|window| !touches(run, window))).collect();
    Tested {
        name: subject.name.clone(),
        duration_seconds: lasts.as_secs_f64(),
        metrics: subject.asked.iter().map(|asked| asked.metric.name.clone()).collect(),
        verdicts: verdicts(runs.iter()),
        quiet: of_quiet(&quiet, every, lasts),
        incidents: incidents.iter().map(|window| incident(runs, *window)).collect(),
        alarms: alarms(&quiet, every),
        runs: runs.iter().map(shown).collect(),
    }
}

fn touches(run: &Run, window: &Window) -> bool {
    run.started < window.to && run.ended > window.from
}

fn shown(run: &Run) -> report::Run {
    let message = if run.phase == AnalysisPhase::Successful { String::new() } else { run.message.clone() };
    report::Run { at: run.started, phase: run.phase.as_str(), seconds: run.seconds(), message }
}

fn verdicts<'a>(runs: impl Iterator<Item = &'a Run>) -> Verdicts {
    let mut verdicts = Verdicts::default();
    for run in runs {
        match run.phase {
            AnalysisPhase::Failed => verdicts.failed += 1,
            AnalysisPhase::Error => verdicts.error += 1,
            AnalysisPhase::Inconclusive => verdicts.inconclusive += 1,
            _ => verdicts.successful += 1,
        }
    }
    verdicts
}

fn of_quiet(quiet: &[&Run], every: SignedDuration, lasts: SignedDuration) -> Quiet {
    let (runs, stopped) = (quiet.len(), quiet.iter().filter(|run| run.stopped()).count());
    let share = if runs == 0 { 0.0 } else { stopped as f64 / runs as f64 };
    // Runs that overlap see the same minutes: together they know no more than those that fit in one after the other.
    let overlap = (lasts.as_secs_f64() / every.as_secs_f64().max(1.0)).max(1.0);
    let independent = if runs == 0 { 0.0 } else { (runs as f64 / overlap).max(1.0) };
    Quiet {
        runs,
        stopped,
        inconclusive: quiet.iter().filter(|run| run.phase == AnalysisPhase::Inconclusive).count(),
        share,
        between: if runs == 0 { [0.0, 1.0] } else { wilson(share * independent, independent) },
        independent_runs: independent,
    }
}

fn incident(runs: &[Run], window: Window) -> Incident {
    let touching: Vec<&Run> = runs.iter().filter(|run| touches(run, &window)).collect();
    let stopped: Vec<&&Run> = touching.iter().filter(|run| run.stopped()).collect();
    let first = stopped.iter().map(|run| run.ended.duration_since(window.from).as_secs_f64()).reduce(f64::min);
    let mut delays: Vec<f64> =
        stopped.iter().map(|run| run.ended.duration_since(window.from.max(run.started)).as_secs_f64()).collect();
    delays.sort_by(f64::total_cmp);
    Incident {
        window,
        detected: !stopped.is_empty(),
        runs: touching.len(),
        stopped: stopped.len(),
        inconclusive: touching.iter().filter(|run| run.phase == AnalysisPhase::Inconclusive).count(),
        first_seconds: first,
        median_seconds: delays.get(delays.len().saturating_sub(1) / 2).copied(),
    }
}

fn alarms(quiet: &[&Run], every: SignedDuration) -> Vec<Alarm> {
    let mut alarms: Vec<Alarm> = Vec::new();
    for run in quiet.iter().filter(|run| run.stopped()) {
        match alarms.last_mut() {
            Some(last) if run.started.duration_since(last.to) <= every => {
                last.to = run.started;
                last.runs += 1;
            }
            _ => {
                alarms.push(Alarm { from: run.started, to: run.started, runs: 1, why: run.message.clone() });
            }
        }
    }
    alarms
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    fn at(minute: i64) -> Timestamp {
        Timestamp::from_second(minute * 60).unwrap()
    }

    fn run(started: i64, lasted: i64, phase: AnalysisPhase) -> Run {
        let message = format!("{phase} at {}", started + lasted);
        Run { started: at(started), ended: at(started + lasted), phase, message, metric: None, cut_off: false }
    }

    /// Runs of ten minutes, every five; those that begin in 25..45 fail after two, from minute 30 on.
    fn runs() -> Vec<Run> {
        let failed = |start: i64| run(start, (32 - start).max(2), AnalysisPhase::Failed);
        let run = |start: i64| match start {
            25..45 => failed(start),
            80 | 85 | 95 => run(start, 1, AnalysisPhase::Error),
            60 => run(start, 10, AnalysisPhase::Inconclusive),
            _ => run(start, 10, AnalysisPhase::Successful),
        };
        (0..20).map(|number| run(number * 5)).collect()
    }

    #[test]
    fn false_alarms_are_those_of_quiet_time() {
        let every = SignedDuration::from_mins(5);
        let (runs, window) = (runs(), Window { from: at(30), to: at(45) });
        let of = |windows: &[Window]| -> Vec<Run> {
            runs.iter().filter(|run| windows.iter().all(|window| !touches(run, window))).cloned().collect()
        };
        // Runs that began at 25 to 40 touch the incident; the one from 20 to 30 does not.
        let quiet = of(&[window]);
        assert_eq!(quiet.len(), 16);
        let quiet: Vec<&Run> = quiet.iter().collect();
        let found = of_quiet(&quiet, every, SignedDuration::from_mins(10));
        assert_eq!((found.runs, found.stopped, found.inconclusive, found.independent_runs), (16, 3, 1, 8.0));
        assert!(found.between[0] > 0.03 && found.between[1] < 0.6 && found.between[0] < found.share, "{found:?}");
        let alarms = alarms(&quiet, every);
        let shown: Vec<_> = alarms.iter().map(|alarm| (alarm.from, alarm.to, alarm.runs, alarm.why.as_str())).collect();
        assert_eq!(shown, [(at(80), at(85), 2, "Error at 81"), (at(95), at(95), 1, "Error at 96")]);
        assert_eq!(verdicts(runs.iter()), Verdicts { successful: 12, failed: 4, error: 3, inconclusive: 1 });
        let nothing = of_quiet(&[], every, every);
        assert_eq!((nothing.share, nothing.between), (0.0, [0.0, 1.0]));
    }

    #[test]
    fn an_incident_is_detected_or_missed_and_after_how_long() {
        let runs = runs();
        let seen = incident(&runs, Window { from: at(30), to: at(45) });
        assert_eq!((seen.detected, seen.runs, seen.stopped), (true, 4, 4));
        assert_eq!((seen.first_seconds, seen.median_seconds), (Some(120.0), Some(120.0)));
        let missed = incident(&runs, Window { from: at(61), to: at(65) });
        assert_eq!((missed.detected, missed.runs, missed.inconclusive, missed.first_seconds), (false, 2, 1, None));
        // Nobody was there.
        assert_eq!(incident(&runs, Window { from: at(500), to: at(510) }).runs, 0);
    }
}
