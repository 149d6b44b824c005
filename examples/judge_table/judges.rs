//! Those that are compared: the judge as the product runs it, and what is in use elsewhere. Each looks once a minute.

use tidegate::analysis::judge::counts::{Arm, Interval};
use tidegate::analysis::judge::dispersion::Dispersion;
use tidegate::analysis::judge::harm::{Bets, Margin};
use tidegate::analysis::judge::{Settings, State, Verdict};

use crate::oracle;

pub const MINUTES: usize = 60;
const ALPHA: f64 = 0.01;

/// In the order of the columns.
pub const NAMES: [&str; 11] =
    ["argo0", "argo3", "naiveF", "F/60", "judge", "e1", "m1.25", "m1.25+d", "end", "LM", "safe"];
pub const JUDGE: usize = 4;

/// The minute of the alarm of each, in the order of [`NAMES`].
pub type Alarms = [Option<u8>; NAMES.len()];

/// All of them over one analysis.
pub fn all(minutes: impl Iterator<Item = Interval>) -> Alarms {
    let mut alarms = Alarms::default();
    let plain = margin(1.0, 0.0);
    let mut bad_minutes = 0;
    let (mut canary, mut stable) = (Arm::default(), Arm::default());
    let (mut harm, mut safe) = (judge(plain, false), judge(plain, true));
    let mut margins = [plain, margin(1.25, 0.0), margin(1.25, 0.0005)].map(|margin| (margin, Bets::default()));
    for (index, interval) in minutes.enumerate() {
        let minute = index as u8 + 1;
        let mut alarm = |judge: usize, reached: bool| {
            if reached && alarms[judge].is_none() {
                alarms[judge] = Some(minute);
            }
        };
        bad_minutes += u32::from(interval.canary.rate().is_some_and(|rate| 1.0 - rate < 0.95));
        alarm(0, bad_minutes > 0);
        alarm(1, bad_minutes > 3);

        canary = canary.plus(interval.canary);
        stable = stable.plus(interval.stable);
        let p = fisher(canary, stable);
        alarm(2, p < ALPHA);
        alarm(3, p < ALPHA / MINUTES as f64);
        alarm(8, usize::from(minute) == MINUTES && p < ALPHA);

        harm.observe(index, interval);
        alarm(JUDGE, harm.verdict() == Some(Verdict::Harm));
        for (place, (margin, bets)) in margins.iter_mut().enumerate() {
            bets.add(&interval, *margin, 1.0);
            alarm(5 + place, bets.ln_e() >= (1.0 / ALPHA).ln());
        }
        let theta = canary.requests() as f64 / canary.plus(stable).requests() as f64;
        let (x_c, x_s) = (canary.failures() as f64, stable.failures() as f64);
        let lm = oracle::lindon_malek(x_c, x_s, theta, 10.0 * theta, 10.0 * (1.0 - theta));
        alarm(9, lm >= (1.0 / ALPHA).ln());
        safe.observe(index, interval);
        alarm(10, safe.verdict() == Some(Verdict::Safe));
    }
    alarms
}

/// The judge alone, with a margin (a ratio) and a dispersion.
pub fn only(minutes: impl Iterator<Item = Interval>, ratio: f64, dispersion: Dispersion) -> Option<u8> {
    let mut judge = Running { settings: settings(margin(ratio, 0.0), false), state: State::new(dispersion) };
    for (index, interval) in minutes.enumerate() {
        judge.observe(index, interval);
        if judge.verdict().is_some() {
            return Some(index as u8 + 1);
        }
    }
    None
}

struct Running {
    settings: Settings,
    state: State,
}

fn judge(margin: Margin, early: bool) -> Running {
    let mut settings = settings(margin, early);
    if early {
        // Only what it calls safe is asked for.
        settings.alpha = 1e-300;
    }
    Running { settings, state: State::new(Dispersion::Given(1.0)) }
}

impl Running {
    fn observe(&mut self, minute: usize, interval: Interval) {
        let from = minute as f64 * 60.0;
        self.state.observe(&self.settings, from, from + 60.0, Ok(interval));
    }

    fn verdict(&self) -> Option<Verdict> {
        self.state.decision().map(|decision| decision.verdict)
    }
}

fn settings(margin: Margin, early: bool) -> Settings {
    Settings {
        margin,
        safe: self::margin(1.5, 0.001),
        alpha: ALPHA,
        beta: 0.05,
        metrics: 1,
        horizon: 60.0 * MINUTES as f64,
        warm_up: 0.0,
        weight: None,
        early,
    }
}

fn margin(ratio: f64, absolute: f64) -> Margin {
    Margin::new(ratio, absolute).expect("the margins of this file are valid")
}

/// Fisher's one-sided test, where it may matter.
fn fisher(canary: Arm, stable: Arm) -> f64 {
    if canary.rate() <= stable.rate() {
        return 1.0;
    }
    oracle::fisher(canary.failures(), canary.requests(), stable.failures(), stable.requests())
}
