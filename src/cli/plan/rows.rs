//! The steps of a release, and the stretches that are none, with their times.

use serde_json::Value;

use super::play::{Course, list};
use super::report::{Outcome, Pods, Row, Sample};
use super::setting::Setting;

/// Gateways follow a route this many seconds later, at most: what a step has done is looked at then. It is seen only when
/// nothing else has changed for as long, or with the next change.
const FOLLOWED: f64 = 0.25;
/// What happens at one instant is seen within so many seconds.
const INSTANT: f64 = 0.002;

/// Where a release stands.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Stage {
    Step(usize),
    /// After the last step of a canary, or all there is without steps.
    Finish,
    Preview,
    BeforePromotion,
    Promotion,
    Switched,
    AfterPromotion,
    Aborted,
    /// It has ended; pods that are no longer needed have not.
    After,
}

/// The rows, one after the other without gaps.
pub(super) fn rows(setting: &Setting, course: &Course) -> Vec<Row> {
    let mut stretches: Vec<(Stage, u64)> = Vec::new();
    for (at, rollout) in &course.statuses {
        let status = &rollout["status"];
        if course.new_hash.is_empty() || status["currentPodHash"] != *course.new_hash {
            continue;
        }
        let mut stage = stage(setting, status, &course.new_hash);
        // Nothing is left to be waited for but the switch.
        if stage == Stage::Preview && stretches.iter().any(|(earlier, _)| *earlier != Stage::Preview) {
            stage = Stage::Switched;
        }
        if stretches.last().is_none_or(|(last, _)| *last != stage) {
            // The first begins with the release, though the controller needs a moment to see it.
            stretches.push((stage, if stretches.is_empty() { 0 } else { *at }));
        }
    }
    let end = course.samples.last().map_or(0, |sample| (sample.at * 1000.0) as u64).max(course.ended);
    let ends = stretches.iter().skip(1).map(|(_, at)| *at).chain([end]).collect::<Vec<_>>();
    let mut rows: Vec<Row> = Vec::new();
    for (index, ((stage, from), to)) in stretches.iter().zip(&ends).enumerate() {
        if *stage == Stage::After && from == to {
            continue;
        }
        let (from, to) = (*from as f64 / 1000.0, *to as f64 / 1000.0);
        let next = stretches.get(index + 1);
        // What comes at the end of a stretch belongs to the one after it.
        let before = |sample: &&Sample| sample.at < to || next.is_none();
        let last = course.samples.iter().rfind(before).or(course.samples.first());
        let Some(last) = last else { continue };
        let within = course.samples.iter().filter(before).filter(|sample| sample.at > from);
        let most = within.chain([last]).map(Sample::pods).max().unwrap_or(0);
        // But what it has waited for it has reached, and gateways follow a moment later.
        let seen_until = |until: f64| course.samples.iter().rfind(|sample| sample.at <= until).unwrap_or(last);
        let reached = if next.is_some() { seen_until(to + INSTANT) } else { last };
        let ready = |before: Pods, reached: Pods| Pods { ready: reached.ready.max(before.ready), ..before };
        let moves = match stage {
            Stage::Step(step) => setting.subject.steps[*step].starts_with("setWeight"),
            stage => matches!(stage, Stage::Switched | Stage::Finish),
        };
        let aborted = course.aborted.map_or(f64::INFINITY, |aborted| aborted as f64 / 1000.0 - INSTANT);
        let until = ends.get(index + 1).map_or(to, |next| *next as f64 / 1000.0).min(to + FOLLOWED).min(aborted);
        let weight = if moves && next.is_some() { seen_until(until).weight } else { last.weight };
        rows.push(Row {
            step: if let Stage::Step(step) = stage { Some(*step) } else { None },
            what: what(setting, stage, course.outcome),
            from,
            to,
            weight,
            old_pods: ready(last.old_pods, reached.old_pods),
            new_pods: ready(last.new_pods, reached.new_pods),
            other_pods: ready(last.other_pods, reached.other_pods),
            surge: (most - i64::from(setting.subject.replicas)).max(0),
        });
    }
    rows
}

fn stage(setting: &Setting, status: &Value, new_hash: &str) -> Stage {
    if status["abort"] == true {
        return Stage::Aborted;
    }
    if status["stableRS"] == *new_hash && status["phase"] == "Healthy" {
        return Stage::After;
    }
    if setting.subject.strategy == "canary" {
        let step = status["currentStepIndex"].as_u64().and_then(|step| usize::try_from(step).ok());
        return match step.filter(|step| *step < setting.subject.steps.len()) {
            Some(step) => Stage::Step(step),
            None => Stage::Finish,
        };
    }
    let blue_green = &status["blueGreen"];
    let runs = |field: &str| {
        let phase = blue_green[field]["status"].as_str().unwrap_or_default();
        blue_green[field].is_object() && !["Successful", "Failed", "Error", "Inconclusive"].contains(&phase)
    };
    if blue_green["activeSelector"] == *new_hash {
        return if runs("postPromotionAnalysisRunStatus") { Stage::AfterPromotion } else { Stage::Switched };
    }
    if runs("prePromotionAnalysisRunStatus") {
        Stage::BeforePromotion
    } else if list(&status["pauseConditions"]).next().is_some() {
        Stage::Promotion
    } else {
        Stage::Preview
    }
}

fn what(setting: &Setting, stage: &Stage, outcome: Outcome) -> String {
    let steps = &setting.subject.steps;
    let canary = setting.subject.strategy == "canary";
    match stage {
        Stage::Step(step) => steps[*step].clone(),
        Stage::Finish if steps.is_empty() => "all pods are replaced".to_owned(),
        Stage::Finish => "the rest of the pods and the traffic".to_owned(),
        Stage::Preview => "preview pods start".to_owned(),
        Stage::BeforePromotion => "analysis before the promotion".to_owned(),
        Stage::Promotion if setting.promoted_by_hand => "until promoted".to_owned(),
        Stage::Promotion => "until the automatic promotion".to_owned(),
        Stage::Switched => "the active Service switches".to_owned(),
        Stage::AfterPromotion => "analysis after the promotion".to_owned(),
        Stage::Aborted => "aborted".to_owned(),
        Stage::After if outcome == Outcome::Completed && canary => "released; old pods go".to_owned(),
        Stage::After => "released; old pods stay a while".to_owned(),
    }
}
