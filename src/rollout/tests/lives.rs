//! Whatever users, pods, gateways and analysis do, in whatever order, and however often the controller dies: decisions
//! settle, and traffic finds pods.

use serde_json::json;

use super::sim::{Sim, image_of};
use super::{basic_steps, step_analysis};
use crate::api::analysis::AnalysisPhase;
use crate::api::names::POD_TEMPLATE_HASH;

const DAYS: usize = 30;

#[test]
fn random_canaries_settle_and_serve() {
    (0..40).for_each(|seed| live(seed, canary));
}

#[test]
fn random_blue_greens_settle_and_serve() {
    (0..25).for_each(|seed| live(seed, blue_green));
}

fn canary(random: &mut Random) -> Sim {
    let mut strategy = step_analysis();
    if random.below(2) == 0 {
        strategy["analysis"] = json!({"templates": [{"templateName": "errors"}], "startingStep": random.below(3)});
    }
    strategy["dynamicStableScale"] = (random.below(2) == 0).into();
    match random.below(3) {
        0 => Sim::new(basic_steps(), 4),
        1 => Sim::routed(strategy, 5).template("errors"),
        _ => Sim::ping_pong(strategy, 5).template("errors"),
    }
}

fn blue_green(random: &mut Random) -> Sim {
    let mut strategy = json!({});
    match random.below(3) {
        0 => strategy["autoPromotionEnabled"] = false.into(),
        1 => strategy["autoPromotionSeconds"] = 10.into(),
        _ => {}
    }
    for field in ["prePromotionAnalysis", "postPromotionAnalysis"] {
        if random.below(2) == 0 {
            strategy[field] = json!({"templates": [{"templateName": "errors"}]});
        }
    }
    if random.below(2) == 0 {
        strategy["previewReplicaCount"] = random.below(3).into();
    }
    if random.below(2) == 0 {
        strategy["scaleDownDelaySeconds"] = (random.below(4) * 7).into();
        strategy["scaleDownDelayRevisionLimit"] = random.below(3).into();
    }
    let mut sim = Sim::blue_green(strategy, 4).template("errors");
    sim.run(20);
    sim
}

/// A life, and its good end once nothing disturbs it any more.
fn live(seed: u64, begin: fn(&mut Random) -> Sim) {
    let random = &mut Random::with_seed(seed);
    let mut sim = begin(random);
    sim.chance = (random.below(2) == 0).then_some(seed);
    for _ in 0..DAYS {
        disturb(&mut sim, random);
        sim.run(random.below(25) as i64);
        check_traffic(&sim, seed);
    }
    sim.world.failures.clear();
    sim.broken = None;
    (sim.refuses, sim.slow) = (false, false);
    sim.patch("the end of all faults", |status| {
        status.abort = false;
        status.pause_conditions.clear();
    });
    sim.edit("nothing is paused", |rollout| rollout.spec.paused = false);
    sim.image("web:v9");
    sim.run(30);
    sim.patch("promoted", |status| status.promote_full = true);
    sim.run(200);
    assert_eq!(sim.status().phase, "Healthy", "seed {seed}: {}", sim.tail());
    assert_eq!(sim.status().stable_rs, sim.set("web:v9").hash(), "seed {seed}");
    let others = sim.world.replica_sets.iter().filter(|set| set.hash() != sim.status().stable_rs);
    assert!(others.clone().all(|set| set.replicas == 0), "seed {seed}: {}", sim.tail());
    if is_blue_green(&sim) {
        assert_eq!(sim.selected("active"), sim.set("web:v9").hash(), "seed {seed}");
    }
}

fn disturb(sim: &mut Sim, random: &mut Random) {
    match random.below(12) {
        0 | 1 => sim.image(random.one(["web:v1", "web:v2", "web:v3"])),
        2 => sim.patch("abort", |status| status.abort = true),
        3 => sim.patch("retry", |status| status.abort = false),
        4 => sim.patch("promote", |status| status.pause_conditions.clear()),
        5 => sim.patch("promote fully", |status| status.promote_full = true),
        6 => {
            let paused = random.below(2) == 0;
            sim.edit("spec.paused", |rollout| rollout.spec.paused = paused);
        }
        7 => {
            let replicas = random.below(8) as i32;
            sim.edit("replicas", |rollout| rollout.spec.replicas = Some(replicas));
        }
        8 => sim.broken = random.one([None, Some("web:v2"), Some("web:v3")]),
        9 => (sim.refuses, sim.slow) = (random.below(3) == 0, random.below(4) == 0),
        10 => {
            let phase = random.one([AnalysisPhase::Successful, AnalysisPhase::Failed, AnalysisPhase::Inconclusive]);
            let mut runs = sim.world.analysis_runs.iter();
            let going = runs.find(|run| run.status.as_ref().is_none_or(|status| !status.phase.completed()));
            if let Some(name) = going.and_then(|run| run.metadata.name.clone()) {
                sim.judge(&name, phase, "by chance");
            }
        }
        _ => sim.patch("skip", |status| {
            status.pause_conditions.clear();
            status.current_step_index = status.current_step_index.map(|index| index + 1);
        }),
    }
}

/// The active Service has the pods that are wanted; every weight leads to a Service whose ReplicaSet has available pods,
/// unless pods of that version never become available or none are wanted.
fn check_traffic(sim: &Sim, seed: u64) {
    let behind = |service: &str| {
        let hash = sim.world.services[service].object.selector.get(POD_TEMPLATE_HASH)?;
        sim.world.replica_sets.iter().find(|set| set.hash() == hash)
    };
    let spec = &sim.world.rollout.spec;
    if is_blue_green(sim) {
        let (pods, wanted) = (behind("active").unwrap().replicas, spec.desired_replicas());
        assert!(pods >= wanted, "seed {seed}: {pods} of {wanted} pods for users\n{}", sim.tail());
        return;
    }
    if sim.world.services.is_empty() || spec.replicas == Some(0) || spec.paused {
        return;
    }
    for (service, weight) in [("stable", 100 - sim.weight()), ("canary", sim.weight())] {
        let Some(set) = behind(service).filter(|_| weight > 0) else { continue };
        let fragile = sim.broken == Some(&*image_of(set)) || set.status.available < set.replicas;
        let served = fragile || set.replicas > 0;
        assert!(served, "seed {seed}: weight {weight} leads to no pods of {}\n{}", set.name, sim.tail());
    }
}

fn is_blue_green(sim: &Sim) -> bool {
    sim.world.rollout.spec.strategy.blue_green.is_some()
}

/// A generator whose numbers depend on its seed alone.
struct Random(u64);

impl Random {
    fn with_seed(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn below(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below
    }

    fn one<T: Copy, const N: usize>(&mut self, of: [T; N]) -> T {
        of[self.below(N as u64) as usize]
    }
}
