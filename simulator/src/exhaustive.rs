//! Every single fault at every point of every base scenario, and every pair of crashes on the smallest.

use anyhow::{Result, ensure};

use crate::base::{ALL, Base};
use crate::faults::Counts;
use crate::life::live;
use crate::script::{Answer, Fault, Millis, Script, WatchHow, What, When};

/// Which faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
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
    /// Every pair of crashes.
    Pairs,
}

impl Tier {
    pub const ALL: [Self; 6] = [Self::Crashes, Self::Answers, Self::Watches, Self::Stale, Self::Leaders, Self::Pairs];
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
    let single = faults(&flawless.counts, tier);
    if tier == Tier::Pairs {
        let pairs = single.iter().flat_map(|one| {
            let later = single.iter().filter(move |other| number(other) > number(one));
            later.map(move |other| script(vec![one.clone(), other.clone()]))
        });
        return Ok(pairs.collect());
    }
    Ok(single.into_iter().map(|fault| script(vec![fault])).collect())
}

/// The base scenarios that a tier runs on.
pub fn bases(tier: Tier) -> &'static [Base] {
    if tier == Tier::Pairs { &ALL[..1] } else { ALL }
}

fn number(fault: &Fault) -> u32 {
    match fault.when {
        When::Call(number) | When::Write(number) | When::Event(number) => number,
        When::At(_) => 0,
    }
}

fn faults(counts: &Counts, tier: Tier) -> Vec<Fault> {
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
