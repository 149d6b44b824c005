//! Verdicts as a colleague would say them.

use super::counts::{Arm, Side};
use super::dispersion::Dispersion;
use super::harm::Margin;
use super::{Settings, State, Verdict};

/// How a verdict speaks of what it counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Words {
    /// What failures did: `failed`, or `took longer than 500ms`.
    pub failed: String,
}

impl Default for Words {
    fn default() -> Self {
        Self { failed: "failed".to_owned() }
    }
}

impl Words {
    /// The verdict with its numbers; or what stands in the way of one, so far or, at the end, for good.
    pub fn sentence(&self, state: &State, settings: &Settings) -> String {
        let after = |seconds: f64| duration(seconds - settings.warm_up);
        match state.decision() {
            Some(decision) => match decision.verdict {
                Verdict::Harm => format!(
                    "{}: {}; seen after {}{}",
                    self.counts(state),
                    harm(state, settings),
                    after(decision.after),
                    assumed(state),
                ),
                Verdict::Safe => format!(
                    "{}: no worse than {}, with {} confidence; seen after {}{}",
                    self.counts(state),
                    margin(settings.safe),
                    percent(1.0 - settings.beta),
                    after(decision.after),
                    assumed(state),
                ),
                Verdict::Mismatch => mismatch(state),
            },
            None => self.undecided(state, settings),
        }
    }

    fn undecided(&self, state: &State, settings: &Settings) -> String {
        let (canary, stable) = state.totals();
        for (side, arm) in [(Side::Canary, canary), (Side::Stable, stable)] {
            if arm.requests() > 0 {
                continue;
            }
            return match state.problem {
                Some(problem) if state.judged == 0 => match problem {
                    super::Unusable::NoData(_) => problem.to_string(),
                    problem => format!("no data that can be judged: {problem}"),
                },
                _ => format!("no data from {side}: it got no requests"),
            };
        }
        let span = duration(settings.horizon - settings.warm_up);
        let counts = self.counts(state);
        let lost = if state.unusable == 0 {
            String::new()
        } else {
            let problem = state.problem.map(|problem| format!(", the last because {problem}")).unwrap_or_default();
            format!("; {} intervals could not be judged{problem}", grouped(state.unusable.into()))
        };
        let assumed = assumed(state);
        match state.detectable(settings) {
            Some(ratio) if ratio <= settings.safe.ratio().max(2.0) => {
                format!("undecided: {counts}; in {span} a {}-fold change can be seen{assumed}{lost}", times(ratio))
            }
            Some(ratio) => format!(
                "not enough traffic: in {span} only a {}-fold change could be seen ({counts}{assumed}{lost})",
                times(ratio)
            ),
            None if stable.failures() == 0 && canary.failures() == 0 && settings.safe.absolute() > 0.0 => {
                let bets = super::safe::GRID.len() as f64;
                let needed = (bets / settings.beta).ln() / settings.safe.absolute() * state.dispersion.factor();
                format!(
                    "not enough traffic: {counts}; where nothing fails it takes up to {} requests to the canary to call it \
                     safe{assumed}{lost}",
                    grouped(needed.ceil() as u64)
                )
            }
            None => format!("not enough traffic: in {span} no change could be seen ({counts}{assumed}{lost})"),
        }
    }

    /// `canary 23 of 1,204 requests failed, stable 11 of 22,871`
    pub fn counts(&self, state: &State) -> String {
        let (canary, stable) = state.totals();
        let of = |arm: Arm| format!("{} of {}", grouped(arm.failures()), grouped(arm.requests()));
        format!("canary {} requests {}, stable {}", of(canary), self.failed, of(stable))
    }
}

/// `40 times the rate, at least 12 times with 99% confidence`
fn harm(state: &State, settings: &Settings) -> String {
    let (canary, stable) = state.totals();
    let confidence = percent(1.0 - settings.alpha);
    let least = match state.at_least(settings) {
        Some(ratio) => format!("at least {} times", times(ratio)),
        None if settings.margin.ratio() == 1.0 && settings.margin.absolute() == 0.0 => "more than stable".to_owned(),
        None => format!("more than {}", margin(settings.margin)),
    };
    match (canary.rate(), stable.rate()) {
        (Some(canary), Some(stable)) if stable > 0.0 && canary > stable => {
            format!("{} times the rate, {least} with {confidence} confidence", times(canary / stable))
        }
        // A canary that turned bad late may still look well on the whole.
        _ => format!("{least} with {confidence} confidence"),
    }
}

fn mismatch(state: &State) -> String {
    let (canary, all) = state.split.requests();
    let of = |part: f64| part / all.max(1) as f64;
    format!(
        "routing does not do what the weight says: {} of {} requests went to the canary ({}), its weight is {}",
        grouped(canary),
        grouped(all),
        percent(of(canary as f64)),
        percent(of(state.split.expected()))
    )
}

/// `1.5 times stable's rate plus 0.1% of requests`
fn margin(margin: Margin) -> String {
    let mut text = match margin.ratio() {
        1.0 => "stable's rate".to_owned(),
        ratio => format!("{} times stable's rate", significant(ratio)),
    };
    if margin.absolute() > 0.0 {
        text.push_str(&format!(" plus {} of requests", percent(margin.absolute())));
    }
    text
}

/// Says so when bursts could not be measured: the evidence is then weaker than it might be.
fn assumed(state: &State) -> String {
    match state.dispersion() {
        Dispersion::Assumed => format!("; failures are assumed to come {} at a time", state.dispersion.factor()),
        Dispersion::Measured(_) | Dispersion::Given(_) => String::new(),
    }
}

/// A ratio: two digits below ten, whole above.
fn times(ratio: f64) -> String {
    if ratio >= 9.95 { grouped(ratio.round().min(9e15) as u64) } else { significant(ratio) }
}

/// Two digits, without trailing zeros; three where they say something (1.25).
fn significant(number: f64) -> String {
    let digits = if (number * 10.0 - (number * 10.0).round()).abs() < 1e-9 { 1 } else { 2 };
    let digits = if number < 2.0 { digits } else { 1 };
    trimmed(format!("{number:.digits$}"))
}

/// A share of one in percent, with two significant digits unless it is a round number.
fn percent(share: f64) -> String {
    let percent = share * 100.0;
    let digits = match percent {
        p if (p - p.round()).abs() < 1e-9 => 0,
        p if p > 99.0 => 2,
        p if p >= 10.0 => 0,
        p if p > 0.0 => (1 - p.log10().floor() as i32).clamp(1, 9) as usize,
        _ => 0,
    };
    format!("{}%", trimmed(format!("{percent:.digits$}")))
}

fn trimmed(number: String) -> String {
    if number.contains('.') { number.trim_end_matches('0').trim_end_matches('.').to_owned() } else { number }
}

/// `22,871`
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `2 min 10 s`, the two largest units.
fn duration(seconds: f64) -> String {
    let seconds = seconds.max(0.0).round() as u64;
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let parts = match (hours, minutes) {
        (0, 0) => [(seconds, "s"), (0, "")],
        (0, _) => [(minutes, "min"), (seconds, "s")],
        _ => [(hours, "h"), (minutes, "min")],
    };
    let said = parts.iter().enumerate().filter(|(index, (number, _))| *index == 0 || *number > 0);
    said.map(|(_, (number, unit))| format!("{} {unit}", grouped(*number))).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::super::counts::{Interval, Unusable};
    use super::super::tests::settings;
    use super::*;

    fn arm(failures: u64, requests: u64) -> Arm {
        Arm::new(failures, requests).unwrap()
    }

    /// Judges intervals of ten seconds.
    fn judged(settings: &Settings, intervals: impl IntoIterator<Item = Result<Interval, Unusable>>) -> State {
        let mut state = State::new(Dispersion::Given(1.0));
        for (index, interval) in intervals.into_iter().enumerate() {
            let from = settings.warm_up + 10.0 * index as f64;
            state.observe(settings, from, from + 10.0, interval);
        }
        state
    }

    fn each(canary: (u64, u64), stable: (u64, u64)) -> Result<Interval, Unusable> {
        Ok(Interval::new(arm(canary.0, canary.1), arm(stable.0, stable.1)))
    }

    #[test]
    fn verdicts_read_like_a_colleagues_sentence() {
        let base = settings();
        let with = |change: fn(&mut Settings)| {
            let mut settings = settings();
            change(&mut settings);
            settings
        };
        let cases = [
            (
                base.clone(),
                judged(&base, vec![each((23, 1204), (11, 22_871))]),
                "canary 23 of 1,204 requests failed, stable 11 of 22,871: 40 times the rate, at least 8 times with 99% \
                 confidence; seen after 10 s",
            ),
            (
                base.clone(),
                judged(&base, vec![each((10, 100), (0, 2000))]),
                "canary 10 of 100 requests failed, stable 0 of 2,000: at least 20 times with 99% confidence; seen after 10 s",
            ),
            (
                with(|settings| settings.early = true),
                judged(&with(|settings| settings.early = true), vec![each((0, 300), (0, 5700)); 60]),
                "canary 0 of 4,500 requests failed, stable 0 of 85,500: no worse than 1.5 times stable's rate plus 0.1% of \
                 requests, with 95% confidence; seen after 2 min 30 s",
            ),
            (
                base.clone(),
                judged(&base, vec![each((0, 1), (0, 19)); 60]),
                "not enough traffic: canary 0 of 60 requests failed, stable 0 of 1,140; where nothing fails it takes up to \
                 4,788 requests to the canary to call it safe",
            ),
            (
                base.clone(),
                judged(&base, (0..180).map(|tick| each((0, 10), (u64::from(tick % 6 == 0), 990)))),
                "not enough traffic: in 30 min only a 15-fold change could be seen (canary 0 of 1,800 requests failed, \
                 stable 30 of 178,200)",
            ),
            (base.clone(), judged(&base, vec![Err(Unusable::NoData(Side::Canary)); 3]), "no data from canary"),
            (base.clone(), judged(&base, vec![each((0, 0), (3, 1000)); 3]), "no data from canary: it got no requests"),
            (
                base.clone(),
                judged(&base, vec![Err(Unusable::Negative(Side::Stable)); 3]),
                "no data that can be judged: a count of stable is negative, as after a counter reset",
            ),
            (
                with(|settings| settings.weight = Some(0.05)),
                judged(&with(|settings| settings.weight = Some(0.05)), vec![each((1, 1500), (2, 4500)); 10]),
                "routing does not do what the weight says: 1,500 of 6,000 requests went to the canary (25%), its weight is 5%",
            ),
        ];
        for (settings, state, sentence) in cases {
            assert_eq!(Words::default().sentence(&state, &settings), sentence);
        }
    }

    #[test]
    fn numbers_have_the_digits_that_say_something() {
        for (number, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (22_871, "22,871"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(number), text);
        }
        for (share, text) in [
            (0.99, "99%"),
            (0.999, "99.9%"),
            (0.001, "0.1%"),
            (0.0005, "0.05%"),
            (0.0123, "1.2%"),
            (0.0, "0%"),
            (1.0, "100%"),
        ] {
            assert_eq!(percent(share), text);
        }
        for (ratio, text) in
            [(1.25, "1.25"), (1.5, "1.5"), (2.0, "2"), (5.44, "5.4"), (9.96, "10"), (39.7, "40"), (1234.5, "1,235")]
        {
            assert_eq!(times(ratio), text);
        }
        for (seconds, text) in
            [(0.0, "0 s"), (130.0, "2 min 10 s"), (1800.0, "30 min"), (3900.0, "1 h 5 min"), (7200.0, "2 h")]
        {
            assert_eq!(duration(seconds), text);
        }
    }
}
