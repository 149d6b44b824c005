//! What every test run simulates; `make simulate` and CI do far more.

use std::process::Command;

use tidegate_simulator::exhaustive::{self, Tier};
use tidegate_simulator::parallel::{self, Settings, Summary};
use tidegate_simulator::random;
use tidegate_simulator::script::{Script, What};

/// Of the exhaustive tiers every so many-th script.
const EVERY: usize = 101;
/// Random lives, and seconds for which things go wrong in each.
const LIVES: u64 = 40;
const SECONDS: u64 = 300;

#[test]
fn no_single_fault_breaks_a_promise() {
    let mut scripts = Vec::new();
    for tier in Tier::ALL {
        for (number, base) in exhaustive::bases(tier).into_iter().enumerate() {
            // Which ones differs from base to base.
            let of_tier = exhaustive::scripts(base, tier).unwrap().into_iter();
            scripts.extend(of_tier.skip(number * 7 % EVERY).step_by(EVERY));
        }
    }
    assert_flawless(&parallel::run(scripts.into_iter(), Settings::default()));
}

#[test]
fn no_random_life_breaks_a_promise() {
    let scripts: Vec<Script> = (1..=LIVES).map(|seed| random::script(seed, SECONDS)).collect();
    assert_flawless(&parallel::run(scripts.into_iter(), Settings::default()));
}

/// Scripts that have broken a promise once.
const FOUND: &[&str] = &[
    // The background analysis began late, and the bad version was promoted before it had said anything.
    "background-bad#1 | event 1: watch analysisruns drop",
    "background-bad#1 | event 1: watch analysisruns lag 1",
    // Pods were counted that had gone with a size in between: stable shrank for the canary, and grew again for an abort.
    "basic#1 | 3300ms: replicasets behind 300ms 10s | 4100ms: user abort",
    "basic#1 | 3300ms: replicasets behind 1s 10s | 5200ms: user abort",
    // Nobody looked again for what a watch had lost.
    "gateway#1 | event 1: watch httproutes drop",
    "gateway#1 | event 20: watch replicasets drop",
    "experiment#1 | event 5: watch rollouts drop",
    "scaled#1 | event 23: watch replicasets drop",
    // A version became stable again by pods that had been reported before they went.
    "window#1 | event 16: watch replicasets drop",
    // An update had just ended, and the Service that still had its weight was switched to the next version.
    "undone-at-once#1",
    // The stable Service, which led to nobody any more, got all of the traffic before its new pods were known.
    "dynamic#1 | event 16: watch rollouts lag 8",
    // A subset was switched to pods that proxies did not know yet.
    "subsets#1 | write 20: user promote-full",
    "subsets#1 | 12s: user scale 1 | 80s: user release grey",
    // A Service was switched to a version whose last pods were just going.
    "window#1 | event 15: watch replicasets lag 3",
    // Each count of a restart in the midst of an update was a write of its own.
    "gateway#1 | write 46: user restart",
    // A create that was held up on its way brought back a ReplicaSet that the history had no room for.
    "basic-superseded#1 | write 1: leader 12s",
    // The next version came before the first one had taken over the pods of a Deployment, which then kept them for ever.
    "workload-ref#1 | write 5: user release gold",
    // One refusal failed an experiment, and with it the release; so did one list that was not found.
    "experiment#1 | call 49: answer 403",
    "experiment#1 | call 60: answer denied",
    "experiment#1 | call 4: answer 404",
    // A write that the server had no time for was sent for 20 s, whatever happened meanwhile.
    "superseded#103826 for 120s | 48735ms: answers 429 20s | 69688ms: unready stable 26s | 72171ms: metrics bad 21s",
    // An abort was heard half a minute after the last of several failures.
    "superseded#61375 for 3600s | 3234039ms: user release blue | 3312249ms: answers 403 17s | 3359548ms: user abort | \
     3370682ms: answers 503 4s | 3389210ms: answer 422",
    // A restart in the midst of an abort made pods without end.
    "scaled#70390 | 380573ms: user release red | 490400ms: user restart | 493139ms: user abort",
    // All pods of a canary without weight were restarted, and in the moment in which they were ready it got its first weight.
    "dynamic#227 for 3600s | 722547ms: user swap | 1100762ms: clock -4823ms | 1142255ms: user release grey | \
     1563409ms: user swap | 1690061ms: user release red | 1783544ms: user release green | 1784181ms: user restart",
    // Stable, too small for what it had, got more since the canary was too small as well.
    "dynamic#70624 for 3600s | 2949423ms: user scale 2 | 3002492ms: user release red",
    // Of what a scale-down stands on, one answer came 100 ms after the others, and a pod had gone in between.
    "scaled#505865 | 46601ms: answer 503 | 47009ms: evict stable",
    // Somebody gave the canary's Service everything, and before that was known it was switched to a new version.
    "abort#509973 for 120s | 36870ms: crash after | 41002ms: answer 409 | 65175ms: user undo | 74817ms: crash before | \
     83341ms: crash after | 105235ms: crash before | 108238ms: watch httproutes lag 4 | 119802ms: edit route",
    // A pod more to restart another one, and a new version at the same moment: together beyond maxSurge.
    "workload-ref#1 | 20s: user release red | 60s: watch replicasets late 19890ms | 60s: user restart | 65s: user release gold",
];

#[test]
fn what_has_broken_a_promise_once_breaks_none() {
    let scripts: Vec<Script> = FOUND.iter().map(|line| line.parse().unwrap()).collect();
    assert_flawless(&parallel::run(scripts.into_iter(), Settings::default()));
}

#[test]
fn the_same_seed_in_two_processes_gives_the_same_life_byte_for_byte() {
    let leads_twice = |script: &Script| script.faults.iter().any(|fault| matches!(fault.what, What::Pause(_)));
    for bases in [["gateway", "nginx"], ["inline", "background-good"], ["experiment", "blue-green"]] {
        let scripts = (1..).map(|seed| random::script(seed, 900));
        let mut fitting = scripts.filter(|it| bases.contains(&it.base.as_str()) && leads_twice(it));
        let script = fitting.next().unwrap();
        let trace = || {
            let mut simulate = Command::new(env!("CARGO_BIN_EXE_simulate"));
            simulate.args(["run", "--trace", "--script", &script.to_string()]).output().unwrap().stdout
        };
        let (one, other) = (trace(), trace());
        assert!(one.len() > 50_000, "{script}: {}", String::from_utf8_lossy(&one));
        let differing = one.split(|byte| *byte == b'\n').zip(other.split(|byte| *byte == b'\n'));
        let differing = differing.enumerate().find(|(_, (one, other))| one != other);
        let differing = differing.map(|(line, (one, other))| {
            format!("line {line}:\n{}\n{}", String::from_utf8_lossy(one), String::from_utf8_lossy(other))
        });
        assert!(one == other, "{script}: {}", differing.unwrap_or_default());
    }
}

fn assert_flawless(summary: &Summary) {
    let failures = summary.failures.iter().map(|(script, violation)| parallel::told(script, violation));
    assert!(summary.failures.is_empty(), "{}", failures.collect::<Vec<_>>().join("\n"));
    assert!(summary.lives > 0);
}
