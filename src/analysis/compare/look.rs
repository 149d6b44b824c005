//! One look of the judge: what is asked of Prometheus, and what follows from the answers.
//!
//! Intervals lie on a grid that begins with the run, and are counted once, in order, by whoever looks next. So a look that comes
//! late, after an outage of Prometheus or of the controller, ends where looks in time would have ended.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::{Comparison, Judged, LAG, Queries};
use crate::analysis::judge::counts::{Arm, Interval, Side, Unusable};
use crate::analysis::judge::dispersion::{self, Dispersion};
use crate::analysis::judge::growth::{self, Series};
use crate::analysis::judge::{Settings, State, StateError, Verdict};
use crate::api::analysis::{AnalysisPhase, MetricResult};

/// Seconds before an interval in which a series must have had a sample, or it is a new one that began at 0. Twice what
/// Prometheus itself takes for the present: a target that was not scraped for a while must not bring its whole past along.
const LOOK_BACK: f64 = 600.0;
/// Seconds that one look catches up with; what is left is left for the next, so that no answer grows without bounds.
const LONGEST: f64 = 3600.0;
/// Minutes before the run by which it is measured how many failures come together.
const MINUTES: u32 = 60;
const MINUTE: f64 = 60.0;

/// What a comparison has to do now.
#[derive(Clone, Debug, PartialEq)]
pub struct Look {
    comparison: Comparison,
    canary: Queries,
    stable: Queries,
    /// Seconds since 1970.
    started: f64,
    /// The intervals that are to be counted.
    from: u32,
    to: u32,
    memory: Result<Option<Memory>, String>,
    /// The canary's part of the requests as it is set now.
    weight: Option<f64>,
}

/// What is kept between looks, in the status.
#[derive(Clone, Debug, PartialEq)]
struct Memory {
    state: State,
    /// As it was set when last looked at; none after a gap.
    weight: Option<f64>,
}

/// Which counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Asked {
    Total(Side),
    Judged(Side),
    /// Of stable's pods, minute by minute before the run.
    PastTotal,
    PastJudged,
}

/// A query for a counter's samples. Those that come last may be left without an answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Question {
    pub asked: Asked,
    pub query: String,
    /// With a beginning the samples are those of each minute, otherwise all that there are.
    pub start: Option<Timestamp>,
    pub end: Timestamp,
}

/// A series of an answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sampled {
    /// The value of its label `pod`.
    pub pod: String,
    /// Seconds since 1970, and values.
    pub samples: Series,
}

/// What the series of an answer amount to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answers(BTreeMap<Asked, BTreeMap<String, Vec<Grown>>>);

/// A counter in one interval.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Grown {
    growth: f64,
    /// There were samples in it, and before it.
    seen: bool,
    known_before: bool,
}

/// What a look found.
#[derive(Clone, Debug, PartialEq)]
pub struct Judgement {
    pub phase: AnalysisPhase,
    pub value: String,
    pub message: String,
    pub metadata: BTreeMap<String, String>,
    /// To be kept for the next look.
    pub memory: Option<String>,
    /// The phase is that of the metric, for good.
    pub ends: bool,
}

impl Question {
    /// Whether the judge does without an answer.
    pub fn optional(&self) -> bool {
        matches!(self.asked, Asked::PastTotal | Asked::PastJudged)
    }
}

impl Look {
    /// `result` is what there is of the metric so far.
    pub fn new(
        comparison: &Comparison,
        namespace: &str,
        (started, now): (Timestamp, Timestamp),
        result: Option<&MetricResult>,
        weight: Option<f64>,
    ) -> Self {
        let (canary, stable) = comparison.queries(namespace);
        let memory = recall(result);
        let from = match &memory {
            Ok(Some(memory)) => comparison.over(memory.state.until() + LAG),
            _ => 0,
        };
        let most = ((LONGEST / comparison.interval) as u32).max(1);
        let over = comparison.over(now.duration_since(started).as_secs_f64());
        Self {
            comparison: comparison.clone(),
            canary,
            stable,
            started: started.as_millisecond() as f64 / 1000.0,
            from,
            to: over.clamp(from, from.saturating_add(most)),
            memory,
            weight,
        }
    }

    /// What is to be asked, the indispensable first.
    pub fn questions(&self) -> Vec<Question> {
        let Ok(memory) = &self.memory else { return Vec::new() };
        if self.from == self.to {
            return Vec::new();
        }
        let end = self.started + self.comparison.end_of(self.to);
        let window = (end - self.started - self.comparison.end_of(self.from) + LOOK_BACK).ceil();
        let mut questions: Vec<Question> = [(Side::Canary, &self.canary), (Side::Stable, &self.stable)]
            .into_iter()
            .flat_map(|(side, queries)| {
                [(Asked::Total(side), queries.total.as_str()), (Asked::Judged(side), queries.judged.selector())]
            })
            .map(|(asked, counter)| Question {
                asked,
                query: format!("{counter}[{window}s]"),
                start: None,
                end: instant(end),
            })
            .collect();
        if memory.is_none() && self.comparison.dispersion.is_none() && self.comparison.by_pod() {
            let start = Some(instant(self.started - MINUTE * f64::from(MINUTES)));
            for (asked, counter) in
                [(Asked::PastTotal, self.stable.total.as_str()), (Asked::PastJudged, self.stable.judged.selector())]
            {
                questions.push(Question { asked, query: counter.to_owned(), start, end: instant(self.started) });
            }
        }
        questions
    }

    /// The counters, to be shown beside the measurements.
    pub fn metadata(&self) -> BTreeMap<String, String> {
        let of = |version: &str, queries: &Queries| {
            let judged = match &queries.judged {
                Judged::Errors(query) => (format!("{version}Errors"), query.clone()),
                Judged::Good(query) => (format!("{version}Good"), query.clone()),
            };
            [(format!("{version}Total"), queries.total.clone()), judged]
        };
        of("canary", &self.canary).into_iter().chain(of("stable", &self.stable)).collect()
    }

    /// Adds what was answered.
    pub fn note(&self, answers: &mut Answers, asked: Asked, series: Vec<Sampled>) {
        let past = matches!(asked, Asked::PastTotal | Asked::PastJudged);
        let mut by_pod: BTreeMap<String, Vec<Series>> = BTreeMap::new();
        for Sampled { pod, samples } in series {
            by_pod.entry(if self.comparison.by_pod() { pod } else { String::new() }).or_default().push(samples);
        }
        let grown = |series: Vec<Series>| {
            if past {
                let end = |minute: u32| self.started - MINUTE * f64::from(MINUTES - minute);
                (0..MINUTES).map(|minute| Grown::between(&series, end(minute), end(minute + 1))).collect()
            } else {
                let end = |number: u32| self.started + self.comparison.end_of(number);
                (self.from..self.to).map(|number| Grown::between(&series, end(number), end(number + 1))).collect()
            }
        };
        let grown = by_pod.into_iter().map(|(pod, series)| (pod, grown(series))).collect();
        answers.0.insert(asked, grown);
    }

    /// What the answers to all indispensable questions say.
    pub fn judge(&self, answers: &Answers) -> Judgement {
        let memory = match &self.memory {
            Ok(Some(memory)) => memory.clone(),
            Ok(None) => Memory { state: State::new(self.dispersion(answers)), weight: None },
            Err(problem) => return Judgement::lost(problem),
        };
        let Memory { mut state, weight: before } = memory;
        // What was set some time between two looks is not held against the router.
        let weight = self.weight.filter(|weight| before == Some(*weight));
        let settings = Settings { weight, ..self.comparison.settings.clone() };
        let (mut compared, mut gap) = (false, false);
        let mut problem = None;
        for number in self.from..self.to {
            let seen = self.interval(answers, (number - self.from) as usize);
            // What came in a gap is counted in the interval after it, for those pods alone that were not seen.
            let after_gap = std::mem::replace(&mut gap, seen.is_err());
            let weight = settings.weight.filter(|_| !after_gap);
            let settings = Settings { weight, ..settings.clone() };
            match seen {
                Ok(interval) if interval.canary.requests() == 0 => {
                    problem = Some("no data from canary: it got no requests".to_owned())
                }
                Ok(interval) if interval.stable.requests() == 0 => {
                    problem = Some("no data from stable: it got no requests".to_owned())
                }
                Ok(_) => compared = true,
                Err(unusable) => problem = Some(unusable.to_string()),
            }
            let (from, to) = (self.comparison.end_of(number), self.comparison.end_of(number + 1));
            state.observe(&settings, from, to, seen);
        }
        let over = self.to == self.comparison.intervals();
        if over {
            state.conclude(&settings);
        }
        let (phase, ends) = match state.decision().map(|decision| decision.verdict) {
            Some(Verdict::Harm) => (AnalysisPhase::Failed, true),
            Some(Verdict::Safe) => (AnalysisPhase::Successful, true),
            Some(Verdict::Mismatch) => (AnalysisPhase::Inconclusive, true),
            // Whatever the user says about doubts: who has seen nothing has no doubts.
            None if over && !state.has_compared() => (AnalysisPhase::Inconclusive, true),
            None if over => (self.comparison.undecided, true),
            None if compared => (AnalysisPhase::Successful, false),
            None => (AnalysisPhase::Inconclusive, false),
        };
        let words = &self.comparison.words;
        let message = match (ends, phase) {
            (true, _) => words.sentence(&state, &settings),
            (false, AnalysisPhase::Successful) => String::new(),
            (false, _) => problem.unwrap_or_default(),
        };
        Judgement {
            phase,
            value: words.counts(&state),
            message,
            metadata: self.numbers(&state, &settings),
            memory: Some(Memory { state, weight: self.weight.filter(|_| !gap) }.written()),
            ends,
        }
    }

    /// What both versions did in an interval.
    fn interval(&self, answers: &Answers, index: usize) -> Result<Interval, Unusable> {
        let known_before =
            [Side::Canary, Side::Stable].into_iter().any(|side| answers.of(Asked::Total(side), index).known_before);
        let arm = |side: Side, queries: &Queries| {
            let (total, judged) = (answers.of(Asked::Total(side), index), answers.of(Asked::Judged(side), index));
            // Without samples from before nobody knows what of a counter's value is new.
            if !total.seen || !known_before {
                return Err(Unusable::NoData(side));
            }
            match &queries.judged {
                // No error yet, no series yet.
                Judged::Errors(_) => Arm::parse(side, judged.growth, total.growth),
                // But a bucket is there from the first request on. Without it all requests would seem to have failed.
                Judged::Good(_) if !judged.seen => Err(Unusable::NoData(side)),
                Judged::Good(_) => Arm::parse_good(side, judged.growth, total.growth),
            }
        };
        let interval = Interval::new(arm(Side::Canary, &self.canary)?, arm(Side::Stable, &self.stable)?);
        let pods = self.pods(answers, (Asked::Total(Side::Stable), Asked::Judged(Side::Stable)), index);
        Ok(Interval { clustering: dispersion::clustering(&pods), ..interval })
    }

    /// How many failures came together on stable's pods in the hour before.
    fn dispersion(&self, answers: &Answers) -> Dispersion {
        if let Some(factor) = self.comparison.dispersion {
            return Dispersion::Given(factor);
        }
        let past = (Asked::PastTotal, Asked::PastJudged);
        let minutes: Vec<Vec<Arm>> = (0..MINUTES as usize).map(|minute| self.pods(answers, past, minute)).collect();
        Dispersion::between_pods(&minutes)
    }

    /// What each of stable's pods did in an interval of two answers.
    fn pods(&self, answers: &Answers, (total, judged): (Asked, Asked), index: usize) -> Vec<Arm> {
        let (Some(total), Some(judged)) = (answers.0.get(&total), answers.0.get(&judged)) else { return Vec::new() };
        let arm = |(pod, total): (&String, &Vec<Grown>)| {
            let total = total.get(index)?;
            let judged = judged.get(pod).and_then(|judged| judged.get(index)).copied().unwrap_or_default();
            let arm = match &self.stable.judged {
                Judged::Errors(_) => Arm::parse(Side::Stable, judged.growth, total.growth),
                Judged::Good(_) if !judged.seen => return None,
                Judged::Good(_) => Arm::parse_good(Side::Stable, judged.growth, total.growth),
            };
            // A pod that was not there before began at 0; but where nothing was, its past may be part of the growth.
            arm.ok().filter(|arm| total.known_before && arm.requests() > 0)
        };
        total.iter().filter_map(arm).collect()
    }

    fn numbers(&self, state: &State, settings: &Settings) -> BTreeMap<String, String> {
        let (canary, stable) = state.totals();
        let (harm, safe) = state.evidence(settings);
        let factor = state.dispersion().factor();
        let dispersion = match state.dispersion() {
            Dispersion::Measured(_) => format!("{factor:.2}, measured"),
            Dispersion::Given(_) => format!("{factor}, given"),
            Dispersion::Assumed => format!("{factor}, assumed"),
        };
        let mut numbers = BTreeMap::from([
            ("canaryFailures", canary.failures().to_string()),
            ("canaryRequests", canary.requests().to_string()),
            ("stableFailures", stable.failures().to_string()),
            ("stableRequests", stable.requests().to_string()),
            ("dispersion", dispersion),
            ("evidenceOfHarm", format!("{harm:.2} of {:.2}", settings.bar())),
            ("evidenceOfSafety", format!("{safe:.2} of {:.2}", settings.safe_bar())),
        ]);
        if let Some(weight) = self.weight {
            numbers.insert("weight", format!("{:.4}", weight));
        }
        numbers.into_iter().map(|(key, text)| (key.to_owned(), text)).collect()
    }
}

impl Grown {
    fn between(series: &[Series], from: f64, to: f64) -> Self {
        let any = |after: f64, until: f64| series.iter().flatten().any(|(at, _)| *at > after && *at <= until);
        Self {
            growth: growth::between(series, from, to),
            seen: any(from, to),
            known_before: any(from - LOOK_BACK, from),
        }
    }

    fn plus(self, other: Self) -> Self {
        Self {
            growth: self.growth + other.growth,
            seen: self.seen || other.seen,
            known_before: self.known_before || other.known_before,
        }
    }
}

impl Answers {
    /// Of all pods.
    fn of(&self, asked: Asked, index: usize) -> Grown {
        let pods = self.0.get(&asked).into_iter().flat_map(BTreeMap::values);
        pods.filter_map(|intervals| intervals.get(index)).fold(Grown::default(), |sum, pod| sum.plus(*pod))
    }
}

impl Judgement {
    /// What was counted is gone. Counting anew would be looking until the answer pleases.
    fn lost(problem: &str) -> Self {
        Self {
            phase: AnalysisPhase::Inconclusive,
            value: String::new(),
            message: problem.to_owned(),
            metadata: BTreeMap::new(),
            memory: None,
            ends: true,
        }
    }
}

/// What was kept, or why it cannot be used.
fn recall(result: Option<&MetricResult>) -> Result<Option<Memory>, String> {
    let Some(result) = result else { return Ok(None) };
    match &result.judge {
        Some(text) => Memory::read(text).map(Some).map_err(|error| format!("undecided: {error}")),
        // Errors leave none behind.
        None if result.count == 0 => Ok(None),
        None => {
            Err("undecided: what has been counted is not in the status any more; are the CRDs those of this version?"
                .to_owned())
        }
    }
}

impl Memory {
    fn read(text: &str) -> Result<Self, StateError> {
        let json: Value = serde_json::from_str(text).map_err(|error| StateError::Unreadable(error.to_string()))?;
        Ok(Self { state: State::read(&json)?, weight: json["weight"].as_f64() })
    }

    fn written(&self) -> String {
        let mut json = json!(self.state);
        if let (Some(weight), Value::Object(fields)) = (self.weight, &mut json) {
            fields.insert("weight".to_owned(), json!(weight));
        }
        json.to_string()
    }
}

/// An instant of the analysis. Those outside of what can be told are at its ends.
fn instant(seconds: f64) -> Timestamp {
    let since = SignedDuration::try_from_secs_f64(seconds).unwrap_or(SignedDuration::ZERO);
    Timestamp::UNIX_EPOCH.saturating_add(since).unwrap_or(Timestamp::UNIX_EPOCH)
}

#[cfg(test)]
mod tests;
