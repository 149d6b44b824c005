//! Every single fault at every point of every base scenario, and every pair of crashes on the smallest.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use anyhow::{Result, bail};
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
    /// Every kind of fault in every state that it passes.
    States,
    /// Every pair of crashes.
    Pairs,
}

impl Tier {
    pub const ALL: [Self; 9] = [
        Self::Crashes,
        Self::Answers,
        Self::Watches,
        Self::Stale,
        Self::Leaders,
        Self::Outages,
        Self::World,
        Self::States,
        Self::Pairs,
    ];

    /// As commands name it.
    pub fn name(self) -> String {
        format!("{self:?}").to_lowercase()
    }
}

/// In these gateways or endpoints are already as late as they may be. With a clock that jumps, or fewer pods on top, nobody
/// could keep every request.
const AT_THE_LIMIT: [&str; 3] =
    ["dynamic-behind-late-gateways", "undone-behind-late-gateways", "switch-before-endpoints"];

/// The scripts of a tier for a base scenario: first a life without faults shows where they can strike.
///
/// # Errors
/// The life without faults breaks a promise: then no other one means anything.
pub fn scripts(base: &Base, tier: Tier) -> Result<Vec<Script>> {
    let script = |faults: Vec<Fault>| Script { base: base.name.to_owned(), seed: 1, horizon: 0, faults };
    let (counts, states) = flawless(base)?;
    if tier == Tier::States {
        return Ok(in_states(&states).into_iter().map(script).collect());
    }
    let single = faults(base, &counts, tier);
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

/// What can be struck in a base scenario, and the states that it passes.
type Flawless = (Counts, Vec<(u64, &'static str)>);

/// The life without faults: lived once in a process, since every tier asks.
fn flawless(base: &Base) -> Result<Flawless> {
    static LIVED: Mutex<BTreeMap<&'static str, Flawless>> = Mutex::new(BTreeMap::new());
    let lived = || LIVED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(flawless) = lived().get(base.name) {
        return Ok(flawless.clone());
    }
    let script = Script { base: base.name.to_owned(), seed: 1, horizon: 0, faults: Vec::new() };
    let outcome = live(&script, false)?;
    if let Some(first) = outcome.violations.first() {
        bail!("{} breaks a promise without any fault: {first}", base.name);
    }
    let flawless = (outcome.counts, outcome.states);
    lived().insert(base.name, flawless.clone());
    Ok(flawless)
}

/// One of each kind of fault in each state, where that lasts longest; and where there is no Rollout.
fn in_states(states: &[(u64, &'static str)]) -> Vec<Vec<Fault>> {
    let at = |time: u64, what: &What| Fault::new(When::At(Millis(time)), what.clone());
    let mut longest: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for (at, (from, state)) in states.iter().enumerate() {
        // The last one stays.
        let (from, until) = (*from, states.get(at + 1).map_or(from + 4_000, |(next, _)| *next));
        let span = longest.entry(state).or_insert((from, until));
        if until - from > span.1 - span.0 {
            *span = (from, until);
        }
    }
    let mut all = Vec::new();
    for (from, until) in longest.into_values() {
        let middle = from.midpoint(until);
        all.extend(of_world().iter().map(|what| vec![at(middle, what)]));
        // What strikes a request needs one: a quiet state has none unless a user wants something.
        let wish = What::User(User::Scale(5));
        all.extend(of_requests().iter().map(|what| vec![at(middle, what), at(middle, &wish)]));
        // The event that tells of the state, and the next one in it.
        all.extend(of_watches().iter().map(|what| vec![at(from, what)]));
        all.extend(of_watches().iter().map(|what| vec![at(middle, what), at(middle, &wish)]));
    }
    let deleted = at(DELETED, &What::User(User::Delete));
    all.extend(of_world().iter().map(|what| vec![deleted.clone(), at(DELETED + 2_000, what)]));
    // The watch tells of a deletion once, and the Event that says so is the last write.
    let told = [of_requests(), of_watches()].concat();
    all.extend(told.iter().map(|what| vec![deleted.clone(), at(DELETED, what)]));
    all
}

/// When a Rollout is deleted that is to be away while something goes wrong.
const DELETED: u64 = 8_000;

/// One of each kind that happens by itself.
fn of_world() -> Vec<What> {
    let a_while = Millis(12_000);
    vec![
        What::Clock(4_000),
        What::Metrics(Metrics::Empty, a_while),
        What::User(User::Release("gold".to_owned())),
        What::User(User::Abort),
        What::User(User::Steps),
        What::Router(Router::Slow(Millis(8_000)), a_while),
        What::Edit(Edit::Route),
        What::Evict(Version::Canary),
    ]
}

/// One of each kind that strikes a request.
fn of_requests() -> Vec<What> {
    vec![
        What::CrashBefore,
        What::CrashAfter,
        What::Answer(Answer::Conflict),
        What::Answer(Answer::Lost),
        What::Outage(Answer::Unavailable, Millis(5_000)),
        What::Pause(Millis(4_000)),
    ]
}

/// One of each kind that strikes a watch.
fn of_watches() -> Vec<What> {
    let watch = |how| What::Watch { kind: "rollouts".to_owned(), how };
    vec![watch(WatchHow::Late(Millis(3_000))), watch(WatchHow::Twice)]
}

/// The base scenarios that a tier runs on.
pub fn bases(tier: Tier) -> Vec<&'static Base> {
    match tier {
        Tier::Pairs => ALL.iter().take(1).collect(),
        // As many as there are calls and events: what the others add is the way, not the number of faults on it.
        Tier::Answers | Tier::Watches | Tier::Stale => ALL.iter().collect(),
        Tier::States => ALL.iter().chain(PATHS).filter(|base| STATES.contains(&base.name)).collect(),
        Tier::Crashes | Tier::Leaders | Tier::Outages => ALL.iter().chain(PATHS).collect(),
        Tier::World => ALL.iter().chain(PATHS).filter(|base| !AT_THE_LIMIT.contains(&base.name)).collect(),
    }
}

/// The base scenarios that pass all states between them.
const STATES: [&str; 11] = [
    "basic",
    "gateway",
    "blue-green",
    "abort",
    "superseded",
    "experiment",
    "inline",
    "undone",
    "unheard-promote",
    "unheard-promote-full",
    "unheard-abort",
];

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
        // It places them by time.
        Tier::States => {}
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
    whats.push(What::Behind(Millis(1_000), a_while));
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
    }
    if has("HTTPRoute") || has("VirtualService") {
        whats.extend([What::Edit(Edit::Route), What::Edit(Edit::Note)]);
    }
    if has("kind: Service") {
        whats.push(What::Edit(Edit::Service));
    }
    whats
}
