//! Every single fault at every point of every base scenario, and every pair of crashes on the smallest.

use anyhow::{Result, ensure};
use clap::ValueEnum;

use crate::base::{ALL, Base, PATHS};
use crate::faults::Counts;
use crate::life::live;
use crate::script::{Answer, Edit, Fault, Metrics, Millis, Router, Script, User, Version, WatchHow, What, When};

/// Which faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Tier {
    /// Crash before and after every write.
    Crashes,
    /// Every answer to every call.
    Answers,
    /// Every watch event lost, doubled, or the watch broken or expired before it.
    Watches,
    /// Every watch late from every event on.
    Stale,
    /// The leader stands still at every write while another one takes over.
    Leaders,
    /// For a while from every write on, every write is refused.
    Outages,
    /// Whatever people and nature do, at every write.
    World,
    /// Every pair of crashes.
    Pairs,
}

impl Tier {
    pub const ALL: [Self; 8] = [
        Self::Crashes,
        Self::Answers,
        Self::Watches,
        Self::Stale,
        Self::Leaders,
        Self::Outages,
        Self::World,
        Self::Pairs,
    ];

    /// As commands name it.
    pub fn name(self) -> String {
        format!("{self:?}").to_lowercase()
    }
}

/// The scripts of a tier for a base scenario: first a life without faults shows where they can strike.
///
/// # Errors
/// The life without faults breaks a promise: then no other one means anything.
pub fn scripts(base: &Base, tier: Tier) -> Result<Vec<Script>> {
    let script = |faults: Vec<Fault>| Script { base: base.name.to_owned(), seed: 1, horizon: 0, faults };
    let flawless = live(&script(Vec::new()), false)?;
    let first = flawless.violations.first();
    ensure!(
        first.is_none(),
        "{} breaks a promise without any fault: {}",
        base.name,
        first.map(ToString::to_string).unwrap_or_default()
    );
    let single = faults(base, &flawless.counts, tier);
    if tier == Tier::Pairs {
        let pairs = single.iter().flat_map(|one| {
            let later = single.iter().filter(move |other| number(other) > number(one));
            later.map(move |other| script(vec![one.clone(), other.clone()]))
        });
        return Ok(pairs.collect());
    }
    let mut scripts: Vec<Script> = single.into_iter().map(|fault| script(vec![fault])).collect();
    if tier == Tier::World {
        // In between there is no Rollout that writes.
        let deleted = || Fault::new(When::At(Millis(8_000)), What::User(User::Delete));
        let meanwhile = |what| Fault::new(When::At(Millis(10_000)), what);
        scripts.extend(whats(base).into_iter().map(|what| script(vec![deleted(), meanwhile(what)])));
    }
    Ok(scripts)
}

/// The base scenarios that a tier runs on.
pub fn bases(tier: Tier) -> Vec<&'static Base> {
    match tier {
        Tier::Pairs => ALL.iter().take(1).collect(),
        // As many as there are calls and events: what the others add is the way, not the number of faults on it.
        Tier::Answers | Tier::Watches | Tier::Stale => ALL.iter().collect(),
        Tier::Crashes | Tier::Leaders | Tier::Outages | Tier::World => ALL.iter().chain(PATHS).collect(),
    }
}

fn number(fault: &Fault) -> u32 {
    match fault.when {
        When::Call(number) | When::Write(number) | When::Event(number) => number,
        When::At(_) => 0,
    }
}

fn faults(base: &Base, counts: &Counts, tier: Tier) -> Vec<Fault> {
    let mut faults = Vec::new();
    match tier {
        Tier::Crashes | Tier::Pairs => {
            for write in 1..=counts.writes {
                faults.push(Fault::new(When::Write(write), What::CrashBefore));
                faults.push(Fault::new(When::Write(write), What::CrashAfter));
            }
        }
        Tier::Answers => {
            for call in 1..=counts.calls {
                faults.extend(Answer::ALL.map(|answer| Fault::new(When::Call(call), What::Answer(answer))));
            }
        }
        Tier::Leaders => {
            for write in 1..=counts.writes {
                faults.extend([4_000, 12_000].map(|time| Fault::new(When::Write(write), What::Pause(Millis(time)))));
            }
        }
        Tier::Outages => {
            let answers = [Answer::Forbidden, Answer::Unavailable];
            for write in 1..=counts.writes {
                faults.extend(answers.map(|it| Fault::new(When::Write(write), What::Outage(it, Millis(10_000)))));
            }
        }
        Tier::World => {
            let whats = whats(base);
            for write in 1..=counts.writes {
                // Not all at each, or it would take days; but all of them, and at each of them some.
                let now =
                    whats.iter().enumerate().filter(|(number, _)| (*number as u32 + write).is_multiple_of(SPREAD));
                faults.extend(now.map(|(_, what)| Fault::new(When::Write(write), what.clone())));
            }
        }
        Tier::Watches | Tier::Stale => {
            let all: &[WatchHow] = if tier == Tier::Watches {
                &[WatchHow::Drop, WatchHow::Twice, WatchHow::Expire, WatchHow::End]
            } else {
                &[
                    WatchHow::Lag(1),
                    WatchHow::Lag(2),
                    WatchHow::Lag(3),
                    WatchHow::Lag(8),
                    WatchHow::Late(Millis(3_000)),
                    WatchHow::Late(Millis(20_000)),
                ]
            };
            for (kind, events) in &counts.events {
                for event in 1..=*events {
                    let watch = |how: &WatchHow| What::Watch { kind: kind.clone(), how: *how };
                    faults.extend(all.iter().map(|how| Fault::new(When::Event(event), watch(how))));
                }
            }
        }
    }
    faults
}

/// Of the writes of a base scenario every so many-th meets the same deed.
const SPREAD: u32 = 5;

/// What people and nature do, as far as it means anything in a base scenario.
fn whats(base: &Base) -> Vec<What> {
    let has = |text: &str| base.manifest.contains(text);
    let a_while = Millis(12_000);
    let mut whats: Vec<What> = [
        User::Release("gold".to_owned()),
        User::Undo,
        User::Abort,
        User::Retry,
        User::Promote,
        User::PromoteFull,
        User::Pause,
        User::Scale(1),
        User::Scale(9),
        User::Restart,
        User::Steps,
        User::Swap,
        User::Delete,
    ]
    .map(What::User)
    .into();
    whats.extend([What::Clock(4_000), What::Clock(-4_000), What::Quota(a_while), What::Node(a_while)]);
    for version in [Version::Stable, Version::Canary] {
        whats.extend([What::Evict(version), What::Unready(version, a_while)]);
    }
    if has("AnalysisTemplate") {
        whats.extend(Metrics::ALL.map(|metrics| What::Metrics(metrics, a_while)));
    }
    if has("HTTPRoute") {
        let delay = Millis(8_000);
        let routers = [Router::Slow(delay), Router::Late(Millis(4_000)), Router::Lies, Router::Silent, Router::Refuses];
        whats.extend(routers.map(|router| What::Router(router, a_while)));
        whats.extend([What::Edit(Edit::Route), What::Edit(Edit::Note)]);
    }
    if has("kind: Service") {
        whats.push(What::Edit(Edit::Service));
    }
    whats
}
