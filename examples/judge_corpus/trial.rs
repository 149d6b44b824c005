//! A release before a judge: the product's own looks over what Prometheus answers, and the usual threshold beside it.

use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use tidegate::analysis::compare::{Answers, Comparison, Look};
use tidegate::analysis::judge::counts::Arm;
use tidegate::analysis::judge::detectable;
use tidegate::api::analysis::{AnalysisPhase, Metric, MetricResult};
use tidegate::api::field_error::FieldPath;

use super::counters::{Counters, START};
use super::releases::{HORIZON, Release, WARM_UP};

/// How many times the evidence that an alarm needs is to be expected of what is called enough traffic. The evidence that comes
/// scatters around what is expected, by about the root of twice as much.
const ENOUGH: f64 = 4.0;

/// What became of a release.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outcome {
    pub phase: AnalysisPhase,
    /// Seconds after which it was known.
    pub after: f64,
}

/// A release and what both have said of it.
pub struct Trial {
    pub release: Release,
    pub judge: Outcome,
    /// In what words.
    pub said: String,
    /// Of at least 95% of the canary's requests successful each minute, with a failure limit of 0.
    pub threshold: Outcome,
    /// Whether a bad release was one that could be found.
    pub enough: bool,
}

pub fn run(release: Release) -> Trial {
    let counters = Counters::of(&release);
    let comparison = comparison();
    let enough = release.is_bad() && enough(&release, &comparison);
    let (judge, said) = judge(&release, &counters, &comparison);
    Trial { judge, said, threshold: threshold(&counters), enough, release }
}

/// As a user writes it, but for counters of the corpus' own: every default is the product's.
fn comparison() -> Comparison {
    let own = |version: &str| json!({"total": format!("total{{v=\"{version}\"}}"), "errors": format!("errors{{v=\"{version}\"}}")});
    let metric = json!({"name": "errors", "compare": {"canary": own("canary"), "stable": own("stable")}});
    let metric: Metric = serde_json::from_value(metric).expect("it is a metric");
    let compare = metric.compare.clone().expect("it compares");
    Comparison::parse(&metric, &compare, 1, &FieldPath::default()).expect("it makes sense")
}

fn judge(release: &Release, counters: &Counters, comparison: &Comparison) -> (Outcome, String) {
    let start = Timestamp::from_second(START).expect("it is a time");
    let mut result = MetricResult::default();
    let mut at = comparison.first_look();
    loop {
        let now = start + SignedDuration::from_secs_f64(at);
        let look = Look::new(comparison, "shop", (start, now), Some(&result), Some(release.weight));
        let mut answers = Answers::default();
        for question in look.questions() {
            let series = counters.answer(&question);
            look.note(&mut answers, question.asked, series);
        }
        let judgement = look.judge(&answers);
        if judgement.ends {
            return (Outcome { phase: judgement.phase, after: at }, judgement.message);
        }
        // As it is kept in the status between one look and the next.
        result = MetricResult { judge: judgement.memory, count: result.count + 1, ..result };
        at = comparison.next_look(at);
    }
}

fn threshold(counters: &Counters) -> Outcome {
    for minute in 1..=HORIZON / 60 {
        let at = WARM_UP + 60 * minute;
        let (requests, failures) = counters.canary(at - 60, at);
        if requests > 0 && (requests - failures) as f64 / (requests as f64) < 0.95 {
            return Outcome { phase: AnalysisPhase::Failed, after: at as f64 };
        }
    }
    Outcome { phase: AnalysisPhase::Successful, after: (WARM_UP + HORIZON) as f64 }
}

/// Whether what the canary does until the horizon gives enough evidence, from what the release is and not from what was counted.
fn enough(release: &Release, comparison: &Comparison) -> bool {
    let begins = release.onset.max(WARM_UP);
    let requests: f64 = (begins..WARM_UP + HORIZON).map(|at| release.traffic(at)).sum();
    let arm = |part: f64| {
        let count = requests * part;
        Arm::new((count * release.failure_rate).round() as u64, count as u64)
    };
    let (Some(canary), Some(stable)) = (arm(release.weight), arm(1.0 - release.weight)) else { return false };
    let settings = &comparison.settings;
    let bar = ENOUGH * settings.bar();
    detectable::ratio(canary, stable, settings.margin, release.dispersion(), bar)
        .is_some_and(|ratio| ratio <= release.times)
}
